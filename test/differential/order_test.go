package differential

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/brindle-net/brindle/internal/calc"
	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/randworld"
)

// host is a core with the rules that follow it, change by change, and a
// program that is only told what changes.
type host struct {
	cfg    rules.Config
	core   *calc.Core
	tables desired.Policy
	rules  *rules.Builder
}

func newHost(cfg rules.Config) *host {
	h := &host{cfg: cfg, core: calc.New(here), tables: desired.NewPolicy()}
	h.rules = rules.New(cfg, &h.tables)
	return h
}

// apply takes a batch of events all the way to the rules.
func (h *host) apply(batch []model.Event) {
	patch := h.core.Apply(batch).Policy
	patch.Play(h.tables)
	h.rules.Update(&h.tables, &patch)
}

// batches cuts events into batches of random sizes.
func batches(rng *rand.Rand, events []model.Event) [][]model.Event {
	var out [][]model.Event
	for len(events) > 0 {
		n := 1 + rng.IntN(min(8, len(events)))
		out, events = append(out, events[:n]), events[n:]
	}
	return out
}

// shuffled is a permutation of events which keeps those of one object in
// their order.
func shuffled(rng *rand.Rand, events []model.Event) []model.Event {
	of := map[model.ID][]model.Event{}
	order := make([]model.ID, 0, len(events))
	for _, e := range events {
		of[e.ID] = append(of[e.ID], e)
		order = append(order, e.ID)
	}
	rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	out := make([]model.Event, 0, len(events))
	for _, id := range order {
		out = append(out, of[id][0])
		of[id] = of[id][1:]
	}
	return out
}

// latest is the last event of each object: what a restarted agent is told.
func latest(rng *rand.Rand, events []model.Event) []model.Event {
	last := map[model.ID]int{}
	for i, e := range events {
		last[e.ID] = i
	}
	var out []model.Event
	for i, e := range events {
		if last[e.ID] == i && e.Value != nil {
			out = append(out, e)
		}
	}
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// TestEventOrder: one history of a cluster, told in any order and in any
// batches, and with a restart in the middle, ends in the same rules, and these
// are the ones that are made of the end in one go. Compiled rules number what
// they make as they go, so of them the plain part is compared, and that they
// judge flows alike. Each history has both families.
func TestEventOrder(t *testing.T) {
	histories := uint64(30)
	switch {
	case underRace:
		histories = 8
	case inCI():
		histories = 150
	}
	var next, total, flows atomic.Uint64
	t.Run("all", func(t *testing.T) {
		for shard := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				for seed := next.Add(1) - 1; seed < histories && !t.Failed(); seed = next.Add(1) - 1 {
					told, judged := tellHistory(t, seed)
					total.Add(told)
					flows.Add(judged)
				}
			})
		}
	})
	t.Logf("%d histories told in %d ways; %d flows through compiled rules", histories, total.Load(), flows.Load())
}

// tellHistory tells the history of a seed in every way, and returns in how
// many, and how many flows were judged.
func tellHistory(t *testing.T, seed uint64) (total, flows uint64) {
	t.Helper()
	rng, w := rand.New(rand.NewPCG(seed, 7)), randworld.New(seed)
	events := w.Events()
	for range 25 {
		events = append(events, w.Change()...)
	}
	whole := calc.New(here)
	whole.Apply(latest(rng, events))
	state := whole.State()
	want := rules.Render(settings(seed, false), &state.Policy).String()
	compiled := settings(seed, true)
	fresh, err := nft.NewMachine(rules.Render(compiled, &state.Policy))
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []struct {
		name    string
		batches [][]model.Event
		restart int // before this batch; 0: never
	}{
		{"as it went", batches(rng, events), 0},
		{"one by one", slices.Collect(slices.Chunk(events, 1)), 0},
		{"in another order", batches(rng, shuffled(rng, events)), 0},
		{"all at once, in another order", [][]model.Event{shuffled(rng, events)}, 0},
		{"with a restart", batches(rng, events), 3},
	} {
		where := fmt.Sprintf("seed %d, %s", seed, way.name)
		plain, fast := newHost(settings(seed, false)), newHost(compiled)
		var told []model.Event
		for i, b := range way.batches {
			if way.restart != 0 && i == len(way.batches)/way.restart {
				plain, fast = newHost(plain.cfg), newHost(fast.cfg)
				plain.apply(latest(rng, told))
				fast.apply(latest(rng, told))
			}
			plain.apply(b)
			fast.apply(b)
			told = append(told, b...)
		}
		if got := plain.rules.Program().String(); got != want {
			t.Fatalf("%s:\n%s", where, diff(got, want))
		}
		lived, err := nft.NewMachine(fast.rules.Program())
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		c := &cluster{seed: seed, world: w, tables: &state.Policy}
		for range 20 {
			p := c.someWay(w.Flow())
			a, b := trace(t, lived, p), trace(t, fresh, p)
			if a.Accepted != b.Accepted || !slices.Equal(counters(a), counters(b)) {
				t.Fatalf("%s: compiled rules with a history: %v\nwithout: %v\n%+v", where, a, b, p)
			}
			flows++
		}
		total++
	}
	return total, flows
}
