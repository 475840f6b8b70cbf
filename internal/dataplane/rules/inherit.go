package rules

import (
	"cmp"
	"net/netip"
	"slices"
)

// moved is a single address that goes from one class to another, or stays.
// nil is the empty class.
type moved struct {
	addr     netip.Addr
	single   *single
	from, to *class
	was      uint32 // number of from, before anybody inherits
}

func moveOf(a netip.Addr, x *single, to *class) moved {
	m := moved{addr: a, single: x, from: x.class, to: to}
	if x.class != nil {
		m.was = x.class.number
	}
	return m
}

// fewMoves is up to how many addresses are moved rather than that those who
// stay behind are looked for.
const fewMoves = 16

// inherit lets a class have the number of the one that its addresses come from,
// where more of them come together than are in either otherwise: a set of
// thousands that rules begin to ask for, or ask for no more, changes the rows
// of classes then, and no address. The other class gets the other number; those
// that are in either otherwise are among the moves that it returns.
func (s *space) inherit(moves []moved) []moved {
	count := countMoves(moves)
	arrived := map[*class]int{}
	for p, n := range count {
		arrived[p.to] += *n
	}
	var pairs []migration
	asked := map[*class]bool{} // those of which some addresses stay
	for p, n := range count {
		if p.from == nil || p.from == p.to || p.from.number == 0 {
			continue
		}
		others := p.from.refs + p.to.refs - *n
		if others > 0 && (*n <= others || *n <= fewMoves) {
			continue
		}
		pairs = append(pairs, p)
		for _, c := range []*class{p.from, p.to} {
			if c.refs > arrived[c] {
				asked[c] = true
			}
		}
	}
	slices.SortFunc(pairs, func(a, b migration) int {
		return cmp.Or(cmp.Compare(*count[b], *count[a]), cmp.Compare(a.from.number, b.from.number), cmp.Compare(a.to.sig.key(), b.to.sig.key()))
	})
	stay := s.staying(asked)
	served := map[*class]bool{}
	for _, p := range pairs {
		if served[p.from] || served[p.to] {
			continue
		}
		both := []*class{p.from, p.to}
		// Ranges of addresses would have to be written anew as a whole.
		if slices.ContainsFunc(both, func(c *class) bool { return c.refs > arrived[c]+len(stay[c]) }) {
			continue
		}
		p.from.number, p.to.number = p.to.number, p.from.number
		p.to.heir, p.from.heir = true, p.from.number != 0
		for _, c := range both {
			moves = append(moves, stay[c]...)
			served[c], s.touched[c] = true, struct{}{}
		}
	}
	return moves
}

// migration is from where to where addresses go.
type migration struct{ from, to *class }

// countMoves counts the addresses that do not come to nothing.
func countMoves(moves []moved) map[migration]*int {
	count := map[migration]*int{}
	var last migration // thousands are the same
	var n *int
	for i := range moves {
		m := &moves[i]
		if m.to == nil {
			continue
		}
		if p := (migration{m.from, m.to}); n == nil || p != last {
			if last, n = p, count[p]; n == nil {
				n = new(int)
				count[p] = n
			}
		}
		*n++
	}
	return count
}

// staying returns the single addresses of some classes that do not change.
func (s *space) staying(asked map[*class]bool) map[*class][]moved {
	stay := map[*class][]moved{}
	if len(asked) == 0 {
		return stay
	}
	for a, x := range s.singles {
		if x.class != nil && !x.dirty && asked[x.class] {
			stay[x.class] = append(stay[x.class], moveOf(a, x, x.class))
		}
	}
	return stay
}
