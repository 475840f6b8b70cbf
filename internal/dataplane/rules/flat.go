package rules

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
)

// flat is the rules that a group goes through, without those that the family
// or the near address rules out.
type flat struct {
	segments []segment
	stages   []stage
	open     []place               // of rules that ask nothing of the far address, in order
	by       map[predicate][]place // of the others, by the first set that they ask for
	far      map[predicate]int     // what rules ask of the far address, and how many do
	named    map[uint8]int         // protocols that rules tell apart
}

// segment is the rules of one list.
type segment struct {
	id    desired.RulesID
	stage int32
	rules []*keyed // nil is one that is missing
}

// place is where a rule is: the segment, and the position in it.
type place struct{ segment, at int32 }

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.segment, o.segment), cmp.Compare(p.at, o.at))
}

type flatRule struct {
	*keyed       // nil: a list that is missing
	stage  int32 // index in stages
}

// stage is a tier or a profile.
type stage struct {
	pass    bool   // what no rule matched goes on to the next
	counter string // of what the end denies
}

// flatten writes the rules of a plain group for a family and near address.
func (c *compiler) flatten(g *compiled) *flat {
	f := &flat{by: map[predicate][]place{}, far: map[predicate]int{}, named: map[uint8]int{}}
	plain := c.b.groups[g.key.plain]
	add := func(owner string) {
		id := desired.RulesID{Owner: owner, Direction: plain.dir}
		f.segments = append(f.segments, segment{id: id, stage: int32(len(f.stages) - 1)})
		f.fill(g, len(f.segments)-1, c.rulesFor(g, id))
	}
	for _, name := range plain.tiers {
		t := c.b.tiers[name]
		f.stages = append(f.stages, stage{t.tier.Pass, endCounter(t)})
		for _, p := range t.tier.Policies {
			add(p)
		}
	}
	for _, id := range plain.profiles {
		f.stages = append(f.stages, stage{pass: true})
		add(id.Owner)
	}
	f.stages = append(f.stages, stage{counter: counterNoProfile + "-" + plain.dir.String()})
	return f
}

// rulesFor returns the rules of a list that a group goes through.
func (c *compiler) rulesFor(g *compiled, id desired.RulesID) []*keyed {
	list := c.b.lists[id]
	if list == nil {
		return []*keyed{nil}
	}
	var out []*keyed
	for _, k := range list.keyed {
		if g.key.family == 0 && k.ipv4 || g.key.family == 1 && k.ipv6 {
			if k.ends[g.near()].match(g.local) {
				out = append(out, k)
			}
		}
	}
	return out
}

// fill gives an empty segment its rules.
func (f *flat) fill(g *compiled, n int, rules []*keyed) {
	f.segments[n].rules = rules
	for at, k := range rules {
		to := f.index(g, k)
		here := place{int32(n), int32(at)}
		i, _ := slices.BinarySearchFunc(*to, here, place.compare)
		*to = slices.Insert(*to, i, here)
		f.keep(g, k, to)
		f.note(g, k, 1)
	}
}

// empty takes the rules of a segment out.
func (f *flat) empty(g *compiled, n int) {
	for _, k := range f.segments[n].rules {
		to := f.index(g, k)
		*to = slices.DeleteFunc(*to, func(p place) bool { return p.segment == int32(n) })
		f.keep(g, k, to)
		f.note(g, k, -1)
	}
	f.segments[n].rules = nil
}

// index is the list of places that a rule belongs to; keep writes it back.
func (f *flat) index(g *compiled, k *keyed) *[]place {
	if first, ok := g.firstOf(k); ok {
		list := f.by[first]
		return &list
	}
	return &f.open
}

func (f *flat) keep(g *compiled, k *keyed, list *[]place) {
	if first, ok := g.firstOf(k); ok {
		if f.by[first] = *list; len(*list) == 0 {
			delete(f.by, first)
		}
	}
}

// firstOf returns the first set that a rule asks for at the far end.
func (g *compiled) firstOf(k *keyed) (predicate, bool) {
	if k == nil || len(k.ends[1-g.near()].all) == 0 {
		return 0, false
	}
	return k.ends[1-g.near()].all[0], true
}

// note counts what a rule tells apart.
func (f *flat) note(g *compiled, k *keyed, by int) {
	if k == nil {
		return
	}
	far := k.ends[1-g.near()]
	lists := [][]predicate{far.all, far.none}
	if g.near() == 0 { // ports of the destination, which is far
		lists = append(lists, k.portSets, k.notPortSets)
	}
	for _, list := range lists {
		for _, p := range list {
			if f.far[p] += by; f.far[p] == 0 {
				delete(f.far, p)
			}
		}
	}
	protocols := []uint8{k.protocol, k.notProtocol}
	if k.asksPorts || k.sourcePorts || len(k.notPorts)+len(k.notPortSets) > 0 {
		protocols = append(protocols, protoTCP, protoUDP, protoSCTP)
	}
	if k.icmp {
		protocols = append(protocols, g.icmp())
	}
	for _, p := range protocols {
		if f.named[p] += by; p == 0 || f.named[p] == 0 {
			delete(f.named, p)
		}
	}
}

// protocols returns those that rules tell apart, in order.
func (f *flat) protocols() []uint8 { return slices.Sorted(maps.Keys(f.named)) }

// tells reports whether rules tell an address of this signature from one that
// is in nothing.
func (f *flat) tells(s signature) bool {
	for _, p := range s.preds {
		if f.far[p] > 0 {
			return true
		}
	}
	for _, t := range s.triples {
		if f.far[t.set] > 0 {
			return true
		}
	}
	return false
}

// candidates returns, in order, the rules whose addresses match the class.
func (f *flat) candidates(g *compiled, cl *class) []flatRule {
	places := f.open
	merged := false
	for _, q := range cl.sig.preds {
		if more := f.by[q]; len(more) > 0 {
			places, merged = slices.Concat(places, more), true
		}
	}
	if merged {
		slices.SortFunc(places, place.compare)
	}
	far := 1 - g.near()
	out := make([]flatRule, 0, len(places))
	for _, p := range places {
		s := &f.segments[p.segment]
		if k := s.rules[p.at]; k == nil || k.ends[far].match(cl.sig) {
			out = append(out, flatRule{k, s.stage})
		}
	}
	return out
}

// rewrite takes in lists that have changed, and returns the rules that came
// and went. nil among them is a list that is missing.
func (c *compiler) rewrite(g *compiled, lists []desired.RulesID) []*keyed {
	f := g.program
	var changed []*keyed
	for n := range f.segments {
		id := f.segments[n].id
		if !slices.Contains(lists, id) {
			continue
		}
		old, now := f.segments[n].rules, c.rulesFor(g, id)
		a, b := trimSame(old, now)
		changed = append(append(changed, a...), b...)
		f.empty(g, n)
		f.fill(g, n, now)
	}
	return changed
}

// trimSame leaves out what two lists begin and end with alike.
func trimSame(a, b []*keyed) ([]*keyed, []*keyed) {
	same := func(x, y *keyed) bool { return reflect.DeepEqual(x, y) }
	for len(a) > 0 && len(b) > 0 && same(a[0], b[0]) {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && same(a[len(a)-1], b[len(b)-1]) {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return a, b
}
