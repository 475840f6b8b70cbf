package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/dataplane"
	"github.com/brindle-net/brindle/internal/dataplane/flows"
	"github.com/brindle-net/brindle/internal/desired"
)

// policyDoc is the policy of this host as one document: a back end enforces
// it, and then connections that are under way are brought in line with it.
type policyDoc struct {
	driver dataplane.Driver
	log    *slog.Logger
	flows  flows.Config  // Table nil: connections are left alone
	keep   bool          // connections that policy denies from now on go on
	again  chan struct{} // capacity 1: connections want a second look

	mu      sync.Mutex // guards everything below, and the driver
	want    desired.Policy
	changed desired.PolicyPatch
	unknown bool                // changed does not say all
	left    map[netip.Addr]bool // addresses that are no longer here
	second  *flows.Scope        // connections to look at again
}

func newPolicyDoc(driver dataplane.Driver, cfg flows.Config, keep bool, log *slog.Logger) *policyDoc {
	return &policyDoc{
		driver: driver, log: log, flows: cfg, keep: keep, again: make(chan struct{}, 1),
		want: desired.NewPolicy(), unknown: true, left: map[netip.Addr]bool{},
	}
}

// Take plays a patch into what is wanted.
func (d *policyDoc) Take(p desired.PolicyPatch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, iface := range p.Endpoints.Delete {
		d.leave(iface, &desired.Endpoint{})
	}
	for iface, e := range p.Endpoints.Set {
		d.leave(iface, e)
	}
	if !d.changed.Merge(p) {
		d.unknown = true
	}
	p.Play(d.want)
}

// leave notes which addresses the workload of an interface no longer has. One
// that another workload has now has left too: it inherits no connection.
func (d *policyDoc) leave(iface string, now *desired.Endpoint) {
	old := d.want.Endpoints[iface]
	if old == nil {
		return
	}
	for _, a := range old.Addrs {
		if now.Name != old.Name || !slices.Contains(now.Addrs, a) {
			d.left[a] = true
		}
	}
}

// Sync makes the kernel enforce what is wanted and judges connections by it.
func (d *policyDoc) Sync(ctx context.Context, all bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := &d.changed
	if all || d.unknown {
		changed = nil
	}
	if err := d.driver.Sync(ctx, &d.want, changed); err != nil {
		return err
	}
	if err := d.follow(ctx); err != nil {
		d.unknown = true // judge all of them next time
		return err
	}
	d.changed, d.unknown = desired.PolicyPatch{}, false
	return nil
}

// follow brings connections in line with the policy that is enforced now.
func (d *policyDoc) follow(ctx context.Context) error {
	if d.flows.Table == nil {
		return nil
	}
	n, err := flows.Forget(d.flows.Table, d.left)
	if err != nil {
		return fmt.Errorf("forget the connections of addresses that left: %w", err)
	}
	if n > 0 {
		d.log.InfoContext(ctx, "connections of addresses that left forgotten", "connections", n)
	}
	clear(d.left)
	if d.keep {
		return nil
	}
	scope := flows.Changed(&d.want, &d.changed)
	if d.unknown {
		scope = flows.Everything(&d.want)
	}
	if scope == nil {
		return nil
	}
	d.second = flows.Join(d.second, scope)
	select {
	case d.again <- struct{}{}:
	default: // a second look is due already
	}
	return d.bring(ctx, scope)
}

func (d *policyDoc) bring(ctx context.Context, scope *flows.Scope) error {
	r, err := scope.Bring(d.flows)
	if r.Cut+r.Healed > 0 {
		d.log.InfoContext(ctx, "connections judged by the new policy", "seen", r.Seen, "cut", r.Cut, "let_go_on", r.Healed)
	}
	if err != nil {
		return fmt.Errorf("bring connections in line with policy: %w", err)
	}
	return nil
}

// grace is how long after a change the table of connections is looked at once
// more: a packet that the old rules let pass may enter it a little later.
const grace = 300 * time.Millisecond

// lookAgain takes the second look after each change, until ctx ends.
func (d *policyDoc) lookAgain(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.again:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(grace):
		}
		d.mu.Lock()
		scope := d.second
		d.second = nil
		if scope != nil {
			if err := d.bring(ctx, scope); err != nil {
				d.log.ErrorContext(ctx, "second look at connections failed", "err", err)
				d.second = scope
			}
		}
		d.mu.Unlock()
	}
}

// listed returns how many rules there are in each list that is enforced.
func (d *policyDoc) listed() map[desired.RulesID]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make(map[desired.RulesID]int, len(d.want.Rules))
	for id, l := range d.want.Rules {
		for _, r := range l.Rules {
			out[id] = max(out[id], r.Index+1) // rules that match nothing are left out
		}
	}
	return out
}
