package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/feed"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

func route(addr, iface string) (desired.RouteKey, desired.Route) {
	a := netip.MustParseAddr(addr)
	return desired.RouteKey{Table: desired.MainTable, Prefix: netip.PrefixFrom(a, a.BitLen()), Priority: desired.DefaultPriority},
		desired.Route{Hops: []desired.NextHop{{Interface: iface}}, Protocol: desired.ProtocolAgent}
}

func TestTrackerWaitsForEveryAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracker()
		addrs := []netip.Addr{netip.MustParseAddr("10.48.0.1"), netip.MustParseAddr("fd00::1")}
		done := make(chan error, 1)
		go func() { done <- tr.wanted(t.Context(), "cali1", addrs) }()
		k4, r4 := route("10.48.0.1", "cali1")
		k6, r6 := route("fd00::1", "cali2") // somebody else's
		tr.note(desired.Patch[desired.RouteKey, desired.Route]{Set: map[desired.RouteKey]desired.Route{k4: r4, k6: r6}})
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("came back (%v) although one address is behind another interface", err)
		default:
		}
		_, r6 = route("fd00::1", "cali1")
		tr.note(desired.Patch[desired.RouteKey, desired.Route]{Set: map[desired.RouteKey]desired.Route{k6: r6}})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		tr.note(desired.Patch[desired.RouteKey, desired.Route]{Delete: []desired.RouteKey{k4}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := tr.wanted(ctx, "cali1", addrs); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v for a route that is gone, want the deadline", err)
		}
	})
}

func TestGroupEndsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ctx := newGroup(t.Context())
		bad := errors.New("broken")
		g.start("patient", func() error { <-ctx.Done(); return ctx.Err() })
		g.start("failing", func() error { return bad })
		if err := g.wait(); !errors.Is(err, bad) || err.Error() != "failing: broken" {
			t.Errorf("got %v", err)
		}
	})
}

func TestTheSocketIsRootsAlone(t *testing.T) {
	dir, err := os.MkdirTemp("", "ag")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "run", "a.sock")
	l, err := listenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v lets others in", info.Mode())
	}
	if info, _ := os.Stat(filepath.Dir(path)); info.Mode().Perm() != 0o700 {
		t.Errorf("folder mode %v, want 0700", info.Mode())
	}
	if _, err := listenSocket(path); err == nil {
		t.Error("a second agent took the socket of a running one")
	}
	l.SetUnlinkOnClose(false) // as a killed agent leaves it
	l.Close()
	again, err := listenSocket(path)
	if err != nil {
		t.Fatalf("a socket that was left behind is in the way: %v", err)
	}
	again.Close()
}

func TestOneOfManyAgentsGetsTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	won := make(chan *socket, 20)
	var wg sync.WaitGroup
	for range cap(won) {
		wg.Go(func() {
			if l, err := listenSocket(path); err == nil {
				won <- l
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d agents got the socket, want 1", len(won))
	}
	(<-won).Close()
}

func TestAStuckAgentKeepsItsSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil { // as of one that accepts no more
		t.Fatal(err)
	}
	for { // until nobody more fits in
		c, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		defer c.Close()
	}
	if l, err := listenSocket(path); err == nil {
		l.Close()
		t.Error("took the socket of an agent that listens")
	}
}

func TestNoticesBlockTheirCondition(t *testing.T) {
	n := newNotices()
	n.note(desired.Patch[desired.NoticeKey, desired.Notice]{Set: map[desired.NoticeKey]desired.Notice{
		{Condition: "Policy", Object: "NetworkPolicy default/a"}: {Reason: "PolicyNotEnforced", Message: "selects 1 endpoint", Blocking: true},
		{Condition: "Policy", Object: "Pool b"}:                  {Reason: "Other", Message: "is odd"},
	}})
	if err := n.blocked("Policy"); err == nil || err.Error() != "NetworkPolicy default/a selects 1 endpoint" {
		t.Errorf("got %v", err)
	}
	if err := n.blocked("Routing"); err != nil {
		t.Errorf("another condition is blocked: %v", err)
	}
	n.note(desired.Patch[desired.NoticeKey, desired.Notice]{Delete: []desired.NoticeKey{{Condition: "Policy", Object: "NetworkPolicy default/a"}}})
	if err := n.blocked("Policy"); err != nil {
		t.Errorf("still blocked: %v", err)
	}
}

func TestFillNodeKeepsWhatOthersWrote(t *testing.T) {
	as := v3.ASNumber(64999)
	n := &v3.Node{}
	n.Spec.BGP = &v3.NodeBGPSpec{ASNumber: &as, IPv4IPIPTunnelAddr: "10.0.0.1", IPv4Address: "172.30.0.1/24"}
	n.Spec.Addresses = []v3.NodeAddress{{Address: "203.0.113.9", Type: "ExternalIP"}, {Address: "172.30.0.1/24", Type: "CalicoNodeIP"}}
	fillNode(n, &registered{v4: netip.MustParsePrefix("172.30.0.2/24"), v6: netip.MustParsePrefix("fd00::2/64")}, 0)
	if n.Spec.BGP.IPv4Address != "172.30.0.2/24" || n.Spec.BGP.IPv6Address != "fd00::2/64" ||
		*n.Spec.BGP.ASNumber != 64999 || n.Spec.BGP.IPv4IPIPTunnelAddr != "10.0.0.1" {
		t.Errorf("bgp is %+v", *n.Spec.BGP)
	}
	if len(n.Spec.Addresses) != 3 || n.Spec.Addresses[2].Type != "ExternalIP" {
		t.Errorf("addresses are %+v", n.Spec.Addresses)
	}
	empty := &v3.Node{}
	if fillNode(empty, &registered{}, 0); empty.Spec.BGP != nil {
		t.Error("a host without addresses got an empty bgp block, which is not valid")
	}
}

func TestSettingsThatChangeEndTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		done, _ := watchedSettings(t, db, Config{Driver: db, Log: slog.New(slog.DiscardHandler), refused: &refusals{}})
		c := client.New(db, client.Config{})
		felix := &v3.FelixConfiguration{}
		felix.Name = "node.h2" // another host's
		felix.Spec.VXLANPort = new(4790)
		if _, err := client.Create(t.Context(), c, felix); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("ended (%v) by another host's settings", err)
		default:
		}
		felix.Name = "node.h1"
		if _, err := client.Create(t.Context(), c, felix); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, ErrReconfigured) {
			t.Errorf("got %v", err)
		}
	})
}

// hostOf is an agent that can register with an address that is given.
func hostOf(t *testing.T, db store.Driver, name, ip string) *agent {
	t.Helper()
	res, err := config.Resolve(config.Sources{Node: name, Flags: map[string]string{"ip": ip}})
	if err != nil {
		t.Fatal(err)
	}
	res.Agent.Startup.NoDefaultPools, res.Agent.Startup.PollInterval = true, 0
	return &agent{
		cfg: Config{Node: name, Settings: res.Agent}, log: slog.New(slog.DiscardHandler),
		client: client.New(db, client.Config{}), nodeGone: make(chan struct{}, 1),
	}
}

func TestANodeThatIsDeletedComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		a := hostOf(t, db, "h1", "172.30.0.1/24")
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { a.register(ctx) })
		wg.Go(func() {
			feed.Run(ctx, feed.Config{Driver: db, Node: "h1", Status: &a.feed}, a.noteNode)
		})
		synctest.Wait()
		for range 3 {
			if err := client.Delete[v3.Node](ctx, a.client, "", "h1", client.Preconditions{}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if _, err := client.Get[v3.Node](ctx, a.client, "", "h1"); err != nil {
			t.Errorf("the host runs, but has no node: %v", err)
		}
		// Its AS number is what the cluster says, and then what its Node says.
		as := v3.ASNumber(64600)
		cluster := &v3.BGPConfiguration{}
		cluster.Name, cluster.Spec.ASNumber = v3.DefaultName, &as
		if _, err := client.Create(ctx, a.client, cluster); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := a.registered.Load().as; got != 64600 {
			t.Errorf("the AS number is %d", got)
		}
		own := v3.ASNumber(64700)
		_, err := client.Modify(ctx, a.client, "", "h1", func(n *v3.Node) error { n.Spec.BGP.ASNumber = &own; return nil })
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := a.registered.Load().as; got != 64700 {
			t.Errorf("the AS number of its own is %d", got)
		}
		cancel()
		wg.Wait()
	})
}

// counting counts the lists of a datastore.
type counting struct {
	store.Driver
	lists int
}

func (c *counting) List(ctx context.Context, prefix string) (store.Listing, error) {
	c.lists++
	return c.Driver.List(ctx, prefix)
}

func TestConflictsAreLookedForWhenTheAddressIsNew(t *testing.T) {
	db := &counting{Driver: mem.New()}
	a := hostOf(t, db, "h1", "172.30.0.1/24")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(a.registerOnce(t.Context()))
	db.lists = 0
	must(a.registerOnce(t.Context()))
	if db.lists != 0 {
		t.Errorf("%d lists for a host that stays as it is: with many hosts that is all that etcd does", db.lists)
	}
	a.cfg.Settings.Startup.IP = "172.30.0.2/24"
	other := &v3.Node{}
	other.Name = "h2"
	other.Spec.BGP = &v3.NodeBGPSpec{IPv4Address: "172.30.0.2"} // a length is not needed
	_, err := client.Create(t.Context(), a.client, other)
	must(err)
	if err := a.registerOnce(t.Context()); err == nil || !strings.Contains(err.Error(), "that of node h2 already") {
		t.Errorf("took the address of another node: %v", err)
	}
}

func TestTwoAgentsOfOneNameAreNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var agents []*agent
		for _, ip := range []string{"172.30.0.1/24", "172.30.0.2/24"} {
			a := hostOf(t, db, "h1", ip)
			a.cfg.Settings.Startup.PollInterval = time.Minute
			agents = append(agents, a)
			wg.Go(func() { a.register(ctx) })
			time.Sleep(10 * time.Second) // they were not started in the same instant
		}
		time.Sleep(10 * time.Minute)
		for i, a := range agents {
			if !strings.Contains(a.search.problem.get(), "another agent running under the same name") {
				t.Errorf("agent %d says nothing: %q", i, a.search.problem.get())
			}
		}
		cancel()
		wg.Wait()
	})
}

// failing fails the next gets and lists.
type failing struct {
	store.Driver
	fail atomic.Int32
}

func (f *failing) List(ctx context.Context, prefix string) (store.Listing, error) {
	if f.fail.Add(-1) >= 0 {
		return store.Listing{}, errors.New("no answer")
	}
	return f.Driver.List(ctx, prefix)
}

// watchedSettings starts to watch the settings of host h1.
func watchedSettings(t *testing.T, db store.Driver, run Config) (<-chan error, Config) {
	t.Helper()
	src := config.Sources{Node: "h1", Flags: map[string]string{"stateDir": t.TempDir()}}
	now := newLive(src)
	if err := now.read(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	res, err := config.Resolve(now.sources())
	if err := errors.Join(err, now.begin(res)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	run.Outcome, run.Settings, run.live = res, res.Agent, now
	ended.Go(func() { done <- run.live.changed(ctx) })
	ended.Go(func() {
		_ = feed.Run(ctx, feed.Config{Driver: db, Node: "h1"}, func(b feed.Batch) { _, _ = run.heed(ctx, b) }) // ends with ctx
	})
	t.Cleanup(func() { cancel(); ended.Wait() })
	synctest.Wait()
	return done, run
}

// TestLiveSettings: a run goes on when all that changes takes effect by itself,
// or only who says a value does.
func TestLiveSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		done, run := watchedSettings(t, db, Config{Driver: db, Log: slog.New(slog.DiscardHandler), refused: &refusals{}})
		c, now := client.New(db, client.Config{}), run.live
		felix := &v3.FelixConfiguration{}
		felix.Name, felix.Spec.LogSeverityScreen, felix.Spec.LogPrefix = "default", "Debug", "calico-packet"
		if _, err := client.Create(t.Context(), c, felix); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if now.level.Level() != slog.LevelDebug {
			t.Errorf("logs from %v on", now.level.Level())
		}
		want := config.Value{Name: "logPrefix", Value: "calico-packet", Source: "FelixConfiguration default"}
		if got := run.outcome().Values; !slices.Contains(got, want) {
			t.Errorf("in force are %v", got)
		}
		select {
		case err := <-done:
			t.Fatalf("ended: %v", err)
		default:
		}
		_, err := client.Modify(t.Context(), c, "", "default", func(f *v3.FelixConfiguration) error {
			f.Spec.LogSeverityScreen, f.Spec.VXLANPort = "Error", new(4790)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, ErrReconfigured) || now.level.Level() != slog.LevelDebug {
			t.Errorf("%v, and logs from %v on", err, now.level.Level())
		}
	})
}

func TestSettingsThatWereNotReadAreReadLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &failing{Driver: mem.New()}
		done, _ := watchedSettings(t, db, Config{Driver: db, Log: slog.New(slog.DiscardHandler), refused: &refusals{}})
		felix := &v3.FelixConfiguration{}
		felix.Name, felix.Spec.VXLANPort = "default", new(4790)
		db.fail.Store(1)
		if _, err := client.Create(t.Context(), client.New(db, client.Config{}), felix); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if !errors.Is(err, ErrReconfigured) {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("the change was lost with the read that failed")
		}
	})
}

func TestLabelsOfTheNodeChooseSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		c := client.New(db, client.Config{})
		node := &v3.Node{}
		node.Name = "h1"
		felix := &v3.FelixConfiguration{}
		felix.Name, felix.Spec.VXLANPort, felix.Spec.NodeSelector = "edge", new(4790), "role == 'edge'"
		if _, err := client.Create(t.Context(), c, node); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Create(t.Context(), c, felix); err != nil {
			t.Fatal(err)
		}
		done, _ := watchedSettings(t, db, Config{Driver: db, Log: slog.New(slog.DiscardHandler), refused: &refusals{}})
		_, err := client.Modify(t.Context(), c, "", "h1", func(n *v3.Node) error {
			n.Labels = map[string]string{"role": "edge"}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if !errors.Is(err, ErrReconfigured) {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("the settings that its labels choose do not reach the host")
		}
	})
}

// TestDeletedSettingsGoBesideUnreadableOnes: what an object said ends with it,
// whatever else cannot be read.
func TestDeletedSettingsGoBesideUnreadableOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		key := func(name string) string {
			return store.ResourceID{Plural: "felixconfigurations", Name: name}.Key()
		}
		for name, stored := range map[string]string{
			"default": `{"kind":"FelixConfiguration","apiVersion":"projectcalico.org/v3","metadata":{"name":"default"},"spec":{"routeRefreshInterval":"33s"}}`,
			"edge":    `{"spec":`,
		} {
			if _, err := db.Create(t.Context(), key(name), []byte(stored)); err != nil {
				t.Fatal(err)
			}
		}
		now := newLive(config.Sources{Node: "h1"})
		read := func() config.Agent {
			t.Helper()
			next := newLive(now.src)
			if err := next.read(t.Context(), db); err != nil || next.unreadable() == nil {
				t.Fatalf("%v; edge cannot be read: %v", err, next.unreadable())
			}
			res, err := config.Resolve(next.sources())
			if err != nil {
				t.Fatal(err)
			}
			now.src.Running = res.Values
			return res.Agent
		}
		first := read()
		if err := db.Delete(t.Context(), key("default"), ""); err != nil {
			t.Fatal(err)
		}
		if now := read(); now.Routes.Refresh == first.Routes.Refresh {
			t.Error("what was deleted holds on")
		}
	})
}

func TestUnreadableSettingsChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		key := store.ResourceID{Plural: "felixconfigurations", Name: "default"}.Key()
		stored := `{"kind":"FelixConfiguration","apiVersion":"projectcalico.org/v3","metadata":{"name":"default"},"spec":{"routeRefreshInterval":"33s"}}`
		if _, err := db.Create(t.Context(), key, []byte(stored)); err != nil {
			t.Fatal(err)
		}
		done, _ := watchedSettings(t, db, Config{Driver: db, Log: slog.New(slog.DiscardHandler), refused: &refusals{}})
		if _, err := db.Update(t.Context(), store.KV{Key: key, Value: []byte(`{"spec":`)}); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Errorf("ended (%v) by settings that nobody can read", err)
		case <-time.After(time.Minute):
		}
	})
}
