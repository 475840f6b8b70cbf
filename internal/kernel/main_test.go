package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/reconcile"
	"github.com/brindle-net/brindle/internal/testenv"
)

// waitLimit bounds waiting for the kernel; only a broken test gets there.
const waitLimit = 10 * time.Second

// run starts a loop on a target and returns it with the function that stops
// it.
func run[K comparable, V any](t testing.TB, target reconcile.Target[K, V], compare func(a, b K) int, equal func(a, b V) bool) (*reconcile.Loop[K, V], func()) {
	t.Helper()
	l := reconcile.New(target, reconcile.Config[K, V]{Name: t.Name(), Compare: compare, Equal: equal})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = l.Run(ctx) })
	stop := func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return l, stop
}

func same[V comparable](a, b V) bool { return a == b }

func routeLoop(t testing.TB, k *Kernel, protocol int) (*reconcile.Loop[desired.RouteKey, desired.Route], func()) {
	t.Helper()
	return run(t, k.Routes(protocol), CompareRoutes, EqualRoutes)
}

// synced waits until a loop has made everything as wanted.
func synced[K comparable, V any](t testing.TB, l *reconcile.Loop[K, V]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	if err := l.Synced(ctx); err != nil {
		t.Fatal(err)
	}
}

// swept says that a loop wants no more than it was told, and waits until
// strangers are gone.
func swept[K comparable, V any](t testing.TB, l *reconcile.Loop[K, V]) {
	t.Helper()
	l.InSync()
	synced(t, l)
}

// watch tells loops of drift as the agent does.
func watch(t testing.TB, k *Kernel, tell func(Drift)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = k.Watch(ctx, func(d Drift) {
			tell(d)
			once.Do(func() { close(started) })
		})
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	<-started
}

// links adds dummy-like links: veth pairs in one namespace, all up.
func links(t testing.TB, ns *netns.NS, names ...string) {
	t.Helper()
	for _, n := range names {
		testenv.Run(t, ns, "ip", "link", "add", n, "type", "veth", "peer", "name", n+"p")
		testenv.Run(t, ns, "ip", "link", "set", n, "up")
		testenv.Run(t, ns, "ip", "link", "set", n+"p", "up")
	}
}

// shows polls until a command's output has all wants and none of nots.
func shows(t testing.TB, ns *netns.NS, wants, nots []string, cmd ...string) {
	t.Helper()
	testenv.Until(t, waitLimit, func() error {
		out := squeeze(testenv.Run(t, ns, cmd...))
		for _, w := range wants {
			if !strings.Contains(out, w) {
				return fmt.Errorf("%s does not show %q:\n%s", strings.Join(cmd, " "), w, out)
			}
		}
		for _, n := range nots {
			if strings.Contains(out, n) {
				return fmt.Errorf("%s shows %q:\n%s", strings.Join(cmd, " "), n, out)
			}
		}
		return nil
	})
}

// squeeze makes runs of spaces one.
func squeeze(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
	}
	return b.String()
}

func key(prefix string) desired.RouteKey {
	return desired.RouteKey{Table: desired.MainTable, Prefix: netip.MustParsePrefix(prefix), Priority: desired.DefaultPriority}
}

func via(addr, link string) desired.NextHop {
	h := desired.NextHop{Interface: link}
	if addr != "" {
		h.Via = netip.MustParseAddr(addr)
	}
	return h
}

func agentRoute(hops ...desired.NextHop) desired.Route {
	return desired.Route{Protocol: desired.ProtocolAgent, Hops: hops}
}

func set[K comparable, V any](k K, v V) desired.Patch[K, V] {
	return desired.Patch[K, V]{Set: map[K]V{k: v}}
}
