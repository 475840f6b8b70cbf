package calc

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// overlay is the stage that knows the other hosts, their ends of tunnels and
// their blocks. A change of one of them costs what it touches: each route,
// neighbour and address of a host is worked out by itself, when something
// that it is made from has changed.
type overlay struct {
	in    *inputs
	local map[netip.Addr]bool // addresses of workloads here
	pools []*model.Pool       // those within others first, then by name
	mine  mine
	ends  tunnels
	asks  [2][2]desired.Forms // what pools ask for and is ours to do, by family, far or near

	peers map[string]*peer // every node, and every host of a block
	slots map[netip.Prefix][]way
	// Who has what; the first by name may use it.
	addrs, tunneled claims[netip.Addr]
	macs            claims[macKey]
	dirty           dirty
	troubled        map[string]bool // nodes of which something is to be told
}

// mine is what others, and their routes, depend on of this host.
type mine struct {
	nets [2]netip.Prefix // its address with the length of its subnet
	ipip netip.Addr      // its address on the tunnel, if it may use it
	vtep [2]netip.Addr   // the same
	mac  [2]string
	says [3]bool // its Node says an address: on the tunnel, and on those of VXLAN by family

	speaks  bool          // it says which forms it accepts
	accepts desired.Forms // what it says
}

// dirty is what is to be worked out anew at the end of a batch.
type dirty struct {
	nodes map[string]bool
	slots map[netip.Prefix]bool
	addrs map[netip.Addr]bool
	macs  map[macKey]bool
	all   bool
	wide  bool // there was made room for many
}

// at is the place of a family in an array of both.
func at(family int) int { return family / 6 }

func newOverlay(in *inputs) overlay {
	return overlay{
		in: in, peers: map[string]*peer{}, slots: map[netip.Prefix][]way{}, troubled: map[string]bool{},
		addrs: claims[netip.Addr]{}, tunneled: claims[netip.Addr]{}, macs: claims[macKey]{}, dirty: newDirty(),
	}
}

func newDirty() dirty {
	return dirty{
		nodes: map[string]bool{}, slots: map[netip.Prefix]bool{},
		addrs: map[netip.Addr]bool{}, macs: map[macKey]bool{},
	}
}

// clear forgets all.
func (d *dirty) clear() {
	if d.wide {
		*d = newDirty()
		return
	}
	*d = dirty{nodes: emptied(d.nodes), slots: emptied(d.slots), addrs: emptied(d.addrs), macs: emptied(d.macs)}
}

// emptied returns an empty map, which may be m: one that was once large stays
// slow to clear.
func emptied[K comparable, V any](m map[K]V) map[K]V {
	if len(m) > few {
		return map[K]V{}
	}
	clear(m)
	return m
}

// room returns a map with what is in m and room for n more entries if these are
// many and it has few, else m: a map that grows by doubling costs as much again.
func room[K comparable, V any](m map[K]V, n int) map[K]V {
	if len(m) > few || n <= few {
		return m
	}
	out := make(map[K]V, len(m)+n)
	maps.Copy(out, m)
	return out
}

// expect makes room for so many nodes, most of which have an address and an
// end of a tunnel.
func (o *overlay) expect(nodes int) {
	if nodes <= few {
		return
	}
	o.peers, o.addrs, o.tunneled, o.macs = room(o.peers, nodes), room(o.addrs, nodes), room(o.tunneled, nodes), room(o.macs, nodes)
	d := &o.dirty
	d.nodes, d.slots, d.addrs, d.macs = room(d.nodes, nodes), room(d.slots, 2*nodes), room(d.addrs, 2*nodes), room(d.macs, nodes)
	d.wide = true
}

// meet takes the nodes that have changed.
func (o *overlay) meet(t *touched) {
	o.expect(len(t.nodeNames))
	for name := range t.nodeNames {
		o.takeNode(name, o.in.nodes[name])
	}
}

// hostOf returns the first host that has an address, if only for a tunnel, ""
// if none has.
func (o *overlay) hostOf(a netip.Addr) string {
	own, tunnel := o.addrs.first(a), o.tunneled.first(a)
	if own == "" || tunnel != "" && tunnel < own {
		return tunnel
	}
	return own
}

// update takes what else has changed and finds what it touches.
func (o *overlay) update(a *active, t *touched) {
	if t.workloads {
		o.takeLocal(a.addrs)
	}
	if t.pools {
		o.sortPools()
	}
	o.takeBlocks(t)
	o.dirty.all = t.first || t.pools || t.underlay
	if me := o.in.set.Node; o.dirty.nodes[me] {
		now := o.self()
		o.dirty.all = o.dirty.all || now != o.mine
		o.mine = now
	}
	if o.dirty.all {
		o.ends = o.tunnels()
		o.sumUp()
		for name := range o.peers {
			o.dirty.nodes[name] = true
		}
	}
	for name := range o.dirty.nodes {
		t.tunnels = o.settle(name) || t.tunnels
	}
	if o.dirty.all {
		t.tunnels = true
		o.all()
	}
}

// takeBlocks follows the blocks that have changed. While no route to any of
// them can be this agent's, because BGP brings them all, none is kept.
func (o *overlay) takeBlocks(t *touched) {
	was, now := o.in.recall, o.follows()
	o.in.recall = now
	switch {
	case now && !was:
		for _, b := range o.in.blocks {
			o.takeBlock(nil, b)
		}
	case was:
		for id, old := range t.blocksWere {
			next := o.in.blocks[id]
			if !now {
				next = nil
			}
			o.takeBlock(old, next)
		}
		if now {
			return
		}
		for id, b := range o.in.blocks {
			if _, done := t.blocksWere[id]; !done {
				o.takeBlock(b, nil)
			}
		}
	}
}

// follows reports whether a route to a block may be this agent's.
func (o *overlay) follows() bool {
	return !o.in.set.Overlay.NoRoutes && (o.owns(nil) || slices.ContainsFunc(o.pools, o.owns))
}

// all marks everything.
func (o *overlay) all() {
	for p := range o.slots {
		o.dirty.slots[p] = true
	}
	for a := range o.addrs {
		o.dirty.addrs[a] = true
	}
	for a := range o.tunneled {
		o.dirty.addrs[a] = true
	}
	for k := range o.macs {
		o.dirty.macs[k] = true
	}
}

// takeLocal: no route of this stage stands against a workload here.
func (o *overlay) takeLocal(next map[netip.Addr]bool) {
	for _, both := range [][2]map[netip.Addr]bool{{o.local, next}, {next, o.local}} {
		for a := range both[0] {
			if p := single(a); !both[1][a] && o.slots[p] != nil {
				o.dirty.slots[p] = true
			}
		}
	}
	o.local = next
}

// takeNode stores a node and marks all whom it shares something with.
func (o *overlay) takeNode(name string, n *model.Node) {
	p := o.peer(name)
	o.claim(p, false)
	p.node, p.ends, p.tunneled = n, [2]model.TunnelEnd{}, nil
	if n != nil {
		p.ends, p.tunneled = endsOf(n), o.tunnelAddrs(n)
	}
	o.claim(p, true)
	o.dirty.nodes[name] = true
}

// endsOf returns a node's ends of VXLAN tunnels by family, each with the MAC
// address that it has. One without an address is none.
func endsOf(n *model.Node) (out [2]model.TunnelEnd) {
	for i, end := range [2]model.TunnelEnd{n.VXLAN4, n.VXLAN6} {
		if end.Addr.IsValid() {
			out[i] = n.VXLAN(4 + 2*i)
		}
	}
	return out
}

// claim makes a node claim what it has, or no more.
func (o *overlay) claim(p *peer, has bool) {
	n := p.node
	if n == nil {
		return
	}
	for _, family := range o.in.families() {
		if a := n.Addr(family); a.IsValid() {
			o.addrs.set(a, n.Name, has, o.dirty.nodes)
			o.tunneled.mark(a, o.dirty.nodes)
			o.dirty.addrs[a], o.dirty.slots[single(a)] = true, true
		}
		if end := p.ends[at(family)]; end.Addr.IsValid() {
			k := macKey{family, end.MAC}
			o.macs.set(k, n.Name, has, o.dirty.nodes)
			o.dirty.macs[k] = true
		}
	}
	for _, a := range p.tunneled {
		o.tunneled.set(a, n.Name, has, o.dirty.nodes)
		o.dirty.addrs[a] = true
	}
}

// tunnelAddrs are the addresses of a node's ends of tunnels, each once.
func (o *overlay) tunnelAddrs(n *model.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range []netip.Addr{n.IPIP, n.VXLAN4.Addr, n.VXLAN6.Addr} {
		if a.IsValid() && (a.Is4() || !o.in.set.NoIPv6) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// peer returns what is known of a node, making it if need be.
func (o *overlay) peer(name string) *peer {
	p := o.peers[name]
	if p == nil {
		p = &peer{name: name}
		o.peers[name] = p
	}
	return p
}

// self is what this host has and may use.
func (o *overlay) self() mine {
	n := o.in.nodes[o.in.set.Node]
	if n == nil {
		return mine{}
	}
	m := mine{nets: [2]netip.Prefix{n.Addr4, n.Addr6}, speaks: n.Speaks, accepts: n.Accepts}
	if m.says[0] = n.IPIP.IsValid(); o.may(n.Name, n.IPIP) {
		m.ipip = n.IPIP
	}
	for _, family := range []int{4, 6} {
		end := n.VXLAN(family)
		m.mac[at(family)] = end.MAC
		if m.says[1+at(family)] = end.Addr.IsValid(); o.may(n.Name, end.Addr) {
			m.vtep[at(family)] = end.Addr
		}
	}
	if o.in.set.NoIPv6 {
		m.nets[1], m.vtep[1], m.mac[1] = netip.Prefix{}, netip.Addr{}, ""
	}
	return m
}

// end is the address on this host's interface of a tunnel: what its Node says,
// if it may use that, and before it says one what is held for it.
func (m mine) end(f desired.Form, family int, held netip.Addr) netip.Addr {
	said, usable := m.says[0], m.ipip
	if f == desired.VXLAN {
		said, usable = m.says[1+at(family)], m.vtep[at(family)]
	}
	if said {
		return usable
	}
	return held
}

// ready reports whether this host can send in a form: what it does not accept
// yet it does not send, for its own end may not be there.
func (m mine) ready(form desired.Form) bool { return !m.speaks || m.accepts.Has(form) }

// addr is this host's address of a family, invalid if it has none.
func (m mine) addr(family int) netip.Addr { return m.nets[at(family)].Addr() }

// may reports whether a node may use an address for its tunnels: no host has
// it, and no node before it.
func (o *overlay) may(name string, a netip.Addr) bool {
	return a.IsValid() && o.tunneled.first(a) == name && o.addrs.first(a) == ""
}

// sortPools puts the pool that decides for a prefix before the others that it
// is in.
func (o *overlay) sortPools() {
	o.pools = slices.SortedFunc(maps.Values(o.in.pools), func(a, b *model.Pool) int {
		return cmp.Or(cmp.Compare(b.CIDR.Bits(), a.CIDR.Bits()), strings.Compare(a.Name, b.Name))
	})
}

// poolOf returns the smallest pool around a prefix, nil if there is none.
func (o *overlay) poolOf(p netip.Prefix) *model.Pool {
	for _, pool := range o.pools {
		if within(p, pool.CIDR) {
			return pool
		}
	}
	return nil
}

// claims tells who has what, by name.
type claims[K comparable] map[K][]string

type macKey struct {
	family int
	mac    string
}

// first returns who may use a thing, "" if nobody has it.
func (c claims[K]) first(k K) string {
	if len(c[k]) == 0 {
		return ""
	}
	return c[k][0]
}

// set makes a name one of those that have a thing, or no more, and marks the
// others.
func (c claims[K]) set(k K, name string, has bool, touched map[string]bool) {
	c.mark(k, touched)
	i, found := slices.BinarySearch(c[k], name)
	switch {
	case has && !found:
		c[k] = slices.Insert(c[k], i, name)
	case !has && found:
		if c[k] = slices.Delete(c[k], i, i+1); len(c[k]) == 0 {
			delete(c, k)
		}
	}
}

func (c claims[K]) mark(k K, touched map[string]bool) {
	for _, name := range c[k] {
		touched[name] = true
	}
}
