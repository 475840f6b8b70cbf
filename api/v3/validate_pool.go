package v3

import (
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/prefix"
)

// linkLocal are the addresses that routers never forward (RFC 3927, 4291).
var linkLocal = []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10")}

func (c *checker) pool(s *IPPoolSpec) {
	cidr, ok := netip.Prefix{}, false
	switch {
	case !c.required("spec.cidr", s.CIDR):
	case len(s.CIDR) > 48:
		c.wrong("spec.cidr", s.CIDR, "must have at most 48 characters", "")
	default:
		cidr, ok = c.cidr("spec.cidr", s.CIDR)
	}
	oneOf(c, "spec.vxlanMode", s.VXLANMode, EncapNever, EncapAlways, EncapCrossSubnet)
	oneOf(c, "spec.ipipMode", s.IPIPMode, EncapNever, EncapAlways, EncapCrossSubnet)
	if s.IPIPMode.on() && s.VXLANMode.on() {
		c.wrong("spec.ipipMode", string(s.IPIPMode), "must be Never when vxlanMode is "+string(s.VXLANMode), "choose one encapsulation")
	}
	if ok {
		c.poolRange(s, cidr)
	}
	c.selector("spec.nodeSelector", s.NodeSelector, maxSelector)
	c.selector("spec.namespaceSelector", s.NamespaceSelector, maxSelector)
	c.poolUses(s)
	oneOf(c, "spec.assignmentMode", s.AssignmentMode, AssignAutomatic, AssignManual)
}

// on reports whether anything is encapsulated.
func (m EncapMode) on() bool { return m != "" && m != EncapNever }

// poolRange checks what depends on the family and size of the pool.
func (c *checker) poolRange(s *IPPoolSpec, cidr netip.Prefix) {
	for _, l := range linkLocal {
		c.must(!cidr.Overlaps(l), "spec.cidr", s.CIDR, "must not overlap "+l.String()+", which is never routed")
	}
	low, high := 20, 32
	if cidr.Addr().Is6() {
		low, high = 116, 128
		if s.IPIPMode.on() {
			c.wrong("spec.ipipMode", string(s.IPIPMode), "must be Never: IP in IP carries IPv4 only", "use vxlanMode")
		}
	}
	size := s.blockSize()
	if size < low || size > high {
		c.between("spec.blockSize", int64(size), int64(low), int64(high))
		return
	}
	if size < cidr.Bits() && !s.Disabled {
		hint := "make cidr /" + strconv.Itoa(size) + " or shorter"
		if cidr.Bits() <= high {
			hint = "set blockSize to " + strconv.Itoa(cidr.Bits()) + " or more, or " + hint
		}
		c.wrong("spec.blockSize", strconv.Itoa(size), "must not be a larger block than the pool, which is a /"+strconv.Itoa(cidr.Bits()), hint)
	}
}

// blockSize returns the prefix length of the pool's blocks.
func (s *IPPoolSpec) blockSize() int {
	switch {
	case s.BlockSize != 0:
		return s.BlockSize
	case strings.Contains(s.CIDR, ":"):
		return 122
	default:
		return 26
	}
}

func (c *checker) poolUses(s *IPPoolSpec) {
	const path = "spec.allowedUses"
	c.atMost(path, len(s.AllowedUses), 10)
	for i, u := range s.AllowedUses {
		c.must(u != "", indexed(path, i), "", "must be one of Workload, Tunnel, LoadBalancer")
		oneOf(c, indexed(path, i), u, UseWorkload, UseTunnel, UseLoadBalancer)
	}
	unique(c, path, s.AllowedUses)
	if s.NamespaceSelector != "" && slices.Contains(s.AllowedUses, UseTunnel) {
		c.wrong("spec.namespaceSelector", s.NamespaceSelector, "must not be set when allowedUses has Tunnel: a tunnel is in no namespace", "set allowedUses to [Workload]")
	}
	if !slices.Contains(s.AllowedUses, UseLoadBalancer) {
		return
	}
	c.must(len(s.AllowedUses) == 1, path, usesText(s.AllowedUses), "must not combine LoadBalancer with other uses")
	c.must(!s.IPIPMode.on(), "spec.ipipMode", string(s.IPIPMode), "must be Never when allowedUses is LoadBalancer")
	c.must(!s.VXLANMode.on(), "spec.vxlanMode", string(s.VXLANMode), "must be Never when allowedUses is LoadBalancer")
	c.must(s.NodeSelector == "" || s.NodeSelector == "all()", "spec.nodeSelector", s.NodeSelector, "must be all() when allowedUses is LoadBalancer")
	c.must(!s.DisableBGPExport, "spec.disableBGPExport", "true", "must be false when allowedUses is LoadBalancer")
}

func usesText(uses []AllowedUse) string {
	names := make([]string, len(uses))
	for i, u := range uses {
		names[i] = string(u)
	}
	return strings.Join(names, ", ")
}

func (c *checker) affinity(s *BlockAffinitySpec) {
	c.required("spec.state", string(s.State))
	oneOf(c, "spec.state", s.State, AffinityConfirmed, AffinityPending, AffinityPendingDeletion)
	c.required("spec.node", s.Node)
	oneOf(c, "spec.type", s.Type, "host", "virtual")
	if c.required("spec.cidr", s.CIDR) {
		c.cidr("spec.cidr", s.CIDR)
	}
}

var affinityRegexp = regexp.MustCompile(`^(host|virtual):[a-zA-Z0-9.\-_]+$`)

func (c *checker) block(s *IPAMBlockSpec) {
	if !c.required("spec.cidr", s.CIDR) {
		return
	}
	if s.Affinity != nil {
		c.match("spec.affinity", *s.Affinity, affinityRegexp, "must be host:NAME or virtual:NAME")
	}
	cidr, ok := c.cidr("spec.cidr", s.CIDR)
	if !ok {
		return
	}
	if size := prefix.SizeCapped(cidr); uint64(len(s.Allocations)) != size {
		c.wrong("spec.allocations", strconv.Itoa(len(s.Allocations))+" entries", "must have one entry per address of the block: "+strconv.FormatUint(size, 10), "")
		return
	}
	for i, a := range s.Allocations {
		if a != nil {
			c.must(*a >= 0 && *a < len(s.Attributes), indexed("spec.allocations", i), strconv.Itoa(*a), "must be the place of an entry of attributes")
		}
	}
	free := map[int]bool{}
	for i, n := range s.Unallocated {
		at, value := indexed("spec.unallocated", i), strconv.Itoa(n)
		switch {
		case n < 0 || n >= len(s.Allocations):
			c.between(at, int64(n), 0, int64(len(s.Allocations)-1))
		case free[n]:
			c.wrong(at, value, "must not be in the list twice", "")
		case s.Allocations[n] != nil:
			c.wrong(at, value, "must not be an address that is allocated", "")
		}
		free[n] = true
	}
}

func (c *checker) handle(s *IPAMHandleSpec) {
	c.required("spec.handleID", s.HandleID)
	for _, b := range slices.Sorted(maps.Keys(s.Block)) {
		at := dotted("spec.block", b)
		c.cidr(at, b)
		c.must(s.Block[b] >= 0, at, strconv.Itoa(s.Block[b]), "must not be negative")
	}
}

func (c *checker) ipamConfig(s *IPAMConfigurationSpec) {
	c.between("spec.maxBlocksPerHost", int64(s.MaxBlocksPerHost), 0, 1_000_000)
	if s.MaxBlocksPerHost > 0 && !s.StrictAffinity {
		c.wrong("spec.maxBlocksPerHost", strconv.Itoa(s.MaxBlocksPerHost), "must be 0 unless strictAffinity is true: a host at its limit would borrow without end", "set strictAffinity: true")
	}
	if s.AutoAllocateBlocks != nil && !*s.AutoAllocateBlocks && !s.StrictAffinity {
		c.wrong("spec.autoAllocateBlocks", "false", "must be true unless strictAffinity is true", "set strictAffinity: true")
	}
	oneOf(c, "spec.kubeVirtVMAddressPersistence", s.KubeVirtVMAddressPersistence, "Enabled", "Disabled")
	c.between("spec.ipCooldownSeconds", int64(s.IPCooldownSeconds), 0, 1200)
}
