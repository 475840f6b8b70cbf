package differential

import (
	"encoding/binary"
	"hash/crc32"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/model"
)

var network = binary.BigEndian

// frames are the first packet of a flow as Ethernet frames. Each ends with
// the number. It is one frame, or two fragments.
func frames(f model.Flow, link []byte, number uint32, fragmented bool) [][]byte {
	l4 := transport(f, number, fragmented)
	parts := [][]byte{l4}
	if fragmented {
		cut := len(l4) / 16 * 8
		parts = [][]byte{l4[:cut], l4[cut:]}
	}
	var out [][]byte
	at := 0
	for i, p := range parts {
		more := i < len(parts)-1
		var head []byte
		if f.Source.Is4() {
			head = header4(f, len(p), number, at, more)
		} else {
			head = header6(f, len(p), number, at, more, fragmented)
		}
		out = append(out, slices.Concat(link, head, p))
		at += len(p)
	}
	return out
}

// header4 is an IPv4 header (RFC 791).
func header4(f model.Flow, size int, number uint32, at int, more bool) []byte {
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, 64, f.Protocol
	network.PutUint16(h[2:], uint16(20+size))
	network.PutUint16(h[4:], uint16(number))
	network.PutUint16(h[6:], uint16(at/8))
	if more {
		h[6] |= 0x20
	}
	copy(h[12:], f.Source.AsSlice())
	copy(h[16:], f.Dest.AsSlice())
	network.PutUint16(h[10:], checksum(h))
	return h
}

// header6 is an IPv6 header, with one of a fragment behind it if it is one
// (RFC 8200).
func header6(f model.Flow, size int, number uint32, at int, more, fragment bool) []byte {
	h := make([]byte, 40, 48)
	h[0], h[6], h[7] = 0x60, f.Protocol, 64
	copy(h[8:], f.Source.AsSlice())
	copy(h[24:], f.Dest.AsSlice())
	if fragment {
		h[6] = unix.IPPROTO_FRAGMENT
		h = append(h, f.Protocol, 0, byte(at>>8), byte(at), 0, 0, 0, 0)
		if more {
			h[43] |= 1
		}
		network.PutUint32(h[44:], number)
	}
	network.PutUint16(h[4:], uint16(size+len(h)-40))
	return h
}

// transport is the header that a protocol begins a connection with, and the
// number, repeated.
func transport(f model.Flow, number uint32, long bool) []byte {
	times := 1
	if long {
		times = 40
	}
	data := make([]byte, 4*times)
	for i := range times {
		network.PutUint32(data[4*i:], number)
	}
	ports := func(size int) []byte {
		b := make([]byte, size)
		network.PutUint16(b, f.SourcePort)
		network.PutUint16(b[2:], f.DestPort)
		return b
	}
	var b []byte
	sum := 0
	switch f.Protocol {
	case model.ProtocolTCP:
		b, sum = ports(20), 16
		network.PutUint32(b[4:], number)
		b[12], b[13], b[14] = 5<<4, 2, 0xff // SYN
	case model.ProtocolUDP, model.ProtocolUDPLite:
		b, sum = ports(8), 6
		if f.Protocol == model.ProtocolUDP { // UDP-Lite: 0 says that the checksum covers all
			network.PutUint16(b[4:], uint16(8+len(data)))
		}
	case model.ProtocolSCTP:
		return sctp(ports(12), data)
	case model.ProtocolICMP, model.ProtocolICMPv6:
		b, sum = make([]byte, 8), 2
		b[0], b[1] = f.ICMPType, f.ICMPCode
		network.PutUint16(b[4:], uint16(number)) // each a connection of its own
	default:
		return append(make([]byte, 4), data...)
	}
	b = append(b, data...)
	pseudo := slices.Concat(f.Source.AsSlice(), f.Dest.AsSlice(), []byte{0, f.Protocol, byte(len(b) >> 8), byte(len(b))})
	if f.Protocol == model.ProtocolICMP {
		pseudo = nil
	}
	network.PutUint16(b[sum:], checksum(append(pseudo, b...)))
	return b
}

// sctp is an INIT (RFC 9260), with the data as a parameter that is to be
// skipped.
func sctp(head, data []byte) []byte {
	chunk := make([]byte, 20, 24+len(data))
	chunk[0] = 1
	network.PutUint16(chunk[2:], uint16(24+len(data)))
	network.PutUint32(chunk[4:], 1)                                              // tag
	network.PutUint32(chunk[8:], 1<<16)                                          // window
	chunk[13], chunk[15] = 1, 1                                                  // streams
	chunk = append(chunk, 0x80, 0x99, byte((4+len(data))>>8), byte(4+len(data))) // parameter
	b := slices.Concat(head, chunk, data)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	total := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		total += uint32(network.Uint16(b[i:]))
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return ^uint16(total)
}
