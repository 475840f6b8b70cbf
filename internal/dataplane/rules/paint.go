package rules

import (
	"cmp"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
)

// span is the ports from lo to hi, and what is decided of them.
type span struct {
	lo, hi   uint16
	decision *decision
}

// maxPorts is how many single ports of one class and protocol get a row of
// their own.
const maxPorts = 256

// painter finds what the rules decide of one class, protocol by protocol.
type painter struct {
	c        *compiler
	g        *compiled
	class    *class
	stages   [][]flatRule // those of a class
	protocol int          // -1: one that no rule names
	out      []span
	held     []*decision // each once
}

// paint returns the rows of a class. Decisions that they have are held.
func (c *compiler) paint(g *compiled, cl *class) *painted {
	p := &painter{c: c, g: g, class: cl, stages: make([][]flatRule, len(g.program.stages))}
	for _, r := range p.candidates() {
		p.stages[r.stage] = append(p.stages[r.stage], r)
	}
	at := markBytes(g.number<<classBits | cl.number)
	out := &painted{class: cl}
	put := func(set, key string, d *decision) {
		out.elements = append(out.elements, placed{set, Element{Lo: key, Number: d.value}})
	}
	if cl.number != 0 {
		out.elements = append(out.elements, placed{setPainted, Element{Lo: at}})
	}
	rest := p.cell(-1)[0].decision
	put(mapRows, at, rest)
	for _, proto := range g.program.protocols {
		spans := p.cell(int(proto))
		usual, few := p.usual(spans)
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
	out.decisions = p.held
	return out
}

// candidates returns, in order, the rules whose addresses match the class.
func (p *painter) candidates() []flatRule {
	f := p.g.program
	numbers := slices.Clone(f.open)
	for _, q := range p.class.sig.preds {
		numbers = append(numbers, f.by[q]...)
	}
	slices.Sort(numbers)
	far := 1 - p.g.near()
	out := make([]flatRule, 0, len(numbers))
	for _, n := range numbers {
		if r := f.rules[n]; r.keyed == nil || r.ends[far].match(p.class.sig) {
			out = append(out, r)
		}
	}
	return out
}

// cell returns what is decided of all ports of a protocol, in order. Where
// ports make no difference, it is one span.
func (p *painter) cell(protocol int) []span {
	p.protocol, p.out = protocol, nil
	p.walk(0, []span{{lo: 0, hi: 65535}}, nil)
	slices.SortFunc(p.out, func(a, b span) int { return cmp.Compare(a.lo, b.lo) })
	joined := p.out[:0]
	for _, s := range p.out {
		if n := len(joined); n > 0 && joined[n-1].decision == s.decision {
			joined[n-1].hi = s.hi
			continue
		}
		joined = append(joined, s)
	}
	return joined
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
	if 65536-width[usual] > maxPorts {
		usual = p.decision(nil, markPlain)
	}
	var few []span
	left := maxPorts
	for _, s := range spans {
		n := int(s.hi) - int(s.lo) + 1
		if s.decision != usual && n <= left {
			few = append(few, s)
			left -= n
		}
	}
	return usual, few
}

func (p *painter) decision(counters []string, verdict uint32) *decision {
	if len(counters) > maxCounted {
		counters, verdict = nil, markPlain
	}
	d := p.c.decide(counters, verdict)
	if !slices.Contains(p.held, d) {
		d.refs++
		p.held = append(p.held, d)
	}
	return d
}

func (p *painter) put(spans []span, d *decision) {
	for _, s := range spans {
		p.out = append(p.out, span{s.lo, s.hi, d})
	}
}

// walk goes through the rules from a stage on, with the ports that are still
// open, and the counters of the rules that passed them on. The last stage
// always ends.
func (p *painter) walk(from int, open []span, path []string) {
	for i := from; i < len(p.stages) && len(open) > 0; i++ {
		for _, r := range p.stages[i] {
			hit, certain := p.reach(r.keyed)
			in := overlap(open, hit)
			if len(in) == 0 {
				continue
			}
			if open = minus(open, hit); !certain {
				p.put(in, p.decision(nil, markPlain))
				continue
			}
			p.act(r.keyed, i, in, append(slices.Clip(path), r.counter))
			if len(open) == 0 {
				return
			}
		}
		if end := p.g.program.stages[i]; !end.pass {
			p.put(open, p.decision(append(slices.Clip(path), end.counter), 0))
			return
		}
	}
}

func (p *painter) act(r *keyed, i int, in []span, path []string) {
	switch r.action {
	case desired.Pass:
		p.walk(i+1, in, path)
	case desired.Allow:
		p.put(in, p.decision(path, markAllow))
	default:
		p.put(in, p.decision(path, 0))
	}
}

var allPorts = []Range{{"\x00\x00", "\xff\xff"}}

// reach returns the ports that a rule matches, all if it doesn't ask. It is
// not certain if the rule asks for something else than a look-up can.
func (p *painter) reach(r *keyed) (ports []Range, certain bool) {
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
		ports = joined(slices.Concat(r.ports, p.named(r.portSets)))
	}
	if ported && len(r.notPorts)+len(r.notPortSets) > 0 {
		ports = complement(ports, joined(slices.Concat(r.notPorts, p.named(r.notPortSets))))
	}
	return ports, certain
}

// named returns the ports that the near or far address, which is the
// destination, has in the sets for this protocol.
func (p *painter) named(sets []predicate) []Range {
	sig := p.class.sig
	if p.g.near() == 1 {
		sig = p.g.local
	}
	var out []Range
	for _, t := range sig.triples {
		if int(t.protocol) == p.protocol && slices.Contains(sets, t.set) {
			out = append(out, Range{portBytes(t.port), portBytes(t.port)})
		}
	}
	return out
}

func portOf(v string) uint16 { return uint16(v[0])<<8 | uint16(v[1]) }

// overlap returns what of the spans is in the ranges; both are in order.
func overlap(open []span, ranges []Range) []span {
	var out []span
	for _, s := range open {
		for _, r := range ranges {
			if lo, hi := max(s.lo, portOf(r.Lo)), min(s.hi, portOf(r.Hi)); lo <= hi {
				out = append(out, span{lo: lo, hi: hi})
			}
		}
	}
	return out
}

// minus returns what of the spans is in none of the ranges.
func minus(open []span, ranges []Range) []span {
	var out []span
	for _, s := range open {
		next := int(s.lo)
		for _, r := range ranges {
			lo, hi := int(portOf(r.Lo)), int(portOf(r.Hi))
			if hi < next || lo > int(s.hi) {
				continue
			}
			if lo > next {
				out = append(out, span{lo: uint16(next), hi: uint16(lo - 1)})
			}
			next = hi + 1
		}
		if next <= int(s.hi) {
			out = append(out, span{lo: uint16(next), hi: s.hi})
		}
	}
	return out
}

// complement returns what of the ranges is in none of the others.
func complement(ranges, others []Range) []Range {
	var spans []span
	for _, r := range ranges {
		spans = append(spans, span{lo: portOf(r.Lo), hi: portOf(r.Hi)})
	}
	var out []Range
	for _, s := range minus(spans, others) {
		out = append(out, Range{portBytes(s.lo), portBytes(s.hi)})
	}
	return out
}
