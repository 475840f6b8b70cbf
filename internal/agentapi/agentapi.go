// Package agentapi is the protocol between the agent and whoever sets up
// workloads on its host: the CNI plugin, the lab, Docker. It is HTTP/1.1 and
// JSON on a unix socket that only root may open. The package holds shapes
// only, and of the standard library only what the tiny plugin can afford.
package agentapi

import "encoding/json"

// Version is the protocol spoken here. A peer that is one older or one newer
// is served; any other is refused by name.
const Version = 1

// DefaultSocket is where the agent listens.
const DefaultSocket = "/run/brindle/agent.sock"

// DefaultQueue is where removals wait while the agent is down: one file each,
// a CNIRequest as JSON, named by its content's hash.
const DefaultQueue = "/var/lib/brindle/queue"

// Paths of the API. All take POST with a JSON body but PathStatus, PathRoutes,
// PathPolicyStats and PathPolicyRules (GET).
const (
	PathCNI    = "/v1/cni"             // CNIRequest -> CNIResponse
	PathAdd    = "/v1/workload/add"    // AddRequest -> Workload; returns when programmed and read back
	PathCheck  = "/v1/workload/check"  // WorkloadRef -> Workload
	PathRemove = "/v1/workload/remove" // WorkloadRef -> {}
	PathGC     = "/v1/workload/gc"     // GCRequest -> GCResponse
	PathStatus = "/v1/status"          // -> Status
	PathRoutes = "/v1/bgp/routes"      // -> Routes

	PathPolicyStats = "/v1/policy/stats" // -> PolicyStats
	PathPolicyRules = "/v1/policy/rules" // ?interface=NAME of a workload on the host side -> PolicyRules
)

// CNIRequest is one call of the plugin, unparsed: the plugin has no logic.
type CNIRequest struct {
	Version int             `json:"version"`
	Command string          `json:"command"` // ADD, DEL, CHECK, GC, STATUS
	Plugin  string          `json:"plugin"`  // brindle-cni or brindle-ipam
	Env     CNIEnv          `json:"env"`
	Config  json.RawMessage `json:"config"` // standard input as it came
	PID     int             `json:"pid,omitempty"`
}

// CNIEnv is the environment that the CNI specification names.
type CNIEnv struct {
	ContainerID string `json:"containerID,omitempty"`
	Netns       string `json:"netns,omitempty"`
	IfName      string `json:"ifName,omitempty"`
	Args        string `json:"args,omitempty"`
	Path        string `json:"path,omitempty"`
}

// CNIResponse is what the plugin prints on standard output. With Failed set
// it is a CNI error and the plugin exits with 1.
type CNIResponse struct {
	Failed bool            `json:"failed,omitempty"`
	Output json.RawMessage `json:"output,omitempty"`
}

// AddRequest asks for one workload interface. Doing it twice is the same as
// doing it once.
type AddRequest struct {
	Version       int               `json:"version"`
	Orchestrator  string            `json:"orchestrator"` // cni, k8s, libnetwork, lab
	Network       string            `json:"network,omitempty"`
	ContainerID   string            `json:"containerID"` // or any id that names the workload for ever
	Namespace     string            `json:"namespace,omitempty"`
	Pod           string            `json:"pod,omitempty"`
	Workload      string            `json:"workload,omitempty"` // name of a workload that is no pod
	IfName        string            `json:"ifName"`             // inside the workload
	Netns         string            `json:"netns"`              // path
	HostInterface string            `json:"hostInterface,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
	Profiles      []string          `json:"profiles,omitempty"`
	Ports         []Port            `json:"ports,omitempty"`
	AssignIPv4    bool              `json:"assignIPv4"`
	AssignIPv6    bool              `json:"assignIPv6"`
	IPv4Pools     []string          `json:"ipv4Pools,omitempty"` // CIDRs or names
	IPv6Pools     []string          `json:"ipv6Pools,omitempty"`
	Addresses     []string          `json:"addresses,omitempty"` // requested addresses
	MAC           string            `json:"mac,omitempty"`
	MTU           int               `json:"mtu,omitempty"`
	Forwarding    bool              `json:"forwarding,omitempty"`
	TimeoutMS     int               `json:"timeoutMS,omitempty"` // 0: 30 s
	Special       *Special          `json:"special,omitempty"`   // nil: nothing out of the ordinary
}

// Port is a named port of a workload.
type Port struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
}

// Workload is a workload interface as it is.
type Workload struct {
	Name          string   `json:"name"` // of its WorkloadEndpoint
	Namespace     string   `json:"namespace"`
	HostInterface string   `json:"hostInterface"`
	Interface     string   `json:"interface"`
	MAC           string   `json:"mac"`
	MTU           int      `json:"mtu"`
	Addresses     []string `json:"addresses"` // /32 and /128
}

// WorkloadRef names a workload interface to check or remove.
type WorkloadRef struct {
	Version      int    `json:"version"`
	Orchestrator string `json:"orchestrator"`
	Network      string `json:"network,omitempty"`
	ContainerID  string `json:"containerID"`
	Namespace    string `json:"namespace,omitempty"`
	Pod          string `json:"pod,omitempty"`
	Workload     string `json:"workload,omitempty"`
	IfName       string `json:"ifName"`
	Netns        string `json:"netns,omitempty"`
}

// GCRequest names all attachments that are alive; everything else of the
// network on this host is removed.
type GCRequest struct {
	Version int             `json:"version"`
	Network string          `json:"network"`
	Valid   []GCAttachment  `json:"valid"`
	Config  json.RawMessage `json:"config,omitempty"`
}

// GCAttachment is one live attachment of a GCRequest.
type GCAttachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
}

// GCResponse says what was removed.
type GCResponse struct {
	Removed []string `json:"removed"`
}

// Condition is the one shape of condition everywhere.
type Condition struct {
	Type               string `json:"type"`
	Status             bool   `json:"status"`
	Reason             string `json:"reason"`
	Message            string `json:"message,omitempty"`
	ObservedGeneration int64  `json:"observedGeneration,omitempty"`
	Since              string `json:"since"`              // RFC 3339
	Advisory           bool   `json:"advisory,omitempty"` // the agent is ready whether or not it holds
}

// Status is what the agent says of itself.
type Status struct {
	Version    int         `json:"version"`
	Build      string      `json:"build"`
	Node       string      `json:"node"`
	Started    string      `json:"started,omitempty"` // RFC 3339; a program that replaces itself starts anew
	Ready      bool        `json:"ready"`
	Conditions []Condition `json:"conditions"`
	Addresses  []string    `json:"addresses"`
	// Choices say why the addresses are these.
	Choices   []AddressChoice `json:"choices,omitempty"`
	ASNumber  uint32          `json:"asNumber"`
	MTU       int             `json:"mtu"`               // of new workloads' interfaces
	HostMTU   int             `json:"hostMTU,omitempty"` // that it is made of; 0: not known yet
	Workloads int             `json:"workloads"`
	BGPOff    bool            `json:"bgpOff,omitempty"`
	Sessions  []Session       `json:"sessions"`
	// Accepts are the forms in which packets from other hosts may come, as this
	// host's Node says: direct, ipip, vxlan.
	Accepts []string `json:"accepts"`
	Tunnels []Tunnel `json:"tunnels"` // that this host has an end of
	Pools   []Pool   `json:"pools"`   // of the cluster, by network
	// UnknownSenders sent encapsulated packets to this host, which were dropped.
	UnknownSenders UnknownSenders `json:"unknownSenders"`
}

// AddressChoice is why a host has an address.
type AddressChoice struct {
	Address string `json:"address"`
	Why     string `json:"why"`
	Note    string `json:"note,omitempty"` // what is odd or wrong about it, and what to do
}

// Pool is a pool of addresses as the agent knows it.
type Pool struct {
	Name        string `json:"name"`
	CIDR        string `json:"cidr"`
	Form        string `json:"form"`                  // direct, ipip or vxlan: how packets to it travel
	CrossSubnet bool   `json:"crossSubnet,omitempty"` // in that form to other subnets only
	NATOutgoing bool   `json:"natOutgoing,omitempty"`
	Disabled    bool   `json:"disabled,omitempty"` // no new addresses are taken from it
}

// UnknownSenders are addresses of no host of the cluster. They may be forged.
type UnknownSenders struct {
	IPIP  uint64          `json:"ipip"`  // packets, since the counters were made
	VXLAN uint64          `json:"vxlan"` // the same
	Last  []UnknownSender `json:"last,omitempty"`
}

// UnknownSender is one of those seen last. A sample is looked at, so some are
// missing when there are many.
type UnknownSender struct {
	Address string `json:"address"`
	Form    string `json:"form"` // ipip or vxlan
	Seen    string `json:"seen"` // RFC 3339
}

// Tunnel is this host's end of the tunnels of one form and family.
type Tunnel struct {
	Device    string `json:"device"`
	Form      string `json:"form"`              // ipip or vxlan
	Family    int    `json:"family"`            // 4 or 6
	Address   string `json:"address,omitempty"` // of this end; none yet
	Local     string `json:"local"`             // address of this host that packets leave from
	MTU       int    `json:"mtu"`
	MAC       string `json:"mac,omitempty"`
	VNI       uint32 `json:"vni,omitempty"`
	Port      uint16 `json:"port,omitempty"`
	Carrier   string `json:"carrier"`             // kernel, or programs where the kernel has no such device
	Ready     bool   `json:"ready"`               // packets may come by it
	KeptUntil string `json:"keptUntil,omitempty"` // RFC 3339: no pool asks for it any more, and it goes then
}

// Session is one BGP session as it is.
type Session struct {
	Peer            string   `json:"peer"`
	Name            string   `json:"name"`
	AS              uint32   `json:"as"`
	State           string   `json:"state"` // Established, Active, …
	Since           string   `json:"since"`
	Mesh            bool     `json:"mesh"`
	GracefulRestart bool     `json:"gracefulRestart"` // negotiated by both ends
	Capabilities    []string `json:"capabilities,omitempty"`
	EndOfRIB        bool     `json:"endOfRIB"` // both ways
	Received        int      `json:"received"`
	Accepted        int      `json:"accepted"`
	Advertised      int      `json:"advertised"`
	LastError       string   `json:"lastError,omitempty"`
}

// Routes is what the BGP speaker has learned and announces.
type Routes struct {
	Learned   []BGPRoute `json:"learned"`
	Announced []BGPRoute `json:"announced"`
}

// BGPRoute is one prefix from or to one peer.
type BGPRoute struct {
	Prefix  string   `json:"prefix"`
	Peer    string   `json:"peer"`
	NextHop string   `json:"nextHop"`
	ASPath  []uint32 `json:"asPath,omitempty"`
	Best    bool     `json:"best,omitempty"`
	Stale   bool     `json:"stale,omitempty"`
	Refused string   `json:"refused,omitempty"` // why the import filter refused it
}

// PolicyStats is how often the rules of policies and profiles decided on this
// host.
type PolicyStats struct {
	Since string     `json:"since"` // RFC 3339: when counting began
	Rules []RuleStat `json:"rules"` // sorted by owner, direction and index
}

// RuleStat is what one rule has matched. Of a connection the first packet
// counts: what follows is not asked for again.
type RuleStat struct {
	Owner     string `json:"owner"`     // "NetworkPolicy default/allow-web", "Profile kns.default"
	Direction string `json:"direction"` // ingress or egress
	Index     int    `json:"index"`     // of the rule in its list, from 0
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
	LastHit   string `json:"lastHit,omitempty"` // RFC 3339, as exact as the counters are read; "" if never
}

// PolicyRules is what the kernel of this host was told to do with the packets
// of one workload.
type PolicyRules struct {
	Interface string     `json:"interface"`
	Text      string     `json:"text"`     // the rules in order, a line each
	Counters  []RuleStat `json:"counters"` // of the policy rules among them
}

// Error is the body of every answer that is not 200.
type Error struct {
	Code    string `json:"code"` // invalid, notReady, conflict, timeout, internal, version
	Message string `json:"message"`
}
