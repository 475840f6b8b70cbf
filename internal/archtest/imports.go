package archtest

import (
	"fmt"
	"go/ast"
	"maps"
	"slices"
	"strings"
)

// architecture is the file with the tables.
const architecture = "ARCHITECTURE.md"

// imports holds every package to its row of the import table.
func imports(t *Tree) []Finding {
	rows, err := table(t.text(architecture), "imports")
	if err != nil {
		return []Finding{{"imports", architecture, err.Error()}}
	}
	var found []Finding
	missing := map[string]bool{}
	seen := map[string]bool{}
	for _, f := range t.Files {
		if f.Test || f.tools() {
			continue
		}
		seen[f.Dir] = true
		row, ok := rows[f.Dir]
		if !ok {
			missing[f.Dir] = true
			continue
		}
		for _, i := range f.imports() {
			dep, ours := strings.CutPrefix(i, Module+"/")
			if ours && !slices.Contains(row, dep) {
				found = append(found, Finding{"imports", f.Path, fmt.Sprintf("%s must not import %s: it is not on its row of the import table", f.Dir, dep)})
			}
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(missing)) {
		found = append(found, Finding{"imports", dir, "has no row in the import table of " + architecture})
	}
	return found
}

// doors lets an outside package be imported by the owners of its door only.
func doors(t *Tree) []Finding {
	rows, err := table(t.text(architecture), "doors")
	if err != nil {
		return []Finding{{"doors", architecture, err.Error()}}
	}
	var found []Finding
	for _, f := range t.Files {
		if f.Test || f.tools() {
			continue
		}
		for _, i := range f.imports() {
			first, _, _ := strings.Cut(i, "/")
			if !strings.Contains(first, ".") || i == Module || strings.HasPrefix(i, Module+"/") {
				continue
			}
			door, ok := doorOf(rows, i)
			switch {
			case !ok:
				found = append(found, Finding{"doors", f.Path, fmt.Sprintf("%s has no row in the table of doors: a dependency has one owner and a line in docs/adr", i)})
			case !slices.Contains(rows[door], f.Dir) && !slices.Contains(rows[door], "any"):
				found = append(found, Finding{"doors", f.Path, fmt.Sprintf("%s must not import %s: its door is %s", f.Dir, i, strings.Join(rows[door], ", "))})
			}
		}
	}
	return found
}

// doorOf finds the longest row that an import path lies below.
func doorOf(rows map[string][]string, path string) (string, bool) {
	best := ""
	for row := range rows {
		if (path == row || strings.HasPrefix(path, row+"/")) && len(row) > len(best) {
			best = row
		}
	}
	return best, best != ""
}

// purePackages have no clock, I/O, goroutine, lock or log.
var purePackages = []string{
	"internal/selector", "internal/prefix", "internal/labels", "internal/model",
	"internal/desired", "internal/calc", "internal/oracle",
}

// impure are imports that a pure package has no use for.
var impure = []string{
	"context", "crypto/rand", "log", "log/slog", "math/rand", "math/rand/v2", "net", "net/http",
	"os", "os/exec", "os/signal", "runtime", "sync", "sync/atomic", "syscall", "unsafe",
}

// clock are the functions of package time that read or use the clock. Its
// types are plain values and fine.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}

// pure holds the core to values in, values out.
func pure(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.code() {
		if !slices.Contains(purePackages, f.Dir) {
			continue
		}
		for _, i := range f.imports() {
			if slices.Contains(impure, i) || strings.HasPrefix(i, "golang.org/x/sys") {
				found = append(found, Finding{"pure", f.Path, "a pure package must not import " + i})
			}
		}
		f.calls(func(decl ast.Decl, pkg, name string, _ *ast.CallExpr) {
			if pkg == "time" && slices.Contains(clock, name) {
				found = append(found, Finding{"pure", f.in(decl), "a pure package must not call time." + name})
			}
		})
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.GoStmt:
				found = append(found, Finding{"pure", f.Path, "a pure package must not start a goroutine"})
			case *ast.ChanType:
				found = append(found, Finding{"pure", f.Path, "a pure package must not use a channel"})
			}
			return true
		})
	}
	return found
}
