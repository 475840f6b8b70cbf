package calc

import (
	"net/netip"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// owns reports whether routes to a pool's blocks on other hosts are this
// agent's. nil stands for no pool. Those through a tunnel for IP in IP are its
// also where they are BGP's to bring: both are one program here.
func (o *overlay) owns(p *model.Pool) bool {
	cfg := &o.in.set.Overlay
	switch by := cfg.Routes; {
	case cfg.NoBGP:
		return true
	case p == nil:
		return false
	case p.Encap == model.IPIP:
		return by == model.RoutesIPIPOnly || by == model.RoutesAll || o.in.byBGP.ipip
	case p.Encap == model.NoEncap:
		return by == model.RoutesNoEncapOnly || by == model.RoutesAll
	}
	return true
}

// travel decides in which form packets to a pool travel to a host, and whether
// the route that makes them is this agent's. A host that does not accept the
// form that the pool asks for gets another one that it accepts: it is on its
// way from the one to the other.
func (o *overlay) travel(f facts, pool *model.Pool, family int) (form desired.Form, ours bool) {
	r, asked := f.reach[at(family)], encapOf(pool)
	if pool != nil && pool.CrossSubnet && r.near {
		asked = desired.Direct
	}
	if asked == desired.Direct || !o.owns(pool) {
		return desired.Direct, o.owns(pool)
	}
	if form, ok := o.tunnelTo(f, asked, family); ok {
		return form, true
	}
	return desired.Direct, o.in.set.Overlay.NoBGP
}

// tunnelTo finds the tunnel to a host: of the form that is asked for, else the
// other.
func (o *overlay) tunnelTo(f facts, asked desired.Form, family int) (desired.Form, bool) {
	other := desired.IPIP + desired.VXLAN - asked
	for _, form := range []desired.Form{asked, other} {
		there := o.mine.ready(form) && (form == desired.IPIP || f.reach[at(family)].vtep.IsValid())
		if there && o.ends.through(form, family) != nil && f.takes(form, asked) {
			return form, true
		}
	}
	return desired.Direct, false
}

// remote writes the route to a prefix that is another host's.
func (c *Core) remote(to netip.Prefix, u *desired.Update) {
	key := desired.RouteKey{Table: desired.MainTable, Prefix: to, Priority: c.priority(to.Addr()) - 1}
	route, there := c.overlay.route(to)
	writeBy(&u.Routes, c.asked.Routes, row[desired.RouteKey, desired.Route]{key, route, there}, desired.Route.Equal)
}

// free reports whether routes of this stage may lead to a prefix: not to an
// address of a workload here or of a host.
func (o *overlay) free(to netip.Prefix) bool {
	a := to.Addr()
	return !o.in.set.Overlay.NoRoutes && (!to.IsSingleIP() || !o.local[a] && o.addrs.first(a) == "")
}

// toEnd decides by which tunnel its end at another host is reached, which is
// that tunnel itself if packets to that host go through it, whatever the pool
// of the end asks for; false: as the pool says. So what is measured of a tunnel
// travels by it, and answers to this host's end come as questions went. The end
// of IPv6 VXLAN is a neighbour in any case.
func (o *overlay) toEnd(p *peer, to netip.Prefix) (desired.Form, bool) {
	if !to.IsSingleIP() || p.node == nil {
		return desired.Direct, false
	}
	f, a, family := p.facts, to.Addr(), familyOf(to.Addr())
	r := f.reach[at(family)]
	if family == 6 {
		return desired.VXLAN, a == r.vtep && o.ends.through(desired.VXLAN, 6) != nil && f.takes(desired.VXLAN, desired.VXLAN)
	}
	for _, form := range []desired.Form{desired.IPIP, desired.VXLAN} {
		end := r.vtep
		if form == desired.IPIP {
			end = p.node.IPIP
		}
		if a != end || !r.addr.IsValid() || !o.asked(4, r).Has(form) {
			continue
		}
		if by, ok := o.tunnelTo(f, form, 4); ok && by == form {
			return form, true
		}
	}
	return desired.Direct, false
}

// route works out the route to a prefix, false if there is none of ours. None
// leads to a host by way of that host itself.
func (o *overlay) route(to netip.Prefix) (desired.Route, bool) {
	none := desired.Route{}
	ways := o.slots[to]
	if len(ways) == 0 || !o.free(to) {
		return none, false
	}
	f, family := o.peers[ways[0].node].facts, familyOf(to.Addr())
	r := f.reach[at(family)]
	if !r.addr.IsValid() || to.Contains(r.addr) || !o.mine.addr(family).IsValid() {
		return none, false
	}
	form, ours := o.travel(f, o.poolOf(to), family)
	if own, ok := o.toEnd(o.peers[ways[0].node], to); ok {
		form, ours = own, true
	}
	if !ours {
		return none, false
	}
	hop := desired.NextHop{Via: r.addr}
	route := desired.Route{Protocol: desired.ProtocolAgent}
	if t := o.ends.through(form, family); t != nil {
		hop.Interface, hop.OnLink, route.MTU = t.name, true, t.mtu
	}
	if form == desired.VXLAN {
		hop.Via = r.vtep
		if to == single(r.vtep) { // the end itself is a neighbour
			hop.Via, hop.OnLink = netip.Addr{}, false
			if family == 4 {
				route.Scope = desired.ScopeLink
			}
		}
	}
	route.Hops = []desired.NextHop{hop}
	return route, true
}

// say tells what is wrong with a host's ends of tunnels. What is said of one
// host adds up in this order.
func (o *overlay) say(p *peer, to desired.Notices) {
	n, own := p.node, p.name == o.in.set.Node
	if n == nil {
		return
	}
	id := nodeID(n.Name)
	for _, family := range o.in.families() {
		end := p.ends[at(family)]
		if own {
			o.sayOwn(n, family, to)
		} else if r := p.facts.reach[at(family)]; r.addr.IsValid() && !end.Addr.IsValid() && o.ends.vxlan[at(family)] != nil &&
			o.asked(family, r).Has(desired.VXLAN) && p.facts.takes(desired.VXLAN, desired.VXLAN) {
			to.NoTunnelAddress(id, desired.VXLAN, family, false)
		}
	}
	for _, a := range p.tunneled {
		if host := o.addrs.first(a); host != "" {
			to.TunnelAddressTaken(id, nodeID(host), a, own)
		} else if first := o.tunneled.first(a); first != n.Name {
			to.TunnelAddressTaken(id, nodeID(first), a, own)
		}
	}
	for _, family := range o.in.families() {
		end := p.ends[at(family)]
		first := o.macs.first(macKey{family, end.MAC})
		switch {
		case !end.Addr.IsValid():
		case first != n.Name:
			to.TunnelMACTaken(id, nodeID(first), end.MAC, own)
		case !own && end.MAC == o.mine.mac[at(family)]:
			to.TunnelMACTaken(id, nodeID(o.in.set.Node), end.MAC, false)
		}
	}
	for _, family := range o.in.families() {
		o.sayForms(p, family, to)
	}
}

// sayOwn tells of addresses that this host should have.
func (o *overlay) sayOwn(n *model.Node, family int, to desired.Notices) {
	asked, id := o.asks[at(family)][0], nodeID(n.Name)
	if family == 4 && o.ends.ipip != nil && asked.Has(desired.IPIP) && !n.IPIP.IsValid() {
		to.NoTunnelAddress(id, desired.IPIP, 4, true)
	}
	if o.ends.vxlan[at(family)] != nil && asked.Has(desired.VXLAN) && !n.VXLAN(family).Addr.IsValid() {
		to.NoTunnelAddress(id, desired.VXLAN, family, true)
	}
}

// sayForms tells of forms that a host does not accept, with no other to do
// instead.
func (o *overlay) sayForms(p *peer, family int, to desired.Notices) {
	r := p.facts.reach[at(family)]
	for _, form := range []desired.Form{desired.IPIP, desired.VXLAN} {
		if !r.addr.IsValid() || !o.asked(family, r).Has(form) || o.ends.through(form, family) == nil || p.facts.takes(form, form) {
			continue
		}
		if _, ok := o.tunnelTo(p.facts, form, family); !ok {
			to.FormNotAccepted(nodeID(p.name), form, family)
		}
	}
}

// notices tells what of tunnels is not as it was asked for.
func (o *overlay) notices(to desired.Notices) {
	for name := range o.troubled {
		o.say(o.peers[name], to)
	}
	for _, p := range o.pools {
		f, family := encapOf(p), familyOf(p.CIDR.Addr())
		id := model.ID{Kind: model.KindPool, Name: p.Name}.String()
		switch {
		case !o.mine.addr(family).IsValid():
		case !o.owns(p) && o.in.aside(p):
			to.RoutesOfNobody(id)
		case f == desired.Direct:
		case o.ends.through(f, family) == nil:
			to.EncapsulationOff(id, f)
		case !o.owns(p):
			to.EncapsulationNotProgrammed(id, f)
		}
	}
}
