package bgp

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// Why a route is refused. These are the keys of Session.Refused.
const (
	RefusedDefault = "default route"         // from a host of the cluster
	RefusedForeign = "outside of every pool" // from a host of the cluster
	RefusedOwn     = "our own"               // our block or address, or part of one
	RefusedMartian = "not a unicast prefix"  // multicast, loopback, link-local, …
	RefusedNextHop = "next hop"              // not the peer, ourselves, or of the other family
	RefusedFar     = "next hop not reached"  // this host has no route to it
)

// Imports returns the target that holds the import filter.
func (s *Server) Imports() reconcile.Target[desired.ImportKey, desired.Import] { return imports{s} }

type imports struct{ *Server }

// List returns the filter in force.
func (t imports) List(context.Context) (map[desired.ImportKey]desired.Import, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[desired.ImportKey]desired.Import, len(t.imports))
	for p, i := range t.imports {
		out[desired.ImportKey{Prefix: p}] = i
	}
	return out, nil
}

// Apply changes the filter and judges everything that was received anew; no
// session is disturbed.
func (t imports) Apply(_ context.Context, p reconcile.Plan[desired.ImportKey, desired.Import]) map[desired.ImportKey]error {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := maps.Clone(t.imports)
	for _, k := range p.Delete {
		delete(t.imports, k.Prefix)
		t.gate.goneImport(k)
	}
	for _, e := range p.Set {
		t.imports[e.Key.Prefix] = e.Value
	}
	t.learned.again()
	err := error(nil)
	switch {
	case t.stopped:
		err = ErrStopped
	case t.engine != nil:
		if err = t.engine.setPolicy(t.policy()); err == nil {
			err = t.rejudge()
		}
	}
	t.poke()
	if err == nil {
		return nil
	}
	t.imports = before
	failed := map[desired.ImportKey]error{}
	for _, k := range p.Delete {
		failed[k] = err
	}
	for _, e := range p.Set {
		failed[e.Key] = err
	}
	return failed
}

// filter is the table of imports.
type filter map[netip.Prefix]desired.Import

// candidate is a route as a peer sent it.
type candidate struct {
	prefix    netip.Prefix
	nextHop   netip.Addr
	reflected bool // it has an originator (RFC 4456): the peer only passes it on
}

// judge says why a route of a peer is refused, or "".
func (f filter) judge(c candidate, from desired.PeerKey, peer desired.Peer) string {
	entry, found := f.longest(c.prefix)
	switch {
	case martian(c.prefix):
		return RefusedMartian
	case found && entry.Own:
		return RefusedOwn
	case !found && peer.Mesh && c.prefix.Bits() == 0:
		return RefusedDefault
	case !found && peer.Mesh:
		return RefusedForeign
	case !c.nextHop.IsValid(), c.nextHop.Is4() != c.prefix.Addr().Is4(),
		c.nextHop.IsUnspecified(), c.nextHop.IsLoopback(), c.nextHop.IsMulticast(),
		c.nextHop == peer.LocalAddr,
		peer.Mesh && !c.reflected && c.nextHop != from.Addr:
		return RefusedNextHop
	}
	return ""
}

// longest returns the most specific entry that contains all of p.
func (f filter) longest(p netip.Prefix) (desired.Import, bool) {
	for bits := p.Bits(); bits >= 0; bits-- {
		outer, err := p.Addr().Prefix(bits)
		if err != nil {
			break
		}
		if entry, ok := f[outer]; ok {
			return entry, true
		}
	}
	return desired.Import{}, false
}

// martian reports whether p lies where no unicast route may (RFC 6890).
func martian(p netip.Prefix) bool {
	a, bits := p.Addr(), p.Bits()
	switch {
	case a.Is4():
		first := a.As4()[0]
		return bits >= 8 && (first == 0 || first == 127) || bits >= 3 && first >= 224 ||
			bits >= 16 && a.IsLinkLocalUnicast()
	case a.Is4In6():
		return bits >= 96
	}
	return bits >= 127 && (a.IsUnspecified() || a.IsLoopback()) ||
		bits >= 10 && a.IsLinkLocalUnicast() || bits >= 8 && a.IsMulticast()
}

// layers sorts the entries of one family by how deep they are nested, the
// innermost first: the first layer that has an entry around a route decides.
func (f filter) layers(v4 bool) [][]netip.Prefix {
	byDepth := map[int][]netip.Prefix{}
	deepest := -1
	for p := range f {
		if p.Addr().Is4() != v4 {
			continue
		}
		depth := 0
		for bits := p.Bits() - 1; bits >= 0; bits-- {
			if outer, err := p.Addr().Prefix(bits); err == nil {
				if _, ok := f[outer]; ok {
					depth++
				}
			}
		}
		byDepth[depth] = append(byDepth[depth], p)
		deepest = max(deepest, depth)
	}
	var out [][]netip.Prefix
	for d := deepest; d >= 0; d-- {
		slices.SortFunc(byDepth[d], prefixOrder)
		out = append(out, byDepth[d])
	}
	return out
}

func prefixOrder(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
