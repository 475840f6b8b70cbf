package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLayerOf(t *testing.T) {
	for _, c := range []struct {
		name string
		in   pkg
		want string
	}{
		{"plain", pkg{ImportPath: module + "/internal/prefix"}, "unit"},
		{"house rules", pkg{ImportPath: module + "/internal/archtest"}, "check"},
		{"driver", pkg{ImportPath: module + "/internal/store/mem", TestImports: []string{module + "/internal/store/storetest"}}, "conformance"},
		{"kernel", pkg{ImportPath: module + "/internal/kernel", XTestImports: []string{module + "/internal/testenv"}}, "kernel"},
		{"lab", pkg{ImportPath: module + "/internal/lab", XTestImports: []string{module + "/internal/testenv"}}, "lab"},
		{"stories", pkg{ImportPath: module + "/test/scenarios"}, "lab"},
		{"vm", pkg{ImportPath: module + "/test/vm/smoke"}, "vm"},
		{"vm builder", pkg{ImportPath: module + "/test/vm/image"}, "unit"},
	} {
		if got := layerOf(c.in); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// stream is what go test -json prints for one package with a test of each
// outcome, and one that does not build.
const stream = `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestGood","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"TestGood","Elapsed":0.1}
{"Action":"output","Package":"p","Test":"TestBad","Output":"    a_test.go:1: it broke\n"}
{"Action":"fail","Package":"p","Test":"TestBad","Elapsed":0.1}
{"Action":"output","Package":"p","Test":"TestNot","Output":"    a_test.go:2: needs root\n"}
{"Action":"output","Package":"p","Test":"TestNot","Output":"--- SKIP: TestNot (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestNot","Elapsed":0}
{"Action":"fail","Package":"p","Elapsed":1}
{"ImportPath":"q [q.test]","Action":"build-output","Output":"q.go:1: syntax error\n"}
{"Action":"fail","Package":"q","Elapsed":0}
{"Action":"skip","Package":"notests","Elapsed":0}
`

func TestReadResults(t *testing.T) {
	var out bytes.Buffer
	r := newResults("unit", &out)
	if err := r.read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	if r.passed != 1 || r.failed != 2 || len(r.skips) != 1 {
		t.Errorf("got %d passed, %d failed, %d skipped; want 1, 2, 1", r.passed, r.failed, len(r.skips))
	}
	if want := []string{"p TestBad", "q"}; !slices.Equal(r.failures, want) {
		t.Errorf("failures: got %q, want %q", r.failures, want)
	}
	if want := (skip{"unit", "p", "TestNot", "a_test.go:2: needs root"}); r.skips[0] != want {
		t.Errorf("skip: got %+v, want %+v", r.skips[0], want)
	}
	for _, want := range []string{"it broke", "syntax error"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q was not printed:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "noise") {
		t.Errorf("a test that passed was printed:\n%s", &out)
	}
}

func TestReport(t *testing.T) {
	skipped := &results{passed: 3, skips: []skip{{"kernel", "internal/kernel", "TestX", "no root"}}}
	allow := []allowance{{"kernel", "internal/*", "TestX", "a reason"}}
	for _, c := range []struct {
		name    string
		ci      bool
		steps   []stepResult
		allowed []allowance
		wantErr bool
		want    string // the closing line
	}{
		{"all well", true, []stepResult{{name: "unit", ok: true, tests: &results{passed: 2}}}, nil, false, "2 passed, 0 failed, 0 skipped"},
		{"skip in CI", true, []stepResult{{name: "kernel", ok: true, tests: skipped}}, nil, true, "3 passed, 1 failed, 1 skipped"},
		{"skip allowed", true, []stepResult{{name: "kernel", ok: true, tests: skipped}}, allow, false, "3 passed, 0 failed, 1 skipped"},
		{"skip at home", false, []stepResult{{name: "kernel", ok: true, tests: skipped}}, nil, false, "3 passed, 0 failed, 1 skipped"},
		{"a step failed", true, []stepResult{{name: "check", reason: "exit status 2"}}, nil, true, "0 passed, 1 failed, 0 skipped"},
		{"nothing ran", true, nil, nil, true, "0 passed, 0 failed, 0 skipped"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			r := &runner{opts: options{ci: c.ci}, out: &out, start: time.Now(), steps: c.steps}
			if err := r.report(c.allowed); (err != nil) != c.wantErr {
				t.Errorf("got error %v", err)
			}
			if !strings.HasSuffix(out.String(), c.want+"\n") {
				t.Errorf("closing line: got\n%s\nwant %s", &out, c.want)
			}
		})
	}
}

func TestReadAllowed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "skips.txt")
	if err := os.WriteFile(file, []byte("# why\nkernel internal/* Test* it is so\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readAllowed(file)
	if want := []allowance{{"kernel", "internal/*", "Test*", "it is so"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if err := os.WriteFile(file, []byte("kernel internal/x TestNoReason\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readAllowed(file); err == nil {
		t.Error("a line without a reason was taken")
	}
}

func TestUnknownStep(t *testing.T) {
	for _, args := range [][]string{nil, {"units"}} {
		if err := run(t.Context(), args, io.Discard); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: got %v, want an error that lists the steps", args, err)
		}
	}
}
