package rules

import (
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
)

// families are those that everything with addresses is made for.
var families = [...]family{4, 6}

// family is 4 or 6; 0 where both are meant.
type family uint8

func (f family) digit() string { return string('0' + rune(f)) }

func (f family) addrType() Type {
	if f == 4 {
		return Addr4Type
	}
	return Addr6Type
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return 4
	}
	return 6
}

// setState is one set of desired.Policy.
type setState struct {
	kind  desired.SetKind
	parts [2]setPart // by family, as in families
}

// setPart is the members of one family, a set of its own in the program.
type setPart struct {
	name     string // of the set in the program; "": there are no members, and no set
	interval bool
	nets     netSet // the members, while the set has intervals
}

// setName names the set of the program that has a set's members of a family:
// "a4-…" single addresses, "n4-…" ranges of addresses, "p4-…" addresses with
// ports. The kind is in the name since nothing can change it in place.
func setName(id desired.SetID, f family, kind desired.SetKind, interval bool) string {
	stem := "a"
	switch {
	case kind == desired.PortSet:
		stem = "p"
	case interval:
		stem = "n"
	}
	return stem + f.digit() + "-" + hash(string(id))
}

// patchSet brings one set to want, and reports whether rules that refer to it
// have to be written anew.
func (b *Builder) patchSet(id desired.SetID, want *desired.Set, patch desired.SetPatch) bool {
	st := b.sets[id]
	switch {
	case want == nil && st == nil:
		return false
	case want == nil:
		b.dropParts(st)
		delete(b.sets, id)
		return true
	case st == nil || st.kind != want.Kind || patch.Gone:
		b.makeSet(id, want)
		return true
	}
	flipped := false
	for i, f := range families {
		add, remove := membersOf(patch.Add, f), membersOf(patch.Remove, f)
		if len(add)+len(remove) > 0 && b.patchPart(id, st, i, setChange{want, add, remove}) {
			flipped = true
		}
	}
	return flipped
}

// setChange is the members of one family that came and went.
type setChange struct {
	want        *desired.Set
	add, remove []desired.Member
}

func (b *Builder) makeSet(id desired.SetID, want *desired.Set) {
	if old := b.sets[id]; old != nil {
		b.dropParts(old)
	}
	st := &setState{kind: want.Kind}
	b.sets[id] = st
	count := countMembers(want)
	for i := range families {
		b.makePart(id, st, i, count[i])
	}
}

// memberCount says how many members of a family a set has.
type memberCount struct {
	of   *desired.Set
	n    int
	wide bool // some are more than an address
}

func countMembers(set *desired.Set) (by [2]memberCount) {
	by[0].of, by[1].of = set, set
	for m := range set.Members {
		p := canonical(m.Prefix)
		c := &by[familyIndex(p.Addr())]
		c.n++
		c.wide = c.wide || !p.IsSingleIP()
	}
	return by
}

func (b *Builder) dropParts(st *setState) {
	for i := range st.parts {
		if st.parts[i].name != "" {
			b.dropSet(st.parts[i].name)
		}
	}
}

func (b *Builder) makePart(id desired.SetID, st *setState, i int, has memberCount) {
	f, part := families[i], &st.parts[i]
	if *part = (setPart{}); has.n == 0 {
		return
	}
	part.interval = st.kind == desired.AddressSet && has.wide
	part.name = setName(id, f, st.kind, part.interval)
	key := []Type{f.addrType()}
	if st.kind == desired.PortSet {
		key = append(key, ProtocolType, PortType)
	}
	if part.interval {
		part.nets = newNetSet()
	}
	elements := make(map[string]Element, has.n)
	for m := range has.of.Members {
		m.Prefix = canonical(m.Prefix)
		switch {
		case familyIndex(m.Prefix.Addr()) != i:
		case part.interval:
			part.nets.add(m.Prefix)
		default:
			e := memberElement(st.kind, m)
			elements[e.Lo] = e
		}
	}
	if part.interval {
		for _, p := range part.nets.outermost() {
			e := rangeElement("", p)
			elements[e.Lo] = e
		}
	}
	b.addSet(Set{Name: part.name, Key: key, Interval: part.interval, Elements: elements})
}

// patchPart brings the set of one family to want. It reports whether the set
// is another one afterwards.
func (b *Builder) patchPart(id desired.SetID, st *setState, i int, c setChange) bool {
	part := &st.parts[i]
	if part.name == "" && len(c.add) == 0 {
		return false
	}
	if part.name == "" || st.kind == desired.AddressSet && part.interval != c.interval(part) {
		if part.name != "" {
			b.dropSet(part.name)
		}
		b.makePart(id, st, i, countMembers(c.want)[i])
		return true
	}
	if part.interval {
		b.patchNets(part, c)
		return false
	}
	for _, m := range c.remove {
		// A removed range was not there: with one, this would be no plain set.
		if e := memberElement(st.kind, m); m.Prefix.IsSingleIP() && b.has(part.name, e.Lo) {
			b.dropElement(part.name, e.Lo)
		}
	}
	for _, m := range c.add {
		if e := memberElement(st.kind, m); !b.has(part.name, e.Lo) {
			b.putElement(part.name, e)
		}
	}
	if len(b.prog.Sets[part.name].Elements) > 0 {
		return false
	}
	b.dropSet(part.name)
	*part = setPart{}
	return true
}

func (b *Builder) has(set, lo string) bool {
	_, ok := b.prog.Sets[set].Elements[lo]
	return ok
}

// interval reports whether the set has a member that is no single address,
// after the change.
func (c setChange) interval(part *setPart) bool {
	net := func(m desired.Member) bool { return !m.Prefix.IsSingleIP() }
	if slices.ContainsFunc(c.add, net) {
		return true
	}
	if !part.interval {
		return false
	}
	left := part.nets.wide
	for _, m := range c.remove {
		if net(m) && part.nets.has(m.Prefix) {
			left--
		}
	}
	return left > 0
}

// fewNets is up to how many prefixes that are no single addresses are put in
// one by one: each is compared with all members.
const fewNets = 8

func (b *Builder) patchNets(part *setPart, c setChange) {
	wide := 0
	for _, list := range [][]desired.Member{c.add, c.remove} {
		for _, m := range list {
			if !m.Prefix.IsSingleIP() {
				wide++
			}
		}
	}
	if wide > fewNets {
		b.replaceNets(part, c)
		return
	}
	for _, m := range c.remove {
		b.leaveNet(part.name, &part.nets, m.Prefix)
	}
	for _, m := range c.add {
		b.takeNet(part.name, &part.nets, m.Prefix)
	}
}

// takeNet puts a prefix into a set of ranges, which is made of nets.
func (b *Builder) takeNet(set string, nets *netSet, p netip.Prefix) {
	if !nets.add(p) || nets.covered(p) {
		return
	}
	for _, in := range nets.outermostIn(p) { // that were elements up to now
		b.dropElement(set, addrBytes(in.Addr()))
	}
	b.putElement(set, rangeElement("", p))
}

// leaveNet takes a prefix out of a set of ranges, which is made of nets.
func (b *Builder) leaveNet(set string, nets *netSet, p netip.Prefix) {
	if !nets.remove(p) || nets.covered(p) {
		return
	}
	b.dropElement(set, addrBytes(p.Addr()))
	for _, in := range nets.outermostIn(p) {
		b.putElement(set, rangeElement("", in))
	}
}

func (b *Builder) replaceNets(part *setPart, c setChange) {
	for _, m := range c.remove {
		part.nets.remove(m.Prefix)
	}
	for _, m := range c.add {
		part.nets.add(m.Prefix)
	}
	now := map[string]Element{}
	for _, p := range part.nets.outermost() {
		e := rangeElement("", p)
		now[e.Lo] = e
	}
	change, _ := differ(b.prog.Sets[part.name].Elements, now)
	for _, e := range change.Remove {
		b.dropElement(part.name, e.Lo)
	}
	for _, e := range change.Add {
		b.putElement(part.name, e)
	}
}

// membersOf returns the members of a family, in canonical form.
func membersOf(list []desired.Member, f family) []desired.Member {
	var out []desired.Member
	for _, m := range list {
		m.Prefix = canonical(m.Prefix)
		if familyOf(m.Prefix.Addr()) == f {
			out = append(out, m)
		}
	}
	return out
}

func memberElement(kind desired.SetKind, m desired.Member) Element {
	lo := addrBytes(m.Prefix.Addr())
	if kind == desired.PortSet {
		lo += string([]byte{m.Protocol}) + portBytes(m.Port)
	}
	return Element{Lo: lo}
}

// rangeElement is the addresses of a prefix, after the bytes of stem.
func rangeElement(stem string, p netip.Prefix) Element {
	r := prefixRange(p)
	return Element{Lo: stem + r.Lo, Hi: stem + r.Hi}
}
