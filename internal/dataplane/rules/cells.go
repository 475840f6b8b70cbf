package rules

import (
	"cmp"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
)

// portSpan is the ports from lo to hi.
type portSpan struct{ lo, hi uint16 }

// span is what is decided of some ports.
type span struct {
	portSpan
	decision *decision
}

var allPorts = []portSpan{{0, 65535}}

// cells is the ports of one protocol, cut wherever a rule makes a difference.
type cells struct {
	start []int // first port of each; one more at the end: 65536
	next  []int // the first cell from here on that is not decided: follow to find it
	state []cell
}

type cell struct {
	decision *decision
	stage    int32 // a rule passed it on to here: rules before have no say
	path     int32
}

// hit is a rule and the ports that it matches.
type hit struct {
	flatRule
	ports   []portSpan
	certain bool
}

// spans returns what is decided of all ports of a protocol, in order. Where
// ports make no difference it is one span.
func (p *painter) spans(protocol int) []span {
	p.protocol = protocol
	hits := p.hits[:0]
	start := append(p.cells.start[:0], 0, 65536)
	for _, r := range p.rules {
		ports, certain := p.reach(r.keyed)
		if len(ports) == 0 {
			continue
		}
		hits = append(hits, hit{r, ports, certain})
		for _, s := range ports {
			start = append(start, int(s.lo), int(s.hi)+1)
		}
	}
	slices.Sort(start)
	c := &p.cells
	c.start, p.hits = slices.Compact(start), hits
	n := len(c.start) - 1
	c.state, c.next = slices.Grow(c.state[:0], n)[:n], slices.Grow(c.next[:0], n+1)[:n+1]
	clear(c.state)
	for i := range c.next {
		c.next[i] = i
	}
	p.walk(c, hits)
	var out []span
	for i, s := range c.state {
		hi := uint16(c.start[i+1] - 1)
		if n := len(out); n > 0 && out[n-1].decision == s.decision {
			out[n-1].hi = hi
			continue
		}
		out = append(out, span{portSpan{uint16(c.start[i]), hi}, s.decision})
	}
	return out
}

// walk goes through the rules, stage by stage. The last stage always ends.
func (p *painter) walk(c *cells, hits []hit) {
	for i, stage := range p.g.program.stages {
		for len(hits) > 0 && hits[0].stage == int32(i) {
			h := hits[0]
			hits = hits[1:]
			for _, s := range h.ports {
				p.meet(c, h, s)
			}
		}
		if stage.pass {
			continue
		}
		for at := c.find(0); at < len(c.state); at = c.find(at + 1) {
			if s := &c.state[at]; s.stage <= int32(i) {
				c.decide(at, p.decision(verdictKey{path: s.path, counter: stage.counter}))
			}
		}
		if c.find(0) == len(c.state) {
			return
		}
	}
}

// meet has a rule decide what is open of its ports.
func (p *painter) meet(c *cells, h hit, ports portSpan) {
	first, _ := slices.BinarySearch(c.start, int(ports.lo))
	for at := c.find(first); at < len(c.state) && c.start[at] <= int(ports.hi); at = c.find(at + 1) {
		s := &c.state[at]
		switch {
		case s.stage > h.stage:
		case !h.certain:
			c.decide(at, p.decision(verdictKey{verdict: markPlain}))
		case h.action == desired.Pass:
			s.stage, s.path = h.stage+1, p.passed(s.path, h.counter)
		case h.action == desired.Allow:
			c.decide(at, p.decision(verdictKey{s.path, h.counter, markAllow}))
		default:
			c.decide(at, p.decision(verdictKey{s.path, h.counter, 0}))
		}
	}
}

func (c *cells) decide(at int, d *decision) {
	c.state[at].decision = d
	c.next[at] = at + 1
}

func (c *cells) find(at int) int {
	root := at
	for c.next[root] != root {
		root = c.next[root]
	}
	for c.next[at] != root { // the next search is short
		c.next[at], at = root, c.next[at]
	}
	return root
}

// joinSpans sorts spans and joins those that touch.
func joinSpans(list []portSpan) []portSpan {
	slices.SortFunc(list, func(a, b portSpan) int { return cmp.Compare(a.lo, b.lo) })
	var out []portSpan
	for _, s := range list {
		if n := len(out); n > 0 && int(s.lo) <= int(out[n-1].hi)+1 {
			out[n-1].hi = max(out[n-1].hi, s.hi)
			continue
		}
		out = append(out, s)
	}
	return out
}

// otherPorts returns what of the spans is in none of the others; both are in
// order and disjoint.
func otherPorts(spans, others []portSpan) []portSpan {
	var out []portSpan
	for _, s := range spans {
		next := int(s.lo)
		for _, o := range others {
			if int(o.hi) < next || o.lo > s.hi {
				continue
			}
			if int(o.lo) > next {
				out = append(out, portSpan{uint16(next), o.lo - 1})
			}
			next = int(o.hi) + 1
		}
		if next <= int(s.hi) {
			out = append(out, portSpan{uint16(next), s.hi})
		}
	}
	return out
}

// spansOf reads what a rule of policy has.
func spansOf(list []desired.PortRange) []portSpan {
	var out []portSpan
	for _, p := range list {
		if p.Min <= p.Max {
			out = append(out, portSpan{p.Min, p.Max})
		}
	}
	return joinSpans(out)
}
