package agent

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
)

func TestFallenBackIsTold(t *testing.T) {
	if text := fallenBack(rules.Stats{Groups: 9, Small: 4, Compiled: 5}); text != "" {
		t.Errorf("without a reason: %q", text)
	}
	text := fallenBack(rules.Stats{Groups: 9, Compiled: 7, Broken: 2, Rows: 11, Classes: 3})
	if !strings.HasPrefix(text, "2 of 9 groups of endpoints are judged by all their rules") || !strings.Contains(text, "11 rows and 3 classes") {
		t.Error(text)
	}
	got := map[string]float64{}
	for _, s := range lookUpSamples(rules.Stats{Groups: 9, Small: 1, Compiled: 6, Broken: 2, Rows: 11, Classes: 3, PlainRows: 4}) {
		got[s.Name+s.Labels["judged"]] = s.Value
	}
	for name, want := range map[string]float64{
		"brindle_policy_groupslook-ups": 6, "brindle_policy_groupsfew-rules": 1, "brindle_policy_groupsall-rules": 2,
		"brindle_policy_classes": 3, "brindle_policy_rows": 11, "brindle_policy_plain_rows": 4,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

// TestMetricsAreDocumented: the page has each metric that the sources name, and
// no other.
func TestMetricsAreDocumented(t *testing.T) {
	name := regexp.MustCompile(`"(brindle_[a-z_]+)"`)
	var coded []string
	for _, pattern := range []string{"*.go", "../health/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			for _, m := range name.FindAllSubmatch(data, -1) {
				coded = append(coded, string(m[1]))
			}
		}
	}
	slices.Sort(coded)
	page, err := os.ReadFile("../../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(brindle_[a-z_]+)").FindAllSubmatch(page, -1) {
		documented = append(documented, string(m[1]))
	}
	slices.Sort(documented)
	if coded = slices.Compact(coded); !slices.Equal(coded, documented) {
		t.Errorf("the sources have\n%v\nand docs/reference/metrics.md\n%v", coded, documented)
	}
}
