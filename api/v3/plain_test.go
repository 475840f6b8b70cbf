package v3

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// likeTheLibrary reads a document both ways and reports whether the plain way
// took it.
func likeTheLibrary(t testing.TB, data string) bool {
	t.Helper()
	got, ok := plainTree([]byte(data))
	if !ok {
		return false
	}
	value, written, err := libraryTree([]byte(data))
	if err != nil {
		t.Fatalf("the library refuses what was taken: %v\n%q", err, data)
	}
	if !reflect.DeepEqual(got, value) || !reflect.DeepEqual(got, written) {
		t.Fatalf("read otherwise than by the library\n%q\n got %s\nwant %s", data, shown(got), shown(value))
	}
	return true
}

// shown writes a tree for a message.
func shown(t *tree) string {
	switch t.shape {
	case object:
		var parts []string
		for i, k := range t.keys {
			parts = append(parts, k+": "+shown(t.items[i]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case list:
		var parts []string
		for _, x := range t.items {
			parts = append(parts, shown(x))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return t.shape.noun() + " " + string(t.json())
}

func TestPlainTree(t *testing.T) {
	for _, c := range []struct {
		name, in string
		plain    bool
	}{
		{"a resource", "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p, namespace: ns}\nspec:\n  selector: tier == \"t\"\n  order: 10\n  ingress:\n  - {action: Allow, protocol: TCP, source: {selector: app == \"a\"}, destination: {ports: [80, \"90:91\"]}}\n", true},
		{"dashes deeper", "a:\n  - b: c\n    d:\n      - e\n      -\n        f: 1\n  - g\n", true},
		{"comments and blanks", "# one\na: b # two\n\n   # three\nc: # four\n  d: 'e # f'   # five\n", true},
		{"empty", "a:\nb: {}\nc: []\nd: {e: [], f: {}}\n", true},
		{"addresses", "a: [10.0.0.0/8, fd00::/64, 192.0.2.1, \"::/0\"]\nb: fd00::1\nc: 2001:db8::1\n", true},
		{"twice", "a: 1\na: 2\n", true},
		{"words", "a: true\nb: false\nc: truely\nd: no-one\ne: yes/no\n", true},
		{"yes", "a: yes\n", false},
		{"a key that is a word", "on: a\n", false},
		{"null", "a: null\n", false},
		{"float", "a: 1.5\n", false},
		{"exponent", "a: 1e3\n", false},
		{"octal", "a: 010\n", false},
		{"underscores", "a: 1_000\n", false},
		{"date", "a: 2001-01-01\n", false},
		{"negative", "a: -1\n", false},
		{"escape", "a: \"b\\n\"\n", false},
		{"quote in quotes", "a: 'b''c'\n", false},
		{"anchor", "a: &b c\nd: *b\n", false},
		{"tag", "a: !!str 1\n", false},
		{"block text", "a: |\n  b\n", false},
		{"more lines", "a: b\n  c\n", false},
		{"more lines of brackets", "a: [b,\n  c]\n", false},
		{"merge", "a: {<<: {b: c}}\n", false},
		{"tab", "a:\tb\n", false},
		{"no ASCII", "a: ä\n", false},
		{"carriage return", "a: b\r\n", false},
		{"colon in text", "a: b: c\n", false},
		{"list at the top", "- a: b\n", false},
		{"nothing", "# nothing\n", false},
		{"key in quotes", "\"a\": b\n", false},
		{"long lines", "a: {" + strings.Repeat("bcdefghij: klmnop, ", 200) + "z: v}\nb:\n- {" + strings.Repeat("bcdefghij: klmnop, ", 200) + "z: v}\n- " +
			strings.Repeat("word ", 500) + "\n- \"" + strings.Repeat("word ", 500) + "\"\n- [" + strings.Repeat("word, ", 500) + "end]\n", true},
		{"a long key", strings.Repeat("k", 300) + ": a\n", false},
		{"too deep", "a: " + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := likeTheLibrary(t, c.in); got != c.plain {
				t.Errorf("read plainly: %v", got)
			}
		})
	}
}

// TestPlainTreeOfTheFilesHere reads every YAML file of the project both ways.
func TestPlainTreeOfTheFilesHere(t *testing.T) {
	read, plain := 0, 0
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		data, err := os.ReadFile(path)
		for _, c := range splitYAML(data) {
			read++
			if likeTheLibrary(t, string(c.data)) {
				plain++
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if plain*2 < read {
		t.Errorf("only %d of %d documents are plain", plain, read)
	}
}

// randomYAML writes something that is nearly YAML.
func randomYAML(r *rand.Rand) string {
	words := []string{
		"a", "b", "app", "y", "no", "true", "False", "null", "~", "1", "0", "007", "80", "1.5", "1e5", ".5", "-1", "+1", "0x1f", "0b1", "0o7",
		"8000:8010", "10.0.0.0/8", "192.0.2.1", "1.2.3", "fd00::1", "::1", "2001-01-01", "2001-1-1 1:1:1", "12:30", "1_0", "1:2_3",
		`app == "x"`, `"q"`, `'s'`, `"q # r"`, `'it''s'`, `"a\tb"`, `has(x)`, "(a)", "/x", "_y", "a#b", "a # c", "a: b", "a:b", "a:", "http://x/y",
		"{a: b}", "{a: [b, c]}", "[a, 1]", "[]", "{}", "[a,]", "{a}", "[a: b]", "{a: }", "[[a], {b: c}]", "{ a : b }", "{a:b}", "[a b, c]", "[a?, b]",
		"&x", "*x", "!t", "|", ">", "@", "%a", "`", "?", "? a", "- a", "-", "--", "a-", "a -", ",", "a, b", "<<", "=", "<", "é", "\t", "x\ty", "\"\"", "''",
	}
	var b strings.Builder
	indent := 0
	for range 1 + r.IntN(7) {
		switch r.IntN(8) {
		case 0:
			indent += 1 + r.IntN(3)
		case 1, 2:
			indent = max(0, indent-1-r.IntN(3))
		}
		b.WriteString(strings.Repeat(" ", indent))
		if r.IntN(3) == 0 {
			b.WriteString([]string{"- ", "-  ", "-", "- - "}[max(0, r.IntN(8)-4)])
		}
		word := func() string { return words[r.IntN(len(words))] }
		switch r.IntN(6) {
		case 0:
			b.WriteString(word())
		case 1:
			b.WriteString([]string{"a", "b", "c.d/e"}[r.IntN(3)] + ":")
			indent += 2 * r.IntN(2)
		case 2:
			b.WriteString(word() + ": " + word())
		default:
			b.WriteString([]string{"a", "b", "c", "f-g"}[r.IntN(4)] + ": " + word())
		}
		b.WriteString([]string{"\n", "\n", "\n", "\n", " \n", " # c\n", "#\n", "\n\n", "\n  # d\n", ""}[r.IntN(10)])
	}
	return b.String()
}

func TestPlainTreeAgreesWithTheLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const n = 150_000
	plain := 0
	for range n {
		if likeTheLibrary(t, randomYAML(r)) {
			plain++
		}
	}
	if plain < n/50 {
		t.Errorf("only %d of %d were read plainly", plain, n)
	}
}

func FuzzPlainTree(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		f.Add(randomYAML(r))
	}
	f.Add("kind: a\nspec:\n  b:\n  - {c: d, e: [1, \"f\"]}\n  - g: h # i\n    j: 'k'\n")
	f.Fuzz(func(t *testing.T, data string) { likeTheLibrary(t, data) })
}
