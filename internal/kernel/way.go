package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// ErrNoRoute says that the kernel sends packets to an address nowhere: there
// is no route, or one that drops or refuses them.
var ErrNoRoute = errors.New("no route")

// A Way is the route that the kernel chooses for packets to an address.
type Way struct {
	Route    netip.Prefix // the most specific one
	Protocol int          // who made it (rtnetlink(7), rtm_protocol)
	Local    bool         // the address is the host's own
	MTU      int          // bytes; 0: the interface's
	Hops     []Hop        // one, unless packets are spread over several
}

// A Hop is where packets on a Way leave.
type Hop struct {
	Interface string
	Kind      string     // of the interface: "veth", "vxlan"…; "" for hardware
	Via       netip.Addr // next hop; invalid: the address itself is on the link
	OnLink    bool       // the next hop is on the link whatever the interface's addresses say
}

// Way asks the kernel which route packets of this host to an address take. The
// error wraps ErrNoRoute when they take none.
func (k *Kernel) Way(to netip.Addr) (Way, error) {
	var found routeMessage
	hops := []Hop{}
	err := k.with(func(c *rtnl.Conn) (err error) {
		if found, err = readWay(c, to); err != nil {
			return err
		}
		for _, h := range found.Hops {
			link, err := readLinkByIndex(c, h.Out)
			if err != nil {
				return err
			}
			hops = append(hops, Hop{Interface: link.Name, Kind: link.Kind, Via: h.Via, OnLink: h.OnLink})
		}
		return nil
	})
	if nowhere(err) {
		return Way{}, fmt.Errorf("way to %v: %w", to, ErrNoRoute)
	}
	if err != nil {
		return Way{}, fmt.Errorf("way to %v: %w", to, err)
	}
	if found.Type != unix.RTN_UNICAST && found.Type != unix.RTN_LOCAL {
		return Way{}, fmt.Errorf("way to %v: %w", to, ErrNoRoute)
	}
	return Way{
		Route: found.Dst, Protocol: int(found.Protocol), Local: found.Type == unix.RTN_LOCAL, MTU: int(found.MTU), Hops: hops,
	}, nil
}

// nowhere reports whether the kernel says that packets go nowhere.
func nowhere(err error) bool {
	for _, none := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL, unix.ESRCH} {
		if errors.Is(err, none) {
			return true
		}
	}
	return false
}

// Ours reports whether the route is one of an agent.
func (w Way) Ours() bool {
	return w.Protocol == desired.ProtocolAgent || w.Protocol == desired.ProtocolBGP
}

// readWay asks for the entry of the routing table that packets to an address
// follow (RTM_F_FIB_MATCH, kernel 4.13).
func readWay(c *rtnl.Conn, to netip.Addr) (routeMessage, error) {
	var b rtnl.Batch
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1] = familyOf(to), uint8(to.BitLen())
	putUint32(h[8:], unix.RTM_F_FIB_MATCH)
	b.Start(unix.RTM_GETROUTE, 0, h)
	b.Addr(unix.RTA_DST, to)
	var r routeMessage
	err := c.Get(&b, func() {}, func(m rtnl.Message) (err error) {
		r, err = parseRoute(m)
		return err
	})
	return r, err
}

// readLinkByIndex asks for one link by number.
func readLinkByIndex(c *rtnl.Conn, index int) (linkInfo, error) {
	var b rtnl.Batch
	b.Start(unix.RTM_GETLINK, 0, rtnl.IfInfo(unix.AF_UNSPEC, index, 0, 0))
	b.Uint32(unix.IFLA_EXT_MASK, skipStatistics)
	var l linkInfo
	err := c.Get(&b, func() {}, func(m rtnl.Message) (err error) {
		l, err = parseLink(m)
		return err
	})
	if errors.Is(err, unix.ENODEV) {
		return linkInfo{}, fmt.Errorf("interface %d: %w", index, ErrNoLink)
	}
	return l, err
}
