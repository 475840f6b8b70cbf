package v3

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"sigs.k8s.io/yaml"
	ordered "sigs.k8s.io/yaml/goyaml.v2"
)

// shape is what a value in a document is.
type shape uint8

const (
	null shape = iota
	boolean
	number
	text
	list
	object
)

// maxDepth is how deep a document may nest: far deeper than any field.
const maxDepth = 64

// noun names a shape in a message.
func (s shape) noun() string {
	return [...]string{"null", "true or false", "a number", "text", "a list", "an object"}[s]
}

// tree is a parsed document, with its keys in the order of the file and
// duplicates still in it.
type tree struct {
	shape  shape
	scalar string   // of boolean, number and text
	keys   []string // of an object, beside items
	items  []*tree
}

// get returns the last value under a key, nil if there is none.
func (t *tree) get(key string) *tree {
	for i := len(t.keys) - 1; i >= 0; i-- {
		if t.keys[i] == key {
			return t.items[i]
		}
	}
	return nil
}

// json writes a scalar as JSON; other shapes only as what they are.
func (t *tree) json() []byte {
	switch t.shape {
	case text:
		if strings.IndexFunc(t.scalar, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) < 0 {
			return []byte(`"` + t.scalar + `"`)
		}
		b, err := json.Marshal(t.scalar)
		if err != nil {
			return []byte(`""`)
		}
		return b
	case boolean, number:
		return []byte(t.scalar)
	case list:
		return []byte("[]")
	case object:
		return []byte("{}")
	}
	return []byte("null")
}

// repeats reports whether an object has a key twice.
func (t *tree) repeats() bool {
	if len(t.keys) > 16 {
		keys := slices.Sorted(slices.Values(t.keys))
		return len(slices.Compact(keys)) < len(t.keys) || slices.ContainsFunc(t.items, (*tree).repeats)
	}
	for i, key := range t.keys {
		if slices.Contains(t.keys[:i], key) {
			return true
		}
	}
	return slices.ContainsFunc(t.items, (*tree).repeats)
}

// duplicates reports every key that an object has twice.
func (t *tree) duplicates(path string) FieldErrors {
	if path == "" && !t.repeats() {
		return nil
	}
	var errs FieldErrors
	seen := map[string]bool{}
	for i, item := range t.items {
		if t.shape == list {
			errs = append(errs, item.duplicates(indexed(path, i))...)
			continue
		}
		at := dotted(path, t.keys[i])
		if seen[t.keys[i]] {
			errs = append(errs, FieldError{Path: at, Rule: "given twice", Hint: "keep one"})
		}
		seen[t.keys[i]] = true
		errs = append(errs, item.duplicates(at)...)
	}
	return errs
}

// plainKey matches the keys that stand in a path as they are.
var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// dotted appends a key to a path. A key that could be mistaken for more of the
// path, or that a terminal would obey, is quoted.
func dotted(path, key string) string {
	if !plainKey.MatchString(key) {
		return path + "[" + strconv.Quote(key) + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// indexed appends the place in a list, counted from 0, to a path.
func indexed(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// jsonTrees reads one JSON value after another. The lines of what was read are
// in lines; an error says the line.
func jsonTrees(data []byte) (trees []*tree, lines []int, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	at, line := 0, 1 // counted on from value to value
	for {
		start := int(d.InputOffset())
		for start < len(data) && strings.IndexByte(" \t\r\n", data[start]) >= 0 {
			start++
		}
		t, err := jsonTree(d, 0)
		if errors.Is(err, io.EOF) && start >= len(data) {
			return trees, lines, nil
		}
		if err != nil {
			line = 1 + bytes.Count(data[:d.InputOffset()], []byte("\n"))
			return trees, lines, fmt.Errorf("line %d: %w", line, cause(err))
		}
		line += bytes.Count(data[at:start], []byte("\n"))
		at = start
		trees, lines = append(trees, t), append(lines, line)
	}
}

// cause says in plain words that a file ends in the middle of a value.
func cause(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the file ends before the value does")
	}
	return err
}

// jsonTree reads the next value.
func jsonTree(d *json.Decoder, depth int) (*tree, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch v := token.(type) {
	case nil:
		return &tree{}, nil
	case bool:
		return &tree{shape: boolean, scalar: strconv.FormatBool(v)}, nil
	case json.Number:
		return &tree{shape: number, scalar: v.String()}, nil
	case string:
		return &tree{shape: text, scalar: v}, nil
	case json.Delim:
		return jsonBlock(d, v, depth)
	}
	return nil, fmt.Errorf("unknown JSON token %v", token)
}

// jsonBlock reads the rest of a list or an object.
func jsonBlock(d *json.Decoder, open json.Delim, depth int) (*tree, error) {
	t := &tree{shape: list}
	if open == '{' {
		t.shape = object
	}
	for d.More() {
		if t.shape == object {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			name, ok := key.(string)
			if !ok {
				return nil, fmt.Errorf("key %v is not a string", key)
			}
			t.keys = append(t.keys, name)
		}
		item, err := jsonTree(d, depth+1)
		if err != nil {
			return nil, err
		}
		t.items = append(t.items, item)
	}
	_, err := d.Token() // the closing bracket
	return t, err
}

// yamlRoot is what a YAML document holds: an object, or a list of them.
type yamlRoot struct{ value any }

// UnmarshalYAML reads an object with its keys in order. The library would read
// a list as an object without a word, so that is tried first.
func (r *yamlRoot) UnmarshalYAML(unmarshal func(any) error) error {
	var several []yamlRoot
	if unmarshal(&several) == nil {
		items := make([]any, len(several))
		for i := range several {
			items[i] = several[i].value
		}
		r.value = items
		return nil
	}
	var one ordered.MapSlice
	if err := unmarshal(&one); err != nil {
		return err
	}
	r.value = one
	return nil
}

// yamlTree reads one YAML document; nil when it is empty. Beside the tree comes
// the one to look for duplicates in.
func yamlTree(data []byte) (value, written *tree, err error) {
	if t, ok := plainTree(data); ok {
		return t, t, nil
	}
	return libraryTree(data)
}

// libraryTree is yamlTree for whatever YAML there is.
func libraryTree(data []byte) (value, written *tree, err error) {
	var root yamlRoot
	err = ordered.Unmarshal(data, &root)
	if wrong := (*ordered.TypeError)(nil); errors.As(err, &wrong) {
		err = errors.New("must be an object with kind, apiVersion, metadata and spec, or a list of them")
	}
	if err != nil {
		return nil, nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if root.value == nil {
		return nil, nil, nil
	}
	written, err = fromYAML(root.value, 0)
	if err != nil {
		return nil, nil, err
	}
	if !strings.Contains(string(data), "<<") {
		return written, written, nil
	}
	// The ordered reading drops what a merge key brings in; the other keeps it.
	merged, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	trees, _, err := jsonTrees(merged)
	if err != nil || len(trees) != 1 {
		return nil, nil, fmt.Errorf("read what a merge key brings in: %w", err)
	}
	return trees[0], written, nil
}

// fromYAML turns what the YAML library returns into a tree.
func fromYAML(v any, depth int) (*tree, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch v := v.(type) {
	case ordered.MapSlice:
		t := &tree{shape: object}
		for _, item := range v {
			key, err := fromYAML(item.Key, maxDepth)
			if err != nil || key.shape != text && key.shape != number {
				return nil, fmt.Errorf("key %q must be text: put it in quotes", fmt.Sprint(item.Key))
			}
			value, err := fromYAML(item.Value, depth+1)
			if err != nil {
				return nil, err
			}
			t.keys, t.items = append(t.keys, key.scalar), append(t.items, value)
		}
		return t, nil
	case []any:
		t := &tree{shape: list}
		for _, item := range v {
			value, err := fromYAML(item, depth+1)
			if err != nil {
				return nil, err
			}
			t.items = append(t.items, value)
		}
		return t, nil
	}
	return yamlScalar(v)
}

// yamlScalar turns a single YAML value into a tree.
func yamlScalar(v any) (*tree, error) {
	switch v := v.(type) {
	case nil:
		return &tree{}, nil
	case bool:
		return &tree{shape: boolean, scalar: strconv.FormatBool(v)}, nil
	case int, int64, uint64:
		return &tree{shape: number, scalar: fmt.Sprint(v)}, nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) { // no field can hold it, and the field's error names it
			return &tree{shape: number, scalar: fmt.Sprint(v)}, nil
		}
		b, err := json.Marshal(v)
		return &tree{shape: number, scalar: string(b)}, err
	case string:
		if !utf8.ValidString(v) {
			return nil, fmt.Errorf("%q is not text in UTF-8", v)
		}
		return &tree{shape: text, scalar: v}, nil
	}
	return nil, fmt.Errorf("a value of type %T has no place here", v)
}
