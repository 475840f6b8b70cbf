package v3

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// walker puts a tree into a Go value and notes all that does not fit. One may
// be used for many objects, one after another.
type walker struct {
	root    reflect.Type // the kind's type, to tell where a lost field belongs
	lenient bool         // pass over keys that no field takes
	errs    FieldErrors
	path    []step                   // to what is being assigned
	known   map[reflect.Type][]field // of the structs met so far
}

// step is one step of a path: a key, or a place in a list.
type step struct {
	key   string
	index int // of an item
	item  bool
}

// read puts a tree into an object and returns all that does not fit.
func (w *walker) read(t *tree, o Object) FieldErrors {
	v := reflect.ValueOf(o).Elem()
	w.root, w.errs, w.path = v.Type(), nil, w.path[:0]
	w.assign(t, v)
	return w.errs
}

// at writes the path to what is being assigned.
func (w *walker) at() string {
	path := ""
	for _, s := range w.path {
		if s.item {
			path = indexed(path, s.index)
		} else {
			path = dotted(path, s.key)
		}
	}
	return path
}

// into assigns what is one step further.
func (w *walker) into(s step, t *tree, v reflect.Value) {
	w.path = append(w.path, s)
	w.assign(t, v)
	w.path = w.path[:len(w.path)-1]
}

// wrong notes that what stands here does not fit.
func (w *walker) wrong(t *tree, rule string) {
	e := FieldError{Path: w.at(), Rule: rule}
	if t.shape == list || t.shape == object {
		e.Rule += ", not " + t.shape.noun()
	} else {
		e.Value = t.scalar
	}
	w.errs = append(w.errs, e)
}

// assign puts t into v. What does not fit leaves v as it was.
func (w *walker) assign(t *tree, v reflect.Value) {
	if t.shape == null {
		return
	}
	if v.Kind() == reflect.Pointer {
		p := reflect.New(v.Type().Elem())
		if e := p.Elem(); e.Kind() == reflect.Slice {
			e.Set(reflect.MakeSlice(e.Type(), 0, 0)) // an empty list differs from none
		}
		w.assign(t, p.Elem())
		v.Set(p)
		return
	}
	if u, ok := v.Addr().Interface().(json.Unmarshaler); ok {
		if err := u.UnmarshalJSON(t.json()); err != nil {
			w.wrong(t, err.Error())
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		w.assignStruct(t, v)
	case reflect.Map:
		w.assignMap(t, v)
	case reflect.Slice:
		w.assignSlice(t, v)
	case reflect.String:
		w.assignString(t, v)
	case reflect.Bool:
		if t.shape != boolean {
			w.wrong(t, "must be true or false")
			return
		}
		v.SetBool(t.scalar == "true")
	default:
		w.assignNumber(t, v)
	}
}

// fields returns what fieldsOf does, looking once.
func (w *walker) fields(t reflect.Type) []field {
	all, ok := w.known[t]
	if !ok {
		if w.known == nil {
			w.known = map[reflect.Type][]field{}
		}
		all = fieldsOf(t)
		w.known[t] = all
	}
	return all
}

func (w *walker) assignStruct(t *tree, v reflect.Value) {
	if t.shape != object {
		w.wrong(t, "must be an object")
		return
	}
	known := w.fields(v.Type())
	for i, key := range t.keys {
		f, ok := find(known, key)
		if ok {
			w.into(step{key: key}, t.items[i], v.FieldByIndex(f.index))
			continue
		}
		if _, partial := v.Addr().Interface().(Partial); partial || w.lenient {
			continue
		}
		path := w.at()
		w.errs = append(w.errs, FieldError{Path: dotted(path, key), Rule: "unknown field", Hint: w.hint(known, path, key)})
	}
}

// hint says which field was meant: one of the same object, or the one of that
// name elsewhere in the kind.
func (w *walker) hint(known []field, path, key string) string {
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = f.name
	}
	if n := nearest(key, names); n != "" {
		return "did you mean " + strconv.Quote(n) + "?"
	}
	if slices.Contains([]string{"name", "namespace", "labels", "annotations"}, key) && path != "metadata" {
		return "did you mean metadata." + key + "?"
	}
	if at := locate(w.root, key, "", 0); at != "" && at != dotted(path, key) {
		return "did you mean " + at + "?"
	}
	return ""
}

func (w *walker) assignMap(t *tree, v reflect.Value) {
	if t.shape != object {
		w.wrong(t, "must be an object")
		return
	}
	if len(t.keys) == 0 {
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(t.keys)))
	for i, key := range t.keys {
		if key == "<<" {
			w.errs = append(w.errs, FieldError{Path: dotted(w.at(), key), Rule: "cannot be a key: it means a merge to YAML"})
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		w.into(step{key: key}, t.items[i], e)
		v.SetMapIndex(reflect.ValueOf(key), e)
	}
}

func (w *walker) assignSlice(t *tree, v reflect.Value) {
	if t.shape != list {
		w.wrong(t, "must be a list")
		return
	}
	if len(t.items) == 0 {
		return
	}
	s := reflect.MakeSlice(v.Type(), len(t.items), len(t.items))
	for i, item := range t.items {
		w.into(step{index: i, item: true}, item, s.Index(i))
	}
	v.Set(s)
}

func (w *walker) assignString(t *tree, v reflect.Value) {
	switch t.shape {
	case text:
		v.SetString(t.scalar)
	case number:
		w.wrong(t, "must be text: put it in quotes")
	case boolean:
		w.wrong(t, "must be text: put it in quotes, as YAML takes y, n, yes, no, on and off for true or false")
	default:
		w.wrong(t, "must be text")
	}
}

func (w *walker) assignNumber(t *tree, v reflect.Value) {
	bits := v.Type().Bits()
	switch v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(t.scalar, 10, bits)
		if err != nil || t.shape != number {
			w.wrong(t, fmt.Sprintf("must be a whole number from %d to %d", -1<<(bits-1), 1<<(bits-1)-1))
			return
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(t.scalar, 10, bits)
		if err != nil || t.shape != number {
			w.wrong(t, fmt.Sprintf("must be a whole number from 0 to %d", uint64(math.MaxUint64)>>(64-bits)))
			return
		}
		v.SetUint(n)
	default:
		n, err := strconv.ParseFloat(t.scalar, bits)
		if err != nil || t.shape != number || math.IsInf(n, 0) || math.IsNaN(n) {
			w.wrong(t, "must be a number")
			return
		}
		v.SetFloat(n)
	}
}

// field is one field of a struct as JSON sees it.
type field struct {
	name  string
	index []int
	tag   reflect.StructTag
	typ   reflect.Type
}

// fieldsOf returns the fields of a struct, those of inlined structs with it, in
// the order in which they are declared.
func fieldsOf(t reflect.Type) []field {
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if f.Anonymous && name == "" {
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				all = append(all, inner)
			}
			continue
		}
		all = append(all, field{name, []int{i}, f.Tag, f.Type})
	}
	return all
}

// find returns the field of that very name.
func find(known []field, name string) (field, bool) {
	for _, f := range known {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

// locate returns the path of the first field called name below t, "" if there
// is none within four levels.
func locate(t reflect.Type, name, path string, depth int) string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if depth > 3 || t.Kind() != reflect.Struct || isScalar(t) {
		return ""
	}
	known := fieldsOf(t)
	if f, ok := find(known, name); ok {
		return dotted(path, f.name)
	}
	for _, f := range known {
		if f.name == "metadata" {
			continue
		}
		at := dotted(path, f.name)
		if f.typ.Kind() == reflect.Slice {
			at += "[]"
		}
		if found := locate(f.typ, name, at, depth+1); found != "" {
			return found
		}
	}
	return ""
}

// isScalar says whether a type is written as a single value although it is a
// struct in Go.
func isScalar(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]())
}
