package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/brindle-net/brindle/internal/desired"
)

// tracker knows which routes the core wants, so that whoever set up a
// workload can wait until the datastore's word has come round to this host.
type tracker struct {
	mu      sync.Mutex // guards everything below
	routes  map[netip.Prefix]string
	policy  map[string]policed // by interface
	changed chan struct{}      // closed and replaced at every change
}

// policed is an endpoint with the number of the patch that brought it.
type policed struct {
	addrs []netip.Addr
	patch uint64
}

func newTracker() *tracker {
	return &tracker{routes: map[netip.Prefix]string{}, policy: map[string]policed{}, changed: make(chan struct{})}
}

// note takes what the core wants of local workloads' routes.
func (t *tracker) note(p desired.Patch[desired.RouteKey, desired.Route]) {
	if p.Empty() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range p.Delete {
		delete(t.routes, k.Prefix)
	}
	for k, r := range p.Set {
		if r.Type == desired.Unicast && len(r.Hops) == 1 && !r.Hops[0].Via.IsValid() {
			t.routes[k.Prefix] = r.Hops[0].Interface
		}
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// wanted waits until the core wants every address behind the interface.
func (t *tracker) wanted(ctx context.Context, iface string, addrs []netip.Addr) error {
	for {
		missing, changed := t.missing(iface, addrs)
		if missing == "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("no route to %s behind %s was computed (is the address another endpoint's too?): %w", missing, iface, ctx.Err())
		}
	}
}

func (t *tracker) missing(iface string, addrs []netip.Addr) (string, chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range addrs {
		if t.routes[netip.PrefixFrom(a, a.BitLen())] != iface {
			return a.String(), t.changed
		}
	}
	return "", t.changed
}

// noteEndpoints takes what the core wants of endpoints' policy.
func (t *tracker) noteEndpoints(p desired.Patch[string, *desired.Endpoint], patch uint64) {
	if p.Empty() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, iface := range p.Delete {
		delete(t.policy, iface)
	}
	for iface, e := range p.Set {
		t.policy[iface] = policed{e.Addrs, patch}
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// endpoint waits until the core wants policy for the interface with these
// addresses, and returns the number of the patch that says so.
func (t *tracker) endpoint(ctx context.Context, iface string, addrs []netip.Addr) (uint64, error) {
	for {
		t.mu.Lock()
		p, changed := t.policy[iface], t.changed
		t.mu.Unlock()
		missing := slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !slices.Contains(p.addrs, a) })
		if p.patch != 0 && !missing {
			return p.patch, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, fmt.Errorf("no policy was computed for the addresses behind %s: %w", iface, ctx.Err())
		}
	}
}
