package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/store"
)

// cell is where all changes that this process makes to one block meet. They
// queue up; whoever is first writes for all of them, so that a burst of calls
// costs a few writes and never fights with itself.
type cell struct {
	cidr  netip.Prefix
	users int // guarded by Manager.mu

	mu    sync.Mutex // guards everything below
	busy  bool       // somebody is writing
	queue []*change
	block *Block // as last seen; nil: not known
	rev   store.Revision
}

// change is one change of a block.
type change struct {
	// apply changes the block, or returns an error and leaves it alone.
	apply func(b *Block) error
	// landed, if not nil, reports whether an earlier write of this change,
	// whose outcome is not known, is in the block.
	landed   func(b *Block) bool
	coolDown time.Duration
	// also, if not nil, is written in the same moment as the block; the error is
	// errAlong if it is that which cannot be written. Needs Manager.tx.
	also *store.Write

	doubt bool           // a write of this change may have been made, or not
	rev   store.Revision // of also, once written; "" if an earlier write had landed
	err   error
	turn  chan bool // capacity 1; true: you write now, false: err is final
	given bool      // nobody waits any more; guarded by cell.mu
}

// enter returns the cell of a block; leave it when done.
func (m *Manager) enter(cidr netip.Prefix) *cell {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.cells[cidr]
	if c == nil {
		c = &cell{cidr: cidr}
		m.cells[cidr] = c
	}
	c.users++
	return c
}

// leave forgets blocks that nobody works on, but for the hosts' own.
func (m *Manager) leave(c *cell) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.users--; c.users > 0 {
		return
	}
	for _, own := range m.owned {
		if slices.Contains(own, c.cidr) {
			return
		}
	}
	delete(m.cells, c.cidr)
}

// maxTogether is how many changes are written at once: each may bring one more
// key to the transaction.
const maxTogether = store.MaxWrites - 1

// update applies a change to a block and writes it. The error is that of
// apply, store.ErrNotFound when there is no such block, or what kept the block
// from being read or written.
func (m *Manager) update(ctx context.Context, cidr netip.Prefix, ch *change) error {
	c := m.enter(cidr)
	defer m.leave(c)
	ch.turn = make(chan bool, 1)
	c.mu.Lock()
	c.queue = append(c.queue, ch)
	lead := !c.busy
	c.busy = true
	c.mu.Unlock()
	if !lead {
		select {
		case lead = <-ch.turn:
		case <-ctx.Done():
			return c.giveUp(ctx, ch)
		}
		if !lead {
			return ch.err
		}
	}
	batch := c.takeQueue()
	undone, err := m.commit(ctx, c, batch)
	c.finish(ch, batch, undone, err)
	return ch.err
}

// giveUp leaves the queue. A write under way may still take effect.
func (c *cell) giveUp(ctx context.Context, ch *change) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch.given = true
	c.queue = slices.DeleteFunc(c.queue, func(q *change) bool { return q == ch })
	select {
	case lead := <-ch.turn:
		if !lead {
			return ch.err
		}
		c.passOn()
	default:
	}
	return fmt.Errorf("wait for block %s: %w", c.cidr, ctx.Err())
}

func (c *cell) takeQueue() []*change {
	c.mu.Lock()
	defer c.mu.Unlock()
	batch := c.queue[:min(len(c.queue), maxTogether)]
	c.queue = slices.Clone(c.queue[len(batch):])
	return batch
}

// finish tells everybody in the batch how it went, puts back what is undone
// but for the leader's own, and makes somebody else the leader.
func (c *cell) finish(own *change, batch, undone []*change, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var again []*change
	for _, ch := range batch {
		switch {
		case !slices.Contains(undone, ch):
			ch.turn <- false
		case ch == own:
			ch.err = err
		case !ch.given:
			again = append(again, ch)
		}
	}
	c.queue = append(again, c.queue...)
	c.passOn()
}

// wanted leaves out the changes that nobody waits for any more.
func (c *cell) wanted(batch []*change) []*change {
	c.mu.Lock()
	defer c.mu.Unlock()
	var still []*change
	for _, ch := range batch {
		if !ch.given {
			still = append(still, ch)
		}
	}
	return still
}

// passOn makes the first in the queue the leader. Call with mu held.
func (c *cell) passOn() {
	if len(c.queue) == 0 {
		c.busy = false
		return
	}
	c.queue[0].turn <- true
}

// cached returns a copy of the block as last seen, nil if it is not known.
func (c *cell) cached() (*Block, store.Revision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.block == nil {
		return nil, ""
	}
	return c.block.clone(), c.rev
}

// remember keeps what the block is now; nil forgets it.
func (c *cell) remember(b *Block, rev store.Revision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.block, c.rev = b, rev
}

// look reads a block that is not known.
func (m *Manager) look(ctx context.Context, c *cell) error {
	c.mu.Lock()
	known := c.block != nil || c.busy // whoever writes reads it
	c.mu.Unlock()
	if known {
		return nil
	}
	b, rev, err := m.getBlock(ctx, c.cidr)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.block == nil && !c.busy { // else what is there is newer
		c.block, c.rev = b, rev
	}
	return nil
}

// forget makes the next change of a block read it first.
func (m *Manager) forget(cidr netip.Prefix) {
	m.mu.Lock()
	c := m.cells[cidr]
	m.mu.Unlock()
	if c != nil {
		c.remember(nil, "")
	}
}

// commit applies a batch of changes in one write. It returns those that are
// not done because of the error.
func (m *Manager) commit(ctx context.Context, c *cell, batch []*change) (undone []*change, err error) {
	// Set when the outcome of a write is not known: then only a further write
	// proves that what was read is not older.
	var doubt error
	for attempt, unknown := 0, 0; attempt < maxAttempts; attempt++ {
		if batch = c.wanted(batch); len(batch) == 0 {
			return nil, nil
		}
		b, rev := c.cached()
		known := b != nil
		if !known {
			b, rev, err = m.getBlock(ctx, c.cidr)
			if errors.Is(err, store.ErrNotFound) && doubt == nil {
				settle(batch, err)
				return nil, nil
			}
			if err != nil && doubt != nil {
				err = fmt.Errorf("%w; then %v", doubt, err)
			}
			if err != nil {
				return batch, err
			}
		}
		applied, refused := m.applyAll(b, &batch)
		if refused && known { // by a memory that may be out of date
			c.remember(nil, "")
			continue
		}
		if doubt == nil {
			batch = applied
		}
		if len(batch) == 0 {
			c.remember(b, rev)
			return nil, nil
		}
		b.Sequence++
		next, err := m.putAll(ctx, b, rev, batch)
		if err == nil {
			if next == "" {
				b = nil
			}
			c.remember(b, next)
			return nil, nil
		}
		if i := slices.IndexFunc(batch, func(ch *change) bool { return ch.refused(err) }); i >= 0 {
			batch[i].err = fmt.Errorf("%w: %w", errAlong, err)
			batch = slices.Delete(slices.Clone(batch), i, i+1)
			continue
		}
		c.remember(nil, "")
		if changed(err) {
			continue
		}
		doubt = fmt.Errorf("write block %s: %w", c.cidr, err)
		for _, ch := range batch {
			ch.doubt = true
		}
		if unknown++; unknown > maxUnknown || ctx.Err() != nil {
			return batch, doubt
		}
	}
	return batch, fmt.Errorf("write block %s: %w: %d attempts", c.cidr, ErrBusy, maxAttempts)
}

// applyAll applies the changes of a batch to b and returns those that need b
// to be written. The others have their final error, unless refused is set and
// the block turns out to be out of date. What an earlier write has done after
// all leaves the batch.
func (m *Manager) applyAll(b *Block, batch *[]*change) (applied []*change, refused bool) {
	var rest []*change
	for _, ch := range *batch { // before anything changes
		if ch.landed != nil && ch.landed(b) {
			ch.err = nil
		} else {
			rest = append(rest, ch)
		}
	}
	*batch = rest
	if len(rest) == 0 {
		return nil, false
	}
	b.expire(m.now(), rest[0].coolDown)
	for _, ch := range rest {
		ch.err = ch.apply(b)
		switch {
		case ch.err == nil:
			applied = append(applied, ch)
		case errors.Is(ch.err, errUnchanged):
			ch.err = nil
		default:
			refused = true
		}
	}
	return applied, refused
}

// errUnchanged is returned by a change that finds nothing to do.
var errUnchanged = errors.New("nothing to change")

// errAlong says that what was to be written with the block cannot be.
var errAlong = errors.New("what goes with the block cannot be written")

// refused reports whether err is about what goes with the block.
func (ch *change) refused(err error) bool {
	var r *store.Refusal
	return ch.also != nil && errors.As(err, &r) && r.Key == ch.also.Key
}

// putAll is put with what the changes want to be written in the same moment.
func (m *Manager) putAll(ctx context.Context, b *Block, rev store.Revision, batch []*change) (store.Revision, error) {
	writes := []store.Write{{Key: store.BlockKey(b.CIDR), Revision: rev}}
	for _, ch := range batch {
		if ch.also != nil {
			writes = append(writes, *ch.also)
		}
	}
	if len(writes) == 1 {
		return m.put(ctx, b, rev)
	}
	writes[0].Value = b.encode()
	next, err := m.tx.Transact(ctx, writes)
	if err == nil {
		for _, ch := range batch {
			ch.rev = next
		}
	}
	return next, err
}

// put writes a block at the revision at which it was read. A block that nobody
// uses and nobody owns is deleted instead, and the new revision is "".
func (m *Manager) put(ctx context.Context, b *Block, rev store.Revision) (store.Revision, error) {
	key := store.BlockKey(b.CIDR)
	if b.Affinity == "" && b.empty() {
		return "", m.db.Delete(ctx, key, rev)
	}
	return m.db.Update(ctx, store.KV{Key: key, Value: b.encode(), Revision: rev})
}

func settle(batch []*change, err error) {
	for _, ch := range batch {
		ch.err = err
	}
}
