package archtest

import (
	"fmt"
	"go/ast"
	"maps"
	"slices"
	"strings"
)

// The limits on hand-written code that is no test. Raising one is a commit
// with a reason.
const (
	maxFile     = 500 // lines of a file
	maxFunc     = 70  // lines of a function
	maxParams   = 5   // parameters of a function
	maxMethods  = 6   // methods of an interface
	maxFields   = 20  // fields of a struct
	maxPackages = 51  // packages of the main module, without programs that only test it
)

// wirePackages hold the shapes of an API, whose width is given.
var wirePackages = []string{"api/v3", "internal/agentapi"}

// sizes keeps the tail short: what makes code a maze is its longest function
// and its widest type, not its median.
func sizes(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.code() {
		add := func(where, format string, args ...any) {
			found = append(found, Finding{"size", where, fmt.Sprintf(format, args...)})
		}
		if n := t.Fset.Position(f.Syntax.FileEnd).Line; n > maxFile+1 {
			add(f.Path, "%d lines, more than %d", n-1, maxFile)
		}
		for _, d := range f.Syntax.Decls {
			t.sizeOf(f, d, add)
		}
	}
	return found
}

func (t *Tree) sizeOf(f *File, d ast.Decl, add func(string, string, ...any)) {
	if fn, ok := d.(*ast.FuncDecl); ok {
		if n := t.Fset.Position(fn.End()).Line - t.Fset.Position(fn.Pos()).Line + 1; n > maxFunc {
			add(f.in(d), "function of %d lines, more than %d", n, maxFunc)
		}
	}
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncType:
			if k := n.Params.NumFields(); k > maxParams {
				add(f.in(d), "%d parameters, more than %d: use a struct", k, maxParams)
			}
		case *ast.InterfaceType:
			if k := n.Methods.NumFields(); k > maxMethods {
				add(f.Path, "an interface of %d methods, more than %d", k, maxMethods)
			}
		case *ast.TypeSpec:
			s, ok := n.Type.(*ast.StructType)
			if ok && s.Fields.NumFields() > maxFields && !slices.Contains(wirePackages, f.Dir) {
				add(f.Path+":"+n.Name.Name, "a struct of %d fields, more than %d", s.Fields.NumFields(), maxFields)
			}
		}
		return true
	})
}

// packageCount keeps the tree small enough to know.
func packageCount(t *Tree) []Finding {
	dirs := map[string]bool{}
	for _, f := range t.Files {
		if !f.Test && !f.tools() && !strings.HasPrefix(f.Dir, "test/") {
			dirs[f.Dir] = true
		}
	}
	if n := len(slices.Sorted(maps.Keys(dirs))); n > maxPackages {
		return []Finding{{"package-count", ".", fmt.Sprintf("%d packages, more than %d", n, maxPackages)}}
	}
	return nil
}
