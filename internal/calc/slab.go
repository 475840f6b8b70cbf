package calc

// slab keeps values under small numbers, close together in memory. Number 0
// is never given out. A number that is dropped is not given out again before
// settle, so that within a batch a number means one thing.
type slab[K ~uint32, T any] struct {
	chunks  [][]T
	next    K
	free    []K
	dropped []K
}

const slabChunk = 64

// at returns where a value is. The pointer is good for as long as the number.
func (s *slab[K, T]) at(k K) *T { return &s.chunks[k/slabChunk][k%slabChunk] }

func (s *slab[K, T]) add(v T) K {
	k := s.next
	if n := len(s.free); n > 0 {
		k, s.free = s.free[n-1], s.free[:n-1]
	} else {
		if k == 0 {
			k = 1
		}
		if int(k/slabChunk) == len(s.chunks) {
			s.chunks = append(s.chunks, make([]T, slabChunk))
		}
		s.next = k + 1
	}
	*s.at(k) = v
	return k
}

func (s *slab[K, T]) drop(k K) {
	var zero T
	*s.at(k) = zero
	s.dropped = append(s.dropped, k)
}

// settle makes dropped numbers free to be given out again.
func (s *slab[K, T]) settle() {
	if len(s.dropped) == 0 {
		return
	}
	s.free = append(s.free, s.dropped...)
	s.dropped = s.dropped[:0]
	if cap(s.dropped) > slabChunk {
		s.dropped = nil
	}
}

// index finds numbers by a hash of what they stand for: tables with open
// addressing, found by the first bits of the hash. A table that is full is
// split in two, so that what grows is not made anew as a whole.
type index[K ~uint32] struct {
	tables []*indexTable[K] // by the first depth bits; one table may stand at several places
	depth  uint8
	used   int
}

// indexTable has the numbers whose hashes begin with the same depth bits. Its
// size is a power of two.
type indexTable[K ~uint32] struct {
	slots []indexSlot[K]
	used  int
	depth uint8
}

type indexSlot[K ~uint32] struct {
	hash uint32
	of   K // 0: empty
}

const indexSlots = 256 // of a table that is split rather than enlarged

// table is the one that has what has a hash.
func (x *index[K]) table(hash uint32) *indexTable[K] { return x.tables[hash>>(32-x.depth)] }

// find returns the number with this hash that is the one asked for, or 0.
func (x *index[K]) find(hash uint32, is func(K) bool) K {
	if len(x.tables) == 0 {
		return 0
	}
	t := x.table(hash)
	mask := uint32(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := t.slots[i]
		if s.of == 0 || s.hash == hash && is(s.of) {
			return s.of
		}
	}
}

// add notes a number that is not there.
func (x *index[K]) add(hash uint32, of K) {
	if len(x.tables) == 0 {
		x.tables = []*indexTable[K]{{slots: make([]indexSlot[K], 16)}}
	}
	t := x.table(hash)
	for (t.used+1)*5 > len(t.slots)*4 {
		if len(t.slots) < indexSlots || !x.split(t, hash) {
			old := t.slots
			n := 2 * len(old)
			if n < indexSlots {
				n *= 2 // not many steps to the size at which tables stay
			}
			t.slots, t.used = make([]indexSlot[K], n), 0
			for _, s := range old {
				if s.of != 0 {
					t.place(s)
				}
			}
		}
		t = x.table(hash)
	}
	t.place(indexSlot[K]{hash, of})
	x.used++
}

// split makes the table that has a hash two, and reports whether that parts
// what is in it.
func (x *index[K]) split(t *indexTable[K], hash uint32) bool {
	bit, ones := uint32(1)<<(31-t.depth), 0
	for _, s := range t.slots {
		if s.of != 0 && s.hash&bit != 0 {
			ones++
		}
	}
	if t.depth == 24 || ones < t.used/8 || ones > t.used*7/8 {
		return false
	}
	if t.depth == x.depth {
		twice := make([]*indexTable[K], 2*len(x.tables))
		for i, o := range x.tables {
			twice[2*i], twice[2*i+1] = o, o
		}
		x.tables, x.depth = twice, x.depth+1
	}
	t.depth++
	other := &indexTable[K]{slots: make([]indexSlot[K], len(t.slots)), depth: t.depth}
	var space [indexSlots]indexSlot[K]
	old := append(space[:0], t.slots...)
	clear(t.slots)
	t.used = 0
	for _, s := range old {
		switch {
		case s.of == 0:
		case s.hash&bit != 0:
			other.place(s)
		default:
			t.place(s)
		}
	}
	first := (hash>>(32-t.depth) | 1) << (x.depth - t.depth)
	for i := range uint32(1) << (x.depth - t.depth) {
		x.tables[first+i] = other
	}
	return true
}

func (t *indexTable[K]) place(s indexSlot[K]) {
	mask := uint32(len(t.slots) - 1)
	i := s.hash & mask
	for t.slots[i].of != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = s
	t.used++
}

// remove takes a number out and moves those back that it kept from their
// place.
func (x *index[K]) remove(hash uint32, of K) {
	if len(x.tables) == 0 {
		return
	}
	t := x.table(hash)
	mask := uint32(len(t.slots) - 1)
	i := hash & mask
	for t.slots[i].of != of {
		if t.slots[i].of == 0 {
			return
		}
		i = (i + 1) & mask
	}
	x.used--
	t.used--
	hole := i
	for {
		i = (i + 1) & mask
		s := t.slots[i]
		if s.of == 0 {
			break
		}
		if home := s.hash & mask; (i-home)&mask >= (i-hole)&mask {
			t.slots[hole], hole = s, i
		}
	}
	t.slots[hole] = indexSlot[K]{}
}

// link is a place in a list through the values of a slab.
type link[K ~uint32] struct{ next, prev K }

// chain is what of a value is the link of one list.
type chain[K ~uint32, T any] struct {
	of   *slab[K, T]
	link func(*T) *link[K]
}

func (c chain[K, T]) push(head *K, k K) {
	*c.link(c.of.at(k)) = link[K]{next: *head}
	if *head != 0 {
		c.link(c.of.at(*head)).prev = k
	}
	*head = k
}

func (c chain[K, T]) unlink(head *K, k K) {
	l := c.link(c.of.at(k))
	if l.next != 0 {
		c.link(c.of.at(l.next)).prev = l.prev
	}
	if l.prev != 0 {
		c.link(c.of.at(l.prev)).next = l.next
	} else {
		*head = l.next
	}
	*l = link[K]{}
}

// mix spreads the bits of a hash of small numbers.
func mix(h uint64) uint32 {
	h ^= h >> 31
	h *= 0x9E3779B97F4A7C15
	return uint32(h >> 32)
}

// remove takes one entry out of a list whose order does not matter.
func remove[T comparable](list []T, v T) []T {
	for i, x := range list {
		if x == v {
			var zero T
			last := len(list) - 1
			list[i], list[last] = list[last], zero
			return list[:last]
		}
	}
	return list
}
