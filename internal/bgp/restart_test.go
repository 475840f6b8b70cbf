package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/testenv"
)

// frrMesh is bgpd's side of the mesh with us, announcing one prefix of each
// family.
func frrMesh(us, them *host, block int, options string) string {
	return fmt.Sprintf(`
router bgp %[1]d
 bgp router-id %[2]s
 no bgp default ipv4-unicast
 no bgp network import-check
 bgp graceful-restart
 bgp graceful-restart preserve-fw-state
 timers bgp 3 9
 neighbor %[3]s remote-as %[1]d
 neighbor %[3]s timers connect 2
 neighbor %[4]s remote-as %[1]d
 neighbor %[4]s timers connect 2
 %[6]s
 address-family ipv4 unicast
  neighbor %[3]s activate
  network 10.65.%[5]d.0/26
 exit-address-family
 address-family ipv6 unicast
  neighbor %[4]s activate
  network fd65:0:0:%[5]d::/122
 exit-address-family
`, clusterAS, them.v4, us.v4, us.v6, block, options)
}

// TestOurRestart kills the speaker and watches the peers: none of them may
// lose a path of ours at any moment, and after we are back they hear
// End-of-RIB and have the same paths, no longer stale.
func TestOurRestart(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, one, two := f.host(), f.host(), f.host()
	b := bird(t, one, birdMesh(us, "", "route 10.65.2.0/26 blackhole;", "route fd65:0:0:2::/122 blackhole;"))
	q := frr(t, two, frrMesh(us, two, 3, ""))
	want := tables{Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(), Peers: map[string]wantPeer{
		one.v4: meshPeer(us, false), one.v6: meshPeer(us, true),
		two.v4: meshPeer(us, false), two.v6: meshPeer(us, true),
	}}
	routes := map[string]string{
		"10.65.2.0/26": one.v4, "fd65:0:0:2::/122": one.v6,
		"10.65.3.0/26": two.v4, "fd65:0:0:3::/122": two.v6,
	}
	p := start(t, us.ns, usual(), want)
	p.up(one.v4, one.v6, two.v4, two.v6)
	p.table(routes)
	b.shows("show route", []string{"10.65.1.0/26", "fd65:0:0:1::/122"})
	q.shows("show bgp ipv4 unicast", []string{"10.65.1.0/26"})
	q.shows("show bgp ipv6 unicast", []string{"fd65:0:0:1::/122"})
	birdBefore, frrBefore := len(b.read("log")), len(q.read("log"))

	p.kill()
	b.shows("show protocols all us4", []string{"Neighbor graceful restart active"})
	b.shows("show route", []string{"10.65.1.0/26", "fd65:0:0:1::/122"})
	q.shows("show bgp ipv4 unicast", []string{"S>i10.65.1.0/26"})
	q.shows("show bgp ipv6 unicast", []string{"S>ifd65:0:0:1::/122"})

	p = start(t, us.ns, usual(), want)
	p.up(one.v4, one.v6, two.v4, two.v6)
	p.table(routes)
	b.shows("show protocols all us4", []string{"Established"}, "Neighbor graceful restart active")
	q.shows("show bgp ipv4 unicast", []string{"10.65.1.0/26"}, "S>i10.65.1.0/26")
	q.shows("show bgp ipv6 unicast", []string{"fd65:0:0:1::/122"}, "S>ifd65:0:0:1::/122")
	q.shows("show bgp neighbors "+us.v4, []string{"End-of-RIB received: Yes"})

	ours := []string{"10.65.1.0/26", "fd65:0:0:1::/122"}
	for _, line := range strings.Split(b.read("log")[birdBefore:], "\n") {
		if about(line, ours) && strings.Contains(line, "removed") {
			t.Errorf("bird lost a path: %s", line)
		}
	}
	for _, line := range strings.Split(q.read("log")[frrBefore:], "\n") {
		if about(line, ours) && strings.Contains(line, "withdrawn") {
			t.Errorf("bgpd lost a path: %s", line)
		}
	}
	if !strings.Contains(b.read("log")[birdBefore:], "Got END-OF-RIB") {
		t.Error("bird heard no End-of-RIB")
	}
	// The routes are in before the word that they all are, and nothing goes.
	events := p.events()
	testenv.Until(t, 5*time.Second, func() error {
		if events = p.events(); !slices.Contains(events, "insync") {
			return fmt.Errorf("events %v", events)
		}
		return nil
	})
	at := slices.Index(events, "insync")
	if at < len(routes) || slices.ContainsFunc(events, func(e string) bool { return strings.HasPrefix(e, "delete") }) {
		t.Errorf("events %q", events)
	}
}

func about(line string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.Contains(line, p) })
}

// TestPeerRestart kills BIRD: its routes stay, and go when it comes back
// without them.
func TestPeerRestart(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, them := f.host(), f.host()
	config := birdMesh(us, "", "route 10.65.2.0/26 blackhole; route 10.65.2.64/26 blackhole;", "")
	b := bird(t, them, config)
	p := start(t, us.ns, usual(), tables{
		Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(),
		Peers: map[string]wantPeer{them.v4: meshPeer(us, false), them.v6: meshPeer(us, true)},
	})
	p.up(them.v4, them.v6) // a restarting BIRD waits for all of its sessions
	p.table(map[string]string{"10.65.2.0/26": them.v4, "10.65.2.64/26": them.v4})

	b.kill()
	testenv.Until(t, 10*time.Second, func() error {
		if s := p.session(them.v4); s.State == established || !s.Restarting {
			return fmt.Errorf("session %+v", s)
		}
		a := p.ask(request{Op: "routes", Addr: them.v4, Port: 179})
		if len(a.In) != 2 || !a.In[0].Stale || !a.In[1].Stale {
			return fmt.Errorf("routes %+v", a.In)
		}
		return nil
	})
	b.write("bird.conf", strings.Replace(config, "route 10.65.2.64/26 blackhole;", "", 1))
	if got := p.events(); slices.ContainsFunc(got, func(e string) bool { return strings.HasPrefix(e, "delete") }) {
		t.Errorf("events %q", got)
	}
	b.argv = append(b.argv, "-R")
	b.start()
	p.up(them.v4, them.v6)
	p.table(map[string]string{"10.65.2.0/26": them.v4})
	if got := p.events(); slices.Contains(got, "delete 10.65.2.0/26") {
		t.Errorf("a path that came back was gone for a moment: %q", got)
	}
}

// TestPeerGone kills BIRD for good: its routes go after its restart time. When
// it is back, killed again and back without graceful restart, nothing that it
// does not announce any more is kept for an End-of-RIB that will not come.
func TestPeerGone(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, them := f.host(), f.host()
	config := birdMesh(us, "graceful restart time 4;", "route 10.65.2.0/26 blackhole; route 10.65.2.64/26 blackhole;", "")
	b := bird(t, them, config)
	p := start(t, us.ns, usual(), tables{
		Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(),
		Peers: map[string]wantPeer{them.v4: meshPeer(us, false)},
	})
	all := map[string]string{"10.65.2.0/26": them.v4, "10.65.2.64/26": them.v4}
	p.up(them.v4)
	p.table(all)
	b.kill()
	p.table(map[string]string{})
	if s := p.session(them.v4); s.Restarting || s.LastError != "did not come back within its restart time" {
		t.Errorf("session %+v", s)
	}
	b.write("bird.conf", strings.Replace(config, "restart time 4", "restart time 60", 1))
	b.start()
	p.up(them.v4)
	p.table(all)
	b.kill()
	b.write("bird.conf", strings.NewReplacer("graceful restart on;", "graceful restart off;", "graceful restart time 4;", "",
		"route 10.65.2.64/26 blackhole;", "").Replace(config))
	b.start()
	p.table(map[string]string{"10.65.2.0/26": them.v4})
	if s := p.session(them.v4); s.GracefulRestart || s.Restarting {
		t.Errorf("session %+v", s)
	}
	p.up(them.v4) // nothing to wait for but a little time
}

// TestDeadHost takes the cable out: who is silent for the hold time is dead,
// and its routes are not kept for a restart that will not come.
func TestDeadHost(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, dead, well := f.host(), f.host(), f.host()
	bird(t, dead, birdMesh(us, "", "route 10.65.2.0/26 blackhole;", ""))
	bird(t, well, birdMesh(us, "", "route 10.65.3.0/26 blackhole;", ""))
	p := start(t, us.ns, usual(), tables{
		Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(),
		Peers: map[string]wantPeer{dead.v4: meshPeer(us, false), well.v4: meshPeer(us, false)},
	})
	p.up(dead.v4, well.v4)
	p.table(map[string]string{"10.65.2.0/26": dead.v4, "10.65.3.0/26": well.v4})
	dead.cut()
	p.table(map[string]string{"10.65.3.0/26": well.v4}) // waits for longer than the hold time, less than the restart time
	if s := p.session(dead.v4); s.State == established || s.LastError != "hold timer expired" {
		t.Errorf("session %+v", s)
	}
	testenv.Run(t, f.ns, "ip", "link", "set", dead.port, "master", "br0")
	p.up(dead.v4)
	p.table(map[string]string{"10.65.2.0/26": dead.v4, "10.65.3.0/26": well.v4})
}

// TestReflectorRestart restarts a reflector whose second client comes in only
// after it has begun to wait for the first. It waits for both, and the first
// hears from it as soon as the second is done.
func TestReflectorRestart(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, one, two := f.host(), f.host(), f.host()
	client := meshPeer(us, false)
	client.Peer.ClientOf, client.Peer.Mesh = netip.MustParseAddr("10.0.0.1"), false
	want := tables{Speaker: speakerOf(us), Imports: pools(), Peers: map[string]wantPeer{one.v4: client}}
	p := start(t, us.ns, usual(), want)
	p.state(30*time.Second, one.v4, func(s Session) bool { return s.State != "Idle" })
	want.Peers = map[string]wantPeer{one.v4: client, two.v4: client}
	p.want(want)
	of := func(h *host, block string) tables {
		return tables{
			Speaker: speakerOf(h), Imports: pools(), Paths: map[string]desired.Path{block: {}},
			Peers: map[string]wantPeer{us.v4: meshPeer(h, false)},
		}
	}
	first := start(t, one.ns, usual(), of(one, "10.65.2.0/26"))
	p.state(30*time.Second, one.v4, func(s Session) bool { return s.State == established && s.EndOfRIBReceived })
	second := start(t, two.ns, usual(), of(two, "10.65.3.0/26"))
	for _, addr := range []string{one.v4, two.v4} { // long before the bound of a minute
		p.state(30*time.Second, addr, func(s Session) bool { return s.EndOfRIBSent })
	}
	first.table(map[string]string{"10.65.3.0/26": two.v4})
	second.table(map[string]string{"10.65.2.0/26": one.v4})
}

// TestFreshStart has a speaker on a host that forwards nothing yet: it waits
// for nobody, here for a client that never comes up, and its peers keep nothing
// for it.
func TestFreshStart(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, one, dead := f.host(), f.host(), f.host()
	b := bird(t, one, birdMesh(us, "", "route 10.65.2.0/26 blackhole;", ""))
	client := meshPeer(us, false)
	client.Peer.ClientOf, client.Peer.Mesh = netip.MustParseAddr("10.0.0.1"), false
	set := usual()
	set.Fresh = true
	p := start(t, us.ns, set, tables{
		Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(), Peers: map[string]wantPeer{one.v4: client, dead.v4: client},
	})
	p.state(30*time.Second, one.v4, func(s Session) bool { return s.EndOfRIBReceived && s.EndOfRIBSent })
	b.shows("show protocols all us4", []string{"Established"}, "Restart recovery")
	b.shows("show route", []string{"10.65.1.0/26"})
}
