package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// tunnelPath is a way of packets from a workload of one lab's host to one of
// another, through a tunnel.
type tunnelPath struct {
	path
	use func() error // makes packets take it; nil: they do

	cpu   []float64 // seconds for each gigabyte, one for each round
	speed []float64 // gigabit each second, on all processors
}

// encapRounds are what is measured in one round: bytes, and round trips so many
// times, since ways differ by less than a moment does from the next.
type encapRounds struct{ pinned, free, trips, times int }

// measureEncap measures what each tunnel costs that agents set up between two
// hosts of a lab, beside the same one set up by hand between two hosts of
// another lab, which have agents and rules as well and no tunnel of theirs.
func measureEncap(ctx context.Context, o options) ([]row, error) {
	w, err := newEncapWorld(ctx, o)
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	rows, err := w.measure(ctx, o)
	return rows, errors.Join(err, w.close())
}

func (w *encapWorld) measure(ctx context.Context, o options) ([]row, error) {
	pairs, err := w.pairs()
	if err != nil {
		return nil, err
	}
	var all []*tunnelPath
	for _, p := range pairs {
		all = append(all, p.ours, p.hand, p.again)
	}
	served := map[string]bool{}
	for _, p := range all {
		if at := p.to.Path() + p.addr.String(); !served[at] {
			served[at] = true
			stop, err := serve(p.to, p.addr)
			if err != nil {
				return nil, err
			}
			defer stop()
		}
	}
	n := encapRounds{o.pick(200<<20, 1<<20), o.pick(400<<20, 1<<20), o.pick(400, 20), o.pick(5, 1)}
	for round := range o.pick(24, 2) + 1 {
		if err := measureRound(ctx, all, n, round%2 == 0); err != nil {
			return nil, err
		}
		if round == 0 { // warms up
			for _, p := range all {
				p.rr, p.cpu, p.speed = nil, nil, nil
			}
		}
	}
	var rows []row
	for _, p := range pairs {
		rows = append(rows, p.rows()...)
	}
	return rows, nil
}

// measureRound measures all ways once, each time in another order; how fast they
// are at their best only if asked for.
func measureRound(ctx context.Context, all []*tunnelPath, n encapRounds, free bool) error {
	each := func(measure func(*tunnelPath) error) error {
		for _, i := range rand.Perm(len(all)) {
			err := ctx.Err()
			if err == nil && all[i].use != nil {
				err = all[i].use()
			}
			if err == nil {
				err = measure(all[i])
			}
			if err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
		}
		return nil
	}
	for range n.times {
		err := each(func(p *tunnelPath) error {
			rr, err := p.trips(n.trips)
			if err != nil {
				return fmt.Errorf("round trips: %w", err)
			}
			p.rr = append(p.rr, rr.p50())
			return nil
		})
		if err != nil {
			return err
		}
	}
	err := each(func(p *tunnelPath) error {
		t, err := p.transfer(n.pinned, true)
		p.cpu = append(p.cpu, t.cpu.Seconds()/(float64(n.pinned)/1e9))
		return err
	})
	if err != nil || !free {
		return err
	}
	return each(func(p *tunnelPath) error {
		t, err := p.transfer(n.free, false)
		p.speed = append(p.speed, float64(n.free)*8/1e9/t.wall.Seconds())
		return err
	})
}

// encapPair is a tunnel of the agents', and the one that it is compared with,
// twice.
type encapPair struct {
	name, to          string
	ours, hand, again *tunnelPath
}

func (p encapPair) rows() []row {
	of := func(what func(*tunnelPath) []float64) (value, spread float64) {
		return tunnelRatio(what(p.ours), what(p.hand), what(p.again)), tunnelsApart(what(p.again), what(p.hand))
	}
	cpu, cpuApart := of(func(p *tunnelPath) []float64 { return p.cpu })
	rr, rrApart := of(func(p *tunnelPath) []float64 { return p.rr })
	speed, speedApart := of(func(p *tunnelPath) []float64 { return p.speed })
	return []row{
		{what: fmt.Sprintf("%s between two hosts, to %s: CPU per gigabyte", p.name, p.to), value: cpu, unit: "×", aim: 1.05, spread: cpuApart},
		{what: "– the CPU itself", value: 1000 * median(p.ours.cpu), unit: "ms", spread: medianApart(p.ours.cpu)},
		{what: "– round trip, p50", value: rr, unit: "×", aim: 1, spread: rrApart},
		{what: "– throughput", value: speed, unit: "×", spread: speedApart},
		{what: "– the throughput itself", value: median(p.ours.speed), unit: "Gbit/s", spread: medianApart(p.ours.speed)},
	}
}

// tunnelRatio is the median of the ratios, each of a round, of one way to others,
// together.
func tunnelRatio(a []float64, to ...[]float64) float64 {
	var list []float64
	for i, v := range a {
		sum := 0.0
		for _, b := range to {
			sum += b[i]
		}
		list = append(list, v*float64(len(to))/sum)
	}
	return median(list)
}

// tunnelsApart is how far the same tunnel, set up twice, lay apart in the worst
// third of the run: as a whole, both may come out even by chance.
func tunnelsApart(a, b []float64) float64 {
	most := 0.0
	for i := range 3 {
		from, to := i*len(a)/3, (i+1)*len(a)/3
		if to > from {
			most = max(most, apart(1, tunnelRatio(a[from:to], b[from:to])))
		}
	}
	return most
}

// pairs are the tunnels that there are, with those that they are compared
// with. Without a kernel device for IP in IP, the programs that carry it are
// compared with VXLAN by the kernel.
func (w *encapWorld) pairs() ([]encapPair, error) {
	to := "the same by hand"
	hand := func(name string, from int, via func(*encapLab) error) (*tunnelPath, *tunnelPath) {
		a, b := w.hand.tunnel(name, from), w.again.tunnel(name+" again", from)
		if via != nil {
			a.use, b.use = func() error { return via(w.hand) }, func() error { return via(w.again) }
		}
		return a, b
	}
	four, fourAgain := hand("VXLAN by hand", 4, (*encapLab).useVXLAN4)
	six, sixAgain := hand("IPv6 VXLAN by hand", 6, nil)
	list := []encapPair{
		{"VXLAN", to, w.vxlan.tunnel("VXLAN", 4), four, fourAgain},
		{"IPv6 VXLAN", to, w.vxlan.tunnel("IPv6 VXLAN", 6), six, sixAgain},
	}
	has, err := w.hand.addIPIP()
	if err == nil && has {
		_, err = w.again.addIPIP()
	}
	if err != nil {
		return nil, err
	}
	if !has {
		other, otherAgain := hand("VXLAN by hand, for IP in IP", 4, (*encapLab).useVXLAN4)
		return append(list, encapPair{"IP in IP by programs", "VXLAN by hand", w.ipip.tunnel("IP in IP", 4), other, otherAgain}), nil
	}
	other, otherAgain := hand("IP in IP by hand", 4, (*encapLab).useIPIP)
	return append(list, encapPair{"IP in IP", to, w.ipip.tunnel("IP in IP", 4), other, otherAgain}), nil
}

// tunnel is the way from the first workload to the second in a family.
func (l *encapLab) tunnel(name string, family int) *tunnelPath {
	return &tunnelPath{path: path{name: name, from: l.pods[0].ns, to: l.pods[1].ns, addr: l.pods[1].addr(family)}}
}

// addr is a workload's address of a family.
func (b *encapBox) addr(family int) netip.Addr {
	for _, a := range b.addrs {
		if a.Is4() == (family == 4) {
			return a
		}
	}
	return netip.Addr{}
}

// softirqs is the thread in which the kernel goes on with packets when there
// are too many, on the first processor that this process may use; "" if it is
// not to be seen.
func softirqs() string {
	var all unix.CPUSet
	if unix.SchedGetaffinity(0, &all) != nil {
		return ""
	}
	cpu := 0
	for !all.IsSet(cpu) {
		cpu++
	}
	want := fmt.Sprintf("ksoftirqd/%d\n", cpu)
	found, err := os.ReadDir("/proc")
	if err != nil {
		return ""
	}
	for _, f := range found {
		if name, err := os.ReadFile("/proc/" + f.Name() + "/comm"); err == nil && string(name) == want {
			return "/proc/" + f.Name() + "/schedstat"
		}
	}
	return ""
}
