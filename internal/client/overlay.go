package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
)

// overlay carries the difference between two encodings of an object over to
// the document that the first was read from. What the two agree on stays as it
// stands in the document, and so does what neither knows. It returns the
// document's own bytes if there is no difference.
func overlay(document, before, after []byte) ([]byte, error) {
	var trees [3]any
	for i, b := range [][]byte{document, before, after} {
		var err error
		if trees[i], err = parseTree(b); err != nil {
			return nil, err
		}
	}
	if reflect.DeepEqual(trees[1], trees[2]) {
		return document, nil
	}
	out, err := json.Marshal(patch(trees[0], trees[1], trees[2]))
	if err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return out, nil
}

// parseTree reads JSON without changing a number.
func parseTree(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	return v, nil
}

// patch returns raw with the difference between before and after in it.
func patch(raw, before, after any) any {
	if reflect.DeepEqual(before, after) {
		return raw
	}
	switch a := after.(type) {
	case map[string]any:
		r, ok := raw.(map[string]any)
		if !ok {
			return after
		}
		b, _ := before.(map[string]any) // absent is as good as empty
		return patchObject(r, b, a)
	case []any:
		r, okR := raw.([]any)
		b, okB := before.([]any)
		if !okR || !okB || len(r) != len(b) {
			return after
		}
		return patchList(r, b, a)
	}
	return after
}

func patchObject(raw, before, after map[string]any) map[string]any {
	out := make(map[string]any, len(raw))
	for key, v := range raw {
		_, was := before[key]
		_, is := after[key]
		if !was || is {
			out[key] = v
		}
	}
	for key, v := range after {
		old, stored := out[key]
		if !stored {
			out[key] = v
			continue
		}
		out[key] = patch(old, before[key], v)
	}
	return out
}

// patchList keeps the stored form of each element that is in both lists, in
// whatever place. An element that changed in its place is patched.
func patchList(raw, before, after []any) []any {
	out := make([]any, len(after))
	from := match(before, after)
	used := make([]bool, len(before))
	for _, j := range from {
		if j >= 0 {
			used[j] = true
		}
	}
	for i, v := range after {
		switch j := from[i]; {
		case j >= 0:
			out[i] = raw[j]
		case len(before) == len(after) && !used[i]:
			out[i] = patch(raw[i], before[i], v)
		default:
			out[i] = v
		}
	}
	return out
}

// match returns for each element of after the place of an equal one in before
// that no other has, or -1. Elements in front of the first change and behind
// the last keep their partners, also where several are equal.
func match(before, after []any) []int {
	from := make([]int, len(after))
	for i := range from {
		from[i] = -1
	}
	used := make([]bool, len(before))
	pair := func(i, j int) bool {
		if i < 0 || j < 0 || from[i] >= 0 || used[j] || !reflect.DeepEqual(before[j], after[i]) {
			return false
		}
		from[i], used[j] = j, true
		return true
	}
	for i := 0; i < min(len(before), len(after)) && pair(i, i); i++ {
	}
	for i, j := len(after)-1, len(before)-1; pair(i, j); i, j = i-1, j-1 {
	}
	for i := range after {
		for j := range before {
			if pair(i, j) {
				break
			}
		}
	}
	return from
}
