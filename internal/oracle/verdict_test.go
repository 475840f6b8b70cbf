package oracle_test

import (
	"encoding/json"
	"math"
	"net/netip"
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/selector"
)

// both is the families of a rule that states none.
const both = model.IPv4 | model.IPv6

func sel(t *testing.T, text string) selector.Selector {
	t.Helper()
	s, err := selector.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put adds values to a snapshot under the names that they have.
func put(s oracle.Snapshot, values ...model.Value) {
	for _, v := range values {
		switch v := v.(type) {
		case *model.Workload:
			s[v.ID] = v
		case *model.HostEndpoint:
			s[v.ID] = v
		case *model.NetworkSet:
			s[v.ID] = v
		case *model.Policy:
			s[v.ID] = v
		case *model.Profile:
			s[model.ID{Kind: model.KindProfile, Name: v.Name}] = v
		case *model.Tier:
			s[model.ID{Kind: model.KindTier, Name: v.Name}] = v
		case *model.Node:
			s[model.ID{Kind: model.KindNode, Name: v.Name}] = v
		case *model.Service:
			s[model.ID{Kind: model.KindService, Namespace: v.Namespace, Name: v.Name}] = v
		}
	}
}

// pod is a workload of a namespace with its profile.
func pod(namespace, name string, labels map[string]string, addrs ...string) *model.Workload {
	id := model.ID{Kind: model.KindWorkload, Namespace: namespace, Name: name}
	w := &model.Workload{
		ID: id, Node: "h1", Interface: "cali" + namespace + name, Profiles: []string{"kns." + namespace},
		Labels: map[string]string{selector.NamespaceLabel: namespace, selector.OrchestratorLabel: "k8s"},
	}
	for k, v := range labels {
		w.Labels[k] = v
	}
	for _, a := range addrs {
		w.Addrs = append(w.Addrs, netip.MustParseAddr(a))
	}
	return w
}

// kns is the profile of a namespace: it allows everything.
func kns(namespace string, labels map[string]string) *model.Profile {
	p := &model.Profile{
		Name: "kns." + namespace, Labels: map[string]string{"pcns.projectcalico.org/name": namespace},
		Ingress: []model.Rule{{Action: model.Allow, Families: both}},
		Egress:  []model.Rule{{Action: model.Allow, Families: both}},
	}
	for k, v := range labels {
		p.Labels["pcns."+k] = v
	}
	return p
}

// policy is an enforced policy for all workloads of a namespace ("": of all),
// with these rules for ingress.
func policy(t *testing.T, kind, namespace, name, tier string, rules ...model.Rule) *model.Policy {
	t.Helper()
	p := &model.Policy{
		ID: model.PolicyID(kind, namespace, name), APIKind: kind, Name: name, Namespace: namespace,
		Tier: tier, Order: math.Inf(1), Staged: strings.HasPrefix(kind, "Staged"),
		Ingress: model.Direction{Applies: true, Rules: rules},
	}
	p.Title = p.ID.String()
	if namespace != "" {
		p.Selects = sel(t, selector.NamespaceLabel+" == '"+namespace+"'")
	}
	return p
}

func rule(a model.Action) model.Rule { return model.Rule{Action: a, Families: both} }

// tcp is a rule about TCP to a port.
func tcp(a model.Action, port uint16) model.Rule {
	r := rule(a)
	r.Protocol, r.Destination.Ports = model.ProtocolTCP, []model.PortMatch{{Min: port, Max: port}}
	return r
}

// from is a rule about sources that a selector matches.
func from(t *testing.T, a model.Action, text string) model.Rule {
	r := rule(a)
	r.Source.Peers = selector.Peers{Restricted: true, Selector: sel(t, text)}
	return r
}

func web(source, dest string) model.Flow {
	return model.Flow{
		Protocol: model.ProtocolTCP, Source: netip.MustParseAddr(source), Dest: netip.MustParseAddr(dest),
		SourcePort: 40000, DestPort: 80,
	}
}

func deny(name string, order float64) *model.Tier { return &model.Tier{Name: name, Order: order} }

func pass(name string, order float64) *model.Tier {
	return &model.Tier{Name: name, Order: order, DefaultPass: true}
}

// TestTierWalk is the documented scenarios of how tiers follow each other.
// Both families are asked.
func TestTierWalk(t *testing.T) {
	other := func(a model.Action) model.Rule { return tcp(a, 9999) }
	standard := deny("default", 1e6)
	tests := []struct {
		name   string
		values []model.Value
		want   bool
		by     string
	}{
		{"no policy", []model.Value{standard}, true, "ingress[0] of Profile kns.prod"},
		{"one policy that matches nothing",
			[]model.Value{standard, policy(t, "NetworkPolicy", "prod", "p", "default", other(model.Allow))},
			false, "the end of tier default"},
		{"staged only",
			[]model.Value{standard, deny("tier1", 1), policy(t, "StagedGlobalNetworkPolicy", "", "p", "tier1", rule(model.Deny))},
			true, "ingress[0] of Profile kns.prod"},
		{"end of a tier that denies, before an Allow",
			[]model.Value{standard, deny("tier1", 1), policy(t, "GlobalNetworkPolicy", "", "p", "tier1", other(model.Allow)),
				policy(t, "NetworkPolicy", "prod", "q", "default", rule(model.Allow))},
			false, "the end of tier tier1"},
		{"end of a tier that passes",
			[]model.Value{standard, pass("tier1", 1), policy(t, "GlobalNetworkPolicy", "", "p", "tier1", other(model.Allow))},
			true, "ingress[0] of Profile kns.prod"},
		{"Pass, then an Allow",
			[]model.Value{standard, deny("tier1", 1), policy(t, "GlobalNetworkPolicy", "", "p", "tier1", rule(model.Pass)),
				policy(t, "NetworkPolicy", "prod", "q", "default", rule(model.Allow))},
			true, "ingress[0] of NetworkPolicy prod/q in tier default"},
		{"Pass, then no policy",
			[]model.Value{standard, deny("tier1", 1), policy(t, "GlobalNetworkPolicy", "", "p", "tier1", rule(model.Pass))},
			true, "ingress[0] of Profile kns.prod"},
		{"Allow before a Deny",
			[]model.Value{standard, deny("tier1", 1), policy(t, "GlobalNetworkPolicy", "", "p", "tier1", rule(model.Allow)),
				policy(t, "NetworkPolicy", "prod", "q", "default", rule(model.Deny))},
			true, "ingress[0] of GlobalNetworkPolicy p in tier tier1"},
		{"baseline comes after the default tier",
			[]model.Value{standard, pass("kube-baseline", 1e7), policy(t, "GlobalNetworkPolicy", "", "p", "kube-baseline", rule(model.Allow)),
				policy(t, "NetworkPolicy", "prod", "q", "default", other(model.Allow))},
			false, "the end of tier default"},
		{"Log goes on",
			[]model.Value{standard, policy(t, "NetworkPolicy", "prod", "q", "default", rule(model.Log), rule(model.Allow))},
			true, "ingress[1] of NetworkPolicy prod/q in tier default"},
		{"a tier that does not exist comes last and denies",
			[]model.Value{pass("default", 1e6), policy(t, "GlobalNetworkPolicy", "", "p", "aaa", other(model.Allow)),
				policy(t, "NetworkPolicy", "prod", "q", "default", tcp(model.Pass, 80))},
			false, "the end of tier aaa"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := oracle.Snapshot{}
			put(s, kns("prod", nil), pod("prod", "web", nil, "10.65.0.5", "fd00::5"))
			put(s, tt.values...)
			for _, f := range []model.Flow{web("192.0.2.1", "10.65.0.5"), web("2001:db8::1", "fd00::5")} {
				v := s.Verdict(f)
				if v.Ingress == nil || v.Egress != nil {
					t.Fatalf("ends: %+v", v)
				}
				if by := v.Ingress.By.String(desired.Ingress); v.Allowed != tt.want || by != tt.by {
					t.Errorf("%v: allowed %v by %s, want %v by %s\n%s", f, v.Allowed, by, tt.want, tt.by, v.Text(true))
				}
				if fast := oracle.NewView(s).Outcome(f); fast.Allowed != v.Allowed || fast.Ingress.By != v.Ingress.By {
					t.Errorf("Outcome says %+v", fast.Ingress)
				}
			}
		})
	}
}

// TestOrder is the documented vectors of how policies and tiers are ordered:
// of two policies that decide differently the first one wins. IPv4 only: the
// order has no family.
func TestOrder(t *testing.T) {
	ordered := func(p *model.Policy, order float64) *model.Policy {
		p.Order = order
		return p
	}
	inf := math.Inf(1)
	tests := []struct {
		name         string
		first, later *model.Policy
	}{
		{"global before namespaced", policy(t, "GlobalNetworkPolicy", "", "a", "default"), policy(t, "NetworkPolicy", "prod", "a", "default")},
		{"Kubernetes before its like", policy(t, "KubernetesNetworkPolicy", "prod", "a", "default"), policy(t, "NetworkPolicy", "prod", "a", "default")},
		{"name first", policy(t, "NetworkPolicy", "prod", "a", "default"), policy(t, "GlobalNetworkPolicy", "", "b", "default")},
		{"order", ordered(policy(t, "NetworkPolicy", "prod", "z", "default"), 10),
			ordered(policy(t, "KubernetesNetworkPolicy", "prod", "a", "default"), 1000)},
		{"no order is last", ordered(policy(t, "KubernetesNetworkPolicy", "prod", "z", "default"), 1000), policy(t, "NetworkPolicy", "prod", "a", "default")},
		{"negative order", ordered(policy(t, "NetworkPolicy", "prod", "z", "default"), -1), ordered(policy(t, "NetworkPolicy", "prod", "a", "default"), 0)},
		{"tiers tie by name", policy(t, "NetworkPolicy", "prod", "z", "default"), policy(t, "NetworkPolicy", "prod", "a", "next")},
		{"tier without order is last", policy(t, "NetworkPolicy", "prod", "z", "next"), policy(t, "NetworkPolicy", "prod", "a", "last")},
		{"tier that is missing after that", policy(t, "NetworkPolicy", "prod", "z", "last"), policy(t, "NetworkPolicy", "prod", "a", "gone")},
		{"missing tiers by name", policy(t, "NetworkPolicy", "prod", "z", "gone1"), policy(t, "NetworkPolicy", "prod", "a", "gone2")},
	}
	for _, tt := range tests {
		for _, a := range []model.Action{model.Allow, model.Deny} {
			t.Run(tt.name+" "+a.String(), func(t *testing.T) {
				s := oracle.Snapshot{}
				put(s, kns("prod", nil), pod("prod", "web", nil, "10.65.0.5"),
					deny("default", 1e6), deny("next", 1e6), deny("last", inf))
				first, later := *tt.first, *tt.later
				first.Ingress.Rules = []model.Rule{rule(a)}
				later.Ingress.Rules = []model.Rule{rule(model.Allow + model.Deny - a)}
				put(s, &first, &later)
				if v := s.Verdict(web("192.0.2.1", "10.65.0.5")); v.Allowed != (a == model.Allow) || v.Ingress.By.Owner != first.Title {
					t.Errorf("got %s", v.Text(true))
				}
			})
		}
	}
}

// TestReasons is what people are told: for each kind of criterion the first
// that failed, with the values.
func TestReasons(t *testing.T) {
	mk := func(a model.Action, f func(*model.Rule)) model.Rule {
		r := rule(a)
		f(&r)
		return r
	}
	nets := func(s ...string) []netip.Prefix {
		var out []netip.Prefix
		for _, p := range s {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	tests := []struct {
		name string
		rule model.Rule
		want string
	}{
		{"label differs", from(t, model.Allow, `role == "fe"`),
			`source 10.65.0.3 (WorkloadEndpoint prod/be) has role = "be", selector wants role == "fe"`},
		{"label is not there", from(t, model.Allow, `tier in {"a", "b"}`),
			`source 10.65.0.3 (WorkloadEndpoint prod/be) has no label tier, selector wants tier to be "a" or "b"`},
		{"more than a value", from(t, model.Allow, `has(app) && role == "fe"`),
			`source 10.65.0.3 (WorkloadEndpoint prod/be) has no label app and role = "be", selector wants (has(app) && role == "fe")`},
		{"namespace", from(t, model.Allow, `projectcalico.org/namespace == "dev" && role == "be"`),
			`source 10.65.0.3 (WorkloadEndpoint prod/be) has namespace = "prod", selector wants namespace == "dev"`},
		{"namespace label", from(t, model.Allow, `pcns.team == "x"`),
			`source 10.65.0.3 (WorkloadEndpoint prod/be) has namespace label team = "a", selector wants namespace label team == "x"`},
		{"not told by one label", from(t, model.Allow, `role != "be"`),
			`source 10.65.0.3 (WorkloadEndpoint prod/be) has role = "be", selector wants role != "be"`},
		{"notSelector", mk(model.Allow, func(r *model.Rule) {
			r.Source.Peers = selector.Peers{Excluding: true, Not: sel(t, "has(role)")}
		}), `source 10.65.0.3 (WorkloadEndpoint prod/be) matches has(role), which notSelector leaves out`},
		{"port", tcp(model.Allow, 443), "destination port is 80, not 443"},
		{"ports", mk(model.Allow, func(r *model.Rule) {
			r.Destination.Ports = []model.PortMatch{{Min: 443, Max: 443}, {Min: 8000, Max: 8080}, {Name: "metrics"}}
		}), `destination port is 80, not 443, 8000:8080 or "metrics", and "metrics" of WorkloadEndpoint prod/web is TCP port 9100`},
		{"named port nobody has", mk(model.Allow, func(r *model.Rule) { r.Destination.Ports = []model.PortMatch{{Name: "dns"}} }),
			`destination port is 80, not "dns", and nothing at 10.65.0.5 has a port named "dns"`},
		{"notPorts", mk(model.Allow, func(r *model.Rule) { r.Destination.NotPorts = []model.PortMatch{{Min: 1, Max: 1023}} }),
			"destination port 80 is 1:1023, which notPorts leaves out"},
		{"nets", mk(model.Allow, func(r *model.Rule) { r.Source.Nets = nets("10.1.0.0/16", "192.0.2.0/24") }),
			"source 10.65.0.3 is not in 10.1.0.0/16 or 192.0.2.0/24"},
		{"notNets", mk(model.Allow, func(r *model.Rule) { r.Source.NotNets = nets("10.65.0.0/16") }),
			"source 10.65.0.3 is in 10.65.0.0/16, which notNets leaves out"},
		{"protocol", mk(model.Allow, func(r *model.Rule) { r.Protocol = model.ProtocolUDP }),
			"the protocol is TCP, the rule wants UDP"},
		{"notProtocol", mk(model.Allow, func(r *model.Rule) { r.NotProtocol = model.ProtocolTCP }),
			"the protocol is TCP, which notProtocol leaves out"},
		{"ICMP", mk(model.Allow, func(r *model.Rule) { r.ICMP = &model.ICMP{Type: 8, Code: -1} }),
			"the protocol is TCP, the rule wants messages of type 8"},
		{"family", mk(model.Allow, func(r *model.Rule) { r.Families = model.IPv6 }),
			"the packet is IPv4, the rule is for IPv6 only"},
		{"service", mk(model.Allow, func(r *model.Rule) {
			r.Destination.Service, r.Destination.ServicePorts = &model.ServiceRef{Namespace: "prod", Name: "db"}, true
		}), "destination 10.65.0.5 TCP port 80 is not behind service prod/db"},
		{"service that is not known", mk(model.Allow, func(r *model.Rule) {
			r.Source.Service = &model.ServiceRef{Namespace: "prod", Name: "gone"}
		}), "service prod/gone is not known"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := oracle.Snapshot{}
			target := pod("prod", "web", nil, "10.65.0.5")
			target.Ports = []model.NamedPort{{Name: "metrics", Protocol: model.ProtocolTCP, Port: 9100}}
			put(s, kns("prod", map[string]string{"team": "a"}), target, deny("default", 1e6),
				pod("prod", "be", map[string]string{"role": "be"}, "10.65.0.3"),
				policy(t, "NetworkPolicy", "prod", "p", "default", tt.rule),
				&model.Service{Namespace: "prod", Name: "db", Backends: []model.Backend{{Addr: netip.MustParseAddr("10.65.0.5"), Protocol: model.ProtocolTCP, Port: 5432}}})
			v := s.Verdict(web("10.65.0.3", "10.65.0.5"))
			if v.Allowed || len(v.Ingress.Tiers) != 1 {
				t.Fatalf("got %s", v.Text(true))
			}
			if got := v.Ingress.Tiers[0].Policies[0].Rules[0].Reason; got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
			if n := v.Ingress.Nearest; n == nil || n.Reason != tt.want || n.Rule.Index != 0 {
				t.Errorf("nearest: %+v", n)
			}
		})
	}
}

// TestNearest: of the rules that would allow, the one with fewest criteria
// that fail is named, and only those that could still decide.
func TestNearest(t *testing.T) {
	far := from(t, model.Allow, "a == 'x'")
	far.Protocol = model.ProtocolUDP
	near := tcp(model.Allow, 443)
	s := oracle.Snapshot{}
	put(s, kns("prod", nil), pod("prod", "web", nil, "10.65.0.5"), deny("default", 1e6),
		policy(t, "NetworkPolicy", "prod", "p", "default", far, tcp(model.Deny, 81), near, rule(model.Deny), tcp(model.Allow, 81)),
		policy(t, "StagedNetworkPolicy", "prod", "a", "default", tcp(model.Allow, 81)))
	n := s.Verdict(web("192.0.2.1", "10.65.0.5")).Ingress.Nearest
	if n == nil || n.Rule.Index != 2 || n.Reason != "destination port is 80, not 443" {
		t.Errorf("got %+v", n)
	}
}

// TestEnds: whose policy is asked. IPv4 only: looking up an address has no
// family.
func TestEnds(t *testing.T) {
	s := oracle.Snapshot{}
	node := &model.Node{Name: "h1", Addr4: netip.MustParsePrefix("172.16.0.1/24")}
	put(s, kns("prod", nil), node, pod("prod", "a", nil, "10.65.0.1"), pod("prod", "b", nil, "10.65.0.2"), deny("default", 1e6),
		policy(t, "GlobalNetworkPolicy", "", "none", "default", rule(model.Deny)))
	tests := []struct {
		name, source, dest       string
		egress, ingress, allowed bool
	}{
		{"between workloads", "10.65.0.1", "10.65.0.2", true, true, false},
		{"out", "10.65.0.1", "192.0.2.1", true, false, true},
		{"in", "192.0.2.1", "10.65.0.1", false, true, false},
		{"neither", "192.0.2.1", "192.0.2.2", false, false, true},
		{"a host to its own workload", "172.16.0.1", "10.65.0.1", false, true, true},
		{"to itself", "10.65.0.1", "10.65.0.1", false, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := s.Verdict(web(tt.source, tt.dest))
			if (v.Egress != nil) != tt.egress || (v.Ingress != nil) != tt.ingress || v.Allowed != tt.allowed {
				t.Errorf("got %s", v.Text(true))
			}
		})
	}
	if d := s.Decide(model.ID{Kind: model.KindWorkload, Name: "gone"}, desired.Ingress, web("10.65.0.1", "10.65.0.2")); d.Allowed {
		t.Error("a workload that is not there was allowed something")
	}
}

// TestEnforced: what would be if staged policies were made real. IPv4 only:
// staging has no family.
func TestEnforced(t *testing.T) {
	stage := func(action string, rules ...model.Rule) *model.Policy {
		p := policy(t, "StagedNetworkPolicy", "prod", "p", "default", rules...)
		p.StagedAction = action
		return p
	}
	tests := []struct {
		name   string
		now    *model.Policy
		staged *model.Policy
		want   string
	}{
		{"set where nothing is", nil, stage("Set", rule(model.Deny)), "ingress[0] of NetworkPolicy prod/p in tier default"},
		{"set in place of another", policy(t, "NetworkPolicy", "prod", "p", "default", rule(model.Allow)), stage("", rule(model.Log), rule(model.Deny)),
			"ingress[1] of NetworkPolicy prod/p in tier default"},
		{"deletion", policy(t, "NetworkPolicy", "prod", "p", "default", rule(model.Deny)), stage("Delete"), "ingress[0] of Profile kns.prod"},
		{"deletion of what is not there", nil, stage("Delete"), "ingress[0] of Profile kns.prod"},
		{"ignored", policy(t, "NetworkPolicy", "prod", "p", "default", rule(model.Allow)), stage("Ignore", rule(model.Deny)),
			"ingress[0] of NetworkPolicy prod/p in tier default"},
		{"learning", nil, stage("Learn", rule(model.Deny)), "ingress[0] of Profile kns.prod"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := oracle.Snapshot{}
			put(s, kns("prod", nil), pod("prod", "web", nil, "10.65.0.5"), deny("default", 1e6), tt.staged)
			if tt.now != nil {
				put(s, tt.now)
			}
			size := len(s)
			v := s.Enforced().Verdict(web("192.0.2.1", "10.65.0.5"))
			if got := v.Ingress.By.String(desired.Ingress); got != tt.want {
				t.Errorf("decided by %s, want %s", got, tt.want)
			}
			if len(s) != size || !tt.staged.Staged {
				t.Error("the snapshot was changed")
			}
		})
	}
}

// TestEnforcedOfKubernetes: a staged policy of Kubernetes stands for what one
// of its name is stored as. IPv4 only: staging has no family.
func TestEnforcedOfKubernetes(t *testing.T) {
	for action, want := range map[string]string{
		"Set":    "ingress[0] of NetworkPolicy prod/knp.default.p in tier default",
		"Delete": "ingress[0] of Profile kns.prod",
	} {
		t.Run(action, func(t *testing.T) {
			now := policy(t, "NetworkPolicy", "prod", "knp.default.p", "default", rule(model.Log), rule(model.Deny))
			staged := policy(t, "StagedKubernetesNetworkPolicy", "prod", "p", "default", rule(model.Allow))
			staged.StagedAction = action
			s := oracle.Snapshot{}
			put(s, kns("prod", nil), pod("prod", "web", nil, "10.65.0.5"), deny("default", 1e6), now, staged)
			if v := s.Enforced().Verdict(web("192.0.2.1", "10.65.0.5")); v.Ingress.By.String(desired.Ingress) != want || !v.Allowed {
				t.Errorf("got %s, want %s", v.Text(true), want)
			}
			for id, v := range s.Enforced() {
				if p, ok := v.(*model.Policy); ok && (p.ID != id || p.ID != model.PolicyID(p.APIKind, p.Namespace, p.Name)) {
					t.Errorf("%v is called %+v", id, p)
				}
			}
		})
	}
}

// TestToTheOwnHost: what a workload sends to its own host comes under its own
// policies and then under defaultEndpointToHostAction. Both families.
func TestToTheOwnHost(t *testing.T) {
	felix := func(name, action string) (model.ID, *model.Config) {
		o := &v3.FelixConfiguration{}
		o.Name, o.Spec.DefaultEndpointToHostAction = name, action
		return model.ID{Kind: model.KindConfig, Name: name}, &model.Config{Object: o}
	}
	ping := func(kind uint8) model.Flow {
		return model.Flow{Protocol: model.ProtocolICMPv6, Source: netip.MustParseAddr("fd00::1"), Dest: netip.MustParseAddr("fd01::1"), ICMPType: kind}
	}
	for _, tt := range []struct {
		name         string
		common, node string
		flow         model.Flow
		want         bool
	}{
		{"nothing said is Drop", "", "", web("10.65.0.1", "172.16.0.1"), false},
		{"nothing said is Drop, IPv6", "", "", web("fd00::1", "fd01::1"), false},
		{"Accept", "Accept", "", web("10.65.0.1", "172.16.0.1"), true},
		{"Return leaves it to others", "", "return", web("fd00::1", "fd01::1"), true},
		{"the host's own wins", "Accept", "Reject", web("10.65.0.1", "172.16.0.1"), false},
		{"its own policies come first", "Accept", "", web("10.65.0.2", "172.16.0.1"), false},
		{"another host", "Drop", "", web("10.65.0.1", "172.16.0.2"), true},
		{"neighbour discovery is ahead of policy", "Drop", "", ping(135), true},
		{"a ping is not", "Drop", "", ping(128), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := oracle.Snapshot{}
			put(s, kns("prod", nil), pod("prod", "a", nil, "10.65.0.1", "fd00::1"), pod("prod", "b", map[string]string{"no": "way"}, "10.65.0.2"), deny("default", 1e6),
				&model.Node{Name: "h1", Addr4: netip.MustParsePrefix("172.16.0.1/24"), Addr6: netip.MustParsePrefix("fd01::1/64")},
				&model.Node{Name: "h2", Addr4: netip.MustParsePrefix("172.16.0.2/24")})
			never := policy(t, "GlobalNetworkPolicy", "", "p", "default")
			never.Selects, never.Ingress.Applies, never.Egress.Applies = sel(t, "has(no)"), false, true
			put(s, never)
			for name, action := range map[string]string{"default": tt.common, "node.h1": tt.node} {
				if action != "" {
					id, c := felix(name, action)
					s[id] = c
				}
			}
			if v := s.Verdict(tt.flow); v.Allowed != tt.want || v.Egress == nil {
				t.Errorf("got %s", v.Text(true))
			}
		})
	}
}

// TestText is the text and the JSON of one verdict with about everything in
// it; both stay as they are. What an object brings along cannot move the
// cursor.
func TestText(t *testing.T) {
	s := oracle.Snapshot{}
	http := tcp(model.Deny, 80)
	http.HTTP, http.Name = true, "no\x1b[31mred"
	client := pod("dev", "client", nil, "10.65.0.3")
	client.Profiles = append(client.Profiles, "gone")
	put(s, kns("prod", nil), kns("dev", nil), client, pod("prod", "web", nil, "10.65.0.5"), deny("default", 1e6), pass("audit", 1),
		policy(t, "StagedGlobalNetworkPolicy", "", "try", "audit", rule(model.Deny)),
		policy(t, "NetworkPolicy", "prod", "p", "default", from(t, model.Allow, "role == 'fe'"), http))
	v := s.Verdict(web("10.65.0.3", "10.65.0.5"))
	const want = `TCP 10.65.0.3 to 10.65.0.5 port 80: denied
egress of WorkloadEndpoint dev/client: allowed
  egress[0] of Profile kns.dev allows it
  Profile kns.dev: allows
    egress[0] Allow: matched
ingress of WorkloadEndpoint prod/web: denied
  ingress[1] "no\x1b[31mred" of NetworkPolicy prod/p in tier default denies it (has HTTP criteria, which nothing here enforces: what it would allow is denied)
  nearest: ingress[0] of NetworkPolicy prod/p in tier default would allow it, but source 10.65.0.3 (WorkloadEndpoint dev/client) has no label role, selector wants role == "fe"
  tier audit: all its policies are staged: it does nothing
    StagedGlobalNetworkPolicy try (staged: without effect): denies
      ingress[0] Deny: matched
  tier default: denies
    NetworkPolicy prod/p: denies
      ingress[0] Allow: did not match: source 10.65.0.3 (WorkloadEndpoint dev/client) has no label role, selector wants role == "fe"
      ingress[1] "no\x1b[31mred" Deny: matched (has HTTP criteria, which nothing here enforces: what it would allow is denied)
`
	if got := v.Text(true); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got := v.Text(false); strings.Count(got, "\n") != 6 {
		t.Errorf("short text:\n%s", got)
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	const form = `{"flow":{"protocol":"TCP","source":"10.65.0.3","destination":"10.65.0.5","sourcePort":40000,"destinationPort":80},` +
		`"allowed":false,"egress":{"endpoint":"WorkloadEndpoint dev/client","direction":"egress","allowed":true,` +
		`"reason":"egress[0] of Profile kns.dev allows it","by":{"owner":"Profile kns.dev","index":0,"text":"egress[0] of Profile kns.dev"},` +
		`"profiles":[{"owner":"Profile kns.dev","outcome":"allow","rules":[{"index":0,"action":"Allow","matched":true}]}]},` +
		`"ingress":{"endpoint":"WorkloadEndpoint prod/web","direction":"ingress","allowed":false,`
	if !strings.HasPrefix(string(data), form) {
		t.Errorf("got %s", data)
	}
}
