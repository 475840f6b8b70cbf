package labtest_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/calc"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/randworld"
	"github.com/brindle-net/brindle/internal/reconcile"
	"github.com/brindle-net/brindle/internal/testenv"
	"github.com/brindle-net/brindle/test/labtest"
)

// How many histories are played by default, and how long each is.
const (
	histories = 8
	steps     = 6
)

// patience bounds every wait; only a broken test gets there.
const patience = 20 * time.Second

// TestKernelsAgreeWithOracle plays random histories of pools, nodes, subnets,
// modes, blocks and workloads to the core and the tables of every host, each in
// a network namespace of its own. After each step the kernels have what the
// oracle says, and nothing else. A history after another begins as an agent
// that starts on a host with all that the one before has left. Both families
// are in every history.
//
// BRINDLE_HISTORIES says how many are played, BRINDLE_SEED which one alone.
func TestKernelsAgreeWithOracle(t *testing.T) {
	n, first := uint64(histories), uint64(0)
	if s := os.Getenv("BRINDLE_HISTORIES"); s != "" {
		n = number(t, s)
	}
	if s := os.Getenv("BRINDLE_SEED"); s != "" {
		n, first = 1, number(t, s)
	}
	hosts := newHosts(t)
	for seed := first; seed < first+n; seed++ {
		play(t, hosts, seed)
	}
}

// FuzzKernelsAgreeWithOracle plays histories without end.
func FuzzKernelsAgreeWithOracle(f *testing.F) {
	f.Add(uint64(histories + 1))
	f.Fuzz(func(t *testing.T, seed uint64) { play(t, newHosts(t), seed) })
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// host is the network of one host.
type host struct {
	name, netns string
	ns          *netns.NS
	kernel      *kernel.Kernel
	own         [2]netip.Prefix // on eth0
	agent       *agent
}

// newHosts makes the hosts. Each has interfaces for all workloads of the world,
// and finds every other host on its first link.
func newHosts(t *testing.T) []*host {
	t.Helper()
	var out []*host
	for _, name := range randworld.Hosts() {
		h := &host{name: name}
		h.ns, h.netns = testenv.NamedNS(t, "brindle-facts-"+name)
		h.ip(t, `link add eth0 mtu 9001 type veth peer name far0
			link set far0 up
			link set eth0 up addrgenmode none
			address add 203.0.113.1/32 dev eth0
			route add 172.16.0.0/16 dev eth0
			route add fd01::/16 dev eth0`)
		for i := range 8 {
			h.ip(t, fmt.Sprintf("link add cali%[1]d type veth peer name pod%[1]d", i))
		}
		var err error
		if h.kernel, err = kernel.Open(kernel.Config{Netns: h.ns.Path()}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := h.kernel.Close(); err != nil {
				t.Error(err)
			}
		})
		out = append(out, h)
	}
	return out
}

func (h *host) ip(t *testing.T, lines string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		testenv.Run(t, h.ns, append([]string{"ip"}, strings.Fields(line)...)...)
	}
}

// number gives the host's first link the addresses that its node says. None is
// ever the last one there: with that the kernel would take all routes away.
func (h *host) number(t *testing.T, snap oracle.Snapshot) {
	t.Helper()
	var want [2]netip.Prefix
	if n, ok := snap[model.ID{Kind: model.KindNode, Name: h.name}].(*model.Node); ok {
		want = [2]netip.Prefix{n.Addr4, n.Addr6}
	}
	for i, p := range want {
		if p == h.own[i] {
			continue
		}
		if h.own[i].IsValid() {
			h.ip(t, fmt.Sprintf("address del %v dev eth0", h.own[i]))
		}
		if p.IsValid() {
			h.ip(t, fmt.Sprintf("address add %v dev eth0%s", p, []string{"", " nodad"}[i]))
		}
		h.own[i] = p
	}
}

// agent is what programs a host: a core and the tables.
type agent struct {
	set        model.Settings
	core       *calc.Core
	devices    *reconcile.Loop[string, desired.Device]
	links      *reconcile.Loop[string, desired.Link]
	addresses  *reconcile.Loop[desired.AddrKey, struct{}]
	neighbours *reconcile.Loop[desired.NeighKey, desired.Neigh]
	routes     *reconcile.Loop[desired.RouteKey, desired.Route]
	stop       func()
}

func same[V comparable](a, b V) bool { return a == b }

// start starts an agent, as one does that finds what another has left.
func (h *host) start(t *testing.T, set model.Settings) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	a := &agent{set: set, core: calc.New(set), stop: func() { cancel(); running.Wait() }}
	h.agent = a
	t.Cleanup(a.stop)
	a.devices = run(ctx, &running, h.kernel.Devices(), cmp.Compare[string], kernel.EqualDevices)
	a.links = run(ctx, &running, h.kernel.Links(), cmp.Compare[string], same[desired.Link])
	a.addresses = run(ctx, &running, h.kernel.Addresses(), kernel.CompareAddrs, same[struct{}])
	a.neighbours = run(ctx, &running, h.kernel.Neighbours(), kernel.CompareNeighs, same[desired.Neigh])
	a.routes = run(ctx, &running, h.kernel.Routes(desired.ProtocolAgent), kernel.CompareRoutes, kernel.EqualRoutes)
	heard := make(chan struct{})
	var once sync.Once
	running.Go(func() {
		err := h.kernel.Watch(ctx, func(d kernel.Drift) { a.hear(d); once.Do(func() { close(heard) }) })
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("watch the kernel: %v", err)
		}
	})
	<-heard
}

func run[K comparable, V any](ctx context.Context, wg *sync.WaitGroup, target reconcile.Target[K, V], compare func(a, b K) int, equal func(a, b V) bool) *reconcile.Loop[K, V] {
	l := reconcile.New(target, reconcile.Config[K, V]{Name: "table", Compare: compare, Equal: equal, MaxRetry: time.Second})
	wg.Go(func() { _ = l.Run(ctx) }) // ends with ctx
	return l
}

// hear passes on what has changed in the kernel, as the agent does.
func (a *agent) hear(d kernel.Drift) {
	for _, x := range []struct {
		changed      bool
		drift, retry func()
	}{
		{d.Devices, a.devices.Drift, a.devices.Retry}, {d.Links, a.links.Drift, a.links.Retry}, {d.Addresses, a.addresses.Drift, a.addresses.Retry},
		{d.Neighbours, a.neighbours.Drift, a.neighbours.Retry}, {d.Routes, a.routes.Drift, a.routes.Retry},
	} {
		if x.changed {
			x.drift()
		}
		if d.Appeared {
			x.retry()
		}
	}
}

// tell hands events to the core, and what comes of them to the tables.
func (a *agent) tell(events []model.Event) {
	u := a.core.Apply(events)
	a.devices.Want(u.Devices)
	a.links.Want(u.Links)
	a.addresses.Want(u.Addresses)
	a.neighbours.Want(u.Neighbours)
	a.routes.Want(u.Routes)
}

func (a *agent) inSync() {
	a.devices.InSync()
	a.links.InSync()
	a.addresses.InSync()
	a.neighbours.InSync()
	a.routes.InSync()
}

// failed lists what the tables fail at.
func (a *agent) failed() string {
	var out []string
	for name, err := range map[string]error{
		"devices": a.devices.Err(), "links": a.links.Err(), "addresses": a.addresses.Err(), "neighbours": a.neighbours.Err(), "routes": a.routes.Err(),
	} {
		if err != nil {
			out = append(out, name+": "+err.Error())
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// play plays the history of a seed.
func play(t *testing.T, hosts []*host, seed uint64) {
	w, snap := randworld.NewNetwork(seed), oracle.Snapshot{}
	for _, e := range w.Events() {
		snap.Add(e)
	}
	overlay := w.Overlay()
	for _, h := range hosts {
		h.number(t, snap)
		h.start(t, model.Settings{Node: h.name, Overlay: overlay})
		h.agent.tell(w.Events())
		h.agent.inSync()
	}
	agree(t, hosts, snap, fmt.Sprintf("seed %d, at the start", seed))
	for step := range steps {
		change := w.Change()
		for _, e := range change {
			snap.Add(e)
		}
		for _, h := range hosts {
			h.number(t, snap)
			h.agent.tell(change)
		}
		agree(t, hosts, snap, fmt.Sprintf("seed %d, step %d, after %v", seed, step, names(change)))
	}
	for _, h := range hosts {
		h.agent.stop()
	}
}

func names(events []model.Event) []string {
	var out []string
	for _, e := range events {
		out = append(out, fmt.Sprintf("%v %+v", e.ID, e.Value))
	}
	return out
}

// agree waits until the kernels have what the oracle says.
func agree(t *testing.T, hosts []*host, snap oracle.Snapshot, when string) {
	t.Helper()
	for _, h := range hosts {
		want := labtest.FactsOf(oracle.Desired(snap, h.agent.set))
		testenv.Until(t, patience, func() error {
			have, err := labtest.ReadFacts(h.netns)
			if err != nil {
				return err
			}
			for k := range have { // what is left alone may be anything
				if _, ok := want[k]; !ok && strings.HasPrefix(k, "MTU of ") {
					delete(have, k)
				}
			}
			if diff := have.Diff(want); diff != "" {
				if stale(diff) { // the agent finds it when it reads routes back next
					h.agent.routes.Drift()
				}
				if core := labtest.FactsOf(h.agent.core.State()).Diff(want); core != "" {
					return fmt.Errorf("%s: %s: the core and the oracle:\n%s", when, h.name, core)
				}
				return fmt.Errorf("%s: %s: the kernel and the oracle:\n%s\n%s", when, h.name, diff, h.agent.failed())
			}
			return nil
		})
	}
}

// stale reports whether all that differs is routes whose next hop was found by
// a tunnel: its address was the end of one until now.
func stale(diff string) bool {
	for line := range strings.Lines(diff) {
		if !strings.HasPrefix(line, "route ") || !strings.Contains(line, " on vxlan") || strings.Contains(line, "taken for its link") {
			return false
		}
	}
	return true
}

// TestFactsTell makes sure that each difference is seen.
func TestFactsTell(t *testing.T) {
	h := newHosts(t)[0]
	h.ip(t, `link add vxlan.calico address 66:00:00:00:00:01 type vxlan id 4096 dstport 4789 local 203.0.113.1 nolearning
		link set vxlan.calico up mtu 1450 alias brindle:tunnel
		address add 10.65.0.8/32 dev vxlan.calico
		route add 10.65.0.16/28 via 10.65.0.17 dev vxlan.calico onlink proto 80 metric 1023 mtu 1450
		route add blackhole 10.65.0.0/28 proto 80 metric 1024
		route add 10.65.0.32/28 via 172.16.0.3 proto 81 metric 1024
		neigh add 10.65.0.17 lladdr 66:00:00:00:00:02 dev vxlan.calico nud permanent`)
	testenv.Run(t, h.ns, "bridge", "fdb", "append", "66:00:00:00:00:02", "dev", "vxlan.calico", "dst", "172.16.0.2", "self", "permanent")
	before, err := labtest.ReadFacts(h.netns)
	if err != nil {
		t.Fatal(err)
	}
	want := labtest.Facts{
		"device vxlan.calico": "VXLAN from 203.0.113.1, VNI 4096, port 4789, MAC 66:00:00:00:00:01", "MTU of vxlan.calico": "1450",
		"address 10.65.0.8/32 on vxlan.calico":                         "",
		"route 10.65.0.16/28 of protocol 80 in table 254, metric 1023": "via 10.65.0.17 on vxlan.calico, which is taken for its link, MTU 1450",
		"route 10.65.0.0/28 of protocol 80 in table 254, metric 1024":  "blackhole",
		"route 10.65.0.32/28 of protocol 81 in table 254, metric 1024": "via 172.16.0.3",
		"neighbour 10.65.0.17 on vxlan.calico":                         "at 66:00:00:00:00:02",
		"forwarding of 66:00:00:00:00:02 on vxlan.calico":              "to 172.16.0.2",
	}
	if diff := before.Diff(want); diff != "" {
		t.Fatal(diff)
	}
	for _, tamper := range []string{
		"route change 10.65.0.16/28 via 10.65.0.17 dev vxlan.calico onlink proto 80 metric 1023 mtu 1400",
		"route change 10.65.0.16/28 via 172.16.0.4 proto 80 metric 1023 mtu 1450",
		"route del 10.65.0.32/28 proto 81 metric 1024", "route add 10.65.0.48/28 via 172.16.0.3 proto 81 metric 1024",
		"route del blackhole 10.65.0.0/28 proto 80 metric 1024", "address add 10.65.0.9/32 dev vxlan.calico",
		"neigh replace 10.65.0.17 lladdr 66:00:00:00:00:03 dev vxlan.calico nud permanent", "link set vxlan.calico mtu 1400",
		"link set vxlan.calico address 66:00:00:00:00:09", "link set vxlan.calico down",
	} {
		last := maps.Clone(before)
		h.ip(t, tamper)
		if before, err = labtest.ReadFacts(h.netns); err != nil {
			t.Fatal(err)
		}
		if before.Diff(last) == "" {
			t.Errorf("ip %s: not seen", tamper)
		}
	}
}
