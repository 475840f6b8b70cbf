package flows

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/conntrack"
	"github.com/brindle-net/brindle/internal/desired"
)

const mark = 0x10000

// table is a table of connections in memory.
type table struct {
	entries []conntrack.Entry
	err     error
}

func (t *table) List() ([]conntrack.Entry, error) { return slices.Clone(t.entries), t.err }

func (t *table) Glance() ([]conntrack.Entry, error) { return t.List() }

func (t *table) SetMark(entries []conntrack.Entry, value, mask uint32) error {
	for _, e := range entries {
		i := slices.Index(t.entries, e)
		t.entries[i].Mark = e.Mark&^mask | value
	}
	return nil
}

func (t *table) Delete(entries []conntrack.Entry) error {
	t.entries = slices.DeleteFunc(t.entries, func(e conntrack.Entry) bool { return slices.Contains(entries, e) })
	return nil
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// flow is a connection without translation.
func flow(src, dst string, port uint16) conntrack.Entry {
	o := conntrack.Tuple{Src: addr(src), Dst: addr(dst), Protocol: 6, SrcPort: 40000, DstPort: port}
	return conntrack.Entry{Orig: o, Reply: conntrack.Tuple{Src: o.Dst, Dst: o.Src, Protocol: 6, SrcPort: port, DstPort: 40000}}
}

// host has two workloads: cali1 with policy a and the set s, cali2 with the
// profile p.
func host() desired.Policy {
	w := desired.NewPolicy()
	w.Endpoints["cali1"] = &desired.Endpoint{Addrs: []netip.Addr{addr("10.0.0.1"), addr("fd00::1")},
		Ingress: []desired.Tier{{Policies: []string{"a"}}}}
	w.Endpoints["cali2"] = &desired.Endpoint{Addrs: []netip.Addr{addr("10.0.0.2")}, Profiles: []string{"p"}}
	for _, owner := range []string{"a", "p"} {
		for _, d := range []desired.Direction{desired.Ingress, desired.Egress} {
			w.Rules[desired.RulesID{Owner: owner, Direction: d}] = &desired.RuleList{}
		}
	}
	w.Sets["s"] = &desired.Set{}
	return w
}

func judge(denied ...uint16) Judge {
	return Judge{
		Mark: mark, Host: map[netip.Addr]bool{addr("192.0.2.1"): true},
		Allows: func(p Packet) bool { return !slices.Contains(denied, p.DstPort) },
	}
}

// changed is Changed where nobody has kept account of the rules.
func changed(w *desired.Policy, p *desired.PolicyPatch, cut bool) *Scope {
	return Changed(w, p, cut, DeniersOf(w.Rules))
}

// bring judges the connections of a table and carries out the verdicts.
func bring(t *testing.T, tab *table, s *Scope, gone map[netip.Addr]bool, by Judge) Result {
	t.Helper()
	w := host()
	v := s.Judge(tab.entries, &w, gone, by)
	if err := v.Apply(tab, nil); err != nil {
		t.Fatal(err)
	}
	return v.Result
}

func member(s string) desired.Member { return desired.Member{Prefix: netip.MustParsePrefix(s)} }

func TestScope(t *testing.T) {
	entries := []conntrack.Entry{
		flow("10.9.0.1", "10.0.0.1", 80), flow("10.9.0.9", "10.0.0.2", 80), flow("10.0.0.1", "10.0.0.2", 80),
		flow("fd09::1", "fd00::1", 80), flow("10.9.0.1", "10.9.0.2", 80),
	}
	patch := func(f func(p *desired.PolicyPatch)) *desired.PolicyPatch {
		p := &desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{}}
		f(p)
		return p
	}
	w := host()
	tests := []struct {
		name  string
		patch *desired.PolicyPatch // nil: everything
		want  []int                // entries that are cut
	}{
		{"everything", nil, []int{0, 1, 2, 3}},
		{"nothing", patch(func(*desired.PolicyPatch) {}), nil},
		{"endpoint", patch(func(p *desired.PolicyPatch) {
			p.Endpoints.Set = map[string]*desired.Endpoint{"cali2": w.Endpoints["cali2"]}
		}), []int{1, 2}},
		{"policy", patch(func(p *desired.PolicyPatch) {
			p.Rules.Set = map[desired.RulesID]*desired.RuleList{{Owner: "a"}: {}}
		}), []int{0, 2, 3}},
		{"policy, the other direction", patch(func(p *desired.PolicyPatch) {
			p.Rules.Set = map[desired.RulesID]*desired.RuleList{{Owner: "a", Direction: desired.Egress}: {}}
		}), nil},
		{"profile", patch(func(p *desired.PolicyPatch) {
			p.Rules.Set = map[desired.RulesID]*desired.RuleList{{Owner: "p", Direction: desired.Egress}: {}}
		}), []int{1, 2}},
		{"member removed", patch(func(p *desired.PolicyPatch) {
			p.Sets["s"] = desired.SetPatch{Remove: []desired.Member{member("10.9.0.1/32")}}
		}), []int{0}},
		{"network added", patch(func(p *desired.PolicyPatch) {
			p.Sets["s"] = desired.SetPatch{Add: []desired.Member{member("fd09::/64"), member("10.9.0.8/29")}}
		}), []int{1, 3}},
		{"new rules and sets", patch(func(p *desired.PolicyPatch) {
			p.Rules.Set = map[desired.RulesID]*desired.RuleList{{Owner: "new"}: {}}
			p.Sets["new"] = desired.SetPatch{Add: []desired.Member{member("10.9.0.1/32")}}
		}), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tab := &table{entries: slices.Clone(entries)}
			s := Everything()
			if tt.patch != nil {
				s = changed(&w, tt.patch, true)
			}
			r := bring(t, tab, s, nil, judge(80))
			var got []int
			for i, e := range tab.entries {
				if e.Mark == mark {
					got = append(got, i)
				}
			}
			if !slices.Equal(got, tt.want) || r.Cut != len(tt.want) || s == nil != (tt.want == nil) {
				t.Errorf("cut %v (%+v), want %v", got, r, tt.want)
			}
			// Allowed again: all of it heals, whatever other marks say.
			for i := range tab.entries {
				tab.entries[i].Mark |= 1
			}
			if r := bring(t, tab, Join(nil, s), nil, judge()); r.Healed != len(tt.want) {
				t.Errorf("healed %+v", r)
			}
			for _, e := range tab.entries {
				if e.Mark != 1 {
					t.Errorf("mark %#x", e.Mark)
				}
			}
		})
	}
}

// TestScopeOfMembers: while nothing is cut, a member that joins is looked at
// where it may deny: not where rules allow what is in its set.
func TestScopeOfMembers(t *testing.T) {
	w := host()
	for _, id := range []desired.SetID{"allow", "except", "deny", "pass", "ports"} {
		w.Sets[id] = &desired.Set{}
	}
	w.Rules[desired.RulesID{Owner: "m"}] = &desired.RuleList{Rules: []desired.PolicyRule{
		{Action: desired.Allow, Source: desired.Side{Sets: []desired.SetID{"allow"}, NotSets: []desired.SetID{"except"}}},
		{Action: desired.Log, Source: desired.Side{Sets: []desired.SetID{"allow"}}},
		{Action: desired.Deny, Destination: desired.Side{Sets: []desired.SetID{"deny"}}},
		{Action: desired.Pass, Destination: desired.Side{Sets: []desired.SetID{"pass"}}},
		{Action: desired.Allow, Destination: desired.Side{PortSets: []desired.SetID{"ports"}}},
	}}
	joins := desired.SetPatch{Add: []desired.Member{member("10.9.0.1/32"), member("fd09::1/128")}}
	for id, looked := range map[desired.SetID]bool{"allow": false, "ports": false, "except": true, "deny": true, "pass": true} {
		p := &desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{id: joins}}
		if s := changed(&w, p, false); s != nil != looked {
			t.Errorf("%s: looked at %v, want %v", id, s != nil, looked)
		}
		if s := changed(&w, p, true); s == nil {
			t.Errorf("%s: a connection that is cut may be allowed now", id)
		}
		p.Sets[id] = desired.SetPatch{Remove: joins.Add}
		if s := changed(&w, p, false); s == nil {
			t.Errorf("%s: who leaves may be denied", id)
		}
	}
}

// TestTranslatedFlows: policy sees the backend of a service, and the source
// before it is masqueraded.
func TestTranslatedFlows(t *testing.T) {
	dnat := conntrack.Entry{
		Orig:  conntrack.Tuple{Src: addr("10.0.0.1"), Dst: addr("10.96.0.1"), Protocol: 6, SrcPort: 1, DstPort: 443},
		Reply: conntrack.Tuple{Src: addr("10.0.0.2"), Dst: addr("10.0.0.1"), Protocol: 6, SrcPort: 8443, DstPort: 1},
	}
	snat := conntrack.Entry{
		Orig:  conntrack.Tuple{Src: addr("10.0.0.1"), Dst: addr("203.0.113.5"), Protocol: 17, SrcPort: 5, DstPort: 53},
		Reply: conntrack.Tuple{Src: addr("203.0.113.5"), Dst: addr("192.0.2.1"), Protocol: 17, SrcPort: 53, DstPort: 61000},
	}
	toHost, fromHost := flow("10.0.0.1", "192.0.2.1", 22), flow("192.0.2.1", "10.0.0.2", 80)
	want := []Packet{
		{From: "cali1", To: "cali2", Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), Protocol: 6, SrcPort: 1, DstPort: 8443},
		{From: "cali1", Src: addr("10.0.0.1"), Dst: addr("203.0.113.5"), Protocol: 17, SrcPort: 5, DstPort: 53},
		{From: "cali1", ToHost: true, Src: addr("10.0.0.1"), Dst: addr("192.0.2.1"), Protocol: 6, SrcPort: 40000, DstPort: 22},
		{To: "cali2", FromHost: true, Src: addr("192.0.2.1"), Dst: addr("10.0.0.2"), Protocol: 6, SrcPort: 40000, DstPort: 80},
	}
	var got []Packet
	tab := &table{entries: []conntrack.Entry{dnat, snat, toHost, fromHost}}
	by := judge()
	by.Allows = func(p Packet) bool { got = append(got, p); return true }
	bring(t, tab, Everything(), nil, by)
	if !slices.Equal(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

// TestForget: what an address leaves behind goes, whatever else is judged.
func TestForget(t *testing.T) {
	tab := &table{entries: []conntrack.Entry{
		flow("10.9.0.1", "10.0.0.1", 80), flow("10.0.0.1", "10.0.0.2", 80), flow("10.9.0.1", "10.0.0.2", 80), flow("fd00::1", "fd09::1", 1),
	}}
	left := tab.entries[2]
	gone := map[netip.Addr]bool{addr("10.0.0.1"): true, addr("fd00::1"): true}
	if r := bring(t, tab, nil, gone, judge(80)); r != (Result{Gone: 3}) || !slices.Equal(tab.entries, []conntrack.Entry{left}) {
		t.Errorf("%+v, left %v", r, tab.entries)
	}
}

// TestAllowsNoLess: of random lists of rules in two tiers, what a change of
// which that is said has allowed before it allows after. Ports stand for all
// that rules match by, so no family has a part in it.
func TestAllowsNoLess(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	actions := []desired.Action{desired.Allow, desired.Deny, desired.Pass, desired.Log}
	random := func() desired.PolicyRule {
		lo := uint16(r.IntN(8))
		return desired.PolicyRule{
			Index: r.IntN(9), Action: actions[r.IntN(4)],
			Destination: desired.Side{Ports: []desired.PortRange{{Min: lo, Max: lo + uint16(r.IntN(4))}}},
		}
	}
	list := func() (out []desired.PolicyRule) {
		for range r.IntN(5) {
			out = append(out, random())
		}
		return out
	}
	judged := func(port uint16, tiers ...[]desired.PolicyRule) bool {
	tiers:
		for _, rules := range tiers {
			for _, p := range rules {
				if at := p.Destination.Ports[0]; port < at.Min || port > at.Max {
					continue
				}
				switch p.Action {
				case desired.Allow:
					return true
				case desired.Deny:
					return false
				case desired.Pass:
					continue tiers
				}
			}
			return false // the end of the tier
		}
		return false
	}
	said := 0
	for range 50_000 {
		old, next := list(), list()
		now := slices.Clone(old)
		for range 1 + r.IntN(3) {
			switch at := r.IntN(len(now) + 1); {
			case r.IntN(2) == 0:
				now = slices.Insert(now, at, random())
			case at < len(now):
				now = slices.Delete(now, at, at+1)
			}
		}
		if !allowsNoLess(old, now) {
			continue
		}
		said++
		for port := range uint16(12) {
			if judged(port, old, next) && !judged(port, now, next) {
				t.Fatalf("port %d:\n%+v\n%+v\n%+v", port, old, now, next)
			}
		}
	}
	if said < 5000 {
		t.Errorf("said of %d only", said)
	}
}

// TestScopeOfWhatAllowsMore: what a change only allows concerns connections
// that are cut.
func TestScopeOfWhatAllowsMore(t *testing.T) {
	allow, deny := desired.PolicyRule{Action: desired.Allow, Protocol: 6}, desired.PolicyRule{Action: desired.Deny, Protocol: 6}
	with := func(rules ...desired.PolicyRule) *desired.PolicyPatch {
		p := &desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{}}
		p.Rules.Set = map[desired.RulesID]*desired.RuleList{{Owner: "a"}: {Rules: rules}}
		return p
	}
	set := func(p desired.SetPatch) *desired.PolicyPatch {
		return &desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{"s": p}}
	}
	for _, tt := range []struct {
		name         string
		patch        *desired.PolicyPatch
		some, onlyIf bool // connections to look at; only those that are cut
	}{
		{"a rule more that allows", with(allow, allow, deny), true, true},
		{"a rule less that denies", with(allow), true, true},
		{"a rule more that denies", with(deny, allow, deny), true, false},
		{"a rule less that allows", with(deny), true, false},
		{"the other order", with(deny, allow), true, false},
		{"the same", with(allow, deny), true, true},
		{"a member of a set that allows", set(desired.SetPatch{Add: []desired.Member{member("10.9.0.1/32")}}), true, true},
		{"a member less", set(desired.SetPatch{Remove: []desired.Member{member("fd09::1/128")}}), true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := host()
			w.Rules[desired.RulesID{Owner: "a"}] = &desired.RuleList{Rules: []desired.PolicyRule{allow, deny}}
			s := changed(&w, tt.patch, true)
			if s.OnlyCut() != tt.onlyIf || s.Denials() == nil != tt.onlyIf {
				t.Errorf("only those that are cut: %v", s.OnlyCut())
			}
			if s := changed(&w, tt.patch, false); s == nil != tt.onlyIf || s.OnlyCut() {
				t.Errorf("while none is cut: %+v", s)
			}
			both := Join(s, changed(&w, with(deny), true))
			if both.OnlyCut() || both.Denials() == nil {
				t.Errorf("with a denial: %+v", both)
			}
		})
	}
}

// TestBehind: a connection of a network behind a workload is the workload's,
// one of a host's or another workload's own address never.
func TestBehind(t *testing.T) {
	nets := map[netip.Prefix]string{netip.MustParsePrefix("198.51.100.0/24"): "cali1", netip.MustParsePrefix("2001:db8::/32"): "cali1",
		netip.MustParsePrefix("10.0.0.0/8"): "cali1", netip.MustParsePrefix("192.0.2.0/24"): "cali1"}
	by := judge()
	by.Behind = func(a netip.Addr) string {
		for n, iface := range nets {
			if n.Contains(a) {
				return iface
			}
		}
		return ""
	}
	for _, tt := range []struct {
		name     string
		e        conntrack.Entry
		from, to string
		there    bool
	}{
		{"from it to a workload", flow("198.51.100.7", "10.0.0.2", 80), "cali1", "cali2", true},
		{"from it to elsewhere", flow("198.51.100.7", "203.0.113.1", 80), "cali1", "", true},
		{"IPv6", flow("2001:db8::7", "fd00:9::1", 80), "cali1", "", true},
		{"to it", flow("203.0.113.1", "198.51.100.7", 80), "", "cali1", true},
		{"a workload's own address", flow("10.0.0.2", "203.0.113.1", 80), "cali2", "", true},
		{"this host's", flow("192.0.2.1", "203.0.113.1", 80), "", "", false},
		{"of others", flow("203.0.113.2", "203.0.113.1", 80), "", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := host()
			p, ok := Everything().packet(tt.e, owners(&w), &by)
			if ok != tt.there || p.From != tt.from || p.To != tt.to {
				t.Errorf("%v: %+v", ok, p)
			}
		})
	}
	s := Scope{endpoints: map[string]bool{"cali1": true}}
	w := host()
	if _, ok := s.packet(flow("198.51.100.7", "203.0.113.1", 80), owners(&w), &by); !ok {
		t.Error("not in the scope of its workload's policy")
	}
}

// TestDeniersAreKept: an account that is kept over patches is that of the rules
// that are there in the end, in any order and with a list in both parts of a
// patch. It is about no family.
func TestDeniersAreKept(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var kept Deniers
	lists := map[desired.RulesID]*desired.RuleList{}
	for range 300 {
		p := desired.Patch[desired.RulesID, *desired.RuleList]{Set: map[desired.RulesID]*desired.RuleList{}}
		for range r.IntN(4) {
			id, l := desired.RulesID{Owner: string('a' + rune(r.IntN(5)))}, &desired.RuleList{}
			for range r.IntN(3) {
				rule := desired.PolicyRule{Action: []desired.Action{desired.Allow, desired.Deny, desired.Pass, desired.Log}[r.IntN(4)]}
				set := desired.SetID('s' + rune(r.IntN(4)))
				rule.Source.Sets = []desired.SetID{set}
				if r.IntN(2) == 0 {
					rule.Destination.NotSets = []desired.SetID{set}
				}
				l.Rules = append(l.Rules, rule)
			}
			if p.Set[id] = l; r.IntN(3) == 0 {
				p.Delete = append(p.Delete, id)
			}
		}
		kept.Play(p)
		p.Play(lists)
		if want := DeniersOf(lists); !maps.Equal(kept.lists, want.lists) {
			t.Fatalf("kept %v, want %v", kept.lists, want.lists)
		}
	}
}
