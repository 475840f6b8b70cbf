package ipam

import (
	"encoding/json"
	"errors"
	"strconv"
)

// fields splits a JSON object into its fields, raw, several times faster than
// decoding does: a scan reads every block there is. Of two fields with one
// name the later counts, as in encoding/json.
func fields(object []byte) (map[string]rawJSON, error) {
	if !json.Valid(object) {
		var v any
		return nil, json.Unmarshal(object, &v) // says what is wrong where
	}
	out := map[string]rawJSON{}
	err := eachField(object, func(name string, value []byte) error {
		out[name] = append(rawJSON(nil), value...)
		return nil
	})
	return out, err
}

var (
	errNoObject = errors.New("must be an object")
	errNoList   = errors.New("must be a list")
	errNoString = errors.New("must be a string")
)

// eachField calls f for every field of an object, which must be valid JSON.
// null has no fields. value must not be kept.
func eachField(object []byte, f func(name string, value []byte) error) error {
	i := space(object, 0)
	if isNull(object[i:]) {
		return nil
	}
	if object[i] != '{' {
		return errNoObject
	}
	for i = space(object, i+1); object[i] != '}'; {
		end := skip(object, i)
		name, err := unquote(object[i:end])
		if err != nil {
			return err
		}
		i = space(object, space(object, end)+1) // over the colon
		end = skip(object, i)
		if err := f(name, object[i:end]); err != nil {
			return err
		}
		if i = space(object, end); object[i] == ',' {
			i = space(object, i+1)
		}
	}
	return nil
}

// eachItem calls f for every item of a list, which must be valid JSON. null
// has no items.
func eachItem(list []byte, f func(value []byte) error) error {
	i := space(list, 0)
	if isNull(list[i:]) {
		return nil
	}
	if list[i] != '[' {
		return errNoList
	}
	for i = space(list, i+1); list[i] != ']'; {
		end := skip(list, i)
		if err := f(list[i:end]); err != nil {
			return err
		}
		if i = space(list, end); list[i] == ',' {
			i = space(list, i+1)
		}
	}
	return nil
}

func isNull(value []byte) bool { return len(value) >= 4 && string(value[:4]) == "null" }

// space returns where the white space that begins at i ends.
func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skip returns where the value that begins at i ends.
func skip(b []byte, i int) int {
	depth := 0
	for ; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // a number or word ends here
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
	}
	return i
}

// unquote reads a string; null is the empty one.
func unquote(value []byte) (string, error) {
	if isNull(value) {
		return "", nil
	}
	if value[0] != '"' {
		return "", errNoString
	}
	for _, c := range value {
		if c == '\\' || c >= 0x80 { // escapes, and what may not be UTF-8
			var s string
			err := json.Unmarshal(value, &s)
			return s, err
		}
	}
	return string(value[1 : len(value)-1]), nil
}

// stringMap reads an object of strings; null is none.
func stringMap(value []byte) (map[string]string, error) {
	var out map[string]string
	err := eachField(value, func(name string, value []byte) error {
		s, err := unquote(value)
		if out == nil {
			out = map[string]string{}
		}
		out[name] = s
		return err
	})
	return out, err
}

// number reads a count or an index, which are never negative.
func number(value []byte) (int, error) {
	n, err := strconv.ParseUint(string(value), 10, 31)
	return int(n), err
}
