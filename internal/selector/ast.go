package selector

import (
	"slices"
	"strings"
)

// node is one operation of a parsed selector. It never changes.
type node interface {
	matches(Labels) bool
	// size is how many bytes the canonical form has.
	size() int
	// depth is how deep parentheses nest in the canonical form.
	depth() int
}

type (
	all    struct{}
	global struct{} // as a predicate always true; composition gives it meaning
	has    string

	// compare is a comparison with one value, which is an array so that it can
	// be had as a list too.
	compare struct {
		key   string
		op    operator
		value [1]string
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

func (n *compare) matches(l Labels) bool {
	v, ok := l.Get(n.key)
	switch n.op {
	case notEqual:
		return !ok || v != n.value[0]
	case contains:
		return ok && strings.Contains(v, n.value[0])
	case startsWith:
		return ok && strings.HasPrefix(v, n.value[0])
	case endsWith:
		return ok && strings.HasSuffix(v, n.value[0])
	default:
		return ok && v == n.value[0]
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

// write writes the canonical form of n. It is no method, so that the builder
// need not be on the heap.
func write(b *strings.Builder, n node) {
	switch n := n.(type) {
	case all:
		b.WriteString("all()")
	case global:
		b.WriteString("global()")
	case has:
		b.WriteString("has(")
		b.WriteString(string(n))
		b.WriteByte(')')
	case *compare:
		b.WriteString(n.key)
		b.WriteByte(' ')
		b.WriteString(string(n.op))
		b.WriteByte(' ')
		quote(b, n.value[0])
	case member:
		b.WriteString(n.key)
		if n.not {
			b.WriteString(" not")
		}
		b.WriteString(" in {")
		for i, v := range n.values {
			if i > 0 {
				b.WriteString(", ")
			}
			quote(b, v)
		}
		b.WriteByte('}')
	case not:
		b.WriteByte('!')
		write(b, n.of)
	case group:
		op := " && "
		if n.or {
			op = " || "
		}
		b.WriteByte('(')
		for i, o := range n.of {
			if i > 0 {
				b.WriteString(op)
			}
			write(b, o)
		}
		b.WriteByte(')')
	}
}

// quote writes a string literal. A value never holds both kinds of quote: the
// parser cannot produce one and composition refuses it.
func quote(b *strings.Builder, v string) {
	quote := byte('"')
	if strings.Contains(v, `"`) {
		quote = '\''
	}
	b.WriteByte(quote)
	b.WriteString(v)
	b.WriteByte(quote)
}

func (all) size() int        { return len("all()") }
func (global) size() int     { return len("global()") }
func (n has) size() int      { return len("has()") + len(n) }
func (n *compare) size() int { return len(n.key) + len(n.op) + len(n.value[0]) + len(`  ""`) }
func (n not) size() int      { return 1 + n.of.size() }

func (n member) size() int {
	sum := len(n.key) + len(" in {}")
	if n.not {
		sum += len(" not")
	}
	for i, v := range n.values {
		sum += len(v) + len(`""`)
		if i > 0 {
			sum += len(", ")
		}
	}
	return sum
}

func (n group) size() int {
	sum := len("()") + len(" && ")*(len(n.of)-1)
	for _, o := range n.of {
		sum += o.size()
	}
	return sum
}

func (all) depth() int      { return 0 }
func (global) depth() int   { return 0 }
func (has) depth() int      { return 0 }
func (*compare) depth() int { return 0 }
func (member) depth() int   { return 0 }
func (n not) depth() int    { return n.of.depth() }

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
