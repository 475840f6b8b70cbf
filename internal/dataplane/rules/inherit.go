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
	type pair struct{ from, to *class }
	counts := map[pair]*int{}
	var last pair // thousands are the same
	var n *int
	for _, m := range moves {
		if m.from == nil || m.to == nil || m.from == m.to || m.was == 0 {
			continue
		}
		if p := (pair{m.from, m.to}); p != last {
			if last, n = p, counts[p]; n == nil {
				n = new(int)
				counts[p] = n
			}
		}
		*n++
	}
	count := func(p pair) int { return *counts[p] }
	var pairs []pair
	for p := range counts {
		n := count(p)
		if others := p.from.refs + p.to.refs - n; others == 0 || n > others && n > fewMoves {
			pairs = append(pairs, p)
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(count(b), count(a)), cmp.Compare(a.from.number, b.from.number), cmp.Compare(a.to.sig.key(), b.to.sig.key()))
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
		if x.class == c && !x.dirty {
			stay = append(stay, moveOf(a, x, c))
		}
	}
	return stay, len(stay) == left
}
