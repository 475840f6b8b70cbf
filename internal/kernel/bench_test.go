package kernel

import (
	"context"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/reconcile"
	"github.com/brindle-net/brindle/internal/testenv"
)

// bulk is what a host learns of 10,000 remote blocks.
const bulk = 10_000

func bulkRoutes() map[desired.RouteKey]desired.Route {
	out := make(map[desired.RouteKey]desired.Route, bulk)
	for i := range bulk {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + i>>10), byte(i >> 2), byte(i << 6)}), 26)
		out[desired.RouteKey{Table: desired.MainTable, Prefix: prefix, Priority: 1024}] =
			agentRoute(desired.NextHop{Via: netip.AddrFrom4([4]byte{172, 30, 0, byte(2 + i%200)})})
	}
	return out
}

func bulkHost(b *testing.B) (*Kernel, *netns.NS) {
	k, ns := open(b)
	links(b, ns, "eth0")
	testenv.Run(b, ns, "ip", "addr", "add", "172.30.0.1/24", "dev", "eth0")
	return k, ns
}

// BenchmarkTenThousandRoutes takes a snapshot of 10,000 routes to the kernel
// through a loop; its twin does the same with a netlink library alone.
func BenchmarkTenThousandRoutes(b *testing.B) {
	k, ns := bulkHost(b)
	want := bulkRoutes()
	for b.Loop() {
		l := reconcile.New(k.Routes(desired.ProtocolAgent), reconcile.Config[desired.RouteKey, desired.Route]{
			Compare: CompareRoutes, Equal: EqualRoutes,
		})
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		l.Want(desired.Patch[desired.RouteKey, desired.Route]{Set: want})
		l.InSync()
		go func() { done <- l.Run(ctx) }()
		if err := l.Synced(ctx); err != nil {
			b.Fatal(err)
		}
		cancel()
		<-done
		b.StopTimer()
		testenv.Run(b, ns, "ip", "route", "flush", "proto", "80")
		b.StartTimer()
	}
}

// BenchmarkTenThousandRoutesByLibrary is the twin to compare with.
func BenchmarkTenThousandRoutesByLibrary(b *testing.B) {
	_, ns := bulkHost(b)
	var h *netlink.Handle
	testenv.Do(b, ns, func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	defer h.Close()
	eth0, err := h.LinkByName("eth0")
	if err != nil {
		b.Fatal(err)
	}
	want := bulkRoutes()
	for b.Loop() {
		for key, route := range want {
			err := h.RouteReplace(&netlink.Route{
				LinkIndex: eth0.Attrs().Index, Dst: ipNetOf(key.Prefix), Gw: route.Hops[0].Via.AsSlice(),
				Protocol: 80, Priority: key.Priority,
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		testenv.Run(b, ns, "ip", "route", "flush", "proto", "80")
		b.StartTimer()
	}
}

// BenchmarkReadTenThousandRoutes reads them back, as each look at drift does.
func BenchmarkReadTenThousandRoutes(b *testing.B) {
	k, _ := bulkHost(b)
	l, _ := routeLoop(b, k, desired.ProtocolAgent)
	l.Want(desired.Patch[desired.RouteKey, desired.Route]{Set: bulkRoutes()})
	synced(b, l)
	r := k.Routes(desired.ProtocolAgent)
	for b.Loop() {
		if have, err := r.List(b.Context()); err != nil || len(have) != bulk {
			b.Fatal(len(have), err)
		}
	}
}

// BenchmarkUnwire removes the wire of a workload.
func BenchmarkUnwire(b *testing.B) {
	k, host := open(b)
	forwarding(b, host)
	s, _ := workloadSpec(b, 1, testenv.Dual)
	wire(b, k, s)
	for b.Loop() {
		if err := k.Unwire(s.HostName); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		wire(b, k, s)
		b.StartTimer()
	}
}

// hundred wires 100 workloads and returns the table that asserts their links.
func hundred(b *testing.B) *Links {
	k, _ := open(b)
	l := k.Links()
	var p reconcile.Plan[string, desired.Link]
	for i := range 100 {
		s, _ := workloadSpec(b, i+1, testenv.Dual)
		wire(b, k, s)
		p.Set = append(p.Set, reconcile.Entry[string, desired.Link]{Key: s.HostName, Value: desired.Link{
			Up: true, Alias: desired.AliasWorkload, Sysctls: desired.SysctlLines(desired.WorkloadSysctls()),
		}})
	}
	if failed := l.Apply(b.Context(), p); len(failed) > 0 {
		b.Fatal(failed)
	}
	return l
}

// BenchmarkReadLinks reads back the links of 100 workloads, as each look at
// drift does.
func BenchmarkReadLinks(b *testing.B) {
	l := hundred(b)
	for b.Loop() {
		if have, err := l.List(b.Context()); err != nil || len(have) != 100 {
			b.Fatal(len(have), err)
		}
	}
}

// BenchmarkGlanceAtLinks glances at the links of 100 workloads, as the loop
// does all the time.
func BenchmarkGlanceAtLinks(b *testing.B) {
	l := hundred(b)
	for b.Loop() {
		if differ, err := l.Glance(b.Context()); err != nil || len(differ) > 0 {
			b.Fatal(differ, err)
		}
	}
}
