package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/brindle-net/brindle/internal/store"
)

func watchAfterList(t *testing.T, s *suite) {
	s.create(t, "/a/1", "old")
	list := s.list(t, "/a/")
	if shown := list.Revision.ResourceVersion(); shown == "" || strings.Trim(shown, "0123456789") != "" {
		t.Errorf("revision %q shows as %q, want a number", list.Revision, shown)
	}
	w := s.watch(t, "/a/", list.Revision)
	rev := s.create(t, "/a/2", "x")
	s.update(t, "/a/2", "y", rev)
	s.remove(t, "/a/1")
	s.create(t, "/a/1", "new")
	w.want("/a/2=x", "/a/2=y", "/a/1 gone", "/a/1=new")
	if kv, err := s.Driver.Get(s.ctx, "/a/1"); err != nil || kv.Revision != w.last.Events[len(w.last.Events)-1].Revision {
		t.Errorf("the event's revision is not the key's: %v, %v", kv, err)
	}
}

// watchTellsThatItStands needs no change of anything to hear from a watch.
func watchTellsThatItStands(t *testing.T, s *suite) {
	s.create(t, "/a/1", "v")
	for _, listed := range []bool{false, true} {
		var after store.Revision
		if listed {
			after = s.list(t, "/").Revision
		}
		w := s.watch(t, "/a/", after)
		if !w.next() || w.last.Err != nil || len(w.last.Events) != 0 || w.last.Revision == "" {
			t.Errorf("first batch of a quiet watch after %q: %+v", after, w.last)
		}
		first := s.watch(t, "/a/", w.last.Revision)
		rev := s.update(t, "/a/1", "w", "")
		first.want("/a/1=w")
		if first.last.Events[0].Revision != rev {
			t.Errorf("the event has revision %q, the write %q", first.last.Events[0].Revision, rev)
		}
	}
}

func watchKeepsToItsPrefix(t *testing.T, s *suite) {
	start := s.list(t, "/").Revision
	narrow, wide := s.watch(t, "/a/", start), s.watch(t, "", start)
	for _, key := range []string{"/a", "/a0", "/ab/1", "/b/1", "/a/1"} {
		s.create(t, key, "v")
	}
	narrow.want("/a/1=v")
	wide.want("/a=v", "/a0=v", "/ab/1=v", "/b/1=v", "/a/1=v")
}

// watchResumes stops a watch again and again, and goes on from the revision
// of the last batch, of the last event, or of a write.
func watchResumes(t *testing.T, s *suite) {
	after := s.list(t, "/").Revision
	for i := range 5 {
		rev := s.create(t, fmt.Sprintf("/a/%d", i), "v")
		ctx, cancel := context.WithCancel(s.ctx)
		w := &reader{t: t, ctx: s.ctx, in: s.Driver.Watch(ctx, "/a/", after)}
		w.want(fmt.Sprintf("/a/%d=v", i))
		cancel()
		after = []store.Revision{w.last.Revision, w.last.Events[0].Revision, rev}[i%3]
		if after == "" {
			t.Fatalf("batch %+v has no revision to go on from", w.last)
		}
	}
	start := s.list(t, "/").Revision
	s.create(t, "/b", "missed meanwhile")
	s.remove(t, "/b")
	s.watch(t, "/", start).want("/b=missed meanwhile", "/b gone")
}

// watchFromNow writes until the watch, whose start is not exactly defined,
// sees something; from there on it must see everything.
func watchFromNow(t *testing.T, s *suite) {
	s.create(t, "/before", "v")
	w := s.watch(t, "/", "")
	n := 0
	for len(w.lines) == 0 {
		s.create(t, fmt.Sprintf("/a/%06d", n), "v")
		n++
		select {
		case b := <-w.in:
			if b.Err != nil {
				t.Fatal(b.Err)
			}
			for _, e := range b.Events {
				w.lines = append(w.lines, line(e))
			}
		default:
		}
	}
	first := n
	for i := range n {
		if w.lines[0] == fmt.Sprintf("/a/%06d=v", i) {
			first = i
		}
	}
	var want []string
	for i := first; i < n; i++ {
		want = append(want, fmt.Sprintf("/a/%06d=v", i))
	}
	w.want(want...)
}

func watchCompacted(t *testing.T, s *suite) {
	old := s.create(t, "/a", "1")
	s.update(t, "/a", "2", "")
	s.update(t, "/a", "3", "")
	s.Compact()
	s.watch(t, "/", old).wantEnd(store.ErrCompacted)
	list := s.list(t, "/")
	if d := cmp.Diff([]string{"/a=3"}, lines(list)); d != "" {
		t.Errorf("list after compaction (-want +got):\n%s", d)
	}
	w := s.watch(t, "/", list.Revision)
	s.update(t, "/a", "4", "")
	w.want("/a=4")
}

func watchSurvivesCompaction(t *testing.T, s *suite) {
	w := s.watch(t, "/", s.list(t, "/").Revision)
	s.create(t, "/a", "1")
	w.want("/a=1")
	s.update(t, "/a", "2", "")
	w.want("/a=1", "/a=2")
	s.Compact()
	s.update(t, "/a", "3", "")
	w.want("/a=1", "/a=2", "/a=3")
}

// slowReader does not read while much is written.
func slowReader(t *testing.T, s *suite) {
	w := s.watch(t, "/", s.list(t, "/").Revision)
	fast := s.watch(t, "/", s.list(t, "/").Revision)
	var want []string
	for i := range 300 {
		s.create(t, fmt.Sprintf("/s/%d", i), "v")
		want = append(want, fmt.Sprintf("/s/%d=v", i))
	}
	fast.want(want...)
	w.want(want...)
}

func cancelledWatch(t *testing.T, s *suite) {
	for _, read := range []bool{true, false} {
		ctx, cancel := context.WithCancel(s.ctx)
		in := s.Driver.Watch(ctx, "/", s.list(t, "/").Revision)
		s.create(t, fmt.Sprintf("/a/%v", read), "1")
		if read {
			(&reader{t: t, ctx: s.ctx, in: in}).want("/a/true=1")
		}
		cancel()
		for b := range in { // ends, because the channel is closed
			if b.Err != nil {
				t.Errorf("a cancelled watch ended with %v", b.Err)
			}
		}
	}
}

// randomHistory writes at random and compares: what a list says, what a watch
// from the start adds up to, and what a map remembers.
func randomHistory(t *testing.T, s *suite) {
	rng := rand.New(rand.NewPCG(1, 2))
	start := s.list(t, "/").Revision
	twin := map[string]string{}
	var history []string
	for i := range 400 {
		key := fmt.Sprintf("/r/%d", rng.IntN(12))
		value := fmt.Sprint(i)
		_, exists := twin[key]
		switch {
		case !exists:
			s.create(t, key, value)
			twin[key] = value
			history = append(history, key+"="+value)
		case rng.IntN(3) == 0:
			s.remove(t, key)
			delete(twin, key)
			history = append(history, key+" gone")
		default:
			s.update(t, key, value, "")
			twin[key] = value
			history = append(history, key+"="+value)
		}
	}
	got := map[string]string{}
	for _, kv := range s.list(t, "/r/").KVs {
		got[kv.Key] = string(kv.Value)
	}
	if d := cmp.Diff(twin, got); d != "" {
		t.Errorf("list (-want +got):\n%s", d)
	}
	s.watch(t, "/r/", start).want(history...)
}
