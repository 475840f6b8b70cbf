package bgp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
)

func filterOf(entries map[string]bool) filter {
	f := filter{}
	for p, own := range entries {
		f[netip.MustParsePrefix(p)] = desired.Import{Own: own}
	}
	return f
}

func TestJudge(t *testing.T) {
	f := filterOf(map[string]bool{
		"10.65.0.0/16": false, "10.65.1.0/26": true, "10.65.1.5/32": false,
		"fd65::/48": false, "fd65:0:0:1::/122": true,
	})
	mesh := desired.Peer{Mesh: true, LocalAddr: netip.MustParseAddr("172.30.0.1")}
	other := desired.Peer{LocalAddr: netip.MustParseAddr("172.30.0.1")}
	for _, tt := range []struct {
		name, prefix, hop, from string
		peer                    desired.Peer
		reflected               bool
		want                    string
	}{
		{"block of another", "10.65.2.0/26", "172.30.0.2", "172.30.0.2", mesh, false, ""},
		{"whole pool", "10.65.0.0/16", "172.30.0.2", "172.30.0.2", mesh, false, ""},
		{"more than the pool", "10.64.0.0/15", "172.30.0.2", "172.30.0.2", mesh, false, RefusedForeign},
		{"own block", "10.65.1.0/26", "172.30.0.2", "172.30.0.2", mesh, false, RefusedOwn},
		{"part of own block", "10.65.1.32/27", "172.30.0.2", "172.30.0.2", mesh, false, RefusedOwn},
		{"borrowed from own block", "10.65.1.5/32", "172.30.0.2", "172.30.0.2", mesh, false, ""},
		{"around own block", "10.65.1.0/24", "172.30.0.2", "172.30.0.2", mesh, false, ""},
		{"default", "0.0.0.0/0", "172.30.0.2", "172.30.0.2", mesh, false, RefusedDefault},
		{"foreign", "192.168.0.0/24", "172.30.0.2", "172.30.0.2", mesh, false, RefusedForeign},
		{"third party", "10.65.2.0/26", "172.30.0.3", "172.30.0.2", mesh, false, RefusedNextHop},
		{"reflected", "10.65.2.0/26", "172.30.0.3", "172.30.0.2", mesh, true, ""},
		{"via ourselves", "10.65.2.0/26", "172.30.0.1", "172.30.0.2", mesh, true, RefusedNextHop},
		{"no next hop", "10.65.2.0/26", "0.0.0.0", "172.30.0.2", mesh, true, RefusedNextHop},
		{"other family's next hop", "10.65.2.0/26", "fd30::2", "fd30::2", mesh, false, RefusedNextHop},
		{"v6 block", "fd65:0:0:2::/122", "fd30::2", "fd30::2", mesh, false, ""},
		{"v6 own", "fd65:0:0:1::7/128", "fd30::2", "fd30::2", mesh, false, RefusedOwn},
		{"v6 default", "::/0", "fd30::2", "fd30::2", mesh, false, RefusedDefault},
		{"operator's default", "0.0.0.0/0", "172.30.0.9", "172.30.0.9", other, false, ""},
		{"operator's v6 default", "::/0", "fd30::9", "fd30::9", other, false, ""},
		{"operator's foreign", "192.168.0.0/24", "172.30.0.8", "172.30.0.9", other, false, ""},
		{"operator's own", "10.65.1.0/26", "172.30.0.9", "172.30.0.9", other, false, RefusedOwn},
		{"loopback", "127.0.0.0/8", "172.30.0.9", "172.30.0.9", other, false, RefusedMartian},
		{"part of loopback", "127.1.0.0/16", "172.30.0.9", "172.30.0.9", other, false, RefusedMartian},
		{"multicast", "224.0.0.0/4", "172.30.0.9", "172.30.0.9", other, false, RefusedMartian},
		{"half of everything", "128.0.0.0/1", "172.30.0.9", "172.30.0.9", other, false, ""},
		{"link-local", "169.254.1.0/24", "172.30.0.9", "172.30.0.9", other, false, RefusedMartian},
		{"this network", "0.0.0.0/8", "172.30.0.9", "172.30.0.9", other, false, RefusedMartian},
		{"v6 loopback", "::1/128", "fd30::9", "fd30::9", other, false, RefusedMartian},
		{"v6 link-local", "fe80::/64", "fd30::9", "fd30::9", other, false, RefusedMartian},
		{"v6 multicast", "ff00::/8", "fd30::9", "fd30::9", other, false, RefusedMartian},
		{"v4 as v6", "::ffff:10.0.0.0/104", "fd30::9", "fd30::9", other, false, RefusedMartian},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := candidate{netip.MustParsePrefix(tt.prefix), netip.MustParseAddr(tt.hop), tt.reflected}
			if got := f.judge(c, desired.PeerKey{Addr: netip.MustParseAddr(tt.from)}, tt.peer); got != tt.want {
				t.Errorf("judge = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseCommunity(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []uint32
		err  string
	}{
		{in: "64512:7", want: []uint32{64512, 7}},
		{in: "4200000000:1:2", want: []uint32{4200000000, 1, 2}},
		{in: "65536:1", err: "value out of range"},
		{in: "a:1", err: "invalid syntax"},
		{in: "1", err: "neither two nor three"},
		{in: "1:2:3:4", err: "neither two nor three"},
	} {
		got, err := parseCommunity(tt.in)
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("parseCommunity(%q) = %v, %v; want %v, %q", tt.in, got, err, tt.want, tt.err)
		}
	}
}

// TestFilterHistory changes paths and filter at random and compares, after each
// change, what is learned and what is passed on with a filter that is written
// as the contract reads. It runs over sessions of both families at once.
func TestFilterHistory(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	sender, us, watcher := f.host(), f.host(), f.host()
	r := rand.New(rand.NewPCG(3, 4))
	// A small space, so that all meet: 10.65.0.0/24 … and fd65::/120 ….
	random := func(v4 bool) string {
		base, least, bits := netip.MustParseAddr("fd65::"), 120, 128
		if v4 {
			base, least, bits = netip.MustParseAddr("10.65.0.0"), 24, 32
		}
		a := base.AsSlice()
		a[len(a)-1] = byte(r.Uint32())
		addr, _ := netip.AddrFromSlice(a)
		p, _ := addr.Prefix(least - 2 + r.IntN(bits-least+3))
		return p.String()
	}
	sent, imports, aside := map[string]desired.Path{}, map[string]bool{}, map[string]bool{}
	out := start(t, sender.ns, usual(), tables{Speaker: speakerOf(sender), Peers: map[string]wantPeer{
		us.v4: meshPeer(sender, false), us.v6: meshPeer(sender, true),
	}})
	want := func() tables {
		external := wantPeer{Port: 179, Peer: desired.Peer{Name: "watcher", AS: 65001}}
		return tables{Speaker: speakerOf(us), Imports: imports, Aside: aside, Peers: map[string]wantPeer{
			sender.v4: meshPeer(us, false), sender.v6: meshPeer(us, true), watcher.v4: external, watcher.v6: external,
		}}
	}
	in := start(t, us.ns, usual(), want())
	eyes := start(t, watcher.ns, usual(), tables{
		Speaker: desired.Speaker{AS: 65001, RouterID: netip.MustParseAddr(watcher.v4), ListenPort: 179},
		Peers: map[string]wantPeer{
			us.v4: {Port: 179, Peer: desired.Peer{Name: "us", AS: clusterAS}},
			us.v6: {Port: 179, Peer: desired.Peer{Name: "us", AS: clusterAS}},
		},
	})
	in.up(sender.v4, sender.v6, watcher.v4, watcher.v6)
	since := in.session(sender.v4).Since
	for range 40 {
		for range 1 + r.IntN(6) {
			v4 := r.IntN(2) == 0
			switch r.IntN(5) {
			case 0, 1:
				sent[random(v4)] = desired.Path{}
			case 2:
				p := random(v4)
				imports[p], aside[p] = r.IntN(2) == 0, r.IntN(3) == 0
			case 3:
				for p := range sent {
					delete(sent, p)
					break
				}
			case 4:
				for p := range imports {
					delete(imports, p)
					break
				}
			}
		}
		out.want(tables{Speaker: speakerOf(sender), Paths: sent, Peers: map[string]wantPeer{
			us.v4: meshPeer(sender, false), us.v6: meshPeer(sender, true),
		}})
		in.want(want())
		learned, passed := map[string]string{}, map[string]string{}
		for text := range sent {
			p := netip.MustParsePrefix(text)
			longest, own, kept := -1, true, true
			for entry, isOwn := range imports {
				e := netip.MustParsePrefix(entry)
				if e.Overlaps(p) && e.Bits() <= p.Bits() && e.Bits() > longest {
					longest, own, kept = e.Bits(), isOwn, !aside[entry]
				}
			}
			switch {
			case own:
			case p.Addr().Is4():
				learned[text], passed[text] = sender.v4, us.v4
			default:
				learned[text], passed[text] = sender.v6, us.v6
			}
			if !kept {
				delete(learned, text)
			}
		}
		in.table(learned)
		eyes.table(passed)
	}
	if s := in.session(sender.v4); s.Since != since {
		t.Errorf("the session was touched: %+v", s)
	}
}

// TestManyRoutes learns 5,000 routes of one host and counts them, and logs
// what memory that takes.
func TestManyRoutes(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, them := f.host(), f.host()
	want := tables{Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(), Peers: map[string]wantPeer{them.v4: meshPeer(us, false)}}
	p := start(t, us.ns, usual(), want)
	theirs := tables{Speaker: speakerOf(them), Peers: map[string]wantPeer{us.v4: meshPeer(them, false)}}
	q := start(t, them.ns, usual(), theirs)
	p.up(them.v4)
	report := func(what string) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "RssAnon:")
		anon, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
		t.Logf("%s: %s anonymous", what, anon)
	}
	report("at rest")
	routes := map[string]string{}
	theirs.Paths = map[string]desired.Path{}
	for i := range 5000 {
		prefix := fmt.Sprintf("10.65.%d.%d/32", 64+i/250, i%250)
		theirs.Paths[prefix], routes[prefix] = desired.Path{}, them.v4
	}
	begin := time.Now()
	q.want(theirs)
	p.table(routes)
	t.Logf("5,000 routes learned after %v", time.Since(begin).Round(time.Millisecond))
	report("5,000 routes")
	if s := p.session(them.v4); s.Accepted != len(routes) {
		t.Errorf("session %+v", s)
	}
	theirs.Paths = map[string]desired.Path{}
	q.want(theirs)
	p.table(map[string]string{})
}
