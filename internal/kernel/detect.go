package kernel

import (
	"cmp"
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
	kubernetesInternalIP
)

// ParseMethod reads "first-found" (also ""), "interface=REGEX,…",
// "skip-interface=REGEX,…", "cidr=CIDR,…", "can-reach=HOST" or
// "kubernetes-internal-ip".
func ParseMethod(text string) (Method, error) {
	fail := func(err error) (Method, error) {
		return Method{}, fmt.Errorf("address detection method %q: %w", text, err)
	}
	name, value, _ := strings.Cut(text, "=")
	m := Method{text: text}
	switch name {
	case "", "first-found", "kubernetes-internal-ip":
		if strings.Contains(text, "=") {
			return fail(fmt.Errorf("%s takes no value", name))
		}
		m.text = cmp.Or(name, "first-found")
		if name == "kubernetes-internal-ip" {
			m.kind = kubernetesInternalIP
		}
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
		return fail(errors.New("must be first-found, can-reach=HOST, interface=REGEX, skip-interface=REGEX, cidr=CIDR or kubernetes-internal-ip"))
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

// A Query says whose address is looked for.
type Query struct {
	Family   int          // 4 or 6
	Internal []netip.Addr // what the host's Node says are its internal addresses
	Reach    Reach        // nil: Kernel.Reach
}

// A Candidate is an address that a host may be known by, with the length of
// its subnet and the interface that has it, "" if none has.
type Candidate struct {
	Address   netip.Prefix
	Interface string
}

// String writes it for people: "192.0.2.1/24 on eth0".
func (c Candidate) String() string {
	if c.Interface == "" {
		return c.Address.String()
	}
	return c.Address.String() + " on " + c.Interface
}

// Find returns the addresses that satisfy the method among interfaces, the one
// that it chooses first. Only can-reach looks beyond them: it asks for the
// source address of a connection. An address on the interface of a workload or
// tunnel is none of the host's. The error wraps ErrNoAddress when nothing fits.
func (m Method) Find(ctx context.Context, interfaces []Interface, q Query) ([]Candidate, error) {
	var found []Candidate
	all := interfaces
	interfaces = slices.DeleteFunc(slices.Clone(all), Interface.ours)
	every := func(netip.Addr) bool { return true }
	switch m.kind {
	case firstFound:
		found = pick(interfaces, q.Family, func(i Interface) bool { return !skipped(i.Name, nil) }, every)
	case skipInterface:
		found = pick(interfaces, q.Family, func(i Interface) bool { return !skipped(i.Name, m.match) }, every)
	case byInterface:
		for _, re := range m.match {
			found = append(found, pick(interfaces, q.Family, func(i Interface) bool { return re.MatchString(i.Name) }, every)...)
		}
	case byCIDR:
		inside := func(a netip.Addr) bool {
			return slices.ContainsFunc(m.cidrs, func(c netip.Prefix) bool { return c.Contains(a) })
		}
		found = pick(interfaces, q.Family, func(Interface) bool { return true }, inside)
	case canReach:
		source, err := q.Reach(ctx, m.reach, q.Family)
		if err != nil {
			return nil, fmt.Errorf("detect the IPv%d address by %s: %w", q.Family, m.text, err)
		}
		found = withoutTunnels(interfaces, all, source)
	case kubernetesInternalIP:
		for _, a := range q.Internal {
			if a.Is4() == (q.Family == 4) {
				found = append(found, withoutTunnels(interfaces, all, a)...)
			}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("detect the IPv%d address by %s: %w", q.Family, m.text, ErrNoAddress)
	}
	return found, nil
}

// withoutTunnels completes an address, but gives nothing for one that only one
// of our own interfaces has.
func withoutTunnels(interfaces, all []Interface, a netip.Addr) []Candidate {
	if !a.IsValid() || holder(all, a) != "" && holder(interfaces, a) == "" {
		return nil
	}
	return []Candidate{{WithPrefix(interfaces, a), holder(interfaces, a)}}
}

// holder is the name of the interface that has an address, "" if none has.
func holder(interfaces []Interface, a netip.Addr) string {
	for _, i := range interfaces {
		if slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return i.Name
		}
	}
	return ""
}

// pick returns the addresses that a host can be known by, those of the newest
// interface first.
func pick(interfaces []Interface, family int, on func(Interface) bool, fits func(netip.Addr) bool) []Candidate {
	var out []Candidate
	for _, i := range newestFirst(interfaces) {
		if !i.Up || !on(i) {
			continue
		}
		for _, p := range i.Addresses {
			if usable(p.Addr(), family) && fits(p.Addr()) {
				out = append(out, Candidate{p, i.Name})
			}
		}
	}
	return out
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
