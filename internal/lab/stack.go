package lab

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// stack is the network of a virtual machine, in user space: it says where its
// addresses are (ARP, RFC 826; neighbor discovery, RFC 4861), answers echo
// requests, and on every one of Ports does what a workload's responder does: a
// datagram gets the machine's name and what it said, a connection the name and
// what it says from then on. It reads no clock and knows no device: frames come
// in, answers go out. It is used by one goroutine.
//
// It never asks where anybody is: it answers to the hardware address that a
// frame came from, which is its host's, as all that a workload's wire leads to.
type stack struct {
	name      string
	mac       hardware
	addresses []netip.Addr
	mtu       int
	number    func() uint32 // a first sequence number that nobody guesses
	streams   map[flow]*stream
	id        uint16 // of the last IPv4 packet
}

// leastMTU is what every link has (RFC 791).
const leastMTU = 68

// newStack makes a machine's network.
func newStack(name string, mac hardware, addresses []netip.Addr, mtu int, number func() uint32) *stack {
	return &stack{name: name, mac: mac, addresses: addresses, mtu: max(mtu, leastMTU), number: number, streams: map[flow]*stream{}}
}

// receive takes a frame in and returns what is sent in answer. taken false: the
// frame is none of the stack's business. Nothing of the frame is kept.
func (s *stack) receive(frame []byte, now time.Time) (answers [][]byte, taken bool) {
	if answer, ok := s.resolve(frame); ok {
		return [][]byte{answer}, true
	}
	p, ok := readPacket(frame)
	if !ok || p.to != s.mac && !p.to.group() || p.from.group() {
		return nil, false
	}
	if answer, ok := s.advertise(p); ok {
		return [][]byte{s.send(answer)}, true
	}
	if p.to != s.mac || !slices.Contains(s.addresses, p.dst) || !single(p.src) {
		return nil, false
	}
	switch p.protocol {
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		if answer, ok := echoed(p); ok {
			return [][]byte{s.send(s.back(p, answer))}, true
		}
	case unix.IPPROTO_UDP:
		if answer, ok := s.said(p); ok {
			return [][]byte{s.send(s.back(p, answer))}, true
		}
	case unix.IPPROTO_TCP:
		return s.segment(p, now)
	}
	return nil, false
}

// single reports whether an address may be one machine's.
func single(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// back is a packet that answers another.
func (s *stack) back(p packet, payload []byte) packet {
	return packet{from: s.mac, to: p.from, src: p.dst, dst: p.src, protocol: p.protocol, hops: hopsOfOurs, payload: payload}
}

// send writes a packet.
func (s *stack) send(p packet) []byte {
	s.id++
	return p.frame(s.id)
}

// resolve answers an ARP request for one of the machine's addresses.
func (s *stack) resolve(frame []byte) ([]byte, bool) {
	if len(frame) < etherLen+arpLen || binary.BigEndian.Uint16(frame[12:]) != typeARP {
		return nil, false
	}
	a := frame[etherLen:]
	request := [8]byte{0, 1, 0x08, 0x00, 6, 4, 0, 1} // Ethernet, IPv4, a request
	to, target := hardware(frame[0:6]), netip.AddrFrom4([4]byte(a[24:28]))
	if [8]byte(a) != request || to != s.mac && !to.group() || !slices.Contains(s.addresses, target) {
		return nil, false
	}
	f := make([]byte, etherLen+arpLen)
	copy(f[0:], frame[6:12])
	copy(f[6:], s.mac[:])
	binary.BigEndian.PutUint16(f[12:], typeARP)
	b := f[etherLen:]
	copy(b, request[:])
	b[7] = 2
	copy(b[8:], s.mac[:])
	copy(b[14:], a[24:28])
	copy(b[18:], a[8:18]) // who asked
	return f, true
}

// What neighbor discovery says (RFC 4861).
const (
	solicitation  = 135
	advertisement = 136
	solicited     = 0x40
	override      = 0x20
	ndLen         = 24 // of both, without options
)

// advertise answers a neighbor solicitation for one of the machine's addresses.
// One without a source address asks whether the address is taken; all hear the
// answer.
func (s *stack) advertise(p packet) (packet, bool) {
	b := p.payload
	if p.protocol != unix.IPPROTO_ICMPV6 || !p.src.Is6() || p.hops != hopsOfNeighbor || len(b) < ndLen || b[0] != solicitation || b[1] != 0 {
		return packet{}, false
	}
	target := netip.AddrFrom16([16]byte(b[8:24]))
	if !slices.Contains(s.addresses, target) || p.src.IsMulticast() {
		return packet{}, false
	}
	answer := append([]byte{advertisement, 0, 0, 0, solicited | override, 0, 0, 0}, b[8:24]...)
	answer = append(append(answer, 2, 1), s.mac[:]...) // the target's link-layer address
	out := s.back(p, answer)
	out.src, out.hops = target, hopsOfNeighbor
	if p.src.IsUnspecified() {
		answer[4] = override
		out.dst = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 1})
		out.to = hardware{0x33, 0x33, 0, 0, 0, 1}
	}
	return out, true
}

// echoed is the answer to an echo request (RFC 792, RFC 4443).
func echoed(p packet) ([]byte, bool) {
	request, reply := byte(8), byte(0)
	if p.src.Is6() {
		request, reply = 128, 129
	}
	if (p.protocol == unix.IPPROTO_ICMP) != p.src.Is4() || p.payload[0] != request || p.payload[1] != 0 {
		return nil, false
	}
	answer := slices.Clone(p.payload)
	answer[0] = reply
	return answer, true
}

// said is the answer to a datagram to one of Ports, as much of it as fits into
// one packet.
func (s *stack) said(p packet) ([]byte, bool) {
	port, length := binary.BigEndian.Uint16(p.payload[2:]), int(binary.BigEndian.Uint16(p.payload[4:]))
	if !serves(port) || length < 8 || length > len(p.payload) {
		return nil, false
	}
	answer := make([]byte, 8, 8+len(s.name)+length)
	copy(answer[0:], p.payload[2:4])
	copy(answer[2:], p.payload[0:2])
	answer = append(append(append(answer, s.name...), ' '), p.payload[8:length]...)
	answer = answer[:min(len(answer), s.mtu-headerOf(p.src))]
	binary.BigEndian.PutUint16(answer[4:], uint16(len(answer)))
	return answer, true
}

// serves reports whether the machine answers on a port.
func serves(port uint16) bool { return slices.Contains(Ports, int(port)) }

// headerOf is how long the header of IP is for an address's family.
func headerOf(a netip.Addr) int {
	if a.Is4() {
		return ip4Len
	}
	return ip6Len
}
