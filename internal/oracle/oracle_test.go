package oracle_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/calc"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
)

const histories = 200

// TestCoreAgreesWithOracle feeds random histories to the incremental core in
// random batches and compares every state that it reaches with the slow
// answer. What of settings may change while a core lives does, too. It also plays
// the patches back, as an applier would. Both families
// are in every history.
func TestCoreAgreesWithOracle(t *testing.T) {
	for seed := range uint64(histories) {
		history(t, seed)
	}
}

func FuzzCoreAgreesWithOracle(f *testing.F) {
	f.Add(uint64(histories + 1))
	f.Fuzz(history)
}

func history(t *testing.T, seed uint64) {
	g := gen{rand.New(rand.NewPCG(seed, 7))}
	set := g.settings()
	core, snap, played := calc.New(set), oracle.Snapshot{}, desired.NewState()
	for step := range 30 {
		var batch []model.Event
		for range pick(g, 0, 1, 1, 1, 2, 5, 25) {
			batch = append(batch, g.event())
		}
		for _, e := range batch {
			snap.Add(e)
		}
		if g.chance(15) { // other settings, while the core lives
			set = set.Live(g.settings())
			batch = slices.Insert(batch, g.IntN(len(batch)+1), model.Event{ID: model.SettingsID(), Value: new(set)})
		}
		if g.chance(5) { // a restart: the new core learns all at once
			core, batch, played = calc.New(set), g.shuffled(snap), desired.NewState()
		}
		before := clone(played)
		u := core.Apply(batch)
		u.Play(played)
		where := func() string { return fmt.Sprintf("seed %d step %d, after\n%s", seed, step, describe(batch)) }
		want := oracle.Desired(snap, set)
		compare(t, where, core.State(), want)
		compare(t, where, played, want)
		minimal(t, where, before, u)
		minimalPolicy(t, where, before.Policy, u.Policy)
	}
	// Any order, with things told twice and in batches of any size.
	core, events := calc.New(set), g.shuffled(snap)
	for len(events) > 0 {
		n := 1 + g.IntN(len(events))
		core.Apply(events[:n])
		events = events[n:]
	}
	core.Apply(nil)
	compare(t, func() string { return fmt.Sprintf("seed %d shuffled", seed) }, core.State(), oracle.Desired(snap, set))
}

// compare fails with the tables and keys that differ.
func compare(t *testing.T, where func() string, got, want desired.State) {
	t.Helper()
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		if name := g.Type().Field(i).Name; name == "Policy" {
			compareTable(t, where, "set", got.Policy.Sets, want.Policy.Sets)
			compareTable(t, where, "rules", got.Policy.Rules, want.Policy.Rules)
			compareTable(t, where, "endpoint", got.Policy.Endpoints, want.Policy.Endpoints)
			for what, pair := range map[string][2]any{
				"hosts": {got.Policy.Hosts, want.Policy.Hosts}, "pools": {got.Policy.Pools, want.Policy.Pools},
				"tunnels": {got.Policy.Tunnels, want.Policy.Tunnels},
			} {
				if !reflect.DeepEqual(pair[0], pair[1]) {
					t.Fatalf("%s: %s:\n got %v\nwant %v", where(), what, pair[0], pair[1])
				}
			}
			continue
		}
		if !reflect.DeepEqual(g.Field(i).Interface(), w.Field(i).Interface()) {
			t.Fatalf("%s: %s:\n got %+v\nwant %+v", where(), g.Type().Field(i).Name,
				g.Field(i).Interface(), w.Field(i).Interface())
		}
	}
}

// compareTable fails with the first rows that differ.
func compareTable[K comparable, V any](t *testing.T, where func() string, what string, got, want map[K]*V) {
	t.Helper()
	for k, w := range want {
		if g := got[k]; !reflect.DeepEqual(g, w) {
			t.Fatalf("%s: %s %v:\n got %+v\nwant %+v", where(), what, k, g, *w)
		}
	}
	for k, g := range got {
		if want[k] == nil {
			t.Fatalf("%s: %s %v is too much: %+v", where(), what, k, *g)
		}
	}
}

func clone(s desired.State) desired.State {
	out := desired.NewState()
	in, to := reflect.ValueOf(s), reflect.ValueOf(out)
	for i := range in.NumField() {
		if in.Field(i).Kind() != reflect.Map {
			continue
		}
		for _, k := range in.Field(i).MapKeys() {
			to.Field(i).SetMapIndex(k, in.Field(i).MapIndex(k))
		}
	}
	out.Policy = clonePolicy(s.Policy)
	return out
}

// minimal fails when a patch says what was so already, deletes what was not
// there, or sets and deletes one key.
func minimal(t *testing.T, where func() string, before desired.State, u desired.Update) {
	t.Helper()
	b, p := reflect.ValueOf(before), reflect.ValueOf(u)
	for i := range p.NumField() {
		name := p.Type().Field(i).Name
		if b.FieldByName(name).Kind() != reflect.Map {
			continue
		}
		table, set, del := b.FieldByName(name), p.Field(i).Field(0), p.Field(i).Field(1)
		for _, k := range set.MapKeys() {
			if old := table.MapIndex(k); old.IsValid() &&
				reflect.DeepEqual(old.Interface(), set.MapIndex(k).Interface()) {
				t.Fatalf("%s: %s sets %v, which is so already", where(), name, k)
			}
		}
		for j := range del.Len() {
			k := del.Index(j)
			if !table.MapIndex(k).IsValid() || set.MapIndex(k).IsValid() {
				t.Fatalf("%s: %s deletes %v for nothing", where(), name, k)
			}
		}
	}
}

// TestHistoriesReachEveryTable makes sure that the random world is not empty
// where it matters: each table and each kind of notice is seen.
func TestHistoriesReachEveryTable(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(1200) {
		g := gen{rand.New(rand.NewPCG(seed, 11))}
		set, snap := g.settings(), oracle.Snapshot{}
		for range 60 {
			snap.Add(g.event())
		}
		s := oracle.Desired(snap, set)
		for k, r := range s.Routes {
			seen[fmt.Sprintf("route type %d v4 %v gateway %v", r.Type, k.Prefix.Addr().Is4(),
				len(r.Hops) > 0 && r.Hops[0].Via.IsValid())]++
		}
		for _, p := range s.Peers {
			seen[fmt.Sprintf("peer %.4s passive %v", p.Name, p.Passive)]++
			seen[fmt.Sprintf("peer client %v", p.ClientOf.IsValid())]++
		}
		for k, p := range s.Paths {
			seen[fmt.Sprintf("path single %v communities %v", k.IsSingleIP(), len(p.Communities) > 0)]++
		}
		for k, i := range s.Imports {
			seen[fmt.Sprintf("import single %v own %v", k.Prefix.IsSingleIP(), i.Own)]++
		}
		for _, n := range s.Notices {
			seen["notice "+n.Reason]++
		}
		seen["links"] += len(s.Links)
		seen["neighbours"] += len(s.Neighbours)
		seen["speakers"] += len(s.Speakers)
	}
	want := []string{
		"route type 0 v4 true gateway false", "route type 0 v4 false gateway false",
		"route type 0 v4 true gateway true", "route type 0 v4 false gateway true",
		"route type 1 v4 true gateway false", "route type 1 v4 false gateway false",
		"peer Mesh passive true", "peer Mesh passive false", "peer Glob passive true",
		"peer Glob passive false", "peer Node passive false", "peer client true", "peer client false",
		"path single true communities true", "path single true communities false",
		"path single false communities true", "path single false communities false",
		"import single true own true", "import single true own false",
		"import single false own true", "import single false own false",
		"links", "neighbours", "speakers",
	}
	for _, reason := range []string{"PolicyNotEnforced", "HostAddress", "InvalidPolicy", "InvalidObject",
		"DatastoreNotReady", "NoBGPAddress", "DuplicateNodeAddress", "NoTunnelAddress", "TunnelAddressTaken",
		"TunnelMACTaken", "FormNotAccepted", "EncapsulationOff", "EncapsulationNotProgrammed",
		"WorkloadPeeringNotSupported", "FilterNotSupported", "PasswordNotAvailable",
		"ServicesNotAnnounced", "DuplicateInterface", "DuplicateAddress"} {
		want = append(want, "notice "+reason)
	}
	for _, w := range want {
		if seen[w] == 0 {
			t.Errorf("no history has: %s; seen: %v", w, slices.Sorted(maps.Keys(seen)))
		}
	}
}
