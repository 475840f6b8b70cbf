package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
)

// aside is how long after a change the agent's CPU time counts as the change's:
// it looks for connections that the change denies. It does so a second time
// later, which counts for the next change where one follows at once.
const aside = 400 * time.Millisecond

// change is what one kind of change took: to the kernel's enforcing it, and
// of the agent's CPU.
type change struct{ took, cpu twice }

// once makes a change and notes it, in the i-th turn.
func (c *change) once(ctx context.Context, p *policyWorld, i int, f func() (time.Duration, error)) error {
	begin, err := p.host.agent.cpu()
	if err != nil {
		return err
	}
	d, err := f()
	if err != nil {
		return err
	}
	if err := wait(ctx, p.o.moment(aside)); err != nil {
		return err
	}
	end, err := p.host.agent.cpu()
	c.took[i%2], c.cpu[i%2] = append(c.took[i%2], d), append(c.cpu[i%2], end-begin)
	return err
}

// title says what a kind of change is measured against.
type title struct {
	what              string
	aim, cpu          float64 // in ms; 0: none
	calico, calicoCPU string
}

// rows are the figures of a kind of change. less is the CPU time in
// milliseconds that the agent uses in any case meanwhile.
func (c *change) rows(t title, less float64) []row {
	return []row{
		{what: t.what + ": p50", value: c.took.all().p50(), unit: "ms", aim: t.aim, spread: c.took.apart(sample.p50), calico: t.calico},
		{what: "– p99", value: c.took.all().p99(), unit: "ms", spread: c.took.apart(sample.p99)},
		{what: "– CPU of the agent", value: max(0, c.cpu.all().p50()-less), unit: "ms", aim: t.cpu, spread: c.cpu.apart(sample.p50), calico: t.calicoCPU},
	}
}

// wait lets time pass.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// moment is a time to let pass; a look needs little of it.
func (o options) moment(d time.Duration) time.Duration {
	if o.quick {
		return d / 20
	}
	return d
}

// idle is the CPU time in milliseconds that an agent uses in the time that
// counts for a change, when nothing changes.
func (p *policyWorld) idle(ctx context.Context) (float64, error) {
	var s sample
	for range p.o.pick(20, 2) {
		begin, err := p.host.agent.cpu()
		if err != nil {
			return 0, err
		}
		if err := wait(ctx, p.o.moment(aside)); err != nil {
			return 0, err
		}
		end, err := p.host.agent.cpu()
		if err != nil {
			return 0, err
		}
		s = append(s, end-begin)
	}
	return s.p50(), nil
}

// quiet waits until an agent does next to nothing: less than 6 % of a core
// during a quarter of a second.
func (p *policyWorld) quiet(ctx context.Context) error {
	for {
		begin, err := p.host.agent.cpu()
		if err != nil {
			return err
		}
		if err := wait(ctx, 250*time.Millisecond); err != nil {
			return err
		}
		if end, err := p.host.agent.cpu(); err != nil || end-begin < 15*time.Millisecond {
			return err
		}
	}
}

// loaded is what it took to write all policies at once.
type loaded struct {
	enforced, cpu time.Duration
	peak          float64 // of anonymous memory, in MiB
}

// load writes the policies, eight at a time, and the one over the server last.
func (p *policyWorld) load(ctx context.Context, policies, members int) (l loaded, err error) {
	if err := p.create(ctx, []v3.Object{bigSet("big", members)}); err != nil {
		return l, err
	}
	if err := p.quiet(ctx); err != nil {
		return l, err
	}
	begin, err := p.host.agent.cpu()
	if err != nil {
		return l, err
	}
	stop := p.watchMemory(&l.peak)
	var list []v3.Object
	for i := range policies {
		if i != serverIndex {
			list = append(list, policy(i))
		}
	}
	if err := p.create(ctx, list); err != nil {
		return l, errors.Join(err, stop())
	}
	l.enforced, err = p.enforced(ctx, p.probe, true, func() error {
		return p.create(ctx, []v3.Object{policy(serverIndex, allow("UDP", "has(t0)", probePort))})
	})
	if err == nil {
		err = p.quiet(ctx)
	}
	if err := errors.Join(err, stop()); err != nil {
		return l, err
	}
	end, err := p.host.agent.cpu()
	l.cpu = end - begin
	return l, err
}

// watchMemory notes the most anonymous memory that the agent has until the
// function it returns is called.
func (p *policyWorld) watchMemory(peak *float64) func() error {
	done, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			mib, err := p.host.agent.anonymous()
			*peak = max(*peak, mib)
			select {
			case <-tick.C:
			case <-done:
				ended <- err
				return
			}
		}
	}()
	return func() error { close(done); return <-ended }
}

// measurePolicyChange measures what it takes until a change of policy, or of a
// workload that policy knows by its labels, is enforced. The same host is there
// twice, under few and under many policies.
func measurePolicyChange(ctx context.Context, o options) ([]row, error) {
	local, many, members := o.pick(250, 12), o.pick(1000, 30), o.pick(10_000, 100)
	var worlds [2]*policyWorld
	var loads [2]loaded
	for i, policies := range []int{10, many} {
		p, err := newPolicyWorld(ctx, o, local)
		if err != nil {
			return nil, err
		}
		defer p.close()
		if loads[i], err = p.load(ctx, policies, members); err != nil {
			return nil, fmt.Errorf("%d policies: %w", policies, err)
		}
		worlds[i] = p
	}
	l := loads[1]
	shape := fmt.Sprintf("%d workloads, %d policies", local, many)
	rows := []row{
		{what: shape + " written by 8: last write to enforced", value: ms(l.enforced), unit: "ms", aim: 1000, spread: math.NaN(), calico: "4.8 s"},
		{what: "– CPU of the agent", value: ms(l.cpu), unit: "ms", aim: 1500, spread: math.NaN(), calico: "6.0 s"},
		{what: "– most anonymous memory", value: l.peak, unit: "MiB", aim: 80, spread: math.NaN()},
	}
	p := worlds[1]
	less, err := p.idle(ctx)
	if err != nil {
		return nil, err
	}
	var few, more change
	for i := range o.pick(40, 3) {
		if err := errors.Join(few.toggle(ctx, worlds[0], i), more.toggle(ctx, p, i)); err != nil {
			return nil, err
		}
	}
	rows = append(rows, more.rows(title{shape + ": one policy changed", 5, 3, "16.5 ms", "16 ms"}, less)...)
	rows = append(rows,
		row{what: fmt.Sprintf("– p50 with %d policies to that with 10", many), value: more.took.all().p50() / few.took.all().p50(), unit: "×", aim: 1.5, spread: few.took.apart(sample.p50)},
		row{what: "– CPU of the agent when nothing changes, taken off", value: less / ms(aside) * 1000, unit: "ms/s", spread: math.NaN()})
	for _, f := range []func(context.Context, float64, int) ([]row, error){p.firstUse, p.splits, p.remotes} {
		got, err := f(ctx, less, members)
		if err != nil {
			return nil, err
		}
		rows = append(rows, got...)
	}
	return rows, nil
}

// toggle takes away the rule that lets the probe pass, and puts it back.
func (c *change) toggle(ctx context.Context, p *policyWorld, i int) error {
	rule := allow("UDP", "has(t0)", probePort)
	remove := func() (time.Duration, error) {
		return p.enforced(ctx, p.probe, false, func() error { return p.modify(ctx) })
	}
	add := func() (time.Duration, error) {
		return p.enforced(ctx, p.probe, true, func() error { return p.modify(ctx, rule) })
	}
	if err := c.once(ctx, p, i, remove); err != nil {
		return err
	}
	return c.once(ctx, p, i, add)
}

// firstUse measures the first rule that refers to a set of many members. The
// rule that let the probe pass is gone before, and there again afterwards.
func (p *policyWorld) firstUse(ctx context.Context, less float64, members int) ([]row, error) {
	if err := p.create(ctx, []v3.Object{bigSet("other", members, localAddr(clientIndex).String())}); err != nil {
		return nil, err
	}
	var c change
	err := p.renewed(ctx, &c, p.o.pick(16, 2), func(int) string { return "has(other)" })
	return c.rows(title{what: fmt.Sprintf("first use of a set of %d", members), aim: 60, cpu: 40}, less), err
}

// splits measures rules whose selector tells workloads apart that no selector
// told apart before.
func (p *policyWorld) splits(ctx context.Context, less float64, _ int) ([]row, error) {
	var c change
	err := p.renewed(ctx, &c, p.o.pick(20, 2), func(i int) string { return fmt.Sprintf("has(t0) && pod != 'p%d'", 1000+i*tags) })
	return c.rows(title{what: "a selector that splits a class"}, less), err
}

// renewed measures rules with a selector that is new each time.
func (p *policyWorld) renewed(ctx context.Context, c *change, n int, from func(i int) string) error {
	without := func() (time.Duration, error) {
		return p.enforced(ctx, p.probe, false, func() error { return p.modify(ctx) })
	}
	if _, err := without(); err != nil {
		return err
	}
	for i := range n {
		if err := p.quiet(ctx); err != nil {
			return err
		}
		err := c.once(ctx, p, i, func() (time.Duration, error) {
			return p.enforced(ctx, p.probe, true, func() error { return p.modify(ctx, allow("UDP", from(i), probePort)) })
		})
		if err != nil {
			return err
		}
		if _, err := without(); err != nil {
			return err
		}
	}
	_, err := p.enforced(ctx, p.probe, true, func() error { return p.modify(ctx, allow("UDP", "has(t0)", probePort)) })
	return err
}

// remotes measures one workload of another host that a tenth of the selectors
// match: with labels that another one has too, and with labels of its own.
func (p *policyWorld) remotes(ctx context.Context, less float64, _ int) ([]row, error) {
	n := p.o.pick(30, 3)
	r := rand.New(rand.NewPCG(1, 2))
	var known []map[string]string
	var list []v3.Object
	for i := range n {
		known = append(known, combination(r))
		list = append(list, endpoint("h2", i+1, remoteAddr(i+1), known[i]))
	}
	if err := p.create(ctx, list); err != nil {
		return nil, err
	}
	var rows []row
	var old, fresh change
	for i := range n {
		if err := errors.Join(p.remote(ctx, &old, i, known[i]), p.remote(ctx, &fresh, i, combination(r))); err != nil {
			return nil, err
		}
	}
	rows = append(rows, old.rows(title{"a remote workload, 10 % of the selectors match, labels known", 4, 2, "2.1 ms eBPF, 72 ms nftables", ""}, less)...)
	return append(rows, fresh.rows(title{what: "– labels in a new combination", aim: 15}, less)...), nil
}

// remote adds the workload and takes it away again.
func (p *policyWorld) remote(ctx context.Context, c *change, i int, labels map[string]string) error {
	// The last one's going has connections looked at twice: that is not for this
	// one's coming to pay.
	if err := errors.Join(wait(ctx, p.o.moment(2*aside)), p.quiet(ctx)); err != nil {
		return err
	}
	q := p.probe.other(p.far.ns, remoteAddr(0))
	e := endpoint("h2", 0, remoteAddr(0), labels)
	err := c.once(ctx, p, i, func() (time.Duration, error) {
		return p.enforced(ctx, q, true, func() error { return p.create(ctx, []v3.Object{e}) })
	})
	if err != nil {
		return err
	}
	_, err = p.enforced(ctx, q, false, func() error {
		return client.Delete[v3.WorkloadEndpoint](ctx, p.objects, e.Namespace, e.Name, client.Preconditions{})
	})
	return err
}

// combination is a tenth of all tags, the one that the probe needs among them.
func combination(r *rand.Rand) map[string]string {
	labels := map[string]string{"t0": "yes"}
	for _, t := range slices.Sorted(slices.Values(r.Perm(tags - 1)[:tags/10-1])) {
		labels[fmt.Sprint("t", t+1)] = "yes"
	}
	return labels
}
