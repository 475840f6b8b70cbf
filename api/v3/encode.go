package v3

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"sigs.k8s.io/yaml"
)

// Encode returns an object as it is stored: JSON on one line.
func Encode(o Object) ([]byte, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", o.Type().Kind, strconv.Quote(nameOf(o.Meta())), err)
	}
	return b, nil
}

// DecodeStored reads a stored object. Unlike DecodeAll it is lenient: fields
// that this version does not know are left out, a kind it does not know is
// ErrUnknownKind.
func DecodeStored(data []byte) (Object, error) {
	var t TypeMeta
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, fmt.Errorf("read the kind of a stored object: %w", err)
	}
	k, ok := kindNamed(t.Kind)
	if !ok {
		return nil, fmt.Errorf("read a stored object of kind %q: %w", t.Kind, ErrUnknownKind)
	}
	o := k.New()
	if err := json.Unmarshal(data, o); err != nil {
		return nil, fmt.Errorf("read a stored %s: %w", k.Kind, err)
	}
	return o, nil
}

// ErrUnknownKind says that a stored value is of no kind of this API.
var ErrUnknownKind = errors.New("unknown kind")

// EncodeYAML returns an object, or a list of them, as YAML with its keys
// sorted.
func EncodeYAML(v any) ([]byte, error) {
	b, err := yaml.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode as YAML: %w", err)
	}
	return b, nil
}

// YAMLToJSON turns any YAML into JSON, for files that hold no object, such as a
// patch. Keys given twice are an error.
func YAMLToJSON(data []byte) ([]byte, error) {
	b, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, fmt.Errorf("read YAML: %w", err)
	}
	return b, nil
}
