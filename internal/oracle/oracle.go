// Package oracle says what a host should look like the slow way: from scratch,
// with nested loops, straight from what the datastore holds. It shares no code
// with package calc. It is the reference in tests and the engine of the
// commands that explain.
package oracle

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// Snapshot is the whole datastore at one moment.
type Snapshot map[model.ID]model.Value

// Add brings a snapshot up to date with an event.
func (s Snapshot) Add(e model.Event) {
	if e.Value == nil {
		delete(s, e.ID)
		return
	}
	s[e.ID] = e.Value
}

// Desired says what the host of the settings should look like.
func Desired(s Snapshot, set model.Settings) desired.State {
	w := newWorld(s, set)
	out := desired.NewState()
	out.Links = w.links()
	out.Neighbours = w.neighbours()
	out.Routes = w.routes()
	out.Sysctls = w.sysctls()
	out.Speakers = w.speakers()
	out.Peers = w.peers()
	out.Paths = w.paths()
	out.Imports = w.imports()
	out.Policy = w.policy()
	f := w.fabric()
	f.tunnels(&out)
	maps.Copy(out.Routes, f.routes())
	out.Notices = w.notices(out.Policy)
	f.notices(out.Notices)
	return out
}

// world is a snapshot as one host sees it.
type world struct {
	all    Snapshot
	values []model.Value // of all, in the order of the IDs
	set    model.Settings
	index  *index // nil: not made yet
}

func newWorld(s Snapshot, set model.Settings) world {
	w := world{all: s, set: set}
	for _, id := range slices.SortedFunc(maps.Keys(s), model.ID.Compare) {
		w.values = append(w.values, s[id])
	}
	return w
}

// each returns every object of one type, in the order of the IDs.
func each[V model.Value](w world) []V {
	var out []V
	for _, x := range w.values {
		if v, ok := x.(V); ok {
			out = append(out, v)
		}
	}
	return out
}

// v4 reports whether an address is IPv4.
func v4(a netip.Addr) bool { return a.BitLen() == 32 }

// wanted reports whether this host cares for the family of an address.
func (w world) wanted(a netip.Addr) bool { return v4(a) || !w.set.NoIPv6 }

// metric of the routes of an address's family, never below 2: that of routes
// to other hosts is one less.
func (w world) metric(a netip.Addr) int {
	p := w.set.Priority6
	if v4(a) {
		p = w.set.Priority4
	}
	switch p {
	case 0:
		return desired.DefaultPriority
	case 1:
		return 2
	}
	return p
}

// covers reports whether every address of p is in outer.
func covers(outer, p netip.Prefix) bool {
	return outer.Overlaps(p) && outer.Bits() <= p.Bits()
}

// alone is the prefix of one address.
func alone(a netip.Addr) netip.Prefix {
	p, _ := a.Prefix(a.BitLen()) // an address always has a prefix of its own length
	return p
}
