package oracle_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
)

// journeyCluster is two hosts in different subnets and one pool of each
// family, all of which a test may change.
func journeyCluster(change func(a, b *model.Node, v4, v6 *model.Pool)) oracle.Snapshot {
	prefix, ip := netip.MustParsePrefix, netip.MustParseAddr
	a := &model.Node{Name: "a", Addr4: prefix("172.16.1.1/24"), Addr6: prefix("fd01:1::1/64"), IPIP: ip("10.0.1.1"),
		VXLAN4: model.TunnelEnd{Addr: ip("10.0.1.2")}, VXLAN6: model.TunnelEnd{Addr: ip("fd00::1:2")}}
	b := &model.Node{Name: "b", Addr4: prefix("172.16.2.2/24"), Addr6: prefix("fd01:2::2/64"), IPIP: ip("10.0.2.1"),
		VXLAN4: model.TunnelEnd{Addr: ip("10.0.2.2")}, VXLAN6: model.TunnelEnd{Addr: ip("fd00::2:2")}}
	v4 := &model.Pool{Name: "v4", CIDR: prefix("10.0.0.0/16")}
	v6 := &model.Pool{Name: "v6", CIDR: prefix("fd00::/64")}
	if change != nil {
		change(a, b, v4, v6)
	}
	s := oracle.Snapshot{}
	for _, n := range []*model.Node{a, b} {
		s[model.ID{Kind: model.KindNode, Name: n.Name}] = n
	}
	for _, p := range []*model.Pool{v4, v6} {
		s[model.ID{Kind: model.KindPool, Name: p.Name}] = p
	}
	return s
}

// TestJourneys says in words how packets travel from host a to host b, in both
// families.
func TestJourneys(t *testing.T) {
	vxlan := func(pools ...*model.Pool) {
		for _, p := range pools {
			p.Encap = model.VXLAN
		}
	}
	tests := []struct {
		name   string
		change func(a, b *model.Node, v4, v6 *model.Pool)
		set    model.Overlay
		want   [2]string // form, who, why: of the IPv4 and the IPv6 pool
	}{
		{"no tunnel", nil, model.Overlay{}, [2]string{"direct by BGP: the pool asks for no tunnel", "direct by BGP: the pool asks for no tunnel"}},
		{"no tunnel and no BGP", nil, model.Overlay{NoBGP: true}, [2]string{"direct by agent: the pool asks for no tunnel", "direct by agent: the pool asks for no tunnel"}},
		{"tunnels", func(_, _ *model.Node, v4, v6 *model.Pool) { v4.Encap = model.IPIP; vxlan(v6) }, model.Overlay{},
			[2]string{"ipip by agent: the pool asks for IP in IP", "vxlan by agent: the pool asks for VXLAN"}},
		{"across subnets", func(_, _ *model.Node, v4, v6 *model.Pool) { vxlan(v4, v6); v4.CrossSubnet, v6.CrossSubnet = true, true }, model.Overlay{},
			[2]string{"vxlan by agent: the pool asks for VXLAN across subnets, and 172.16.2.2 is not in the subnet of a",
				"vxlan by agent: the pool asks for VXLAN across subnets, and fd01:2::2 is not in the subnet of a"}},
		{"inside a subnet", func(a, _ *model.Node, v4, v6 *model.Pool) {
			vxlan(v4, v6)
			v4.CrossSubnet, v6.CrossSubnet = true, true
			a.Addr4, a.Addr6 = netip.MustParsePrefix("172.16.1.1/16"), netip.MustParsePrefix("fd01:1::1/16")
		}, model.Overlay{}, [2]string{"direct by agent: 172.16.2.2 is in the subnet of a, and the pool asks for VXLAN across subnets only",
			"direct by agent: fd01:2::2 is in the subnet of a, and the pool asks for VXLAN across subnets only"}},
		{"left to BGP", func(_, _ *model.Node, v4, v6 *model.Pool) { v4.Encap = model.IPIP; vxlan(v6) }, model.Overlay{Routes: model.RoutesNone},
			[2]string{"direct by BGP: the pool asks for IP in IP, and programClusterRoutes leaves its routes to BGP", "vxlan by agent: the pool asks for VXLAN"}},
		{"not accepted, the other is", func(_, b *model.Node, v4, v6 *model.Pool) {
			v4.Encap = model.VXLAN
			vxlan(v6)
			b.Speaks, b.Accepts = true, desired.FormsOf(desired.IPIP)
		}, model.Overlay{IPIP: new(true)}, [2]string{`ipip by agent: the pool asks for VXLAN; b does not accept it (it accepts "ipip")`,
			`direct by BGP: the pool asks for VXLAN; b does not accept it (it accepts "ipip")`}},
		{"no end", func(_, b *model.Node, v4, v6 *model.Pool) {
			vxlan(v4, v6)
			b.VXLAN4, b.VXLAN6 = model.TunnelEnd{}, model.TunnelEnd{}
		}, model.Overlay{}, [2]string{"direct by BGP: the pool asks for VXLAN; b has no address for VXLAN", "direct by BGP: the pool asks for VXLAN; b has no address for VXLAN"}},
		{"an end of another", func(a, b *model.Node, v4, v6 *model.Pool) {
			vxlan(v4, v6)
			b.VXLAN4.Addr, b.VXLAN6.MAC = a.VXLAN4.Addr, model.VTEPMAC("a", 6)
		}, model.Overlay{}, [2]string{"direct by BGP: the pool asks for VXLAN; the tunnel address 10.0.1.2 of b is that of a",
			"direct by BGP: the pool asks for VXLAN; the MAC address " + model.VTEPMAC("a", 6) + " of b is that of a"}},
		{"switched off", func(_, _ *model.Node, v4, v6 *model.Pool) { vxlan(v4) }, model.Overlay{VXLAN: new(false)},
			[2]string{"direct by BGP: the pool asks for VXLAN; a has no interface for VXLAN", "direct by BGP: the pool asks for no tunnel"}},
		{"no address", func(a, b *model.Node, v4, v6 *model.Pool) { a.Addr4, b.Addr6 = netip.Prefix{}, netip.Prefix{} }, model.Overlay{},
			[2]string{"direct by none: a has no IPv4 address", "direct by none: b has no IPv6 address"}},
		{"address of another", func(a, b *model.Node, v4, v6 *model.Pool) { b.Addr4, b.Addr6 = a.Addr4, a.Addr6 }, model.Overlay{},
			[2]string{"direct by none: another host has the address 172.16.1.1 of b", "direct by none: another host has the address fd01:1::1 of b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all := oracle.Journeys(journeyCluster(tt.change), func(node string) model.Settings { return model.Settings{Node: node, Overlay: tt.set} })
			if len(all) != 4 {
				t.Fatalf("%d journeys", len(all))
			}
			for i, pool := range []string{"v4", "v6"} {
				j := all[slices.IndexFunc(all, func(j oracle.Journey) bool { return j.From == "a" && j.To == "b" && j.Pool == pool })]
				if got := j.Form.String() + " by " + string(j.By) + ": " + j.Why; got != tt.want[i] {
					t.Errorf("\n got %s\nwant %s", got, tt.want[i])
				}
			}
		})
	}
}
