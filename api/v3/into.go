package v3

import (
	"reflect"
	"slices"
	"strings"
)

// DecodeInto reads a file of one YAML or JSON document that is no object of
// this API into a struct with json tags, as strictly as DecodeAll: an unknown
// field, a wrong type or a field given twice is an error with the field, the
// value and what was meant. The error is DocumentErrors with all that is wrong,
// where validation's FieldErrors may be added. An empty file changes nothing.
func DecodeInto(file string, data []byte, into any) error {
	value, written, err := yamlTree(data)
	if err != nil {
		why := strings.Replace(err.Error(), " with kind, apiVersion, metadata and spec, or a list of them", "", 1)
		return DocumentErrors{{File: file, Field: FieldError{Rule: "bad YAML: " + printable(strings.ReplaceAll(why, "\n", " "))}}}
	}
	if value == nil {
		return nil
	}
	wrong := written.duplicates("")
	w := walker{}
	v := reflect.ValueOf(into).Elem()
	w.root = v.Type()
	w.assign(value, v)
	return InFile(file, append(wrong, w.errs...)).Err()
}

// InFile says that what is wrong stands in a file, for what is found after
// decoding.
func InFile(file string, wrong FieldErrors) DocumentErrors {
	var out DocumentErrors
	for _, f := range wrong {
		out = append(out, DocumentError{File: file, Field: f})
	}
	return out
}

// OneOf checks that a value is one of those allowed. There is at most one
// error, which says the nearest.
func OneOf(path, value string, allowed ...string) FieldErrors {
	if slices.Contains(allowed, value) {
		return nil
	}
	e := FieldError{Path: path, Value: value, Rule: "must be one of " + strings.Join(allowed, ", ")}
	if len(allowed) == 0 {
		e.Rule = "is none that there is"
	}
	if n := nearest(value, allowed); n != "" {
		e.Hint = "did you mean " + n + "?"
	}
	return FieldErrors{e}
}
