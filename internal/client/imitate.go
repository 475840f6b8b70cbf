package client

import (
	"encoding/json"
	"fmt"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// imitate returns a stored object with the spec, labels and annotations of
// another, defaults filled in. Status and other metadata stay.
func imitate(kind v3.KindInfo, stored, like v3.Object) (v3.Object, error) {
	full, err := copyOf(kind, like)
	if err != nil {
		return nil, err
	}
	v3.Default(full)
	parts, err := fields(stored)
	if err != nil {
		return nil, err
	}
	wanted, err := fields(full)
	if err != nil {
		return nil, err
	}
	delete(parts, "spec")
	if spec, ok := wanted["spec"]; ok {
		parts["spec"] = spec
	}
	b, err := json.Marshal(parts)
	if err != nil {
		return nil, fmt.Errorf("take over into %s: %w", kind.Kind, err)
	}
	out := kind.New()
	if err := json.Unmarshal(b, out); err != nil {
		return nil, fmt.Errorf("take over into %s: %w", kind.Kind, err)
	}
	out.Meta().Labels, out.Meta().Annotations = full.Meta().Labels, full.Meta().Annotations
	return out, nil
}

// fields returns the parts of an object: kind, metadata, spec and the like.
func fields(o v3.Object) (map[string]json.RawMessage, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("take %s apart: %w", o.Type().Kind, err)
	}
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return nil, fmt.Errorf("take %s apart: %w", o.Type().Kind, err)
	}
	return parts, nil
}
