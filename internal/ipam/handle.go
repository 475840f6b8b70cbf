package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/brindle-net/brindle/internal/store"
)

// handleWriter changes one handle during one call. It remembers what it last
// wrote; that costs no read while nobody else changes the handle.
type handleWriter struct {
	m     *Manager
	id    string
	state *handle // nil: taken to be absent
	rev   store.Revision
	fresh bool // state is what the datastore said, or what we wrote
}

// errHandleExists is returned by add when the handle was to be new.
var errHandleExists = errors.New("the handle has addresses already")

// add raises the counts of a handle. With onlyNew set it fails with
// errHandleExists when somebody made the handle before.
func (w *handleWriter) add(ctx context.Context, counts map[netip.Prefix]int, onlyNew bool) error {
	for range maxAttempts {
		if w.state == nil {
			next := &handle{blocks: counts}
			rev, err := w.m.db.Create(ctx, store.HandleKey(w.id), next.encode())
			if err == nil {
				w.state, w.rev, w.fresh = next.copy(), rev, true
				return nil
			}
			if !errors.Is(err, store.ErrExists) {
				return fmt.Errorf("create handle %q: %w", w.id, err)
			}
			if onlyNew {
				return errHandleExists
			}
			if err := w.read(ctx); err != nil {
				return err
			}
			continue
		}
		next := w.state.copy()
		for cidr, n := range counts {
			next.blocks[cidr] += n
		}
		done, err := w.write(ctx, next)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("write handle %q: %w", w.id, ErrBusy)
}

// made says that the handle was created together with a block; rev is "" if
// at which revision is not known.
func (w *handleWriter) made(counts map[netip.Prefix]int, rev store.Revision) {
	if rev != "" {
		w.state, w.rev, w.fresh = (&handle{blocks: counts}).copy(), rev, true
	}
}

// sub lowers the counts of a handle, but not below a floor (nil: 0), and
// deletes it when nothing is left. A handle that does not exist is fine.
func (w *handleWriter) sub(ctx context.Context, counts, floor map[netip.Prefix]int) error {
	for range maxAttempts {
		if !w.fresh {
			if err := w.read(ctx); err != nil {
				return err
			}
		}
		if w.state == nil {
			return nil
		}
		next := w.state.copy()
		for cidr, n := range counts {
			if left := max(next.blocks[cidr]-n, floor[cidr]); left > 0 {
				next.blocks[cidr] = left
			} else {
				delete(next.blocks, cidr)
			}
		}
		done, err := w.write(ctx, next)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("write handle %q: %w", w.id, ErrBusy)
}

// raise makes a handle count at least this much.
func (w *handleWriter) raise(ctx context.Context, counts map[netip.Prefix]int) error {
	if err := w.read(ctx); err != nil {
		return err
	}
	lacking := map[netip.Prefix]int{}
	for cidr, n := range counts {
		if w.state == nil {
			lacking[cidr] = n
		} else if n > w.state.blocks[cidr] {
			lacking[cidr] = n - w.state.blocks[cidr]
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	return w.add(ctx, lacking, false)
}

// read fetches the handle.
func (w *handleWriter) read(ctx context.Context) error {
	state, rev, err := w.m.getHandle(ctx, w.id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	w.state, w.rev, w.fresh = state, rev, true
	return nil
}

// write stores the next state of a handle that exists. It returns false after
// reading the handle anew when somebody else changed it.
func (w *handleWriter) write(ctx context.Context, next *handle) (done bool, err error) {
	rev := store.Revision("")
	if len(next.blocks) == 0 {
		err, next = w.m.db.Delete(ctx, store.HandleKey(w.id), w.rev), nil
	} else {
		rev, err = w.m.db.Update(ctx, store.KV{Key: store.HandleKey(w.id), Value: next.encode(), Revision: w.rev})
	}
	if err == nil {
		w.state, w.rev, w.fresh = next, rev, true
		return true, nil
	}
	w.fresh = false
	if !changed(err) {
		return false, fmt.Errorf("write handle %q: %w", w.id, err)
	}
	return false, w.read(ctx)
}

func (h *handle) copy() *handle {
	c := *h
	c.blocks = make(map[netip.Prefix]int, len(h.blocks))
	for cidr, n := range h.blocks {
		c.blocks[cidr] = n
	}
	return &c
}
