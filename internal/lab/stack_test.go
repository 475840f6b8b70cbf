package lab

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	vmMAC   = hardware{0x02, 0, 0, 0, 0, 0x01}
	hostMAC = hardware{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}
	all4    = hardware{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	vm4     = netip.MustParseAddr("10.48.0.7")
	vm6     = netip.MustParseAddr("fd00:10:48::7")
	far4    = netip.MustParseAddr("10.48.1.9")
	far6    = netip.MustParseAddr("fd00:10:48:1::9")
	noon    = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
)

// machineForTest has one address of each family.
func machineForTest(number uint32) *stack {
	return newStack("vm", vmMAC, []netip.Addr{vm4, vm6}, 1450, func() uint32 { return number })
}

// toMachine is a packet from far away, as the host hands it on.
func toMachine(dst netip.Addr, protocol byte, payload []byte) packet {
	p := packet{from: hostMAC, to: vmMAC, src: far4, dst: dst, protocol: protocol, hops: 62, payload: payload}
	if dst.Is6() {
		p.src = far6
	}
	return p
}

func datagramTo(port uint16, data string) []byte {
	b := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(b[0:], 40000)
	binary.BigEndian.PutUint16(b[2:], port)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
	return append(b, data...)
}

func solicit(target netip.Addr) []byte {
	b := append(make([]byte, 8), target.AsSlice()...)
	b[0] = solicitation
	return append(append(b, 1, 1), hostMAC[:]...)
}

func arpRequest(target netip.Addr) []byte {
	f := make([]byte, etherLen+arpLen)
	copy(f, all4[:])
	copy(f[6:], hostMAC[:])
	copy(f[12:], []byte{0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1})
	copy(f[22:], hostMAC[:])
	copy(f[28:], []byte{172, 30, 0, 11})
	copy(f[38:], target.AsSlice())
	return f
}

// TestWhereTheMachineIs: ARP and neighbor discovery.
func TestWhereTheMachineIs(t *testing.T) {
	s := machineForTest(1)
	got, taken := s.receive(arpRequest(vm4), noon)
	want := "eeeeeeeeeeee" + "020000000001" + "0806" + "0001080006040002" + "020000000001" + "0a300007" + "eeeeeeeeeeee" + "ac1e000b"
	if !taken || len(got) != 1 || hex.EncodeToString(got[0]) != want {
		t.Errorf("got %x, want %s", got, want)
	}
	if got, taken := s.receive(arpRequest(far4), noon); taken || got != nil {
		t.Errorf("it answers for another: %x", got)
	}
	allNodes, group := netip.MustParseAddr("ff02::1"), netip.MustParseAddr("ff02::1:ff00:7")
	for _, tc := range []struct {
		name     string
		src, dst netip.Addr
		hops     byte
		target   netip.Addr
		flags    byte // of the answer; 0: there is none
		to       hardware
		ip       netip.Addr
	}{
		{"of the host", netip.MustParseAddr("fe80::1"), group, 255, vm6, solicited | override, hostMAC, netip.MustParseAddr("fe80::1")},
		{"whether it is taken", netip.IPv6Unspecified(), group, 255, vm6, override, hardware{0x33, 0x33, 0, 0, 0, 1}, allNodes},
		{"by a router", netip.MustParseAddr("fe80::1"), group, 254, vm6, 0, hardware{}, netip.Addr{}},
		{"of another", netip.MustParseAddr("fe80::1"), group, 255, far6, 0, hardware{}, netip.Addr{}},
	} {
		p := packet{from: hostMAC, to: hardware{0x33, 0x33, 0xff, 0, 0, 7}, src: tc.src, dst: tc.dst,
			protocol: unix.IPPROTO_ICMPV6, hops: tc.hops, payload: solicit(tc.target)}
		answers, taken := s.receive(p.frame(0), noon)
		if taken != (tc.flags != 0) || taken != (len(answers) == 1) {
			t.Errorf("%s: %x, %v", tc.name, answers, taken)
		}
		if !taken {
			continue
		}
		a, ok := readPacket(answers[0])
		wantBody := append(append(vm6.AsSlice(), 2, 1), vmMAC[:]...)
		if !ok || a.payload[0] != advertisement || a.payload[4] != tc.flags || a.to != tc.to || a.from != vmMAC || a.dst != tc.ip || a.src != vm6 ||
			a.hops != 255 || !bytes.Equal(a.payload[8:], wantBody) {
			t.Errorf("%s: %+v", tc.name, a)
		}
	}
}

// TestAnswers asks the machine things in both families.
func TestAnswers(t *testing.T) {
	long := strings.Repeat("x", 1400)
	for _, dst := range []netip.Addr{vm4, vm6} {
		ping, pong, kind := byte(8), byte(0), byte(unix.IPPROTO_ICMP)
		if dst.Is6() {
			ping, pong, kind = 128, 129, unix.IPPROTO_ICMPV6
		}
		for _, tc := range []struct {
			name     string
			protocol byte
			in       []byte
			want     string // of the answer, behind what a header has; "-": the frame is not taken
			change   func(frame []byte)
		}{
			{"echo", kind, []byte{ping, 0, 0, 0, 1, 2, 3, 4, 'h', 'i'}, string([]byte{pong, 0, 1, 2, 3, 4, 'h', 'i'}), nil},
			{"what is no request", kind, []byte{ping + 1, 0, 0, 0, 1, 2, 3, 4}, "-", nil},
			{"a datagram", unix.IPPROTO_UDP, datagramTo(443, "probe"), "vm probe", nil},
			{"an empty one", unix.IPPROTO_UDP, datagramTo(80, ""), "vm ", nil},
			{"a long one", unix.IPPROTO_UDP, datagramTo(80, long), "vm " + long, nil},
			{"where nobody listens", unix.IPPROTO_UDP, datagramTo(81, "probe"), "-", nil},
			{"broken on the way", unix.IPPROTO_UDP, datagramTo(443, "probe"), "-", func(f []byte) { f[len(f)-1]++ }},
			{"for another machine", unix.IPPROTO_UDP, datagramTo(443, "probe"), "-", func(f []byte) { f[5]++ }},
			{"cut short", unix.IPPROTO_UDP, datagramTo(443, "probe"), "-", func(f []byte) { f[12] = 0 }},
			{"another protocol", 132, datagramTo(443, "probe"), "-", nil},
		} {
			name := dst.String() + " " + tc.name
			frame := toMachine(dst, tc.protocol, tc.in).frame(7)
			if tc.change != nil {
				tc.change(frame)
			}
			answers, taken := machineForTest(1).receive(frame, noon)
			if tc.want == "-" {
				if taken || answers != nil {
					t.Errorf("%s: taken and answered by %x", name, answers)
				}
				continue
			}
			if !taken || len(answers) != 1 || len(answers[0]) > etherLen+1450 {
				t.Fatalf("%s: %d answers, %v", name, len(answers), taken)
			}
			a, ok := readPacket(answers[0])
			if !ok || a.to != hostMAC || a.from != vmMAC || a.src != dst || a.hops != hopsOfOurs || !single(a.dst) {
				t.Fatalf("%s: %+v, %v", name, a, ok)
			}
			got := string(a.payload[8:])
			if a.protocol == kind {
				got = string(slices.Concat(a.payload[:2], a.payload[4:]))
			} else if binary.BigEndian.Uint16(a.payload) == 81 || binary.BigEndian.Uint16(a.payload[2:]) != 40000 {
				t.Errorf("%s: from and to %x", name, a.payload[:4])
			}
			if want := tc.want[:min(len(tc.want), 1450-headerOf(dst)-8)]; got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
	}
}

// FuzzStack throws frames at the machine: it ends by none, and what it answers
// is sound and comes from it.
func FuzzStack(f *testing.F) {
	f.Add(arpRequest(vm4))
	f.Add(toMachine(vm4, unix.IPPROTO_ICMP, []byte{8, 0, 0, 0, 1, 2, 3, 4}).frame(1))
	f.Add(toMachine(vm6, unix.IPPROTO_ICMPV6, []byte{128, 0, 0, 0, 1, 2, 3, 4}).frame(1))
	f.Add(toMachine(vm6, unix.IPPROTO_UDP, datagramTo(80, "x")).frame(1))
	f.Add(packet{from: hostMAC, to: vmMAC, src: far6, dst: vm6, protocol: unix.IPPROTO_ICMPV6, hops: 255, payload: solicit(vm6)}.frame(1))
	for _, dst := range []netip.Addr{vm4, vm6} {
		f.Add(toMachine(dst, unix.IPPROTO_TCP, segment{seq: 9, bits: bitSYN, window: 100, mss: 1400}.bytes(40000, 80)).frame(1))
		f.Add(toMachine(dst, unix.IPPROTO_TCP, segment{seq: 10, ack: 2, bits: bitACK | bitFIN, window: 100, data: []byte("hello")}.bytes(40000, 80)).frame(1))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		s := machineForTest(1)
		for _, dst := range []netip.Addr{vm4, vm6} { // connections for it to hit
			s.receive(toMachine(dst, unix.IPPROTO_TCP, segment{seq: 9, bits: bitSYN, window: 100}.bytes(40000, 80)).frame(1), noon)
		}
		now := noon
		for range 3 {
			answers, _ := s.receive(frame, now)
			now = now.Add(time.Minute)
			for _, a := range append(answers, s.tick(now)...) {
				if len(a) >= etherLen && binary.BigEndian.Uint16(a[12:]) == typeARP {
					continue
				}
				if p, ok := readPacket(a); !ok || p.from != vmMAC || p.src != vm4 && p.src != vm6 {
					t.Fatalf("answered by %x", a)
				}
			}
		}
	})
}
