package desired

import (
	"net/netip"
	"time"
)

// PeerKey identifies one BGP session by its far end.
type PeerKey struct {
	Addr netip.Addr
	Port uint16
}

// Peer is one BGP session that this host should have.
type Peer struct {
	Name         string // for people: "Mesh_172_30_0_12"
	AS           uint32
	LocalAS      uint32
	LocalAddr    netip.Addr // source address; invalid: the kernel chooses
	Passive      bool       // wait for the far end to connect
	Mesh         bool       // node-to-node mesh: the far end is a host of the cluster
	ClientOf     netip.Addr // route reflector cluster id if the far end is our client
	Password     Secret
	Restart      time.Duration // graceful restart time; 0: the default of 120 s
	Keepalive    time.Duration // 0: a third of the hold time
	TTLSecurity  uint8         // hops allowed; 0: off
	MaxPrefixes  uint32        // most prefixes accepted; 0: the default
	NextHopMode  string        // "", "Self" or "Keep"
	AllowLocalAS uint8         // times our own AS may stand in a received path
}

// Secret is a string that formats as dots, so that it never reaches a log.
type Secret struct{ value string }

// NewSecret wraps s.
func NewSecret(s string) Secret { return Secret{s} }

// Reveal returns the secret itself, for the one call that needs it.
func (s Secret) Reveal() string { return s.value }

// Empty reports whether there is no secret.
func (s Secret) Empty() bool { return s.value == "" }

// String hides the value.
func (s Secret) String() string {
	if s.value == "" {
		return ""
	}
	return "(secret)"
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalJSON hides the value from JSON.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// Path is one prefix that this host announces by BGP. The next hop is always
// this host's own address of the family.
type Path struct {
	Communities []string
	LocalPref   uint32 // 0: the speaker's default
}

// Speaker is the setting of the BGP speaker as a whole: a table with the one
// key "".
type Speaker struct {
	AS         uint32
	RouterID   netip.Addr // IPv4 form
	ListenPort uint16
	ListenOn   []netip.Addr // empty: all addresses
}

// ImportKey names one entry of the import filter.
type ImportKey struct{ Prefix netip.Prefix }

// Import says what may be learned: a route inside Prefix is accepted from a
// host of the cluster unless Own is set (our blocks and our local addresses:
// never accepted, nor anything inside).
type Import struct {
	Own bool
}

// PathKey identifies one announced prefix.
type PathKey = netip.Prefix
