package calc

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestBagsAgainstMaps holds bags to maps over random histories: with few
// numbers, with many close together, and with some far apart.
func TestBagsAgainstMaps(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 2))
		var b bags
		var list [3]bag
		twins := [3]map[uint32]bool{{}, {}, {}}
		number := []func() uint32{
			func() uint32 { return r.Uint32N(4) },
			func() uint32 { return 60_000 + r.Uint32N(12_000) },
			func() uint32 { return r.Uint32N(1 << 31) },
		}
		check := func() {
			for i, of := range list {
				want := slices.Sorted(maps.Keys(twins[i]))
				if got := b.list(of, nil); !slices.Equal(got, want) || b.size(of) != len(want) {
					t.Fatalf("seed %d: bag %d has %d numbers, %d in order, not %d", seed, i, b.size(of), len(got), len(want))
				}
			}
		}
		for step := range 40_000 {
			i := r.IntN(3)
			n := number[i]()
			if b.has(list[i], n) != twins[i][n] {
				t.Fatalf("seed %d: bag %d and %d", seed, i, n)
			}
			if r.IntN(10) < 7 {
				b.add(&list[i], n)
				twins[i][n] = true
			} else {
				b.remove(&list[i], n)
				delete(twins[i], n)
			}
			if step%1000 == 0 {
				check()
			}
		}
		check()
		for i := range list {
			for n := range twins[i] {
				b.remove(&list[i], n)
			}
			if list[i] != 0 {
				t.Fatalf("seed %d: bag %d is not empty", seed, i)
			}
		}
	}
}
