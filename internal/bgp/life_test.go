package bgp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/testenv"
)

// ports returns what the host listens on.
func (h *host) ports() []string {
	h.fabric.t.Helper()
	var out []string
	for _, line := range strings.Split(testenv.Run(h.fabric.t, h.ns, "ss", "-Hlntu"), "\n") {
		if f := strings.Fields(line); len(f) > 4 {
			out = append(out, f[0]+" "+f[4])
		}
	}
	slices.Sort(out)
	return out
}

// TestNothingBeforeInSync has a peer wait at the door until our side is
// complete, and sees that only the BGP port is open.
func TestNothingBeforeInSync(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, them := f.host(), f.host()
	b := bird(t, them, birdMesh(us, "", "route 10.65.2.0/26 blackhole;", ""))
	p := launch(t, us.ns, usual())
	want := tables{Speaker: speakerOf(us), Imports: pools(), Peers: map[string]wantPeer{them.v4: meshPeer(us, false)}}
	want.Speaker.ListenOn = []netip.Addr{netip.MustParseAddr(us.v4)}
	p.want(want)
	if got, want := us.ports(), []string{"tcp " + us.v4 + ":179"}; !slices.Equal(got, want) {
		t.Errorf("listens on %v, want %v", got, want)
	}
	testenv.Until(t, time.Minute, func() error {
		if log := b.read("log"); strings.Count(log, "us4: Connected") < 2 {
			return fmt.Errorf("bird has not knocked twice:\n%s", log)
		}
		return nil
	})
	if log := b.read("log"); strings.Contains(log, "BGP session established") || p.session(them.v4).State != "Idle" {
		t.Errorf("a session before InSync:\n%s", log)
	}
	if e := p.events(); len(e) > 0 {
		t.Errorf("events %q", e)
	}
	p.ask(request{Op: "insync"})
	p.up(them.v4)
	p.table(map[string]string{"10.65.2.0/26": them.v4})
	// A path that comes later goes out at once.
	want.Paths = ourPaths()
	p.want(want)
	b.shows("show route", []string{"10.65.1.0/26"})
	testenv.Until(t, 5*time.Second, func() error {
		if e := p.events(); !slices.Contains(e, "insync") {
			return fmt.Errorf("events %q", e)
		}
		return nil
	})
}

// TestNoSpeaker has nothing to speak with: it is in sync at once, so that the
// routes of an earlier life can go.
func TestNoSpeaker(t *testing.T) {
	t.Parallel()
	p := launch(t, newFabric(t).host().ns, usual())
	p.want(tables{Imports: pools()})
	p.ask(request{Op: "insync"})
	testenv.Until(t, time.Minute, func() error {
		if e := p.events(); !slices.Equal(e, []string{"insync"}) {
			return fmt.Errorf("events %q", e)
		}
		return nil
	})
}

// TestQuietEnd ends the speaker in order: the peer keeps our paths.
func TestQuietEnd(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, them := f.host(), f.host()
	b := bird(t, them, birdMesh(us, "", "route 10.65.2.0/26 blackhole;", ""))
	want := tables{Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(), Peers: map[string]wantPeer{them.v4: meshPeer(us, false)}}
	p := start(t, us.ns, usual(), want)
	p.up(them.v4)
	p.table(map[string]string{"10.65.2.0/26": them.v4})
	b.shows("show route", []string{"10.65.1.0/26"})
	before := len(b.read("log"))
	p.ask(request{Op: "stop"})
	b.shows("show protocols all us4", []string{"Neighbor graceful restart active"})
	p = start(t, us.ns, usual(), want)
	p.up(them.v4)
	if log := b.read("log")[before:]; strings.Contains(log, "> removed") {
		t.Errorf("a path was gone for a moment:\n%s", log)
	}
}

// TestSpeakerChanges changes the speaker under way: where it listens, its AS,
// and whether it is there at all.
func TestSpeakerChanges(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, them := f.host(), f.host()
	config := birdMesh(us, "", "route 10.65.2.0/26 blackhole;", "")
	b := bird(t, them, config)
	want := tables{Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(), Peers: map[string]wantPeer{them.v4: meshPeer(us, false)}}
	p := start(t, us.ns, usual(), want)
	p.up(them.v4)
	learned := map[string]string{"10.65.2.0/26": them.v4}
	p.table(learned)
	before := len(b.read("log"))

	want.Speaker.ListenOn = []netip.Addr{netip.MustParseAddr(us.v4)}
	p.want(want)
	p.up(them.v4)
	if got, want := us.ports(), []string{"tcp " + us.v4 + ":179"}; !slices.Equal(got, want) {
		t.Errorf("listens on %v, want %v", got, want)
	}
	if log := b.read("log")[before:]; strings.Contains(log, "> removed") {
		t.Errorf("a path was gone for a moment:\n%s", log)
	}

	want.Speaker.AS = 64513
	peer := want.Peers[them.v4]
	peer.AS = 64513
	want.Peers = map[string]wantPeer{them.v4: peer}
	p.want(want)
	b.write("bird.conf", strings.ReplaceAll(config, fmt.Sprint("as ", clusterAS), "as 64513"))
	b.ask("configure")
	p.up(them.v4)
	p.table(learned)
	if e := p.events(); slices.ContainsFunc(e, func(s string) bool { return strings.HasPrefix(s, "delete") }) {
		t.Errorf("a learned route was gone for a moment: %q", e)
	}

	off := want
	off.Speaker = desired.Speaker{}
	p.want(off)
	p.table(map[string]string{})
	if got := us.ports(); len(got) > 0 {
		t.Errorf("listens on %v", got)
	}
	p.want(want)
	p.up(them.v4)
	p.table(learned)
	testenv.Until(t, 5*time.Second, func() error {
		if e := slices.DeleteFunc(p.events(), func(s string) bool { return s != "insync" }); len(e) != 1 {
			return fmt.Errorf("in sync not exactly once: %q", p.events())
		}
		return nil
	})
}

// TestRefusals are things that the speaker cannot do and says so.
func TestRefusals(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us := f.host()
	p := start(t, us.ns, usual(), tables{Speaker: speakerOf(us), Imports: pools()})
	for _, tt := range []struct {
		name, want string
		edit       func(*tables)
	}{
		{"as 0", "AS number 0 is reserved", func(w *tables) {
			w.Peers = map[string]wantPeer{"172.30.0.9": {Port: 179}}
		}},
		{"source of the other family", "source address fd30::1 is of the other family", func(w *tables) {
			w.Peers = map[string]wantPeer{"172.30.0.9": {Port: 179, Peer: desired.Peer{AS: 1, LocalAddr: netip.MustParseAddr("fd30::1")}}}
		}},
		{"router id", "router id fd30::1 is not written as an IPv4 address", func(w *tables) {
			w.Speaker.RouterID = netip.MustParseAddr("fd30::1")
		}},
		{"community", `community "7": neither two nor three numbers`, func(w *tables) {
			w.Paths = map[string]desired.Path{"10.65.1.0/26": {Communities: []string{"7"}}}
		}},
		{"community number", `community "1:65536": value out of range`, func(w *tables) {
			w.Paths = map[string]desired.Path{"10.65.1.0/26": {Communities: []string{"1:65536"}}}
		}},
		{"host bits", "not a prefix in canonical form", func(w *tables) {
			w.Paths = map[string]desired.Path{"10.65.1.1/26": {}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := tables{Speaker: speakerOf(us), Imports: pools()}
			tt.edit(&want)
			if a := p.ask(request{Op: "want", Want: want}); !strings.Contains(a.Err, tt.want) {
				t.Errorf("error %q, want %q", a.Err, tt.want)
			}
		})
	}
}

// TestAllRestart has three speakers of ours in a full mesh killed at once and
// started again: nobody waits for anybody for ever.
func TestAllRestart(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	hosts := []*host{f.host(), f.host(), f.host()}
	block := func(i int) string { return fmt.Sprintf("10.65.%d.0/26", i+1) }
	run := func() (out []*process) {
		for i, h := range hosts {
			want := tables{
				Speaker: speakerOf(h), Paths: map[string]desired.Path{block(i): {}},
				Imports: map[string]bool{"10.65.0.0/16": false, block(i): true}, Peers: map[string]wantPeer{},
			}
			for j, far := range hosts {
				if j != i {
					peer := meshPeer(h, false)
					peer.Passive = far.v4 > h.v4
					want.Peers[far.v4] = peer
				}
			}
			out = append(out, start(t, h.ns, usual(), want))
		}
		return out
	}
	check := func(all []*process) {
		t.Helper()
		for i, p := range all {
			want := map[string]string{}
			for j, far := range hosts {
				if j != i {
					want[block(j)] = far.v4
				}
			}
			p.table(want)
			p.up(slices.Collect(maps.Values(want))...)
			testenv.Until(t, time.Minute, func() error {
				if e := p.events(); !slices.Contains(e, "insync") {
					return fmt.Errorf("events %q", e)
				}
				return nil
			})
		}
	}
	first := run()
	check(first)
	for _, p := range first {
		p.kill()
	}
	check(run())
}

// TestReflector has us reflect between two clients, and one of them hear two
// equal paths.
func TestReflector(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, one, two, client := f.host(), f.host(), f.host(), f.host()
	b1 := bird(t, one, birdMesh(us, "", "route 10.65.2.0/26 blackhole; route 10.65.8.0/26 blackhole;", ""))
	bird(t, two, birdMesh(us, "", "route 10.65.3.0/26 blackhole; route 10.65.8.0/26 blackhole;", ""))
	want := tables{Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(), Peers: map[string]wantPeer{}}
	for _, h := range []*host{one, two, client} {
		peer := meshPeer(us, false)
		peer.Mesh, peer.ClientOf = false, netip.MustParseAddr("1.1.1.1")
		want.Peers[h.v4] = peer
	}
	p := start(t, us.ns, usual(), want)
	c := start(t, client.ns, usual(), tables{
		Speaker: speakerOf(client), Imports: map[string]bool{"10.65.0.0/16": false},
		Peers: map[string]wantPeer{us.v4: meshPeer(client, false)},
	})
	p.up(one.v4, two.v4, client.v4)
	p.table(map[string]string{
		"10.65.2.0/26": one.v4, "10.65.3.0/26": two.v4, "10.65.8.0/26": one.v4 + "," + two.v4,
	})
	b1.shows("show route all 10.65.3.0/26", []string{"BGP.next_hop: " + two.v4, "BGP.cluster_list: 1.1.1.1", "BGP.originator_id: " + two.v4})
	c.up(us.v4)
	testenv.Until(t, time.Minute, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.learned["10.65.2.0/26"] != one.v4 || c.learned["10.65.3.0/26"] != two.v4 || c.learned["10.65.1.0/26"] != us.v4 {
			return fmt.Errorf("learned %v", c.learned)
		}
		return nil
	})

	// A peer that stops being a client is a new session.
	plain := want.Peers[one.v4]
	plain.ClientOf = netip.Addr{}
	want.Peers[one.v4] = plain
	p.want(want)
	p.up(one.v4)
	if got := p.session(one.v4); got.Accepted != 2 {
		t.Errorf("session %+v", got)
	}
}

// TestDeafEngine takes the file descriptors away that accepting a connection
// needs: the engine would never listen again.
func TestDeafEngine(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, them := f.host(), f.host()
	b := bird(t, them, birdMesh(us, "", "route 10.65.2.0/26 blackhole;", ""))
	peer := meshPeer(us, false)
	peer.Passive = true
	want := tables{Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(), Peers: map[string]wantPeer{them.v4: peer}}
	p := start(t, us.ns, usual(), want)
	p.up(them.v4)
	p.table(map[string]string{"10.65.2.0/26": them.v4})
	testenv.Until(t, time.Minute, func() error {
		// Again each time: a file that was open the last time may be closed now.
		if a := p.ask(request{Op: "files"}); a.Err != "" {
			t.Fatal(a.Err)
		}
		// Whoever knocks; us6 of BIRD does too.
		_, _ = testenv.TryRun(t, them.ns, "bash", "-c", "exec 3<>/dev/tcp/"+us.v4+"/179")
		if text := p.logText(); !strings.Contains(text, "bgp restarts itself") {
			return fmt.Errorf("log\n%s", text)
		}
		return nil
	})
	if a := p.ask(request{Op: "files", Port: 1000}); a.Err != "" {
		t.Fatal(a.Err)
	}
	p.up(them.v4)
	b.shows("show route", []string{"10.65.1.0/26"})
	if e := p.events(); slices.ContainsFunc(e, func(s string) bool { return strings.HasPrefix(s, "delete") }) {
		t.Errorf("a learned route was gone for a moment: %q", e)
	}
}
