package rules

import (
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
)

// maxPorts is how many single ports of one class and protocol get a row of
// their own.
const maxPorts = 256

// painter finds what the rules decide of one class, protocol by protocol.
type painter struct {
	c        *compiler
	g        *compiled
	class    *class
	rules    []flatRule // whose addresses match the class, in order
	protocol int        // -1: one that no rule names
	held     map[*decision]struct{}
	known    map[verdictKey]*decision
	cells    cells // the memory of one protocol is for the next
	hits     []hit
	// The counters of rules that pass on, as lists: number 0 is the empty one.
	paths []path
}

// path is the counters of the rules that passed a packet on.
type path struct {
	before int32
	last   string
	next   map[string]int32 // by the counter that comes next
}

type verdictKey struct {
	path    int32
	counter string
	verdict uint32
}

// paint returns the rows of a class. Decisions that they have are held.
func (c *compiler) paint(g *compiled, cl *class) *painted {
	p := &painter{c: c, g: g, class: cl, rules: g.program.candidates(g, cl),
		held: map[*decision]struct{}{}, known: map[verdictKey]*decision{}, paths: []path{{before: -1}}}
	at := markBytes(g.number<<classBits | cl.number)
	out := &painted{class: cl}
	put := func(set, key string, d *decision) {
		out.elements = append(out.elements, placed{set, Element{Lo: key, Number: d.value}})
		if d.value&markPlain != 0 {
			out.plain++
		}
	}
	if cl.number != 0 {
		out.elements = append(out.elements, placed{setPainted, Element{Lo: at}})
	}
	rest := p.spans(-1)[0].decision
	put(mapRows, at, rest)
	for _, proto := range g.program.protocols() {
		usual, few := p.usual(p.spans(int(proto)))
		at := at + string([]byte{proto})
		if usual != rest {
			put(mapProtocols, at, usual)
		}
		for _, s := range few {
			for port := int(s.lo); port <= int(s.hi); port++ {
				put(mapPorts, at+portBytes(uint16(port)), s.decision)
			}
		}
	}
	for d := range p.held {
		out.decisions = append(out.decisions, d)
		if len(d.counters) > 1 {
			out.several++
		}
	}
	return out
}

// usual chooses what to say of a protocol as a whole, and returns the spans
// that differ: few ports. Where many differ they are left to the plain rules.
func (p *painter) usual(spans []span) (*decision, []span) {
	width := map[*decision]int{}
	for _, s := range spans {
		width[s.decision] += int(s.hi) - int(s.lo) + 1
	}
	usual := spans[0].decision
	for _, s := range spans { // in order, so that the answer is always the same
		if width[s.decision] > width[usual] {
			usual = s.decision
		}
	}
	if 65536-width[usual]-singlePorts(spans, usual) > maxPorts {
		usual = p.decision(verdictKey{verdict: markPlain})
	}
	var few []span
	left := maxPorts
	for _, s := range spans {
		n := int(s.hi) - int(s.lo) + 1
		switch {
		case s.decision == usual:
		case n == 1:
			few = append(few, s)
		case n <= left:
			few = append(few, s)
			left -= n
		}
	}
	return usual, few
}

// singlePorts counts the spans of one port that are decided otherwise: rules
// name them one by one, so there are no more rows than rules.
func singlePorts(spans []span, usual *decision) int {
	n := 0
	for _, s := range spans {
		if s.lo == s.hi && s.decision != usual {
			n++
		}
	}
	return n
}

// decision returns the decision of a verdict after a path, and holds it.
func (p *painter) decision(k verdictKey) *decision {
	if d, ok := p.known[k]; ok {
		return d
	}
	var counters []string
	for at := k.path; at > 0; at = p.paths[at].before {
		counters = append(counters, p.paths[at].last)
	}
	slices.Reverse(counters)
	if k.counter != "" {
		counters = append(counters, k.counter)
	}
	if k.verdict == markPlain || len(counters) > maxCounted {
		counters, k.verdict = nil, markPlain
	}
	d := p.c.decide(counters, k.verdict)
	if _, ok := p.held[d]; !ok {
		d.refs++
		p.held[d] = struct{}{}
	}
	p.known[k] = d
	return d
}

// passed returns the path that goes on after a rule.
func (p *painter) passed(at int32, counter string) int32 {
	if next, ok := p.paths[at].next[counter]; ok {
		return next
	}
	if p.paths[at].next == nil {
		p.paths[at].next = map[string]int32{}
	}
	next := int32(len(p.paths))
	p.paths[at].next[counter] = next
	p.paths = append(p.paths, path{before: at, last: counter})
	return next
}

// reach returns the ports that a rule matches, all if it doesn't ask. It is
// not certain if the rule asks for something else than a look-up can.
func (p *painter) reach(r *keyed) (ports []portSpan, certain bool) {
	if r == nil {
		return allPorts, false
	}
	ported := p.protocol >= 0 && hasPorts(uint8(p.protocol))
	switch {
	case r.protocol != 0 && int(r.protocol) != p.protocol, r.notProtocol != 0 && int(r.notProtocol) == p.protocol:
		return nil, true
	case (r.asksPorts || r.fromPorts) && !ported, r.message && p.protocol != int(p.g.icmp()):
		return nil, true
	}
	certain = r.action != desired.Log && !(r.icmp && p.protocol == int(p.g.icmp())) && !(r.sourcePorts && ported)
	ports = allPorts
	if r.asksPorts {
		ports = p.withNamed(r.ports, r.portSets)
	}
	if ported && len(r.notPorts)+len(r.notPortSets) > 0 {
		ports = otherPorts(ports, p.withNamed(r.notPorts, r.notPortSets))
	}
	return ports, certain
}

// withNamed adds the ports that the destination's address has in the sets, for
// this protocol.
func (p *painter) withNamed(ports []portSpan, sets []predicate) []portSpan {
	if len(sets) == 0 {
		return ports
	}
	sig := p.class.sig
	if p.g.near() == 1 {
		sig = p.g.local
	}
	var more []portSpan
	for _, t := range sig.triples {
		if int(t.protocol) == p.protocol && slices.Contains(sets, t.set) {
			more = append(more, portSpan{t.port, t.port})
		}
	}
	if len(more) == 0 {
		return ports
	}
	return joinSpans(slices.Concat(ports, more))
}
