package paths

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
)

const formVXLAN = desired.VXLAN

// stop ends the measurement that is under way.
func (e *entry) stop() {
	if e.cancel != nil {
		e.cancel()
	}
}

// Config is what a Monitor needs.
type Config struct {
	NS         *netns.NS // nil: the calling thread's
	Port       uint16    // of the answerers, here and elsewhere
	Offloads   Offloads  // nil: none can be chosen
	OffloadOff string    // why the offload of VXLAN is off whatever is measured; "": measurement decides
	Log        *slog.Logger
	Pace       Pace // its zero values: the defaults
}

// Pace says how often paths are measured.
type Pace struct {
	Period  time.Duration // of a path that is fine; half to one and a half times that
	Confirm time.Duration // after which what was found is looked at again before it is told of
	Retry   time.Duration // of a path that is not fine; doubles, up to half the period
	Apart   time.Duration // between the first measurements of two paths
	Wait    time.Duration // for a first answer; then by how long answers take
	At      int           // how many paths at a time
}

// The default pace: a thousand paths cost a host about two measurements a
// second, each of some 60 packets and 40 kB.
const (
	period  = 10 * time.Minute
	confirm = 1500 * time.Millisecond
	retry   = 5 * time.Second
	apart   = 20 * time.Millisecond
	atOnce  = 8
)

// A Monitor measures paths and answers for this host.
type Monitor struct {
	cfg     Config
	pace    Pace
	chooser *chooser
	wake    chan struct{} // capacity 1: something is due
	measure func(context.Context, Path) Result

	mu      sync.Mutex // guards everything below
	want    wanted
	changed bool
	paths   map[key]*entry
	done    map[Outcome]uint64 // measurements ended, by outcome
	trouble string             // with answerers and offloads; "": none
	settled chan struct{}      // closed and replaced when a measurement ends
}

// wanted is what the Monitor was last told.
type wanted struct {
	ends  []End
	known map[netip.Addr]bool
}

// entry is one path with what is known of it.
type entry struct {
	result  Result        // shown
	path    Path          // wanted
	due     time.Time     // zero while it is being measured
	fails   int           // how often it was not fine, one after the other
	pause   time.Duration // before the next look, while it is not fine
	running bool
	cancel  context.CancelFunc // of that measurement
	started time.Time          // the last measurement
	ended   time.Time          // when that had started whose end was the last
	stale   bool               // changed or asked for while it was being measured
}

// New returns a Monitor. Nothing happens before Run.
func New(cfg Config) *Monitor {
	p := cfg.Pace
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&p.Period, period)
	set(&p.Confirm, confirm)
	set(&p.Retry, retry)
	set(&p.Apart, apart)
	set(&p.Wait, firstWait)
	if p.At == 0 {
		p.At = atOnce
	}
	cfg.Pace = p
	m := &Monitor{cfg: cfg, pace: p, chooser: newChooser(cfg), wake: make(chan struct{}, 1),
		paths: map[key]*entry{}, done: map[Outcome]uint64{}, settled: make(chan struct{})}
	m.measure = m.measureByWire
	return m
}

// Want says where to answer, to whom, and what to measure. A path that is new
// or other than before is measured soon; the rest stays as it was found.
func (m *Monitor) Want(ends []End, known map[netip.Addr]bool, paths []Path) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.want, m.changed = wanted{ends, known}, true
	now, keep, fresh := time.Now(), map[key]bool{}, 0
	for _, p := range paths {
		k := p.key()
		keep[k] = true
		e := m.paths[k]
		if e != nil && e.path == p {
			continue
		}
		if e == nil {
			e = &entry{}
			m.paths[k] = e
		}
		e.stop() // packets of a path that is no more
		e.path, e.result, e.fails, e.pause, e.stale = p, Result{Path: p, Outcome: Measuring}, 0, 0, e.running
		e.due = now.Add(time.Duration(fresh) * m.pace.Apart)
		fresh++
	}
	maps.DeleteFunc(m.paths, func(k key, e *entry) bool {
		if !keep[k] {
			e.stop()
		}
		return !keep[k]
	})
	m.stir()
}

// stir makes Run look. m.mu may be held.
func (m *Monitor) stir() {
	select {
	case m.wake <- struct{}{}:
	default: // it will
	}
}

// Drift says that interfaces or addresses have changed.
func (m *Monitor) Drift() {
	m.mu.Lock()
	m.changed = true
	m.mu.Unlock()
	m.stir()
}

// Now measures every path anew and waits until all are, or ctx ends.
func (m *Monitor) Now(ctx context.Context) error {
	m.mu.Lock()
	at, asked := time.Now(), map[key]Path{}
	for k, e := range m.paths {
		asked[k] = e.path
		e.due, e.stale = at, e.running
	}
	m.mu.Unlock()
	m.stir()
	for {
		m.mu.Lock()
		open := false
		for k, p := range asked {
			e := m.paths[k]
			open = open || e != nil && e.path == p && (e.ended.Before(at) || e.result.Outcome == Measuring)
		}
		settled := m.settled
		m.mu.Unlock()
		if !open {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-settled:
		}
	}
}

// Results lists what was found, by device and name.
func (m *Monitor) Results() []Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Result, 0, len(m.paths))
	for _, e := range m.paths {
		out = append(out, e.result)
	}
	return sorted(out)
}

// Measured counts the measurements that ended, by outcome.
func (m *Monitor) Measured() map[Outcome]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.done)
}

// Trouble says why questions of others are not answered everywhere, or an
// offload is not as chosen; "" for nothing.
func (m *Monitor) Trouble() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trouble
}

// Choices lists the checksum offload of each tunnel's device.
func (m *Monitor) Choices() []Choice { return m.chooser.choices() }

// keepPeriod is how often answerers and offloads are looked at without a
// reason.
const (
	keepPeriod  = 30 * time.Second
	attendRetry = time.Second
)

// Run answers and measures until ctx ends.
func (m *Monitor) Run(ctx context.Context) error {
	answers := newAnswers(m.cfg)
	defer answers.close()
	var busy sync.WaitGroup
	defer busy.Wait()
	room := make(chan struct{}, m.pace.At)
	keep := time.NewTicker(keepPeriod)
	defer keep.Stop()
	var again <-chan time.Time // nil: all answerers are as wanted
	for {
		m.mu.Lock()
		want, changed := m.want, m.changed
		m.changed = false
		m.mu.Unlock()
		if changed {
			again = m.attend(answers, want)
		}
		next := m.start(ctx, &busy, room)
		var due <-chan time.Time // nil: nothing is
		if !next.IsZero() {
			due = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.wake:
		case <-due:
		case <-again:
			again = m.attend(answers, want)
		case <-keep.C:
			again = m.attend(answers, want)
		}
	}
}

// attend brings answerers and offloads in line, and returns when to try again;
// nil: there is no need.
func (m *Monitor) attend(answers *answers, want wanted) <-chan time.Time {
	err := errors.Join(answers.want(want), m.chooser.keep(want.ends))
	text := ""
	if err != nil {
		text = err.Error()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if text != "" && text != m.trouble {
		m.cfg.Log.Info("probes not answered as wanted", "err", text)
	}
	if m.trouble = text; text == "" {
		return nil
	}
	return time.After(attendRetry)
}

// start begins the measurements that are due, as far as there is room, and
// returns when the next one is; zero: when one ends, or something changes.
func (m *Monitor) start(ctx context.Context, busy *sync.WaitGroup, room chan struct{}) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, next := time.Now(), time.Time{}
	var waiting []*entry
	for _, e := range m.paths {
		switch {
		case e.running:
		case !e.due.After(now):
			waiting = append(waiting, e)
		case next.IsZero() || e.due.Before(next):
			next = e.due
		}
	}
	slices.SortFunc(waiting, func(a, b *entry) int { return a.due.Compare(b.due) })
	for _, e := range waiting {
		select {
		case room <- struct{}{}:
		default:
			return time.Time{} // whoever ends wakes us
		}
		e.running, e.stale, e.started = true, false, now
		p := e.path
		one, cancel := context.WithCancel(ctx)
		e.cancel = cancel
		busy.Go(func() {
			defer cancel()
			r := m.measure(one, p)
			<-room
			m.note(ctx, e, r, one.Err() == nil)
		})
	}
	return next
}

// note takes a result. One that is not whole was stopped: its path is no more,
// or was another meanwhile.
func (m *Monitor) note(ctx context.Context, e *entry, r Result, whole bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.stir()
	e.running, e.ended = false, e.started
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	if !whole || e.path != r.Path {
		e.due, e.stale = now, false
		return
	}
	m.done[r.Outcome]++
	was := e.result.Outcome
	m.schedule(e, r, now)
	if e.stale {
		e.due, e.stale = now, false
	}
	if was != e.result.Outcome && (e.result.Outcome.Bad() || was.Bad()) {
		m.cfg.Log.Warn("path to a host changed", "device", r.Device, "peer", r.Peer, "outcome", e.result.Outcome, "was", was, "message", e.result.Message)
	}
	close(m.settled)
	m.settled = make(chan struct{})
}

// schedule decides what of a result is told of, and when to look again. What
// is not fine is looked at twice first: the other end may just be changing.
func (m *Monitor) schedule(e *entry, r Result, now time.Time) {
	r.At = now
	if r.Outcome == Fine {
		e.result, e.fails, e.pause = r, 0, 0
		e.due = now.Add(jitter(m.pace.Period))
		return
	}
	e.fails++
	if e.fails == 1 && !e.result.Outcome.Bad() {
		if e.result.Outcome != Measuring {
			e.result.Outcome = Measuring
		}
		e.due = now.Add(jitter(m.pace.Confirm))
		return
	}
	e.result = r
	e.pause = min(max(2*e.pause, m.pace.Retry), m.pace.Period/2)
	e.due = now.Add(jitter(e.pause))
}

// jitter is half to one and a half times a time.
func jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(rand.Int64N(int64(d)))
}

// measureByWire measures one path, and chooses the offload by it.
func (m *Monitor) measureByWire(ctx context.Context, p Path) Result {
	once := func(ctx context.Context) Result {
		w, err := dialWire(m.cfg, p)
		if err != nil {
			return Result{Path: p, Outcome: NotSent, Small: Failed, Message: p.Device + " to " + p.who() + ": " + err.Error()}
		}
		defer w.close()
		return measure(ctx, p, w)
	}
	r := once(ctx)
	if (r.Outcome == Checksum || r.Outcome == NoTCP) && m.offloaded(p.Device) {
		r = m.chooser.try(ctx, r, once)
	}
	return r
}

// offloaded reports whether a device's offload can be chosen.
func (m *Monitor) offloaded(device string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.want.ends, func(e End) bool { return e.Device == device && e.Offload })
}
