// Package model holds the parsed inputs of the core: what the datastore says,
// with every string that means something else turned into a value of its own
// type. Nothing after it validates again.
package model

import (
	"net/netip"

	"github.com/brindle-net/brindle/internal/selector"
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
)

// ID names one input. Policies of different API kinds never share an ID: the
// API kind is part of Name's prefix ("NetworkPolicy/allow-web").
type ID struct {
	Kind      Kind
	Namespace string
	Name      string
}

// Value is one of the types below.
type Value interface{ isModel() }

// Event says that an input is now Value, or gone when Value is nil.
type Event struct {
	ID    ID
	Value Value
}

// Node is one host of the cluster.
type Node struct {
	Name         string
	Labels       map[string]string
	Addr4, Addr6 netip.Prefix // BGP address with the length of its subnet; invalid if none
	AS           uint32       // 0: the cluster's
	ClusterID    netip.Addr   // route reflector cluster id; invalid if none
}

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

// Encap is how packets to a pool travel.
type Encap uint8

// The forms of encapsulation.
const (
	NoEncap Encap = iota
	IPIP
	VXLAN
)

// Pool is one address pool.
type Pool struct {
	Name             string
	CIDR             netip.Prefix
	BlockSize        int
	Encap            Encap
	CrossSubnet      bool
	NATOutgoing      bool
	Disabled         bool
	DisableBGPExport bool
	LoadBalancerOnly bool
}

// Block is one block of addresses with the addresses used in it.
type Block struct {
	CIDR    netip.Prefix
	Host    string // affine host; "" if none
	Virtual bool   // affinity is to a virtual owner, not a host
	Uses    []Use  // sorted by address
}

// Use is one allocated address of a block. Node is the host that it is used
// on ("" if unknown): other than the block's Host when borrowed.
type Use struct {
	Addr   netip.Addr
	Node   string
	Handle string
}

// Affinity is a host's claim to a block.
type Affinity struct {
	Host      string
	CIDR      netip.Prefix
	Confirmed bool
}

// Policy is what the core must know of any kind of policy until it is
// enforced: whom it selects.
type Policy struct {
	ID      ID
	Title   string // "NetworkPolicy default/allow-web", for messages
	Staged  bool
	Selects selector.Selector // composed as documented: namespace, service account
}

// Profile carries labels for the workloads that name it.
type Profile struct {
	Name   string
	Labels map[string]string
}

// BGPConfig is the cluster's ("default") or one host's ("node.<name>") BGP
// configuration. Nil pointers say "not set".
type BGPConfig struct {
	Name       string
	Mesh       *bool
	AS         uint32
	ListenPort uint16
	BindNodeIP bool
}

// Config is one FelixConfiguration object, parameters as strings by their
// API name.
type Config struct {
	Name   string
	Params map[string]string
}

// ClusterInfo is the cluster's own record.
type ClusterInfo struct {
	GUID  string
	Ready bool
}

func (*Node) isModel()         {}
func (*Workload) isModel()     {}
func (*HostEndpoint) isModel() {}
func (*Pool) isModel()         {}
func (*Block) isModel()        {}
func (*Affinity) isModel()     {}
func (*Policy) isModel()       {}
func (*Profile) isModel()      {}
func (*BGPConfig) isModel()    {}
func (*Config) isModel()       {}
func (*ClusterInfo) isModel()  {}
