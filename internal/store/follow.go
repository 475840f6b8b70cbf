package store

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Update is what Follow hands over at once.
type Update struct {
	Events []Event

	// InSync is true exactly once: with the update after which everything that
	// existed at the start has been handed over.
	InSync bool
}

// FollowConfig tunes Follow. The zero value is useful.
type FollowConfig struct {
	MinBackoff time.Duration // before the first retry; 0 means 100 ms
	MaxBackoff time.Duration // before later ones; 0 means 5 s
	Log        *slog.Logger  // nil means nowhere
	Status     *FollowStatus // kept up to date if not nil
}

// FollowStatus tells how Follow is doing. The zero value is ready for use; any
// goroutine may read it.
type FollowStatus struct {
	mu    sync.Mutex
	state FollowState // guarded by mu
}

// FollowState is how Follow is doing at one moment.
type FollowState struct {
	Connected bool      // the datastore answers, and changes are being received
	Since     time.Time // when Connected became what it is; zero before the first answer
	InSync    bool      // everything has been handed over once
	Revision  Revision  // up to which everything has been handed over
	Lists     int       // how often everything had to be read
	LastError error     // the latest failure, nil if there was none
	ErrorAt   time.Time // when that was
}

// State returns the state now.
func (s *FollowStatus) State() FollowState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// change edits the state.
func (s *FollowStatus) change(f func(*FollowState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.state)
}

// follower is one running Follow.
type follower struct {
	driver Driver
	prefix string
	handle func(Update)
	cfg    FollowConfig

	seed   maphash.Seed
	known  map[string]version // what was handed over last of each key that exists
	synced bool               // InSync was handed over
	rev    Revision           // to watch from; empty means list
	fails  int                // failures in a row
	heard  time.Time          // when the datastore answered first since the last failure
}

// version tells whether a value differs from another without keeping it. The
// revision alone would not do: a datastore put back to an older state may use
// a revision twice.
type version struct {
	revision Revision
	hash     uint64
}

// Follow keeps a reader up to date with everything below a prefix, until ctx
// ends, whose error it returns. It lists, hands everything over with InSync in
// the last update, and then hands over changes in order. A failure is retried
// with growing pauses and changes nothing for the reader; where changes were
// missed, it lists again and hands over the difference, deletions included.
// handle is called from one goroutine, never concurrently; while it works,
// changes pile up into one larger update.
func Follow(ctx context.Context, d Driver, prefix string, handle func(Update), cfg FollowConfig) error {
	if cfg.MinBackoff == 0 {
		cfg.MinBackoff = 100 * time.Millisecond
	}
	if cfg.MaxBackoff == 0 {
		cfg.MaxBackoff = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Status == nil {
		cfg.Status = &FollowStatus{}
	}
	f := &follower{driver: d, prefix: prefix, handle: handle, cfg: cfg, seed: maphash.MakeSeed(), known: map[string]version{}}
	for ctx.Err() == nil {
		err := f.once(ctx)
		if ctx.Err() != nil {
			break
		}
		f.pause(ctx, err)
	}
	f.cfg.Status.change(func(s *FollowState) { s.disconnect() })
	return ctx.Err()
}

// once lists if it must and watches until something goes wrong.
func (f *follower) once(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.rev == "" {
		list, err := f.driver.List(ctx, f.prefix)
		if err != nil {
			return err
		}
		f.connected(ctx)
		f.takeList(list)
	}
	for b := range f.driver.Watch(ctx, f.prefix, f.rev) {
		if b.Revision != "" {
			f.connected(ctx)
		}
		f.takeBatch(b)
		if errors.Is(b.Err, ErrCompacted) {
			f.rev = ""
		}
		if b.Err != nil {
			return b.Err
		}
	}
	return errors.New("the watch ended")
}

// takeList hands over how a listing differs from what was handed over.
func (f *follower) takeList(list Listing) {
	var events []Event
	gone := maps.Clone(f.known)
	for _, kv := range list.KVs {
		delete(gone, kv.Key)
		if v := f.version(kv.Value, kv.Revision); f.known[kv.Key] != v {
			f.known[kv.Key] = v
			events = append(events, Event(kv))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(gone)) {
		delete(f.known, key)
		events = append(events, Event{Key: key, Revision: list.Revision})
	}
	f.rev = list.Revision
	if !f.synced || len(events) > 0 {
		f.handle(Update{Events: events, InSync: !f.synced})
	}
	f.synced = true
	f.cfg.Status.change(func(s *FollowState) { s.InSync, s.Revision, s.Lists = true, f.rev, s.Lists+1 })
}

// takeBatch hands over the events of a watch.
func (f *follower) takeBatch(b Batch) {
	for _, e := range b.Events {
		if e.Value == nil {
			delete(f.known, e.Key)
		} else {
			f.known[e.Key] = f.version(e.Value, e.Revision)
		}
	}
	if len(b.Events) > 0 {
		f.handle(Update{Events: b.Events})
	}
	if b.Revision != "" {
		f.rev = b.Revision
		f.cfg.Status.change(func(s *FollowState) { s.Revision = b.Revision })
	}
}

func (f *follower) version(value []byte, rev Revision) version {
	return version{revision: rev, hash: maphash.Bytes(f.seed, value)}
}

// connected notes that the datastore answers.
func (f *follower) connected(ctx context.Context) {
	if f.heard.IsZero() {
		f.heard = time.Now()
	}
	var news bool
	f.cfg.Status.change(func(s *FollowState) {
		if news = !s.Connected; news {
			s.Connected, s.Since = true, time.Now()
		}
	})
	if news {
		f.cfg.Log.InfoContext(ctx, "datastore connected", "prefix", f.prefix)
	}
}

// pause notes a failure and waits before the next attempt: longer each time,
// and never as long as others that failed at the same moment.
func (f *follower) pause(ctx context.Context, err error) {
	err = fmt.Errorf("follow %s: %w", f.prefix, err)
	// A connection that lasted makes the next failure a first one.
	if !f.heard.IsZero() && time.Since(f.heard) > f.cfg.MaxBackoff {
		f.fails = 0
	}
	f.heard = time.Time{}
	wait := f.cfg.MaxBackoff
	if f.fails < 20 { // beyond, the shift overflows
		wait = min(wait, f.cfg.MinBackoff<<f.fails)
	}
	f.fails++
	wait = wait/2 + rand.N(wait/2+1)
	f.cfg.Status.change(func(s *FollowState) {
		s.LastError, s.ErrorAt = err, time.Now()
		s.disconnect()
	})
	f.cfg.Log.WarnContext(ctx, "datastore not reached", "prefix", f.prefix, "retry_in", wait, "err", err)
	_ = Pause(ctx, wait) // who follows looks at ctx
}

// Pause waits, or less if ctx ends, whose error it returns then.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// disconnect notes that no changes are being received.
func (s *FollowState) disconnect() {
	if s.Connected {
		s.Connected, s.Since = false, time.Now()
	}
}
