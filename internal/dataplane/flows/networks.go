package flows

import "net/netip"

// Networks are prefixes of both families, each once. The zero value is empty.
type Networks struct {
	in      map[netip.Prefix]bool
	lengths [129]bool // that some have
}

// Add adds a prefix.
func (n *Networks) Add(p netip.Prefix) {
	if n.in == nil {
		n.in = map[netip.Prefix]bool{}
	}
	n.in[p.Masked()], n.lengths[p.Bits()] = true, true
}

// Len counts them.
func (n *Networks) Len() int { return len(n.in) }

// Contain reports whether an address is in one of them.
func (n *Networks) Contain(a netip.Addr) bool {
	for bits := range a.BitLen() + 1 {
		if !n.lengths[bits] {
			continue
		}
		if p, err := a.Prefix(bits); err == nil && n.in[p] {
			return true
		}
	}
	return false
}
