package oracle

import (
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// notices names what of tunnels is not as it was asked for.
func (f fabric) notices(out desired.Notices) {
	for _, p := range f.pools {
		id, mine := model.ID{Kind: model.KindPool, Name: p.Name}.String(), nodeAddr(&f.me, v4(p.CIDR.Addr()))
		if !mine.IsValid() || !f.wanted(mine) {
			continue
		}
		if f.left(p) && f.aside(p) {
			out.RoutesOfNobody(id)
			continue
		}
		if form(p) == desired.Direct {
			continue
		}
		if !f.switchedOn(form(p), v4(p.CIDR.Addr())) {
			out.EncapsulationOff(id, form(p))
		} else if f.left(p) {
			out.EncapsulationNotProgrammed(id, form(p))
		}
	}
	for _, n := range f.nodes {
		f.missing(n, out)
		f.taken(n, out)
		f.refused(n, out)
	}
}

// family is the number of a family.
func family(four bool) int {
	if four {
		return 4
	}
	return 6
}

// asks reports whether a pool whose routes are the agent's asks for a tunnel
// to a node.
func (f fabric) asks(n *model.Node, t desired.Form, four bool) bool {
	for _, p := range f.pools {
		near := n.Name != f.me.Name && p.CrossSubnet && f.near(f.address(n, four))
		if form(p) == t && v4(p.CIDR.Addr()) == four && !f.left(p) && !near {
			return f.switchedOn(t, four)
		}
	}
	return false
}

// missing names addresses of tunnels that a node does not have.
func (f fabric) missing(n *model.Node, out desired.Notices) {
	own, id := n.Name == f.me.Name, model.ID{Kind: model.KindNode, Name: n.Name}.String()
	for _, four := range []bool{true, false} {
		if own && f.asks(n, desired.IPIP, four) && !n.IPIP.IsValid() {
			out.NoTunnelAddress(id, desired.IPIP, family(four), true)
		}
		if vxlanEnd(n, four).Addr.IsValid() || !own && !f.address(n, four).IsValid() || !f.asks(n, desired.VXLAN, four) {
			continue
		}
		if own || !n.Speaks || n.Accepts.Has(desired.VXLAN) {
			out.NoTunnelAddress(id, desired.VXLAN, family(four), own)
		}
	}
}

// taken names addresses of a node's tunnels that are somebody else's.
func (f fabric) taken(n *model.Node, out desired.Notices) {
	own, id := n.Name == f.me.Name, model.ID{Kind: model.KindNode, Name: n.Name}.String()
	for _, a := range f.tunnelAddrs(n) {
		if o := f.inTheWay(n.Name, a); o != nil {
			out.TunnelAddressTaken(id, model.ID{Kind: model.KindNode, Name: o.Name}.String(), a, own)
		}
	}
	for _, four := range []bool{true, false} {
		end := vxlanEnd(n, four)
		if !end.Addr.IsValid() || !f.wanted(end.Addr) {
			continue
		}
		if o := f.macInTheWay(n, four); o != nil {
			out.TunnelMACTaken(id, model.ID{Kind: model.KindNode, Name: o.Name}.String(), end.MAC, own)
		}
	}
}

// refused names tunnels that pools ask for and a node does not accept, with no
// other instead.
func (f fabric) refused(n *model.Node, out desired.Notices) {
	id := model.ID{Kind: model.KindNode, Name: n.Name}.String()
	for _, four := range []bool{true, false} {
		for _, t := range []desired.Form{desired.IPIP, desired.VXLAN} {
			if !n.Speaks || n.Accepts.Has(t) || !f.address(n, four).IsValid() || !f.asks(n, t, four) {
				continue
			}
			other := map[desired.Form]desired.Form{desired.IPIP: desired.VXLAN, desired.VXLAN: desired.IPIP}[t]
			if !n.Accepts.Has(other) || f.hindrance(n, other, four) != "" {
				out.FormNotAccepted(id, t, family(four))
			}
		}
	}
}
