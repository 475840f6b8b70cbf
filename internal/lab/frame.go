package lab

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// hardware is an Ethernet address.
type hardware [6]byte

// group reports whether an address is that of many: multicast or broadcast.
func (h hardware) group() bool { return h[0]&1 != 0 }

// What frames are made of (IEEE 802.3, RFC 826, RFC 791, RFC 8200).
const (
	etherLen = 14
	arpLen   = 28
	ip4Len   = 20
	ip6Len   = 40

	typeIP4 = 0x0800
	typeARP = 0x0806
	typeIP6 = 0x86dd

	hopsOfOurs     = 64
	hopsOfNeighbor = 255 // a packet that no router has passed on (RFC 4861)
)

// packet is a whole IP packet in an Ethernet frame: no fragment, and nothing
// between the header of IP and its payload.
type packet struct {
	from, to hardware
	src, dst netip.Addr
	protocol byte
	hops     byte
	payload  []byte
}

// readPacket reads a frame. false: it has no such packet, or a sum that is
// wrong. The payload is a part of the frame.
func readPacket(frame []byte) (packet, bool) {
	if len(frame) < etherLen {
		return packet{}, false
	}
	p := packet{to: hardware(frame[0:6]), from: hardware(frame[6:12])}
	ok := false
	switch binary.BigEndian.Uint16(frame[12:]) {
	case typeIP4:
		ok = p.read4(frame[etherLen:])
	case typeIP6:
		ok = p.read6(frame[etherLen:])
	}
	return p, ok && p.sound()
}

func (p *packet) read4(b []byte) bool {
	if len(b) < ip4Len || b[0] != 0x45 || fold(sum(0, b[:ip4Len])) != 0 {
		return false
	}
	length, fragment := int(binary.BigEndian.Uint16(b[2:])), binary.BigEndian.Uint16(b[6:])&0x3fff
	if length < ip4Len || length > len(b) || fragment != 0 {
		return false
	}
	p.src, p.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	p.hops, p.protocol, p.payload = b[8], b[9], b[ip4Len:length]
	return true
}

func (p *packet) read6(b []byte) bool {
	if len(b) < ip6Len || b[0]>>4 != 6 {
		return false
	}
	length := ip6Len + int(binary.BigEndian.Uint16(b[4:]))
	if length > len(b) {
		return false
	}
	p.src, p.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	if p.src.Is4In6() || p.dst.Is4In6() {
		return false // no address on any wire (RFC 4038)
	}
	p.protocol, p.hops, p.payload = b[6], b[7], b[ip6Len:length]
	return true
}

// sound reports whether the payload is long enough for its protocol's header
// and has its sum right. Protocols that are not known are not judged.
func (p packet) sound() bool {
	at, least := sumAt(p.protocol)
	switch {
	case len(p.payload) < least:
		return false
	case at < 0:
		return true
	case p.protocol == unix.IPPROTO_UDP && p.src.Is4() && binary.BigEndian.Uint16(p.payload[at:]) == 0:
		return true // none was made (RFC 768)
	}
	return fold(sum(p.pseudo(), p.payload)) == 0
}

// sumAt is where a protocol has its sum, -1 where that is not known, and how
// long its header is at least.
func sumAt(protocol byte) (at, least int) {
	switch protocol {
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return 2, 8
	case unix.IPPROTO_UDP:
		return 6, 8
	case unix.IPPROTO_TCP:
		return 16, 20
	}
	return -1, 0
}

// pseudo is what a protocol's sum has of the addresses (RFC 793, RFC 8200);
// that of ICMP for IPv4 has nothing.
func (p packet) pseudo() uint32 {
	if p.protocol == unix.IPPROTO_ICMP {
		return 0
	}
	s := sum(sum(0, p.src.AsSlice()), p.dst.AsSlice())
	return s + uint32(p.protocol) + uint32(len(p.payload))
}

// frame writes the packet, with its sums. id tells IPv4 packets apart that a
// router may have to cut up.
func (p packet) frame(id uint16) []byte {
	header, kind := ip4Len, uint16(typeIP4)
	if p.src.Is6() {
		header, kind = ip6Len, typeIP6
	}
	f := make([]byte, etherLen+header+len(p.payload))
	copy(f[0:], p.to[:])
	copy(f[6:], p.from[:])
	binary.BigEndian.PutUint16(f[12:], kind)
	b := f[etherLen:]
	copy(b[header:], p.payload)
	if kind == typeIP4 {
		b[0], b[8], b[9] = 0x45, p.hops, p.protocol
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[4:], id)
		copy(b[12:], p.src.AsSlice())
		copy(b[16:], p.dst.AsSlice())
		binary.BigEndian.PutUint16(b[10:], fold(sum(0, b[:ip4Len])))
	} else {
		b[0], b[6], b[7] = 0x60, p.protocol, p.hops
		binary.BigEndian.PutUint16(b[4:], uint16(len(p.payload)))
		copy(b[8:], p.src.AsSlice())
		copy(b[24:], p.dst.AsSlice())
	}
	at, least := sumAt(p.protocol)
	if at < 0 || len(p.payload) < least {
		return f
	}
	b = b[header:]
	b[at], b[at+1] = 0, 0
	s := fold(sum(p.pseudo(), b))
	if s == 0 && p.protocol == unix.IPPROTO_UDP {
		s = 0xffff // 0 would say that there is none
	}
	binary.BigEndian.PutUint16(b[at:], s)
	return f
}

// sum adds 16-bit words to a sum (RFC 1071). 64 KiB of them do not overflow it.
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

// fold is the complement of a sum: what is written, or 0 where all was added.
func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}
