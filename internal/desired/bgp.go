package desired

import (
	"net/netip"
	"slices"
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

// Equal reports whether both say the same; communities are sorted.
func (p Path) Equal(o Path) bool {
	return p.LocalPref == o.LocalPref && slices.Equal(p.Communities, o.Communities)
}

// Speaker is the setting of the BGP speaker as a whole: a table with the one
// key "", empty while this host has no BGP address.
type Speaker struct {
	AS         uint32
	RouterID   netip.Addr // IPv4 form
	ListenPort uint16
	ListenOn   []netip.Addr // empty: all addresses
}

// Equal reports whether both say the same.
func (s Speaker) Equal(o Speaker) bool {
	return s.AS == o.AS && s.RouterID == o.RouterID && s.ListenPort == o.ListenPort &&
		slices.Equal(s.ListenOn, o.ListenOn)
}

// ImportKey names one entry of the import filter.
type ImportKey struct{ Prefix netip.Prefix }

// Import says what may be learned by BGP. Of all entries that contain a route
// the most specific one decides: Own refuses the route whoever sends it (our
// blocks and the addresses of our workloads), otherwise it is accepted. A
// route that no entry contains is refused from a host of the cluster (see
// Peer.Mesh) and accepted from a peer that an operator configured. So an
// address that another host borrowed from a block of ours is an entry without
// Own inside one with Own: learned, as it must be.
type Import struct {
	Own bool
	// Aside: what is learned is passed on to other peers as usual, and comes not
	// into the kernel.
	Aside bool
}

// PathKey identifies one announced prefix.
type PathKey = netip.Prefix
