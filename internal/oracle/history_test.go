package oracle_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/calc"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/randworld"
)

const policyHistories = 100

// TestCoreAgreesWithOracleOnPolicy is TestCoreAgreesWithOracle in worlds where
// policy is what changes.
func TestCoreAgreesWithOracleOnPolicy(t *testing.T) {
	n := uint64(policyHistories)
	if underRace {
		n /= 10
	}
	for seed := range n {
		policyHistory(t, seed)
	}
}

func FuzzCoreAgreesWithOracleOnPolicy(f *testing.F) {
	f.Add(uint64(policyHistories + 1))
	f.Fuzz(policyHistory)
}

func policyHistory(t *testing.T, seed uint64) {
	g, w := gen{rand.New(rand.NewPCG(seed, 13))}, randworld.New(seed)
	set := model.Settings{
		Node: pick(g, randworld.Node, randworld.Node, "h2"), NoIPv6: g.chance(10),
		Prefixes: pick(g, nil, nil, nil, []string{"cali", "eth"}),
	}
	core, snap, played, kept := calc.New(set), oracle.Snapshot{}, desired.NewState(), frozen{}
	pending := w.Events()
	for step := range 25 {
		for range pick(g, 0, 1, 1, 2, 6) {
			pending = append(pending, w.Change()...)
		}
		n := len(pending)
		if n > 0 && g.chance(20) {
			n = g.IntN(n)
		}
		batch := pending[:n:n]
		pending = pending[n:]
		for _, e := range batch {
			snap.Add(e)
		}
		if g.chance(4) {
			core, batch, played = calc.New(set), g.shuffled(snap), desired.NewState()
		}
		before := clone(played)
		u := core.Apply(batch)
		kept.add(u)
		u.Play(played)
		where := func() string { return fmt.Sprintf("seed %d step %d, after\n%s", seed, step, describe(batch)) }
		want := oracle.Desired(snap, set)
		compare(t, where, core.State(), want)
		compare(t, where, played, want)
		minimal(t, where, before, u)
		minimalPolicy(t, where, before.Policy, u.Policy)
	}
	kept.check(t, seed)
	core, events := calc.New(set), g.shuffled(snap)
	for len(events) > 0 {
		n := 1 + g.IntN(len(events))
		core.Apply(events[:n])
		events = events[n:]
	}
	compare(t, func() string { return fmt.Sprintf("seed %d shuffled", seed) }, core.State(), oracle.Desired(snap, set))
}

// frozen holds what was handed out, with what it was then: it may not change
// any more.
type frozen map[any]string

func (f frozen) add(u desired.Update) {
	for _, l := range u.Policy.Rules.Set {
		f[l] = fmt.Sprintf("%+v", *l)
	}
	for _, e := range u.Policy.Endpoints.Set {
		f[e] = fmt.Sprintf("%+v", *e)
	}
}

func (f frozen) check(t *testing.T, seed uint64) {
	t.Helper()
	for v, was := range f {
		if now := fmt.Sprintf("%+v", reflect.ValueOf(v).Elem().Interface()); now != was {
			t.Fatalf("seed %d: changed after it was handed out:\n now %s\nthen %s", seed, now, was)
		}
	}
}

// clonePolicy copies the tables; of the sets also the members, which change.
func clonePolicy(p desired.Policy) desired.Policy {
	out := desired.NewPolicy()
	for id, s := range p.Sets {
		out.Sets[id] = &desired.Set{Kind: s.Kind, Members: maps.Clone(s.Members)}
	}
	maps.Copy(out.Rules, p.Rules)
	maps.Copy(out.Endpoints, p.Endpoints)
	maps.Copy(out.Hosts, p.Hosts)
	maps.Copy(out.Pools, p.Pools)
	maps.Copy(out.Tunnels, p.Tunnels)
	return out
}

// minimalPolicy is minimal for the tables of policy. It also holds every
// reference of the outcome to be met.
func minimalPolicy(t *testing.T, where func() string, before desired.Policy, p desired.PolicyPatch) {
	t.Helper()
	for id, s := range p.Sets {
		old := before.Sets[id]
		has := func(m desired.Member) bool {
			if old == nil {
				return false
			}
			_, ok := old.Members[m]
			return ok
		}
		switch {
		case s.Gone && (old == nil || len(s.Add)+len(s.Remove) > 0):
			t.Fatalf("%s: removes set %s for nothing, or with members", where(), id)
		case old != nil && !s.Gone && (len(s.Add)+len(s.Remove) == 0 || s.Kind != old.Kind):
			t.Fatalf("%s: set %s does not change, or changes its kind", where(), id)
		}
		seen := map[desired.Member]bool{}
		for _, m := range slices.Concat(s.Add, s.Remove) {
			if seen[m] {
				t.Fatalf("%s: set %s says %v twice", where(), id, m)
			}
			seen[m] = true
		}
		if slices.ContainsFunc(s.Add, has) || slices.ContainsFunc(s.Remove, func(m desired.Member) bool { return !has(m) }) {
			t.Fatalf("%s: set %s adds what is in it or removes what is not", where(), id)
		}
	}
	minimalTable(t, where, before.Rules, p.Rules)
	minimalTable(t, where, before.Endpoints, p.Endpoints)
	minimalTable(t, where, before.Hosts, p.Hosts)
	minimalTable(t, where, before.Pools, p.Pools)
	minimalTable(t, where, before.Tunnels, p.Tunnels)
}

func minimalTable[K comparable, V any](t *testing.T, where func() string, before map[K]V, p desired.Patch[K, V]) {
	t.Helper()
	for k, v := range p.Set {
		if old, ok := before[k]; ok && reflect.DeepEqual(old, v) {
			t.Fatalf("%s: sets %v, which is so already", where(), k)
		}
	}
	for _, k := range p.Delete {
		_, had := before[k]
		if _, sets := p.Set[k]; !had || sets {
			t.Fatalf("%s: deletes %v for nothing", where(), k)
		}
	}
}

// TestNothingIsLeftOutOrOver: whatever the tables refer to is in them, and
// nothing else is.
func TestNothingIsLeftOutOrOver(t *testing.T) {
	for seed := range uint64(500) {
		s := oracle.Snapshot{}
		for _, e := range randworld.New(seed).Events() {
			s.Add(e)
		}
		p := oracle.Desired(s, here).Policy
		rules, sets := map[desired.RulesID]bool{}, map[desired.SetID]bool{}
		for _, e := range p.Endpoints {
			for d, tiers := range [][]desired.Tier{e.Ingress, e.Egress} {
				for _, o := range e.Profiles {
					rules[desired.RulesID{Owner: o, Direction: desired.Direction(d)}] = true
				}
				for _, tier := range tiers {
					for _, o := range tier.Policies {
						rules[desired.RulesID{Owner: o, Direction: desired.Direction(d)}] = true
					}
				}
			}
		}
		for _, l := range p.Rules {
			for _, r := range l.Rules {
				for _, side := range []desired.Side{r.Source, r.Destination} {
					for _, id := range slices.Concat(side.Sets, side.NotSets, side.PortSets, side.NotPortSets) {
						sets[id] = true
					}
				}
			}
		}
		if !slices.Equal(sortedKeys(rules), sortedKeys(p.Rules)) || !slices.Equal(sortedKeys(sets), sortedKeys(p.Sets)) {
			t.Fatalf("seed %d: refers to %v and %v, has %v and %v", seed,
				sortedKeys(rules), sortedKeys(sets), sortedKeys(p.Rules), sortedKeys(p.Sets))
		}
	}
}

func sortedKeys[K comparable, V any](m map[K]V) []string {
	var out []string
	for k := range m {
		out = append(out, fmt.Sprint(k))
	}
	slices.Sort(out)
	return out
}

// TestPolicyHistoriesMeet makes sure that the histories compare something.
func TestPolicyHistoriesMeet(t *testing.T) {
	seen := map[string]int{}
	const worlds = 400
	for seed := range uint64(worlds) {
		s := oracle.Snapshot{}
		for _, e := range randworld.New(seed).Events() {
			s.Add(e)
		}
		state := oracle.Desired(s, here)
		seen["endpoints"] += len(state.Policy.Endpoints)
		seen["rules"] += len(state.Policy.Rules)
		for id, set := range state.Policy.Sets {
			seen[fmt.Sprintf("set %.2s of kind %d empty %v", id, set.Kind, len(set.Members) == 0)]++
		}
		for _, e := range state.Policy.Endpoints {
			seen[fmt.Sprintf("tiers %v", len(e.Ingress)+len(e.Egress) > 2)]++
			seen[fmt.Sprintf("v6 %v", slices.ContainsFunc(e.Addrs, netip.Addr.Is6))]++
		}
		for _, n := range state.Notices {
			seen["notice "+n.Reason]++
		}
	}
	for _, k := range []string{
		"endpoints", "rules", "set s: of kind 0 empty false", "set s: of kind 0 empty true", "set n: of kind 1 empty false",
		"set n: of kind 1 empty true", "set v: of kind 1 empty false", "set w: of kind 0 empty false", "set w: of kind 0 empty true",
		"tiers true", "v6 true", "v6 false", "notice HTTPNotEnforced", "notice PolicyNotEnforced", "notice InvalidPolicy", "notice InvalidTier", "notice InvalidObject",
	} {
		if seen[k] < 20 {
			t.Errorf("%s: %d in %d worlds", k, seen[k], worlds)
		}
	}
}
