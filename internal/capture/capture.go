// Package capture reads packets off interfaces, takes them apart as far as
// hosts wrap them (IP in IP, VXLAN), chooses among them, and keeps them in
// files that tcpdump and Wireshark read.
package capture

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// Link says what a frame begins with, by the number that files have for it
// (tcpdump.org, link-layer header types).
type Link uint32

// The links.
const (
	Ethernet Link = 1   // LINKTYPE_ETHERNET
	RawIP    Link = 101 // LINKTYPE_RAW: with the IP packet
	Cooked   Link = 276 // LINKTYPE_LINUX_SLL2: 20 bytes that name the interface
)

// A Frame is one packet as it was read.
type Frame struct {
	Time   time.Time
	Data   []byte
	Length int // on the wire, in bytes; Data may be less
}

// DefaultVXLANPort is the UDP port of VXLAN (RFC 7348).
const DefaultVXLANPort = 4789

// A Packet is a frame taken apart. Fields that it does not have are zero.
type Packet struct {
	Time                 time.Time
	Interface            int  // number, where the file tells
	Outgoing             bool // where the file tells
	SourceMAC            string
	DestMAC              string
	EtherType            uint16
	Source               netip.Addr // invalid: not IP
	Dest                 netip.Addr
	Protocol             uint8 // of what the IP packet holds; behind IPv6 extension headers
	TTL                  uint8 // or hop limit
	TOS                  uint8 // DSCP and ECN
	DF                   bool  // may not be fragmented; IPv6 never may on the way
	Fragment             bool  // part of a packet
	Head                 bool  // it has the beginning of what it holds: of fragments, the first
	Length               int   // of the IP packet with its header, bytes
	SourcePort, DestPort uint16
	ICMP                 [2]uint8 // type and code; with Head
	VNI                  uint32   // of VXLAN
	Inner                *Packet  // what it carries: an IP packet (protocol 4), or a frame (VXLAN)
}

// Protocol numbers (IANA).
const (
	protoICMP   = 1
	protoIPIP   = 4
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoSCTP   = 132
)

// EtherTypes (IANA).
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeIPv6 = 0x86dd
)

// Form is how a packet travels: "ipip", "vxlan" or "direct".
func (p *Packet) Form() string {
	switch {
	case p.Inner == nil:
		return "direct"
	case p.Protocol == protoIPIP:
		return "ipip"
	}
	return "vxlan"
}

// Decode takes a frame apart. UDP to vxlanPort is VXLAN; 0 is the default
// port. What cannot be read is left out: a capture may hold anything.
func Decode(link Link, f Frame, vxlanPort uint16) (*Packet, error) {
	if vxlanPort == 0 {
		vxlanPort = DefaultVXLANPort
	}
	p := &Packet{Time: f.Time}
	b := f.Data
	switch link {
	case Ethernet:
		p.ethernet(b, vxlanPort)
	case RawIP:
		p.EtherType = etherTypeOf(b)
		p.ip(b, vxlanPort)
	case Cooked:
		if len(b) < cookedLen {
			return p, nil
		}
		p.EtherType = binary.BigEndian.Uint16(b)
		p.Interface, p.Outgoing = int(binary.BigEndian.Uint32(b[4:])), b[10] == packetOutgoing
		if b[11] == 6 {
			p.SourceMAC = mac(b[12:18])
		}
		p.ip(b[cookedLen:], vxlanPort)
	default:
		return nil, fmt.Errorf("packets of link type %d cannot be read: only Ethernet (%d), raw IP (%d) and Linux cooked (%d)", link, Ethernet, RawIP, Cooked)
	}
	return p, nil
}

// The header of a cooked frame: protocol, two bytes unused, interface, its
// hardware type, direction, length of the address, eight bytes of it.
const (
	cookedLen      = 20
	packetOutgoing = 4 // PACKET_OUTGOING
)

func mac(b []byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
}

func (p *Packet) ethernet(b []byte, port uint16) {
	if len(b) < 14 {
		return
	}
	p.DestMAC, p.SourceMAC, p.EtherType = mac(b), mac(b[6:]), binary.BigEndian.Uint16(b[12:])
	p.ip(b[14:], port)
}

// etherTypeOf tells the versions of IP apart.
func etherTypeOf(b []byte) uint16 {
	switch {
	case len(b) > 0 && b[0]>>4 == 4:
		return typeIPv4
	case len(b) > 0 && b[0]>>4 == 6:
		return typeIPv6
	}
	return 0
}

func (p *Packet) ip(b []byte, port uint16) {
	switch {
	case p.EtherType == typeIPv4 && len(b) >= 20 && b[0]>>4 == 4:
		p.ipv4(b, port)
	case p.EtherType == typeIPv6 && len(b) >= 40 && b[0]>>4 == 6:
		p.ipv6(b, port)
	}
}

func (p *Packet) ipv4(b []byte, port uint16) {
	head := int(b[0]&15) * 4
	if head < 20 || head > len(b) {
		return
	}
	part := binary.BigEndian.Uint16(b[6:])
	p.Source, p.Dest = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	p.TOS, p.TTL, p.Protocol = b[1], b[8], b[9]
	p.Length, p.DF, p.Fragment = int(binary.BigEndian.Uint16(b[2:])), part&0x4000 != 0, part&0x3fff != 0
	if part&0x1fff == 0 {
		p.payload(b[head:], port)
	}
}

func (p *Packet) ipv6(b []byte, port uint16) {
	p.Source, p.Dest = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	p.TOS, p.TTL, p.Protocol = b[0]<<4|b[1]>>4, b[7], b[6]
	p.Length, p.DF = int(binary.BigEndian.Uint16(b[4:]))+40, true
	rest := b[40:]
	for {
		size := 8
		switch p.Protocol {
		case 0, 43, 60: // hop-by-hop options, routing, destination options (RFC 8200)
			if len(rest) < 2 {
				return
			}
			size = (int(rest[1]) + 1) * 8
		case 44: // fragment
			p.Fragment = true
		default:
			p.payload(rest, port)
			return
		}
		if len(rest) < size {
			return
		}
		first := p.Protocol != 44 || binary.BigEndian.Uint16(rest[2:])>>3 == 0
		p.Protocol, rest = rest[0], rest[size:]
		if !first {
			return
		}
	}
}

func (p *Packet) payload(b []byte, port uint16) {
	p.Head = true
	if p.Protocol == protoIPIP {
		p.Inner = &Packet{Time: p.Time, EtherType: typeIPv4}
		p.Inner.ip(b, port)
		return
	}
	if len(b) < 4 {
		return
	}
	switch p.Protocol {
	case protoICMP, protoICMPv6:
		p.ICMP = [2]uint8{b[0], b[1]}
	case protoTCP, protoUDP, protoSCTP:
		p.SourcePort, p.DestPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	}
	const heads = 8 + 8 // of UDP and of VXLAN
	if p.Protocol == protoUDP && p.DestPort == port && len(b) >= heads && b[8]&0x08 != 0 {
		p.VNI = binary.BigEndian.Uint32(b[12:]) >> 8
		p.Inner = &Packet{Time: p.Time}
		p.Inner.ethernet(b[heads:], port)
	}
}
