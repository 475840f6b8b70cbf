package oracle_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/calc"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/randworld"
)

const networkHistories = 60

// TestCoresAgreeWithOracleOnNetworks is TestCoreAgreesWithOracle with a core
// for each host of a network, and with what the oracle says of all of them at
// once. Both families are in every history.
func TestCoresAgreeWithOracleOnNetworks(t *testing.T) {
	n := uint64(networkHistories)
	if underRace {
		n /= 10
	}
	for seed := range n {
		networkHistory(t, seed)
	}
}

func FuzzCoresAgreeWithOracleOnNetworks(f *testing.F) {
	f.Add(uint64(networkHistories + 1))
	f.Fuzz(networkHistory)
}

// member is one host of a network with its core.
type member struct {
	set     model.Settings
	core    *calc.Core
	played  desired.State
	pending []model.Event
}

func networkHistory(t *testing.T, seed uint64) {
	g, w := gen{rand.New(rand.NewPCG(seed, 17))}, randworld.NewNetwork(seed)
	members, shared := map[string]*member{}, w.Overlay()
	for _, name := range randworld.Hosts() {
		m := &member{set: model.Settings{Node: name, NoIPv6: g.chance(10), Overlay: shared}, played: desired.NewState()}
		if g.chance(20) {
			m.set.Overlay = w.Overlay()
		}
		m.core, m.pending = calc.New(m.set), w.Events()
		members[name] = m
	}
	snap := oracle.Snapshot{}
	for _, e := range w.Events() {
		snap.Add(e)
	}
	for step := range 12 {
		change := w.Change()
		for _, e := range change {
			snap.Add(e)
		}
		for _, name := range randworld.Hosts() {
			m := members[name]
			where := func() string {
				return fmt.Sprintf("seed %d step %d, %s, after\n%s", seed, step, name, describe(change))
			}
			m.pending = append(m.pending, change...)
			for n := len(m.pending); n > 0; n = len(m.pending) {
				if g.chance(50) {
					n = 1 + g.IntN(n)
				}
				m.step(t, where, n)
			}
			want := oracle.Desired(snap, m.set)
			compare(t, where, m.core.State(), want)
			compare(t, where, m.played, want)
		}
		together(t, seed, snap, members)
	}
}

// step plays n of the events that a host has not heard of.
func (m *member) step(t *testing.T, where func() string, n int) {
	t.Helper()
	before := clone(m.played)
	u := m.core.Apply(m.pending[:n])
	m.pending = m.pending[n:]
	u.Play(m.played)
	minimal(t, where, before, u)
	minimalPolicy(t, where, before.Policy, u.Policy)
}

// together holds what is said of all hosts to what their cores say, and the
// journeys to the routes.
func together(t *testing.T, seed uint64, snap oracle.Snapshot, members map[string]*member) {
	t.Helper()
	settings := func(node string) model.Settings { return members[node].set }
	for _, n := range oracle.Networks(snap, settings) {
		s := members[n.Node].core.State()
		tunnels := map[desired.NeighKey]desired.Neigh{}
		for k, v := range s.Neighbours {
			if _, ok := s.Devices[k.Interface]; ok {
				tunnels[k] = v
			}
		}
		for what, pair := range map[string][2]any{
			"devices": {s.Devices, n.Devices}, "addresses": {s.Addresses, n.Addresses}, "routes": {s.Routes, n.Routes},
			"neighbours": {tunnels, n.Neighbours},
		} {
			if !reflect.DeepEqual(pair[0], pair[1]) {
				t.Fatalf("seed %d: %s of %s:\n got %+v\nwant %+v", seed, what, n.Node, pair[0], pair[1])
			}
		}
	}
	for _, j := range oracle.Journeys(snap, settings) {
		if j.From == j.To || j.Why == "" || j.By != oracle.ByAgent && j.Form != desired.Direct {
			t.Fatalf("seed %d: %+v", seed, j)
		}
		for _, e := range []struct{ pool, inside string }{{"p2", "10.66.0.0/28"}, {"p4", "fd02::/124"}} {
			b, _ := snap[model.BlockID(netip.MustParsePrefix(e.inside))].(*model.Block)
			if j.Pool != e.pool || b == nil || b.Host != j.To || members[j.From].set.Overlay.NoRoutes {
				continue
			}
			r, there := members[j.From].core.State().Routes[desired.RouteKey{Table: 254, Prefix: b.CIDR, Priority: 1023}]
			if got := formOf(r); there != (j.By == oracle.ByAgent) || got != j.Form {
				t.Fatalf("seed %d: route to %v is there: %v, %v, and the journey is %+v", seed, b.CIDR, there, got, j)
			}
		}
	}
}

// formOf tells in which form packets travel by a route.
func formOf(r desired.Route) desired.Form {
	switch {
	case len(r.Hops) == 0 || r.Hops[0].Interface == "":
		return desired.Direct
	case r.Hops[0].Interface == desired.DeviceIPIP:
		return desired.IPIP
	}
	return desired.VXLAN
}

// TestNetworksReach makes sure that the networks are not empty where it
// matters.
func TestNetworksReach(t *testing.T) {
	seen := map[string]int{}
	const worlds = 400
	for seed := range uint64(worlds) {
		w, snap := randworld.NewNetwork(seed), oracle.Snapshot{}
		for _, e := range w.Events() {
			snap.Add(e)
		}
		overlay := w.Overlay()
		settings := func(node string) model.Settings { return model.Settings{Node: node, Overlay: overlay} }
		for _, n := range oracle.Networks(snap, settings) {
			for k, r := range n.Routes {
				if k.Priority == 1023 {
					seen[fmt.Sprintf("route v4 %v %v single %v mtu %v via %v", k.Prefix.Addr().Is4(), formOf(r), k.Prefix.IsSingleIP(),
						r.MTU > 0, r.Hops[0].Via.IsValid())]++
				}
			}
			for name := range n.Devices {
				seen["device "+name]++
			}
			for k := range n.Addresses {
				seen["address "+k.Interface]++
			}
			for k := range n.Neighbours {
				seen[fmt.Sprintf("neighbour %s fdb %v", k.Interface, k.MAC != "")]++
			}
		}
		for _, j := range oracle.Journeys(snap, settings) {
			seen[fmt.Sprintf("journey %v by %s", j.Form, j.By)]++
			seen[fmt.Sprintf("instead %v", strings.Contains(j.Why, "accept"))]++
		}
		s := oracle.Desired(snap, settings("h1"))
		for p, f := range s.Policy.Hosts {
			seen[fmt.Sprintf("host v4 %v %v", p.Addr().Is4(), f)]++
		}
		for _, n := range s.Notices {
			seen["notice "+n.Reason]++
		}
		seen["pools"] += len(s.Policy.Pools)
		seen["tunnels"] += len(s.Policy.Tunnels)
	}
	want := []string{
		"pools", "tunnels", "instead true", "journey direct by agent", "journey direct by BGP", "journey direct by none", "journey ipip by agent",
		"journey vxlan by agent", "notice NoTunnelAddress", "notice TunnelAddressTaken", "notice TunnelMACTaken", "notice FormNotAccepted",
		"notice EncapsulationOff", "notice EncapsulationNotProgrammed", "host v4 true direct,ipip,vxlan", "host v4 true direct",
		"host v4 false direct,vxlan", "host v4 false direct", "route v4 true vxlan single true mtu true via false",
		"route v4 false vxlan single true mtu true via false", "route v4 true ipip single true mtu true via true",
		"route v4 true ipip single false mtu false via true", "route v4 true direct single true mtu false via true",
		"route v4 false direct single true mtu false via true",
	}
	for _, name := range []string{desired.DeviceIPIP, desired.DeviceVXLAN4, desired.DeviceVXLAN6} {
		want = append(want, "device "+name, "address "+name)
		if name != desired.DeviceIPIP {
			want = append(want, "neighbour "+name+" fdb true", "neighbour "+name+" fdb false")
		}
	}
	for _, k := range want {
		if seen[k] < 20 {
			t.Errorf("%s: %d in %d networks; seen: %v", k, seen[k], worlds, slices.Sorted(func(yield func(string) bool) {
				for k := range seen {
					if !yield(k) {
						return
					}
				}
			}))
		}
	}
}
