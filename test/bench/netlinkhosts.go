package main

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
)

// addHosts tells the kernel of hosts at the other end of a VXLAN device, one
// after the other: a neighbour, a forwarding entry and a route each, in one
// write, acknowledged. With objects, the next hop of each is one (a message
// more), and the route goes by it.
func (b *bareNetlink) addHosts(hosts []bareHost, link int, objects bool) error {
	for _, h := range hosts {
		messages, n := h.messages(link, objects)
		if err := unix.Sendto(b.fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fmt.Errorf("write to netlink: %w", err)
		}
		if err := b.acknowledged(n); err != nil {
			return err
		}
	}
	return nil
}

// messages are the requests, and how many there are.
func (h bareHost) messages(link int, objects bool) ([]byte, int) {
	vtep, block := vtepAddr(h.number+1).As4(), hostBlock(h.number+1)
	node, dst := hostAddr(h.number+1).As4(), block.Addr().As4()
	var m bareMessages
	neigh := unix.NdMsg{Family: unix.AF_INET, Ifindex: int32(link), State: unix.NUD_PERMANENT}
	m.begin(unix.RTM_NEWNEIGH, (*[unix.SizeofNdMsg]byte)(unsafe.Pointer(&neigh))[:])
	m.attr(unix.NDA_DST, vtep[:])
	m.attr(unix.NDA_LLADDR, h.mac)
	m.end()
	forward := unix.NdMsg{Family: unix.AF_BRIDGE, Ifindex: int32(link), State: unix.NUD_PERMANENT, Flags: unix.NTF_SELF}
	m.begin(unix.RTM_NEWNEIGH, (*[unix.SizeofNdMsg]byte)(unsafe.Pointer(&forward))[:])
	m.attr(unix.NDA_LLADDR, h.mac)
	m.attr(unix.NDA_DST, node[:])
	m.end()
	rt := unix.RtMsg{
		Family: unix.AF_INET, Dst_len: uint8(block.Bits()), Table: unix.RT_TABLE_MAIN,
		Protocol: desired.ProtocolAgent, Type: unix.RTN_UNICAST,
	}
	if objects {
		hop := unix.Nhmsg{Family: unix.AF_INET, Protocol: desired.ProtocolAgent, Flags: unix.RTNH_F_ONLINK}
		m.begin(unix.RTM_NEWNEXTHOP, (*[unix.SizeofNhmsg]byte)(unsafe.Pointer(&hop))[:])
		m.attr(unix.NHA_ID, binaryOf(binary.BigEndian.Uint32(vtep[:])))
		m.attr(unix.NHA_OIF, binaryOf(uint32(link)))
		m.attr(unix.NHA_GATEWAY, vtep[:])
		m.end()
	} else {
		rt.Flags = unix.RTNH_F_ONLINK
	}
	m.begin(unix.RTM_NEWROUTE, (*[unix.SizeofRtMsg]byte)(unsafe.Pointer(&rt))[:])
	m.attr(unix.RTA_DST, dst[:])
	if objects {
		m.attr(rtaNextHop, binaryOf(binary.BigEndian.Uint32(vtep[:])))
	} else {
		m.attr(unix.RTA_GATEWAY, vtep[:])
		m.attr(unix.RTA_OIF, binaryOf(uint32(link)))
	}
	m.attr(unix.RTA_PRIORITY, binaryOf(desired.DefaultPriority-1))
	m.attr(unix.RTA_METRICS, append([]byte{8, 0, unix.RTAX_MTU, 0}, binaryOf(1450)...))
	m.end()
	if objects {
		return m.buf, 4
	}
	return m.buf, 3
}

// rtaNextHop is RTA_NH_ID (linux/rtnetlink.h).
const rtaNextHop = 30

// bareMessages are requests one behind the other.
type bareMessages struct {
	buf   []byte
	start int
}

func (m *bareMessages) begin(kind uint16, body []byte) {
	m.start = len(m.buf)
	head := unix.NlMsghdr{Type: kind, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_REPLACE}
	m.buf = append(m.buf, (*[unix.SizeofNlMsghdr]byte)(unsafe.Pointer(&head))[:]...)
	m.buf = append(m.buf, body...)
}

func (m *bareMessages) attr(kind uint16, value []byte) {
	m.buf = binary.NativeEndian.AppendUint16(m.buf, uint16(4+len(value)))
	m.buf = binary.NativeEndian.AppendUint16(m.buf, kind)
	m.buf = append(m.buf, value...)
	for len(m.buf)%4 != 0 {
		m.buf = append(m.buf, 0)
	}
}

func (m *bareMessages) end() {
	binary.NativeEndian.PutUint32(m.buf[m.start:], uint32(len(m.buf)-m.start))
}
