package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/brindle-net/brindle/internal/conntrack"
	"github.com/brindle-net/brindle/internal/dataplane"
	"github.com/brindle-net/brindle/internal/dataplane/flows"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
)

// policyDoc is the policy of this host as one document that a back end
// enforces. Connections that are under way are brought in line with it beside
// that, by look.
type policyDoc struct {
	driver dataplane.Driver
	log    *slog.Logger
	flows  flowConfig
	again  chan struct{} // capacity 1: connections want a look

	mu      sync.Mutex // guards everything below, and the driver
	want    desired.Policy
	changed desired.PolicyPatch
	unknown bool // changed does not say all
	others  others
	inForce bool                  // the back end enforces what it was last told
	commits uint64                // how often it was told
	left    map[netip.Addr]uint64 // addresses that are no longer here, by which of leaves it was
	leaves  uint64
	scope   *flows.Scope      // connections to judge, once what is wanted is in force
	marked  []conntrack.Entry // all connections that are cut; some may be gone
	known   bool              // marked is complete
	behind  behind            // networks behind workloads
	deniers flows.Deniers     // of what is wanted
	failed  error             // of the last look
	looking bool              // a look is under way
}

// others are other settings by which policy is enforced.
type others struct {
	// tell has the driver enforce by them from its next Sync on.
	tell  func(rules.Config)
	rules *rules.Config // to be told; nil: nothing new
}

// flowConfig is how connections are treated.
type flowConfig struct {
	table flows.Table
	mark  uint32
	keep  bool // those that policy denies from now on go on
	// host reports which of these addresses are this host's own.
	host func([]netip.Addr) (map[netip.Addr]bool, error)
	// route asks by which interface packets to an address leave; "": none.
	route func(netip.Addr) (string, error)
	// barrier waits until the kernel is done with all packets that it was at;
	// nil, or an error: nobody knows. See conntrack.Barrier.
	barrier func() error
	// allows asks the policy in force. The document's lock is held.
	allows func(flows.Packet) bool
	// halt takes all connections out of what bypasses the rules, and resume lets
	// them back. Both may be nil.
	halt   func() error
	resume func(context.Context)
}

func newPolicyDoc(driver dataplane.Driver, cfg flowConfig, log *slog.Logger) *policyDoc {
	return &policyDoc{
		driver: driver, log: log, flows: cfg, again: make(chan struct{}, 1),
		want: desired.NewPolicy(), unknown: true, left: map[netip.Addr]uint64{}, scope: flows.Everything(),
		behind: behind{route: cfg.route},
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
		d.behind.note(e)
	}
	d.scope = flows.Join(d.scope, flows.Changed(&d.want, &p, !d.known || len(d.marked) > 0, &d.deniers))
	d.deniers.Play(p.Rules)
	if !d.changed.Merge(p) {
		d.unknown = true
	}
	p.Play(d.want)
}

// byOthers has policy enforced by other settings from the next Sync on, and all
// connections judged by them.
func (d *policyDoc) byOthers(c *rules.Config) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.others.rules, d.unknown, d.scope = c, true, flows.Everything()
}

// leave notes which addresses the workload of an interface no longer has. One
// that another workload has now has left too: it inherits no connection.
func (d *policyDoc) leave(iface string, now *desired.Endpoint) {
	old := d.want.Endpoints[iface]
	if old == nil {
		return
	}
	d.leaves++
	for _, a := range old.Addrs {
		if now.Name != old.Name || !slices.Contains(now.Addrs, a) {
			d.left[a] = d.leaves
		}
	}
}

// Sync makes the kernel enforce what is wanted, and has connections judged by
// it. What an address that is used again has left behind goes first.
func (d *policyDoc) Sync(ctx context.Context, all bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.usedAgain() {
		if err := d.bring(ctx, nil, false); err != nil {
			return err
		}
	}
	changed := &d.changed
	if all || d.unknown {
		changed = nil
	}
	d.inForce = false
	if d.others.rules != nil {
		d.others.tell(*d.others.rules)
		d.others.rules = nil
	}
	if err := d.driver.Sync(ctx, &d.want, changed); err != nil {
		return err
	}
	d.inForce = true
	d.commits++
	d.changed, d.unknown = desired.PolicyPatch{}, false
	if d.scope != nil || len(d.left) > 0 {
		d.ask()
	}
	return nil
}

// ask asks for a look at connections.
func (d *policyDoc) ask() {
	poke(d.again)
}

// usedAgain reports whether an endpoint that changes has an address that left.
func (d *policyDoc) usedAgain() bool {
	if len(d.left) == 0 {
		return false
	}
	for _, e := range d.changed.Endpoints.Set {
		if slices.ContainsFunc(e.Addrs, func(a netip.Addr) bool { return d.left[a] != 0 }) {
			return true
		}
	}
	return d.unknown
}

// maxMarked is how many connections that are cut are remembered.
const maxMarked = 1 << 14

// bring brings the connections of a scope in line with the policy in force,
// and forgets those of addresses that left. d.mu is held, but for reading: what
// changes meanwhile counts. Where only connections that are cut can be judged
// otherwise, and they are known, the table is not read. With glance it is not
// read with all care: the caller has what a glance missed looked for again, and
// those that are cut are known.
func (d *policyDoc) bring(ctx context.Context, scope *flows.Scope, glance bool) error {
	left := maps.Clone(d.left)
	sure := d.known && len(left) == 0
	few := scope.OnlyCut() && sure
	entries, marked := d.marked, d.marked // only a look at a scope changes them, and there is one at a time
	listed := false
	d.mu.Unlock()
	var host map[netip.Addr]bool
	var err error
	switch {
	case few:
	case glance && sure:
		entries, err = d.flows.table.Glance()
		entries = withUnseen(entries, marked)
	default:
		listed = true
		entries, err = d.flows.table.List()
	}
	if err == nil && scope != nil {
		host, err = d.flows.host(answering(entries))
	}
	d.mu.Lock()
	if few && !d.known {
		d.scope = flows.Join(d.scope, scope)
		d.ask()
		return nil
	}
	if scope != nil && !d.inForce {
		d.scope, scope = flows.Join(d.scope, scope), nil
	}
	if err == nil {
		err = d.judge(ctx, scope, looked{entries, host, left, listed})
	}
	if d.known = d.known && err == nil; err != nil {
		d.failed = fmt.Errorf("bring connections in line with policy: %w", err)
		return d.failed
	}
	d.failed = nil
	for a, n := range left {
		if d.left[a] == n {
			delete(d.left, a)
		}
	}
	return nil
}

// answering returns the addresses of both ends of connections, each once.
func answering(entries []conntrack.Entry) []netip.Addr {
	known := map[netip.Addr]bool{}
	for i := range entries {
		known[entries[i].Orig.Src], known[entries[i].Reply.Src] = true, true
	}
	return slices.Collect(maps.Keys(known))
}

// withUnseen returns the entries and those that are known to be cut, of which
// some may not be among them.
func withUnseen(entries, marked []conntrack.Entry) []conntrack.Entry {
	if len(marked) == 0 {
		return entries
	}
	seen := make(map[conntrack.Entry]bool, len(entries))
	for _, e := range entries {
		e.Mark = 0
		seen[e] = true
	}
	for _, e := range marked {
		same := e
		same.Mark = 0
		if !seen[same] {
			entries = append(entries, e)
		}
	}
	return entries
}

// looked is what was found by a look.
type looked struct {
	entries []conntrack.Entry
	host    map[netip.Addr]bool   // this host's own
	left    map[netip.Addr]uint64 // as of policyDoc, when it began
	listed  bool                  // by reading the table with all care
}

// judge judges connections and carries out the verdicts.
func (d *policyDoc) judge(ctx context.Context, scope *flows.Scope, l looked) error {
	find, failed := d.behind.finder()
	by := flows.Judge{Mark: d.flows.mark, Allows: d.flows.allows, Host: l.host, Behind: find}
	gone := map[netip.Addr]bool{}
	for a, n := range l.left {
		gone[a] = d.left[a] == n // else it was forgotten meanwhile, and may be used again
	}
	v := scope.Judge(l.entries, &d.want, gone, by)
	err := errors.Join(v.Apply(d.flows.table, d.flows.halt), failed())
	if v.Ends() {
		d.rejoin(ctx)
	}
	if v.Cut > 0 && !d.changed.Empty() { // what waits was taken as if nothing were cut
		d.scope = flows.Everything()
	}
	if scope != nil { // else another look may have cut some meanwhile
		d.marked = v.Marked(l.entries)
		if d.known = len(d.marked) <= maxMarked && (d.known || l.listed); !d.known {
			d.marked = nil
		}
	}
	if v.Cut+v.Healed+v.Gone > 0 {
		d.log.InfoContext(ctx, "connections brought in line with policy", "judged", v.Seen, "cut", v.Cut, "let_go_on", v.Healed, "forgotten", v.Gone)
	}
	return err
}

// rejoin lets connections bypass the rules again, also by interfaces that have
// come meanwhile. d.mu is held, so that none gets back while others are ended.
func (d *policyDoc) rejoin(ctx context.Context) {
	if d.flows.resume != nil {
		d.flows.resume(ctx)
	}
}

// trouble is why connections are not in line with policy, if they are not.
func (d *policyDoc) trouble() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
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
