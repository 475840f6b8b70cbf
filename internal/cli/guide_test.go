package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/doctest"
)

// The guide of the command line is run, in its order, on a datastore in memory:
// what begins with ! fails, and nothing else does.
func TestGuide(t *testing.T) {
	const page = "docs/guides/command-line.md"
	t.Chdir("../..")
	src, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := doctest.Blocks(page, string(src))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.env["HOME"] = t.TempDir()
	if _, err := client.New(w.db, client.Config{}).Bootstrap(t.Context(), client.BootstrapConfig{}); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, b := range blocks {
		if b.NotRun != "" {
			continue
		}
		for _, command := range b.Commands {
			words := shellWords(command)
			fails := words[0] == "!"
			if fails {
				words = words[1:]
			}
			if words[0] != "brindle" {
				t.Fatalf("%s:%d: %q does not begin with brindle", page, b.Line, command)
			}
			got := w.run(words[1:]...)
			if (got.status != 0) != fails || !fails && (got.stderr != "" || got.stdout == "" && words[1] != "diff") {
				t.Errorf("%s:%d: %s: %+v", page, b.Line, command, got)
			}
			ran++
		}
	}
	if ran < 25 {
		t.Errorf("%d commands were run", ran)
	}
}

// shellWords splits a command at its spaces, but for those within single
// quotes, as a shell does.
func shellWords(s string) []string {
	var out []string
	var word strings.Builder
	quoted, begun := false, false
	for _, r := range s {
		switch {
		case r == '\'':
			quoted, begun = !quoted, true
		case r == ' ' && !quoted:
			if begun {
				out = append(out, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	return append(out, word.String())
}
