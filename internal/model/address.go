package model

import "net/netip"

// Encap is how packets to a pool travel.
type Encap uint8

// The forms of encapsulation.
const (
	NoEncap Encap = iota
	IPIP
	VXLAN
)

// String writes the form as people name it.
func (e Encap) String() string { return [...]string{"none", "IP in IP", "VXLAN"}[e%3] }

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
	// Broken says why the stored object cannot be read and this is what was last
	// read of it; "" if it is sound.
	Broken string
}

// Block is one block of addresses with the addresses used in it.
type Block struct {
	CIDR    netip.Prefix
	Host    string // affine host or virtual owner; "" if none
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

// Affinity is a host's claim to a block, confirmed or not.
type Affinity struct {
	Host      string
	CIDR      netip.Prefix
	Confirmed bool
}
