package oracle

import (
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// fabric is the hosts, pools and blocks of a cluster as one host sees them.
type fabric struct {
	world
	me       model.Node  // without a name if this host is not there
	mine     *model.Node // the same among nodes, nil if it is not there
	nodes    []*model.Node
	pools    []*model.Pool
	blocks   []*model.Block // of hosts, in the families that this host cares for
	underlay model.Underlay
}

func (w world) fabric() fabric {
	if w.index == nil {
		w.index = newIndex(w)
	}
	f := fabric{world: w, nodes: w.index.nodes, blocks: w.index.blocks, pools: each[*model.Pool](w)}
	if n := w.index.byName[w.set.Node]; n != nil {
		f.me, f.mine = *n, n
	}
	for _, u := range each[*model.Underlay](w) {
		f.underlay = *u
	}
	return f
}

// tunnelAddrs are the addresses of a node's tunnels in the families that this
// host cares for.
func (w world) tunnelAddrs(n *model.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range []netip.Addr{n.IPIP, n.VXLAN4.Addr, n.VXLAN6.Addr} {
		if a.IsValid() && w.wanted(a) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// inTheWay is the node that keeps a node from using an address for its
// tunnels: one whose own address it is, else one before it with a tunnel of
// the same address. nil if there is none.
func (f fabric) inTheWay(of string, a netip.Addr) *model.Node {
	if n := f.index.byAddr[a]; n != nil {
		return n
	}
	if n := f.index.byEnd[a]; n != nil && n.Name < of {
		return n
	}
	return nil
}

// usable is the address that a node may use for a tunnel, invalid if it has
// none or may not use it.
func (f fabric) usable(of string, a netip.Addr) netip.Addr {
	if !a.IsValid() || f.inTheWay(of, a) != nil {
		return netip.Addr{}
	}
	return a
}

// vxlanEnd is a node's end of VXLAN tunnels as it says, with its MAC.
func vxlanEnd(n *model.Node, four bool) model.TunnelEnd {
	end := n.VXLAN4
	if !four {
		end = n.VXLAN6
	}
	if end.MAC == "" {
		end.MAC = model.VTEPMAC(n.Name, family(four))
	}
	return end
}

// end is vxlanEnd of one of the nodes, worked out once.
func (f fabric) end(n *model.Node, four bool) model.TunnelEnd {
	if four {
		return f.index.ends[n][1]
	}
	return f.index.ends[n][0]
}

// macInTheWay is the node whose MAC address keeps others from sending to a
// node by VXLAN. nil if there is none.
func (f fabric) macInTheWay(of *model.Node, four bool) *model.Node {
	mac := f.end(of, four).MAC
	if n := f.index.byMAC[four][mac]; n != nil && n.Name < of.Name {
		return n
	}
	if f.me.Name != "" && of.Name != f.me.Name && f.end(f.mine, four).MAC == mac {
		return &f.me
	}
	return nil
}

// vtep is the end of VXLAN tunnels to a node, false if there is none to use.
func (f fabric) vtep(n *model.Node, four bool) (model.TunnelEnd, bool) {
	end := f.end(n, four)
	return end, f.usable(n.Name, end.Addr).IsValid() && f.macInTheWay(n, four) == nil
}

// address is the one at which this host finds another, invalid if it has
// none, this host has it or an earlier node does.
func (f fabric) address(n *model.Node, four bool) netip.Addr {
	a := nodeAddr(n, four)
	if !a.IsValid() || !f.wanted(a) || a == nodeAddr(&f.me, four) {
		return netip.Addr{}
	}
	if f.index.byAddr[a].Name != n.Name {
		return netip.Addr{}
	}
	return a
}

// near reports whether an address is in this host's subnet.
func (f fabric) near(a netip.Addr) bool {
	net := f.me.Addr4
	if !v4(a) {
		net = f.me.Addr6
	}
	return net.IsValid() && net.Masked().Contains(a)
}

// form is the one that a pool asks for.
func form(p *model.Pool) desired.Form {
	if p == nil || p.Encap == model.NoEncap {
		return desired.Direct
	}
	if p.Encap == model.IPIP {
		return desired.IPIP
	}
	return desired.VXLAN
}

// switchedOn reports whether this host has the interface of a tunnel.
func (f fabric) switchedOn(t desired.Form, four bool) bool {
	mine := nodeAddr(&f.me, four)
	if !mine.IsValid() || !f.wanted(mine) || t == desired.IPIP && !four {
		return false
	}
	cfg := f.set.Overlay
	if t == desired.IPIP && cfg.IPIP != nil {
		return *cfg.IPIP
	}
	if t == desired.VXLAN && four && cfg.VXLAN != nil {
		return *cfg.VXLAN
	}
	for _, p := range f.pools {
		if form(p) == t && v4(p.CIDR.Addr()) == four {
			return true
		}
	}
	if !f.underlay.Keep.Has(t) {
		return false
	}
	return t == desired.IPIP || f.usable(f.me.Name, f.end(f.mine, four).Addr).IsValid()
}

// tunnelName is the interface of a tunnel.
func tunnelName(t desired.Form, four bool) string {
	switch {
	case t == desired.IPIP:
		return desired.DeviceIPIP
	case four:
		return desired.DeviceVXLAN4
	}
	return desired.DeviceVXLAN6
}

// tunnelMTU is that of a tunnel's interface, 0 if it is not known.
func (f fabric) tunnelMTU(t desired.Form, four bool) int {
	cfg := f.set.Overlay.VXLANMTU6
	if four {
		cfg = f.set.Overlay.VXLANMTU
	}
	if t == desired.IPIP {
		cfg = f.set.Overlay.IPIPMTU
	}
	if rest := f.underlay.MTU - desired.Overhead(t, family(four)); cfg == 0 && rest > 0 {
		return rest
	}
	return cfg
}

// tunnels fills in the interfaces of tunnels.
func (f fabric) tunnels(out *desired.State) {
	for _, t := range []desired.Form{desired.IPIP, desired.VXLAN} {
		for _, four := range []bool{true, false} {
			if !f.switchedOn(t, four) {
				continue
			}
			name := tunnelName(t, four)
			d, own, held := desired.Device{Form: t, Local: nodeAddr(&f.me, four)}, f.me.IPIP, f.underlay.IPIP
			if t == desired.VXLAN {
				d.MAC, d.VNI, d.Port, own = f.end(f.mine, four).MAC, 4096, 4789, f.end(f.mine, four).Addr
				held = f.underlay.VXLAN(family(four))
				if f.set.Overlay.VNI != 0 {
					d.VNI = f.set.Overlay.VNI
				}
				if f.set.Overlay.Port != 0 {
					d.Port = f.set.Overlay.Port
				}
				f.ends(four, out.Neighbours)
			}
			out.Devices[name] = d
			out.Links[name] = desired.Link{
				Up: true, MTU: f.tunnelMTU(t, four), Alias: desired.AliasTunnel,
				Sysctls: desired.SysctlLines(desired.TunnelSysctls()),
			}
			if own.IsValid() {
				own = f.usable(f.me.Name, own)
			} else {
				own = held // the node does not say it yet
			}
			out.Policy.Tunnels[name] = own
			if own.IsValid() {
				out.Addresses[desired.AddrKey{Interface: name, Prefix: alone(own)}] = struct{}{}
			}
		}
	}
	f.senders(out.Policy.Hosts)
	for _, p := range f.pools {
		if f.wanted(p.CIDR.Addr()) && !p.LoadBalancerOnly {
			use := out.Policy.Pools[p.CIDR]
			use.Masquerade = use.Masquerade || p.NATOutgoing
			out.Policy.Pools[p.CIDR] = use
		}
	}
}

// ends fills in the neighbours and forwarding entries of VXLAN.
func (f fabric) ends(four bool, out map[desired.NeighKey]desired.Neigh) {
	name := tunnelName(desired.VXLAN, four)
	for _, n := range f.nodes {
		a := f.address(n, four)
		if end, ok := f.vtep(n, four); ok && a.IsValid() && n.Name != f.me.Name {
			out[desired.NeighKey{Interface: name, Addr: end.Addr}] = desired.Neigh{MAC: end.MAC}
			out[desired.NeighKey{Interface: name, MAC: end.MAC}] = desired.Neigh{Dst: a}
		}
	}
}

// senders fills in who may send to this host in which forms.
func (f fabric) senders(out map[netip.Prefix]desired.Forms) {
	all := slices.Clone(f.set.Overlay.ExternalNodes)
	for _, n := range f.nodes {
		for _, four := range []bool{true, false} {
			if a := nodeAddr(n, four); a.IsValid() {
				all = append(all, alone(a))
			}
		}
	}
	for _, p := range all {
		four, list := v4(p.Addr()), []desired.Form{desired.Direct}
		for _, t := range []desired.Form{desired.IPIP, desired.VXLAN} {
			if f.switchedOn(t, four) && p != alone(nodeAddrOr(&f.me, four)) {
				list = append(list, t)
			}
		}
		if f.wanted(p.Addr()) {
			out[p.Masked()] = desired.FormsOf(list...)
			if p == alone(nodeAddrOr(&f.me, four)) {
				out[p.Masked()] = desired.OwnHost()
			}
		}
	}
}

// nodeAddrOr is nodeAddr, or the unspecified address, which no host has.
func nodeAddrOr(n *model.Node, four bool) netip.Addr {
	switch a := nodeAddr(n, four); {
	case a.IsValid():
		return a
	case four:
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
