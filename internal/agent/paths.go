package agent

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/health"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/paths"
	"github.com/brindle-net/brindle/internal/store"
)

// probes tells the monitor of paths which tunnels are in use, and to whom.
type probes struct {
	monitor *paths.Monitor // nil: switched off
	wake    chan struct{}  // capacity 1: something has changed

	mu      sync.Mutex // guards everything below
	nodes   map[string]*model.Node
	turn    int // where asking peers began last
	devices map[string]desired.Device
	own     map[string]netip.Addr // this host's ends of tunnels, by device
	macs    map[netip.Addr]string // of the others' ends
	routes  map[desired.RouteKey]throughTunnel
	shapes  map[routeShape]int // how many routes have one
}

// routeShape is what two routes of one address cannot share: those that are
// there are few, so an address is looked up with each.
type routeShape struct{ bits, priority int }

func shapeOf(key desired.RouteKey) routeShape { return routeShape{key.Prefix.Bits(), key.Priority} }

// throughTunnel is what matters of a route. device is "" unless it is that of
// a tunnel.
type throughTunnel struct {
	device string
	mtu    int
}

func newProbes(cfg Config, k *kernel.Kernel) *probes {
	p := &probes{wake: make(chan struct{}, 1), nodes: map[string]*model.Node{}, devices: map[string]desired.Device{},
		own: map[string]netip.Addr{}, macs: map[netip.Addr]string{}, routes: map[desired.RouteKey]throughTunnel{}, shapes: map[routeShape]int{}}
	s := cfg.Settings.Probes
	if s.Port == 0 || cfg.Settings.Overlay.Backend == config.BackendNone {
		return p
	}
	p.monitor = paths.New(paths.Config{Port: uint16(s.Port), Offloads: k, OffloadOff: offloadOff(s, cfg), Log: cfg.Log})
	return p
}

// running is the monitor; nil: nothing is measured.
func (p *probes) running() *paths.Monitor {
	if p == nil {
		return nil
	}
	return p.monitor
}

// offloadOff says why the checksum offload of VXLAN is off without being
// measured, "" if it is not.
func offloadOff(s config.Probes, cfg Config) string {
	if s.ChecksumBroken != nil {
		if *s.ChecksumBroken {
			return "featureDetectOverride says ChecksumOffloadBroken=true"
		}
		return ""
	}
	broken, err := kernel.ChecksumsBroken()
	if err != nil {
		cfg.Log.Warn("kernel's version not read", "err", err)
	}
	if broken {
		return "this kernel is older than 5.8"
	}
	return ""
}

// note takes what the datastore says and what the core wants.
func (p *probes) note(events []model.Event, u desired.Update) {
	if p.running() == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := !u.Devices.Empty() || !u.Policy.Tunnels.Empty() || !u.Neighbours.Empty()
	for _, e := range events {
		if e.ID.Kind != model.KindNode {
			continue
		}
		changed = true
		if n, ok := e.Value.(*model.Node); ok && n != nil {
			p.nodes[e.ID.Name] = n
		} else {
			delete(p.nodes, e.ID.Name)
		}
	}
	u.Devices.Play(p.devices)
	u.Policy.Tunnels.Play(p.own)
	for key, n := range u.Neighbours.Set {
		if key.Addr.IsValid() && tunnelDevice(key.Interface) {
			p.macs[key.Addr] = n.MAC
		}
	}
	for _, key := range u.Neighbours.Delete {
		if key.Addr.IsValid() && tunnelDevice(key.Interface) {
			delete(p.macs, key.Addr)
		}
	}
	if p.noteRoutes(u.Routes) || changed {
		p.stir()
	}
}

// noteRoutes takes routes, and reports whether one through a tunnel changed.
// p.mu is held.
func (p *probes) noteRoutes(patch desired.Patch[desired.RouteKey, desired.Route]) (changed bool) {
	set := func(key desired.RouteKey, to *throughTunnel) {
		old, had := p.routes[key]
		if had {
			p.count(key, -1)
			delete(p.routes, key)
		}
		if to != nil {
			p.count(key, 1)
			p.routes[key] = *to
		}
		changed = changed || had && old.device != "" || to != nil && to.device != ""
	}
	for key, r := range patch.Set {
		if key.Table != desired.MainTable {
			continue
		}
		to := throughTunnel{mtu: r.MTU}
		if len(r.Hops) == 1 && tunnelDevice(r.Hops[0].Interface) {
			to.device = r.Hops[0].Interface
		}
		set(key, &to)
	}
	for _, key := range patch.Delete {
		set(key, nil)
	}
	return changed
}

// stir says that something has changed.
func (p *probes) stir() {
	poke(p.wake)
}

// drift says that interfaces or addresses have changed.
func (p *probes) drift() {
	if m := p.running(); m != nil {
		m.Drift()
	}
}

// count counts a route. p.mu is held.
func (p *probes) count(key desired.RouteKey, by int) {
	s := shapeOf(key)
	if p.shapes[s] += by; p.shapes[s] == 0 {
		delete(p.shapes, s)
	}
}

// ordered are the shapes of routes, that of the one that the kernel takes
// first. p.mu is held.
func (p *probes) ordered() []routeShape {
	return slices.SortedFunc(maps.Keys(p.shapes), func(a, b routeShape) int {
		return cmp.Or(cmp.Compare(b.bits, a.bits), cmp.Compare(a.priority, b.priority))
	})
}

// way is the route to an address. p.mu is held.
func (p *probes) way(to netip.Addr, shapes []routeShape) (throughTunnel, bool) {
	for _, s := range shapes {
		prefix, err := to.Prefix(s.bits)
		if err != nil {
			continue // of the other family
		}
		if r, ok := p.routes[desired.RouteKey{Table: desired.MainTable, Prefix: prefix, Priority: s.priority}]; ok {
			return r, true
		}
	}
	return throughTunnel{}, false
}

// endOf is the address of a host's end of a tunnel.
func endOf(n *model.Node, device string) netip.Addr {
	switch device {
	case desired.DeviceIPIP:
		return n.IPIP
	case desired.DeviceVXLAN4:
		return n.VXLAN4.Addr
	}
	return n.VXLAN6.Addr
}

// inUse works out where to answer, to whom, and what to measure.
func (p *probes) inUse(self string, byPrograms bool) (ends []paths.End, known map[netip.Addr]bool, list []paths.Path) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known = map[netip.Addr]bool{}
	names, shapes := slices.Sorted(maps.Keys(p.nodes)), p.ordered()
	for _, e := range tunnelEnds() {
		d, there := p.devices[e.device]
		own := p.own[e.device]
		if !there || !own.IsValid() {
			continue
		}
		ends = append(ends, paths.End{Device: e.device, Form: e.form, Addr: own, Offload: e.form == desired.VXLAN || !byPrograms})
		for _, name := range names {
			n := p.nodes[name]
			remote := endOf(n, e.device)
			if name == self || !remote.IsValid() || remote == own {
				continue
			}
			known[remote] = true
			if r, ok := p.way(remote, shapes); ok && r.device == e.device && r.mtu != 0 {
				list = append(list, p.path(e, d, n, r.mtu))
			}
		}
	}
	return ends, known, list
}

// path is the way to a host's end of a tunnel. p.mu is held.
func (p *probes) path(e tunnelEnd, d desired.Device, n *model.Node, mtu int) paths.Path {
	out := paths.Path{Device: e.device, Form: e.form, Local: p.own[e.device], Remote: endOf(n, e.device), MTU: mtu,
		Peer: n.Name, Node: n.Addr(e.family), Speaks: n.Speaks}
	if e.form == desired.VXLAN && p.macs[out.Remote] != "" {
		out.Outer = paths.Outer{Local: d.Local, VNI: d.VNI, Port: d.Port, LocalMAC: d.MAC, RemoteMAC: p.macs[out.Remote]}
	}
	return out
}

// watch reports whether programs carry IP in IP, and when to ask again.
func (c *carrier) watch() (byPrograms bool, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byBPF, c.changed
}

// probeSettle lets what changes together do so.
const probeSettle = 250 * time.Millisecond

// measurePaths answers and measures until ctx ends. Nothing waits for it.
func (a *agent) measurePaths(ctx context.Context) error {
	if a.probes.running() == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	g, ctx := newGroup(ctx)
	g.start("monitor of paths", func() error { return a.probes.monitor.Run(ctx) })
	g.start("tunnels in use", func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.synced:
		}
		for {
			byPrograms, carried := a.carrier.watch()
			a.probes.monitor.Want(a.probes.inUse(a.cfg.Node, byPrograms))
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-carried:
			case <-a.probes.wake:
			}
			if err := store.Pause(ctx, probeSettle); err != nil {
				return err
			}
		}
	})
	return g.wait()
}

// checkPaths is advice: packets of workloads may be lost, which this host can
// tell of and not mend.
func (a *agent) checkPaths() health.Verdict {
	m := a.probes.running()
	if m == nil {
		return health.Verdict{OK: true, Reason: "Off"}
	}
	if !a.inSync.Load() {
		return health.Verdict{OK: true, Reason: "Measuring", Message: "waiting for the datastore"}
	}
	v := paths.Judge(m.Results(), m.Choices())
	if t := m.Trouble(); t != "" {
		v.Message = strings.TrimPrefix(v.Message+"; "+t, "; ")
	}
	return health.Verdict{OK: v.OK, Reason: v.Reason, Message: v.Message}
}

// pathSamples say how many paths are how. There is none for each path: a host
// has as many as there are others.
func (a *agent) pathSamples() []health.Sample {
	m := a.probes.running()
	if m == nil {
		return nil
	}
	type kind struct {
		device  string
		outcome paths.Outcome
	}
	count, fits := map[kind]int{}, map[string]int{}
	for _, r := range m.Results() {
		count[kind{r.Device, r.Outcome}]++
		if r.Fits > 0 && (fits[r.Device] == 0 || r.Fits < fits[r.Device]) {
			fits[r.Device] = r.Fits
		}
	}
	var out []health.Sample
	for k, n := range count {
		out = append(out, health.Sample{Name: "brindle_paths", Help: "Ways through tunnels to other hosts, by what was measured.",
			Labels: map[string]string{"device": k.device, "outcome": string(k.outcome)}, Value: float64(n)})
	}
	for device, n := range fits {
		out = append(out, health.Sample{Name: "brindle_path_fits_bytes", Help: "The largest packet that passes whole on the narrowest way.",
			Labels: map[string]string{"device": device}, Value: float64(n)})
	}
	for outcome, n := range m.Measured() {
		out = append(out, health.Sample{Name: "brindle_path_measurements_total", Help: "Measurements of ways through tunnels.",
			Labels: map[string]string{"outcome": string(outcome)}, Value: float64(n), Counter: true})
	}
	for _, c := range m.Choices() {
		on := 0.0
		if c.On {
			on = 1
		}
		out = append(out, health.Sample{Name: "brindle_path_checksum_offload", Help: "1 while the device of a tunnel leaves checksums to what is below.",
			Labels: map[string]string{"device": c.Device}, Value: on})
	}
	return out
}

// measureNowLimit bounds how long somebody who asked waits.
const measureNowLimit = 30 * time.Second

// servePaths answers PathPaths.
func (a *agent) servePaths(w http.ResponseWriter, r *http.Request) {
	out := agentapi.Paths{Node: a.cfg.Node, Off: a.probes.running() == nil, Paths: []agentapi.PathInfo{}, Offloads: []agentapi.Offload{}}
	if m := a.probes.running(); m != nil {
		if r.URL.Query().Get("now") != "" {
			ctx, cancel := context.WithTimeout(r.Context(), measureNowLimit)
			defer cancel()
			_ = m.Now(ctx) // what is not done by then shows as being measured
		}
		for _, x := range m.Results() {
			out.Paths = append(out.Paths, pathInfo(x))
		}
		for _, c := range m.Choices() {
			out.Offloads = append(out.Offloads, agentapi.Offload(c))
		}
	}
	for _, c := range a.health.Conditions() {
		if c.Type == health.Paths {
			out.Condition = c
		}
	}
	writeJSON(w, out)
}

func pathInfo(r paths.Result) agentapi.PathInfo {
	out := agentapi.PathInfo{Peer: r.Peer, Device: r.Device, Form: r.Form.String(), Local: r.Local.String(), Remote: r.Remote.String(),
		MTU: r.MTU, Fits: r.Fits, Outcome: string(r.Outcome), Bad: r.Outcome.Bad(), Message: r.Message, RTTMicros: r.RTT.Microseconds(),
		Checks: agentapi.Checks{Small: string(r.Small), Sum: string(r.Sum), Full: string(r.Full), Whole: string(r.Whole), Over: string(r.Over), TCP: string(r.TCP)}}
	if r.Node.IsValid() {
		out.Node = r.Node.String()
	}
	if !r.At.IsZero() {
		out.MeasuredAt = r.At.UTC().Format(time.RFC3339)
	}
	return out
}
