package model

import (
	"net/netip"
	"strings"

	"github.com/brindle-net/brindle/internal/kubepolicy"
	"github.com/brindle-net/brindle/internal/selector"
)

// Action is what a rule does with what it matches.
type Action uint8

// The actions. Log goes on to the next rule; Pass ends the tier.
const (
	Allow Action = iota + 1
	Deny
	Pass
	Log
)

// String writes the action as the API does.
func (a Action) String() string { return [...]string{"", "Allow", "Deny", "Pass", "Log"}[a%5] }

// Families is a set of IP versions.
type Families uint8

// The IP versions; both is IPv4 | IPv6.
const (
	IPv4 Families = 1 << iota
	IPv6
)

// Has reports whether an address is of one of the families.
func (f Families) Has(a netip.Addr) bool {
	if a.Unmap().Is4() {
		return f&IPv4 != 0
	}
	return f&IPv6 != 0
}

// Policy is a policy of any kind, with whom it selects composed as documented
// (namespace, service account). The zero Order sorts as 0; a policy without an
// order has +Inf.
type Policy struct {
	ID           ID
	APIKind      string // "NetworkPolicy"; decides ties of order, with name and namespace
	Name         string
	Namespace    string // "" for a global one
	Title        string // "NetworkPolicy default/allow-web", unique; for messages
	Tier         string
	Order        float64
	Staged       bool
	StagedAction string // "Set", "Delete", "Learn", "Ignore"; "" unless staged
	Selects      selector.Selector
	Ingress      Direction
	Egress       Direction
	// Of GlobalNetworkPolicy, for host endpoints only. A workload is under a
	// policy with DoNotTrack or PreDNAT never.
	DoNotTrack, PreDNAT, ApplyOnForward bool
	// LastWriter says who wrote the object last and when, as far as its
	// metadata has it; for messages only.
	LastWriter string
	// Broken says what of the stored object breaks the rules: the rest holds,
	// and what is unreadable counts against the flow. "" if sound.
	Broken string
}

// Becomes names what a staged policy stands for: the policy that it would
// take the place of. One of Kubernetes would be stored as what it means.
func (p *Policy) Becomes() ID {
	kind := strings.TrimPrefix(p.APIKind, "Staged")
	if kind == "KubernetesNetworkPolicy" {
		return PolicyID("NetworkPolicy", p.Namespace, kubepolicy.NetworkPrefix+p.Name)
	}
	return PolicyID(kind, p.Namespace, p.Name)
}

// Direction is a policy's part for one direction of traffic.
type Direction struct {
	Applies bool // the direction is among the policy's types
	Rules   []Rule
}

// Rule matches packets by all that it states; of a list, one entry suffices.
type Rule struct {
	Action      Action
	Families    Families // never 0: a rule that can match no family matches nothing and is still here, see Never
	Never       bool     // cannot match any packet
	Protocol    uint8    // 0: any
	NotProtocol uint8    // 0: none
	ICMP        *ICMP
	NotICMP     *ICMP
	Source      Entity
	Destination Entity
	HTTP        bool   // had HTTP criteria, which nothing here enforces: an Allow is stored as Deny
	Name        string // of its annotations; "" if none
}

// ICMP matches a type of ICMP message (ICMPv6 where the packet is IPv6) and,
// unless Code is negative, a code.
type ICMP struct {
	Type uint8
	Code int16
}

// Entity matches one end of a flow.
type Entity struct {
	Peers    selector.Peers
	Nets     []netip.Prefix
	NotNets  []netip.Prefix
	Ports    []PortMatch
	NotPorts []PortMatch
	Service  *ServiceRef // nil: not asked for
	// ServicePorts says that Service matches address, protocol and port; else
	// the address alone (documented: destination and source).
	ServicePorts bool
}

// PortMatch is a range of ports, both ends in it, or a named port.
type PortMatch struct {
	Min, Max uint16
	Name     string // "" for a range
}

// ServiceRef names a Kubernetes service.
type ServiceRef struct{ Namespace, Name string }

// NetworkSet is a named list of networks with labels: a NetworkSet or, without
// Namespace, a GlobalNetworkSet. Labels has the implied namespace label; the
// labels of its namespace come from the profile "kns.<namespace>".
type NetworkSet struct {
	ID       ID
	Labels   map[string]string
	Profiles []string
	Nets     []netip.Prefix // masked, sorted, each once
	Broken   string         // what of the stored object is left out; "" if sound
}

// Service is what a Kubernetes service stands for: the ready ends of all its
// EndpointSlices.
type Service struct {
	Namespace, Name string
	Backends        []Backend // sorted, each once
}

// Backend is one address and port behind a service. One without a port is an
// address that no port is open at: it matches as an address alone.
type Backend struct {
	Addr     netip.Addr
	Protocol uint8
	Port     uint16 // 0: none
}

func (*NetworkSet) isModel() {}
func (*Service) isModel()    {}
