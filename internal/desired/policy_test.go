package desired

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
)

// randomPatch changes a policy of few names, so that changes meet.
func randomPatch(r *rand.Rand, now Policy) PolicyPatch {
	p := PolicyPatch{Sets: map[SetID]SetPatch{}}
	for i := range r.IntN(4) {
		id := SetID(fmt.Sprint(i))
		if old := now.Sets[id]; old != nil && r.IntN(6) == 0 {
			p.Sets[id] = SetPatch{Gone: true}
			continue
		}
		var s SetPatch
		for n := range uint8(4) {
			m := Member{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 32)}
			switch r.IntN(3) {
			case 0:
				s.Add = append(s.Add, m)
			case 1:
				s.Remove = append(s.Remove, m)
			}
		}
		p.Sets[id] = s
	}
	for i := range r.IntN(4) {
		id := RulesID{Owner: fmt.Sprint(i)}
		if r.IntN(3) == 0 {
			p.Rules.Delete = append(p.Rules.Delete, id)
			continue
		}
		if p.Rules.Set == nil {
			p.Rules.Set = map[RulesID]*RuleList{}
		}
		p.Rules.Set[id] = &RuleList{}
	}
	return p
}

func copyOf(p Policy) Policy {
	out := NewPolicy()
	for id, s := range p.Sets {
		c := &Set{Kind: s.Kind, Members: map[Member]struct{}{}}
		for m := range s.Members {
			c.Members[m] = struct{}{}
		}
		out.Sets[id] = c
	}
	for id, l := range p.Rules {
		out.Rules[id] = l
	}
	return out
}

// TestMergedPatchesAreTheirSum plays random patches one by one and merged.
func TestMergedPatchesAreTheirSum(t *testing.T) {
	merged := 0
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 0))
		one := NewPolicy()
		randomPatch(r, one).Play(one)
		all := copyOf(one)
		var sum PolicyPatch
		ok := true
		for range 1 + r.IntN(4) {
			p := randomPatch(r, one)
			p.Play(one)
			ok = ok && sum.Merge(p)
		}
		if !ok {
			continue
		}
		merged++
		sum.Play(all)
		if !reflect.DeepEqual(one, all) {
			t.Fatalf("seed %d:\n one by one %+v\n merged %+v", seed, one, all)
		}
	}
	if merged < 500 {
		t.Errorf("only %d histories could be merged", merged)
	}
}
