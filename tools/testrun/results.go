package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// event is one line of `go test -json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output and build-fail
	Test       string
	Output     string
	Elapsed    float64
}

// skip is one test that did not run.
type skip struct {
	layer, pkg, test string
	why              string // the last line it printed
}

// results is what the events of one `go test` add up to. Tests and their
// sub-tests count alike.
type results struct {
	layer  string
	out    io.Writer
	output map[string][]string // by package and test, until it ended
	broken map[string]bool     // packages in which a test failed
	tests  map[string]int      // passed tests of a package

	passed, failed int
	skips          []skip
	failures       []string
}

func newResults(layer string, out io.Writer) *results {
	return &results{layer: layer, out: out, output: map[string][]string{}, broken: map[string]bool{}, tests: map[string]int{}}
}

// read takes events until there are no more.
func (r *results) read(from io.Reader) error {
	sc := bufio.NewScanner(from)
	sc.Buffer(make([]byte, 1<<20), 64<<20)
	for sc.Scan() {
		var e event
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			fmt.Fprintln(r.out, sc.Text()) // not an event: pass it on
			continue
		}
		r.take(e)
	}
	return sc.Err()
}

func (r *results) take(e event) {
	key := e.Package + "\x00" + e.Test
	switch e.Action {
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(e)
		}
		delete(r.output, key)
	}
}

func (r *results) endTest(e event) {
	lines := r.output[e.Package+"\x00"+e.Test]
	switch e.Action {
	case "pass":
		r.passed++
		r.tests[e.Package]++
	case "skip":
		r.skips = append(r.skips, skip{r.layer, short(e.Package), e.Test, reason(lines)})
	case "fail":
		r.failed++
		r.broken[e.Package] = true
		r.failures = append(r.failures, short(e.Package)+" "+e.Test)
		fmt.Fprintf(r.out, "%s", strings.Join(lines, ""))
	}
}

func (r *results) endPackage(e event) {
	lines := r.output[e.Package+"\x00"]
	name := short(e.Package)
	switch {
	case e.Action == "pass":
		fmt.Fprintf(r.out, "ok    %-36s %7.1f s %6d tests\n", name, e.Elapsed, r.tests[e.Package])
	case e.Action == "fail":
		if !r.broken[e.Package] { // it did not build, crashed, or timed out
			r.failed++
			r.failures = append(r.failures, name)
			fmt.Fprintf(r.out, "%s", strings.Join(lines, ""))
			r.unfinished(e.Package)
		}
		fmt.Fprintf(r.out, "FAIL  %-36s %7.1f s\n", name, e.Elapsed)
	}
}

// unfinished prints what tests of a package said that never ended.
func (r *results) unfinished(pkg string) {
	for key, lines := range r.output {
		if p, test, _ := strings.Cut(key, "\x00"); p == pkg && test != "" {
			fmt.Fprintf(r.out, "--- never ended: %s\n%s", test, strings.Join(lines, ""))
		}
	}
}

// short is a package's path inside the module.
func short(pkg string) string { return strings.TrimPrefix(pkg, module+"/") }

// reason finds why a test was skipped in what it printed.
func reason(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		l := strings.TrimSpace(lines[i])
		if l != "" && !strings.HasPrefix(l, "---") && !strings.HasPrefix(l, "===") {
			return l
		}
	}
	return "no reason given"
}
