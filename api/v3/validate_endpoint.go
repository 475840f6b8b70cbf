package v3

import (
	"encoding/base64"
	"net/netip"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/prefix"
)

// WorkloadEndpointName returns the name that follows from a spec: node,
// orchestrator, workload and endpoint with hyphens doubled, joined by single
// ones (documented Calico behaviour). ok is false when a part is not set.
func WorkloadEndpointName(s *WorkloadEndpointSpec) (name string, ok bool) {
	parts := make([]string, 0, 4)
	for _, f := range s.nameParts() {
		if f.value == "" {
			return "", false
		}
		parts = append(parts, strings.ReplaceAll(f.value, "-", "--"))
	}
	return strings.Join(parts, "-"), true
}

type namePart struct{ field, value string }

func (s *WorkloadEndpointSpec) nameParts() []namePart {
	workload := namePart{"workload", s.Workload}
	switch s.Orchestrator {
	case "k8s":
		workload = namePart{"pod", s.Pod}
	case "cni":
		workload = namePart{"containerID", s.ContainerID}
	case "libnetwork":
		workload = namePart{"workload", "libnetwork"}
	}
	return []namePart{{"node", s.Node}, {"orchestrator", s.Orchestrator}, workload, {"endpoint", s.Endpoint}}
}

func (c *checker) workload(o *WorkloadEndpoint) {
	s := &o.Spec
	for _, p := range s.nameParts() {
		c.required("spec."+p.field, p.value)
	}
	if want, ok := WorkloadEndpointName(s); ok && o.Name != "" && o.Name != want {
		c.wrong("metadata.name", o.Name, "must be "+want+", the name that follows from spec", "")
	}
	single := map[netip.Addr]bool{}
	for i, n := range s.IPNetworks {
		at := indexed("spec.ipNetworks", i)
		if p, ok := c.network(at, n); ok {
			c.must(p.IsSingleIP() && !single[p.Addr()], at, n, "must be one address, /32 or /128, not in the list twice")
			single[p.Addr()] = true
		}
	}
	for i, n := range s.IPNATs {
		c.nat(indexed("spec.ipNATs", i), n, single)
	}
	c.ofFamily("spec.ipv4Gateway", s.IPv4Gateway, false)
	c.ofFamily("spec.ipv6Gateway", s.IPv6Gateway, true)
	c.profiles(s.Profiles)
	if s.InterfaceName != "" {
		c.match("spec.interfaceName", s.InterfaceName, interfaceRegexp, ruleInterface)
	}
	c.mac("spec.mac", s.MAC)
	for i, p := range s.Ports {
		c.workloadPort(indexed("spec.ports", i), p)
	}
	c.networks("spec.allowSpoofedSourcePrefixes", s.AllowSpoofedSourcePrefixes)
	c.networks("spec.allowedIps", s.AllowedIPs)
	if s.QoSControls != nil {
		c.qos("spec.qosControls", s.QoSControls)
	}
}

const ruleInterface = "must be an interface name: at most 15 letters, digits, _, . and -"

func (c *checker) nat(path string, n IPNAT, own map[netip.Addr]bool) {
	internal, ok := c.address(path+".internalIP", n.InternalIP)
	if ok {
		c.must(own[internal], path+".internalIP", n.InternalIP, "must be an address of ipNetworks")
	}
	if external, good := c.address(path+".externalIP", n.ExternalIP); ok && good {
		c.must(external.Is6() == internal.Is6(), path+".externalIP", n.ExternalIP, "must be of the same IP version as internalIP")
	}
}

func (c *checker) profiles(names []string) {
	for i, n := range names {
		c.subdomain(indexed("spec.profiles", i), n)
	}
	unique(c, "spec.profiles", names)
}

func (c *checker) workloadPort(path string, p WorkloadEndpointPort) {
	switch {
	case p.Name != "":
		c.match(path+".name", p.Name, portNameRegexp, "must be at most 128 letters, digits, _, . and -")
	case p.HostPort == 0:
		c.wrong(path+".name", "", "must be set for a port without hostPort", "")
	}
	c.protocolWithPorts(path+".protocol", p.Protocol)
	c.between(path+".port", int64(p.Port), 1, 65535)
	if p.HostIP != "" {
		c.address(path+".hostIP", p.HostIP)
	}
}

func (c *checker) qos(path string, q *QoSControls) {
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"ingressBandwidth", q.IngressBandwidth}, {"egressBandwidth", q.EgressBandwidth},
		{"ingressBurst", q.IngressBurst}, {"egressBurst", q.EgressBurst},
		{"ingressPeakrate", q.IngressPeakrate}, {"egressPeakrate", q.EgressPeakrate},
		{"ingressMinburst", q.IngressMinburst}, {"egressMinburst", q.EgressMinburst},
		{"ingressPacketRate", q.IngressPacketRate}, {"egressPacketRate", q.EgressPacketRate},
		{"ingressPacketBurst", q.IngressPacketBurst}, {"egressPacketBurst", q.EgressPacketBurst},
		{"ingressMaxConnections", q.IngressMaxConnections}, {"egressMaxConnections", q.EgressMaxConnections},
	} {
		c.must(f.value >= 0, path+"."+f.name, strconv.FormatInt(f.value, 10), "must not be negative")
	}
	if q.DSCP != nil {
		c.dscp(path+".dscp", *q.DSCP)
	}
}

func (c *checker) hostEndpoint(s *HostEndpointSpec) {
	c.required("spec.node", s.Node)
	switch {
	case s.InterfaceName == "" && len(s.ExpectedIPs) == 0:
		c.wrong("spec.interfaceName", "", "must be set, or expectedIPs", `"*" stands for all interfaces`)
	case s.InterfaceName != "" && s.InterfaceName != "*":
		c.match("spec.interfaceName", s.InterfaceName, interfaceRegexp, ruleInterface+`, or "*"`)
	}
	for i, a := range s.ExpectedIPs {
		c.address(indexed("spec.expectedIPs", i), a)
	}
	unique(c, "spec.expectedIPs", s.ExpectedIPs)
	c.profiles(s.Profiles)
	for i, p := range s.Ports {
		at := indexed("spec.ports", i)
		if c.required(at+".name", p.Name) {
			c.match(at+".name", p.Name, portNameRegexp, "must be at most 128 letters, digits, _, . and -")
		}
		c.protocolWithPorts(at+".protocol", p.Protocol)
		c.between(at+".port", int64(p.Port), 1, 65535)
	}
}

func (c *checker) node(o *Node) {
	s := &o.Spec
	if s.BGP != nil {
		c.nodeBGP(s.BGP)
	}
	c.ofFamily("spec.ipv4VXLANTunnelAddr", s.IPv4VXLANTunnelAddr, false)
	c.mac("spec.vxlanTunnelMACAddr", s.VXLANTunnelMACAddr)
	c.ofFamily("spec.ipv6VXLANTunnelAddr", s.IPv6VXLANTunnelAddr, true)
	c.mac("spec.vxlanTunnelMACAddrV6", s.VXLANTunnelMACAddrV6)
	for i, r := range s.OrchRefs {
		c.required(indexed("spec.orchRefs", i)+".orchestrator", r.Orchestrator)
	}
	if w := s.Wireguard; w != nil {
		c.ofFamily("spec.wireguard.interfaceIPv4Address", w.InterfaceIPv4Address, false)
		c.ofFamily("spec.wireguard.interfaceIPv6Address", w.InterfaceIPv6Address, true)
	}
	for i, a := range s.Addresses {
		at := indexed("spec.addresses", i)
		c.interfaceAddress(at+".address", a.Address)
		oneOf(c, at+".type", a.Type, "CalicoNodeIP", "InternalIP", "ExternalIP")
	}
	for i, n := range s.Interfaces {
		for j, a := range n.Addresses {
			c.interfaceAddress(indexed(indexed("spec.interfaces", i)+".addresses", j), a)
		}
	}
	c.wireguardKey("status.wireguardPublicKey", o.Status.WireguardPublicKey)
	c.wireguardKey("status.wireguardPublicKeyV6", o.Status.WireguardPublicKeyV6)
	for i, p := range o.Status.PodCIDRs {
		c.cidr(indexed("status.podCIDRs", i), p)
	}
}

func (c *checker) nodeBGP(b *NodeBGPSpec) {
	if *b == (NodeBGPSpec{}) {
		c.wrong("spec.bgp", "", "must not be empty", "remove it")
		return
	}
	for _, f := range []struct {
		path, value string
		v6          bool
	}{{"spec.bgp.ipv4Address", b.IPv4Address, false}, {"spec.bgp.ipv6Address", b.IPv6Address, true}} {
		if f.value == "" {
			continue
		}
		if p, ok := c.interfaceAddress(f.path, f.value); ok {
			c.family(f.path, f.value, p.Addr(), f.v6)
		}
	}
	c.ofFamily("spec.bgp.ipv4IPIPTunnelAddr", b.IPv4IPIPTunnelAddr, false)
	if b.RouteReflectorClusterID != "" {
		a, err := prefix.ParseAddr(b.RouteReflectorClusterID)
		c.must(err == nil && a.Is4(), "spec.bgp.routeReflectorClusterID", b.RouteReflectorClusterID, "must be in the form of an IPv4 address, such as 244.0.0.1")
	}
}

// wireguardKey wants a Curve25519 public key in base64.
func (c *checker) wireguardKey(path, value string) {
	if value == "" {
		return
	}
	key, err := base64.StdEncoding.DecodeString(value)
	c.must(err == nil && len(key) == 32, path, value, "must be a WireGuard key: 32 bytes in base64")
}

func (c *checker) nodeStatus(s *CalicoNodeStatusSpec) {
	c.required("spec.node", s.Node)
	c.must(len(s.Classes) > 0, "spec.classes", "", "must have at least one of Agent, BGP, Routes")
	for i, l := range s.Classes {
		c.must(l != "", indexed("spec.classes", i), "", "must be one of Agent, BGP, Routes")
		oneOf(c, indexed("spec.classes", i), l, "Agent", "BGP", "Routes")
	}
	unique(c, "spec.classes", s.Classes)
	if s.UpdatePeriodSeconds == nil {
		c.required("spec.updatePeriodSeconds", "")
		return
	}
	c.between("spec.updatePeriodSeconds", int64(*s.UpdatePeriodSeconds), 0, 86400)
}
