package ipam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
)

// Bounds of what a host may ask for, far above what an agent does in one write.
const (
	maxSequenceStep = 1000 // of a block's sequence number
	maxHandleBlocks = 256  // blocks in which one handle has addresses
)

// CheckHostWrite says why a host may not make a write: it may change what is its
// own in blocks and handles, and nothing else, for agents of other hosts act on
// what they read there.
//
// In a block its own are the addresses whose attribute names it, and in a block
// that belongs to it those whose attribute names nobody. It may take free
// addresses and such as were released, for itself, in any block (unless
// affinity is strict); make a block of the size that the pool says, for itself,
// if the pool is in use and for hosts; make one its own that belongs to nobody and
// has no addresses of others; and give up or delete its own. Where a limit of
// blocks is configured it holds. A handle is its own if no address of another host
// has it.
//
// The nodeSelector of a pool is not asked: workloads may ask for a pool by name,
// and a host writes its own labels.
//
// A value has to be as this package writes it: of what can be read in two ways
// nobody knows how others read it.
func CheckHostWrite(w store.HostWrite) error {
	if cidr, ok := store.ParseBlockKey(w.Key); ok {
		return checkBlockWrite(w, cidr)
	}
	if id, ok := store.ParseHandleKey(w.Key); ok {
		return checkHandleWrite(w, id)
	}
	return fmt.Errorf("key %q is that of no block and no handle", w.Key)
}

func checkBlockWrite(w store.HostWrite, cidr netip.Prefix) error {
	var old, next *Block
	var err error
	if w.Old != nil {
		if old, err = decodeBlockAt(cidr, w.Old); err != nil {
			return fmt.Errorf("it cannot be seen what is in it: %w", err)
		}
	}
	if w.New != nil {
		if next, err = decodeBlockAt(cidr, w.New); err != nil {
			return err
		}
		if !bytes.Equal(next.encode(), w.New) || ambiguous(next) {
			return fmt.Errorf("block %s is not written as agents write it", cidr)
		}
		if next.gone {
			return fmt.Errorf("block %s is marked as deleted", cidr)
		}
	}
	c := blockChange{host: w.Host, old: old, next: next}
	switch {
	case old == nil && next == nil:
		return nil
	case next == nil:
		err = c.checkDelete()
	case old == nil:
		c.old = &Block{CIDR: cidr, slots: slices.Repeat([]int{free}, len(next.slots))}
		if err = c.checkNew(w); err == nil {
			err = c.checkUses(w)
		}
	default:
		if err = c.checkOwner(); err == nil {
			err = c.checkRest()
		}
		if err == nil && old.Affinity != next.Affinity && next.Affinity == c.mine() {
			err = c.checkLimit(w)
		}
		if err == nil {
			err = c.checkUses(w)
		}
	}
	if err != nil {
		return fmt.Errorf("block %s: %w", cidr, err)
	}
	return nil
}

// ambiguous reports whether a block has a field that readers which do not heed
// case take for one that it has.
func ambiguous(b *Block) bool {
	known := []string{
		fieldCIDR, fieldAffinity, fieldClaimTime, fieldAllocations, fieldUnallocated, fieldAttributes,
		fieldSequence, fieldSequences, fieldDeleted, fieldOldAffinity,
	}
	if likeAny(b.extra, known) {
		return true
	}
	attribute := []string{"handle_id", "secondary", "alternate", "alternateOwnerAttrs", "releasedAt"}
	return slices.ContainsFunc(b.attrs, func(a Attribute) bool { return likeAny(a.extra, attribute) })
}

func likeAny(extra map[string]rawJSON, known []string) bool {
	for name := range extra {
		if slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) }) {
			return true
		}
	}
	return false
}

// blockChange is a block before and after a write of a host.
type blockChange struct {
	host      string
	old, next *Block
}

func (c blockChange) mine() string { return HostAffinity(c.host) }

// owns reports whether an address of a block is the host's.
func (c blockChange) owns(b *Block, at *Attribute) bool {
	return owns(c.host, b, at)
}

func owns(host string, b *Block, at *Attribute) bool {
	if !at.ReleasedAt.IsZero() {
		return false
	}
	node := at.Owner[AttrNode]
	return (node == host || node == "" && b.Host() == host) && (len(at.Alternate) == 0 || at.Alternate[AttrNode] == host)
}

// foreign returns an address of a block that is in use and not the host's. What
// Windows kept back in a block that is nobody's by now is in nobody's use.
func (c blockChange) foreign(b *Block) (netip.Addr, bool) {
	for ord := range b.slots {
		at := b.attr(ord)
		if at == nil || b.Affinity == "" && at.Handle == WindowsReservedHandle && at.Owner[AttrNode] == "" {
			continue
		}
		if at.ReleasedAt.IsZero() && !c.owns(b, at) {
			return b.Addr(ord), true
		}
	}
	return netip.Addr{}, false
}

func (c blockChange) checkDelete() error {
	if c.old.gone {
		return nil // to readers it is not there
	}
	if c.old.Affinity != c.mine() && c.old.Affinity != "" {
		return fmt.Errorf("it is %s, and not this host's to delete", c.old.Affinity)
	}
	if a, is := c.foreign(c.old); is {
		return fmt.Errorf("%s in it is not this host's", a)
	}
	return nil
}

func (c blockChange) checkNew(w store.HostWrite) error {
	if c.next.Affinity != c.mine() {
		return fmt.Errorf("a new one must be this host's, not %s", affinityOrNone(c.next.Affinity))
	}
	if list := c.next.contradictions(); len(list) > 0 {
		return errors.New(list[0])
	}
	pools, err := w.List(store.ResourcePrefix(pluralPools, ""))
	if err != nil {
		return err
	}
	why := errors.New("there is no pool that has blocks there, or of that size")
	for _, kv := range pools {
		p, err := decodePool(kv)
		switch {
		case err != nil || !p.CIDR.Contains(c.next.CIDR.Addr()) || p.BlockSize != c.next.CIDR.Bits():
		case p.Unusable != "":
			why = fmt.Errorf("%w: pool %s: %s", ErrNoPool, p.Name, p.Unusable)
		case !slices.Contains(p.Uses, v3.UseWorkload) && !slices.Contains(p.Uses, v3.UseTunnel):
			why = fmt.Errorf("%w: pool %s: its allowedUses %v are not for hosts", ErrNoPool, p.Name, p.Uses)
		default:
			return c.checkLimit(w)
		}
	}
	return why
}

// checkLimit holds the host to the configured number of blocks, this one included.
// It goes by the blocks: affinities the host may write as it likes. Where affinity
// is not strict there is no such limit, and it would keep a host from nothing.
func (c blockChange) checkLimit(w store.HostWrite) error {
	conf, err := configuration(w)
	if err != nil || !conf.StrictAffinity || conf.MaxBlocksPerHost == 0 {
		return err
	}
	list, err := w.List(familyOf(c.next.CIDR.Addr()).blocks())
	if err != nil {
		return err
	}
	said, err := json.Marshal(c.mine())
	if err != nil {
		return err
	}
	have := 0
	for _, kv := range list {
		cidr, ok := store.ParseBlockKey(kv.Key)
		if !ok || cidr == c.next.CIDR || !bytes.Contains(kv.Value, said) { // most are others'
			continue
		}
		if b, err := decodeBlockAt(cidr, kv.Value); err == nil && !b.gone && b.Affinity == c.mine() {
			have++
		}
	}
	if have >= conf.MaxBlocksPerHost {
		return fmt.Errorf("%w: this host has %s of at most %d", ErrBlockLimit, blocksText(have), conf.MaxBlocksPerHost)
	}
	return nil
}

// configuration reads the configuration that is stored.
func configuration(w store.HostWrite) (Configuration, error) {
	list, err := w.List(store.IPAMConfigKey)
	if err != nil {
		return Configuration{}, err
	}
	for _, kv := range list {
		if kv.Key == store.IPAMConfigKey {
			return DecodeConfiguration(kv.Value)
		}
	}
	return DefaultConfiguration(), nil
}

// checkOwner judges whose block it is and becomes.
func (c blockChange) checkOwner() error {
	was, is := c.old.Affinity, c.next.Affinity
	switch {
	case was == is:
		if was != c.mine() && !c.old.ClaimTime.Equal(c.next.ClaimTime) {
			return fmt.Errorf("it is %s, and not this host's to say since when", affinityOrNone(was))
		}
		return nil
	case was == c.mine() && is == "":
		return nil
	case was == "" && is == c.mine():
		if a, is := c.foreign(c.old); is {
			return fmt.Errorf("%s in it is not this host's", a)
		}
		return nil
	}
	return fmt.Errorf("it is %s, and this host may not make it %s", affinityOrNone(was), affinityOrNone(is))
}

// checkRest judges what is no address.
func (c blockChange) checkRest() error {
	if step := c.next.Sequence - c.old.Sequence; step > maxSequenceStep { // also if it went back
		return fmt.Errorf("its sequence number goes from %d to %d", c.old.Sequence, c.next.Sequence)
	}
	if !maps.EqualFunc(c.old.extra, c.next.extra, func(a, b rawJSON) bool { return bytes.Equal(a, b) }) {
		return errors.New("fields that nobody knows were changed")
	}
	// Damage that is there stays possible to work around.
	if list := c.next.contradictions(); len(list) > 0 && len(c.old.contradictions()) == 0 {
		return errors.New(list[0])
	}
	return nil
}

// checkUses judges each address.
func (c blockChange) checkUses(w store.HostWrite) error {
	var taken bool
	for ord := range c.next.slots {
		was, is := c.old.attr(ord), c.next.attr(ord)
		addr := c.next.Addr(ord)
		switch {
		case was == nil && is == nil:
			continue
		case was != nil && is != nil && was.equal(is):
			if c.old.seqs[ord] != c.next.seqs[ord] && !c.owns(c.old, was) {
				return fmt.Errorf("%s is not this host's", addr)
			}
			continue
		case was != nil && was.ReleasedAt.IsZero() && !c.owns(c.old, was):
			return fmt.Errorf("%s is not this host's", addr)
		case is == nil:
			continue // given up, or released long ago
		case !is.ReleasedAt.IsZero():
			if was == nil || is.Handle != "" || len(is.Owner)+len(is.Alternate)+len(is.extra) > 0 {
				return fmt.Errorf("%s is released without having been this host's", addr)
			}
			continue
		case is.Owner[AttrNode] != c.host || !c.owns(c.next, is):
			return fmt.Errorf("%s is taken, and not for this host", addr)
		}
		if host, is := tunnelHost(is.Handle); is && host != c.host {
			return fmt.Errorf("%s is taken by the handle of host %s's tunnel", addr, host)
		}
		taken = taken || was == nil || !was.ReleasedAt.IsZero()
	}
	if taken && c.next.Affinity != c.mine() {
		return c.mayBorrow(w)
	}
	return nil
}

// mayBorrow asks the configuration whether hosts take addresses of blocks that
// are not theirs.
func (c blockChange) mayBorrow(w store.HostWrite) error {
	conf, err := configuration(w)
	if err == nil && conf.StrictAffinity {
		return fmt.Errorf("it is %s: %w, and affinity is strict", affinityOrNone(c.next.Affinity), ErrStrictAffinity)
	}
	return err
}

// equal reports whether two attributes say the same.
func (a *Attribute) equal(o *Attribute) bool {
	return a.Handle == o.Handle && a.ReleasedAt.Equal(o.ReleasedAt) && maps.Equal(a.Owner, o.Owner) &&
		maps.Equal(a.Alternate, o.Alternate) &&
		maps.EqualFunc(a.extra, o.extra, func(x, y rawJSON) bool { return bytes.Equal(x, y) })
}

// tunnelHost says whose tunnel address a handle is for, if it is for one.
func tunnelHost(handle string) (host string, ok bool) {
	for _, kind := range []string{TypeIPIPTunnel, TypeVXLANTunnel, TypeVXLANV6Tunnel, TypeWireguardTunnel, TypeWireguardV6Tunnel} {
		if host, ok = strings.CutPrefix(handle, TunnelHandle(kind, "")); ok {
			return host, true
		}
	}
	return "", false
}

// checkHandleWrite judges a handle by the addresses that have it.
func checkHandleWrite(w store.HostWrite, id string) error {
	if host, is := tunnelHost(id); is && host != w.Host {
		return fmt.Errorf("handle %q is that of host %s's tunnel", id, host)
	}
	blocks := map[netip.Prefix]int{}
	if w.Old != nil {
		h, err := decodeHandle(w.Old)
		if err != nil {
			return fmt.Errorf("handle %q: it cannot be seen what is in it: %w", id, err)
		}
		maps.Copy(blocks, h.blocks)
	}
	if w.New != nil {
		h, err := decodeHandle(w.New)
		if err != nil {
			return fmt.Errorf("handle %q: %w", id, err)
		}
		if !bytes.Equal(h.encode(), w.New) || h.gone || likeAny(h.extra, []string{"block", "deleted"}) {
			return fmt.Errorf("handle %q is not written as agents write it", id)
		}
		maps.Copy(blocks, h.blocks)
	}
	if len(blocks) > maxHandleBlocks {
		return fmt.Errorf("handle %q has addresses in %d blocks", id, len(blocks))
	}
	for _, cidr := range slices.SortedFunc(maps.Keys(blocks), netip.Prefix.Compare) {
		list, err := w.List(store.BlockKey(cidr))
		if err != nil {
			return err
		}
		for _, kv := range list {
			if kv.Key != store.BlockKey(cidr) {
				continue
			}
			b, err := decodeBlockAt(cidr, kv.Value)
			if err != nil {
				return fmt.Errorf("handle %q: %w", id, err)
			}
			for _, ord := range b.ordinalsOf(id) {
				if !owns(w.Host, b, b.attr(ord)) {
					return fmt.Errorf("handle %q has %s, which is not this host's", id, b.Addr(ord))
				}
			}
		}
	}
	return nil
}
