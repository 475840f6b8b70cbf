package agent

import (
	"log/slog"
	"net/netip"
	"reflect"
	"strconv"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/paths"
)

func probesOf(s config.Probes) *probes {
	return newProbes(Config{Node: "h1", Settings: config.Agent{Probes: s}, Log: slog.New(slog.DiscardHandler)}, nil)
}

// TestChecksumOffloadBroken: featureDetectOverride comes before the kernel's
// version. It has nothing to do with a family.
func TestChecksumOffloadBroken(t *testing.T) {
	yes, no := true, false
	broken, err := kernel.ChecksumsBroken()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		says *bool
		want bool // switched off without measuring
	}{{"nothing said", nil, broken}, {"true", &yes, true}, {"false", &no, false}} {
		if got := offloadOff(config.Probes{ChecksumBroken: c.says}, Config{Log: slog.New(slog.DiscardHandler)}); (got != "") != c.want {
			t.Errorf("%s: got %q", c.name, got)
		}
	}
	s := settings(t, v3.FelixConfigurationSpec{FeatureDetectOverride: "SNATFullyRandom=true,ChecksumOffloadBroken=true"})
	if says := s.Probes.ChecksumBroken; says == nil || !*says {
		t.Errorf("got %+v", s.Probes)
	}
}

// probeWorld is two other hosts, one beyond a tunnel, one on the same subnet.
func probeWorld(family int) (events []model.Event, u desired.Update, want []paths.Path) {
	addr := func(four, six string) netip.Addr {
		if family == 6 {
			return netip.MustParseAddr(six)
		}
		return netip.MustParseAddr(four)
	}
	device, mtu := desired.DeviceVXLAN4, 1450
	if family == 6 {
		device, mtu = desired.DeviceVXLAN6, 1430
	}
	own, node := addr("10.65.1.1", "fd65:1::1"), addr("172.16.1.1", "fd16:1::1")
	remote := map[string]netip.Addr{"h2": addr("10.65.2.1", "fd65:2::1"), "h3": addr("10.65.3.1", "fd65:3::1"), "h1": own}
	hosts := map[string]netip.Addr{"h2": addr("172.16.2.1", "fd16:2::1"), "h3": addr("172.16.1.3", "fd16:1::3"), "h1": node}
	for name, a := range remote {
		n := &model.Node{Name: name, Speaks: name == "h2"}
		if family == 6 {
			n.VXLAN6.Addr, n.Addr6 = a, netip.PrefixFrom(hosts[name], 64)
		} else {
			n.VXLAN4.Addr, n.Addr4 = a, netip.PrefixFrom(hosts[name], 24)
		}
		events = append(events, model.Event{ID: model.ID{Kind: model.KindNode, Name: name}, Value: n})
	}
	block := func(a netip.Addr, bits int) desired.RouteKey {
		p, _ := a.Prefix(bits)
		return desired.RouteKey{Table: desired.MainTable, Prefix: p, Priority: 1023}
	}
	bits := own.BitLen() - 6
	u.Devices.Set = map[string]desired.Device{device: {Form: desired.VXLAN, Local: node, MAC: "66:00:00:00:00:01", VNI: 4096, Port: 4789}}
	u.Policy.Tunnels.Set = map[string]netip.Addr{device: own}
	u.Neighbours.Set = map[desired.NeighKey]desired.Neigh{
		{Interface: device, Addr: remote["h2"]}:               {MAC: "66:00:00:00:00:02"},
		{Interface: device, MAC: "66:00:00:00:00:02"}:         {Dst: hosts["h2"]},
		{Interface: "cali1", Addr: addr("10.65.1.9", "::99")}: {MAC: "ee:ee:ee:ee:ee:ee"},
	}
	u.Routes.Set = map[desired.RouteKey]desired.Route{
		block(remote["h2"], bits): {Hops: []desired.NextHop{{Via: remote["h2"], Interface: device, OnLink: true}}, MTU: mtu},
		// Of h3's block some is behind the tunnel, but not its own address.
		block(remote["h3"], bits):                  {Hops: []desired.NextHop{{Via: remote["h3"], Interface: device, OnLink: true}}, MTU: mtu},
		block(remote["h3"], remote["h3"].BitLen()): {Hops: []desired.NextHop{{Via: hosts["h3"]}}},
		block(own, bits):                           {Type: desired.Blackhole},
	}
	want = []paths.Path{{Device: device, Form: desired.VXLAN, Local: own, Remote: remote["h2"], MTU: mtu, Peer: "h2", Node: hosts["h2"], Speaks: true,
		Outer: paths.Outer{Local: node, VNI: 4096, Port: 4789, LocalMAC: "66:00:00:00:00:01", RemoteMAC: "66:00:00:00:00:02"}}}
	return events, u, want
}

// TestTunnelsInUse: what is measured is where packets go by a tunnel; who is
// answered is everybody who has an end of one.
func TestTunnelsInUse(t *testing.T) {
	for _, family := range []int{4, 6} {
		p := probesOf(config.Probes{Port: paths.DefaultPort})
		events, u, want := probeWorld(family)
		p.note(events, u)
		ends, known, list := p.inUse("h1", true)
		if len(ends) != 1 || ends[0].Addr != want[0].Local || !ends[0].Offload || len(known) != 2 || !known[want[0].Remote] || known[want[0].Local] {
			t.Errorf("IPv%d: ends %+v, known %v", family, ends, known)
		}
		if !reflect.DeepEqual(list, want) {
			t.Errorf("IPv%d:\n got %+v\nwant %+v", family, list, want)
		}
		<-p.wake

		// Nothing that concerns paths.
		p.note(nil, desired.Update{Routes: desired.Patch[desired.RouteKey, desired.Route]{Set: map[desired.RouteKey]desired.Route{
			{Table: desired.MainTable, Prefix: netip.MustParsePrefix("10.65.1.9/32"), Priority: 1024}: {Hops: []desired.NextHop{{Interface: "cali1"}}},
		}}})
		select {
		case <-p.wake:
			t.Errorf("IPv%d: woken by a workload", family)
		default:
		}

		// The route changes, and changes back, and the host goes.
		var gone, back desired.Update
		for key, r := range u.Routes.Set {
			if key.Prefix.Contains(want[0].Remote) {
				gone.Routes.Delete = append(gone.Routes.Delete, key)
				back.Routes.Set = map[desired.RouteKey]desired.Route{key: r}
			}
		}
		p.note(nil, gone)
		if _, known, list := p.inUse("h1", true); len(list) != 0 || len(known) != 2 {
			t.Errorf("IPv%d: without a route: %v", family, list)
		}
		p.note(nil, back)
		if _, _, list := p.inUse("h1", true); len(list) != 1 {
			t.Errorf("IPv%d: with the route again: %v", family, list)
		}
		p.note([]model.Event{{ID: model.ID{Kind: model.KindNode, Name: "h2"}}}, desired.Update{})
		if _, known, list := p.inUse("h1", true); len(list) != 0 || len(known) != 1 {
			t.Errorf("IPv%d: without the host: %v", family, list)
		}
	}
}

// TestProbesOff: nothing is kept, and the condition says so. It has nothing to
// do with a family.
func TestProbesOff(t *testing.T) {
	for name, p := range map[string]*probes{
		"by its port": probesOf(config.Probes{}),
		"no networking": newProbes(Config{Settings: config.Agent{Probes: config.Probes{Port: 1}, Overlay: config.Overlay{Backend: config.BackendNone}},
			Log: slog.New(slog.DiscardHandler)}, nil),
	} {
		events, u, _ := probeWorld(4)
		p.note(events, u)
		a := &agent{probes: p}
		if v := a.checkPaths(); p.monitor != nil || len(p.nodes) != 0 || !v.OK || v.Reason != "Off" || len(a.pathSamples()) != 0 {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// BenchmarkTunnelsInUse is what a change costs on a host with 1,000 others of
// ten blocks each.
func BenchmarkTunnelsInUse(b *testing.B) {
	p := probesOf(config.Probes{Port: paths.DefaultPort})
	var events []model.Event
	u := desired.Update{}
	u.Devices.Set = map[string]desired.Device{desired.DeviceVXLAN4: {Form: desired.VXLAN}}
	u.Policy.Tunnels.Set = map[string]netip.Addr{desired.DeviceVXLAN4: netip.MustParseAddr("10.0.255.255")}
	u.Routes.Set = map[desired.RouteKey]desired.Route{}
	a := netip.MustParseAddr("10.1.0.0")
	for i := range 1000 {
		n := &model.Node{Name: "node-" + strconv.Itoa(i), VXLAN4: model.TunnelEnd{Addr: a}}
		events = append(events, model.Event{ID: model.ID{Kind: model.KindNode, Name: n.Name}, Value: n})
		for range 10 {
			u.Routes.Set[desired.RouteKey{Table: desired.MainTable, Prefix: netip.PrefixFrom(a, 26), Priority: 1023}] = desired.Route{MTU: 1450,
				Hops: []desired.NextHop{{Via: n.VXLAN4.Addr, Interface: desired.DeviceVXLAN4, OnLink: true}}}
			for range 64 {
				a = a.Next()
			}
		}
	}
	p.note(events, u)
	for b.Loop() {
		if _, _, list := p.inUse("h1", false); len(list) != 1000 {
			b.Fatal(len(list))
		}
	}
}
