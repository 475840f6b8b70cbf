package calc

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
)

// prefixes is a set of prefixes: a list while it is small, as that of most
// hosts is.
type prefixes struct {
	list []netip.Prefix
	many map[netip.Prefix]bool // nil: they are in list
}

// smallSet is how many prefixes a list holds at most.
const smallSet = 8

// set puts a prefix in, or takes it out.
func (s *prefixes) set(p netip.Prefix, in bool) {
	if s.many != nil {
		if in {
			s.many[p] = true
		} else {
			delete(s.many, p)
		}
		return
	}
	i := slices.Index(s.list, p)
	switch {
	case in == (i >= 0):
	case !in:
		s.list = slices.Delete(s.list, i, i+1)
	case len(s.list) < smallSet:
		s.list = append(s.list, p)
	default:
		s.many = map[netip.Prefix]bool{p: true}
		for _, p := range s.list {
			s.many[p] = true
		}
		s.list = nil
	}
}

func (s *prefixes) len() int { return len(s.list) + len(s.many) }

// all visits each prefix, in no order.
func (s *prefixes) all() iter.Seq[netip.Prefix] {
	if s.many != nil {
		return maps.Keys(s.many)
	}
	return slices.Values(s.list)
}
