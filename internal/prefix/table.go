package prefix

import (
	"iter"
	"net/netip"
)

// Table maps prefixes of both families to values and finds the longest that
// covers an address. The zero Table is empty and ready. It is not safe for
// use by several goroutines while one of them changes it, and must not be
// changed while one of its iterators runs.
type Table[V any] struct {
	root [2]*branch[V] // IPv4, IPv6
	len  int
}

// branch is a prefix where a value is kept or two branches part. A key has
// the bits of the address from the top, an IPv4 address 32 of them.
type branch[V any] struct {
	key   num
	bits  int
	value *V // nil: branches part here, nothing is kept
	child [2]*branch[V]
}

// Len returns how many prefixes have a value.
func (t *Table[V]) Len() int { return t.len }

// Insert sets the value of p, and returns the one it replaces, if any. An
// invalid prefix is ignored.
func (t *Table[V]) Insert(p netip.Prefix, v V) (old V, replaced bool) {
	p = Canonical(p)
	if !p.IsValid() {
		return old, false
	}
	key, bits := keyOf(p)
	at := t.rootOf(p)
	for *at != nil && (*at).bits < bits && common((*at).key, key) >= (*at).bits {
		at = &(*at).child[key.bit((*at).bits)]
	}
	b := *at
	if b != nil && b.bits == bits && b.key == key {
		if b.value != nil {
			old, replaced = *b.value, true
		} else {
			t.len++
		}
		b.value = &v
		return old, replaced
	}
	t.len++
	leaf := &branch[V]{key: key, bits: bits, value: &v}
	*at = leaf
	if b == nil {
		return old, false
	}
	fork := min(common(b.key, key), bits, b.bits)
	if fork < bits { // neither covers the other: they part above both
		parent := &branch[V]{key: key.top(fork), bits: fork}
		parent.child[key.bit(fork)] = leaf
		*at, leaf = parent, parent
	}
	leaf.child[b.key.bit(fork)] = b
	return old, false
}

// Delete removes p, and returns its value, if it had one.
func (t *Table[V]) Delete(p netip.Prefix) (old V, found bool) {
	p = Canonical(p)
	if !p.IsValid() {
		return old, false
	}
	key, bits := keyOf(p)
	at := t.rootOf(p)
	var above **branch[V]
	for *at != nil && (*at).covers(key, bits) && (*at).bits < bits {
		above = at
		at = &(*at).child[key.bit((*at).bits)]
	}
	b := *at
	if b == nil || b.bits != bits || b.key != key || b.value == nil {
		return old, false
	}
	old, b.value = *b.value, nil
	t.len--
	prune(at)
	if above != nil {
		prune(above)
	}
	return old, true
}

// prune takes a branch away where nothing is kept and nothing parts.
func prune[V any](at **branch[V]) {
	b := *at
	switch {
	case b.value != nil || b.child[0] != nil && b.child[1] != nil:
	case b.child[0] != nil:
		*at = b.child[0]
	default:
		*at = b.child[1]
	}
}

// Get returns the value of exactly p.
func (t *Table[V]) Get(p netip.Prefix) (v V, ok bool) {
	p = Canonical(p)
	for q, w := range t.Covering(p) {
		if q == p {
			return w, true
		}
	}
	return v, false
}

// Lookup returns the longest prefix that a is in, with its value.
func (t *Table[V]) Lookup(a netip.Addr) (p netip.Prefix, v V, ok bool) {
	return t.LookupPrefix(Host(a))
}

// LookupPrefix returns the longest prefix that covers p or is p, with its
// value.
func (t *Table[V]) LookupPrefix(p netip.Prefix) (longest netip.Prefix, v V, ok bool) {
	p = Canonical(p)
	if !p.IsValid() {
		return longest, v, false
	}
	key, bits := keyOf(p)
	var best *branch[V]
	for b := *t.rootOf(p); b != nil && b.covers(key, bits); b = b.next(key, bits) {
		if b.value != nil {
			best = b
		}
	}
	if best == nil {
		return longest, v, false
	}
	return best.prefix(p.Addr().Is4()), *best.value, true
}

// Covering returns the prefixes that cover p, p included, shortest first.
func (t *Table[V]) Covering(p netip.Prefix) iter.Seq2[netip.Prefix, V] {
	return func(yield func(netip.Prefix, V) bool) {
		p := Canonical(p)
		if !p.IsValid() {
			return
		}
		key, bits := keyOf(p)
		for b := *t.rootOf(p); b != nil && b.covers(key, bits); b = b.next(key, bits) {
			if b.value != nil && !yield(b.prefix(p.Addr().Is4()), *b.value) {
				return
			}
		}
	}
}

// Inside returns the prefixes within p, p included, in order of address, the
// shorter of two that start alike first.
func (t *Table[V]) Inside(p netip.Prefix) iter.Seq2[netip.Prefix, V] {
	return func(yield func(netip.Prefix, V) bool) {
		if p := Canonical(p); p.IsValid() {
			t.inside(p).walk(p.Addr().Is4(), yield)
		}
	}
}

// All returns every prefix with its value, IPv4 first, otherwise as Inside.
func (t *Table[V]) All() iter.Seq2[netip.Prefix, V] {
	return func(yield func(netip.Prefix, V) bool) {
		if t.root[0].walk(true, yield) {
			t.root[1].walk(false, yield)
		}
	}
}

// Overlaps reports whether any prefix of the table has an address in common
// with p.
func (t *Table[V]) Overlaps(p netip.Prefix) bool {
	if _, _, ok := t.LookupPrefix(p); ok {
		return true
	}
	for range t.Inside(p) {
		return true
	}
	return false
}

// inside returns the topmost branch that lies within p, nil if there is none.
func (t *Table[V]) inside(p netip.Prefix) *branch[V] {
	key, bits := keyOf(p)
	b := *t.rootOf(p)
	for b != nil && b.bits < bits && b.covers(key, bits) {
		b = b.child[key.bit(b.bits)]
	}
	if b == nil || b.bits < bits || common(b.key, key) < bits {
		return nil
	}
	return b
}

// walk visits b and everything below it, and reports whether to go on. No
// recursion is deeper than an address has bits.
func (b *branch[V]) walk(is4 bool, yield func(netip.Prefix, V) bool) bool {
	if b == nil {
		return true
	}
	if b.value != nil && !yield(b.prefix(is4), *b.value) {
		return false
	}
	return b.child[0].walk(is4, yield) && b.child[1].walk(is4, yield)
}

// covers reports whether b covers the prefix with this key and length.
func (b *branch[V]) covers(key num, bits int) bool {
	return b.bits <= bits && common(b.key, key) >= b.bits
}

// next returns the branch below b towards key; nil when b is as long as bits.
func (b *branch[V]) next(key num, bits int) *branch[V] {
	if b.bits >= bits {
		return nil
	}
	return b.child[key.bit(b.bits)]
}

func (b *branch[V]) prefix(is4 bool) netip.Prefix {
	n := b.key
	if is4 {
		n = n.shiftRight(96)
	}
	return netip.PrefixFrom(fromNum(n, is4), b.bits)
}

func (t *Table[V]) rootOf(p netip.Prefix) **branch[V] {
	if p.Addr().Is4() {
		return &t.root[0]
	}
	return &t.root[1]
}

func keyOf(p netip.Prefix) (key num, bits int) {
	key = toNum(p.Addr())
	if p.Addr().Is4() {
		key = key.shiftLeft(96)
	}
	return key, p.Bits()
}

// bit returns the bit of a at this place from the top.
func (a num) bit(at int) int { return int(a.shiftRight(127-at).lo & 1) }

// top keeps the upper n bits of a.
func (a num) top(n int) num { return a.and(ones(128 - n).not()) }

// common is how many upper bits a and b have in common.
func common(a, b num) int { return 128 - num{a.hi ^ b.hi, a.lo ^ b.lo}.len() }
