package main

import (
	"context"
	"encoding/binary"
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

// measureNewHost measures what a host of 1,000 with VXLAN does about one more
// host: from the events of its Node and its block until its route, neighbour
// and forwarding entry are in the kernel. Beside it, the messages of netlink
// alone. And the same for all 1,000, on a host that is new itself.
func measureNewHost(ctx context.Context, o options) ([]row, error) {
	defer agent.KeepHeapFloor(agent.HeapFloor)() // this process stands for an agent
	present, more := o.pick(1000, 20), o.pick(500, 5)
	h, err := newTunnelHost()
	if err != nil {
		return nil, err
	}
	defer h.close()
	var one, oneApart, oneWall, oneTime, all, allCPU, allApart []float64
	for round := range o.pick(9, 2) + 1 {
		bulk, err := h.compare(ctx, bareHosts(0, present), func(ctx context.Context) error {
			return h.begin(ctx, present)
		}, func() error { return h.end() })
		if err != nil {
			return nil, err
		}
		if err := h.begin(ctx, present); err != nil {
			return nil, errors.Join(err, h.end())
		}
		single, err := h.compare(ctx, bareHosts(present, more), func(ctx context.Context) error {
			for i := range more {
				if err := h.join(ctx, present+i); err != nil {
					return err
				}
			}
			return nil
		}, func() error { return h.leave(ctx, present, more) })
		if err = errors.Join(err, h.end()); err != nil {
			return nil, err
		}
		if round == 0 {
			continue // warms up
		}
		oneTime = append(oneTime, single.ours.wall/float64(more))
		one, oneWall, oneApart = append(one, single.cpu()), append(oneWall, single.wall()), append(oneApart, single.cpuApart())
		all, allCPU, allApart = append(all, bulk.wall()), append(allCPU, bulk.cpu()), append(allApart, bulk.wallApart())
	}
	return []row{
		{what: fmt.Sprintf("one host more among %d with VXLAN, from event to kernel, to netlink alone: CPU", present), value: median(one), unit: "×", aim: 1.5, spread: apart(1, median(oneApart))},
		{what: "– time", value: median(oneWall), unit: "×", spread: medianApart(oneWall)},
		{what: "– the time itself", value: median(oneTime), unit: "ms", spread: medianApart(oneTime)},
		{what: fmt.Sprintf("%d hosts with VXLAN on a new one, from snapshot to kernel, to netlink alone: time", present), value: median(all), unit: "×", aim: 1.5, spread: apart(1, median(allApart))},
		{what: "– CPU", value: median(allCPU), unit: "×", spread: medianApart(allCPU)},
	}, nil
}

// beside is what our way cost, and netlink alone before and after it.
type beside struct{ first, ours, second wallAndCPU }

func (b beside) wall() float64      { return 2 * b.ours.wall / (b.first.wall + b.second.wall) }
func (b beside) cpu() float64       { return 2 * b.ours.cpu / (b.first.cpu + b.second.cpu) }
func (b beside) wallApart() float64 { return b.second.wall / b.first.wall }
func (b beside) cpuApart() float64  { return b.second.cpu / b.first.cpu }

// tunnelHost is a host with a VXLAN device and the loops that see to it.
type tunnelHost struct {
	*box
	kernel *kernel.Kernel
	bareNL *bareNetlink
	links  map[string]int

	core       *calc.Core
	neighbours *reconcile.Loop[desired.NeighKey, desired.Neigh]
	routes     *reconcile.Loop[desired.RouteKey, desired.Route]
	stop       func()
}

func newTunnelHost() (_ *tunnelHost, err error) {
	h := &tunnelHost{links: map[string]int{}}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	if h.box, err = newBox(); err != nil {
		return nil, err
	}
	own := hostAddr(0)
	if err := errors.Join(h.site.AddBridge("eth0"), h.site.AddAddress("eth0", netip.PrefixFrom(own, 12))); err != nil {
		return nil, err
	}
	if h.kernel, err = kernel.Open(kernel.Config{Netns: h.ns.Path()}); err != nil {
		return nil, err
	}
	device := desired.Device{Form: desired.VXLAN, Local: own, MAC: model.VTEPMAC(hostName(0), 4), VNI: 4096, Port: 4789}
	plan := reconcile.Plan[string, desired.Device]{Set: []reconcile.Entry[string, desired.Device]{{Key: desired.DeviceVXLAN4, Value: device}}}
	for _, err := range h.kernel.Devices().Apply(context.Background(), plan) {
		return nil, err
	}
	if err := h.site.Up(desired.DeviceVXLAN4); err != nil {
		return nil, err
	}
	return h, netns.Do(h.ns, func() error {
		link, err := net.InterfaceByName(desired.DeviceVXLAN4)
		if err != nil {
			return err
		}
		h.links[desired.DeviceVXLAN4] = link.Index
		h.bareNL, err = openBare()
		return err
	})
}

func (h *tunnelHost) close() {
	if h.bareNL != nil {
		h.bareNL.close()
	}
	if h.kernel != nil {
		_ = h.kernel.Close() // the namespace goes with its last user
	}
	h.box.close()
}

// hostAddr is the address of a host in the network below, vtepAddr its end of
// the tunnel, hostBlock its block.
func hostAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{172, 16, byte((i + 1) >> 8), byte(i + 1)})
}
func vtepAddr(i int) netip.Addr { return hostBlock(i).Addr().Next() }
func hostBlock(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
}

// joined are the events of a host that is there.
func joined(i int) []model.Event {
	name, block := hostName(i), hostBlock(i)
	n := &model.Node{Name: name, Addr4: netip.PrefixFrom(hostAddr(i), 12)}
	n.VXLAN4.Addr = vtepAddr(i)
	return []model.Event{
		{ID: model.ID{Kind: model.KindNode, Name: name}, Value: n},
		{ID: model.AffinityID(name, block), Value: &model.Affinity{Host: name, CIDR: block, Confirmed: true}},
		{ID: model.BlockID(block), Value: &model.Block{CIDR: block, Host: name}},
	}
}

// begin starts a core and loops on a host among so many, and waits until the
// kernel has all of these.
func (h *tunnelHost) begin(ctx context.Context, hosts int) error {
	const settle = time.Millisecond // as agents have it
	h.neighbours = reconcile.New(h.kernel.Neighbours(), reconcile.Config[desired.NeighKey, desired.Neigh]{
		Name: "neighbours", Settle: settle, Compare: kernel.CompareNeighs, Equal: func(a, b desired.Neigh) bool { return a == b },
	})
	h.routes = reconcile.New(h.kernel.Routes(desired.ProtocolAgent), reconcile.Config[desired.RouteKey, desired.Route]{
		Name: "routes", Settle: settle, Compare: kernel.CompareRoutes, Equal: kernel.EqualRoutes,
	})
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{}, 2)
	go func() { _ = h.neighbours.Run(ctx); done <- struct{}{} }() // ends with ctx
	go func() { _ = h.routes.Run(ctx); done <- struct{}{} }()
	h.stop = func() { cancel(); <-done; <-done }
	h.core = calc.New(model.Settings{Node: hostName(0), NoIPv6: true})
	events := []model.Event{
		{ID: model.UnderlayID(), Value: &model.Underlay{MTU: 1500}},
		{ID: model.ID{Kind: model.KindPool, Name: "p"}, Value: &model.Pool{Name: "p", CIDR: netip.MustParsePrefix("10.0.0.0/8"), Encap: model.VXLAN}},
	}
	for i := range hosts + 1 {
		events = append(events, joined(i)...)
	}
	u := h.core.Apply(events)
	h.hand(u)
	h.neighbours.InSync()
	h.routes.InSync()
	if len(u.Neighbours.Set) != 2*hosts || len(u.Routes.Set) < hosts {
		return fmt.Errorf("%d neighbours and %d routes are wanted for %d hosts", len(u.Neighbours.Set), len(u.Routes.Set), hosts)
	}
	return errors.Join(h.neighbours.Synced(ctx), h.routes.Synced(ctx))
}

// hand gives loops what the core wants.
func (h *tunnelHost) hand(u desired.Update) {
	h.neighbours.Want(u.Neighbours)
	h.routes.Want(u.Routes)
}

// join lets one more host in, and waits until the kernel has what is about it.
func (h *tunnelHost) join(ctx context.Context, i int) error {
	u := h.core.Apply(joined(i + 1))
	h.hand(u)
	if len(u.Neighbours.Set) != 2 || len(u.Routes.Set) != 1 {
		return fmt.Errorf("%d neighbours and %d routes are wanted for a host", len(u.Neighbours.Set), len(u.Routes.Set))
	}
	return errors.Join(h.neighbours.WaitApplied(ctx, keys(u.Neighbours.Set)...), h.routes.WaitApplied(ctx, keys(u.Routes.Set)...))
}

func keys[K comparable, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// leave lets hosts go again.
func (h *tunnelHost) leave(ctx context.Context, first, n int) error {
	var events []model.Event
	for i := range n {
		for _, e := range joined(first + i + 1) {
			events = append(events, model.Event{ID: e.ID})
		}
	}
	h.hand(h.core.Apply(events))
	return errors.Join(h.neighbours.Synced(ctx), h.routes.Synced(ctx), h.tidy(ctx, first))
}

// end stops the loops, and takes all that they made out of the kernel.
func (h *tunnelHost) end() error {
	if h.stop == nil {
		return nil
	}
	h.stop()
	h.stop = nil
	return h.tidy(context.Background(), 0)
}

// tidy takes out of the kernel what is about hosts from a number on: netlink
// alone leaves it there.
func (h *tunnelHost) tidy(ctx context.Context, first int) error {
	neighbours, routes := h.kernel.Neighbours(), h.kernel.Routes(desired.ProtocolAgent)
	near, err := neighbours.List(ctx)
	if err != nil {
		return err
	}
	far, err := routes.List(ctx)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for i := range first {
		keep[vtepAddr(i+1).String()], keep[model.VTEPMAC(hostName(i+1), 4)], keep[hostBlock(i+1).String()] = true, true, true
	}
	var n reconcile.Plan[desired.NeighKey, desired.Neigh]
	for k := range near {
		if !keep[k.MAC] && (!k.Addr.IsValid() || !keep[k.Addr.String()]) {
			n.Delete = append(n.Delete, k)
		}
	}
	var r reconcile.Plan[desired.RouteKey, desired.Route]
	for k := range far {
		if !keep[k.Prefix.String()] {
			r.Delete = append(r.Delete, k)
		}
	}
	for _, err := range neighbours.Apply(ctx, n) {
		return err
	}
	for _, err := range routes.Apply(ctx, r) {
		return err
	}
	return nil
}

// compare measures our way between two turns of netlink alone, and undoes each.
func (h *tunnelHost) compare(ctx context.Context, hosts []bareHost, ours func(context.Context) error, undo func() error) (beside, error) {
	var out beside
	bare := func() error { return h.bareNL.addHosts(hosts, h.links[desired.DeviceVXLAN4]) }
	for _, turn := range []struct {
		at   *wallAndCPU
		do   func() error
		undo func() error
	}{
		{&out.first, bare, func() error { return h.tidy(ctx, hosts[0].number) }},
		{&out.ours, func() error { return ours(ctx) }, undo},
		{&out.second, bare, func() error { return h.tidy(ctx, hosts[0].number) }},
	} {
		var err error
		if *turn.at, err = timed(turn.do); err != nil {
			return out, err
		}
		if err := turn.undo(); err != nil {
			return out, err
		}
	}
	runtime.GC()
	return out, nil
}

// bareHost is what netlink is told of one host.
type bareHost struct {
	number int
	mac    net.HardwareAddr
}

func bareHosts(first, n int) []bareHost {
	out := make([]bareHost, n)
	for i := range out {
		mac, _ := net.ParseMAC(model.VTEPMAC(hostName(first+i+1), 4)) // which writes them
		out[i] = bareHost{first + i, mac}
	}
	return out
}

// binaryOf writes a number as the kernel has it.
func binaryOf(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
