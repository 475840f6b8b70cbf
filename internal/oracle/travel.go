package oracle

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// Programmer is who makes the route that packets travel by.
type Programmer string

// The programmers of routes.
const (
	ByAgent Programmer = "agent"
	ByBGP   Programmer = "BGP"
	ByNone  Programmer = "none" // there is no way
)

// Journey is how packets to addresses of a pool travel from one host to
// another.
type Journey struct {
	From, To string // nodes
	Pool     string
	Form     desired.Form
	By       Programmer
	Why      string // in words
}

// Journeys says, for each ordered pair of hosts and each pool that holds
// addresses of workloads, how packets travel, sorted by sender, receiver and
// pool. It is what the datastore asks for: a host that is down does not show.
// settings gives the configuration of each host.
func Journeys(s Snapshot, settings func(node string) model.Settings) []Journey {
	var out []Journey
	v := NewSurvey(s)
	for _, from := range v.names {
		set := settings(from)
		set.Node = from
		out = append(out, v.Journeys(set, "")...)
	}
	return out
}

// Network is the part of what a host should look like that other hosts have a
// share in.
type Network struct {
	Node       string
	Devices    map[string]desired.Device
	Addresses  map[desired.AddrKey]struct{}
	Neighbours map[desired.NeighKey]desired.Neigh // of tunnels
	Routes     map[desired.RouteKey]desired.Route // all of the agent's
}

// Networks says what the network of every host should look like, sorted by
// node. settings gives the configuration of each host. MTUs are known if the
// snapshot has an Underlay, which then holds for all.
func Networks(s Snapshot, settings func(node string) model.Settings) []Network {
	var out []Network
	v := NewSurvey(s)
	for _, name := range v.names {
		out = append(out, v.Network(settings(name)))
	}
	return out
}

// left reports whether the routes to a pool's blocks are left to BGP. nil
// stands for no pool.
func (f fabric) left(p *model.Pool) bool {
	if f.set.Overlay.NoBGP {
		return false
	}
	switch {
	case p == nil:
		return true
	case form(p) == desired.VXLAN:
		return false
	case form(p) == desired.IPIP && f.index.common.IPIPRoutes:
		return false
	case form(p) == desired.IPIP:
		return slices.Contains([]model.RoutesBy{model.RoutesNone, model.RoutesNoEncapOnly}, f.set.Overlay.Routes)
	}
	return slices.Contains([]model.RoutesBy{model.RoutesNone, model.RoutesIPIPOnly}, f.set.Overlay.Routes)
}

// words names a form for people.
func words(t desired.Form) string {
	return map[desired.Form]string{desired.Direct: "no tunnel", desired.IPIP: "IP in IP", desired.VXLAN: "VXLAN"}[t]
}

// aside reports whether the routes that BGP brings to a pool stay out of the
// kernel. nil stands for no pool.
func (f fabric) aside(p *model.Pool) bool {
	c := f.index.common
	switch {
	case p == nil || !c.NoPlainRoutes:
		return false
	case form(p) == desired.Direct:
		return true
	}
	return !c.IPIPRoutes
}

// journey decides how packets to a pool travel to a node; nil stands for no
// pool. Only Form, By and Why are set.
func (f fabric) journey(n *model.Node, p *model.Pool, four bool) Journey {
	ipv := fmt.Sprintf("IPv%d", family(four))
	a, mine := f.address(n, four), nodeAddr(&f.me, four)
	asked, by := form(p), ByAgent
	if f.left(p) {
		by = ByBGP
	}
	switch {
	case !mine.IsValid():
		return Journey{By: ByNone, Why: f.me.Name + " has no " + ipv + " address"}
	case !a.IsValid() && nodeAddr(n, four).IsValid():
		return Journey{By: ByNone, Why: fmt.Sprintf("another host has the address %v of %s", nodeAddr(n, four), n.Name)}
	case !a.IsValid():
		return Journey{By: ByNone, Why: n.Name + " has no " + ipv + " address"}
	case p == nil:
		return Journey{By: by, Why: "it is in no pool"}
	case by == ByBGP && f.aside(p):
		return Journey{By: ByNone, Why: "programClusterRoutes leaves its routes to nobody"}
	case asked == desired.Direct:
		return Journey{By: by, Why: "the pool asks for no tunnel"}
	case p.CrossSubnet && f.near(a):
		return Journey{By: by, Why: fmt.Sprintf("%v is in the subnet of %s, and the pool asks for %s across subnets only", a, f.me.Name, words(asked))}
	case by == ByBGP:
		return Journey{By: by, Why: "the pool asks for " + words(asked) + ", and programClusterRoutes leaves its routes to BGP"}
	}
	why := "the pool asks for " + words(asked)
	if p.CrossSubnet {
		why += fmt.Sprintf(" across subnets, and %v is not in the subnet of %s", a, f.me.Name)
	}
	hindrance := f.hindrance(n, asked, four)
	if n.Speaks && !n.Accepts.Has(asked) {
		hindrance = fmt.Sprintf("%s does not accept it (it accepts %q)", n.Name, n.Accepts)
	}
	if hindrance == "" {
		return Journey{Form: asked, By: by, Why: why}
	}
	other := desired.VXLAN
	if asked == desired.VXLAN {
		other = desired.IPIP
	}
	why += "; " + hindrance
	if n.Speaks && n.Accepts.Has(other) && f.hindrance(n, other, four) == "" {
		return Journey{Form: other, By: by, Why: why}
	}
	switch {
	case f.set.Overlay.NoBGP:
	case f.aside(p):
		by, why = ByNone, why+"; and BGP's routes stay out of the kernel (programClusterRoutes)"
	default:
		by = ByBGP
	}
	return Journey{By: by, Why: why}
}

// hindrance says why a tunnel to a node cannot be used, "" if it can.
func (f fabric) hindrance(n *model.Node, t desired.Form, four bool) string {
	if !f.switchedOn(t, four) {
		return f.me.Name + " has no interface for " + words(t)
	}
	if f.me.Speaks && !f.me.Accepts.Has(t) {
		return fmt.Sprintf("this host is not ready for %s yet (it accepts %q)", words(t), f.me.Accepts)
	}
	end := f.end(n, four)
	switch _, ok := f.vtep(n, four); {
	case t == desired.IPIP || ok:
		return ""
	case !end.Addr.IsValid():
		return n.Name + " has no address for VXLAN"
	case f.inTheWay(n.Name, end.Addr) != nil:
		return fmt.Sprintf("the tunnel address %v of %s is that of %s", end.Addr, n.Name, f.inTheWay(n.Name, end.Addr).Name)
	}
	return fmt.Sprintf("the MAC address %s of %s is that of %s", end.MAC, n.Name, f.macInTheWay(n, four).Name)
}

// behind says which node is behind a prefix of others, "" if none is.
func (f fabric) behind(p netip.Prefix) string {
	if p.IsSingleIP() {
		// Whoever may use an address for a tunnel is the first that has it.
		if n := f.index.byEnd[p.Addr()]; n != nil && slices.Contains(f.looseEnds(n), p.Addr()) {
			return n.Name
		}
		node, bits := "", -1
		for _, x := range f.index.uses[p.Addr()] {
			if f.elsewhere(x.block, x.use) && x.block.CIDR.Bits() > bits {
				node, bits = x.use.Node, x.block.CIDR.Bits()
			}
		}
		if node != "" {
			return node
		}
	}
	for _, b := range f.index.byCIDR[p] {
		if b.Host != f.set.Node {
			return b.Host
		}
	}
	return ""
}

// elsewhere reports whether an address of a block is used neither here nor on
// the block's own host.
func (f fabric) elsewhere(b *model.Block, u model.Use) bool {
	return u.Node != "" && u.Node != b.Host && u.Node != f.set.Node
}

// looseEnds are the addresses of another node's tunnels that no block of its
// own covers, or that are reached in another form than that block, and its end
// of IPv6 VXLAN in any case: the kernel takes a next hop on a link only if no
// other route leads to it.
func (f fabric) looseEnds(n *model.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range f.tunnelAddrs(n) {
		covered := slices.ContainsFunc(f.index.ofHost[n.Name], func(b *model.Block) bool { return b.CIDR.Contains(a) })
		if t, ok := f.endBy(n, a); ok && t != f.journey(n, f.around(alone(a)), true).Form {
			covered = false
		}
		if n.Name != f.set.Node && (!covered || a == n.VXLAN6.Addr) && f.usable(n.Name, a).IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// endBy is the form in which the end of an IPv4 tunnel at another node is
// reached: that of the tunnel, where a pool asks for it towards that node;
// false: as the pool of the end says.
func (f fabric) endBy(n *model.Node, a netip.Addr) (desired.Form, bool) {
	if !v4(a) || !f.address(n, true).IsValid() || !nodeAddr(&f.me, true).IsValid() {
		return desired.Direct, false
	}
	for _, t := range []desired.Form{desired.IPIP, desired.VXLAN} {
		if a != map[desired.Form]netip.Addr{desired.IPIP: n.IPIP, desired.VXLAN: n.VXLAN4.Addr}[t] {
			continue
		}
		asked := slices.ContainsFunc(f.pools, func(p *model.Pool) bool {
			return v4(p.CIDR.Addr()) && form(p) == t && !f.left(p) && !(p.CrossSubnet && f.near(f.address(n, true)))
		})
		if asked && f.hindrance(n, t, true) == "" && (!n.Speaks || n.Accepts.Has(t)) {
			return t, true
		}
	}
	return desired.Direct, false
}

// routes are those to blocks and addresses of other hosts.
func (f fabric) routes() map[desired.RouteKey]desired.Route {
	out := map[desired.RouteKey]desired.Route{}
	if f.set.Overlay.NoRoutes {
		return out
	}
	var prefixes []netip.Prefix
	for _, b := range f.blocks {
		prefixes = append(prefixes, b.CIDR)
		for _, u := range b.Uses {
			if f.elsewhere(b, u) {
				prefixes = append(prefixes, alone(u.Addr))
			}
		}
	}
	for _, n := range f.nodes {
		for _, a := range f.looseEnds(n) {
			prefixes = append(prefixes, alone(a))
		}
	}
	here := map[netip.Addr]bool{}
	for _, x := range f.candidates() {
		for _, a := range x.Addrs {
			here[a] = true
		}
	}
	for _, p := range prefixes {
		if a := p.Addr(); p.IsSingleIP() && (here[a] && f.owner(a) != nil || f.index.byAddr[a] != nil) {
			continue
		}
		n := f.index.byName[f.behind(p)]
		if n == nil || p.Contains(nodeAddrOr(n, v4(p.Addr()))) {
			continue
		}
		if r, ok := f.routeTo(n, p); ok {
			out[desired.RouteKey{Table: desired.MainTable, Prefix: p, Priority: f.metric(p.Addr()) - 1}] = r
		}
	}
	return out
}

// routeTo is the route to a prefix that a node is behind, false if it is not
// the agent's or there is no way.
func (f fabric) routeTo(n *model.Node, p netip.Prefix) (desired.Route, bool) {
	four := v4(p.Addr())
	j := f.journey(n, f.around(p), four)
	reached := nodeAddr(&f.me, four).IsValid() && f.address(n, four).IsValid()
	if end, ok := f.vtep(n, four); !four && ok && reached && p == alone(end.Addr) && f.switchedOn(desired.VXLAN, four) &&
		(!n.Speaks || n.Accepts.Has(desired.VXLAN)) {
		j.Form, j.By = desired.VXLAN, ByAgent
	}
	if t, ok := f.endBy(n, p.Addr()); ok && p.IsSingleIP() {
		j.Form, j.By = t, ByAgent
	}
	r := desired.Route{Protocol: desired.ProtocolAgent}
	hop := desired.NextHop{Via: f.address(n, four)}
	if j.Form != desired.Direct {
		hop.Interface, hop.OnLink, r.MTU = tunnelName(j.Form, four), true, f.tunnelMTU(j.Form, four)
	}
	if end := f.end(n, four).Addr; j.Form == desired.VXLAN && p == alone(end) {
		hop.Via, hop.OnLink = netip.Addr{}, false
		if four {
			r.Scope = desired.ScopeLink
		}
	} else if j.Form == desired.VXLAN {
		hop.Via = end
	}
	r.Hops = []desired.NextHop{hop}
	return r, j.By == ByAgent
}

// around is the smallest pool around a prefix, of equal ones the first by
// name. nil if there is none.
func (f fabric) around(p netip.Prefix) *model.Pool {
	var best *model.Pool
	for _, pool := range f.pools {
		if covers(pool.CIDR, p) && (best == nil || pool.CIDR.Bits() > best.CIDR.Bits()) {
			best = pool
		}
	}
	return best
}
