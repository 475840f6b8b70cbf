package agent

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
)

// gate keeps tunnels in step with the rules about them: an interface takes off
// the wrapping of whatever is sent to it, so it comes after the rules that say
// who may send, and goes before them.
type gate struct {
	mu      sync.Mutex                // guards everything below
	want    map[string]desired.Device // as the core said last
	handed  map[string]desired.Device // to the loop of devices
	found   map[string]desired.Device // at the start, with the rules of the process before, until in sync
	patch   uint64                    // of policy, that came with want
	leaving map[string]bool           // tunnels whose rules wait until the interface is gone
	changed chan struct{}             // closed and replaced at every change
}

func newGate() *gate {
	return &gate{want: map[string]desired.Device{}, handed: map[string]desired.Device{},
		leaving: map[string]bool{}, changed: make(chan struct{})}
}

// pass takes an update of the core, hands its policy on, and returns what may
// be done to interfaces now; the rest follows by run. The number is that of
// the patch of policy, 0 for none.
func (g *gate) pass(u desired.Update, policy func(desired.PolicyPatch) uint64) (now desired.Patch[string, desired.Device], patch uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	rules := u.Policy
	for name := range rules.Tunnels.Set {
		delete(g.leaving, name)
	}
	rules.Tunnels.Delete = nil
	for _, name := range u.Policy.Tunnels.Delete {
		if _, there := g.handed[name]; there {
			g.leaving[name] = true
		} else {
			rules.Tunnels.Delete = append(rules.Tunnels.Delete, name)
		}
	}
	if !rules.Empty() {
		patch = policy(rules)
		g.patch = patch
	}
	u.Devices.Play(g.want)
	now.Delete = slices.Clone(u.Devices.Delete)
	for _, name := range now.Delete {
		delete(g.handed, name)
	}
	for name, d := range g.found {
		if want, ok := g.want[name]; ok && kernel.EqualDevices(want, d) {
			now.Set = put(now.Set, name, want)
			g.handed[name] = want
		}
	}
	if !u.Devices.Empty() || !u.Policy.Tunnels.Empty() {
		close(g.changed)
		g.changed = make(chan struct{})
	}
	return now, patch
}

func put[K comparable, V any](m map[K]V, name K, v V) map[K]V {
	if m == nil {
		m = map[K]V{}
	}
	m[name] = v
	return m
}

// inSync says that interfaces which are not wanted by now go.
func (g *gate) inSync() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.found = nil
}

// due lists what is still to be done: interfaces to be handed on once a patch
// of policy is in force, and those whose rules may go once they are gone.
func (g *gate) due() (devices map[string]desired.Device, patch uint64, leaving []string, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, d := range g.want {
		if have, ok := g.handed[name]; !ok || have != d {
			devices = put(devices, name, d)
		}
	}
	return devices, g.patch, slices.Sorted(maps.Keys(g.leaving)), g.changed
}

// keepGate does what waits for something, until ctx ends.
func (a *agent) keepGate(ctx context.Context) error {
	for {
		devices, patch, leaving, changed := a.gate.due()
		one, cancel := context.WithCancel(ctx)
		var waiting sync.WaitGroup
		if len(devices) > 0 {
			waiting.Go(func() {
				if a.policy.loop.Wait(one, patch) == nil { // else something has changed
					a.handDevices(devices, changed)
				}
			})
		}
		for _, name := range leaving {
			waiting.Go(func() {
				if a.tables.devices.WaitGone(one, name) == nil {
					a.dropRules(name, changed)
				}
			})
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
		cancel()
		waiting.Wait()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// handDevices hands interfaces to their loop, unless something has changed.
func (a *agent) handDevices(devices map[string]desired.Device, since <-chan struct{}) {
	a.gate.mu.Lock()
	defer a.gate.mu.Unlock()
	if since != a.gate.changed {
		return
	}
	maps.Copy(a.gate.handed, devices)
	a.tables.devices.Want(desired.Patch[string, desired.Device]{Set: devices})
}

// dropRules lets go of the rules about a tunnel whose interface is gone, unless
// something has changed.
func (a *agent) dropRules(name string, since <-chan struct{}) {
	a.gate.mu.Lock()
	defer a.gate.mu.Unlock()
	if since != a.gate.changed {
		return
	}
	delete(a.gate.leaving, name)
	a.policy.loop.Want(policyPatch{PolicyPatch: desired.PolicyPatch{Tunnels: desired.Patch[string, netip.Addr]{Delete: []string{name}}}})
}
