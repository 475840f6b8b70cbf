package v3

import "strings"

// plainDepth is how deep a document may nest that plainTree reads.
const plainDepth = 32

// plainTree reads YAML of the plainest kind by itself, many times faster than
// the library: blocks of keys and of dashes, lists and objects in brackets on
// one line, text and numbers without escapes, all in ASCII. Nearly every
// resource is written so. It never reads anything otherwise than the library
// does: what it is not sure of it refuses, and the library reads that.
func plainTree(data []byte) (*tree, bool) {
	for _, c := range data {
		if c != '\n' && (c < ' ' || c > '~') {
			return nil, false
		}
	}
	p := &plain{text: string(data)}
	if strings.Contains(p.text, "<<") {
		return nil, false
	}
	p.line()
	if p.end || p.dash() {
		return nil, false
	}
	t := p.block(0)
	if p.refused || !p.end {
		return nil, false
	}
	return t, true
}

// plain reads one document. It stands at a character of a line that is neither
// blank nor a comment, or at the end.
type plain struct {
	text    string
	at      int // where it stands
	begin   int // of the line
	indent  int // column of what the block here has to be aligned with
	end     bool
	refused bool
	trees   []tree // not yet used
}

// refuse gives up.
func (p *plain) refuse() *tree {
	p.refused, p.end = true, true
	return nil
}

// node makes a tree.
func (p *plain) node(s shape, scalar string) *tree {
	if len(p.trees) == 0 {
		p.trees = make([]tree, 64)
	}
	t := &p.trees[0]
	p.trees = p.trees[1:]
	t.shape, t.scalar = s, scalar
	return t
}

// line goes to the next line that says something, from a line's start.
func (p *plain) line() {
	for p.at < len(p.text) {
		p.begin = p.at
		p.spaces()
		switch {
		case p.at == len(p.text):
		case p.text[p.at] == '\n':
			p.at++
			continue
		case p.text[p.at] == '#':
			p.skip()
			continue
		default:
			p.indent = p.at - p.begin
			return
		}
	}
	p.end = true
}

// skip goes to the start of the next line.
func (p *plain) skip() {
	if i := strings.IndexByte(p.text[p.at:], '\n'); i >= 0 {
		p.at += i + 1
	} else {
		p.at = len(p.text)
	}
}

func (p *plain) spaces() {
	for p.at < len(p.text) && p.text[p.at] == ' ' {
		p.at++
	}
}

// peek is the character here, a line break at the end.
func (p *plain) peek() byte { return p.look(0) }

func (p *plain) look(ahead int) byte {
	if p.at+ahead < len(p.text) {
		return p.text[p.at+ahead]
	}
	return '\n'
}

// dash reports whether an item of a list begins here.
func (p *plain) dash() bool {
	return !p.end && p.peek() == '-' && (p.look(1) == ' ' || p.look(1) == '\n')
}

// rest goes to the next line that says something, if all that this one still
// has is a comment.
func (p *plain) rest() {
	before := p.at
	p.spaces()
	switch c := p.peek(); {
	case c == '\n':
	case c == '#' && p.at > before:
	default:
		p.refuse()
		return
	}
	p.skip()
	p.line()
}

// bare reports whether nothing but a comment follows, after a space.
func (p *plain) bare() bool {
	p.spaces()
	return p.peek() == '\n' || p.peek() == '#' && p.text[p.at-1] == ' '
}

// block reads the keys or the dashes that are aligned with what stands here.
func (p *plain) block(depth int) *tree {
	if depth > plainDepth {
		return p.refuse()
	}
	if p.dash() {
		return p.dashes(depth)
	}
	t, column := p.node(object, ""), p.indent
	for !p.end && p.indent == column {
		key, ok := p.key()
		if !ok {
			return p.refuse()
		}
		t.keys, t.items = append(t.keys, key), append(t.items, p.value(depth, column))
		if !p.end && p.indent > column {
			return p.refuse()
		}
	}
	return t
}

// value reads what belongs to a key in a block, which may be nothing.
func (p *plain) value(depth, column int) *tree {
	if !p.bare() {
		return p.inline(depth)
	}
	p.skip()
	p.line()
	switch {
	case !p.end && p.indent > column:
		return p.block(depth + 1)
	case p.dash() && p.indent == column:
		return p.dashes(depth + 1)
	}
	return p.node(null, "")
}

// dashes reads a list of which each item begins with a dash.
func (p *plain) dashes(depth int) *tree {
	t, column := p.node(list, ""), p.indent
	for p.dash() && p.indent == column {
		p.at++
		switch {
		case !p.bare():
			t.items = append(t.items, p.item(depth))
		default:
			p.skip()
			if p.line(); p.end || p.indent <= column {
				return p.refuse()
			}
			t.items = append(t.items, p.block(depth+1))
		}
		if !p.end && p.indent > column {
			return p.refuse()
		}
	}
	return t
}

// item reads what follows a dash on its line: an object whose first key is
// there, or one value.
func (p *plain) item(depth int) *tree {
	if p.dash() {
		return p.refuse()
	}
	start := p.at
	if _, ok := p.key(); ok {
		p.at, p.indent = start, start-p.begin
		return p.block(depth + 1)
	}
	p.at = start
	return p.inline(depth)
}

// key reads a key and its colon.
func (p *plain) key() (string, bool) {
	start := p.at
	for p.at < len(p.text) && keyByte(p.text[p.at]) {
		p.at++
	}
	key := p.text[start:p.at]
	if key == "" || len(key) > 256 || !letter(key[0]) || isWord(key) || p.peek() != ':' {
		return "", false
	}
	p.at++
	return key, p.peek() == ' ' || p.peek() == '\n'
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func keyByte(c byte) bool {
	return letter(c) || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '/' || c == '-'
}

// inline reads the value that a line ends with, and goes to the next line.
func (p *plain) inline(depth int) *tree {
	var t *tree
	switch p.peek() {
	case '{', '[', '"', '\'':
		t = p.flow(depth + 1)
	default:
		start := p.at
		for p.at < len(p.text) && p.text[p.at] != '\n' {
			if c := p.text[p.at]; c == ':' && (p.look(1) == ' ' || p.look(1) == '\n') {
				return p.refuse()
			} else if c == '#' && p.text[p.at-1] == ' ' {
				break
			}
			p.at++
		}
		t = p.scalar(strings.TrimRight(p.text[start:p.at], " "))
		if p.at > start && p.at < len(p.text) && p.text[p.at] == '#' {
			p.at-- // the space that a comment needs
		}
	}
	if !p.refused {
		p.rest()
	}
	return t
}

// flow reads a value as it stands in brackets.
func (p *plain) flow(depth int) *tree {
	if depth > plainDepth {
		return p.refuse()
	}
	switch c := p.peek(); c {
	case '{':
		return p.brackets(object, '}', depth)
	case '[':
		return p.brackets(list, ']', depth)
	case '"', '\'':
		start := p.at + 1
		length := strings.IndexByte(p.text[start:], c)
		if length < 0 {
			return p.refuse()
		}
		s := p.text[start : start+length]
		p.at = start + length + 1
		if strings.ContainsAny(s, "\\\n") || p.peek() == c {
			return p.refuse()
		}
		return p.node(text, s)
	}
	start := p.at
	for {
		switch c := p.peek(); c {
		case ',', '}', ']':
			return p.scalar(strings.TrimRight(p.text[start:p.at], " "))
		case '\n', '[', '{', '?', '#':
			return p.refuse()
		case ':':
			if strings.IndexByte(" \n,[]{}?", p.look(1)) >= 0 {
				return p.refuse()
			}
		}
		p.at++
	}
}

// brackets reads a list or an object in brackets, on one line.
func (p *plain) brackets(s shape, closing byte, depth int) *tree {
	t := p.node(s, "")
	p.at++
	p.spaces()
	if p.peek() == closing {
		p.at++
		return t
	}
	for !p.refused {
		if s == object {
			key, ok := p.key()
			if !ok || p.peek() != ' ' {
				return p.refuse()
			}
			t.keys = append(t.keys, key)
			p.spaces()
		}
		t.items = append(t.items, p.flow(depth+1))
		p.spaces()
		switch p.peek() {
		case closing:
			p.at++
			return t
		case ',':
			p.at++
			p.spaces()
		default:
			return p.refuse()
		}
	}
	return nil
}

// scalar says what a word without quotes is.
func (p *plain) scalar(s string) *tree {
	switch {
	case s == "":
		return p.refuse()
	case s == "true" || s == "false":
		return p.node(boolean, s)
	case isWord(s):
		return p.refuse()
	case letter(s[0]) || s[0] == '(' || s[0] == '/' || s[0] == '_':
		return p.node(text, s)
	case s[0] < '0' || s[0] > '9':
		return p.refuse()
	case digits(s) && len(s) <= 18 && (s[0] != '0' || s == "0"):
		return p.node(number, s)
	case !strings.ContainsAny(s, "-_") && (strings.ContainsAny(s, "/:") || strings.Count(s, ".") > 1):
		return p.node(text, s) // an address, a network, a range: no number, no time
	}
	return p.refuse()
}

// isWord reports whether YAML 1.1 takes a word for something else than text.
func isWord(s string) bool {
	if len(s) > 5 {
		return false
	}
	switch strings.ToLower(s) {
	case "y", "yes", "true", "on", "n", "no", "false", "off", "null":
		return true
	}
	return false
}
