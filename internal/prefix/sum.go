package prefix

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Range is the addresses from From to To, both included. Both are of one
// family and From is not above To.
type Range struct{ From, To netip.Addr }

// RangeOf returns the addresses of p as a range.
func RangeOf(p netip.Prefix) Range { return Range{First(p), Last(p)} }

// ParseRange reads "FROM-TO", an address or a prefix.
func ParseRange(s string) (Range, error) {
	from, to, ok := strings.Cut(s, "-")
	if !ok {
		p, err := Parse(s)
		return RangeOf(p), err
	}
	a, err := ParseAddr(strings.TrimSpace(from))
	if err != nil {
		return Range{}, fmt.Errorf("range %q: %w", s, err)
	}
	b, err := ParseAddr(strings.TrimSpace(to))
	if err != nil {
		return Range{}, fmt.Errorf("range %q: %w", s, err)
	}
	if r := (Range{a, b}); r.IsValid() {
		return r, nil
	}
	return Range{}, fmt.Errorf("range %q: the first address must be below the last, of the same family: %w", s, ErrSyntax)
}

// IsValid reports whether r is as Range promises.
func (r Range) IsValid() bool {
	return r.From.IsValid() && r.From.BitLen() == r.To.BitLen() && !r.To.Less(r.From)
}

// Contains reports whether a is in r.
func (r Range) Contains(a netip.Addr) bool {
	a = canonicalAddr(a)
	return a.BitLen() == r.From.BitLen() && !a.Less(r.From) && !r.To.Less(a)
}

// String gives "FROM-TO".
func (r Range) String() string { return r.From.String() + "-" + r.To.String() }

// Prefixes returns the fewest prefixes that hold exactly r, in order. An
// invalid range has none. Where the prefix of all IPv4-mapped addresses or a
// part of it would be one of them, it is left out: no packet has such an
// address, and as a prefix it would mean IPv4.
func (r Range) Prefixes() []netip.Prefix {
	if !r.IsValid() {
		return nil
	}
	var out []netip.Prefix
	is4, width := r.From.Is4(), r.From.BitLen()
	for from, to := toNum(r.From), toNum(r.To); ; {
		// As large as the alignment of from and the distance to to allow.
		open := min(from.trailingZeros(), width)
		if left := to.minus(from); left != ones(width) {
			open = min(open, left.next().len()-1)
		}
		if p := netip.PrefixFrom(fromNum(from, is4), width-open); Canonical(p) == p {
			out = append(out, p)
		}
		last := from.or(ones(open))
		if !last.less(to) {
			return out
		}
		from = last.next()
	}
}

// Ranges returns the addresses of all the prefixes as the fewest ranges:
// disjoint, never adjacent, IPv4 first, in order. Invalid prefixes are
// ignored.
func Ranges(prefixes []netip.Prefix) []Range {
	var out []Range
	for _, p := range sorted(prefixes) {
		r := RangeOf(p)
		if n := len(out); n > 0 {
			last := &out[n-1]
			if last.To.BitLen() == r.From.BitLen() && (!last.To.Less(r.From) || last.To.Next() == r.From) {
				if last.To.Less(r.To) {
					last.To = r.To
				}
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// Summarise returns the fewest prefixes that hold exactly the addresses of
// the given ones: disjoint, IPv4 first, in order.
func Summarise(prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range Ranges(prefixes) {
		out = append(out, r.Prefixes()...)
	}
	return out
}

// Disjoint returns the given prefixes in canonical form without those that
// lie within another: disjoint, IPv4 first, in order, none joined.
func Disjoint(prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range sorted(prefixes) {
		if n := len(out); n == 0 || !Contains(out[n-1], p) {
			out = append(out, p)
		}
	}
	return out
}

// Subtract returns the fewest prefixes that hold exactly the addresses that
// are in from and in none of what.
func Subtract(from, what []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	holes := Ranges(what)
	for _, r := range Ranges(from) {
		for len(holes) > 0 && holes[0].To.Less(r.From) {
			holes = holes[1:]
		}
		rest, left := r, true
		for _, h := range holes {
			if rest.To.Less(h.From) {
				break
			}
			if rest.From.Less(h.From) {
				out = append(out, Range{rest.From, h.From.Prev()}.Prefixes()...)
			}
			if !h.To.Less(rest.To) {
				left = false
				break
			}
			rest.From = h.To.Next()
		}
		if left {
			out = append(out, rest.Prefixes()...)
		}
	}
	return out
}

// sorted returns the valid prefixes in canonical form and order, each once.
func sorted(prefixes []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		if p = Canonical(p); p.IsValid() {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}
