package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

var errDown = errors.New("the datastore is down")

// flaky is a datastore that can be switched off, and whose watches can be cut.
type flaky struct {
	*mem.Store

	mu   sync.Mutex
	down bool          // guarded by mu
	cut  chan struct{} // closed to cut every watch; guarded by mu
	now  []string      // the calls since the last look; guarded by mu
}

func newFlaky() *flaky { return &flaky{Store: mem.New(), cut: make(chan struct{})} }

// set switches on or off; either cuts every watch.
func (f *flaky) set(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
	close(f.cut)
	f.cut = make(chan struct{})
}

func (f *flaky) enter(call string) (<-chan struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = append(f.now, call)
	if f.down {
		return nil, errDown
	}
	return f.cut, nil
}

// calls returns the calls since the last time.
func (f *flaky) calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.now = nil }()
	return f.now
}

func (f *flaky) List(ctx context.Context, prefix string) (store.Listing, error) {
	if _, err := f.enter("list"); err != nil {
		return store.Listing{}, err
	}
	return f.Store.List(ctx, prefix)
}

func (f *flaky) Watch(ctx context.Context, prefix string, after store.Revision) <-chan store.Batch {
	out := make(chan store.Batch)
	cut, err := f.enter("watch")
	go func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		send := func(b store.Batch) {
			select {
			case out <- b:
			case <-ctx.Done():
			}
		}
		if err != nil {
			send(store.Batch{Err: err})
			return
		}
		in := f.Store.Watch(ctx, prefix, after)
		for {
			select {
			case b, ok := <-in:
				if !ok {
					return
				}
				send(b)
			case <-cut:
				send(store.Batch{Err: errDown})
				return
			}
		}
	}()
	return out
}

// mirror is a reader that applies updates to a map.
type mirror struct {
	mu      sync.Mutex
	data    map[string]string // guarded by mu
	updates []string          // since the last look, rendered; guarded by mu
	inSync  int               // how often; guarded by mu
}

func (m *mirror) handle(u store.Update) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var lines []string
	for _, e := range u.Events {
		if e.Value == nil {
			delete(m.data, e.Key)
			lines = append(lines, e.Key+" gone")
			continue
		}
		m.data[e.Key] = string(e.Value)
		lines = append(lines, e.Key+"="+string(e.Value))
	}
	if u.InSync {
		m.inSync++
		lines = append(lines, "in sync")
	}
	m.updates = append(m.updates, strings.Join(lines, ", "))
}

// seen returns the updates since the last time.
func (m *mirror) seen() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() { m.updates = nil }()
	return m.updates
}

// story is a Follow under synctest, over a datastore that fails on command.
type story struct {
	t      *testing.T
	flaky  *flaky
	mirror *mirror
	status *store.FollowStatus
}

// follow runs f with a Follow that is stopped afterwards.
func follow(t *testing.T, down bool, f func(*story)) {
	synctest.Test(t, func(t *testing.T) {
		s := &story{t: t, flaky: newFlaky(), mirror: &mirror{data: map[string]string{}}, status: &store.FollowStatus{}}
		s.flaky.down = down
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		s.put("/a/1", "x")
		s.put("/b/1", "not ours")
		go func() {
			done <- store.Follow(ctx, s.flaky, "/a/", s.mirror.handle, store.FollowConfig{
				Status: s.status, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
			})
		}()
		synctest.Wait()
		f(s)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Follow returned %v", err)
		}
		if s.status.State().Connected {
			t.Error("connected after the end")
		}
	})
}

func (s *story) put(key, value string) {
	s.t.Helper()
	_, err := s.flaky.Create(s.t.Context(), key, []byte(value))
	if errors.Is(err, store.ErrExists) {
		_, err = s.flaky.Update(s.t.Context(), store.KV{Key: key, Value: []byte(value)})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) remove(key string) {
	s.t.Helper()
	if err := s.flaky.Delete(s.t.Context(), key, ""); err != nil {
		s.t.Fatal(err)
	}
}

// after lets fake time pass until nothing more happens.
func (s *story) after(d time.Duration) {
	time.Sleep(d) // fake: returns at once
	synctest.Wait()
}

func (s *story) want(updates ...string) {
	s.t.Helper()
	if d := cmp.Diff(updates, s.mirror.seen()); d != "" {
		s.t.Errorf("updates (-want +got):\n%s", d)
	}
}

func (s *story) wantConnected(want bool) {
	s.t.Helper()
	st := s.status.State()
	if st.Connected != want {
		s.t.Errorf("connected is %v, want %v: %+v", st.Connected, want, st)
	}
}

func TestFollowHandsOverEverythingOnceAndThenChanges(t *testing.T) {
	follow(t, false, func(s *story) {
		s.want("/a/1=x, in sync")
		s.wantConnected(true)
		s.put("/a/2", "y")
		synctest.Wait()
		s.put("/b/2", "z")
		s.remove("/a/1")
		synctest.Wait()
		s.want("/a/2=y", "/a/1 gone")
		if st := s.status.State(); !st.InSync || st.Lists != 1 || st.LastError != nil || st.Revision == "" {
			t.Errorf("state %+v", st)
		}
	})
}

func TestFollowOfNothingIsInSyncToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := &mirror{data: map[string]string{}}
		go store.Follow(ctx, mem.New(), "/a/", m.handle, store.FollowConfig{})
		synctest.Wait()
		if d := cmp.Diff([]string{"in sync"}, m.seen()); d != "" {
			t.Error(d)
		}
		cancel()
		synctest.Wait()
	})
}

func TestFollowResumesWithoutListingAgain(t *testing.T) {
	follow(t, false, func(s *story) {
		s.want("/a/1=x, in sync")
		s.flaky.calls()
		s.flaky.set(true)
		s.put("/a/2", "while away")
		s.remove("/a/1")
		s.after(time.Minute)
		s.want()
		s.wantConnected(false)
		if st := s.status.State(); !errors.Is(st.LastError, errDown) || !st.InSync {
			t.Errorf("state %+v", st)
		}
		s.flaky.set(false)
		s.after(time.Minute)
		s.want("/a/2=while away, /a/1 gone")
		s.wantConnected(true)
		for _, c := range s.flaky.calls() {
			if c == "list" {
				t.Error("listed although the watch could resume")
			}
		}
	})
}

func TestFollowListsAgainAfterCompaction(t *testing.T) {
	follow(t, false, func(s *story) {
		s.put("/a/2", "y")
		s.put("/a/3", "z")
		synctest.Wait()
		s.mirror.seen()
		s.flaky.set(true)
		s.remove("/a/1")
		s.put("/a/2", "changed")
		s.put("/a/4", "new")
		s.flaky.Compact()
		s.after(time.Hour)
		s.want() // whatever fails, nothing is deleted
		s.flaky.set(false)
		s.after(time.Minute)
		s.want("/a/2=changed, /a/4=new, /a/1 gone")
		if st := s.status.State(); st.Lists != 2 || !st.Connected {
			t.Errorf("state %+v", st)
		}
	})
}

func TestFollowStartsWhenTheDatastoreIsDown(t *testing.T) {
	follow(t, true, func(s *story) {
		s.after(time.Hour)
		s.want()
		if st := s.status.State(); st.Connected || st.InSync || !st.Since.IsZero() || !errors.Is(st.LastError, errDown) {
			t.Errorf("state %+v", st)
		}
		s.flaky.set(false)
		s.after(10 * time.Second)
		s.want("/a/1=x, in sync")
		s.wantConnected(true)
	})
}

func TestFollowBacksOff(t *testing.T) {
	follow(t, true, func(s *story) {
		s.flaky.calls()
		s.after(time.Hour)
		if n := len(s.flaky.calls()); n < 720 || n > 1500 {
			t.Errorf("%d attempts in an hour, want one each 2.5 to 5 s", n)
		}
		s.flaky.set(false)
		s.after(time.Hour)
		s.flaky.calls()
		s.flaky.set(false) // cuts only
		s.after(100 * time.Millisecond)
		if d := cmp.Diff([]string{"watch"}, s.flaky.calls()); d != "" {
			t.Errorf("a connection that lasted is not resumed at once: %s", d)
		}
	})
}

// TestFollowSurvivesAnything writes, fails and compacts at random, and
// compares with a listing in the end.
func TestFollowSurvivesAnything(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			follow(t, seed%2 == 0, func(s *story) { s.anything(rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func (s *story) anything(rng *rand.Rand) {
	for range 200 {
		key := fmt.Sprintf("/a/%d", 2+rng.IntN(5))
		switch rng.IntN(6) {
		case 0:
			s.flaky.set(true)
		case 1:
			s.flaky.set(false)
		case 2:
			s.flaky.Compact()
		case 3:
			if _, err := s.flaky.Get(s.t.Context(), key); err == nil {
				s.remove(key)
			}
		default:
			s.put(key, fmt.Sprint(rng.IntN(3)))
		}
		if rng.IntN(3) == 0 {
			s.after(time.Duration(rng.Int64N(int64(5 * time.Second))))
		}
	}
	s.flaky.set(false)
	s.after(time.Minute)
	list, err := s.flaky.List(s.t.Context(), "/a/")
	if err != nil {
		s.t.Fatal(err)
	}
	want := map[string]string{}
	for _, kv := range list.KVs {
		want[kv.Key] = string(kv.Value)
	}
	if d := cmp.Diff(want, s.mirror.data); d != "" {
		s.t.Errorf("what was handed over (-want +got):\n%s", d)
	}
	if s.mirror.inSync != 1 {
		s.t.Errorf("in sync %d times", s.mirror.inSync)
	}
	for _, u := range s.mirror.seen() {
		if strings.Contains(u, "/a/1 gone") {
			s.t.Errorf("a key that always existed was deleted: %s", u)
		}
	}
}
