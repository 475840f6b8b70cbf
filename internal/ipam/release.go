package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/store"
)

// ReleaseOptions names one address to release. With Handle or Sequence set,
// only that owner's, or only that very assignment, is released.
type ReleaseOptions struct {
	Addr     netip.Addr
	Handle   string
	Sequence uint64
}

// Release releases addresses. One that nobody has is reported by an error that
// wraps ErrNotAssigned, one with another owner than asked for by ErrStale; the
// others are released all the same.
func (m *Manager) Release(ctx context.Context, options ...ReleaseOptions) error {
	s, err := m.settings(ctx)
	if err != nil {
		return fmt.Errorf("release addresses: %w", err)
	}
	byBlock := map[netip.Prefix][]ReleaseOptions{}
	var errs []error
	for _, o := range options {
		o.Addr = o.Addr.Unmap()
		cidr, err := m.findBlock(ctx, s, o.Addr)
		if err != nil {
			errs = append(errs, fmt.Errorf("release %s: %w", o.Addr, err))
			continue
		}
		byBlock[cidr] = append(byBlock[cidr], o)
	}
	for _, cidr := range slices.SortedFunc(maps.Keys(byBlock), netip.Prefix.Compare) {
		if err := m.releaseIn(ctx, cidr, byBlock[cidr], s.Configuration.CoolDown); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// findBlock finds the block that an address lies in. The block may be older
// than the present pools.
func (m *Manager) findBlock(ctx context.Context, s *Settings, a netip.Addr) (netip.Prefix, error) {
	if !a.IsValid() {
		return netip.Prefix{}, fmt.Errorf("%w: no address given", ErrInvalid)
	}
	longest := a.BitLen()
	sizes := []int{}
	if pool, ok := s.pool(prefix.Host(a)); ok {
		sizes = append(sizes, pool.BlockSize)
	}
	for bits := longest - 12; bits <= longest; bits++ {
		sizes = append(sizes, bits)
	}
	for _, bits := range sizes {
		cidr := prefix.BlockOf(a, bits)
		_, _, err := m.getBlock(ctx, cidr)
		if err == nil {
			return cidr, nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return netip.Prefix{}, err
		}
	}
	return netip.Prefix{}, ErrNotAssigned
}

// releaseIn releases addresses of one block, the block first and then the
// handles.
func (m *Manager) releaseIn(ctx context.Context, cidr netip.Prefix, options []ReleaseOptions, coolDown time.Duration) error {
	for _, o := range options {
		if o.Handle == "" && o.Sequence == 0 {
			m.forget(cidr) // whom it belongs to is decided on what is stored
		}
	}
	op := &release{m: m, options: options, coolDown: coolDown}
	op.change = &change{apply: op.apply, coolDown: coolDown}
	err := m.update(ctx, cidr, op.change)
	if errors.Is(err, store.ErrNotFound) {
		return op.missing()
	}
	if err != nil && !errors.Is(err, errRefused) {
		return fmt.Errorf("release addresses of block %s: %w", cidr, err)
	}
	for _, id := range slices.Sorted(maps.Keys(op.counts)) {
		w := &handleWriter{m: m, id: id}
		if err := w.sub(ctx, map[netip.Prefix]int{cidr: op.counts[id]}, nil); err != nil {
			op.errs = append(op.errs, err)
		}
	}
	return errors.Join(op.errs...)
}

// errRefused says that no address of a release could be released.
var errRefused = errors.New("nothing was released")

// release is the change of a block that releases given addresses. It may be
// applied several times, on what the block has become meanwhile.
type release struct {
	m        *Manager
	change   *change
	options  []ReleaseOptions
	coolDown time.Duration
	pinned   map[netip.Addr]pin // whose addresses we tried to release
	counts   map[string]int     // released addresses per handle
	errs     []error
}

// pin is the owner of an address when its release was first tried. A later
// owner's is not released, whatever came of the earlier try.
type pin struct {
	handle string
	seq    uint64
}

func (r *release) apply(b *Block) error {
	r.counts, r.errs = map[string]int{}, nil
	pins := map[netip.Addr]pin{}
	var ords []int
	done := 0
	for _, o := range r.options {
		was, tried := r.pinned[o.Addr]
		if tried && !r.change.doubt && (o.Handle != "" || o.Sequence != 0) {
			tried = false // nothing came of it: what was asked for says whose address it is
		}
		if tried {
			o.Handle, o.Sequence = was.handle, was.seq
			pins[o.Addr] = was
		}
		ord, err := b.checkRelease(o)
		switch {
		case slices.Contains(ords, ord) && err == nil: // asked for twice
		case err == nil:
			ords = append(ords, ord)
			pins[o.Addr] = pin{b.handle(ord), b.seqs[ord]}
			r.count(b.handle(ord))
		case tried && r.change.doubt && !errors.Is(err, ErrInvalid):
			done++ // an earlier try has released it after all
			r.count(was.handle)
		default:
			r.errs = append(r.errs, err)
		}
	}
	r.pinned = pins
	if len(ords) == 0 && done == 0 {
		return errRefused
	}
	if len(ords) == 0 {
		return errUnchanged
	}
	b.release(ords, r.m.now(), r.coolDown)
	return nil
}

func (r *release) count(handle string) {
	if handle != "" {
		r.counts[handle]++
	}
}

// missing is the outcome when the block does not exist: what may have been
// released before is, the rest was not assigned.
func (r *release) missing() error {
	var errs []error
	for _, o := range r.options {
		if _, tried := r.pinned[o.Addr]; !tried || !r.change.doubt {
			errs = append(errs, fmt.Errorf("release %s: %w", o.Addr, ErrNotAssigned))
		}
	}
	return errors.Join(errs...)
}

// ReleaseByHandle releases everything that a handle has. One that has nothing
// is fine: asking twice is the same as asking once.
func (m *Manager) ReleaseByHandle(ctx context.Context, id string) error {
	if id == "" {
		return fmt.Errorf("release by handle: %w: no handle given", ErrInvalid)
	}
	s, err := m.settings(ctx)
	if err != nil {
		return fmt.Errorf("release handle %q: %w", id, err)
	}
	unlock, err := m.handles.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	for range maxAttempts {
		h, rev, err := m.getHandle(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		var errs []error
		for _, cidr := range h.cidrs() {
			if err := m.releaseHandleIn(ctx, cidr, id, s.Configuration.CoolDown); err != nil {
				errs = append(errs, fmt.Errorf("release handle %q: %w", id, err))
			}
		}
		if len(errs) > 0 {
			return errors.Join(errs...)
		}
		err = m.db.Delete(ctx, store.HandleKey(id), rev)
		if err == nil {
			return nil
		}
		if !changed(err) {
			return fmt.Errorf("delete handle %q: %w", id, err)
		}
	}
	return fmt.Errorf("release handle %q: %w", id, ErrBusy)
}

// releaseHandleIn releases what a handle has in a block. It writes the block
// also when that is nothing: a late write of an assignment that its author gave
// up then finds another revision, and never an address whose handle is gone.
func (m *Manager) releaseHandleIn(ctx context.Context, cidr netip.Prefix, id string, coolDown time.Duration) error {
	err := m.update(ctx, cidr, &change{coolDown: coolDown, apply: func(b *Block) error {
		b.release(b.ordinalsOf(id), m.now(), coolDown)
		return nil
	}})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// IPsByHandle lists the addresses that a handle has, IPv4 first, in order.
// There may be none.
func (m *Manager) IPsByHandle(ctx context.Context, id string) ([]Assignment, error) {
	return m.byHandle(ctx, id, func(string) bool { return true })
}

// IPsOfHost is IPsByHandle without what another host has under the same name:
// names of handles can be guessed, and whoever had one first must not choose the
// address of somebody else's workload.
func (m *Manager) IPsOfHost(ctx context.Context, id, host string) ([]Assignment, error) {
	return m.byHandle(ctx, id, func(node string) bool { return node == "" || node == host })
}

func (m *Manager) byHandle(ctx context.Context, id string, on func(node string) bool) ([]Assignment, error) {
	blocks, err := m.blocksOf(ctx, id)
	if err != nil {
		return nil, err
	}
	var out []Assignment
	for _, b := range blocks {
		for _, ord := range b.ordinalsOf(id) {
			if on(b.attr(ord).Owner[AttrNode]) {
				out = append(out, Assignment{Addr: b.Addr(ord), Block: b.CIDR, Sequence: b.seqs[ord]})
			}
		}
	}
	return out, nil
}

// blocksOf reads the blocks in which a handle has addresses: none if there is
// no such handle.
func (m *Manager) blocksOf(ctx context.Context, id string) ([]*Block, error) {
	h, _, err := m.getHandle(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var blocks []*Block
	for _, cidr := range h.cidrs() {
		b, _, err := m.getBlock(ctx, cidr)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

// AssignmentAttributes says who has an address. The error wraps
// ErrNotAssigned when nobody has, also while it is cooling down.
func (m *Manager) AssignmentAttributes(ctx context.Context, a netip.Addr) (Use, error) {
	s, err := m.settings(ctx)
	if err != nil {
		return Use{}, err
	}
	a = a.Unmap()
	cidr, err := m.findBlock(ctx, s, a)
	if err != nil {
		return Use{}, fmt.Errorf("look up %s: %w", a, err)
	}
	b, _, err := m.getBlock(ctx, cidr)
	if err != nil {
		return Use{}, fmt.Errorf("look up %s: %w", a, err)
	}
	for _, u := range b.Uses() {
		if u.Addr == a && !u.CoolingDown() {
			return u, nil
		}
	}
	return Use{}, fmt.Errorf("look up %s: %w", a, ErrNotAssigned)
}
