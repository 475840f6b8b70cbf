package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrNotApplied says that a change waits for its turn, and has not failed.
var ErrNotApplied = errors.New("not applied yet")

// Settled waits as Synced does for what is wanted now, but takes a key whose
// failure excuse accepts for settled; nil accepts none. When ctx ends first,
// the error says how much is left and why: it wraps the failure of a key, or
// ErrNotApplied if none has failed.
func (l *Loop[K, V]) Settled(ctx context.Context, excuse func(error) bool) error {
	if err := l.waitRead(ctx); err != nil {
		why := ErrNotApplied
		if err := l.Err(); err != nil {
			why = err
		}
		return fmt.Errorf("table %s: not read back: %w", l.cfg.Name, why)
	}
	l.mu.Lock()
	keys := slices.Collect(maps.Keys(l.dirty))
	keys = slices.AppendSeq(keys, maps.Keys(l.flying))
	keys = slices.AppendSeq(keys, maps.Keys(l.failed))
	l.mu.Unlock()
	for {
		l.mu.Lock()
		keys = slices.DeleteFunc(keys, func(k K) bool {
			why := l.unsettled(k)
			return why == "" || why == heldBack || why == failedKey && excuse != nil && excuse(l.failed[k])
		})
		changed, err := l.news(), l.left(keys)
		l.mu.Unlock()
		if len(keys) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return err
		}
	}
}

// left says what is left of a table, a failure first. l.mu is held.
func (l *Loop[K, V]) left(keys []K) error {
	if len(keys) == 0 {
		return nil
	}
	slices.SortFunc(keys, l.cfg.Compare)
	first, cause := keys[0], ErrNotApplied
	for _, k := range keys {
		if err := l.failed[k]; err != nil {
			first, cause = k, err
			break
		}
	}
	return fmt.Errorf("table %s: %d changes left; first %v: %w", l.cfg.Name, len(keys), first, cause)
}
