package cli

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
)

// hostile is a text with what a terminal would obey: a change of the title, a
// C1 control, a byte that is no UTF-8, text from right to left, a tag, a line
// of its own.
const hostile = "a\x1b]0;x\x07\u009b2J\x9b2J\u202e\U000e0041\u2028\nbrindle: all is well\r\b\x00\x7f"

// steers returns the first rune in a text that a terminal would obey.
func steers(s string) (rune, bool) {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return r, true
			}
		}
		if r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return r, true
		}
	}
	return 0, false
}

func FuzzClean(f *testing.F) {
	f.Add(hostile)
	f.Add("plain ✓ text\n\twith lines")
	f.Add("\xff\xfe�")
	f.Fuzz(func(t *testing.T, s string) {
		for _, out := range []string{clean(s), word(s)} {
			if r, bad := steers(out); bad {
				t.Errorf("%q came out with %q in it: %q", s, r, out)
			}
		}
		if strings.ContainsAny(word(s), "\n\t") {
			t.Errorf("%q is not on one line", s)
		}
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var want, got string
		if err := errors.Join(json.Unmarshal(data, &want), json.Unmarshal(escapeJSON(data), &got)); err != nil || got != want {
			t.Errorf("%q reads back as %q: %v", want, got, err)
		}
		if r, bad := steers(string(escapeJSON(data))); bad {
			t.Errorf("%q came out with %q in it", s, r)
		}
	})
}

// Whatever somebody has stored, nothing that steers a terminal is printed: not
// in tables, documents or messages.
func TestHostileDatastore(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	put := func(key string, v any) {
		value, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.db.Create(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range v3.Kinds() {
		meta := map[string]any{"name": hostile, "labels": map[string]string{hostile: hostile}}
		id := store.ResourceID{Plural: kind.Plural, Name: hostile}
		if kind.Namespaced {
			id.Namespace, meta["namespace"] = hostile, hostile
		}
		spec := map[string]any{
			"node": hostile, "cidr": hostile, "nodeSelector": hostile, "tier": hostile, "selector": hostile, "peerIP": hostile,
			"nets": []string{hostile}, "ipNetworks": []string{hostile}, "interfaceName": hostile, "profiles": []string{hostile},
			"labelsToApply": map[string]string{hostile: hostile}, "clusterGUID": hostile, "clusterType": hostile, "logSeverityScreen": hostile,
		}
		put(id.Key(), map[string]any{"kind": kind.Kind, "apiVersion": v3.Group, "metadata": meta, "spec": spec})
		id.Name = "broken" + hostile
		put(id.Key(), map[string]any{"kind": kind.Kind, "spec": hostile})
	}
	put(store.HandleKey(hostile), map[string]any{"handleID": hostile, "block": map[string]int{}})
	put(store.HandleKey("broken"+hostile), hostile)

	var lines [][]string
	for _, kind := range v3.Kinds() {
		for _, format := range []string{"", "wide", "yaml", "json", "name", `go-template={{range .}}{{range .Items}}{{.}}{{end}}{{end}}`} {
			args := []string{"get", kind.Plural, "-o", format}
			if kind.Namespaced {
				args = append(args, "-A")
			}
			lines = append(lines, args)
		}
		lines = append(lines, []string{"get", kind.Plural, hostile, "-n", hostile}, []string{"delete", kind.Plural, hostile, "-n", hostile},
			[]string{"patch", kind.Plural, hostile, "-n", hostile, "-p", "{}"}, []string{"label", kind.Plural, hostile, "-n", hostile, "a=b"})
	}
	file := w.file("f.yaml", "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec: {cidr: 10.0.0.0/16}\n")
	odd := filepath.Join(t.TempDir(), "odd\x1b[2J.yaml")
	if err := os.WriteFile(odd, []byte("kind: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	lines = append(lines, line("ipam show"), line("ipam show --show-blocks"), line("ipam show --show-borrowed"), line("ipam audit"), line("ipam audit -o json"),
		line("ipam check --show-all-ips"), line("version"), []string{hostile}, []string{"get", hostile}, []string{"get", "--" + hostile}, []string{"get", "nodes", "-o", hostile},
		[]string{"get", "nodes", "-l", hostile}, []string{"ipam", hostile}, []string{"ipam", "show", "--ip", hostile}, []string{"apply", "-f", hostile},
		[]string{"apply", "-f", file}, []string{"apply", "-f", odd}, []string{"get", "nodes", "-n", hostile}, []string{"node", "status", "--socket", hostile})
	for _, args := range lines {
		got := w.run(args...)
		for _, out := range []string{got.stdout, got.stderr} {
			if r, bad := steers(out); bad {
				t.Errorf("%q prints %U:\n%q", args, r, out)
			}
		}
		if strings.Contains(got.stderr, "\nbrindle: all is well") {
			t.Errorf("%q: a stored text pretends to be a message:\n%s", args, got.stderr)
		}
	}
}

// Colour is for terminals only, and for those who want it.
func TestColour(t *testing.T) {
	for _, c := range []struct {
		name     string
		terminal bool
		noColour string
		want     string
	}{
		{"a file", false, "", "x"}, {"a terminal", true, "", "\x1b[1mx\x1b[0m"}, {"a terminal without", true, "1", "x"},
	} {
		e := &Env{Terminal: c.terminal, Getenv: func(string) string { return c.noColour }}
		if got := heading(e, "x"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	w := newWorld(t)
	w.loadRecording()
	w.terminal = true
	for _, args := range []string{"get nodes -o wide", "ipam show", "--help", "kinds"} {
		if strings.Contains(w.ok(line(args)...), "\x1b") {
			t.Errorf("%s prints an escape", args)
		}
	}
}
