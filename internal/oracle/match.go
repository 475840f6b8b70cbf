package oracle

import (
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// packet is a flow with what is known of its two ends.
type packet struct {
	Flow
	source, dest end
	explain      bool // somebody wants to know why
}

// end is one end of a flow.
type end struct {
	name   string // "source" or "destination"
	addr   netip.Addr
	port   uint16
	things []thing // what selectors can select at the address
}

func (v *View) packet(f Flow, explain bool) *packet {
	return &packet{
		Flow: f, explain: explain,
		source: end{name: "source", addr: f.Source, port: f.SourcePort, things: v.at(f.Source)},
		dest:   end{name: "destination", addr: f.Dest, port: f.DestPort, things: v.at(f.Dest)},
	}
}

// criterion is one thing that a rule asks of a packet.
type criterion struct {
	kind string // only if the packet is explained, as why
	ok   bool
	miss int    // how many single things would have to change; 0 if ok
	why  string // why it is not ok
}

// asker is given each criterion that a rule states, and says whether it wants
// more.
type asker func(criterion) bool

// ask gives yield a criterion that is one thing away from being ok, unless it
// is. why is asked only when somebody wants to know.
func (p *packet) ask(yield asker, kind string, ok bool, why func() string) bool {
	c := criterion{kind: kind, ok: ok}
	if !ok {
		c.miss = 1
	}
	if !ok && p.explain {
		c.why = why()
	}
	return yield(c)
}

// askOf is ask for a criterion about one end.
func (p *packet) askOf(at *end, yield asker, kind string, ok bool, why func() string) bool {
	if p.explain {
		kind = at.name + " " + kind
	}
	return p.ask(yield, kind, ok, why)
}

// criteria gives each criterion that a rule states to yield, in the order of
// Kinds, for as long as that wants more.
func (v *View) criteria(r *model.Rule, p *packet, yield asker) {
	if !p.common(r, yield) {
		return
	}
	if v.entity(&r.Source, &p.source, p, yield) {
		v.entity(&r.Destination, &p.dest, p, yield)
	}
}

// common is the criteria that are about neither end.
func (p *packet) common(r *model.Rule, yield asker) bool {
	if r.Never && !p.ask(yield, KindFamily, false, wordsNever) {
		return false
	}
	if r.Families != model.IPv4|model.IPv6 && !r.Never && !p.ask(yield, KindFamily, r.Families.Has(p.Source),
		func() string { return wordsFamily(p.Flow) }) {
		return false
	}
	if r.Protocol != 0 && !p.ask(yield, KindProtocol, p.Protocol == r.Protocol,
		func() string { return wordsProtocol(p.Flow, r.Protocol) }) {
		return false
	}
	if r.NotProtocol != 0 && !p.ask(yield, KindNotProtocol, p.Protocol != r.NotProtocol,
		func() string { return wordsNotProtocol(r.NotProtocol) }) {
		return false
	}
	if r.ICMP != nil && !p.ask(yield, KindICMP, isICMP(p.Flow, r.ICMP),
		func() string { return wordsICMP(p.Flow, r.ICMP) }) {
		return false
	}
	return r.NotICMP == nil || p.ask(yield, KindNotICMP, !isICMP(p.Flow, r.NotICMP),
		func() string { return wordsNotICMP(r.NotICMP) })
}

// isICMP reports whether a flow is of a kind of ICMP message. The numbers are
// ICMP's over IPv4 and ICMPv6's over IPv6.
func isICMP(f Flow, m *model.ICMP) bool {
	return f.HasICMPType() && f.ICMPType == m.Type && (m.Code < 0 || int16(f.ICMPCode) == m.Code)
}

// entity is the criteria of one end.
func (v *View) entity(e *model.Entity, at *end, p *packet, yield asker) bool {
	if len(e.Nets) > 0 && !p.askOf(at, yield, KindNets, inOneOf(at.addr, e.Nets),
		func() string { return at.wordsNets(e.Nets) }) {
		return false
	}
	if len(e.NotNets) > 0 && !p.askOf(at, yield, KindNotNets, !inOneOf(at.addr, e.NotNets),
		func() string { return at.wordsNotNets(e.NotNets) }) {
		return false
	}
	if e.Peers.Restricted && !yield(at.selected(e.Peers.Selector, p)) {
		return false
	}
	if e.Peers.Excluding && !p.askOf(at, yield, KindNotSelector, !at.isSelected(e.Peers.Not),
		func() string { return at.wordsNotSelector(e.Peers.Not) }) {
		return false
	}
	return at.ports(e, p, yield) && v.service(e, at, p, yield)
}

func inOneOf(a netip.Addr, nets []netip.Prefix) bool {
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
}

func (at *end) isSelected(s selector.Selector) bool {
	for i := range at.things {
		if s.Matches(at.things[i].labels) {
			return true
		}
	}
	return false
}

// selected is the criterion that the end is something that a selector
// matches. It is as far from ok as that of what is there that is nearest.
func (at *end) selected(s selector.Selector, p *packet) criterion {
	c := criterion{ok: at.isSelected(s)}
	if !p.explain {
		return c
	}
	c.kind = at.name + " " + KindSelector
	if !c.ok {
		nearest, gaps := at.nearest(s)
		c.miss, c.why = max(1, len(gaps)), at.wordsSelector(s, nearest, gaps)
	}
	return c
}

// ports is the criteria about an end's port. Numbers and names of one list
// are alternatives.
func (at *end) ports(e *model.Entity, p *packet, yield asker) bool {
	if len(e.Ports) > 0 && !p.askOf(at, yield, kindOfPorts(e.Ports), at.onPort(e, e.Ports, p),
		func() string { return at.wordsPorts(e.Ports, p.Flow) }) {
		return false
	}
	if len(e.NotPorts) == 0 {
		return true
	}
	numbers, names := split(e.NotPorts)
	if len(numbers) > 0 && !p.askOf(at, yield, KindNotPorts, !at.onPort(e, numbers, p),
		func() string { return at.wordsNotPorts(numbers) }) {
		return false
	}
	return len(names) == 0 || p.askOf(at, yield, KindNotNamed, !at.onPort(e, names, p),
		func() string { return at.wordsNotPorts(names) })
}

// kindOfPorts names the criterion that a list of ports is.
func kindOfPorts(ports []model.PortMatch) string {
	named := func(m model.PortMatch) bool { return m.Name != "" }
	switch {
	case !slices.ContainsFunc(ports, named):
		return KindPorts
	case !slices.ContainsFunc(ports, func(m model.PortMatch) bool { return !named(m) }):
		return KindNamedPorts
	}
	return KindMixedPorts
}

// split tells the numbers from the names of a list of ports.
func split(ports []model.PortMatch) (numbers, names []model.PortMatch) {
	for _, m := range ports {
		if m.Name == "" {
			numbers = append(numbers, m)
		} else {
			names = append(names, m)
		}
	}
	return numbers, names
}

// onPort reports whether the end's port is one of a list. A name stands for
// the ports of that name of what is at the address, if the entity's selector
// matches it.
func (at *end) onPort(e *model.Entity, ports []model.PortMatch, p *packet) bool {
	if !model.HasPorts(p.Protocol) {
		return false
	}
	for _, m := range ports {
		if m.Name == "" {
			if m.Min <= at.port && at.port <= m.Max {
				return true
			}
			continue
		}
		for _, t := range at.things {
			if e.Peers.Restricted && !e.Peers.Selector.Matches(t.labels) {
				continue
			}
			if slices.Contains(t.ports, model.NamedPort{Name: m.Name, Protocol: p.Protocol, Port: at.port}) {
				return true
			}
		}
	}
	return false
}

// service is the criterion that an end is behind a service.
func (v *View) service(e *model.Entity, at *end, p *packet, yield asker) bool {
	if e.Service == nil {
		return true
	}
	s := v.services[*e.Service]
	ok := false
	if s != nil {
		ok = slices.ContainsFunc(s.Backends, func(b model.Backend) bool {
			return b.Addr == at.addr && (!e.ServicePorts || b.Protocol == p.Protocol && model.HasPorts(p.Protocol) &&
				b.Port == at.port && b.Port != 0)
		})
	}
	return p.askOf(at, yield, KindServices, ok, func() string { return at.wordsService(e, s != nil, p.Flow) })
}
