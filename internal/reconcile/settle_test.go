package reconcile

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSettled: what fails is waited for and named, unless it is excused; what
// is wanted later is not waited for.
func TestSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, table: map[string]int{"stranger": 1}, fail: map[string]bool{}}
		l := newLoop(w)
		short := func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), time.Minute) }
		ctx, cancel := short()
		if err := l.Settled(ctx, nil); !errors.Is(err, ErrNotApplied) { // it does not run yet
			t.Errorf("never read: %v", err)
		}
		cancel()
		run(t, l)
		l.Want(set("b", 1))
		if err := l.Settled(t.Context(), nil); err != nil { // not for the stranger, which waits for in-sync
			t.Fatal(err)
		}
		check(t, w, map[string]int{"stranger": 1, "b": 1})
		inSync(w, l)
		w.tamper(func() { w.fail["a"] = true })
		l.Want(set("a", 1))
		ctx, cancel = short()
		defer cancel()
		err := l.Settled(ctx, nil)
		if err == nil || errors.Is(err, ErrNotApplied) || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 changes left; first a: ") {
			t.Errorf("a key that fails: %v", err)
		}
		if err := l.Settled(t.Context(), func(error) bool { return true }); err != nil {
			t.Errorf("excused: %v", err)
		}
		waiting := result(func() error { return l.Settled(t.Context(), nil) })
		synctest.Wait()
		w.tamper(func() { w.fail["a"], w.fail["c"] = false, true })
		l.Want(set("c", 1))
		after(time.Hour)
		if err, done := waiting(); err != nil || !done {
			t.Errorf("what was wanted later is waited for: %v, %v", err, done)
		}
	})
}
