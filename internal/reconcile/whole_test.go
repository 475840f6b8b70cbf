package reconcile

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// document is a Document in memory: a list of numbers.
type document struct {
	mu    sync.Mutex // fake time orders events but not memory
	want  []int
	have  []int
	fail  error
	calls []bool      // all of each call
	times []time.Time // of each call
}

func (d *document) Take(p int) { d.want = append(d.want, p) }

func (d *document) Sync(_ context.Context, all bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls, d.times = append(d.calls, all), append(d.times, time.Now())
	if d.fail != nil {
		return d.fail
	}
	d.have = slices.Clone(d.want)
	return nil
}

func (d *document) set(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail, d.calls, d.times = err, nil, nil
}

func (d *document) seen() ([]int, []bool, []time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.have), slices.Clone(d.calls), slices.Clone(d.times)
}

func startWhole(t *testing.T) (*document, *Whole[int]) {
	d := &document{}
	w := NewWhole(d, WholeConfig{Name: "doc", Settle: time.Millisecond, Spacing: 300 * time.Millisecond,
		Resync: time.Minute, MaxRetry: 10 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
	return d, w
}

func TestWholeWaitsForInSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, w := startWhole(t)
		n := w.Want(1)
		time.Sleep(time.Hour)
		if _, calls, _ := d.seen(); calls != nil {
			t.Fatalf("called %v before in-sync", calls)
		}
		w.InSync()
		if err := w.Wait(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		have, calls, _ := d.seen()
		if !slices.Equal(have, []int{1}) || !slices.Equal(calls, []bool{true}) {
			t.Errorf("have %v after %v", have, calls)
		}
		if s := w.Stats(); s.Pending != 0 || !s.InSync || s.ReadBacks != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestWholeTakesChangesTogetherAndPartly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, w := startWhole(t)
		w.InSync()
		time.Sleep(time.Second)
		d.set(nil)
		w.Want(1)
		w.Want(2)
		if err := w.Wait(t.Context(), w.Want(3)); err != nil {
			t.Fatal(err)
		}
		have, calls, _ := d.seen()
		if !slices.Equal(have, []int{1, 2, 3}) || len(calls) > 2 || slices.Contains(calls, true) {
			t.Errorf("have %v after %v", have, calls)
		}
	})
}

func TestWholeReadsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, w := startWhole(t)
		w.InSync()
		time.Sleep(time.Second)
		d.set(nil)
		w.Drift()
		time.Sleep(10 * time.Millisecond)
		if _, calls, _ := d.seen(); !slices.Equal(calls, []bool{true}) {
			t.Errorf("drift: %v", calls)
		}
		for range 1000 { // a storm of drift is a few read-backs
			w.Drift()
			time.Sleep(time.Millisecond)
		}
		if _, calls, _ := d.seen(); len(calls) > 5 {
			t.Errorf("a second of drift: %d read-backs", len(calls))
		}
		time.Sleep(time.Second)
		d.set(nil)
		time.Sleep(10 * time.Minute)
		if _, calls, _ := d.seen(); len(calls) < 9 || len(calls) > 10 {
			t.Errorf("ten minutes: %d read-backs", len(calls))
		}
	})
}

// TestWholeBacksOff: a target that always fails costs ever less, whatever
// happens around it, and what it was asked for is not lost.
func TestWholeBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, w := startWhole(t)
		broken := errors.New("no buffer space")
		d.set(broken)
		w.InSync()
		time.Sleep(time.Minute)
		if _, calls, times := d.seen(); len(calls) > 22 || times[len(times)-1].Sub(times[len(times)-2]) < 5*time.Second {
			t.Errorf("%d attempts in a minute, the last two %v apart", len(calls), times[len(times)-1].Sub(times[len(times)-2]))
		}
		if !errors.Is(w.Err(), broken) {
			t.Errorf("error %v", w.Err())
		}
		d.set(broken)
		var n uint64
		for i := range 60_000 { // a minute of churn
			n = w.Want(i)
			w.Drift()
			time.Sleep(time.Millisecond)
		}
		if _, calls, _ := d.seen(); len(calls) > 70 || len(calls) < 30 {
			t.Errorf("%d attempts in a minute of churn", len(calls))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.Wait(ctx, n); !errors.Is(err, broken) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait: %v", err)
		}
		d.set(nil)
		if err := w.Wait(t.Context(), n); err != nil || w.Err() != nil {
			t.Errorf("%v, %v", err, w.Err())
		}
		if have, _, _ := d.seen(); len(have) != 60_000 {
			t.Errorf("%d of the patches arrived", len(have))
		}
	})
}

func TestWholeIsReadBackAtAnotherPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, w := startWhole(t)
		w.InSync()
		time.Sleep(90 * time.Second) // the second read-back of a minute's pace was half a minute ago
		d.set(nil)
		w.Resync(10 * time.Second)
		begin := time.Now()
		time.Sleep(25 * time.Second)
		w.Resync(time.Hour)
		time.Sleep(50 * time.Minute)
		_, calls, times := d.seen()
		want := []time.Duration{0, 10 * time.Second, 20 * time.Second, 25 * time.Second}
		if len(times) != len(want) || slices.Contains(calls, false) {
			t.Fatalf("read back at %v, %v", times, calls)
		}
		for i, at := range times {
			if late := at.Sub(begin) - want[i]; late < 0 || late > 100*time.Millisecond {
				t.Errorf("read-back %d after %v", i, at.Sub(begin))
			}
		}
	})
}
