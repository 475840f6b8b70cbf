package v3

// BGPConfiguration steers BGP for all nodes (name default) or for one (name
// node.<nodename>).
type BGPConfiguration struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       BGPConfigurationSpec `json:"spec"`
}

// BGPConfigurationSpec is what a user says about BGP.
type BGPConfigurationSpec struct {
	LogSeverityScreen              string                `json:"logSeverityScreen,omitempty" default:"Info"`
	NodeToNodeMeshEnabled          *bool                 `json:"nodeToNodeMeshEnabled,omitempty" default:"true"`
	ASNumber                       *ASNumber             `json:"asNumber,omitempty" default:"64512"`
	ServiceLoadBalancerIPs         []ServiceBlock        `json:"serviceLoadBalancerIPs,omitempty"`
	ServiceExternalIPs             []ServiceBlock        `json:"serviceExternalIPs,omitempty"`
	ServiceClusterIPs              []ServiceBlock        `json:"serviceClusterIPs,omitempty"`
	ServiceLoadBalancerAggregation string                `json:"serviceLoadBalancerAggregation,omitempty" default:"Enabled"`
	Communities                    []Community           `json:"communities,omitempty"`
	PrefixAdvertisements           []PrefixAdvertisement `json:"prefixAdvertisements,omitempty"`
	ListenPort                     *uint16               `json:"listenPort,omitempty" default:"179"`
	NodeMeshPassword               *BGPPassword          `json:"nodeMeshPassword,omitempty"`
	NodeMeshMaxRestartTime         *Duration             `json:"nodeMeshMaxRestartTime,omitempty" default:"2m0s"`
	BindMode                       string                `json:"bindMode,omitempty" default:"None"`
	IgnoredInterfaces              []string              `json:"ignoredInterfaces,omitempty"`
	LocalWorkloadPeeringIPV4       string                `json:"localWorkloadPeeringIPV4,omitempty"`
	LocalWorkloadPeeringIPV6       string                `json:"localWorkloadPeeringIPV6,omitempty"`
	ProgramClusterRoutes           string                `json:"programClusterRoutes,omitempty" default:"EnabledNoEncapOnly"`
	IPv4NormalRoutePriority        *int                  `json:"ipv4NormalRoutePriority,omitempty" default:"1024"`
	IPv6NormalRoutePriority        *int                  `json:"ipv6NormalRoutePriority,omitempty" default:"1024"`
}

// ServiceBlock is a range of service addresses to advertise.
type ServiceBlock struct {
	CIDR string `json:"cidr"`
}

// Community gives a BGP community value a name.
type Community struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// PrefixAdvertisement puts communities on the routes inside a prefix.
type PrefixAdvertisement struct {
	CIDR        string   `json:"cidr"`
	Communities []string `json:"communities,omitempty"`
}

// BGPPassword says where a password is kept.
type BGPPassword struct {
	SecretKeyRef *SecretKeyRef `json:"secretKeyRef,omitempty"`
}

// SecretKeyRef names one key of a secret.
type SecretKeyRef struct {
	Name     string `json:"name,omitempty"`
	Key      string `json:"key"`
	Optional *bool  `json:"optional,omitempty"`
}

// BGPPeer is a BGP session, or a rule that makes several.
type BGPPeer struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       BGPPeerSpec `json:"spec"`
}

// BGPPeerSpec says which nodes peer with whom, and how.
type BGPPeerSpec struct {
	Node                     string       `json:"node,omitempty"`
	NodeSelector             string       `json:"nodeSelector,omitempty"`
	PeerIP                   string       `json:"peerIP,omitempty"` // IP, IPv4:port or [IPv6]:port
	ASNumber                 ASNumber     `json:"asNumber,omitempty"`
	LocalASNumber            *ASNumber    `json:"localASNumber,omitempty"`
	PeerSelector             string       `json:"peerSelector,omitempty"`
	LocalWorkloadSelector    string       `json:"localWorkloadSelector,omitempty"`
	KeepOriginalNextHop      bool         `json:"keepOriginalNextHop,omitempty" default:"false"` // deprecated
	NextHopMode              string       `json:"nextHopMode,omitempty" default:"Auto"`
	Password                 *BGPPassword `json:"password,omitempty"`
	SourceAddress            string       `json:"sourceAddress,omitempty" default:"UseNodeIP"`
	MaxRestartTime           *Duration    `json:"maxRestartTime,omitempty" default:"2m0s"`
	KeepaliveTime            *Duration    `json:"keepaliveTime,omitempty" default:"a third of the hold time"`
	NumAllowedLocalASNumbers *int32       `json:"numAllowedLocalASNumbers,omitempty" default:"0"`
	TTLSecurity              *uint8       `json:"ttlSecurity,omitempty"`
	ReachableBy              string       `json:"reachableBy,omitempty"`
	Filters                  []string     `json:"filters,omitempty"`
	ReversePeering           string       `json:"reversePeering,omitempty" default:"Auto"`
}

// BGPFilter is a list of rules on the routes of a session.
type BGPFilter struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       BGPFilterSpec `json:"spec"`
}

// BGPFilterSpec has one list per direction and family; the first rule that
// matches decides.
type BGPFilterSpec struct {
	ExportV4 []BGPFilterRule `json:"exportV4,omitempty"`
	ImportV4 []BGPFilterRule `json:"importV4,omitempty"`
	ExportV6 []BGPFilterRule `json:"exportV6,omitempty"`
	ImportV6 []BGPFilterRule `json:"importV6,omitempty"`
}

// BGPFilterRule matches when all that it says holds.
type BGPFilterRule struct {
	CIDR          string               `json:"cidr,omitempty"`
	PrefixLength  *PrefixLengthRange   `json:"prefixLength,omitempty"`
	MatchOperator string               `json:"matchOperator,omitempty"` // Equal, NotEqual, In, NotIn
	Source        string               `json:"source,omitempty"`        // RemotePeers
	Interface     string               `json:"interface,omitempty"`
	PeerType      string               `json:"peerType,omitempty"` // eBGP, iBGP
	Communities   *CommunityMatch      `json:"communities,omitempty"`
	ASPathPrefix  []ASNumber           `json:"asPathPrefix,omitempty"`
	Priority      *int                 `json:"priority,omitempty"`
	Action        string               `json:"action"` // Accept, Reject
	Operations    []BGPFilterOperation `json:"operations,omitempty"`
}

// PrefixLengthRange bounds the length of a route's prefix. A missing Min is the
// length of the rule's CIDR, a missing Max that of an address.
type PrefixLengthRange struct {
	Min *int `json:"min,omitempty"`
	Max *int `json:"max,omitempty"`
}

// CommunityMatch asks for communities on a route.
type CommunityMatch struct {
	Values []string `json:"values"`
}

// BGPFilterOperation changes an accepted route; exactly one of its fields is
// set.
type BGPFilterOperation struct {
	AddCommunity  *AddCommunity  `json:"addCommunity,omitempty"`
	PrependASPath *PrependASPath `json:"prependASPath,omitempty"`
	SetPriority   *SetPriority   `json:"setPriority,omitempty"`
}

// AddCommunity adds a community to a route.
type AddCommunity struct {
	Value string `json:"value"`
}

// PrependASPath puts AS numbers before a route's path, in the order given.
type PrependASPath struct {
	Prefix []ASNumber `json:"prefix"`
}

// SetPriority sets the metric of a route.
type SetPriority struct {
	Value *int `json:"value,omitempty"`
}
