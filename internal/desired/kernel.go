package desired

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Route protocol numbers by which we recognise our own routes (rtnetlink(7),
// RTA protocol). ProtocolAgent is the number Calico's agent uses for its own
// routes, kept so that a host can move from one agent to the other; a host
// never runs both.
const (
	ProtocolAgent = 80 // routes computed from the datastore: workloads, blackholes, tunnels
	ProtocolBGP   = 81 // routes learned by BGP
)

// MainTable is the kernel's main routing table.
const MainTable = 254

// DefaultPriority is the metric of our routes (Calico's normalRoutePriority);
// ElevatedPriority that of a workload that is being moved here alive.
const (
	DefaultPriority  = 1024
	ElevatedPriority = 512
)

// RouteType is the kernel's kind of a route (RTN_*).
type RouteType uint8

// The route types that we program.
const (
	Unicast RouteType = iota
	Blackhole
	Throw
	Unreachable
	Local // an address of this host itself: in the local table (255) with host scope (254)
)

// RouteKey identifies one route of the kernel.
type RouteKey struct {
	Table    int // MainTable or one of our own
	Prefix   netip.Prefix
	Priority int
}

// NextHop is one way to a prefix. An invalid Via means directly on the link.
type NextHop struct {
	Via       netip.Addr
	Interface string // "" lets the kernel resolve the device from Via
	OnLink    bool
	Weight    int // 1 and up; 0 counts as 1
}

// Route is the value of one route. Hops is sorted by CompareHops and holds one
// element unless traffic is spread (ECMP); it is empty for Blackhole and its
// like.
type Route struct {
	Type     RouteType
	Hops     []NextHop
	Scope    uint8      // RT_SCOPE_*; 0 universe, 253 link
	MTU      int        // 0: that of the device
	Source   netip.Addr // preferred source; invalid: the kernel chooses
	Protocol int        // ProtocolAgent or ProtocolBGP
}

// Equal reports whether both are the same route with the same next hops in
// the same order.
func (r Route) Equal(o Route) bool {
	return r.Type == o.Type && r.Scope == o.Scope && r.MTU == o.MTU && r.Source == o.Source &&
		r.Protocol == o.Protocol && slices.Equal(r.Hops, o.Hops)
}

// Link is what we assert about an interface that exists because a workload or
// a tunnel of ours needs it. We never create a workload's interface here:
// that is package workload's part.
type Link struct {
	Up      bool
	MTU     int    // 0: leave alone
	Alias   string // link alias "brindle:<kind>", by which it is ours
	Sysctls string // canonical "name=value" lines, sorted, relative to the interface; see SysctlLines
}

// SysctlLines writes the settings of one interface in the form of
// Link.Sysctls: one "name=value" a line, sorted by name. A name has three
// parts, "ipv4/conf/proxy_arp", and stands for the file
// /proc/sys/net/ipv4/conf/INTERFACE/proxy_arp.
func SysctlLines(settings map[string]string) string {
	lines := make([]string, 0, len(settings))
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		lines = append(lines, name+"="+settings[name])
	}
	return strings.Join(lines, "\n")
}

// RuleKey identifies one policy routing rule of ours.
type RuleKey struct {
	Family   uint8 // 4 or 6
	Priority int
}

// Rule sends packets with (Mark & Mask) equal to Mark, or not when Invert is
// set, to a routing table.
type Rule struct {
	Mark, Mask uint32
	Invert     bool
	Table      int
}

// NeighKey identifies one static neighbour or forwarding entry on a link of
// ours.
type NeighKey struct {
	Interface string
	Addr      netip.Addr // invalid for an FDB entry
	MAC       string     // only for an FDB entry: its key
}

// Neigh is the value of a static neighbour: the MAC for an address, or for an
// FDB entry the address of the remote tunnel end.
type Neigh struct {
	MAC string     // neighbour: lower case, colons
	Dst netip.Addr // FDB: where frames to the MAC go
}

// AddrKey identifies an address that we put on a link of ours.
type AddrKey struct {
	Interface string
	Prefix    netip.Prefix
}

// AliasWorkload is the link alias of a workload's interface on the host.
const AliasWorkload = "brindle:workload"

// ScopeLink is RT_SCOPE_LINK (rtnetlink(7)): the destination is on the link
// itself. The kernel knows scopes for IPv4 routes only.
const ScopeLink = 253

// WorkloadSysctls is what holds for the host's end of every workload
// interface. The host answers for every address (proxy ARP and NDP without
// delay) and routes. A workload can neither teach the host a route or a
// redirect, nor claim an IPv4 source that is not routed to it (rp_filter 1,
// strict), nor reach the host's loopback (route_localnet 0, where Calico has
// 1).
func WorkloadSysctls() map[string]string {
	return map[string]string{
		"ipv4/conf/forwarding":       "1",
		"ipv4/conf/proxy_arp":        "1",
		"ipv4/conf/route_localnet":   "0",
		"ipv4/conf/rp_filter":        "1",
		"ipv4/conf/accept_redirects": "0",
		"ipv4/conf/send_redirects":   "0",
		"ipv4/neigh/proxy_delay":     "0",
		"ipv6/conf/accept_dad":       "0",
		"ipv6/conf/accept_ra":        "0",
		"ipv6/conf/accept_redirects": "0",
		"ipv6/conf/disable_ipv6":     "0",
		"ipv6/conf/forwarding":       "1",
		"ipv6/conf/proxy_ndp":        "1",
		"ipv6/neigh/proxy_delay":     "0",
	}
}
