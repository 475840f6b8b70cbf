package rules

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// journal remembers how everything was that a change touched, to tell in the
// end what really differs.
type journal struct {
	off      bool              // nobody will ask
	chains   map[string]*Chain // nil: was not there
	sets     map[string]*setJournal
	counters map[string]*Counter
}

// setJournal remembers one set. Of a set that goes, whole is how it was;
// otherwise old has the elements that were touched.
type setJournal struct {
	there bool
	whole *Set
	old   map[string]*Element
}

func newJournal() *journal {
	return &journal{chains: map[string]*Chain{}, sets: map[string]*setJournal{}, counters: map[string]*Counter{}}
}

// putChain puts a chain in place, or takes the one of this name away if c is
// nil.
func (b *Builder) putChain(name string, c *Chain) {
	if _, ok := b.was.chains[name]; !ok && !b.was.off {
		b.was.chains[name] = b.prog.Chains[name]
	}
	if c == nil {
		delete(b.prog.Chains, name)
		return
	}
	b.prog.Chains[name] = c
}

func (b *Builder) touchCounter(name string) {
	if _, ok := b.was.counters[name]; ok || b.was.off {
		return
	}
	if c, ok := b.prog.Counters[name]; ok {
		b.was.counters[name] = &c
		return
	}
	b.was.counters[name] = nil
}

func (b *Builder) putCounter(c Counter) {
	b.touchCounter(c.Name)
	b.prog.Counters[c.Name] = c
}

func (b *Builder) dropCounter(name string) {
	b.touchCounter(name)
	delete(b.prog.Counters, name)
}

func (b *Builder) setJournal(name string) *setJournal {
	if b.was.off {
		return &setJournal{}
	}
	j := b.was.sets[name]
	if j == nil {
		_, there := b.prog.Sets[name]
		j = &setJournal{there: there, old: map[string]*Element{}}
		b.was.sets[name] = j
	}
	return j
}

// addSet makes an empty set. There is none of this name.
func (b *Builder) addSet(s Set) {
	b.setJournal(s.Name)
	if s.Elements == nil {
		s.Elements = map[string]Element{}
	}
	b.prog.Sets[s.Name] = &s
}

func (b *Builder) dropSet(name string) {
	j, s := b.setJournal(name), b.prog.Sets[name]
	if s == nil {
		return
	}
	if j.there && j.whole == nil {
		for lo, e := range j.old { // as it was before this change
			if delete(s.Elements, lo); e != nil {
				s.Elements[lo] = *e
			}
		}
		j.whole = s
	}
	delete(b.prog.Sets, name)
}

func (b *Builder) touchElement(set, lo string) *Set {
	if b.was.off {
		return b.prog.Sets[set]
	}
	j, s := b.setJournal(set), b.prog.Sets[set]
	if !j.there || j.whole != nil {
		return s // all of it is new
	}
	if _, ok := j.old[lo]; !ok {
		if e, ok := s.Elements[lo]; ok {
			j.old[lo] = &e
		} else {
			j.old[lo] = nil
		}
	}
	return s
}

func (b *Builder) putElement(set string, e Element) {
	b.touchElement(set, e.Lo).Elements[e.Lo] = e
}

func (b *Builder) dropElement(set, lo string) {
	delete(b.touchElement(set, lo).Elements, lo)
}

// delta tells what the journal's time has changed.
func (b *Builder) delta() Delta {
	d := Delta{Sets: map[string]SetDelta{}}
	d.Chains.Set, d.Counters.Set = map[string]*Chain{}, map[string]Counter{}
	for _, name := range slices.Sorted(maps.Keys(b.was.chains)) {
		old, now := b.was.chains[name], b.prog.Chains[name]
		switch {
		case now == nil && old != nil:
			d.Chains.Delete = append(d.Chains.Delete, name)
		case now != nil && !reflect.DeepEqual(old, now):
			d.Chains.Set[name] = now
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.was.counters)) {
		old := b.was.counters[name]
		now, there := b.prog.Counters[name]
		switch {
		case !there && old != nil:
			d.Counters.Delete = append(d.Counters.Delete, name)
		case there && (old == nil || *old != now):
			d.Counters.Set[name] = now
		}
	}
	for name, j := range b.was.sets {
		if s, ok := j.delta(b.prog.Sets[name]); ok {
			d.Sets[name] = s
		}
	}
	return d
}

func (j *setJournal) delta(now *Set) (SetDelta, bool) {
	switch {
	case now == nil:
		return SetDelta{Gone: true}, j.there
	case !j.there:
		return SetDelta{Define: now}, true
	case j.whole != nil:
		return differ(j.whole.Elements, now.Elements)
	}
	var d SetDelta
	for lo, old := range j.old {
		e, there := now.Elements[lo]
		if there && old != nil && e == *old {
			continue
		}
		if old != nil {
			d.Remove = appendWithin(d.Remove, *old, len(j.old))
		}
		if there {
			d.Add = appendWithin(d.Add, e, len(j.old))
		}
	}
	return d.settled()
}

func differ(old, now map[string]Element) (SetDelta, bool) {
	var d SetDelta
	for lo, e := range old {
		if n, ok := now[lo]; !ok || n != e {
			d.Remove = append(d.Remove, e)
		}
	}
	for lo, e := range now {
		if o, ok := old[lo]; !ok || o != e {
			d.Add = append(d.Add, e)
		}
	}
	return d.settled()
}

// appendWithin appends to a list that will have no more than most elements.
func appendWithin(list []Element, e Element, most int) []Element {
	if list == nil {
		list = make([]Element, 0, most)
	}
	return append(list, e)
}

// settled puts a delta in order; false: there is nothing in it.
func (d SetDelta) settled() (SetDelta, bool) {
	inOrder(d.Remove)
	inOrder(d.Add)
	return d, len(d.Remove)+len(d.Add) > 0
}

func sorted(elements map[string]Element) []Element {
	list := make([]Element, 0, len(elements))
	for _, e := range elements {
		list = append(list, e)
	}
	inOrder(list)
	return list
}

// inOrder sorts elements by where they begin. No two begin at the same place.
func inOrder(list []Element) {
	if len(list) < 64 {
		slices.SortFunc(list, func(a, b Element) int { return strings.Compare(a.Lo, b.Lo) })
		return
	}
	// What is moved about is small, and most of it is told apart by numbers.
	order := make([]begin, len(list))
	for i := range list {
		order[i] = begin{firstBytes(list[i].Lo), int32(i)}
	}
	slices.SortFunc(order, func(a, b begin) int {
		if a.front != b.front {
			return cmp.Compare(a.front, b.front)
		}
		return strings.Compare(list[a.at].Lo, list[b.at].Lo)
	})
	for i := range order { // along each cycle of what changes places
		first := list[i]
		for at := i; order[at].at >= 0; {
			from := int(order[at].at)
			if order[at].at = -1; from == i {
				list[at] = first
				break
			}
			list[at] = list[from]
			at = from
		}
	}
}

// begin is where the element at some place of a list begins.
type begin struct {
	front uint64 // as much as fits
	at    int32
}

// firstBytes is the first eight bytes as a number, in the same order.
func firstBytes(s string) uint64 {
	var n uint64
	for i := range 8 {
		n <<= 8
		if i < len(s) {
			n |= uint64(s[i])
		}
	}
	return n
}
