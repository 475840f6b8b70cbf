package kernel

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
)

// HostMAC is the hardware address of the host's end of every workload
// interface: one for all, so that a workload that moves finds the same next
// hop (documented Calico behaviour).
const HostMAC = "ee:ee:ee:ee:ee:ee"

// vethInfoPeer is VETH_INFO_PEER: what follows describes the other end.
const vethInfoPeer = 1

// hostMAC is HostMAC in bytes.
func hostMAC() net.HardwareAddr { return net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee} }

// Gateway4 is the next hop of every IPv4 workload. It is on no interface: the
// host answers for it.
func Gateway4() netip.Addr { return netip.AddrFrom4([4]byte{169, 254, 1, 1}) }

// Gateway6 is the next hop of every IPv6 workload: the link-local address that
// belongs to HostMAC.
func Gateway6() netip.Addr { return netip.MustParseAddr("fe80::ecee:eeff:feee:eeee") }

// gatewayPrefix is Gateway6 as the host's end has it.
func gatewayPrefix() netip.Prefix { return netip.PrefixFrom(Gateway6(), 64) }

// A WireSpec describes the wire between one workload and its host.
type WireSpec struct {
	HostName   string           // interface on the host
	Netns      string           // path of the workload's namespace
	IfName     string           // interface in the workload
	MAC        net.HardwareAddr // of IfName; nil: random
	MTU        int              // of both ends; 0: the kernel's default
	Queues     int              // transmit and receive queues of both ends; 0: 1
	Addresses  []netip.Addr     // of IfName, each for itself: /32 and /128
	Routes     []netip.Prefix   // through the host, in the families that have an address; nil: everything
	Forwarding bool             // whether the workload forwards packets
	Alias      string           // link alias of the host's end; "": desired.AliasWorkload
	Tap        bool             // the host's end is a tap device, and what is behind sees to itself: Netns and IfName are not looked at
}

// A Wired is a wire as it is.
type Wired struct {
	HostIndex int // interface number on the host
	Index     int // interface number in the workload
	MAC       net.HardwareAddr
	MTU       int
	Made      bool // by this call, not by an earlier one
}

// has reports which families the workload speaks.
func (s WireSpec) has() (v4, v6 bool) {
	return slices.ContainsFunc(s.Addresses, netip.Addr.Is4), slices.ContainsFunc(s.Addresses, netip.Addr.Is6)
}

// routes returns what is routed through the host.
func (s WireSpec) routes() []netip.Prefix {
	if s.Routes != nil {
		return s.Routes
	}
	var all []netip.Prefix
	v4, v6 := s.has()
	if v4 {
		all = append(all, netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	if v6 {
		all = append(all, netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	}
	return all
}

func (s WireSpec) alias() string {
	if s.Alias == "" {
		return desired.AliasWorkload
	}
	return s.Alias
}

func (s WireSpec) check() error {
	for _, a := range s.Addresses {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("address %v: must be a plain IPv4 or IPv6 address", a)
		}
	}
	for _, p := range s.Routes {
		if !p.IsValid() || p != p.Masked() {
			return fmt.Errorf("route %v: must be a prefix without host bits", p)
		}
	}
	if len(s.MAC) != 0 && len(s.MAC) != 6 {
		return fmt.Errorf("hardware address %v: must have 6 bytes", s.MAC)
	}
	return nil
}

// LayWire lays the wire between a workload and the host, or mends one that is
// there: the host's end up, routing and answering for the next hops, and not
// ready to believe router advertisements or redirects. The workload's end is
// there, and down if this call made it. The addresses of the spec are not
// looked at: they may come with FillWire, which ends the work. Doing it twice
// is the same as doing it once.
//
// A link in the way that is not ours ends it with ErrForeign. When it fails,
// a link that it made is removed again.
func (k *Kernel) LayWire(ctx context.Context, spec WireSpec) (Wired, error) {
	var wired Wired
	err := k.inWorkload(ctx, spec, func(ns *netns.NS) (err error) {
		if spec.Tap {
			wired, err = k.layTap(spec)
		} else {
			wired, err = k.layWire(spec, ns)
		}
		if err != nil {
			return err
		}
		return k.orRemove(wired, k.configureHostEnd(spec, wired.HostIndex))
	})
	if err != nil {
		return Wired{}, wireError(spec, err)
	}
	return wired, nil
}

// FillWire gives the workload's end of a wire its addresses and its way out,
// and turns it on. It adds no route on the host: those are reconciled. Doing
// it twice is the same as doing it once. When it fails, a link that LayWire
// made is removed again.
func (k *Kernel) FillWire(ctx context.Context, spec WireSpec, wired Wired) (Wired, error) {
	err := k.inWorkload(ctx, spec, func(ns *netns.NS) error {
		if spec.Tap {
			return nil
		}
		return netns.Do(ns, func() error { return configureWorkload(spec, &wired) })
	})
	if err = k.orRemove(wired, err); err != nil {
		return Wired{}, wireError(spec, err)
	}
	return wired, nil
}

func wireError(spec WireSpec, err error) error {
	return fmt.Errorf("wire %s to %s in %s: %w", spec.HostName, spec.IfName, spec.Netns, err)
}

// inWorkload runs f with the workload's namespace, which is not the host's; nil
// of a tap device.
func (k *Kernel) inWorkload(ctx context.Context, spec WireSpec, f func(*netns.NS) error) error {
	if err := errors.Join(ctx.Err(), spec.check()); err != nil {
		return err
	}
	if spec.Tap {
		return f(nil)
	}
	ns, err := netns.OpenPath(spec.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	if ns.ID() == k.ns.ID() {
		return errors.New("the workload's namespace is the host's")
	}
	return f(ns)
}

// orRemove returns err, and removes a link that was made when there is one.
func (k *Kernel) orRemove(wired Wired, err error) error {
	if err != nil && wired.Made {
		err = errors.Join(err, k.deleteLink(wired.HostIndex))
	}
	return err
}

// layWire makes the pair, both ends down, or finds it.
func (k *Kernel) layWire(spec WireSpec, ns *netns.NS) (Wired, error) {
	mac, err := spec.MAC, error(nil)
	if len(mac) == 0 {
		if mac, err = randomMAC(); err != nil {
			return Wired{}, err
		}
	}
	var b rtnl.Batch
	newPair(&b, spec, mac, ns)
	for range 2 {
		err = k.do(&b)
		if !errors.Is(err, unix.EEXIST) {
			break
		}
		wired, found, err := k.findWire(spec, ns)
		if err != nil || found {
			return wired, err
		}
		// A remainder of ours at the host's end was removed: try again.
	}
	if err != nil {
		return Wired{}, fmt.Errorf("make the pair of links: %w", err)
	}
	index, err := indexOf(k.ioctl, spec.HostName)
	return Wired{HostIndex: index, MAC: mac, MTU: spec.MTU, Made: true}, err
}

// newPair adds the request for both ends. The workload's end is born where it
// belongs, with the name and address that it will keep: it never shows up on
// the host.
func newPair(b *rtnl.Batch, spec WireSpec, mac net.HardwareAddr, ns *netns.NS) {
	common := func(name string, mac net.HardwareAddr) {
		queues := uint32(max(spec.Queues, 1))
		b.String(unix.IFLA_IFNAME, name)
		b.Bytes(unix.IFLA_ADDRESS, mac)
		b.Uint32(unix.IFLA_NUM_TX_QUEUES, queues)
		b.Uint32(unix.IFLA_NUM_RX_QUEUES, queues)
		if spec.MTU > 0 {
			b.Uint32(unix.IFLA_MTU, uint32(spec.MTU))
		}
	}
	b.Start(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, rtnl.IfInfo(unix.AF_UNSPEC, 0, 0, 0))
	common(spec.HostName, hostMAC())
	b.Nest(unix.IFLA_LINKINFO, func() {
		b.String(unix.IFLA_INFO_KIND, "veth")
		b.Nest(unix.IFLA_INFO_DATA, func() {
			b.Nest(vethInfoPeer, func() {
				b.Raw(rtnl.IfInfo(unix.AF_UNSPEC, 0, 0, 0))
				common(spec.IfName, mac)
				b.Uint32(unix.IFLA_NET_NS_FD, uint32(ns.FD()))
			})
		})
	})
}

// findWire looks at what is in the way of a new pair: the same pair from an
// earlier call (found), a remainder of ours (removed), or something foreign.
func (k *Kernel) findWire(spec WireSpec, ns *netns.NS) (w Wired, found bool, err error) {
	err = k.with(func(c *rtnl.Conn) error {
		host, err := readLink(c, spec.HostName)
		if errors.Is(err, ErrNoLink) {
			return fmt.Errorf("%s in the workload: %w", spec.IfName, ErrForeign)
		}
		if err != nil {
			return err
		}
		if !ourWire(host, spec.alias()) {
			return fmt.Errorf("%s (%s, alias %q): %w", host.Name, host.Kind, host.Alias, ErrForeign)
		}
		inside, err := k.farEnd(spec.IfName, ns)
		if err != nil && !errors.Is(err, ErrNoLink) {
			return err
		}
		if err == nil && inside.Peer == host.Index && host.Peer == inside.Index {
			found = true
			w = Wired{HostIndex: host.Index, Index: inside.Index, MAC: inside.MAC, MTU: inside.MTU}
			return nil
		}
		return k.deleteLink(host.Index)
	})
	return w, found, err
}

// ourWire reports whether a link is the host's end of a workload's wire. One
// that Calico or a call cut short left behind has no alias, but our hardware
// address.
func ourWire(l linkInfo, alias string) bool {
	return l.Kind == "veth" && (l.Alias == alias || l.Alias == "" && l.MAC.String() == HostMAC)
}

// farEnd reads the workload's end. A link whose other end is not in the
// kernel's namespace counts as absent.
func (k *Kernel) farEnd(name string, ns *netns.NS) (linkInfo, error) {
	c, err := rtnl.Dial(ns)
	if err != nil {
		return linkInfo{}, err
	}
	defer c.Close()
	l, err := readLink(c, name)
	if err != nil {
		return linkInfo{}, err
	}
	id, err := namespaceNumber(c, k.ns)
	if err != nil {
		return linkInfo{}, err
	}
	if l.Kind != "veth" || l.PeerNS != id {
		return linkInfo{}, fmt.Errorf("%s: %w to this host", name, ErrNoLink)
	}
	return l, nil
}

// namespaceNumber returns the number by which links of c's namespace call ns,
// or -1 when none does.
func namespaceNumber(c *rtnl.Conn, ns *netns.NS) (int, error) {
	var b rtnl.Batch
	b.Start(unix.RTM_GETNSID, 0, []byte{unix.AF_UNSPEC, 0, 0, 0})
	b.Uint32(unix.NETNSA_FD, uint32(ns.FD()))
	id := -1
	err := c.Get(&b, func() {}, func(m rtnl.Message) error {
		return rtnl.Attrs(m.Body[min(4, len(m.Body)):], func(kind uint16, v []byte) {
			if kind == unix.NETNSA_NSID {
				id = int(int32(rtnl.Uint32(v)))
			}
		})
	})
	if err != nil {
		return -1, fmt.Errorf("number of a network namespace: %w", err)
	}
	return id, nil
}

// configureHostEnd prepares the host's end while it is down and turns it on.
func (k *Kernel) configureHostEnd(spec WireSpec, index int) error {
	conf4, delays, err := k.prepareLink(spec.HostName, desired.SysctlLines(desired.WorkloadSysctls()))
	if err != nil {
		return err
	}
	var b rtnl.Batch
	b.Start(unix.RTM_SETLINK, 0, rtnl.IfInfo(unix.AF_UNSPEC, index, 0, 0))
	b.String(unix.IFLA_IFALIAS, spec.alias())
	b.Nest(unix.IFLA_AF_SPEC, func() {
		setConf4(&b, conf4)
		if hasIPv6() {
			eui64(&b)
		}
	})
	setDelays(&b, index, delays)
	if hasIPv6() {
		newAddress(&b, index, gatewayPrefix())
	}
	setUp(&b, index, true)
	if err := k.do(&b); err != nil {
		return fmt.Errorf("set up %s: %w", spec.HostName, err)
	}
	return nil
}

// eui64 adds to IFLA_AF_SPEC that the kernel shall derive the link-local address from the hardware
// address, whatever the host's default is: workloads count on Gateway6.
func eui64(b *rtnl.Batch) {
	b.Nest(unix.AF_INET6, func() { b.Uint8(unix.IFLA_INET6_ADDR_GEN_MODE, 0) })
}

// Unwire removes the wire of a workload by the name of its host's end; the
// other end goes with it. A link that is not there is no error; one that is
// not a workload's wire is left alone with ErrForeign.
func (k *Kernel) Unwire(name string) error {
	var l linkInfo
	err := k.with(func(c *rtnl.Conn) (err error) {
		l, err = readLink(c, name)
		return err
	})
	if errors.Is(err, ErrNoLink) {
		return nil
	}
	if err == nil && !ourEnd(l) {
		err = fmt.Errorf("%s (%s, alias %q): %w", name, l.Kind, l.Alias, ErrForeign)
	}
	if err == nil {
		err = k.deleteLink(l.Index)
	}
	if err != nil {
		return fmt.Errorf("remove wire: %w", err)
	}
	return nil
}

// randomMAC returns a hardware address that is local and of one station.
func randomMAC() (net.HardwareAddr, error) {
	mac := make(net.HardwareAddr, 6)
	if _, err := rand.Read(mac); err != nil {
		return nil, fmt.Errorf("choose a hardware address: %w", err)
	}
	mac[0] = mac[0]&^1 | 2
	return mac, nil
}
