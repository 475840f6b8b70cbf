package bgp

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
)

// What stands on a way is looked up again when that way has changed, and when
// it has not, nothing is.
func TestReroute(t *testing.T) {
	near, far := netip.MustParseAddr("172.30.1.12"), netip.MustParseAddr("172.30.2.13")
	router, other := netip.MustParseAddr("172.30.1.1"), netip.MustParseAddr("172.30.1.2")
	ways := map[netip.Addr][]desired.NextHop{near: {{Via: near, Weight: 1}}}
	asked := 0
	s := New(Config{Resolve: func(a netip.Addr) []desired.NextHop { asked++; return ways[a] }})
	l := &s.learned
	given, waiting := netip.MustParsePrefix("10.65.1.0/26"), netip.MustParsePrefix("10.65.2.0/26")
	l.given[given] = desired.Route{Hops: s.way(near)}
	if hops := s.way(far); len(hops) != 0 {
		t.Fatalf("%v is reached by %v", far, hops)
	}
	l.waiting[waiting] = true
	for _, step := range []struct {
		name  string
		far   []desired.NextHop
		stale bool
		dirty bool
	}{
		{"nobody said anything", nil, false, false},
		{"said, and nothing changed", nil, true, false},
		{"there is a router", []desired.NextHop{{Via: router, Weight: 1}}, true, true},
		{"the same again", []desired.NextHop{{Via: router, Weight: 1}}, true, false},
		{"another router", []desired.NextHop{{Via: other, Weight: 1}}, true, true},
		{"none", nil, true, true},
	} {
		ways[far], l.dirty = step.far, map[netip.Prefix]bool{}
		asked = 0
		if step.stale {
			s.Rerouted()
		}
		l.reroute(s.cfg.Resolve)
		want := map[netip.Prefix]bool{}
		if step.dirty {
			want[given], want[waiting] = true, true
		}
		if !maps.Equal(l.dirty, want) || asked != map[bool]int{true: 2}[step.stale] || !slices.Equal(s.way(far), step.far) {
			t.Errorf("%s: dirty %v, asked %d times, way %v", step.name, l.dirty, asked, s.way(far))
		}
	}
}
