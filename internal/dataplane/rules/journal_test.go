package rules

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestInOrder: long lists are sorted in another way than short ones, and the
// same. Keys are bytes of no family.
func TestInOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		elements := map[string]Element{}
		for range r.IntN(300) {
			key := make([]byte, 1+r.IntN(12))
			for i := range key {
				key[i] = byte(r.IntN(3))
			}
			elements[string(key)] = Element{Lo: string(key), Number: r.Uint32()}
		}
		want := slices.SortedFunc(maps.Values(elements), func(a, b Element) int { return strings.Compare(a.Lo, b.Lo) })
		if got := sorted(elements); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}
