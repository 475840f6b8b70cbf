package model

import (
	"net/netip"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/desired"
)

// Settings is what the core must know of this host beyond the datastore: the
// outcome of the agent's configuration. The zero value with a Node is the
// documented default.
type Settings struct {
	Node         string     // name of this host
	RouterID     netip.Addr // BGP router id; invalid: from the node's address or name
	NoIPv6       bool       // leave IPv6 alone (ipv6Support: false)
	NoForwarding bool       // leave the forwarding sysctls alone (ipForwarding: Disabled)
	Priority4    int        // metric of our IPv4 routes; 0: desired.DefaultPriority
	Priority6    int        // the same for IPv6
	Prefixes     []string   // what workloads' interfaces begin with (interfacePrefix); empty: cali
	Overlay      Overlay
}

// Overlay is what the core must know of this host's configuration of tunnels.
// The zero value is the documented default.
type Overlay struct {
	VNI           uint32         // 0: 4096
	Port          uint16         // 0: 4789
	IPIPMTU       int            // 0: from Underlay.MTU
	VXLANMTU      int            // the same
	VXLANMTU6     int            // the same
	IPIP, VXLAN   *bool          // ipipEnabled, vxlanEnabled; nil: as the pools ask for
	Routes        RoutesBy       // which routes to other hosts' blocks are this agent's
	ExternalNodes []netip.Prefix // that may send encapsulated packets
	NoBGP         bool           // there is no speaker: all routes are this agent's
	NoRoutes      bool           // routeSyncDisabled: no routes at all
}

// RoutesBy says which routes to blocks of other hosts the agent programs
// itself (programClusterRoutes). Those of VXLAN pools always.
type RoutesBy uint8

// The values of programClusterRoutes.
const (
	RoutesIPIPOnly    RoutesBy = iota // those of IP in IP pools too (EnabledIPIPOnly)
	RoutesAll                         // Enabled
	RoutesNone                        // Disabled
	RoutesNoEncapOnly                 // EnabledNoEncapOnly
)

// Underlay is what the agent found out about its own host and the network
// below, as an event: it changes while the agent runs. There is one, under
// UnderlayID.
//
// A form belongs in Keep from when its interface appears, not only from when
// no pool asks for it any more: between a pool's change and an event after it
// the interface would be gone.
type Underlay struct {
	MTU  int           // of the smallest interface that counts; 0: not known
	Keep desired.Forms // forms that are accepted, whether pools ask for them or not

	// Addresses that this host has for its ends of tunnels. They are on the
	// interfaces before the Node says them; once it says one, that counts.
	IPIP, VXLAN4, VXLAN6 netip.Addr
}

// VXLAN is the address held for this host's end of VXLAN of a family (4 or 6);
// invalid: none.
func (u *Underlay) VXLAN(family int) netip.Addr {
	if family == 6 {
		return u.VXLAN6
	}
	return u.VXLAN4
}

// SettingsID is the ID under which other Settings come to a core that lives.
func SettingsID() ID { return ID{Kind: KindSettings} }

func (*Settings) isModel() {}

// Live returns these settings with those of others that change while a core
// lives: all else needs a new core.
func (s Settings) Live(to Settings) Settings {
	s.NoForwarding = to.NoForwarding
	o, next := &s.Overlay, to.Overlay
	o.IPIPMTU, o.VXLANMTU, o.VXLANMTU6 = next.IPIPMTU, next.VXLANMTU, next.VXLANMTU6
	o.IPIP, o.VXLAN, o.Routes, o.ExternalNodes = next.IPIP, next.VXLAN, next.Routes, next.ExternalNodes
	return s
}

// UnderlayID is the ID of the Underlay.
func UnderlayID() ID { return ID{Kind: KindUnderlay} }

// TunnelEnd is a host's end of a VXLAN tunnel of one family.
type TunnelEnd struct {
	Addr netip.Addr // invalid: none yet
	MAC  string     // as its Node overrides it; "": from its name
}

// WorkloadInterface reports whether an interface may be a workload's. Any
// other is the host's own, whatever an endpoint says of it.
func (s Settings) WorkloadInterface(name string) bool {
	switch name {
	case desired.DeviceIPIP, desired.DeviceVXLAN4, desired.DeviceVXLAN6:
		return false
	}
	if len(s.Prefixes) == 0 {
		return strings.HasPrefix(name, "cali")
	}
	return slices.ContainsFunc(s.Prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// Node is one host of the cluster.
type Node struct {
	Name         string
	Labels       map[string]string
	Addr4, Addr6 netip.Prefix // BGP address with the length of its subnet; invalid if none
	AS           uint32       // 0: the cluster's
	ClusterID    netip.Addr   // route reflector cluster id; invalid if none
	IPIP         netip.Addr   // address of its end of IP in IP tunnels; invalid: none yet
	VXLAN4       TunnelEnd
	VXLAN6       TunnelEnd
	// Accepts are the forms that its agent says it accepts (AnnotationAccepts).
	// Speaks is false for an agent that says nothing of it: it is believed to
	// accept what its pools ask for.
	Accepts desired.Forms
	Speaks  bool
}

// AnnotationAccepts is the annotation of a Node with the forms that its agent
// accepts packets in, separated by commas, such as "ipip,vxlan".
const AnnotationAccepts = "brindle.net/accepts"

// Addr returns the BGP address of a family (4 or 6), invalid if there is none.
func (n *Node) Addr(family int) netip.Addr {
	if family == 6 {
		return n.Addr6.Addr()
	}
	return n.Addr4.Addr()
}

// Config is one FelixConfiguration object. It is for the agent, which works
// out its Settings from all of them; the core does not look inside.
type Config struct {
	Object *v3.FelixConfiguration
}

// ClusterInfo is the cluster's own record.
type ClusterInfo struct {
	GUID  string
	Ready bool // false: the datastore is being migrated
}
