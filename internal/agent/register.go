package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/feed"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/store"
)

// registered is what this host's Node says of it.
type registered struct {
	v4, v6 netip.Prefix // with the length of the subnet; invalid if none
	as     uint32
	why4   string // the IPv4 address is this one, for people
	why6   string
	odd4   oddity // what is odd about the choice
	odd6   oddity
}

// addresses lists the addresses that there are.
func (r *registered) addresses() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []netip.Prefix{r.v4, r.v6} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

// sameAddresses reports whether both say the same of where the host is; nil
// says nothing.
func (r *registered) sameAddresses(o *registered) bool {
	return r != nil && o != nil && r.v4 == o.v4 && r.v6 == o.v6
}

// problem is why registration has not succeeded, for people.
type problem struct {
	mu   sync.Mutex // guards text
	text string
}

func (p *problem) set(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = ""
	if err != nil {
		p.text = err.Error()
	}
}

func (p *problem) get() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text
}

// register writes this host's Node, and again whenever its address changes or
// somebody deletes it, until ctx ends. A datastore out of reach is waited for.
func (a *agent) register(ctx context.Context) error {
	pause := 100 * time.Millisecond
	began := time.Now()
	for {
		err := a.registerOnce(ctx)
		a.search.problem.set(err)
		next := a.cfg.Settings.Startup.PollInterval
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errFatal):
			return err
		case errors.Is(err, errContested): // at our own pace: two that answer each other at once would never end
			a.log.WarnContext(ctx, "node written by another", "err", err)
		case err != nil:
			limit := a.cfg.Settings.Startup.WaitForDatastoreTimeout
			if limit > 0 && a.registered.Load() == nil && time.Since(began) > limit {
				return fmt.Errorf("not registered in %s: %w", limit, err)
			}
			a.log.WarnContext(ctx, "node not registered", "retry_in", pause, "err", err)
			next, pause = pause, min(2*pause, 5*time.Second)
		default:
			pause = 100 * time.Millisecond
		}
		var due <-chan time.Time // never, when no look is wanted
		if next != 0 {
			due = time.After(next)
		}
		if err := a.await(ctx, due); err != nil {
			return err
		}
	}
}

// noteNode looks for the end of this host's Node: the host still runs, and
// without a Node nobody finds the way to its workloads. With the settings of BGP
// the AS number may be another one.
func (a *agent) noteNode(b feed.Batch) {
	own, bgp := model.ID{Kind: model.KindNode, Name: a.cfg.Node}, model.ID{Kind: model.KindBGPConfig, Name: v3.DefaultName}
	a.search.noteNodes(b.Events, own)
	r := a.registered.Load()
	other := func(v any) bool {
		n, ok := v.(*model.Node)
		return ok && r != nil && n.AS != 0 && n.AS != r.as
	}
	if slices.ContainsFunc(b.Events, func(e model.Event) bool {
		return e.ID == own && (e.Value == nil || other(e.Value)) || e.ID == bgp
	}) {
		poke(a.nodeGone)
	}
}

// errFatal marks a registration that will not succeed by waiting.
var errFatal = errors.New("the host cannot be registered")

// errContested says that somebody else wrote other addresses into our Node.
var errContested = errors.New("is another agent running under the same name?")

// registerOnce makes one attempt. errContested comes after a success.
func (a *agent) registerOnce(ctx context.Context) error {
	if err := a.bootstrap(ctx); err != nil {
		return err
	}
	old, err := client.Get[v3.Node](ctx, a.client, "", a.cfg.Node)
	if err != nil && !client.IsNotFound(err) {
		return err
	}
	if err != nil {
		old = nil
	}
	r, err := a.detect(ctx, old)
	if err != nil {
		return err
	}
	was := a.registered.Load()
	if was != nil && !was.sameAddresses(r) || was == nil && a.givesUp(old, r) {
		if r, err = a.confirm(ctx, old, r); err != nil {
			return err
		}
	}
	if !was.sameAddresses(r) { // each look is a list of all nodes
		if err := a.checkConflicts(ctx, r); err != nil {
			return err
		}
	} else {
		r.why4, r.why6 = was.why4, was.why6 // not that the Node has them, which we wrote into it
	}
	if old == nil {
		node := &v3.Node{}
		node.Name = a.cfg.Node
		fillNode(node, r, a.cfg.Settings.Startup.AS)
		_, err = client.Create(ctx, a.client, node)
	}
	if old != nil || client.IsExists(err) {
		_, err = client.Modify(ctx, a.client, "", a.cfg.Node, func(n *v3.Node) error {
			fillNode(n, r, a.cfg.Settings.Startup.AS)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("write Node %s: %w", a.cfg.Node, err)
	}
	if r.as, err = a.asNumber(ctx); err != nil {
		return err
	}
	if a.registered.Store(r); was == nil || *was != *r {
		a.log.InfoContext(ctx, "registered", "node", a.cfg.Node, "addresses", r.addresses(), "as", r.as)
	}
	a.tellOdd(ctx, was, r)
	a.search.stir()
	if was != nil && old != nil && !was.standsIn(old) {
		return fmt.Errorf("the addresses of Node %s were changed from %v, and put right: %w", a.cfg.Node, was.addresses(), errContested)
	}
	return nil
}

// standsIn reports whether a Node has these addresses.
func (r *registered) standsIn(n *v3.Node) bool {
	bgp := n.Spec.BGP
	if bgp == nil {
		bgp = &v3.NodeBGPSpec{}
	}
	return bgp.IPv4Address == text(r.v4) && bgp.IPv6Address == text(r.v6)
}

// bootstrap makes what every network needs, and announces what it made.
func (a *agent) bootstrap(ctx context.Context) error {
	if a.registered.Load() != nil {
		return nil
	}
	s := a.cfg.Settings.Startup
	cfg := client.BootstrapConfig{}
	if !s.NoDefaultPools {
		if s.IP != "none" {
			cfg.IPv4Pool = defaultPool(s.Pool4)
		}
		if s.IP6 != "" && s.IP6 != "none" {
			cfg.IPv6Pool = defaultPool(s.Pool6)
		}
		var err error
		if cfg.HostNetworks, err = a.kernel.Networks(); err != nil {
			return err
		}
	}
	made, err := a.client.Bootstrap(ctx, cfg)
	for _, o := range made {
		attrs := []any{"kind", o.Type().Kind, "name", o.Meta().Name}
		if p, ok := o.(*v3.IPPool); ok {
			attrs = append(attrs, "cidr", p.Spec.CIDR)
		}
		a.log.InfoContext(ctx, "created because the datastore had none", attrs...)
	}
	return err
}

// defaultPool is a pool as the settings want it, nil if they want none.
func defaultPool(p config.DefaultPool) *v3.IPPoolSpec {
	if strings.EqualFold(p.CIDR, "none") {
		return nil
	}
	return &v3.IPPoolSpec{
		CIDR: p.CIDR, BlockSize: p.BlockSize, IPIPMode: v3.EncapMode(p.IPIP), VXLANMode: v3.EncapMode(p.VXLAN),
		NATOutgoing: p.NATOutgoing, DisableBGPExport: p.DisableBGPExport, NodeSelector: p.NodeSelector,
	}
}

// checkConflicts refuses an address that another node has: two hosts with one
// address would both be unreachable.
func (a *agent) checkConflicts(ctx context.Context, r *registered) error {
	if a.cfg.Settings.Startup.SkipAddressConflicts {
		return nil
	}
	nodes, err := client.List[v3.Node](ctx, a.client, "")
	if err != nil && !errors.Is(err, client.ErrUnreadable) {
		return fmt.Errorf("look for nodes with the same address: %w", err)
	}
	mine := r.addresses()
	for _, n := range nodes {
		if n.Name == a.cfg.Node || n.Spec.BGP == nil {
			continue
		}
		for _, s := range []string{n.Spec.BGP.IPv4Address, n.Spec.BGP.IPv6Address} {
			s, _, _ = strings.Cut(s, "/") // the length may be missing
			addr, err := netip.ParseAddr(s)
			if err == nil && slices.ContainsFunc(mine, func(m netip.Prefix) bool { return m.Addr() == addr }) {
				return fmt.Errorf("address %s is that of node %s already: give this host another with --ip, delete the old node, or set disableNodeIPCheck", addr, n.Name)
			}
		}
	}
	return nil
}

// fillNode writes what was found into a Node. Addresses that others wrote stay.
func fillNode(n *v3.Node, r *registered, as uint32) {
	if n.Spec.BGP == nil && len(r.addresses()) > 0 {
		n.Spec.BGP = &v3.NodeBGPSpec{}
	}
	if n.Spec.BGP == nil {
		return
	}
	n.Spec.BGP.IPv4Address, n.Spec.BGP.IPv6Address = text(r.v4), text(r.v6)
	if as != 0 {
		number := v3.ASNumber(as)
		n.Spec.BGP.ASNumber = &number
	}
	var others []v3.NodeAddress
	for _, addr := range n.Spec.Addresses {
		if addr.Type != "CalicoNodeIP" {
			others = append(others, addr)
		}
	}
	n.Spec.Addresses = nil
	for _, p := range r.addresses() {
		n.Spec.Addresses = append(n.Spec.Addresses, v3.NodeAddress{Address: p.String(), Type: "CalicoNodeIP"})
	}
	n.Spec.Addresses = append(n.Spec.Addresses, others...)
	if *n.Spec.BGP == (v3.NodeBGPSpec{}) {
		n.Spec.BGP = nil // an empty block is not valid
	}
}

func text(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// defaultAS is the AS number of a cluster that says none.
const defaultAS = 64512

// asNumber is the AS number in force on this host.
func (a *agent) asNumber(ctx context.Context) (uint32, error) {
	node, err := client.Get[v3.Node](ctx, a.client, "", a.cfg.Node)
	if err != nil {
		return 0, err
	}
	if node.Spec.BGP != nil && node.Spec.BGP.ASNumber != nil {
		return uint32(*node.Spec.BGP.ASNumber), nil
	}
	cfg, err := client.Get[v3.BGPConfiguration](ctx, a.client, "", v3.DefaultName)
	if err == nil && cfg.Spec.ASNumber != nil {
		return uint32(*cfg.Spec.ASNumber), nil
	}
	if errors.Is(err, client.ErrUnreadable) { // as the core has it: see feed.Config
		last, lerr := a.lastRead(ctx)
		if c, ok := last[model.ID{Kind: model.KindBGPConfig, Name: v3.DefaultName}].(*model.BGPConfig); lerr == nil && ok {
			return cmp.Or(c.AS, defaultAS), nil
		}
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, err
	}
	return defaultAS, nil
}
