package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/selector"
	"github.com/brindle-net/brindle/internal/store"
)

// DrainOptions tune DrainPool. The zero value drains.
type DrainOptions struct {
	// DryRun only finds out what would be done. The pool need not be disabled.
	DryRun bool
	// Step, if not nil, is told after each block how many of all are done.
	Step func(done, all int)
}

// Drain is how far a pool has been drained.
type Drain struct {
	Blocks   int    `json:"blocks"`   // that there were in the pool
	Released int    `json:"released"` // of these: given up, or would be
	Left     []Left `json:"left"`     // what keeps the others, sorted
}

// Open counts the addresses that somebody must see to, or wait for, before
// the pool is empty: those that go with the pool itself are not among them.
func (d *Drain) Open() int {
	n := 0
	for _, l := range d.Left {
		if !l.WithPool {
			n++
		}
	}
	return n
}

// Left is an address that keeps a block of a pool.
type Left struct {
	Audited
	Remedy   string `json:"remedy"`   // what makes it go, in words
	WithPool bool   `json:"withPool"` // it goes when the pool is deleted, and not before
}

// DrainPool makes everybody give up the blocks of a disabled pool that nobody
// has an address of, one block after the other, and says what keeps the rest.
// No address is taken from anybody. It may be stopped between any two writes,
// and called again any number of times: it goes on with what is left. The error
// wraps ErrNoPool when there is no such pool, ErrInvalid when it is still
// enabled: hosts would take its blocks again.
func (m *Manager) DrainPool(ctx context.Context, name string, o DrainOptions) (*Drain, error) {
	s, inv, us, err := m.survey(ctx)
	if err != nil {
		return nil, fmt.Errorf("drain pool %q: %w", name, err)
	}
	p, err := s.find(name)
	if err != nil {
		return nil, fmt.Errorf("drain pool %q: %w", name, err)
	}
	if p.Unusable == "" && !o.DryRun {
		return nil, fmt.Errorf("drain pool %q: %w: it is enabled: disable it first", name, ErrInvalid)
	}
	d := &drainer{m: m, pool: p, dry: o.DryRun, done: &Drain{Left: []Left{}},
		by: auditor{settings: s, users: us, grace: DefaultGrace, now: m.now()}}
	blocks := slices.DeleteFunc(inv.blocks, func(b *Block) bool { return !prefix.Contains(p.CIDR, b.CIDR) })
	d.done.Blocks = len(blocks)
	for i, b := range blocks {
		if err := d.block(ctx, b); err != nil {
			return d.done, fmt.Errorf("drain pool %q: %w", name, err)
		}
		if o.Step != nil {
			o.Step(i+1, len(blocks))
		}
	}
	if err := d.affinities(ctx, blocks, inv.affinities); err != nil {
		return d.done, fmt.Errorf("drain pool %q: %w", name, err)
	}
	slices.SortFunc(d.done.Left, func(a, b Left) int { return a.Addr.Compare(b.Addr) })
	return d.done, nil
}

// find returns the pool of this name or CIDR.
func (s *Settings) find(name string) (Pool, error) {
	i := slices.IndexFunc(s.Pools, func(p Pool) bool { return p.named(name) })
	if i < 0 {
		return Pool{}, fmt.Errorf("%w: there is no pool %q", ErrNoPool, name)
	}
	return s.Pools[i], nil
}

// drainer is one run of DrainPool.
type drainer struct {
	m    *Manager
	pool Pool
	dry  bool
	by   auditor
	done *Drain
}

// block gives one block up, or notes what keeps it.
func (d *drainer) block(ctx context.Context, b *Block) error {
	coolDown := d.by.settings.Configuration.CoolDown
	after := b.clone()
	after.expire(d.m.now(), coolDown)
	if !after.empty() {
		d.keep(after)
		return nil
	}
	if d.dry {
		d.done.Released++
		return nil
	}
	if !b.empty() || b.Affinity == "" { // rid it of what has cooled down; if nobody's, it goes
		if err := d.m.sweep(ctx, b.CIDR, coolDown); err != nil {
			return err
		}
	}
	if b.Affinity == "" {
		d.done.Released++
		return nil
	}
	id, ok := affinityOf(b)
	if !ok {
		return fmt.Errorf("block %s: %w: affinity %q", b.CIDR, ErrCorrupt, b.Affinity)
	}
	err := d.m.giveUp(ctx, id, true)
	if errors.Is(err, errInUse) { // somebody was faster, who had not heard of it
		now, _, err := d.m.getBlock(ctx, b.CIDR)
		if err == nil {
			d.keep(now)
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
	} else if err != nil {
		return err
	}
	d.done.Released++
	return nil
}

// affinityOf is the affinity that a block names.
func affinityOf(b *Block) (store.AffinityID, bool) {
	if owner := b.Virtual(); owner != "" {
		return store.AffinityID{Virtual: true, Owner: owner, CIDR: b.CIDR}, true
	}
	return store.AffinityID{Owner: b.Host(), CIDR: b.CIDR}, b.Host() != ""
}

// affinities ends the claims to blocks of the pool that no block agrees with:
// what an interrupted claim has left.
func (d *drainer) affinities(ctx context.Context, blocks []*Block, all []namedAffinity) error {
	named := map[store.AffinityID]bool{}
	for _, b := range blocks {
		if id, ok := affinityOf(b); ok {
			named[id] = true
		}
	}
	for _, a := range all {
		if d.dry || named[a.id] || !prefix.Contains(d.pool.CIDR, a.id.CIDR) {
			continue
		}
		if err := d.m.giveUp(ctx, a.id, true); err != nil && !errors.Is(err, errInUse) {
			return err
		}
	}
	return nil
}

// keep notes what keeps a block.
func (d *drainer) keep(b *Block) {
	for _, u := range b.Uses() {
		if u.Attribute.Handle == WindowsReservedHandle {
			continue // goes with the block
		}
		l := Left{Audited: d.by.audit(b, u)}
		l.Remedy, l.WithPool = d.remedy(b, u, l.Audited)
		d.done.Left = append(d.done.Left, l)
	}
}

// remedy says what makes an address go.
func (d *drainer) remedy(b *Block, u Use, a Audited) (what string, withPool bool) {
	owner := u.Attribute.Owner
	eps := d.by.users.endpoints[u.Addr]
	tunnel := TunnelHandle(owner[AttrType], a.Node) != ""
	switch {
	case a.Standing == CoolingDown:
		until := u.Attribute.ReleasedAt.Add(d.by.settings.Configuration.CoolDown)
		return "wait: it was released and rests until " + until.UTC().Format("15:04:05 MST"), false
	case a.Standing == InUse && len(eps) > 0:
		return "restart " + eps[0].whom(owner), false
	case a.Standing == InUse && tunnel && d.movesTunnel(owner[AttrType], a.Node):
		return "wait: the agent of " + a.Node + " takes another", false
	case a.Standing == InUse && tunnel:
		return "delete the pool at the end: no other gives " + a.Node + " an address for this tunnel", true
	case a.Standing == InUse && (b.Virtual() != "" || owner[AttrService] != ""):
		return "give the service another address", false
	case a.Standing == InUse:
		return "wait until the virtual machine has moved", false
	case a.Standing == Unproven && !a.Leak:
		return "wait: it may be being set up", false
	case a.Standing == Leaked && !a.Leak:
		return "wait: it is collected soon", false
	}
	return "if nobody uses it: brindle ipam release --ip " + u.Addr.String(), false
}

// movesTunnel reports whether another pool than this gives a host the address
// of its end of a tunnel. Kinds that this package knows no pools for are others'
// to move.
func (d *drainer) movesTunnel(kind, host string) bool {
	switch kind {
	case TypeIPIPTunnel, TypeVXLANTunnel, TypeVXLANV6Tunnel:
	default:
		return true
	}
	node, ok := d.by.users.nodes[host]
	if !ok {
		return false
	}
	pools := d.by.settings.TunnelPools(kind, node.Labels).Usable
	return slices.ContainsFunc(pools, func(p Pool) bool { return p.Name != d.pool.Name })
}

// whom names what a person restarts so that the endpoint gets another address.
func (e Endpoint) whom(owner map[string]string) string {
	switch {
	case owner[AttrPod] != "":
		return "pod " + owner[AttrNamespace] + "/" + owner[AttrPod]
	case e.ContainerID != "":
		return "container " + e.ContainerID + " on " + e.Node
	}
	return "workload " + e.String() + " on " + e.Node
}

// Migration is two pools of which one shall take over from the other.
type Migration struct {
	From, To Pool
	Warnings []string // why some may get no address of To
}

// CheckMigration finds two pools by name or CIDR and says whether what has
// addresses of one can have addresses of the other. The error wraps ErrNoPool
// when one is not there, ErrInvalid when the second cannot take over.
func (m *Manager) CheckMigration(ctx context.Context, from, to string) (*Migration, error) {
	s, inv, us, err := m.survey(ctx)
	if err != nil {
		return nil, err
	}
	g := &Migration{}
	if g.From, err = s.find(from); err != nil {
		return nil, err
	}
	if g.To, err = s.find(to); err != nil {
		return nil, err
	}
	if why := g.refusal(); why != "" {
		return nil, fmt.Errorf("pool %q cannot take over from %q: %w: %s", g.To.Name, g.From.Name, ErrInvalid, why)
	}
	g.warn(s, inv, us)
	return g, nil
}

// refusal says why the second pool cannot take over at all.
func (g *Migration) refusal() string {
	switch {
	case g.From.Name == g.To.Name:
		return "they are the same"
	case familyOf(g.From.CIDR.Addr()) != familyOf(g.To.CIDR.Addr()):
		return "they are of different families"
	case prefix.Overlaps(g.From.CIDR, g.To.CIDR):
		return "they overlap"
	case g.To.Unusable != "":
		return g.To.Unusable
	case g.To.Manual && !g.From.Manual:
		return "its assignmentMode is Manual: nobody takes its addresses unasked"
	}
	for _, use := range g.From.Uses {
		if use != v3.UseTunnel && !slices.Contains(g.To.Uses, use) { // tunnels stay until the pool goes
			return fmt.Sprintf("its allowedUses %v lack %s", g.To.Uses, use)
		}
	}
	return ""
}

// warn finds who may get no address of the second pool.
func (g *Migration) warn(s *Settings, inv *inventory, us *users) {
	say := func(format string, args ...any) { g.Warnings = append(g.Warnings, fmt.Sprintf(format, args...)) }
	hosts := map[string]bool{}
	free := s.emptyUsage(g.To.Name, g.To.CIDR).Free
	need := int64(0)
	for _, b := range inv.blocks {
		switch {
		case prefix.Contains(g.To.CIDR, b.CIDR):
			one := s.emptyUsage("", b.CIDR).Free
			free.Sub(free, one.Sub(one, s.blockUsage(b, "").Free))
		case prefix.Contains(g.From.CIDR, b.CIDR):
			for _, u := range b.Uses() {
				if !u.CoolingDown() {
					need++
					hosts[u.Attribute.Owner[AttrNode]] = true
				}
			}
		}
	}
	if free.IsInt64() && free.Int64() < need {
		say("pool %s has %s free, and pool %s has %d in use", g.To.Name, free, g.From.Name, need)
	}
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		if node, ok := us.nodes[host]; ok && !g.To.NodeSelector.Matches(selector.Map(node.Labels)) {
			say("pool %s does not select node %s: its nodeSelector is %s", g.To.Name, host, g.To.NodeSelector)
		}
	}
	if !g.To.NamespaceSelector.Matches(selector.Map(nil)) {
		say("pool %s is for some namespaces only: its namespaceSelector is %s", g.To.Name, g.To.NamespaceSelector)
	}
}
