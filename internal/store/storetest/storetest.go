// Package storetest is the suite that every driver of the datastore passes:
// what Run checks is what programs may rely on.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/brindle-net/brindle/internal/store"
)

// Fixture is one driver under test, on a datastore that nobody else uses.
type Fixture struct {
	Driver store.Driver

	// Compact makes the datastore forget all history up to now.
	Compact func()
}

// Run runs the suite. start makes a fixture with an empty datastore for each
// test and cleans up by t.Cleanup.
func Run(t *testing.T, start func(t *testing.T) Fixture) {
	tests := []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"one key from create to delete", lifeOfAKey},
		{"compare and swap", compareAndSwap},
		{"values are bytes", valuesAreBytes},
		{"slices are not shared", slicesAreNotShared},
		{"list is sorted and keeps to its prefix", listKeepsToItsPrefix},
		{"large list", largeList},
		{"list is of one moment", listIsOfOneMoment},
		{"pages", pages},
		{"watch sees what comes after the list", watchAfterList},
		{"watch tells that it stands", watchTellsThatItStands},
		{"watch keeps to its prefix", watchKeepsToItsPrefix},
		{"watch resumes", watchResumes},
		{"watch from now", watchFromNow},
		{"watch of a revision that is compacted", watchCompacted},
		{"watch goes on when history is compacted", watchSurvivesCompaction},
		{"slow reader misses nothing", slowReader},
		{"cancelled calls", cancelledCalls},
		{"cancelled watch", cancelledWatch},
		{"writers in parallel", parallelWriters},
		{"random history", randomHistory},
		{"several keys in one moment", transactions},
		{"refused transactions", refusedTransactions},
		{"how far a reader has come", positions},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // against hanging, not a measure
			t.Cleanup(cancel)
			f := start(t)
			tt.run(t, &suite{Fixture: f, ctx: ctx})
		})
	}
}

// suite is a fixture with helpers that fail the test.
type suite struct {
	Fixture
	ctx context.Context
}

func (s *suite) create(t *testing.T, key, value string) store.Revision {
	t.Helper()
	rev, err := s.Driver.Create(s.ctx, key, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func (s *suite) update(t *testing.T, key, value string, rev store.Revision) store.Revision {
	t.Helper()
	rev, err := s.Driver.Update(s.ctx, store.KV{Key: key, Value: []byte(value), Revision: rev})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func (s *suite) remove(t *testing.T, key string) {
	t.Helper()
	if err := s.Driver.Delete(s.ctx, key, ""); err != nil {
		t.Fatal(err)
	}
}

func (s *suite) list(t *testing.T, prefix string) store.Listing {
	t.Helper()
	list, err := s.Driver.List(s.ctx, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// wantError checks that err is want and names the key.
func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error is %v, want %v", what, err, want)
	}
}

// reader follows a watch and writes down what it sees, one line an event.
type reader struct {
	t     *testing.T
	ctx   context.Context
	in    <-chan store.Batch
	lines []string
	last  store.Batch // the latest one
}

func (s *suite) watch(t *testing.T, prefix string, after store.Revision) *reader {
	ctx, cancel := context.WithCancel(s.ctx)
	t.Cleanup(cancel)
	return &reader{t: t, ctx: s.ctx, in: s.Driver.Watch(ctx, prefix, after)}
}

// next takes one batch; false when the watch is over.
func (r *reader) next() bool {
	r.t.Helper()
	select {
	case b, ok := <-r.in:
		if !ok {
			return false
		}
		r.last = b
		for _, e := range b.Events {
			r.lines = append(r.lines, line(e))
		}
		return true
	case <-r.ctx.Done():
		r.t.Fatalf("waited for the watch until %v; seen so far: %q", r.ctx.Err(), r.lines)
		return false
	}
}

// want reads until as many events have come, and compares.
func (r *reader) want(want ...string) {
	r.t.Helper()
	for len(r.lines) < len(want) {
		if !r.next() || r.last.Err != nil {
			r.t.Fatalf("the watch ended: %v; seen so far: %q", r.last.Err, r.lines)
		}
	}
	if d := cmp.Diff(want, r.lines); d != "" {
		r.t.Errorf("events (-want +got):\n%s", d)
	}
}

// wantEnd reads until the watch ends, and compares the error.
func (r *reader) wantEnd(want error) {
	r.t.Helper()
	for r.next() {
		if r.last.Err != nil {
			break
		}
	}
	if !errors.Is(r.last.Err, want) {
		r.t.Errorf("the watch ended with %v, want %v", r.last.Err, want)
	}
	if r.next() {
		r.t.Errorf("a batch after the one with an error: %+v", r.last)
	}
}

func line(e store.Event) string {
	if e.Value == nil {
		return e.Key + " gone"
	}
	return fmt.Sprintf("%s=%s", e.Key, e.Value)
}

// lines renders a listing as a watch would have seen it.
func lines(list store.Listing) []string {
	var out []string
	for _, kv := range list.KVs {
		out = append(out, line(store.Event{Key: kv.Key, Value: kv.Value}))
	}
	return out
}
