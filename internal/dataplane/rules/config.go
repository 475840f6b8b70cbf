package rules

import (
	"math/bits"
	"net/netip"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
)

// Config is what of the host's settings shapes the program.
type Config struct {
	// Prefixes of the names of workload interfaces. What comes from or goes to
	// such an interface, and is of no known endpoint, is dropped.
	Prefixes []string
	// MarkMask has the bits of the packet's mark that are ours: at least two.
	// All others stay as they are, ours are clear where our chains end.
	MarkMask uint32
	// CutMark is the bit of the connection's mark that says that policy cut
	// the connection. 0: nothing is ever cut.
	CutMark uint32
	// Offload is the bit of the connection's mark that keeps a connection out of
	// the flowtable: that of CutMark, also where that is 0. 0: there is no
	// flowtable.
	Offload uint32
	// OffloadDevices is a regular expression for names of interfaces at which the
	// flowtable looks for packets, beside those of workloads and tunnels. "": none.
	OffloadDevices string
	// Reject answers packets that policy denies, instead of only dropping them.
	Reject bool
	// ToHost is what becomes of a packet from a workload to this host that the
	// workload's policy allows.
	ToHost Fate
	// AllowInvalid judges packets of workloads that belong to no connection by
	// policy. Otherwise they are dropped.
	AllowInvalid bool
	// Spoofing lets workloads send from the prefixes of their endpoint's Sources.
	Spoofing bool
	// Compiled has new connections decided by look-ups, where that can be done,
	// so that their cost does not grow with the number of policies. What cannot
	// is left to the plain rules, which are there in any case.
	Compiled bool
	// CompileFrom is how many rules a group of endpoints must have for that;
	// with fewer, look-ups cost more than rules: see WorthCompiling.
	CompileFrom int
	smallChunks bool // for tests: a tier of two policies is cut
	// Encapsulations are those that no workload may send.
	Encapsulations []Encapsulation
	// VXLAN is this cluster's own. Its packets are taken from known hosts only
	// (desired.Policy.Hosts) and kept out of connection tracking; those with
	// another port or network identifier pass as policy says.
	VXLAN VXLAN
	// NAT is how the sources of packets to outside are rewritten.
	NAT NAT
	// LogPrefix begins the lines of the Log action. In it %k, %n, %p and %t
	// stand for the kind, name, namespace and name, and tier of the policy.
	LogPrefix string
	// LogGroup: the group that log lines go to; 0 is the kernel's log.
	LogGroup uint16
	// SenderGroup: the group that a sample of encapsulated packets from unknown
	// senders goes to; 0 is LogGroup.
	SenderGroup uint16
	// LogLimit limits each Log rule. The zero Limit doesn't.
	LogLimit Limit
}

// WorthCompiling is from how many rules on look-ups are cheaper: all of them
// cost as much as six rules with a set each.
const WorthCompiling = 6

// Fate is what becomes of a packet.
type Fate uint8

// The fates.
const (
	FateDrop Fate = iota
	FateReject
	FateAccept
)

// Encapsulation is a protocol that carries packets in packets: with a port of
// UDP, or a protocol number of its own and port 0.
type Encapsulation struct {
	Protocol uint8
	Port     uint16
	VNI      uint32 // of VXLAN: only packets with this network identifier; 0: all
}

// VXLAN tells the packets of one network of VXLAN (RFC 7348). With port 0
// there is none.
type VXLAN struct {
	Port uint16 // UDP
	VNI  uint32 // 24 bits
}

// NAT is how packets from pools with PoolUse.Masquerade to outside of all
// pools get another source. The zero value gives them an address of the
// interface that they leave by.
type NAT struct {
	// Address is what they get instead (natOutgoingAddress), in its family.
	Address netip.Addr
	// Ports are those that TCP and UDP get (natPortRange). {0, 0}: any.
	Ports desired.PortRange
	// KeepToHosts leaves packets to hosts of the cluster as they are
	// (natOutgoingExclusions: IPPoolsAndHostIPs).
	KeepToHosts bool
	// Begun: connections may have another source already, which they keep.
	Begun bool
	// Interface: only packets that leave by it; with a + at its end, by all
	// whose names begin so (iptablesNATOutgoingInterfaceFilter). "": by any.
	Interface string
}

// Protocol numbers (IANA).
const (
	protoICMP   = 1
	protoIPIP   = 4
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoSCTP   = 132
)

// maxLogPrefix is the kernel's limit (NF_LOG_PREFIXLEN, with a zero).
const maxLogPrefix = 127

func (c Config) chunking() chunking {
	if c.smallChunks {
		return chunking{from: 1, most: 3, mean: 2}
	}
	return chunking{from: 64, most: 128, mean: 32}
}

// passBit is the second lowest bit of ours; the lowest is the one that
// Calico's agent accepts with, which we have no need of.
func (c Config) passBit() uint32 {
	rest := c.MarkMask & (c.MarkMask - 1)
	return 1 << bits.TrailingZeros32(rest) & rest
}

// deny ends the packet as the configuration says.
func (c Config) deny() Statement {
	if c.Reject {
		return Reject{}
	}
	return Drop{}
}

// logPrefix is the configured one for a policy or profile.
func (c Config) logPrefix(owner, tier string) string {
	kind, path, _ := strings.Cut(owner, " ")
	name := path[strings.LastIndexByte(path, '/')+1:]
	p := strings.NewReplacer("%k", kind, "%n", name, "%p", path, "%t", tier).Replace(c.LogPrefix)
	p = p[:min(len(p), maxLogPrefix-2)]
	return printable(p) + ": "
}

// printable replaces what is not printable ASCII.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, s)
}
