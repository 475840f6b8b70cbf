package calc

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// peer is another host as this one sees it. This host is one too, with no way
// to it.
type peer struct {
	name    string
	node    *model.Node  // nil: not known
	facts   facts        // as of the last time it was looked at
	slots   prefixes     // that name it
	blocks  prefixes     // its own
	tunnels []netip.Addr // that have a way of their own

	// Of node, worked out once.
	ends     [2]model.TunnelEnd // of VXLAN, by family; no address: none
	tunneled []netip.Addr       // of its ends of tunnels, each once
}

// facts is what routes to a host are made from.
type facts struct {
	reach   [2]reach // by family
	accepts desired.Forms
	speaks  bool
}

// reach is how a host can be reached in one family.
type reach struct {
	addr netip.Addr // invalid: not at all
	near bool       // in this host's subnet
	vtep netip.Addr // its end of VXLAN tunnels; invalid: none that can be used
	mac  string     // with it
}

// takes reports whether a host accepts a form, as far as one knows: of one
// that says nothing the form that pools ask for is believed.
func (f facts) takes(form, asked desired.Form) bool {
	if f.speaks {
		return f.accepts.Has(form)
	}
	return form == asked
}

// look works out the facts of a host.
func (o *overlay) look(p *peer) facts {
	n := p.node
	if n == nil {
		return facts{}
	}
	f := facts{accepts: n.Accepts, speaks: n.Speaks}
	for _, family := range o.in.families() {
		a := n.Addr(family)
		if !a.IsValid() || o.addrs.first(a) != n.Name || a == o.mine.addr(family) {
			continue
		}
		r := reach{addr: a}
		if net := o.mine.nets[at(family)]; net.IsValid() {
			r.near = net.Contains(a)
		}
		end := p.ends[at(family)]
		if o.may(n.Name, end.Addr) && o.macs.first(macKey{family, end.MAC}) == n.Name && end.MAC != o.mine.mac[at(family)] {
			r.vtep, r.mac = end.Addr, end.MAC
		}
		f.reach[at(family)] = r
	}
	return f
}

// settle looks at a node again, marks what depends on it, and reports whether
// what is to be told of it may be new.
func (o *overlay) settle(name string) (news bool) {
	p := o.peer(name)
	old := p.facts
	p.facts = o.look(p)
	if p.facts != old {
		for s := range p.slots.all() {
			o.dirty.slots[s] = true
		}
		for _, f := range []facts{old, p.facts} {
			for i, r := range f.reach {
				if r.vtep.IsValid() {
					o.dirty.addrs[r.vtep] = true
					o.dirty.macs[macKey{4 + 2*i, r.mac}] = true
				}
			}
		}
	}
	o.retunnel(p)
	told := desired.Notices{}
	o.say(p, told)
	news = o.troubled[name] || len(told) > 0
	if len(told) > 0 {
		o.troubled[name] = true
	} else {
		delete(o.troubled, name)
	}
	o.forget(p)
	return news
}

// forget drops a host that nothing is known of.
func (o *overlay) forget(p *peer) {
	if p.node == nil && p.slots.len() == 0 && p.blocks.len() == 0 {
		delete(o.peers, p.name)
	}
}

// way says who is behind a prefix, and how one knows: of several, the first
// counts.
type way struct {
	kind  wayKind
	block netip.Prefix // that says so
	node  string
}

type wayKind uint8

const (
	byTunnel wayKind = iota // a node says it is the address of its tunnel
	byUse                   // a block says that another host than its own uses it
	byBlock                 // it is a block
)

// compare puts tunnels before addresses in use before blocks, and of blocks
// within each other the smaller one first.
func (w way) compare(v way) int {
	return cmp.Or(cmp.Compare(w.kind, v.kind), cmp.Compare(v.block.Bits(), w.block.Bits()), cmp.Compare(w.node, v.node))
}

// takeBlock stores what a block says instead of what it said.
func (o *overlay) takeBlock(old, next *model.Block) {
	for i, b := range []*model.Block{old, next} {
		if b == nil || b.Virtual || o.in.set.NoIPv6 && b.CIDR.Addr().Is6() {
			continue
		}
		o.host(b, i == 1)
		for _, use := range b.Uses {
			if use.Node != "" && use.Node != o.in.set.Node && use.Node != b.Host {
				o.point(single(use.Addr), way{byUse, b.CIDR, use.Node}, i == 1)
			}
		}
	}
}

// host makes a block its host's, or no more. It covers addresses of tunnels.
func (o *overlay) host(b *model.Block, there bool) {
	if b.Host == "" {
		return
	}
	if b.Host != o.in.set.Node {
		o.point(b.CIDR, way{byBlock, b.CIDR, b.Host}, there)
	}
	p := o.peer(b.Host)
	p.blocks.set(b.CIDR, there)
	if p.node == nil {
		o.forget(p)
		return
	}
	if slices.ContainsFunc(p.tunneled, b.CIDR.Contains) {
		o.dirty.nodes[b.Host] = true
	}
}

// retunnel gives a host's addresses of tunnels ways of their own where no
// block of its own leads to them, or not in the form of the tunnel, and its end
// of IPv6 VXLAN in any case: the kernel takes a next hop on a link only if no
// other route leads to it.
func (o *overlay) retunnel(p *peer) {
	var next []netip.Addr
	if p.node != nil && p.name != o.in.set.Node {
		for _, a := range p.tunneled {
			if o.may(p.name, a) && (!p.has(a) || a == p.node.VXLAN6.Addr || o.astray(p, a)) {
				next = append(next, a)
			}
		}
	}
	for _, a := range p.tunnels {
		if !slices.Contains(next, a) {
			o.point(single(a), way{kind: byTunnel, node: p.name}, false)
		}
	}
	for _, a := range next {
		if !slices.Contains(p.tunnels, a) {
			o.point(single(a), way{kind: byTunnel, node: p.name}, true)
		}
	}
	p.tunnels = next
}

// astray reports whether the way to the block of a tunnel's end is another than
// the tunnel by which the end is reached.
func (o *overlay) astray(p *peer, a netip.Addr) bool {
	own, ok := o.toEnd(p, single(a))
	if !ok || a.Is6() {
		return false
	}
	form, _ := o.travel(p.facts, o.poolOf(single(a)), 4)
	return form != own
}

// has reports whether an address is in a block of the host's own.
func (p *peer) has(a netip.Addr) bool {
	for b := range p.blocks.all() {
		if b.Contains(a) {
			return true
		}
	}
	return false
}

// point adds a way to a prefix, or takes it away.
func (o *overlay) point(to netip.Prefix, w way, there bool) {
	o.dirty.slots[to] = true
	ways, p := o.slots[to], o.peer(w.node)
	i, found := slices.BinarySearchFunc(ways, w, way.compare)
	switch {
	case there && !found:
		o.slots[to] = slices.Insert(ways, i, w)
		p.slots.set(to, true)
	case !there && found:
		if ways = slices.Delete(ways, i, i+1); len(ways) == 0 {
			delete(o.slots, to)
		} else {
			o.slots[to] = ways
		}
		if !slices.ContainsFunc(ways, func(other way) bool { return other.node == w.node }) {
			p.slots.set(to, false)
		}
	}
	if !there {
		o.forget(p)
	}
}
