package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// fieldPath leads to fields of a document, as kubectl's custom columns write
// it: .spec.peers[0].ip, .spec.nets[*], .metadata.labels.app\.kubernetes\.io/name
// or .metadata.labels['app.kubernetes.io/name'].
type fieldPath []pathStep

// pathStep goes into one field of an object, or one element of a list, or all.
type pathStep struct {
	field string
	index int // of a list: from its end if negative
	kind  stepKind
}

type stepKind int

const (
	stepField stepKind = iota
	stepIndex
	stepAll
)

// parseFieldPath reads a path. The braces of a JSONPath template may stand
// around it.
func parseFieldPath(text string) (fieldPath, error) {
	rest := text
	if strings.HasPrefix(rest, "{") && strings.HasSuffix(rest, "}") {
		rest = rest[1 : len(rest)-1]
	}
	rest = strings.TrimPrefix(rest, "$")
	var path fieldPath
	for first := true; rest != ""; first = false {
		var step pathStep
		var err error
		if rest[0] == '[' {
			step, rest, err = bracketStep(rest)
		} else {
			if !first && rest[0] != '.' {
				err = fmt.Errorf("%q: a dot or a bracket must stand there", rest)
			} else {
				step, rest = fieldStep(strings.TrimPrefix(rest, "."))
			}
			if err == nil && step == (pathStep{}) && (rest != "" || len(path) > 0) {
				err = fmt.Errorf("a name of a field is missing before %q", rest)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("path %q: %w: write .spec.field, .list[0], .list[*] or ['name.with.dots']", text, err)
		}
		if step != (pathStep{}) {
			path = append(path, step)
		}
	}
	return path, nil
}

// fieldStep reads a name up to a dot or bracket without a backslash.
func fieldStep(text string) (step pathStep, rest string) {
	var name strings.Builder
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			if i++; i == len(text) {
				return pathStep{field: name.String() + `\`}, ""
			}
		case '.', '[':
			return nameStep(name.String()), text[i:]
		}
		name.WriteByte(text[i])
	}
	return nameStep(name.String()), ""
}

func nameStep(name string) pathStep {
	if name == "*" {
		return pathStep{kind: stepAll}
	}
	return pathStep{field: name}
}

// bracketStep reads [0], [-1], [*], ['name'] or ["name"].
func bracketStep(text string) (step pathStep, rest string, err error) {
	if len(text) > 1 && (text[1] == '\'' || text[1] == '"') {
		name, after, closed := strings.Cut(text[2:], text[1:2]+"]")
		if !closed {
			return step, "", fmt.Errorf("%q: the name is not closed", text)
		}
		return pathStep{field: name}, after, nil
	}
	inside, after, closed := strings.Cut(text[1:], "]")
	if !closed {
		return step, "", fmt.Errorf("%q: the bracket is not closed", text)
	}
	if inside == "*" || inside == "" {
		return pathStep{kind: stepAll}, after, nil
	}
	n, err := strconv.Atoi(inside)
	if err != nil {
		return step, "", fmt.Errorf("[%s] is neither a number nor *", inside)
	}
	return pathStep{kind: stepIndex, index: n}, after, nil
}

// find returns what the path leads to in a document of maps, slices and
// scalars: nothing where there is no such field.
func (p fieldPath) find(doc any) []any {
	at := []any{doc}
	for _, step := range p {
		var next []any
		for _, v := range at {
			next = append(next, step.into(v)...)
		}
		at = next
	}
	return at
}

func (s pathStep) into(v any) []any {
	switch v := v.(type) {
	case map[string]any:
		if s.kind == stepAll {
			var all []any
			for _, name := range slices.Sorted(maps.Keys(v)) {
				all = append(all, v[name])
			}
			return all
		}
		if field, ok := v[s.field]; ok && s.kind == stepField {
			return []any{field}
		}
	case []any:
		i := s.index
		if i < 0 {
			i += len(v)
		}
		switch {
		case s.kind == stepAll:
			return slices.Clone(v)
		case s.kind == stepIndex && i >= 0 && i < len(v):
			return []any{v[i]}
		}
	}
	return nil
}

// pathColumn is a column that shows what a path leads to: HEADER:PATH.
func pathColumn(text string) (column, error) {
	header, at, _ := strings.Cut(text, ":")
	path, err := parseFieldPath(at)
	if err != nil {
		return column{}, fmt.Errorf("custom column %q: %w", text, err)
	}
	return column{strings.ToUpper(strings.TrimSpace(header)), "", func(o v3.Object, _ cellContext) string { return path.cell(o) }}, nil
}

// cell is what a path leads to in an object, with commas between values, and
// kubectl's <none> where there is nothing.
func (p fieldPath) cell(o v3.Object) string {
	text, err := json.Marshal(o)
	if err != nil {
		return "<unknown>" // what was read can be written
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // of whatever length
	var doc any
	if err := d.Decode(&doc); err != nil {
		return "<unknown>"
	}
	var cells []string
	for _, v := range p.find(doc) {
		switch v := v.(type) {
		case nil:
		case string:
			cells = append(cells, v)
		case json.Number, bool:
			cells = append(cells, fmt.Sprint(v))
		default:
			inner, err := json.Marshal(v)
			if err != nil {
				return "<unknown>"
			}
			cells = append(cells, string(inner))
		}
	}
	if len(cells) == 0 {
		return "<none>"
	}
	return strings.Join(cells, ",")
}
