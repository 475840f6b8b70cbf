package calc

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// overlaid is a cluster of hosts with tunnels in two subnets, with blocks of
// an IPv4 pool dealt over them.
func overlaid(hosts, blocks int, encap model.Encap) []model.Event {
	events := []model.Event{
		poolEvent(&model.Pool{Name: "p", CIDR: pfx("10.0.0.0/8"), Encap: encap, CrossSubnet: true}),
		{ID: model.UnderlayID(), Value: &model.Underlay{MTU: 1500}},
	}
	for h := range hosts {
		events = append(events, overlaidHost(h))
	}
	for b := range blocks {
		events = append(events, overlaidBlock(b, hostName(b%hosts)))
	}
	return events
}

func overlaidHost(h int) model.Event {
	addr := netip.AddrFrom4([4]byte{172, 16 + byte(h%2), byte(h >> 8), byte(h)})
	end := netip.AddrFrom4([4]byte{10, 255, byte(h >> 8), byte(h)}) // outside of the host's blocks
	return nodeEvent(&model.Node{
		Name: hostName(h), Addr4: netip.PrefixFrom(addr, 16), IPIP: end, VXLAN4: model.TunnelEnd{Addr: end},
	})
}

func overlaidBlock(b int, host string) model.Event {
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(b >> 10), byte(b >> 2), byte(b << 6)}), 26)
	return model.Event{ID: model.BlockID(p), Value: &model.Block{CIDR: p, Host: host}}
}

// BenchmarkRemoteBlockMoves is one block that moves from one host to another
// and back. It must not grow with the number of blocks.
func BenchmarkRemoteBlockMoves(b *testing.B) {
	for _, blocks := range []int{100, 10_000} {
		b.Run(fmt.Sprint(blocks), func(b *testing.B) {
			c := New(model.Settings{Node: hostName(0)})
			c.Apply(overlaid(1000, blocks, model.VXLAN))
			steps := [][]model.Event{{overlaidBlock(1, hostName(3))}, {overlaidBlock(1, hostName(1))}}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if u := c.Apply(steps[i%2]); len(u.Routes.Set) != 1 || len(u.Routes.Delete) != 0 {
					b.Fatalf("%+v", u)
				}
			}
		})
	}
}

// BenchmarkHostJoins is a host with ten blocks that comes to a cluster with
// ten blocks for each host, and goes.
func BenchmarkHostJoins(b *testing.B) {
	for _, hosts := range []int{10, 1000} {
		b.Run(fmt.Sprint(hosts), func(b *testing.B) {
			c := New(model.Settings{Node: hostName(0)})
			c.Apply(overlaid(hosts, 10*hosts, model.VXLAN))
			join, leave := []model.Event{overlaidHost(hosts)}, []model.Event{{ID: overlaidHost(hosts).ID}}
			for i := range 10 {
				e := overlaidBlock(10*hosts+i, hostName(hosts))
				join, leave = append(join, e), append(leave, model.Event{ID: e.ID})
			}
			b.ReportAllocs()
			for b.Loop() {
				if u := c.Apply(join); len(u.Routes.Set) != 11 || len(u.Neighbours.Set) != 2 {
					b.Fatalf("%+v", u)
				}
				c.Apply(leave)
			}
		})
	}
}

// BenchmarkPoolSwitches is one pool of 10,000 blocks on 1,000 hosts that goes
// from one tunnel to the other: every route changes.
func BenchmarkPoolSwitches(b *testing.B) {
	c := New(model.Settings{Node: hostName(0)})
	c.Apply(overlaid(1000, 10_000, model.VXLAN))
	c.Apply([]model.Event{{ID: model.UnderlayID(), Value: &model.Underlay{MTU: 1500, Keep: desired.FormsOf(desired.IPIP, desired.VXLAN)}}})
	steps := [2][]model.Event{}
	for i, encap := range []model.Encap{model.IPIP, model.VXLAN} {
		steps[i] = []model.Event{poolEvent(&model.Pool{Name: "p", CIDR: pfx("10.0.0.0/8"), Encap: encap, CrossSubnet: true})}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if u := c.Apply(steps[i%2]); len(u.Routes.Set) != 5500 {
			b.Fatalf("%d routes", len(u.Routes.Set))
		}
	}
}
