// Package tunnel keeps the addresses of a host's ends of tunnels: it takes
// them from the cluster's pools, writes them into the host's Node, and gives
// them back.
//
// An address is in three places that cannot be written at once: its block, its
// handle, the Node. What makes a crash between two writes harmless is that the
// handle is known beforehand from the host's name. An address is assigned
// before the Node has it, and released after the Node has it no more; whoever
// comes next finds by the handle what was left.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
)

// Kinds lists the kinds of tunnel, by the types that their addresses have in
// IPAM.
func Kinds() []string {
	return []string{ipam.TypeIPIPTunnel, ipam.TypeVXLANTunnel, ipam.TypeVXLANV6Tunnel}
}

// A Wish is what this host should have of a kind of tunnel.
type Wish uint8

// The wishes.
const (
	Drop Wish = iota // no address: what there is goes
	Keep             // what there is stays, and no more comes
	Hold             // an address, which the Node does not say yet: the tunnel is not ready to be sent to
	Have             // an address that the Node says
)

// Config is what a Keeper needs. All is required.
type Config struct {
	Node   string
	Client *client.Client
	IPAM   *ipam.Manager
	// Settings reads what the pools are now, not what they were a moment ago.
	Settings func(ctx context.Context) (*ipam.Settings, error)
	// Held is told after each look which addresses this host has of the kinds
	// that it shall have, whether its Node says them yet or not; invalid: none
	// could be had. It keeps nothing of the map. May be nil.
	Held func(map[string]netip.Addr)
	Log  *slog.Logger
}

// Keeper keeps the tunnel addresses of one host. Its methods may be called
// from anywhere.
type Keeper struct {
	cfg  Config
	wake chan struct{} // capacity 1: a look is due

	mu     sync.Mutex            // guards everything below
	wishes map[string]Wish       // by kind; nil: not told yet
	addrs  map[string]netip.Addr // in the Node and ours, at the last look
	failed error                 // of the last look

	released map[string]bool // nothing is left of kinds that are not wanted; of the looking goroutine alone
}

// New returns a Keeper. It does nothing until it is told what is wanted.
func New(cfg Config) *Keeper {
	return &Keeper{cfg: cfg, wake: make(chan struct{}, 1), addrs: map[string]netip.Addr{}, released: map[string]bool{}}
}

// Want says what this host should have, by kind; of others nothing.
func (k *Keeper) Want(wishes map[string]Wish) {
	k.mu.Lock()
	same := k.wishes != nil && maps.Equal(k.wishes, wishes)
	k.wishes = maps.Clone(wishes)
	if k.wishes == nil {
		k.wishes = map[string]Wish{}
	}
	k.mu.Unlock()
	if !same {
		k.Wake()
	}
}

// Wake says that pools, the Node or an address of ours may have changed.
func (k *Keeper) Wake() {
	select {
	case k.wake <- struct{}{}:
	default: // a look is due already
	}
}

// Addresses returns what the Node has and IPAM says is ours, by kind.
func (k *Keeper) Addresses() map[string]netip.Addr {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make(map[string]netip.Addr, len(k.addrs))
	for kind, a := range k.addrs {
		out[kind] = a
	}
	return out
}

// Err says why the host lacks an address that it has to have, or still has one
// that it should not.
func (k *Keeper) Err() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failed
}

// How often the datastore is looked at.
const (
	recheck  = 15 * time.Minute // without being woken: a write whose outcome was not known may have come through late
	minRetry = 100 * time.Millisecond
	maxRetry = 30 * time.Second

	noPoolRetry = 5 * time.Minute
)

// Run keeps the addresses until ctx ends, whose error it returns.
func (k *Keeper) Run(ctx context.Context) error {
	pause := minRetry
	for {
		next := recheck
		err := k.Look(ctx)
		switch {
		case err == nil:
			pause = minRetry
		case errors.Is(err, ErrNoPool) && ctx.Err() == nil:
			k.cfg.Log.WarnContext(ctx, "tunnel addresses not as wanted", "err", err)
			next = noPoolRetry // a change of pools or of the Node wakes us
		case ctx.Err() == nil:
			k.cfg.Log.WarnContext(ctx, "tunnel addresses not as wanted", "retry_in", pause, "err", err)
			next, pause = pause, min(2*pause, maxRetry)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.wake:
		case <-time.After(next):
		}
	}
}

// Look makes the addresses as wanted, once.
func (k *Keeper) Look(ctx context.Context) error {
	k.mu.Lock()
	wishes := k.wishes
	k.mu.Unlock()
	if wishes == nil {
		return nil
	}
	addrs, held, err := k.look(ctx, wishes)
	k.mu.Lock()
	k.addrs, k.failed = addrs, err
	k.mu.Unlock()
	if held != nil && k.cfg.Held != nil {
		k.cfg.Held(held)
	}
	return err
}

// look returns the addresses that the Node has in the end, and those that this
// host has of the kinds that it shall have; nil if nobody knows.
func (k *Keeper) look(ctx context.Context, wishes map[string]Wish) (addrs, held map[string]netip.Addr, err error) {
	addrs = map[string]netip.Addr{}
	node, err := client.Get[v3.Node](ctx, k.cfg.Client, "", k.cfg.Node)
	if client.IsNotFound(err) {
		return addrs, nil, nil // its coming wakes us
	}
	if err != nil {
		return addrs, nil, fmt.Errorf("addresses for tunnels: %w", err)
	}
	pools := &ipam.Settings{}
	if len(wishes) > 0 {
		if pools, err = k.cfg.Settings(ctx); err != nil {
			return addrs, nil, fmt.Errorf("addresses for tunnels: %w", err)
		}
	}
	held = map[string]netip.Addr{}
	var errs []error
	for _, kind := range Kinds() {
		e := end{k: k, kind: kind, handle: ipam.TunnelHandle(kind, k.cfg.Node), now: *field(node, kind)}
		e.wish, e.pools = wishes[kind], pools.TunnelPools(kind, node.Labels)
		if e.wish == Drop {
			err = e.drop(ctx)
		} else {
			k.released[kind] = false
			err = e.settle(ctx)
		}
		if e.wish == Hold || e.wish == Have {
			held[kind] = e.have
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s of this host: %w", kind, err))
		}
		if e.ours.IsValid() {
			addrs[kind] = e.ours
		}
	}
	return addrs, held, errors.Join(errs...)
}

// field is where a Node has the address of a kind of tunnel. A Node without
// BGP gets the place for it: see write.
func field(n *v3.Node, kind string) *string {
	switch kind {
	case ipam.TypeVXLANTunnel:
		return &n.Spec.IPv4VXLANTunnelAddr
	case ipam.TypeVXLANV6Tunnel:
		return &n.Spec.IPv6VXLANTunnelAddr
	}
	if n.Spec.BGP == nil {
		n.Spec.BGP = &v3.NodeBGPSpec{}
	}
	return &n.Spec.BGP.IPv4IPIPTunnelAddr
}

// end is one look at this host's end of one kind of tunnel.
type end struct {
	k            *Keeper
	kind, handle string
	wish         Wish
	pools        ipam.TunnelPools
	now          string     // what the Node says
	held         []ipam.Use // what the handle has
	ours         netip.Addr // what the Node says in the end, if it is ours
	have         netip.Addr // what is assigned in the end, whether the Node says it or not
}

// ErrNoPool says that no pool gives an address for a tunnel that pools ask for.
var ErrNoPool = errors.New("no pool of this mode and family allows tunnels, selects this host and takes assignments")

// settle makes the Node have one address, and the handle that one only.
func (e *end) settle(ctx context.Context) error {
	var err error
	if e.held, err = e.k.cfg.IPAM.UsesByHandle(ctx, e.handle); err != nil {
		return err
	}
	addr := e.choose()
	if !addr.IsValid() {
		if e.wish == Keep {
			return e.makeDo(ctx)
		}
		if addr, err = e.assign(ctx); err != nil {
			return errors.Join(err, e.makeDo(ctx))
		}
	}
	e.have = addr
	if e.wish != Hold || e.now != "" {
		if err := e.write(ctx, addr); err != nil {
			return err
		}
	}
	return e.releaseBut(ctx, addr)
}

// choose returns the address to go on with, invalid if there is none: what the
// Node says, else what a crash left assigned.
func (e *end) choose() netip.Addr {
	var found netip.Addr
	for _, u := range e.held {
		if !e.mine(u) || !e.pools.Holds(u.Addr) {
			continue
		}
		if u.Addr.String() == e.now {
			return u.Addr
		}
		if !found.IsValid() {
			found = u.Addr
		}
	}
	return found
}

// mine reports whether an address of the handle has the right attributes:
// others would take it for a leak otherwise.
func (e *end) mine(u ipam.Use) bool {
	o := u.Attribute.Owner
	return o[ipam.AttrType] == e.kind && o[ipam.AttrNode] == e.k.cfg.Node
}

// assign takes a new address; what the Node says already, if nobody has it.
func (e *end) assign(ctx context.Context) (netip.Addr, error) {
	if len(e.pools.Usable) == 0 {
		return netip.Addr{}, ErrNoPool
	}
	attrs := map[string]string{ipam.AttrType: e.kind}
	if addr, err := netip.ParseAddr(e.now); err == nil && e.pools.Holds(addr) {
		got, err := e.k.cfg.IPAM.AssignIP(ctx, ipam.AssignIPArgs{Addr: addr, Host: e.k.cfg.Node, Handle: e.handle, Attrs: attrs, Use: v3.UseTunnel})
		if err == nil {
			return got.Addr, nil
		}
	}
	args := ipam.AssignArgs{Host: e.k.cfg.Node, Handle: e.handle, Attrs: attrs, Use: v3.UseTunnel}
	if e.kind == ipam.TypeVXLANV6Tunnel {
		args.Num6, args.Pools6 = 1, e.pools.Names()
	} else {
		args.Num4, args.Pools4 = 1, e.pools.Names()
	}
	got, err := e.k.cfg.IPAM.AutoAssign(ctx, args)
	all := append(got.V4, got.V6...)
	if len(all) == 0 {
		return netip.Addr{}, errors.Join(err, errUnassigned)
	}
	return all[0].Addr, nil
}

var errUnassigned = errors.New("no address was assigned")

// makeDo is what is done when no right address can be had. One that is at
// least ours goes on serving; one that is not leaves the Node, for packets to
// its owner would come here.
func (e *end) makeDo(ctx context.Context) error {
	for _, u := range e.held {
		if u.Addr.String() == e.now {
			e.ours, e.have = u.Addr, u.Addr
			return nil
		}
	}
	return e.write(ctx, netip.Addr{})
}

// drop gives back all that there is of a kind that is not wanted.
func (e *end) drop(ctx context.Context) error {
	if err := e.write(ctx, netip.Addr{}); err != nil || e.k.released[e.kind] {
		return err
	}
	if err := e.k.cfg.IPAM.ReleaseByHandle(ctx, e.handle); err != nil {
		return err
	}
	e.k.released[e.kind] = true
	return nil
}

// write makes the Node say this address; invalid: none. Nothing else of the
// Node changes.
func (e *end) write(ctx context.Context, a netip.Addr) error {
	e.ours = a
	text := ""
	if a.IsValid() {
		text = a.String()
	}
	if text == e.now {
		return nil
	}
	_, err := client.Modify(ctx, e.k.cfg.Client, "", e.k.cfg.Node, func(n *v3.Node) error {
		*field(n, e.kind) = text
		if n.Spec.BGP != nil && *n.Spec.BGP == (v3.NodeBGPSpec{}) {
			n.Spec.BGP = nil // an empty block is not valid
		}
		return nil
	})
	if err != nil {
		e.ours = netip.Addr{}
		return fmt.Errorf("write address %q of this tunnel: %w", text, err)
	}
	e.k.cfg.Log.InfoContext(ctx, "tunnel address written", "kind", e.kind, "address", text, "was", e.now)
	return nil
}

// releaseBut gives back what the handle had besides one address.
func (e *end) releaseBut(ctx context.Context, keep netip.Addr) error {
	var options []ipam.ReleaseOptions
	for _, u := range e.held {
		if u.Addr != keep {
			options = append(options, ipam.ReleaseOptions{Addr: u.Addr, Handle: e.handle, Sequence: u.Sequence})
		}
	}
	if len(options) == 0 {
		return nil
	}
	slices.SortFunc(options, func(a, b ipam.ReleaseOptions) int { return a.Addr.Compare(b.Addr) })
	return e.k.cfg.IPAM.Release(ctx, options...)
}
