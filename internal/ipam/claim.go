package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/brindle-net/brindle/internal/store"
)

// The protocol by which a block changes hands. Whoever claims writes, each by
// compare-and-swap:
//
//  1. the affinity, as pending;
//  2. the block, with the affinity in it: made, or touched if it is there;
//  3. the affinity, as confirmed, if it is still as written in step 1.
//
// Whoever releases writes
//
//  1. the affinity, as pending deletion;
//  2. the block, without the affinity, having read first the block and then
//     that the affinity is still as written in step 1;
//  3. the affinity: deleted, if it is still as written in step 1.
//
// So an affinity that is confirmed has a block that names it, and a block has
// at most one confirmed affinity. What a crash leaves is an affinity that is
// not confirmed, which the next claim or release of the block cleans up.

var (
	// errTaken says that a block belongs to somebody else.
	errTaken = errors.New("block belongs to somebody else")
	// errInUse says that a block was to be given up only if nobody uses it.
	errInUse = errors.New("block is in use")
	// errForbidden says that this owner may make no block there.
	errForbidden = errors.New("block may not be made")
)

// reclaimAge is how long a block must have been somebody's before it may be
// taken away while it is empty.
const reclaimAge = time.Minute

func affinityText(id store.AffinityID) string {
	if id.Virtual {
		return "virtual:" + id.Owner
	}
	return HostAffinity(id.Owner)
}

// claim makes a block the owner's: a new one, one left without owner and
// empty, or with reclaim set an empty one of somebody else. It completes a
// claim that was interrupted. errTaken says that the block cannot be had, and
// errForbidden that others there will not do either; then no affinity is left
// behind.
func (m *Manager) claim(ctx context.Context, id store.AffinityID, reclaim bool) error {
	for range maxAttempts {
		rev, err := m.markAffinity(ctx, id, Pending, true)
		if err != nil {
			return err
		}
		err = m.claimBlock(ctx, id, reclaim)
		if errors.Is(err, errTaken) || errors.Is(err, errForbidden) {
			if err := m.db.Delete(ctx, id.Key(), rev); err != nil && !changed(err) {
				return fmt.Errorf("withdraw affinity of %s to %s: %w", id.CIDR, id.Owner, err)
			}
			return err
		}
		if err != nil {
			return err
		}
		err = m.writeAffinity(ctx, id, Confirmed, rev)
		if err == nil {
			return nil
		}
		if !changed(err) {
			return fmt.Errorf("confirm affinity of %s to %s: %w", id.CIDR, id.Owner, err)
		}
		if a, _, err := m.getAffinity(ctx, id); err == nil && a.state == Confirmed {
			return nil // another process of the same owner was faster
		}
	}
	return fmt.Errorf("claim block %s for %s: %w", id.CIDR, id.Owner, ErrBusy)
}

// markAffinity writes a state whatever the state is, and returns the revision
// of that write. Without create an absent affinity is store.ErrNotFound.
func (m *Manager) markAffinity(ctx context.Context, id store.AffinityID, to State, create bool) (store.Revision, error) {
	for range maxAttempts {
		if create {
			rev, err := m.db.Create(ctx, id.Key(), affinity{state: to}.encode())
			if err == nil {
				return rev, nil
			}
			if !errors.Is(err, store.ErrExists) {
				return "", fmt.Errorf("create affinity of %s to %s: %w", id.CIDR, id.Owner, err)
			}
		}
		a, rev, err := m.getAffinity(ctx, id)
		if errors.Is(err, store.ErrNotFound) && create {
			continue
		}
		if err != nil {
			return "", err
		}
		a.state = to
		rev, err = m.db.Update(ctx, store.KV{Key: id.Key(), Value: a.encode(), Revision: rev})
		if err == nil {
			return rev, nil
		}
		if !changed(err) {
			return "", fmt.Errorf("mark affinity of %s to %s as %s: %w", id.CIDR, id.Owner, to, err)
		}
	}
	return "", fmt.Errorf("mark affinity of %s to %s as %s: %w", id.CIDR, id.Owner, to, ErrBusy)
}

// writeAffinity writes a state over the one with this revision.
func (m *Manager) writeAffinity(ctx context.Context, id store.AffinityID, to State, rev store.Revision) error {
	_, err := m.db.Update(ctx, store.KV{Key: id.Key(), Value: affinity{state: to}.encode(), Revision: rev})
	return err
}

// claimBlock is step 2 of a claim.
func (m *Manager) claimBlock(ctx context.Context, id store.AffinityID, reclaim bool) error {
	mine, key := affinityText(id), store.BlockKey(id.CIDR)
	for range maxAttempts {
		now := m.now()
		fresh := newBlock(id.CIDR, mine, now)
		rev, err := m.db.Create(ctx, key, fresh.encode())
		if err == nil {
			m.remember(fresh, rev)
			return nil
		}
		if errors.Is(err, store.ErrDenied) {
			return fmt.Errorf("%w: %s: %w", errForbidden, id.CIDR, err)
		}
		if !errors.Is(err, store.ErrExists) {
			return fmt.Errorf("create block %s: %w", id.CIDR, err)
		}
		b, rev, err := m.getBlock(ctx, id.CIDR)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if errors.Is(err, ErrCorrupt) {
			return fmt.Errorf("%w: %w", errTaken, err)
		}
		if err != nil {
			return err
		}
		nobodys := b.Affinity == "" && b.empty()
		switch {
		case b.Affinity == mine:
		case nobodys:
			b.Affinity, b.ClaimTime = mine, now.UTC().Truncate(time.Second)
		case reclaim && m.reclaimable(b):
			if err := m.takeAway(ctx, b); err != nil {
				return err
			}
			continue
		default:
			return fmt.Errorf("%w: %s is %s", errTaken, id.CIDR, b.Affinity)
		}
		b.Sequence++
		rev, err = m.db.Update(ctx, store.KV{Key: key, Value: b.encode(), Revision: rev})
		if err == nil {
			m.remember(b, rev)
			return nil
		}
		if nobodys && errors.Is(err, store.ErrDenied) { // whoever guards it sees in it what is another's
			return fmt.Errorf("%w: claim block %s: %w", errTaken, id.CIDR, err)
		}
		if !changed(err) {
			return fmt.Errorf("claim block %s: %w", id.CIDR, err)
		}
	}
	return fmt.Errorf("claim block %s: %w", id.CIDR, ErrBusy)
}

// remember keeps a block that was just written, if anybody here works on it.
func (m *Manager) remember(b *Block, rev store.Revision) {
	c := m.enter(b.CIDR)
	c.remember(b, rev)
	m.leave(c)
}

// reclaimable reports whether a block may be taken from its host: nobody uses
// it, and it is not new. A claim time in the future comes from a clock that
// was set back and says nothing.
func (m *Manager) reclaimable(b *Block) bool {
	age := m.now().Sub(b.ClaimTime)
	return b.Host() != "" && b.empty() && (age >= reclaimAge || age <= -reclaimAge)
}

// takeAway makes the owner of an empty block give it up.
func (m *Manager) takeAway(ctx context.Context, b *Block) error {
	err := m.releaseAffinity(ctx, store.AffinityID{Owner: b.Host(), CIDR: b.CIDR}, true)
	// A host's own user may not write the affinities of another: it borrows.
	if errors.Is(err, errInUse) || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrDenied) {
		return fmt.Errorf("%w: %s is %s", errTaken, b.CIDR, b.Affinity)
	}
	return err
}

// releaseAffinity makes the owner give up a block; with ifEmpty set only if
// nobody has an address of it, else errInUse. Addresses in use stay assigned.
// The error is store.ErrConflict when the owner claims the block again
// meanwhile.
func (m *Manager) releaseAffinity(ctx context.Context, id store.AffinityID, ifEmpty bool) error {
	if ifEmpty {
		b, _, err := m.getBlock(ctx, id.CIDR)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err == nil && b.Affinity == affinityText(id) && !b.empty() {
			return fmt.Errorf("%s: %w", id.CIDR, errInUse)
		}
	}
	defer m.disown(id)
	rev, err := m.markAffinity(ctx, id, PendingDeletion, false)
	if errors.Is(err, store.ErrNotFound) {
		return m.releaseOrphan(ctx, id, ifEmpty)
	}
	if err != nil {
		return err
	}
	err = m.releaseBlock(ctx, id, rev, ifEmpty)
	if errors.Is(err, errInUse) {
		// Somebody took an address meanwhile. The block stays the owner's.
		if err := m.restore(ctx, id); err != nil {
			return err
		}
		return fmt.Errorf("%s: %w", id.CIDR, errInUse)
	}
	if err != nil {
		return err
	}
	if err := m.db.Delete(ctx, id.Key(), rev); err != nil && !changed(err) {
		return fmt.Errorf("delete affinity of %s to %s: %w", id.CIDR, id.Owner, err)
	}
	return nil
}

// releaseOrphan handles a block that names an owner who has no affinity for
// it, which only a write by hand can cause: it gets one to give up.
func (m *Manager) releaseOrphan(ctx context.Context, id store.AffinityID, ifEmpty bool) error {
	b, _, err := m.getBlock(ctx, id.CIDR)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil || b.Affinity != affinityText(id) {
		return err
	}
	if _, err := m.markAffinity(ctx, id, PendingDeletion, true); err != nil {
		return err
	}
	return m.releaseAffinity(ctx, id, ifEmpty)
}

// releaseBlock is step 2 of a release.
func (m *Manager) releaseBlock(ctx context.Context, id store.AffinityID, mark store.Revision, ifEmpty bool) error {
	for range maxAttempts {
		b, rev, err := m.getBlock(ctx, id.CIDR)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if b.Affinity != affinityText(id) {
			return nil
		}
		if ifEmpty && !b.empty() {
			return errInUse
		}
		_, now, err := m.getAffinity(ctx, id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if now != mark {
			return fmt.Errorf("release block %s of %s: %w", id.CIDR, id.Owner, store.ErrConflict)
		}
		b.Affinity, b.ClaimTime = "", time.Time{}
		b.Sequence++
		if _, err = m.put(ctx, b, rev); err == nil {
			return nil
		}
		if !changed(err) {
			return fmt.Errorf("release block %s of %s: %w", id.CIDR, id.Owner, err)
		}
	}
	return fmt.Errorf("release block %s of %s: %w", id.CIDR, id.Owner, ErrBusy)
}

// restore confirms an affinity again after a release that was called off, by
// claiming on behalf of the owner.
func (m *Manager) restore(ctx context.Context, id store.AffinityID) error {
	err := m.claim(ctx, id, false)
	if errors.Is(err, errTaken) {
		return nil // somebody else finished the release and took it
	}
	return err
}

// disown forgets that a block is a host's own.
func (m *Manager) disown(id store.AffinityID) {
	m.forget(id.CIDR)
	m.setOwned(id, func(cidrs []netip.Prefix) []netip.Prefix {
		kept := cidrs[:0:0]
		for _, c := range cidrs {
			if c != id.CIDR {
				kept = append(kept, c)
			}
		}
		return kept
	})
}

// own remembers that a block is a host's own.
func (m *Manager) own(id store.AffinityID) {
	m.setOwned(id, func(own []netip.Prefix) []netip.Prefix {
		at, found := slices.BinarySearchFunc(own, id.CIDR, netip.Prefix.Compare)
		if found {
			return own
		}
		return slices.Insert(slices.Clone(own), at, id.CIDR)
	})
}

// setOwned changes what is known of a host's own blocks, if anything is.
func (m *Manager) setOwned(id store.AffinityID, edit func([]netip.Prefix) []netip.Prefix) {
	if id.Virtual {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := hostFamily{id.Owner, familyOf(id.CIDR.Addr())}
	if own, ok := m.owned[key]; ok {
		m.owned[key] = edit(own)
	}
}
