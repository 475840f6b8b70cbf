package agent

import (
	"context"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/tunnel"
)

// keepTunnels is how long this host goes on receiving by a tunnel after no
// pool asks for it any more: hosts that are cut off, or slow, may send by it
// until they hear of the change.
const keepTunnels = 10 * time.Minute

// sayBefore is how long before the end of that the Node stops saying so.
const sayBefore = time.Minute

// tunnelEnd is one of the tunnels that a host may have an end of.
type tunnelEnd struct {
	device string
	kind   string // of its address in IPAM
	form   desired.Form
	family int
}

func tunnelEnds() []tunnelEnd {
	return []tunnelEnd{
		{desired.DeviceIPIP, ipam.TypeIPIPTunnel, desired.IPIP, 4},
		{desired.DeviceVXLAN4, ipam.TypeVXLANTunnel, desired.VXLAN, 4},
		{desired.DeviceVXLAN6, ipam.TypeVXLANV6Tunnel, desired.VXLAN, 6},
	}
}

// overlay knows which tunnels pools ask for, and which they did a while ago.
type overlay struct {
	cfg  config.Overlay
	ipv6 bool

	telling sync.Mutex // held from finding out what is new until the core has it

	mu    sync.Mutex            // guards everything below
	mtu   int                   // of the host; 0: not known
	pools map[model.ID]string   // what each asks for, by device
	asked map[string]bool       // by device
	until map[string]time.Time  // when to stop receiving by a device that nobody asks for
	told  *model.Underlay       // what the core was told last; nil: nothing yet
	wake  chan struct{}         // capacity 1: something has changed
	ready map[string]bool       // devices that packets may come by
	held  map[string]netip.Addr // addresses of this host's ends, by kind; invalid: none is to be had
}

func newOverlay(s config.Agent) *overlay {
	return &overlay{cfg: s.Overlay, ipv6: s.IPv6, pools: map[model.ID]string{}, asked: map[string]bool{},
		until: map[string]time.Time{}, ready: map[string]bool{}, held: map[string]netip.Addr{}, wake: make(chan struct{}, 1)}
}

// configure takes those of other settings that change while the agent runs.
func (o *overlay) configure(s config.Overlay, now time.Time) {
	o.mu.Lock()
	o.cfg.IPIP, o.cfg.VXLAN = s.IPIP, s.VXLAN
	o.cfg.IPIPMTU, o.cfg.VXLANMTU, o.cfg.VXLANMTU6 = s.IPIPMTU, s.VXLANMTU, s.VXLANMTU6
	o.sum(now)
	o.mu.Unlock()
	o.stir()
}

// found takes the devices that there are at the start: others may send to
// them, whatever pools ask for by now.
func (o *overlay) found(devices map[string]desired.Device, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name := range devices {
		o.until[name] = now.Add(keepTunnels)
	}
	o.sum(now)
}

// note takes what has changed, and reports whether what pools ask for has.
func (o *overlay) note(events []model.Event, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	pools := false
	for _, e := range events {
		if e.ID.Kind != model.KindPool {
			continue
		}
		pools = true
		delete(o.pools, e.ID)
		if p, ok := e.Value.(*model.Pool); ok {
			if device := deviceOf(p); device != "" {
				o.pools[e.ID] = device
			}
		}
	}
	return pools && o.sum(now)
}

// deviceOf is the device of the tunnel that a pool asks for, "" for none.
func deviceOf(p *model.Pool) string {
	switch {
	case p.Encap == model.IPIP:
		return desired.DeviceIPIP
	case p.Encap == model.VXLAN && p.CIDR.Addr().Is6():
		return desired.DeviceVXLAN6
	case p.Encap == model.VXLAN:
		return desired.DeviceVXLAN4
	}
	return ""
}

// sum works out what is asked for, and reports whether that has changed. o.mu
// is held.
func (o *overlay) sum(now time.Time) bool {
	asked := map[string]bool{}
	for _, device := range o.pools {
		asked[device] = true
	}
	for device, says := range map[string]*bool{desired.DeviceIPIP: o.cfg.IPIP, desired.DeviceVXLAN4: o.cfg.VXLAN} {
		if says != nil {
			asked[device] = *says
		}
	}
	if !o.ipv6 {
		delete(asked, desired.DeviceVXLAN6)
	}
	maps.DeleteFunc(asked, func(_ string, is bool) bool { return !is })
	for device := range o.asked {
		if !asked[device] {
			o.until[device] = now.Add(keepTunnels)
		}
	}
	for device := range asked {
		delete(o.until, device)
	}
	changed := !maps.Equal(asked, o.asked)
	o.asked = asked
	return changed
}

// keeps reports whether this host still receives by a device that nobody asks
// for, at a time. o.mu is held.
func (o *overlay) keeps(device string, at time.Time) bool { return o.until[device].After(at) }

// underlay returns what the core must be told now; false: nothing new.
func (o *overlay) underlay(now time.Time) (*model.Underlay, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	u := model.Underlay{MTU: o.mtu}
	for _, e := range tunnelEnds() {
		if o.keeps(e.device, now) {
			u.Keep |= desired.FormsOf(e.form)
		}
	}
	u.IPIP, u.VXLAN4, u.VXLAN6 = o.held[ipam.TypeIPIPTunnel], o.held[ipam.TypeVXLANTunnel], o.held[ipam.TypeVXLANV6Tunnel]
	if o.told != nil && *o.told == u {
		return nil, false
	}
	o.told = &u
	return &u, true
}

// tell hands on what the core must be told now, nil if nothing is new. Calls
// take turns, so that the core is told last what was so last: of two that found
// out one after the other, the first must not come after the second.
func (o *overlay) tell(now time.Time, hand func(*model.Underlay)) {
	o.telling.Lock()
	defer o.telling.Unlock()
	u, isNew := o.underlay(now)
	if !isNew {
		u = nil
	}
	hand(u)
}

// wishes is which addresses of tunnels this host should have.
func (o *overlay) wishes(now time.Time) map[string]tunnel.Wish {
	out := map[string]tunnel.Wish{}
	if o.cfg.Backend == config.BackendNone {
		return out
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range tunnelEnds() {
		switch {
		case o.asked[e.device] && !o.pooled(e.device), o.keeps(e.device, now):
			out[e.kind] = tunnel.Keep // no pool has one
		case o.asked[e.device] && o.ready[e.device]:
			out[e.kind] = tunnel.Have
		case o.asked[e.device]:
			out[e.kind] = tunnel.Hold
		}
	}
	return out
}

// pooled reports whether a pool asks for a device, rather than the settings
// alone. o.mu is held.
func (o *overlay) pooled(device string) bool {
	for _, d := range o.pools {
		if d == device {
			return true
		}
	}
	return false
}

// accepted are the forms that others may be told to send by.
func (o *overlay) accepted(now time.Time) desired.Forms {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := desired.FormsOf(desired.Direct)
	for _, e := range tunnelEnds() {
		if o.ready[e.device] && (o.asked[e.device] || o.keeps(e.device, now.Add(sayBefore))) {
			out |= desired.FormsOf(e.form)
		}
	}
	return out
}

// setReady says whether packets may come by a device.
func (o *overlay) setReady(device string, is bool) {
	o.mu.Lock()
	changed := o.ready[device] != is
	o.ready[device] = is
	o.mu.Unlock()
	if changed {
		o.stir()
	}
}

// setHeld takes which addresses this host has for its ends of tunnels, whether
// its Node says them or not, by kind; invalid: none is to be had.
func (o *overlay) setHeld(held map[string]netip.Addr) {
	o.mu.Lock()
	changed := !maps.Equal(held, o.held)
	o.held = maps.Clone(held)
	o.mu.Unlock()
	if changed {
		o.stir()
	}
}

// awaits reports whether the address of a device that pools ask for is still
// to come: taken from them, or passed on to the core, which has been told this.
func (o *overlay) awaits(device string, told model.Underlay) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range tunnelEnds() {
		if e.device != device {
			continue
		}
		passed := told.VXLAN(e.family)
		if e.form == desired.IPIP {
			passed = told.IPIP
		}
		held, looked := o.held[e.kind]
		return o.cfg.Backend != config.BackendNone && o.asked[device] && o.pooled(device) && (!looked || held != passed)
	}
	return false
}

// setMTU says what the host's MTU is.
func (o *overlay) setMTU(mtu int) {
	o.mu.Lock()
	changed := o.mtu != mtu
	o.mtu = mtu
	o.mu.Unlock()
	if changed {
		o.stir()
	}
}

// stir says that something has changed.
func (o *overlay) stir() {
	poke(o.wake)
}

// next is when time alone changes something; zero: never.
func (o *overlay) next(now time.Time) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	var first time.Time
	for _, end := range o.until {
		for _, at := range []time.Time{end.Add(-sayBefore), end} {
			if at.After(now) && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
	}
	return first
}

// workloadMTU is that of new workloads' interfaces: what fits through every
// tunnel that is asked for. 0: not known.
func (o *overlay) workloadMTU() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	least := o.mtu
	for _, e := range tunnelEnds() {
		if o.asked[e.device] && o.mtu != 0 {
			least = min(least, o.tunnelMTU(e))
		}
	}
	return least
}

// tunnelMTU is that of a tunnel's device: as configured, or what is left of
// the host's. o.mu is held.
func (o *overlay) tunnelMTU(e tunnelEnd) int {
	set := map[string]int{
		desired.DeviceIPIP: o.cfg.IPIPMTU, desired.DeviceVXLAN4: o.cfg.VXLANMTU, desired.DeviceVXLAN6: o.cfg.VXLANMTU6,
	}[e.device]
	if set != 0 {
		return set
	}
	return max(0, o.mtu-desired.Overhead(e.form, e.family))
}

// standing is how a tunnel of this host is. until is zero while it is asked for.
func (o *overlay) standing(e tunnelEnd) (mtu int, ready bool, until time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tunnelMTU(e), o.ready[e.device], o.until[e.device]
}

// watchOverlay tells the core, and who keeps addresses, what time and the host
// change.
func (a *agent) watchOverlay(ctx context.Context) error {
	for {
		var due <-chan time.Time // nil: nothing ends by itself
		if at := a.overlay.next(time.Now()); !at.IsZero() {
			due = time.After(time.Until(at) + time.Millisecond)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.overlay.wake:
		case <-due:
		}
		a.refreshOverlay(ctx)
	}
}

// refreshOverlay passes on what is so now.
func (a *agent) refreshOverlay(ctx context.Context) {
	if !a.inSync.Load() {
		return // the first batch carries it
	}
	a.overlay.tell(time.Now(), func(u *model.Underlay) {
		if u != nil {
			a.apply(ctx, []model.Event{{ID: model.UnderlayID(), Value: u}})
		}
	})
	a.setWorkloadMTU()
	a.addresses.Want(a.overlay.wishes(time.Now()))
	a.accepts.stir()
}

// applyBatch takes what a batch says of tunnels, and hands the batch to the core
// with what it must have beside it.
func (a *agent) applyBatch(ctx context.Context, events []model.Event) {
	now := time.Now()
	a.pools.note(events)
	changed := a.overlay.note(events, now)
	if a.concernsAddresses(events) {
		a.addresses.Wake()
	}
	a.setWorkloadMTU()
	a.overlay.tell(now, func(u *model.Underlay) {
		if u != nil {
			events = append(events, model.Event{ID: model.UnderlayID(), Value: u})
		}
		a.apply(ctx, events)
	})
	if changed {
		a.overlay.stir()
	}
}

// concernsAddresses reports whether events may change what addresses of
// tunnels this host has: pools, its Node, the loss of one of them.
func (a *agent) concernsAddresses(events []model.Event) bool {
	var addrs map[string]tunnelAddr
	for _, e := range events {
		switch e.ID.Kind {
		case model.KindPool:
			return true
		case model.KindNode:
			if e.ID.Name == a.cfg.Node {
				return true
			}
		case model.KindBlock:
			if addrs == nil {
				addrs = a.tunnelAddrs()
			}
			if lost(e, addrs) {
				return true
			}
		}
	}
	return false
}
