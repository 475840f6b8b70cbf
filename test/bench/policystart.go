package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/dataplane/nft"
)

// startRun is one start of an agent: to the kernel's enforcing what the
// datastore says, to the agent's saying that it is ready, and its CPU.
type startRun struct{ enforced, ready, cpu sample }

// measurePolicyStart measures the start of an agent with 5,000 workloads
// elsewhere and 1,000 policies: with nothing in the kernel, and with what the
// agent before it left there, which a policy has outdated meanwhile.
func measurePolicyStart(ctx context.Context, o options) ([]row, error) {
	p, err := newPolicyWorld(ctx, o, o.pick(50, 8))
	if err != nil {
		return nil, err
	}
	defer p.close()
	p.host.agent.stop()
	remote, policies := o.pick(5000, 20), o.pick(1000, 10)
	list := []v3.Object{bigSet("big", o.pick(10_000, 100))}
	for i := range remote {
		labels := map[string]string{"group": fmt.Sprint("g", i%groups), fmt.Sprint("t", 1+i%(tags-1)): "yes"}
		if i == 0 {
			labels["far"] = "yes"
		}
		list = append(list, endpoint("h2", i, remoteAddr(i), labels))
	}
	for i := range policies {
		list = append(list, policy(i))
	}
	if err := p.create(ctx, list); err != nil {
		return nil, err
	}
	var cold, warm startRun
	for i := range o.pick(5, 1) {
		if err := nft.Remove(p.host.ns); err != nil {
			return nil, err
		}
		for j, s := range []*startRun{&cold, &warm} {
			near := (i+j)%2 == 0
			if err := p.restart(ctx, s, near); err != nil {
				return nil, err
			}
		}
	}
	what := fmt.Sprintf("agent's start, %d workloads, %d elsewhere, %d policies", p.count, remote, policies)
	return append(cold.rows(what+", nothing in the kernel", "1.9 s iptables, 4.5 s nftables"),
		warm.rows("– with an older policy in the kernel", "1.6 s iptables, 4.1 s nftables")...), nil
}

// restart changes who may reach the server, the client or the workload
// elsewhere, starts the agent, and stops it when nothing is left to do.
func (p *policyWorld) restart(ctx context.Context, s *startRun, near bool) error {
	from := "has(far)"
	if near {
		from = "has(t0)"
	}
	if err := p.modify(ctx, allow("UDP", from, probePort)); err != nil {
		return err
	}
	q := p.probe.other(p.far.ns, remoteAddr(0))
	p.commits.forget()
	begin := time.Now()
	ready, failed := make(chan time.Duration, 1), make(chan error, 1)
	go func() {
		err := p.startAgent(ctx, p.host)
		ready <- time.Since(begin)
		failed <- err
	}()
	at, err := p.commits.until(ctx, time.Minute, func() (bool, error) {
		one, err := p.probe.passes(near)
		if err != nil || one != near {
			return false, err
		}
		two, err := q.passes(!near)
		return two != near, err
	})
	took := <-ready
	if err := errors.Join(err, <-failed); err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	if err := p.quiet(ctx); err != nil {
		return err
	}
	cpu, err := p.host.agent.cpu()
	p.host.agent.stop()
	s.enforced, s.ready, s.cpu = append(s.enforced, at.Sub(begin)), append(s.ready, took), append(s.cpu, cpu)
	return err
}

func (s *startRun) rows(what, calico string) []row {
	return []row{
		{what: what + ": to enforced", value: s.enforced.p50(), unit: "ms", aim: 1000, spread: s.enforced.apart(), calico: calico},
		{what: "– to ready", value: s.ready.p50(), unit: "ms", spread: s.ready.apart()},
		{what: "– CPU of the agent", value: s.cpu.p50(), unit: "ms", aim: 1000, spread: s.cpu.apart(), calico: "1.25 s"},
	}
}

// apart is how far the medians of every other figure lie from the others'.
func (s sample) apart() float64 {
	var list []float64
	for _, d := range s {
		list = append(list, ms(d))
	}
	return medianApart(list)
}
