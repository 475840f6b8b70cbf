package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// owner is who an address is assigned to.
type owner struct {
	handle string
	attrs  map[string]string
}

// available counts the addresses that automatic assignment may take.
func (b *Block) available(reserved *Reserved) int {
	if !reserved.overlaps(b.CIDR) {
		return len(b.queue)
	}
	n := 0
	for _, ord := range b.queue {
		if b.takeable(ord) && !reserved.Has(b.Addr(ord)) {
			n++
		}
	}
	return n
}

// takeable reports whether an ordinal of the queue is what it says: inside the
// block and free. Anything else is damage, which assignment drops.
func (b *Block) takeable(ord int) bool {
	return ord >= 0 && ord < len(b.slots) && b.slots[ord] == free
}

// assign takes up to n addresses, the longest free first, and returns their
// ordinals.
func (b *Block) assign(n int, o owner, reserved *Reserved) []int {
	var taken []int
	rest := make([]int, 0, len(b.queue))
	check := reserved.overlaps(b.CIDR)
	for _, ord := range b.queue {
		switch {
		case !b.takeable(ord):
		case len(taken) == n, check && reserved.Has(b.Addr(ord)):
			rest = append(rest, ord)
		default:
			b.occupy(ord, o)
			taken = append(taken, ord)
		}
	}
	b.queue = rest
	return taken
}

// assignOne takes one given address. A released one that still cools down is
// free to who asks for it by name.
func (b *Block) assignOne(a netip.Addr, o owner) error {
	ord, ok := b.ordinal(a)
	if !ok {
		return fmt.Errorf("%w: %s is not in block %s", ErrInvalid, a, b.CIDR)
	}
	if b.slots[ord] != free {
		at := b.attr(ord)
		if at.ReleasedAt.IsZero() {
			return fmt.Errorf("%w: %s belongs to handle %q", ErrAssigned, a, b.handle(ord))
		}
		b.vacate(ord)
	}
	b.queue = slices.DeleteFunc(b.queue, func(q int) bool { return q == ord })
	b.occupy(ord, o)
	return nil
}

// occupy gives a free ordinal, already off the queue, to its owner. Owners
// with equal attributes share one.
func (b *Block) occupy(ord int, o owner) {
	b.slots[ord] = b.attrIndex(Attribute{Handle: o.handle, Owner: o.attrs})
	b.seqs[ord] = b.Sequence
}

// vacate makes an ordinal free without queueing it.
func (b *Block) vacate(ord int) {
	b.slots[ord] = free
	delete(b.seqs, ord)
	b.dropUnused()
}

func (b *Block) attrIndex(at Attribute) int {
	for i, have := range b.attrs {
		if have.same(at) {
			return i
		}
	}
	b.attrs = append(b.attrs, at)
	return len(b.attrs) - 1
}

func (a Attribute) same(o Attribute) bool {
	return a.Handle == o.Handle && a.ReleasedAt.Equal(o.ReleasedAt) && maps.Equal(a.Owner, o.Owner) &&
		maps.Equal(a.Alternate, o.Alternate) && len(a.extra) == 0 && len(o.extra) == 0
}

// dropUnused removes the attributes that no ordinal points to.
func (b *Block) dropUnused() {
	used := make([]bool, len(b.attrs))
	for _, i := range b.slots {
		if i != free {
			used[i] = true
		}
	}
	if !slices.Contains(used, false) {
		return
	}
	index := make([]int, len(used)) // from old to new
	kept := b.attrs[:0:0]
	for i, at := range b.attrs {
		index[i] = len(kept)
		if used[i] {
			kept = append(kept, at)
		}
	}
	b.attrs = kept
	for ord, i := range b.slots {
		if i != free {
			b.slots[ord] = index[i]
		}
	}
}

// release takes addresses from their owner. They become free at once when
// there is no cool-down, else when expire finds them old enough.
func (b *Block) release(ords []int, now time.Time, coolDown time.Duration) {
	released := Attribute{ReleasedAt: now.UTC().Truncate(time.Second)}
	for _, ord := range ords {
		if coolDown <= 0 {
			b.slots[ord] = free
			b.queue = append(b.queue, ord)
		} else {
			b.slots[ord] = b.attrIndex(released)
		}
		delete(b.seqs, ord)
	}
	b.dropUnused()
}

// expire frees the addresses that have cooled down, the one released first
// first, and reports whether anything changed. A release that lies in the
// future, because a clock was set back, counts from now.
func (b *Block) expire(now time.Time, coolDown time.Duration) bool {
	changed := false
	for i, at := range b.attrs {
		if at.ReleasedAt.After(now.Add(time.Second)) {
			b.attrs[i].ReleasedAt, b.attrs[i].text = now.UTC().Truncate(time.Second), nil
			changed = true
		}
	}
	cooled := b.cooled(now, coolDown)
	if len(cooled) == 0 {
		return changed
	}
	slices.SortStableFunc(cooled, func(x, y int) int { return b.attr(x).ReleasedAt.Compare(b.attr(y).ReleasedAt) })
	for _, ord := range cooled {
		b.slots[ord] = free
		b.queue = append(b.queue, ord)
	}
	b.dropUnused()
	return true
}

// cooled lists the addresses that have been released for long enough.
func (b *Block) cooled(now time.Time, coolDown time.Duration) []int {
	var ords []int
	for ord := range b.slots {
		if at := b.attr(ord); at != nil && !at.ReleasedAt.IsZero() && now.Sub(at.ReleasedAt) >= coolDown {
			ords = append(ords, ord)
		}
	}
	return ords
}

// ordinalsOf lists the addresses that a handle has.
func (b *Block) ordinalsOf(handle string) []int {
	var ords []int
	for ord := range b.slots {
		if b.slots[ord] != free && handle != "" && b.handle(ord) == handle {
			ords = append(ords, ord)
		}
	}
	return ords
}

// handle returns the handle of an ordinal. Handles written while host-local
// addresses were migrated may have a carriage return with garbage behind it.
func (b *Block) handle(ord int) string {
	at := b.attr(ord)
	if at == nil {
		return "" // free
	}
	h, _, _ := strings.Cut(at.Handle, "\r")
	return h
}

// checkRelease says whether an address may be released as asked: it belongs to
// the handle and has the sequence number, where these are given.
func (b *Block) checkRelease(r ReleaseOptions) (ordinal int, err error) {
	ord, ok := b.ordinal(r.Addr)
	if !ok {
		return 0, fmt.Errorf("%w: %s is not in block %s", ErrInvalid, r.Addr, b.CIDR)
	}
	at := b.attr(ord)
	if b.slots[ord] == free || at != nil && !at.ReleasedAt.IsZero() {
		return ord, fmt.Errorf("release %s: %w", r.Addr, ErrNotAssigned)
	}
	if h := b.handle(ord); r.Handle != "" && r.Handle != h {
		return ord, fmt.Errorf("release %s: %w: asked for handle %q, it belongs to %q", r.Addr, ErrStale, r.Handle, h)
	}
	seq, known := b.seqs[ord]
	if r.Sequence != 0 && known && r.Sequence != seq {
		return ord, fmt.Errorf("release %s: %w: asked for sequence number %d, it has %d", r.Addr, ErrStale, r.Sequence, seq)
	}
	return ord, nil
}
