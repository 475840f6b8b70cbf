package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// clients is how many hosts assign addresses, and how many clients put keys.
const clients = 8

// measureIPAM has eight hosts take addresses from one pool, one address and
// one handle for each call, and compares with puts by eight clients.
func measureIPAM(ctx context.Context, o options) ([]row, error) {
	w, err := newWorld(ctx, o)
	if err != nil {
		return nil, err
	}
	defer w.close()
	settings, err := ipam.ReadSettings(ctx, w.store)
	if err != nil {
		return nil, err
	}
	b := &ipamBench{settings: settings}
	defer b.close()
	for i := range clients {
		if err := b.join(w, i); err != nil {
			return nil, err
		}
	}
	span := time.Duration(o.pick(1500, 200)) * time.Millisecond
	var ratios, again, rates, puts []float64
	for r := range o.pick(6, 1) + 1 {
		before, err := b.rate(ctx, span, b.put)
		if err != nil {
			return nil, err
		}
		mine, err := b.rate(ctx, span, b.assign)
		if err != nil {
			return nil, err
		}
		after, err := b.rate(ctx, span, b.put)
		if err != nil {
			return nil, err
		}
		if r == 0 {
			continue // warms up
		}
		ratios = append(ratios, 2*mine/(before+after))
		again = append(again, after/before)
		rates, puts = append(rates, mine), append(puts, before, after)
	}
	return []row{
		{what: "IPAM, 8 hosts on one pool: addresses to etcd's puts by 8 clients", value: median(ratios), unit: "×", aim: 0.3, least: true, spread: apart(1, median(again))},
		{what: "– addresses", value: median(rates), unit: "/s", spread: medianApart(rates)},
		{what: "– puts", value: median(puts), unit: "/s", spread: medianApart(puts)},
	}, nil
}

// ipamBench is eight hosts and eight clients, each with a connection of its
// own.
type ipamBench struct {
	settings *ipam.Settings
	drivers  []*etcd.Driver
	hosts    []*ipam.Manager
	puts     []*clientv3.Client
	counts   [clients]int // calls so far: no name is used twice
}

// join adds one host and one client.
func (b *ipamBench) join(w *world, i int) error {
	d, err := w.dial()
	if err != nil {
		return err
	}
	b.drivers = append(b.drivers, d)
	// Like an agent, a host knows the pools and is told when they change.
	known := func(context.Context) (*ipam.Settings, error) { return b.settings, nil }
	b.hosts = append(b.hosts, ipam.New(ipam.Config{Driver: d, Settings: known}))
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{w.endpoint()}, DialTimeout: 5 * time.Second})
	if err != nil {
		return fmt.Errorf("client %d: %w", i, err)
	}
	b.puts = append(b.puts, c)
	return nil
}

func (b *ipamBench) close() {
	for _, d := range b.drivers {
		_ = d.Close() // the datastore is about to go
	}
	for _, c := range b.puts {
		_ = c.Close()
	}
}

// put writes one key of the size of a handle.
func (b *ipamBench) put(ctx context.Context, i, n int) error {
	key := fmt.Sprintf("/bench/%d/%d", i, n)
	_, err := b.puts[i].Put(ctx, key, `{"handleID":"`+key+`","block":{"10.64.0.0/26":1},"deleted":false}`)
	return err
}

// assign takes one address for one handle.
func (b *ipamBench) assign(ctx context.Context, i, n int) error {
	host := fmt.Sprintf("h%d", i)
	got, err := b.hosts[i].AutoAssign(ctx, ipam.AssignArgs{
		Host: host, Handle: fmt.Sprintf("bench.%s.%d", host, n), Num4: 1,
		Attrs: map[string]string{"namespace": "default", "pod": fmt.Sprintf("pod-%s-%d", host, n)},
	})
	if err == nil && len(got.V4) != 1 {
		err = fmt.Errorf("%d addresses assigned, not 1", len(got.V4))
	}
	return err
}

// rate lets all do f again and again for a while, and returns how often it
// was done each second.
func (b *ipamBench) rate(ctx context.Context, span time.Duration, f func(ctx context.Context, i, n int) error) (float64, error) {
	errs := make([]error, clients)
	var done [clients]int
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range clients {
		wg.Go(func() {
			for errs[i] == nil && time.Since(begin) < span {
				errs[i] = f(ctx, i, b.counts[i])
				b.counts[i]++
				done[i]++
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	sum := 0
	for i, err := range errs {
		if err != nil {
			return 0, err
		}
		sum += done[i]
	}
	return float64(sum) / took.Seconds(), nil
}
