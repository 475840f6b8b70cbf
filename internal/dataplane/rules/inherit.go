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
	from, to *class
}

// fewMoves is up to how many addresses are moved rather than that those who
// stay behind are looked for.
const fewMoves = 16

// inherit lets a new class have the number of the one that its addresses come
// from, where more of them go than stay: a set of thousands that rules begin to
// ask for changes the rows of a class then, and no address. Those who stay
// behind get the other number; they are among the moves that it returns.
func (s *space) inherit(moves []moved) []moved {
	type pair struct{ from, to *class }
	count := map[pair]int{}
	for _, m := range moves {
		if m.from != nil && m.to != nil && m.from.number != 0 && m.to.number == 0 {
			count[pair{m.from, m.to}]++
		}
	}
	var pairs []pair
	for p, n := range count {
		if n > p.from.refs && (n > fewMoves || p.from.refs == 0) {
			pairs = append(pairs, p)
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a.from.number, b.from.number), cmp.Compare(a.to.sig.key(), b.to.sig.key()))
	})
	for _, p := range pairs {
		if p.from.number == 0 || p.to.number != 0 {
			continue // one of them has been served
		}
		stay, ok := s.staying(p.from, moves)
		if !ok {
			continue
		}
		moves = append(moves, stay...)
		p.to.number, p.to.heir, p.from.number = p.from.number, true, 0
	}
	return moves
}

// staying returns the addresses of a class that are not among the moves. It
// reports false if the class has ranges of addresses too.
func (s *space) staying(c *class, moves []moved) ([]moved, bool) {
	if c.refs == 0 {
		return nil, true
	}
	left := c.refs
	for _, m := range moves {
		if m.to == c {
			left--
		}
	}
	var stay []moved
	for a, x := range s.singles {
		if _, moves := s.dirty[a]; x.class == c && !moves {
			stay = append(stay, moved{a, c, c})
		}
	}
	return stay, len(stay) == left
}
