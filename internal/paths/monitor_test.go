package paths

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeMonitor measures without a network. found says what comes of it.
type fakeMonitor struct {
	*Monitor
	mu    sync.Mutex
	found map[string]Outcome // by peer; absent: fine
	takes time.Duration
	at    []time.Time // of the measurements
	most  int         // at a time
	now   int
}

func newFakeMonitor(t *testing.T) *fakeMonitor {
	f := &fakeMonitor{Monitor: New(Config{Port: 1, Log: slog.New(slog.DiscardHandler)}), found: map[string]Outcome{}, takes: 100 * time.Millisecond}
	f.measure = func(ctx context.Context, p Path) Result {
		f.mu.Lock()
		f.at = append(f.at, time.Now())
		f.now++
		f.most = max(f.most, f.now)
		takes := f.takes
		f.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(takes):
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.now--
		o := f.found[p.Peer]
		if o == "" {
			o = Fine
		}
		return Result{Path: p, Outcome: o, Message: "why"}
	}
	begin(t, f.Monitor)
	return f
}

func (f *fakeMonitor) find(peer string, o Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.found[peer] = o
}

func (f *fakeMonitor) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.at)
}

// fakePaths are ways to as many hosts. What is scheduled does not depend on
// the family.
func fakePaths(n int) []Path {
	var out []Path
	for i := range n {
		out = append(out, Path{Device: "d", Peer: fmt.Sprint("h", i), MTU: 1450, Remote: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})})
	}
	return out
}

func TestPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeMonitor(t)
		f.Want(nil, nil, fakePaths(1))
		time.Sleep(time.Second)
		if r := f.Results(); len(r) != 1 || r[0].Outcome != Fine || f.count() != 1 {
			t.Fatalf("after a second: %d measurements, %+v", f.count(), r)
		}
		time.Sleep(period/2 - 2*time.Second)
		if f.count() != 1 {
			t.Error("measured again too early")
		}
		time.Sleep(24 * time.Hour)
		if n := f.count(); n < 100 || n > 200 {
			t.Errorf("%d measurements a day", n)
		}
	})
}

// TestConfirmed: what is not fine is told of when it is found twice, and then
// looked at ever less often.
func TestConfirmed(t *testing.T) {
	for _, o := range []Outcome{Blocked, Narrow, Checksum, NoTCP, Corrupt, NoAnswer, NotSent} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeMonitor(t)
			f.find("h0", o)
			f.Want(nil, nil, fakePaths(1))
			time.Sleep(300 * time.Millisecond)
			if r := f.Results()[0]; r.Outcome != Measuring || f.count() != 1 {
				t.Errorf("%s: after the first time: %+v", o, r)
			}
			time.Sleep(2 * confirm)
			if r := f.Results()[0]; r.Outcome != o || r.Message != "why" || f.count() < 2 {
				t.Errorf("%s: after the second time: %+v", o, r)
			}
			time.Sleep(24 * time.Hour)
			if n := f.count(); n < 150 || n > 700 {
				t.Errorf("%s: %d measurements a day", o, n)
			}
			f.find("h0", Fine)
			time.Sleep(period)
			if r := f.Results()[0]; r.Outcome != Fine {
				t.Errorf("%s: when it is over: %+v", o, r)
			}
			f.find("h0", o) // for a moment
			if err := f.Now(t.Context()); err != nil {
				t.Error(err)
			}
			if r := f.Results()[0]; r.Outcome != o {
				t.Errorf("%s: asked for: %+v", o, r)
			}
		})
	}
}

func TestChangedPathIsMeasuredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeMonitor(t)
		list := fakePaths(2)
		f.Want(nil, nil, list)
		time.Sleep(time.Second)
		f.Want(nil, nil, list)
		f.Want(nil, nil, append([]Path{}, list...))
		time.Sleep(time.Second)
		if f.count() != 2 {
			t.Errorf("%d measurements of paths that are as they were", f.count())
		}
		list[0].MTU = 1400
		f.Want(nil, nil, list)
		if r := f.Results()[0]; r.Outcome != Measuring || r.MTU != 1400 {
			t.Errorf("at the change: %+v", r)
		}
		time.Sleep(50 * time.Millisecond) // while it is being measured
		list[0].MTU = 1300
		f.Want(nil, nil, list)
		time.Sleep(time.Second)
		if r := f.Results()[0]; r.Outcome != Fine || r.MTU != 1300 || f.count() != 4 {
			t.Errorf("%d measurements, %+v", f.count(), r)
		}
		f.Want(nil, nil, list[1:])
		if r := f.Results(); len(r) != 1 || r[0].Peer != "h1" {
			t.Errorf("when one is gone: %+v", r)
		}
	})
}

// TestCost: a thousand paths are measured few at a time and not at once, and
// then about two a second.
func TestCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeMonitor(t)
		f.takes = 20 * time.Millisecond
		f.Want(nil, nil, fakePaths(1000))
		time.Sleep(5 * time.Second)
		if n := f.count(); n < 100 || n > 300 {
			t.Errorf("%d measurements in the first five seconds", n)
		}
		time.Sleep(20 * time.Second)
		if n := f.count(); n != 1000 {
			t.Errorf("%d measurements in the first half minute", n)
		}
		time.Sleep(time.Hour)
		if n := f.count() - 1000; n < 5000 || n > 8000 || f.most > atOnce {
			t.Errorf("%d measurements an hour, %d at a time", n, f.most)
		}
	})
}

func TestNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeMonitor(t)
		if err := f.Now(t.Context()); err != nil { // there is nothing
			t.Error(err)
		}
		f.Want(nil, nil, fakePaths(20))
		time.Sleep(50 * time.Millisecond) // some are under way
		at := time.Now()
		if err := f.Now(t.Context()); err != nil {
			t.Error(err)
		}
		for _, r := range f.Results() {
			if r.At.Before(at.Add(f.takes)) {
				t.Errorf("%s: measured at %v, asked for at %v", r.Peer, r.At, at)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := f.Now(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// offloads is a card of which it is known what it does.
type offloads struct {
	on   bool
	err  error
	sets int
}

func (o *offloads) TxChecksum(string) (bool, error) { return o.on, o.err }

func (o *offloads) SetTxChecksum(_ string, on bool) error {
	o.sets++
	o.on = on
	return o.err
}

// TestTry: the offload stays off where that helps, and is put back where not.
func TestTry(t *testing.T) {
	bad := Result{Path: Path{Device: "d", Peer: "h2"}, Outcome: Checksum}
	for _, c := range []struct {
		name string
		card offloads
		then Outcome // with the offload off
		on   bool    // at the end
		want Outcome
		sets int
	}{
		{"it helps", offloads{on: true}, Fine, false, Fine, 1},
		{"it helps, and the path is narrow, too", offloads{on: true}, Narrow, false, Narrow, 1},
		{"it helps, and the other host has the same card", offloads{on: true}, NoTCP, false, NoTCP, 1},
		{"it does not help", offloads{on: true}, Checksum, true, Checksum, 2},
		{"everything stops meanwhile", offloads{on: true}, Blocked, true, Checksum, 2},
		{"somebody has switched it off by now", offloads{}, Fine, false, Fine, 0},
		{"it cannot be read", offloads{on: true, err: errors.New("no")}, Fine, true, Checksum, 0},
	} {
		card := c.card
		ch := newChooser(Config{Offloads: &card, Log: slog.New(slog.DiscardHandler)})
		got := ch.try(t.Context(), bad, func(context.Context) Result {
			r := Result{Path: bad.Path, Outcome: c.then, Sum: Passed}
			if c.then == Checksum || c.then == Blocked {
				r.Sum = Lost
			}
			return r
		})
		if got.Outcome != c.want || card.on != c.on || card.sets != c.sets || (len(ch.off) > 0) != (c.sets == 1) {
			t.Errorf("%s: got %s, on %v after %d changes, chosen %v", c.name, got.Outcome, card.on, card.sets, ch.off)
		}
	}
}

// TestTriesApart: trials that do not help are ever further apart, however many
// paths ask for one.
func TestTriesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := offloads{on: true}
		ch := newChooser(Config{Offloads: &card, Log: slog.New(slog.DiscardHandler)})
		bad := Result{Path: Path{Device: "d", Peer: "h2"}, Outcome: NoTCP}
		same := func(context.Context) Result { return bad }
		for range 24 * 60 {
			for range 10 {
				ch.try(t.Context(), bad, same)
			}
			time.Sleep(time.Minute)
		}
		if n := card.sets / 2; n < 24 || n > 32 || !card.on {
			t.Errorf("%d trials a day, on %v", n, card.on)
		}
	})
}
