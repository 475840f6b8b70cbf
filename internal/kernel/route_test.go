package kernel

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// routeFamily is what the same test uses for each family.
type routeFamily struct {
	name              string
	flag              string // of ip
	local             string // address of a0
	gw1, gw2          string // on a0 and b0
	one, two, mine    string // destinations
	blackhole, tunnel string
	far               string // a next hop that no route leads to
}

func routeFamilies() []routeFamily {
	return []routeFamily{
		{"v4", "-4", "10.1.0.1/24", "10.1.0.9", "10.2.0.9", "10.65.1.0/26", "10.65.2.0/26", "10.65.0.1/32", "10.65.0.0/26", "10.65.3.0/26", "10.9.0.9"},
		{"v6", "-6", "fd01::1/64", "fd01::9", "fd02::9", "fd65:1::/122", "fd65:2::/122", "fd65::1/128", "fd65::/122", "fd65:3::/122", "fd09::9"},
	}
}

// eachRouteFamily runs a test for IPv4 and IPv6; the kernel keeps their routes
// apart, so both at once prove nothing more.
func eachRouteFamily(t *testing.T, f func(t *testing.T, f routeFamily, k *Kernel, ns *netns.NS)) {
	for _, c := range routeFamilies() {
		t.Run(c.name, func(t *testing.T) {
			k, ns := open(t)
			links(t, ns, "a0", "b0")
			second := "10.2.0.1/24"
			if c.name == "v6" {
				second = "fd02::1/64"
			}
			testenv.Run(t, ns, "ip", c.flag, "addr", "add", c.local, "dev", "a0", "nodad")
			testenv.Run(t, ns, "ip", c.flag, "addr", "add", second, "dev", "b0", "nodad")
			own := netip.MustParsePrefix(c.local).Addr()
			testenv.Until(t, waitLimit, func() error { // of IPv6 the kernel makes an address its own a moment later
				if way, err := k.Way(own); err != nil || !way.Local {
					return fmt.Errorf("way to %s: %+v, %v", own, way, err)
				}
				return nil
			})
			f(t, c, k, ns)
		})
	}
}

func (f routeFamily) wanted() map[desired.RouteKey]desired.Route {
	direct := agentRoute(via("", "a0"))
	if f.name == "v4" {
		direct.Scope = desired.ScopeLink
	}
	source := agentRoute(via(f.gw1, "a0"))
	source.Source, source.MTU = netip.MustParsePrefix(f.local).Addr(), 1400
	other := key(f.tunnel)
	other.Table = 1000
	onlink := agentRoute(desired.NextHop{Via: netip.MustParseAddr(f.far), Interface: "a0", OnLink: true})
	return map[desired.RouteKey]desired.Route{
		key(f.mine):      direct,
		key(f.one):       source,
		key(f.two):       agentRoute(via(f.gw1, "a0"), desired.NextHop{Via: netip.MustParseAddr(f.gw2), Interface: "b0", Weight: 3}),
		key(f.blackhole): {Type: desired.Blackhole, Protocol: desired.ProtocolAgent},
		key(f.tunnel):    agentRoute(via(f.gw2, "")), // the kernel finds the link
		other:            onlink,
	}
}

func (f routeFamily) show() []string {
	return []string{"ip", "-d", f.flag, "route", "show", "table", "all", "proto", "80"}
}

func TestRoutesComeStayAndGo(t *testing.T) {
	eachRouteFamily(t, func(t *testing.T, f routeFamily, k *Kernel, ns *netns.NS) {
		// Others' routes: same destination and another metric, and BGP's.
		testenv.Run(t, ns, "ip", f.flag, "route", "add", f.one, "via", f.gw1, "metric", "5", "proto", "static")
		testenv.Run(t, ns, "ip", f.flag, "route", "add", f.one, "via", f.gw1, "metric", "6", "proto", "81")
		testenv.Run(t, ns, "ip", f.flag, "route", "add", f.two, "via", f.gw1, "metric", "7", "proto", "bird")
		foreign := []string{"ip", "-d", f.flag, "route", "show", "table", "all"}
		others := func() string {
			var b strings.Builder
			for line := range strings.Lines(squeeze(testenv.Run(t, ns, foreign...))) {
				if !strings.Contains(line, "proto 80") && !strings.Contains(line, "nexthop") {
					b.WriteString(line)
				}
			}
			return b.String()
		}
		before := others()

		l, stop := routeLoop(t, k, desired.ProtocolAgent)
		l.Want(desired.Patch[desired.RouteKey, desired.Route]{Set: f.wanted()})
		swept(t, l)
		shows(t, ns, []string{
			"blackhole " + f.blackhole, "mtu 1400", "src " + netip.MustParsePrefix(f.local).Addr().String(),
			"nexthop via " + f.gw2 + " dev b0 weight 3", "table 1000", "onlink", "metric 1024",
		}, nil, f.show()...)
		was := testenv.Run(t, ns, f.show()...)
		stop()

		// A new agent finds everything as it should be and touches nothing.
		l, stop = routeLoop(t, k, desired.ProtocolAgent)
		l.Want(desired.Patch[desired.RouteKey, desired.Route]{Set: f.wanted()})
		swept(t, l)
		if s := l.Stats(); s.Sets+s.Deletes != 0 {
			t.Errorf("a restart changed routes: %+v", s)
		}
		if now := testenv.Run(t, ns, f.show()...); now != was {
			t.Errorf("was:\n%s\nnow:\n%s", was, now)
		}
		stop()

		// One with nothing to want sweeps, once it is sure.
		l, _ = routeLoop(t, k, desired.ProtocolAgent)
		synced(t, l)
		if now := testenv.Run(t, ns, f.show()...); now != was {
			t.Errorf("swept before in-sync:\n%s", now)
		}
		swept(t, l)
		if now := testenv.Run(t, ns, f.show()...); now != "" {
			t.Errorf("left:\n%s", now)
		}
		if after := others(); after != before {
			t.Errorf("others' routes were:\n%s\nand are:\n%s", before, after)
		}
	})
}

func TestRoutesAreReplacedInPlace(t *testing.T) {
	eachRouteFamily(t, func(t *testing.T, f routeFamily, k *Kernel, ns *netns.NS) {
		l, _ := routeLoop(t, k, desired.ProtocolAgent)
		l.InSync()
		two := agentRoute(via(f.gw1, "a0"), via(f.gw2, "b0"))
		steps := []struct {
			name  string
			route desired.Route
		}{
			{"one way", agentRoute(via(f.gw1, "a0"))},
			{"another way", agentRoute(via(f.gw2, "b0"))},
			{"both ways", two},
			{"both ways with an MTU", desired.Route{Protocol: two.Protocol, Hops: two.Hops, MTU: 1300}},
			{"nowhere", desired.Route{Type: desired.Blackhole, Protocol: desired.ProtocolAgent}},
			{"refused", desired.Route{Type: desired.Unreachable, Protocol: desired.ProtocolAgent}},
			{"on the link", agentRoute(via("", "a0"))},
			{"thrown on", desired.Route{Type: desired.Throw, Protocol: desired.ProtocolAgent}},
			{"one way again", agentRoute(via(f.gw1, "a0"))},
		}
		for _, s := range steps {
			l.Want(set(key(f.one), s.route))
			synced(t, l)
			have, err := k.Routes(desired.ProtocolAgent).List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(have) != 1 || !EqualRoutes(s.route, have[key(f.one)]) {
				t.Errorf("%s: the kernel has %+v, want %+v", s.name, have, s.route)
			}
		}
	})
}

func TestForeignRouteInTheWay(t *testing.T) {
	eachRouteFamily(t, func(t *testing.T, f routeFamily, k *Kernel, ns *netns.NS) {
		testenv.Run(t, ns, "ip", f.flag, "route", "add", f.one, "via", f.gw1, "metric", "1024", "proto", "static")
		before := testenv.Run(t, ns, "ip", f.flag, "route")
		l, _ := routeLoop(t, k, desired.ProtocolAgent)
		watch(t, k, func(d Drift) {
			if d.Routes {
				l.Drift()
			}
			if d.Appeared {
				l.Retry()
			}
		})
		l.InSync()
		l.Want(set(key(f.one), agentRoute(via(f.gw2, "b0"))))
		testenv.Until(t, waitLimit, func() error {
			if err := l.Failed()[key(f.one)]; !errors.Is(err, ErrForeign) {
				return fmt.Errorf("got %w, want ErrForeign", err)
			}
			return nil
		})
		if now := testenv.Run(t, ns, "ip", f.flag, "route"); now != before {
			t.Errorf("was:\n%s\nnow:\n%s", before, now)
		}
		testenv.Run(t, ns, "ip", f.flag, "route", "del", f.one, "proto", "static")
		synced(t, l)
		shows(t, ns, []string{f.one + " via " + f.gw2 + " dev b0 proto 80"}, nil, "ip", f.flag, "route")

		// Somebody takes the place of ours: that is theirs now.
		testenv.Run(t, ns, "ip", f.flag, "route", "replace", f.one, "via", f.gw1, "metric", "1024", "proto", "static")
		testenv.Until(t, waitLimit, func() error {
			if err := l.Failed()[key(f.one)]; !errors.Is(err, ErrForeign) {
				return fmt.Errorf("got %w, want ErrForeign", err)
			}
			return nil
		})
		// Deleting ours deletes nothing of theirs.
		l.Want(desired.Patch[desired.RouteKey, desired.Route]{Delete: []desired.RouteKey{key(f.one)}})
		swept(t, l)
		shows(t, ns, []string{"proto static"}, []string{"proto 80"}, "ip", f.flag, "route")
	})
}

func TestRouteDriftIsRepaired(t *testing.T) {
	eachRouteFamily(t, func(t *testing.T, f routeFamily, k *Kernel, ns *netns.NS) {
		l, _ := routeLoop(t, k, desired.ProtocolAgent)
		watch(t, k, func(d Drift) {
			if d.Routes && (d.Protocol == 0 || d.Protocol == desired.ProtocolAgent) {
				l.Drift()
			}
			if d.Appeared {
				l.Retry()
			}
		})
		l.Want(desired.Patch[desired.RouteKey, desired.Route]{Set: f.wanted()})
		swept(t, l)
		was := testenv.Run(t, ns, f.show()...)
		cases := []struct {
			name string
			cmd  []string
		}{
			{"deleted", []string{"ip", f.flag, "route", "del", f.mine}},
			{"flushed", []string{"ip", f.flag, "route", "flush", "proto", "80"}},
			{"changed", []string{"ip", f.flag, "route", "replace", f.two, "via", f.gw1, "dev", "a0", "metric", "1024", "proto", "80"}},
			{"stranger", []string{"ip", f.flag, "route", "add", "blackhole", f.mine, "metric", "77", "proto", "80"}},
			{"link flaps", []string{"sh", "-c", "ip link set a0 down && ip link set a0 up && ip " + f.flag + " addr replace " + f.local + " dev a0 nodad"}},
		}
		for _, c := range cases {
			testenv.Run(t, ns, c.cmd...)
			testenv.Until(t, waitLimit, func() error {
				if now := testenv.Run(t, ns, f.show()...); now != was {
					return fmt.Errorf("%s: was:\n%s\nnow:\n%s\n%w", c.name, was, now, l.Err())
				}
				return nil
			})
		}
		if l.Stats().Repaired == 0 {
			t.Error("no repair was counted")
		}
	})
}

func TestRouteWaitsForItsLink(t *testing.T) {
	k, ns := open(t)
	l, _ := routeLoop(t, k, desired.ProtocolAgent)
	watch(t, k, func(d Drift) {
		if d.Appeared {
			l.Retry()
		}
	})
	want := agentRoute(via("", "late0"))
	want.Scope = desired.ScopeLink
	l.Want(set(key("10.65.0.1/32"), want))
	l.Want(set(key("fd65::1/128"), agentRoute(via("", "late0"))))
	testenv.Until(t, waitLimit, func() error {
		if err := l.Failed()[key("fd65::1/128")]; !errors.Is(err, ErrNoLink) {
			return fmt.Errorf("got %w, want ErrNoLink", err)
		}
		return nil
	})
	links(t, ns, "late0")
	synced(t, l)
}

func TestBadRoutesAreRefusedByName(t *testing.T) {
	k, ns := open(t)
	links(t, ns, "a0")
	cases := []struct {
		name  string
		key   desired.RouteKey
		route desired.Route
		want  string
	}{
		{"IPv6 without a metric", desired.RouteKey{Table: 254, Prefix: netip.MustParsePrefix("fd00::/64")}, agentRoute(via("", "a0")), "priority"},
		{"another protocol", key("10.0.0.0/24"), desired.Route{Protocol: 3}, "protocol 3"},
		{"host bits", key("10.0.0.1/24"), agentRoute(via("", "a0")), "not a prefix"},
		{"unknown type", key("10.0.0.0/24"), desired.Route{Type: 99, Protocol: 80}, "type 99"},
		{"no way to the next hop", key("10.0.0.0/24"), agentRoute(via("192.0.2.1", "a0")), "unreachable"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l, _ := routeLoop(t, k, desired.ProtocolAgent)
			l.Want(set(c.key, c.route))
			testenv.Until(t, waitLimit, func() error {
				if err := l.Failed()[c.key]; err == nil || !strings.Contains(err.Error(), c.want) {
					return fmt.Errorf("got %w, want %q", err, c.want)
				}
				return nil
			})
		})
	}
}

// The host may own an address that no interface has: the workloads' next hop.
func TestLocalRoute(t *testing.T) {
	k, ns := open(t)
	l, _ := routeLoop(t, k, desired.ProtocolAgent)
	gateway := desired.RouteKey{Table: 255, Prefix: netip.PrefixFrom(Gateway4(), 32)}
	l.Want(set(gateway, desired.Route{
		Type: desired.Local, Protocol: desired.ProtocolAgent, Scope: 254, Hops: []desired.NextHop{{Interface: "lo"}},
	}))
	swept(t, l)
	if _, err := testenv.TryRun(t, ns, "ping", "-n", "-c", "1", "-W", "1", Gateway4().String()); err != nil {
		t.Error(err)
	}
	l.Want(desired.Patch[desired.RouteKey, desired.Route]{Delete: []desired.RouteKey{gateway}})
	swept(t, l)
	shows(t, ns, nil, []string{Gateway4().String()}, "ip", "route", "show", "table", "all")
}

// Whatever is done to the table by us and by others, in the end the kernel has
// our routes as wanted and theirs as they were.
func TestRoutesConvergeFromAnything(t *testing.T) {
	eachRouteFamily(t, func(t *testing.T, f routeFamily, k *Kernel, ns *netns.NS) {
		for seed := range uint64(10) {
			r := rand.New(rand.NewPCG(seed, 2))
			l, stop := routeLoop(t, k, desired.ProtocolAgent)
			dst := []string{f.one, f.two, f.mine, f.blackhole}
			want := map[desired.RouteKey]desired.Route{}
			for range 30 {
				d := dst[r.IntN(len(dst))]
				switch r.IntN(5) {
				case 0, 1:
					want[key(d)] = []desired.Route{
						agentRoute(via(f.gw1, "a0")), agentRoute(via(f.gw2, "b0")), agentRoute(via(f.gw1, "a0"), via(f.gw2, "b0")),
						{Type: desired.Blackhole, Protocol: desired.ProtocolAgent},
					}[r.IntN(4)]
					l.Want(set(key(d), want[key(d)]))
				case 2:
					delete(want, key(d))
					l.Want(desired.Patch[desired.RouteKey, desired.Route]{Delete: []desired.RouteKey{key(d)}})
				case 3:
					_, _ = testenv.TryRun(t, ns, "ip", f.flag, "route", "flush", "proto", "80")
					l.Drift()
				case 4:
					metric := fmt.Sprint(100 + r.IntN(3))
					_, _ = testenv.TryRun(t, ns, "ip", f.flag, "route", "replace", "blackhole", d, "metric", metric, "proto", "static")
				}
			}
			l.Drift()
			swept(t, l)
			testenv.Until(t, waitLimit, func() error {
				have, err := k.Routes(desired.ProtocolAgent).List(t.Context())
				if err != nil {
					return err
				}
				if !maps.EqualFunc(want, have, EqualRoutes) {
					return fmt.Errorf("seed %d: the kernel has %v, want %v", seed, have, want)
				}
				return nil
			})
			stop()
		}
	})
}

// A next hop without an interface is where the kernel found it, but never
// behind a tunnel.
func TestNextHopIsNotFoundByATunnel(t *testing.T) {
	for _, c := range []struct {
		found string
		same  bool
	}{{"eth0", true}, {desired.DeviceVXLAN4, false}, {desired.DeviceVXLAN6, false}, {desired.DeviceIPIP, false}} {
		for _, a := range []string{"192.0.2.1", "2001:db8::1"} {
			if got := EqualRoutes(agentRoute(via(a, "")), agentRoute(via(a, c.found))); got != c.same {
				t.Errorf("%s found by %s: as wanted: %v", a, c.found, got)
			}
		}
	}
}
