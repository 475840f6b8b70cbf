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

const slabChunk = 256

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

// index finds numbers by a hash of what they stand for: a table with open
// addressing, a power of two in size.
type index[K ~uint32] struct {
	slots []indexSlot[K]
	used  int
}

type indexSlot[K ~uint32] struct {
	hash uint32
	of   K // 0: empty
}

// find returns the number with this hash that is the one asked for, or 0.
func (x *index[K]) find(hash uint32, is func(K) bool) K {
	if len(x.slots) == 0 {
		return 0
	}
	mask := uint32(len(x.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := x.slots[i]
		if s.of == 0 || s.hash == hash && is(s.of) {
			return s.of
		}
	}
}

// add notes a number that is not there.
func (x *index[K]) add(hash uint32, of K) {
	if (x.used+1)*5 > len(x.slots)*4 {
		old := x.slots
		x.slots = make([]indexSlot[K], max(16, 2*len(old)))
		for _, s := range old {
			if s.of != 0 {
				x.place(s)
			}
		}
	}
	x.place(indexSlot[K]{hash, of})
	x.used++
}

func (x *index[K]) place(s indexSlot[K]) {
	mask := uint32(len(x.slots) - 1)
	i := s.hash & mask
	for x.slots[i].of != 0 {
		i = (i + 1) & mask
	}
	x.slots[i] = s
}

// remove takes a number out and moves those back that it kept from their
// place.
func (x *index[K]) remove(hash uint32, of K) {
	mask := uint32(len(x.slots) - 1)
	i := hash & mask
	for x.slots[i].of != of {
		if x.slots[i].of == 0 {
			return
		}
		i = (i + 1) & mask
	}
	x.used--
	hole := i
	for {
		i = (i + 1) & mask
		s := x.slots[i]
		if s.of == 0 {
			break
		}
		if home := s.hash & mask; (i-home)&mask >= (i-hole)&mask {
			x.slots[hole], hole = s, i
		}
	}
	x.slots[hole] = indexSlot[K]{}
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
