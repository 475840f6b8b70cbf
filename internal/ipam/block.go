package ipam

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/brindle-net/brindle/internal/prefix"
)

// MaxBlockAddrs is the most addresses that a block has: /20 and /116.
const MaxBlockAddrs = 4096

// free stands in Block.slots for an address that nobody has.
const free = -1

// Attribute says who has an address, or had it until ReleasedAt.
type Attribute struct {
	Handle     string            // "" if it has none or was released
	Owner      map[string]string // who uses the address: pod, namespace, node, timestamp, type…
	Alternate  map[string]string // a second owner, while a virtual machine moves
	ReleasedAt time.Time         // zero while the address is in use

	extra map[string]rawJSON // fields that we do not know
	text  []byte             // as it is stored, once it was; whoever changes the rest clears it
}

// Block is one block of addresses. Addresses are counted from the first of
// the block: that count is the ordinal. A Block is not safe for concurrent
// use; the package never hands out one that it goes on using.
type Block struct {
	CIDR      netip.Prefix
	Affinity  string    // "host:n1", "virtual:load-balancer", "" for none
	ClaimTime time.Time // when the affinity was claimed; zero in old blocks
	Sequence  uint64    // grows with every write

	slots []int // per ordinal the index of its attribute, or free
	queue []int // free ordinals, the longest free first
	attrs []Attribute
	seqs  map[int]uint64 // per used ordinal the block's Sequence at assignment
	gone  bool           // marked as deleted
	extra map[string]rawJSON
}

// HostAffinity returns what stands in Block.Affinity for a host.
func HostAffinity(host string) string { return "host:" + host }

// newBlock returns an empty block. Its sequence starts at the time, so that a
// block that is deleted and made again does not repeat old numbers.
func newBlock(cidr netip.Prefix, affinity string, now time.Time) *Block {
	n := int(prefix.SizeCapped(cidr))
	b := &Block{
		CIDR:      cidr,
		Affinity:  affinity,
		ClaimTime: now.UTC().Truncate(time.Second),
		Sequence:  uint64(now.UnixNano()),
		slots:     make([]int, n),
		queue:     make([]int, n),
		seqs:      map[int]uint64{},
	}
	for i := range n {
		b.slots[i], b.queue[i] = free, i
	}
	return b
}

// clone returns a copy that shares nothing that changes.
func (b *Block) clone() *Block {
	c := *b
	c.slots = slices.Clone(b.slots)
	c.queue = slices.Clone(b.queue)
	c.attrs = slices.Clone(b.attrs) // the maps inside are never changed
	c.seqs = maps.Clone(b.seqs)
	return &c
}

// Host returns the host that the block belongs to, "" if it belongs to none.
func (b *Block) Host() string { return affinityOwner(b.Affinity, "host:") }

// Virtual returns the virtual owner of the block, "" if it has none.
func (b *Block) Virtual() string { return affinityOwner(b.Affinity, "virtual:") }

func affinityOwner(affinity, kind string) string {
	if len(affinity) > len(kind) && affinity[:len(kind)] == kind {
		return affinity[len(kind):]
	}
	return ""
}

// Addr returns the address with this ordinal.
func (b *Block) Addr(ordinal int) netip.Addr {
	a, _ := prefix.NthAddr(b.CIDR, uint64(ordinal))
	return a
}

// ordinal is the inverse of Addr.
func (b *Block) ordinal(a netip.Addr) (int, bool) {
	n, ok := prefix.Ordinal(b.CIDR, a)
	return int(n), ok && n < uint64(len(b.slots))
}

// attr returns the attribute of an ordinal, nil when it is free.
func (b *Block) attr(ordinal int) *Attribute {
	if i := b.slots[ordinal]; i != free {
		return &b.attrs[i]
	}
	return nil
}

// Use is one address of a block that is not free.
type Use struct {
	Addr      netip.Addr
	Attribute Attribute
	Sequence  uint64 // 0 in data that is older than sequence numbers
}

// CoolingDown reports whether the address has been released and waits before
// it may be used again.
func (u Use) CoolingDown() bool { return !u.Attribute.ReleasedAt.IsZero() }

// Uses lists the addresses that are not free, in order.
func (b *Block) Uses() []Use {
	var uses []Use
	for ord := range b.slots {
		if at := b.attr(ord); at != nil {
			uses = append(uses, Use{Addr: b.Addr(ord), Sequence: b.seqs[ord], Attribute: *at})
		}
	}
	return uses
}

// empty reports whether nobody has an address of the block, not even one that
// is cooling down. What a host's operating system keeps for itself does not
// count.
func (b *Block) empty() bool {
	for ord := range b.slots {
		if at := b.attr(ord); at != nil && at.Handle != WindowsReservedHandle {
			return false
		}
	}
	return true
}

// WindowsReservedHandle is the handle of the addresses that Windows hosts keep
// back in each of their blocks.
const WindowsReservedHandle = "windows-reserved-ipam-handle"
