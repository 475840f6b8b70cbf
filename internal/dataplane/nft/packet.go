package nft

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
)

// A packet is what the kernel has of one: its bytes, and what it knows beside.
type packet struct {
	link, network, transport []byte // headers; nil: there is none
	family                   uint8  // NFPROTO_
	protocol                 uint8
	in, out                  string
	state                    uint32 // bits as the kernel's
	connMark                 uint32
	fromUs, forUs            bool // its addresses are this host's
	astray                   bool // packets to its source leave by other interfaces
}

// Sizes of headers (RFC 791, 8200, 9293, 826; Ethernet).
const (
	linkLen, ip4Len, ip6Len, tcpLen, otherLen, arpLen = 14, 20, 40, 20, 8, 28

	etherIP4, etherIP6, etherARP = 0x0800, 0x86dd, 0x0806

	vxlanVNI = 8 // flag of a header with a network identifier (RFC 7348)
)

// frame makes the bytes of a packet.
func frame(p rules.Packet) packet {
	made := packet{in: p.In, out: p.Out, connMark: p.ConnMark, fromUs: p.FromUs, forUs: p.ForUs, astray: p.Astray}
	// The program's states are the kernel's, but for the last.
	made.state = uint32(p.State &^ rules.StateUntracked)
	if p.State&rules.StateUntracked != 0 {
		made.state |= stateUntracked
	}
	kind := uint16(etherIP4)
	switch {
	case p.Way >= rules.ARPIn:
		kind, made.family, made.network = etherARP, unix.NFPROTO_ARP, arpBytes(p.ARP)
	case p.Source.Is4():
		made.family, made.network = unix.NFPROTO_IPV4, make([]byte, ip4Len)
		made.network[0], made.network[9] = 0x45, p.Protocol
		copyAddr(made.network[12:], p.Source)
		copyAddr(made.network[16:], p.Dest)
	default:
		kind, made.family, made.network = etherIP6, unix.NFPROTO_IPV6, make([]byte, ip6Len)
		made.network[0], made.network[6] = 0x60, p.Protocol
		copyAddr(made.network[8:], p.Source)
		copyAddr(made.network[24:], p.Dest)
	}
	if made.family != unix.NFPROTO_ARP {
		made.protocol, made.transport = p.Protocol, transport(p)
	}
	if p.EthSource != "" {
		made.link = make([]byte, linkLen)
		copy(made.link[6:], p.EthSource)
		network.PutUint16(made.link[12:], kind)
	}
	return made
}

func copyAddr(to []byte, a netip.Addr) { copy(to, a.AsSlice()) }

func transport(p rules.Packet) []byte {
	const tcp, udp, sctp, icmp, icmpv6 = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6
	buf := make([]byte, otherLen, tcpLen+4)
	switch p.Protocol {
	case tcp:
		buf = buf[:tcpLen]
		fallthrough
	case udp, sctp:
		network.PutUint16(buf, p.SourcePort)
		network.PutUint16(buf[2:], p.DestPort)
		if p.Protocol == udp && p.VNI != 0 {
			buf = append(buf, vxlanVNI, 0, 0, 0, byte(p.VNI>>16), byte(p.VNI>>8), byte(p.VNI), 0)
		}
	case icmp, icmpv6:
		buf[0], buf[1] = p.ICMPType, p.ICMPCode
		if p.NDTarget.IsValid() {
			buf = append(buf, p.NDTarget.AsSlice()...)
		}
		if p.About.IsValid() {
			at := len(buf) + ip4Len - 4
			if p.About.Is6() {
				at = len(buf) + ip6Len - 16
			}
			buf = append(buf, make([]byte, at-len(buf))...)
			buf = append(buf, p.About.AsSlice()...)
		}
	}
	return buf
}

func arpBytes(m rules.ARPMessage) []byte {
	buf := make([]byte, arpLen)
	network.PutUint16(buf, 1) // Ethernet
	network.PutUint16(buf[2:], etherIP4)
	buf[4], buf[5] = 6, 4
	network.PutUint16(buf[6:], m.Op)
	copy(buf[8:14], m.MAC)
	if m.Source.IsValid() {
		copyAddr(buf[14:18], m.Source)
	}
	return buf
}

// part returns the bytes that an expression loads; not ok if the packet ends
// before.
func (p *packet) part(e payload) ([]byte, bool) {
	var whole []byte
	switch e.base {
	case unix.NFT_PAYLOAD_LL_HEADER:
		whole = p.link
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
		whole = append(append(whole, p.network...), p.transport...)
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		whole = p.transport
	}
	end := uint64(e.offset) + uint64(e.size)
	if whole == nil || end > uint64(len(whole)) {
		return nil, false
	}
	return whole[e.offset:end], true
}
