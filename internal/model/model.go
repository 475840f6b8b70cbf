// Package model holds the parsed inputs of the core: what the datastore says,
// with every string that means something else turned into a value of its own
// type. Nothing after it validates again.
package model

import (
	"net/netip"
	"strings"
)

// Kind tells the inputs apart.
type Kind uint8

// The kinds of input, in the order in which they are listed.
const (
	KindNode Kind = iota + 1
	KindWorkload
	KindHostEndpoint
	KindPool
	KindBlock
	KindAffinity
	KindProfile
	KindTier
	KindPolicy
	KindNetworkSet
	KindBGPConfig
	KindBGPPeer
	KindBGPFilter
	KindConfig
	KindClusterInfo
	KindService
	KindUnderlay
	KindSettings
)

// String returns the kind as the API names it. Policies have several API
// kinds; theirs stands in the name of the ID.
func (k Kind) String() string {
	names := [...]string{
		KindNode: "Node", KindWorkload: "WorkloadEndpoint", KindHostEndpoint: "HostEndpoint",
		KindPool: "IPPool", KindBlock: "IPAMBlock", KindAffinity: "BlockAffinity",
		KindProfile: "Profile", KindTier: "Tier", KindPolicy: "Policy", KindNetworkSet: "NetworkSet",
		KindBGPConfig: "BGPConfiguration", KindBGPPeer: "BGPPeer", KindBGPFilter: "BGPFilter",
		KindConfig: "FelixConfiguration", KindClusterInfo: "ClusterInformation", KindService: "Service",
		KindUnderlay: "Underlay", KindSettings: "Settings",
	}
	if int(k) < len(names) && names[k] != "" {
		return names[k]
	}
	return "Unknown"
}

// ID names one input. Policies of different API kinds never share an ID: the
// API kind is part of Name's prefix ("NetworkPolicy/allow-web"). A block is
// named by its CIDR; an affinity by its CIDR, with the host as namespace.
type ID struct {
	Kind      Kind
	Namespace string
	Name      string
}

// PolicyID names a policy of an API kind; namespace is "" for a global one.
func PolicyID(apiKind, namespace, name string) ID {
	return ID{Kind: KindPolicy, Namespace: namespace, Name: apiKind + "/" + name}
}

// BlockID names the block of addresses with this CIDR.
func BlockID(cidr netip.Prefix) ID { return ID{Kind: KindBlock, Name: cidr.String()} }

// AffinityID names a host's claim to a block.
func AffinityID(host string, cidr netip.Prefix) ID {
	return ID{Kind: KindAffinity, Namespace: host, Name: cidr.String()}
}

// Compare orders IDs by kind, namespace and name.
func (id ID) Compare(o ID) int {
	if id.Kind != o.Kind {
		return int(id.Kind) - int(o.Kind)
	}
	if c := strings.Compare(id.Namespace, o.Namespace); c != 0 {
		return c
	}
	return strings.Compare(id.Name, o.Name)
}

// String writes the ID for people: "NetworkPolicy default/allow-web".
func (id ID) String() string {
	kind, name := id.Kind.String(), id.Name
	if id.Kind == KindNetworkSet && id.Namespace == "" {
		kind = "GlobalNetworkSet"
	}
	if id.Kind == KindPolicy {
		if k, n, ok := strings.Cut(id.Name, "/"); ok {
			kind, name = k, n
		}
	}
	if id.Namespace != "" {
		name = id.Namespace + "/" + name
	}
	return kind + " " + name
}

// Value is one of the types of this package that say what an input is.
type Value interface{ isModel() }

// Event says that an input is now Value, or gone when Value is nil. Values
// are never changed once they are in an event.
type Event struct {
	ID    ID
	Value Value
}

// Invalid stands for an object that is stored but breaks the rules. It counts
// as absent for whatever it would allow, and is reported.
type Invalid struct {
	Message string // names the field, the value, the rule
	Staged  bool   // a staged policy: nothing is lost when it is ignored
}

// InPlace returns what was in force of an object about policy, of a pool, or of
// one with settings of BGP, with the reason why it cannot be read any more; nil if
// nothing was, or of another kind.
func (i *Invalid) InPlace(last Value) Value {
	why := i.Message + ": what was last read of it holds until this host's agent starts again; apply it anew"
	lasting := i.Message + ": what was last read of it holds; apply it anew"
	switch v := last.(type) {
	case *Policy:
		kept := *v
		kept.Broken = why
		return &kept
	case *Profile:
		kept := *v
		kept.Broken = why
		return &kept
	case *NetworkSet:
		kept := *v
		kept.Broken = why
		return &kept
	case *BGPConfig:
		kept := *v
		kept.Broken = lasting
		return &kept
	case *BGPPeer:
		kept := *v
		kept.Broken = lasting
		return &kept
	case *Pool:
		kept := *v
		kept.Broken = lasting
		return &kept
	}
	return nil
}

// Configures reports whether inputs of a kind say how hosts reach each other: who
// cannot read one says so in the condition about settings.
func (k Kind) Configures() bool {
	return k == KindPool || k == KindBGPConfig || k == KindBGPPeer || k == KindBGPFilter
}

// Unusable is why an input of such a kind cannot be read as it is stored, "" if it
// can, or is of another kind.
func Unusable(id ID, v Value) string {
	if !id.Kind.Configures() {
		return ""
	}
	switch v := v.(type) {
	case *Invalid:
		return v.Message
	case *BGPConfig:
		return v.Broken
	case *BGPPeer:
		return v.Broken
	case *BGPFilter:
		return v.Broken
	case *Pool:
		return v.Broken
	}
	return ""
}

func (*Invalid) isModel()      {}
func (*Node) isModel()         {}
func (*Workload) isModel()     {}
func (*HostEndpoint) isModel() {}
func (*Pool) isModel()         {}
func (*Block) isModel()        {}
func (*Affinity) isModel()     {}
func (*Policy) isModel()       {}
func (*Profile) isModel()      {}
func (*BGPConfig) isModel()    {}
func (*BGPPeer) isModel()      {}
func (*BGPFilter) isModel()    {}
func (*Config) isModel()       {}
func (*ClusterInfo) isModel()  {}
func (*Underlay) isModel()     {}
