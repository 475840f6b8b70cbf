package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
)

// ground is the world of two loops: what is in the upper table stands on the
// lower entry of the same key.
type ground struct {
	t            *testing.T
	mu           sync.Mutex
	lower, upper map[string]int
	done         []string      // what was done, in order
	slow         time.Duration // of the next reading of the lower table
	bare         bool          // somebody else took ground away
}

// A layer is one of the two.
type layer struct {
	g     *ground
	name  string
	table map[string]int
}

func (l layer) List(context.Context) (map[string]int, error) {
	l.g.mu.Lock()
	defer l.g.mu.Unlock()
	if l.name == "lower" {
		slow := l.g.slow
		l.g.slow = 0
		time.Sleep(slow)
	}
	return maps.Clone(l.table), nil
}

func (l layer) Apply(_ context.Context, p Plan[string, int]) map[string]error {
	l.g.mu.Lock()
	defer l.g.mu.Unlock()
	for _, e := range p.Set {
		l.table[e.Key] = e.Value
		l.g.done = append(l.g.done, "set "+l.name+" "+e.Key)
	}
	for _, k := range p.Delete {
		delete(l.table, k)
		l.g.done = append(l.g.done, "remove "+l.name+" "+k)
	}
	for k := range l.g.upper {
		if _, ok := l.g.lower[k]; !ok && !l.g.bare {
			l.g.t.Errorf("%q stands on nothing after %v", k, l.g.done)
		}
	}
	return nil
}

// chained starts two loops in a chain.
func chained(t *testing.T, g *ground) (c *Chain, lower, upper *Loop[string, int]) {
	g.t, g.lower, g.upper = t, map[string]int{}, map[string]int{}
	c = NewChain()
	make := func(name string, table map[string]int) *Loop[string, int] {
		return New(layer{g, name, table}, Config[string, int]{
			Name: name, Compare: cmp.Compare[string], Equal: func(a, b int) bool { return a == b },
			Settle: 10 * time.Millisecond, Resync: time.Minute, Chain: c,
		})
	}
	lower, upper = make("lower", g.lower), make("upper", g.upper)
	run(t, lower)
	run(t, upper)
	for _, l := range []*Loop[string, int]{lower, upper} {
		l.InSync()
		if err := l.Synced(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return c, lower, upper
}

// TestWhatStandsOnAnotherComesAfterItAndGoesBefore also counts the passes: a
// change to both tables is one of each.
func TestWhatStandsOnAnotherComesAfterItAndGoesBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &ground{}
		c, lower, upper := chained(t, g)
		synctest.Wait()
		before := lower.Stats().Passes + upper.Stats().Passes
		time.Sleep(time.Second)
		c.Together(func() {
			upper.Want(set("a", 1)) // in whichever order it is told
			lower.Want(set("a", 1))
		})
		synctest.Wait()
		if n := lower.Stats().Passes + upper.Stats().Passes - before; n != 2 {
			t.Errorf("%d passes, want one of each", n)
		}
		time.Sleep(time.Second)
		c.Together(func() {
			lower.Want(desired.Patch[string, int]{Set: map[string]int{"b": 1}, Delete: []string{"a"}})
			upper.Want(desired.Patch[string, int]{Set: map[string]int{"b": 1}, Delete: []string{"a"}})
		})
		synctest.Wait()
		want := []string{"set lower a", "set upper a", "set lower b", "set upper b", "remove upper a", "remove lower a"}
		if !slices.Equal(g.done, want) {
			t.Errorf("\n got %v\nwant %v", g.done, want)
		}
		if err := lower.WaitGone(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	})
}

// TestAReadBackHoldsNothingUp: what is wanted while a table is to be read is
// made before.
func TestAReadBackHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &ground{}
		c, lower, upper := chained(t, g)
		time.Sleep(time.Second)
		g.mu.Lock()
		g.slow = time.Minute
		g.mu.Unlock()
		begin := time.Now()
		c.Together(func() {
			lower.Want(set("a", 1))
			upper.Want(set("a", 1))
			lower.Drift()
		})
		if err := upper.WaitApplied(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("took %v", took)
		}
		time.Sleep(2 * time.Minute) // the reading ends before the test
	})
}

// TestNothingEverStandsOnNothing plays histories of changes, by several, with
// read-backs and somebody else's changes between them.
func TestNothingEverStandsOnNothing(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &ground{}
				c, lower, upper := chained(t, g)
				want := map[string]int{}
				r := rand.New(rand.NewPCG(seed, 1))
				for range 200 {
					k, v := string(rune('a'+r.IntN(8))), r.IntN(3)
					var p desired.Patch[string, int]
					if v == 0 {
						p.Delete = []string{k}
					} else {
						p = set(k, v)
					}
					p.Play(want)
					c.Together(func() {
						lower.Want(p)
						upper.Want(p)
					})
					switch r.IntN(4) {
					case 0:
						lower.Drift()
					case 1:
						upper.Drift()
					case 2:
						time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
					}
				}
				time.Sleep(2 * time.Second)
				g.mu.Lock()
				g.bare = true
				clear(g.lower)
				g.mu.Unlock()
				lower.Drift()
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if !maps.Equal(g.lower, want) || !maps.Equal(g.upper, want) {
					t.Errorf("lower %v, upper %v, want %v", g.lower, g.upper, want)
				}
			})
		})
	}
}
