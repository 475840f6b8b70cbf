package selector

import (
	"slices"
	"strings"
)

// Requirement is one thing that the labels of everything selected have in
// common: the label Key is there and, unless AnyValue, its value is one of
// Values. An empty Values without AnyValue can be met by nothing.
type Requirement struct {
	Key      string
	AnyValue bool
	Values   []string // sorted, each once; nil when AnyValue
}

// Requires returns what labels must have to match, sorted by key, each key
// once: a match meets every one of them. It is for indexes, and conservative:
// what meets them may still not match, and a selector may have none.
func (s Selector) Requires() []Requirement {
	return requires(s.root, false)
}

// EachRequirement visits requirements as Requires has them, without joining
// those of one key: what matches meets every one of them.
func (s Selector) EachRequirement(visit func(Requirement)) { eachRequirement(s.root, visit) }

func eachRequirement(n node, visit func(Requirement)) {
	switch n := n.(type) {
	case group:
		if !n.or {
			for _, o := range n.of {
				eachRequirement(o, visit)
			}
			return
		}
	case *compare:
		if n.op == equal {
			visit(Requirement{Key: n.key, Values: n.value[:]})
			return
		}
	case has:
		visit(Requirement{Key: string(n), AnyValue: true})
		return
	}
	for _, r := range requires(n, false) {
		visit(r)
	}
}

// requires works out the requirements of n, or of its opposite.
func requires(n node, negated bool) []Requirement {
	switch n := n.(type) {
	case not:
		return requires(n.of, !negated)
	case has:
		if !negated {
			return []Requirement{{Key: string(n), AnyValue: true}}
		}
	case *compare:
		switch {
		case n.op == equal && !negated, n.op == notEqual && negated:
			return []Requirement{{Key: n.key, Values: n.value[:]}}
		case n.op != equal && n.op != notEqual && !negated:
			return []Requirement{{Key: n.key, AnyValue: true}}
		}
	case member:
		if n.not == negated {
			return []Requirement{{Key: n.key, Values: n.values}}
		}
	case group:
		parts := make([][]Requirement, len(n.of))
		for i, o := range n.of {
			parts[i] = requires(o, negated)
		}
		if n.or == negated { // by De Morgan a negated "or" is an "and"
			return every(parts)
		}
		return some(parts)
	}
	return nil
}

// every joins the requirements of operands that must all match.
func every(parts [][]Requirement) []Requirement {
	byKey := map[string]Requirement{}
	for _, part := range parts {
		for _, r := range part {
			if have, ok := byKey[r.Key]; ok {
				r = have.intersect(r)
			}
			byKey[r.Key] = r
		}
	}
	return sortedByKey(byKey)
}

// some keeps the requirements that each of several alternatives has.
func some(parts [][]Requirement) []Requirement {
	byKey, count := map[string]Requirement{}, map[string]int{}
	for _, part := range parts {
		for _, r := range part {
			if have, ok := byKey[r.Key]; ok {
				r = have.union(r)
			}
			byKey[r.Key] = r
			count[r.Key]++
		}
	}
	for key, n := range count {
		if n < len(parts) {
			delete(byKey, key)
		}
	}
	return sortedByKey(byKey)
}

func (r Requirement) intersect(o Requirement) Requirement {
	switch {
	case r.AnyValue:
		return o
	case o.AnyValue:
		return r
	}
	r.Values = slices.DeleteFunc(slices.Clone(r.Values), func(v string) bool {
		_, found := slices.BinarySearch(o.Values, v)
		return !found
	})
	return r
}

func (r Requirement) union(o Requirement) Requirement {
	if r.AnyValue || o.AnyValue {
		return Requirement{Key: r.Key, AnyValue: true}
	}
	r.Values = sortedSet(slices.Concat(r.Values, o.Values))
	return r
}

func sortedByKey(m map[string]Requirement) []Requirement {
	if len(m) == 0 {
		return nil
	}
	out := make([]Requirement, 0, len(m))
	for _, r := range m {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Requirement) int { return strings.Compare(a.Key, b.Key) })
	return out
}
