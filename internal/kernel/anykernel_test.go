package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/reconcile"
	"github.com/brindle-net/brindle/internal/testenv"
)

// These tests need no program besides themselves, so that they run on any
// kernel that boots.

// becomes applies a table, reads it back, empties it and reads it back.
func becomes[K comparable, V any](t *testing.T, target reconcile.Target[K, V], compare func(a, b K) int, equal func(a, b V) bool, want map[K]V) {
	t.Helper()
	l, stop := run(t, target, compare, equal)
	l.Want(desired.Patch[K, V]{Set: want})
	swept(t, l)
	if have, err := target.List(t.Context()); err != nil || !maps.EqualFunc(want, have, equal) {
		t.Errorf("have %+v, %v\nwant %+v", have, err, want)
	}
	stop()
	l, stop = run(t, target, compare, equal)
	swept(t, l)
	if have, err := target.List(t.Context()); err != nil || len(have) != 0 {
		t.Errorf("left %+v, %v", have, err)
	}
	stop()
}

// uplink gives a host a link to somewhere, with addresses.
func uplink(t *testing.T, ns *netns.NS, name string, addrs ...string) {
	t.Helper()
	far := testenv.NetNS(t)
	var sites []*Site
	for _, n := range []*netns.NS{ns, far} {
		own, err := netns.OpenPath(n.Path()) // the site closes it
		if err != nil {
			t.Fatal(err)
		}
		s, err := OpenSite(own)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		sites = append(sites, s)
	}
	if err := sites[0].Cable(name, sites[1], "eth0"); err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if err := sites[0].AddAddress(name, netip.MustParsePrefix(a)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTablesOnAnyKernel(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, host := open(t)
		uplink(t, host, "eth0", "10.1.0.1/24", "fd01::1/64")
		s, _ := workloadSpec(t, 1, f)
		wire(t, k, s)
		if _, err := k.InspectWire(t.Context(), s); err != nil {
			t.Error(err)
		}
		var families []routeFamily
		for _, c := range routeFamilies() {
			if c.name == "v4" && f.HasV4() || c.name == "v6" && f.HasV6() {
				families = append(families, c)
			}
		}
		routes := map[desired.RouteKey]desired.Route{}
		rules := map[desired.RuleKey]desired.Rule{}
		addresses := map[desired.AddrKey]struct{}{}
		neighbours := map[desired.NeighKey]desired.Neigh{}
		for _, c := range families {
			direct := agentRoute(via("", s.HostName))
			number := uint8(6)
			if c.name == "v4" {
				direct.Scope, number = desired.ScopeLink, 4
			}
			gateway := agentRoute(via(c.gw1, "eth0"))
			gateway.MTU, gateway.Source = 1400, netip.MustParsePrefix(c.local).Addr()
			routes[key(c.mine)], routes[key(c.one)] = direct, gateway
			routes[key(c.blackhole)] = desired.Route{Type: desired.Blackhole, Protocol: desired.ProtocolAgent}
			routes[key(c.two)] = agentRoute(via(c.gw1, "eth0"), desired.NextHop{Via: netip.MustParseAddr(c.far), Interface: "eth0", OnLink: true})
			rules[desired.RuleKey{Family: number, Priority: 99}] = desired.Rule{Mark: 4, Mask: 4, Invert: true, Table: 99}
			own := netip.MustParsePrefix(c.mine)
			addresses[desired.AddrKey{Interface: "eth0", Prefix: own}] = struct{}{}
			neighbours[desired.NeighKey{Interface: s.HostName, Addr: own.Addr()}] = desired.Neigh{MAC: "02:00:00:00:00:01"}
		}
		becomes(t, k.Routes(desired.ProtocolAgent), CompareRoutes, EqualRoutes, routes)
		becomes(t, k.Rules(), CompareRules, same[desired.Rule], rules)
		becomes(t, k.Addresses(), CompareAddrs, same[struct{}], addresses)
		becomes(t, k.Neighbours(), CompareNeighs, same[desired.Neigh], neighbours)
		becomes(t, k.Links(), cmp.Compare[string], same[desired.Link], map[string]desired.Link{s.HostName: {
			Up: true, MTU: 1400, Alias: desired.AliasWorkload, Sysctls: desired.SysctlLines(desired.WorkloadSysctls()),
		}})
	})
}

func TestDriftOnAnyKernel(t *testing.T) {
	eachName := []string{"v4", "v6"} // the kernel keeps their routes apart
	for i, c := range routeFamilies() {
		t.Run(eachName[i], func(t *testing.T) {
			k, host := open(t)
			uplink(t, host, "eth0", c.local)
			l, _ := routeLoop(t, k, desired.ProtocolAgent)
			watch(t, k, func(d Drift) {
				if d.Routes {
					l.Drift()
				}
			})
			want := map[desired.RouteKey]desired.Route{key(c.one): agentRoute(via(c.gw1, "eth0"))}
			l.Want(desired.Patch[desired.RouteKey, desired.Route]{Set: want})
			swept(t, l)
			other, err := Open(Config{Netns: host.Path()}) // somebody else, for all that k knows
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			p := reconcile.Plan[desired.RouteKey, desired.Route]{Delete: []desired.RouteKey{key(c.one)}}
			if failed := other.Routes(desired.ProtocolAgent).Apply(t.Context(), p); len(failed) > 0 {
				t.Fatal(failed)
			}
			testenv.Until(t, waitLimit, func() error {
				if s := l.Stats(); s.Repaired == 0 {
					return fmt.Errorf("not repaired: %+v", s)
				}
				return nil
			})
			synced(t, l)
			have, err := k.Routes(desired.ProtocolAgent).List(t.Context())
			if err != nil || !maps.EqualFunc(want, have, EqualRoutes) {
				t.Errorf("have %+v, %v", have, err)
			}
		})
	}
}

// A packet from one workload to another, by the standard library alone.
func TestPacketOnAnyKernel(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, host := open(t)
		forwarding(t, host)
		one, ns1 := workloadSpec(t, 1, f)
		two, ns2 := workloadSpec(t, 2, f)
		l, _ := routeLoop(t, k, desired.ProtocolAgent)
		for _, s := range []WireSpec{one, two} {
			wire(t, k, s)
			for _, a := range s.Addresses {
				r := agentRoute(via("", s.HostName))
				if a.Is4() {
					r.Scope = desired.ScopeLink
				}
				l.Want(set(key(netip.PrefixFrom(a, a.BitLen()).String()), r))
			}
		}
		synced(t, l)
		for i, a := range two.Addresses {
			if err := exchange(ns1, ns2, one.Addresses[i], a); err != nil {
				t.Error(err)
			}
		}
	})
}

// exchange sends a datagram from one namespace's address to another's and
// checks who it came from.
func exchange(from, to *netns.NS, source, target netip.Addr) error {
	return exchangeWithin(from, to, source, target, waitLimit)
}

// exchangeWithin is exchange with the most time that the datagram may take.
func exchangeWithin(from, to *netns.NS, source, target netip.Addr, limit time.Duration) error {
	var server, client net.PacketConn
	err := errors.Join(
		netns.Do(to, func() (err error) {
			server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, 7777)))
			return err
		}),
		netns.Do(from, func() (err error) {
			client, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0)))
			return err
		}))
	if err != nil {
		return err
	}
	defer server.Close()
	defer client.Close()
	if _, err := client.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, 7777))); err != nil {
		return err
	}
	if err := server.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	buf := make([]byte, 16)
	n, sender, err := server.ReadFrom(buf)
	if err != nil {
		return fmt.Errorf("nothing came from %v to %v: %w", source, target, err)
	}
	if got := netip.MustParseAddrPort(sender.String()).Addr(); string(buf[:n]) != "hello" || got != source {
		return fmt.Errorf("%q came from %v, want hello from %v", buf[:n], got, source)
	}
	return nil
}
