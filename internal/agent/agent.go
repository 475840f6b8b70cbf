// Package agent is the program that runs on every host: it turns what the
// datastore says into what the kernel and the BGP speaker do, and sets up
// workloads for whoever asks on its socket. Read Run to know what it is.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/bgp"
	"github.com/brindle-net/brindle/internal/calc"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/feed"
	"github.com/brindle-net/brindle/internal/health"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/tunnel"
	"github.com/brindle-net/brindle/internal/workload"
)

// Config is what one run of the agent needs.
type Config struct {
	Node     string
	Build    string
	Driver   store.Driver
	Settings config.Agent
	Outcome  config.Result // where Settings come from
	HoldTime time.Duration // of BGP sessions; 0: the default
	Log      *slog.Logger
	Handed   []int     // descriptors of sockets that were opened for this process
	refused  *refusals // nil: nobody changes settings
	live     *live     // nil: nobody changes settings
}

// agent is one running agent.
type agent struct {
	cfg      Config
	log      *slog.Logger
	client   *client.Client
	kernel   *kernel.Kernel
	speaker  *bgp.Server
	tables   *tables
	policy   *enforcement
	probes   *probes
	notices  *notices
	feed     feed.Status
	health   *health.Health
	workload *workload.Manager

	engine
	search     search
	registered atomic.Pointer[registered]
	nodeGone   chan struct{} // capacity 1: this host's Node was deleted
	mtu        atomic.Int64
	measuring  sync.Mutex // held from reading the settings until what is measured is known
	listeners  *listeners
	progress
}

// progress is how far a run has come.
type progress struct {
	// programmedOnce says that the kernel has been right since the start: from
	// then on a change under way is no reason not to be ready.
	programmedOnce atomic.Bool
	enforcedOnce   atomic.Bool  // the same of policy
	busySince      atomic.Int64 // when the core began its batch, Unix seconds; 0: idle
	began          time.Time
}

// engine is the core with those beside it that know of tunnels and of what the
// core has said.
type engine struct {
	core      *calc.Core
	coreMu    sync.Mutex // guards core, and the order in which what it wants is handed on
	tracker   *tracker
	overlay   *overlay
	pools     pools
	accepts   *accepts
	gate      *gate
	nexthops  *nexthops
	carrier   *carrier
	waysBack  *waysBack
	addresses *tunnel.Keeper
	inSync    atomic.Bool
	synced    chan struct{} // closed when in sync for the first time
}

func (e *engine) init(cfg Config, k *kernel.Kernel) {
	e.core, e.tracker, e.synced = calc.New(coreSettings(cfg)), newTracker(), make(chan struct{})
	e.overlay, e.accepts, e.carrier = newOverlay(cfg.Settings), newAccepts(), newCarrier(k, coreSettings(cfg), cfg.Log)
	e.gate, e.nexthops, e.waysBack = newGate(), newNexthops(), newWaysBack(k, coreSettings(cfg), cfg.Log)
}

// Run runs the agent of one host until ctx ends. What it programmed stays: a
// host forwards packets with or without its agent.
func Run(ctx context.Context, cfg Config) error {
	defer KeepHeapFloor(HeapFloor)()
	k, err := kernel.Open(kernel.Config{})
	if err != nil {
		return fmt.Errorf("open the kernel's network stack: %w", err)
	}
	defer k.Close()
	l, err := listenSocket(cfg.Settings.Paths.Socket, cfg.Handed...)
	if err != nil {
		return err
	}
	a := &agent{
		cfg: cfg, log: cfg.Log, client: client.New(cfg.Driver, client.Config{}), kernel: k,
		probes: newProbes(cfg, k), notices: newNotices(), nodeGone: make(chan struct{}, 1), search: newSearch(cfg.Settings),
		progress: progress{began: time.Now()},
	}
	a.engine.init(cfg, k)
	a.nexthops.resolve = a.resolve
	fresh, err := forwardsNothing(ctx, k, cfg.Settings)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	a.speaker = bgp.New(bgp.Config{
		Log: cfg.Log, HoldTime: cfg.HoldTime, Resolve: a.resolve, Fresh: fresh,
		Learned:       func(p desired.Patch[desired.RouteKey, desired.Route]) { a.tables.learned.Want(p) },
		LearnedInSync: func() { a.tables.learned.InSync() },
	})
	a.tables = newTables(k, a.speaker, paceOf(cfg.Settings), cfg.Log)
	if a.policy, err = openEnforcement(cfg, k); err != nil {
		return errors.Join(err, l.Close())
	}
	defer a.policy.Close()
	a.health, a.listeners = a.newHealth()
	cache := ipam.NewCache(cfg.Driver, cfg.Log)
	addresses := ipam.New(ipam.Config{Driver: cfg.Driver, Settings: cache.Settings})
	a.addresses = tunnel.New(tunnel.Config{
		Node: cfg.Node, Client: a.client, IPAM: addresses, Log: cfg.Log,
		Settings: func(ctx context.Context) (*ipam.Settings, error) { return ipam.ReadSettings(ctx, cfg.Driver) }, Held: a.overlay.setHeld,
	})
	a.workload = workload.New(workload.Config{
		Node: cfg.Node, Prefix: cfg.Settings.Interfaces.Prefixes[0], Client: a.client, Wires: k, MTU: func() int { return int(a.mtu.Load()) },
		IPAM:  addresses,
		Ready: a.readyForWorkloads, Programmed: a.programmed, NamespaceLabels: namespaceLabels(a.client, cache.Settings), Log: cfg.Log,
		Queue: cfg.Settings.Paths.StateDir + "/queue", Records: filepath.Dir(cfg.Settings.Paths.Socket) + "/attachments",
		Delegations: cfg.Settings.Paths.StateDir + "/delegations",
	})
	if err := a.lookAround(ctx); err != nil {
		return errors.Join(err, l.Close())
	}
	g, ctx := newGroup(ctx) // every goroutine of the agent starts here
	for _, t := range a.loops() {
		g.start(t.name, func() error { return t.loop.Run(ctx) })
	}
	a.policy.start(ctx, g)
	g.start("speaker", func() error { return a.speak(ctx) })
	g.start("drift", func() error { return a.watchDrift(ctx) })
	g.start("feed", func() error { return a.follow(ctx) })
	g.start("ipam", func() error { return cache.Run(ctx) })
	g.start("register", func() error { return a.register(ctx) })
	g.start("health", func() error { return a.health.Run(ctx, time.Second) })
	a.startTunnels(ctx, g)
	g.start("socket", func() error { return serveHTTP(ctx, l, a.routes()) })
	g.start("queued removals", func() error { return a.workload.Run(ctx) })
	g.start("address collector", func() error { return a.workload.Collect(ctx) })
	g.start("settings", func() error { return cfg.live.changed(ctx) })
	g.start("answers to those who wait", func() error { return a.answerWaiters(ctx) })
	g.start("health listeners", func() error { return a.listeners.run(ctx) })
	return g.wait()
}

// startTunnels starts what is about tunnels, and the MTU that they leave.
func (a *agent) startTunnels(ctx context.Context, g *group) {
	g.start("tunnels", func() error { return a.watchOverlay(ctx) })
	g.start("ways to other hosts", func() error { return a.followWays(ctx) })
	g.start("gate of tunnels", func() error { return a.keepGate(ctx) })
	g.start("unknown senders to programs", func() error { return a.watchStrangers(ctx) })
	g.start("tunnel addresses", func() error { return a.addresses.Run(ctx) })
	g.start("ip in ip", func() error { return a.carrier.run(ctx) })
	g.start("ways back", func() error { return a.keepWaysBack(ctx) })
	g.start("accepted forms", func() error { return a.sayAccepts(ctx) })
	g.start("mtu", func() error { return a.watchMTU(ctx) })
	g.start("paths", func() error { return a.measurePaths(ctx) })
	g.start("own addresses", func() error { return a.watchReach(ctx) })
}

// newHealth is how the agent says how it is, and where.
func (a *agent) newHealth() (*health.Health, *listeners) {
	h := health.New(health.Config{Checks: a.checks(), Samples: a.samples, Alive: a.alive, Log: a.log,
		OmitGo:      func() bool { return !a.cfg.inForce().Metrics.Go },
		OmitProcess: func() bool { return !a.cfg.inForce().Metrics.Process }})
	l := newListeners(h.Handler(), a.log)
	l.want(listenOn(a.cfg.Settings))
	return h, l
}

// speaks reports whether this host speaks BGP.
func (a *agent) speaks() bool { return a.cfg.Settings.Overlay.Backend == config.BackendBGP }

// speak runs the speaker.
func (a *agent) speak(ctx context.Context) error {
	if a.speaks() {
		return a.speaker.Run(ctx)
	}
	return a.forgetLearned(ctx)
}

// loops lists the loops that run.
func (a *agent) loops() []named {
	if a.speaks() {
		return append(a.tables.kernelTables(), a.tables.speakerTables()...)
	}
	return a.tables.kernelTables()
}

// forgetLearned lets go of routes that a speaker learned before it was switched
// off, once our own are in their place.
func (a *agent) forgetLearned(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-a.synced:
	}
	if err := a.tables.routes.Synced(ctx); err != nil {
		return err
	}
	a.tables.learned.InSync()
	<-ctx.Done()
	return ctx.Err()
}

// lookAround finds out what the host has before anything changes it.
func (a *agent) lookAround(ctx context.Context) error {
	a.measureMTU()
	devices, err := a.kernel.Devices().List(ctx)
	if err != nil {
		return fmt.Errorf("look for tunnels: %w", err)
	}
	a.foundDevices(devices)
	return nil
}

// forwardsNothing reports whether the kernel has no routes of ours, so that
// there is nothing that peers could keep our paths for. Where others make the
// routes nobody can know.
func forwardsNothing(ctx context.Context, k *kernel.Kernel, s config.Agent) (bool, error) {
	for _, protocol := range []int{desired.ProtocolAgent, desired.ProtocolBGP} {
		routes, err := k.Routes(protocol).List(ctx)
		if err != nil {
			return false, fmt.Errorf("look for routes of an earlier start: %w", err)
		}
		if len(routes) > 0 {
			return false, nil
		}
	}
	return !s.Overlay.NoRoutes, nil
}

// follow feeds the core and hands what it wants to the tables.
func (a *agent) follow(ctx context.Context) error {
	last, err := a.lastRead(ctx)
	if err != nil {
		a.log.WarnContext(ctx, "objects of the last start not known", "err", err)
	}
	return feed.Run(ctx, feed.Config{Driver: a.cfg.Driver, Node: a.cfg.Node, Log: a.log, Status: &a.feed, Last: last}, func(b feed.Batch) {
		a.busySince.Store(time.Now().Unix())
		defer a.busySince.Store(0)
		a.noteNode(b)
		a.noteSaid(b.Events)
		if before, others := a.cfg.heed(ctx, b); others {
			b.Events = append(b.Events, a.adopt(before))
		}
		a.applyBatch(ctx, b.Events)
		if err := keepObjects(a.cfg.Settings.Paths.StateDir, b.Events, b.InSync); err != nil {
			a.log.WarnContext(ctx, "objects not kept for the next start", "err", err)
		}
		if !b.InSync {
			return
		}
		a.gate.inSync()
		a.tables.inSync()
		a.policy.loop.InSync()
		a.coreMu.Lock()
		s := a.core.State()
		a.coreMu.Unlock()
		a.speaker.InSync(keys(s.Peers), keys(s.Paths), keys(s.Imports))
		a.inSync.Store(true)
		close(a.synced)
		a.overlay.stir()
		a.log.InfoContext(ctx, "in sync with the datastore", "workloads", len(s.Links), "peers", len(s.Peers))
	})
}

// apply hands events to the core, and what it wants from then on to the tables.
func (a *agent) apply(_ context.Context, events []model.Event) {
	a.coreMu.Lock()
	defer a.coreMu.Unlock()
	u := a.core.Apply(events)
	a.notices.note(u.Notices)
	handed := u
	var patch uint64
	var next *rules.Config // nil: as they are
	if slices.ContainsFunc(events, func(e model.Event) bool { return e.ID.Kind == model.KindSettings }) {
		next = a.policy.nextRules(a.cfg.inForce())
	}
	handed.Devices, patch = a.gate.pass(u, func(p desired.PolicyPatch) uint64 {
		defer func() { next = nil }()
		return a.policy.loop.Want(policyPatch{p, next})
	})
	if next != nil {
		a.policy.loop.Want(policyPatch{rules: next})
	}
	handed.Routes = a.nexthops.pass(u.Routes)
	a.tables.want(handed)
	if patch != 0 {
		a.tracker.noteEndpoints(u.Policy.Endpoints, patch)
	}
	a.tracker.note(u.Routes)
	a.carrier.note(u)
	a.waysBack.note(u.Policy)
	a.probes.note(events, u)
	a.noteDevices(u, patch)
	a.accepts.noteTold(events)
}

func keys[K comparable, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// programmed waits until the core wants the addresses behind the interface,
// the kernel has been seen to have them there, and their policy is enforced.
func (a *agent) programmed(ctx context.Context, iface string, addrs []netip.Addr) error {
	var keys []desired.RouteKey
	if !a.cfg.Settings.Overlay.NoRoutes {
		if err := a.tracker.wanted(ctx, iface, addrs); err != nil {
			return err
		}
		for _, addr := range addrs {
			keys = append(keys, a.routeKey(addr))
		}
	}
	if err := a.tables.links.WaitApplied(ctx, iface); err != nil {
		return fmt.Errorf("link %s: %w", iface, err)
	}
	if err := a.tables.routes.WaitApplied(ctx, keys...); err != nil {
		return fmt.Errorf("routes of %s: %w", iface, err)
	}
	n, err := a.tracker.endpoint(ctx, iface, addrs)
	if err != nil {
		return err
	}
	return a.policy.loop.Wait(ctx, n)
}

// routeKey is the route of one local address.
func (a *agent) routeKey(addr netip.Addr) desired.RouteKey {
	priority := a.cfg.Settings.Routes.Priority4
	if addr.Is6() {
		priority = a.cfg.Settings.Routes.Priority6
	}
	return desired.RouteKey{Table: desired.MainTable, Prefix: netip.PrefixFrom(addr, addr.BitLen()), Priority: priority}
}

// moment is how long the datastore may be out of sight before workloads are
// refused at once rather than tried.
const moment = 2 * time.Second

// readyForWorkloads says why no workload can be set up now.
func (a *agent) readyForWorkloads() error {
	switch {
	case a.registered.Load() == nil:
		return errors.New("the agent has not registered its node yet: see `brindle node status`")
	case !a.inSync.Load():
		return errors.New("the agent is not in sync with the datastore yet: see `brindle node status`")
	}
	if s := a.feed.State(); s.Age(time.Now()) > moment {
		return fmt.Errorf("the datastore is out of sight for %s, and nothing can be written there: %w", s.Age(time.Now()).Round(time.Second), s.LastError)
	}
	return a.notices.blocked(desired.ConditionDatastore)
}

// watchDrift tells the loops when somebody else changed the kernel.
func (a *agent) watchDrift(ctx context.Context) error {
	t := a.tables
	return a.kernel.Watch(ctx, func(d kernel.Drift) {
		if d.Underlay || d.Addresses || d.Appeared {
			a.search.drift()
		}
		if d.Underlay {
			a.speaker.Rerouted()
			a.nexthops.drift()
		}
		if d.Underlay || d.Devices || d.Appeared || d.Sysctls {
			a.carrier.stir()
			a.waysBack.stir()
		}
		if d.Devices || d.Addresses {
			a.probes.drift()
		}
		if d.Devices || d.Appeared {
			poke(a.policy.links)
		}
		ours := func(protocol int) bool { return d.Routes && (d.Protocol == 0 || d.Protocol == protocol) }
		for _, x := range []struct {
			changed bool
			loop    looper
		}{
			{d.Devices, t.devices}, {d.Links, t.links}, {d.Addresses, t.addresses}, {ours(desired.ProtocolAgent), t.routes},
			{ours(desired.ProtocolBGP), t.learned}, {d.Rules, t.rules}, {d.Neighbours, t.neighbours}, {d.Sysctls, t.sysctls},
		} {
			if x.changed {
				x.loop.Drift()
			}
			if d.Appeared {
				x.loop.Retry()
			}
		}
	})
}

// routes is everything that the socket serves.
func (a *agent) routes() http.Handler {
	mux := http.NewServeMux()
	a.workload.Register(mux)
	mux.HandleFunc("GET "+agentapi.PathStatus, func(w http.ResponseWriter, r *http.Request) { writeJSON(w, a.status(r.Context())) })
	mux.HandleFunc("GET "+agentapi.PathRoutes, func(w http.ResponseWriter, r *http.Request) { writeJSON(w, a.bgpRoutes(r.Context())) })
	mux.HandleFunc("GET "+agentapi.PathPolicyStats, func(w http.ResponseWriter, r *http.Request) {
		stats, err := a.policy.hits.stats(r.Context())
		answer(w, stats, err, http.StatusInternalServerError)
	})
	mux.HandleFunc("GET "+agentapi.PathPolicyRules, func(w http.ResponseWriter, r *http.Request) {
		shown, err := a.policy.rulesOf(r.Context(), r.URL.Query().Get("interface"))
		answer(w, shown, err, http.StatusNotFound)
	})
	mux.HandleFunc("GET "+agentapi.PathPaths, a.servePaths)
	mux.HandleFunc("GET "+agentapi.PathSettings, a.serveSettings)
	mux.Handle("/", a.health.Handler())
	return mux
}
