package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// operation is one step of a JSON patch (RFC 6902, section 4).
type operation struct {
	Op    string          `json:"op"`
	Path  *string         `json:"path"`
	From  *string         `json:"from"`
	Value json.RawMessage `json:"value"`
}

// parseJSONPatch reads the operations of a patch.
func parseJSONPatch(data []byte) ([]operation, error) {
	var ops []operation
	if err := json.Unmarshal(data, &ops); err != nil {
		return nil, errors.New("a JSON patch must be a list of operations, as [{\"op\": \"replace\", \"path\": \"/spec/…\", \"value\": …}]")
	}
	for i, o := range ops {
		wants := map[string][2]bool{ // from, value
			"add": {false, true}, "replace": {false, true}, "test": {false, true}, "remove": {}, "move": {true, false}, "copy": {true, false},
		}
		need, known := wants[o.Op]
		switch {
		case !known:
			return nil, fmt.Errorf("operation %d: op %q: must be add, remove, replace, move, copy or test", i+1, o.Op)
		case o.Path == nil:
			return nil, fmt.Errorf("operation %d: %s needs a path", i+1, o.Op)
		case need[0] && o.From == nil:
			return nil, fmt.Errorf("operation %d: %s needs a from", i+1, o.Op)
		case need[1] && len(o.Value) == 0:
			return nil, fmt.Errorf("operation %d: %s needs a value", i+1, o.Op)
		}
	}
	return ops, nil
}

// applyJSONPatch carries out the operations, one after another, all or none.
func applyJSONPatch(doc any, ops []operation) (any, error) {
	for i, o := range ops {
		var err error
		if doc, err = o.apply(doc); err != nil {
			return nil, fmt.Errorf("operation %d: %s %s: %w", i+1, o.Op, *o.Path, err)
		}
	}
	return doc, nil
}

func (o operation) apply(doc any) (any, error) {
	path, err := parsePointer(*o.Path)
	if err != nil {
		return nil, err
	}
	var value any
	if len(o.Value) > 0 {
		if err := json.Unmarshal(o.Value, &value); err != nil {
			return nil, err
		}
	}
	if o.From != nil && (o.Op == "move" || o.Op == "copy") {
		from, err := parsePointer(*o.From)
		if err != nil {
			return nil, err
		}
		if value, err = lookAt(doc, from); err != nil {
			return nil, fmt.Errorf("from %s: %w", *o.From, err)
		}
		value = copyTree(value)
		if o.Op == "move" {
			if strings.HasPrefix(*o.Path, *o.From+"/") {
				return nil, errors.New("nothing can be moved into itself")
			}
			if doc, err = change(doc, from, "remove", nil); err != nil {
				return nil, err
			}
		}
	}
	switch o.Op {
	case "test":
		is, err := lookAt(doc, path)
		if err == nil && !reflect.DeepEqual(is, value) {
			text, _ := json.Marshal(is) // it came out of JSON
			err = fmt.Errorf("it is %s", text)
		}
		return doc, err
	case "move", "copy":
		return change(doc, path, "add", value)
	}
	return change(doc, path, o.Op, value)
}

// parsePointer reads a JSON pointer (RFC 6901).
func parsePointer(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	if s[0] != '/' {
		return nil, fmt.Errorf("path %q: must begin with a slash", s)
	}
	parts := strings.Split(s[1:], "/")
	for i, p := range parts {
		parts[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(p)
	}
	return parts, nil
}

// errNoSuch says that a path leads nowhere.
var errNoSuch = errors.New("there is nothing at this path")

// lookAt returns what is at a path.
func lookAt(doc any, path []string) (any, error) {
	for _, part := range path {
		switch d := doc.(type) {
		case map[string]any:
			v, ok := d[part]
			if !ok {
				return nil, errNoSuch
			}
			doc = v
		case []any:
			i, err := index(part, len(d)-1)
			if err != nil {
				return nil, err
			}
			doc = d[i]
		default:
			return nil, errNoSuch
		}
	}
	return doc, nil
}

// index reads the place of an element.
func index(part string, most int) (int, error) {
	i, err := strconv.Atoi(part)
	if err != nil || i < 0 || strconv.Itoa(i) != part {
		return 0, fmt.Errorf("%q is no place in a list", part)
	}
	if i > most {
		return 0, errNoSuch
	}
	return i, nil
}

// change returns a tree with one value added, replaced or removed. What is
// above it is changed in place.
func change(doc any, path []string, op string, value any) (any, error) {
	if len(path) == 0 {
		if op == "remove" {
			return nil, errors.New("the whole object cannot be removed")
		}
		return value, nil
	}
	part, last := path[0], len(path) == 1
	switch d := doc.(type) {
	case map[string]any:
		old, there := d[part]
		switch {
		case !there && (!last || op != "add"):
			return nil, errNoSuch
		case last && op == "remove":
			delete(d, part)
			return d, nil
		}
		v, err := change(old, path[1:], op, value)
		d[part] = v
		return d, err
	case []any:
		return changeList(d, path, op, value)
	}
	return nil, errNoSuch
}

func changeList(d []any, path []string, op string, value any) (any, error) {
	part, last := path[0], len(path) == 1
	if last && op == "add" {
		if part == "-" {
			return append(d, value), nil
		}
		i, err := index(part, len(d))
		if err != nil {
			return nil, err
		}
		return slices.Insert(d, i, value), nil
	}
	i, err := index(part, len(d)-1)
	if err != nil {
		return nil, err
	}
	if last && op == "remove" {
		return slices.Delete(d, i, i+1), nil
	}
	d[i], err = change(d[i], path[1:], op, value)
	return d, err
}

// copyTree copies what came out of JSON.
func copyTree(v any) any {
	switch x := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, v := range x {
			out[k] = copyTree(v)
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i, v := range x {
			out[i] = copyTree(v)
		}
		return out
	}
	return v
}
