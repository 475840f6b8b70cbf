package bgp

import (
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
)

// TestLocalAS has a router that knows us under another AS number than the
// cluster's, and that has this number in the paths that it sends.
func TestLocalAS(t *testing.T) {
	for _, tt := range []struct {
		name    string
		allowed uint8
		learned bool
	}{
		{"a path with our number is a loop", 0, false},
		{"unless it may be there once", 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFabric(t)
			us, router := f.host(), f.host()
			config := birdMesh(us, "", "route 10.65.2.0/26 blackhole; route 10.65.3.0/26 blackhole;", "route fd65:0:0:2::/122 blackhole; route fd65:0:0:3::/122 blackhole;")
			config = strings.ReplaceAll(config, "local as 64512", "local as 65010")
			config = strings.ReplaceAll(config, " as 64512;", " as 65020;")
			config = strings.ReplaceAll(config, "export where source = RTS_STATIC;",
				"export filter { if source != RTS_STATIC then reject; if OTHER then bgp_path.prepend(65020); accept; };")
			config = strings.Replace(config, "OTHER", "net = 10.65.3.0/26", 1)
			config = strings.Replace(config, "OTHER", "net = fd65:0:0:3::/122", 1)
			b := bird(t, router, config)
			peer := wantPeer{Port: 179, Peer: desired.Peer{Name: "Global_router", AS: 65010, LocalAS: 65020, AllowLocalAS: tt.allowed}}
			p := start(t, us.ns, usual(), tables{
				Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(),
				Peers: map[string]wantPeer{router.v4: peer, router.v6: peer},
			})
			p.up(router.v4, router.v6)
			want := map[string]string{"10.65.2.0/26": router.v4, "fd65:0:0:2::/122": router.v6}
			if tt.learned {
				want["10.65.3.0/26"], want["fd65:0:0:3::/122"] = router.v4, router.v6
			}
			p.table(want)
			b.shows("show route all 10.65.1.0/26", []string{"BGP.as_path: 65020\n"})
		})
	}
}

// TestKeepNextHop passes the next hop of one router on to another, unchanged
// where that is asked for.
func TestKeepNextHop(t *testing.T) {
	for _, mode := range []string{"", "Keep"} {
		t.Run("mode "+mode, func(t *testing.T) {
			t.Parallel()
			f := newFabric(t)
			us, from, to := f.host(), f.host(), f.host()
			outside := func(as, prefixes string) string {
				config := birdMesh(us, "", prefixes, "")
				return strings.ReplaceAll(config, "local as 64512", "local as "+as)
			}
			bird(t, from, outside("65001", "route 10.65.7.0/26 blackhole;"))
			b := bird(t, to, outside("65002", ""))
			p := start(t, us.ns, usual(), tables{Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(), Peers: map[string]wantPeer{
				from.v4: {Port: 179, Peer: desired.Peer{Name: "Global_from", AS: 65001}},
				to.v4:   {Port: 179, Peer: desired.Peer{Name: "Global_to", AS: 65002, NextHopMode: mode}},
			}})
			p.up(from.v4, to.v4)
			hop := us.v4
			if mode == "Keep" {
				hop = from.v4
			}
			b.shows("show route all 10.65.7.0/26", []string{"BGP.next_hop: " + hop + "\n"})
		})
	}
}
