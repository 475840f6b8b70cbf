package reconcile

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// shifty is a world that can be glanced at.
type shifty struct {
	*world
	good    map[string]int // what a glance compares with
	blind   error          // a glance fails
	glances int
}

func (s *shifty) Glance(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.glances++
	var keys []string
	for k, v := range s.table {
		if s.good[k] != v {
			keys = append(keys, k)
		}
	}
	return keys, s.blind
}

// shiftyLoop runs a loop on a world with "a" and "b" as wanted.
func shiftyLoop(t *testing.T) (*shifty, *Loop[string, int]) {
	w := &world{t: t, table: map[string]int{}, fail: map[string]bool{}}
	s := &shifty{world: w, good: map[string]int{"a": 1, "b": 2}}
	cfg := newLoop(w).cfg
	cfg.Settle = time.Millisecond
	l := New[string, int](s, cfg)
	run(t, l)
	inSync(w, l)
	l.Want(set("a", 1))
	l.Want(set("b", 2))
	after(10 * time.Millisecond)
	return s, l
}

func TestUnannouncedDriftIsRepairedWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := shiftyLoop(t)
		for i := range 50 { // at any moment between two glances
			after(time.Duration(i) * 37 * time.Millisecond)
			s.tamper(func() { s.table["a"] = 99 })
			after(time.Second)
			check(t, s.world, s.good)
		}
		if n := l.Stats().Repaired; n != 50 {
			t.Errorf("%d repairs, want 50", n)
		}
	})
}

func TestAGlanceAtAQuietWorldIsAllThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := shiftyLoop(t)
		before := l.Stats()
		after(50 * time.Second)
		now := l.Stats()
		if now.ReadBacks != before.ReadBacks || now.Applies != before.Applies {
			t.Errorf("before %+v, now %+v", before, now)
		}
		if n := now.Glances - before.Glances; n != uint64(50*time.Second/DefaultGlance) || now.Glances != uint64(s.glances) {
			t.Errorf("%d glances, %d in all", n, s.glances)
		}
	})
}

// What cannot be mended is tried ever more rarely, though each glance shows it.
func TestGlancesDoNotDefeatTheBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := shiftyLoop(t)
		s.tamper(func() { s.table["a"], s.fail["a"] = 99, true })
		after(time.Minute)
		if n := l.Stats().Failures; n < 2 || n > 20 {
			t.Errorf("%d attempts in a minute", n)
		}
		// Another key is mended at once all the same.
		s.tamper(func() { s.table["b"] = 99 })
		after(time.Second)
		check(t, s.world, map[string]int{"a": 99, "b": 2})
		s.tamper(func() { delete(s.fail, "a") })
		after(11 * time.Second)
		check(t, s.world, s.good)
	})
}

func TestAGlanceSaysNothingOfWhatIsNotWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := shiftyLoop(t)
		before := l.Stats().ReadBacks
		s.tamper(func() { s.table["stranger"] = 1 })
		after(30 * time.Second)
		if n := l.Stats().ReadBacks - before; n != 0 {
			t.Errorf("%d read-backs", n)
		}
		after(time.Minute) // the read-back finds it
		check(t, s.world, s.good)
	})
}

func TestAGlanceMayFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := shiftyLoop(t)
		s.tamper(func() { s.blind = errors.New("interrupted") })
		after(10 * time.Second)
		if err := l.Err(); err != nil {
			t.Errorf("the table is as wanted, and the loop says %v", err)
		}
		s.tamper(func() { s.blind = nil; s.table["a"] = 99 })
		after(time.Second)
		check(t, s.world, s.good)
	})
}
