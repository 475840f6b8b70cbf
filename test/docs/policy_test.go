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
	for _, c := range []struct {
		page   string
		hidden int // files of which it shows a part, or nothing
	}{{"policy", 1}, {"command-line", 0}} { // policy: of the tests it shows a part
		page := filepath.Join(root, "docs/guides", c.page)
		text, err := os.ReadFile(page + ".md")
		if err != nil {
			t.Fatal(err)
		}
		const mark = "<!-- file: "
		shown := 0
		for i, part := range strings.Split(string(text), mark) {
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
		files, err := filepath.Glob(page + "/*.yaml")
		if err != nil || shown != len(files)-c.hidden {
			t.Errorf("%s: %d files are shown, and there are %d: %v", c.page, shown, len(files), err)
		}
	}
}
