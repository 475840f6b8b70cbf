package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// WaitApplied waits until each key is wanted and the world has confirmed the
// wanted value, by acknowledging it or by showing it when read back. A key may
// become wanted only while waiting. When ctx ends first, the error wraps
// ctx's and says which key was missing and why.
func (l *Loop[K, V]) WaitApplied(ctx context.Context, keys ...K) error {
	return l.WaitMatch(ctx, func(K, V) bool { return true }, keys...)
}

// WaitMatch is WaitApplied for values that match accepts: the wanted value
// must be accepted and confirmed. It tells a new value from an old one of the
// same key.
func (l *Loop[K, V]) WaitMatch(ctx context.Context, match func(K, V) bool, keys ...K) error {
	return l.waitFor(ctx, slices.Clone(keys), func(k K) string {
		v, wanted := l.want[k]
		if !wanted || !match(k, v) {
			return "not wanted yet"
		}
		return l.unsettled(k)
	})
}

// WaitGone waits until each key is no longer wanted and no longer in the
// world.
func (l *Loop[K, V]) WaitGone(ctx context.Context, keys ...K) error {
	return l.waitFor(ctx, slices.Clone(keys), func(k K) string {
		if _, wanted := l.want[k]; wanted {
			return "still wanted"
		}
		return l.unsettled(k)
	})
}

// Synced waits until the world has been read, all that is wanted now or no
// longer wanted has been confirmed and, once InSync has been said, strangers
// are gone.
func (l *Loop[K, V]) Synced(ctx context.Context) error {
	if err := l.waitRead(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	keys := make([]K, 0, len(l.dirty)+len(l.flying)+len(l.failed)) // all others are settled
	keys = slices.AppendSeq(keys, maps.Keys(l.dirty))
	keys = slices.AppendSeq(keys, maps.Keys(l.flying))
	keys = slices.AppendSeq(keys, maps.Keys(l.failed))
	l.mu.Unlock()
	return l.waitFor(ctx, keys, func(k K) string {
		if why := l.unsettled(k); why != heldBack {
			return why
		}
		return ""
	})
}

// heldBack is why a stranger is not settled before in-sync.
const heldBack = "kept until everything wanted is known"

// failedKey is why a key is not settled that the last attempt failed on.
const failedKey = "failed"

// unsettled says why a key is not known to be as wanted, "" when it is. l.mu
// is held.
func (l *Loop[K, V]) unsettled(k K) string {
	switch {
	case l.dirty[k] || l.flying[k]:
		return "not applied yet"
	case l.failed[k] != nil:
		return failedKey
	case l.held[k]:
		return heldBack
	}
	return ""
}

// waitRead waits until the world has been read and no reading is owed.
func (l *Loop[K, V]) waitRead(ctx context.Context) error {
	for {
		l.mu.Lock()
		done, err, changed := !l.reading.unread && !l.reading.urgent && !l.reading.active, l.err, l.news()
		l.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for table %s to be read: %w", l.cfg.Name, errors.Join(ctx.Err(), err))
		}
	}
}

// waitFor waits until pending, called with l.mu held, returns "" for each key.
func (l *Loop[K, V]) waitFor(ctx context.Context, keys []K, pending func(K) string) error {
	for {
		l.mu.Lock()
		keys = slices.DeleteFunc(keys, func(k K) bool { return pending(k) == "" })
		if len(keys) == 0 {
			l.mu.Unlock()
			return nil
		}
		changed := l.news()
		first := slices.MinFunc(keys, l.cfg.Compare)
		why, cause := pending(first), l.failed[first]
		if cause == nil && l.reading.unread {
			cause = l.err
		}
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for table %s: %d keys left; first %v: %s: %w",
				l.cfg.Name, len(keys), first, why, errors.Join(ctx.Err(), cause))
		}
	}
}
