package model

import (
	"cmp"
	"strings"
)

// CompareTiers orders tiers that exist: by order, one without at the end, then
// by name (documented Calico behaviour). Tiers that policies name and that do
// not exist come after, by name.
func CompareTiers(a, b *Tier) int {
	if c := cmp.Compare(a.Order, b.Order); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// ComparePolicies orders policies of one tier: by order, one without at the
// end, then by "name/namespace/kind" as bytes, so that those of a namespace
// and global ones mix (documented Calico behaviour). Policies that differ are
// never equal.
func ComparePolicies(a, b *Policy) int {
	if c := cmp.Compare(a.Order, b.Order); c != 0 {
		return c
	}
	return strings.Compare(a.tieBreaker(), b.tieBreaker())
}

func (p *Policy) tieBreaker() string { return p.Name + "/" + p.Namespace + "/" + p.APIKind }
