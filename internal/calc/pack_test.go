package calc

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/randworld"
)

// TestPackedPolicies packs policies of random clusters, reads them back, and
// lets all their texts go.
func TestPackedPolicies(t *testing.T) {
	n, named := 0, 0
	for seed := range uint64(500) {
		p := newPolicies()
		for i, e := range randworld.New(seed).Events() {
			v, ok := e.Value.(*model.Policy)
			if !ok {
				continue
			}
			if c := *v; i%3 == 0 { // names and titles that are not what the ID says
				c.Title, c.Name = "another", "other"
				v = &c
				named++
			}
			n++
			got := packed(p.packer.pack(v))
			if again := packed(p.packer.pack(v)); again != got {
				t.Fatalf("%s: packed otherwise the second time", v.Title)
			} else {
				again.release(&p.texts)
			}
			u := got.open(&p.texts)
			h := u.head(v.ID)
			key := v.Name + "/" + v.Namespace + "/" + v.APIKind
			if h.tier != v.Tier || h.order != v.Order || h.title != v.Title || h.key != key {
				t.Fatalf("%s: head %+v", v.Title, h)
			}
			rules := [2][]model.Rule{u.rules(nil), u.rules(nil)}
			want := [2][]model.Rule{v.Ingress.Rules, v.Egress.Rules}
			for d := range want {
				if !slices.EqualFunc(rules[d], want[d], sameRule) {
					t.Fatalf("%s:\n got %+v\nwant %+v", v.Title, rules[d], want[d])
				}
			}
			if len(u.held) != 0 || len(u.body) != 0 {
				t.Fatalf("%s: %d and %d bytes left", v.Title, len(u.held), len(u.body))
			}
			if who := got.open(&p.texts); !who.selector().Equal(v.Selects) {
				t.Fatalf("%s: selects another", v.Title)
			}
			got.release(&p.texts)
		}
		if p.texts.by.used != 0 {
			t.Fatalf("%d texts left", p.texts.by.used)
		}
	}
	if n < 1000 || named < 100 {
		t.Errorf("only %d policies, %d with names of their own", n, named)
	}
}

// sameRule takes no list for an empty one.
func sameRule(a, b model.Rule) bool {
	for _, e := range []*model.Entity{&a.Source, &a.Destination, &b.Source, &b.Destination} {
		if len(e.Nets) == 0 {
			e.Nets = nil
		}
		if len(e.NotNets) == 0 {
			e.NotNets = nil
		}
		if len(e.Ports) == 0 {
			e.Ports = nil
		}
		if len(e.NotPorts) == 0 {
			e.NotPorts = nil
		}
	}
	return reflect.DeepEqual(a, b)
}

// TestIndexAgainstMap holds the table to a map over random histories, with
// hashes that clash on purpose, and with so many numbers that tables are split.
func TestIndexAgainstMap(t *testing.T) {
	for _, of := range []struct {
		name         string
		seeds, steps int
		numbers      uint32
		hash         func(uint32) uint32
	}{
		{"clashes", 50, 3000, 60, func(k uint32) uint32 { return k * 7 % 19 }},
		{"many", 2, 60_000, 6000, func(k uint32) uint32 { return mix(uint64(k)) }},
		{"many with few hashes", 2, 20_000, 1500, func(k uint32) uint32 { return mix(uint64(k % 7)) }},
		{"many that begin alike", 2, 20_000, 3000, func(k uint32) uint32 { return k }},
	} {
		for seed := range uint64(of.seeds) {
			r := rand.New(rand.NewPCG(seed, 1))
			var x index[uint32]
			twin := map[uint32]bool{}
			for range of.steps {
				k := 1 + r.Uint32N(of.numbers)
				if found := x.find(of.hash(k), func(o uint32) bool { return o == k }) == k; found != twin[k] {
					t.Fatalf("%s, seed %d: %d found: %v", of.name, seed, k, found)
				}
				switch {
				case !twin[k] && r.IntN(4) > 0:
					x.add(of.hash(k), k)
					twin[k] = true
				case twin[k] && r.IntN(4) == 0:
					x.remove(of.hash(k), k)
					delete(twin, k)
				}
				if x.used != len(twin) {
					t.Fatalf("%s, seed %d: %d used, not %d", of.name, seed, x.used, len(twin))
				}
			}
		}
	}
}

// TestSlabKeepsNumbersApart: a number means one thing within a batch.
func TestSlabKeepsNumbersApart(t *testing.T) {
	var s slab[uint32, string]
	var list []uint32
	for range 3 * slabChunk {
		list = append(list, s.add("a"))
	}
	if slices.Contains(list, 0) {
		t.Error("0 was given out")
	}
	s.drop(list[5])
	if k := s.add("b"); slices.Contains(list, k) {
		t.Errorf("%d was given out twice", k)
	}
	s.settle()
	if k := s.add("c"); k != list[5] || *s.at(k) != "c" || *s.at(list[4]) != "a" {
		t.Errorf("%d is not used again", list[5])
	}
}
