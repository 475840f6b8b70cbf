package desired

import (
	"net/netip"
	"strings"
)

// Names of the interfaces of tunnels: those of Calico, so that a host keeps
// them when it changes from one agent to the other.
const (
	DeviceIPIP   = "tunl0"
	DeviceVXLAN4 = "vxlan.calico"
	DeviceVXLAN6 = "vxlan-v6.calico"
)

// AliasTunnel is the link alias of a tunnel's interface.
const AliasTunnel = "brindle:tunnel"

// Form is how packets travel from one host to another.
type Form uint8

// The forms.
const (
	Direct Form = iota // as they are
	IPIP               // in an IPv4 packet of protocol 4 (RFC 2003)
	VXLAN              // in an Ethernet frame in UDP (RFC 7348)
)

// String writes the form as it stands in the annotation of a Node.
func (f Form) String() string { return [...]string{"direct", "ipip", "vxlan"}[f%3] }

// Forms is a set of forms.
type Forms uint8

// FormsOf makes a set.
func FormsOf(list ...Form) Forms {
	var out Forms
	for _, f := range list {
		out |= 1 << f
	}
	return out
}

// ownHost marks the address of this host itself, which sends itself nothing.
const ownHost Forms = 1 << 7

// OwnHost are the forms of this host's own address: what is sent to it in a
// tunnel is sent there.
func OwnHost() Forms { return FormsOf(Direct) | ownHost }

// Own reports whether the forms are those of this host's own address.
func (s Forms) Own() bool { return s&ownHost != 0 }

// Has reports whether the form is in the set.
func (s Forms) Has(f Form) bool { return s&(1<<f) != 0 }

// String lists the forms, in order and with commas; "own" is this host itself.
func (s Forms) String() string {
	var out []string
	for _, f := range []Form{Direct, IPIP, VXLAN} {
		if s.Has(f) {
			out = append(out, f.String())
		}
	}
	if s.Own() {
		out = append(out, "own")
	}
	return strings.Join(out, ",")
}

// Device is the interface of a tunnel. What must hold of it once it is there
// stands in its Link.
type Device struct {
	Form  Form       // IPIP or VXLAN
	Local netip.Addr // the address of this host that packets leave from; VXLAN: also tells the interface below
	MAC   string     // VXLAN: lower case, colons
	VNI   uint32     // VXLAN
	Port  uint16     // VXLAN: UDP
}

// PoolUse is what becomes of the source of packets from a pool to outside of
// all pools.
type PoolUse struct {
	Masquerade bool // they leave with an address of this host (natOutgoing)
}

// TunnelSysctls is what holds for a tunnel's interface. Paths may differ in
// the two directions while hosts change from one form to another, so the
// reverse path only has to exist (rp_filter 2, loose).
func TunnelSysctls() map[string]string {
	return map[string]string{
		"ipv4/conf/forwarding":       "1",
		"ipv4/conf/rp_filter":        "2",
		"ipv4/conf/accept_redirects": "0",
		"ipv4/conf/send_redirects":   "0",
		"ipv6/conf/accept_ra":        "0",
		"ipv6/conf/accept_redirects": "0",
		"ipv6/conf/forwarding":       "1",
	}
}

// Overhead is what a form adds to a packet of a family (4 or 6), in bytes.
func Overhead(f Form, family int) int {
	switch {
	case f == IPIP:
		return 20
	case f == VXLAN && family == 4:
		return 50
	case f == VXLAN:
		return 70
	}
	return 0
}
