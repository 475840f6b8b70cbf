package threats

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
)

// Ethernet types and protocol numbers (IANA).
const (
	etherIPv4, etherARP, etherIPv6 = 0x0800, 0x0806, 0x86dd

	protoICMP, protoIPIP, protoTCP, protoUDP       = 1, 4, 6, 17
	protoIPv6, protoGRE, protoICMPv6, protoUDPLite = 41, 47, 58, 136
	protoHopByHop, protoRouting, protoFragment     = 0, 43, 44
	protoNone, protoDestination                    = 59, 60
)

func be16(v int) []byte { return []byte{byte(v >> 8), byte(v)} }

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// checksum continues the sum of RFC 1071 and returns its complement.
func checksum(start uint32, b []byte) uint16 {
	sum := start
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// frame is a packet on its link.
func frame(dst, src net.HardwareAddr, kind int, payload []byte) []byte {
	return slices.Concat(dst, src, be16(kind), payload)
}

// packet is an IP packet of either family. What is not set has the usual value.
type packet struct {
	src, dst   netip.Addr
	proto      int
	payload    []byte
	ttl        byte   // 64
	options    []byte // IPv4: a multiple of four bytes
	id         int
	offset     int // IPv4: of a fragment, in bytes
	more       bool
	keepHeader bool // payload begins with what proto says, without a checksum to fill
}

// bytes writes the packet and fills in the checksum of its transport header.
func (p packet) bytes() []byte {
	body := slices.Clone(p.payload)
	if !p.keepHeader {
		fill(p.src, p.dst, p.proto, body)
	}
	ttl := p.ttl
	if ttl == 0 {
		ttl = 64
	}
	if p.dst.Is6() {
		b := slices.Concat([]byte{0x60, 0, 0, 0}, be16(len(body)), []byte{byte(p.proto), ttl}, p.src.AsSlice(), p.dst.AsSlice())
		return append(b, body...)
	}
	head := 20 + len(p.options)
	b := slices.Concat([]byte{0x40 | byte(head/4), 0}, be16(head+len(body)), be16(p.id), be16(p.offset/8), []byte{ttl, byte(p.proto), 0, 0},
		p.src.AsSlice(), p.dst.AsSlice(), p.options)
	if p.more {
		b[6] |= 0x20
	}
	binary.BigEndian.PutUint16(b[10:], checksum(0, b))
	return append(b, body...)
}

// fill writes the checksum of a transport header.
func fill(src, dst netip.Addr, proto int, b []byte) {
	at, pseudo := -1, true
	switch proto {
	case protoTCP:
		at = 16
	case protoUDP, protoUDPLite:
		at = 6
	case protoICMP:
		at, pseudo = 2, false
	case protoICMPv6:
		at = 2
	}
	if at < 0 || len(b) < at+2 {
		return
	}
	b[at], b[at+1] = 0, 0
	sum := uint32(0)
	if pseudo {
		head := slices.Concat(src.AsSlice(), dst.AsSlice(), be32(uint32(len(b))), be32(uint32(proto)))
		sum = uint32(^checksum(0, head))
	}
	binary.BigEndian.PutUint16(b[at:], checksum(sum, b))
}

// fragments cuts a packet into parts of at most size bytes of payload, which
// must be a multiple of eight.
func (p packet) fragments(size int) [][]byte {
	body := slices.Clone(p.payload)
	fill(p.src, p.dst, p.proto, body)
	var out [][]byte
	for at := 0; at < len(body); at += size {
		end := min(at+size, len(body))
		out = append(out, p.fragment(body, at, end, end < len(body)))
	}
	return out
}

// fragment is the part of a payload from at to end.
func (p packet) fragment(body []byte, at, end int, more bool) []byte {
	f := p
	f.keepHeader, f.payload, f.offset, f.more = true, body[at:end], at, more
	if f.id == 0 {
		f.id = 0x1234
	}
	if p.dst.Is6() {
		flags := at
		if more {
			flags |= 1
		}
		head := slices.Concat([]byte{byte(p.proto), 0}, be16(flags), be32(uint32(f.id)))
		f.payload, f.proto = append(head, f.payload...), protoFragment
	}
	return f.bytes()
}

func udp(src, dst int, payload []byte) []byte {
	return slices.Concat(be16(src), be16(dst), be16(8+len(payload)), be16(0), payload)
}

// Flags of TCP.
const flagFIN, flagSYN, flagRST, flagACK = 1, 2, 4, 16

func tcp(src, dst int, flags byte, seq, ack uint32, payload []byte) []byte {
	return slices.Concat(be16(src), be16(dst), be32(seq), be32(ack), []byte{0x50, flags}, be16(64240), be16(0), be16(0), payload)
}

// icmp is a message of ICMP or ICMPv6: the four bytes after the checksum are
// zero.
func icmp(kind, code int, payload []byte) []byte {
	return slices.Concat([]byte{byte(kind), byte(code), 0, 0, 0, 0, 0, 0}, payload)
}

func arp(op int, srcMAC net.HardwareAddr, src netip.Addr, dstMAC net.HardwareAddr, dst netip.Addr) []byte {
	return slices.Concat([]byte{0, 1, 8, 0, 6, 4}, be16(op), srcMAC, src.AsSlice(), dstMAC, dst.AsSlice())
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
