package desired

import (
	"fmt"
	"net/netip"
)

// title names a form for people.
func (f Form) title() string { return [...]string{"no tunnel", "IP in IP", "VXLAN"}[f%3] }

// NoTunnelAddress says that a node has no address for its tunnels of a form
// and family (4 or 6) that pools ask for. Blocking where it is this host, but
// for IP in IP, which others can send to it all the same. What is said of one
// node adds up: this, then TunnelAddressTaken, TunnelMACTaken and
// FormNotAccepted.
func (n Notices) NoTunnelAddress(node string, f Form, family int, own bool) {
	message := fmt.Sprintf("has no address for IPv%d in %s: no other host sends to it by that tunnel", family, f.title())
	if f == IPIP {
		message = "has no address for IP in IP: its own packets enter the tunnel from another one"
	}
	n.also(ConditionRouting, node, "NoTunnelAddress", message, own && f != IPIP)
}

// TunnelAddressTaken says that the address of a node's tunnel is that of
// another tunnel's or of a host, so that it is not used. Blocking where it is
// this host's.
func (n Notices) TunnelAddressTaken(node, owner string, addr netip.Addr, own bool) {
	n.also(ConditionRouting, node, "TunnelAddressTaken",
		fmt.Sprintf("its tunnel address %v is that of %s: it is not used", addr, owner), own)
}

// TunnelMACTaken says that the MAC address of a node's end of VXLAN tunnels is
// that of another host's, so that nothing is sent to it by them. Blocking
// where it is this host's.
func (n Notices) TunnelMACTaken(node, owner, mac string, own bool) {
	n.also(ConditionRouting, node, "TunnelMACTaken",
		fmt.Sprintf("the MAC address %s of its VXLAN interface is that of %s: nothing is sent to it by VXLAN", mac, owner), own)
}

// FormNotAccepted says that a node accepts neither the tunnel that pools ask
// for nor another one that this host has.
func (n Notices) FormNotAccepted(node string, f Form, family int) {
	n.also(ConditionRouting, node, "FormNotAccepted",
		fmt.Sprintf("does not accept IPv%d in %s, which pools ask for: packets to it travel without a tunnel", family, f.title()), false)
}

// EncapsulationOff says that packets to a pool travel without the tunnel that
// it asks for because the configuration of this host has none.
func (n Notices) EncapsulationOff(pool string, f Form) {
	n.add(ConditionRouting, pool, "EncapsulationOff",
		"asks for "+f.title()+", which the configuration of this host switches off: packets to the pool travel without it", false)
}

// RoutesOfNobody says that nobody makes routes to a pool: neither the agent nor
// BGP is asked to.
func (n Notices) RoutesOfNobody(pool string) {
	n.add(ConditionRouting, pool, "RoutesOfNobody",
		"has no routes to other hosts: programClusterRoutes of FelixConfiguration leaves them to BGP, and that of BGPConfiguration leaves them to the agent", false)
}

// EncapsulationNotProgrammed says that packets to a pool travel without the
// tunnel that it asks for because its routes are left to BGP.
func (n Notices) EncapsulationNotProgrammed(pool string, f Form) {
	n.add(ConditionRouting, pool, "EncapsulationNotProgrammed",
		"asks for "+f.title()+", and programClusterRoutes leaves its routes to BGP: packets to the pool travel without it", false)
}
