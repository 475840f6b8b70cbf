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
	ports       []portSpan  // of the destination
	portSets    []predicate
	asksPorts   bool
	notPorts    []portSpan
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
			st.keyed = append(st.keyed, c.keyedRule(r, w.counters[i]))
			for _, s := range []*desired.Side{&r.Source, &r.Destination} {
				for _, nets := range [][]netip.Prefix{s.Nets, s.NotNets} {
					if len(nets) > 0 {
						st.nets = append(st.nets, nets)
					}
				}
			}
		}
	}
	st.near = nearOf(w.id.Direction, st.keyed)
}

// nearOf returns what the rules of a list ask of the near address, in order.
func nearOf(d desired.Direction, list []*keyed) []predicate {
	var out []predicate
	for _, k := range list {
		end := k.ends[0]
		if d == desired.Ingress {
			end = k.ends[1]
			out = append(append(out, k.portSets...), k.notPortSets...)
		}
		out = append(append(out, end.all...), end.none...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// forgetList undoes learnList.
func (c *compiler) forgetList(st *listState) {
	for _, nets := range st.nets {
		c.releaseNets(nets)
	}
}

func (c *compiler) keyedRule(r *desired.PolicyRule, counter string) *keyed {
	k := &keyed{
		action: r.Action, counter: counter, ipv4: r.IPv4, ipv6: r.IPv6,
		protocol: r.Protocol, notProtocol: r.NotProtocol, icmp: r.ICMP != nil || r.NotICMP != nil, message: r.ICMP != nil,
		ports: spansOf(r.Destination.Ports), portSets: c.sets(r.Destination.PortSets),
		asksPorts: len(r.Destination.Ports)+len(r.Destination.PortSets) > 0,
		notPorts:  spansOf(r.Destination.NotPorts), notPortSets: c.sets(r.Destination.NotPortSets),
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

// near is which end of a packet the group's own address is: 0 the source.
func (g *compiled) near() int {
	if g.dir == desired.Egress {
		return 0
	}
	return 1
}

func (g *compiled) icmp() uint8 { return [...]uint8{protoICMP, protoICMPv6}[g.key.family] }

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
