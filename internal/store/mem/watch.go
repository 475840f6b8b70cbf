package mem

import (
	"context"
	"fmt"
	"sort"
	"strings"

	"github.com/brindle-net/brindle/internal/store"
)

// watch is one reader of the history. It keeps no events of its own beyond
// the batch that waits to be taken.
type watch struct {
	store  *Store
	prefix string
	wake   chan struct{} // capacity 1: many changes, one look

	pos     int64       // everything up to here is in pending or delivered; guarded by store.mu
	pending store.Batch // touched by run only
}

// Watch implements store.Driver.
func (s *Store) Watch(ctx context.Context, prefix string, after store.Revision) <-chan store.Batch {
	out := make(chan store.Batch)
	w := &watch{store: s, prefix: prefix, wake: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.pending.Err = w.start(after)
	s.watchers[w] = struct{}{}
	w.wake <- struct{}{}
	go func() {
		defer close(out)
		w.run(ctx, out)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
	}()
	return out
}

// start finds the place in the history to begin at. The caller holds the lock.
func (w *watch) start(after store.Revision) error {
	w.pos = w.store.rev
	w.pending.Revision = format(w.pos)
	if after == "" {
		return nil
	}
	pos, err := parse(after)
	if err == nil && (pos < w.store.compacted || pos > w.store.rev) {
		err = store.ErrCompacted
	}
	if err != nil {
		return fmt.Errorf("watch %s after revision %s: %w", w.prefix, after, err)
	}
	w.pos = pos
	w.pending.Revision = after
	return nil
}

// run delivers until ctx ends or there is an error to deliver.
func (w *watch) run(ctx context.Context, out chan<- store.Batch) {
	if w.pending.Err != nil {
		select {
		case out <- w.pending:
		case <-ctx.Done():
		}
		return
	}
	send := out // nil while there is nothing to say
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			if w.collect() {
				send = out
			}
		case send <- w.pending:
			w.pending, send = store.Batch{}, nil
		}
	}
}

// collect adds what happened since the last look to the pending batch, and
// says whether anything did.
func (w *watch) collect() bool {
	s := w.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.pos == s.rev {
		return false
	}
	first := sort.Search(len(s.log), func(i int) bool { return s.log[i].rev > w.pos })
	for _, c := range s.log[first:] {
		if !strings.HasPrefix(c.event.Key, w.prefix) {
			continue
		}
		e := c.event
		if e.Value != nil {
			e.Value = append([]byte{}, e.Value...)
		}
		w.pending.Events = append(w.pending.Events, e)
	}
	w.pos = s.rev
	w.pending.Revision = format(w.pos)
	return true
}
