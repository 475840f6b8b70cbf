package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/brindle-net/brindle/internal/calc"
	"github.com/brindle-net/brindle/internal/model"
)

// cluster says how large a network is that the core of one host looks at.
type cluster struct{ workloads, hosts int }

// measureCore compares what one change far away costs in a small and in a
// large network. Both have 100 workloads on the host that computes.
func measureCore(ctx context.Context, o options) ([]row, error) {
	small, err := newCluster(cluster{1000, 10})
	if err != nil {
		return nil, err
	}
	large, err := newCluster(cluster{100_000, 1000})
	if err != nil {
		return nil, err
	}
	defer runtime.KeepAlive(large)
	var ratios, again, cost []float64
	for range o.pick(20, 3) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := o.pick(20_000, 500)
		a, b, c := small.change(n), large.change(n), small.change(n)
		ratios = append(ratios, b/((a+c)/2))
		again = append(again, c/a)
		cost = append(cost, b)
	}
	return []row{
		{what: "core: a remote workload's change, 100,000 workloads to 1,000: CPU", value: median(ratios), unit: "×", aim: 2, spread: apart(1, median(again))},
		{what: "– with 100,000", value: median(cost) / 1000, unit: "ms", spread: medianApart(cost)},
	}, nil
}

// observer is the core of host 0 with changes that concern it little.
type observer struct {
	core    *calc.Core
	changes [][]model.Event
}

// newCluster hands the snapshot of a network to a core.
func newCluster(c cluster) (*observer, error) {
	o := &observer{core: calc.New(model.Settings{Node: hostName(0)})}
	o.core.Apply(c.snapshot())
	if n := len(o.core.State().Links); n != 100 {
		return nil, fmt.Errorf("%d workloads are local, not 100", n)
	}
	for i := range 64 {
		o.changes = append(o.changes, append(remoteBlock(1, c.hosts, i), remoteWorkload(1, c.hosts, i)))
	}
	if u := o.core.Apply(o.changes[1]); !u.Routes.Empty() || !u.Notices.Empty() {
		return nil, errors.New("a remote change changed what this host does")
	}
	return o, nil
}

// change plays n changes of one remote workload and its block, and returns
// the CPU time of one in microseconds.
func (o *observer) change(n int) float64 {
	runtime.GC() // garbage of the other's turn is not ours to pay for
	begin := ownCPU()
	for i := range n {
		o.core.Apply(o.changes[i%len(o.changes)])
	}
	return float64((ownCPU() - begin).Nanoseconds()) / 1000 / float64(n)
}

// snapshot is a network: hosts, workloads dealt over them, a block for each 64
// of these, and some policies.
func (c cluster) snapshot() []model.Event {
	var events []model.Event
	for h := range c.hosts {
		addr := netip.AddrFrom4([4]byte{172, 16, byte(h >> 8), byte(h)})
		n := &model.Node{Name: hostName(h), Addr4: netip.PrefixFrom(addr, 12)}
		events = append(events, model.Event{ID: model.ID{Kind: model.KindNode, Name: n.Name}, Value: n})
	}
	for w := range c.workloads {
		events = append(events, remoteWorkload(w, c.hosts, 0))
	}
	for b := range c.workloads / 64 {
		events = append(events, remoteBlock(b, c.hosts, 0)...)
	}
	for p := range 100 {
		id := model.PolicyID("GlobalNetworkPolicy", "", fmt.Sprint("p", p))
		events = append(events, model.Event{ID: id, Value: &model.Policy{ID: id, Title: id.String()}})
	}
	pool := &model.Pool{Name: "p", CIDR: netip.MustParsePrefix("10.0.0.0/8")}
	return append(events, model.Event{ID: model.ID{Kind: model.KindPool, Name: pool.Name}, Value: pool})
}

func hostName(h int) string { return fmt.Sprint("host-", h) }

// remoteWorkload is the w-th workload; versions differ in a label.
func remoteWorkload(w, hosts, version int) model.Event {
	id := model.ID{Kind: model.KindWorkload, Namespace: "default", Name: fmt.Sprint("w", w)}
	return model.Event{ID: id, Value: &model.Workload{
		ID: id, Node: hostName(w % hosts), Interface: fmt.Sprintf("cali%x", w),
		Addrs:  []netip.Addr{netip.AddrFrom4([4]byte{10, byte(w >> 16), byte(w >> 8), byte(w)})},
		Labels: map[string]string{"app": "a", "version": fmt.Sprint(version)},
	}}
}

// remoteBlock is the b-th block with its affinity; versions differ in who
// uses an address.
func remoteBlock(b, hosts, version int) []model.Event {
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(b >> 10), byte(b >> 2), byte(b << 6)}), 26)
	host := hostName(b % hosts)
	uses := []model.Use{{Addr: p.Addr(), Node: host, Handle: fmt.Sprint(version)}}
	return []model.Event{
		{ID: model.AffinityID(host, p), Value: &model.Affinity{Host: host, CIDR: p, Confirmed: true}},
		{ID: model.BlockID(p), Value: &model.Block{CIDR: p, Host: host, Uses: uses}},
	}
}
