package controllers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// wire is a candidate's way to the datastore. It can be cut, and can lose
// answers.
type wire struct {
	store.Driver
	mu   sync.Mutex
	cut  bool
	mute func() bool // nil: never; an answer is lost after the write was made
}

var errCut = errors.New("the wire is cut")

func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

func (w *wire) pass() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return errCut
	}
	return nil
}

func (w *wire) Get(ctx context.Context, key string) (store.KV, error) {
	if err := w.pass(); err != nil {
		return store.KV{}, err
	}
	return w.Driver.Get(ctx, key)
}

func (w *wire) Transact(ctx context.Context, writes []store.Write) (store.Revision, error) {
	if err := w.pass(); err != nil {
		return "", err
	}
	rev, err := w.Driver.(store.Transactor).Transact(ctx, writes)
	if err == nil && w.mute != nil && w.mute() {
		return "", errCut
	}
	return rev, err
}

// board notes who works.
type board struct {
	mu      sync.Mutex
	working []string
	most    int
	history []string
}

func (b *board) enter(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.working = append(b.working, name)
	b.most = max(b.most, len(b.working))
	b.history = append(b.history, name)
}

func (b *board) leave(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.working = slices.DeleteFunc(b.working, func(s string) bool { return s == name })
}

func (b *board) now() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.working, " ")
}

// run is one candidate; the returned functions stop it, and give its fenced
// datastore once it has led.
func (b *board) run(t *testing.T, name string, d store.Driver) (stop func(), led chan store.Driver) {
	ctx, cancel := context.WithCancel(t.Context())
	led = make(chan store.Driver, 100)
	done := make(chan error, 1)
	go func() {
		done <- Lead(ctx, LeadConfig{Driver: d, Name: name, Work: func(ctx context.Context, d store.Driver) error {
			b.enter(name)
			defer b.leave(name)
			led <- d
			<-ctx.Done()
			return ctx.Err()
		}})
	}()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%s ended with %v", name, err)
		}
	}, led
}

func TestOneLeadsAndTheOtherTakesOver(t *testing.T) {
	for _, tt := range []struct {
		name   string
		lose   func(w *wire, stop func())
		within time.Duration
	}{
		{"the leader leaves", func(_ *wire, stop func()) { stop() }, DefaultLease/3 + time.Second},
		{"the leader is cut off", func(w *wire, _ func()) { w.set(true) }, DefaultLease + DefaultLease/3 + time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, b := mem.New(), &board{}
				w := &wire{Driver: db}
				stopA, ledA := b.run(t, "a", w)
				synctest.Wait()
				stopB, _ := b.run(t, "b", db)
				defer stopB()
				stopA = sync.OnceFunc(stopA)
				defer stopA()
				time.Sleep(10 * DefaultLease)
				if got := b.now(); got != "a" {
					t.Fatalf("%q work", got)
				}
				tt.lose(w, stopA)
				time.Sleep(tt.within)
				synctest.Wait()
				if got := b.now(); got != "b" || b.most != 1 {
					t.Errorf("%q work, once %d", got, b.most)
				}
				// What was on its way is refused, however late it is.
				w.set(false)
				if _, err := (<-ledA).Create(t.Context(), "/late", nil); !errors.Is(err, ErrDeposed) {
					t.Errorf("a write of the former leader: %v", err)
				}
			})
		})
	}
}

// TestAFormerLeaderCannotWrite is about a leader whose clock stands still, so
// that nothing but the fence is left.
func TestAFormerLeaderCannotWrite(t *testing.T) {
	db, ctx := mem.New(), t.Context()
	still := func() time.Duration { return 0 }
	old := &fence{cfg: LeadConfig{Driver: db, Name: "a", Lease: DefaultLease, Uptime: still}, tx: db, token: "1"}
	must(t, old.renew(ctx))
	d := &fenced{Driver: db, f: old}
	rev, err := d.Create(ctx, "/x", []byte("a"))
	must(t, err)
	for _, err := range []error{
		func() error { _, err := d.Create(ctx, "/x", nil); return err }(),
		func() error { _, err := d.Update(ctx, store.KV{Key: "/y"}); return err }(),
		d.Delete(ctx, "/x", "77"),
	} {
		if !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrConflict) {
			t.Errorf("error is %v", err)
		}
	}
	kv, err := db.Get(ctx, LeaderKey)
	must(t, err)
	next := &fence{cfg: LeadConfig{Driver: db, Name: "b", Lease: DefaultLease, Uptime: still}, tx: db, token: "2", rev: kv.Revision}
	must(t, next.renew(ctx))
	for name, err := range map[string]error{
		"update": func() error {
			_, err := d.Update(ctx, store.KV{Key: "/x", Value: []byte("late"), Revision: rev})
			return err
		}(),
		"delete":   d.Delete(ctx, "/x", ""),
		"transact": func() error { _, err := d.Transact(ctx, []store.Write{{Key: "/z", Value: []byte("z")}}); return err }(),
	} {
		if !errors.Is(err, ErrDeposed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if kv, err := db.Get(ctx, "/x"); err != nil || string(kv.Value) != "a" {
		t.Errorf("the value is %q, %v", kv.Value, err)
	}
	_, err = (&fenced{Driver: db, f: next}).Update(ctx, store.KV{Key: "/x", Value: []byte("b")})
	must(t, err)
}

// TestNeverTwo plays random losses of wires and answers: nobody works while
// another one does, and the terms of what was written never go back.
func TestNeverTwo(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 6))
				var dice sync.Mutex
				roll := func(n int) int {
					dice.Lock()
					defer dice.Unlock()
					return rnd.IntN(n)
				}
				db, b := mem.New(), &board{}
				var wires []*wire
				for i := range 3 {
					w := &wire{Driver: db, mute: func() bool { return roll(8) == 0 }}
					wires = append(wires, w)
					stop, _ := b.run(t, string(rune('a'+i)), w)
					defer stop()
				}
				for range 200 {
					wires[roll(3)].set(roll(2) == 0)
					time.Sleep(time.Duration(roll(10)) * time.Second)
				}
				for _, w := range wires {
					w.set(false)
				}
				time.Sleep(3 * DefaultLease)
				synctest.Wait()
				if b.most != 1 || b.now() == "" || len(slices.Compact(slices.Clone(b.history))) < 3 {
					t.Errorf("at most %d worked at once; now %q; history %v", b.most, b.now(), b.history)
				}
			})
		})
	}
}

func TestLeadEndsWithItsWork(t *testing.T) {
	broken := errors.New("broken")
	err := Lead(t.Context(), LeadConfig{Driver: mem.New(), Name: "a", Work: func(context.Context, store.Driver) error { return broken }})
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	if err := Lead(t.Context(), LeadConfig{Driver: plain{mem.New()}}); err == nil || !strings.Contains(err.Error(), "two keys at once") {
		t.Error(err)
	}
}

// plain is a datastore that writes one key at a time.
type plain struct{ store.Driver }
