package selector

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// SyntaxError says why a text is not a selector.
type SyntaxError struct {
	Input  string // the whole text
	Column int    // in characters, from 1
	Found  string // what stands there: quoted text, or "the end"
	Want   string // what is allowed there
	Hint   string // how to fix it; "" if no guess is good
}

// Error gives all of it in one line, safe to print.
func (e *SyntaxError) Error() string {
	s := fmt.Sprintf("selector %s: column %d: found %s, expected %s",
		strconv.Quote(cut(e.Input, 120)), e.Column, e.Found, e.Want)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func tooLong(input string, length int) error {
	return &SyntaxError{
		Input: input, Column: 1,
		Found: strconv.Itoa(length) + " bytes",
		Want:  "at most " + strconv.Itoa(MaxLength),
		Hint:  "label what is meant with one label and select that",
	}
}

func tooDeep(input string, column int) error {
	return &SyntaxError{
		Input: input, Column: column,
		Found: "parentheses nested deeper than " + strconv.Itoa(MaxDepth),
		Want:  "fewer levels",
	}
}

// wrong reports what stands at the present position.
func (p *parser) wrong(want, hint string) error {
	return &SyntaxError{Input: p.text, Column: p.column(p.pos), Found: p.found(), Want: want, Hint: hint}
}

// column counts characters, so that it points right into text with accents.
func (p *parser) column(pos int) int { return utf8.RuneCountInString(p.text[:pos]) + 1 }

// found names the word or the character that comes next.
func (p *parser) found() string {
	if p.end() {
		return "the end"
	}
	rest := p.text[p.pos:]
	if n := keyLength(rest); n > 0 {
		return strconv.Quote(cut(rest[:n], 40))
	}
	_, size := utf8.DecodeRuneInString(rest)
	return strconv.Quote(rest[:size])
}

// afterOperand reports what cannot follow a complete operand.
func (p *parser) afterOperand() error {
	want := "&&, || or the end"
	if p.depth > 0 {
		want = "&&, || or )"
	}
	hint := ""
	switch rest := p.text[p.pos:]; {
	case p.end():
		hint = "a ( is never closed"
	case rest[0] == ')':
		hint = "this ) was never opened"
	case rest[0] == '&' || hasWord(rest, "and"):
		hint = "write && for and"
	case rest[0] == '|' || rest[0] == ',' || hasWord(rest, "or"):
		hint = "write && for and, || for or"
	case rest[0] == '\n' || rest[0] == '\r':
		hint = "write the selector on one line"
	}
	return p.wrong(want, hint)
}

// noOperator reports what cannot follow a label key.
func (p *parser) noOperator(key string) error {
	hint := ""
	rest := p.text[p.pos:]
	switch {
	case strings.HasPrefix(rest, "="):
		hint = "write == to compare"
	case strings.HasPrefix(rest, "(") && (key == "has" || key == "all" || key == "global"):
		hint = "write " + key + "( without a space"
	case key == "all" || key == "global":
		hint = "write " + key + "()"
	case key == "has":
		hint = "write has(key)"
	case key == "not":
		hint = "write ! for not"
	case strings.HasPrefix(rest, "\n") || strings.HasPrefix(rest, "\r"):
		hint = "write the selector on one line"
	case len(key) <= 64:
		hint = "to ask whether the label is there, write has(" + key + ")"
	}
	return p.wrong("an operator after the label key "+strconv.Quote(cut(key, 40))+
		": ==, !=, in, not in, contains, starts with or ends with", hint)
}

// keyHint guesses why there is no label key.
func (p *parser) keyHint() string {
	if p.end() {
		return ""
	}
	switch p.text[p.pos] {
	case '"', '\'':
		return "a comparison starts with the label key, without quotes"
	case ')':
		return "there is nothing between the parentheses or after the operator"
	case '\n', '\r':
		return "write the selector on one line"
	case '&':
		return "&& stands between two operands"
	case '|':
		return "|| stands between two operands"
	}
	return ""
}

// quoteHint guesses why there is no quoted value.
func (p *parser) quoteHint() string {
	if p.end() {
		return ""
	}
	rest := p.text[p.pos:]
	if n := keyLength(rest); n > 0 {
		return `put the value in quotes: "` + cut(rest[:n], 40) + `"`
	}
	for _, q := range []string{"\u201c", "\u201d", "\u201e", "\u2018", "\u2019", "`"} {
		if strings.HasPrefix(rest, q) {
			return `use straight quotes: " or '`
		}
	}
	if rest[0] == '{' {
		return "a set of values goes with in or not in"
	}
	return ""
}

func hasWord(s, word string) bool {
	return strings.EqualFold(s[:keyLength(s)], word)
}

// cut shortens a text for a message.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}
