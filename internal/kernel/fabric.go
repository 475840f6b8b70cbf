package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// A Site is one network namespace whose underlay is being built: the lab's
// hosts, switches and routers. It is not for an agent's own tables, which are
// reconciled.
type Site struct {
	nl *netlink.Handle
	ns *netns.NS
}

// OpenSite opens a namespace for building. The site owns ns from then on.
func OpenSite(ns *netns.NS) (*Site, error) {
	h, err := openHandle(ns)
	if err != nil {
		return nil, err
	}
	return &Site{nl: h, ns: ns}, nil
}

// openHandle opens a routing netlink socket in a namespace.
func openHandle(ns *netns.NS) (*netlink.Handle, error) {
	var h *netlink.Handle
	err := netns.Do(ns, func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return h, nil
}

// Close lets go of the namespace.
func (s *Site) Close() {
	s.nl.Close()
	_ = s.ns.Close() // it was only read from
}

// AddBridge makes a switch and turns it on.
func (s *Site) AddBridge(name string) error {
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := s.nl.LinkAdd(br); err != nil {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	return s.Up(name)
}

// Up turns a link on.
func (s *Site) Up(name string) error {
	link, err := s.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := s.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("turn on link %s: %w", name, err)
	}
	return nil
}

// Join makes a link a port of a bridge.
func (s *Site) Join(name, bridge string) error {
	link, err := s.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	br, err := s.nl.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", bridge, err)
	}
	if err := s.nl.LinkSetMaster(link, br); err != nil {
		return fmt.Errorf("make %s a port of %s: %w", name, bridge, err)
	}
	return nil
}

// Cable connects two sites: the link name in s and peerName in far, both up.
func (s *Site) Cable(name string, far *Site, peerName string) error {
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peerName, PeerNamespace: netlink.NsFd(far.ns.FD()),
	}
	if err := s.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("lay a cable from %s to %s: %w", name, peerName, err)
	}
	return errors.Join(s.Up(name), far.Up(peerName))
}

// AddAddress gives a link an address, usable at once (no duplicate address
// detection: the lab gives each address once).
func (s *Site) AddAddress(name string, p netip.Prefix) error {
	link, err := s.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	addr := &netlink.Addr{IPNet: ipNetOf(p)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := s.nl.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("add address %s to %s: %w", p, name, err)
	}
	return nil
}

// AddRoute adds a static route of the underlay, by all of the next hops alike.
func (s *Site) AddRoute(dst netip.Prefix, via ...netip.Addr) error {
	r := &netlink.Route{Dst: ipNetOf(dst)}
	if len(via) == 1 {
		r.Gw = via[0].AsSlice()
	} else {
		for _, v := range via {
			r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{Gw: v.AsSlice()})
		}
	}
	if err := s.nl.RouteAdd(r); err != nil {
		return fmt.Errorf("add route %s via %s: %w", dst, via, err)
	}
	return nil
}

// SetMTU sets the MTU of a link.
func (s *Site) SetMTU(name string, mtu int) error {
	link, err := s.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := s.nl.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set the MTU of %s to %d: %w", name, mtu, err)
	}
	return nil
}

// SetSysctl writes a network sysctl ("net/ipv4/ip_forward") of the namespace.
func (s *Site) SetSysctl(name, value string) error {
	if !strings.HasPrefix(name, "net/") || strings.Contains(name, "..") {
		return fmt.Errorf("set sysctl %q: only names below net/ belong to a namespace", name)
	}
	return netns.Do(s.ns, func() error {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
			return fmt.Errorf("set sysctl %s: %w", name, err)
		}
		return nil
	})
}

// ipNetOf converts a prefix to what the netlink library takes. The host part
// is kept.
func ipNetOf(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
