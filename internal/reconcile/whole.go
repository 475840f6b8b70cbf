package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// A Document is a part of the world that is made right as one, in one step,
// rather than key by key. It is used by one goroutine.
type Document[P any] interface {
	// Take plays a patch into what is wanted.
	Take(p P)
	// Sync makes the world as wanted, whole or not at all. all says to read
	// the world back and compare everything; else what was taken since the
	// last Sync that succeeded is all that differs.
	Sync(ctx context.Context, all bool) error
}

// WholeConfig tells a Whole how fast to go. Zeroes mean what they mean to a
// Config.
type WholeConfig struct {
	Name     string
	Settle   time.Duration // least time between two passes; the first change after it is made at once
	Spacing  time.Duration // least time between two read-backs that Drift asks for
	Resync   time.Duration // most time between two read-backs
	MaxRetry time.Duration // ceiling of the retry backoff
	Log      *slog.Logger  // nil: silent
}

// A Whole drives one Document. It does nothing before InSync: a document
// that is half known would be wrong. All methods but Run may be called from
// anywhere.
type Whole[P any] struct {
	cfg  WholeConfig
	doc  Document[P]
	wake chan struct{} // capacity 1
	run  wholeRun

	mu      sync.Mutex // guards everything below
	queue   []P
	taken   uint64 // patches handed to Want
	applied uint64 // patches that the world shows
	inSync  bool
	stale   bool // the world may have been changed by others
	err     error
	changed chan struct{} // closed when anything above changes
	stats   Stats
}

// wholeRun is what Run alone touches.
type wholeRun struct {
	known    bool // the world was read and made right, and nobody said otherwise since
	readAt   time.Time
	last     time.Time // of the last read-back
	backoff  time.Duration
	loggedAt time.Time
}

// NewWhole returns a loop for a document.
func NewWhole[P any](d Document[P], cfg WholeConfig) *Whole[P] {
	cfg.Settle, cfg.Spacing = cmp.Or(cfg.Settle, DefaultSettle), cmp.Or(cfg.Spacing, DefaultSpacing)
	cfg.Resync, cfg.MaxRetry = cmp.Or(cfg.Resync, DefaultResync), cmp.Or(cfg.MaxRetry, DefaultMaxRetry)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Whole[P]{cfg: cfg, doc: d, wake: make(chan struct{}, 1), changed: make(chan struct{}),
		run: wholeRun{backoff: cfg.Settle}}
}

// Want adds a patch to what is wanted and returns its number, for Wait. The
// caller does not change the patch any more.
func (w *Whole[P]) Want(p P) uint64 {
	var n uint64
	w.update(func() {
		w.queue = append(w.queue, p)
		w.taken++
		n = w.taken
	})
	return n
}

// InSync says that what is wanted is complete: from now on the world follows.
func (w *Whole[P]) InSync() { w.update(func() { w.inSync = true }) }

// Drift says the world may have changed behind our back.
func (w *Whole[P]) Drift() { w.update(func() { w.stale = true }) }

// Resync changes the most time between two read-backs. The first is soon, and
// the time runs from there.
func (w *Whole[P]) Resync(d time.Duration) { w.update(func() { w.cfg.Resync, w.stale = d, true }) }

// Retry says that what failed may work now.
func (w *Whole[P]) Retry() { w.update(func() { w.stale = w.stale || w.err != nil }) }

// Err says why the world differs from what is wanted, or nil.
func (w *Whole[P]) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Stats returns the counters now. Of a document, Wanted counts patches.
func (w *Whole[P]) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.InSync, s.Wanted, s.Pending = w.inSync, int(w.taken), int(w.taken-w.applied)
	if w.err != nil {
		s.Failing = 1
	}
	return s
}

// Wait waits until the world shows the patch of that number.
func (w *Whole[P]) Wait(ctx context.Context, n uint64) error {
	for {
		w.mu.Lock()
		done, err, changed := w.applied >= n, w.err, w.changed
		w.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", w.cfg.Name, errors.Join(ctx.Err(), err))
		}
	}
}

func (w *Whole[P]) update(change func()) {
	w.mu.Lock()
	change()
	w.tell()
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // a pass is already due
	}
}

// tell wakes whoever waits for a change. w.mu is held.
func (w *Whole[P]) tell() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// Run reconciles until ctx ends.
func (w *Whole[P]) Run(ctx context.Context) error {
	for {
		if err := w.pass(ctx); err != nil && ctx.Err() == nil {
			w.complain(ctx, err)
		}
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
}

// complain logs a failure, at most once in the retry ceiling's tenth.
func (w *Whole[P]) complain(ctx context.Context, err error) {
	if now := time.Now(); now.Sub(w.run.loggedAt) >= w.cfg.MaxRetry/10 {
		w.run.loggedAt = now
		w.cfg.Log.ErrorContext(ctx, "reconcile failed; what was in force stays", "table", w.cfg.Name,
			"retry_in", w.run.backoff, "err", err)
	}
}

// pass makes one attempt, if there is a reason to.
func (w *Whole[P]) pass(ctx context.Context) error {
	now := time.Now()
	w.mu.Lock()
	if !w.inSync || now.Before(w.hold()) {
		w.mu.Unlock()
		return nil
	}
	all := !w.run.known || !now.Before(w.run.readAt) || w.stale && !now.Before(w.run.last.Add(w.cfg.Spacing))
	if all {
		w.stale = false // before reading: what changes from now on needs another look
	}
	queue, target := w.queue, w.taken
	w.queue = nil
	w.stats.Passes++
	w.mu.Unlock()
	if len(queue) == 0 && !all {
		return nil
	}
	for _, p := range queue {
		w.doc.Take(p)
	}
	err := w.doc.Sync(ctx, all)
	w.finish(all, target, err)
	return err
}

// hold returns before when nothing is tried: after a failure a new patch, or
// a change by others, may be what mends it, and is tried a little earlier than
// the backoff would. w.mu is held.
func (w *Whole[P]) hold() time.Time {
	if w.err == nil {
		return time.Time{}
	}
	at := w.run.readAt
	if soon := w.run.last.Add(w.cfg.MaxRetry / 10); (w.stale || len(w.queue) > 0) && soon.Before(at) {
		at = soon
	}
	return at
}

// finish notes the outcome of a pass and decides when to read back next.
func (w *Whole[P]) finish(all bool, target uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.err = err
	w.stats.Applies++
	if all {
		w.run.last = now
		w.stats.ReadBacks++
	}
	if err != nil {
		w.stats.Failures++
		w.run.known, w.run.backoff = false, min(2*w.run.backoff, w.cfg.MaxRetry)
		w.run.readAt = now.Add(w.run.backoff)
		w.tell()
		return
	}
	w.applied = target
	w.stats.Sets++
	if all {
		w.run.known, w.run.backoff, w.run.readAt = true, w.cfg.Settle, now.Add(w.cfg.Resync)
	}
	w.tell()
}

// wait lets the settle time pass, then waits for a wake or the next read-back.
func (w *Whole[P]) wait(ctx context.Context) error {
	settle := time.NewTimer(w.cfg.Settle)
	defer settle.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-settle.C:
	}
	due := time.NewTimer(time.Until(w.next()))
	defer due.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.wake:
	case <-due.C:
	}
	return nil
}

// next returns when the world must be read back.
func (w *Whole[P]) next() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.inSync {
		return time.Now().Add(w.cfg.Resync)
	}
	if w.err != nil {
		return w.hold()
	}
	at := w.run.readAt
	if soon := w.run.last.Add(w.cfg.Spacing); w.stale && soon.Before(at) {
		at = soon
	}
	return at
}
