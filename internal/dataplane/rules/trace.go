package rules

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Way is how a packet comes through the host.
type Way uint8

// The ways.
const (
	Forwarded Way = iota // in by one interface, out by another
	ToHost
	FromHost
	ARPIn
	ARPOut
)

// Packet is all that a program can see of a packet. Addresses are unset in
// ARP, ARP's fields in all others.
type Packet struct {
	Way                  Way
	In, Out              string // names of interfaces, where the way has them
	EthSource            string // 6 bytes; "": not Ethernet
	Source, Dest         netip.Addr
	Protocol             uint8
	SourcePort, DestPort uint16
	ICMPType, ICMPCode   uint8
	NDTarget             netip.Addr
	About                netip.Addr // destination of the packet that an ICMP error speaks of
	VNI                  uint32     // of a datagram that is VXLAN; 0: it is none
	Routing
	State          ConnState
	ConnMark, Mark uint32
	ARP            ARPMessage
}

// Routing is what the routing tables say of a packet.
type Routing struct {
	FromUs, ForUs bool // source and destination are addresses of this host
	Astray        bool // it came by an interface by which no packets to its source leave
}

// ARPMessage is what is looked at in one.
type ARPMessage struct {
	Op     uint16
	MAC    string // 6 bytes
	Source netip.Addr
}

// Trace is a packet's way through a program.
type Trace struct {
	Accepted  bool
	Rejected  bool // and its sender was told
	Mark      uint32
	Untracked bool // connection tracking never sees it
	// NAT says that the packet leaves with another source, and with which.
	NAT   *SourceNAT
	Steps []Step // rules that matched, in order
}

// Step is a rule that did something with the packet.
type Step struct {
	Chain   string
	Rule    int // index in the chain
	Counter string
	Log     string // prefix of the line; "" if it wrote none
	Do      string // "accept", "jump p-…"
}

// String writes the verdict and one line for each step.
func (t Trace) String() string {
	var b strings.Builder
	switch {
	case t.Accepted && t.NAT != nil:
		fmt.Fprintf(&b, "accepted, %v\n", t.NAT)
	case t.Accepted:
		b.WriteString("accepted\n")
	case t.Rejected:
		b.WriteString("rejected\n")
	default:
		b.WriteString("dropped\n")
	}
	for _, s := range t.Steps {
		fmt.Fprintf(&b, "  %s[%d] %s\n", s.Chain, s.Rule, s.Do)
	}
	return b.String()
}

// maxDepth is how far chains may jump, as in the kernel.
const maxDepth = 16

// Trace sends a packet through the program. An error says that the program is
// unsound: what it refers to is not there, or goes in circles.
func (p *Program) Trace(pkt Packet) (Trace, error) { return NewTracer(p).Trace(pkt) }

// Tracer traces many packets through a program that does not change meanwhile.
// It is used by one goroutine.
type Tracer struct {
	program *Program
	bases   map[entrance][]*Chain
	sorted  map[string][]Element // of sets of ranges of one field
	known   map[Packet]bool      // verdicts for whatever source port
}

// entrance is where chains see packets.
type entrance struct {
	table Table
	point Point
}

// NewTracer returns a tracer of a program.
func NewTracer(p *Program) *Tracer {
	t := &Tracer{program: p, bases: map[entrance][]*Chain{}, sorted: map[string][]Element{}}
	for _, c := range p.Chains {
		if c.Hook != nil {
			at := entrance{c.Table, c.Hook.Point}
			t.bases[at] = append(t.bases[at], c)
		}
	}
	for _, list := range t.bases {
		slices.SortFunc(list, func(a, b *Chain) int {
			return cmp.Or(cmp.Compare(a.Hook.Priority, b.Hook.Priority), cmp.Compare(a.Name, b.Name))
		})
	}
	return t
}

// Trace sends a packet through the program: see Program.Trace.
func (t *Tracer) Trace(pkt Packet) (Trace, error) {
	w := &walk{program: t.program, tracer: t, pkt: pkt}
	return w.through()
}

// through sends the packet through all base chains on its way.
func (w *walk) through() (Trace, error) {
	pkt := w.pkt
	w.trace.Mark = pkt.Mark
	table, points := IP, [][]Point{{Prerouting, Forward, Postrouting}, {Prerouting, Input}, {Output, Postrouting}, {Input}, {Output}}[pkt.Way%5]
	if pkt.Way >= ARPIn {
		table = ARP
	}
	for _, point := range points {
		for _, c := range w.tracer.bases[entrance{table, point}] {
			if c.Hook.NAT && (w.pkt.State&StateNew == 0 || w.trace.NAT != nil) {
				continue
			}
			w.in, w.out = pkt.In, pkt.Out
			if point == Prerouting {
				w.out = "" // not known yet
			}
			end, err := w.chain(c, 0)
			if err != nil || end == dropped {
				return w.trace, err
			}
		}
	}
	w.trace.Accepted = true
	return w.trace, nil
}

// find returns the element of a set that a key is in, nil if there is none.
func (t *Tracer) find(s *Set, key string) *Element {
	if !s.Interval || len(s.Key) > 1 {
		return s.find(key)
	}
	list, ok := t.sorted[s.Name]
	if !ok {
		list = slices.SortedFunc(maps.Values(s.Elements), func(a, b Element) int { return strings.Compare(a.Lo, b.Lo) })
		t.sorted[s.Name] = list
	}
	i, exact := slices.BinarySearchFunc(list, key, func(e Element, key string) int { return strings.Compare(e.Lo, key) })
	if !exact {
		i-- // the last one that begins below
	}
	if i < 0 || key > list[i].Hi {
		return nil
	}
	return &list[i]
}

// outcome is how the way through a chain ends.
type outcome uint8

const (
	returned outcome = iota // at its end, or by Return
	accepted
	dropped
	next // of a rule: go on to the next
)

type walk struct {
	program *Program
	tracer  *Tracer
	pkt     Packet
	in, out string
	trace   Trace
	brief   bool // steps are not noted
	asked   bool // for the source port
}

func (w *walk) chain(c *Chain, depth int) (outcome, error) {
	if depth > maxDepth {
		return dropped, fmt.Errorf("trace: chain %s: jumps go deeper than %d", c.Name, maxDepth)
	}
	for i := range c.Rules {
		end, err := w.rule(c, i, depth)
		if err != nil {
			return dropped, fmt.Errorf("trace: chain %s, rule %d: %w", c.Name, i, err)
		}
		if end != next {
			return end, nil
		}
	}
	return returned, nil
}

func (w *walk) rule(c *Chain, i, depth int) (outcome, error) {
	r := &c.Rules[i]
	for _, m := range r.Matches {
		if ok, err := w.match(m); err != nil || !ok {
			return next, err
		}
	}
	step := Step{Chain: c.Name, Rule: i}
	var words []string
	note := func() {
		if !w.brief {
			w.trace.Steps = append(w.trace.Steps, step)
		}
	}
	for _, s := range r.Do {
		if !w.brief {
			words = append(words, s.String())
			step.Do = strings.Join(words, " ")
		}
		end, ended, err := w.plain(s, &step)
		if err != nil {
			return dropped, err
		}
		if ended {
			note()
			return end, nil
		}
		if to, ok, err := w.target(s); err != nil {
			return dropped, err
		} else if ok {
			note()
			end, err := w.chain(to, depth+1)
			if _, jump := s.(Jump); jump && end == returned {
				end = next
			}
			return end, err
		}
	}
	note()
	return next, nil
}

// plain does a statement that goes to no other chain. ended: so does the rule.
func (w *walk) plain(s Statement, step *Step) (end outcome, ended bool, err error) {
	switch s := s.(type) {
	case Count:
		if _, ok := w.program.Counters[s.Counter]; !ok {
			return dropped, true, fmt.Errorf("no counter %s", s.Counter)
		}
		step.Counter = s.Counter
	case Log:
		step.Log = s.Prefix
	case SetMark:
		w.trace.Mark = w.trace.Mark&^s.Mask | s.Value&s.Mask
	case MarkBy:
		e, _, err := w.lookUp(s.Fields, s.Map)
		if err != nil || e == nil {
			return next, true, err
		}
		w.trace.Mark = e.Number
	case CountBy:
		e, _, err := w.lookUp(s.Fields, s.Map)
		if err != nil || e == nil {
			return next, true, err
		}
		step.Counter = e.Name
	case Decide:
		e, err := w.decide(s)
		if err != nil || e == nil {
			return next, true, err
		}
		step.Counter = e.Name
	case Untrack:
		w.pkt.State, w.trace.Untracked = StateUntracked, true
	case Return:
		return returned, true, nil
	case Accept:
		return accepted, true, nil
	case SourceNAT:
		w.trace.NAT = &s
		return accepted, true, nil
	case Drop:
		return dropped, true, nil
	case Reject:
		w.trace.Rejected = true
		return dropped, true, nil
	case Dispatch:
		e, _, err := w.lookUp(s.Fields, s.Map)
		return next, e == nil, err
	}
	return next, false, nil
}

// target returns the chain that a statement goes to.
func (w *walk) target(s Statement) (*Chain, bool, error) {
	name := ""
	switch s := s.(type) {
	case Jump:
		name = s.Chain
	case Goto:
		name = s.Chain
	case Dispatch:
		e, _, _ := w.lookUp(s.Fields, s.Map)
		name = e.Name
	default:
		return nil, false, nil
	}
	c := w.program.Chains[name]
	if c == nil {
		return nil, false, fmt.Errorf("no chain %q", name)
	}
	return c, true, nil
}

func (w *walk) match(m Match) (bool, error) {
	if len(m.Fields) == 1 && m.Fields[0] == State {
		return (uint32(w.pkt.State)&m.Mask != 0) != m.Not, nil
	}
	if m.Set != "" {
		e, ok, err := w.lookUp(m.Fields, m.Set)
		return ok && (e != nil) != m.Not, err
	}
	v, ok := w.value(m.Fields[0])
	if !ok {
		return false, nil // the kernel ends a rule whose field is not there
	}
	if m.Mask != 0 {
		v = masked(v, m.Mask)
	}
	in := slices.ContainsFunc(m.In, func(r Range) bool { return r.Lo <= v && v <= r.Hi })
	return in != m.Not, nil
}

func masked(v string, mask uint32) string {
	k := markBytes(mask)
	out := []byte(v)
	for i := range out {
		out[i] &= k[i]
	}
	return string(out)
}

// lookUp returns the element that the packet is in, nil if there is none. ok is
// false for a packet that doesn't have one of the fields.
func (w *walk) lookUp(fields []Field, set string) (e *Element, ok bool, err error) {
	s := w.program.Sets[set]
	if s == nil {
		return nil, false, fmt.Errorf("no set %s", set)
	}
	if len(fields) != len(s.Key) {
		return nil, false, fmt.Errorf("set %s is asked for %d fields, not %d", set, len(fields), len(s.Key))
	}
	key := ""
	for i, f := range fields {
		if f.Type() != s.Key[i] {
			return nil, false, fmt.Errorf("set %s is asked for %v, which is no %v", set, f, s.Key[i])
		}
		v, ok := w.value(f)
		if !ok {
			return nil, false, nil
		}
		key += v
	}
	return w.tracer.find(s, key), true, nil
}

func (s *Set) find(key string) *Element {
	if !s.Interval {
		if e, ok := s.Elements[key]; ok {
			return &e
		}
		return nil
	}
	for _, e := range s.Elements {
		if within(key, e, s.Key) {
			return &e
		}
	}
	return nil
}

// within compares field by field: a range of several fields is a box.
func within(key string, e Element, types []Type) bool {
	at := 0
	for _, t := range types {
		end := at + t.Size()
		if key[at:end] < e.Lo[at:end] || key[at:end] > e.Hi[at:end] {
			return false
		}
		at = end
	}
	return true
}

// someInterface stands for the number of an interface.
const someInterface = "\x00\x00\x00\x01"

// value returns what the packet has in a field. ok is false if it has none.
func (w *walk) value(f Field) (v string, ok bool) {
	p := &w.pkt
	ip := p.Way < ARPIn
	switch f {
	case InInterface:
		return interfaceBytes(w.in), true
	case OutInterface:
		return interfaceBytes(w.out), true
	case EthSource:
		return p.EthSource, p.EthSource != ""
	case ConnMark:
		return markBytes(p.ConnMark), ip && p.State&(StateInvalid|StateUntracked) == 0
	case Mark:
		return markBytes(w.trace.Mark), true
	case SourceIs:
		return routeBytes(p.FromUs), ip
	case DestinationIs:
		return routeBytes(p.ForUs), ip
	case SourceBy:
		if p.Astray {
			return Elsewhere, ip
		}
		return someInterface, ip && (p.Way == Forwarded || p.Way == ToHost)
	case VNI:
		return vniBytes(p.VNI), ip && p.Protocol == protoUDP && p.VNI != 0
	case ARPOp:
		return portBytes(p.ARP.Op), !ip
	case ARPMAC:
		return p.ARP.MAC, !ip
	case ARPSource:
		return addrBytes(p.ARP.Source), !ip
	}
	if !ip {
		return "", false
	}
	icmp := p.Protocol == protoICMP && p.Source.Is4() || p.Protocol == protoICMPv6 && p.Source.Is6()
	switch f {
	case Family:
		return string([]byte{byte(familyOf(p.Source))}), true
	case Protocol:
		return string([]byte{p.Protocol}), true
	case Source4:
		return addrBytes(p.Source), p.Source.Is4()
	case Destination4:
		return addrBytes(p.Dest), p.Dest.Is4()
	case Source6:
		return addrBytes(p.Source), p.Source.Is6()
	case Destination6:
		return addrBytes(p.Dest), p.Dest.Is6()
	case SourcePort:
		w.asked = true
		return portBytes(p.SourcePort), hasPorts(p.Protocol)
	case DestinationPort:
		return portBytes(p.DestPort), hasPorts(p.Protocol)
	case ICMPType:
		return string([]byte{p.ICMPType}), icmp
	case ICMPCode:
		return string([]byte{p.ICMPCode}), icmp
	case NDTarget:
		return addrBytes(p.NDTarget), icmp && p.NDTarget.Is6()
	case About4:
		return addrBytes(p.About), icmp && p.About.Is4()
	case About6:
		return addrBytes(p.About), icmp && p.About.Is6()
	}
	return "", false
}
