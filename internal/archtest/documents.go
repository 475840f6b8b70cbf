package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/doctest"
)

// packageComments wants a comment on every package, on a test's file only
// where there is nothing else.
func packageComments(t *Tree) []Finding {
	has := map[string]bool{}
	for _, f := range t.Files {
		has[f.Dir] = has[f.Dir] || f.Syntax.Doc != nil
	}
	var found []Finding
	for _, dir := range slices.Sorted(maps.Keys(has)) {
		if !has[dir] {
			found = append(found, Finding{"package-comment", dir, "has no package comment: say in one sentence what a newcomer finds here"})
		}
	}
	return found
}

// wellKnown are methods whose promise is that of an interface everybody knows.
var wellKnown = []string{
	"Error", "String", "GoString", "Unwrap", "Is", "As", "Len", "Less", "Swap", "Format",
	"MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText", "ServeHTTP", "LogValue",
}

// docComments wants a comment on every exported name.
func docComments(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.code() {
		if f.main() {
			continue
		}
		for _, d := range f.Syntax.Decls {
			for _, name := range undocumented(d) {
				found = append(found, Finding{"doc-comment", f.Path + ":" + name, "exported without a comment"})
			}
		}
	}
	return found
}

func undocumented(d ast.Decl) []string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) &&
			(d.Recv == nil || !slices.Contains(wellKnown, d.Name.Name)) {
			return []string{d.Name.Name}
		}
	case *ast.GenDecl:
		if d.Tok == token.IMPORT {
			return nil
		}
		var names []string
		for _, s := range d.Specs {
			names = append(names, undocumentedSpec(s, d.Doc != nil)...)
		}
		return names
	}
	return nil
}

// undocumentedSpec checks one entry of a group. The group's own comment
// counts for constants and variables; a type needs its own.
func undocumentedSpec(s ast.Spec, group bool) []string {
	switch s := s.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && s.Doc == nil && !group {
			return []string{s.Name.Name}
		}
	case *ast.ValueSpec:
		if group || s.Doc != nil || s.Comment != nil {
			return nil
		}
		var names []string
		for _, n := range s.Names {
			if n.IsExported() {
				names = append(names, n.Name)
			}
		}
		return names
	}
	return nil
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	e := d.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

var (
	makeListed = regexp.MustCompile(`(?m)^([a-z][a-z-]*):.*## `)
	makeNamed  = regexp.MustCompile("(?m)(?:`|^\\s*(?:sudo )?)make ([a-z][a-z-]*)")
)

// makeTargets keeps CONTRIBUTING.md and the Makefile of one mind: each target
// that `make help` lists is explained, and every page names targets that are
// there.
func makeTargets(t *Tree) []Finding {
	targets := map[string]bool{}
	for _, m := range makeListed.FindAllStringSubmatch(t.text("Makefile"), -1) {
		targets[m[1]] = true
	}
	var found []Finding
	contributing := t.text("CONTRIBUTING.md")
	for _, name := range slices.Sorted(maps.Keys(targets)) {
		if !strings.Contains(contributing, "`make "+name+"`") && name != "help" {
			found = append(found, Finding{"make-target", "CONTRIBUTING.md", "does not explain `make " + name + "`"})
		}
	}
	for _, p := range t.Texts {
		if path.Ext(p) != ".md" {
			continue
		}
		for _, m := range makeNamed.FindAllStringSubmatch(t.text(p), -1) {
			if !targets[m[1]] {
				found = append(found, Finding{"make-target", p, "names `make " + m[1] + "`, which the Makefile does not list"})
			}
		}
	}
	return found
}

// docBlocks wants each command that a page tells its reader to type to be run
// by a test. See package doctest for how a block says which.
func docBlocks(t *Tree) []Finding {
	var found []Finding
	for _, p := range t.Texts {
		if p != "README.md" && !strings.HasPrefix(p, "docs/guides/") || path.Ext(p) != ".md" {
			continue
		}
		blocks, err := doctest.Blocks(p, t.text(p))
		if err != nil {
			found = append(found, Finding{"doc-block", p, err.Error()})
		}
		for _, b := range blocks {
			if b.Test != "" {
				found = append(found, t.uncovered(b)...)
			}
		}
	}
	return found
}

// uncovered are the commands of a block that the test it names does not run.
// A Go test runs whole blocks: it must read this page.
func (t *Tree) uncovered(b doctest.Block) []Finding {
	test := t.text(b.Test)
	if test == "" {
		return []Finding{{"doc-block", b.File, fmt.Sprintf("line %d: there is no test %s", b.Line, b.Test)}}
	}
	if path.Ext(b.Test) == ".go" {
		page := `"` + b.File + `"`
		if !strings.Contains(test, "doctest.") || !strings.Contains(test, page) && !strings.Contains(test, `"`+path.Dir(b.File)+`/`) {
			return []Finding{{"doc-block", b.File, fmt.Sprintf("line %d: %s does not read this page", b.Line, b.Test)}}
		}
		return nil
	}
	var found []Finding
	for _, c := range b.Commands {
		if !doctest.Covers(test, c) {
			found = append(found, Finding{"doc-block", b.File, fmt.Sprintf("line %d: %s does not run %q", b.Line, b.Test, c)})
		}
	}
	return found
}

// foreign are words that speak of something other than the project: its
// making, another machine, or work that was put off.
var foreign = regexp.MustCompile(`/work/|\.\./shared|\b(?:TODO|FIXME|XXX)\b|(?i:\bissue #?\d+\b)|\b(?:probes|style|compat|design|threats|users|figures|BRIEF)\.md\b`)

// words keeps the files to the project itself.
func words(t *Tree) []Finding {
	paths := slices.Clone(t.Texts)
	for _, f := range t.Files {
		if f.Dir != "internal/archtest" { // the rule itself and its cases
			paths = append(paths, f.Path)
		}
	}
	var found []Finding
	for _, p := range paths {
		n := 0
		for line := range strings.Lines(t.text(p)) {
			n++
			if m := foreign.FindString(line); m != "" {
				found = append(found, Finding{"words", p, fmt.Sprintf("line %d: %q does not belong in the tree", n, m)})
			}
		}
	}
	return found
}
