package model

import (
	"errors"
	"net/netip"

	v3 "github.com/brindle-net/brindle/api/v3"
)

func fromNode(o *v3.Node) (Value, error) {
	n := &Node{Name: o.Name, Labels: o.Labels}
	n.Accepts, n.Speaks = accepts(o.Annotations)
	if err := n.tunnels(o); err != nil {
		return nil, err
	}
	b := o.Spec.BGP
	if b == nil {
		return n, nil
	}
	var err error
	if n.Addr4, err = nodeAddr("spec.bgp.ipv4Address", b.IPv4Address, true); err != nil {
		return nil, err
	}
	if n.Addr6, err = nodeAddr("spec.bgp.ipv6Address", b.IPv6Address, false); err != nil {
		return nil, err
	}
	if b.ASNumber != nil {
		n.AS = uint32(*b.ASNumber)
	}
	if id := b.RouteReflectorClusterID; id != "" {
		if n.ClusterID, err = netip.ParseAddr(id); err != nil || !n.ClusterID.Is4() {
			return nil, wrong("spec.bgp.routeReflectorClusterID", id, "must be a dotted quad, such as 244.0.0.1")
		}
	}
	return n, nil
}

// nodeAddr reads the address of a node, which stands with the length of its
// subnet; without one the subnet is unknown and counts as the address alone.
func nodeAddr(path, s string, four bool) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	p, err := parsePrefix(s)
	if err != nil || p.Addr().Is4() != four {
		return netip.Prefix{}, wrong(path, s, "must be an address of the family with the length of its subnet")
	}
	return p, nil
}

// parsePrefix reads an address of a host or workload, with or without a
// length.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if a, bare := netip.ParseAddr(s); bare == nil {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if a := p.Addr(); err == nil && (a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast()) {
		err = errNoHost
	}
	return p, err
}

var errNoHost = errors.New("is no address that a host can have")

func fromPool(o *v3.IPPool) (Value, error) {
	cidr, err := netip.ParsePrefix(o.Spec.CIDR)
	if err != nil || cidr != cidr.Masked() {
		return nil, wrong("spec.cidr", o.Spec.CIDR, "must be a network, such as 10.65.0.0/16, without host bits")
	}
	p := &Pool{
		Name: o.Name, CIDR: cidr, BlockSize: o.Spec.BlockSize,
		NATOutgoing: o.Spec.NATOutgoing, Disabled: o.Spec.Disabled,
		DisableBGPExport: o.Spec.DisableBGPExport,
		LoadBalancerOnly: len(o.Spec.AllowedUses) == 1 && o.Spec.AllowedUses[0] == v3.UseLoadBalancer,
	}
	if p.BlockSize == 0 {
		p.BlockSize = cidr.Addr().BitLen() - 6
	}
	ipip, vxlan := o.Spec.IPIPMode, o.Spec.VXLANMode
	switch {
	case on(ipip) && on(vxlan):
		return nil, wrong("spec.vxlanMode", string(vxlan), "must be Never where ipipMode is not")
	case on(ipip) && cidr.Addr().Is6():
		return nil, wrong("spec.ipipMode", string(ipip), "must be Never for an IPv6 pool")
	case on(ipip):
		p.Encap, p.CrossSubnet = IPIP, ipip == v3.EncapCrossSubnet
	case on(vxlan):
		p.Encap, p.CrossSubnet = VXLAN, vxlan == v3.EncapCrossSubnet
	}
	return p, nil
}

func on(m v3.EncapMode) bool { return m != "" && m != v3.EncapNever }
