package ipam

import (
	"net/netip"

	"github.com/brindle-net/brindle/internal/prefix"
)

// Reserved is a set of addresses that are not assigned automatically. It never
// changes; nil is the empty set.
type Reserved struct {
	cidrs []netip.Prefix // disjoint, sorted
}

// NewReserved returns the addresses in any of the CIDRs, which may overlap.
func NewReserved(cidrs []netip.Prefix) *Reserved {
	return &Reserved{cidrs: prefix.Summarise(cidrs)}
}

// Has reports whether an address is reserved.
func (r *Reserved) Has(a netip.Addr) bool {
	if r == nil {
		return false
	}
	for _, c := range r.cidrs {
		if c.Contains(a) {
			return true
		}
	}
	return false
}

// overlaps reports whether any address of a CIDR is reserved.
func (r *Reserved) overlaps(cidr netip.Prefix) bool {
	if r == nil {
		return false
	}
	for _, c := range r.cidrs {
		if c.Overlaps(cidr) {
			return true
		}
	}
	return false
}

// covering returns the part of the set in which a whole CIDR lies.
func (r *Reserved) covering(cidr netip.Prefix) (netip.Prefix, bool) {
	if r == nil {
		return netip.Prefix{}, false
	}
	for _, c := range r.cidrs {
		if prefix.Contains(c, cidr) {
			return c, true
		}
	}
	return netip.Prefix{}, false
}

// within returns the parts of a CIDR that are reserved, disjoint.
func (r *Reserved) within(cidr netip.Prefix) []netip.Prefix {
	if r == nil {
		return nil
	}
	var parts []netip.Prefix
	for _, c := range r.cidrs {
		switch {
		case prefix.Contains(c, cidr):
			return []netip.Prefix{cidr}
		case prefix.Contains(cidr, c):
			parts = append(parts, c)
		}
	}
	return parts
}
