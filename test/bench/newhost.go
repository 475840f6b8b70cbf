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
	present, more := o.pick(1000, 20), o.pick(200, 5)
	h, err := newTunnelHost(present + more)
	if err != nil {
		return nil, err
	}
	defer h.close()
	var bulk, single, objects []beside
	for round := range o.pick(9, 2) + 1 {
		all, one, same, err := h.round(ctx, present, more)
		if err != nil {
			return nil, err
		}
		if round > 0 { // which warms up
			bulk, single, objects = append(bulk, all), append(single, one), append(objects, same)
		}
	}
	var itself []float64
	for _, b := range single {
		itself = append(itself, b.ours.wall)
	}
	one, oneCPU, all, allCPU := figures(single, beside.wall), figures(single, beside.cpu), figures(bulk, beside.wall), figures(bulk, beside.cpu)
	same, sameCPU := figures(objects, beside.wall), figures(objects, beside.cpu)
	return []row{
		{what: fmt.Sprintf("one host more among %d with VXLAN, from event to kernel, to netlink alone: time, p50", present), value: median(one), unit: "×", aim: 1.5,
			spread: apart(1, median(figures(single, beside.wallApart)))},
		{what: "– the time itself, p50", value: median(itself), unit: "ms", spread: medianApart(itself)},
		{what: "– CPU", value: median(oneCPU), unit: "×", aim: 1.5, spread: apart(1, median(figures(single, beside.cpuApart)))},
		{what: "– to netlink alone by next-hop objects, as the agent does it: time, p50", value: median(same), unit: "×",
			spread: apart(1, median(figures(objects, beside.wallApart)))},
		{what: "– CPU", value: median(sameCPU), unit: "×", spread: apart(1, median(figures(objects, beside.cpuApart)))},
		{what: fmt.Sprintf("%d hosts with VXLAN on a new one, from snapshot to kernel, to netlink alone: time", present), value: median(all), unit: "×", aim: 1.5,
			spread: apart(1, median(figures(bulk, beside.wallApart)))},
		{what: "– CPU", value: median(allCPU), unit: "×", spread: medianApart(allCPU)},
	}, nil
}

// round measures all hosts at once, and then some one after the other: beside
// netlink alone, and beside netlink alone by objects. Each way finds the hosts
// that are there as it would have made them.
func (h *tunnelHost) round(ctx context.Context, present, more int) (bulk, single, objects beside, err error) {
	bulk, err = h.compare(ctx, turn{
		bare: func() (wallAndCPU, error) { return timed(func() error { return h.bare(0, present, false) }) },
		ours: func() (wallAndCPU, error) { return timed(func() error { return h.begin(ctx, present) }) },
		undo: h.end,
	})
	if err != nil {
		return bulk, single, objects, err
	}
	one := func(objects bool) turn {
		return turn{
			bare: func() (wallAndCPU, error) {
				if err := h.bare(0, present, objects); err != nil {
					return wallAndCPU{}, err
				}
				return apiece(present, more, func(i int) error { return h.bare(i, 1, objects) })
			},
			ours: func() (wallAndCPU, error) {
				if err := h.begin(ctx, present); err != nil {
					return wallAndCPU{}, err
				}
				return apiece(present, more, func(i int) error { return h.join(ctx, i) })
			},
			undo: h.end,
		}
	}
	if single, err = h.compare(ctx, one(false)); err != nil {
		return bulk, single, objects, err
	}
	objects, err = h.compare(ctx, one(true))
	return bulk, single, objects, err
}

// apiece does f for some hosts one after the other, with pauses between them: a
// loop that has just made a pass lets its settle time go by. The time is the
// median of one. The CPU is that of all, and of what follows in the pauses, less
// that of pauses alone.
func apiece(first, n int, f func(int) error) (wallAndCPU, error) {
	const pause = 3 * time.Millisecond
	runtime.GC() // garbage of the other's turn is not ours to pay for
	var took sample
	start := ownCPU()
	for range n {
		time.Sleep(pause)
	}
	begin := ownCPU()
	for i := range n {
		time.Sleep(pause)
		at := time.Now()
		if err := f(first + i); err != nil {
			return wallAndCPU{}, err
		}
		took = append(took, time.Since(at))
	}
	return wallAndCPU{took.p50(), ms(ownCPU() - begin - (begin - start))}, nil
}

// beside is what our way cost, and netlink alone before and after it.
type beside struct{ first, ours, second wallAndCPU }

func (b beside) wall() float64      { return 2 * b.ours.wall / (b.first.wall + b.second.wall) }
func (b beside) cpu() float64       { return 2 * b.ours.cpu / (b.first.cpu + b.second.cpu) }
func (b beside) wallApart() float64 { return b.second.wall / b.first.wall }
func (b beside) cpuApart() float64  { return b.second.cpu / b.first.cpu }

// figures are one of each round.
func figures(rounds []beside, f func(beside) float64) (out []float64) {
	for _, b := range rounds {
		out = append(out, f(b))
	}
	return out
}

// tunnelHost is a host with a VXLAN device and the loops that see to it.
type tunnelHost struct {
	*box
	kernel *kernel.Kernel
	bareNL *bareNetlink
	link   int
	hosts  []bareHost
	events [][]model.Event // of each host, this one first

	core       *calc.Core
	ways       *reconcile.Chain // as agents have it
	neighbours *reconcile.Loop[desired.NeighKey, desired.Neigh]
	routes     *reconcile.Loop[desired.RouteKey, desired.Route]
	stop       func()
}

// newTunnelHost makes one, and what it is going to be told of so many others.
func newTunnelHost(others int) (_ *tunnelHost, err error) {
	h := &tunnelHost{hosts: bareHosts(others)}
	for i := range others + 1 {
		h.events = append(h.events, joined(i))
	}
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
		h.link = link.Index
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
	h.ways = reconcile.NewChain()
	h.neighbours = reconcile.New(h.kernel.Neighbours(), reconcile.Config[desired.NeighKey, desired.Neigh]{
		Name: "neighbours", Settle: settle, Chain: h.ways, Compare: kernel.CompareNeighs, Equal: func(a, b desired.Neigh) bool { return a == b },
	})
	h.routes = reconcile.New(h.kernel.Routes(desired.ProtocolAgent), reconcile.Config[desired.RouteKey, desired.Route]{
		Name: "routes", Settle: settle, Chain: h.ways, Compare: kernel.CompareRoutes, Equal: kernel.EqualRoutes,
	})
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{}, 2)
	go func() { _ = h.neighbours.Run(ctx); done <- struct{}{} }() // ends with ctx
	go func() { _ = h.routes.Run(ctx); done <- struct{}{} }()
	h.stop = func() { cancel(); <-done; <-done }
	h.core = calc.New(model.Settings{Node: hostName(0), NoIPv6: true})
	events := append(make([]model.Event, 0, 3*(hosts+2)),
		model.Event{ID: model.UnderlayID(), Value: &model.Underlay{MTU: 1500}},
		model.Event{ID: model.ID{Kind: model.KindPool, Name: "p"}, Value: &model.Pool{Name: "p", CIDR: netip.MustParsePrefix("10.0.0.0/8"), Encap: model.VXLAN}})
	for _, list := range h.events[:hosts+1] {
		events = append(events, list...)
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
	h.ways.Together(func() {
		h.neighbours.Want(u.Neighbours)
		h.routes.Want(u.Routes)
	})
}

// join lets one more host in, and waits until the kernel has what is about it.
func (h *tunnelHost) join(ctx context.Context, i int) error {
	u := h.core.Apply(h.events[i+1])
	h.hand(u)
	if len(u.Neighbours.Set) != 2 || len(u.Routes.Set) != 1 {
		return fmt.Errorf("%d neighbours and %d routes are wanted for a host", len(u.Neighbours.Set), len(u.Routes.Set))
	}
	return errors.Join(h.routes.WaitApplied(ctx, keys(u.Routes.Set)...), h.neighbours.WaitApplied(ctx, keys(u.Neighbours.Set)...))
}

func keys[K comparable, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// end stops the loops, and takes all that they made out of the kernel.
func (h *tunnelHost) end() error {
	if h.stop == nil {
		return nil
	}
	h.stop()
	h.stop, h.core, h.neighbours, h.routes = nil, nil, nil, nil // so that the next does not live beside this
	return h.tidy(context.Background())
}

// tidy takes out of the kernel what is about other hosts: netlink alone leaves
// it there.
func (h *tunnelHost) tidy(ctx context.Context) error {
	neighbours, routes := h.kernel.Neighbours(), h.kernel.Routes(desired.ProtocolAgent)
	near, err := neighbours.List(ctx)
	if err != nil {
		return err
	}
	far, err := routes.List(ctx)
	if err != nil {
		return err
	}
	for _, err := range routes.Apply(ctx, reconcile.Plan[desired.RouteKey, desired.Route]{Delete: keys(far)}) {
		return err
	}
	for _, err := range neighbours.Apply(ctx, reconcile.Plan[desired.NeighKey, desired.Neigh]{Delete: keys(near)}) {
		return err
	}
	return nil
}

// turn is a thing that is done by netlink alone and by us, which has to be
// undone.
type turn struct {
	bare, ours func() (wallAndCPU, error)
	undo       func() error // of ours
}

// compare measures our way between two turns of netlink alone, and undoes each.
func (h *tunnelHost) compare(ctx context.Context, t turn) (beside, error) {
	var out beside
	tidy := func() error { return h.tidy(ctx) }
	for _, one := range []struct {
		at   *wallAndCPU
		do   func() (wallAndCPU, error)
		undo func() error
	}{{&out.first, t.bare, tidy}, {&out.ours, t.ours, t.undo}, {&out.second, t.bare, tidy}} {
		var err error
		if *one.at, err = one.do(); err != nil {
			return out, err
		}
		if err := one.undo(); err != nil {
			return out, err
		}
	}
	runtime.GC()
	return out, nil
}

// bare tells the kernel of some hosts by netlink alone.
func (h *tunnelHost) bare(first, n int, objects bool) error {
	return h.bareNL.addHosts(h.hosts[first:first+n], h.link, objects)
}

// bareHost is what netlink is told of one host.
type bareHost struct {
	number int
	mac    net.HardwareAddr
}

func bareHosts(n int) []bareHost {
	out := make([]bareHost, n)
	for i := range out {
		mac, _ := net.ParseMAC(model.VTEPMAC(hostName(i+1), 4)) // which writes them
		out[i] = bareHost{i, mac}
	}
	return out
}

// binaryOf writes a number as the kernel has it.
func binaryOf(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
