package agent

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/brindle-net/brindle/internal/bgp"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// tables are the loops of the agent: one for each table of the world.
type tables struct {
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
}

// How the loops are paced.
const (
	settle   = time.Millisecond
	resync   = 90 * time.Second // documented default of routeRefreshInterval
	maxRetry = 10 * time.Second
)

// newTables connects every table to its loop.
func newTables(k *kernel.Kernel, speaker *bgp.Server, log *slog.Logger) *tables {
	return &tables{
		links:      loop(k.Links(), "links", cmp.Compare[string], same[desired.Link], log),
		addresses:  loop(k.Addresses(), "addresses", kernel.CompareAddrs, same[struct{}], log),
		routes:     loop(k.Routes(desired.ProtocolAgent), "routes", kernel.CompareRoutes, kernel.EqualRoutes, log),
		learned:    loop(k.Routes(desired.ProtocolBGP), "bgp-routes", kernel.CompareRoutes, kernel.EqualRoutes, log),
		rules:      loop(k.Rules(), "rules", kernel.CompareRules, same[desired.Rule], log),
		neighbours: loop(k.Neighbours(), "neighbours", kernel.CompareNeighs, same[desired.Neigh], log),
		sysctls:    loop(k.Sysctls(), "sysctls", cmp.Compare[string], same[string], log),
		speakers:   loop(speaker.Speakers(), "bgp-speaker", cmp.Compare[string], desired.Speaker.Equal, log),
		peers:      loop(speaker.Peers(), "bgp-peers", comparePeers, same[desired.Peer], log),
		paths:      loop(speaker.Paths(), "bgp-paths", comparePrefixes, desired.Path.Equal, log),
		imports:    loop(speaker.Imports(), "bgp-imports", compareImports, same[desired.Import], log),
	}
}

// loop makes one loop with the agent's pace.
func loop[K comparable, V any](t reconcile.Target[K, V], name string, compare func(a, b K) int, equal func(a, b V) bool, log *slog.Logger) *reconcile.Loop[K, V] {
	return reconcile.New(t, reconcile.Config[K, V]{
		Name: name, Compare: compare, Equal: equal, Settle: settle, Resync: resync, MaxRetry: maxRetry, Log: log,
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
// first: links before routes over them, the speaker before its peers.
func (t *tables) want(u desired.Update) {
	t.sysctls.Want(u.Sysctls)
	t.links.Want(u.Links)
	t.addresses.Want(u.Addresses)
	t.neighbours.Want(u.Neighbours)
	t.rules.Want(u.Rules)
	t.routes.Want(u.Routes)
	t.imports.Want(u.Imports)
	t.paths.Want(u.Paths)
	t.speakers.Want(u.Speakers)
	t.peers.Want(u.Peers)
}

// inSync says that what was wanted so far is all there is. Learned routes are
// the speaker's to say.
func (t *tables) inSync() {
	for _, l := range t.all() {
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

// all lists every loop.
func (t *tables) all() []named {
	return []named{
		{"sysctls", t.sysctls}, {"links", t.links}, {"addresses", t.addresses}, {"neighbours", t.neighbours},
		{"rules", t.rules}, {"routes", t.routes}, {"bgp-routes", t.learned}, {"bgp-imports", t.imports},
		{"bgp-paths", t.paths}, {"bgp-speaker", t.speakers}, {"bgp-peers", t.peers},
	}
}

// kernelTables lists the loops that program the kernel.
func (t *tables) kernelTables() []named { return t.all()[:7] }
