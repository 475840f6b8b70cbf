package threats

import (
	"fmt"
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
	"github.com/brindle-net/brindle/test/labtest"
)

// onlyOpen lets w2 and w3 receive pings, and what is for the open port; the
// sentinel keeps passing. One rule names a port and a protocol, one a type.
const (
	openPort, closedPort = 9001, 9002

	onlyOpen = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: threats-only-open}
spec:
  selector: name in {'w2', 'w3'}
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [9001, 9999]}}
  - {action: Allow, protocol: UDP, destination: {ports: [9001, 9999]}}
  - {action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}}
  - {action: Allow, protocol: ICMPv6, icmp: {type: 128, code: 0}}
`
)

// enforced waits until the closed port of both is out of reach.
func (r *rig) enforced() {
	r.T.Helper()
	for _, to := range []string{"w2", "w3"} {
		for _, family := range families {
			testenv.Until(r.T, labtest.Patience, func() error {
				mark := cookie()
				p := packet{src: r.ip("w1", family), dst: r.ip(to, family), proto: protoUDP, payload: udp(closedPort, closedPort, mark)}
				r.throw(r.out(p.bytes()))
				r.flush()
				if r.ears[to].count(mark) > 0 {
					return fmt.Errorf("IPv%d: the closed port of %s is in reach", family, to)
				}
				return nil
			})
		}
	}
}

// seen is where a packet of w1's to a workload is seen when it passes: the
// packets to another host pass its link.
func seen(to string) []string {
	if to == "w3" {
		return []string{"w3", "h2"}
	}
	return []string{to}
}

// TestThreat23EveryICMPType sends each type of ICMP and ICMPv6.
func TestThreat23EveryICMPType(t *testing.T) {
	r := newRig(t)
	r.with(onlyOpen)
	r.enforced()
	var shots []shot
	for _, family := range families {
		proto, echo := protoICMP, 8
		if family == 6 {
			proto, echo = protoICMPv6, 128
		}
		for _, to := range []string{"w2", "w3"} {
			for kind := range 256 {
				for _, code := range []int{0, 4} {
					mark := cookie()
					// What errors speak of: a packet of nobody's.
					about := packet{src: r.ip(to, family), dst: r.ip("w1", family), proto: protoUDP, payload: udp(1, 2, mark)}
					body := append(slices.Clone(mark), about.bytes()...)
					p := packet{src: r.ip("w1", family), dst: r.ip(to, family), proto: proto, ttl: 255, payload: icmp(kind, code, body)}
					s := shot{name: fmt.Sprintf("IPv%d to %s, type %d code %d", family, to, kind, code), mark: mark, frames: [][]byte{r.out(p.bytes())}}
					if kind == echo && code == 0 {
						s.want = seen(to)
					}
					shots = append(shots, s)
				}
			}
		}
	}
	r.throwAll(shots)
	for _, s := range shots {
		for member, e := range r.ears {
			n := e.count(s.mark)
			switch {
			case slices.Contains(s.want, member) && n == 0:
				t.Errorf("%s: %s did not get it", s.name, member)
			case !slices.Contains(s.want, member) && n > 0 && member != "h2":
				t.Errorf("%s: %s got it", s.name, member)
			}
		}
	}
}

// throwAll sends the frames of all shots and waits until they have been judged.
func (r *rig) throwAll(shots []shot) {
	r.T.Helper()
	for _, s := range shots {
		r.throw(s.frames...)
	}
	r.flush()
}

// TestThreat24Evasion sends the same datagram whole and in other forms: what
// is not allowed whole never arrives, in whatever form.
func TestThreat24Evasion(t *testing.T) {
	r := newRig(t)
	r.with(onlyOpen)
	r.enforced()
	var shots []shot
	for _, family := range families {
		for _, to := range []string{"w2", "w3"} {
			for _, port := range []int{openPort, closedPort} {
				for name, form := range r.forms(family, to, port) {
					s := form
					s.name = fmt.Sprintf("IPv%d to %s port %d, %s", family, to, port, name)
					if port == closedPort {
						s.want = nil
					}
					shots = append(shots, s)
				}
			}
		}
	}
	r.throwAll(shots)
	for _, s := range shots {
		for _, member := range []string{"w2", "w3", "w4"} {
			n := r.ears[member].count(s.mark)
			switch wanted := slices.Contains(s.want, member); {
			case wanted && n == 0:
				t.Errorf("%s: %s did not get it", s.name, member)
			case !wanted && n > 0 && !s.either:
				t.Errorf("%s: %s got it", s.name, member)
			}
		}
	}
}

// forms are what can be made of one datagram or first segment to a port.
func (r *rig) forms(family int, to string, port int) map[string]shot {
	out := map[string]shot{}
	whole := packet{src: r.ip("w1", family), dst: r.ip(to, family), proto: protoUDP}
	add := func(name string, arrives bool, mark []byte, packets ...[]byte) {
		s := shot{mark: mark, either: !arrives && port == openPort}
		if arrives {
			s.want = []string{to}
		}
		for _, p := range packets {
			s.frames = append(s.frames, r.out(p))
		}
		out[name] = s
	}
	datagram := func(src int) (packet, []byte) {
		mark := cookie()
		p := whole
		p.payload = udp(src, port, slices.Concat(mark, make([]byte, 40), mark))
		p.id = src
		return p, mark
	}
	p, mark := datagram(2000)
	add("whole", true, mark, p.bytes())
	p, mark = datagram(2001)
	add("fragments", true, mark, p.fragments(40)...)
	p, mark = datagram(2002)
	parts := p.fragments(40)
	slices.Reverse(parts)
	add("fragments, the last first", true, mark, parts...)
	p, mark = datagram(2003)
	add("fragments of 24 bytes", true, mark, p.fragments(24)...)
	p, mark = datagram(2004)
	parts = p.fragments(40)
	add("the first fragment alone", false, mark, parts[0])
	p, mark = datagram(2005)
	add("the last fragment alone", false, mark, p.fragments(40)[1])
	// The first fragment says the open port; the mark is only in one that lies
	// over it and says the other.
	for name, length := range map[string]int{"fragments that overlap": 40, "fragments that overlap in part": 24, "a longer first fragment": 48} {
		p, mark = datagram(2006 + length)
		p.payload = p.payload[:64-16]
		copy(p.payload[4:], be16(len(p.payload)))
		lie := p
		lie.payload = slices.Concat(be16(2006+length), be16(openPort), p.payload[4:8], make([]byte, len(p.payload)-8))
		cover := p.fragment(p.payload, 0, length, length < len(p.payload))
		add(name, false, mark, lie.fragments(40)[0], cover, lie.fragments(40)[1])
		add(name+", the other way round", false, mark, cover, lie.fragments(40)[0], lie.fragments(40)[1])
	}
	// TCP, without a handshake and with half of one.
	tcpMark := cookie()
	p = whole
	p.proto, p.payload = protoTCP, tcp(2010, port, flagSYN, 100, 0, tcpMark)
	add("TCP SYN with data", true, tcpMark, p.bytes())
	for name, flags := range map[string]byte{"ACK": flagACK, "SYN ACK": flagSYN | flagACK, "RST": flagRST, "FIN": flagFIN, "no flags": 0, "all flags": 0x3f, "SYN FIN": flagSYN | flagFIN} {
		tcpMark = cookie()
		p.payload = tcp(2011+int(flags), port, flags, 100, 7, tcpMark)
		add("TCP "+name, false, tcpMark, p.bytes())
	}
	// UDP-Lite has ports that no rule of these policies means.
	p, mark = datagram(2020)
	p.proto = protoUDPLite
	add("UDP-Lite", false, mark, p.bytes())
	out["UDP-Lite"] = shot{mark: mark, frames: out["UDP-Lite"].frames} // not even to the open port
	if family == 4 {
		for name, options := range map[string][]byte{
			"no operation": {1, 1, 1, 0}, "record route": {7, 7, 4, 0, 0, 0, 0, 0}, "timestamp": {68, 8, 5, 0, 0, 0, 0, 0},
			"router alert": {148, 4, 0, 0}, "an unknown option": {0x9e, 4, 0, 0},
			"loose source route":  slices.Concat([]byte{131, 7, 4}, r.ip("w4", 4).AsSlice(), []byte{0}),
			"strict source route": slices.Concat([]byte{137, 7, 4}, r.ip("w4", 4).AsSlice(), []byte{0}),
		} {
			p, mark = datagram(2030)
			p.options = options
			add("IP option "+name, name == "no operation", mark, p.bytes())
		}
		return out
	}
	body := func(p packet) []byte { fill(p.src, p.dst, p.proto, p.payload); return p.payload }
	for name, head := range map[string][]byte{
		"destination options": {protoUDP, 0, 1, 4, 0, 0, 0, 0}, "hop by hop": {protoUDP, 0, 1, 4, 0, 0, 0, 0},
		"routing": {protoUDP, 0, 253, 0, 0, 0, 0, 0}, "atomic fragment": {protoUDP, 0, 0, 0, 0, 0, 0, 9},
		"two": {protoDestination, 0, 1, 4, 0, 0, 0, 0, protoUDP, 0, 1, 4, 0, 0, 0, 0},
		"ten": slices.Concat(slices.Repeat([]byte{protoDestination, 0, 1, 4, 0, 0, 0, 0}, 9), []byte{protoUDP, 0, 1, 4, 0, 0, 0, 0}),
		// What looks like a header of UDP to the open port, in an option.
		"destination options with ports in them": slices.Concat([]byte{protoUDP, 1, 0x1e, 12}, be16(2040), be16(openPort), make([]byte, 8)),
	} {
		kind := protoDestination
		switch name {
		case "hop by hop":
			kind = protoHopByHop
		case "routing":
			kind = protoRouting
		case "atomic fragment":
			kind = protoFragment
		}
		p, mark = datagram(2040)
		p.payload, p.proto, p.keepHeader = append(slices.Clone(head), body(p)...), kind, true
		add("extension header: "+name, name == "destination options", mark, p.bytes())
	}
	return out
}

// TestThreat24SplitHandshake opens a connection from the wrong end: the
// workload that may not be called answers a SYN with a SYN.
func TestThreat24SplitHandshake(t *testing.T) {
	r := newRig(t)
	r.with(onlyOpen)
	r.enforced()
	w2 := r.socket("w2")
	for _, family := range families {
		kind := map[int]int{4: etherIPv4, 6: etherIPv6}[family]
		var marks [][]byte
		send := func(from int, src, dst string, body []byte) {
			p := packet{src: r.ip(src, family), dst: r.ip(dst, family), proto: protoTCP, payload: body}
			if from == r.sink {
				r.throw(r.out(p.bytes()))
				return
			}
			if err := write(w2, frame(r.gateway, r.macOf("w2"), kind, p.bytes())); err != nil {
				t.Fatal(err)
			}
		}
		mark := func() []byte { m := cookie(); marks = append(marks, m); return m }
		// w1 calls the closed port; w2 plays along as if it had been asked.
		send(r.sink, "w1", "w2", tcp(3000, closedPort, flagSYN, 100, 0, mark()))
		r.flush()
		send(w2, "w2", "w1", tcp(closedPort, 3000, flagSYN|flagACK, 500, 101, nil))
		r.flush()
		send(r.sink, "w1", "w2", tcp(3000, closedPort, flagACK, 101, 501, mark()))
		send(r.sink, "w1", "w2", tcp(3000, closedPort, flagACK, 101, 501, mark()))
		r.flush()
		for i, m := range marks {
			if r.ears["w2"].count(m) > 0 {
				t.Errorf("IPv%d: packet %d of the forbidden connection arrived", family, i)
			}
		}
	}
}

// TestThreat25OldState continues connections that are no longer allowed, or
// never were.
func TestThreat25OldState(t *testing.T) {
	r := newRig(t)
	r.with(onlyOpen)
	r.enforced()
	for _, h := range []string{"h1", "h2"} {
		// No helper opens ports for others.
		if out, err := r.Try("", "lab", "exec", h, "--", "cat", "/proc/sys/net/netfilter/nf_conntrack_helper"); err == nil && out != "0\n" {
			t.Errorf("%s: helpers of connection tracking are on: %s", h, out)
		}
	}
	for _, family := range families {
		for _, to := range []string{"w2", "w3"} {
			s := spec{proto: "tcp", family: family, who: clientFirst, from: r.NS("w1"), at: r.NS(to), to: r.Addr(to, family), port: openPort}
			k := s.start(t)
			talks{k}.goOn(t, 5)
			// The same ports with another protocol, and another connection with
			// numbers of this one, are not this one.
			local := k.local()
			var shots []shot
			for name, p := range map[string]packet{
				"the same ports of UDP, to the closed one": {proto: protoUDP, payload: udp(local, closedPort, nil)},
				"the source port of the connection":        {proto: protoTCP, payload: tcp(local, closedPort, flagACK, 1, 1, nil)},
				"its reply, sent by the wrong end":         {proto: protoTCP, payload: tcp(openPort, local, flagACK, 1, 1, nil)},
			} {
				mark := cookie()
				p.src, p.dst, p.payload = r.ip("w1", family), r.ip(to, family), append(p.payload, mark...)
				if p.proto == protoUDP {
					p.payload = udp(local, closedPort, mark)
				}
				shots = append(shots, shot{name: fmt.Sprintf("IPv%d to %s: %s", family, to, name), mark: mark, frames: [][]byte{r.out(p.bytes())}})
			}
			r.throwAll(shots)
			for _, s := range shots {
				if n := r.ears[to].count(s.mark); n > 0 {
					t.Errorf("%s: arrived", s.name)
				}
			}
			k.end()
		}
	}
}
