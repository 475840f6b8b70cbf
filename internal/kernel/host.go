package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// An Interface is one network interface of the host with its addresses.
type Interface struct {
	Index     int
	Name      string
	Kind      string // "veth", "bridge", "vxlan"…; "" for hardware
	Alias     string
	MAC       net.HardwareAddr
	MTU       int // bytes
	Up        bool
	Loopback  bool
	Addresses []netip.Prefix // in the kernel's order; IPv6 without tentative, deprecated and temporary ones
}

// ours reports whether the interface is one of a workload or a tunnel.
func (i Interface) ours() bool { return strings.HasPrefix(i.Alias, aliasPrefix) || tunnelName(i.Name) }

// unfit marks IPv6 addresses that no other host may count on.
const unfit = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED | unix.IFA_F_TEMPORARY

// Interfaces reads all interfaces, by number.
func (k *Kernel) Interfaces() ([]Interface, error) {
	var links []linkInfo
	var addresses []addressMessage
	err := k.with(func(c *rtnl.Conn) (err error) {
		if links, err = readLinks(c); err != nil {
			return err
		}
		addresses, err = readAddresses(c)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]Interface, 0, len(links))
	for _, l := range links {
		i := Interface{
			Index: l.Index, Name: l.Name, Kind: l.Kind, Alias: l.Alias, MAC: l.MAC, MTU: l.MTU,
			Up: l.up(), Loopback: l.Flags&unix.IFF_LOOPBACK != 0,
		}
		for _, a := range addresses {
			if a.Index == l.Index && (a.Prefix.Addr().Is4() || a.Flags&unfit == 0) {
				i.Addresses = append(i.Addresses, a.Prefix)
			}
		}
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b Interface) int { return cmp.Compare(a.Index, b.Index) })
	return out, nil
}

// LocalAddresses reads all addresses of the host, sorted, without repetition.
func (k *Kernel) LocalAddresses() ([]netip.Addr, error) {
	var all []addressMessage
	err := k.with(func(c *rtnl.Conn) (err error) {
		all, err = readAddresses(c)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]netip.Addr, 0, len(all))
	for _, a := range all {
		out = append(out, a.Prefix.Addr())
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

// fewAddresses is up to how many addresses are asked for one by one: a host of
// many workloads has an address for each of their interfaces.
const fewAddresses = 32

// OwnAddresses reports which of these addresses are the host's own.
func (k *Kernel) OwnAddresses(of []netip.Addr) (map[netip.Addr]bool, error) {
	out := map[netip.Addr]bool{}
	// Of a link-local address no route says whose it is.
	if len(of) > fewAddresses || slices.ContainsFunc(of, netip.Addr.IsLinkLocalUnicast) {
		all, err := k.LocalAddresses()
		for _, a := range all {
			out[a] = true
		}
		return out, err
	}
	for _, a := range of {
		var r routeMessage
		err := k.with(func(c *rtnl.Conn) (err error) {
			r, err = readWay(c, a)
			return err
		})
		switch {
		case nowhere(err):
		case err != nil:
			return nil, fmt.Errorf("whether %v is an address of this host: %w", a, err)
		case r.Type == unix.RTN_LOCAL:
			out[a] = true
		}
	}
	return out, nil
}

// IndexOf returns the number of an interface. The error wraps ErrNoLink when
// there is none of that name.
func (k *Kernel) IndexOf(name string) (int, error) { return indexOf(k.ioctl, name) }

// NameOf returns the name of an interface. The error wraps ErrNoLink when
// there is none of that number.
func (k *Kernel) NameOf(index int) (string, error) { return nameOf(k.ioctl, index) }

// HostMTU returns what the function of that name finds among the interfaces of
// now.
func (k *Kernel) HostMTU(match *regexp.Regexp) (int, error) {
	interfaces, err := k.Interfaces()
	if err != nil {
		return 0, err
	}
	return HostMTU(interfaces, match), nil
}

// DetectAddress finds the addresses that satisfy a method in the form that
// ParseMethod reads, the one that it chooses first. See Method.Find.
func (k *Kernel) DetectAddress(ctx context.Context, method string, q Query) ([]Candidate, error) {
	m, err := ParseMethod(method)
	if err != nil {
		return nil, err
	}
	interfaces, err := k.Interfaces()
	if err != nil {
		return nil, err
	}
	if q.Reach == nil {
		q.Reach = k.Reach
	}
	return m.Find(ctx, interfaces, q)
}

// Candidates lists every address that this host may be known by in a family (4
// or 6), on interfaces that are up and none of ours, the newest first.
func (k *Kernel) Candidates(family int) ([]Candidate, error) {
	interfaces, err := k.Interfaces()
	if err != nil {
		return nil, err
	}
	interfaces = slices.DeleteFunc(interfaces, func(i Interface) bool { return i.ours() || i.Loopback })
	return pick(interfaces, family, func(Interface) bool { return true }, func(netip.Addr) bool { return true }), nil
}

// CompleteAddress gives an address the prefix length that its interface says,
// or makes it a single address when no interface holds it.
func (k *Kernel) CompleteAddress(a netip.Addr) (netip.Prefix, error) {
	interfaces, err := k.Interfaces()
	if err != nil {
		return netip.Prefix{}, err
	}
	return WithPrefix(interfaces, a), nil
}

// Networks returns the networks that the host is in: those of all its
// addresses but loopback, link-local ones and those of workloads and tunnels,
// sorted.
func (k *Kernel) Networks() ([]netip.Prefix, error) {
	interfaces, err := k.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, i := range interfaces {
		if i.Loopback || i.ours() {
			continue
		}
		for _, p := range i.Addresses {
			if !p.Addr().IsLinkLocalUnicast() {
				out = append(out, p.Masked())
			}
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out), nil
}

// StrictPaths returns those of these interfaces at which the kernel believes an
// IPv4 source only if packets to it leave by the same interface: where the
// greater of rp_filter for all and for the interface is 1 (RFC 3704, 2.2). One
// that there is not is not among them.
func (k *Kernel) StrictPaths(names []string) ([]string, error) {
	var out []string
	err := k.inside(func() error {
		for _, name := range names {
			most := 0
			for _, of := range []string{"all", name} {
				text, err := readSysctl("net/ipv4/conf/" + of + "/rp_filter")
				if errors.Is(err, os.ErrNotExist) {
					most = 0
					break
				}
				if err != nil {
					return err
				}
				n, err := strconv.Atoi(text)
				if err != nil {
					return fmt.Errorf("rp_filter of %s: %w", of, err)
				}
				most = max(most, n)
			}
			if most == 1 {
				out = append(out, name)
			}
		}
		return nil
	})
	return out, err
}
