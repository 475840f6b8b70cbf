package model

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/selector"
)

func fromBGPConfig(o *v3.BGPConfiguration) (Value, error) {
	s := &o.Spec
	c := &BGPConfig{
		Name: o.Name, Mesh: s.NodeToNodeMeshEnabled, BindNodeIP: s.BindMode == "NodeIP",
		MeshRestart: duration(s.NodeMeshMaxRestartTime), MeshPassword: secret(s.NodeMeshPassword),
		IPIPRoutes:    s.ProgramClusterRoutes == "Enabled" || s.ProgramClusterRoutes == "EnabledIPIPOnly",
		NoPlainRoutes: s.ProgramClusterRoutes == "Disabled" || s.ProgramClusterRoutes == "EnabledIPIPOnly",
		Services:      len(s.ServiceClusterIPs)+len(s.ServiceExternalIPs)+len(s.ServiceLoadBalancerIPs) > 0,
	}
	if s.ASNumber != nil {
		c.AS = uint32(*s.ASNumber)
	}
	if s.ListenPort != nil {
		c.ListenPort = *s.ListenPort
	}
	named := map[string]string{}
	for _, community := range s.Communities {
		named[community.Name] = community.Value
	}
	for i, a := range s.PrefixAdvertisements {
		path := "spec.prefixAdvertisements[" + strconv.Itoa(i) + "]"
		cidr, err := netip.ParsePrefix(a.CIDR)
		if err != nil {
			return nil, wrong(path+".cidr", a.CIDR, "must be a network")
		}
		advert := Advertisement{CIDR: cidr.Masked()}
		for _, community := range a.Communities {
			value, ok := named[community]
			if !ok {
				value = community
			}
			if !isCommunity(value) {
				return nil, wrong(path+".communities", community,
					"must be aa:nn, aa:nn:mm or a name defined in spec.communities")
			}
			advert.Communities = append(advert.Communities, value)
		}
		c.Advertisements = append(c.Advertisements, advert)
	}
	return c, nil
}

// isCommunity reports whether s is a standard (RFC 1997, two numbers of 16
// bits) or large (RFC 8092, three of 32) community.
func isCommunity(s string) bool {
	parts := strings.Split(s, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return false
	}
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, map[int]int{2: 16, 3: 32}[len(parts)]); err != nil {
			return false
		}
	}
	return true
}

func duration(d *v3.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return d.Duration
}

// secret names what holds a password: "name/key".
func secret(p *v3.BGPPassword) string {
	if p == nil || p.SecretKeyRef == nil {
		return ""
	}
	return p.SecretKeyRef.Name + "/" + p.SecretKeyRef.Key
}

func fromBGPPeer(o *v3.BGPPeer) (Value, error) {
	s := &o.Spec
	p := &BGPPeer{
		Name: o.Name, Node: s.Node, AS: uint32(s.ASNumber), Filters: s.Filters,
		ReverseManual: s.ReversePeering == "Manual",
		Options: PeerOptions{
			Password: secret(s.Password), NoSource: s.SourceAddress == "None",
			Restart: duration(s.MaxRestartTime), Keepalive: duration(s.KeepaliveTime),
			KeepNextHop: s.KeepOriginalNextHop,
		},
	}
	if s.NextHopMode == "Self" || s.NextHopMode == "Keep" {
		p.Options.NextHopMode = s.NextHopMode
	}
	if s.LocalASNumber != nil {
		p.LocalAS = uint32(*s.LocalASNumber)
	}
	if s.TTLSecurity != nil {
		p.TTLSecurity = *s.TTLSecurity
	}
	if n := s.NumAllowedLocalASNumbers; n != nil {
		if *n < 0 || *n > 255 {
			return nil, wrong("spec.numAllowedLocalASNumbers", strconv.Itoa(int(*n)), "must be 0 to 255")
		}
		p.AllowLocalAS = uint8(*n)
	}
	if err := p.ends(s); err != nil {
		return nil, err
	}
	return p, nil
}

// ends reads which nodes and far ends a peering joins.
func (p *BGPPeer) ends(s *v3.BGPPeerSpec) error {
	for _, f := range []struct {
		path, text string
		to         **selector.Selector
	}{
		{"spec.nodeSelector", s.NodeSelector, &p.Nodes},
		{"spec.peerSelector", s.PeerSelector, &p.Peers},
		{"spec.localWorkloadSelector", s.LocalWorkloadSelector, &p.Workloads},
	} {
		if f.text == "" {
			continue
		}
		sel, err := selector.Parse(f.text)
		if err != nil {
			return at(f.path, f.text, err)
		}
		*f.to = &sel
	}
	if s.PeerIP != "" {
		var ok bool
		if p.Addr, p.Port, ok = peerAddr(s.PeerIP); !ok {
			return wrong("spec.peerIP", s.PeerIP, "must be an address, IPv4:port or [IPv6]:port")
		}
	}
	if s.ReachableBy != "" {
		a, err := netip.ParseAddr(s.ReachableBy)
		if err != nil || !p.Addr.IsValid() || a.Is4() != p.Addr.Is4() {
			return wrong("spec.reachableBy", s.ReachableBy, "must be an address of the family of peerIP")
		}
		p.Options.ReachableBy = a
	}
	return nil
}

func peerAddr(s string) (netip.Addr, uint16, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap(), 0, a.Zone() == ""
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 || ap.Addr().Zone() != "" {
		return netip.Addr{}, 0, false
	}
	return ap.Addr().Unmap(), ap.Port(), true
}
