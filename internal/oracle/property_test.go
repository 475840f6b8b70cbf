package oracle_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/randworld"
	"github.com/brindle-net/brindle/internal/selector"
)

// The properties of the policy language, each over random clusters with flows
// of both families. They hold whatever the policies say.
const propertyWorlds = 600

// question is one flow as one endpoint sees it.
type question struct {
	endpoint  *model.Workload
	direction desired.Direction
	flow      model.Flow
}

func (q question) ask(v *oracle.View) oracle.Decision {
	return v.Decide(q.endpoint.ID, q.direction, q.flow)
}

// propertyWorld is a random cluster with questions about it.
func propertyWorld(seed uint64) (gen, oracle.Snapshot, []question) {
	w, s := randworld.New(seed), oracle.Snapshot{}
	for _, e := range w.Events() {
		s.Add(e)
	}
	view := oracle.NewView(s)
	var out []question
	for range 12 {
		f := w.Flow()
		if x := view.WorkloadOn(here, f.Source); x != nil {
			out = append(out, question{x, desired.Egress, f})
		}
		if x := view.WorkloadOn(here, f.Dest); x != nil {
			out = append(out, question{x, desired.Ingress, f})
		}
	}
	return gen{rand.New(rand.NewPCG(seed, 17))}, s, out
}

// policies lists those of a snapshot that a test keeps, in order.
func policies(s oracle.Snapshot, keep func(*model.Policy) bool) []*model.Policy {
	var out []*model.Policy
	for _, id := range slices.SortedFunc(maps.Keys(s), model.ID.Compare) {
		if p, ok := s[id].(*model.Policy); ok && keep(p) {
			out = append(out, p)
		}
	}
	return out
}

// with returns the snapshot with other values under their names.
func with(s oracle.Snapshot, values ...model.Value) oracle.Snapshot {
	out := maps.Clone(s)
	put(out, values...)
	return out
}

// someRule makes a rule of the generator's world for an action.
func someRule(g gen, s oracle.Snapshot, a model.Action) model.Rule {
	r := rule(a)
	of := policies(s, func(p *model.Policy) bool { return len(p.Ingress.Rules)+len(p.Egress.Rules) > 0 })
	if len(of) > 0 && g.chance(80) {
		p := pick(g, of...)
		r = pick(g, slices.Concat(p.Ingress.Rules, p.Egress.Rules)...)
	}
	r.Action, r.HTTP = a, false
	return r
}

// inserted returns a copy of a policy with a rule at a random place of both
// directions.
func inserted(g gen, p *model.Policy, r model.Rule) *model.Policy {
	out := *p
	for _, d := range []*model.Direction{&out.Ingress, &out.Egress} {
		d.Rules = slices.Insert(slices.Clone(d.Rules), g.IntN(len(d.Rules)+1), r)
	}
	return &out
}

// TestMoreRulesOnlyGoOneWay is "default-deny monotonic": one more Allow rule
// in a policy never takes an allowed flow away, one more Deny rule never gives
// one, and a policy that only denies never gives one either. Threat row 20.
func TestMoreRulesOnlyGoOneWay(t *testing.T) {
	changed := map[string]int{}
	for seed := range uint64(propertyWorlds) {
		g, s, questions := propertyWorld(seed)
		before := oracle.NewView(s)
		all := policies(s, func(p *model.Policy) bool { return !p.Staged })
		if len(all) == 0 {
			continue
		}
		p := pick(g, all...)
		allow := oracle.NewView(with(s, inserted(g, p, someRule(g, s, model.Allow))))
		deny := oracle.NewView(with(s, inserted(g, p, someRule(g, s, model.Deny))))
		only := policy(t, "GlobalNetworkPolicy", "", "only-denies", p.Tier, someRule(g, s, model.Deny))
		only.Order, only.Egress = pick(g, p.Order, 1, math.Inf(1)), only.Ingress
		more := oracle.NewView(with(s, only))
		for _, q := range questions {
			was := q.ask(before)
			for name, v := range map[string]*oracle.View{"allow": allow, "deny": deny, "policy": more} {
				is := q.ask(v)
				if is.Allowed != was.Allowed {
					changed[name]++
				}
				if is.Allowed != was.Allowed && is.Allowed != (name == "allow") {
					t.Fatalf("seed %d: one more %s for %s:\n%v\nbefore %s\nafter %s", seed, name, p.Title, q.flow, was.Text(true), is.Text(true))
				}
			}
		}
	}
	for _, name := range []string{"allow", "deny", "policy"} {
		if changed[name] < 10 {
			t.Errorf("one more %s made a difference %d times only", name, changed[name])
		}
	}
}

// TestAllowRulesHaveNoOrder is "order independence inside NP": what only
// allows, as policies of Kubernetes do, may stand in any order, rules and
// policies alike.
func TestAllowRulesHaveNoOrder(t *testing.T) {
	allowed := 0
	for seed := range uint64(propertyWorlds) {
		g, s, questions := propertyWorld(seed)
		allows, other := maps.Clone(s), maps.Clone(s)
		for _, p := range policies(s, func(p *model.Policy) bool { return true }) {
			straight := *p
			for _, d := range []*model.Direction{&straight.Ingress, &straight.Egress} {
				d.Rules = slices.Clone(d.Rules)
				for i := range d.Rules {
					d.Rules[i].Action = model.Allow
				}
			}
			mixed := straight
			mixed.Order = float64(g.IntN(5))
			for _, d := range []*model.Direction{&mixed.Ingress, &mixed.Egress} {
				d.Rules = slices.Clone(d.Rules)
				g.Shuffle(len(d.Rules), func(i, j int) { d.Rules[i], d.Rules[j] = d.Rules[j], d.Rules[i] })
			}
			put(allows, &straight)
			put(other, &mixed)
		}
		one, two := oracle.NewView(allows), oracle.NewView(other)
		for _, q := range questions {
			a, b := q.ask(one), q.ask(two)
			if a.Allowed {
				allowed++
			}
			if a.Allowed != b.Allowed {
				t.Fatalf("seed %d: %v\nin one order %s\nin the other %s", seed, q.flow, a.Text(true), b.Text(true))
			}
		}
	}
	if allowed < 1000 {
		t.Errorf("only %d flows were allowed", allowed)
	}
}

// TestPoliciesStayInTheirNamespace: whatever policies of one namespace say,
// endpoints of others are decided upon as without them. Threat row 18.
func TestPoliciesStayInTheirNamespace(t *testing.T) {
	differs := 0
	for seed := range uint64(propertyWorlds) {
		_, s, questions := propertyWorld(seed)
		without := maps.Clone(s)
		maps.DeleteFunc(without, func(id model.ID, _ model.Value) bool {
			return id.Kind == model.KindPolicy && id.Namespace == "prod"
		})
		one, two := oracle.NewView(s), oracle.NewView(without)
		for _, q := range questions {
			a, b := q.ask(one), q.ask(two)
			switch {
			case q.endpoint.ID.Namespace != "prod" && !reflect.DeepEqual(a, b):
				t.Fatalf("seed %d: %v\nwith policies of another namespace %s\nwithout %s", seed, q.flow, a.Text(true), b.Text(true))
			case a.Allowed != b.Allowed:
				differs++
			}
		}
	}
	if differs < 100 {
		t.Errorf("the policies made a difference %d times only", differs)
	}
}

// TestReasonsDoNotDecide: without reasons the same decides, and with a memory
// of whose policies were looked for.
func TestReasonsDoNotDecide(t *testing.T) {
	for seed := range uint64(propertyWorlds) {
		_, s, questions := propertyWorld(seed)
		view := oracle.NewView(s)
		remembering := view.Remembering()
		for _, q := range questions {
			full, fast := view.Verdict(q.flow), view.Outcome(q.flow)
			if again := remembering.Verdict(q.flow); !reflect.DeepEqual(again, full) {
				t.Fatalf("with a memory: %+v\nwithout: %+v", again, full)
			}
			for _, d := range [][2]*oracle.Decision{{full.Egress, fast.Egress}, {full.Ingress, fast.Ingress}} {
				if (d[0] == nil) != (d[1] == nil) || d[0] != nil && (d[0].Allowed != d[1].Allowed || d[0].By != d[1].By) {
					t.Fatalf("seed %d: %v\n%s%s", seed, q.flow, full.Text(true), fast.Text(true))
				}
			}
			if full.Allowed != fast.Allowed {
				t.Fatalf("seed %d: %v\n%s", seed, q.flow, full.Text(true))
			}
			if d := full.Ingress; d != nil && !d.Allowed && d.Nearest != nil && len(d.Nearest.Failed) == 0 {
				t.Fatalf("seed %d: the nearest miss misses nothing\n%s", seed, full.Text(true))
			}
		}
	}
}

// TestOrderOfEventsDoesNotMatter is "permutation equivalence" of the oracle
// itself: events in any order, some told twice or told wrong first, give the
// same tables and the same decisions.
func TestOrderOfEventsDoesNotMatter(t *testing.T) {
	for seed := range uint64(100) {
		g, s, questions := propertyWorld(seed)
		other := oracle.Snapshot{}
		for _, e := range randworld.New(seed + 1).Events() {
			other.Add(e)
		}
		for id := range other {
			if _, stays := s[id]; !stays {
				other.Add(model.Event{ID: id})
			}
		}
		for _, e := range g.shuffled(s) {
			other.Add(e)
		}
		if !reflect.DeepEqual(oracle.Desired(s, here), oracle.Desired(other, here)) {
			t.Fatalf("seed %d: other tables", seed)
		}
		one, two := oracle.NewView(s), oracle.NewView(other)
		for _, q := range questions {
			if a, b := q.ask(one), q.ask(two); !reflect.DeepEqual(a, b) {
				t.Fatalf("seed %d: other decisions:\n%s%s", seed, a.Text(true), b.Text(true))
			}
		}
	}
}

// TestEmptyIsNotAll: a criterion whose set has nothing in it matches nothing,
// so an Allow allows nothing and a Deny denies nothing; its negative form
// keeps nothing out. A policy without rules allows nothing. Threat row 19.
func TestEmptyIsNotAll(t *testing.T) {
	nothing := sel(t, "nothing == 'at all'")
	one := func(f func(*model.Entity)) func(*model.Rule) {
		return func(r *model.Rule) { f(&r.Source) }
	}
	tests := []struct {
		name    string
		narrow  func(*model.Rule)
		matches bool
	}{
		{"selector", one(func(e *model.Entity) { e.Peers = selector.Peers{Restricted: true, Selector: nothing} }), false},
		{"selector that is empty and restricts", one(func(e *model.Entity) { e.Peers.Restricted = true }), false},
		{"notSelector", one(func(e *model.Entity) { e.Peers = selector.Peers{Excluding: true, Not: nothing} }), true},
		{"named port", func(r *model.Rule) { r.Destination.Ports = []model.PortMatch{{Name: "gone"}} }, false},
		{"not named port", func(r *model.Rule) { r.Destination.NotPorts = []model.PortMatch{{Name: "gone"}} }, true},
		{"service that is missing", one(func(e *model.Entity) { e.Service = &model.ServiceRef{Namespace: "prod", Name: "gone"} }), false},
		{"service without backends", one(func(e *model.Entity) { e.Service = &model.ServiceRef{Namespace: "prod", Name: "none"} }), false},
		{"network set without networks", one(func(e *model.Entity) {
			e.Peers = selector.Peers{Restricted: true, Selector: sel(t, "set == 'empty'")}
		}), false},
		{"no family is left", func(r *model.Rule) { r.Never = true }, false},
		{"nets nil", one(func(e *model.Entity) { e.Nets = nil }), true},
		{"nets empty", one(func(e *model.Entity) { e.Nets, e.NotNets = []netip.Prefix{}, []netip.Prefix{} }), true},
		{"ports empty", func(r *model.Rule) {
			r.Destination.Ports, r.Destination.NotPorts = []model.PortMatch{}, []model.PortMatch{}
		}, true},
	}
	for _, tt := range tests {
		for _, a := range []model.Action{model.Allow, model.Deny} {
			t.Run(fmt.Sprintf("%s %v", tt.name, a), func(t *testing.T) {
				s := oracle.Snapshot{}
				narrow := rule(a)
				tt.narrow(&narrow)
				put(s, kns("prod", nil), pod("prod", "web", nil, "10.65.0.5", "fd00::5"), deny("default", 1e6),
					&model.Service{Namespace: "prod", Name: "none"},
					&model.NetworkSet{ID: model.ID{Kind: model.KindNetworkSet, Name: "e"}, Labels: map[string]string{"set": "empty"}},
					policy(t, "NetworkPolicy", "prod", "p", "default", narrow, rule(model.Allow+model.Deny-a)))
				for _, f := range []model.Flow{web("192.0.2.1", "10.65.0.5"), web("2001:db8::1", "fd00::5")} {
					v := s.Verdict(f)
					if matched := v.Ingress.By.Index == 0; matched != tt.matches {
						t.Errorf("%v: matched %v, want %v\n%s", f, matched, tt.matches, v.Text(true))
					}
					tables := oracle.Desired(s, here).Policy
					if got := (reading{tables, f}).allows(tables.Endpoints["caliprodweb"], desired.Ingress); got != v.Allowed {
						t.Errorf("%v: the tables say %v", f, got)
					}
				}
			})
		}
	}
	for name, rules := range map[string][]model.Rule{"nil": nil, "empty": {}} {
		s := oracle.Snapshot{}
		put(s, kns("prod", nil), pod("prod", "web", nil, "10.65.0.5"), deny("default", 1e6),
			policy(t, "NetworkPolicy", "prod", "p", "default", rules...))
		if v := s.Verdict(web("192.0.2.1", "10.65.0.5")); v.Allowed {
			t.Errorf("a policy with %s rules: %s", name, v.Text(true))
		}
	}
}

// TestManyOrders: of many policies whose orders lie close together, far
// apart and beyond 16 and 32 bits the one with the least decides. IPv4 only:
// the order has no family. Threat row 20.
func TestManyOrders(t *testing.T) {
	s := oracle.Snapshot{}
	put(s, kns("prod", nil), pod("prod", "web", nil, "10.65.0.5"), deny("default", 1e6))
	orders := []float64{-1e9, -1, -0.5, 0, 0.25, 65535, 65536, 65537, 99_999, 1 << 31, 1 << 32, 1<<32 + 1, 1e15, math.Inf(1)}
	for range 2000 {
		orders = append(orders, float64(rand.New(rand.NewPCG(uint64(len(orders)), 1)).IntN(100_000)))
	}
	slices.Sort(orders)
	orders = slices.Compact(orders)
	for i, o := range orders { // names sort the other way
		p := policy(t, "NetworkPolicy", "prod", fmt.Sprintf("p%06d", len(orders)-i), "default", tcp(model.Allow, 80))
		if i%2 == 0 {
			p.Ingress.Rules[0].Action = model.Deny
		}
		p.Order = o
		put(s, p)
	}
	for i := 0; i < len(orders); i += 97 {
		v := s.Verdict(web("192.0.2.1", "10.65.0.5"))
		first := fmt.Sprintf("NetworkPolicy prod/p%06d", len(orders)-i)
		if v.Ingress.By.Owner != first || v.Allowed != (i%2 == 1) {
			t.Fatalf("decided by %v, want %s", v.Ingress.By, first)
		}
		for j := i; j < min(i+97, len(orders)); j++ {
			delete(s, model.PolicyID("NetworkPolicy", "prod", fmt.Sprintf("p%06d", len(orders)-j)))
		}
	}
}
