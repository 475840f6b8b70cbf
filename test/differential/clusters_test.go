package differential

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/oracle"
)

// flowsEach is how many flows each cluster is asked about.
const flowsEach = 10

// TestClusters takes random clusters the whole way: objects, core, rules, the
// bytes for the kernel, read again and evaluated. Each end of each flow is
// judged as the oracle says, by the rule that it says. Every other cluster has
// compiled rules; some have both, which count alike. Each cluster has both
// families.
func TestClusters(t *testing.T) {
	clusters := uint64(500)
	switch { // the race detector has nothing to find here, and makes it ten times as dear
	case underRace:
		clusters = 200
	case inCI():
		clusters = 20_000
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // most of what is made is gone at once
	var flows, marked atomic.Uint64
	var lock sync.Mutex
	total, shards := oracle.NewCoverage(), uint64(runtime.GOMAXPROCS(0))
	t.Run("all", func(t *testing.T) {
		for shard := range shards {
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				seen := oracle.NewCoverage()
				for seed := shard; seed < clusters && !t.Failed(); seed += shards {
					newCluster(seed).judge(t, seen, &flows, &marked)
				}
				lock.Lock()
				defer lock.Unlock()
				add(total, seen)
			})
		}
	})
	t.Logf("%d clusters, %d flows, %d of them with a mark of somebody else\n%v", clusters, flows.Load(), marked.Load(), total)
	if underRace {
		return
	}
	for _, s := range total.Seldom(int(clusters / 200)) {
		t.Error(s)
	}
}

// judge sends flows through the machines of a cluster.
func (c *cluster) judge(t *testing.T, seen *oracle.Coverage, flows, marked *atomic.Uint64) {
	machines := []*nft.Machine{c.machine(t, c.seed%2 == 1)}
	if c.seed%16 < 2 {
		machines = append(machines, c.machine(t, c.seed%2 == 0))
	}
	for i := range flowsEach {
		f := c.world.Flow()
		ends := c.ends(f)
		p := c.packet(f, ends...)
		if i%8 == 7 {
			p.Mark = 0x4001 // bits that are not ours
			marked.Add(1)
		}
		flows.Add(1)
		got := trace(t, machines[0], p)
		if got.Accepted != allowed(ends) {
			t.Errorf("allowed %v: %s", got.Accepted, c.explain(f, ends, got))
			return
		}
		if got.Accepted && got.Mark != p.Mark {
			t.Errorf("mark %#x became %#x: %s", p.Mark, got.Mark, c.explain(f, ends, got))
		}
		for _, e := range ends {
			seen.Count(e.decision)
			c.judgeEnd(t, machines[0], f, e)
		}
		for _, m := range machines[1:] {
			other := trace(t, m, p)
			if other.Accepted != got.Accepted || !slices.Equal(counters(other), counters(got)) {
				t.Errorf("seed %d: %v\nplain or compiled (%d): %v\nthe other: %v", c.seed, f, c.seed%2, got, other)
			}
		}
	}
}

// judgeEnd lets one end alone judge a flow: by its verdict, and by the counters
// of the rules that logged, passed on and decided.
func (c *cluster) judgeEnd(t *testing.T, m *nft.Machine, f oracle.Flow, e end) {
	got := trace(t, m, c.packet(f, e))
	d := e.decision
	if got.Accepted != d.Allowed {
		t.Errorf("%v alone allowed %v: %s", e.direction, got.Accepted, c.explain(f, []end{e}, got))
	}
	if counted, want := ruleCounters(got), hits(d); !slices.Equal(counted, want) {
		t.Errorf("%v was counted by %v, not %v: %s", e.direction, counted, want, c.explain(f, []end{e}, got))
	}
}

// add adds the counts of one coverage to another's.
func add(to, from *oracle.Coverage) {
	to.Decisions += from.Decisions
	to.Allowed += from.Allowed
	for _, pair := range [][2]map[string]int{{to.Matched, from.Matched}, {to.Missed, from.Missed}, {to.Ends, from.Ends}} {
		for k, n := range pair[1] {
			pair[0][k] += n
		}
	}
}
