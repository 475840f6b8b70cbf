// Package prefix does the arithmetic of IP prefixes that net/netip leaves
// out: blocks of a pool, ranges, sums of overlapping prefixes, and a table
// that finds the longest prefix for an address.
//
// An IPv4 address written as IPv6 (::ffff:192.0.2.1) is the same address, but
// netip keeps the two apart, so that a check of one form can be passed by
// with the other. Here the parsers refuse the IPv6 form, and everything else
// takes it for the IPv4 address that it means. Zones have no place in a
// prefix: parsers refuse them, the rest ignores them.
package prefix

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// What can be wrong with the text of a prefix or an address.
var (
	ErrSyntax   = errors.New("not an IP address or prefix")
	ErrHostBits = errors.New("bits are set beyond the length of the prefix")
	ErrMapped   = errors.New("IPv4 address written as IPv6")
	ErrZone     = errors.New("a zone is not allowed")
)

// Error says why a text is no prefix, address or range.
type Error struct {
	Input string
	Err   error  // ErrSyntax, ErrHostBits, ErrMapped or ErrZone
	Fix   string // what was probably meant; "" if no guess is good
}

// Error gives all of it in one line, safe to print.
func (e *Error) Error() string {
	s := strconv.Quote(e.Input) + ": " + e.Err.Error()
	if e.Fix != "" {
		s += ": write " + e.Fix
	}
	return s
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// Parse reads a prefix ("10.0.0.0/8") or an address, which is the prefix of
// its full length. Bits beyond the length are an error. Each error of this
// package's parsers is an *Error.
func Parse(s string) (netip.Prefix, error) {
	p, err := ParseInterface(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	if m := p.Masked(); m != p {
		return netip.Prefix{}, &Error{Input: s, Err: ErrHostBits, Fix: m.String()}
	}
	return p, nil
}

// ParseLoose is Parse, but clears bits beyond the length of the prefix.
func ParseLoose(s string) (netip.Prefix, error) {
	p, err := ParseInterface(s)
	return p.Masked(), err
}

// ParseInterface reads the address of an interface with the length of its
// subnet ("192.0.2.7/24"), and keeps the whole address. Without a length it
// is the full one.
func ParseInterface(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil && strings.Contains(s, "%"):
		return netip.Prefix{}, &Error{Input: s, Err: ErrZone}
	case err != nil:
		return netip.Prefix{}, &Error{Input: s, Err: ErrSyntax}
	case p.Addr().Is4In6():
		return netip.Prefix{}, &Error{Input: s, Err: ErrMapped, Fix: mappedMeans(p)}
	}
	return p, nil
}

// ParseAddr reads one address.
func ParseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return netip.Addr{}, &Error{Input: s, Err: ErrSyntax}
	case a.Zone() != "":
		return netip.Addr{}, &Error{Input: s, Err: ErrZone, Fix: a.WithZone("").String()}
	case a.Is4In6():
		return netip.Addr{}, &Error{Input: s, Err: ErrMapped, Fix: a.Unmap().String()}
	}
	return a, nil
}

// mappedMeans returns what the writer of an IPv4-mapped prefix meant.
func mappedMeans(p netip.Prefix) string {
	if p.Bits() < 96 {
		return ""
	}
	return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).String()
}

// Canonical returns p masked and, where it lies within the IPv4-mapped
// addresses, as the IPv4 prefix that it means. An invalid prefix stays one.
func Canonical(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

// canonicalAddr is Canonical for one address.
func canonicalAddr(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// Host returns the prefix that holds just a: /32 or /128.
func Host(a netip.Addr) netip.Prefix {
	a = canonicalAddr(a)
	return netip.PrefixFrom(a, a.BitLen())
}

// First returns the lowest address of p.
func First(p netip.Prefix) netip.Addr { return Canonical(p).Addr() }

// Last returns the highest address of p; for IPv4 that is the broadcast
// address. It is invalid if p is.
func Last(p netip.Prefix) netip.Addr {
	p = Canonical(p)
	if !p.IsValid() {
		return netip.Addr{}
	}
	return fromNum(toNum(p.Addr()).or(hostMask(p)), p.Addr().Is4())
}

// Contains reports whether every address of inner is one of outer. No prefix
// is within an invalid one, nor the other way round.
func Contains(outer, inner netip.Prefix) bool {
	outer, inner = Canonical(outer), Canonical(inner)
	return outer.IsValid() && inner.IsValid() && outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// Overlaps reports whether a and b have an address in common.
func Overlaps(a, b netip.Prefix) bool { return Canonical(a).Overlaps(Canonical(b)) }

// Has reports whether a is an address of p.
func Has(p netip.Prefix, a netip.Addr) bool { return Canonical(p).Contains(canonicalAddr(a)) }
