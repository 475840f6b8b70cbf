package calc

import (
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// The values of Overlay where it says nothing (documented Calico defaults).
const (
	defaultVNI  = 4096
	defaultPort = 4789
)

// tunnel is an interface of a tunnel that this host has.
type tunnel struct {
	name   string
	device desired.Device
	addr   netip.Addr // its own; invalid: none yet
	mtu    int        // 0: not known
}

// tunnels are those of this host. A nil one is not there.
type tunnels struct {
	ipip  *tunnel
	vxlan [2]*tunnel // by family
}

// through returns the tunnel of a form and family, nil if there is none.
func (t tunnels) through(f desired.Form, family int) *tunnel {
	switch {
	case f == desired.IPIP && family == 4:
		return t.ipip
	case f == desired.VXLAN:
		return t.vxlan[at(family)]
	}
	return nil
}

func (t tunnels) each(visit func(*tunnel)) {
	for _, one := range []*tunnel{t.ipip, t.vxlan[0], t.vxlan[1]} {
		if one != nil {
			visit(one)
		}
	}
}

// receives are the forms in which packets of a family may come to this host.
func (t tunnels) receives(family int) desired.Forms {
	out := desired.FormsOf(desired.Direct)
	for _, f := range []desired.Form{desired.IPIP, desired.VXLAN} {
		if t.through(f, family) != nil {
			out |= desired.FormsOf(f)
		}
	}
	return out
}

// encapOf is the form that a pool asks for.
func encapOf(p *model.Pool) desired.Form {
	switch {
	case p != nil && p.Encap == model.IPIP:
		return desired.IPIP
	case p != nil && p.Encap == model.VXLAN:
		return desired.VXLAN
	}
	return desired.Direct
}

// wanted reports whether this host should have a tunnel: a pool asks for it,
// others may still send by it, or the configuration says so.
func (o *overlay) wanted(f desired.Form, family int) bool {
	cfg, keep := &o.in.set.Overlay, o.in.underlay.Keep.Has(f)
	switch {
	case f == desired.IPIP && cfg.IPIP != nil:
		return *cfg.IPIP
	case f == desired.VXLAN && family == 4 && cfg.VXLAN != nil:
		return *cfg.VXLAN
	case f == desired.VXLAN && keep && o.mine.vtep[at(family)].IsValid(), f == desired.IPIP && keep:
		return true
	}
	for _, p := range o.pools {
		if encapOf(p) == f && familyOf(p.CIDR.Addr()) == family {
			return true
		}
	}
	return false
}

// tunnels works out which there are. A host without an address of the family
// has none.
func (o *overlay) tunnels() tunnels {
	var out tunnels
	cfg := &o.in.set.Overlay
	if a := o.mine.addr(4); a.IsValid() && o.wanted(desired.IPIP, 4) {
		out.ipip = &tunnel{
			name: desired.DeviceIPIP, addr: o.mine.end(desired.IPIP, 4, o.in.underlay.IPIP), mtu: o.mtu(desired.IPIP, 4, cfg.IPIPMTU),
			device: desired.Device{Form: desired.IPIP, Local: a},
		}
	}
	for _, family := range o.in.families() {
		a := o.mine.addr(family)
		if !a.IsValid() || !o.wanted(desired.VXLAN, family) {
			continue
		}
		name, mtu := desired.DeviceVXLAN4, cfg.VXLANMTU
		if family == 6 {
			name, mtu = desired.DeviceVXLAN6, cfg.VXLANMTU6
		}
		v := &tunnel{
			name: name, mtu: o.mtu(desired.VXLAN, family, mtu),
			addr: o.mine.end(desired.VXLAN, family, o.in.underlay.VXLAN(family)),
			device: desired.Device{
				Form: desired.VXLAN, Local: a, MAC: o.mine.mac[at(family)], VNI: cfg.VNI, Port: cfg.Port,
			},
		}
		if v.device.VNI == 0 {
			v.device.VNI = defaultVNI
		}
		if v.device.Port == 0 {
			v.device.Port = defaultPort
		}
		out.vxlan[at(family)] = v
	}
	return out
}

// mtu is that of a tunnel: as configured, or what is left of the network's
// below, 0 if that is not known.
func (o *overlay) mtu(f desired.Form, family, configured int) int {
	if configured != 0 {
		return configured
	}
	return max(0, o.in.underlay.MTU-desired.Overhead(f, family))
}

// sumUp notes what pools ask for and is ours to do, far hosts and near ones.
func (o *overlay) sumUp() {
	o.asks = [2][2]desired.Forms{}
	for _, p := range o.pools {
		if f := encapOf(p); f != desired.Direct && o.owns(p) {
			family := familyOf(p.CIDR.Addr())
			o.asks[at(family)][0] |= desired.FormsOf(f)
			if !p.CrossSubnet {
				o.asks[at(family)][1] |= desired.FormsOf(f)
			}
		}
	}
}

// asked are the forms that pools ask for towards a host.
func (o *overlay) asked(family int, r reach) desired.Forms {
	if r.near {
		return o.asks[at(family)][1]
	}
	return o.asks[at(family)][0]
}

// tunnels writes what this host has of tunnels, and who may send by them.
func (c *Core) tunnels(t *touched, u *desired.Update) {
	o := &c.overlay
	if o.dirty.all {
		c.ownTunnels(u)
		for _, p := range slices.Concat(t.senders, o.in.set.Overlay.ExternalNodes) {
			c.sender(p.Masked(), u)
		}
	}
	if t.pools {
		u.Policy.Pools = diff(c.asked.Policy.Pools, c.pools(), same)
	}
	c.expect(u)
	for a := range o.dirty.addrs {
		c.sender(single(a), u)
		c.neighbour(a, u)
	}
	for k := range o.dirty.macs {
		c.forwarding(k, u)
	}
	for p := range o.dirty.slots {
		c.remote(p, u)
	}
	o.dirty.clear()
}

// expect makes room for rows of what is dirty.
func (c *Core) expect(u *desired.Update) {
	d, table := &c.overlay.dirty, &c.asked
	expect(&u.Policy.Hosts, &table.Policy.Hosts, len(d.addrs))
	expect(&u.Neighbours, &table.Neighbours, len(d.macs)+len(d.addrs)/2)
	expect(&u.Routes, &table.Routes, min(len(d.slots), len(c.overlay.slots)))
}

func expect[K comparable, V any](p *desired.Patch[K, V], table *map[K]V, n int) {
	p.Set, *table = room(p.Set, n), room(*table, n)
}

// ownTunnels writes the interfaces.
func (c *Core) ownTunnels(u *desired.Update) {
	devices, links := map[string]desired.Device{}, map[string]desired.Link{}
	addrs, own := map[desired.AddrKey]struct{}{}, map[string]netip.Addr{}
	sysctls := desired.SysctlLines(desired.TunnelSysctls())
	c.overlay.ends.each(func(t *tunnel) {
		devices[t.name] = t.device
		links[t.name] = desired.Link{Up: true, MTU: t.mtu, Alias: desired.AliasTunnel, Sysctls: sysctls}
		if own[t.name] = t.addr; t.addr.IsValid() {
			addrs[desired.AddrKey{Interface: t.name, Prefix: single(t.addr)}] = struct{}{}
		}
	})
	u.Devices = diff(c.asked.Devices, devices, same)
	u.Addresses = diff(c.asked.Addresses, addrs, same)
	u.Policy.Tunnels = diff(c.asked.Policy.Tunnels, own, same)
	for _, name := range []string{desired.DeviceIPIP, desired.DeviceVXLAN4, desired.DeviceVXLAN6} {
		link, there := links[name]
		write(&u.Links, c.asked.Links, name, link, there)
	}
}

// pools are those with addresses of workloads.
func (c *Core) pools() map[netip.Prefix]desired.PoolUse {
	out := map[netip.Prefix]desired.PoolUse{}
	for _, p := range c.in.pools {
		if !p.LoadBalancerOnly && (p.CIDR.Addr().Is4() || !c.in.set.NoIPv6) {
			out[p.CIDR] = desired.PoolUse{Masquerade: p.NATOutgoing || out[p.CIDR].Masquerade}
		}
	}
	return out
}

// sender writes in which forms the hosts of a prefix may send to this one. It
// sends nothing to itself.
func (c *Core) sender(p netip.Prefix, u *desired.Update) {
	o, a, family := &c.overlay, p.Addr(), familyOf(p.Addr())
	there := p.IsSingleIP() && o.addrs.first(a) != ""
	for _, e := range o.in.set.Overlay.ExternalNodes {
		there = there || e.Masked() == p && (family == 4 || !o.in.set.NoIPv6)
	}
	forms := o.ends.receives(family)
	if p.IsSingleIP() && a == o.mine.addr(family) {
		forms = desired.OwnHost()
	}
	write(&u.Policy.Hosts, c.asked.Policy.Hosts, p, forms, there)
}

// neighbour writes which MAC the end of a VXLAN tunnel with an address has.
func (c *Core) neighbour(a netip.Addr, u *desired.Update) {
	o, family := &c.overlay, familyOf(a)
	name := desired.DeviceVXLAN4
	if family == 6 {
		name = desired.DeviceVXLAN6
	}
	var r reach
	if p := o.peers[o.tunneled.first(a)]; p != nil {
		r = p.facts.reach[at(family)]
	}
	write(&u.Neighbours, c.asked.Neighbours, desired.NeighKey{Interface: name, Addr: a},
		desired.Neigh{MAC: r.mac}, r.vtep == a && o.ends.vxlan[at(family)] != nil)
}

// forwarding writes to which host frames to a MAC go.
func (c *Core) forwarding(k macKey, u *desired.Update) {
	o := &c.overlay
	name := desired.DeviceVXLAN4
	if k.family == 6 {
		name = desired.DeviceVXLAN6
	}
	var r reach
	if p := o.peers[o.macs.first(k)]; p != nil {
		r = p.facts.reach[at(k.family)]
	}
	write(&u.Neighbours, c.asked.Neighbours, desired.NeighKey{Interface: name, MAC: k.mac},
		desired.Neigh{Dst: r.addr}, r.mac == k.mac && o.ends.vxlan[at(k.family)] != nil)
}

// write makes one row of a table what it should be, or absent, and says what
// it took.
func write[K, V comparable](p *desired.Patch[K, V], table map[K]V, k K, v V, there bool) {
	writeBy(p, table, row[K, V]{k, v, there}, same)
}

// row is a row of a table as it should be.
type row[K comparable, V any] struct {
	key   K
	value V
	there bool
}

func writeBy[K comparable, V any](p *desired.Patch[K, V], table map[K]V, r row[K, V], equal func(a, b V) bool) {
	old, had := table[r.key]
	switch {
	case r.there && (!had || !equal(old, r.value)):
		if p.Set == nil {
			p.Set = map[K]V{}
		}
		p.Set[r.key], table[r.key] = r.value, r.value
	case !r.there && had:
		p.Delete = append(p.Delete, r.key)
		delete(table, r.key)
	}
}
