package archtest

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// exits finds ends of the process that are not the program's to make.
func exits(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.code() {
		if f.main() {
			continue
		}
		f.calls(func(decl ast.Decl, pkg, name string, _ *ast.CallExpr) {
			switch full := pkg + "." + name; {
			case full == ".panic", full == "os.Exit", full == "runtime.Goexit",
				pkg == "log" && (strings.HasPrefix(name, "Fatal") || strings.HasPrefix(name, "Panic")):
				found = append(found, Finding{"exit", f.in(decl), strings.TrimPrefix(full, ".") + " outside main: return an error"})
			}
		})
	}
	return found
}

// inits finds init functions: code that runs because something was imported.
func inits(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.code() {
		for _, d := range f.Syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				found = append(found, Finding{"init", f.in(d), "an init function: construct it where it is used"})
			}
		}
	}
	return found
}

// packageState finds package-level variables that code changes. A table that
// is only read is fine.
func packageState(t *Tree) []Finding {
	vars := map[string]map[string]bool{} // by folder
	for _, f := range t.code() {
		if vars[f.Dir] == nil {
			vars[f.Dir] = map[string]bool{}
		}
		for _, spec := range varSpecs(f.Syntax) {
			for _, name := range spec.Names {
				vars[f.Dir][name.Name] = name.Name != "_"
			}
		}
	}
	var found []Finding
	for _, f := range t.code() {
		specs := varSpecs(f.Syntax)
		for _, d := range f.Syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			for _, id := range assigned(fn.Body) {
				global := id.Obj == nil || slices.ContainsFunc(specs, func(s *ast.ValueSpec) bool { return id.Obj.Decl == s })
				if global && vars[f.Dir][id.Name] {
					found = append(found, Finding{"state", f.in(d), "changes the package's variable " + id.Name + ": state belongs in a value that is passed"})
				}
			}
		}
	}
	return found
}

func varSpecs(f *ast.File) []*ast.ValueSpec {
	var specs []*ast.ValueSpec
	for _, d := range f.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
			for _, s := range g.Specs {
				specs = append(specs, s.(*ast.ValueSpec))
			}
		}
	}
	return specs
}

// assigned are the names that a body assigns to, whole, by element or by field.
func assigned(body ast.Node) []*ast.Ident {
	var ids []*ast.Ident
	target := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.Ident:
				ids = append(ids, x)
				return
			case *ast.IndexExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			default:
				return
			}
		}
	}
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, e := range n.Lhs {
					target(e)
				}
			}
		case *ast.IncDecStmt:
			target(n.X)
		}
		return true
	})
	return ids
}

// pollName is what a function is called that waits for a condition with a
// deadline: the one place where a test may pause.
var pollName = regexp.MustCompile(`(?i)(eventually|wait|poll|until)`)

// sleeps finds tests that wait for time to pass instead of for something to
// happen. Inside a synctest bubble time is fake and a sleep is exact.
func sleeps(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if !f.testing() || slices.Contains(f.imports(), "testing/synctest") {
			continue
		}
		f.calls(func(decl ast.Decl, pkg, name string, _ *ast.CallExpr) {
			fn, _ := decl.(*ast.FuncDecl)
			if pkg == "time" && name == "Sleep" && (fn == nil || !pollName.MatchString(fn.Name.Name)) {
				found = append(found, Finding{"sleep", f.in(decl), "a test must not sleep: use testing/synctest, a channel, or a helper that polls a condition and is named so"})
			}
		})
	}
	return found
}

// shellNames are programs that read commands out of strings.
var shellNames = []string{"sh", "bash", "dash", "ash", "zsh", "ksh", "/bin/sh", "/bin/bash", "/bin/dash", "/usr/bin/bash", "cmd.exe", "powershell"}

// shells finds code outside tests that could run a shell: data in a command
// line is a way in.
func shells(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.code() {
		imports := f.imports()
		if f.testing() || !slices.Contains(imports, "os/exec") && !slices.Contains(imports, "syscall") && !slices.Contains(imports, "golang.org/x/sys/unix") {
			continue
		}
		for _, d := range f.Syntax.Decls {
			ast.Inspect(d, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if ok && lit.Kind == token.STRING && slices.Contains(shellNames, strings.Trim(lit.Value, "\"`")) {
					found = append(found, Finding{"shell", f.in(d), "names a shell (" + lit.Value + "): run the program itself with a list of arguments"})
				}
				return true
			})
		}
	}
	return found
}
