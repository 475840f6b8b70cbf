package v3

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"sigs.k8s.io/yaml"
	ordered "sigs.k8s.io/yaml/goyaml.v2"
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
	if k, ok := kindAtStart(data); ok { // nearly all: no need to read them twice
		o := k.New()
		if json.Unmarshal(data, o) == nil && o.Type().Kind == k.Kind {
			return o, nil
		}
	}
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

// kindAtStart finds the kind of an object that begins with it, as clients
// store them.
func kindAtStart(data []byte) (KindInfo, bool) {
	rest, ok := bytes.CutPrefix(data, []byte(`{"kind":"`))
	name, _, closed := bytes.Cut(rest[:min(len(rest), 64)], []byte(`"`))
	if !ok || !closed {
		return KindInfo{}, false
	}
	return kindNamed(string(name))
}

// DecodeStoredPart reads what can be read of a stored object that DecodeStored
// refuses, for what must not be lost whole because of one value. A field that
// does not fit has its zero value, and is told. An error says that not even
// the kind can be read.
func DecodeStoredPart(data []byte) (Object, FieldErrors, error) {
	trees, _, err := jsonTrees(data)
	if err != nil || len(trees) != 1 || trees[0].shape != object {
		return nil, nil, errors.New("read a stored object: no JSON object")
	}
	kind := ""
	if t := trees[0].get("kind"); t != nil && t.shape == text {
		kind = t.scalar
	}
	k, ok := kindNamed(kind)
	if !ok {
		return nil, nil, fmt.Errorf("read a stored object of kind %q: %w", kind, ErrUnknownKind)
	}
	o := k.New()
	w := &walker{lenient: true}
	return o, w.read(trees[0], o), nil
}

// ErrUnknownKind says that a stored value is of no kind of this API.
var ErrUnknownKind = errors.New("unknown kind")

// EncodeYAML returns an object, or a list of them, as YAML with its keys
// sorted. Control characters come out escaped, so a terminal may see it.
func EncodeYAML(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode as YAML: %w", err)
	}
	// The library's own way takes the JSON for YAML, which it is not quite:
	// JSON leaves some characters unescaped that YAML refuses or folds.
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var generic any
	if err := d.Decode(&generic); err != nil {
		return nil, fmt.Errorf("encode as YAML: %w", err)
	}
	if b, err = ordered.Marshal(forYAML(generic)); err != nil {
		return nil, fmt.Errorf("encode as YAML: %w", err)
	}
	return hidden.ReplaceAll(b, []byte(`\U$1`)), nil
}

// hidden is how a rune that forYAML has hidden comes out.
var hidden = regexp.MustCompile(`\\x01([0-9a-f]{8})\\x02`)

// hide puts runes that steer a terminal, such as a change of writing direction,
// between two control characters: the library escapes those, not these.
func hide(s string) string {
	steers := func(c rune) bool { return c == 1 || unicode.Is(unicode.Cf, c) }
	if strings.IndexFunc(s, steers) < 0 {
		return s
	}
	var b strings.Builder
	for _, c := range s {
		if steers(c) {
			fmt.Fprintf(&b, "\x01%08x\x02", c)
		} else {
			b.WriteRune(c)
		}
	}
	return b.String()
}

// forYAML turns the numbers below v into Go's, whole ones without loss, and
// hides runes in text.
func forYAML(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k := range v {
			m[hide(k)] = forYAML(v[k])
		}
		return m
	case []any:
		for i := range v {
			v[i] = forYAML(v[i])
		}
	case string:
		return hide(v)
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return n
		}
		if n, err := v.Float64(); err == nil {
			return n
		}
		return v.String()
	}
	return v
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
