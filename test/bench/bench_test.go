package main

import (
	"bytes"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/testenv"
)

// TestQuick runs every measurement for a moment: that each ends and makes its
// rows is all that is asked, not what they say. Workloads are IPv4 alone, as
// in the figures that the page compares with.
func TestQuick(t *testing.T) {
	testenv.NeedRoot(t)
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", bin,
		"../../cmd/brindle", "../../cmd/brindle-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, m := range measurements() {
		t.Run(m.name, func(t *testing.T) {
			var out bytes.Buffer
			dir := t.TempDir()
			if err := run(t.Context(), []string{"-quick", "-bin", bin, "-dir", dir, "-only", "^" + m.name + "$"}, &out); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			if strings.Contains(out.String(), "NaN") || !strings.Contains(out.String(), "Measured") {
				t.Errorf("no table of figures:\n%s", out.String())
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

func TestArguments(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"a word", []string{"fast"}, `unexpected argument "fast"`},
		{"a pattern", []string{"-only", "("}, "-only"},
		{"figures that mean nothing", []string{"-write", "x", "-quick"}, "leave out -quick"},
		{"no programs", []string{"-bin", t.TempDir()}, "make build"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parse(tt.args, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		name string
		row  row
		want string
	}{
		{"below a most", row{value: 9, aim: 10, spread: 0.1}, "met"},
		{"above it", row{value: 12, aim: 10, spread: 0.1}, "missed"},
		{"above it, not beyond the spread", row{value: 10.5, aim: 10, spread: 0.1}, "within the spread"},
		{"above it without a spread", row{value: 10.5, aim: 10, spread: math.NaN()}, "missed"},
		{"above a least", row{value: 120, aim: 100, least: true}, "met"},
		{"below it", row{value: 80, aim: 100, least: true, spread: 0.1}, "missed"},
		{"below it, not beyond the spread", row{value: 95, aim: 100, least: true, spread: 0.1}, "within the spread"},
		{"no aim", row{value: 1}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.row.verdict(); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestReplaceTable(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	rows := []row{{what: "a thing", value: 12.34, unit: "ms", aim: 10, spread: 0.05, calico: "99 ms"}}
	if err := os.WriteFile(page, []byte("before\n"+tableBegins+"old\n"+tableEnds+"after\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time changes nothing
		if err := replaceTable(page, rows, false); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		want := "before\n" + tableBegins + markdown(rows) + tableEnds + "after\n"
		if string(got) != want || !strings.Contains(want, "| a thing | 12.3 ms | ≤ 10 ms | missed | 5 % | [99 ms] |") {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	if err := os.WriteFile(page, []byte("no marks"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := replaceTable(page, rows, false); err == nil {
		t.Error("a page without marks was written")
	}
}

func TestQuantiles(t *testing.T) {
	var s sample
	for i := 100; i > 0; i-- {
		s = append(s, time.Duration(i)*time.Millisecond)
	}
	if s.p50() != 50 || s.p99() != 99 || s.quantile(1) != 100 {
		t.Errorf("p50 %v, p99 %v, most %v", s.p50(), s.p99(), s.quantile(1))
	}
	if got := median([]float64{3, 1, 2, 10}); got != 2.5 {
		t.Errorf("median %v", got)
	}
	if got := medianApart([]float64{10, 12, 10, 12}); math.Abs(got-0.2) > 1e-9 {
		t.Errorf("spread %v", got)
	}
}

// TestSomeOfATable: what was measured replaces its group of rows, and the rest
// stays.
func TestSomeOfATable(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(page, []byte("text\n"+tableBegins+tableEnds+"more\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := func(value float64, names ...string) (out []row) {
		for _, n := range names {
			out = append(out, row{what: n, value: value, unit: "ms"})
		}
		return out
	}
	for _, step := range []struct {
		rows []row
		some bool
	}{{rows(1, "a", "– of it", "b", "– of it", "c"), false}, {rows(2, "b", "– of it", "– and more", "d"), true}} {
		if err := replaceTable(page, step.rows, step.some); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(got)) {
		if cells := strings.Split(line, " | "); len(cells) > 1 {
			lines = append(lines, strings.TrimPrefix(cells[0], "| ")+" "+cells[1])
		}
	}
	want := []string{"What Measured", "a 1.0 ms", "– of it 1.0 ms", "b 2.0 ms", "– of it 2.0 ms", "– and more 2.0 ms", "c 1.0 ms", "d 2.0 ms"}
	if !slices.Equal(lines, want) {
		t.Errorf("got  %q\nwant %q", lines, want)
	}
}
