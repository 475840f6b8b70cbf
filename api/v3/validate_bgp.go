package v3

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/prefix"
)

const (
	maxCommunities = 500 // and prefix advertisements
	maxPriority    = 2147483646
)

var communityRegexp = regexp.MustCompile(`^(\d{1,5}:\d{1,5}|\d{1,10}:\d{1,10}:\d{1,10})$`)

// isCommunity accepts "aa:nn" (RFC 1997) with two and "aa:nn:mm" (RFC 8092)
// with four bytes a part.
func isCommunity(s string) bool {
	if !communityRegexp.MatchString(s) {
		return false
	}
	parts, bits := strings.Split(s, ":"), 16
	if len(parts) == 3 {
		bits = 32
	}
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, bits); err != nil {
			return false
		}
	}
	return true
}

const ruleCommunity = "must be a community: aa:nn with parts up to 65535, or aa:nn:mm with parts up to 4294967295"

func (c *checker) bgpConfig(name string, s *BGPConfigurationSpec) {
	c.oneOfAnyCase("spec.logSeverityScreen", s.LogSeverityScreen, logSeverities...)
	if name != DefaultName {
		c.onlyGlobal(s)
	}
	for _, l := range []struct {
		path   string
		blocks []ServiceBlock
	}{
		{"spec.serviceLoadBalancerIPs", s.ServiceLoadBalancerIPs},
		{"spec.serviceExternalIPs", s.ServiceExternalIPs},
		{"spec.serviceClusterIPs", s.ServiceClusterIPs},
	} {
		for i, b := range l.blocks {
			c.cidr(indexed(l.path, i)+".cidr", b.CIDR)
		}
	}
	oneOf(c, "spec.serviceLoadBalancerAggregation", s.ServiceLoadBalancerAggregation, "Enabled", "Disabled")
	c.communities(s)
	if s.ListenPort != nil {
		c.between("spec.listenPort", int64(*s.ListenPort), 1, 65535)
	}
	c.mesh(s)
	oneOf(c, "spec.bindMode", s.BindMode, "None", "NodeIP")
	for i, n := range s.IgnoredInterfaces {
		at := indexed("spec.ignoredInterfaces", i)
		c.match(at, n, globRegexp, "must be an interface name of at most 15 characters, in which * stands for anything")
		c.must(n != "*", at, n, "must not be every interface")
	}
	c.ofFamily("spec.localWorkloadPeeringIPV4", s.LocalWorkloadPeeringIPV4, false)
	c.ofFamily("spec.localWorkloadPeeringIPV6", s.LocalWorkloadPeeringIPV6, true)
	oneOf(c, "spec.programClusterRoutes", s.ProgramClusterRoutes, programClusterRoutes...)
	c.priority("spec.ipv4NormalRoutePriority", s.IPv4NormalRoutePriority)
	c.priority("spec.ipv6NormalRoutePriority", s.IPv6NormalRoutePriority)
}

var (
	logSeverities        = []string{"Trace", "Debug", "Info", "Warning", "Error", "Fatal"}
	programClusterRoutes = []string{"Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"}
)

// onlyGlobal refuses what only the object named default may say.
func (c *checker) onlyGlobal(s *BGPConfigurationSpec) {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"nodeToNodeMeshEnabled", s.NodeToNodeMeshEnabled != nil},
		{"asNumber", s.ASNumber != nil},
		{"serviceLoadBalancerIPs", len(s.ServiceLoadBalancerIPs) > 0},
		{"serviceExternalIPs", len(s.ServiceExternalIPs) > 0},
		{"serviceClusterIPs", len(s.ServiceClusterIPs) > 0},
		{"nodeMeshPassword", s.NodeMeshPassword != nil},
		{"nodeMeshMaxRestartTime", s.NodeMeshMaxRestartTime != nil},
	} {
		if f.set {
			c.wrong("spec."+f.name, "", "must not be set except on the object named default", "move it there")
		}
	}
}

func (c *checker) communities(s *BGPConfigurationSpec) {
	c.atMost("spec.communities", len(s.Communities), maxCommunities)
	names := map[string]bool{}
	for i, m := range s.Communities {
		at := indexed("spec.communities", i)
		if c.required(at+".name", m.Name) {
			c.must(!names[m.Name], at+".name", m.Name, "must not be defined twice")
		}
		names[m.Name] = true
		c.must(isCommunity(m.Value), at+".value", m.Value, ruleCommunity)
	}
	if len(s.Communities) > 0 && len(s.PrefixAdvertisements) == 0 {
		c.wrong("spec.communities", "", "must not be set without prefixAdvertisements, which use them", "")
	}
	c.atMost("spec.prefixAdvertisements", len(s.PrefixAdvertisements), maxCommunities)
	for i, a := range s.PrefixAdvertisements {
		at := indexed("spec.prefixAdvertisements", i)
		c.cidr(at+".cidr", a.CIDR)
		c.atMost(at+".communities", len(a.Communities), 50)
		for j, m := range a.Communities {
			if names[m] || isCommunity(m) {
				continue
			}
			var known []string
			for _, d := range s.Communities {
				known = append(known, d.Name)
			}
			c.wrong(indexed(at+".communities", j), m, "must be a name that spec.communities defines, or a community value", didYouMean(nearest(m, known)))
		}
	}
}

// mesh checks what needs the full mesh.
func (c *checker) mesh(s *BGPConfigurationSpec) {
	if s.NodeMeshPassword != nil {
		c.password("spec.nodeMeshPassword", s.NodeMeshPassword)
	}
	if s.NodeToNodeMeshEnabled == nil || *s.NodeToNodeMeshEnabled {
		return
	}
	c.must(s.NodeMeshPassword == nil, "spec.nodeMeshPassword", "", "must not be set when nodeToNodeMeshEnabled is false")
	c.must(s.NodeMeshMaxRestartTime == nil, "spec.nodeMeshMaxRestartTime", "", "must not be set when nodeToNodeMeshEnabled is false")
}

func (c *checker) password(path string, p *BGPPassword) {
	if p.SecretKeyRef == nil {
		c.wrong(path+".secretKeyRef", "", "must be set", "")
		return
	}
	c.subdomain(path+".secretKeyRef.name", p.SecretKeyRef.Name)
	c.required(path+".secretKeyRef.key", p.SecretKeyRef.Key)
}

func (c *checker) priority(path string, p *int) {
	if p != nil {
		c.between(path, int64(*p), 1, maxPriority)
	}
}

func (c *checker) bgpPeer(s *BGPPeerSpec) {
	if s.Node != "" && s.NodeSelector != "" {
		c.wrong("spec.nodeSelector", s.NodeSelector, "must not be set beside node", "keep one of them")
	}
	c.selector("spec.nodeSelector", s.NodeSelector, 0)
	peer, hasPeer := c.peerIP(s.PeerIP)
	c.peerKind(s)
	c.selector("spec.peerSelector", s.PeerSelector, 0)
	c.selector("spec.localWorkloadSelector", s.LocalWorkloadSelector, 0)
	oneOf(c, "spec.nextHopMode", s.NextHopMode, "Auto", "Self", "Keep")
	if s.KeepOriginalNextHop && s.NextHopMode != "" {
		c.wrong("spec.keepOriginalNextHop", "true", "must not be set beside nextHopMode", "set nextHopMode: Keep alone")
	}
	if s.Password != nil {
		c.password("spec.password", s.Password)
	}
	oneOf(c, "spec.sourceAddress", s.SourceAddress, "UseNodeIP", "None")
	if n := s.NumAllowedLocalASNumbers; n != nil {
		c.must(*n >= 0, "spec.numAllowedLocalASNumbers", strconv.Itoa(int(*n)), "must not be negative")
	}
	if s.ReachableBy != "" {
		gateway, ok := c.address("spec.reachableBy", s.ReachableBy)
		switch {
		case s.PeerIP == "":
			c.wrong("spec.reachableBy", s.ReachableBy, "must not be set without peerIP", "")
		case ok && hasPeer:
			c.must(gateway.Is6() == peer.Is6(), "spec.reachableBy", s.ReachableBy, "must be of the same IP version as peerIP")
		}
	}
	for i, f := range s.Filters {
		c.subdomain(indexed("spec.filters", i), f)
	}
	oneOf(c, "spec.reversePeering", s.ReversePeering, "Auto", "Manual")
}

// peerKind wants exactly one way of saying who the peer is.
func (c *checker) peerKind(s *BGPPeerSpec) {
	var set []string
	for _, f := range []struct{ name, value string }{
		{"peerIP", s.PeerIP}, {"peerSelector", s.PeerSelector}, {"localWorkloadSelector", s.LocalWorkloadSelector},
	} {
		if f.value == "" {
			continue
		}
		if len(set) > 0 {
			c.wrong("spec."+f.name, f.value, "must not be set beside "+set[0], "make two peers")
		}
		set = append(set, f.name)
	}
	c.must(len(set) > 0, "spec", "", "must have one of peerIP, peerSelector and localWorkloadSelector, which say who the peer is")
	if s.PeerSelector != "" && s.ASNumber != 0 {
		c.wrong("spec.asNumber", strconv.FormatUint(uint64(s.ASNumber), 10), "must not be set beside peerSelector: the AS is that of the selected node", "remove it")
	}
	if s.LocalWorkloadSelector != "" && s.ASNumber == 0 {
		c.wrong("spec.asNumber", "", "must be set beside localWorkloadSelector", "")
	}
}

// peerIP reads "IP", "IPv4:port" or "[IPv6]:port".
func (c *checker) peerIP(value string) (netip.Addr, bool) {
	const path, rule = "spec.peerIP", "must be an IP address, IPv4:port or [IPv6]:port"
	if value == "" {
		return netip.Addr{}, false
	}
	if a, err := prefix.ParseAddr(value); err == nil {
		return a, true
	}
	ap, err := netip.ParseAddrPort(value)
	if err != nil {
		c.wrong(path, value, rule, "")
		return netip.Addr{}, false
	}
	if a, err := prefix.ParseAddr(ap.Addr().String()); err != nil || a != ap.Addr() {
		c.wrong(path, value, rule, "")
		return netip.Addr{}, false
	}
	c.must(ap.Port() > 0, path, value, "must have a port from 1 to 65535")
	return ap.Addr(), true
}
