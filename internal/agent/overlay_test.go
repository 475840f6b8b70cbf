package agent

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/bgp"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/reconcile"
	"github.com/brindle-net/brindle/internal/store/mem"
	"github.com/brindle-net/brindle/internal/tunnel"
)

func poolEvent(name, cidr string, e model.Encap) model.Event {
	return model.Event{ID: model.ID{Kind: model.KindPool, Name: name}, Value: &model.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), Encap: e}}
}

func settings(t *testing.T, spec v3.FelixConfigurationSpec) config.Agent {
	t.Helper()
	o := &v3.FelixConfiguration{Spec: spec}
	o.Name = v3.DefaultName
	r, err := config.Resolve(config.Sources{Node: "h1", Objects: []*v3.FelixConfiguration{o}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Agent
}

func TestWorkloadsFitThroughEveryTunnel(t *testing.T) {
	v4, v6 := "10.1.0.0/16", "fd00::/64"
	type spec = v3.FelixConfigurationSpec
	for _, tt := range []struct {
		name  string
		in    spec
		pools []model.Event
		host  int
		want  int
	}{
		{"no tunnel", spec{}, []model.Event{poolEvent("a", v4, model.NoEncap)}, 1500, 1500},
		{"ip in ip", spec{}, []model.Event{poolEvent("a", v4, model.IPIP)}, 1500, 1480},
		{"vxlan", spec{}, []model.Event{poolEvent("a", v4, model.VXLAN)}, 1500, 1450},
		{"vxlan for IPv6", spec{}, []model.Event{poolEvent("a", v6, model.VXLAN)}, 1500, 1430},
		{"large packets", spec{}, []model.Event{poolEvent("a", v4, model.VXLAN)}, 9001, 8951},
		{"several", spec{}, []model.Event{poolEvent("a", v4, model.IPIP), poolEvent("b", v6, model.VXLAN)}, 1460, 1390},
		{"configured", spec{VXLANMTU: new(1400)}, []model.Event{poolEvent("a", v4, model.VXLAN)}, 1500, 1400},
		{"switched off", spec{VXLANEnabled: new(false)}, []model.Event{poolEvent("a", v4, model.VXLAN)}, 1500, 1500},
		{"switched on", spec{IPIPEnabled: new(true)}, nil, 1500, 1480},
		{"without IPv6", spec{IPv6Support: new(false)}, []model.Event{poolEvent("a", v6, model.VXLAN)}, 1500, 1500},
		{"not known", spec{}, []model.Event{poolEvent("a", v4, model.VXLAN)}, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOverlay(settings(t, tt.in))
			o.setMTU(tt.host)
			o.found(nil, time.Time{})
			o.note(tt.pools, time.Time{})
			if got := o.workloadMTU(); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// TestUnderlayIsToldInOrder lets two find out what is new one after the other,
// of whom the first is slow. It has nothing to do with a family.
func TestUnderlayIsToldInOrder(t *testing.T) {
	o := newOverlay(settings(t, v3.FelixConfigurationSpec{}))
	o.setMTU(1400)
	var told []int
	inside, slow, second := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var tellers sync.WaitGroup
	tellers.Go(func() {
		o.tell(time.Time{}, func(u *model.Underlay) {
			close(inside)
			<-slow
			told = append(told, u.MTU)
		})
	})
	<-inside
	o.setMTU(1500)
	tellers.Go(func() {
		close(second)
		o.tell(time.Time{}, func(u *model.Underlay) { told = append(told, u.MTU) })
	})
	<-second
	for range 1000 {
		runtime.Gosched() // whoever does not wait for its turn goes ahead now
	}
	close(slow)
	tellers.Wait()
	if want := []int{1400, 1500}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	o.tell(time.Time{}, func(u *model.Underlay) {
		if u != nil {
			t.Errorf("told again: %+v", u)
		}
	})
}

func TestTunnelsFoundAtTheStartAreKept(t *testing.T) {
	start := time.Unix(1e9, 0)
	o := newOverlay(settings(t, v3.FelixConfigurationSpec{}))
	o.found(map[string]desired.Device{desired.DeviceIPIP: {}, desired.DeviceVXLAN4: {}}, start)
	o.setReady(desired.DeviceIPIP, true)
	o.note([]model.Event{poolEvent("a", "10.1.0.0/16", model.VXLAN)}, start)
	for _, tt := range []struct {
		after   time.Duration
		keep    desired.Forms
		accepts string
		wish    tunnel.Wish
	}{
		{0, desired.FormsOf(desired.IPIP), "direct,ipip", tunnel.Keep},
		{keepTunnels - sayBefore, desired.FormsOf(desired.IPIP), "direct", tunnel.Keep},
		{keepTunnels, 0, "direct", tunnel.Drop},
	} {
		now := start.Add(tt.after)
		if u, isNew := o.underlay(now); isNew && u.Keep != tt.keep {
			t.Errorf("after %v: kept %v, want %v", tt.after, u.Keep, tt.keep)
		}
		if got := o.accepted(now).String(); got != tt.accepts {
			t.Errorf("after %v: accepted %s, want %s", tt.after, got, tt.accepts)
		}
		w := o.wishes(now)
		if w[ipam.TypeIPIPTunnel] != tt.wish || w[ipam.TypeVXLANTunnel] != tunnel.Hold {
			t.Errorf("after %v: wishes %v, want %v", tt.after, w, tt.wish)
		}
	}
	if got := o.next(start); got != start.Add(keepTunnels-sayBefore) {
		t.Errorf("the next change is at %v", got)
	}
	if got := o.next(start.Add(keepTunnels)); !got.IsZero() {
		t.Errorf("something still changes at %v", got)
	}
}

func TestADeviceWaitsForItsAddress(t *testing.T) {
	a, b := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1")
	pools := []model.Event{poolEvent("a", "10.1.0.0/16", model.VXLAN), poolEvent("b", "fd00::/64", model.VXLAN)}
	for _, tt := range []struct {
		name      string
		pools     []model.Event
		held      map[string]netip.Addr
		told      model.Underlay
		four, six bool
	}{
		{"not looked yet", pools, nil, model.Underlay{}, true, true},
		{"held", pools, map[string]netip.Addr{ipam.TypeVXLANTunnel: a, ipam.TypeVXLANV6Tunnel: b}, model.Underlay{}, true, true},
		{"passed on", pools, map[string]netip.Addr{ipam.TypeVXLANTunnel: a, ipam.TypeVXLANV6Tunnel: b}, model.Underlay{VXLAN4: a, VXLAN6: b}, false, false},
		{"one of them", pools, map[string]netip.Addr{ipam.TypeVXLANTunnel: a, ipam.TypeVXLANV6Tunnel: b}, model.Underlay{VXLAN4: a}, false, true},
		{"none to be had", pools, map[string]netip.Addr{ipam.TypeVXLANTunnel: {}, ipam.TypeVXLANV6Tunnel: b}, model.Underlay{VXLAN6: b}, false, false},
		{"nobody asks", nil, nil, model.Underlay{}, false, false},
	} {
		o := newOverlay(settings(t, v3.FelixConfigurationSpec{}))
		o.note(tt.pools, time.Time{})
		o.setHeld(tt.held)
		if four, six := o.awaits(desired.DeviceVXLAN4, tt.told), o.awaits(desired.DeviceVXLAN6, tt.told); four != tt.four || six != tt.six {
			t.Errorf("%s: waits %v, %v", tt.name, four, six)
		}
	}
}

func TestLostAddressesAreNoticed(t *testing.T) {
	cidr := netip.MustParsePrefix("fd00:1::/122")
	addr := netip.MustParseAddr("fd00:1::7")
	mine := map[string]tunnelAddr{"x": {addr, "h"}}
	block := func(uses ...model.Use) model.Event {
		return model.Event{ID: model.BlockID(cidr), Value: &model.Block{CIDR: cidr, Uses: uses}}
	}
	for _, tt := range []struct {
		name string
		in   model.Event
		want bool
	}{
		{"ours", block(model.Use{Addr: addr, Handle: "h"}), false},
		{"released", block(), true},
		{"somebody else's", block(model.Use{Addr: addr, Handle: "g"}), true},
		{"no block", model.Event{ID: model.BlockID(cidr)}, true},
		{"another block", model.Event{ID: model.BlockID(netip.MustParsePrefix("10.0.0.0/26"))}, false},
	} {
		if got := lost(tt.in, mine); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// world is a table that takes whatever is wanted, once it is allowed to.
type world[K comparable, V any] struct {
	open chan struct{} // closed: it takes changes
	gone func(K)       // told of deletions
	mu   sync.Mutex    // guards have
	have map[K]V
}

func newWorld[K comparable, V any](gone func(K)) *world[K, V] {
	return &world[K, V]{open: make(chan struct{}), gone: gone, have: map[K]V{}}
}

func (w *world[K, V]) List(context.Context) (map[K]V, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[K]V{}
	for k, v := range w.have {
		out[k] = v
	}
	return out, nil
}

func (w *world[K, V]) Apply(ctx context.Context, p reconcile.Plan[K, V]) map[K]error {
	select {
	case <-w.open:
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range p.Set {
		w.have[e.Key] = e.Value
	}
	for _, k := range p.Delete {
		delete(w.have, k)
		w.gone(k)
	}
	return nil
}

func (w *world[K, V]) has(k K) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.have[k]
	return ok
}

// ruled is policy as far as it is about tunnels, which nobody enforces.
type ruled struct {
	open chan struct{} // closed: it is in force
	mu   sync.Mutex    // guards everything below
	want map[string]netip.Addr
	now  map[string]netip.Addr
	took []policyPatch
}

func (r *ruled) Take(p policyPatch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.Tunnels.Play(r.want)
	r.took = append(r.took, p)
}

// last is the patch that came last.
func (r *ruled) last(t *testing.T) policyPatch {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.took) == 0 {
		t.Fatal("there was no policy")
	}
	return r.took[len(r.took)-1]
}

func (r *ruled) Sync(ctx context.Context, _ bool) error {
	select {
	case <-r.open:
	case <-ctx.Done():
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = maps.Clone(r.want)
	return nil
}

func (r *ruled) has(device string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.now[device]
	return ok
}

// kernelOf is what a host's tunnels are in.
type kernelOf struct {
	devices   *world[string, desired.Device]
	links     *world[string, desired.Link]
	addresses *world[desired.AddrKey, struct{}]
	rules     *ruled
}

func newKernelOf() kernelOf {
	return kernelOf{
		devices: newWorld[string, desired.Device](func(string) {}), links: newWorld[string, desired.Link](func(string) {}),
		addresses: newWorld[desired.AddrKey, struct{}](func(desired.AddrKey) {}),
		rules:     &ruled{open: make(chan struct{}), want: map[string]netip.Addr{}},
	}
}

// TestATunnelComesAndGoes follows a host from before it has a tunnel until
// after: others hear that it accepts packets, and of its address, when they
// can come, and no longer before they cannot. The interface is never there
// without the rules that say who may send.
func TestATunnelComesAndGoes(t *testing.T) {
	for name, pool := range map[string]*v3.IPPoolSpec{
		"v4": {CIDR: "10.1.0.0/16", BlockSize: 26}, "v6": {CIDR: "fd00:1::/64", BlockSize: 122},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { comesAndGoes(t, pool, name == "v6") }) })
	}
}

func comesAndGoes(t *testing.T, spec *v3.IPPoolSpec, six bool) {
	db := mem.New()
	a := hostOf(t, db, "h1", "172.30.0.1/24")
	a.cfg.Driver, a.cfg.Log, a.cfg.Settings.Startup.IP6 = db, a.log, "fd01::1/64"
	device, kind := desired.DeviceVXLAN4, ipam.TypeVXLANTunnel
	if six {
		device, kind = desired.DeviceVXLAN6, ipam.TypeVXLANV6Tunnel
	}
	node := func() (accepts, addr string) {
		t.Helper()
		n, err := client.Get[v3.Node](t.Context(), a.client, "", "h1")
		if err != nil {
			t.Fatal(err)
		}
		return n.Annotations[model.AnnotationAccepts], n.Spec.IPv4VXLANTunnelAddr + n.Spec.IPv6VXLANTunnelAddr
	}
	atEnd, ruledAtEnd, k := "", false, newKernelOf()
	k.devices.gone = func(name string) {
		atEnd, _ = node()
		ruledAtEnd = k.rules.has(name)
	}
	close(k.links.open)
	stop := startOverlay(t, a, k)
	defer stop()

	p := &v3.IPPool{Spec: *spec}
	p.Name, p.Spec.VXLANMode = "p", v3.EncapAlways
	if _, err := client.Create(t.Context(), a.client, p); err != nil {
		t.Fatal(err)
	}
	check := func(when, wantAccepts string, wantAddr, wantDevice bool) {
		t.Helper()
		synctest.Wait()
		accepts, addr := node()
		if accepts != wantAccepts || (addr != "") != wantAddr || k.devices.has(device) != wantDevice {
			t.Errorf("%s: the node says it accepts %q and has the address %q; the device is there: %v", when, accepts, addr, k.devices.has(device))
		}
	}
	close(k.devices.open)
	time.Sleep(time.Minute)
	check("before the rules are in force", "direct", false, false)
	close(k.rules.open)
	time.Sleep(time.Minute)
	check("before the device has its address", "direct", false, true)
	close(k.addresses.open)
	time.Sleep(time.Second)
	check("with all", "direct,vxlan", true, true)
	if _, err := client.Modify(t.Context(), a.client, "", "p", func(p *v3.IPPool) error {
		p.Spec.VXLANMode = v3.EncapNever
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(keepTunnels - sayBefore - time.Second)
	check("while it is kept", "direct,vxlan", true, true)
	time.Sleep(10 * time.Second)
	check("before its end", "direct", true, true)
	time.Sleep(sayBefore + time.Second)
	check("after its end", "direct", false, false)
	if atEnd != "direct" {
		t.Errorf("the device went while the node said that it accepts %s", atEnd)
	}
	if !ruledAtEnd || k.rules.has(device) {
		t.Errorf("rules about it were there when the device went: %v; and are now: %v", ruledAtEnd, k.rules.has(device))
	}
	left, err := a.workloadIPAM().UsesByHandle(t.Context(), ipam.TunnelHandle(kind, "h1"))
	if err != nil || len(left) > 0 {
		t.Errorf("addresses are left: %v, %v", left, err)
	}
}

// startOverlay runs the part of an agent that knows of tunnels, on a kernel
// that is none.
func startOverlay(t *testing.T, a *agent, k kernelOf) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	a.engine.init(a.cfg, nil)
	a.notices, a.speaker = newNotices(), bgp.New(bgp.Config{Log: a.log})
	a.tables = newTables(nil, a.speaker, paceOf(a.cfg.Settings), a.log)
	a.tables.devices = loop(k.devices, how{"devices", never, a.log}, cmp.Compare[string], same[desired.Device])
	a.tables.addresses = loop(k.addresses, how{"addresses", never, a.log}, kernel.CompareAddrs, same[struct{}])
	a.tables.links = loop(k.links, how{"links", never, a.log}, cmp.Compare[string], same[desired.Link])
	a.policy = &enforcement{loop: reconcile.NewWhole(k.rules, reconcile.WholeConfig{Name: "policy", Resync: never, MaxRetry: maxRetry, Log: a.log})}
	a.addresses = tunnel.New(tunnel.Config{Node: "h1", Client: a.client, IPAM: a.workloadIPAM(), Log: a.log,
		Settings: func(ctx context.Context) (*ipam.Settings, error) { return ipam.ReadSettings(ctx, a.cfg.Driver) }, Held: a.overlay.setHeld})
	a.foundDevices(nil)
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{
		a.tables.devices.Run, a.tables.links.Run, a.tables.addresses.Run, a.policy.loop.Run, a.keepGate, a.register, a.follow, a.watchOverlay, a.addresses.Run, a.sayAccepts,
	} {
		wg.Go(func() { _ = run(ctx) }) // ends with ctx
	}
	return func() { cancel(); wg.Wait() }
}

// workloadIPAM is a manager of addresses of its own.
func (a *agent) workloadIPAM() *ipam.Manager {
	return ipam.New(ipam.Config{Driver: a.cfg.Driver})
}

func TestAHostWithoutNetworkingNeedsNoAddress(t *testing.T) {
	a := hostOf(t, mem.New(), "h1", "")
	a.cfg.Settings.Overlay.Backend = config.BackendNone
	if err := a.registerOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	n, err := client.Get[v3.Node](t.Context(), a.client, "", "h1")
	if err != nil || n.Spec.BGP != nil {
		t.Errorf("%v, %+v", err, n)
	}
	o := newOverlay(a.cfg.Settings)
	o.note([]model.Event{poolEvent("a", "10.1.0.0/16", model.VXLAN)}, time.Time{})
	if w := o.wishes(time.Time{}); len(w) > 0 {
		t.Errorf("wishes %v", w)
	}
}

func TestSendersOfIPInIP(t *testing.T) { // which is IPv4 only
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	hosts, networks := senders(map[netip.Prefix]bool{p("172.30.0.12/32"): true, p("172.30.0.11/32"): false, p("192.0.2.0/30"): true, p("172.30.0.2/32"): true})
	if !slices.Equal(hosts, []netip.Addr{a("172.30.0.2"), a("172.30.0.12")}) || !slices.Equal(networks, []netip.Prefix{p("192.0.2.0/30")}) {
		t.Errorf("got %v, %v", hosts, networks)
	}
}
