package archtest

import (
	"go/ast"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// logPage says what the attributes of log lines mean.
const logPage = "docs/reference/log-attributes.md"

// firstAttribute is the place of the first attribute among the arguments of a
// method of a logger.
var firstAttribute = map[string]int{
	"Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "With": 0, "Log": 3,
	"DebugContext": 2, "InfoContext": 2, "WarnContext": 2, "ErrorContext": 2,
}

var (
	attributeName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	attributeRow  = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")
)

// logAttributes holds the page about log attributes to the code: each name
// that is logged has a row, and each row a name that is logged.
func logAttributes(t *Tree) []Finding {
	logged := map[string]string{} // name to the place of its first use
	for _, f := range t.code() {
		for _, d := range f.Syntax.Decls {
			for _, name := range attributes(d) {
				if _, ok := logged[name]; !ok && !f.tools() {
					logged[name] = f.in(d)
				}
			}
		}
	}
	told := map[string]bool{}
	for _, row := range attributeRow.FindAllStringSubmatch(t.text(logPage), -1) {
		told[row[1]] = true
	}
	var found []Finding
	for _, name := range slices.Sorted(maps.Keys(logged)) {
		if !told[name] {
			found = append(found, Finding{"log-attribute", logged[name], "logs " + strconv.Quote(name) + ", which has no row in " + logPage + ": take a name that has one, or add it"})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(told)) {
		if logged[name] == "" {
			found = append(found, Finding{"log-attribute", logPage, "nothing logs " + strconv.Quote(name) + " any more: take its row out"})
		}
	}
	return found
}

// attributes are the names that a declaration gives to what it logs.
func attributes(d ast.Decl) []string {
	var names []string
	ast.Inspect(d, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		fun, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		first, step := 0, 2
		if x, ok := fun.X.(*ast.Ident); ok && x.Name == "slog" {
			step = len(call.Args) + 1 // slog.String and its like
		} else if first, ok = firstAttribute[fun.Sel.Name]; !ok {
			return true
		}
		for i := first; i < len(call.Args); i += step {
			lit, ok := call.Args[i].(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				continue
			}
			if name := strings.Trim(lit.Value, "`\""); attributeName.MatchString(name) {
				names = append(names, name)
			}
		}
		return true
	})
	return names
}
