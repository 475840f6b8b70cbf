package agent

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/brindle-net/brindle/internal/desired"
)

// tracker knows which routes the core wants, so that whoever set up a
// workload can wait until the datastore's word has come round to this host.
type tracker struct {
	mu      sync.Mutex // guards everything below
	routes  map[netip.Prefix]string
	changed chan struct{} // closed and replaced at every change
}

func newTracker() *tracker {
	return &tracker{routes: map[netip.Prefix]string{}, changed: make(chan struct{})}
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
