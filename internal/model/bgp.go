package model

import (
	"net/netip"
	"time"

	"github.com/brindle-net/brindle/internal/selector"
)

// DefaultAS and DefaultPort hold for a cluster that configures no other
// (documented Calico defaults; RFC 4271 for the port).
const (
	DefaultAS   = 64512
	DefaultPort = 179
)

// BGPConfig is the cluster's ("default") or one host's ("node.<name>") BGP
// configuration. Nil pointers and zero values say "not set".
type BGPConfig struct {
	Name           string
	Mesh           *bool
	AS             uint32
	ListenPort     uint16
	BindNodeIP     bool
	MeshRestart    time.Duration // graceful restart time of mesh sessions
	MeshPassword   string        // reference to a secret, "name/key"; "" if none
	Advertisements []Advertisement
	Services       bool // asks for service addresses to be announced
	// What programClusterRoutes says, of the cluster's configuration alone: BGP
	// brings the routes of pools with IP in IP (EnabledIPIPOnly, Enabled), and
	// not those of pools without encapsulation (EnabledIPIPOnly, Disabled).
	IPIPRoutes, NoPlainRoutes bool
	// Broken says why the stored object cannot be read and this is what was last
	// read of it; "" if it is sound.
	Broken string
}

// Advertisement adds communities to the routes inside a prefix.
type Advertisement struct {
	CIDR        netip.Prefix
	Communities []string // literal values
}

// BGPPeer is one explicitly configured peering. The local side is one node,
// the nodes of a selector, or every node when neither is set; the far side is
// an address, the nodes of a selector, or local workloads.
type BGPPeer struct {
	Name          string
	Node          string
	Nodes         *selector.Selector // local side by labels
	Addr          netip.Addr         // far side by address
	Port          uint16             // 0: the far node's port, else DefaultPort
	Peers         *selector.Selector // far side by labels of nodes
	Workloads     *selector.Selector // far side by labels of local workloads
	AS            uint32             // 0: that of the far node, else the cluster's
	LocalAS       uint32             // 0: ours
	AllowLocalAS  uint8
	TTLSecurity   uint8
	Filters       []string
	ReverseManual bool // do not make the session at the far nodes too
	Options       PeerOptions
	Broken        string // as of BGPConfig
}

// PeerOptions are the settings of a BGPPeer that hold in both directions of a
// peering between nodes.
type PeerOptions struct {
	Password    string        // reference to a secret, "name/key"; "" if none
	NoSource    bool          // let the kernel choose the source address
	Restart     time.Duration // graceful restart time; 0: default
	Keepalive   time.Duration // 0: default
	NextHopMode string        // "", "Self", "Keep"
	KeepNextHop bool          // deprecated spelling of Keep, for eBGP only
	ReachableBy netip.Addr    // gateway to the peer; invalid if none
}

// BGPFilter is known by name alone until filters are evaluated. One that cannot
// be read is one all the same.
type BGPFilter struct {
	Name   string
	Broken string // why the stored object cannot be read; "" if it is sound
}
