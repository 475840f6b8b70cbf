package v3

// Labels that the API puts on objects of its own accord.
const (
	LabelNamespace      = "projectcalico.org/namespace"
	LabelOrchestrator   = "projectcalico.org/orchestrator"
	LabelServiceAccount = "projectcalico.org/serviceaccount"
	LabelTier           = "projectcalico.org/tier"
)

// WorkloadEndpoint is one interface of one workload. Its name follows from its
// spec.
type WorkloadEndpoint struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       WorkloadEndpointSpec `json:"spec"`
}

// WorkloadEndpointSpec says where a workload is and which addresses it has.
type WorkloadEndpointSpec struct {
	Orchestrator               string                 `json:"orchestrator,omitempty"`
	Workload                   string                 `json:"workload,omitempty"`
	Node                       string                 `json:"node,omitempty"`
	ContainerID                string                 `json:"containerID,omitempty"`
	Pod                        string                 `json:"pod,omitempty"`
	Endpoint                   string                 `json:"endpoint,omitempty"`
	ServiceAccountName         string                 `json:"serviceAccountName,omitempty"`
	IPNetworks                 []string               `json:"ipNetworks,omitempty"` // single addresses, with /32 or /128
	IPNATs                     []IPNAT                `json:"ipNATs,omitempty"`
	IPv4Gateway                string                 `json:"ipv4Gateway,omitempty"`
	IPv6Gateway                string                 `json:"ipv6Gateway,omitempty"`
	Profiles                   []string               `json:"profiles,omitempty"`
	InterfaceName              string                 `json:"interfaceName,omitempty"` // on the host side
	MAC                        string                 `json:"mac,omitempty"`           // on the workload's side
	Ports                      []WorkloadEndpointPort `json:"ports,omitempty"`
	AllowSpoofedSourcePrefixes []string               `json:"allowSpoofedSourcePrefixes,omitempty"`
	AllowedIPs                 []string               `json:"allowedIps,omitempty"`
	QoSControls                *QoSControls           `json:"qosControls,omitempty"`
}

// WorkloadEndpointPort is a port of a workload that rules may name.
type WorkloadEndpointPort struct {
	Name     string   `json:"name"`
	Protocol Protocol `json:"protocol"`
	Port     uint16   `json:"port"`
	HostPort uint16   `json:"hostPort"`
	HostIP   string   `json:"hostIP"`
}

// IPNAT makes a workload reachable at another address.
type IPNAT struct {
	InternalIP string `json:"internalIP"`
	ExternalIP string `json:"externalIP"`
}

// QoSControls limits a workload's traffic. Bandwidths are bits per second,
// bursts bits, packet rates packets per second.
type QoSControls struct {
	IngressBandwidth      int64        `json:"ingressBandwidth,omitempty"`
	EgressBandwidth       int64        `json:"egressBandwidth,omitempty"`
	IngressBurst          int64        `json:"ingressBurst,omitempty"`
	EgressBurst           int64        `json:"egressBurst,omitempty"`
	IngressPeakrate       int64        `json:"ingressPeakrate,omitempty"`
	EgressPeakrate        int64        `json:"egressPeakrate,omitempty"`
	IngressMinburst       int64        `json:"ingressMinburst,omitempty"`
	EgressMinburst        int64        `json:"egressMinburst,omitempty"`
	IngressPacketRate     int64        `json:"ingressPacketRate,omitempty"`
	EgressPacketRate      int64        `json:"egressPacketRate,omitempty"`
	IngressPacketBurst    int64        `json:"ingressPacketBurst,omitempty"`
	EgressPacketBurst     int64        `json:"egressPacketBurst,omitempty"`
	IngressMaxConnections int64        `json:"ingressMaxConnections,omitempty"`
	EgressMaxConnections  int64        `json:"egressMaxConnections,omitempty"`
	DSCP                  *IntOrString `json:"dscp,omitempty"`
}

// HostEndpoint puts an interface of a host under policy.
type HostEndpoint struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       HostEndpointSpec `json:"spec"`
}

// HostEndpointSpec names the interface, or the addresses it is found by.
type HostEndpointSpec struct {
	Node          string         `json:"node,omitempty"`
	InterfaceName string         `json:"interfaceName,omitempty"` // "*" for all
	ExpectedIPs   []string       `json:"expectedIPs,omitempty"`
	Profiles      []string       `json:"profiles,omitempty"`
	Ports         []EndpointPort `json:"ports,omitempty"`
}

// EndpointPort is a port of a host that rules may name.
type EndpointPort struct {
	Name     string   `json:"name"`
	Protocol Protocol `json:"protocol"`
	Port     uint16   `json:"port"`
}
