package model

import "net/netip"

// Workload is one workload interface.
type Workload struct {
	ID        ID
	Node      string
	Interface string // on the host side
	MAC       string // inside, lower case; "" if unknown
	Addrs     []netip.Addr
	Labels    map[string]string
	Profiles  []string
	Ports     []NamedPort
	// Sources are prefixes that it may send from besides Addrs: those it asks
	// for, which hold only where spoofing is allowed for all of the host.
	Sources []netip.Prefix
}

// NamedPort is a port that rules may refer to by name.
type NamedPort struct {
	Name     string
	Protocol uint8
	Port     uint16
}

// HostEndpoint is one protected interface of a host.
type HostEndpoint struct {
	ID        ID
	Node      string
	Interface string
	Addrs     []netip.Addr
	Labels    map[string]string
	Profiles  []string
	Ports     []NamedPort
}

// DefaultAllow is the profile that always exists and allows everything both
// ways (documented Calico behaviour).
const DefaultAllow = "projectcalico-default-allow"

// Profile carries labels for the endpoints that name it. A label of the
// endpoint itself wins, then that of the first profile in its list.
type Profile struct {
	Name    string
	Labels  map[string]string
	Ingress []Rule
	Egress  []Rule
	Broken  string // as of Policy
}
