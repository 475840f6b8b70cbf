package rules

import (
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
)

// keyed is one policy rule, as far as it can be looked up.
type keyed struct {
	action      desired.Action
	counter     string
	ipv4, ipv6  bool
	protocol    uint8
	notProtocol uint8
	ends        [2]criteria // source, destination
	ports       []Range     // of the destination
	portSets    []predicate
	asksPorts   bool
	notPorts    []Range
	notPortSets []predicate
	// What is no key: packets that the rest matches are left to the plain rules.
	icmp        bool // asks about an ICMP message
	message     bool // and for one
	sourcePorts bool // asks about the source's port
	fromPorts   bool // and for one
}

// criteria of one address.
type criteria struct{ all, none []predicate }

func (c criteria) match(s signature) bool {
	for _, p := range c.all {
		if !s.has(p) {
			return false
		}
	}
	for _, p := range c.none {
		if s.has(p) {
			return false
		}
	}
	return true
}

// learnList takes in the rules of a list that is written.
func (c *compiler) learnList(w *listWriter, list *desired.RuleList, st *listState) {
	for i := range list.Rules {
		if r := w.sound(&list.Rules[i]); r != nil {
			st.keyed = append(st.keyed, c.keyedRule(w.id, r))
			for _, s := range []*desired.Side{&r.Source, &r.Destination} {
				for _, nets := range [][]netip.Prefix{s.Nets, s.NotNets} {
					if len(nets) > 0 {
						st.nets = append(st.nets, nets)
					}
				}
			}
		}
	}
}

// forgetList undoes learnList.
func (c *compiler) forgetList(st *listState) {
	for _, nets := range st.nets {
		c.releaseNets(nets)
	}
}

func (c *compiler) keyedRule(id desired.RulesID, r *desired.PolicyRule) *keyed {
	k := &keyed{
		action: r.Action, counter: RuleCounter(id, r.Index), ipv4: r.IPv4, ipv6: r.IPv6,
		protocol: r.Protocol, notProtocol: r.NotProtocol, icmp: r.ICMP != nil || r.NotICMP != nil, message: r.ICMP != nil,
		ports: portRanges(r.Destination.Ports), portSets: c.sets(r.Destination.PortSets),
		asksPorts: len(r.Destination.Ports)+len(r.Destination.PortSets) > 0,
		notPorts:  portRanges(r.Destination.NotPorts), notPortSets: c.sets(r.Destination.NotPortSets),
	}
	s := &r.Source
	k.fromPorts = len(s.Ports)+len(s.PortSets) > 0
	k.sourcePorts = len(s.Ports)+len(s.PortSets)+len(s.NotPorts)+len(s.NotPortSets) > 0
	for i, s := range []*desired.Side{&r.Source, &r.Destination} {
		k.ends[i] = criteria{all: c.sets(s.Sets), none: c.sets(s.NotSets)}
		if len(s.Nets) > 0 {
			k.ends[i].all = append(k.ends[i].all, c.holdNets(s.Nets))
			k.restrict(s)
		}
		if len(s.NotNets) > 0 {
			k.ends[i].none = append(k.ends[i].none, c.holdNets(s.NotNets))
			k.restrict(s)
		}
	}
	return k
}

// restrict leaves out a family that a list of nets has nothing of.
func (k *keyed) restrict(s *desired.Side) {
	for _, list := range [][]netip.Prefix{s.Nets, s.NotNets} {
		if len(list) > 0 {
			k.ipv4 = k.ipv4 && slices.ContainsFunc(list, func(p netip.Prefix) bool { return canonical(p).Addr().Is4() })
			k.ipv6 = k.ipv6 && slices.ContainsFunc(list, func(p netip.Prefix) bool { return canonical(p).Addr().Is6() })
		}
	}
}

func (c *compiler) sets(ids []desired.SetID) []predicate {
	var out []predicate
	for _, id := range ids {
		out = append(out, c.space.number("set:"+string(id)))
	}
	return out
}

// flat is the rules that a group goes through, one after the other, without
// those that the near address rules out.
type flat struct {
	rules  []flatRule
	stages []stage
	open   []int               // rules that ask nothing of the far address
	by     map[predicate][]int // the others, by the first set that they ask for
	// protocols that the rules tell apart, in order.
	protocols []uint8
	far       map[predicate]struct{} // what they ask of the far address
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
	f := &flat{by: map[predicate][]int{}, far: map[predicate]struct{}{}}
	plain := c.b.groups[g.key.plain]
	for _, name := range plain.tiers {
		t := c.b.tiers[name]
		f.stages = append(f.stages, stage{t.tier.Pass, endCounter(t)})
		for _, p := range t.tier.Policies {
			c.flattenList(f, g, desired.RulesID{Owner: p, Direction: plain.dir})
		}
	}
	for _, id := range plain.profiles {
		f.stages = append(f.stages, stage{pass: true})
		c.flattenList(f, g, id)
	}
	f.stages = append(f.stages, stage{counter: counterNoProfile + "-" + plain.dir.String()})
	slices.Sort(f.protocols)
	f.protocols = slices.Compact(f.protocols)
	return f
}

func (c *compiler) flattenList(f *flat, g *compiled, id desired.RulesID) {
	add := func(k *keyed) {
		n := len(f.rules)
		f.rules = append(f.rules, flatRule{k, int32(len(f.stages) - 1)})
		if k != nil {
			if far := k.ends[1-g.near()]; len(far.all) > 0 {
				f.by[far.all[0]] = append(f.by[far.all[0]], n)
				return
			}
		}
		f.open = append(f.open, n)
	}
	list := c.b.lists[id]
	if list == nil {
		add(nil)
		return
	}
	for _, k := range list.keyed {
		if g.key.family == 0 && !k.ipv4 || g.key.family == 1 && !k.ipv6 || !k.ends[g.near()].match(g.local) {
			continue
		}
		add(k)
		f.note(k, g)
	}
}

// note remembers what the rules tell apart.
func (f *flat) note(k *keyed, g *compiled) {
	far := k.ends[1-g.near()]
	lists := [][]predicate{far.all, far.none}
	if g.near() == 0 { // ports of the destination, which is far
		lists = append(lists, k.portSets, k.notPortSets)
	}
	for _, list := range lists {
		for _, p := range list {
			f.far[p] = struct{}{}
		}
	}
	for _, p := range []uint8{k.protocol, k.notProtocol} {
		if p != 0 {
			f.protocols = append(f.protocols, p)
		}
	}
	if k.asksPorts || k.sourcePorts || len(k.notPorts)+len(k.notPortSets) > 0 {
		f.protocols = append(f.protocols, protoTCP, protoUDP, protoSCTP)
	}
	if k.icmp {
		f.protocols = append(f.protocols, g.icmp())
	}
}

// near is which end of a packet the group's own address is: 0 the source.
func (g *compiled) near() int {
	if g.dir == desired.Egress {
		return 0
	}
	return 1
}

func (g *compiled) icmp() uint8 { return [...]uint8{protoICMP, protoICMPv6}[g.key.family] }

// asked returns what the rules of a plain group ask of the near address.
func (c *compiler) asked(plain string) []predicate {
	if list, ok := c.locals[plain]; ok {
		return list
	}
	list := []predicate{}
	g := c.b.groups[plain]
	collect := func(id desired.RulesID) {
		if l := c.b.lists[id]; l != nil {
			for _, k := range l.keyed {
				end := k.ends[0]
				if id.Direction == desired.Ingress {
					end = k.ends[1]
					list = append(append(list, k.portSets...), k.notPortSets...)
				}
				list = append(append(list, end.all...), end.none...)
			}
		}
	}
	for _, name := range g.tiers {
		for _, p := range c.b.tiers[name].tier.Policies {
			collect(desired.RulesID{Owner: p, Direction: g.dir})
		}
	}
	for _, id := range g.profiles {
		collect(id)
	}
	slices.Sort(list)
	list = slices.Compact(list)
	c.locals[plain] = list
	return list
}

// restrictTo leaves of a signature what is asked for.
func (s signature) restrictTo(asked []predicate) signature {
	var out signature
	in := func(p predicate) bool { _, ok := slices.BinarySearch(asked, p); return ok }
	for _, p := range s.preds {
		if in(p) {
			out.preds = append(out.preds, p)
		}
	}
	for _, t := range s.triples {
		if in(t.set) {
			out.triples = append(out.triples, t)
		}
	}
	return out
}
