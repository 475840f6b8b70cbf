package reconcile

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
)

// result runs a waiting call in the background.
func result(call func() error) func() (error, bool) {
	done := make(chan error, 1)
	go func() { done <- call() }()
	return func() (error, bool) {
		select {
		case err := <-done:
			return err, true
		default:
			return nil, false
		}
	}
}

func remove(k string) desired.Patch[string, int] {
	return desired.Patch[string, int]{Delete: []string{k}}
}

func TestOneChangeIsMadeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, table: map[string]int{}}
		l := start(t, w)
		after(time.Second)
		began := time.Now()
		l.Want(set("a", 1))
		if err := l.WaitApplied(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("an idle loop took %v", d)
		}
		check(t, w, map[string]int{"a": 1})
		l.Want(set("b", 1)) // within the settle time of the first
		if err := l.WaitApplied(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != 100*time.Millisecond {
			t.Errorf("the second change took %v, want the settle time", d)
		}
	})
}

func TestWaitAppliedWaitsForTheWishToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, table: map[string]int{"a": 1}, fail: map[string]bool{"a": true}}
		l := start(t, w)
		got := result(func() error { return l.WaitApplied(t.Context(), "a") })
		after(time.Minute)
		if _, done := got(); done {
			t.Fatal("returned before anybody wanted the key")
		}
		l.Want(set("a", 2))
		after(time.Minute)
		if _, done := got(); done {
			t.Fatal("returned while the key fails")
		}
		w.tamper(func() { clear(w.fail) })
		after(11 * time.Second)
		if err, done := got(); !done || err != nil {
			t.Fatalf("done %v, err %v", done, err)
		}
		check(t, w, map[string]int{"a": 2})
	})
}

func TestWaitMatchIgnoresTheOldValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, table: map[string]int{}}
		l := start(t, w)
		l.Want(set("a", 1))
		after(time.Second)
		got := result(func() error {
			return l.WaitMatch(t.Context(), func(_ string, v int) bool { return v == 2 }, "a")
		})
		after(time.Second)
		if _, done := got(); done {
			t.Fatal("content with the old value")
		}
		l.Want(set("a", 2))
		after(time.Second)
		if err, done := got(); !done || err != nil {
			t.Fatalf("done %v, err %v", done, err)
		}
	})
}

func TestWaitGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, table: map[string]int{"a": 1}, fail: map[string]bool{}}
		l := start(t, w)
		l.Want(set("a", 1))
		after(time.Second)
		got := result(func() error { return l.WaitGone(t.Context(), "a") })
		after(time.Second)
		l.Want(remove("a"))
		after(time.Minute)
		if _, done := got(); done {
			t.Fatal("returned although nothing is deleted before in-sync")
		}
		w.tamper(func() { w.fail["a"] = true })
		inSync(w, l)
		after(time.Minute)
		if _, done := got(); done {
			t.Fatal("returned while deleting fails")
		}
		w.tamper(func() { delete(w.table, "a") }) // gone by itself
		after(11 * time.Second)
		if err, done := got(); !done || err != nil {
			t.Fatalf("done %v, err %v", done, err)
		}
		if n := len(l.Failed()); n != 0 || l.Err() != nil {
			t.Errorf("%d keys fail, err %v", n, l.Err())
		}
	})
}

func TestWaitingSaysWhyItEnded(t *testing.T) {
	cases := []struct {
		name string
		prep func(w *world, l *Loop[string, int])
		call func(ctx context.Context, l *Loop[string, int]) error
		want string
	}{
		{"nobody wants it", func(*world, *Loop[string, int]) {},
			func(ctx context.Context, l *Loop[string, int]) error { return l.WaitApplied(ctx, "a", "b") },
			"2 keys left; first a: not wanted yet"},
		{"it fails", func(w *world, l *Loop[string, int]) { w.fail["a"] = true; l.Want(set("a", 1)) },
			func(ctx context.Context, l *Loop[string, int]) error { return l.WaitApplied(ctx, "a") },
			"no such device"},
		{"the world cannot be read", func(w *world, l *Loop[string, int]) { w.listErr = errors.New("busy"); l.Want(set("a", 1)) },
			func(ctx context.Context, l *Loop[string, int]) error { return l.WaitApplied(ctx, "a") },
			"busy"},
		{"an empty world cannot be read", func(w *world, l *Loop[string, int]) { w.listErr = errors.New("busy") },
			func(ctx context.Context, l *Loop[string, int]) error { return l.Synced(ctx) },
			"busy"},
		{"still wanted", func(w *world, l *Loop[string, int]) { l.Want(set("a", 1)) },
			func(ctx context.Context, l *Loop[string, int]) error { return l.WaitGone(ctx, "a") },
			"still wanted"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{t: t, table: map[string]int{}, fail: map[string]bool{}}
				l := newLoop(w)
				c.prep(w, l)
				run(t, l)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := c.call(ctx, l)
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			})
		})
	}
}

func TestSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, table: map[string]int{"stranger": 1}, fail: map[string]bool{"a": true}}
		l := newLoop(w)
		empty := result(func() error { return l.Synced(t.Context()) })
		synctest.Wait()
		if _, done := empty(); done {
			t.Fatal("synced with a world that nobody has looked at")
		}
		run(t, l)
		synctest.Wait()
		if err, done := empty(); !done || err != nil {
			t.Fatalf("done %v, err %v", done, err)
		}
		l.Want(set("a", 1))
		l.Want(remove("stranger")) // held until in-sync; must not block
		got := result(func() error { return l.Synced(t.Context()) })
		after(time.Minute)
		if _, done := got(); done {
			t.Fatal("synced while a key fails")
		}
		w.tamper(func() { clear(w.fail) })
		after(11 * time.Second)
		if err, done := got(); !done || err != nil {
			t.Fatalf("done %v, err %v", done, err)
		}
	})
}

func TestSyncedWaitsForStrangersToGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, table: map[string]int{"x": 1}, fail: map[string]bool{"x": true}}
		l := start(t, w)
		after(time.Second)
		inSync(w, l)
		got := result(func() error { return l.Synced(t.Context()) })
		after(time.Minute)
		if _, done := got(); done {
			t.Fatal("synced with a stranger in the world")
		}
		w.tamper(func() { clear(w.fail) })
		after(11 * time.Second)
		if err, done := got(); !done || err != nil {
			t.Fatalf("done %v, err %v", done, err)
		}
		check(t, w, map[string]int{})
	})
}

func TestFailedAndStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, table: map[string]int{"x": 1}, fail: map[string]bool{"bad": true}}
		l := start(t, w)
		inSync(w, l)
		l.Want(set("good", 1))
		l.Want(set("bad", 1))
		after(time.Second)
		if f := l.Failed(); len(f) != 1 || f["bad"] == nil {
			t.Errorf("Failed() = %v", f)
		}
		s := l.Stats()
		if s.Sets != 1 || s.Deletes != 1 || s.Failures == 0 || s.Wanted != 2 || s.Failing != 1 || !s.InSync || s.Repaired != 0 {
			t.Errorf("got %+v", s)
		}
		w.tamper(func() { clear(w.fail); delete(w.table, "good"); w.table["y"] = 1 })
		l.Drift()
		after(time.Second)
		if s := l.Stats(); s.Repaired != 2 || s.Failing != 0 || s.Pending != 0 {
			t.Errorf("got %+v, want two repairs", s)
		}
		if l.Err() != nil || len(l.Failed()) != 0 {
			t.Errorf("err %v, failed %v", l.Err(), l.Failed())
		}
	})
}

func TestWantedAgainEndsTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, table: map[string]int{}, fail: map[string]bool{"a": true}}
		l := start(t, w)
		l.Want(set("a", 1))
		after(time.Minute)
		w.tamper(func() { clear(w.fail) })
		l.Want(set("a", 2))
		after(200 * time.Millisecond)
		if l.Err() != nil {
			t.Errorf("still %v", l.Err())
		}
	})
}

func TestRetryTriesWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, table: map[string]int{}, fail: map[string]bool{"a": true}}
		l := start(t, w)
		l.Want(set("a", 1))
		after(time.Minute) // the backoff is at its ceiling
		w.tamper(func() { clear(w.fail) })
		l.Retry()
		after(400 * time.Millisecond)
		check(t, w, map[string]int{"a": 1})
		lists := w.lists
		for range 50 { // nothing fails: nothing is read
			l.Retry()
			after(100 * time.Millisecond)
		}
		if w.lists != lists {
			t.Errorf("%d read-backs for nothing", w.lists-lists)
		}
	})
}

func TestStormsAreBounded(t *testing.T) {
	cases := []struct {
		name           string
		prep           func(w *world)
		each           func(l *Loop[string, int], i int)
		lists, applies int // most in ten seconds
	}{
		{"drift all the time", func(*world) {},
			func(l *Loop[string, int], _ int) { l.Drift() }, 36, 1},
		{"drift while everything fails", func(w *world) { w.fail["a"] = true },
			func(l *Loop[string, int], _ int) { l.Drift() }, 36, 36},
		{"retry while everything fails", func(w *world) { w.fail["a"] = true },
			func(l *Loop[string, int], _ int) { l.Retry() }, 36, 36},
		{"wishes while the world cannot be read", func(w *world) { w.listErr = errors.New("busy") },
			func(l *Loop[string, int], i int) { l.Want(set("b", i)) }, 10, 0},
		{"one key fails, silence", func(w *world) { w.fail["a"] = true },
			func(*Loop[string, int], int) {}, 10, 10},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{t: t, table: map[string]int{}, fail: map[string]bool{}}
				c.prep(w)
				l := start(t, w)
				l.Want(set("a", 1))
				for i := range 1000 {
					c.each(l, i)
					after(10 * time.Millisecond)
				}
				if w.lists > c.lists || w.applies > c.applies {
					t.Errorf("%d read-backs and %d applies, want at most %d and %d", w.lists, w.applies, c.lists, c.applies)
				}
			})
		})
	}
}

// Drift is repaired within a second, also when it is reported all the time.
func TestDriftIsRepairedWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, table: map[string]int{}}
		l := start(t, w)
		l.Want(set("a", 1))
		after(time.Second)
		for range 20 {
			w.tamper(func() { delete(w.table, "a") })
			l.Drift()
			after(500 * time.Millisecond)
			check(t, w, map[string]int{"a": 1})
		}
	})
}

// When a waiting call returns and nobody tampers, the world is as wanted.
func TestWaitingIsTrueInAnyHistory(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			keys := []string{"a", "b", "c", "d", "e"}
			w := &world{t: t, table: map[string]int{"x": 1, "a": 7}, fail: map[string]bool{}}
			l := start(t, w)
			want := map[string]int{}
			failing := func(on bool) {
				w.mu.Lock()
				defer w.mu.Unlock()
				clear(w.fail)
				if on {
					w.fail[keys[r.IntN(len(keys))]] = true
				}
			}
			for range 60 {
				k := keys[r.IntN(len(keys))]
				switch r.IntN(6) {
				case 0, 1:
					want[k] = r.IntN(3)
					l.Want(set(k, want[k]))
				case 2:
					delete(want, k)
					l.Want(remove(k))
				case 3:
					failing(r.IntN(2) == 0)
				case 4:
					after(time.Duration(r.IntN(300)) * time.Millisecond)
				case 5:
					if r.IntN(10) == 0 {
						inSync(w, l)
					}
					failing(false)
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					err := l.Synced(ctx)
					cancel()
					if err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
					w.mu.Lock()
					got := maps.Clone(w.table)
					w.mu.Unlock()
					for k, v := range want {
						if got[k] != v {
							t.Fatalf("seed %d: world has %v, wanted %v", seed, got, want)
						}
					}
				}
			}
		})
	}
}
