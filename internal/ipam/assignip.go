package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/store"
)

// AssignIPArgs asks for one given address.
type AssignIPArgs struct {
	Addr   netip.Addr
	Host   string            // who claims the block if nobody has it; required
	Handle string            // by which the address is released; required
	Attrs  map[string]string // as in AssignArgs
	Use    UseKind           // what for; "": do not ask the pool
	// MaxPerHandle set makes it fine that the handle has the address already.
	MaxPerHandle int
}

// AssignIP assigns one given address. Its pool must exist and be enabled;
// selectors, assignment mode and reservations do not matter. Errors:
// ErrNoPool, ErrAssigned, ErrStrictAffinity.
func (m *Manager) AssignIP(ctx context.Context, args AssignIPArgs) (Assignment, error) {
	args.Addr = args.Addr.Unmap()
	got, err := m.assignIP(ctx, args)
	if err != nil {
		return Assignment{}, fmt.Errorf("assign %s to handle %q: %w", args.Addr, args.Handle, err)
	}
	return got, nil
}

func (m *Manager) assignIP(ctx context.Context, args AssignIPArgs) (Assignment, error) {
	if err := checkOwner(args.Host, args.Handle); err != nil {
		return Assignment{}, err
	}
	s, err := m.settings(ctx)
	if err != nil {
		return Assignment{}, err
	}
	cidr, err := s.blockOf(args)
	if err != nil {
		return Assignment{}, err
	}
	unlock, err := m.handles.lock(ctx, args.Handle)
	if err != nil {
		return Assignment{}, err
	}
	defer unlock()
	for range maxAttempts {
		got, err := m.assignInBlock(ctx, args, s, cidr)
		if !errors.Is(err, store.ErrNotFound) {
			return got, err
		}
		id := store.AffinityID{Owner: args.Host, CIDR: cidr}
		err = m.claim(ctx, id, false)
		if err != nil && !errors.Is(err, errTaken) {
			return Assignment{}, err
		}
		if err == nil {
			m.own(id)
		}
	}
	return Assignment{}, ErrBusy
}

// blockOf returns the block of the requested address.
func (s *Settings) blockOf(args AssignIPArgs) (netip.Prefix, error) {
	if !args.Addr.IsValid() {
		return netip.Prefix{}, fmt.Errorf("%w: no address given", ErrInvalid)
	}
	pool, ok := s.pool(prefix.Host(args.Addr))
	switch {
	case !ok:
		return netip.Prefix{}, fmt.Errorf("%w: no pool has this address", ErrNoPool)
	case pool.Unusable != "":
		return netip.Prefix{}, fmt.Errorf("%w: pool %s: %s", ErrNoPool, pool.Name, pool.Unusable)
	case args.Use != "" && !slices.Contains(pool.Uses, args.Use):
		return netip.Prefix{}, fmt.Errorf("%w: pool %s: its allowedUses %v lack %s", ErrNoPool, pool.Name, pool.Uses, args.Use)
	}
	return prefix.BlockOf(args.Addr, pool.BlockSize), nil
}

// assignInBlock assigns the address if its block exists.
func (m *Manager) assignInBlock(ctx context.Context, args AssignIPArgs, s *Settings, cidr netip.Prefix) (Assignment, error) {
	b, _, err := m.getBlock(ctx, cidr)
	if err != nil {
		return Assignment{}, err
	}
	if have, ok := b.assignedTo(args); ok {
		return have, nil
	}
	w := &handleWriter{m: m, id: args.Handle}
	count := map[netip.Prefix]int{cidr: 1}
	if err := w.add(ctx, count, false); err != nil {
		return Assignment{}, err
	}
	o := m.owner(args.Host, args.Handle, args.Attrs)
	op := &assignment{owner: o, pick: func(b *Block) ([]int, error) {
		if s.Configuration.StrictAffinity && b.Affinity != HostAffinity(args.Host) {
			return nil, fmt.Errorf("%w: block %s is %s", ErrStrictAffinity, b.CIDR, affinityOrNone(b.Affinity))
		}
		if err := b.assignOne(args.Addr, o); err != nil {
			return nil, err
		}
		ord, _ := b.ordinal(args.Addr)
		return []int{ord}, nil
	}}
	err = m.update(ctx, cidr, op.change(s.Configuration.CoolDown))
	if err == nil {
		return op.got[0], nil
	}
	if refusal(err) { // certainly not assigned: the handle need not count it
		if e := w.sub(ctx, count, nil); e != nil {
			return Assignment{}, fmt.Errorf("%w (and %w)", err, e)
		}
	}
	return Assignment{}, err
}

// refusal reports whether an error of update says that nothing was written.
func refusal(err error) bool {
	return errors.Is(err, ErrAssigned) || errors.Is(err, ErrStrictAffinity) || errors.Is(err, ErrInvalid) ||
		errors.Is(err, store.ErrNotFound)
}

// assignedTo finds what the handle has already, if the request allows for it.
func (b *Block) assignedTo(args AssignIPArgs) (Assignment, bool) {
	ord, ok := b.ordinal(args.Addr)
	if !ok || args.MaxPerHandle == 0 || b.handle(ord) != args.Handle {
		return Assignment{}, false
	}
	return Assignment{Addr: args.Addr, Block: b.CIDR, Sequence: b.seqs[ord]}, true
}

func affinityOrNone(affinity string) string {
	if affinity == "" {
		return "nobody's"
	}
	return affinity
}
