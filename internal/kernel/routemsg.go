package kernel

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// rtnexthopLen is the size of struct rtnexthop.
const rtnexthopLen = 8

// rtaNextHop is RTA_NH_ID: a route by way of an object (linux/rtnetlink.h).
const rtaNextHop = 30

func putUint32(b []byte, v uint32) { binary.NativeEndian.PutUint32(b, v) }

// A hop is one next hop as netlink has it.
type hop struct {
	Via    netip.Addr
	Out    int
	OnLink bool
	Weight int
}

// A routeMessage is one route as netlink has it.
type routeMessage struct {
	Dst      netip.Prefix
	Table    int // 0: main
	Hops     []hop
	Type     uint8 // RTN_; 0: unicast
	Scope    uint8
	Protocol uint8
	TOS      uint8
	Metric   uint32
	MTU      uint32
	Src      netip.Addr

	NextHop uint32 // number of the object that stands for the hops; 0: none

	Out int        // shorthand for one hop
	Via netip.Addr // with Out

	Cloned bool // a cache entry, no route
}

// newRoute adds a request that creates or replaces a route.
func newRoute(b *rtnl.Batch, r routeMessage) {
	putRoute(b, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, r)
}

// putRoute adds a request about a route.
func putRoute(b *rtnl.Batch, kind, flags uint16, r routeMessage) {
	if r.Table == 0 {
		r.Table = unix.RT_TABLE_MAIN
	}
	if r.Type == 0 && kind == unix.RTM_NEWROUTE {
		r.Type = unix.RTN_UNICAST
	}
	hops := r.Hops
	if r.Out != 0 || r.Via.IsValid() {
		hops = []hop{{Via: r.Via, Out: r.Out}}
	}
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1], h[3] = familyOf(r.Dst.Addr()), uint8(r.Dst.Bits()), r.TOS
	h[4] = unix.RT_TABLE_COMPAT
	if r.Table < 256 {
		h[4] = uint8(r.Table)
	}
	h[5], h[6], h[7] = r.Protocol, r.Scope, r.Type
	if len(hops) == 1 && r.NextHop == 0 {
		putUint32(h[8:], hops[0].flags())
	}
	b.Start(kind, flags, h)
	b.Uint32(unix.RTA_TABLE, uint32(r.Table))
	if r.Dst.Bits() > 0 {
		b.Addr(unix.RTA_DST, r.Dst.Addr())
	}
	if r.Metric != 0 {
		b.Uint32(unix.RTA_PRIORITY, r.Metric)
	}
	if r.Src.IsValid() {
		b.Addr(unix.RTA_PREFSRC, r.Src)
	}
	if r.MTU != 0 {
		b.Nest(unix.RTA_METRICS, func() { b.Uint32(unix.RTAX_MTU, r.MTU) })
	}
	switch {
	case r.NextHop != 0:
		b.Uint32(rtaNextHop, r.NextHop)
	case len(hops) == 1:
		if hops[0].Out != 0 {
			b.Uint32(unix.RTA_OIF, uint32(hops[0].Out))
		}
		putVia(b, r.Dst.Addr(), hops[0].Via)
	case len(hops) > 1:
		b.Nest(unix.RTA_MULTIPATH, func() {
			for _, h := range hops {
				putHop(b, r.Dst.Addr(), h)
			}
		})
	}
}

// putHop adds one way of a route that has several.
func putHop(b *rtnl.Batch, dst netip.Addr, h hop) {
	size := rtnexthopLen
	if h.Via.IsValid() {
		size += viaLen(dst, h.Via)
	}
	head := make([]byte, rtnexthopLen)
	binary.NativeEndian.PutUint16(head, uint16(size))
	head[2], head[3] = uint8(h.flags()), uint8(max(h.Weight, 1)-1)
	putUint32(head[4:], uint32(h.Out))
	b.Raw(head)
	putVia(b, dst, h.Via)
}

func (h hop) flags() uint32 {
	if h.OnLink {
		return unix.RTNH_F_ONLINK
	}
	return 0
}

// viaLen is the size of what putVia adds.
func viaLen(dst, via netip.Addr) int {
	n := unix.SizeofRtAttr + via.BitLen()/8
	if dst.Is4() != via.Is4() {
		n += 2
	}
	return (n + 3) &^ 3
}

// putVia adds a gateway; one of the other family goes into an attribute of its
// own (RFC 8950, RTA_VIA).
func putVia(b *rtnl.Batch, dst, via netip.Addr) {
	switch {
	case !via.IsValid():
	case dst.Is4() == via.Is4():
		b.Addr(unix.RTA_GATEWAY, via)
	default:
		v := make([]byte, 2, 18)
		binary.NativeEndian.PutUint16(v, uint16(familyOf(via)))
		b.Bytes(unix.RTA_VIA, append(v, via.AsSlice()...))
	}
}

// parseRoute reads an RTM_NEWROUTE.
func parseRoute(m rtnl.Message) (routeMessage, error) {
	if len(m.Body) < unix.SizeofRtMsg {
		return routeMessage{}, rtnl.ErrMalformed
	}
	h := m.Body
	r := routeMessage{
		TOS: h[3], Table: int(h[4]), Protocol: h[5], Scope: h[6], Type: h[7],
		Cloned: rtnl.Uint32(h[8:12])&unix.RTM_F_CLONED != 0,
	}
	dst := netip.IPv4Unspecified()
	if h[0] == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	one := hop{OnLink: rtnl.Uint32(h[8:12])&unix.RTNH_F_ONLINK != 0, Weight: 1}
	var inner error
	err := rtnl.Attrs(h[unix.SizeofRtMsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.RTA_TABLE:
			r.Table = int(rtnl.Uint32(v))
		case unix.RTA_DST:
			dst = rtnl.Addr(v)
		case unix.RTA_PRIORITY:
			r.Metric = rtnl.Uint32(v)
		case rtaNextHop:
			r.NextHop = rtnl.Uint32(v)
		case unix.RTA_PREFSRC:
			r.Src = rtnl.Addr(v)
		case unix.RTA_OIF:
			one.Out = int(rtnl.Uint32(v))
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			one.Via = parseVia(kind, v)
		case unix.RTA_METRICS:
			inner = rtnl.Attrs(v, func(kind uint16, v []byte) {
				if kind == unix.RTAX_MTU {
					r.MTU = rtnl.Uint32(v)
				}
			})
		case unix.RTA_MULTIPATH:
			r.Hops = parseHops(v)
		}
	})
	r.Dst = netip.PrefixFrom(dst, int(h[1]))
	if len(r.Hops) == 0 && (one.Out != 0 || one.Via.IsValid()) {
		r.Hops = []hop{one}
	}
	slices.SortFunc(r.Hops, func(a, b hop) int {
		return cmp.Or(a.Via.Compare(b.Via), cmp.Compare(a.Out, b.Out), cmp.Compare(a.Weight, b.Weight))
	})
	if err == nil {
		err = inner
	}
	return r, err
}

func parseVia(kind uint16, v []byte) netip.Addr {
	if kind == unix.RTA_VIA && len(v) > 2 {
		v = v[2:]
	}
	return rtnl.Addr(v)
}

// parseHops reads the ways of a route that has several; what does not parse
// ends it.
func parseHops(buf []byte) []hop {
	var hops []hop
	for len(buf) >= rtnexthopLen {
		n := int(rtnl.Uint16(buf[:2]))
		if n < rtnexthopLen || n > len(buf) {
			break
		}
		h := hop{
			OnLink: buf[2]&unix.RTNH_F_ONLINK != 0, Weight: int(buf[3]) + 1, Out: int(rtnl.Uint32(buf[4:8])),
		}
		err := rtnl.Attrs(buf[rtnexthopLen:n], func(kind uint16, v []byte) {
			if kind == unix.RTA_GATEWAY || kind == unix.RTA_VIA {
				h.Via = parseVia(kind, v)
			}
		})
		if err != nil {
			break
		}
		hops = append(hops, h)
		buf = buf[min((n+3)&^3, len(buf)):]
	}
	return hops
}
