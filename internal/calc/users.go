package calc

import (
	"math"
	"slices"

	"github.com/brindle-net/brindle/internal/selector"
)

// Who registers selectors.
const (
	byPolicies = iota // which local endpoints does a policy select
	bySets            // which endpoints of the cluster are members of a set
	userKinds
)

// registration says under which labels a selector is found. Whatever it
// matches has one of them; with all empty it matches nothing.
type registration struct {
	key  keyID // everyKey: it is looked at for everything
	pair pairID
	more *[]pairID // if one pair is not enough
}

const everyKey keyID = math.MaxUint32

// each visits the pairs.
func (r registration) each(visit func(pairID)) {
	if r.pair != 0 {
		visit(r.pair)
	}
	if r.more != nil {
		for _, id := range *r.more {
			visit(id)
		}
	}
}

// register notes a selector under the label that fewest others are under.
func (l *labels) register(kind int, user uint32, s selector.Selector) registration {
	var best selector.Requirement
	cost := -1
	s.EachRequirement(func(r selector.Requirement) {
		if n := l.crowd(kind, r); cost < 0 || n < cost {
			best, cost = r, n
		}
	})
	switch {
	case cost < 0:
		l.scan[kind] = append(l.scan[kind], user)
		return registration{key: everyKey}
	case best.AnyValue:
		k := l.key(best.Key)
		l.bags.add(&l.keys.at(k).users[kind], user)
		return registration{key: k}
	}
	var out registration
	if len(best.Values) > 1 {
		out.more = new([]pairID)
	}
	for i, v := range best.Values {
		id := l.pair(best.Key, v)
		l.bags.add(&l.pairs.at(id).users[kind], user)
		if i == 0 {
			out.pair = id
		} else {
			*out.more = append(*out.more, id)
		}
	}
	return out
}

// crowd is how much is registered under the labels of a requirement. A label
// with a value is worth more than one with any.
func (l *labels) crowd(kind int, r selector.Requirement) int {
	k, ok := l.keyOf[r.Key]
	switch {
	case r.AnyValue:
		if ok {
			return 16 + l.bags.size(l.keys.at(k).users[kind])
		}
		return 16
	case !ok:
		return len(r.Values)
	}
	n := len(r.Values)
	for _, v := range r.Values {
		if id := l.known(k, v); id != 0 {
			n += l.bags.size(l.pairs.at(id).users[kind])
		}
	}
	return n
}

func (l *labels) unregister(kind int, user uint32, r registration) {
	switch r.key {
	case 0:
	case everyKey:
		l.scan[kind] = remove(l.scan[kind], user)
	default:
		l.bags.remove(&l.keys.at(r.key).users[kind], user)
		l.tidyKey(r.key)
	}
	r.each(func(id pairID) {
		l.bags.remove(&l.pairs.at(id).users[kind], user)
		l.tidy(id)
	})
}

// usersFor appends all that may match a class, sorted, each once.
func (l *labels) usersFor(kind int, id classID, to []uint32) []uint32 {
	to = append(to, l.scan[kind]...)
	l.eachPair(id, func(id pairID) {
		p := l.pairs.at(id)
		to = l.bags.list(l.keys.at(p.key).users[kind], l.bags.list(p.users[kind], to))
	})
	slices.Sort(to)
	return slices.Compact(to)
}

// candidates visits the classes that may match a selector, some of them more
// than once: those with the rarest label that it asks for.
func (l *labels) candidates(s selector.Selector, visit func(classID)) {
	var best selector.Requirement
	cost := -1
	s.EachRequirement(func(r selector.Requirement) {
		if n := l.spread(r); cost < 0 || n < cost {
			best, cost = r, n
		}
	})
	if cost < 0 {
		l.eachClass(visit)
		return
	}
	k, ok := l.keyOf[best.Key]
	switch {
	case !ok:
	case best.AnyValue:
		for p := l.keys.at(k).pairs; p != 0; p = l.pairs.at(p).ofKey.next {
			l.eachWith(p, visit)
		}
	default:
		for _, v := range best.Values {
			if p := l.known(k, v); p != 0 {
				l.eachWith(p, visit)
			}
		}
	}
}

// spread is how many sets of labels meet a requirement.
func (l *labels) spread(r selector.Requirement) int {
	k, ok := l.keyOf[r.Key]
	switch {
	case !ok:
		return 0
	case r.AnyValue:
		return l.keys.at(k).sets
	}
	n := 0
	for _, v := range r.Values {
		if p := l.known(k, v); p != 0 {
			n += l.bags.size(l.pairs.at(p).sets)
		}
	}
	return n
}
