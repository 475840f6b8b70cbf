package rules

import (
	"cmp"
	"net/netip"
	"slices"
)

// netSet is prefixes of one family, some of which may lie in others. Two
// prefixes never overlap in part, so the outermost ones are disjoint.
type netSet struct {
	in      map[netip.Prefix]struct{}
	lengths [129]int // how many have this length
	wide    int      // how many are no single address
}

func newNetSet() netSet { return netSet{in: map[netip.Prefix]struct{}{}} }

func (s *netSet) has(p netip.Prefix) bool { _, ok := s.in[p]; return ok }

// add reports whether p was not there.
func (s *netSet) add(p netip.Prefix) bool {
	if s.has(p) {
		return false
	}
	s.in[p] = struct{}{}
	s.lengths[p.Bits()]++
	if !p.IsSingleIP() {
		s.wide++
	}
	return true
}

// remove reports whether p was there.
func (s *netSet) remove(p netip.Prefix) bool {
	if !s.has(p) {
		return false
	}
	delete(s.in, p)
	s.lengths[p.Bits()]--
	if !p.IsSingleIP() {
		s.wide--
	}
	return true
}

// covered reports whether another prefix of the set has all of p.
func (s *netSet) covered(p netip.Prefix) bool {
	for n := p.Bits() - 1; n >= 0; n-- {
		if s.lengths[n] == 0 {
			continue
		}
		if wider, err := p.Addr().Prefix(n); err == nil && s.has(wider) {
			return true
		}
	}
	return false
}

// outermost returns the prefixes that no other has, in order.
func (s *netSet) outermost() []netip.Prefix {
	all := make([]netip.Prefix, 0, len(s.in))
	for p := range s.in {
		all = append(all, p)
	}
	return outermost(all)
}

// outermostIn is outermost of those that lie in p, without p.
func (s *netSet) outermostIn(p netip.Prefix) []netip.Prefix {
	if p.IsSingleIP() {
		return nil
	}
	var in []netip.Prefix
	for q := range s.in {
		if q.Bits() > p.Bits() && p.Contains(q.Addr()) {
			in = append(in, q)
		}
	}
	return outermost(in)
}

// outermost sorts prefixes of one family and leaves out those that lie in
// another.
func outermost(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []netip.Prefix
	for _, p := range list {
		if n := len(out); n > 0 && out[n-1].Contains(p.Addr()) {
			continue
		}
		out = append(out, p)
	}
	return out
}

// canonical masks a prefix, and writes IPv4 in IPv6 as IPv4.
func canonical(p netip.Prefix) netip.Prefix {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

// addressRanges returns the addresses of the prefixes of a family as disjoint
// ranges in order, those that touch joined.
func addressRanges(list []netip.Prefix, f family) []Range {
	var ranges []Range
	for _, p := range list {
		if p = canonical(p); familyOf(p.Addr()) == f {
			ranges = append(ranges, prefixRange(p))
		}
	}
	return joined(ranges)
}

// joined makes ranges of values of one length disjoint and sorts them.
func joined(ranges []Range) []Range {
	slices.SortFunc(ranges, func(a, b Range) int { return cmp.Or(cmp.Compare(a.Lo, b.Lo), cmp.Compare(a.Hi, b.Hi)) })
	out := ranges[:0]
	for _, r := range ranges {
		if n := len(out); n > 0 && (r.Lo <= out[n-1].Hi || r.Lo == successor(out[n-1].Hi)) {
			out[n-1].Hi = max(out[n-1].Hi, r.Hi)
			continue
		}
		out = append(out, r)
	}
	return out
}

// successor is the next value of the same length; "" after the last.
func successor(v string) string {
	b := []byte(v)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return string(b)
		}
	}
	return ""
}

// everything reports whether the ranges have every value.
func everything(ranges []Range) bool {
	if len(ranges) != 1 {
		return false
	}
	for i := range ranges[0].Lo {
		if ranges[0].Lo[i] != 0 || ranges[0].Hi[i] != 0xff {
			return false
		}
	}
	return true
}

func prefixRange(p netip.Prefix) Range {
	lo := p.Addr().AsSlice()
	hi := slices.Clone(lo)
	for i := p.Bits(); i < len(hi)*8; i++ {
		hi[i/8] |= 0x80 >> (i % 8)
	}
	return Range{string(lo), string(hi)}
}

func addrBytes(a netip.Addr) string { return string(a.AsSlice()) }

func portBytes(p uint16) string { return string([]byte{byte(p >> 8), byte(p)}) }
