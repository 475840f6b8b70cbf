package ipip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// patience is how long a packet may take.
const patience = 5 * time.Second

// packet is an IPv4 packet that a test sends, or has caught.
type packet struct {
	tos, ttl, proto uint8
	id, flags       uint16 // flags with the offset of a fragment
	from, to        netip.Addr
	data            []byte
}

const (
	dontFragment  = 0x4000
	moreFragments = 0x2000
)

func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

func (p packet) bytes() []byte {
	b := make([]byte, 20, 20+len(p.data))
	b[0], b[1], b[8], b[9] = 0x45, p.tos, p.ttl, p.proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(p.data)))
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], p.flags)
	from, to := p.from.As4(), p.to.As4()
	copy(b[12:], from[:])
	copy(b[16:], to[:])
	binary.BigEndian.PutUint16(b[10:], sum(b))
	return append(b, p.data...)
}

// parse reads a packet, and fails on a header that is not sound.
func parse(b []byte) (packet, error) {
	if len(b) < 20 || b[0]>>4 != 4 || int(b[0]&15)*4 > len(b) {
		return packet{}, fmt.Errorf("no IPv4 packet: %x", b)
	}
	head, size := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if sum(b[:head]) != 0 {
		return packet{}, fmt.Errorf("header with a wrong sum: %x", b[:head])
	}
	if size > len(b) || size < head {
		return packet{}, fmt.Errorf("length %d in a packet of %d bytes", size, len(b))
	}
	return packet{
		tos: b[1], ttl: b[8], proto: b[9], id: binary.BigEndian.Uint16(b[4:]), flags: binary.BigEndian.Uint16(b[6:]),
		from: netip.AddrFrom4([4]byte(b[12:])), to: netip.AddrFrom4([4]byte(b[16:])), data: b[head:size],
	}, nil
}

// datagram is a UDP datagram without a sum.
func datagram(port uint16, data []byte) []byte {
	b := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(b, port)
	binary.BigEndian.PutUint16(b[2:], port)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
	return append(b, data...)
}

// sendRaw sends packets as they are from a namespace.
func sendRaw(t testing.TB, ns *netns.NS, packets ...[]byte) {
	t.Helper()
	testenv.Do(t, ns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, p := range packets {
			if err := unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: [4]byte(p[16:20])}); err != nil {
				return fmt.Errorf("send %x: %w", p[:20], err)
			}
		}
		return nil
	})
}

// tap catches IPv4 packets that pass an interface, in and out.
type tap struct {
	t  testing.TB
	fd int
}

func listen(t testing.TB, ns *netns.NS, name string) *tap {
	t.Helper()
	var fd int
	testenv.Do(t, ns, func() (err error) {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		proto := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(proto)); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: link.Index})
	})
	t.Cleanup(func() { unix.Close(fd) })
	return &tap{t: t, fd: fd}
}

// next returns the next packet that want agrees to, sound or the test ends.
func (c *tap) next(what string, want func(packet) bool) packet {
	c.t.Helper()
	end := time.Now().Add(patience)
	for time.Now().Before(end) {
		if p, ok := c.take(time.Until(end)); ok && want(p) {
			return p
		}
	}
	c.t.Fatalf("no %s came", what)
	return packet{}
}

// take returns the next packet, sound or the test ends; false after a while
// without one.
func (c *tap) take(wait time.Duration) (packet, bool) {
	c.t.Helper()
	buf := make([]byte, 1<<16)
	for {
		tv := unix.NsecToTimeval(max(wait, time.Millisecond).Nanoseconds())
		if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			c.t.Fatal(err)
		}
		n, from, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return packet{}, false
		}
		if err != nil {
			c.t.Fatal(err)
		}
		if ll := from.(*unix.SockaddrLinklayer); ll.Protocol != binary.NativeEndian.Uint16([]byte{8, 0}) {
			continue
		}
		p, err := parse(buf[:n])
		if err != nil {
			c.t.Fatal(err)
		}
		return p, true
	}
}

// carrying picks packets of protocol 4 with a datagram for a port inside.
func carrying(port uint16) func(packet) bool {
	return func(p packet) bool {
		if p.proto != unix.IPPROTO_IPIP {
			return false
		}
		in, err := parse(p.data)
		return err == nil && toPort(port)(in)
	}
}

// toPort picks datagrams for a port.
func toPort(port uint16) func(packet) bool {
	return func(p packet) bool {
		return p.proto == unix.IPPROTO_UDP && len(p.data) >= 8 && binary.BigEndian.Uint16(p.data[2:]) == port
	}
}
