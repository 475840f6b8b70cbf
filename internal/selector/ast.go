package selector

import (
	"slices"
	"strings"
)

// node is one operation of a parsed selector. Leaves are comparable values.
type node interface {
	matches(Labels) bool
	// appendTo appends the canonical form.
	appendTo([]byte) []byte
	// depth is how deep parentheses nest in the canonical form.
	depth() int
}

type (
	all    struct{}
	global struct{} // as a predicate always true; composition gives it meaning
	has    string

	// compare is a comparison with one value.
	compare struct {
		key, value string
		op         operator
	}

	// member is "in" or, negated, "not in". The values are sorted, each once.
	member struct {
		key    string
		values []string
		not    bool
	}

	// not never holds another not.
	not struct{ of node }

	// group is "&&" or "||" over two or more operands.
	group struct {
		or bool
		of []node
	}
)

type operator string

const (
	equal      operator = "=="
	notEqual   operator = "!="
	contains   operator = "contains"
	startsWith operator = "starts with"
	endsWith   operator = "ends with"
)

// negate returns the opposite of n. Two negations cancel, so that the
// canonical form has at most one in a row.
func negate(n node) node {
	if n, ok := n.(not); ok {
		return n.of
	}
	return not{n}
}

// and joins operands, leaving out those that are nil.
func and(of ...node) node { return join(false, of) }

func join(or bool, of []node) node {
	of = slices.DeleteFunc(of, func(n node) bool { return n == nil })
	switch len(of) {
	case 0:
		return nil
	case 1:
		return of[0]
	}
	return group{or: or, of: of}
}

func newMember(key string, values []string, not bool) member {
	return member{key: key, values: sortedSet(values), not: not}
}

func (all) matches(Labels) bool    { return true }
func (global) matches(Labels) bool { return true }

func (n has) matches(l Labels) bool {
	_, ok := l.Get(string(n))
	return ok
}

func (n compare) matches(l Labels) bool {
	v, ok := l.Get(n.key)
	switch n.op {
	case notEqual:
		return !ok || v != n.value
	case contains:
		return ok && strings.Contains(v, n.value)
	case startsWith:
		return ok && strings.HasPrefix(v, n.value)
	case endsWith:
		return ok && strings.HasSuffix(v, n.value)
	default:
		return ok && v == n.value
	}
}

func (n member) matches(l Labels) bool {
	v, ok := l.Get(n.key)
	if !ok {
		return n.not
	}
	_, found := slices.BinarySearch(n.values, v)
	return found != n.not
}

func (n not) matches(l Labels) bool { return !n.of.matches(l) }

func (n group) matches(l Labels) bool {
	for _, o := range n.of {
		if o.matches(l) == n.or {
			return n.or
		}
	}
	return !n.or
}

func (all) appendTo(b []byte) []byte    { return append(b, "all()"...) }
func (global) appendTo(b []byte) []byte { return append(b, "global()"...) }

func (n has) appendTo(b []byte) []byte {
	return append(append(append(b, "has("...), n...), ')')
}

func (n compare) appendTo(b []byte) []byte {
	b = append(append(b, n.key...), ' ')
	b = append(append(b, n.op...), ' ')
	return appendQuoted(b, n.value)
}

func (n member) appendTo(b []byte) []byte {
	b = append(b, n.key...)
	if n.not {
		b = append(b, " not"...)
	}
	b = append(b, " in {"...)
	for i, v := range n.values {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = appendQuoted(b, v)
	}
	return append(b, '}')
}

func (n not) appendTo(b []byte) []byte { return n.of.appendTo(append(b, '!')) }

func (n group) appendTo(b []byte) []byte {
	op := " && "
	if n.or {
		op = " || "
	}
	b = append(b, '(')
	for i, o := range n.of {
		if i > 0 {
			b = append(b, op...)
		}
		b = o.appendTo(b)
	}
	return append(b, ')')
}

// appendQuoted appends a string literal. A value never holds both kinds of
// quote: the parser cannot produce one and composition refuses it.
func appendQuoted(b []byte, v string) []byte {
	quote := byte('"')
	if strings.Contains(v, `"`) {
		quote = '\''
	}
	return append(append(append(b, quote), v...), quote)
}

func (all) depth() int     { return 0 }
func (global) depth() int  { return 0 }
func (has) depth() int     { return 0 }
func (compare) depth() int { return 0 }
func (member) depth() int  { return 0 }
func (n not) depth() int   { return n.of.depth() }

func (n group) depth() int {
	deepest := 0
	for _, o := range n.of {
		deepest = max(deepest, o.depth())
	}
	return deepest + 1
}

// walk calls visit for n and everything below it.
func walk(n node, visit func(node)) {
	if n == nil {
		return
	}
	switch n := n.(type) {
	case not:
		walk(n.of, visit)
		return
	case group:
		for _, o := range n.of {
			walk(o, visit)
		}
		return
	}
	visit(n)
}

// rewrite returns n with each leaf replaced by what change returns for it.
func rewrite(n node, change func(node) node) node {
	switch n := n.(type) {
	case nil:
		return nil
	case not:
		return negate(rewrite(n.of, change))
	case group:
		of := make([]node, len(n.of))
		for i, o := range n.of {
			of[i] = rewrite(o, change)
		}
		return group{or: n.or, of: of}
	default:
		return change(n)
	}
}

func sortedSet(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}
