package calc

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestPrefixes compares the set with a map, while it grows and shrinks. It
// looks at no prefix, so one family says as much as two.
func TestPrefixes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		var s prefixes
		want := map[netip.Prefix]bool{}
		for step := range 200 {
			p := single(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(16))}))
			in := r.IntN(200) > step
			if s.set(p, in); in {
				want[p] = true
			} else {
				delete(want, p)
			}
			got := map[netip.Prefix]bool{}
			for p := range s.all() {
				got[p] = true
			}
			if s.len() != len(want) || !maps.Equal(got, want) {
				t.Fatalf("%v of %v", slices.Collect(maps.Keys(got)), slices.Collect(maps.Keys(want)))
			}
		}
	}
}
