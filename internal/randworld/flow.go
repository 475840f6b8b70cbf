package randworld

import (
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// flowMaker is what flows are made of.
type flowMaker struct {
	local []*model.Workload // with addresses, of the host that is looked at
	ends  []labelled        // what a selector can select, with its labels
	rules []aimed
}

// labelled is what a selector can select.
type labelled struct {
	labels selector.Map
	ports  []model.NamedPort
	addrs  []netip.Addr
	nets   []netip.Prefix
}

// aimed is a rule with the direction that it is for, and who may come under
// it.
type aimed struct {
	*model.Rule
	ingress bool
	local   []*model.Workload
}

// Flow makes a flow that has at least one end among the workloads of the host
// that is looked at, if there are any. Most flows are made to match a rule
// of a policy for that workload; then many are moved a little.
func (w *World) Flow() model.Flow {
	if w.stale {
		w.prepare()
	}
	four := w.chance(55)
	f := model.Flow{
		Protocol: w.protocol(four), SourcePort: w.port(), DestPort: w.port(),
		ICMPType: pick[uint8](w, 8, 8, 128, 128, 3, 0), ICMPCode: uint8(w.rng.IntN(2)),
	}
	m, ingress := &w.flows, w.chance(50)
	own, other := w.ownEnd(m.local, four), w.otherEnd(four)
	if len(m.rules) > 0 && w.chance(85) {
		r := pick(w, m.rules...)
		ingress = r.ingress
		four = r.Families&model.IPv6 == 0 || r.Families&model.IPv4 != 0 && four
		near, far := &r.Source, &r.Destination
		if ingress {
			near, far = far, near
		}
		own, other = w.ownEnd(r.local, four), w.meet(far, four)
		if a := w.meet(near, four); len(r.local) > 0 && w.isLocal(r.local, a) {
			own = a
		}
		w.aim(&f, r.Rule, four)
		w.onPorts(&f.SourcePort, &f.Protocol, &r.Source)
		w.onPorts(&f.DestPort, &f.Protocol, &r.Destination)
		w.named(&f, r.Rule, ingress, own, other)
	}
	f.Source, f.Dest = own, other
	if ingress {
		f.Source, f.Dest = other, own
	}
	if w.chance(35) {
		w.nudge(&f, four, ingress)
	}
	return f
}

func (w *World) prepare() {
	w.stale = false
	m := flowMaker{}
	for _, id := range w.ids {
		switch v := w.objects[id].(type) {
		case *model.Workload:
			m.ends = append(m.ends, labelled{labels: w.labelsOf(v.Labels, v.Profiles), ports: v.Ports, addrs: v.Addrs})
			if v.Node == Node && len(v.Addrs) > 0 {
				m.local = append(m.local, v)
			}
		case *model.HostEndpoint:
			m.ends = append(m.ends, labelled{labels: w.labelsOf(v.Labels, v.Profiles), ports: v.Ports, addrs: v.Addrs})
		case *model.NetworkSet:
			m.ends = append(m.ends, labelled{labels: w.labelsOf(v.Labels, v.Profiles), nets: v.Nets})
		}
	}
	for _, id := range w.ids {
		if p, ok := w.objects[id].(*model.Policy); ok {
			m.aimAt(w, p)
		}
	}
	w.flows = m
}

func (m *flowMaker) aimAt(w *World, p *model.Policy) {
	var local []*model.Workload
	for _, x := range m.local {
		if p.Selects.Matches(w.labelsOf(x.Labels, x.Profiles)) {
			local = append(local, x)
		}
	}
	for way, d := range []model.Direction{p.Egress, p.Ingress} {
		for i := range d.Rules {
			if !d.Applies || len(local) == 0 {
				continue
			}
			for range weight(&d.Rules[i]) {
				m.rules = append(m.rules, aimed{&d.Rules[i], way == 1, local})
			}
		}
	}
}

// weight is how often flows are made for a rule: more often for one with
// something that few packets meet.
func weight(r *model.Rule) int {
	for _, e := range []*model.Entity{&r.Source, &r.Destination} {
		for _, m := range slices.Concat(e.NotPorts, e.Ports) {
			if m.Name != "" {
				return 4
			}
		}
		if len(e.NotPorts) > 0 || e.Service != nil {
			return 3
		}
	}
	return 1
}

// ownEnd is an address of a workload, of the family if one has it.
func (w *World) ownEnd(of []*model.Workload, four bool) netip.Addr {
	if len(of) == 0 {
		return w.address(four)
	}
	start := w.rng.IntN(len(of))
	for i := range of {
		for _, a := range of[(start+i)%len(of)].Addrs {
			if a.Is4() == four {
				return a
			}
		}
	}
	return w.address(four)
}

func (w *World) isLocal(of []*model.Workload, a netip.Addr) bool {
	for _, x := range of {
		for _, b := range x.Addrs {
			if a == b {
				return true
			}
		}
	}
	return false
}

// otherEnd is the address of anything.
func (w *World) otherEnd(four bool) netip.Addr {
	if m := &w.flows; len(m.ends) > 0 && w.chance(60) {
		if a, ok := w.oneOf(&m.ends[w.rng.IntN(len(m.ends))], four); ok {
			return a
		}
	}
	return w.address(four)
}

func (w *World) oneOf(e *labelled, four bool) (netip.Addr, bool) {
	for _, a := range e.addrs {
		if a.Is4() == four {
			return a, true
		}
	}
	var nets []netip.Prefix
	for _, n := range e.nets {
		if n.Addr().Is4() == four {
			nets = append(nets, n)
		}
	}
	if len(nets) == 0 {
		return netip.Addr{}, false
	}
	return w.within(pick(w, nets...)), true
}

// within is an address of a network: mostly among the first few, so that it
// may be somebody's.
func (w *World) within(n netip.Prefix) netip.Addr {
	a := n.Addr()
	for n.Bits() < 8 { // these begin with addresses that nothing can have
		if b := w.address(a.Is4()); n.Contains(b) {
			return b
		}
	}
	for range w.rng.IntN(5) {
		if b := a.Next(); n.Contains(b) {
			a = b
		}
	}
	return a
}

// meet is an address that an entity matches, as far as one is easily found.
func (w *World) meet(e *model.Entity, four bool) netip.Addr {
	for range 6 {
		a := w.candidate(e, four)
		if w.fits(e, a) {
			return a
		}
	}
	return w.otherEnd(four)
}

func (w *World) candidate(e *model.Entity, four bool) netip.Addr {
	if e.Service != nil {
		id := model.ID{Kind: model.KindService, Namespace: e.Service.Namespace, Name: e.Service.Name}
		if s, ok := w.objects[id].(*model.Service); ok && len(s.Backends) > 0 {
			if b := pick(w, s.Backends...); b.Addr.Is4() == four {
				return b.Addr
			}
		}
	}
	if len(e.Nets) > 0 {
		if n := pick(w, e.Nets...); n.Addr().Is4() == four {
			return w.within(n)
		}
	}
	return w.otherEnd(four)
}

// fits reports whether an address is right for an entity, ports aside.
func (w *World) fits(e *model.Entity, a netip.Addr) bool {
	in := func(nets []netip.Prefix) bool {
		for _, n := range nets {
			if n.Contains(a) {
				return true
			}
		}
		return false
	}
	if len(e.Nets) > 0 && !in(e.Nets) || in(e.NotNets) {
		return false
	}
	if !e.Peers.Restricted && !e.Peers.Excluding {
		return true
	}
	found := !e.Peers.Restricted
	for i := range w.flows.ends {
		t := &w.flows.ends[i]
		if !t.has(a) {
			continue
		}
		if e.Peers.Excluding && e.Peers.Not.Matches(t.labels) {
			return false
		}
		found = found || e.Peers.Selector.Matches(t.labels)
	}
	return found
}

func (t *labelled) has(a netip.Addr) bool {
	for _, b := range t.addrs {
		if a == b {
			return true
		}
	}
	for _, n := range t.nets {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

func (w *World) protocol(four bool) uint8 {
	icmp := uint8(model.ProtocolICMPv6)
	if four {
		icmp = model.ProtocolICMP
	}
	return pick(w, model.ProtocolTCP, model.ProtocolTCP, model.ProtocolUDP, model.ProtocolSCTP, icmp, icmp,
		model.ProtocolUDPLite, 47)
}

// aim makes the flow be of the protocol and message that a rule wants.
func (w *World) aim(f *model.Flow, r *model.Rule, four bool) {
	f.Protocol = w.protocol(four)
	for range 4 {
		if f.Protocol == r.NotProtocol {
			f.Protocol = w.protocol(four)
		}
	}
	if r.Protocol != 0 {
		f.Protocol = r.Protocol
	}
	if r.Protocol == 0 && (len(r.Source.Ports) > 0 || len(r.Destination.Ports) > 0) {
		f.Protocol = pick[uint8](w, model.ProtocolTCP, model.ProtocolUDP, model.ProtocolSCTP)
	}
	if r.ICMP != nil {
		f.ICMPType = r.ICMP.Type
		if r.ICMP.Code >= 0 {
			f.ICMPCode = uint8(r.ICMP.Code)
		}
	}
	if r.NotICMP != nil && r.ICMP == nil && w.chance(50) {
		f.Protocol = model.ProtocolICMPv6
		if four {
			f.Protocol = model.ProtocolICMP
		}
	}
	if r.NotICMP != nil && w.chance(40) {
		f.ICMPType, f.ICMPCode = r.NotICMP.Type, uint8(max(r.NotICMP.Code, 0))
	}
}

// onPorts makes a port be one of those that an entity lists by number, often
// at an edge.
func (w *World) onPorts(port *uint16, protocol *uint8, e *model.Entity) {
	if len(e.Ports) == 0 {
		return
	}
	m := pick(w, e.Ports...)
	if m.Name == "" {
		*port = pick(w, m.Min, m.Max)
	}
	if !model.HasPorts(*protocol) {
		*protocol = model.ProtocolTCP
	}
}

// named makes a port be one that a name or a service stands for.
func (w *World) named(f *model.Flow, r *model.Rule, ingress bool, own, other netip.Addr) {
	source, dest := own, other
	if ingress {
		source, dest = other, own
	}
	w.byName(&f.SourcePort, f, r, &r.Source, source)
	w.byName(&f.DestPort, f, r, &r.Destination, dest)
	if s := r.Destination.Service; s != nil {
		id := model.ID{Kind: model.KindService, Namespace: s.Namespace, Name: s.Name}
		if v, ok := w.objects[id].(*model.Service); ok {
			for _, b := range v.Backends {
				if b.Addr == dest && b.Port != 0 && (r.Protocol == 0 || r.Protocol == b.Protocol) {
					f.Protocol, f.DestPort = b.Protocol, b.Port
				}
			}
		}
	}
}

func (w *World) byName(port *uint16, f *model.Flow, r *model.Rule, e *model.Entity, a netip.Addr) {
	for _, list := range [][]model.PortMatch{e.Ports, e.NotPorts} {
		if len(list) == 0 {
			continue
		}
		m := pick(w, list...)
		if m.Name == "" {
			continue
		}
		for i := range w.flows.ends {
			t := &w.flows.ends[i]
			for _, p := range t.ports {
				if p.Name == m.Name && t.has(a) && (r.Protocol == 0 || r.Protocol == p.Protocol) {
					f.Protocol, *port = p.Protocol, p.Port
				}
			}
		}
	}
}

// nudge changes one thing of a flow.
func (w *World) nudge(f *model.Flow, four, ingress bool) {
	other := &f.Dest
	if ingress {
		other = &f.Source
	}
	switch w.rng.IntN(6) {
	case 0:
		*other = w.otherEnd(four)
	case 1:
		f.DestPort += pick[uint16](w, 1, 65535)
	case 2:
		f.SourcePort += pick[uint16](w, 1, 65535)
	case 3:
		f.Protocol = w.protocol(four)
	case 4:
		f.ICMPType, f.ICMPCode = pick[uint8](w, 8, 128, 3), uint8(w.rng.IntN(3))
	case 5:
		if n := other.Next(); n.IsValid() && w.isClose(n) {
			*other = n
		}
	}
}

// isClose keeps flows away from what is no unicast address.
func (w *World) isClose(a netip.Addr) bool { return !a.IsMulticast() && !a.IsUnspecified() }
