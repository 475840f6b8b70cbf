package selector

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// The tables of this file are the documented conformance vectors, and more of
// their kind.

func TestCanonical(t *testing.T) {
	const everything = "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"
	for _, c := range []struct{ name, in, want, id string }{
		{"empty", "", "all()", everything},
		{"blank", " \t ", "all()", everything},
		{"all", " all() ", "all()", everything},
		{"all in parentheses", " (all() )", "all()", everything},
		{"all with a space inside", "all( \t)", "all()", everything},
		{"single quotes", "a == 'b'", `a == "b"`, "s:flMh0m0X_BowkAK_W3j3MgH8oQOsj3WxGDoXCQ"},
		{"and", `a=="b"&&has( c )`, `(a == "b" && has(c))`, "s:a7YG9G3XyFzmdwcUzkbtw0ffcKn8o5bm1xsGyQ"},
		{"set", `a in {'c','b','c'}`, `a in {"b", "c"}`, "s:SWnTWyWAHLeqA5PXVyAxVZVSk3-7hrbBcNkTsA"},
		{"negated or", `! (has( b)|| !has(a ))`, `!(has(b) || !has(a))`, "s:Iss0uCleLYv1GSv_pNm7hAO58kE9jAx1NKyG3Q"},
		{"negated and", `! (a == "b"&& !c != "d")`, `!(a == "b" && !c != "d")`, "s:lh3haoY1ikTRkd4UZu0nWSaIBknYLPJLX16d-w"},
		{"negated and, spaced", `! (a == "b"&&! c != "d")`, `!(a == "b" && !c != "d")`, "s:lh3haoY1ikTRkd4UZu0nWSaIBknYLPJLX16d-w"},
		{"startswith", `a startswith 'x'`, `a starts with "x"`, ""},
		{"ends  with", "a ends \t with'x'", `a ends with "x"`, ""},
		{"endswith", `a endswith 'x'`, `a ends with "x"`, ""},
		{"contains", `a contains"x"`, `a contains "x"`, ""},
		{"double quote inside", `a == '"'`, `a == '"'`, ""},
		{"single quote inside", `a == "it's"`, `a == "it's"`, ""},
		{"backslash is plain", `a == "\"`, `a == "\"`, ""},
		{"newline inside a value", "a == 'x\ny'", "a == \"x\ny\"", ""},
		{"notin", `a notin{"x"}`, `a not in {"x"}`, ""},
		{"empty set", `a in { }`, `a in {}`, ""},
		{"trailing comma", `a not in {"b",}`, `a not in {"b"}`, ""},
		{"empty value", `a != ""`, `a != ""`, ""},
		{"key in", `in in {"a"}`, `in in {"a"}`, ""},
		{"key not", `not not in {"a"}`, `not not in {"a"}`, ""},
		{"key has", `has == "x"`, `has == "x"`, ""},
		{"key all", `all contains "x"`, `all contains "x"`, ""},
		{"key contains", `contains contains "x"`, `contains contains "x"`, ""},
		{"key of all characters", `aZ09_./- == "x"`, `aZ09_./- == "x"`, ""},
		{"parity odd", `!!! has(a)`, `!has(a)`, ""},
		{"parity even", `! ! has(a)`, `has(a)`, ""},
		{"parity through parentheses", `!(!has(a))`, `has(a)`, ""},
		{"precedence", `has(a) || has(b) && has(c)`, `(has(a) || (has(b) && has(c)))`, ""},
		{"groups stay", `has(a) && (has(b) && has(c))`, `(has(a) && (has(b) && has(c)))`, ""},
		{"needless parentheses go", `((has(a)) && ((has(b))))`, `(has(a) && has(b))`, ""},
		{"global", `global( )`, `global()`, ""},
		{"not all", `!all()`, `!all()`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Parse(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if s.String() != c.want {
				t.Errorf("canonical form of %q: %s, want %s", c.in, s, c.want)
			}
			if c.id != "" && s.ID() != c.id {
				t.Errorf("id of %q: %s, want %s", c.in, s.ID(), c.id)
			}
			again, err := Parse(s.String())
			if err != nil || !again.Equal(s) || !reflect.DeepEqual(again, s) {
				t.Errorf("parsing %s again: %v, %v", s, again, err)
			}
		})
	}
}

func TestSyntaxErrors(t *testing.T) {
	for _, c := range []struct {
		in     string
		column int
		found  string
		words  string // in Want or Hint
	}{
		{`b == b`, 6, `"b"`, `put the value in quotes: "b"`},
		{`'x' == b`, 1, `"'"`, "label key, without quotes"},
		{`b`, 2, "the end", "has(b)"},
		{`a b`, 3, `"b"`, "operator after the label key"},
		{`!`, 2, "the end", "an operand"},
		{`a == "x" &`, 10, `"&"`, "write &&"},
		{`a == "x" |`, 10, `"|"`, "|| for or"},
		{`a != ||`, 6, `"|"`, "value in quotes"},
		{`a in ""`, 6, `"\""`, "braces"},
		{`a in {"", ||`, 11, `"|"`, "value in quotes"},
		{`a in {"x" "y"}`, 11, `"\""`, "a comma or }"},
		{`a in {,}`, 7, `","`, "value in quotes"},
		{`a in {"x"`, 10, "the end", "a comma or }"},
		{`a == "x`, 6, `"\""`, "never closed"},
		{`a == 'x"`, 6, `"'"`, "never closed"},
		{`(`, 2, "the end", "an operand"},
		{`(a == "x"`, 10, "the end", "never closed"},
		{`)`, 1, `")"`, "nothing between"},
		{`a == "x")`, 9, `")"`, "never opened"},
		{`()`, 2, `")"`, "nothing between"},
		{`%`, 1, `"%"`, "an operand"},
		{`has(a) &&`, 10, "the end", "an operand"},
		{`b contains b`, 12, `"b"`, "quotes"},
		{`a = "x"`, 3, `"="`, "write =="},
		{`a == "x" and b == "y"`, 10, `"and"`, "write && for and"},
		{`a == "x" OR b == "y"`, 10, `"OR"`, "|| for or"},
		{`not has(a)`, 5, `"has"`, "write ! for not"},
		{"a == 'x'\n&& has(b)", 9, `"\n"`, "one line"},
		{"a\n== 'x'", 2, `"\n"`, "one line"},
		{`has (a)`, 5, `"("`, "without a space"},
		{`all`, 4, "the end", "write all()"},
		{`all(x)`, 5, `"x"`, ") after all("},
		{`has()`, 5, `")"`, "a label key"},
		{`has("a")`, 5, `"\""`, "without quotes"},
		{`a inx`, 3, `"inx"`, "operator"},
		{`a in-x {"b"}`, 3, `"in-x"`, "operator"},
		{`a containsx "b"`, 3, `"containsx"`, "operator"},
		{`a == “x”`, 6, `"“"`, "straight quotes"},
		{`é == "x"`, 1, `"é"`, "an operand"},
		{`a == "é" é`, 10, `"é"`, "&&, || or the end"},
		{`a == {"x"}`, 6, `"{"`, "goes with in"},
		{`a == "x" && || b == "y"`, 13, `"|"`, "between two operands"},
		{strings.Repeat("k", MaxKey+1) + ` == "x"`, 1, `"` + strings.Repeat("k", 40) + `…"`, "at most 512"},
		{strings.Repeat(" ", MaxLength+1), 1, "65537 bytes", "at most 65536"},
		{strings.Repeat("(", MaxDepth+1), MaxDepth + 1, "parentheses nested deeper than 1000", "fewer"},
		{strings.Repeat(`a=="b"&&(has(a)||(`, 600), 9009, "parentheses nested deeper than 1000", "fewer"},
	} {
		t.Run(cut(c.in, 30), func(t *testing.T) {
			_, err := Parse(c.in)
			var e *SyntaxError
			if !errors.As(err, &e) {
				t.Fatalf("no syntax error but %v", err)
			}
			if e.Column != c.column || e.Found != c.found {
				t.Errorf("column %d, found %s; want column %d, %s", e.Column, e.Found, c.column, c.found)
			}
			if !strings.Contains(e.Want+" "+e.Hint, c.words) {
				t.Errorf("%q is not in %v", c.words, err)
			}
		})
	}
}

func TestMatches(t *testing.T) {
	type labels = Map
	for _, c := range []struct {
		in     string
		labels Labels
		want   bool
	}{
		{`a != "x"`, labels{}, true},
		{`a not in {"x"}`, labels{}, true},
		{`a in {"x"}`, labels{}, false},
		{`!a == "x"`, labels{"a": "y"}, true},
		{`!a == "x"`, labels{"a": "x"}, false},
		{`a == "1" || b == "2" && c == "3"`, labels{"a": "1"}, true},
		{`a contains ""`, labels{"a": "anything"}, true},
		{`a contains ""`, labels{}, false},
		{`global()`, labels{}, true},
		{`global()`, nil, true},
		{`!!! has(a)`, labels{"a": "x"}, false},
		{`all()`, nil, true},
		{``, nil, true},
		{`has(a)`, nil, false},
		{`has(a)`, labels{"a": ""}, true},
		{`a == ""`, labels{"a": ""}, true},
		{`a == ""`, labels{}, false},
		{`a != ""`, labels{"a": ""}, false},
		{`a starts with "x"`, labels{"a": "xy"}, true},
		{`a starts with "y"`, labels{"a": "xy"}, false},
		{`a starts with ""`, labels{}, false},
		{`a ends with "y"`, labels{"a": "xy"}, true},
		{`a ends with "x"`, labels{"a": "xy"}, false},
		{`a ends with ""`, labels{}, false},
		{`a contains "y"`, labels{"a": "xyz"}, true},
		{`a in {}`, labels{"a": ""}, false},
		{`a not in {}`, labels{"a": ""}, true},
		{`a not in {}`, labels{}, true},
		{`a not in {"b", "a"}`, labels{"a": "b"}, false},
		{`a in {"b", "a"}`, labels{"a": "b"}, true},
		{`a == "x" && b == "y"`, Layers{labels{"a": "x"}, nil, labels{"a": "z", "b": "y"}}, true},
		{`a == "z"`, Layers{labels{"a": "x"}, labels{"a": "z"}}, false},
		{`has(c)`, Layers{labels{"a": "x"}, labels{"a": "z"}}, false},
	} {
		s, err := Parse(c.in)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Matches(c.labels); got != c.want {
			t.Errorf("%s on %v: %v, want %v", c.in, c.labels, got, c.want)
		}
	}
	if !(Selector{}).Matches(nil) || !(Selector{}).MatchesAll() {
		t.Error("the zero selector does not match everything")
	}
}
