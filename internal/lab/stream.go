package lab

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// The bits of a segment (RFC 9293).
const (
	bitFIN = 1 << iota
	bitSYN
	bitRST
	bitPSH
	bitACK

	tcpLen = 20
)

// What a connection may take of the machine.
const (
	mostStreams = 1024
	mostQueued  = 32 << 10         // bytes on their way back; more are not taken in
	mostFlying  = 10               // full segments that are not acknowledged (RFC 6928)
	firstResend = time.Second      // then twice as long each time (RFC 6298)
	lastResend  = 16 * time.Second // no longer than this
	mostResends = 6
	leastMSS    = 64
	safeMSS6    = 1220 // fits on every link of IPv6, so that no path has to be measured
)

// flow names a connection.
type flow struct{ here, there netip.AddrPort }

// segment is one of TCP. Sequence numbers wrap around.
type segment struct {
	seq, ack uint32
	bits     byte
	window   uint16
	mss      int // 0: none is said
	data     []byte
}

// readSegment reads a segment; false: its header is broken.
func readSegment(b []byte) (segment, bool) {
	n := int(b[12]>>4) * 4
	if n < tcpLen || n > len(b) {
		return segment{}, false
	}
	g := segment{
		seq: binary.BigEndian.Uint32(b[4:]), ack: binary.BigEndian.Uint32(b[8:]),
		bits: b[13], window: binary.BigEndian.Uint16(b[14:]), data: b[n:],
	}
	for o := b[tcpLen:n]; len(o) > 0 && o[0] != 0; {
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return segment{}, false
		}
		if o[0] == 2 && o[1] == 4 {
			g.mss = int(binary.BigEndian.Uint16(o[2:]))
		}
		o = o[o[1]:]
	}
	return g, true
}

// bytes writes a segment between two ports; the packet makes its sum.
func (g segment) bytes(from, to uint16) []byte {
	n := tcpLen
	if g.mss > 0 {
		n += 4
	}
	b := make([]byte, n, n+len(g.data))
	binary.BigEndian.PutUint16(b[0:], from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], g.seq)
	binary.BigEndian.PutUint32(b[8:], g.ack)
	b[12], b[13] = byte(n/4)<<4, g.bits
	binary.BigEndian.PutUint16(b[14:], g.window)
	if g.mss > 0 {
		b[20], b[21] = 2, 4
		binary.BigEndian.PutUint16(b[22:], uint16(g.mss))
	}
	return append(b, g.data...)
}

// length is how many sequence numbers a segment uses.
func (g segment) length() uint32 {
	n := uint32(len(g.data))
	if g.bits&bitSYN != 0 {
		n++
	}
	if g.bits&bitFIN != 0 {
		n++
	}
	return n
}

// before reports whether a sequence number comes before another.
func before(a, b uint32) bool { return int32(a-b) < 0 }

// stream is one connection, which the peer opened: the machine's name goes out,
// then all that comes in, in its order. The peer ends it.
type stream struct {
	peer   hardware
	mss    int
	opened bool // the peer has acknowledged our SYN
	ended  bool // its FIN has come; ours follows what is queued

	first  uint32 // that the peer has not acknowledged: our SYN, then queue[0], last our FIN
	next   uint32 // to be sent
	top    uint32 // behind all that was ever sent
	queue  []byte
	window int // that the peer has for us
	same   int // acknowledgments in a row that said nothing new

	want uint32 // the next of the peer's
	told int    // the window that the peer knows of

	resendAt time.Time // zero: nothing waits for an acknowledgment
	resends  int
	heard    time.Time
}

// segment takes in a packet of TCP for one of the machine's addresses.
func (s *stack) segment(p packet, now time.Time) (answers [][]byte, taken bool) {
	from, to := binary.BigEndian.Uint16(p.payload[0:]), binary.BigEndian.Uint16(p.payload[2:])
	if !serves(to) {
		return nil, false
	}
	g, ok := readSegment(p.payload)
	if !ok || from == 0 {
		return nil, true
	}
	f := flow{netip.AddrPortFrom(p.dst, to), netip.AddrPortFrom(p.src, from)}
	var out []segment
	t := s.streams[f]
	switch {
	case t != nil:
		t.peer = p.from
		if out, ok = t.receive(g, s.name, now); !ok {
			delete(s.streams, f)
		}
	case g.bits&(bitSYN|bitACK|bitRST|bitFIN) == bitSYN:
		if len(s.streams) < mostStreams {
			t = s.accept(p, g, now)
			s.streams[f] = t
			out = []segment{t.greeting()}
		}
	case g.bits&bitRST == 0:
		out = []segment{refusal(g)}
	}
	return s.write(f, p.from, out), true
}

// accept begins a connection.
func (s *stack) accept(p packet, g segment, now time.Time) *stream {
	least := 536 // where none is said (RFC 9293, section 3.7.1)
	if p.src.Is6() {
		least = safeMSS6
	}
	mss := g.mss
	if mss == 0 {
		mss = least
	}
	mss = min(mss, s.mtu-headerOf(p.src)-tcpLen)
	if p.src.Is6() {
		mss = min(mss, safeMSS6)
	}
	t := &stream{peer: p.from, mss: max(mss, leastMSS), first: s.number(), want: g.seq + 1, window: int(g.window), heard: now}
	t.next, t.top = t.first+1, t.first+1
	t.resendAt = now.Add(firstResend)
	return t
}

// greeting is our SYN.
func (t *stream) greeting() segment { return segment{seq: t.first, bits: bitSYN} }

// refusal answers a segment of no connection (RFC 9293, section 3.10.7.1).
func refusal(g segment) segment {
	if g.bits&bitACK != 0 {
		return segment{seq: g.ack, bits: bitRST}
	}
	return segment{ack: g.seq + g.length(), bits: bitRST | bitACK}
}

// write makes frames of a connection's segments. All but resets acknowledge
// what has come.
func (s *stack) write(f flow, to hardware, list []segment) [][]byte {
	var out [][]byte
	for _, g := range list {
		if t := s.streams[f]; t != nil && g.bits&bitRST == 0 {
			t.told = t.room()
			g.bits, g.ack, g.window = g.bits|bitACK, t.want, uint16(t.told)
		}
		if g.bits&bitSYN != 0 {
			g.mss = s.mtu - headerOf(f.here.Addr()) - tcpLen
		}
		out = append(out, s.send(packet{
			from: s.mac, to: to, src: f.here.Addr(), dst: f.there.Addr(),
			protocol: unix.IPPROTO_TCP, hops: hopsOfOurs, payload: g.bytes(f.here.Port(), f.there.Port()),
		}))
	}
	return out
}

// room is how much more may come.
func (t *stream) room() int { return mostQueued - len(t.queue) }
