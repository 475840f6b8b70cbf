package ipam

import (
	"context"
	"errors"
	"iter"
	"math/big"
	"math/rand"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/store"
)

// maxProbes is how many candidates are looked up one by one before all blocks
// are listed: in a pool with room the first is nearly always free.
const maxProbes = 4

// blockSearch finds blocks that a host may claim. Blocks whose claim was
// interrupted come first, then those that nobody has, then empty ones of
// others.
type blockSearch struct {
	r          *request
	w          *want
	unfinished []netip.Prefix
	tried      map[netip.Prefix]bool // claimed, or lost to somebody faster
	known      map[netip.Prefix]*Block
}

// claim claims one block for the host. errTaken says that there is none.
func (s *blockSearch) claim(ctx context.Context) (netip.Prefix, error) {
	if s.tried == nil {
		s.tried = map[netip.Prefix]bool{}
	}
	for len(s.unfinished) > 0 {
		cidr := s.unfinished[0]
		s.unfinished = s.unfinished[1:]
		if ok, err := s.try(ctx, cidr, false); ok || err != nil {
			return cidr, err
		}
	}
	if cidr, ok, err := s.claimFree(ctx); ok || err != nil {
		return cidr, err
	}
	return s.claimEmpty(ctx)
}

// try claims one block; false if somebody else has it.
func (s *blockSearch) try(ctx context.Context, cidr netip.Prefix, reclaim bool) (bool, error) {
	m := s.r.m
	id := store.AffinityID{Owner: s.r.args.Host, CIDR: cidr}
	c := m.enter(cidr) // keeps what the claim learns about the block
	defer m.leave(c)
	err := m.claim(ctx, id, reclaim)
	s.tried[cidr] = true
	if errors.Is(err, errTaken) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	m.own(id)
	return true, nil
}

// claimFree claims the first block on the host's way through the pools that
// does not exist. It passes by the host's own without a look: they mostly
// stand at the beginning of that way.
func (s *blockSearch) claimFree(ctx context.Context) (netip.Prefix, bool, error) {
	own := s.r.m.ownBlocks(s.r.args.Host, s.w.family)
	for _, pool := range s.w.pools {
		probes := 0
		for cidr := range s.candidates(pool) {
			if s.tried[cidr] || slices.Contains(own, cidr) {
				continue
			}
			absent, err := s.absent(ctx, cidr, probes)
			if err != nil {
				return cidr, false, err
			}
			probes++
			if !absent {
				continue
			}
			if ok, err := s.try(ctx, cidr, false); ok || err != nil {
				return cidr, ok, err
			}
		}
	}
	return netip.Prefix{}, false, nil
}

// absent looks whether a block exists: in the datastore at first, and after
// some probes in a listing of all blocks.
func (s *blockSearch) absent(ctx context.Context, cidr netip.Prefix, probes int) (bool, error) {
	if s.known == nil && probes < maxProbes {
		_, _, err := s.r.m.getBlock(ctx, cidr)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return true, nil
		case errors.Is(err, ErrCorrupt):
			return false, nil
		}
		return false, err
	}
	if err := s.list(ctx); err != nil {
		return false, err
	}
	_, exists := s.known[cidr]
	return !exists, nil
}

func (s *blockSearch) list(ctx context.Context) error {
	if s.known != nil {
		return nil
	}
	blocks, err := s.r.m.listBlocks(ctx, s.w.family)
	if err != nil {
		return err
	}
	s.known = make(map[netip.Prefix]*Block, len(blocks))
	for _, b := range blocks {
		s.known[b.CIDR] = b
	}
	return nil
}

// claimEmpty takes a block over that nobody uses: one without owner, or one
// that has been somebody's for a while.
func (s *blockSearch) claimEmpty(ctx context.Context) (netip.Prefix, error) {
	s.known = nil // a block may have become free or empty since
	if err := s.list(ctx); err != nil {
		return netip.Prefix{}, err
	}
	mine := HostAffinity(s.r.args.Host)
	for _, pool := range s.w.pools {
		for cidr := range s.walkKnown(pool) {
			b := s.known[cidr]
			idle := b.Affinity == "" && b.empty() || b.Affinity != mine && s.r.m.reclaimable(b)
			if s.tried[cidr] || !idle {
				continue
			}
			if ok, err := s.try(ctx, cidr, true); ok || err != nil {
				return cidr, err
			}
		}
	}
	return netip.Prefix{}, errTaken
}

// walkKnown lists the blocks of a pool that exist, from the host's starting
// point on.
func (s *blockSearch) walkKnown(pool Pool) iter.Seq[netip.Prefix] {
	start := s.start(pool)
	return func(yield func(netip.Prefix) bool) {
		var before, after []netip.Prefix
		for cidr := range s.known {
			switch {
			case cidr.Bits() != pool.BlockSize || !prefix.Contains(pool.CIDR, cidr):
			case cidr.Addr().Less(start):
				before = append(before, cidr)
			default:
				after = append(after, cidr)
			}
		}
		slices.SortFunc(before, netip.Prefix.Compare)
		slices.SortFunc(after, netip.Prefix.Compare)
		for _, cidr := range append(after, before...) {
			if !yield(cidr) {
				return
			}
		}
	}
}

// candidates walks all blocks of a pool from the host's starting point to the
// end and from the beginning to the starting point, over what is reserved
// whole.
func (s *blockSearch) candidates(pool Pool) iter.Seq[netip.Prefix] {
	start := s.start(pool)
	return func(yield func(netip.Prefix) bool) {
		if s.walk(pool, start, prefix.Last(pool.CIDR), yield) && start != pool.CIDR.Addr() {
			s.walk(pool, pool.CIDR.Addr(), start.Prev(), yield)
		}
	}
}

// walk yields the blocks that begin from one address to another.
func (s *blockSearch) walk(pool Pool, from, to netip.Addr, yield func(netip.Prefix) bool) bool {
	for from.IsValid() && from.Compare(to) <= 0 {
		cidr := netip.PrefixFrom(from, pool.BlockSize)
		next := prefix.Last(cidr)
		if r, ok := s.r.settings.Reserved.covering(cidr); ok {
			next = prefix.Last(r)
		} else if !yield(cidr) {
			return false
		}
		from = next.Next() // invalid after the last address there is
	}
	return true
}

// start is the first address of the block of a pool at which the host starts
// to look. It depends on the name of the host only, so that a host looks at
// the same blocks every time and different hosts at different ones, and is
// where Calico would start. Blocks of one address, of which a host needs many,
// start anywhere.
func (s *blockSearch) start(pool Pool) netip.Addr {
	rnd := hostRand(s.r.args.Host)
	width := pool.CIDR.Addr().BitLen()
	if pool.BlockSize == width {
		rnd = rand.New(rand.NewSource(s.r.m.now().UnixNano()))
	}
	n := new(big.Int).Rand(rnd, prefix.BlockCount(pool.CIDR, pool.BlockSize))
	n.Lsh(n, uint(width-pool.BlockSize))
	n.Add(n, new(big.Int).SetBytes(pool.CIDR.Addr().AsSlice()))
	addr, _ := netip.AddrFromSlice(n.FillBytes(make([]byte, width/8)))
	return addr
}
