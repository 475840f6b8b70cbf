package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brindle-net/brindle/internal/conntrack"
	"github.com/brindle-net/brindle/internal/dataplane/flows"
	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// TestThreat34BackEndThatAlwaysFails lets the back end fail for an hour in
// which policy and the kernel keep changing: attempts, the log and memory stay
// small, and the failure is told.
func TestThreat34BackEndThatAlwaysFails(t *testing.T) {
	for _, c := range []struct {
		name  string
		every time.Duration // between two changes; 0: none after the first
		tries int           // at most, in the hour
	}{
		{"nothing changes", 0, 400},
		{"everything changes all the time", 100 * time.Millisecond, 3700},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, b, table := document(false, nil, connection("10.0.0.9", "10.0.0.1"))
				b.fail = errors.New("no buffer space available")
				var log bytes.Buffer
				loop := reconcile.NewWhole(d, reconcile.WholeConfig{
					Name: "policy", Settle: settle, MaxRetry: maxRetry, Log: slog.New(slog.NewTextHandler(&log, nil)),
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() { _ = loop.Run(ctx) }() // ends with ctx
				go func() { _ = d.look(ctx) }()
				loop.Want(set("cali1", endpoint("a", "10.0.0.1")))
				loop.InSync()
				for end := time.Now().Add(time.Hour); time.Now().Before(end); {
					if c.every == 0 {
						time.Sleep(time.Hour) // fake time
						continue
					}
					time.Sleep(c.every)
					loop.Want(set("cali1", endpoint("a", "10.0.0.1")))
					loop.Want(desired.PolicyPatch{Endpoints: desired.Patch[string, *desired.Endpoint]{Delete: []string{"cali2"}}})
					loop.Drift()
				}
				cancel()
				synctest.Wait()
				lines := strings.Count(log.String(), "\n")
				if n := len(b.calls); n > c.tries || n < 100 {
					t.Errorf("%d attempts, want at most %d and not none", n, c.tries)
				}
				if lines > c.tries || lines == 0 || log.Len() > 1<<20 {
					t.Errorf("%d lines of %d bytes in the log", lines, log.Len())
				}
				if table.lists > 0 {
					t.Errorf("the table of connections was read %d times for a policy that is not in force", table.lists)
				}
				if s := loop.Stats(); s.Failing != 1 || loop.Err() == nil {
					t.Errorf("the failure is not told: %+v, %v", s, loop.Err())
				}
			})
		})
	}
}

// TestThreat34NothingIsCutInTheDark: when the back end fails between the two
// looks after a change, nobody knows what is in force. Nothing is judged by
// that; all of it is once the back end works again.
func TestThreat34NothingIsCutInTheDark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		denied := map[string]bool{}
		d, b, c := document(false, denied, connection("10.9.0.1", "10.0.0.1"), connection("10.9.0.1", "10.0.0.2"))
		judged := d.flows.allows
		d.flows.allows = func(p flows.Packet) bool { return b.fail == nil && judged(p) } // as a driver that knows nothing
		looking(t, d)
		d.Take(set("cali1", endpoint("a", "10.0.0.1")))
		d.Take(set("cali2", endpoint("b", "10.0.0.2")))
		if err := d.Sync(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.fail = errors.New("no buffer space available")
		denied["10.0.0.2"] = true
		d.Take(set("cali2", endpoint("b", "10.0.0.2")))
		if err := d.Sync(t.Context(), false); err == nil {
			t.Fatal("the back end did not fail")
		}
		time.Sleep(time.Minute)
		marks, lists := c.marks()
		if !slices.Equal(marks, []uint32{0, 0}) {
			t.Errorf("connections were judged by nobody knows what: marks %v", marks)
		}
		if lists > 2 {
			t.Errorf("the table was read %d times", lists)
		}
		b.fail = nil
		if err := d.Sync(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * grace)
		if marks, _ := c.marks(); !slices.Equal(marks, []uint32{0, 1}) {
			t.Errorf("afterwards marks are %v", marks)
		}
	})
}

// slowTable lets something happen while connections are read.
type slowTable struct {
	*connections
	meanwhile func()
}

func (s *slowTable) List() ([]conntrack.Entry, error) {
	if f := s.meanwhile; f != nil {
		s.meanwhile = nil
		f()
	}
	return s.connections.List()
}

// TestThreat25AddressUsedAgainDuringALook: while a look is about to forget what
// an address that left had, another workload gets the address. It inherits
// nothing, and what it begins itself is not forgotten.
func TestThreat25AddressUsedAgainDuringALook(t *testing.T) {
	old, fresh := connection("10.9.0.1", "10.0.0.1"), connection("10.9.0.2", "10.0.0.1")
	d, _, c := document(false, nil, old)
	s := &slowTable{connections: c}
	d.flows.table = s
	d.Take(set("cali1", endpoint("a", "10.0.0.1")))
	if err := d.Sync(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	d.Take(gone("cali1"))
	if err := d.Sync(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	s.meanwhile = func() { // the look has begun
		d.Take(set("cali2", endpoint("b", "10.0.0.1")))
		if err := d.Sync(t.Context(), false); err != nil {
			t.Error(err)
		}
		if slices.Contains(c.entries, old) {
			t.Error("the new workload is enforced while what the old one had is there")
		}
		c.entries = append(c.entries, fresh)
	}
	if _, err := d.lookOnce(t.Context(), nil, false); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.entries, []conntrack.Entry{fresh}) {
		t.Errorf("connections are %v", c.entries)
	}
}

// TestThreat25AddressFromAnotherHost: an address that another host's workload
// had is now that of a workload here. What others here had established with the
// first is judged by the policy of the second.
func TestThreat25AddressFromAnotherHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, c := document(false, map[string]bool{"10.0.0.7": true}, connection("10.0.0.1", "10.0.0.7"), connection("10.0.0.1", "10.0.0.8"))
		allow := func(f func(flows.Packet) bool) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.flows.allows = f
		}
		looking(t, d)
		d.Take(set("cali1", endpoint("a", "10.0.0.1")))
		allow(func(flows.Packet) bool { return true }) // what is elsewhere is judged elsewhere
		if err := d.Sync(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		allow(func(p flows.Packet) bool { return p.To != "cali7" })
		d.Take(set("cali7", endpoint("b", "10.0.0.7")))
		if err := d.Sync(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(settled)
		synctest.Wait()
		if marks, _ := c.marks(); !slices.Equal(marks, []uint32{1, 0}) {
			t.Errorf("marks %v", marks)
		}
	})
}

// TestThreat33NamesWithoutEnd: who may write policy makes and deletes rules of
// ever new names. What is remembered of them has an end.
func TestThreat33NamesWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHits(filepath.Join(t.TempDir(), "hits.json"), slog.New(slog.DiscardHandler))
		mine := desired.RulesID{Owner: "NetworkPolicy mine/web"}
		for round := range 30 {
			listed, counters := map[desired.RulesID]int{mine: 1}, map[string]nft.Count{rules.RuleCounter(mine, 0): {Packets: uint64(round)}}
			for i := range 1000 {
				id := desired.RulesID{Owner: fmt.Sprintf("NetworkPolicy theirs/p%d-%d", round, i)}
				listed[id] = 1
				counters[rules.RuleCounter(id, 0)] = nft.Count{Packets: 1}
			}
			h.listed = func() map[desired.RulesID]int { return listed }
			h.counters = func(context.Context) (map[string]nft.Count, error) { return counters, nil }
			if err := h.read(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(hitsPace)
		}
		if n := len(h.kept.Rules); n > hitsMost+1001 || n < hitsMost {
			t.Errorf("%d rules are remembered", n)
		}
		h.listed = func() map[desired.RulesID]int { return map[desired.RulesID]int{mine: 1} }
		if got := statsOf(t, h); got[0].Packets != 29 {
			t.Errorf("the others' rules count %+v", got)
		}
	})
}

// TestThreat34ScopeHasAnEnd: while the back end fails, networks come and go in
// a set. What is kept for judging connections later does not grow with the time.
func TestThreat34ScopeHasAnEnd(t *testing.T) {
	d, b, c := document(false, nil, connection("10.9.0.9", "10.0.0.1"))
	d.Take(set("cali1", endpoint("a", "10.0.0.1")))
	d.Take(desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{"s:x": {}}})
	if err := d.Sync(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := d.lookOnce(t.Context(), nil, false); err != nil {
		t.Fatal(err)
	}
	b.fail = errors.New("no buffer space available")
	before := heapNow()
	for i := range 400 {
		var list []desired.Member
		for k := range 1000 {
			list = append(list, desired.Member{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(k >> 8), byte(k), 0}), 24)})
		}
		p := desired.SetPatch{Add: list}
		if i%2 == 1 {
			p = desired.SetPatch{Remove: list}
		}
		d.Take(desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{"s:x": p}})
		if err := d.Sync(t.Context(), true); err == nil {
			t.Fatal("the back end did not fail")
		}
	}
	if grown := int64(heapNow()) - int64(before); grown > 4<<20 {
		t.Errorf("%d bytes more are in use", grown)
	}
	b.fail = nil
	d.flows.allows = func(flows.Packet) bool { return false }
	if err := d.Sync(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := d.lookOnce(t.Context(), nil, false); err != nil || c.entries[0].Mark != 0 {
		t.Errorf("a connection of nobody in the set was judged: %+v, %v", c.entries, err)
	}
}

func heapNow() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
