package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/brindle-net/brindle/internal/bgp"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// tables are the loops of the agent: one for each table of the world.
type tables struct {
	devices    *reconcile.Loop[string, desired.Device] // of tunnels
	links      *reconcile.Loop[string, desired.Link]
	addresses  *reconcile.Loop[desired.AddrKey, struct{}]
	routes     *reconcile.Loop[desired.RouteKey, desired.Route] // computed from the datastore
	learned    *reconcile.Loop[desired.RouteKey, desired.Route] // learned by BGP
	rules      *reconcile.Loop[desired.RuleKey, desired.Rule]
	neighbours *reconcile.Loop[desired.NeighKey, desired.Neigh]
	sysctls    *reconcile.Loop[string, string]
	speakers   *reconcile.Loop[string, desired.Speaker]
	peers      *reconcile.Loop[desired.PeerKey, desired.Peer]
	paths      *reconcile.Loop[desired.PathKey, desired.Path]
	imports    *reconcile.Loop[desired.ImportKey, desired.Import]

	ways *reconcile.Chain // neighbours, and routes by way of them
}

// How the loops are paced.
const (
	settle   = time.Millisecond
	resync   = 90 * time.Second // of tables that no parameter names
	never    = 100 * 365 * 24 * time.Hour
	maxRetry = 10 * time.Second
)

// pace is the most time between two read-backs.
type pace struct{ links, routes time.Duration }

// paceOf reads it from the settings, where 0 leaves it to events alone.
func paceOf(s config.Agent) pace {
	return pace{links: cmp.Or(s.Interfaces.Refresh, never), routes: cmp.Or(s.Routes.Refresh, never)}
}

// changePace goes from one pace to another.
func (t *tables) changePace(from, to pace) {
	if from.links != to.links {
		t.devices.Resync(to.links)
		t.links.Resync(to.links)
	}
	if from.routes != to.routes {
		t.routes.Resync(to.routes)
		t.learned.Resync(to.routes)
	}
}

// newTables connects every table to its loop.
func newTables(k *kernel.Kernel, speaker *bgp.Server, p pace, log *slog.Logger) *tables {
	ways := reconcile.NewChain()
	return &tables{
		ways:       ways,
		devices:    loop(k.Devices(), how{"devices", p.links, log}, cmp.Compare[string], kernel.EqualDevices),
		links:      loop(k.Links(), how{"links", p.links, log}, cmp.Compare[string], same[desired.Link]),
		addresses:  loop(k.Addresses(), how{"addresses", resync, log}, kernel.CompareAddrs, same[struct{}]),
		neighbours: chained(ways, k.Neighbours(), how{"neighbours", resync, log}, kernel.CompareNeighs, same[desired.Neigh]),
		routes:     chained(ways, k.Routes(desired.ProtocolAgent), how{"routes", p.routes, log}, kernel.CompareRoutes, kernel.EqualRoutes),
		learned:    loop(k.Routes(desired.ProtocolBGP), how{"bgp-routes", p.routes, log}, kernel.CompareRoutes, kernel.EqualRoutes),
		rules:      loop(k.Rules(), how{"rules", resync, log}, kernel.CompareRules, same[desired.Rule]),
		sysctls:    loop(k.Sysctls(), how{"sysctls", resync, log}, cmp.Compare[string], same[string]),
		speakers:   loop(speaker.Speakers(), how{"bgp-speaker", resync, log}, cmp.Compare[string], desired.Speaker.Equal),
		peers:      loop(speaker.Peers(), how{"bgp-peers", resync, log}, comparePeers, same[desired.Peer]),
		paths:      loop(speaker.Paths(), how{"bgp-paths", resync, log}, comparePrefixes, desired.Path.Equal),
		imports:    loop(speaker.Imports(), how{"bgp-imports", resync, log}, compareImports, same[desired.Import]),
	}
}

// how a table is driven.
type how struct {
	name   string
	resync time.Duration
	log    *slog.Logger
}

// loop makes one loop with the agent's pace.
func loop[K comparable, V any](t reconcile.Target[K, V], h how, compare func(a, b K) int, equal func(a, b V) bool) *reconcile.Loop[K, V] {
	return chained(nil, t, h, compare, equal)
}

// chained is loop for one that is driven with others, after those that were
// made before it; nil: with none.
func chained[K comparable, V any](c *reconcile.Chain, t reconcile.Target[K, V], h how, compare func(a, b K) int, equal func(a, b V) bool) *reconcile.Loop[K, V] {
	return reconcile.New(t, reconcile.Config[K, V]{
		Name: h.name, Compare: compare, Equal: equal, Settle: settle, Resync: h.resync, MaxRetry: maxRetry, Log: h.log, Chain: c,
	})
}

func same[V comparable](a, b V) bool { return a == b }

func comparePeers(a, b desired.PeerKey) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func compareImports(a, b desired.ImportKey) int { return comparePrefixes(a.Prefix, b.Prefix) }

// want hands an update of the core to the loops. What others stand on comes
// first: links before routes over them, the speaker before its peers. A route
// is made when its neighbour is there, and goes before that.
func (t *tables) want(u desired.Update) {
	t.sysctls.Want(u.Sysctls)
	t.devices.Want(u.Devices)
	t.links.Want(u.Links)
	t.addresses.Want(u.Addresses)
	t.rules.Want(u.Rules)
	t.ways.Together(func() {
		t.neighbours.Want(u.Neighbours)
		t.routes.Want(u.Routes)
	})
	t.imports.Want(u.Imports)
	t.paths.Want(u.Paths)
	t.speakers.Want(u.Speakers)
	t.peers.Want(u.Peers)
}

// inSync says that what was wanted so far is all there is. Learned routes are
// the speaker's to say.
func (t *tables) inSync() {
	for _, l := range append(t.kernelTables(), t.speakerTables()...) {
		if l.loop != t.learned {
			l.loop.InSync()
		}
	}
}

// looper is what a loop can do whatever its table holds.
type looper interface {
	Run(ctx context.Context) error
	InSync()
	Drift()
	Retry()
	Err() error
	Stats() reconcile.Stats
}

// named is a loop with its name.
type named struct {
	name string
	loop looper
}

// kernelTables lists the loops that program the kernel.
func (t *tables) kernelTables() []named {
	return []named{
		{"sysctls", t.sysctls}, {"devices", t.devices}, {"links", t.links}, {"addresses", t.addresses},
		{"neighbours", t.neighbours}, {"rules", t.rules}, {"routes", t.routes}, {"bgp-routes", t.learned},
	}
}

// speakerTables lists the loops that drive the speaker.
func (t *tables) speakerTables() []named {
	return []named{
		{"bgp-imports", t.imports}, {"bgp-paths", t.paths}, {"bgp-speaker", t.speakers}, {"bgp-peers", t.peers},
	}
}

// trouble is what a table fails at and this host must answer for. A workload
// that died took its interface with it: that its link, routes and neighbours
// cannot be programmed says nothing of the host, until the runtime removes it.
func (t *tables) trouble(n named) error {
	switch n.loop {
	case t.links:
		return present(t.links)
	case t.routes:
		return present(t.routes)
	case t.neighbours:
		return present(t.neighbours)
	}
	return n.loop.Err()
}

// present is the error of a loop without the failures for want of an
// interface.
func present[K comparable, V any](l *reconcile.Loop[K, V]) error {
	err := l.Err()
	if !errors.Is(err, kernel.ErrNoLink) {
		return err
	}
	var rest []string
	for k, err := range l.Failed() {
		if !errors.Is(err, kernel.ErrNoLink) {
			rest = append(rest, fmt.Sprintf("%v: %v", k, err))
		}
	}
	if len(rest) == 0 {
		return nil
	}
	return fmt.Errorf("%d of the changes failed; first %s", len(rest), slices.Min(rest))
}
