package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/brindle-net/brindle/internal/store"
)

func lifeOfAKey(t *testing.T, s *suite) {
	const key = "/a/b"
	_, err := s.Driver.Get(s.ctx, key)
	wantError(t, "get before create", err, store.ErrNotFound)
	if !strings.Contains(fmt.Sprint(err), key) {
		t.Errorf("error %q does not name the key", err)
	}
	first := s.create(t, key, "1")
	second := s.update(t, key, "2", first)
	if first == second || first == "" {
		t.Errorf("revisions %q and %q of two writes", first, second)
	}
	got, err := s.Driver.Get(s.ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(store.KV{Key: key, Value: []byte("2"), Revision: second}, got); d != "" {
		t.Errorf("get (-want +got):\n%s", d)
	}
	s.remove(t, key)
	_, err = s.Driver.Get(s.ctx, key)
	wantError(t, "get after delete", err, store.ErrNotFound)
	if third := s.create(t, key, "3"); third == first || third == second {
		t.Errorf("revision %q is used twice", third)
	}
}

func compareAndSwap(t *testing.T, s *suite) {
	const key = "/a"
	_, err := s.Driver.Update(s.ctx, store.KV{Key: key})
	wantError(t, "update of nothing", err, store.ErrNotFound)
	wantError(t, "delete of nothing", s.Driver.Delete(s.ctx, key, ""), store.ErrNotFound)
	old := s.create(t, key, "1")
	_, err = s.Driver.Create(s.ctx, key, nil)
	wantError(t, "create twice", err, store.ErrExists)
	now := s.update(t, key, "2", "")
	_, err = s.Driver.Update(s.ctx, store.KV{Key: key, Value: []byte("x"), Revision: old})
	wantError(t, "update of an old revision", err, store.ErrConflict)
	_, err = s.Driver.Update(s.ctx, store.KV{Key: key, Value: []byte("x"), Revision: "no revision"})
	wantError(t, "update of a revision that never was", err, store.ErrConflict)
	wantError(t, "delete of an old revision", s.Driver.Delete(s.ctx, key, old), store.ErrConflict)
	if got, err := s.Driver.Get(s.ctx, key); err != nil || string(got.Value) != "2" {
		t.Errorf("refused writes changed the value to %q, %v", got.Value, err)
	}
	if err := s.Driver.Delete(s.ctx, key, now); err != nil {
		t.Error(err)
	}
	_, err = s.Driver.Update(s.ctx, store.KV{Key: key, Revision: now})
	wantError(t, "update of what was deleted", err, store.ErrNotFound)
	wantError(t, "delete of what was deleted", s.Driver.Delete(s.ctx, key, now), store.ErrNotFound)
}

func valuesAreBytes(t *testing.T, s *suite) {
	start := s.list(t, "/").Revision
	values := map[string][]byte{"/1": {}, "/2": {0, 0xff, '\n'}, "/3": bytes.Repeat([]byte{'x'}, 1<<20)}
	for key, v := range values {
		s.create(t, key, string(v))
	}
	for _, kv := range s.list(t, "/").KVs {
		if kv.Value == nil || !bytes.Equal(kv.Value, values[kv.Key]) {
			t.Errorf("%s: listed as %d bytes, nil %v", kv.Key, len(kv.Value), kv.Value == nil)
		}
	}
	w := s.watch(t, "/1", start)
	w.want("/1=")
	if kv, err := s.Driver.Get(s.ctx, "/1"); err != nil || kv.Value == nil {
		t.Errorf("an empty value is read as %v, %v", kv.Value, err)
	}
}

func slicesAreNotShared(t *testing.T, s *suite) {
	value := []byte("good")
	start := s.list(t, "/").Revision
	if _, err := s.Driver.Create(s.ctx, "/a", value); err != nil {
		t.Fatal(err)
	}
	copy(value, "evil")
	kv, err := s.Driver.Get(s.ctx, "/a")
	if err != nil {
		t.Fatal(err)
	}
	copy(kv.Value, "evil")
	copy(s.list(t, "/").KVs[0].Value, "evil")
	w := s.watch(t, "/", start)
	w.want("/a=good")
	copy(w.last.Events[0].Value, "evil")
	if got := lines(s.list(t, "/")); got[0] != "/a=good" {
		t.Errorf("a reader changed the datastore: %q", got)
	}
}

func listKeepsToItsPrefix(t *testing.T, s *suite) {
	for _, key := range []string{"/b/2", "/a/2", "/a/1", "/ab", "/a", "/a0", "/a/1/x", "/a/\xff"} {
		s.create(t, key, "v")
	}
	tests := []struct {
		prefix string
		want   []string
	}{
		{"/a/", []string{"/a/1=v", "/a/1/x=v", "/a/2=v", "/a/\xff=v"}},
		{"/a/1", []string{"/a/1=v", "/a/1/x=v"}},
		{"/b/", []string{"/b/2=v"}},
		{"/c/", nil},
		{"", []string{"/a=v", "/a/1=v", "/a/1/x=v", "/a/2=v", "/a/\xff=v", "/a0=v", "/ab=v", "/b/2=v"}},
	}
	for _, tt := range tests {
		if d := cmp.Diff(tt.want, lines(s.list(t, tt.prefix))); d != "" {
			t.Errorf("list %q (-want +got):\n%s", tt.prefix, d)
		}
	}
}

func largeList(t *testing.T, s *suite) {
	var want []string
	const n = 1234
	for i := range n {
		key := fmt.Sprintf("/big/%04d", i)
		want = append(want, key+"="+strconv.Itoa(i))
	}
	each(n, func(i int) { s.create(t, fmt.Sprintf("/big/%04d", i), strconv.Itoa(i)) })
	if d := cmp.Diff(want, lines(s.list(t, "/big/"))); d != "" {
		t.Errorf("list (-want +got):\n%s", d)
	}
}

// pages hands over what a list has, at the list's revision, as of one moment:
// what is written while it goes on is not in it. An error of its reader ends it.
func pages(t *testing.T, s *suite) {
	none := 0
	if err := store.Pages(s.ctx, s.Driver, "/p/", func(kvs []store.KV, rev store.Revision) error {
		if none++; len(kvs) > 0 || rev == "" {
			t.Errorf("nothing is stored, and a page has %d values at revision %q", len(kvs), rev)
		}
		return nil
	}); err != nil || none != 1 {
		t.Errorf("%d pages of nothing, error %v: want one", none, err)
	}
	const n = 600 // two pages and more of each driver
	each(n, func(i int) { s.create(t, fmt.Sprintf("/p/%04d", i), strconv.Itoa(i)) })
	s.create(t, "/q", "of another prefix")
	want := s.list(t, "/p/")
	var got store.Listing
	called := 0
	err := store.Pages(s.ctx, s.Driver, "/p/", func(kvs []store.KV, rev store.Revision) error {
		if called++; called == 1 {
			s.create(t, "/p/9999", "later")
			s.remove(t, want.KVs[n-1].Key)
			got.Revision = rev
		}
		if rev != got.Revision {
			t.Errorf("page %d is of revision %q, the first of %q", called, rev, got.Revision)
		}
		got.KVs = append(got.KVs, kvs...)
		return nil
	})
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("error %v, pages (-want +got):\n%s", err, d)
	}
	if _, ok := s.Driver.(store.Pager); ok && called < 2 {
		t.Errorf("all of %d values came in %d page", n, called)
	}
	called = 0
	enough := errors.New("enough")
	if err := store.Pages(s.ctx, s.Driver, "/p/", func([]store.KV, store.Revision) error { called++; return enough }); !errors.Is(err, enough) || called != 1 {
		t.Errorf("a reader's error came back as %v after %d pages", err, called)
	}
}

// listIsOfOneMoment lists while keys are created in order: a listing may end
// anywhere, but has no gap.
func listIsOfOneMoment(t *testing.T, s *suite) {
	done := make(chan struct{})
	const n = 300
	go func() {
		defer close(done)
		for i := range n {
			// In an order that is not that of the keys, so that a list which
			// reads on at a later moment has later keys in front of a gap.
			key := fmt.Sprintf("/m/%d-%04d", i%3, i)
			if _, err := s.Driver.Create(s.ctx, key, []byte(strconv.Itoa(i))); err != nil {
				t.Error(err)
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		list := s.list(t, "/m/")
		seen := make([]bool, n)
		for _, kv := range list.KVs {
			i, _ := strconv.Atoi(string(kv.Value))
			seen[i] = true
		}
		for i := range len(list.KVs) {
			if !seen[i] {
				t.Fatalf("a list of %d keys has not the key written as number %d", len(list.KVs), i)
			}
		}
	}
}

func cancelledCalls(t *testing.T, s *suite) {
	s.create(t, "/a", "1")
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, err := s.Driver.Get(ctx, "/a")
	wantError(t, "get", err, context.Canceled)
	_, err = s.Driver.List(ctx, "/")
	wantError(t, "list", err, context.Canceled)
	_, err = s.Driver.Create(ctx, "/b", nil)
	wantError(t, "create", err, context.Canceled)
	_, err = s.Driver.Update(ctx, store.KV{Key: "/a"})
	wantError(t, "update", err, context.Canceled)
	wantError(t, "delete", s.Driver.Delete(ctx, "/a", ""), context.Canceled)
	if got := lines(s.list(t, "/")); len(got) != 1 || got[0] != "/a=1" {
		t.Errorf("cancelled calls left %q", got)
	}
}

// parallelWriters count up one key by read, change, compare and swap.
func parallelWriters(t *testing.T, s *suite) {
	const writers, rounds = 8, 10
	start := s.create(t, "/n", "0")
	increment := func() {
		for {
			kv, err := s.Driver.Get(s.ctx, "/n")
			if err != nil {
				t.Error(err)
				return
			}
			n, _ := strconv.Atoi(string(kv.Value))
			kv.Value = strconv.AppendInt(nil, int64(n+1), 10)
			if _, err = s.Driver.Update(s.ctx, kv); err == nil {
				return
			}
			if !errors.Is(err, store.ErrConflict) {
				t.Error(err)
				return
			}
		}
	}
	each(writers*rounds, func(int) { increment() })
	var want []string
	for i := range writers * rounds {
		want = append(want, fmt.Sprintf("/n=%d", i+1))
	}
	s.watch(t, "/", start).want(want...)
}

// each calls f for every number below n, eight at a time.
func each(n int, f func(int)) {
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 {
				f(i)
			}
		})
	}
	wg.Wait()
}
