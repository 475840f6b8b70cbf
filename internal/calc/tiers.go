package calc

import (
	"cmp"
	"hash/maphash"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
)

// tier is a tier that some policy here is in.
type tier struct {
	name    string
	missing bool // it does not exist: its policies come after all others
	order   float64
	pass    bool
	lost    bool // nobody knows where it comes: it denies everything
}

// tierLists is what policy says for a slot, shared by all that have the same.
type tierLists struct {
	hash            uint64
	refs            int
	ingress, egress []desired.Tier
}

// arrange puts the policies in order and works out the tiers of the slots
// that have others now.
func (p *policies) arrange(in *inputs, t *touched) {
	if t.tiers {
		p.changes.sort = true
		p.reread(in)
		for _, s := range p.slotOf {
			p.changes.dirty[s] = true
		}
	}
	p.sort(in)
	for s := range p.changes.dirty {
		at := p.slots.at(s)
		p.merge(at, s)
		if !at.key.host {
			p.assemble(at)
		}
	}
}

// reread takes over what the datastore says of all tiers. Of one that is lost
// no rules are in force.
func (p *policies) reread(in *inputs) {
	flipped := map[*tier]bool{}
	for _, t := range p.tiers {
		was := t.lost
		if t.read(in); t.lost != was {
			flipped[t] = true
		}
	}
	for _, id := range p.order {
		if flipped[p.all.at(id).on.tier] {
			p.changes.enforce[id] = true
		}
	}
}

// merge brings the policies of a slot up to date, in order.
func (p *policies) merge(at *slot, s slotID) {
	gained := p.changes.gained[s]
	order := func(a, b policyID) int { return cmp.Compare(a, b) }
	if !at.key.host {
		order = func(a, b policyID) int { return cmp.Compare(p.all.at(a).on.rank, p.all.at(b).on.rank) }
	}
	if !p.changes.lost[s] && !p.changes.sort && len(gained) <= 8 {
		for _, id := range gained {
			i, _ := slices.BinarySearchFunc(at.policies, id, order)
			at.policies = slices.Insert(at.policies, i, id)
		}
		return
	}
	at.policies = append(at.policies, gained...)
	if p.changes.lost[s] {
		at.policies = slices.DeleteFunc(at.policies, func(id policyID) bool {
			on := p.all.at(id).on
			return on == nil || !on.slots.has(s)
		})
	}
	slices.SortFunc(at.policies, order)
	at.policies = slices.Compact(at.policies)
}

// read takes over what the datastore says of a tier.
func (t *tier) read(in *inputs) {
	v := in.tiers[t.name]
	*t = tier{name: t.name, missing: v == nil, order: math.Inf(1)}
	if v != nil {
		t.order, t.pass, t.lost = v.Order, v.DefaultPass, v.Lost
	}
}

// sort keeps the order of all policies that select a workload here.
func (p *policies) sort(in *inputs) {
	var fresh []policyID
	left := false
	for id := range p.changes.enforce {
		on := p.all.at(id).on
		if on == nil {
			continue
		}
		if on.workloads > 0 {
			p.place(in, id)
		}
		switch {
		case on.workloads > 0 && !on.listed:
			fresh = append(fresh, id)
			on.listed = true
		case on.workloads == 0 && on.listed:
			on.listed, left = false, true
		}
	}
	if left {
		p.order = slices.DeleteFunc(p.order, func(id policyID) bool { return !p.all.at(id).on.listed })
	}
	switch {
	case p.changes.sort || len(fresh) > 8:
		p.order = append(p.order, fresh...)
		slices.SortFunc(p.order, p.compare)
	default:
		for _, id := range fresh {
			at, _ := slices.BinarySearchFunc(p.order, id, p.compare)
			p.order = slices.Insert(p.order, at, id)
		}
	}
	if p.changes.sort || len(fresh) > 0 {
		for i, id := range p.order {
			p.all.at(id).on.rank = i
		}
	}
}

// place notes by what a policy is sorted.
func (p *policies) place(in *inputs, id policyID) {
	at := p.all.at(id)
	if at.on.tier != nil {
		return
	}
	name := at.on.head.tier
	if p.tiers[name] == nil {
		p.tiers[name] = &tier{name: name}
		p.tiers[name].read(in)
	}
	at.on.tier = p.tiers[name]
}

// compare orders policies by tier, order and name (documented Calico
// behaviour). A tier that does not exist comes after all that do.
func (p *policies) compare(a, b policyID) int {
	x, y := p.all.at(a), p.all.at(b)
	if s, t := x.on.tier, y.on.tier; s != t {
		if s.missing != t.missing {
			if s.missing {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(s.order, t.order), strings.Compare(s.name, t.name))
	}
	return cmp.Or(cmp.Compare(x.on.order, y.on.order), strings.Compare(x.on.key, y.on.key))
}

// assemble gives a slot the lists of its tiers. What another slot with the
// same policies came to in this batch is taken over.
func (p *policies) assemble(at *slot) {
	old := at.lists
	hash := uint64(len(at.policies))
	for _, id := range at.policies {
		hash = (hash ^ uint64(id)) * 0x9E3779B97F4A7C15
	}
	for _, o := range p.changes.built[hash] {
		if slices.Equal(o.policies, at.policies) {
			if at.lists = o.lists; at.lists != nil {
				at.lists.refs++
			}
			p.release(old)
			return
		}
	}
	at.lists = p.share(tierLists{ingress: p.tiersOf(at, desired.Ingress), egress: p.tiersOf(at, desired.Egress)})
	p.changes.built[hash] = append(p.changes.built[hash], at)
	p.release(old)
}

// tiersOf lists the tiers of one direction. A tier without a policy for the
// direction is not there, so it denies nothing. One that is lost stands
// without its policies, and denies.
func (p *policies) tiersOf(at *slot, d desired.Direction) []desired.Tier {
	var out []desired.Tier
	var last *tier
	p.scratch.owners = p.scratch.owners[:0]
	flush := func() {
		if last != nil {
			out = append(out, desired.Tier{Name: last.name, Pass: last.pass})
			if len(p.scratch.owners) > 0 {
				out[len(out)-1].Policies = slices.Clone(p.scratch.owners)
			}
			p.scratch.owners = p.scratch.owners[:0]
		}
	}
	for _, id := range at.policies {
		v := p.all.at(id)
		if v.flags&applies(d) == 0 {
			continue
		}
		if v.on.tier != last {
			flush()
			last = v.on.tier
		}
		if !last.lost {
			p.scratch.owners = append(p.scratch.owners, v.on.title)
		}
	}
	flush()
	return out
}

// applies is the flag of policies that are for a direction.
func applies(d desired.Direction) byte {
	if d == desired.Egress {
		return packEgress
	}
	return packIngress
}

// share returns lists that are equal, if some slot has them, and counts a
// reference.
func (p *policies) share(l tierLists) *tierLists {
	if len(l.ingress)+len(l.egress) == 0 {
		return nil
	}
	var h maphash.Hash
	h.SetSeed(p.seed)
	for _, tiers := range [][]desired.Tier{l.ingress, l.egress} {
		for _, t := range tiers {
			h.WriteString(t.Name)
			for _, owner := range t.Policies {
				h.WriteByte(0)
				h.WriteString(owner)
			}
		}
		h.WriteByte(1)
	}
	l.hash = h.Sum64()
	for _, o := range p.lists[l.hash] {
		if sameTiers(o.ingress, l.ingress) && sameTiers(o.egress, l.egress) {
			o.refs++
			return o
		}
	}
	l.refs = 1
	p.lists[l.hash] = append(p.lists[l.hash], &l)
	return &l
}

func (p *policies) release(l *tierLists) {
	if l == nil {
		return
	}
	if l.refs--; l.refs > 0 {
		return
	}
	if p.lists[l.hash] = remove(p.lists[l.hash], l); len(p.lists[l.hash]) == 0 {
		delete(p.lists, l.hash)
	}
}

func sameTiers(a, b []desired.Tier) bool {
	if len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) {
		return true
	}
	return slices.EqualFunc(a, b, func(x, y desired.Tier) bool {
		return x.Name == y.Name && x.Pass == y.Pass && slices.Equal(x.Policies, y.Policies)
	})
}

// tidyTiers forgets tiers that no policy is in.
func (p *policies) tidyTiers() {
	if len(p.tiers) <= 2*len(p.order)+16 {
		return
	}
	used := map[string]bool{}
	for _, id := range p.order {
		used[p.all.at(id).on.tier.name] = true
	}
	maps.DeleteFunc(p.tiers, func(name string, _ *tier) bool { return !used[name] })
}
