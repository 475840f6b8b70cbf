package calc

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
)

// kernel is the stage that writes the tables of the kernel.
func (c *Core) kernel(t *touched, u *desired.Update) {
	if t.first || t.settings {
		u.Sysctls = diff(c.asked.Sysctls, c.sysctls(), same)
	}
	if t.workloads {
		c.links(u)
	}
	if c.in.set.Overlay.NoRoutes {
		return
	}
	if t.blocks || t.sessions || c.gatewayConcerned() {
		u.Routes = diff(c.own.routes, c.routes(), desired.Route.Equal)
	} else if t.workloads {
		u.Routes = exchange(&c.own.routes, c.routesOf(c.active.went), c.routesOf(c.active.came), desired.Route.Equal)
	}
	u.Routes.Play(c.asked.Routes)
}

// gatewayConcerned reports whether the way to a peer lies at an address that a
// workload has got or lost.
func (c *Core) gatewayConcerned() bool {
	if len(c.sessions.gateways) == 0 {
		return false
	}
	concerned := func(w activeWorkload) bool {
		return slices.ContainsFunc(w.addrs, func(a netip.Addr) bool { return c.sessions.gateways[a].IsValid() })
	}
	return slices.ContainsFunc(c.active.went, concerned) || slices.ContainsFunc(c.active.came, concerned)
}

// own is the part of the kernel's tables that this host's own workloads, blocks
// and peers need. Those of tunnels share no key with it: the metric of their
// routes is another.
type own struct {
	links      map[string]desired.Link
	neighbours map[desired.NeighKey]desired.Neigh
	routes     map[desired.RouteKey]desired.Route
}

func newOwn() own {
	return own{
		links: map[string]desired.Link{}, neighbours: map[desired.NeighKey]desired.Neigh{},
		routes: map[desired.RouteKey]desired.Route{},
	}
}

func (c *Core) sysctls() map[string]string {
	out := map[string]string{}
	if c.in.set.NoForwarding {
		return out
	}
	out["net/ipv4/ip_forward"] = "1"
	if !c.in.set.NoIPv6 {
		out["net/ipv6/conf/all/forwarding"] = "1"
	}
	return out
}

// links writes the links of the workloads that are different, and who is behind
// them.
func (c *Core) links(u *desired.Update) {
	gone, goneNeighbours := linksOf(c.active.went)
	next, nextNeighbours := linksOf(c.active.came)
	u.Links = exchange(&c.own.links, gone, next, same)
	u.Links.Play(c.asked.Links)
	u.Neighbours = exchange(&c.own.neighbours, goneNeighbours, nextNeighbours, same)
	u.Neighbours.Play(c.asked.Neighbours)
}

func linksOf(list []activeWorkload) (map[string]desired.Link, map[desired.NeighKey]desired.Neigh) {
	if len(list) == 0 {
		return nil, nil
	}
	links := make(map[string]desired.Link, len(list))
	neighbours := map[desired.NeighKey]desired.Neigh{}
	sysctls := desired.SysctlLines(desired.WorkloadSysctls())
	for _, w := range list {
		links[w.Interface] = desired.Link{Up: true, Alias: desired.AliasWorkload, Sysctls: sysctls}
		if w.MAC == "" {
			continue
		}
		for _, addr := range w.addrs {
			if addr.Is4() {
				neighbours[desired.NeighKey{Interface: w.Interface, Addr: addr}] = desired.Neigh{MAC: w.MAC}
			}
		}
	}
	return links, neighbours
}

// routes: local workloads win over the way to a peer, which is the only other
// route that may be for a single address.
func (c *Core) routes() map[desired.RouteKey]desired.Route {
	out := map[desired.RouteKey]desired.Route{}
	for _, b := range c.owned.blocks {
		if !b.cidr.IsSingleIP() {
			out[c.routeKey(b.cidr)] = desired.Route{Type: desired.Blackhole, Protocol: desired.ProtocolAgent}
		}
	}
	for peer, gateway := range c.sessions.gateways {
		out[c.routeKey(single(peer))] = desired.Route{
			Protocol: desired.ProtocolAgent, Hops: []desired.NextHop{{Via: gateway}},
		}
	}
	maps.Copy(out, c.routesOf(c.active.workloads))
	return out
}

// routesOf are the routes to workloads.
func (c *Core) routesOf(list []activeWorkload) map[desired.RouteKey]desired.Route {
	out := make(map[desired.RouteKey]desired.Route, len(list))
	for _, w := range list {
		for _, addr := range w.addrs {
			r := desired.Route{
				Protocol: desired.ProtocolAgent, Hops: []desired.NextHop{{Interface: w.Interface}},
			}
			if addr.Is4() {
				r.Scope = desired.ScopeLink // IPv6 routes have no scope in the kernel
			}
			out[c.routeKey(single(addr))] = r
		}
	}
	return out
}

func (c *Core) routeKey(p netip.Prefix) desired.RouteKey {
	return desired.RouteKey{Table: desired.MainTable, Prefix: p, Priority: c.priority(p.Addr())}
}

// priority is the metric of our routes, that of routes to other hosts one
// less. 0 is no metric to the kernel, so it is 2 at least.
func (c *Core) priority(a netip.Addr) int {
	p := c.in.set.Priority4
	if a.Is6() {
		p = c.in.set.Priority6
	}
	if p == 0 {
		p = desired.DefaultPriority
	}
	return max(2, p)
}

// single is the prefix that holds one address.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
