package model

import (
	"net/netip"

	"github.com/brindle-net/brindle/internal/selector"
)

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
}

// Policy is what the core must know of any kind of policy until it is
// enforced: whom it selects.
type Policy struct {
	ID      ID
	Title   string // "NetworkPolicy default/allow-web", for messages
	Staged  bool
	Selects selector.Selector // composed as documented: namespace, service account
}

// DefaultAllow is the profile that always exists and allows everything both
// ways (documented Calico behaviour).
const DefaultAllow = "projectcalico-default-allow"

// Profile carries labels for the endpoints that name it. A label of the
// endpoint itself wins, then that of the first profile in its list.
type Profile struct {
	Name   string
	Labels map[string]string
}
