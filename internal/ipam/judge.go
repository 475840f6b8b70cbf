package ipam

import (
	"fmt"
	"net/netip"
	"slices"
)

// Attachments is what a host's agent has attached: per handle its addresses.
// A handle without addresses is being set up and may get any. An agent lists a
// handle from before it asks for the first address until after it has released
// the last.
type Attachments map[string][]netip.Addr

// has reports whether an address is attached, or may be.
func (at Attachments) has(handle string, a netip.Addr) bool {
	addrs, ok := at[handle]
	return ok && (len(addrs) == 0 || slices.Contains(addrs, a))
}

// Standing is what is known about the owner of an address.
type Standing string

// The standings.
const (
	InUse       Standing = "inUse"       // its owner is alive, or may be
	Leaked      Standing = "leaked"      // its owner is dead, by two proofs
	Unproven    Standing = "unproven"    // no endpoint has it; its host has not been asked
	Unknown     Standing = "unknown"     // nothing says whose it is: never collected
	CoolingDown Standing = "coolingDown" // released
)

// verdict is the standing of one address with its reason, in words.
type verdict struct {
	standing Standing
	owner    string // "workload default/n1-cni-x-eth0", "tunnel of node n1"
	why      string
}

// judge says whether the owner of an address is alive. It is dead when no
// workload endpoint has the address, and besides either the host's own agent
// does not have it attached, or the host is gone. agents has those that
// answered.
func judge(b *Block, u Use, us *users, agents map[string]Attachments) verdict {
	at := u.Attribute
	node := at.Owner[AttrNode]
	_, nodeThere := us.nodes[node]
	if u.CoolingDown() {
		return verdict{CoolingDown, "", "released at " + at.ReleasedAt.UTC().Format(timestampFormat)}
	}
	if eps := us.endpoints[u.Addr]; len(eps) > 0 {
		v := verdict{standing: InUse, owner: "workload " + eps[0].String()}
		if !slices.ContainsFunc(eps, func(e Endpoint) bool { return e.owns(at.Handle) }) {
			v.why = fmt.Sprintf("the endpoint's container is %s, which handle %q does not name", eps[0].ContainerID, at.Handle)
		}
		return v
	}
	switch {
	case at.Handle == WindowsReservedHandle:
		return verdict{InUse, "Windows on host " + b.Host(), ""}
	case b.Virtual() != "" || at.Owner[AttrService] != "":
		return verdict{InUse, "service " + at.Owner[AttrService], ""}
	case len(at.Alternate) > 0:
		return verdict{InUse, "virtual machine on the move", ""}
	case node == "":
		return verdict{Unknown, "", "it has no node attribute: nobody can tell who uses it"}
	case TunnelHandle(at.Owner[AttrType], node) != "" && nodeThere:
		return verdict{InUse, "tunnel of node " + node, ""}
	case !nodeThere:
		return verdict{Leaked, "", "no workload endpoint has it, and node " + node + " is gone"}
	}
	attached, answered := agents[node]
	switch {
	case !answered:
		return verdict{Unproven, "", "no workload endpoint has it; the agent of " + node + " was not asked"}
	case attached.has(at.Handle, u.Addr):
		return verdict{InUse, "attachment " + at.Handle + " on " + node, ""}
	}
	return verdict{Leaked, "", "no workload endpoint has it, and the agent of " + node + " has no such attachment"}
}

// Values of AttrType of the addresses of a host's tunnels.
const (
	TypeIPIPTunnel        = "ipipTunnelAddress"
	TypeVXLANTunnel       = "vxlanTunnelAddress"
	TypeVXLANV6Tunnel     = "vxlanV6TunnelAddress"
	TypeWireguardTunnel   = "wireguardTunnelAddress"
	TypeWireguardV6Tunnel = "wireguardV6TunnelAddress"
)

// TunnelHandle returns the handle of a host's tunnel address of a type, "" for
// what is no type.
func TunnelHandle(kind, host string) string {
	switch kind {
	case TypeIPIPTunnel:
		return "ipip-tunnel-addr-" + host
	case TypeVXLANTunnel:
		return "vxlan-tunnel-addr-" + host
	case TypeVXLANV6Tunnel:
		return "vxlan-v6-tunnel-addr-" + host
	case TypeWireguardTunnel:
		return "wireguard-tunnel-addr-" + host
	case TypeWireguardV6Tunnel:
		return "wireguard-v6-tunnel-addr-" + host
	}
	return ""
}
