package calc

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// policyOf makes a policy of "kind namespace/name" in the default tier, on
// everything, for ingress, without an order.
func policyOf(title string, edit ...func(*model.Policy)) model.Event {
	kind, name, _ := strings.Cut(title, " ")
	namespace := ""
	if ns, n, ok := strings.Cut(name, "/"); ok {
		namespace, name = ns, n
	}
	id := model.PolicyID(kind, namespace, name)
	p := &model.Policy{
		ID: id, APIKind: kind, Name: name, Namespace: namespace, Title: id.String(), Tier: "default",
		Order: math.Inf(1), Staged: strings.HasPrefix(kind, "Staged"), Ingress: model.Direction{Applies: true},
	}
	for _, e := range edit {
		e(p)
	}
	return model.Event{ID: id, Value: p}
}

func order(o float64) func(*model.Policy) { return func(p *model.Policy) { p.Order = o } }

func inTier(name string) func(*model.Policy) { return func(p *model.Policy) { p.Tier = name } }

func on(text string) func(*model.Policy) {
	return func(p *model.Policy) { p.Selects = mustSelector(text) }
}

func egressOnly(p *model.Policy) {
	p.Ingress, p.Egress = model.Direction{}, model.Direction{Applies: true}
}

func rules(r ...model.Rule) func(*model.Policy) {
	return func(p *model.Policy) { p.Ingress.Rules = r }
}

func tierEvent(name string, order float64, pass bool) model.Event {
	return model.Event{ID: model.ID{Kind: model.KindTier, Name: name}, Value: &model.Tier{Name: name, Order: order, DefaultPass: pass}}
}

func lostTier(name string) model.Event {
	return model.Event{ID: model.ID{Kind: model.KindTier, Name: name},
		Value: &model.Tier{Name: name, Order: math.Inf(-1), Lost: true, Broken: "spec.order: is wrong"}}
}

// webWorkload is the workload that the tests below are about.
func webWorkload(edit ...func(*model.Workload)) model.Event {
	e := workloadEvent("h1", "a", "10.65.0.7", "fd00::7")
	w := e.Value.(*model.Workload)
	w.Labels = map[string]string{"app": "web", selector.NamespaceLabel: "default"}
	w.Profiles = []string{"kns.default"}
	for _, f := range edit {
		f(w)
	}
	return e
}

func tiersText(tiers []desired.Tier) string {
	var out []string
	for _, t := range tiers {
		end := ""
		if t.Pass {
			end = " pass"
		}
		out = append(out, fmt.Sprintf("%s[%s%s]", t.Name, strings.Join(t.Policies, ", "), end))
	}
	return strings.Join(out, " ")
}

// TestTiersOfAnEndpoint holds the documented order of policies, and which
// tiers there are for an endpoint at all. Which family a packet is of plays no
// part.
func TestTiersOfAnEndpoint(t *testing.T) {
	defaults := tierEvent("default", 1e6, false)
	tests := []struct {
		name            string
		in              []model.Event
		ingress, egress string
	}{
		{"no policy", []model.Event{defaults}, "", ""},
		{"a policy that selects another", []model.Event{defaults, policyOf("NetworkPolicy default/a", on("app == 'db'"))}, "", ""},
		{"names need no prefix of the tier", []model.Event{tierEvent("t", 1, false), policyOf("NetworkPolicy default/allow-web", inTier("t"))},
			"t[NetworkPolicy default/allow-web]", ""},
		{"namespaced and global policies interleave", []model.Event{defaults,
			policyOf("NetworkPolicy default/b", order(2)), policyOf("GlobalNetworkPolicy a", order(3)), policyOf("GlobalNetworkPolicy c", order(1))},
			"default[GlobalNetworkPolicy c, NetworkPolicy default/b, GlobalNetworkPolicy a]", ""},
		{"equal orders: name, namespace, kind as one text", []model.Event{defaults,
			policyOf("NetworkPolicy ns1/a"), policyOf("GlobalNetworkPolicy a"), policyOf("KubernetesNetworkPolicy ns1/a"),
			policyOf("GlobalNetworkPolicy a-b"), policyOf("GlobalNetworkPolicy a.b"), policyOf("GlobalNetworkPolicy a0")},
			"default[GlobalNetworkPolicy a-b, GlobalNetworkPolicy a.b, GlobalNetworkPolicy a, KubernetesNetworkPolicy ns1/a, NetworkPolicy ns1/a, GlobalNetworkPolicy a0]", ""},
		{"10 before 1000 before none", []model.Event{defaults, policyOf("GlobalNetworkPolicy a"), policyOf("GlobalNetworkPolicy b", order(10)),
			policyOf("KubernetesNetworkPolicy default/c", order(1000))},
			"default[GlobalNetworkPolicy b, KubernetesNetworkPolicy default/c, GlobalNetworkPolicy a]", ""},
		{"0 and less than 0 are orders", []model.Event{defaults, policyOf("GlobalNetworkPolicy a", order(0)), policyOf("GlobalNetworkPolicy b", order(-1))},
			"default[GlobalNetworkPolicy b, GlobalNetworkPolicy a]", ""},
		{"a tier that nobody knows the place of is first, and no policy of it is asked", []model.Event{
			tierEvent("a", 1, true), lostTier("z"), defaults, policyOf("GlobalNetworkPolicy 1"), policyOf("GlobalNetworkPolicy 2", inTier("a")),
			policyOf("GlobalNetworkPolicy 3", inTier("z"))}, "z[] a[GlobalNetworkPolicy 2 pass] default[GlobalNetworkPolicy 1]", ""},
		{"one such without a policy that is enforced does nothing", []model.Event{lostTier("z"), defaults, policyOf("GlobalNetworkPolicy 1"),
			policyOf("StagedGlobalNetworkPolicy 3", inTier("z"), func(p *model.Policy) { p.Staged = true })}, "default[GlobalNetworkPolicy 1]", ""},
		{"tiers by order, then name, without order last", []model.Event{
			tierEvent("none", math.Inf(1), false), tierEvent("b", 5, true), tierEvent("a", 5, false), tierEvent("z", 1, false), defaults,
			policyOf("GlobalNetworkPolicy 1", inTier("none")), policyOf("GlobalNetworkPolicy 2", inTier("b")), policyOf("GlobalNetworkPolicy 3", inTier("a")),
			policyOf("GlobalNetworkPolicy 4", inTier("z")), policyOf("GlobalNetworkPolicy 5")},
			"z[GlobalNetworkPolicy 4] a[GlobalNetworkPolicy 3] b[GlobalNetworkPolicy 2 pass] default[GlobalNetworkPolicy 5] none[GlobalNetworkPolicy 1]", ""},
		{"tiers that do not exist come last and deny", []model.Event{defaults, policyOf("GlobalNetworkPolicy 1", inTier("gone")),
			policyOf("GlobalNetworkPolicy 2", inTier("away")), policyOf("GlobalNetworkPolicy 3"), tierEvent("last", math.Inf(1), true), policyOf("GlobalNetworkPolicy 4", inTier("last"))},
			"default[GlobalNetworkPolicy 3] last[GlobalNetworkPolicy 4 pass] away[GlobalNetworkPolicy 2] gone[GlobalNetworkPolicy 1]", ""},
		{"a tier without a policy for the direction is not there", []model.Event{defaults, tierEvent("t", 1, false),
			policyOf("GlobalNetworkPolicy in", inTier("t")), policyOf("GlobalNetworkPolicy out", egressOnly)},
			"t[GlobalNetworkPolicy in]", "default[GlobalNetworkPolicy out]"},
		{"a tier with staged policies only is not there", []model.Event{defaults, tierEvent("t", 1, false),
			policyOf("StagedGlobalNetworkPolicy a", inTier("t")), policyOf("StagedNetworkPolicy default/a")}, "", ""},
		{"staged policies beside others are not there", []model.Event{defaults, policyOf("StagedNetworkPolicy default/a", order(1)), policyOf("NetworkPolicy default/a", order(2))},
			"default[NetworkPolicy default/a]", ""},
		{"untracked and pre-DNAT policies are not for workloads", []model.Event{defaults,
			policyOf("GlobalNetworkPolicy a", func(p *model.Policy) { p.DoNotTrack = true }),
			policyOf("GlobalNetworkPolicy b", func(p *model.Policy) { p.PreDNAT = true }),
			policyOf("GlobalNetworkPolicy c", func(p *model.Policy) { p.ApplyOnForward = true })},
			"default[GlobalNetworkPolicy c]", ""},
		{"kube-baseline after default", []model.Event{defaults, tierEvent("kube-baseline", 1e7, true), tierEvent("kube-admin", 1000, true),
			policyOf("GlobalNetworkPolicy 1", inTier("kube-baseline")), policyOf("GlobalNetworkPolicy 2"), policyOf("GlobalNetworkPolicy 3", inTier("kube-admin"))},
			"kube-admin[GlobalNetworkPolicy 3 pass] default[GlobalNetworkPolicy 2] kube-baseline[GlobalNetworkPolicy 1 pass]", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := New(model.Settings{Node: "h1"})
			for _, e := range tt.in { // one by one
				c.Apply([]model.Event{e})
			}
			c.Apply([]model.Event{webWorkload()})
			e := c.State().Policy.Endpoints["calia"]
			if in, out := tiersText(e.Ingress), tiersText(e.Egress); in != tt.ingress || out != tt.egress {
				t.Errorf("\n got %q, %q\nwant %q, %q", in, out, tt.ingress, tt.egress)
			}
		})
	}
}

// TestManyOrders sorts 100,000 policies of all kinds of order, told in any
// order, some changed afterwards.
func TestManyOrders(t *testing.T) {
	const n = 100_000
	r := rand.New(rand.NewPCG(1, 2))
	var events []model.Event
	for i := range n {
		o := float64(r.IntN(n/2)) / 3
		if i%100 == 0 {
			o = math.Inf(1)
		}
		events = append(events, policyOf(fmt.Sprintf("NetworkPolicy ns%d/p%d", i%7, i), order(o)))
	}
	c := New(model.Settings{Node: "h1"})
	c.Apply(append(slices.Clone(events), webWorkload(), tierEvent("default", 1, false)))
	for _, i := range []int{5, 50, n - 1} {
		p := *events[i].Value.(*model.Policy)
		p.Order = float64(i)
		events[i].Value = &p
		c.Apply([]model.Event{events[i]})
	}
	slices.SortFunc(events, func(a, b model.Event) int {
		return model.ComparePolicies(a.Value.(*model.Policy), b.Value.(*model.Policy))
	})
	var want []string
	for _, e := range events {
		want = append(want, e.ID.String())
	}
	if got := c.State().Policy.Endpoints["calia"].Ingress[0].Policies; !slices.Equal(got, want) {
		t.Error("out of order")
	}
}

// TestSetsOfARule goes from the source of a rule to the sets that come of it,
// whether the rule or the endpoints are told of first.
func TestSetsOfARule(t *testing.T) {
	web := model.NamedPort{Name: "http", Protocol: 6, Port: 8080}
	host := model.ID{Kind: model.KindHostEndpoint, Name: "e"}
	world := []model.Event{
		webWorkload(),
		remote("ns1", "fe", map[string]string{"role": "fe"}, []model.NamedPort{web}, "10.0.0.1", "fd00::1"),
		remote("ns2", "fe", map[string]string{"role": "fe", "team": "a"}, []model.NamedPort{{Name: "http", Protocol: 17, Port: 9}}, "10.0.0.2"),
		remote("ns2", "db", map[string]string{"role": "db"}, nil, "10.0.0.3", "fd00::3"),
		{ID: host, Value: &model.HostEndpoint{ID: host, Node: "h2", Interface: "eth0", Labels: map[string]string{"role": "fe"},
			Addrs: []netip.Addr{ip("172.16.0.2")}, Ports: []model.NamedPort{web}}},
		{ID: model.ID{Kind: model.KindNetworkSet, Namespace: "ns1", Name: "s"}, Value: &model.NetworkSet{
			Labels: map[string]string{"role": "fe", selector.NamespaceLabel: "ns1"}, Nets: []netip.Prefix{pfx("10.0.0.1/32"), pfx("192.0.2.0/24"), pfx("::/0")}}},
		{ID: model.ID{Kind: model.KindService, Namespace: "ns1", Name: "svc"}, Value: &model.Service{Namespace: "ns1", Name: "svc",
			Backends: []model.Backend{{Addr: ip("10.0.0.3"), Protocol: 6, Port: 5432}, {Addr: ip("fd00::3"), Protocol: 6, Port: 5432}}}},
		{ID: model.ID{Kind: model.KindProfile, Name: "kns.ns2"}, Value: &model.Profile{Name: "kns.ns2", Labels: map[string]string{"pcns.env": "prod", "team": "b"}}},
	}
	svc := &model.ServiceRef{Namespace: "ns1", Name: "svc"}
	named := []model.PortMatch{{Min: 80, Max: 90}, {Name: "http"}}
	tests := []struct {
		name string
		in   model.Entity
		want []string // sets with their members, in the order of the rule's fields
	}{
		{"nothing", model.Entity{}, nil},
		{"labels: workloads, host endpoints by expected addresses, network sets", from(t, selector.Entity{Selector: "role == 'fe'"}),
			[]string{"10.0.0.1/32 10.0.0.2/32 172.16.0.2/32 192.0.2.0/24 ::/0 fd00::1/128"}},
		{"in the policy's namespace", from(t, selector.Entity{Namespace: "ns2", Selector: "role == 'fe'"}), []string{"10.0.0.2/32"}},
		{"in no namespace", from(t, selector.Entity{NamespaceSelector: "global()", Selector: "role == 'fe'"}), []string{"172.16.0.2/32"}},
		{"by labels of the namespace", from(t, selector.Entity{NamespaceSelector: "env == 'prod'"}), []string{"10.0.0.2/32 10.0.0.3/32 fd00::3/128"}},
		{"all namespaces: no host endpoint", from(t, selector.Entity{NamespaceSelector: "all()", Selector: "role == 'fe'"}),
			[]string{"10.0.0.1/32 10.0.0.2/32 192.0.2.0/24 ::/0 fd00::1/128"}},
		{"an endpoint's own label hides its profile's", from(t, selector.Entity{Selector: "team == 'b'"}), []string{"10.0.0.3/32 fd00::3/128"}},
		{"notSelector alone restricts to the namespace", from(t, selector.Entity{Namespace: "ns2", NotSelector: "role == 'fe'"}),
			[]string{"10.0.0.2/32 10.0.0.3/32 fd00::3/128", "10.0.0.1/32 10.0.0.2/32 172.16.0.2/32 192.0.2.0/24 ::/0 fd00::1/128"}},
		{"matches nothing", from(t, selector.Entity{Selector: "role in {}"}), []string{""}},
		{"a named port of all endpoints", model.Entity{Ports: named}, []string{"10.0.0.1/32:6:8080 10.0.0.2/32:17:9 172.16.0.2/32:6:8080 fd00::1/128:6:8080"}},
		{"a named port of what the selector matches", with(from(t, selector.Entity{Namespace: "ns1", Selector: "role == 'fe'"}), func(e *model.Entity) { e.Ports = named }),
			[]string{"10.0.0.1/32 192.0.2.0/24 ::/0 fd00::1/128", "10.0.0.1/32:6:8080 fd00::1/128:6:8080"}},
		{"a named port that nobody has", model.Entity{NotPorts: []model.PortMatch{{Name: "gone"}}}, []string{""}},
		{"a service as destination", model.Entity{Service: svc, ServicePorts: true}, []string{"10.0.0.3/32:6:5432 fd00::3/128:6:5432"}},
		{"a service as source", model.Entity{Service: svc}, []string{"10.0.0.3/32 fd00::3/128"}},
		{"a service that is not there", model.Entity{Service: &model.ServiceRef{Namespace: "x", Name: "y"}, ServicePorts: true}, []string{""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := policyOf("GlobalNetworkPolicy p", on("app == 'web'"),
				rules(model.Rule{Action: model.Allow, Families: model.IPv4 | model.IPv6, Source: tt.in}))
			first := New(model.Settings{Node: "h1"})
			first.Apply(append([]model.Event{p}, world...))
			last := New(model.Settings{Node: "h1"})
			for _, e := range append(slices.Clone(world), p) {
				last.Apply([]model.Event{e})
			}
			for when, c := range map[string]*Core{"policy first": first, "policy last": last} {
				asked := c.State().Policy
				s := asked.Rules[desired.RulesID{Owner: "GlobalNetworkPolicy p"}].Rules[0].Source
				var got []string
				for _, id := range slices.Concat(s.Sets, s.NotSets, s.PortSets, s.NotPortSets) {
					got = append(got, membersText(asked.Sets[id]))
				}
				if !slices.Equal(got, tt.want) || len(asked.Sets) != len(got) {
					t.Errorf("%s:\n got %q\nwant %q", when, got, tt.want)
				}
			}
		})
	}
}

func remote(namespace, name string, labels map[string]string, ports []model.NamedPort, addrs ...string) model.Event {
	w := &model.Workload{
		ID: model.ID{Kind: model.KindWorkload, Namespace: namespace, Name: name}, Node: "h2", Interface: "cali" + name,
		Labels: labels, Ports: ports, Profiles: []string{"kns." + namespace},
	}
	w.Labels[selector.NamespaceLabel] = namespace
	for _, a := range addrs {
		w.Addrs = append(w.Addrs, ip(a))
	}
	return model.Event{ID: w.ID, Value: w}
}

func from(t *testing.T, e selector.Entity) model.Entity {
	t.Helper()
	p, err := e.Compose()
	if err != nil {
		t.Fatal(err)
	}
	return model.Entity{Peers: p}
}

func with(e model.Entity, edit func(*model.Entity)) model.Entity {
	edit(&e)
	return e
}

func membersText(s *desired.Set) string {
	var out []string
	for m := range s.Members {
		text := m.Prefix.String()
		if s.Kind == desired.PortSet {
			text += fmt.Sprintf(":%d:%d", m.Protocol, m.Port)
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestOverlappingContributions: an address that several bring to a set stays
// until the last of them goes, and patches tell of the first and last only.
func TestOverlappingContributions(t *testing.T) {
	fe := map[string]string{"role": "fe"}
	one := remote("ns1", "one", fe, nil, "10.0.0.1", "fd00::1")
	two := remote("ns1", "two", map[string]string{"role": "fe"}, nil, "10.0.0.1", "10.0.0.2")
	net := model.Event{ID: model.ID{Kind: model.KindNetworkSet, Name: "n"}, Value: &model.NetworkSet{Labels: fe, Nets: []netip.Prefix{pfx("10.0.0.1/32")}}}
	gone := func(e model.Event) model.Event { return model.Event{ID: e.ID} }
	moved := remote("ns1", "two", map[string]string{"role": "fe"}, nil, "10.0.0.1", "10.0.0.3")
	c := New(model.Settings{Node: "h1"})
	c.Apply([]model.Event{webWorkload(), policyOf("GlobalNetworkPolicy p", on("app == 'web'"), rules(allowFrom("role == 'fe'")))})
	steps := []struct {
		name        string
		in          []model.Event
		add, remove string
	}{
		{"the first", []model.Event{one}, "10.0.0.1/32 fd00::1/128", ""},
		{"another with one address more", []model.Event{two}, "10.0.0.2/32", ""},
		{"a network set with the same", []model.Event{net}, "", ""},
		{"the first goes", []model.Event{gone(one)}, "", "fd00::1/128"},
		{"another address", []model.Event{moved}, "10.0.0.3/32", "10.0.0.2/32"},
		{"gone and back within a batch", []model.Event{gone(moved), moved}, "", ""},
		{"an address changes hands within a batch", []model.Event{gone(moved), one}, "fd00::1/128", "10.0.0.3/32"},
		{"all but the network set", []model.Event{gone(one)}, "", "fd00::1/128"},
		{"and that", []model.Event{gone(net)}, "", "10.0.0.1/32"},
	}
	for _, s := range steps {
		u := c.Apply(s.in)
		var add, remove string
		for _, p := range u.Policy.Sets {
			add, remove = listText(p.Add), listText(p.Remove)
		}
		if add != s.add || remove != s.remove || len(u.Policy.Sets) != 0 && add+remove == "" {
			t.Errorf("%s: adds %q, removes %q", s.name, add, remove)
		}
	}
}

func listText(list []desired.Member) string {
	set := desired.Set{Members: map[desired.Member]struct{}{}}
	for _, m := range list {
		set.Members[m] = struct{}{}
	}
	return membersText(&set)
}

// TestProfilesOfAnEndpoint: one that does not exist denies both ways, the
// built-in one allows both ways whatever is stored.
func TestProfilesOfAnEndpoint(t *testing.T) {
	deny := []desired.PolicyRule{{Action: desired.Deny, IPv4: true, IPv6: true}}
	allow := []desired.PolicyRule{{Action: desired.Allow, IPv4: true, IPv6: true}}
	profile := func(name string, ingress, egress []model.Rule) model.Event {
		return model.Event{ID: model.ID{Kind: model.KindProfile, Name: name}, Value: &model.Profile{Name: name, Ingress: ingress, Egress: egress}}
	}
	tests := []struct {
		name            string
		profile         string
		in              []model.Event
		ingress, egress []desired.PolicyRule
	}{
		{"missing", "p", nil, deny, deny},
		{"unreadable", "p", []model.Event{{ID: model.ID{Kind: model.KindProfile, Name: "p"}, Value: &model.Invalid{Message: "bad"}}}, deny, deny},
		{"deleted", "p", []model.Event{profile("p", everything(model.Allow), nil), {ID: model.ID{Kind: model.KindProfile, Name: "p"}}}, deny, deny},
		{"stored", "p", []model.Event{profile("p", everything(model.Allow), nil)}, allow, nil},
		{"built in", model.DefaultAllow, nil, allow, allow},
		{"built in, stored as another", model.DefaultAllow, []model.Event{profile(model.DefaultAllow, everything(model.Deny), nil)}, allow, allow},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := New(model.Settings{Node: "h1"})
			c.Apply([]model.Event{webWorkload(func(w *model.Workload) { w.Profiles = []string{tt.profile} })})
			for _, e := range tt.in {
				c.Apply([]model.Event{e})
			}
			p := c.State().Policy
			if got := p.Endpoints["calia"].Profiles; !slices.Equal(got, []string{"Profile " + tt.profile}) || len(p.Rules) != 2 {
				t.Fatalf("profiles %q, %d lists", got, len(p.Rules))
			}
			in := p.Rules[desired.RulesID{Owner: "Profile " + tt.profile, Direction: desired.Ingress}].Rules
			out := p.Rules[desired.RulesID{Owner: "Profile " + tt.profile, Direction: desired.Egress}].Rules
			if !reflect.DeepEqual(in, tt.ingress) || !reflect.DeepEqual(out, tt.egress) {
				t.Errorf("got %+v, %+v", in, out)
			}
		})
	}
}

// TestHTTPOfProfiles: of rules with HTTP criteria in a profile people hear as
// they do of those of policies, while some workload here names it.
func TestHTTPOfProfiles(t *testing.T) {
	get := []model.Rule{{Action: model.Allow, Families: model.IPv4}, {Action: model.Deny, Families: model.IPv4, HTTP: true, Name: "get"}}
	profile := func(rules []model.Rule) model.Event {
		return model.Event{ID: model.ID{Kind: model.KindProfile, Name: "p"}, Value: &model.Profile{Name: "p", Ingress: rules}}
	}
	under := func(name string) model.Event {
		return webWorkload(func(w *model.Workload) { w.Profiles = []string{name} })
	}
	c := New(model.Settings{Node: "h1"})
	for _, s := range []struct {
		name string
		in   model.Event
		want bool
	}{
		{"nobody names it", profile(get), false},
		{"somebody does", under("p"), true},
		{"it is another", profile(get[:1]), false},
		{"and again", profile(get), true},
		{"its workload has another profile", under("q"), false},
		{"and it", under("p"), true},
		{"it is gone", model.Event{ID: model.ID{Kind: model.KindProfile, Name: "p"}}, false},
	} {
		c.Apply([]model.Event{s.in})
		n, told := c.State().Notices[desired.NoticeKey{Condition: desired.ConditionPolicy, Object: "Profile p"}]
		if told != s.want || told && (n.Reason != "HTTPNotEnforced" || !strings.Contains(n.Message, `ingress rule 1 ("get")`)) {
			t.Errorf("%s: %+v", s.name, n)
		}
	}
}

// TestRulesAreResolved goes from a rule of the model to that of a back end.
func TestRulesAreResolved(t *testing.T) {
	both := model.IPv4 | model.IPv6
	in := []model.Rule{
		{Action: model.Allow, Families: both, Never: true},
		{Action: model.Log, Families: model.IPv6, Protocol: 58, ICMP: &model.ICMP{Type: 128, Code: -1}},
		{Action: model.Pass, Families: both, NotProtocol: 6, NotICMP: &model.ICMP{Type: 8, Code: 0}},
		{Action: model.Deny, Families: model.IPv4, HTTP: true, Name: "get", Protocol: 6,
			Source: model.Entity{Nets: []netip.Prefix{pfx("0.0.0.0/0")}, NotNets: []netip.Prefix{pfx("10.0.0.0/8")}},
			Destination: model.Entity{Ports: []model.PortMatch{{Min: 1, Max: 2}, {Min: 9, Max: 9}},
				NotPorts: []model.PortMatch{{Min: 2, Max: 2}}}},
	}
	want := []desired.PolicyRule{
		{Index: 1, Action: desired.Log, IPv6: true, Protocol: 58, ICMP: &desired.ICMP{Type: 128, Code: -1}},
		{Index: 2, Action: desired.Pass, IPv4: true, IPv6: true, NotProtocol: 6, NotICMP: &desired.ICMP{Type: 8}},
		{Index: 3, Action: desired.Deny, IPv4: true, Protocol: 6,
			Source: desired.Side{Nets: []netip.Prefix{pfx("0.0.0.0/0")}, NotNets: []netip.Prefix{pfx("10.0.0.0/8")}},
			Destination: desired.Side{Ports: []desired.PortRange{{Min: 1, Max: 2}, {Min: 9, Max: 9}},
				NotPorts: []desired.PortRange{{Min: 2, Max: 2}}}},
	}
	c := New(model.Settings{Node: "h1"})
	c.Apply([]model.Event{webWorkload(), policyOf("NetworkPolicy default/p", rules(in...))})
	s := c.State()
	if got := s.Policy.Rules[desired.RulesID{Owner: "NetworkPolicy default/p"}].Rules; !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
	n := s.Notices[desired.NoticeKey{Condition: desired.ConditionPolicy, Object: "NetworkPolicy default/p"}]
	if n.Reason != "HTTPNotEnforced" || n.Blocking || !strings.Contains(n.Message, `ingress rule 3 ("get")`) {
		t.Errorf("notice %+v", n)
	}
}

// TestWhatIsNotReferredToIsNotThere: lists and sets come and go with the
// endpoints that need them, and a policy elsewhere costs no list.
func TestWhatIsNotReferredToIsNotThere(t *testing.T) {
	c := New(model.Settings{Node: "h1"})
	p := policyOf("NetworkPolicy default/p", on("app == 'web'"), rules(allowFrom("role == 'fe'")))
	q := policyOf("NetworkPolicy default/q", on("app == 'web'"), rules(allowFrom("role == 'fe'")))
	sizes := func() [3]int {
		s := c.State().Policy
		return [3]int{len(s.Endpoints), len(s.Rules), len(s.Sets)}
	}
	steps := []struct {
		name string
		in   []model.Event
		want [3]int
	}{
		{"policies for nobody", []model.Event{p, q}, [3]int{}},
		{"a workload elsewhere", []model.Event{remote("default", "r", map[string]string{"app": "web"}, nil, "10.0.0.9")}, [3]int{}},
		{"a workload here", []model.Event{webWorkload()}, [3]int{1, 4, 1}},
		{"one policy goes, the set is shared", []model.Event{{ID: q.ID}}, [3]int{1, 3, 1}},
		{"the workload has another label", []model.Event{webWorkload(func(w *model.Workload) { w.Labels["app"] = "x" })}, [3]int{1, 2, 0}},
		{"and back", []model.Event{webWorkload()}, [3]int{1, 3, 1}},
		{"it has no address", []model.Event{webWorkload(func(w *model.Workload) { w.Addrs = nil })}, [3]int{}},
		{"it has one of a host", []model.Event{webWorkload(), nodeEvent(&model.Node{Name: "h2", Addr4: pfx("10.65.0.7/24")})}, [3]int{1, 3, 1}},
		{"its interface is none of a workload", []model.Event{webWorkload(func(w *model.Workload) { w.Interface = "eth0" })}, [3]int{}},
	}
	for _, s := range steps {
		if c.Apply(s.in); sizes() != s.want {
			t.Errorf("%s: endpoints, lists, sets: %v, want %v", s.name, sizes(), s.want)
		}
	}
}

// TestSameSelectorIsOneSet: spellings do not matter.
func TestSameSelectorIsOneSet(t *testing.T) {
	c := New(model.Settings{Node: "h1"})
	c.Apply([]model.Event{webWorkload(), policyOf("GlobalNetworkPolicy p", rules(
		allowFrom("role == 'fe'"), allowFrom(`(role=="fe")`), allowFrom("role in {'b','a'}"), allowFrom("role in {'a','b','a'}")))})
	want := []desired.SetID{desired.SetID(mustSelector("role == 'fe'").ID()), desired.SetID(mustSelector("role in {'a', 'b'}").ID())}
	var got []desired.SetID
	for id := range c.State().Policy.Sets {
		got = append(got, id)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
