// Package archtest turns the house rules into checks, so that they hold on
// every run and are not argued about in review. A rule reads the tree and
// returns what it found wrong. ARCHITECTURE.md holds the import table that
// the rules read; exceptions.txt holds what is let through, with a reason.
package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Module is the import path of the main module.
const Module = "github.com/brindle-net/brindle"

// Tree is a checkout as the rules see it.
type Tree struct {
	FS    fs.FS
	Files []*File  // every Go file outside testdata, sorted by path
	Texts []string // paths of all other files that may hold prose or script
	Fset  *token.FileSet
}

// File is one Go file.
type File struct {
	Path      string // slashes, from the root of the tree
	Dir       string
	Test      bool // its name ends in _test.go
	Generated bool
	Syntax    *ast.File
}

// Finding is one breach of one rule.
type Finding struct {
	Rule  string // its name, as in exceptions.txt
	Where string // file, file:function or package
	What  string // what is wrong and what to do
}

func (f Finding) String() string { return f.Where + ": " + f.What + " [" + f.Rule + "]" }

// A Rule reads the tree and says what is wrong with it.
type Rule struct {
	Name  string
	Check func(*Tree) []Finding
}

// Rules are all the house rules that a machine checks, by name.
func Rules() []Rule {
	return []Rule{
		{"imports", imports},
		{"doors", doors},
		{"pure", pure},
		{"size", sizes},
		{"package-comment", packageComments},
		{"doc-comment", docComments},
		{"exit", exits},
		{"init", inits},
		{"state", packageState},
		{"sleep", sleeps},
		{"shell", shells},
		{"package-count", packageCount},
		{"make-target", makeTargets},
		{"doc-block", docBlocks},
		{"log-attribute", logAttributes},
		{"words", words},
	}
}

// Load reads the tree below root.
func Load(root fs.FS) (*Tree, error) {
	t := &Tree{FS: root, Fset: token.NewFileSet()}
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", ".cache", "bin", "testdata", "vendor"}, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(p, ".go") {
			return t.add(p)
		}
		if d.Type().IsRegular() && isText(p) {
			t.Texts = append(t.Texts, p)
		}
		return nil
	})
	return t, err
}

// isText tells files that people write from the rest, by name.
func isText(p string) bool {
	switch path.Ext(p) {
	case ".md", ".txt", ".sh", ".yaml", ".txtar", "":
		return !strings.HasSuffix(p, ".test") && path.Base(p) != "LICENSE"
	}
	return false
}

func (t *Tree) add(p string) error {
	src, err := fs.ReadFile(t.FS, p)
	if err != nil {
		return err
	}
	syntax, err := parser.ParseFile(t.Fset, p, src, parser.ParseComments)
	if err != nil {
		return fmt.Errorf("parse %s: %w", p, err)
	}
	t.Files = append(t.Files, &File{
		Path: p, Dir: path.Dir(p), Test: strings.HasSuffix(p, "_test.go"),
		Generated: ast.IsGenerated(syntax), Syntax: syntax,
	})
	return nil
}

// code are the files that are neither tests nor generated.
func (t *Tree) code() []*File {
	var list []*File
	for _, f := range t.Files {
		if !f.Test && !f.Generated {
			list = append(list, f)
		}
	}
	return list
}

// main reports whether the file belongs to a program.
func (f *File) main() bool { return f.Syntax.Name.Name == "main" }

// tools reports whether the file belongs to the module of tools.
func (f *File) tools() bool { return strings.HasPrefix(f.Path, "tools/") }

// testing reports whether the file is a test or helps tests.
func (f *File) testing() bool { return f.Test || slices.Contains(f.imports(), "testing") }

// imports are the import paths of the file.
func (f *File) imports() []string {
	var list []string
	for _, i := range f.Syntax.Imports {
		list = append(list, strings.Trim(i.Path.Value, `"`))
	}
	return list
}

// in names a place inside a file.
func (f *File) in(decl ast.Decl) string {
	if fn, ok := decl.(*ast.FuncDecl); ok {
		return f.Path + ":" + fn.Name.Name
	}
	return f.Path
}

// text reads a file as a string; a file that is not there is empty.
func (t *Tree) text(p string) string {
	b, err := fs.ReadFile(t.FS, p)
	if err != nil {
		return ""
	}
	return string(b)
}

// calls visits every call of pkg.name in the file, with the declaration that
// it stands in.
func (f *File) calls(visit func(decl ast.Decl, pkg, name string, call *ast.CallExpr)) {
	for _, d := range f.Syntax.Decls {
		ast.Inspect(d, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			switch fun := call.Fun.(type) {
			case *ast.Ident:
				visit(d, "", fun.Name, call)
			case *ast.SelectorExpr:
				if x, ok := fun.X.(*ast.Ident); ok {
					visit(d, x.Name, fun.Sel.Name, call)
				}
			}
			return true
		})
	}
}
