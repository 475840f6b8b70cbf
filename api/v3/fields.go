package v3

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// FieldInfo is one field of one kind.
type FieldInfo struct {
	Kind    string
	Path    string // "spec.exportV4[].cidr"; "metadata.name" is listed once, with Kind ""
	Type    string // in words: "text", "list of port", "object"
	Default string // what holds when it is not set; "" for nothing
	Test    string // that proves the field honoured; "" when it is not yet
	Block   bool   // an object or a list of objects: its fields follow
}

// Key is how the table of honoured fields names the field.
func (f FieldInfo) Key() string {
	if f.Kind == "" {
		return f.Path
	}
	return f.Kind + "." + f.Path
}

// Fields returns every field of every kind: metadata, which all kinds share,
// then kind by kind in the order of declaration.
func Fields() []FieldInfo {
	all := fieldsBelow("", "metadata", reflect.TypeFor[ObjectMeta]())
	for _, k := range kinds {
		t := reflect.TypeOf(k.New()).Elem()
		for _, f := range fieldsOf(t) {
			if f.name == "spec" || f.name == "status" {
				all = append(all, fieldsBelow(k.Kind, f.name, f.typ)...)
			}
		}
	}
	return all
}

// HonouredFields returns the tests that prove fields honoured, by key.
func HonouredFields() map[string]string { return maps.Clone(honoured) }

// fieldsBelow lists the fields of the struct that t is or points to.
func fieldsBelow(kind, path string, t reflect.Type) []FieldInfo {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var all []FieldInfo
	for _, f := range fieldsOf(t) {
		at := path + "." + f.name
		inner, lists := innermost(f.typ)
		info := FieldInfo{Kind: kind, Path: at, Type: typeWords(f.typ), Default: f.tag.Get("default")}
		info.Block = inner.Kind() == reflect.Struct && !isScalar(inner)
		info.Test = provenBy(honoured, info.Key())
		all = append(all, info)
		if info.Block {
			all = append(all, fieldsBelow(kind, at+strings.Repeat("[]", lists), inner)...)
		}
	}
	return all
}

// innermost takes pointers and lists off a type and counts the lists.
func innermost(t reflect.Type) (inner reflect.Type, lists int) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		if t.Kind() == reflect.Slice {
			lists++
		}
		t = t.Elem()
	}
	return t, lists
}

// typeWords names a type as a user knows it.
func typeWords(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Port]():
		return "port"
	case reflect.TypeFor[Protocol]():
		return "protocol"
	case reflect.TypeFor[Duration]():
		return "duration"
	case reflect.TypeFor[ASNumber]():
		return "AS number"
	case reflect.TypeFor[IntOrString]():
		return "integer or text"
	case reflect.TypeFor[Time]():
		return "time"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeWords(t.Elem())
	case reflect.Slice:
		return "list of " + typeWords(t.Elem())
	case reflect.Map:
		return "map of " + typeWords(t.Elem())
	case reflect.Struct:
		return "object"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "bool"
	case reflect.Float64:
		return "number"
	}
	return "integer"
}

// provenBy returns the test that proves a field honoured, "" if none does.
func provenBy(table map[string]string, key string) string {
	if test := table[key]; test != "" {
		return test
	}
	for _, list := range []string{"ingress", "egress"} {
		of, field, found := strings.Cut(key, ".spec."+list+"[].")
		if found && table[of+".spec."+list] != "" {
			return table["Rule."+field]
		}
	}
	return ""
}

// NotHonoured returns the paths of the fields in o's spec that are set and that
// nothing comes of yet, in the order of declaration and each once, with "[]"
// for all elements of a list. A field that asks for what holds anyway, such as
// encapsulation Never, is not among them. Call it before Default.
func NotHonoured(o Object) []string { return notHonoured(o, honoured) }

func notHonoured(o Object, table map[string]string) []string {
	v := reflect.ValueOf(o).Elem()
	for _, f := range fieldsOf(v.Type()) {
		if f.name == "spec" {
			u := unproven{kind: o.Type().Kind, table: table}
			u.block(v.FieldByIndex(f.index), "spec")
			return u.paths
		}
	}
	return nil
}

// unproven gathers the set fields of an object that no test proves.
type unproven struct {
	kind  string
	table map[string]string // of honoured fields
	paths []string
}

// block looks at the fields of a struct.
func (u *unproven) block(v reflect.Value, path string) {
	for _, f := range fieldsOf(v.Type()) {
		u.field(v.FieldByIndex(f.index), path+"."+f.name, f.tag.Get("default"))
	}
}

func (u *unproven) field(v reflect.Value, path, byDefault string) {
	if v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0 {
		return
	}
	inner, _ := innermost(v.Type())
	if inner.Kind() == reflect.Struct && !isScalar(inner) {
		before := len(u.paths)
		empty := u.elements(v, path)
		if empty && before == len(u.paths) && provenBy(u.table, u.kind+"."+path) == "" {
			u.add(path)
		}
		return
	}
	if provenBy(u.table, u.kind+"."+path) == "" && !asksNothing(v, byDefault) {
		u.add(path)
	}
}

// elements looks at the objects that v is, points to or lists. It returns true
// when one of them is set but empty, which says something by itself.
func (u *unproven) elements(v reflect.Value, path string) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return u.elements(v.Elem(), path)
	case reflect.Slice:
		empty := v.Len() == 0
		for i := range v.Len() {
			empty = u.elements(v.Index(i), path+"[]") || empty
		}
		return empty
	}
	u.block(v, path)
	return v.IsZero()
}

func (u *unproven) add(path string) {
	if !slices.Contains(u.paths, path) {
		u.paths = append(u.paths, path)
	}
}

// asksNothing says whether a value is a default that switches something off:
// leaving it out would be the same, now and once the field is honoured.
func asksNothing(v reflect.Value, byDefault string) bool {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	written := fmt.Sprint(v.Interface())
	if b, err := json.Marshal(v.Interface()); err == nil {
		written = string(b)
		if s, err := strconv.Unquote(written); err == nil {
			written = s
		}
	}
	return written == byDefault && slices.Contains([]string{"Never", "Disabled", "None", "Off", "false", "0", "0s"}, written)
}
