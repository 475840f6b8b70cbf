package v3

// CalicoNodeStatus asks a node to report its state, and holds the report.
type CalicoNodeStatus struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       CalicoNodeStatusSpec   `json:"spec"`
	Status     CalicoNodeStatusStatus `json:"status"`
}

// CalicoNodeStatusSpec says what is to be reported, and how often.
type CalicoNodeStatusSpec struct {
	Node                string   `json:"node"`
	Classes             []string `json:"classes"`             // Agent, BGP, Routes
	UpdatePeriodSeconds *uint32  `json:"updatePeriodSeconds"` // 0: once, never again
}

// CalicoNodeStatusStatus is the report.
type CalicoNodeStatusStatus struct {
	LastUpdated Time            `json:"lastUpdated"` // null before the first report
	Agent       NodeAgentStatus `json:"agent"`
	BGP         NodeBGPStatus   `json:"bgp"`
	Routes      NodeRouteStatus `json:"routes"`
}

// NodeAgentStatus is the state of the BGP daemons.
type NodeAgentStatus struct {
	BIRDV4 BGPDaemonStatus `json:"birdV4"`
	BIRDV6 BGPDaemonStatus `json:"birdV6"`
}

// BGPDaemonStatus is the state of one BGP daemon.
type BGPDaemonStatus struct {
	State                   string `json:"state,omitempty"` // Ready, NotReady
	Version                 string `json:"version,omitempty"`
	RouterID                string `json:"routerID,omitempty"`
	LastBootTime            string `json:"lastBootTime,omitempty"`
	LastReconfigurationTime string `json:"lastReconfigurationTime,omitempty"`
}

// NodeBGPStatus is the state of a node's sessions.
type NodeBGPStatus struct {
	NumberEstablishedV4    int             `json:"numberEstablishedV4"`
	NumberNotEstablishedV4 int             `json:"numberNotEstablishedV4"`
	NumberEstablishedV6    int             `json:"numberEstablishedV6"`
	NumberNotEstablishedV6 int             `json:"numberNotEstablishedV6"`
	PeersV4                []BGPPeerStatus `json:"peersV4,omitempty"`
	PeersV6                []BGPPeerStatus `json:"peersV6,omitempty"`
}

// BGPPeerStatus is the state of one session.
type BGPPeerStatus struct {
	PeerIP string `json:"peerIP,omitempty"`
	Type   string `json:"type,omitempty"`  // NodeMesh, NodePeer, GlobalPeer
	State  string `json:"state,omitempty"` // as in RFC 4271, section 8.2.2, or Close
	Since  string `json:"since,omitempty"`
}

// NodeRouteStatus is a node's routes.
type NodeRouteStatus struct {
	RoutesV4 []RouteStatus `json:"routesV4,omitempty"`
	RoutesV6 []RouteStatus `json:"routesV6,omitempty"`
}

// RouteStatus is one route.
type RouteStatus struct {
	Type        string       `json:"type,omitempty"` // FIB, RIB
	Destination string       `json:"destination,omitempty"`
	Gateway     string       `json:"gateway,omitempty"`
	Interface   string       `json:"interface,omitempty"`
	LearnedFrom RouteLearned `json:"learnedFrom,omitzero"`
}

// RouteLearned says where a route comes from.
type RouteLearned struct {
	SourceType string `json:"sourceType,omitempty"` // Kernel, Static, Direct, NodeMesh, BGPPeer
	PeerIP     string `json:"peerIP,omitempty"`
}
