package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/brindle-net/brindle/internal/store"
)

// AssignArgs asks for addresses.
type AssignArgs struct {
	Host   string // whose blocks to use; required
	Handle string // by which the addresses are released; required
	// Attrs are stored with the addresses: "pod", "namespace", "type"…
	// "node" and "timestamp" are filled in where they are missing.
	Attrs        map[string]string
	Num4, Num6   int
	Pools4       []string // names or CIDRs; empty: every pool that qualifies
	Pools6       []string
	Use          UseKind // what for; "": do not ask the pools
	MaxBlocks    int     // per family, on top of the configured limit; 0: none
	MaxPerHandle int     // per family: what the handle has already counts; 0: none
	// HostLabels are matched by the nodeSelectors of pools; nil reads them
	// from the Node, if any pool asks.
	HostLabels      map[string]string
	NamespaceLabels map[string]string // matched by namespaceSelectors
}

// Assignment is one assigned address.
type Assignment struct {
	Addr     netip.Addr
	Block    netip.Prefix // its block
	Sequence uint64       // tells this assignment from later ones of Addr
}

// Result is what was assigned, in the order in which blocks gave it.
type Result struct {
	V4, V6 []Assignment
}

// AutoAssign assigns addresses from the host's blocks, from blocks it claims
// now or, unless affinity is strict, from blocks of others. The Result holds
// what was assigned also when that is less than asked for, and the error says
// why it is less: ErrNoPool, ErrExhausted, ErrBlockLimit. It is up to the
// caller to keep it or to release the handle.
func (m *Manager) AutoAssign(ctx context.Context, args AssignArgs) (Result, error) {
	r, err := m.newRequest(ctx, args)
	if err != nil {
		return Result{}, fmt.Errorf("assign addresses for handle %q: %w", args.Handle, err)
	}
	unlock, err := m.handles.lock(ctx, args.Handle)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	if err = r.run(ctx); err != nil {
		err = fmt.Errorf("assign addresses for handle %q: %w", args.Handle, err)
	}
	return Result{V4: r.wants[0].got, V6: r.wants[1].got}, err
}

// request is one call of AutoAssign under way.
type request struct {
	m        *Manager
	args     AssignArgs
	settings *Settings
	owner    owner
	handle   *handleWriter
	wants    [2]*want             // IPv4, IPv6
	surplus  map[netip.Prefix]int // what the handle counts too much
	planned  map[netip.Prefix]int // what the handle, still to be made, will count
}

// want is one family of a request.
type want struct {
	family Family
	need   int // still
	pools  []Pool
	got    []Assignment
}

func (m *Manager) newRequest(ctx context.Context, args AssignArgs) (*request, error) {
	if err := checkOwner(args.Host, args.Handle); err != nil {
		return nil, err
	}
	if args.Num4 < 0 || args.Num6 < 0 {
		return nil, fmt.Errorf("%w: %d IPv4 and %d IPv6 addresses: must not be negative", ErrInvalid, args.Num4, args.Num6)
	}
	s, err := m.settings(ctx)
	if err != nil {
		return nil, err
	}
	if args.HostLabels == nil && s.needHostLabels() {
		if args.HostLabels, err = m.hostLabels(ctx, args.Host); err != nil {
			return nil, err
		}
	}
	r := &request{
		m: m, args: args, settings: s,
		owner:   m.owner(args.Host, args.Handle, args.Attrs),
		handle:  &handleWriter{m: m, id: args.Handle},
		surplus: map[netip.Prefix]int{},
	}
	for i, w := range []struct {
		family Family
		n      int
		pools  []string
	}{{IPv4, args.Num4, args.Pools4}, {IPv6, args.Num6, args.Pools6}} {
		r.wants[i] = &want{family: w.family, need: w.n}
		if w.n == 0 {
			continue
		}
		r.wants[i].pools, err = s.choose(choice{
			family: w.family, requested: w.pools, use: args.Use, host: args.Host,
			hostLabels: args.HostLabels, namespaceLabels: args.NamespaceLabels,
		})
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// checkOwner refuses names that could not be stored or never be released.
func checkOwner(host, handle string) error {
	if host == "" || len(host) > 253 {
		return fmt.Errorf("%w: host %q: must have 1 to 253 characters", ErrInvalid, host)
	}
	for _, c := range host {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return fmt.Errorf("%w: host %q: may have letters, digits, dots, dashes and underscores only", ErrInvalid, host)
		}
	}
	if handle == "" {
		return fmt.Errorf("%w: a handle is needed, or nobody could release the addresses", ErrInvalid)
	}
	return nil
}

// owner completes the attributes of an assignment.
func (m *Manager) owner(host, handle string, attrs map[string]string) owner {
	all := map[string]string{AttrNode: host, AttrTimestamp: m.now().UTC().Format(timestampFormat)}
	maps.Copy(all, attrs)
	return owner{handle: handle, attrs: all}
}

// Attributes that are stored with an address.
const (
	AttrPod       = "pod"
	AttrNamespace = "namespace"
	AttrNode      = "node"
	AttrTimestamp = "timestamp"
	AttrType      = "type" // of tunnel addresses
	AttrService   = "service"
)

// timestampFormat is how the time of an assignment is written.
const timestampFormat = "2006-01-02 15:04:05.999999999 -0700 MST"

// run assigns what is wanted.
func (r *request) run(ctx context.Context) error {
	err := r.fromOwn(ctx)
	for _, w := range r.wants {
		if err == nil && w.need > 0 {
			err = r.further(ctx, w)
		}
	}
	if len(r.surplus) > 0 {
		// What stays too high after an error here is collected later.
		floor := map[netip.Prefix]int{}
		for _, w := range r.wants {
			for _, a := range w.got {
				floor[a.Block]++
			}
		}
		if e := r.handle.sub(ctx, r.surplus, floor); err == nil {
			err = e
		}
	}
	return err
}

// fromOwn assigns from the host's blocks as they are remembered. In most calls
// the handle is made in one moment with the first block that gives an address,
// or just before if the datastore cannot do that, and then comes one write of
// a block for the other family.
func (r *request) fromOwn(ctx context.Context) error {
	plan := map[netip.Prefix]int{}
	var order []netip.Prefix
	for _, w := range r.wants {
		left := w.need
		for _, cidr := range r.m.ownBlocks(r.args.Host, w.family) {
			if left == 0 {
				break
			}
			if !inPools(w.pools, cidr) {
				continue
			}
			if n := min(left, r.m.peek(cidr, r.settings)); n > 0 {
				plan[cidr] = n
				order = append(order, cidr)
				left -= n
			}
		}
	}
	if r.m.tx != nil && len(plan) > 0 {
		r.planned = maps.Clone(plan)
	} else if err := r.open(ctx, plan); err != nil {
		return err
	}
	mine := HostAffinity(r.args.Host)
	for _, cidr := range order {
		w := r.wants[0]
		if cidr.Addr().Is6() {
			w = r.wants[1]
		}
		err := r.take(ctx, w, cidr, min(plan[cidr], w.need), mine)
		if errors.Is(err, errAlong) { // the handle exists
			r.planned = nil
			if err = r.open(ctx, plan); err == nil {
				err = r.take(ctx, w, cidr, min(plan[cidr], w.need), mine)
			}
		}
		if err != nil {
			return err
		}
	}
	if r.planned != nil { // no block gave anything, and nobody looked at the handle
		r.planned = nil
		return r.open(ctx, nil)
	}
	return nil
}

// open writes the handle for a plan. If the handle has addresses already and
// the request counts them, they are counted here and the plan shrinks.
func (r *request) open(ctx context.Context, plan map[netip.Prefix]int) error {
	limited := r.args.MaxPerHandle > 0
	if len(plan) == 0 && !limited {
		return nil
	}
	if len(plan) > 0 {
		err := r.handle.add(ctx, plan, limited)
		if err == nil {
			maps.Copy(r.surplus, plan)
		}
		if !errors.Is(err, errHandleExists) {
			return err
		}
	}
	if err := r.countExisting(ctx); err != nil {
		return err
	}
	if r.wants[0].need == 0 && r.wants[1].need == 0 {
		clear(plan)
		return nil
	}
	if len(plan) == 0 {
		return nil
	}
	if err := r.handle.add(ctx, plan, false); err != nil {
		return err
	}
	maps.Copy(r.surplus, plan)
	return nil
}

// countExisting takes the handle's addresses as assigned, as far as the
// request limits them.
func (r *request) countExisting(ctx context.Context) error {
	if err := r.handle.read(ctx); err != nil || r.handle.state == nil {
		return err
	}
	for _, cidr := range r.handle.state.cidrs() {
		b, _, err := r.m.getBlock(ctx, cidr)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		for _, ord := range b.ordinalsOf(r.args.Handle) {
			w := r.wants[0]
			if cidr.Addr().Is6() {
				w = r.wants[1]
			}
			if w.need+len(w.got) > r.args.MaxPerHandle {
				w.need = max(0, r.args.MaxPerHandle-len(w.got))
			}
			if w.need > 0 {
				w.need--
				w.got = append(w.got, Assignment{Addr: b.Addr(ord), Block: cidr, Sequence: b.seqs[ord]})
			}
		}
	}
	return nil
}

// takeNew is take for a block that the handle does not count yet. A block that
// is not known is read first: a full one must not cost two writes of the
// handle.
func (r *request) takeNew(ctx context.Context, w *want, cidr netip.Prefix, affinity string) error {
	c := r.m.enter(cidr) // keeps what is read
	defer r.m.leave(c)
	err := r.m.look(ctx, c)
	if errors.Is(err, store.ErrNotFound) {
		r.m.disown(store.AffinityID{Owner: r.args.Host, CIDR: cidr})
		return nil
	}
	if err != nil {
		return err
	}
	n := min(w.need, r.m.peek(cidr, r.settings))
	if n <= 0 {
		return nil
	}
	if err := r.handle.add(ctx, map[netip.Prefix]int{cidr: n}, false); err != nil {
		return err
	}
	r.surplus[cidr] += n
	return r.take(ctx, w, cidr, n, affinity)
}

// take assigns up to n addresses of a block that the handle counts. With
// affinity set, the block must have it. A block that turns out to be full,
// gone or somebody else's is not an error.
func (r *request) take(ctx context.Context, w *want, cidr netip.Prefix, n int, affinity string) error {
	if n <= 0 {
		return nil
	}
	op := &assignment{owner: r.owner, have: w.got, pick: func(b *Block) ([]int, error) {
		if affinity != "" && b.Affinity != affinity {
			return nil, errTaken
		}
		return b.assign(n, r.owner, r.settings.Reserved), nil
	}}
	ch := op.change(r.coolDown())
	if r.planned != nil {
		ch.also = &store.Write{Key: store.HandleKey(r.args.Handle), Value: (&handle{blocks: r.planned}).encode()}
	}
	err := r.m.update(ctx, cidr, ch)
	if err != nil {
		delete(r.planned, cidr) // the next block brings the handle
	} else if r.planned != nil {
		r.handle.made(r.planned, ch.rev)
		maps.Copy(r.surplus, r.planned)
		r.planned = nil
	}
	switch {
	case errors.Is(err, errTaken), errors.Is(err, store.ErrNotFound):
		r.m.disown(store.AffinityID{Owner: r.args.Host, CIDR: cidr})
		return nil
	case errors.Is(err, ErrExhausted):
		return nil
	case err != nil:
		// The write may have taken effect: the handle had better count it.
		delete(r.surplus, cidr)
		return err
	}
	w.got = append(w.got, op.got...)
	w.need -= len(op.got)
	if r.surplus[cidr] -= len(op.got); r.surplus[cidr] <= 0 {
		delete(r.surplus, cidr)
	}
	return nil
}

func (r *request) coolDown() time.Duration { return r.settings.Configuration.CoolDown }

// assignment is the change of a block that assigns addresses. It recognises
// its own write when the outcome of that was not known.
type assignment struct {
	owner owner
	have  []Assignment                  // the owner's already: not this write's
	pick  func(b *Block) ([]int, error) // occupies ordinals and returns them
	tried []try
	got   []Assignment
}

type try struct {
	ord int
	seq uint64
}

func (a *assignment) change(coolDown time.Duration) *change {
	return &change{apply: a.apply, landed: a.landed, coolDown: coolDown}
}

func (a *assignment) apply(b *Block) error {
	ords, err := a.pick(b)
	if err != nil {
		return err
	}
	if len(ords) == 0 {
		return ErrExhausted
	}
	a.got = a.got[:0]
	for _, ord := range ords {
		if t := (try{ord, b.seqs[ord]}); !slices.Contains(a.tried, t) {
			a.tried = append(a.tried, t)
		}
		a.got = append(a.got, Assignment{Addr: b.Addr(ord), Block: b.CIDR, Sequence: b.seqs[ord]})
	}
	return nil
}

func (a *assignment) landed(b *Block) bool {
	a.got = nil
	for _, t := range a.tried {
		at := b.attr(t.ord)
		if at == nil || b.seqs[t.ord] != t.seq || at.Handle != a.owner.handle || !maps.Equal(at.Owner, a.owner.attrs) {
			continue
		}
		got := Assignment{Addr: b.Addr(t.ord), Block: b.CIDR, Sequence: t.seq}
		if !slices.Contains(a.have, got) {
			a.got = append(a.got, got)
		}
	}
	return len(a.got) > 0
}

func inPools(pools []Pool, cidr netip.Prefix) bool {
	return slices.ContainsFunc(pools, func(p Pool) bool {
		return p.CIDR.Contains(cidr.Addr()) && p.CIDR.Bits() <= cidr.Bits()
	})
}

// peek says how many addresses a block has to give, as last seen. Of a block
// that was not seen yet it says that it is full of them: whoever takes some
// reads it.
func (m *Manager) peek(cidr netip.Prefix, s *Settings) int {
	m.mu.Lock()
	c := m.cells[cidr]
	m.mu.Unlock()
	if c == nil {
		return MaxBlockAddrs
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.block == nil {
		return MaxBlockAddrs
	}
	return c.block.available(s.Reserved) + len(c.block.cooled(m.now(), s.Configuration.CoolDown))
}

// ownBlocks lists the host's blocks, as far as they are known.
func (m *Manager) ownBlocks(host string, f Family) []netip.Prefix {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.owned[hostFamily{host, f}])
}
