package calc

import (
	mathbits "math/bits"
	"slices"
)

// bag is a set of numbers: 0 has none, alone marks the only number in it, and
// anything else is the number of a crowd.
type bag uint32

const alone bag = 1 << 31

// bags are sets of numbers below 1<<31. Most have one number or none, and cost
// nothing but the bag; some have next to all, and cost a bit for each.
type bags struct{ crowds slab[bag, crowd] }

// crowd is a set of several numbers, by their upper half.
type crowd struct {
	n       int
	shelves []shelf
}

// shelf has numbers with the same upper half: their lower halves in order, or,
// where they are many, a bit for each.
type shelf struct {
	high  uint16
	dense bool
	n     int32
	low   []uint16
}

const shelfMost = 1 << 16 / 16 // so many take no more as numbers than as bits

func (b *bags) add(to *bag, n uint32) {
	switch {
	case *to == 0:
		*to = alone | bag(n)
		return
	case *to == alone|bag(n):
		return
	case *to&alone != 0:
		first := uint32(*to &^ alone)
		*to = b.crowds.add(crowd{})
		b.crowds.at(*to).add(first)
	}
	b.crowds.at(*to).add(n)
}

func (b *bags) remove(from *bag, n uint32) {
	switch {
	case *from == alone|bag(n):
		*from = 0
	case *from != 0 && *from&alone == 0:
		c := b.crowds.at(*from)
		if c.remove(n); c.n > 1 {
			return
		}
		last := *from
		b.each(last, func(only uint32) { *from = alone | bag(only) })
		b.crowds.drop(last)
	}
}

// has reports whether a number is in a bag.
func (b *bags) has(of bag, n uint32) bool {
	if of == 0 || of&alone != 0 {
		return of == alone|bag(n)
	}
	c := b.crowds.at(of)
	i, found := c.at(n)
	return found && c.shelves[i].has(uint16(n))
}

// size is how many numbers are in a bag.
func (b *bags) size(of bag) int {
	switch {
	case of == 0:
		return 0
	case of&alone != 0:
		return 1
	}
	return b.crowds.at(of).n
}

// each visits the numbers in a bag from the lowest up. visit does not change
// the bag.
func (b *bags) each(of bag, visit func(uint32)) {
	if of == 0 {
		return
	}
	if of&alone != 0 {
		visit(uint32(of &^ alone))
		return
	}
	for _, s := range b.crowds.at(of).shelves {
		s.each(visit)
	}
}

// list appends the numbers in a bag in order.
func (b *bags) list(of bag, to []uint32) []uint32 {
	if of&alone != 0 {
		return append(to, uint32(of&^alone))
	}
	b.each(of, func(n uint32) { to = append(to, n) })
	return to
}

func (c *crowd) at(n uint32) (int, bool) {
	return slices.BinarySearchFunc(c.shelves, uint16(n>>16), func(s shelf, high uint16) int { return int(s.high) - int(high) })
}

func (c *crowd) add(n uint32) {
	i, found := c.at(n)
	if !found {
		c.shelves = slices.Insert(c.shelves, i, shelf{high: uint16(n >> 16)})
	}
	s := &c.shelves[i]
	c.n -= int(s.n)
	s.add(uint16(n))
	c.n += int(s.n)
}

func (c *crowd) remove(n uint32) {
	i, found := c.at(n)
	if !found {
		return
	}
	s := &c.shelves[i]
	c.n -= int(s.n)
	s.remove(uint16(n))
	c.n += int(s.n)
	if s.n == 0 {
		c.shelves = slices.Delete(c.shelves, i, i+1)
	}
}

func (s *shelf) add(n uint16) {
	if !s.dense {
		i, found := slices.BinarySearch(s.low, n)
		if found {
			return
		}
		if len(s.low) < shelfMost {
			s.low = slices.Insert(s.low, i, n)
			s.n++
			return
		}
		many := s.low
		s.low, s.dense = make([]uint16, shelfMost), true
		for _, m := range many {
			s.low[m/16] |= 1 << (m % 16)
		}
	}
	if bit := uint16(1) << (n % 16); s.low[n/16]&bit == 0 {
		s.low[n/16] |= bit
		s.n++
	}
}

func (s *shelf) remove(n uint16) {
	if s.dense {
		if bit := uint16(1) << (n % 16); s.low[n/16]&bit != 0 {
			s.low[n/16] &^= bit
			s.n--
		}
		return
	}
	if i, found := slices.BinarySearch(s.low, n); found {
		s.low = slices.Delete(s.low, i, i+1)
		s.n--
	}
}

func (s *shelf) has(n uint16) bool {
	if s.dense {
		return s.low[n/16]&(1<<(n%16)) != 0
	}
	_, found := slices.BinarySearch(s.low, n)
	return found
}

func (s *shelf) each(visit func(uint32)) {
	high := uint32(s.high) << 16
	for i, low := range s.low {
		if !s.dense {
			visit(high | uint32(low))
			continue
		}
		for ; low != 0; low &= low - 1 {
			visit(high | uint32(i*16+mathbits.TrailingZeros16(low)))
		}
	}
}
