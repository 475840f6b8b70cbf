package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/health"
)

// notices keeps what the core has to say to people.
type notices struct {
	mu  sync.Mutex // guards everything below
	all map[desired.NoticeKey]desired.Notice
}

func newNotices() *notices { return &notices{all: map[desired.NoticeKey]desired.Notice{}} }

func (n *notices) note(p desired.Patch[desired.NoticeKey, desired.Notice]) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p.Play(n.all)
}

// of returns the notices of one condition, blocking ones first.
func (n *notices) of(condition string) (blocking, other []string, reason string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ks := slices.SortedFunc(maps.Keys(n.all), func(a, b desired.NoticeKey) int { return strings.Compare(a.Object, b.Object) })
	for _, k := range ks {
		v := n.all[k]
		if k.Condition != condition {
			continue
		}
		text := k.Object + " " + v.Message
		if !v.Blocking {
			other = append(other, text)
			continue
		}
		blocking = append(blocking, text)
		if reason == "" {
			reason = v.Reason
		}
	}
	return blocking, other, reason
}

// blocked returns the blocking notices of one condition as an error.
func (n *notices) blocked(condition string) error {
	blocking, _, _ := n.of(condition)
	if len(blocking) == 0 {
		return nil
	}
	return errors.New(strings.Join(blocking, "; "))
}

// checks are the conditions of an agent.
func (a *agent) checks() []health.Check {
	return []health.Check{
		{Type: health.Datastore, Eval: a.checkDatastore}, {Type: health.Kernel, Eval: a.checkKernel},
		{Type: health.Policy, Eval: a.checkPolicy}, {Type: health.Routing, Eval: a.checkRouting},
		{Type: health.Settings, Eval: a.checkSettings, Advisory: true},
		{Type: health.Addresses, Eval: a.checkAddresses, Advisory: true},
		{Type: health.Paths, Eval: a.checkPaths, Advisory: true},
	}
}

// verdict makes the verdict of a condition whose own check passed: the core's
// notices may still block it.
func (a *agent) verdict(condition, reason, message string) health.Verdict {
	blocking, other, why := a.notices.of(condition)
	if len(blocking) > 0 {
		return health.Verdict{Reason: why, Message: strings.Join(blocking, "; ")}
	}
	if len(other) > 0 {
		message = strings.Join(other, "; ")
	}
	return health.Verdict{OK: true, Reason: reason, Message: message}
}

func (a *agent) checkDatastore() health.Verdict {
	s := a.feed.State()
	switch {
	case !s.InSync:
		why := "the first read is under way"
		if s.LastError != nil {
			why = s.LastError.Error()
		}
		return health.Verdict{Reason: "NotInSync", Message: why}
	case !s.Connected:
		return health.Verdict{Reason: "Disconnected", Message: fmt.Sprintf(
			"out of sight for %s, forwarding goes on as it was: %v", s.Age(time.Now()).Round(time.Second), s.LastError)}
	}
	if problem := a.search.problem.get(); a.registered.Load() == nil || problem != "" {
		return health.Verdict{Reason: "NotRegistered", Message: cmp.Or(problem, "registration is under way")}
	}
	return a.verdict(health.Datastore, "InSync", "")
}

func (a *agent) checkKernel() health.Verdict {
	if !a.inSync.Load() {
		return health.Verdict{Reason: "NotProgrammed", Message: "waiting for the datastore; what was programmed before stays"}
	}
	for _, t := range a.tables.kernelTables() {
		if err := a.tables.trouble(t); err != nil {
			return health.Verdict{Reason: "NotProgrammed", Message: t.name + ": " + err.Error()}
		}
		if s := t.loop.Stats(); !a.programmedOnce.Load() && s.Pending > 0 {
			return health.Verdict{Reason: "NotProgrammed", Message: fmt.Sprintf("%s: %d entries to go", t.name, s.Pending)}
		}
	}
	a.programmedOnce.Store(true)
	message := ""
	if n := len(a.tables.links.Failed()); n > 0 {
		message = fmt.Sprintf("%d workload interfaces are gone, and their endpoints not removed yet", n)
	}
	return a.checkCarrier(message)
}

// checkPolicy holds when the kernel enforces what policy says.
func (a *agent) checkPolicy() health.Verdict {
	if !a.inSync.Load() {
		return health.Verdict{Reason: "NotInSync", Message: "waiting for the datastore; what was enforced before stays"}
	}
	if err := a.policy.loop.Err(); err != nil {
		return health.Verdict{Reason: "NotEnforced", Message: err.Error()}
	}
	if s := a.policy.loop.Stats(); s.ReadBacks == 0 || !a.enforcedOnce.Load() && s.Pending > 0 {
		return health.Verdict{Reason: "NotEnforced", Message: "the first rules are being put in place"}
	}
	a.enforcedOnce.Store(true)
	if err := a.policy.doc.trouble(); err != nil {
		return health.Verdict{Reason: "ConnectionsNotJudged", Message: err.Error()}
	}
	reason, message := "Enforced", fallenBack(a.policy.driver.Stats())
	if unknown := a.policy.strangers.message(time.Now()); unknown != "" {
		reason, message = "UnknownSenders", strings.TrimPrefix(message+"; "+unknown, "; ")
	}
	return a.verdict(health.Policy, reason, message)
}

func (a *agent) checkRouting() health.Verdict {
	if !a.inSync.Load() {
		return health.Verdict{Reason: "NotInSync", Message: "waiting for the datastore"}
	}
	if !a.speaks() {
		return a.verdict(health.Routing, "Off", a.withTunnels("BGP is off"))
	}
	for _, t := range a.tables.speakerTables() {
		if err := t.loop.Err(); err != nil {
			return health.Verdict{Reason: "SpeakerFailed", Message: t.name + ": " + err.Error()}
		}
	}
	sessions, err := a.speaker.States(context.Background())
	if err != nil {
		return health.Verdict{Reason: "SpeakerFailed", Message: err.Error()}
	}
	var down []string
	for _, s := range sessions {
		switch {
		case s.State != "Established":
			down = append(down, fmt.Sprintf("%s (%s) is %s %s", s.Name, s.Key.Addr, s.State, s.LastError))
		case !s.EndOfRIBReceived || !s.EndOfRIBSent:
			down = append(down, fmt.Sprintf("%s (%s) waits for End-of-RIB", s.Name, s.Key.Addr))
		}
	}
	if len(down) > 0 {
		return health.Verdict{Reason: "SessionsDown", Message: fmt.Sprintf("%d of %d sessions: %s", len(down), len(sessions), strings.Join(down, "; "))}
	}
	message := fmt.Sprintf("%d sessions", len(sessions))
	if len(sessions) == 1 {
		message = "1 session"
	}
	return a.verdict(health.Routing, "SessionsUp", a.withTunnels(message))
}

// withTunnels adds what is wrong with this host's addresses of tunnels.
func (a *agent) withTunnels(message string) string {
	if err := a.addresses.Err(); err != nil {
		return message + "; " + err.Error()
	}
	return message
}

// stuckAfter is how long the core may take over one batch.
const stuckAfter = 2 * time.Minute

// alive says whether the core still turns: one that has worked on the same
// batch for this long will not come back by itself.
func (a *agent) alive() error {
	since := a.busySince.Load()
	if since == 0 {
		return nil
	}
	if d := time.Since(time.Unix(since, 0)); d > stuckAfter {
		return fmt.Errorf("the core has worked on one batch for %s", d.Round(time.Second))
	}
	return nil
}

// samples are the agent's metrics.
func (a *agent) samples() []health.Sample {
	var out []health.Sample
	for _, t := range a.loops() {
		s, table := t.loop.Stats(), map[string]string{"table": t.name}
		out = append(out,
			health.Sample{Name: "brindle_table_entries", Help: "Entries wanted.", Labels: table, Value: float64(s.Wanted)},
			health.Sample{Name: "brindle_table_failing", Help: "Entries that cannot be programmed.", Labels: table, Value: float64(s.Failing)},
			health.Sample{Name: "brindle_table_changes_total", Help: "Entries set or deleted.", Labels: table, Value: float64(s.Sets + s.Deletes), Counter: true},
			health.Sample{Name: "brindle_table_repairs_total", Help: "Entries that others changed and we put right.", Labels: table, Value: float64(s.Repaired), Counter: true},
			health.Sample{Name: "brindle_table_passes_total", Help: "Passes over the table.", Labels: table, Value: float64(s.Passes), Counter: true},
		)
	}
	a.askPrograms()
	out = append(out, a.policy.strangers.samples()...)
	p := a.policy.loop.Stats()
	out = append(out,
		health.Sample{Name: "brindle_policy_syncs_total", Help: "Changes of policy put in force, or tried.", Value: float64(p.Applies), Counter: true},
		health.Sample{Name: "brindle_policy_failures_total", Help: "Changes of policy that could not be put in force.", Value: float64(p.Failures), Counter: true},
		health.Sample{Name: "brindle_policy_pending", Help: "Changes of policy not in force yet.", Value: float64(p.Pending)})
	out = append(out, lookUpSamples(a.policy.driver.Stats())...)
	out = append(out, a.carrier.samples()...)
	out = append(out, a.pathSamples()...)
	st := a.feed.State()
	return append(out,
		health.Sample{Name: "brindle_datastore_age_seconds", Help: "How old what we know of the datastore may be.", Value: st.Age(time.Now()).Seconds()},
		health.Sample{Name: "brindle_start_time_seconds", Help: "When the agent began, or last replaced itself, since 1970.", Value: float64(a.began.UnixMilli()) / 1000},
		health.Sample{Name: "brindle_workload_mtu_bytes", Help: "MTU of new workload interfaces.", Value: float64(a.mtu.Load())})
}
