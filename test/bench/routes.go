package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/brindle-net/brindle/internal/agent"
	"github.com/brindle-net/brindle/internal/calc"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// wallAndCPU is what one thing cost, in milliseconds.
type wallAndCPU struct{ wall, cpu float64 }

// timed measures f.
func timed(f func() error) (wallAndCPU, error) {
	runtime.GC() // garbage of the other's turn is not ours to pay for
	begin, cpu := time.Now(), ownCPU()
	err := f()
	return wallAndCPU{ms(time.Since(begin)), ms(ownCPU() - cpu)}, err
}

// measureRoutes takes the snapshot of 10,000 remote blocks through the core
// and the loop to the kernel, and compares it with the netlink messages alone.
func measureRoutes(ctx context.Context, o options) ([]row, error) {
	n := o.pick(10_000, 500)
	b, err := newRoutesBench(n)
	if err != nil {
		return nil, err
	}
	defer b.close()
	defer agent.KeepHeapFloor(agent.HeapFloor)() // this process stands for an agent
	var wall, cpu, again, cpuAgain, cost []float64
	for r := range o.pick(15, 2) + 1 {
		var got [3]wallAndCPU
		for i, f := range []func() error{b.bare, func() error { return b.ours(ctx) }, b.bare} {
			if got[i], err = timed(f); err != nil {
				return nil, err
			}
			if err := b.flush(ctx); err != nil {
				return nil, err
			}
		}
		if r == 0 {
			continue // warms up
		}
		wall = append(wall, 2*got[1].wall/(got[0].wall+got[2].wall))
		cpu = append(cpu, 2*got[1].cpu/(got[0].cpu+got[2].cpu))
		again = append(again, got[2].wall/got[0].wall)
		cpuAgain = append(cpuAgain, got[2].cpu/got[0].cpu)
		cost = append(cost, got[1].wall)
	}
	return []row{
		{what: fmt.Sprintf("%d remote blocks from snapshot to kernel, to netlink alone: time", n), value: median(wall), unit: "×", aim: 1.5, spread: apart(1, median(again))},
		{what: "– the same in CPU", value: median(cpu), unit: "×", spread: apart(1, median(cpuAgain))},
		{what: "– the time itself", value: median(cost), unit: "ms", spread: medianApart(cost)},
	}, nil
}

// routesBench is a namespace with a link, and what a host learns.
type routesBench struct {
	ns     *netns.NS
	site   *kernel.Site
	kernel *kernel.Kernel
	bareNL *bareNetlink
	link   int
	events []model.Event
	want   map[desired.RouteKey]desired.Route
	list   []bareRoute
}

func newRoutesBench(n int) (_ *routesBench, err error) {
	b := &routesBench{want: map[desired.RouteKey]desired.Route{}}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.ns, err = netns.New(); err != nil {
		return nil, err
	}
	again, err := netns.OpenPath(b.ns.Path())
	if err != nil {
		return nil, err
	}
	if b.site, err = kernel.OpenSite(again); err != nil {
		return nil, err
	}
	if err := errors.Join(b.site.AddBridge("eth0"), b.site.AddAddress("eth0", netip.MustParsePrefix("172.30.0.1/24"))); err != nil {
		return nil, err
	}
	if b.kernel, err = kernel.Open(kernel.Config{Netns: b.ns.Path()}); err != nil {
		return nil, err
	}
	err = netns.Do(b.ns, func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		b.link = link.Index
		b.bareNL, err = openBare()
		return err
	})
	for i := range n {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + i>>10), byte(i >> 2), byte(i << 6)}), 26)
		via := netip.AddrFrom4([4]byte{172, 30, 0, byte(2 + i%200)})
		b.list = append(b.list, bareRoute{prefix, via, desired.DefaultPriority, b.link})
		b.want[desired.RouteKey{Table: desired.MainTable, Prefix: prefix, Priority: desired.DefaultPriority}] =
			desired.Route{Protocol: desired.ProtocolBGP, Hops: []desired.NextHop{{Via: via}}}
		b.events = append(b.events, remoteBlock(i, 1000, 0)...)
	}
	return b, err
}

func (b *routesBench) close() {
	if b.bareNL != nil {
		b.bareNL.close()
	}
	if b.kernel != nil {
		_ = b.kernel.Close() // the namespace goes with its last user
	}
	if b.site != nil {
		b.site.Close()
	}
	if b.ns != nil {
		_ = b.ns.Close()
	}
}

// ours is what an agent does: the core reads the blocks, and the loop reads the
// table, programs what was learned and waits until all of it is confirmed.
func (b *routesBench) ours(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	calc.New(model.Settings{Node: "host-none"}).Apply(b.events)
	l := reconcile.New(b.kernel.Routes(desired.ProtocolBGP), reconcile.Config[desired.RouteKey, desired.Route]{
		Name: "bgp-routes", Compare: kernel.CompareRoutes, Equal: kernel.EqualRoutes,
	})
	l.Want(desired.Patch[desired.RouteKey, desired.Route]{Set: b.want})
	l.InSync()
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	err := l.Synced(ctx)
	cancel()
	<-done
	return err
}

// bare sends the same routes with nothing around it.
func (b *routesBench) bare() error { return b.bareNL.add(b.list) }

// flush removes all of them, and says if it was not all.
func (b *routesBench) flush(ctx context.Context) error {
	routes := b.kernel.Routes(desired.ProtocolBGP)
	have, err := routes.List(ctx)
	if err != nil {
		return err
	}
	if len(have) != len(b.want) {
		return fmt.Errorf("the kernel has %d routes of %d", len(have), len(b.want))
	}
	plan := reconcile.Plan[desired.RouteKey, desired.Route]{}
	for k := range have {
		plan.Delete = append(plan.Delete, k)
	}
	for _, err := range routes.Apply(ctx, plan) {
		return err
	}
	return nil
}
