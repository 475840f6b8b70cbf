package desired

// State is everything that one host should look like: one map per table of
// the world.
type State struct {
	Devices    map[string]Device // of tunnels, by interface name
	Links      map[string]Link   // by interface name
	Addresses  map[AddrKey]struct{}
	Routes     map[RouteKey]Route
	Rules      map[RuleKey]Rule
	Neighbours map[NeighKey]Neigh
	Sysctls    map[string]string // "net/ipv4/ip_forward" -> "1"
	Speakers   map[string]Speaker
	Peers      map[PeerKey]Peer
	Paths      map[PathKey]Path
	Imports    map[ImportKey]Import
	Notices    map[NoticeKey]Notice
	Policy     Policy
}

// NewState returns a state with every table made and empty.
func NewState() State {
	return State{
		Devices:    map[string]Device{},
		Links:      map[string]Link{},
		Addresses:  map[AddrKey]struct{}{},
		Routes:     map[RouteKey]Route{},
		Rules:      map[RuleKey]Rule{},
		Neighbours: map[NeighKey]Neigh{},
		Sysctls:    map[string]string{},
		Speakers:   map[string]Speaker{},
		Peers:      map[PeerKey]Peer{},
		Paths:      map[PathKey]Path{},
		Imports:    map[ImportKey]Import{},
		Notices:    map[NoticeKey]Notice{},
		Policy:     NewPolicy(),
	}
}

// Update is one Patch per table: what the core hands to the appliers.
type Update struct {
	Devices    Patch[string, Device]
	Links      Patch[string, Link]
	Addresses  Patch[AddrKey, struct{}]
	Routes     Patch[RouteKey, Route]
	Rules      Patch[RuleKey, Rule]
	Neighbours Patch[NeighKey, Neigh]
	Sysctls    Patch[string, string]
	Speakers   Patch[string, Speaker]
	Peers      Patch[PeerKey, Peer]
	Paths      Patch[PathKey, Path]
	Imports    Patch[ImportKey, Import]
	Notices    Patch[NoticeKey, Notice]
	Policy     PolicyPatch
}

// Play applies every patch of the update to a state in memory.
func (u Update) Play(s State) {
	u.Devices.Play(s.Devices)
	u.Links.Play(s.Links)
	u.Addresses.Play(s.Addresses)
	u.Routes.Play(s.Routes)
	u.Rules.Play(s.Rules)
	u.Neighbours.Play(s.Neighbours)
	u.Sysctls.Play(s.Sysctls)
	u.Speakers.Play(s.Speakers)
	u.Peers.Play(s.Peers)
	u.Paths.Play(s.Paths)
	u.Imports.Play(s.Imports)
	u.Notices.Play(s.Notices)
	u.Policy.Play(s.Policy)
}

// NoticeKey names one thing that a person must know about this host's state.
type NoticeKey struct {
	Condition string // the readiness condition it belongs to: Policy, Routing, Kernel…
	Object    string // "GlobalNetworkPolicy block-bad"
}

// Notice is the text of a notice. Blocking makes its condition false.
type Notice struct {
	Reason   string // CamelCase, for machines: PolicyNotEnforced
	Message  string
	Blocking bool
}
