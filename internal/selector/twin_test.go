package selector

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The twin is a second reading of the same language, made in another way:
// regular expressions cut the text into words, the shunting-yard method
// orders them, and a stack machine answers. It knows no canonical form.

type twin []string // in reverse Polish notation

var (
	twinOperand = regexp.MustCompile(`^(?:` +
		`has\([ \t]*([A-Za-z0-9_./-]{1,512})[ \t]*\)` +
		`|(all|global)\([ \t]*\)` +
		`|([A-Za-z0-9_./-]{1,512})(?:[ \t]*(==|!=)|[ \t]+(contains|starts[ \t]*with|ends[ \t]*with)(?:$|[^A-Za-z0-9_./-]))` +
		`|([A-Za-z0-9_./-]{1,512})[ \t]+(in|not[ \t]*in)[ \t]*(\{[ \t]*(?:(?:"[^"]*"|'[^']*')[ \t]*(?:,[ \t]*(?:"[^"]*"|'[^']*')[ \t]*)*,?[ \t]*)?\})` +
		`)`)
	twinString = regexp.MustCompile(`"[^"]*"|'[^']*'`)
	twinValue  = regexp.MustCompile(`^[ \t]*("[^"]*"|'[^']*')`)
)

func twinParse(text string) (out twin, ok bool) {
	var stack []string
	operand := false // one has just been read
	pop := func(until string) {
		for len(stack) > 0 && stack[len(stack)-1] != until {
			out = append(out, stack[len(stack)-1])
			stack = stack[:len(stack)-1]
		}
	}
	apply := func() { // negations bind to what was just read
		for len(stack) > 0 && stack[len(stack)-1] == "!" {
			out, stack = append(out, "!"), stack[:len(stack)-1]
		}
		operand = true
	}
	rest := strings.Trim(text, " \t")
	if rest == "" {
		return twin{"all"}, true
	}
	for ; rest != ""; rest = strings.TrimLeft(rest, " \t") {
		switch {
		case operand && strings.HasPrefix(rest, "&&"):
			for len(stack) > 0 && stack[len(stack)-1] == "&&" {
				out, stack = append(out, "&&"), stack[:len(stack)-1]
			}
			stack, operand, rest = append(stack, "&&"), false, rest[2:]
		case operand && strings.HasPrefix(rest, "||"):
			for len(stack) > 0 && stack[len(stack)-1] != "(" {
				out, stack = append(out, stack[len(stack)-1]), stack[:len(stack)-1]
			}
			stack, operand, rest = append(stack, "||"), false, rest[2:]
		case operand && rest[0] == ')':
			pop("(")
			if len(stack) == 0 {
				return nil, false
			}
			stack, rest = stack[:len(stack)-1], rest[1:]
			apply()
		case !operand && rest[0] == '(':
			stack, rest = append(stack, "("), rest[1:]
		case !operand && rest[0] == '!':
			stack, rest = append(stack, "!"), rest[1:]
		case !operand:
			word, left, ok := twinLeaf(rest)
			if !ok {
				return nil, false
			}
			out, rest = append(out, word), left
			apply()
		default:
			return nil, false
		}
	}
	if !operand || slices.Contains(stack, "(") {
		return nil, false
	}
	pop("")
	return out, true
}

// twinLeaf reads one operand and returns it with fields parted by NUL.
func twinLeaf(rest string) (word, left string, ok bool) {
	m := twinOperand.FindStringSubmatchIndex(rest)
	if m == nil {
		return "", "", false
	}
	part := func(i int) string {
		if m[2*i] < 0 {
			return ""
		}
		return rest[m[2*i]:m[2*i+1]]
	}
	switch {
	case m[2] >= 0:
		return "has\x00" + part(1), rest[m[1]:], true
	case m[4] >= 0:
		return "all", rest[m[1]:], true
	case m[14] >= 0:
		word := strings.ReplaceAll(strings.ReplaceAll(part(7), " ", ""), "\t", "") + "\x00" + part(6)
		for _, v := range twinString.FindAllString(part(8), -1) {
			word += "\x00" + v[1:len(v)-1]
		}
		return word, rest[m[1]:], true
	}
	op, end := part(4), m[9]
	if op == "" {
		op, end = part(5), m[11]
	}
	v := twinValue.FindStringSubmatch(rest[end:])
	if v == nil {
		return "", "", false
	}
	op = strings.ReplaceAll(strings.ReplaceAll(op, " ", ""), "\t", "")
	return op + "\x00" + part(3) + "\x00" + v[1][1:len(v[1])-1], rest[end+len(v[0]):], true
}

func (t twin) matches(labels map[string]string) bool {
	var stack []bool
	for _, word := range t {
		n := len(stack)
		switch word {
		case "!":
			stack[n-1] = !stack[n-1]
			continue
		case "&&":
			stack = append(stack[:n-2], stack[n-2] && stack[n-1])
			continue
		case "||":
			stack = append(stack[:n-2], stack[n-2] || stack[n-1])
			continue
		case "all":
			stack = append(stack, true)
			continue
		}
		f := strings.Split(word, "\x00")
		value, has := labels[f[1]]
		answer := has
		switch f[0] {
		case "==":
			answer = has && value == f[2]
		case "!=":
			answer = !(has && value == f[2])
		case "contains":
			answer = has && strings.Contains(value, f[2])
		case "startswith":
			answer = has && strings.HasPrefix(value, f[2])
		case "endswith":
			answer = has && strings.HasSuffix(value, f[2])
		case "in":
			answer = has && slices.Contains(f[2:], value)
		case "notin":
			answer = !(has && slices.Contains(f[2:], value))
		}
		stack = append(stack, answer)
	}
	return stack[0]
}

// Few keys and values, so that random selectors and labels often meet. Two of
// them are words of the language.
var (
	someKeys   = []string{"a", "b", "in", "has", "a.b/c-d_E", NamespaceLabel, ServiceAccountLabel, "pcns.a", "pcsa.a"}
	someValues = []string{"", "x", "xy", "y", "it's", `"`, "ns1"}
)

func randomLabels(r *rand.Rand) map[string]string {
	m := map[string]string{}
	for _, k := range someKeys {
		if r.IntN(2) == 0 {
			m[k] = someValues[r.IntN(len(someValues))]
		}
	}
	return m
}

// randomSelector writes a valid selector, with white space and quotes as the
// language allows.
func randomSelector(r *rand.Rand, deep int) string {
	sp := func() string { return []string{"", "", " ", "\t ", "  "}[r.IntN(5)] }
	key := func() string { return someKeys[r.IntN(len(someKeys))] }
	value := func() string {
		v := someValues[r.IntN(len(someValues))]
		if strings.Contains(v, "'") || (r.IntN(2) == 0 && !strings.Contains(v, `"`)) {
			return `"` + v + `"`
		}
		return "'" + v + "'"
	}
	if deep > 0 && r.IntN(3) > 0 {
		switch r.IntN(4) {
		case 0:
			return "!" + sp() + randomSelector(r, deep-1)
		case 1:
			return "(" + sp() + randomSelector(r, deep-1) + sp() + ")"
		case 2:
			return randomSelector(r, deep-1) + sp() + "&&" + sp() + randomSelector(r, deep-1)
		default:
			return randomSelector(r, deep-1) + sp() + "||" + sp() + randomSelector(r, deep-1)
		}
	}
	switch r.IntN(6) {
	case 0:
		return "has(" + sp() + key() + sp() + ")"
	case 1:
		return []string{"all(", "global("}[r.IntN(2)] + sp() + ")"
	case 2:
		op := []string{"==", "!="}[r.IntN(2)]
		return key() + sp() + op + sp() + value()
	case 3:
		op := []string{"contains", "starts with", "startswith", "ends  with", "endswith"}[r.IntN(5)]
		return key() + " " + op + sp() + value()
	default:
		op := []string{"in", "not in", "notin"}[r.IntN(3)]
		var values []string
		for range r.IntN(4) {
			values = append(values, sp()+value()+sp())
		}
		comma := ""
		if len(values) > 0 && r.IntN(4) == 0 {
			comma = ","
		}
		return key() + " " + op + sp() + "{" + strings.Join(values, ",") + comma + sp() + "}"
	}
}

func TestAgainstTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for range 1500 {
		text := sp(r) + randomSelector(r, 5) + sp(r)
		if r.IntN(4) == 0 { // break it
			at := r.IntN(len(text))
			text = text[:at] + string(` ()!&|="'{},ax`[r.IntN(14)]) + text[at+r.IntN(2):]
		}
		checkWithTwin(t, r, text)
	}
}

func sp(r *rand.Rand) string { return []string{"", " "}[r.IntN(2)] }

// checkWithTwin holds everything that is promised of one text to the twin.
func checkWithTwin(t *testing.T, r *rand.Rand, text string) {
	t.Helper()
	slow, ok := twinParse(text)
	fast, err := Parse(text)
	if ok != (err == nil) {
		t.Fatalf("%q: the twin accepts: %v; error: %v", text, ok, err)
	}
	if !ok {
		return
	}
	canonical := fast.String()
	if fast.root != nil && fast.root.size() != len(canonical) {
		t.Fatalf("%q: %d bytes expected", canonical, fast.root.size())
	}
	again, err := Parse(canonical)
	if err != nil || again.String() != canonical || again.ID() != fast.ID() || !again.Equal(fast) {
		t.Fatalf("%q: the canonical form %q comes back as %q, %v", text, canonical, again, err)
	}
	slowAgain, ok := twinParse(canonical)
	if !ok {
		t.Fatalf("%q: the twin refuses the canonical form %q", text, canonical)
	}
	needs, keys := fast.Requires(), fast.Keys()
	for range 12 {
		labels := randomLabels(r)
		want := slow.matches(labels)
		if got := fast.Matches(Map(labels)); got != want {
			t.Fatalf("%q on %v: %v, want %v", text, labels, got, want)
		}
		if slowAgain.matches(labels) != want {
			t.Fatalf("%q means something else than its canonical form %q on %v", text, canonical, labels)
		}
		if want {
			checkRequirements(t, needs, labels, text)
			fast.EachRequirement(func(n Requirement) { checkRequirements(t, []Requirement{n}, labels, text) })
		}
		seen := Map{}
		for _, k := range keys {
			if v, ok := labels[k]; ok {
				seen[k] = v
			}
		}
		if fast.Matches(seen) != want {
			t.Fatalf("%q looks at more keys than %v", text, keys)
		}
	}
}

func checkRequirements(t *testing.T, needs []Requirement, labels map[string]string, text string) {
	t.Helper()
	for i, need := range needs {
		v, ok := labels[need.Key]
		if !ok || (!need.AnyValue && !slices.Contains(need.Values, v)) {
			t.Fatalf("%q matches %v, which does not meet %v", text, labels, need)
		}
		if i > 0 && needs[i-1].Key >= need.Key {
			t.Fatalf("%q: requirements out of order: %v", text, needs)
		}
	}
}

func FuzzParse(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		f.Add(randomSelector(r, 4))
	}
	for _, s := range []string{"", "a in {,}", "((((", "!!!!a", "has(has(a))", "a == 'x\n' ", "a not  in{'", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 || strings.Contains(text, "\x00") {
			return // the twin parts its words by NUL, and is slow
		}
		checkWithTwin(t, rand.New(rand.NewPCG(2, uint64(len(text)))), text)
	})
}

func TestRequires(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{``, `[]`},
		{`!has(a)`, `[]`},
		{`a != "x"`, `[]`},
		{`a == "x"`, `[{a false [x]}]`},
		{`!a != "x"`, `[{a false [x]}]`},
		{`a in {"y", "x"} && has(b)`, `[{a false [x y]} {b true []}]`},
		{`!a not in {"x"}`, `[{a false [x]}]`},
		{`a contains "x"`, `[{a true []}]`},
		{`!a contains "x"`, `[]`},
		{`a == "x" || a == "y"`, `[{a false [x y]}]`},
		{`a == "x" || has(a)`, `[{a true []}]`},
		{`a == "x" || b == "y"`, `[]`},
		{`a == "x" && (b == "1" || b == "2") && c != "z"`, `[{a false [x]} {b false [1 2]}]`},
		{`!(a != "x" || !has(b))`, `[{a false [x]} {b true []}]`},
		{`!(a != "x" && a != "y")`, `[{a false [x y]}]`},
		{`a in {"x", "y"} && a in {"y", "z"}`, `[{a false [y]}]`},
		{`a == "x" && a == "y"`, `[{a false []}]`},
		{`has(a) && a == "x"`, `[{a false [x]}]`},
		{`a in {}`, `[{a false []}]`},
	} {
		s, err := Parse(c.in)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(s.Requires()); got != c.want {
			t.Errorf("%s: %s, want %s", c.in, got, c.want)
		}
		var each []Requirement // joined by key they are the same
		s.EachRequirement(func(r Requirement) { each = append(each, r) })
		if got := fmt.Sprint(every([][]Requirement{each})); got != c.want {
			t.Errorf("%s: one by one %s, want %s", c.in, got, c.want)
		}
	}
}
