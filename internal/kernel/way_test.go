package kernel

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

func TestWay(t *testing.T) {
	eachRouteFamily(t, func(t *testing.T, f routeFamily, k *Kernel, ns *netns.NS) {
		add := func(args ...string) {
			testenv.Run(t, ns, append([]string{"ip", f.flag, "route", "add"}, args...)...)
		}
		add(f.one, "via", f.gw1)
		add(f.two, "proto", "80", "nexthop", "via", f.gw1, "nexthop", "via", f.gw2)
		add("blackhole", f.blackhole)
		add(f.mine, "dev", "b0", "mtu", "1400")
		for name, c := range map[string]struct {
			to   string
			want Way
			hops []Hop
			none bool
		}{
			"through a router": {f.one, Way{Route: netip.MustParsePrefix(f.one)}, []Hop{{Interface: "a0", Via: netip.MustParseAddr(f.gw1)}}, false},
			"two ways": {f.two, Way{Route: netip.MustParsePrefix(f.two), Protocol: desired.ProtocolAgent}, []Hop{
				{Interface: "a0", Via: netip.MustParseAddr(f.gw1)}, {Interface: "b0", Via: netip.MustParseAddr(f.gw2)},
			}, false},
			"on a link":       {f.mine, Way{Route: netip.MustParsePrefix(f.mine), MTU: 1400}, []Hop{{Interface: "b0"}}, false},
			"its own address": {f.local, Way{Local: true}, nil, false},
			"dropped":         {f.blackhole, Way{}, nil, true},
			"no route to it":  {f.far + "/32", Way{}, nil, true},
		} {
			to := netip.MustParsePrefix(c.to).Addr()
			if name == "dropped" {
				to = to.Next().Next() // the first belongs to another route
			}
			got, err := k.Way(to)
			if c.none {
				if !errors.Is(err, ErrNoRoute) {
					t.Errorf("%s: %+v, %v", name, got, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got.Local != c.want.Local || !got.Local && (got.Route != c.want.Route || got.MTU != c.want.MTU || len(got.Hops) != len(c.hops)) {
				t.Errorf("%s: %+v", name, got)
				continue
			}
			if got.Ours() != (c.want.Protocol != 0) {
				t.Errorf("%s: protocol %d", name, got.Protocol)
			}
			for i, h := range c.hops {
				if h.Kind = "veth"; got.Hops[i] != h {
					t.Errorf("%s: %+v, want %+v", name, got.Hops[i], h)
				}
			}
		}
	})
}
