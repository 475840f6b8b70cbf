package agent

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
)

// TestHostsBehindRouters: a route by way of a host leads by the router to it,
// and follows when the ways change; where there is none it waits.
func TestHostsBehindRouters(t *testing.T) {
	for _, tt := range []struct{ name, block, far, router, near, nearBlock string }{
		{"v4", "10.1.0.0/26", "172.30.2.11", "172.30.1.1", "172.30.1.12", "10.1.1.0/26"},
		{"v6", "fd00::/122", "fd02::11", "fd01::1", "fd01::12", "fd00::40/122"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			far, router, near := netip.MustParseAddr(tt.far), netip.MustParseAddr(tt.router), netip.MustParseAddr(tt.near)
			ways := map[netip.Addr][]desired.NextHop{near: {{Via: near, Weight: 1}}}
			n := newNexthops()
			n.resolve = func(a netip.Addr) []desired.NextHop { return ways[a] }
			key := func(p string) desired.RouteKey {
				return desired.RouteKey{Table: desired.MainTable, Prefix: netip.MustParsePrefix(p), Priority: 1023}
			}
			over := func(hop desired.NextHop) desired.Route {
				return desired.Route{Protocol: desired.ProtocolAgent, Hops: []desired.NextHop{hop}}
			}
			kernel := map[desired.RouteKey]desired.Route{}
			check := func(when string, want map[desired.RouteKey]desired.Route) {
				t.Helper()
				if !maps.EqualFunc(kernel, want, desired.Route.Equal) {
					t.Errorf("%s: %v, want %v", when, kernel, want)
				}
			}
			tunnel := over(desired.NextHop{Via: far, Interface: desired.DeviceIPIP, OnLink: true})
			n.pass(desired.Patch[desired.RouteKey, desired.Route]{Set: map[desired.RouteKey]desired.Route{
				key(tt.block): over(desired.NextHop{Via: far}), key(tt.nearBlock): over(desired.NextHop{Via: near}),
			}}).Play(kernel)
			check("without a way", map[desired.RouteKey]desired.Route{key(tt.nearBlock): over(desired.NextHop{Via: near})})
			ways[far] = []desired.NextHop{{Via: router, Weight: 1}}
			n.again().Play(kernel)
			check("by a router", map[desired.RouteKey]desired.Route{
				key(tt.nearBlock): over(desired.NextHop{Via: near}), key(tt.block): over(desired.NextHop{Via: router, Weight: 1})})
			if p := n.again(); !p.Empty() {
				t.Errorf("nothing has changed, and %v is done", p)
			}
			n.pass(desired.Patch[desired.RouteKey, desired.Route]{Set: map[desired.RouteKey]desired.Route{key(tt.block): tunnel}}).Play(kernel)
			delete(ways, far)
			n.again().Play(kernel)
			check("through a tunnel", map[desired.RouteKey]desired.Route{key(tt.nearBlock): over(desired.NextHop{Via: near}), key(tt.block): tunnel})
			n.pass(desired.Patch[desired.RouteKey, desired.Route]{Delete: []desired.RouteKey{key(tt.block), key(tt.nearBlock)}}).Play(kernel)
			check("gone", map[desired.RouteKey]desired.Route{})
			if len(n.routes)+len(n.of)+len(n.ways) > 0 {
				t.Errorf("something is kept: %+v", n)
			}
		})
	}
}
