package kernel

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/reconcile"
	"github.com/brindle-net/brindle/internal/testenv"
)

// A remote is another host as a tunnel sees it.
type remote struct {
	node, vtep netip.Addr
	mac        net.HardwareAddr
	block      netip.Prefix
}

// remotes are 10,000 other hosts.
func remotes() []remote {
	out := make([]remote, bulk)
	for i := range out {
		n := uint32(i)
		at := func(base, step uint32) netip.Addr {
			return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, base+n*step)))
		}
		mac := append(net.HardwareAddr{0x66, 0}, binary.BigEndian.AppendUint32(nil, n)...)
		vtep := at(10<<24|64<<16, 64)
		out[i] = remote{node: at(172<<24|16<<16, 1), vtep: vtep, mac: mac, block: netip.PrefixFrom(vtep, 26)}
	}
	return out
}

// tunnelHost is a host with a VXLAN device.
func tunnelHost(b *testing.B) (*Kernel, *netns.NS) {
	k, ns := open(b)
	links(b, ns, "eth0")
	testenv.Run(b, ns, "ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	want := vxlanFamilies()[0].want()
	p := reconcile.Plan[string, desired.Device]{Set: []reconcile.Entry[string, desired.Device]{{Key: desired.DeviceVXLAN4, Value: want}}}
	if failed := k.Devices().Apply(b.Context(), p); len(failed) > 0 {
		b.Fatal(failed)
	}
	testenv.Run(b, ns, "ip", "link", "set", desired.DeviceVXLAN4, "up")
	return k, ns
}

// planOf makes a plan that sets all.
func planOf[K comparable, V any](n int, entry func(i int) (K, V)) reconcile.Plan[K, V] {
	p := reconcile.Plan[K, V]{Set: make([]reconcile.Entry[K, V], n)}
	for i := range p.Set {
		p.Set[i].Key, p.Set[i].Value = entry(i)
	}
	return p
}

// plans are what 10,000 other hosts need of neighbours, forwarding entries and
// routes.
func tunnelPlans() (neighbours, forwarding reconcile.Plan[desired.NeighKey, desired.Neigh], routes reconcile.Plan[desired.RouteKey, desired.Route]) {
	all := remotes()
	dev := desired.DeviceVXLAN4
	neighbours = planOf(len(all), func(i int) (desired.NeighKey, desired.Neigh) {
		return desired.NeighKey{Interface: dev, Addr: all[i].vtep}, desired.Neigh{MAC: all[i].mac.String()}
	})
	forwarding = planOf(len(all), func(i int) (desired.NeighKey, desired.Neigh) {
		return desired.NeighKey{Interface: dev, MAC: all[i].mac.String()}, desired.Neigh{Dst: all[i].node}
	})
	routes = planOf(len(all), func(i int) (desired.RouteKey, desired.Route) {
		r := agentRoute(desired.NextHop{Via: all[i].vtep, Interface: dev, OnLink: true})
		r.MTU = 1450
		return desired.RouteKey{Table: desired.MainTable, Prefix: all[i].block, Priority: 1023}, r
	})
	return neighbours, forwarding, routes
}

// BenchmarkTenThousandRemotes programs what each of 10,000 other hosts needs
// on a tunnel, one table after the other; its twin sends the same messages,
// made beforehand, and does nothing else.
func BenchmarkTenThousandRemotes(b *testing.B) {
	neighbours, forwarding, routes := tunnelPlans()
	each := func(name string, clear []string, apply func(b *testing.B, k *Kernel)) {
		b.Run(name, func(b *testing.B) {
			k, ns := tunnelHost(b)
			for b.Loop() {
				apply(b, k)
				b.StopTimer()
				testenv.Run(b, ns, clear...)
				b.StartTimer()
			}
		})
	}
	applyNeighbours := func(p reconcile.Plan[desired.NeighKey, desired.Neigh]) func(b *testing.B, k *Kernel) {
		return func(b *testing.B, k *Kernel) {
			if failed := k.Neighbours().Apply(b.Context(), p); len(failed) > 0 {
				b.Fatal(len(failed))
			}
		}
	}
	flush := map[string][]string{
		"neighbours": {"ip", "neigh", "flush", "dev", desired.DeviceVXLAN4, "nud", "permanent"},
		"forwarding": {"bridge", "fdb", "flush", "dev", desired.DeviceVXLAN4},
		"routes":     {"ip", "route", "flush", "proto", "80"},
	}
	each("neighbours", flush["neighbours"], applyNeighbours(neighbours))
	each("forwarding", flush["forwarding"], applyNeighbours(forwarding))
	each("routes", flush["routes"], func(b *testing.B, k *Kernel) {
		if failed := k.Routes(desired.ProtocolAgent).Apply(b.Context(), routes); len(failed) > 0 {
			b.Fatal(len(failed))
		}
	})
	// The twins.
	sent := func(fill func(*rtnl.Batch, int)) func(b *testing.B, k *Kernel) {
		return func(b *testing.B, k *Kernel) {
			b.StopTimer()
			index, err := k.IndexOf(desired.DeviceVXLAN4)
			if err != nil {
				b.Fatal(err)
			}
			var batch rtnl.Batch
			fill(&batch, index)
			b.StartTimer()
			if err := k.do(&batch); err != nil {
				b.Fatal(err)
			}
		}
	}
	all := remotes()
	each("neighbours by netlink alone", flush["neighbours"], sent(func(batch *rtnl.Batch, index int) {
		for _, r := range all {
			newNeighbour(batch, index, r.vtep, r.mac)
		}
	}))
	each("forwarding by netlink alone", flush["forwarding"], sent(func(batch *rtnl.Batch, index int) {
		for _, r := range all {
			m := neighMessage{Family: unix.AF_BRIDGE, Index: index, State: unix.NUD_PERMANENT, Flags: unix.NTF_SELF, Dst: r.node, MAC: r.mac}
			m.put(batch, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
		}
	}))
	each("routes by netlink alone", flush["routes"], sent(func(batch *rtnl.Batch, index int) {
		for _, r := range all {
			putRoute(batch, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, routeMessage{
				Dst: r.block, Metric: 1023, Protocol: desired.ProtocolAgent, MTU: 1450,
				Hops: []hop{{Via: r.vtep, Out: index, OnLink: true}},
			})
		}
	}))
}

// BenchmarkTenThousandRemotesByLibrary is the same with a netlink library, one
// request at a time.
func BenchmarkTenThousandRemotesByLibrary(b *testing.B) {
	k, ns := tunnelHost(b)
	h, err := openHandle(ns)
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	index, err := k.IndexOf(desired.DeviceVXLAN4)
	if err != nil {
		b.Fatal(err)
	}
	all := remotes()
	for name, add := range map[string]func(r remote) error{
		"neighbours": func(r remote) error {
			return h.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: r.vtep.AsSlice(), HardwareAddr: r.mac})
		},
		"forwarding": func(r remote) error {
			return h.NeighSet(&netlink.Neigh{
				LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF,
				IP: r.node.AsSlice(), HardwareAddr: r.mac,
			})
		},
		"routes": func(r remote) error {
			return h.RouteReplace(&netlink.Route{
				LinkIndex: index, Dst: ipNetOf(r.block), Gw: r.vtep.AsSlice(), Flags: int(netlink.FLAG_ONLINK), MTU: 1450, Protocol: 80, Priority: 1023,
			})
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				for _, r := range all {
					if err := add(r); err != nil {
						b.Fatal(fmt.Errorf("%v: %w", r, err))
					}
				}
			}
		})
	}
}

// BenchmarkDeviceMadeAnew changes the VNI of a device that leads to 100 other
// hosts: the time without a way to them.
func BenchmarkDeviceMadeAnew(b *testing.B) {
	k, _ := tunnelHost(b)
	neighbours, forwarding, routes := tunnelPlans()
	const hosts = 100
	neighbours.Set, forwarding.Set, routes.Set = neighbours.Set[:hosts], forwarding.Set[:hosts], routes.Set[:hosts]
	for _, p := range []reconcile.Plan[desired.NeighKey, desired.Neigh]{neighbours, forwarding} {
		if failed := k.Neighbours().Apply(b.Context(), p); len(failed) > 0 {
			b.Fatal(len(failed))
		}
	}
	if failed := k.Routes(desired.ProtocolAgent).Apply(b.Context(), routes); len(failed) > 0 {
		b.Fatal(len(failed))
	}
	want := vxlanFamilies()[0].want()
	for b.Loop() {
		want.VNI ^= 1
		p := reconcile.Plan[string, desired.Device]{Set: []reconcile.Entry[string, desired.Device]{{Key: desired.DeviceVXLAN4, Value: want, Exists: true}}}
		if failed := k.Devices().Apply(b.Context(), p); len(failed) > 0 {
			b.Fatal(failed)
		}
	}
	b.StopTimer()
	if have, err := k.Routes(desired.ProtocolAgent).List(b.Context()); err != nil || len(have) != hosts {
		b.Errorf("%d routes are left, %v", len(have), err)
	}
	if have, err := k.Neighbours().List(b.Context()); err != nil || len(have) != 2*hosts {
		b.Errorf("%d neighbours are left, %v", len(have), err)
	}
}
