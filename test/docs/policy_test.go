package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFilesOfPages holds the YAML that a page shows to the file that its
// commands use: a block under a line <!-- file: PATH --> is that file, whole.
func TestFilesOfPages(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs/guides/policy.md"))
	if err != nil {
		t.Fatal(err)
	}
	const mark = "<!-- file: "
	shown := 0
	for i, part := range strings.Split(string(page), mark) {
		if i == 0 {
			continue
		}
		name, rest, _ := strings.Cut(part, " -->\n```yaml\n")
		got, _, ok := strings.Cut(rest, "```\n")
		if !ok {
			t.Errorf("%s: no block of YAML follows", name)
			continue
		}
		want, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || got != string(want) {
			t.Errorf("%s: the page shows something else than the file (%v)", name, err)
		}
		shown++
	}
	files, err := filepath.Glob(filepath.Join(root, "docs/guides/policy/*.yaml"))
	if err != nil || shown != len(files)-1 { // of the tests it shows a part
		t.Errorf("%d files are shown, and there are %d: %v", shown, len(files), err)
	}
}
