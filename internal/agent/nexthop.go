package agent

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
)

// resolve says by which next hops on this host's links the next hop of a
// learned path is reached: itself, or the routers that the host's own routes
// name (documented Calico behaviour: the gateway is recursive). No learned
// route stands on another, nor on a tunnel of ours: it would be in a circle.
func (a *agent) resolve(via netip.Addr) []desired.NextHop {
	self := []desired.NextHop{{Via: via, Weight: 1}}
	w, err := a.kernel.Way(via)
	if errors.Is(err, kernel.ErrNoRoute) {
		return nil
	}
	if err != nil {
		a.log.Warn("way to a bgp next hop not read", "next_hop", via, "err", err)
		return self // the kernel refuses what cannot be
	}
	var out []desired.NextHop
	for _, h := range w.Hops {
		switch {
		case !h.Via.IsValid() && w.Protocol != desired.ProtocolBGP:
			return self
		case w.Ours():
			return nil
		}
		hop := desired.NextHop{Via: h.Via, Weight: 1, OnLink: h.OnLink}
		if h.OnLink || h.Via.IsLinkLocalUnicast() {
			hop.Interface = h.Interface
		}
		out = append(out, hop)
	}
	return out
}

// nexthops rewrites the core's routes by way of other hosts: to a host that is
// not on a link of this one, the way leads through a router.
type nexthops struct {
	resolve func(netip.Addr) []desired.NextHop // nil: every host is on a link
	stale   chan struct{}                      // capacity 1: ways may have changed

	mu     sync.Mutex // guards everything below
	routes map[netip.Addr]map[desired.RouteKey]desired.Route
	of     map[desired.RouteKey]netip.Addr
	ways   map[netip.Addr][]desired.NextHop
}

func newNexthops() *nexthops {
	return &nexthops{stale: make(chan struct{}, 1), routes: map[netip.Addr]map[desired.RouteKey]desired.Route{},
		of: map[desired.RouteKey]netip.Addr{}, ways: map[netip.Addr][]desired.NextHop{}}
}

// drift says that ways may have changed.
func (n *nexthops) drift() {
	poke(n.stale)
}

// pass returns the patch as the kernel can take it. A route by way of a host to
// which there is none is left out until there is.
func (n *nexthops) pass(p desired.Patch[desired.RouteKey, desired.Route]) desired.Patch[desired.RouteKey, desired.Route] {
	if n.resolve == nil || p.Empty() {
		return p
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	out := desired.Patch[desired.RouteKey, desired.Route]{Set: maps.Clone(p.Set), Delete: slices.Clone(p.Delete)}
	for _, k := range p.Delete {
		n.forget(k)
	}
	for k, r := range p.Set {
		n.forget(k)
		if len(r.Hops) != 1 || !r.Hops[0].Via.IsValid() || r.Hops[0].Interface != "" {
			continue
		}
		via := r.Hops[0].Via
		if n.routes[via] == nil {
			n.routes[via] = map[desired.RouteKey]desired.Route{}
			n.ways[via] = n.resolve(via)
		}
		n.routes[via][k], n.of[k] = r, via
		n.by(via, k, r, &out)
	}
	return out
}

// by adds a route over the way to a host. n.mu is held.
func (n *nexthops) by(via netip.Addr, k desired.RouteKey, r desired.Route, out *desired.Patch[desired.RouteKey, desired.Route]) {
	way := n.ways[via]
	if len(way) == 0 {
		delete(out.Set, k)
		out.Delete = append(out.Delete, k)
		return
	}
	if len(way) > 1 || way[0].Via != via {
		r.Hops = way
	}
	if out.Set == nil {
		out.Set = map[desired.RouteKey]desired.Route{}
	}
	out.Set[k] = r
}

// forget lets go of a route. n.mu is held.
func (n *nexthops) forget(k desired.RouteKey) {
	via, known := n.of[k]
	if !known {
		return
	}
	delete(n.of, k)
	if delete(n.routes[via], k); len(n.routes[via]) == 0 {
		delete(n.routes, via)
		delete(n.ways, via)
	}
}

// again asks for all ways anew, and returns what changes.
func (n *nexthops) again() desired.Patch[desired.RouteKey, desired.Route] {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out desired.Patch[desired.RouteKey, desired.Route]
	for via, was := range n.ways {
		now := n.resolve(via)
		if slices.Equal(was, now) {
			continue
		}
		n.ways[via] = now
		for k, r := range n.routes[via] {
			n.by(via, k, r, &out)
		}
	}
	return out
}

// followWays keeps routes by way of other hosts on the ways to these, until ctx
// ends.
func (a *agent) followWays(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.nexthops.stale:
		}
		a.coreMu.Lock() // so that no newer patch is overtaken
		if p := a.nexthops.again(); !p.Empty() {
			a.tables.routes.Want(p)
		}
		a.coreMu.Unlock()
	}
}
