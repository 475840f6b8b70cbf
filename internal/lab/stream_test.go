package lab

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// farEnd is the other end of a connection with the machine, simple and slow.
type farEnd struct {
	t     *testing.T
	s     *stack
	dst   netip.Addr
	now   time.Time
	rng   *rand.Rand
	ports [2]uint16

	una, want uint32
	opened    bool
	toSend    []byte
	got       []byte
	ended     bool // the machine's FIN has come
	refused   bool

	wires [2][][]byte // to the machine, from it
}

const farISS = 0xffffff00 // numbers wrap around soon

func newFarEnd(t *testing.T, dst netip.Addr, seed uint64) *farEnd {
	c := &farEnd{t: t, s: machineForTest(0xfffffff0), dst: dst, now: noon, rng: rand.New(rand.NewPCG(seed, 1)), ports: [2]uint16{40000, 5432}, una: farISS}
	c.push()
	return c
}

// put sends one segment.
func (c *farEnd) put(g segment) {
	c.wires[0] = append(c.wires[0], toMachine(c.dst, unix.IPPROTO_TCP, g.bytes(c.ports[0], c.ports[1])).frame(1))
}

// push sends all that is not acknowledged, in pieces.
func (c *farEnd) push() {
	if !c.opened {
		c.put(segment{seq: c.una, bits: bitSYN, window: 600, mss: 300 + c.rng.IntN(1500)})
		return
	}
	seq, rest := c.una, c.toSend
	for len(rest) > 0 && len(c.wires[0]) < 20 {
		n := min(len(rest), 1+c.rng.IntN(1200))
		c.put(segment{seq: seq, ack: c.want, bits: bitACK, window: c.window(), data: rest[:n]})
		seq, rest = seq+uint32(n), rest[n:]
	}
	if len(rest) == 0 {
		c.put(segment{seq: seq, ack: c.want, bits: bitACK | bitFIN, window: c.window()})
	}
}

// window is now and then none.
func (c *farEnd) window() uint16 { return uint16(max(0, c.rng.IntN(6000)-500)) }

// hear takes in a frame of the machine.
func (c *farEnd) hear(frame []byte) {
	p, ok := readPacket(frame)
	if !ok || p.src != c.dst || p.to != hostMAC || len(frame) > etherLen+1450 {
		c.t.Fatalf("a bad frame: %x", frame)
	}
	g, ok := readSegment(p.payload)
	switch {
	case !ok:
		c.t.Fatalf("a bad segment: %x", p.payload)
	case g.bits&bitRST != 0:
		c.refused = true
		return
	case g.bits&bitSYN != 0:
		if !c.opened {
			c.opened, c.una, c.want = true, c.una+1, g.seq+1
			c.push()
		}
		return
	case !c.opened:
		return
	}
	if n := g.ack - c.una; int(n) <= len(c.toSend)+1 { // one more: our FIN
		c.toSend = c.toSend[min(int(n), len(c.toSend)):]
		c.una += n
	}
	if g.seq == c.want && !c.ended {
		c.got = append(c.got, g.data...)
		c.want += g.length()
		c.ended = g.bits&bitFIN != 0
	}
	if g.length() > 0 {
		c.put(segment{seq: c.una + uint32(len(c.toSend)), ack: c.want, bits: bitACK, window: c.window()})
	}
}

// step has one frame arrive, out of its turn, twice or never, or time pass.
func (c *farEnd) step() {
	if len(c.wires[0])+len(c.wires[1]) == 0 {
		c.now = c.now.Add(time.Second)
		c.wires[1] = append(c.wires[1], c.s.tick(c.now)...)
		if !c.ended {
			c.push()
		}
		return
	}
	w := c.rng.IntN(2)
	if len(c.wires[w]) == 0 {
		w = 1 - w
	}
	i := 0
	if c.rng.IntN(4) == 0 {
		i = c.rng.IntN(len(c.wires[w]))
	}
	frame := c.wires[w][i]
	switch c.rng.IntN(12) {
	case 0: // lost
		c.wires[w] = append(c.wires[w][:i:i], c.wires[w][i+1:]...)
		return
	case 1: // and once more later
	default:
		c.wires[w] = append(c.wires[w][:i:i], c.wires[w][i+1:]...)
	}
	if w == 1 {
		c.hear(frame)
		return
	}
	answers, taken := c.s.receive(frame, c.now)
	if !taken {
		c.t.Fatalf("not taken: %x", frame)
	}
	c.wires[1] = append(c.wires[1], answers...)
}

// TestConversations has everything go wrong on the wire: what comes back is the
// greeting and all that was said, and nothing is left of the connection.
func TestConversations(t *testing.T) {
	for seed := range uint64(60) {
		dst := []netip.Addr{vm4, vm6}[seed%2]
		t.Run(fmt.Sprintf("%d", seed), func(t *testing.T) {
			c := newFarEnd(t, dst, seed)
			c.toSend = make([]byte, c.rng.IntN(60<<10))
			for i := range c.toSend {
				c.toSend[i] = byte(c.rng.Uint32())
			}
			want := append([]byte("vm\n"), c.toSend...)
			steps := 0
			for ; steps < 200_000 && !(c.ended && len(c.s.streams) == 0); steps++ {
				c.step()
				for _, s := range c.s.streams {
					if len(s.queue) > mostQueued {
						t.Fatalf("%d bytes queued", len(s.queue))
					}
				}
			}
			if !c.ended && c.refused || !bytes.Equal(c.got, want) {
				t.Errorf("%d bytes of %d after %d steps, ended %v, refused %v", len(c.got), len(want), steps, c.ended, c.refused)
			}
			if len(c.s.streams) != 0 {
				t.Errorf("a connection is left: %+v", c.s.streams)
			}
		})
	}
}

// TestSegments says what the machine answers to single segments.
func TestSegments(t *testing.T) {
	const ours = 1000
	syn := segment{seq: 9, bits: bitSYN, window: 8000, mss: 1400}
	ack := segment{seq: 10, ack: ours + 1, bits: bitACK, window: 8000}
	for _, tc := range []struct {
		name string
		in   []segment
		want []segment // the answer to the last; what windows are said is not looked at
		left int       // connections
	}{
		{"opened", []segment{syn}, []segment{{seq: ours, ack: 10, bits: bitSYN | bitACK, mss: 1410}}, 1},
		{"opened twice", []segment{syn, syn}, []segment{{seq: ours, ack: 10, bits: bitSYN | bitACK, mss: 1410}}, 1},
		{"greeted", []segment{syn, ack}, []segment{{seq: ours + 1, ack: 10, bits: bitACK | bitPSH, data: []byte("vm\n")}}, 1},
		{"never opened", []segment{ack}, []segment{{seq: ours + 1, bits: bitRST}}, 0},
		{"never opened, without an acknowledgment", []segment{{seq: 5, bits: bitFIN}}, []segment{{ack: 6, bits: bitRST | bitACK}}, 0},
		{"reset", []segment{syn, ack, {seq: 10, bits: bitRST}}, nil, 0},
		{"reset of what never was", []segment{{seq: 10, bits: bitRST}}, nil, 0},
		{"a reset that was guessed", []segment{syn, ack, {seq: 11, bits: bitRST}}, []segment{{seq: ours + 4, ack: 10, bits: bitACK}}, 1},
		{"opened again while it stands", []segment{syn, ack, {seq: 5000, bits: bitSYN}}, []segment{{seq: ours + 4, ack: 10, bits: bitACK}}, 1},
		{"what was never sent is acknowledged", []segment{syn, {seq: 10, ack: ours + 2, bits: bitACK}}, []segment{{seq: ours + 2, bits: bitRST}}, 1},
		{"data", []segment{syn, ack, {seq: 10, ack: ours + 4, bits: bitACK, window: 100, data: []byte("hello")}},
			[]segment{{seq: ours + 4, ack: 15, bits: bitACK | bitPSH, data: []byte("hello")}}, 1},
		{"data ahead", []segment{syn, ack, {seq: 11, ack: ours + 4, bits: bitACK, window: 100, data: []byte("ello")}},
			[]segment{{seq: ours + 4, ack: 10, bits: bitACK}}, 1},
		{"no room at the peer", []segment{syn, {seq: 10, ack: ours + 1, bits: bitACK, data: []byte("hello")}},
			[]segment{{seq: ours + 1, ack: 15, bits: bitACK}}, 1},
		{"ended by the peer", []segment{syn, ack, {seq: 10, ack: ours + 4, bits: bitACK | bitFIN, window: 100}},
			[]segment{{seq: ours + 4, ack: 11, bits: bitACK | bitFIN}}, 1},
		{"over", []segment{syn, ack, {seq: 10, ack: ours + 4, bits: bitACK | bitFIN, window: 100}, {seq: 11, ack: ours + 5, bits: bitACK}}, nil, 0},
		{"asked whether it is there", []segment{syn, ack, {seq: 9, ack: ours + 4, bits: bitACK, window: 100}},
			[]segment{{seq: ours + 4, ack: 10, bits: bitACK}}, 1},
	} {
		s := machineForTest(ours)
		var last [][]byte
		for _, g := range tc.in {
			last, _ = s.receive(toMachine(vm4, unix.IPPROTO_TCP, g.bytes(40000, 80)).frame(1), noon)
		}
		var got []segment
		for _, f := range last {
			p, _ := readPacket(f)
			g, ok := readSegment(p.payload)
			if !ok {
				t.Fatalf("%s: %x", tc.name, f)
			}
			g.window = 0
			got = append(got, g)
		}
		if !reflect.DeepEqual(got, withData(tc.want)) || len(s.streams) != tc.left {
			t.Errorf("%s:\n got %+v\nwant %+v\n%d connections are left, want %d", tc.name, got, tc.want, len(s.streams), tc.left)
		}
	}
}

// withData writes no data as what is read of none.
func withData(list []segment) []segment {
	for i := range list {
		list[i].data = append([]byte{}, list[i].data...)
	}
	return list
}

// TestGivesUp: a peer that has gone is not kept, and neither is one more than
// there is room for.
func TestGivesUp(t *testing.T) {
	s := machineForTest(1)
	open := func(port int) {
		s.receive(toMachine(vm4, unix.IPPROTO_TCP, segment{seq: 9, bits: bitSYN}.bytes(uint16(port), 80)).frame(1), noon)
	}
	for i := range mostStreams + 5 {
		open(1000 + i)
	}
	if len(s.streams) != mostStreams {
		t.Errorf("%d connections", len(s.streams))
	}
	now, sent := noon, 0
	for n := 0; len(s.streams) > 0; n++ {
		if n > 2*mostResends {
			t.Fatalf("%d connections are left", len(s.streams))
		}
		now = s.due()
		sent += len(s.tick(now))
	}
	if sent != mostStreams*(mostResends+1) || now.Sub(noon) > 2*time.Minute {
		t.Errorf("%d frames, over after %v", sent, now.Sub(noon))
	}
	open(999)
	s.receive(toMachine(vm4, unix.IPPROTO_TCP, segment{seq: 10, ack: 2, bits: bitACK, window: 100}.bytes(999, 80)).frame(1), now)
	s.receive(toMachine(vm4, unix.IPPROTO_TCP, segment{seq: 10, ack: 5, bits: bitACK, window: 100}.bytes(999, 80)).frame(1), now)
	if at := s.due(); !at.Equal(now.Add(idleTimeout)) || len(s.tick(at)) != 0 || len(s.streams) != 0 {
		t.Errorf("a silent one: due %v, %d connections are left", at.Sub(now), len(s.streams))
	}
}
