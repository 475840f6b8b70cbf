package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/store"
)

// measureMemory reads how much memory of its own an agent has: alone, and in
// a network where another host has 10,000 blocks, whose routes it learns by
// BGP, with 100 workloads here.
func measureMemory(ctx context.Context, o options) ([]row, error) {
	w, err := newWorld(ctx, o)
	if err != nil {
		return nil, err
	}
	defer w.close()
	h, err := w.addHost(ctx)
	if err != nil {
		return nil, err
	}
	rest, err := atRest(ctx, o, h)
	if err != nil {
		return nil, err
	}
	blocks := o.pick(10_000, 500)
	if err := w.writeBlocks(ctx, "h2", blocks); err != nil {
		return nil, err
	}
	if _, err := w.addHost(ctx); err != nil {
		return nil, err
	}
	if err := learned(ctx, h, blocks); err != nil {
		return nil, err
	}
	local := o.pick(100, 5)
	c, err := newContainers(w, h, local)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if _, _, err := c.each(ctx, "ADD", c.list, 4); err != nil {
		return nil, err
	}
	full, err := atRest(ctx, o, h)
	if err != nil {
		return nil, err
	}
	return []row{
		{what: "agent at rest: anonymous memory", value: median(rest), unit: "MiB", aim: 30, spread: medianApart(rest), calico: "about 100 MiB RSS"},
		{what: fmt.Sprintf("agent with %d remote blocks and %d workloads: anonymous memory", blocks, local), value: median(full), unit: "MiB", aim: 60, spread: medianApart(full)},
	}, nil
}

// atRest reads an agent's memory while nothing happens: a while after the
// last change, several times.
func atRest(ctx context.Context, o options, h *host) ([]float64, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	wait, reads := o.pick(30, 1), o.pick(10, 2)
	var list []float64
	for i := range wait + reads {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		mib, err := h.agent.anonymous()
		if err != nil {
			return nil, err
		}
		if i >= wait {
			list = append(list, mib)
		}
	}
	return list, nil
}

// learned waits until the kernel of a host has n routes by BGP.
func learned(ctx context.Context, h *host, n int) error {
	k, err := kernel.Open(kernel.Config{Netns: h.ns.Path()})
	if err != nil {
		return err
	}
	defer k.Close()
	return h.agent.waitUntil(ctx, 3*time.Minute, func() error {
		have, err := k.Routes(desired.ProtocolBGP).List(ctx)
		if err == nil && len(have) < n {
			err = fmt.Errorf("%d routes of %d are learned", len(have), n)
		}
		return err
	})
}

// writeBlocks gives a host n blocks, as if its workloads had needed them. The
// last ones of the pool are taken; the others stay free.
func (w *world) writeBlocks(ctx context.Context, hostName string, n int) error {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{w.endpoint()}, DialTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	var ops []clientv3.Op
	first := netip.MustParseAddr("10.96.0.0")
	for i := range n {
		raw := first.As4()
		raw[1] += byte(i >> 10)
		raw[2], raw[3] = byte(i>>2), byte(i<<6)
		cidr := netip.PrefixFrom(netip.AddrFrom4(raw), 26)
		ops = append(ops,
			clientv3.OpPut(store.BlockKey(cidr), blockJSON(hostName, cidr)),
			clientv3.OpPut(store.AffinityID{Owner: hostName, CIDR: cidr}.Key(), `{"state":"confirmed","deleted":false}`))
	}
	for some := range slices.Chunk(ops, 100) {
		if _, err := c.Txn(ctx).Then(some...).Commit(); err != nil {
			return fmt.Errorf("write blocks: %w", err)
		}
	}
	return nil
}

// blockJSON is a stored block with one address in use.
func blockJSON(host string, cidr netip.Prefix) string {
	slots, free := "0", ""
	for i := 1; i < int(prefix.SizeCapped(cidr)); i++ {
		slots += ",null"
		free += fmt.Sprintf(",%d", i)
	}
	return fmt.Sprintf(`{"cidr":%q,"affinity":"host:%s","allocations":[%s],"unallocated":[%s],`+
		`"attributes":[{"handle_id":"bench.%s","secondary":{"node":%q}}],"deleted":false,"sequenceNumber":1,"sequenceNumberForAllocation":{"0":0}}`,
		cidr, host, slots, free[1:], cidr.Addr(), host)
}
