package oracle

import (
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// candidates are the workloads of this host that could be wired, by ID.
func (w world) candidates() []*model.Workload {
	var out []*model.Workload
	for _, x := range each[*model.Workload](w) {
		if x.Node == w.set.Node && w.set.WorkloadInterface(x.Interface) && len(x.Addrs) > 0 {
			out = append(out, x)
		}
	}
	return out
}

// keeper is the workload that has an interface: the first of those that claim
// it.
func keeper(candidates []*model.Workload, iface string) *model.Workload {
	for _, x := range candidates {
		if x.Interface == iface {
			return x
		}
	}
	return nil
}

// owner is the workload that an address is routed to: the first that has it
// among those that have their interface. nil if there is none.
func (w world) owner(a netip.Addr) *model.Workload {
	if !w.wanted(a) || w.hostOf(a) != "" {
		return nil
	}
	list := w.candidates()
	for _, x := range list {
		if slices.Contains(x.Addrs, a) && keeper(list, x.Interface) == x {
			return x
		}
	}
	return nil
}

// hostOf is the first host that has an address, if only for a tunnel, "" if
// none has.
func (w world) hostOf(a netip.Addr) string {
	for _, n := range each[*model.Node](w) {
		if slices.Contains([]netip.Addr{n.Addr4.Addr(), n.Addr6.Addr(), n.IPIP, n.VXLAN4.Addr, n.VXLAN6.Addr}, a) {
			return n.Name
		}
	}
	return ""
}

// routed is every address that is routed to a workload here.
func (w world) routed() map[netip.Addr]*model.Workload {
	out := map[netip.Addr]*model.Workload{}
	for _, x := range w.candidates() {
		for _, a := range x.Addrs {
			if o := w.owner(a); o != nil {
				out[a] = o
			}
		}
	}
	return out
}

func (w world) links() map[string]desired.Link {
	out := map[string]desired.Link{}
	for _, x := range w.candidates() {
		out[x.Interface] = desired.Link{
			Up: true, Alias: desired.AliasWorkload,
			Sysctls: desired.SysctlLines(desired.WorkloadSysctls()),
		}
	}
	return out
}

func (w world) neighbours() map[desired.NeighKey]desired.Neigh {
	out := map[desired.NeighKey]desired.Neigh{}
	for a, x := range w.routed() {
		if v4(a) && x.MAC != "" {
			out[desired.NeighKey{Interface: x.Interface, Addr: a}] = desired.Neigh{MAC: x.MAC}
		}
	}
	return out
}

func (w world) sysctls() map[string]string {
	switch {
	case w.set.NoForwarding:
		return map[string]string{}
	case w.set.NoIPv6:
		return map[string]string{"net/ipv4/ip_forward": "1"}
	}
	return map[string]string{"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}
}

func (w world) routes() map[desired.RouteKey]desired.Route {
	out := map[desired.RouteKey]desired.Route{}
	if w.set.Overlay.NoRoutes {
		return out
	}
	set := func(p netip.Prefix, r desired.Route) {
		r.Protocol = desired.ProtocolAgent
		out[desired.RouteKey{Table: desired.MainTable, Prefix: p, Priority: w.metric(p.Addr())}] = r
	}
	for _, b := range w.claimed(false) {
		if b.Bits() != b.Addr().BitLen() {
			set(b, desired.Route{Type: desired.Blackhole})
		}
	}
	for _, s := range w.explicitSessions() {
		if s.gateway.IsValid() {
			set(alone(s.key.Addr), desired.Route{Hops: []desired.NextHop{{Via: s.gateway}}})
		}
	}
	for a, x := range w.routed() {
		r := desired.Route{Hops: []desired.NextHop{{Interface: x.Interface}}}
		if v4(a) {
			r.Scope = desired.ScopeLink
		}
		set(alone(a), r)
	}
	return out
}

// claimed is the blocks that this host has a claim to, of the families that
// it cares for, without those that say they belong to somebody else.
func (w world) claimed(confirmedOnly bool) []netip.Prefix {
	var out []netip.Prefix
	for _, c := range each[*model.Affinity](w) {
		if c.Host != w.set.Node || !w.wanted(c.CIDR.Addr()) || confirmedOnly && !c.Confirmed {
			continue
		}
		lost := false
		for _, b := range each[*model.Block](w) {
			if b.CIDR == c.CIDR && (b.Virtual || (b.Host != "" && b.Host != w.set.Node)) {
				lost = true
			}
		}
		if !lost {
			out = append(out, c.CIDR)
		}
	}
	return out
}

func (w world) paths() map[desired.PathKey]desired.Path {
	out := map[desired.PathKey]desired.Path{}
	me := w.me()
	if me == nil || w.set.Overlay.NoBGP {
		return out
	}
	for _, b := range w.claimed(true) {
		if nodeAddr(me, v4(b.Addr())).IsValid() && !w.keptBack(b) {
			out[b] = w.path(b)
		}
	}
	for a := range w.routed() {
		announce := false
		for _, p := range each[*model.Pool](w) {
			announce = announce || p.CIDR.Contains(a)
		}
		for _, b := range w.claimed(true) {
			announce = announce && !b.Contains(a)
		}
		if announce && nodeAddr(me, v4(a)).IsValid() && !w.keptBack(alone(a)) {
			out[alone(a)] = w.path(alone(a))
		}
	}
	return out
}

// keptBack reports whether a pool forbids to announce a prefix.
func (w world) keptBack(prefix netip.Prefix) bool {
	for _, p := range each[*model.Pool](w) {
		if p.DisableBGPExport && covers(p.CIDR, prefix) {
			return true
		}
	}
	return false
}

func (w world) imports() map[desired.ImportKey]desired.Import {
	out, f := map[desired.ImportKey]desired.Import{}, w.fabric()
	for _, p := range f.pools {
		if w.wanted(p.CIDR.Addr()) {
			out[desired.ImportKey{Prefix: p.CIDR}] = desired.Import{Aside: f.aside(f.around(p.CIDR))}
		}
	}
	for _, claim := range w.claimed(false) {
		out[desired.ImportKey{Prefix: claim}] = desired.Import{Own: true}
	}
	for _, claim := range w.claimed(false) {
		for _, b := range each[*model.Block](w) {
			for _, use := range b.Uses {
				if b.CIDR == claim && use.Node != "" && use.Node != w.set.Node {
					out[desired.ImportKey{Prefix: alone(use.Addr)}] = desired.Import{Aside: f.aside(f.around(alone(use.Addr)))}
				}
			}
		}
	}
	var lone []netip.Addr // those that no block of this host's says it has
	for a := range w.routed() {
		around, depth := desired.Import{}, -1
		for key, entry := range out {
			if covers(key.Prefix, alone(a)) && key.Prefix.Bits() > depth {
				around, depth = entry, key.Prefix.Bits()
			}
		}
		if !around.Own {
			lone = append(lone, a)
		}
	}
	for _, a := range lone {
		out[desired.ImportKey{Prefix: alone(a)}] = desired.Import{Own: true}
	}
	return out
}
