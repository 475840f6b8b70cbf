package bgp

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"

	"github.com/brindle-net/brindle/internal/desired"
)

// learned is the table of routes handed to Config.Learned.
type learned struct {
	given map[netip.Prefix]desired.Route
	dirty map[netip.Prefix]bool // to look up again
	// carried are routes of the engine before this one. They stay until all
	// peers have spoken, just as the kernel's routes stay over our restart.
	carried map[netip.Prefix]bool

	// ways are the next hops of paths as this host reaches them, by which a
	// route is made: a host of another subnet is reached through a router.
	ways map[netip.Addr][]desired.NextHop
	// stale: the ways are to be asked for again.
	stale bool
	// waiting are prefixes with a good path whose next hop is not reached, or
	// that are set aside.
	waiting map[netip.Prefix]bool
}

func newLearned() learned {
	return learned{
		given: map[netip.Prefix]desired.Route{}, dirty: map[netip.Prefix]bool{}, carried: map[netip.Prefix]bool{},
		ways: map[netip.Addr][]desired.NextHop{}, waiting: map[netip.Prefix]bool{},
	}
}

// reroute asks for all ways again. When one has changed, all that may stand on
// it is looked up again.
func (l *learned) reroute(resolve func(netip.Addr) []desired.NextHop) {
	if !l.stale {
		return
	}
	l.stale = false
	changed := false
	for via, was := range l.ways {
		now := resolve(via)
		changed = changed || !slices.Equal(was, now)
		l.ways[via] = now
	}
	if changed {
		l.again()
	}
}

// again looks up all that there is, and all that there may be.
func (l *learned) again() {
	for p := range l.given {
		l.dirty[p] = true
	}
	for p := range l.waiting {
		l.dirty[p] = true
	}
}

func (l *learned) touch(changed []netip.Prefix) {
	for _, p := range changed {
		l.dirty[p] = true
	}
}

// carry keeps everything over the start of a new engine.
func (l *learned) carry() {
	for p := range l.given {
		l.carried[p] = true
	}
}

// release lets go of what no peer has announced again.
func (l *learned) release() {
	for p := range l.carried {
		l.dirty[p] = true
	}
	l.carried = map[netip.Prefix]bool{}
}

// forget drops everything: the speaker was turned off.
func (l *learned) forget() {
	l.release()
	for p := range l.given {
		l.dirty[p] = true
	}
}

// lookupWhole is from how many changed prefixes on the whole table is read.
const lookupWhole = 256

// collect makes a patch of what changed since the last one. The caller holds
// mu.
func (s *Server) collect() (desired.Patch[desired.RouteKey, desired.Route], error) {
	l := &s.learned
	l.reroute(s.cfg.Resolve)
	patch := desired.Patch[desired.RouteKey, desired.Route]{Set: map[desired.RouteKey]desired.Route{}}
	if len(l.dirty) == 0 {
		return patch, nil
	}
	found := map[netip.Prefix][]received{}
	if s.engine != nil {
		for _, v4 := range []bool{true, false} {
			if err := s.lookUp(v4, found); err != nil {
				return patch, err
			}
		}
	}
	for p := range l.dirty {
		delete(l.waiting, p)
		key := desired.RouteKey{Table: desired.MainTable, Prefix: p, Priority: desired.DefaultPriority}
		old, had := l.given[p]
		route, ok := s.route(found[p])
		switch {
		case ok:
			delete(l.carried, p)
			if !had || !slices.Equal(old.Hops, route.Hops) {
				l.given[p], patch.Set[key] = route, route
			}
		case had && !l.carried[p]:
			delete(l.given, p)
			patch.Delete = append(patch.Delete, key)
		}
	}
	l.dirty = map[netip.Prefix]bool{}
	slices.SortFunc(patch.Delete, func(a, b desired.RouteKey) int { return prefixOrder(a.Prefix, b.Prefix) })
	return patch, nil
}

func (s *Server) lookUp(v4 bool, found map[netip.Prefix][]received) error {
	var only []netip.Prefix
	for p := range s.learned.dirty {
		if p.Addr().Is4() == v4 {
			only = append(only, p)
		}
	}
	switch {
	case len(only) == 0:
		return nil
	case len(only) > lookupWhole:
		only = nil
	}
	return s.engine.table(api.TableType_TABLE_TYPE_GLOBAL, "", v4, only, func(r received) {
		if s.learned.dirty[r.prefix] {
			found[r.prefix] = append(found[r.prefix], r)
		}
	})
}

// route is the kernel route for the best paths to a prefix, if there is one.
// A prefix that we announce ourselves is ours. A next hop that is not reached
// makes none. The caller holds mu.
func (s *Server) route(paths []received) (desired.Route, bool) {
	r := desired.Route{Protocol: desired.ProtocolBGP}
	for _, p := range paths {
		if !p.best {
			continue
		}
		peer := s.peerAt(p.peer)
		if peer == nil || s.imports.judge(p.candidate, peer.key, peer.peer) != "" {
			continue
		}
		if entry, _ := s.imports.longest(p.prefix); entry.Aside {
			s.learned.waiting[p.prefix] = true
			continue
		}
		way := s.way(p.nextHop)
		if len(way) == 0 {
			s.learned.waiting[p.prefix] = true
		}
		r.Hops = append(r.Hops, way...)
	}
	slices.SortFunc(r.Hops, func(a, b desired.NextHop) int {
		return cmp.Or(a.Via.Compare(b.Via), cmp.Compare(a.Interface, b.Interface))
	})
	r.Hops = slices.Compact(r.Hops)
	return r, len(r.Hops) > 0
}

// way is how a next hop is reached. The caller holds mu.
func (s *Server) way(via netip.Addr) []desired.NextHop {
	w, known := s.learned.ways[via]
	if !known {
		w = s.cfg.Resolve(via)
		s.learned.ways[via] = w
	}
	return w
}
