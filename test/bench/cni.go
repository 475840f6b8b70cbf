package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/brindle-net/brindle/internal/netns"
)

// containers stand in for pods: nameless network namespaces.
type containers struct {
	w    *world
	h    *host
	conf string
	list []*container
}

// container is one of them.
type container struct {
	id string
	ns *netns.NS
}

// call is what one start of the plugin took.
type call struct {
	took time.Duration // from before the start of the process to after its end
	cpu  time.Duration // of the plugin's process, user and system
}

// newContainers makes n containers on a host.
func newContainers(w *world, h *host, n int) (*containers, error) {
	c := &containers{w: w, h: h, conf: fmt.Sprintf(
		`{"cniVersion":"1.0.0","name":"bench","type":"brindle-cni","socket":%q,"ipam":{"type":"brindle-ipam"}}`, h.socket())}
	for i := range n {
		ns, err := netns.New()
		if err != nil {
			c.close()
			return nil, err
		}
		c.list = append(c.list, &container{id: fmt.Sprintf("%s-c%d", h.name, i), ns: ns})
	}
	return c, nil
}

// close lets go of the namespaces; the kernel removes them.
func (c *containers) close() {
	for _, x := range c.list {
		_ = x.ns.Close() // only held
	}
}

// do starts the plugin as a container runtime does.
func (c *containers) do(ctx context.Context, command string, x *container) (call, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.w.o.bin, "brindle-cni"))
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=" + command, "CNI_CONTAINERID=" + x.id, "CNI_IFNAME=eth0",
		"CNI_NETNS=" + x.ns.Path(), "CNI_PATH=" + c.w.o.bin,
	}
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.conf), &out, &out
	begin := time.Now()
	err := cmd.Run()
	took := time.Since(begin)
	if err != nil {
		return call{}, fmt.Errorf("%s %s: %w: %s", command, x.id, err, out.String())
	}
	return call{took, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}

// each calls the plugin for all of a list, width at a time, and returns what
// each call took, with the time from the first start to the last end.
func (c *containers) each(ctx context.Context, command string, list []*container, width int) ([]call, time.Duration, error) {
	calls, errs := make([]call, len(list)), make([]error, len(list))
	var next atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range width {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(list); i = int(next.Add(1)) - 1 {
				calls[i], errs[i] = c.do(ctx, command, list[i])
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, 0, err
		}
	}
	return calls, time.Since(begin), nil
}

// cniFigures gathers rounds of calls.
type cniFigures struct {
	add, del, burst       twice
	rate                  []float64 // adds each second, 8 at once
	wide                  sample    // latencies of these
	plugin, agent, server []float64 // CPU of each add, ms
}

// measureCNI adds and removes containers on one host, with etcd on fsync.
func measureCNI(ctx context.Context, o options) ([]row, error) {
	w, err := newWorld(ctx, o)
	if err != nil {
		return nil, err
	}
	defer w.close()
	h, err := w.addHost(ctx)
	if err != nil {
		return nil, err
	}
	n := o.pick(100, 16)
	c, err := newContainers(w, h, 2*n)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if _, err := c.round(ctx, &cniFigures{}, 0, n); err != nil { // warms up
		return nil, err
	}
	f := &cniFigures{}
	for r := range o.pick(6, 2) {
		if _, err := c.round(ctx, f, r, n); err != nil {
			return nil, err
		}
	}
	return f.rows(), nil
}

// round adds n containers one by one and removes them, adds them eight at
// once, and adds n others while the first go.
func (c *containers) round(ctx context.Context, f *cniFigures, turn, n int) (int, error) {
	first, second := c.list[:n], c.list[n:2*n]
	agent, server, err := c.busy()
	if err != nil {
		return 0, err
	}
	adds, _, err := c.each(ctx, "ADD", first, 1)
	if err != nil {
		return 0, err
	}
	agent2, server2, err := c.busy()
	if err != nil {
		return 0, err
	}
	f.add[turn%2] = append(f.add[turn%2], latencies(adds)...)
	f.plugin = append(f.plugin, cpuEach(adds))
	f.agent = append(f.agent, ms(agent2-agent)/float64(n))
	f.server = append(f.server, ms(server2-server)/float64(n))
	dels, _, err := c.each(ctx, "DEL", first, 1)
	if err != nil {
		return 0, err
	}
	f.del[turn%2] = append(f.del[turn%2], latencies(dels)...)

	wide, took, err := c.each(ctx, "ADD", first, 8)
	if err != nil {
		return 0, err
	}
	f.wide = append(f.wide, latencies(wide)...)
	f.rate = append(f.rate, float64(n)/took.Seconds())
	amid, err := c.amid(ctx, first, second)
	if err != nil {
		return 0, err
	}
	f.burst[turn%2] = append(f.burst[turn%2], latencies(amid)...)
	return len(amid), nil
}

// amid adds containers one by one while others are removed four at once, and
// removes the added ones too. Only adds that lay wholly within the burst are
// returned.
func (c *containers) amid(ctx context.Context, going, coming []*container) ([]call, error) {
	over := make(chan error, 1)
	go func() {
		_, _, err := c.each(ctx, "DEL", going, 4)
		over <- err
	}()
	var calls []call
	for i, x := range coming {
		one, err := c.do(ctx, "ADD", x)
		if err != nil {
			return nil, err
		}
		select {
		case err := <-over:
			if err == nil {
				_, _, err = c.each(ctx, "DEL", coming[:i+1], 4)
			}
			return calls, err
		default:
			calls = append(calls, one)
		}
	}
	if err := <-over; err != nil {
		return nil, err
	}
	_, _, err := c.each(ctx, "DEL", coming, 4)
	return calls, err
}

// busy is the CPU time that agent and datastore have used so far.
func (c *containers) busy() (agent, server time.Duration, err error) {
	if agent, err = c.h.agent.cpu(); err != nil {
		return 0, 0, err
	}
	server, err = c.w.server.cpu()
	return agent, server, err
}

func latencies(calls []call) sample {
	var s sample
	for _, c := range calls {
		s = append(s, c.took)
	}
	return s
}

// cpuEach is the plugin's CPU for one call, in milliseconds.
func cpuEach(calls []call) float64 {
	var sum time.Duration
	for _, c := range calls {
		sum += c.cpu
	}
	return ms(sum) / float64(len(calls))
}

// rows makes the lines of the table.
func (f *cniFigures) rows() []row {
	var both []float64
	for i := range f.plugin {
		both = append(both, f.plugin[i]+f.agent[i])
	}
	add, burst := f.add.all(), f.burst.all()
	return []row{
		{what: "CNI ADD: CPU of plugin and agent", value: median(both), unit: "ms", aim: 10, spread: medianApart(both), calico: "100–141 ms, the plugins alone"},
		{what: "– of that, the plugin's process", value: median(f.plugin), unit: "ms", spread: medianApart(f.plugin)},
		{what: "– of that, the agent", value: median(f.agent), unit: "ms", spread: medianApart(f.agent)},
		{what: "– beside it, etcd", value: median(f.server), unit: "ms", spread: medianApart(f.server)},
		{what: "CNI ADD: p50", value: add.p50(), unit: "ms", aim: 10, spread: f.add.apart(sample.p50), calico: "99 ms"},
		{what: "CNI ADD: p99", value: add.p99(), unit: "ms", spread: f.add.apart(sample.p99), calico: "157–394 ms"},
		{what: "CNI ADD, 8 at once: rate", value: median(f.rate), unit: "/s", aim: 100, least: true, spread: medianApart(f.rate), calico: "10–16 /s"},
		{what: "CNI ADD, 8 at once: p99", value: f.wide.p99(), unit: "ms", spread: apart(f.wide[:len(f.wide)/2].p99(), f.wide[len(f.wide)/2:].p99()), calico: "655–1109 ms"},
		{what: "CNI DEL: p50", value: f.del.all().p50(), unit: "ms", aim: 35, spread: f.del.apart(sample.p50), calico: "76 ms"},
		{what: "CNI DEL: p99", value: f.del.all().p99(), unit: "ms", spread: f.del.apart(sample.p99), calico: "92–102 ms"},
		{what: "CNI ADD amid deletes, 4 at once: p50 to that without", value: burst.p50() / add.p50(), unit: "×", aim: 2, spread: max(f.add.apart(sample.p50), f.burst.apart(sample.p50))},
	}
}
