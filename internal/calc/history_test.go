package calc

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/selector"
)

// dice makes random inputs of policy out of a small world.
type dice struct{ *rand.Rand }

func (d dice) chance(percent int) bool { return d.IntN(100) < percent }

func one[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

func (d dice) labels() map[string]string {
	m := map[string]string{}
	for _, k := range []string{"a", "b", "c"} {
		if d.chance(50) {
			m[k] = one(d, "1", "2")
		}
	}
	return m
}

func (d dice) selector() selector.Selector {
	s, err := selector.Parse(one(d, "", "all()", "a == '1'", "a == '2'", "has(b)", "!has(c)", "c in {'1', '2'}",
		"a == '1' && has(c)", "a == '2' || b == '1'", "b != '1'", "t == 'x'", "in in {}", "a in {}", "!(a == '1' || has(b))"))
	if err != nil {
		panic(err)
	}
	return s
}

func (d dice) addr() netip.Addr {
	if d.chance(40) {
		return netip.MustParseAddr(fmt.Sprintf("fd00::%x", d.IntN(8)))
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(d.IntN(8))})
}

func (d dice) profiles() []string {
	return one(d, nil, []string{"p"}, []string{"q", "p"}, []string{"p", "q"}, []string{"gone", model.DefaultAllow}, []string{"p", "p"})
}

func (d dice) ports() []model.NamedPort {
	return one(d, nil, nil, []model.NamedPort{{Name: "web", Protocol: 6, Port: 80}},
		[]model.NamedPort{{Name: "web", Protocol: 6, Port: 81}, {Name: "web", Protocol: 17, Port: 80}, {Name: "dns", Protocol: 17, Port: 53}})
}

func (d dice) rule() model.Rule {
	entity := func() (e model.Entity) {
		if d.chance(50) {
			e.Peers.Restricted, e.Peers.Selector = true, d.selector()
		}
		if d.chance(20) {
			e.Peers.Excluding, e.Peers.Not = true, d.selector()
		}
		if d.chance(30) {
			e.Ports = []model.PortMatch{{Min: 1, Max: 9}, {Name: one(d, "web", "dns", "gone")}}
		}
		if d.chance(20) {
			e.Service, e.ServicePorts = &model.ServiceRef{Namespace: "n", Name: one(d, "s", "u")}, d.chance(50)
		}
		return e
	}
	return model.Rule{
		Action: one(d, model.Allow, model.Deny, model.Pass, model.Log), Families: one(d, model.IPv4, model.IPv4|model.IPv6),
		Never: d.chance(5), HTTP: d.chance(5), Source: entity(), Destination: entity(),
	}
}

func (d dice) rules() (out []model.Rule) {
	for range d.IntN(3) {
		out = append(out, d.rule())
	}
	return out
}

func (d dice) event() model.Event {
	id := model.ID{Namespace: one(d, "n", "o"), Name: one(d, "x", "y", "z")}
	var v model.Value
	switch d.IntN(10) {
	case 0, 1, 2:
		id.Kind = model.KindWorkload
		w := &model.Workload{ID: id, Node: one(d, "me", "me", "h"), Interface: one(d, "cali1", "cali2", "cali3", "eth0", ""),
			Labels: d.labels(), Profiles: d.profiles(), Ports: d.ports()}
		for range d.IntN(3) {
			w.Addrs = append(w.Addrs, d.addr())
		}
		v = w
	case 3:
		id = model.ID{Kind: model.KindHostEndpoint, Name: id.Name}
		v = &model.HostEndpoint{ID: id, Node: one(d, "me", "h"), Labels: d.labels(), Profiles: d.profiles(),
			Ports: d.ports(), Addrs: []netip.Addr{d.addr(), d.addr()}}
	case 4:
		id.Kind = model.KindNetworkSet
		v = &model.NetworkSet{ID: id, Labels: d.labels(), Profiles: d.profiles(), Nets: []netip.Prefix{single(d.addr()), pfx("10.0.0.0/29")}}
	case 5:
		id = model.ID{Kind: model.KindProfile, Name: one(d, "p", "q", model.DefaultAllow)}
		p := &model.Profile{Name: id.Name, Labels: d.labels(), Ingress: d.rules(), Egress: d.rules()}
		if d.chance(40) {
			p.Labels["t"] = "x"
		}
		v = p
	case 6:
		id.Kind = model.KindService
		s := &model.Service{Namespace: id.Namespace, Name: one(d, "s", "u")}
		id.Name = s.Name
		for range d.IntN(4) {
			s.Backends = append(s.Backends, model.Backend{Addr: d.addr(), Protocol: 6, Port: uint16(d.IntN(2))})
		}
		v = s
	case 7:
		id = model.ID{Kind: model.KindTier, Name: one(d, "default", "t1", "t2")}
		v = &model.Tier{Name: id.Name, Order: one(d, 1, 2, math.Inf(1)), DefaultPass: d.chance(50)}
		if d.chance(20) {
			v = &model.Tier{Name: id.Name, Order: math.Inf(-1), Lost: true, Broken: "bad"}
		}
	case 8: // a host may take an address of a workload, and leave it
		n := &model.Node{Name: one(d, "me", "g", "h"), VXLAN4: model.TunnelEnd{Addr: one(d, netip.Addr{}, d.addr())}}
		if a := d.addr(); a.Is4() {
			n.Addr4 = netip.PrefixFrom(a, 29)
		} else {
			n.Addr6, n.VXLAN4.Addr = netip.PrefixFrom(a, 125), netip.Addr{}
		}
		if !n.VXLAN4.Addr.Is4() {
			n.VXLAN4.Addr = netip.Addr{}
		}
		id = model.ID{Kind: model.KindNode, Name: n.Name}
		v = n
	default:
		name, kind := id.Name, one(d, "NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy")
		id = model.PolicyID(kind, id.Namespace, name)
		v = &model.Policy{ID: id, APIKind: kind, Name: name, Namespace: id.Namespace, Title: id.String(),
			Tier: one(d, "default", "default", "t1", "t2", "t3"), Order: one(d, 0, 1, 1, math.Inf(1)), Staged: d.chance(10),
			Selects: d.selector(), DoNotTrack: d.chance(10), PreDNAT: d.chance(5), Broken: one(d, "", "", "bad"),
			Ingress: model.Direction{Applies: d.chance(70), Rules: d.rules()},
			Egress:  model.Direction{Applies: d.chance(50), Rules: d.rules()}}
	}
	e := model.Event{ID: id, Value: v}
	switch {
	case d.chance(20):
		e.Value = nil
	case d.chance(3):
		e.Value = &model.Invalid{Message: "bad"}
	}
	return e
}

// TestHistoryDoesNotMatter compares a core that lived through a random history
// with one that is told all at once, and with the patches played back. Patches
// say nothing that is so already. Both families are in every history.
func TestHistoryDoesNotMatter(t *testing.T) {
	for seed := range uint64(30) {
		d := dice{rand.New(rand.NewPCG(seed, 3))}
		lived, played, now := New(model.Settings{Node: "me"}), desired.NewState(), map[model.ID]model.Event{}
		for step := range 40 {
			var batch []model.Event
			for range one(d, 1, 1, 2, 5, 30) {
				e := d.event()
				now[e.ID] = e
				batch = append(batch, e)
			}
			if d.chance(30) { // told again
				batch = append(batch, now[batch[0].ID])
			}
			before := copyPolicy(played.Policy)
			u := lived.Apply(batch)
			u.Play(played)
			told := New(model.Settings{Node: "me"})
			var all []model.Event
			for _, e := range now {
				all = append(all, e)
			}
			told.Apply(all)
			where := fmt.Sprintf("seed %d step %d", seed, step)
			differ(t, where+": lived", lived.State(), told.State())
			differ(t, where+": played", played, told.State())
			snap := oracle.Snapshot{}
			for _, e := range now {
				snap.Add(e)
			}
			differ(t, where+": oracle", told.State(), oracle.Desired(snap, model.Settings{Node: "me"}))
			needed(t, where, before, u.Policy)
		}
		for id := range now {
			lived.Apply([]model.Event{{ID: id}})
		}
		empty(t, lived)
	}
}

// empty fails when a core that has forgotten all its inputs still holds
// something.
func empty(t *testing.T, c *Core) {
	t.Helper()
	l, p, m := &c.members.labels, c.policies, &c.members
	got := map[string]int{
		"keys": len(l.keyOf), "labels": l.pairsBy.used, "profiles": l.profileBy.used, "label sets": l.setsBy.used, "lists": l.listsBy.used,
		"classes": l.classBy.used, "items": m.byID.used, "sets": len(m.sets.by), "watched": len(m.watched),
		"services": len(m.services), "policies": p.byID.used, "texts": p.texts.by.used, "slots": len(p.slotOf), "pairs": len(p.byPair),
		"order": len(p.order), "hosts": len(p.told.hosts), "broken": len(p.told.broken), "tier lists": len(p.lists),
		"http": len(p.told.http), "shared rules": len(p.shared), "ends": len(p.ends), "profile rules": len(p.profiles), "scan": len(l.scan[0]) + len(l.scan[1]),
	}
	for what, n := range got {
		if n != 0 {
			t.Fatalf("%d %s left of nothing", n, what)
		}
	}
}

func copyPolicy(p desired.Policy) desired.Policy {
	out := desired.NewPolicy()
	for id, s := range p.Sets {
		c := &desired.Set{Kind: s.Kind, Members: map[desired.Member]struct{}{}}
		for m := range s.Members {
			c.Members[m] = struct{}{}
		}
		out.Sets[id] = c
	}
	for id, r := range p.Rules {
		out.Rules[id] = r
	}
	for id, e := range p.Endpoints {
		out.Endpoints[id] = e
	}
	return out
}

// needed fails when a patch does anything that is not needed.
func needed(t *testing.T, where string, before desired.Policy, p desired.PolicyPatch) {
	t.Helper()
	for id, s := range p.Sets {
		old := before.Sets[id]
		if s.Gone && (old == nil || len(s.Add)+len(s.Remove) > 0) || !s.Gone && old != nil && len(s.Add)+len(s.Remove) == 0 {
			t.Fatalf("%s: set %s: %+v", where, id, s)
		}
		seen := map[desired.Member]bool{}
		for i, list := range [][]desired.Member{s.Add, s.Remove} {
			for _, m := range list {
				had := false
				if old != nil {
					_, had = old.Members[m]
				}
				if had != (i == 1) || seen[m] {
					t.Fatalf("%s: set %s changes %v for nothing", where, id, m)
				}
				seen[m] = true
			}
		}
	}
	patchNeeded(t, where, before.Rules, p.Rules)
	patchNeeded(t, where, before.Endpoints, p.Endpoints)
}

func patchNeeded[K comparable, V any](t *testing.T, where string, before map[K]V, p desired.Patch[K, V]) {
	t.Helper()
	for k, v := range p.Set {
		if old, ok := before[k]; ok && reflect.DeepEqual(old, v) {
			t.Fatalf("%s: sets %v, which is so", where, k)
		}
	}
	for _, k := range p.Delete {
		if _, ok := before[k]; !ok {
			t.Fatalf("%s: deletes %v for nothing", where, k)
		}
	}
}

// differ fails with what differs.
func differ(t *testing.T, where string, got, want desired.State) {
	t.Helper()
	differTable(t, where, got.Policy.Sets, want.Policy.Sets)
	differTable(t, where, got.Policy.Rules, want.Policy.Rules)
	differTable(t, where, got.Policy.Endpoints, want.Policy.Endpoints)
	differTable(t, where, got.Notices, want.Notices)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: something but policy", where)
	}
}

func differTable[K comparable, V any](t *testing.T, where string, got, want map[K]V) {
	t.Helper()
	for k, w := range want {
		if g, ok := got[k]; !ok || !reflect.DeepEqual(g, w) {
			t.Fatalf("%s: %v\n got %+v\nwant %+v", where, k, g, w)
		}
	}
	for k, g := range got {
		if _, ok := want[k]; !ok {
			t.Fatalf("%s: %v is too much: %+v", where, k, g)
		}
	}
}
