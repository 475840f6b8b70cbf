package calc

import (
	"maps"
	"math"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
)

// announce is the stage that writes what is told to peers and what is
// believed of them.
func (c *Core) announce(t *touched, u *desired.Update) {
	if t.workloads || t.blocks || t.pools || t.sessions {
		u.Paths = diff(c.asked.Paths, c.paths(), desired.Path.Equal)
	}
	if t.workloads || t.blocks || t.pools {
		u.Imports = diff(c.asked.Imports, c.imports(), same)
	}
}

// paths are the confirmed blocks of this host, and those addresses of its
// workloads that lie outside of them but in a pool, as documented for the
// export of a node to its peers. A pool can keep its addresses back.
func (c *Core) paths() map[desired.PathKey]desired.Path {
	out := map[desired.PathKey]desired.Path{}
	if c.sessions.me == nil || c.in.set.Overlay.NoBGP {
		return out
	}
	for _, b := range c.owned.blocks {
		if b.confirmed && c.speaks(b.cidr) && c.exported(b.cidr, true) {
			out[b.cidr] = c.path(b.cidr)
		}
	}
	for addr := range c.active.addrs {
		p := single(addr)
		aggregated := slices.ContainsFunc(c.owned.blocks, func(b ownBlock) bool {
			return b.confirmed && b.cidr.Contains(addr)
		})
		if !aggregated && c.speaks(p) && c.exported(p, false) {
			out[p] = c.path(p)
		}
	}
	return out
}

// speaks reports whether this host has an address of the prefix's family to
// be its next hop.
func (c *Core) speaks(p netip.Prefix) bool {
	return c.sessions.me.Addr(familyOf(p.Addr())).IsValid()
}

// exported reports whether the pools around a prefix let it out. Outside of
// every pool it stays in, unless it is a block: a deleted pool's blocks go on.
func (c *Core) exported(p netip.Prefix, block bool) bool {
	inside := block
	for _, pool := range c.in.pools {
		if within(p, pool.CIDR) {
			if pool.DisableBGPExport {
				return false
			}
			inside = true
		}
	}
	return inside
}

// within reports whether p is part of, or the same as, outer.
func within(p, outer netip.Prefix) bool {
	return outer.Bits() <= p.Bits() && outer.Contains(p.Addr())
}

// path is what goes with an announced prefix. The lower the metric of a route
// the higher its local preference (documented Calico behaviour), so that the
// nodes of a mixed cluster compare alike.
func (c *Core) path(p netip.Prefix) desired.Path {
	out := desired.Path{LocalPref: math.MaxInt32 - uint32(c.priority(p.Addr()))}
	for _, a := range c.sessions.adverts {
		if within(p, a.CIDR) {
			out.Communities = append(out.Communities, a.Communities...)
		}
	}
	slices.Sort(out.Communities)
	out.Communities = slices.Compact(out.Communities)
	return out
}

// imports: what is inside a pool is believed, but not about our own blocks,
// but for the addresses in them that other hosts borrowed, and never about an
// address of a workload here. Later entries win where prefixes are equal. A
// workload within a block of ours needs no entry of its own, so that one more
// of them leaves the filter as it is.
func (c *Core) imports() map[desired.ImportKey]desired.Import {
	out := map[desired.ImportKey]desired.Import{}
	for _, pool := range c.in.pools {
		if !c.in.set.NoIPv6 || pool.CIDR.Addr().Is4() {
			out[desired.ImportKey{Prefix: pool.CIDR}] = desired.Import{Aside: c.in.aside(c.overlay.poolOf(pool.CIDR))}
		}
	}
	for _, b := range c.owned.blocks {
		out[desired.ImportKey{Prefix: b.cidr}] = desired.Import{Own: true}
	}
	for _, b := range c.owned.blocks { // after all blocks: a block may be of one address
		for _, addr := range b.elsewhere {
			out[desired.ImportKey{Prefix: single(addr)}] = desired.Import{Aside: c.in.aside(c.overlay.poolOf(single(addr)))}
		}
	}
	var lengths [129]bool // of the entries so far
	for key := range out {
		lengths[key.Prefix.Bits()] = true
	}
	lone := map[desired.ImportKey]desired.Import{}
	for addr := range c.active.addrs {
		if !ours(out, &lengths, addr) {
			lone[desired.ImportKey{Prefix: single(addr)}] = desired.Import{Own: true}
		}
	}
	maps.Copy(out, lone)
	return out
}

// ours reports whether the most specific entry around an address says that it
// is this host's.
func ours(entries map[desired.ImportKey]desired.Import, lengths *[129]bool, addr netip.Addr) bool {
	for bits := addr.BitLen(); bits >= 0; bits-- {
		if !lengths[bits] {
			continue
		}
		outer, _ := addr.Prefix(bits) // not longer than the address
		if entry, ok := entries[desired.ImportKey{Prefix: outer}]; ok {
			return entry.Own
		}
	}
	return false
}
