package client

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOverlayKeepsWhatItDoesNotKnow(t *testing.T) {
	tests := []struct{ name, document, before, after, want string }{
		{"no difference keeps the bytes", `{ "x":1,  "new":1e3}`, `{"x":1}`, `{"x":1}`, `{ "x":1,  "new":1e3}`},
		{"change", `{"a":1,"new":2}`, `{"a":1}`, `{"a":3}`, `{"a":3,"new":2}`},
		{"at depth", `{"s":{"t":{"a":1,"new":2},"new":3}}`, `{"s":{"t":{"a":1}}}`, `{"s":{"t":{"a":5}}}`, `{"s":{"new":3,"t":{"a":5,"new":2}}}`},
		{"added", `{"new":2}`, `{}`, `{"a":3}`, `{"a":3,"new":2}`},
		{"removed", `{"a":1,"new":2}`, `{"a":1}`, `{}`, `{"new":2}`},
		{"removed with what it had", `{"a":{"b":1,"new":2}}`, `{"a":{"b":1}}`, `{}`, `{}`},
		{"added inside what looked empty", `{"a":{"new":2}}`, `{}`, `{"a":{"b":1}}`, `{"a":{"b":1,"new":2}}`},
		{"number stays as written", `{"a":1e6,"b":1}`, `{"a":1000000,"b":1}`, `{"a":1000000,"b":2}`, `{"a":1e6,"b":2}`},
		{"large number", `{"n":18446744073709551615,"b":1}`, `{"b":1}`, `{"b":2}`, `{"b":2,"n":18446744073709551615}`},
		{"list element changed", `{"l":[{"a":1,"new":1},{"a":2,"new":2}]}`, `{"l":[{"a":1},{"a":2}]}`, `{"l":[{"a":1},{"a":3}]}`, `{"l":[{"a":1,"new":1},{"a":3,"new":2}]}`},
		{"list element in front", `{"l":[{"a":1,"new":1},{"a":2,"new":2}]}`, `{"l":[{"a":1},{"a":2}]}`, `{"l":[{"a":0},{"a":1},{"a":2}]}`, `{"l":[{"a":0},{"a":1,"new":1},{"a":2,"new":2}]}`},
		{"list element removed", `{"l":[{"a":1,"new":1},{"a":2,"new":2},{"a":3,"new":3}]}`, `{"l":[{"a":1},{"a":2},{"a":3}]}`, `{"l":[{"a":1},{"a":3}]}`, `{"l":[{"a":1,"new":1},{"a":3,"new":3}]}`},
		{"list in another order", `{"l":[{"a":1,"new":1},{"a":2,"new":2}]}`, `{"l":[{"a":1},{"a":2}]}`, `{"l":[{"a":2},{"a":1}]}`, `{"l":[{"a":2,"new":2},{"a":1,"new":1}]}`},
		{"equal elements keep their order", `{"l":[{"new":1},{"new":2}]}`, `{"l":[{},{}]}`, `{"l":[{},{"a":1},{}]}`, `{"l":[{"new":1},{"a":1},{"new":2}]}`},
		{"list read as another length", `{"l":[1,2,3]}`, `{"l":[1]}`, `{"l":[1,4]}`, `{"l":[1,4]}`},
		{"other shape", `{"a":[1]}`, `{"a":{"b":1}}`, `{"a":{"b":2}}`, `{"a":{"b":2}}`},
		{"null in the document", `{"a":null}`, `{}`, `{"a":{"b":2}}`, `{"a":{"b":2}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := overlay([]byte(tt.document), []byte(tt.before), []byte(tt.after))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestOverlayAtRandom changes random documents and checks two laws: seen
// through what is known, the result is what was wanted; and what is unknown in
// a place that still exists is as it was.
func TestOverlayAtRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 3000 {
		before := object(rng, 3)
		after := mutate(rng, before, 3).(map[string]any)
		doc := sprinkle(rng, before, "").(map[string]any)
		got, err := overlay(encodeJSON(t, doc), encodeJSON(t, before), encodeJSON(t, after))
		if err != nil {
			t.Fatal(err)
		}
		tree, err := parseTree(got)
		if err != nil {
			t.Fatal(err)
		}
		want, err := parseTree(encodeJSON(t, after))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, known(tree)); d != "" {
			t.Fatalf("history %d: %s\nbecame %s (-want +got):\n%s", i, encodeJSON(t, doc), got, d)
		}
		if reflect.DeepEqual(doc["unknown"], nil) != reflect.DeepEqual(tree.(map[string]any)["unknown"], nil) {
			t.Fatalf("history %d: the unknown field at the top came or went: %s", i, got)
		}
		for path := range unknownIn(doc, before, after, "") {
			if !strings.Contains(string(got), fmt.Sprintf("%q", path)) {
				t.Fatalf("history %d: the unknown field of %s is gone from %s, written over %s", i, path, got, encodeJSON(t, doc))
			}
		}
	}
}

func encodeJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// object returns a random tree of known fields.
func object(rng *rand.Rand, depth int) map[string]any {
	out := map[string]any{}
	for range rng.IntN(4) {
		out[string('a'+rune(rng.IntN(4)))] = anything(rng, depth-1)
	}
	return out
}

func anything(rng *rand.Rand, depth int) any {
	switch n := rng.IntN(4); {
	case n == 0 && depth > 0:
		return object(rng, depth)
	case n == 1 && depth > 0:
		list := make([]any, rng.IntN(4))
		for i := range list {
			list[i] = anything(rng, depth-1)
		}
		return list
	}
	return rng.IntN(3)
}

// mutate returns a changed copy.
func mutate(rng *rand.Rand, v any, depth int) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, x := range v {
			switch rng.IntN(6) {
			case 0: // dropped
			case 1:
				out[key] = anything(rng, depth-1)
			default:
				out[key] = mutate(rng, x, depth-1)
			}
		}
		if rng.IntN(3) == 0 {
			out[string('a'+rune(rng.IntN(4)))] = anything(rng, depth-1)
		}
		return out
	case []any:
		out := []any{}
		for _, x := range v {
			if rng.IntN(5) > 0 {
				out = append(out, mutate(rng, x, depth-1))
			}
		}
		if rng.IntN(3) == 0 {
			out = append(out, anything(rng, depth-1))
		}
		rng.Shuffle(len(out), func(i, j int) {
			if rng.IntN(4) == 0 {
				out[i], out[j] = out[j], out[i]
			}
		})
		return out
	}
	if rng.IntN(4) == 0 {
		return rng.IntN(3)
	}
	return v
}

// sprinkle returns a copy with unknown fields, each saying where it stands.
func sprinkle(rng *rand.Rand, v any, path string) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, x := range v {
			out[key] = sprinkle(rng, x, path+"/"+key)
		}
		if rng.IntN(2) == 0 {
			out["unknown"] = path
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = sprinkle(rng, x, fmt.Sprintf("%s/%d", path, i))
		}
		return out
	}
	return v
}

// known returns a tree without its unknown fields.
func known(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, x := range v {
			if key != "unknown" {
				out[key] = known(x)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = known(x)
		}
		return out
	}
	return v
}

// unknownIn yields the unknown fields of a document outside of lists, where
// before and after both still have an object.
func unknownIn(doc, before, after any, path string) map[string]bool {
	d, okD := doc.(map[string]any)
	b, okB := before.(map[string]any)
	a, okA := after.(map[string]any)
	out := map[string]bool{}
	if !okD || !okB || !okA {
		return out
	}
	if d["unknown"] != nil {
		out[path] = true
	}
	for key := range a {
		for p := range unknownIn(d[key], b[key], a[key], path+"/"+key) {
			out[p] = true
		}
	}
	return out
}
