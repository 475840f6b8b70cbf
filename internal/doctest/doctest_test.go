package doctest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const page = "# Page\n" +
	"<!-- test: test/docs/docs_test.go -->\n" +
	"```sh\n" +
	"sudo bin/brindle lab up\n" +
	"# a comment\n" +
	"brindle get nodes \\\n  -o wide\n" +
	"```\n\n" +
	"```text\n```sh is not a fence here\n```\n" +
	"<!-- not run: it needs a second machine -->\n\n" +
	"```sh\nssh other\n```\n"

func TestBlocks(t *testing.T) {
	got, err := Blocks("page.md", page)
	if err != nil {
		t.Fatal(err)
	}
	want := []Block{
		{File: "page.md", Line: 3, Test: "test/docs/docs_test.go",
			Commands: []string{"sudo bin/brindle lab up", "brindle get nodes -o wide"}},
		{File: "page.md", Line: 15, NotRun: "it needs a second machine", Commands: []string{"ssh other"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got, want := got[0].Script(), "sudo bin/brindle lab up\nbrindle get nodes -o wide\n"; got != want {
		t.Errorf("script: got %q, want %q", got, want)
	}
}

func TestBlocksRefuse(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"no mark", "text\n```sh\nls\n```\n", "page.md:2: a shell block without"},
		{"mark of another kind", "<!-- see: x -->\n```sh\nls\n```\n", `"see" says neither`},
		{"empty reason", "<!-- not run: -->\n```sh\nls\n```\n", "without a line"},
		{"never closed", "<!-- test: x -->\n```sh\nls\n", "never closed"},
	} {
		if _, err := Blocks("page.md", c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestCovers(t *testing.T) {
	const story = "# a story\nexec brindle lab up flat\n! exec brindle get nodess\nexec brindle label nodes h1 'a=b c'\n"
	for _, c := range []struct {
		name, in string
		want     bool
	}{
		{"as it stands", "brindle lab up flat", true},
		{"with sudo and folder", "sudo bin/brindle lab up flat   # three hosts", true},
		{"expected to fail", "brindle get nodess", true},
		{"quotes", `brindle label nodes h1 "a=b c"`, true},
		{"other arguments", "brindle lab up", false},
		{"prefix of a name", "sudo -E bin/brindle lab up flats", false},
	} {
		if got := Covers(story, c.in); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
