package calc

import (
	"slices"

	"github.com/brindle-net/brindle/internal/model"
)

// slotKey tells host endpoints from workloads: not every policy is for both.
type slotKey struct {
	class classID
	host  bool
}

type slot struct {
	key      slotKey
	count    int
	pairs    []pairID // under which it is found
	keys     []keyID
	policies []policyID // that select it, in order
	lists    *tierLists // nil: no policy
}

// bits is a set of small numbers.
type bits []uint64

func (b bits) has(i slotID) bool { return int(i/64) < len(b) && b[i/64]&(1<<(i%64)) != 0 }

func (b *bits) set(i slotID) {
	for int(i/64) >= len(*b) {
		*b = append(*b, 0)
	}
	(*b)[i/64] |= 1 << (i % 64)
}

func (b bits) clear(i slotID) { b[i/64] &^= 1 << (i % 64) }

// each visits the numbers in the set; visit may clear the one it is given.
func (b bits) each(visit func(slotID)) {
	for w, word := range b {
		for i := slotID(0); word != 0; i, word = i+1, word>>1 {
			if word&1 != 0 {
				visit(slotID(w*64) + i)
			}
		}
	}
}

// reslot counts the endpoints of this host by class. It returns the new
// slots, of which no policy knows.
func (p *policies) reslot(c *Core, t *touched) []slotID {
	if !t.workloads && !t.hosts {
		return nil
	}
	var fresh []slotID
	for _, s := range p.slotOf {
		p.slots.at(s).count = 0
	}
	one := func(id model.ID, host bool) {
		key := slotKey{c.members.classOf(id), host}
		s, ok := p.slotOf[key]
		if !ok {
			s = p.slots.add(slot{key: key})
			p.slotOf[key] = s
			p.find(&c.members, s)
			fresh = append(fresh, s)
			c.members.watched[key.class] = true
		}
		p.slots.at(s).count++
	}
	for _, w := range c.active.workloads {
		one(w.ID, false)
	}
	for id := range c.in.hosts {
		one(id, true)
		t.matches = true
	}
	for key, s := range p.slotOf {
		if p.slots.at(s).count == 0 {
			p.dropSlot(&c.members, key, s)
		}
	}
	return fresh
}

func (p *policies) dropSlot(m *members, key slotKey, s slotID) {
	at := p.slots.at(s)
	for _, id := range at.policies {
		p.clear(id, s)
	}
	p.lose(s)
	p.release(at.lists)
	delete(p.slotOf, key)
	delete(p.changes.dirty, s)
	delete(p.changes.gained, s)
	delete(p.changes.lost, s)
	if _, other := p.slotOf[slotKey{key.class, !key.host}]; !other {
		delete(m.watched, key.class)
	}
	p.slots.drop(s)
}

// find makes a slot known under its labels as they are now.
func (p *policies) find(m *members, s slotID) {
	p.lose(s)
	at := p.slots.at(s)
	pairs, keys := p.scratch.pairs[:0], p.scratch.keys[:0]
	m.labels.eachPair(at.key.class, func(id pairID) {
		key := m.labels.pairs.at(id).key
		if slices.Contains(pairs, id) {
			return
		}
		pairs = append(pairs, id)
		putInto(&p.bags, p.byPair, id, s)
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
			putInto(&p.bags, p.byKey, key, s)
		}
	})
	at.pairs, at.keys = slices.Clone(pairs), slices.Clone(keys)
	p.scratch.pairs, p.scratch.keys = pairs, keys
}

// lose is the opposite of find.
func (p *policies) lose(s slotID) {
	at := p.slots.at(s)
	for _, id := range at.pairs {
		takeFrom(&p.bags, p.byPair, id, s)
	}
	for _, key := range at.keys {
		takeFrom(&p.bags, p.byKey, key, s)
	}
	at.pairs, at.keys = nil, nil
}

func putInto[K comparable](b *bags, table map[K]bag, key K, s slotID) {
	of := table[key]
	b.add(&of, uint32(s))
	table[key] = of
}

func takeFrom[K comparable](b *bags, table map[K]bag, key K, s slotID) {
	of := table[key]
	if b.remove(&of, uint32(s)); of == 0 {
		delete(table, key)
		return
	}
	table[key] = of
}
