package oracle

import (
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/model"
)

// packet is a flow with what is known of its two ends.
type packet struct {
	Flow
	source, dest end
}

// end is one end of a flow.
type end struct {
	name   string // "source" or "destination"
	addr   netip.Addr
	port   uint16
	things []thing // what selectors can select at the address
}

func (v *View) packet(f Flow) *packet {
	return &packet{
		Flow:   f,
		source: end{name: "source", addr: f.Source, port: f.SourcePort, things: v.at(f.Source)},
		dest:   end{name: "destination", addr: f.Dest, port: f.DestPort, things: v.at(f.Dest)},
	}
}

// criterion is one thing that a rule asks of a packet.
type criterion struct {
	kind string
	ok   bool
	miss func() int    // how many single things would have to change, if not ok
	why  func() string // why it is not ok
}

// failed makes the criterion of a kind, one thing away from being ok unless
// it is.
func failed(kind string, ok bool, why func() string) criterion {
	return criterion{kind: kind, ok: ok, why: why, miss: func() int { return 1 }}
}

// criteria gives each criterion that a rule states to yield, in the order of
// Kinds, for as long as that wants more.
func (v *View) criteria(r *model.Rule, p *packet, yield func(criterion) bool) {
	if !p.common(r, yield) {
		return
	}
	if v.entity(&r.Source, &p.source, p, yield) {
		v.entity(&r.Destination, &p.dest, p, yield)
	}
}

// common is the criteria that are about neither end.
func (p *packet) common(r *model.Rule, yield func(criterion) bool) bool {
	if r.Never && !yield(failed(KindFamily, false, wordsNever)) {
		return false
	}
	if r.Families != model.IPv4|model.IPv6 && !r.Never &&
		!yield(failed(KindFamily, r.Families.Has(p.Source), func() string { return wordsFamily(p.Flow) })) {
		return false
	}
	if r.Protocol != 0 && !yield(failed(KindProtocol, p.Protocol == r.Protocol,
		func() string { return wordsProtocol(p.Flow, r.Protocol) })) {
		return false
	}
	if r.NotProtocol != 0 && !yield(failed(KindNotProtocol, p.Protocol != r.NotProtocol,
		func() string { return wordsNotProtocol(r.NotProtocol) })) {
		return false
	}
	if r.ICMP != nil && !yield(failed(KindICMP, isICMP(p.Flow, r.ICMP),
		func() string { return wordsICMP(p.Flow, r.ICMP) })) {
		return false
	}
	return r.NotICMP == nil || yield(failed(KindNotICMP, !isICMP(p.Flow, r.NotICMP),
		func() string { return wordsNotICMP(r.NotICMP) }))
}

// isICMP reports whether a flow is of a kind of ICMP message. The numbers are
// ICMP's over IPv4 and ICMPv6's over IPv6.
func isICMP(f Flow, m *model.ICMP) bool {
	return f.HasICMPType() && f.ICMPType == m.Type && (m.Code < 0 || int16(f.ICMPCode) == m.Code)
}

// entity is the criteria of one end.
func (v *View) entity(e *model.Entity, at *end, p *packet, yield func(criterion) bool) bool {
	ask := func(kind string, ok bool, why func() string) bool {
		return yield(failed(at.name+" "+kind, ok, why))
	}
	if len(e.Nets) > 0 && !ask(KindNets, inOneOf(at.addr, e.Nets),
		func() string { return at.wordsNets(e.Nets) }) {
		return false
	}
	if len(e.NotNets) > 0 && !ask(KindNotNets, !inOneOf(at.addr, e.NotNets),
		func() string { return at.wordsNotNets(e.NotNets) }) {
		return false
	}
	if e.Peers.Restricted && !yield(at.selected(e)) {
		return false
	}
	if e.Peers.Excluding && !ask(KindNotSelector, !slices.ContainsFunc(at.things, func(t thing) bool {
		return e.Peers.Not.Matches(t.labels)
	}), func() string { return at.wordsNotSelector(e.Peers.Not) }) {
		return false
	}
	return at.ports(e, p, ask) && v.service(e, at, p, ask)
}

func inOneOf(a netip.Addr, nets []netip.Prefix) bool {
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
}

// selected is the criterion that the end is something that a selector
// matches. It is as far from ok as that of what is there that is nearest.
func (at *end) selected(e *model.Entity) criterion {
	c := criterion{kind: at.name + " " + KindSelector}
	if slices.ContainsFunc(at.things, func(t thing) bool { return e.Peers.Selector.Matches(t.labels) }) {
		c.ok = true
		return c
	}
	c.miss = func() int {
		_, gaps := at.nearest(e.Peers.Selector)
		return max(1, len(gaps))
	}
	c.why = func() string {
		nearest, gaps := at.nearest(e.Peers.Selector)
		return at.wordsSelector(e.Peers.Selector, nearest, gaps)
	}
	return c
}

// ports is the criteria about an end's port. Numbers and names of one list
// are alternatives.
func (at *end) ports(e *model.Entity, p *packet, ask func(string, bool, func() string) bool) bool {
	if len(e.Ports) > 0 && !ask(kindOfPorts(e.Ports), at.onPort(e, e.Ports, p),
		func() string { return at.wordsPorts(e.Ports, p.Flow) }) {
		return false
	}
	if len(e.NotPorts) == 0 {
		return true
	}
	numbers, names := split(e.NotPorts)
	if len(numbers) > 0 && !ask(KindNotPorts, !at.onPort(e, numbers, p),
		func() string { return at.wordsNotPorts(numbers) }) {
		return false
	}
	return len(names) == 0 || ask(KindNotNamed, !at.onPort(e, names, p),
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
func (v *View) service(e *model.Entity, at *end, p *packet, ask func(string, bool, func() string) bool) bool {
	if e.Service == nil {
		return true
	}
	s := v.services[*e.Service]
	ok := false
	if s != nil {
		ok = slices.ContainsFunc(s.Backends, func(b model.Backend) bool {
			return b.Addr == at.addr && (!e.ServicePorts || b.Protocol == p.Protocol && model.HasPorts(p.Protocol) &&
				(b.Port == at.port || b.Port == 0))
		})
	}
	return ask(KindServices, ok, func() string { return at.wordsService(e, s != nil, p.Flow) })
}
