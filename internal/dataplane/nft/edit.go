package nft

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// An edit is a change of one table, from which a batch is written in the one
// order that always works: first everything is let go of, then taken away,
// then made.
type edit struct {
	id    tableID
	table bool // the table has to be made
	anew  bool // after the one that is there has gone

	flush                             map[string]bool // chains whose rules go
	dropChains, dropSets, dropCounter map[string]bool
	empties                           map[string]bool // sets that lose all elements
	dropElems                         map[string][]member

	counters map[string]string // name to note
	chains   map[string]*base  // to make
	sets     map[string]*set   // to make; elements are in elems
	elems    map[string][]member
	rules    map[string][]rule // to add to chains that are new or flushed
}

func newEdit(id tableID) *edit {
	return &edit{
		id: id, flush: map[string]bool{}, dropChains: map[string]bool{}, dropSets: map[string]bool{},
		dropCounter: map[string]bool{}, dropElems: map[string][]member{}, empties: map[string]bool{},
		counters: map[string]string{}, chains: map[string]*base{}, sets: map[string]*set{},
		elems: map[string][]member{}, rules: map[string][]rule{},
	}
}

// write adds the edit's messages to a batch.
func (e *edit) write(b *batch) {
	if e.anew {
		b.deleteTable(e.id)
	}
	if e.table {
		b.addTable(e.id)
	}
	for _, name := range sorted(e.flush) {
		b.flushChain(e.id, name)
	}
	for _, name := range sorted(e.empties) {
		if e.empties[name] {
			b.emptySet(e.id, name)
		}
	}
	for _, name := range sorted(e.dropElems) {
		if !e.dropSets[name] {
			b.deleteElems(e.id, name, e.dropElems[name])
		}
	}
	for _, name := range sorted(e.dropSets) {
		b.deleteSet(e.id, name)
	}
	for _, name := range sorted(e.dropChains) {
		b.deleteChain(e.id, name)
	}
	for _, name := range sorted(e.dropCounter) {
		b.deleteCounter(e.id, name)
	}
	for _, name := range sorted(e.counters) {
		b.addCounter(e.id, name, e.counters[name])
	}
	for _, name := range sorted(e.chains) {
		b.addChain(e.id, name, e.chains[name])
	}
	for _, name := range sorted(e.sets) {
		b.addSet(e.id, name, e.sets[name])
	}
	for _, name := range sorted(e.elems) {
		b.addElems(e.id, name, e.elems[name])
	}
	for _, name := range sorted(e.rules) {
		b.addRules(e.id, name, e.rules[name])
	}
}

// about is how many bytes write writes, about: so that a large batch need not be
// copied each time that it has outgrown its place.
func (e *edit) about() int {
	const oneElem, oneRule, other = 48, 512, 128
	n := 1024 + oneElem*(countElems(e.elems)+countElems(e.dropElems))
	for _, list := range e.rules {
		n += oneRule * len(list)
	}
	return n + other*(len(e.flush)+len(e.dropChains)+len(e.dropSets)+len(e.dropCounter)+len(e.counters)+len(e.chains)+len(e.sets))
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// addChain makes a chain with its rules.
func (e *edit) addChain(name string, c *chain) {
	e.chains[name] = c.base
	e.rules[name] = c.rules
}

// addSet makes a set with its elements.
func (e *edit) addSet(name string, s *set) {
	e.sets[name] = s
	if list := s.members(); len(list) > 0 {
		e.elems[name] = list
	}
}

// difference is the edit that makes have, as the kernel has it, into want.
// have is nil if there is no such table.
func difference(id tableID, have, want *table) *edit {
	e := newEdit(id)
	// The kernel takes no new base chain together with a table that wakes up
	// (EINVAL), so a table with other flags is made anew as a whole.
	e.anew = have != nil && have.flags != want.flags
	if have == nil || e.anew {
		have, e.table = newTable(), true
	}
	remade := e.diffSets(have, want)
	e.diffChains(have, want, remade)
	for name := range have.counters {
		if _, ok := want.counters[name]; !ok {
			e.dropCounter[name] = true
		}
	}
	for name, o := range want.counters {
		if _, ok := have.counters[name]; !ok {
			e.counters[name] = o.note
		}
	}
	return e
}

// diffSets reports whether a set of the same name is to be made anew, for
// which all rules that may refer to it have to let go of it.
//
// A set without a name of its own is part of a rule: that is not ours, and the
// set goes with it. To take it away by itself, too, would fail.
func (e *edit) diffSets(have, want *table) (remade bool) {
	for name, old := range have.sets {
		if want.sets[name] == nil && old.flags&unix.NFT_SET_ANONYMOUS == 0 {
			e.dropSets[name] = true
		}
	}
	for name, s := range want.sets {
		old := have.sets[name]
		switch {
		case old == nil:
			e.addSet(name, s)
		case old.shape != s.shape:
			e.dropSets[name], remade = true, true
			e.addSet(name, s)
		case s.flags&unix.NFT_SET_INTERVAL != 0 && s.fields == "":
			e.diffIntervals(name, old.elems, s.members())
		default:
			e.diffElems(name, old.elems, s.members())
		}
	}
	return remade
}

// diffIntervals makes all intervals of a set anew if one differs: the kernel
// takes beginnings and ends only in pairs that do not overlap, and nobody knows
// what pairs somebody else has left.
func (e *edit) diffIntervals(set string, have map[elemID]elem, want []member) {
	differs := func(m member) bool {
		old, ok := have[m.id]
		return !ok || !old.same(m.elem)
	}
	if len(have) == len(want) && !slices.ContainsFunc(want, differs) {
		return
	}
	e.empties[set] = len(have) > 0
	if len(want) > 0 {
		e.elems[set] = want
	}
}

func (e *edit) diffElems(set string, have map[elemID]elem, want []member) {
	var gone, made []member
	known := 0 // of those that the kernel has
	for _, m := range want {
		old, ok := have[m.id]
		if ok {
			known++
		}
		switch {
		case ok && old.same(m.elem):
			continue
		case ok:
			gone = append(gone, member{m.id, old})
		}
		made = append(made, m)
	}
	if known < len(have) {
		wanted := make(map[elemID]bool, len(want))
		for _, m := range want {
			wanted[m.id] = true
		}
		for id, old := range have {
			if !wanted[id] {
				gone = append(gone, member{id, old})
			}
		}
	}
	if len(gone) > 0 {
		e.dropElems[set] = gone
	}
	if len(made) > 0 {
		e.elems[set] = made
	}
}

func (e *edit) diffChains(have, want *table, all bool) {
	for name, old := range have.chains {
		if want.chains[name] == nil && !old.bound {
			e.flush[name], e.dropChains[name] = true, true
		}
	}
	for name, c := range want.chains {
		old := have.chains[name]
		switch {
		case old == nil:
			e.addChain(name, c)
		case !sameBase(old.base, c.base):
			e.flush[name], e.dropChains[name] = true, true
			e.addChain(name, c)
			// Whatever jumps to a chain that is made anew has to let go of it.
			// A chain at a hook is jumped to by none, but it may become one.
			all = all || old.base == nil
		}
	}
	for name, c := range want.chains {
		if old := have.chains[name]; old != nil && !e.dropChains[name] && (all || !sameChain(old, c)) {
			e.flush[name] = true
			e.rules[name] = c.rules
		}
	}
}

// empty reports whether the edit changes nothing.
func (e *edit) empty() bool {
	return !e.table && len(e.flush)+len(e.dropChains)+len(e.dropSets)+len(e.dropCounter)+len(e.dropElems)+len(e.empties)+
		len(e.counters)+len(e.chains)+len(e.sets)+len(e.elems)+len(e.rules) == 0
}
