package selector

import (
	"strings"
)

// parser reads a selector from left to right, one operand at a time.
type parser struct {
	text  string
	pos   int
	depth int // of parentheses open at pos
}

// parse returns nil for a blank text.
func parse(text string) (node, error) {
	if len(text) > MaxLength {
		return nil, tooLong(text, len(text))
	}
	p := &parser{text: text}
	p.space()
	if p.end() {
		return nil, nil
	}
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	if !p.end() {
		return nil, p.afterOperand()
	}
	return n, nil
}

func (p *parser) or() (node, error) { return p.list(true, "||") }

// list reads one or more operands with op between them.
func (p *parser) list(or bool, op string) (node, error) {
	first, err := p.next(or)
	p.space()
	if err != nil || !p.take(op) {
		return first, err
	}
	of := []node{first}
	for {
		n, err := p.next(or)
		if err != nil {
			return nil, err
		}
		of = append(of, n)
		p.space()
		if !p.take(op) {
			return join(or, of), nil
		}
	}
}

// next reads an operand of "||" or of "&&".
func (p *parser) next(or bool) (node, error) {
	if or {
		return p.list(false, "&&")
	}
	return p.operand()
}

// operand reads any number of "!" and what they negate.
func (p *parser) operand() (node, error) {
	negated := false
	for p.space(); p.take("!"); p.space() {
		negated = !negated
	}
	n, err := p.positive()
	if err == nil && negated {
		n = negate(n)
	}
	return n, err
}

func (p *parser) positive() (node, error) {
	switch {
	case p.take("("):
		return p.parentheses()
	case p.take("has("):
		return p.hasKey()
	case p.take("all("):
		return all{}, p.closing("all")
	case p.take("global("):
		return global{}, p.closing("global")
	}
	key, err := p.key("an operand: a label key, has(key), all(), global(), ! or (")
	if err != nil {
		return nil, err
	}
	return p.comparison(key)
}

func (p *parser) parentheses() (node, error) {
	start := p.pos - 1
	p.depth++
	if p.depth > MaxDepth {
		return nil, tooDeep(p.text, p.column(start))
	}
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	if !p.take(")") {
		return nil, p.afterOperand()
	}
	p.depth--
	return n, nil
}

func (p *parser) hasKey() (node, error) {
	p.space()
	key, err := p.key("a label key")
	if err != nil {
		return nil, err
	}
	return has(key), p.closing("has")
}

func (p *parser) closing(function string) error {
	p.space()
	if p.take(")") {
		return nil
	}
	return p.wrong(") after "+function+"(", "")
}

// comparison reads the operator and value that follow a label key.
func (p *parser) comparison(key string) (node, error) {
	p.space()
	if op, ok := p.operator(); ok {
		p.space()
		v, err := p.str(op)
		return &compare{key: key, op: op, value: [1]string{v}}, err
	}
	switch {
	case p.word("in"):
		values, err := p.set()
		return newMember(key, values, false), err
	case p.word("not", "in"):
		values, err := p.set()
		return newMember(key, values, true), err
	}
	return nil, p.noOperator(key)
}

func (p *parser) operator() (operator, bool) {
	switch {
	case p.take("=="):
		return equal, true
	case p.take("!="):
		return notEqual, true
	case p.word("contains"):
		return contains, true
	case p.word("starts", "with"):
		return startsWith, true
	case p.word("ends", "with"):
		return endsWith, true
	}
	return "", false
}

func (p *parser) set() ([]string, error) {
	p.space()
	if !p.take("{") {
		return nil, p.wrong("{", `write the values in braces: {"a", "b"}`)
	}
	values := []string{}
	for {
		p.space()
		if p.take("}") {
			return values, nil
		}
		v, err := p.str("in {")
		if err != nil {
			return nil, err
		}
		values = append(values, v)
		p.space()
		if p.take("}") {
			return values, nil
		}
		if !p.take(",") {
			return nil, p.wrong("a comma or }", "")
		}
	}
}

// str reads a string literal. after is what stands before it.
func (p *parser) str(after operator) (string, error) {
	if p.end() || (p.text[p.pos] != '"' && p.text[p.pos] != '\'') {
		return "", p.wrong("a value in quotes after "+string(after), p.quoteHint())
	}
	quote := p.text[p.pos]
	length := strings.IndexByte(p.text[p.pos+1:], quote)
	if length < 0 {
		return "", p.wrong("a value in quotes after "+string(after), "the quote is never closed: add "+string(quote)+" at the end of the value")
	}
	v := p.text[p.pos+1 : p.pos+1+length]
	p.pos += length + 2
	return v, nil
}

// key reads a label key.
func (p *parser) key(want string) (string, error) {
	length := keyLength(p.text[p.pos:])
	if length == 0 {
		return "", p.wrong(want, p.keyHint())
	}
	if length > MaxKey {
		return "", p.wrong("a label key of at most 512 bytes", "")
	}
	key := p.text[p.pos : p.pos+length]
	p.pos += length
	return key, nil
}

func keyLength(s string) int {
	for i := range len(s) {
		if !isKeyByte(s[i]) {
			return i
		}
	}
	return len(s)
}

func isKeyByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '_' || c == '.' || c == '/' || c == '-'
}

// space skips spaces and tabs; nothing else is white space.
func (p *parser) space() {
	for !p.end() && (p.text[p.pos] == ' ' || p.text[p.pos] == '\t') {
		p.pos++
	}
}

func (p *parser) end() bool { return p.pos >= len(p.text) }

// take skips exactly s, if it comes next.
func (p *parser) take(s string) bool {
	if !strings.HasPrefix(p.text[p.pos:], s) {
		return false
	}
	p.pos += len(s)
	return true
}

// word skips a keyword of one or more parts, with or without white space
// between them, if it comes next and ends there.
func (p *parser) word(parts ...string) bool {
	start := p.pos
	for _, part := range parts {
		p.space()
		if !p.take(part) {
			p.pos = start
			return false
		}
	}
	if !p.end() && isKeyByte(p.text[p.pos]) {
		p.pos = start
		return false
	}
	return true
}
