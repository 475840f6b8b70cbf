package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/model"
)

// accepts is what this host's Node says of the forms in which packets may
// come. A form is said when its device is there with its address, what takes
// off the wrapping, and rules in force that let known hosts send by it, and no
// longer said before any of that ends. Without the address the kernel drops
// what comes while answers still leave another way: it finds no reverse path.
type accepts struct {
	mu      sync.Mutex // guards everything below
	devices map[string]desired.Device
	found   map[string]desired.Device // at the start, until the core has said what it wants
	patch   uint64                    // of policy, that came with the devices
	addrs   map[string]netip.Addr     // on the devices
	told    model.Underlay            // what the core knows
	said    string                    // by the Node, as far as is known
	changed chan struct{}             // closed and replaced at every change
	failed  error
}

func newAccepts() *accepts {
	return &accepts{devices: map[string]desired.Device{}, addrs: map[string]netip.Addr{}, changed: make(chan struct{})}
}

// stir says that something has changed.
func (c *accepts) stir() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

// standing is what to go by at a time.
type standing struct {
	devices map[string]desired.Device
	addrs   map[string]netip.Addr
	patch   uint64
	told    model.Underlay
	said    string
	changed <-chan struct{}
}

func (c *accepts) state() standing {
	c.mu.Lock()
	defer c.mu.Unlock()
	return standing{maps.Clone(c.devices), maps.Clone(c.addrs), c.patch, c.told, c.said, c.changed}
}

// noteTold takes what the core has been told.
func (c *accepts) noteTold(events []model.Event) {
	for _, e := range events {
		if u, ok := e.Value.(*model.Underlay); ok {
			c.mu.Lock()
			c.told = *u
			c.mu.Unlock()
			c.stir()
		}
	}
}

// foundDevices takes the devices that there are at the start: packets may come
// by them, as the process before this one has said.
func (a *agent) foundDevices(devices map[string]desired.Device) {
	a.accepts.found, a.gate.found = devices, maps.Clone(devices)
	a.overlay.found(devices, time.Now())
	for name := range devices {
		a.overlay.setReady(name, true)
	}
}

// noteDevices takes what devices the core wants, and the number of the patch
// of policy that came with them. One that changes is not ready.
func (a *agent) noteDevices(u desired.Update, patch uint64) {
	c, p := a.accepts, u.Devices
	c.mu.Lock()
	gone := slices.Clone(p.Delete)
	for name, d := range p.Set {
		old, had := c.devices[name]
		if !had {
			old, had = c.found[name]
		}
		if !had || !kernel.EqualDevices(d, old) {
			gone = append(gone, name)
		}
	}
	p.Play(c.devices)
	for name := range c.found {
		if _, wanted := c.devices[name]; !wanted {
			gone = append(gone, name)
		}
	}
	stir := !p.Empty() || c.found != nil || !u.Addresses.Empty()
	c.noteAddrs(u.Addresses)
	c.found, c.patch = nil, max(patch, c.patch)
	c.mu.Unlock()
	for _, name := range gone {
		a.overlay.setReady(name, false)
	}
	if stir {
		c.stir()
	}
}

// noteAddrs takes which addresses the devices have. c.mu is held.
func (c *accepts) noteAddrs(p desired.Patch[desired.AddrKey, struct{}]) {
	for _, k := range p.Delete {
		if c.addrs[k.Interface] == k.Prefix.Addr() {
			delete(c.addrs, k.Interface)
		}
	}
	for k := range p.Set {
		c.addrs[k.Interface] = k.Prefix.Addr()
	}
}

// noteSaid takes what this host's Node says.
func (a *agent) noteSaid(events []model.Event) {
	own := model.ID{Kind: model.KindNode, Name: a.cfg.Node}
	for _, e := range events {
		if e.ID != own {
			continue
		}
		said := ""
		if n, ok := e.Value.(*model.Node); ok && n.Speaks {
			said = n.Accepts.String()
		}
		a.accepts.mu.Lock()
		a.accepts.said = said
		a.accepts.mu.Unlock()
		a.accepts.stir()
	}
}

// How long the Node is tried again after.
const (
	acceptsMinRetry = 200 * time.Millisecond
	acceptsMaxRetry = 10 * time.Second
)

// sayAccepts keeps the Node's word true until ctx ends.
func (a *agent) sayAccepts(ctx context.Context) error {
	pause := acceptsMinRetry
	for {
		changed := a.accepts.state().changed
		var again <-chan time.Time // nil: when something changes
		err := a.sayAcceptsOnce(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.accepts.mu.Lock()
		a.accepts.failed = err
		a.accepts.mu.Unlock()
		switch {
		case errors.Is(err, context.Canceled): // something has changed meanwhile
			continue
		case err != nil:
			a.log.WarnContext(ctx, "accepted forms not written", "retry_in", pause, "err", err)
			again, pause = time.After(pause), min(2*pause, acceptsMaxRetry)
		default:
			pause = acceptsMinRetry
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-again:
		}
	}
}

// sayAcceptsOnce says what holds now, first that less is accepted, then that
// more is once it is.
func (a *agent) sayAcceptsOnce(ctx context.Context) error {
	if !a.inSync.Load() {
		return nil
	}
	now := a.accepts.state()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case <-now.changed:
			cancel()
		case <-stop:
		}
	})
	defer watcher.Wait()
	defer close(stop)
	if err := a.writeAccepts(ctx, now.said); err != nil {
		return err
	}
	var waiting sync.WaitGroup
	defer waiting.Wait()
	for name := range now.devices {
		waiting.Go(func() {
			if a.deviceReady(ctx, name, now) == nil { // else ctx has ended
				a.overlay.setReady(name, true) // which comes back here, by refreshOverlay
			}
		})
	}
	return nil
}

// deviceReady waits until packets may come by a device.
func (a *agent) deviceReady(ctx context.Context, name string, now standing) error {
	d := now.devices[name]
	is := func(_ string, have desired.Device) bool { return have == d }
	if err := a.tables.devices.WaitMatch(ctx, is, name); err != nil {
		return err
	}
	if err := a.tables.links.WaitApplied(ctx, name); err != nil {
		return err
	}
	if d.Form == desired.IPIP {
		if err := a.carrier.wait(ctx, d.Local); err != nil {
			return err
		}
	}
	if err := a.addressed(ctx, name, now); err != nil || now.patch == 0 {
		return err
	}
	return a.policy.loop.Wait(ctx, now.patch)
}

// addressed waits until a device has the address that is held for it. One for
// which none is to be had does without.
func (a *agent) addressed(ctx context.Context, name string, now standing) error {
	if a.overlay.awaits(name, now.told) {
		<-ctx.Done() // it is about to change
		return ctx.Err()
	}
	addr, wanted := now.addrs[name]
	if !wanted {
		return nil
	}
	return a.tables.addresses.WaitApplied(ctx, desired.AddrKey{Interface: name, Prefix: netip.PrefixFrom(addr, addr.BitLen())})
}

// writeAccepts makes the Node say what is accepted.
func (a *agent) writeAccepts(ctx context.Context, said string) error {
	want := a.overlay.accepted(time.Now()).String()
	if want == said {
		return nil
	}
	_, err := client.Modify(ctx, a.client, "", a.cfg.Node, func(n *v3.Node) error {
		if n.Annotations == nil {
			n.Annotations = map[string]string{}
		}
		n.Annotations[model.AnnotationAccepts] = want
		return nil
	})
	if client.IsNotFound(err) {
		return nil // its registration comes round as an event
	}
	if err != nil {
		return fmt.Errorf("say in Node %s that %s is accepted: %w", a.cfg.Node, want, err)
	}
	a.accepts.mu.Lock()
	a.accepts.said = want
	a.accepts.mu.Unlock()
	a.log.InfoContext(ctx, "forms of packets accepted", "forms", want, "was", said)
	return nil
}

// tunnelAddr is an address of a tunnel that this host has.
type tunnelAddr struct {
	addr   netip.Addr
	handle string
}

// tunnelAddrs are those that this host's Node says, by kind.
func (a *agent) tunnelAddrs() map[string]tunnelAddr {
	out := map[string]tunnelAddr{}
	for kind, addr := range a.addresses.Addresses() {
		out[kind] = tunnelAddr{addr, ipam.TunnelHandle(kind, a.cfg.Node)}
	}
	return out
}

// lost reports whether an event of a block says that one of these addresses is
// no longer what it was.
func lost(e model.Event, addrs map[string]tunnelAddr) bool {
	for _, t := range addrs {
		cidr, err := netip.ParsePrefix(e.ID.Name)
		if err != nil || !cidr.Contains(t.addr) {
			continue
		}
		b, ok := e.Value.(*model.Block)
		if !ok || !slices.ContainsFunc(b.Uses, func(u model.Use) bool { return u.Addr == t.addr && u.Handle == t.handle }) {
			return true
		}
	}
	return false
}
