package agentapi

// PathPaths (GET -> Paths) says what was measured of the ways to other hosts
// through tunnels. With ?now=1 all are measured anew first.
const PathPaths = "/v1/paths"

// Paths is what an agent has measured.
type Paths struct {
	Node      string     `json:"node"`
	Off       bool       `json:"off,omitempty"` // nothing is measured here
	Condition Condition  `json:"condition"`
	Paths     []PathInfo `json:"paths"` // sorted by device and peer
	Offloads  []Offload  `json:"offloads"`
}

// PathInfo is one way to another host. Each check is "passed", "lost" (without
// a word), "told" (refused as too large, and said so), "refused", "changed",
// "failed" (this host could not send), or empty if it was not made.
type PathInfo struct {
	Peer    string `json:"peer"` // name of the other host
	Device  string `json:"device"`
	Form    string `json:"form"`           // ipip or vxlan
	Local   string `json:"local"`          // end of the tunnel here
	Remote  string `json:"remote"`         // end of the tunnel there
	Node    string `json:"node,omitempty"` // the other host's own address
	MTU     int    `json:"mtu"`            // of the route, bytes
	Fits    int    `json:"fits,omitempty"` // the largest packet that passes whole, bytes; none: not known
	Outcome string `json:"outcome"`        // fine, measuring, no-answer, not-sent, blocked, narrow, checksum, tcp, corrupt
	Bad     bool   `json:"bad,omitempty"`  // packets are lost, or cost more than they should
	Message string `json:"message,omitempty"`
	Checks  Checks `json:"checks"`
	// MeasuredAt is RFC 3339, empty before the first time.
	MeasuredAt string `json:"measuredAt,omitempty"`
	RTTMicros  int64  `json:"rttMicroseconds,omitempty"`
}

// Checks are what became of the packets of one measurement.
type Checks struct {
	Small string `json:"small,omitempty"` // a small datagram without a checksum
	Sum   string `json:"sum,omitempty"`   // the same with one
	Full  string `json:"full,omitempty"`  // a datagram of the route's MTU, not to be cut
	Whole string `json:"whole,omitempty"` // the same, the packet around it not to be cut either (VXLAN)
	Over  string `json:"over,omitempty"`  // one byte more: refused at once, or passed in pieces
	TCP   string `json:"tcp,omitempty"`   // a connection with several segments
}

// Offload is the checksum offload of a tunnel's device.
type Offload struct {
	Device string `json:"device"`
	On     bool   `json:"on"`
	Why    string `json:"why,omitempty"` // the agent switched it off
}
