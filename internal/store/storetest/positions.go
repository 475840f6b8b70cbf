package storetest

import (
	"fmt"
	"testing"

	"github.com/brindle-net/brindle/internal/store"
)

// farBehind is more than a datastore hands over at once to a watch that
// resumes: etcd stops at a thousand revisions.
const farBehind = 1100

// positions: a batch never says that its reader has come further than it has,
// nor less far than its last event.
func positions(t *testing.T, s *suite) {
	if _, ok := s.Driver.(store.Orderer); !ok {
		t.Skip("this datastore cannot say how far a reader has come")
	}
	reached := func(at, rev store.Revision) bool {
		t.Helper()
		is, err := store.Reached(s.Driver, at, rev)
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	first := s.create(t, "/a/1", "0")
	start := s.list(t, "/").Revision
	last := first
	for i := range farBehind {
		last = s.update(t, "/a/1", fmt.Sprint(i), last)
	}
	if !reached(start, first) || !reached(last, first) || !reached(last, last) || reached(first, last) || reached("", first) || !reached(first, "") {
		t.Errorf("the order of %q, %q and %q is wrong", first, start, last)
	}
	if _, err := store.Reached(s.Driver, "nonsense", last); err == nil {
		t.Error("nonsense is a position")
	}
	w := s.watch(t, "/a/", start)
	var come store.Revision
	for !reached(come, last) {
		if !w.next() || w.last.Err != nil {
			t.Fatalf("the watch ended at %q: %v", come, w.last.Err)
		}
		for _, e := range w.last.Events {
			if reached(come, e.Revision) {
				t.Fatalf("a batch said %q, and the next brought the event of %q", come, e.Revision)
			}
			if !reached(w.last.Revision, e.Revision) {
				t.Fatalf("a batch says %q, and has the event of %q", w.last.Revision, e.Revision)
			}
		}
		come = w.last.Revision
	}
}
