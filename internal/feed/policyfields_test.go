package feed

import (
	"slices"
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
)

// TestEveryHonouredFieldOfRulesIsTried: a field that claims TestRuleFields for
// its proof is in it.
func TestEveryHonouredFieldOfRulesIsTried(t *testing.T) {
	tried := map[string]bool{}
	for _, f := range ruleFields() {
		tried["Rule."+f.fields] = true
	}
	for key, test := range v3.HonouredFields() {
		if strings.HasPrefix(key, "Rule.") && test == "internal/feed.TestRuleFields" && !tried[key] {
			t.Errorf("%s is not tried", key)
		}
	}
}

// TestPolicyFields: each field of a policy, beside rules, from what is stored
// to the rules of the back end.
func TestPolicyFields(t *testing.T) {
	type policy struct{ kind, name, spec string }
	deny := func(rest string) string { return `{"types":["Ingress"],"ingress":[{"action":"Deny"}]` + rest + `}` }
	allow := func(rest string) string { return `{"types":["Ingress"],"ingress":[{"action":"Allow"}]` + rest + `}` }
	in, out := tcp(fe, 80), flow{peer: fe, out: true, protocol: 6, to: 80}
	for _, tt := range []struct {
		name     string
		policies []policy
		flow     flow
		want     bool
	}{
		{"no policy", nil, in, true},
		{"ingress", []policy{{"NetworkPolicy", "p", deny("")}}, in, false},
		{"types: the other direction is not touched", []policy{{"NetworkPolicy", "p", deny("")}}, out, true},
		{"egress", []policy{{"NetworkPolicy", "p", `{"types":["Egress"],"egress":[{"action":"Deny"}]}`}}, out, false},
		{"types: rules of another direction are ignored", []policy{{"NetworkPolicy", "p", `{"types":["Egress"],"ingress":[{"action":"Deny"}],"egress":[{"action":"Allow"}]}`}}, in, true},
		{"end of the tier", []policy{{"NetworkPolicy", "p", `{"types":["Ingress"]}`}}, in, false},
		{"selector", []policy{{"NetworkPolicy", "p", deny(`,"selector":"app == 'web'"`)}}, in, false},
		{"selector of others", []policy{{"NetworkPolicy", "p", deny(`,"selector":"app == 'db'"`)}}, in, true},
		{"serviceAccountSelector", []policy{{"NetworkPolicy", "p", deny(`,"serviceAccountSelector":"has(trusted)"`)}}, in, true},
		{"order", []policy{{"NetworkPolicy", "a", deny(`,"order":2`)}, {"NetworkPolicy", "b", allow(`,"order":1`)}}, in, true},
		{"order: none is last", []policy{{"NetworkPolicy", "a", deny("")}, {"GlobalNetworkPolicy", "b", allow(`,"order":1`)}}, in, true},
		{"tier", []policy{{"NetworkPolicy", "a", deny("")}, {"NetworkPolicy", "b", allow(`,"tier":"first"`)}}, in, true},
		{"tier: its default action", []policy{{"NetworkPolicy", "a", `{"types":["Ingress"],"tier":"first","order":5}`}}, in, true},
		{"global", []policy{{"GlobalNetworkPolicy", "p", deny("")}}, in, false},
		{"global egress", []policy{{"GlobalNetworkPolicy", "p", `{"types":["Egress"],"egress":[{"action":"Deny"}]}`}}, out, false},
		{"global selector", []policy{{"GlobalNetworkPolicy", "p", deny(`,"selector":"app == 'db'"`)}}, in, true},
		{"global namespaceSelector", []policy{{"GlobalNetworkPolicy", "p", deny(`,"namespaceSelector":"env == 'prod'"`)}}, in, false},
		{"global namespaceSelector of others", []policy{{"GlobalNetworkPolicy", "p", deny(`,"namespaceSelector":"env == 'test'"`)}}, in, true},
		{"global serviceAccountSelector", []policy{{"GlobalNetworkPolicy", "p", deny(`,"serviceAccountSelector":"all()"`)}}, in, true},
		{"global order", []policy{{"GlobalNetworkPolicy", "a", deny(`,"order":2`)}, {"GlobalNetworkPolicy", "b", allow(`,"order":1`)}}, in, true},
		{"global tier", []policy{{"GlobalNetworkPolicy", "a", deny(`,"order":1`)}, {"GlobalNetworkPolicy", "b", allow(`,"tier":"first","order":9`)}}, in, true},
		{"performanceHints change no decision", []policy{{"NetworkPolicy", "p", deny(`,"performanceHints":["AssumeNeededOnEveryNode"]`)}}, in, false},
		{"action Pass", []policy{{"NetworkPolicy", "a", deny("")}, {"NetworkPolicy", "b", `{"tier":"first","types":["Ingress"],"ingress":[{"action":"Pass"},{"action":"Allow"}]}`}}, in, false},
		{"action Log goes on", []policy{{"NetworkPolicy", "p", `{"types":["Ingress"],"ingress":[{"action":"Log"},{"action":"Allow"}]}`}}, in, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := shop(t)
			s.put(t, "tiers", "Tier", "", "first", "", `{"order":10,"defaultAction":"Pass"}`)
			for _, p := range tt.policies {
				s.policy(t, p.kind, p.name, p.spec)
			}
			if got := s.allowed(t, tt.flow); got != tt.want {
				t.Errorf("allowed: %v", got)
			}
		})
	}
}

// TestTierFields: the order and the end of a tier.
func TestTierFields(t *testing.T) {
	for _, tt := range []struct {
		name, first, second string // tiers: the policy of the second allows, that of the first matches nothing
		want                bool
	}{
		{"defaultAction Pass", `{"order":1,"defaultAction":"Pass"}`, `{"order":2,"defaultAction":"Deny"}`, true},
		{"defaultAction Deny", `{"order":1,"defaultAction":"Deny"}`, `{"order":2,"defaultAction":"Deny"}`, false},
		{"no defaultAction denies", `{"order":1}`, `{"order":2}`, false},
		{"order", `{"order":2,"defaultAction":"Deny"}`, `{"order":1,"defaultAction":"Deny"}`, true},
		{"no order is last", `{"defaultAction":"Deny"}`, `{"order":1,"defaultAction":"Deny"}`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := shop(t)
			s.put(t, "tiers", "Tier", "", "a", "", tt.first)
			s.put(t, "tiers", "Tier", "", "b", "", tt.second)
			s.policy(t, "NetworkPolicy", "p", `{"tier":"a","types":["Ingress"]}`)
			s.policy(t, "NetworkPolicy", "q", `{"tier":"b","types":["Ingress"],"ingress":[{"action":"Allow"}]}`)
			if got := s.allowed(t, tcp(fe, 80)); got != tt.want {
				t.Errorf("allowed: %v", got)
			}
		})
	}
}

// TestNetworkSetFields: what is in a set is in the rules that select the set.
func TestNetworkSetFields(t *testing.T) {
	s := shop(t)
	s.policy(t, "NetworkPolicy", "p", `{"types":["Ingress"],"ingress":[{"action":"Allow","source":{"selector":"role == 'fe'"}},{"action":"Allow","source":{"namespaceSelector":"global()","selector":"has(bad)"}}]}`)
	for f, want := range map[flow]bool{tcp(office, 80): true, tcp(bad, 80): true, tcp(stranger, 80): false} {
		if got := s.allowed(t, f); got != want {
			t.Errorf("%+v is allowed: %v", f, got)
		}
	}
	s.put(t, "networksets", "NetworkSet", "shop", "office", `"role":"fe"`, `{"nets":["198.51.100.0/24","10.0.0.0/32"]}`)
	s.put(t, "globalnetworksets", "GlobalNetworkSet", "", "bad", `"bad":"yes"`, `{"nets":[]}`)
	for f, want := range map[flow]bool{tcp(office, 80): false, tcp(bad, 80): false, tcp(stranger, 80): true} {
		if got := s.allowed(t, f); got != want {
			t.Errorf("changed: %+v is allowed: %v", f, got)
		}
	}
}

// TestProfileFields: rules of profiles decide where no policy does.
func TestProfileFields(t *testing.T) {
	s := shop(t)
	s.put(t, "profiles", "Profile", "", "kns.shop", "", `{"ingress":[{"action":"Deny","source":{"nets":["`+fe+`/32"]}},{"action":"Allow"}],
		"egress":[{"action":"Allow","protocol":"UDP"}],"labelsToApply":{"pcns.env":"prod"}}`)
	out := flow{peer: fe, out: true, protocol: 17, to: 53}
	for f, want := range map[flow]bool{
		tcp(fe, 80): false, tcp(be, 80): true, out: true, {peer: fe, out: true, protocol: 6, to: 53}: false,
	} {
		if got := s.allowed(t, f); got != want {
			t.Errorf("%+v is allowed: %v", f, got)
		}
	}
	s.policy(t, "GlobalNetworkPolicy", "p", `{"types":["Ingress"],"ingress":[{"action":"Allow","source":{"namespaceSelector":"env == 'prod'"}}]}`)
	if !s.allowed(t, tcp(fe, 80)) || s.allowed(t, tcp(other, 80)) {
		t.Error("labelsToApply does not reach the selector")
	}
}

// TestNamedPortsOfHosts: a host endpoint's port by its name.
func TestNamedPortsOfHosts(t *testing.T) {
	s := shop(t)
	s.put(t, "hostendpoints", "HostEndpoint", "", "far-eth0", `"role":"fe"`, `{"node":"far","interfaceName":"eth0","expectedIPs":["`+host+`"],"ports":[{"name":"ssh","protocol":"TCP","port":22}]}`)
	s.policy(t, "NetworkPolicy", "p", `{"types":["Egress"],"egress":[{"action":"Allow","destination":{"ports":["ssh"]}}]}`)
	for f, want := range map[flow]bool{
		{peer: host, out: true, protocol: 6, to: 22}: true, {peer: host, out: true, protocol: 6, to: 23}: false, {peer: fe, out: true, protocol: 6, to: 22}: false,
	} {
		if got := s.allowed(t, f); got != want {
			t.Errorf("%+v is allowed: %v", f, got)
		}
	}
}

// TestStagedFields: staged policies are evaluated and reported, in their
// tier and order, and decide nothing.
func TestStagedFields(t *testing.T) {
	for _, tt := range []struct {
		name, kind, spec string
		want             string // outcome that is reported; "" for none
	}{
		{"Set", "StagedNetworkPolicy", `{"stagedAction":"Set","order":1,"types":["Ingress"],"ingress":[{"action":"Deny","protocol":"TCP","source":{"selector":"role == 'fe'"}}]}`, "deny"},
		{"a rule that does not match", "StagedNetworkPolicy", `{"order":1,"types":["Ingress"],"ingress":[{"action":"Deny","protocol":"UDP"}]}`, "none"},
		{"selector of others", "StagedNetworkPolicy", `{"order":1,"selector":"app == 'db'","types":["Ingress"],"ingress":[{"action":"Deny"}]}`, ""},
		{"another direction", "StagedNetworkPolicy", `{"order":1,"types":["Egress"],"egress":[{"action":"Deny"}]}`, ""},
		{"accounts of others", "StagedNetworkPolicy", `{"order":1,"serviceAccountSelector":"has(trusted)","types":["Ingress"],"ingress":[{"action":"Deny"}]}`, ""},
		{"Delete", "StagedNetworkPolicy", `{"stagedAction":"Delete"}`, ""},
		{"Ignore", "StagedNetworkPolicy", `{"stagedAction":"Ignore","order":1,"types":["Ingress"],"ingress":[{"action":"Deny"}]}`, ""},
		{"Learn", "StagedNetworkPolicy", `{"stagedAction":"Learn","order":1,"types":["Ingress"],"ingress":[{"action":"Deny"}]}`, "deny"},
		{"global", "StagedGlobalNetworkPolicy", `{"order":1,"namespaceSelector":"env == 'prod'","types":["Ingress"],"ingress":[{"action":"Pass"}]}`, "pass"},
		{"global of others", "StagedGlobalNetworkPolicy", `{"order":1,"namespaceSelector":"env == 'test'","types":["Ingress"],"ingress":[{"action":"Pass"}]}`, ""},
		{"global, in the order of its tier", "StagedGlobalNetworkPolicy", `{"order":99999,"types":["Ingress"],"ingress":[{"action":"Deny"}]}`, ""},
		{"global with a selector of others", "StagedGlobalNetworkPolicy", `{"order":1,"selector":"app == 'db'","types":["Ingress"],"ingress":[{"action":"Deny"}]}`, ""},
		{"global with accounts of others", "StagedGlobalNetworkPolicy", `{"order":1,"serviceAccountSelector":"all()","types":["Ingress"],"ingress":[{"action":"Deny"}]}`, ""},
		{"in a tier before", "StagedNetworkPolicy", `{"tier":"first","types":["Ingress"],"ingress":[{"action":"Deny"}]}`, "deny"},
		{"global, in a tier before", "StagedGlobalNetworkPolicy", `{"tier":"first","stagedAction":"Set","types":["Ingress"],"ingress":[{"action":"Deny"}]}`, "deny"},
		{"of Kubernetes", "StagedKubernetesNetworkPolicy", `{"podSelector":{"matchLabels":{"app":"web"}},"ingress":[{"from":[{"podSelector":{"matchLabels":{"role":"fe"}}}],"ports":[{"port":80}]}]}`, "allow"},
		{"of Kubernetes, another port", "StagedKubernetesNetworkPolicy", `{"podSelector":{},"policyTypes":["Ingress"],"ingress":[{"ports":[{"port":81,"endPort":90}]}]}`, "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := shop(t)
			s.put(t, "tiers", "Tier", "", "first", "", `{"order":10,"defaultAction":"Deny"}`)
			s.policy(t, "NetworkPolicy", "enforced", `{"order":2000,"types":["Ingress"],"ingress":[{"action":"Allow"}]}`)
			s.policy(t, tt.kind, "p", tt.spec)
			if !s.allowed(t, tcp(fe, 80)) {
				t.Error("a staged policy denies")
			}
			if got := outcome(t, s, tt.kind); got != tt.want {
				t.Errorf("reported %q, want %q", got, tt.want)
			}
		})
	}
}

// outcome is what the oracle reports of a staged policy named p for the flow
// of a front end to web.
func outcome(t *testing.T, s stored, kind string) string {
	t.Helper()
	events, err := Read(t.Context(), s.Driver)
	if err != nil {
		t.Fatal(err)
	}
	snapshot := oracle.Snapshot{}
	for _, e := range events {
		snapshot.Add(e)
	}
	source, dest := tcp(fe, 80).ends()
	v := snapshot.Verdict(model.Flow{Protocol: 6, Source: source, Dest: dest, SourcePort: 40000, DestPort: 80})
	for _, tier := range v.Ingress.Tiers {
		i := slices.IndexFunc(tier.Policies, func(p oracle.Step) bool { return p.Staged && strings.HasPrefix(p.Owner, kind+" ") })
		if i >= 0 {
			return tier.Policies[i].Outcome
		}
	}
	return ""
}
