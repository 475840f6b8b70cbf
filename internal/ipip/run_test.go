package ipip

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/testenv"
)

// What a program answers (linux/pkt_cls.h).
const (
	goesOn     = 0xffffffff // TC_ACT_UNSPEC
	dropped    = 2          // TC_ACT_SHOT
	redirected = 7          // TC_ACT_REDIRECT
)

var (
	us       = netip.MustParseAddr("172.16.1.1")
	known    = netip.MustParseAddr("172.16.2.1")
	stranger = netip.MustParseAddr("172.16.3.1")
)

// alone loads the programs without attaching them.
func alone(t testing.TB) (*programs, *tables) {
	t.Helper()
	testenv.NeedRoot(t)
	dir := filepath.Join(t.TempDir(), "pins")
	if err := mountBPF(dir); err != nil {
		t.Fatal(err)
	}
	tables, err := openTables(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range []func() error{tables.unpin, tables.close, func() error { return unmountBPF(dir) }} {
			if err := f(); err != nil {
				t.Error(err)
			}
		}
	})
	var p programs
	s := settings{local: us, index: 1, mac: [6]byte{2, 2, 2, 2, 2, 2}}
	for _, into := range []any{&p.usual, &p.plain} {
		if err := load(s, &tables, into); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(p.close)
	if err := addHosts(tables.Hosts, []netip.Addr{known}); err != nil {
		t.Fatal(err)
	}
	return &p, &tables
}

// run gives a packet to a program that expects Ethernet headers, in a
// namespace where nothing else is, and returns what it answers and makes of
// it.
func run(t testing.TB, p *ebpf.Program, ip []byte) (verdict uint32, out []byte) {
	t.Helper()
	frame := append([]byte{12: 8, 13: 0}, ip...)
	out = make([]byte, 1<<15)
	opts := ebpf.RunOptions{Data: frame, DataOut: out}
	verdict, err := p.Run(&opts)
	if err != nil {
		t.Fatalf("run with %d bytes, %x: %v", len(frame), frame[:min(len(frame), 80)], err)
	}
	return verdict, opts.DataOut
}

// twin says what the decapsulator must do with a packet that is no fragment,
// by the words of RFC 2003 and 6040.
func twin(b []byte) (verdict uint32, out []byte) {
	if len(b) < 20 || netip.AddrFrom4([4]byte(b[16:])) != us || b[9] != unix.IPPROTO_IPIP {
		return goesOn, nil
	}
	if netip.AddrFrom4([4]byte(b[12:])) != known {
		return dropped, nil
	}
	outer, err := parse(b)
	if err != nil || b[0]&15 < 5 || len(outer.data) < 20 {
		return dropped, nil
	}
	in := slices.Clone(outer.data)
	size, head := int(binary.BigEndian.Uint16(in[2:])), int(in[0]&15)*4
	if in[0]>>4 != 4 || head < 20 || size > len(in) || size < head {
		return dropped, nil
	}
	from, to := outer.tos&3, in[1]&3
	switch {
	case from == 3 && to == 0:
		return dropped, nil
	case from == 3:
		to = 3
	case from == 1 && to == 2:
		to = 1
	}
	// RFC 1624, on the sum that is there, which may be wrong before and then
	// stays so.
	check := ^binary.BigEndian.Uint16(in[10:])
	sum := uint32(check) + uint32(^uint16(in[1]&3)) + uint32(to)
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	if to != in[1]&3 {
		in[1] = in[1]&^3 | to
		binary.BigEndian.PutUint16(in[10:], ^uint16(sum))
	}
	// What Ethernet filled up goes up as it came; the kernel cuts it off.
	rest := b[int(b[0]&15)*4+len(outer.data):]
	return redirected, append([]byte{2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 8, 0}, append(in, rest...)...)
}

// FuzzDecapsulate compares the decapsulator with its twin.
func FuzzDecapsulate(f *testing.F) {
	in := packet{ttl: 9, proto: unix.IPPROTO_UDP, from: netip.MustParseAddr("10.65.2.2"), to: netip.MustParseAddr("10.65.1.2"), data: datagram(9, []byte("data"))}
	add := func(p packet) { f.Add(p.bytes(), true) }
	for _, from := range []netip.Addr{known, stranger} {
		for ecn := range uint8(4) {
			in.tos = 2
			add(packet{tos: ecn, ttl: 5, proto: unix.IPPROTO_IPIP, from: from, to: us, data: in.bytes()})
			in.tos = 0
			add(packet{tos: ecn, ttl: 5, proto: unix.IPPROTO_IPIP, from: from, to: us, data: in.bytes()})
		}
	}
	whole := packet{ttl: 5, proto: unix.IPPROTO_IPIP, from: known, to: us, data: in.bytes()}
	f.Add(append(whole.bytes(), make([]byte, 20)...), true) // filled up
	f.Add(whole.bytes()[:45], true)                         // cut short
	options := whole.bytes()
	options = slices.Insert(options, 20, 1, 1, 1, 1)
	options[0], options[3] = 0x46, options[3]+4
	f.Add(options, true)
	add(packet{ttl: 5, proto: unix.IPPROTO_ICMP, from: known, to: us, data: append([]byte{3, 4, 0, 0, 0, 0, 5, 0}, packet{flags: dontFragment, proto: unix.IPPROTO_IPIP, from: us, to: known, data: make([]byte, 1400)}.bytes()[:28]...)})
	p, _ := alone(f)
	f.Fuzz(func(t *testing.T, b []byte, repair bool) {
		if len(b) > 3000 || len(b) < 20 {
			t.Skip("the kernel takes no such packet for a run")
		}
		if head := int(b[0]&15) * 4; repair && len(b) >= head && head >= 20 {
			b = slices.Clone(b)
			b[10], b[11] = 0, 0
			binary.BigEndian.PutUint16(b[10:], sum(b[:head]))
		}
		if len(b) >= 20 && binary.BigEndian.Uint16(b[6:])&(moreFragments|0x1fff) != 0 {
			run(t, p.DecapsulateEthernet, b)
			return // TestFragments is about these
		}
		want, wantOut := twin(b)
		got, out := run(t, p.DecapsulateEthernet, b)
		if got != want || want == redirected && !bytes.Equal(out, wantOut) {
			t.Errorf("%x:\ngot  %d %x\nwant %d %x", b, int32(got), out, int32(want), wantOut)
		}
	})
}

// TestFragments puts fragments in, in each order, and looks at what comes out.
func TestFragments(t *testing.T) {
	p, tables := alone(t)
	in := packet{ttl: 9, proto: unix.IPPROTO_UDP, from: netip.MustParseAddr("10.65.2.2"), to: netip.MustParseAddr("10.65.1.2"), data: datagram(9, bytes.Repeat([]byte("fragment"), 600))}
	whole := in.bytes()
	piece := func(from, to int) packet {
		f := packet{ttl: 5, proto: unix.IPPROTO_IPIP, id: 7, from: known, to: us, flags: uint16(from / 8), data: whole[from:min(to, len(whole))]}
		if to < len(whole) {
			f.flags |= moreFragments
		}
		return f
	}
	with := func(p packet, change func(*packet)) packet { change(&p); return p }
	cases := []struct {
		name  string
		in    []packet
		whole bool
	}{
		{"two in order", []packet{piece(0, 2400), piece(2400, 9000)}, true},
		{"many in order", []packet{piece(0, 800), piece(800, 1600), piece(1600, 2400), piece(2400, 3200), piece(3200, 4000), piece(4000, 9000)}, true},
		{"tiny ones", []packet{piece(0, 8), piece(8, 16), piece(16, 24), piece(24, 1480), piece(1480, 3000), piece(3000, 9000)}, true},
		{"the first again", []packet{piece(0, 2400), piece(0, 2400), piece(2400, 9000)}, true},
		{"out of order", []packet{piece(2400, 9000), piece(0, 2400)}, false},
		{"a hole", []packet{piece(0, 2400), piece(2408, 9000)}, false},
		{"an overlap", []packet{piece(0, 2400), piece(2392, 9000)}, false},
		{"a piece between that is no multiple of eight", []packet{piece(0, 2404), piece(2400, 9000)}, false},
		{"another packet's", []packet{piece(0, 2400), with(piece(2400, 9000), func(p *packet) { p.id = 7 + 64 })}, false},
		{"another sender's", []packet{piece(0, 2400), with(piece(2400, 9000), func(p *packet) { p.from = stranger })}, false},
		{"the last again", []packet{piece(0, 2400), piece(2400, 9000), piece(2400, 9000)}, false},
		{"congestion that cannot be told", []packet{with(piece(0, 2400), func(p *packet) { p.tos = 3 }), piece(2400, 9000)}, false},
		{"empty", []packet{piece(0, 2400), with(piece(2400, 9000), func(p *packet) { p.data = nil })}, false},
	}
	for _, c := range cases {
		if err := tables.Slots.Update(slotOf(7), make([]byte, tables.Slots.ValueSize()), ebpf.UpdateAny); err != nil {
			t.Fatal(err)
		}
		var verdict uint32
		var out []byte
		for i, f := range c.in {
			verdict, out = run(t, p.DecapsulateEthernet, f.bytes())
			if i < len(c.in)-1 && verdict != dropped && c.name != "the last again" {
				t.Errorf("%s: fragment %d: got %d, want it kept", c.name, i, int32(verdict))
			}
		}
		if got := verdict == redirected; got != c.whole {
			t.Errorf("%s: whole %v, want %v", c.name, got, c.whole)
		}
		if c.whole && !bytes.Equal(out[min(14, len(out)):], whole) {
			t.Errorf("%s: %d bytes came out, other than the %d that went in", c.name, len(out)-14, len(whole))
		}
	}
}

// slotOf is where fragments with an identification from the known host are
// kept: as in bpf/reassemble.h.
func slotOf(id uint16) uint32 {
	b := known.As4()
	from := binary.BigEndian.Uint32(b[:])
	return (from ^ from>>8 ^ uint32(id)) % 64
}

// TestPathMessages gives messages of routers to the decapsulator: the true one
// is learned from, and all go on to the kernel.
func TestPathMessages(t *testing.T) {
	p, tables := alone(t)
	sent := packet{ttl: 60, flags: dontFragment, proto: unix.IPPROTO_IPIP, from: us, to: known, data: make([]byte, 1480)}
	for _, c := range []struct {
		name   string
		mtu    uint16
		change func(message *packet, sent *packet)
		want   uint32 // 0: nothing learned
	}{
		{"a true one", 1400, func(_, _ *packet) {}, 1400},
		{"by an old router, without a size", 0, func(_, _ *packet) {}, 552},
		{"absurdly small", 68, func(_, _ *packet) {}, 552},
		{"no smaller", 1500, func(_, _ *packet) {}, 0},
		{"about another's packet", 1400, func(_, s *packet) { s.from = stranger }, 0},
		{"about a packet to no host", 1400, func(_, s *packet) { s.to = stranger }, 0},
		{"about another protocol", 1400, func(_, s *packet) { s.proto = unix.IPPROTO_UDP }, 0},
		{"about a packet that may be cut", 1400, func(_, s *packet) { s.flags = 0 }, 0},
		{"a fragment of a message", 1400, func(m, _ *packet) { m.flags = moreFragments }, 0},
		{"to another", 1400, func(m, _ *packet) { m.to = stranger }, 0},
	} {
		m := packet{ttl: 60, proto: unix.IPPROTO_ICMP, from: stranger, to: us}
		s := sent
		c.change(&m, &s)
		m.data = append([]byte{3, 4, 0, 0, 0, 0, byte(c.mtu >> 8), byte(c.mtu)}, s.bytes()[:28]...)
		_ = tables.Paths.Delete(known.As4()) // from the case before
		if verdict, _ := run(t, p.DecapsulateEthernet, m.bytes()); verdict != goesOn {
			t.Errorf("%s: got %d, want it to go on", c.name, int32(verdict))
		}
		var got path
		if err := tables.Paths.Lookup(known.As4(), &got); (err == nil) != (c.want != 0) || got.MTU != c.want {
			t.Errorf("%s: learned %d (%v), want %d", c.name, got.MTU, err, c.want)
		}
	}
}

// TestObjectIsCurrent compares the sources with those that the object was made
// of.
func TestObjectIsCurrent(t *testing.T) {
	if os.Getenv("BRINDLE_VM") != "" {
		t.Skip("no sources in a virtual machine: it runs outside")
	}
	want, err := os.ReadFile("bpf/sources.sha256")
	if err != nil {
		t.Fatal(err)
	}
	var sources []string
	for _, pattern := range []string{"bpf/*.c", "bpf/*.h", "bpf/generate.sh"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, found...)
	}
	var got strings.Builder
	for _, f := range append(sources, "bpf/ipip.o") {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%x  %s\n", sha256.Sum256(b), filepath.Base(f))
	}
	if got.String() != string(want) {
		t.Errorf("bpf/ipip.o was not made of the sources that are here: run go generate where clang is\ngot:\n%swant:\n%s", got.String(), want)
	}
}
