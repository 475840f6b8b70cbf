package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/health"
)

// refusals are what the settings in the datastore say and this host does not
// do, because it is not allowed or cannot be read. nil has none.
type refusals struct {
	mu   sync.Mutex // guards everything below
	list []config.Refusal
}

// set replaces them. It reports whether they are others than before.
func (r *refusals) set(res config.Result, unreadable error) bool {
	list := slices.Clone(res.Refused)
	if unreadable != nil {
		list = append(list, config.Refusal{Text: fmt.Sprintf("%v; what was in force stays: write it anew, or delete it", brief(unreadable))})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := !slices.Equal(r.list, list)
	r.list = list
	return changed
}

// fail notes that the settings as a whole cannot be used.
func (r *refusals) fail(err error) bool {
	return r.set(config.Result{Refused: []config.Refusal{{Text: brief(err) + "; what was in force stays"}}}, nil)
}

func (r *refusals) all() []config.Refusal {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

func (r *refusals) texts() []string {
	var out []string
	for _, one := range r.all() {
		out = append(out, one.Text)
	}
	return out
}

// checkSettings holds when this host does all that settings say.
func (a *agent) checkSettings() health.Verdict {
	stored, _, _ := a.notices.of(desired.ConditionSettings)
	unserved, _ := a.listeners.trouble()
	if wrong := slices.Concat(a.cfg.refused.texts(), stored, unserved, a.policy.offloads()); len(wrong) > 0 {
		return health.Verdict{Reason: "InvalidSettings", Message: strings.Join(wrong, "; ")}
	}
	return health.Verdict{OK: true, Reason: "InForce"}
}

// settingKeeper keeps what objects said of a host's settings: should one be wrong
// at its next start, that holds.
func settingKeeper() keeper[[]config.Value] {
	return keeper[[]config.Value]{"settings.json", "the settings of the last start"}
}

// keepSettings keeps those of a cluster; with "" of the one that they were of.
func keepSettings(dir, cluster string, values []config.Value) error {
	if was, err := settingKeeper().read(dir); err == nil && cluster == "" {
		cluster = was.Cluster
	}
	return settingKeeper().keep(dir, kept[[]config.Value]{cluster, values})
}

// honoured says whether what this host cannot do has to do with a question. That
// the datastore is locked is no such thing: the kernel follows it all the same.
func (a *agent) honoured(ask client.Ask) client.Answer {
	var wrong []string
	for _, r := range a.cfg.refused.all() {
		if concerns(ask, desired.NoticeKey{Condition: desired.ConditionSettings, Object: r.Object}, "") {
			wrong = append(wrong, r.Text)
		}
	}
	if len(wrong) > 0 {
		return client.Answer{Reason: client.ReasonSettings, Message: brief(errors.New(strings.Join(wrong, "; "))), Final: true}
	}
	unserved, _ := a.listeners.trouble()
	if unserved = slices.Concat(unserved, a.policy.offloads()); len(unserved) > 0 && concerns(ask, desired.NoticeKey{Condition: desired.ConditionSettings}, "") {
		return client.Answer{Reason: client.ReasonSettings, Message: brief(errors.New(strings.Join(unserved, "; ")))}
	}
	wrong, final := a.notices.against(func(k desired.NoticeKey, reason string) bool { return concerns(ask, k, reason) })
	if len(wrong) > 0 {
		return client.Answer{Reason: client.ReasonNotHonoured, Message: brief(errors.New(strings.Join(wrong, "; "))), Final: final}
	}
	return client.Answer{Enforced: true}
}

// against returns the blocking notices that are of interest, and whether there
// is one among them that no patience helps against.
func (n *notices) against(concerns func(desired.NoticeKey, string) bool) (wrong []string, final bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, v := range n.all {
		if v.Blocking && k.Condition != desired.ConditionDatastore && concerns(k, v.Reason) {
			wrong = append(wrong, k.Object+" "+v.Message)
			final = final || lasting(v.Reason)
		}
	}
	slices.Sort(wrong)
	return wrong, final
}

// lasting reports whether what a notice says stays so until something else is
// written.
func lasting(reason string) bool {
	switch reason {
	case "PolicyNotEnforced", "InvalidPolicy", "InvalidTier", "InvalidSettings":
		return true
	}
	return false
}

// concerns reports whether what is said of an object has to do with what was
// written: it is one of those, or may come of them. A question that names no
// objects is about everything.
func concerns(ask client.Ask, k desired.NoticeKey, reason string) bool {
	same := func(object string) bool { return bare(object) == bare(k.Object) }
	if ask.Objects == nil || slices.ContainsFunc(ask.Objects, same) {
		return true
	}
	kind, _, _ := strings.Cut(k.Object, " ")
	return slices.ContainsFunc(ask.Objects, func(object string) bool {
		of, _, _ := strings.Cut(object, " ")
		switch k.Condition {
		case desired.ConditionPolicy: // a policy that stands already, on a host endpoint that is new
			return of == "HostEndpoint" && reason == "PolicyNotEnforced" && kind != of
		case desired.ConditionSettings: // of an object that cannot be read
			return of == "FelixConfiguration" && k.Object == ""
		}
		return !aboutPolicy(of)
	})
}

// bare is an object without the tier that names of policies may begin with: those
// of tier default are stored with and without it.
func bare(object string) string {
	kind, name, _ := strings.Cut(object, " ")
	namespace, of, ok := strings.Cut(name, "/")
	if !ok {
		namespace, of = "", name
	}
	return kind + " " + namespace + "/" + strings.TrimPrefix(of, "default.")
}

// aboutPolicy reports whether objects of a kind say nothing about routes.
func aboutPolicy(kind string) bool {
	return strings.HasSuffix(kind, "NetworkPolicy") || strings.HasSuffix(kind, "NetworkSet") ||
		kind == "Tier" || kind == "Profile" || kind == "HostEndpoint" || kind == "FelixConfiguration"
}
