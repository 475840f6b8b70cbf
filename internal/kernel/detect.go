package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// FallbackMTU is the host's MTU where no interface matches (documented Calico
// behaviour).
const FallbackMTU = 1460

// ErrNoAddress says that no address of the host satisfies a detection method.
var ErrNoAddress = errors.New("no address found")

// HostMTU returns the smallest MTU of the interfaces that are up and whose
// name matches, without those of workloads and tunnels, whose MTU is made of
// it; FallbackMTU when there is none.
func HostMTU(interfaces []Interface, match *regexp.Regexp) int {
	smallest := 0
	for _, i := range interfaces {
		if i.Up && i.MTU > 0 && !i.ours() && match.MatchString(i.Name) && (smallest == 0 || i.MTU < smallest) {
			smallest = i.MTU
		}
	}
	if smallest == 0 {
		return FallbackMTU
	}
	return smallest
}

// skippedInterfaces are those on which the host's own address is never looked
// for (documented Calico behaviour): made by container engines, by other
// networks and by us.
const skippedInterfaces = `^docker.*|^cbr.*|^dummy.*|^podman.*|^virbr.*|^lxcbr.*|^veth.*|^lo|^br-.*|^cali.*|^tunl.*|` +
	`^flannel.*|^kube-ipvs.*|^cni.*|^vxlan\.calico.*|^vxlan-v6\.calico.*|^wireguard\.cali.*|^wg-v6\.cali.*|^nodelocaldns.*`

// A Method is a way of finding the host's own address, as in
// IP_AUTODETECTION_METHOD (documented Calico behaviour).
type Method struct {
	text  string
	kind  methodKind
	match []*regexp.Regexp // interface=, skip-interface=
	cidrs []netip.Prefix   // cidr=
	reach string           // can-reach=
}

type methodKind int

const (
	firstFound methodKind = iota
	byInterface
	skipInterface
	byCIDR
	canReach
)

// ParseMethod reads "first-found" (also ""), "interface=REGEX,…",
// "skip-interface=REGEX,…", "cidr=CIDR,…" or "can-reach=HOST".
func ParseMethod(text string) (Method, error) {
	fail := func(err error) (Method, error) {
		return Method{}, fmt.Errorf("address detection method %q: %w", text, err)
	}
	name, value, _ := strings.Cut(text, "=")
	m := Method{text: text}
	switch name {
	case "", "first-found":
		if value != "" {
			return fail(errors.New("first-found takes no value"))
		}
		m.text = "first-found"
		return m, nil
	case "interface":
		m.kind = byInterface
	case "skip-interface":
		m.kind = skipInterface
	case "cidr":
		m.kind = byCIDR
	case "can-reach":
		m.kind, m.reach = canReach, value
	default:
		return fail(errors.New("must be first-found, can-reach=HOST, interface=REGEX, skip-interface=REGEX or cidr=CIDR"))
	}
	if value == "" {
		return fail(errors.New("needs a value after ="))
	}
	if m.kind == canReach {
		return m, nil
	}
	for _, part := range strings.Split(value, ",") {
		var err error
		if m.kind == byCIDR {
			var p netip.Prefix
			p, err = netip.ParsePrefix(strings.TrimSpace(part))
			m.cidrs = append(m.cidrs, p)
		} else {
			var re *regexp.Regexp
			re, err = regexp.Compile(strings.TrimSpace(part))
			m.match = append(m.match, re)
		}
		if err != nil {
			return fail(err)
		}
	}
	return m, nil
}

// String returns the method as it was written.
func (m Method) String() string { return m.text }

// Find returns the host's address of a family (4 or 6) with its prefix among
// interfaces. Only can-reach looks beyond them: it asks reach for the source
// address of a connection. An address on the interface of a workload or tunnel
// is none of the host's. The error wraps ErrNoAddress when nothing fits.
func (m Method) Find(ctx context.Context, interfaces []Interface, family int, reach Reach) (netip.Prefix, error) {
	found, err := netip.Prefix{}, error(nil)
	all := interfaces
	interfaces = slices.DeleteFunc(slices.Clone(all), Interface.ours)
	switch m.kind {
	case firstFound:
		found = pick(interfaces, family, func(i Interface) bool { return !skipped(i.Name, nil) })
	case skipInterface:
		found = pick(interfaces, family, func(i Interface) bool { return !skipped(i.Name, m.match) })
	case byInterface:
		for _, re := range m.match {
			found = pick(interfaces, family, func(i Interface) bool { return re.MatchString(i.Name) })
			if found.IsValid() {
				break
			}
		}
	case byCIDR:
		found = m.inCIDR(interfaces, family)
	case canReach:
		var source netip.Addr
		if source, err = reach(ctx, m.reach, family); err == nil {
			found = withoutTunnels(interfaces, all, source)
		}
	}
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("detect the IPv%d address by %s: %w", family, m.text, err)
	}
	if !found.IsValid() {
		return netip.Prefix{}, fmt.Errorf("detect the IPv%d address by %s: %w", family, m.text, ErrNoAddress)
	}
	return found, nil
}

// withoutTunnels is WithPrefix, but nothing for an address that only one of
// our own interfaces has.
func withoutTunnels(interfaces, all []Interface, a netip.Addr) netip.Prefix {
	has := func(i Interface) bool {
		return slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
	}
	if slices.ContainsFunc(all, has) && !slices.ContainsFunc(interfaces, has) {
		return netip.Prefix{}
	}
	return WithPrefix(interfaces, a)
}

// pick returns the first address that a host can be known by, on the newest
// interface first.
func pick(interfaces []Interface, family int, fits func(Interface) bool) netip.Prefix {
	for _, i := range newestFirst(interfaces) {
		if !i.Up || !fits(i) {
			continue
		}
		for _, p := range i.Addresses {
			if usable(p.Addr(), family) {
				return p
			}
		}
	}
	return netip.Prefix{}
}

func (m Method) inCIDR(interfaces []Interface, family int) netip.Prefix {
	for _, i := range newestFirst(interfaces) {
		for _, p := range i.Addresses {
			inside := slices.ContainsFunc(m.cidrs, func(c netip.Prefix) bool { return c.Contains(p.Addr()) })
			if i.Up && inside && usable(p.Addr(), family) {
				return p
			}
		}
	}
	return netip.Prefix{}
}

func newestFirst(interfaces []Interface) []Interface {
	out := slices.Clone(interfaces)
	slices.SortStableFunc(out, func(a, b Interface) int { return b.Index - a.Index })
	return out
}

func usable(a netip.Addr, family int) bool {
	return a.Is4() == (family == 4) && a.IsGlobalUnicast()
}

func skipped(name string, more []*regexp.Regexp) bool {
	return regexp.MustCompile(skippedInterfaces).MatchString(name) ||
		slices.ContainsFunc(more, func(re *regexp.Regexp) bool { return re.MatchString(name) })
}

// WithPrefix returns an address with the prefix length that the interface
// which holds it says; a single address when none holds it; nothing for no
// address.
func WithPrefix(interfaces []Interface, a netip.Addr) netip.Prefix {
	if !a.IsValid() {
		return netip.Prefix{}
	}
	for _, i := range interfaces {
		for _, p := range i.Addresses {
			if p.Addr() == a {
				return p
			}
		}
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// ParseExplicit reads an address that was given by hand, with or without a
// prefix length; a missing one is filled in from the interface that holds the
// address.
func ParseExplicit(interfaces []Interface, text string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("address %q: must be an address or an address/length", text)
	}
	return WithPrefix(interfaces, a), nil
}

// A Reach returns the address from which host would be reached in a family (4
// or 6).
type Reach func(ctx context.Context, host string, family int) (netip.Addr, error)

// Reach asks the kernel, by connecting a UDP socket: no packet is sent.
func (k *Kernel) Reach(ctx context.Context, host string, family int) (netip.Addr, error) {
	source := netip.Addr{}
	err := k.inside(func() error {
		c, err := new(net.Dialer).DialContext(ctx, fmt.Sprintf("udp%d", family), net.JoinHostPort(host, "80"))
		if err != nil {
			return err
		}
		if a, ok := c.LocalAddr().(*net.UDPAddr); ok {
			source = a.AddrPort().Addr().Unmap().WithZone("")
		}
		return c.Close()
	})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the way to %s: %w", host, err)
	}
	return source, nil
}
