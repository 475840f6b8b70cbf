package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// Topology says what to build.
type Topology struct {
	Name      string `json:"name"`
	Preset    string `json:"preset"`
	Hosts     int    `json:"hosts"`
	Workloads int    `json:"workloads"` // on each host
	Family    string `json:"family"`    // v4, v6 or dual
	Binary    string `json:"binary"`    // the brindle that hosts run; not for files
	Fsync     bool   `json:"fsync"`     // etcd waits for the disk; off, it is faster and forgets on power loss

	HoldTime time.Duration `json:"holdTime"` // after how much silence BGP peers give each other up

	// Of the pools that workloads are numbered from. An IPv4 pool has the VXLAN
	// mode only if it has no IP in IP.
	IPIP  string `json:"ipip"`  // Never, Always or CrossSubnet; IPv4 only
	VXLAN string `json:"vxlan"` // Never, Always or CrossSubnet
	NAT   bool   `json:"nat"`   // natOutgoing

	// AgentArgs are further arguments of every agent.
	AgentArgs []string `json:"agentArgs"`

	Shape *Shape `json:"shape,omitempty"` // nil: that of the preset
}

// Default is the topology of `lab up` with this preset and no flags. An empty
// preset is flat.
func Default(preset string) Topology {
	t := Topology{
		Name: "lab", Preset: Flat, Hosts: 3, Workloads: 2, Family: Dual, HoldTime: 90 * time.Second,
		IPIP: string(v3.EncapNever), VXLAN: string(v3.EncapNever),
	}
	if preset != "" {
		t.Preset = preset
	}
	switch preset {
	case Subnets, Fabric:
		t.Hosts, t.VXLAN = 4, string(v3.EncapCrossSubnet)
	case Reflectors:
		t.Hosts = 6
	}
	return t
}

// maxHosts is how many hosts fit into the segments' numbering.
const maxHosts = 200

// The hold times that BGP can negotiate (RFC 4271, section 4.2), but for none.
const (
	minHold = 3 * time.Second
	maxHold = 65535 * time.Second
)

// Check says what is wrong with a topology.
func (t Topology) Check() error {
	if err := CheckName(t.Name); err != nil {
		return err
	}
	if t.Shape == nil && !slices.Contains(Presets, t.Preset) {
		return fmt.Errorf("preset %q: must be one of %q", t.Preset, Presets)
	}
	if n := t.shape().hosts(); t.Shape != nil && t.Hosts != n {
		return fmt.Errorf("--hosts %d: the segments of the file have %d", t.Hosts, n)
	}
	if least := t.leastHosts(); t.Hosts < least || t.Hosts > maxHosts {
		return fmt.Errorf("--hosts %d: a lab of the preset %s has %d to %d hosts", t.Hosts, t.Preset, least, maxHosts)
	}
	if t.Workloads < 0 || t.Workloads > 200 {
		return fmt.Errorf("--workloads %d: a host has 0 to 200 workloads to begin with", t.Workloads)
	}
	if t.HoldTime < minHold || t.HoldTime > maxHold || t.HoldTime%time.Second != 0 {
		return fmt.Errorf("--hold-time %s: must be whole seconds, %s to %s (RFC 4271)", t.HoldTime, minHold, maxHold)
	}
	if !slices.Contains([]string{V4, V6, Dual}, t.Family) {
		return fmt.Errorf("--family %q: must be v4, v6 or dual", t.Family)
	}
	return t.checkModes()
}

// checkModes says what is wrong with how the pools are encapsulated.
func (t Topology) checkModes() error {
	modes := []string{string(v3.EncapNever), string(v3.EncapAlways), string(v3.EncapCrossSubnet)}
	for flag, mode := range map[string]string{"ipip": t.IPIP, "vxlan": t.VXLAN} {
		if !slices.Contains(modes, mode) {
			return fmt.Errorf("--%s %q: must be Never, Always or CrossSubnet", flag, mode)
		}
	}
	if t.IPIP != string(v3.EncapNever) && !t.has4() {
		return fmt.Errorf("--ipip %s with --family %s: IP in IP carries IPv4 only; use --vxlan", t.IPIP, t.Family)
	}
	return nil
}

func (t Topology) has4() bool { return t.Family != V6 }
func (t Topology) has6() bool { return t.Family != V4 }

// The addresses that workloads are numbered from, and those of the segments
// that join the hosts: of the only one, or with the segment's number in the
// third byte of IPv4 and the fourth pair of IPv6. They overlap with nothing
// that Brindle or Calico chooses by default.
var (
	segment4 = netip.MustParsePrefix("172.30.0.0/24")
	segment6 = netip.MustParsePrefix("fd00:172:30::/64")
	pool4    = netip.MustParsePrefix("10.48.0.0/16")
	pool6    = netip.MustParsePrefix("fd00:10:48::/48")
)

// Who has which number in its segment: its routers 1, 2, …, the host i 10 + i.
const hostNumber = 10

// addresses returns the addresses with a number in a segment.
func (t Topology) addresses(segment, number int) []netip.Prefix {
	var out []netip.Prefix
	if t.has4() {
		a := segment4.Addr().As4()
		a[2], a[3] = byte(segment), byte(number)
		out = append(out, netip.PrefixFrom(netip.AddrFrom4(a), segment4.Bits()))
	}
	if t.has6() {
		a := segment6.Addr().As16()
		a[7], a[15] = byte(segment), byte(number)
		out = append(out, netip.PrefixFrom(netip.AddrFrom16(a), segment6.Bits()))
	}
	return out
}

// hostAddresses returns the addresses of the i-th host (from 1).
func (t Topology) hostAddresses(i int) []netip.Prefix {
	return t.addresses(t.segmentOf(i), hostNumber+i)
}

// modes returns how the pool of a family is encapsulated.
func (t Topology) modes(four bool) (ipip, vxlan v3.EncapMode) {
	ipip, vxlan = v3.EncapNever, v3.EncapMode(t.VXLAN)
	if four && t.IPIP != string(v3.EncapNever) {
		ipip, vxlan = v3.EncapMode(t.IPIP), v3.EncapNever
	}
	return ipip, vxlan
}

// wraps reports whether packets to workloads of a family travel inside of
// others between two hosts, by what the lab's own pools say.
func (t Topology) wraps(four bool, i, j int) bool {
	if i == j {
		return false
	}
	ipip, vxlan := t.modes(four)
	for _, mode := range []v3.EncapMode{ipip, vxlan} {
		if mode == v3.EncapAlways || mode == v3.EncapCrossSubnet && t.segmentOf(i) != t.segmentOf(j) {
			return true
		}
	}
	return false
}
