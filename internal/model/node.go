package model

import (
	"net/netip"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
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
}

// WorkloadInterface reports whether an interface may be a workload's. Any
// other is the host's own, whatever an endpoint says of it.
func (s Settings) WorkloadInterface(name string) bool {
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
}

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
