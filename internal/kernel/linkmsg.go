package kernel

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// skipStatistics asks a link reading to leave out counters, the larger part of
// the answer (RTEXT_FILTER_SKIP_STATS).
const skipStatistics = 1 << 3

// linkInfo is what one link says of itself.
type linkInfo struct {
	Index int
	Name  string
	Kind  string // "veth", "bridge"…; "" for hardware
	Alias string
	MAC   net.HardwareAddr
	MTU   int
	Flags uint32 // IFF_
	Type  uint16 // ARPHRD_

	Peer   int // number of the link at the other end, 0: none
	PeerNS int // its namespace by our own count, -1: this one

	Conf  linkConf
	VXLAN vxlanInfo // of Kind "vxlan"
}

// up reports whether the link is turned on.
func (l linkInfo) up() bool { return l.Flags&unix.IFF_UP != 0 }

// parseLink reads an RTM_NEWLINK or RTM_DELLINK.
func parseLink(m rtnl.Message) (linkInfo, error) {
	if len(m.Body) < unix.SizeofIfInfomsg {
		return linkInfo{}, rtnl.ErrMalformed
	}
	l := linkInfo{
		Type:  rtnl.Uint16(m.Body[2:4]),
		Index: int(rtnl.Uint32(m.Body[4:8])), Flags: rtnl.Uint32(m.Body[8:12]), PeerNS: -1,
	}
	var inner, data, conf error
	err := rtnl.Attrs(m.Body[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = rtnl.Text(v)
		case unix.IFLA_IFALIAS:
			l.Alias = rtnl.Text(v)
		case unix.IFLA_ADDRESS:
			l.MAC = append(net.HardwareAddr(nil), v...)
		case unix.IFLA_MTU:
			l.MTU = int(rtnl.Uint32(v))
		case unix.IFLA_LINK:
			l.Peer = int(rtnl.Uint32(v))
		case unix.IFLA_LINK_NETNSID:
			l.PeerNS = int(int32(rtnl.Uint32(v)))
		case unix.IFLA_AF_SPEC:
			if m.Body[0] != unix.AF_BRIDGE { // there it is something else
				l.Conf, conf = parseConf(v)
				l.Conf = l.Conf.clone()
			}
		case unix.IFLA_LINKINFO:
			inner = rtnl.Attrs(v, func(kind uint16, v []byte) {
				switch { // the kind comes first
				case kind == unix.IFLA_INFO_KIND:
					l.Kind = rtnl.Text(v)
				case kind == unix.IFLA_INFO_DATA && l.Kind == kindVXLAN:
					l.VXLAN, data = parseVXLAN(v)
				}
			})
		}
	})
	return l, errors.Join(err, inner, data, conf)
}

// readLink asks for one link by name. The error wraps ErrNoLink when there is
// none.
func readLink(c *rtnl.Conn, name string) (linkInfo, error) {
	var b rtnl.Batch
	b.Start(unix.RTM_GETLINK, 0, rtnl.IfInfo(unix.AF_UNSPEC, 0, 0, 0))
	b.String(unix.IFLA_IFNAME, name)
	b.Uint32(unix.IFLA_EXT_MASK, skipStatistics)
	var l linkInfo
	err := c.Get(&b, func() {}, func(m rtnl.Message) (err error) {
		if m.Kind == unix.RTM_NEWLINK {
			l, err = parseLink(m)
		}
		return err
	})
	if errors.Is(err, unix.ENODEV) {
		return linkInfo{}, fmt.Errorf("%s: %w", name, ErrNoLink)
	}
	if err != nil {
		return linkInfo{}, fmt.Errorf("read link %s: %w", name, err)
	}
	return l, nil
}

// readLinks asks for all links.
func readLinks(c *rtnl.Conn) ([]linkInfo, error) {
	var b rtnl.Batch
	b.Start(unix.RTM_GETLINK, unix.NLM_F_DUMP, rtnl.IfInfo(unix.AF_UNSPEC, 0, 0, 0))
	b.Uint32(unix.IFLA_EXT_MASK, skipStatistics)
	var links []linkInfo
	err := c.Get(&b, func() { links = nil }, func(m rtnl.Message) error {
		l, err := parseLink(m)
		links = append(links, l)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	return links, nil
}

// setUp turns a link on or off.
func setUp(b *rtnl.Batch, index int, up bool) {
	flags := uint32(0)
	if up {
		flags = unix.IFF_UP
	}
	b.Start(unix.RTM_SETLINK, 0, rtnl.IfInfo(unix.AF_UNSPEC, index, flags, unix.IFF_UP))
}
