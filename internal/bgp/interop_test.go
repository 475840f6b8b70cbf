package bgp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
)

const clusterAS = 64512

func usual() childSettings {
	return childSettings{Hold: 9 * time.Second, Retry: 2 * time.Second, LimitHold: 3 * time.Second}
}

func speakerOf(h *host) desired.Speaker {
	return desired.Speaker{AS: clusterAS, RouterID: netip.MustParseAddr(h.v4), ListenPort: 179}
}

func meshPeer(us *host, v6 bool) wantPeer {
	addr := us.v4
	if v6 {
		addr = us.v6
	}
	return wantPeer{Port: 179, Peer: desired.Peer{
		Name: "Mesh_test", AS: clusterAS, Mesh: true, LocalAddr: netip.MustParseAddr(addr),
	}}
}

// birdMesh is BIRD's side of the mesh with us, announcing prefixes.
func birdMesh(us *host, options, prefixes4, prefixes6 string) string {
	return fmt.Sprintf(`
protocol static s4 { ipv4; %[4]s }
protocol static s6 { ipv6; %[5]s }
template bgp mesh {
	local as %[1]d;
	graceful restart on;
	hold time 9;
	connect retry time 2;
	connect delay time 1;
	error wait time 1, 2;
	%[6]s
}
protocol bgp us4 from mesh {
	neighbor %[2]s as %[1]d;
	ipv4 { import all; export where source = RTS_STATIC; next hop self; };
}
protocol bgp us6 from mesh {
	neighbor %[3]s as %[1]d;
	ipv6 { import all; export where source = RTS_STATIC; next hop self; };
}
`, clusterAS, us.v4, us.v6, prefixes4, prefixes6, options)
}

// pools are those of all tests: ours are the blocks .1, anybody's the others.
func pools() map[string]bool {
	return map[string]bool{
		"10.65.0.0/16": false, "10.65.1.0/26": true,
		"fd65::/48": false, "fd65:0:0:1::/122": true,
	}
}

func ourPaths() map[string]desired.Path {
	return map[string]desired.Path{
		"10.65.1.0/26":     {LocalPref: 2147482623, Communities: []string{"64512:7", "64512:1:2"}},
		"fd65:0:0:1::/122": {LocalPref: 2147482623},
	}
}

func TestMeshWithBIRD(t *testing.T) {
	f := newFabric(t)
	us, them := f.host(), f.host()
	b := bird(t, them, birdMesh(us, "",
		"route 10.65.2.0/26 blackhole; route 10.65.9.3/32 blackhole;", "route fd65:0:0:2::/122 blackhole;"))
	want := tables{
		Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(),
		Peers: map[string]wantPeer{them.v4: meshPeer(us, false), them.v6: meshPeer(us, true)},
	}
	p := start(t, us.ns, usual(), want)
	p.up(them.v4, them.v6)
	p.table(map[string]string{
		"10.65.2.0/26": them.v4, "10.65.9.3/32": them.v4, "fd65:0:0:2::/122": them.v6,
	})
	b.shows("show route all 10.65.1.0/26", []string{"BGP.next_hop: " + us.v4, "BGP.local_pref: 2147482623",
		"BGP.community: (64512,7)", "BGP.large_community: (64512, 1, 2)"})
	b.shows("show route all fd65:0:0:1::/122", []string{"BGP.next_hop: " + us.v6})
	s := p.session(them.v4)
	if !s.GracefulRestart || s.Received != 2 || s.Accepted != 2 || s.Advertised != 1 {
		t.Errorf("session %+v", s)
	}

	// Withdrawals, both ways, and a new prefix; the sessions stay.
	delete(want.Paths, "10.65.1.0/26")
	want.Paths["10.65.1.64/26"] = desired.Path{}
	p.want(want)
	b.shows("show route", []string{"10.65.1.64/26"}, "10.65.1.0/26")
	b.ask("disable s4")
	p.table(map[string]string{"fd65:0:0:2::/122": them.v6})
	if again := p.session(them.v4); again.Since != s.Since || again.State != established {
		t.Errorf("the session was touched: %+v, then %+v", s, again)
	}
}
