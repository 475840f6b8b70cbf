package bgp

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/testenv"
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
	t.Parallel()
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

	cheap := p.ask(request{Op: "states"})
	if cheap.Err != "" || len(cheap.Sessions) != 2 {
		t.Fatalf("states %+v", cheap)
	}
	s.Received, s.Accepted, s.Advertised, s.Refused = 0, 0, 0, cheap.Sessions[0].Refused
	if got := cheap.Sessions[0]; !reflect.DeepEqual(got, s) {
		t.Errorf("state %+v, want %+v", got, s)
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

// TestImportFilter has a host of the cluster announce what it must not.
func TestImportFilter(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, them := f.host(), f.host()
	config := birdMesh(us, "", `
		route 0.0.0.0/0 blackhole;
		route 192.168.50.0/24 blackhole;
		route 10.65.1.0/26 blackhole;
		route 10.65.1.5/32 blackhole;
		route 10.65.2.0/26 blackhole;
		route 10.65.4.0/26 blackhole;`, `
		route ::/0 blackhole;
		route fd77::/64 blackhole;
		route fd65:0:0:1::/122 blackhole;
		route fd65:0:0:1::5/128 blackhole;
		route fd65:0:0:2::/122 blackhole;`)
	config = strings.Replace(config, "export where source = RTS_STATIC;",
		"export filter { if net = 10.65.4.0/26 then bgp_next_hop = 172.30.0.99; accept; };", 1)
	config = strings.Replace(config, "ipv4 { import all; export filter", "ipv4 { import none; export filter", 1)
	config = strings.Replace(config, "accept; }; next hop self;", "accept; };", 1)
	bird(t, them, config)
	want := tables{
		Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(),
		Peers: map[string]wantPeer{them.v4: meshPeer(us, false), them.v6: meshPeer(us, true)},
	}
	p := start(t, us.ns, usual(), want)
	p.up(them.v4, them.v6)
	learned := map[string]string{"10.65.2.0/26": them.v4, "fd65:0:0:2::/122": them.v6}
	p.table(learned)
	check := func(addr string, want Session) {
		t.Helper()
		s := p.session(addr)
		if s.Received != want.Received || s.Accepted != want.Accepted || !maps.Equal(s.Refused, want.Refused) {
			t.Errorf("session %+v, want the numbers of %+v", s, want)
		}
	}
	check(them.v4, Session{Received: 6, Accepted: 1, Refused: map[string]int{
		RefusedDefault: 1, RefusedForeign: 1, RefusedOwn: 2, RefusedNextHop: 1,
	}})
	check(them.v6, Session{Received: 5, Accepted: 1, Refused: map[string]int{
		RefusedDefault: 1, RefusedForeign: 1, RefusedOwn: 2,
	}})

	// An address that the other host borrowed from our block is learned, and
	// the block too once it is not ours. No session notices.
	since := p.session(them.v4).Since
	want.Imports["10.65.1.5/32"] = false
	p.want(want)
	learned["10.65.1.5/32"] = them.v4
	p.table(learned)
	want.Imports["10.65.1.5/32"] = true
	want.Imports["fd65:0:0:1::/122"] = false
	p.want(want)
	delete(learned, "10.65.1.5/32")
	learned["fd65:0:0:1::5/128"] = them.v6 // the block itself we still announce
	p.table(learned)
	delete(want.Imports, "10.65.0.0/16")
	p.want(want)
	delete(learned, "10.65.2.0/26")
	p.table(learned)
	if s := p.session(them.v4); s.Since != since {
		t.Errorf("the session was touched: %+v", s)
	}
}

// TestExternalPeer has a router outside of the cluster, in an AS of its own,
// and a host of the cluster. The router is believed, but not about what is
// ours; between the two only what lies in pools is passed on.
func TestExternalPeer(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, router, them := f.host(), f.host(), f.host()
	q := frr(t, router, fmt.Sprintf(`
router bgp 65001
 bgp router-id %[2]s
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor %[1]s remote-as %[3]d
 neighbor %[1]s timers connect 2
 address-family ipv4 unicast
  network 0.0.0.0/0
  network 192.168.50.0/24
  network 10.65.1.0/26
  network 10.65.7.0/26
 exit-address-family
`, us.v4, router.v4, clusterAS))
	b := bird(t, them, birdMesh(us, "", "route 10.65.2.0/26 blackhole;", ""))
	outside := wantPeer{Port: 179, Peer: desired.Peer{Name: "Global_router", AS: 65001}}
	want := tables{
		Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(),
		Peers: map[string]wantPeer{router.v4: outside, them.v4: meshPeer(us, false)},
	}
	p := start(t, us.ns, usual(), want)
	p.up(router.v4, them.v4)
	p.table(map[string]string{
		"0.0.0.0/0": router.v4, "192.168.50.0/24": router.v4, "10.65.7.0/26": router.v4, "10.65.2.0/26": them.v4,
	})
	if s := p.session(router.v4); !maps.Equal(s.Refused, map[string]int{RefusedOwn: 1}) {
		t.Errorf("session %+v", s)
	}
	b.shows("show route", []string{"10.65.1.0/26", "10.65.7.0/26"}, "0.0.0.0/0", "192.168.50.0/24")
	b.shows("show route all 10.65.7.0/26", []string{"BGP.next_hop: " + router.v4})
	q.shows("show bgp ipv4 unicast", []string{"10.65.2.0/26"})
	q.shows("show bgp ipv4 unicast 10.65.1.0/26", []string{us.v4 + " from " + us.v4})

	// Next hop self, towards the host: without any session being touched.
	since := p.session(them.v4).Since
	self := want.Peers[them.v4]
	self.NextHopMode = "Self"
	want.Peers[them.v4] = self
	p.want(want)
	b.shows("show route all 10.65.7.0/26", []string{"BGP.next_hop: " + us.v4})
	if s := p.session(them.v4); s.Since != since {
		t.Errorf("the session was touched: %+v", s)
	}
}

// TestSessionOptions goes through the options of a session, each with the far
// end of BIRD set to match.
func TestSessionOptions(t *testing.T) {
	for _, tt := range []struct {
		name string
		bird string
		edit func(*wantPeer)
	}{
		{"password", `password "not telling";`, func(p *wantPeer) { p.Password = "not telling" }},
		{"we wait", ``, func(p *wantPeer) { p.Passive = true }},
		{"they wait", `passive on;`, func(*wantPeer) {}},
		{"password, they wait", `passive on; password "x";`, func(p *wantPeer) { p.Password = "x" }},
		{"ttl security", `direct; ttl security on;`, func(p *wantPeer) { p.TTLSecurity = 1 }},
		{"ttl security over hops", `multihop 3; ttl security on;`, func(p *wantPeer) { p.TTLSecurity = 3 }},
		{"any source", ``, func(p *wantPeer) { p.LocalAddr = netip.Addr{} }},
		{"restart time", `graceful restart time 7;`, func(p *wantPeer) { p.Restart = 33 * time.Second }},
		{"keepalive", ``, func(p *wantPeer) { p.Keepalive = time.Second }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFabric(t)
			us, them := f.host(), f.host()
			b := bird(t, them, birdMesh(us, tt.bird, "route 10.65.2.0/26 blackhole;", "route fd65:0:0:2::/122 blackhole;"))
			v4, v6 := meshPeer(us, false), meshPeer(us, true)
			tt.edit(&v4)
			tt.edit(&v6)
			loud := usual()
			loud.Debug = true
			p := start(t, us.ns, loud, tables{
				Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(),
				Peers: map[string]wantPeer{them.v4: v4, them.v6: v6},
			})
			p.up(them.v4, them.v6)
			p.table(map[string]string{"10.65.2.0/26": them.v4, "fd65:0:0:2::/122": them.v6})
			if text := p.logText(); strings.Contains(text, "not telling") {
				t.Error("the password is in the log")
			}
			if v4.Restart != 0 {
				b.shows("show protocols all us4", []string{"Restart time: 33"})
			}
		})
	}
}

// TestPasswordChanges takes one session through passwords and back to none
// while another stays up.
func TestPasswordChanges(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, them, other := f.host(), f.host(), f.host()
	config := birdMesh(us, "", "route 10.65.2.0/26 blackhole;", "")
	with := func(password string) string {
		return strings.Replace(config, "hold time 9;", "hold time 9; password \""+password+"\";", 1)
	}
	b := bird(t, them, with("one"))
	bird(t, other, birdMesh(us, "", "route 10.65.3.0/26 blackhole;", ""))
	peer := meshPeer(us, false)
	peer.Passive = true // so that it is our listening socket that decides
	peer.Password = "one"
	want := tables{Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(),
		Peers: map[string]wantPeer{them.v4: peer, other.v4: meshPeer(us, false)}}
	p := start(t, us.ns, usual(), want)
	p.up(them.v4, other.v4)
	since := p.session(other.v4).Since
	set := func(password string) {
		peer.Password = password
		want.Peers[them.v4] = peer
		p.want(want)
	}
	configure := func(text string) {
		b.write("bird.conf", text)
		b.ask("configure")
	}
	set("two") // and BIRD still says "one"
	testenv.Until(t, time.Minute, func() error {
		if s := p.session(them.v4); s.State == established {
			return fmt.Errorf("session %+v", s)
		}
		return nil
	})
	configure(with("two"))
	p.up(them.v4)
	set("")
	configure(config)
	p.up(them.v4)
	set("three")
	configure(with("three"))
	p.up(them.v4)
	delete(want.Peers, them.v4) // leaves no password behind
	p.want(want)
	set("")
	configure(config)
	p.up(them.v4)
	if s := p.session(other.v4); s.Since != since {
		t.Errorf("the other session was touched: %+v", s)
	}
}

// TestTooManyPrefixes closes the session of a host that announces too much,
// and only that, and lets it back in later.
func TestTooManyPrefixes(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, them, other := f.host(), f.host(), f.host()
	few := birdMesh(us, "", "route 10.65.2.0/26 blackhole; route 10.65.2.64/26 blackhole;", "")
	many := strings.Replace(few, "protocol static s4 { ipv4;", "protocol static s4 { ipv4; route 10.65.2.128/26 blackhole;", 1)
	b := bird(t, them, few)
	bird(t, other, birdMesh(us, "", "route 10.65.3.0/26 blackhole;", ""))
	peer := meshPeer(us, false)
	peer.MaxPrefixes = 2
	p := start(t, us.ns, usual(), tables{Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(),
		Peers: map[string]wantPeer{them.v4: peer, other.v4: meshPeer(us, false)}})
	p.up(them.v4, other.v4)
	since := p.session(other.v4).Since
	all := map[string]string{"10.65.2.0/26": them.v4, "10.65.2.64/26": them.v4, "10.65.3.0/26": other.v4}
	p.table(all)
	b.write("bird.conf", many)
	b.ask("configure")
	p.table(map[string]string{"10.65.3.0/26": other.v4})
	if s := p.session(them.v4); s.State != "Idle" || s.LastError != "sent more than the allowed number of prefixes" {
		t.Errorf("session %+v", s)
	}
	b.write("bird.conf", few)
	b.ask("configure")
	p.up(them.v4)
	p.table(all)
	if s := p.session(other.v4); s.Since != since {
		t.Errorf("the other session was touched: %+v", s)
	}
}
