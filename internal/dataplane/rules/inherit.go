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

// inherit lets a class have the number of the one that its addresses come from,
// where more of them come together than are in either otherwise: a set of
// thousands that rules begin to ask for, or ask for no more, changes the rows
// of classes then, and no address. The other class gets the other number; those
// that are in either otherwise are among the moves that it returns.
func (s *space) inherit(moves []moved) []moved {
	type pair struct{ from, to *class }
	count := map[pair]int{}
	for _, m := range moves {
		if m.from != nil && m.to != nil && m.from != m.to && m.from.number != 0 {
			count[pair{m.from, m.to}]++
		}
	}
	var pairs []pair
	for p, n := range count {
		if others := p.from.refs + p.to.refs - n; others == 0 || n > others && n > fewMoves {
			pairs = append(pairs, p)
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a.from.number, b.from.number), cmp.Compare(a.to.sig.key(), b.to.sig.key()))
	})
	served := map[*class]bool{}
	for _, p := range pairs {
		if served[p.from] || served[p.to] {
			continue
		}
		stay, ok := s.staying(p.from, moves)
		also, fine := s.staying(p.to, moves)
		if !ok || !fine {
			continue
		}
		moves = slices.Concat(moves, stay, also)
		p.from.number, p.to.number = p.to.number, p.from.number
		p.to.heir, p.from.heir = true, p.from.number != 0
		for _, c := range []*class{p.from, p.to} {
			served[c], s.touched[c] = true, struct{}{}
		}
	}
	return moves
}

// staying returns the addresses of a class that are not among the moves. It
// reports false if the class has ranges of addresses too.
func (s *space) staying(c *class, moves []moved) ([]moved, bool) {
	left := c.refs
	for _, m := range moves {
		if m.to == c {
			left--
		}
	}
	if left == 0 {
		return nil, true
	}
	var stay []moved
	for a, x := range s.singles {
		if _, moves := s.dirty[a]; x.class == c && !moves {
			stay = append(stay, moved{a, c, c})
		}
	}
	return stay, len(stay) == left
}
