package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

// module is the import path of the main module.
const module = "github.com/brindle-net/brindle"

// stepNames are the steps in the order of a whole run.
var stepNames = []string{"deps", "build", "check", "unit", "conformance", "kernel", "lab", "vm", "fuzz"}

// pkg is what `go list` says of a package of ours.
type pkg struct {
	ImportPath   string
	Dir          string
	TestImports  []string
	XTestImports []string
	TestGoFiles  []string
	XTestGoFiles []string
}

// list asks go for packages of the main module.
func list(ctx context.Context, root string, patterns ...string) ([]pkg, error) {
	args := []string{"list", "-e", "-json=ImportPath,Dir,TestImports,XTestImports,TestGoFiles,XTestGoFiles"}
	cmd := exec.CommandContext(ctx, goCommand(), append(args, patterns...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w: %s", err, stderr.String())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		switch err := dec.Decode(&p); err {
		case nil:
			pkgs = append(pkgs, p)
		case io.EOF:
			return pkgs, nil
		default:
			return nil, fmt.Errorf("read the list of packages: %w", err)
		}
	}
}

// hasTests reports whether the package has a test file.
func (p pkg) hasTests() bool { return len(p.TestGoFiles)+len(p.XTestGoFiles) > 0 }

// testsImport reports whether a test of p imports the package of ours.
func (p pkg) testsImport(path string) bool {
	full := module + "/" + path
	return slices.Contains(p.TestImports, full) || slices.Contains(p.XTestImports, full)
}

// layerOf says in which layer a package is run, so that a run of all layers
// runs it once: by where it lies or by what its tests import.
func layerOf(p pkg) string {
	rel := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
	switch {
	case rel == "internal/archtest":
		return "check"
	case rel == "test/vm/smoke":
		return "vm"
	case rel == "internal/lab" || strings.HasPrefix(rel, "internal/lab/") || slices.Contains([]string{"test/scenarios", "test/docs", "test/bench", "test/cni", "test/windows", "test/threats", "test/kubernetes"}, rel):
		return "lab"
	case p.testsImport("internal/store/storetest") || p.testsImport("internal/dataplane/dptest"):
		return "conformance"
	case p.testsImport("internal/testenv"):
		return "kernel"
	default:
		return "unit"
	}
}

// inLayer keeps the packages with tests that belong to a layer, sorted.
func inLayer(pkgs []pkg, layer string) []string {
	var paths []string
	for _, p := range pkgs {
		if p.hasTests() && layerOf(p) == layer {
			paths = append(paths, p.ImportPath)
		}
	}
	slices.Sort(paths)
	return paths
}
