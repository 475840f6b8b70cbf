// Package paths measures the ways to other hosts through tunnels. On each host
// an answerer listens at the ends of tunnels, for the ends of known hosts
// alone, and a prober asks those of the others: small packets, ones as large as
// the route says, larger ones, and TCP. What comes of it is the choice of the
// checksum offload of the tunnel's device, and a verdict in words: which path
// loses which packets, and what to do about it.
//
// docs/design/paths.md says how it works.
package paths

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
)

// DefaultPort is the UDP and TCP port of the answerer.
const DefaultPort = 4797

// An End is this host's end of a tunnel. The answerer listens there.
type End struct {
	Device string
	Form   desired.Form
	Addr   netip.Addr // of this end
	// Offload says that the device itself fills in checksums, or leaves that to
	// the interface below, as one can choose.
	Offload bool
}

// A Path is the way through a tunnel to the end of another host.
type Path struct {
	Device        string
	Form          desired.Form
	Local, Remote netip.Addr // ends of the tunnel
	MTU           int        // of the route, bytes
	Peer          string     // name of the other host
	Node          netip.Addr // the other host's own address; invalid: not known
	Speaks        bool       // its agent is one of ours
	Outer         Outer
}

// Outer is what stands around the packets of a VXLAN path. The zero value:
// not known, or another form.
type Outer struct {
	Local               netip.Addr // this host's own address
	VNI                 uint32
	Port                uint16
	LocalMAC, RemoteMAC string // of the ends: lower case, colons
}

// key names a path whatever else changes of it.
type key struct{ device, peer string }

func (p Path) key() key { return key{p.Device, p.Peer} }

// family is that of the packets in the tunnel, 4 or 6.
func (p Path) family() int {
	if p.Local.Is4() {
		return 4
	}
	return 6
}

// Outcome is what a path is good for.
type Outcome string

// The outcomes.
const (
	Measuring Outcome = "measuring" // not measured yet, or what was found is being confirmed
	Fine      Outcome = "fine"
	NoAnswer  Outcome = "no-answer" // packets pass; nobody answers for its agent: it is not there, is not one of ours, or a firewall keeps the port shut
	NotSent   Outcome = "not-sent"  // this host itself cannot send
	Blocked   Outcome = "blocked"   // nothing passes
	Narrow    Outcome = "narrow"    // large packets are lost, cut into pieces or refused on the way
	Checksum  Outcome = "checksum"  // packets whose checksum the hardware is to fill in are lost
	NoTCP     Outcome = "tcp"       // datagrams pass, TCP does not
	Corrupt   Outcome = "corrupt"   // packets arrive changed
)

// Bad reports whether packets are lost, or cost more than they should.
func (o Outcome) Bad() bool {
	switch o {
	case NotSent, Blocked, Narrow, Checksum, NoTCP, Corrupt:
		return true
	}
	return false
}

// Check is what became of one kind of packet.
type Check string

// What becomes of packets.
const (
	Skipped Check = ""
	Passed  Check = "passed"
	Lost    Check = "lost"    // without a word
	Told    Check = "told"    // refused, and the sender was told that it is too large
	Refused Check = "refused" // nobody listens
	Changed Check = "changed" // not what was sent
	Failed  Check = "failed"  // this host could not send it
)

// A Result is what was found of a path.
type Result struct {
	Path
	Outcome Outcome
	Message string        // for people, what to do included; "" for nothing to say
	At      time.Time     // when it was measured; zero: not yet
	RTT     time.Duration // of a small packet; 0: not known
	Fits    int           // size of the largest packet that passes whole, bytes; 0: not known
	Small   Check         // a small datagram without a checksum
	Sum     Check         // the same with one
	Full    Check         // a datagram of the route's MTU, not to be cut
	Whole   Check         // the same, the packet around it not to be cut either (VXLAN)
	Over    Check         // one byte more: refused here, or passed in pieces
	TCP     Check         // a connection with several segments
}

// sorted orders results for people: by device and by name.
func sorted(list []Result) []Result {
	slices.SortFunc(list, func(a, b Result) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Peer, b.Peer))
	})
	return list
}
