package main

import (
	"context"
	"errors"
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
	var ratios, again, mine, puts []rate
	for r := range o.pick(6, 1) + 1 {
		b.renew(r)
		var got [3]rate
		for i, f := range []func(context.Context, int, int) error{b.put, b.assign, b.put} {
			if got[i], err = b.measure(ctx, w.server, span, f); err != nil {
				return nil, err
			}
		}
		if r == 0 {
			continue // warms up
		}
		ratios = append(ratios, got[1].over(got[0], got[2]))
		again = append(again, got[2].over(got[0], got[0]))
		mine, puts = append(mine, got[1]), append(puts, got[0], got[2])
	}
	perSecond := func(r rate) float64 { return r.perSecond }
	cpu := func(r rate) float64 { return r.cpu }
	return []row{
		{what: "IPAM, 8 hosts on one pool: addresses to etcd's puts by 8 clients", value: median(each(ratios, perSecond)), unit: "×", aim: 0.3, least: true, spread: apart(1, median(each(again, perSecond)))},
		{what: "– addresses", value: median(each(mine, perSecond)), unit: "/s", spread: medianApart(each(mine, perSecond))},
		{what: "– puts", value: median(each(puts, perSecond)), unit: "/s", spread: medianApart(each(puts, perSecond))},
		{what: "– CPU of an address, etcd's included, to that of a put", value: median(each(ratios, cpu)), unit: "×", spread: apart(1, median(each(again, cpu)))},
	}, nil
}

// rate is how often something was done, and what it cost etcd and its clients
// together each time.
type rate struct {
	perSecond float64
	cpu       float64 // in milliseconds
}

// over is the ratio of r to the mean of two others.
func (r rate) over(a, b rate) rate {
	return rate{2 * r.perSecond / (a.perSecond + b.perSecond), 2 * r.cpu / (a.cpu + b.cpu)}
}

func each(rates []rate, f func(rate) float64) []float64 {
	var out []float64
	for _, r := range rates {
		out = append(out, f(r))
	}
	return out
}

// ipamBench is eight hosts and eight clients, each with a connection of its
// own.
type ipamBench struct {
	settings *ipam.Settings
	drivers  []*etcd.Driver
	round    int
	hosts    [clients]*ipam.Manager // of this round
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

// renew begins a round with eight hosts that have nothing yet. So every round
// claims its blocks, one for each 64 addresses, and no host has all the blocks
// that it may have.
func (b *ipamBench) renew(round int) {
	b.round = round
	// Like an agent, a host knows the pools and is told when they change.
	known := func(context.Context) (*ipam.Settings, error) { return b.settings, nil }
	for i, d := range b.drivers {
		b.hosts[i] = ipam.New(ipam.Config{Driver: d, Settings: known})
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
	host := fmt.Sprintf("h%d-%d", b.round, i)
	got, err := b.hosts[i].AutoAssign(ctx, ipam.AssignArgs{
		Host: host, Handle: fmt.Sprintf("bench.%s.%d", host, n), Num4: 1,
		Attrs: map[string]string{"namespace": "default", "pod": fmt.Sprintf("pod-%s-%d", host, n)},
	})
	if err == nil && len(got.V4) != 1 {
		err = fmt.Errorf("%d addresses assigned, not 1", len(got.V4))
	}
	return err
}

// measure lets all do f again and again for a while.
func (b *ipamBench) measure(ctx context.Context, server *process, span time.Duration, f func(ctx context.Context, i, n int) error) (rate, error) {
	errs := make([]error, clients)
	var done [clients]int
	var wg sync.WaitGroup
	served, err := server.cpu()
	if err != nil {
		return rate{}, err
	}
	begin, own := time.Now(), ownCPU()
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
	now, err := server.cpu()
	errs = append(errs, err)
	sum := 0
	for _, n := range done {
		sum += n
	}
	cpu := now - served + ownCPU() - own
	return rate{float64(sum) / took.Seconds(), ms(cpu) / float64(sum)}, errors.Join(errs...)
}
