package kubepolicy

import (
	v3 "github.com/brindle-net/brindle/api/v3"
)

// The API groups and versions of the kinds that are read here.
const (
	NetworkingV1      = "networking.k8s.io/v1"
	PolicyV1Alpha2    = "policy.networking.k8s.io/v1alpha2"
	DiscoveryV1       = "discovery.k8s.io/v1"
	coreV1            = "v1"
	kindNetworkPolicy = "NetworkPolicy"
)

// PolicyKinds are the kinds of Kubernetes that become policies. Their files
// are read as strictly as those of the v3 API.
func PolicyKinds() []v3.ExtraKind {
	return []v3.ExtraKind{
		{Kind: kindNetworkPolicy, APIVersion: NetworkingV1, New: func() v3.Object { return &KubeNetworkPolicy{} }},
		{Kind: "ClusterNetworkPolicy", APIVersion: PolicyV1Alpha2, New: func() v3.Object { return &ClusterNetworkPolicy{} }},
	}
}

// Kinds are PolicyKinds and those that say who is in a cluster. Of the latter
// only the fields that matter here are looked at.
func Kinds() []v3.ExtraKind {
	return append(PolicyKinds(),
		v3.ExtraKind{Kind: "Namespace", APIVersion: coreV1, New: func() v3.Object { return &Namespace{} }},
		v3.ExtraKind{Kind: "ServiceAccount", APIVersion: coreV1, New: func() v3.Object { return &ServiceAccount{} }},
		v3.ExtraKind{Kind: "Pod", APIVersion: coreV1, New: func() v3.Object { return &Pod{} }},
		v3.ExtraKind{Kind: "Service", APIVersion: coreV1, New: func() v3.Object { return &Service{} }},
		v3.ExtraKind{Kind: "EndpointSlice", APIVersion: DiscoveryV1, New: func() v3.Object { return &EndpointSlice{} }},
	)
}

// Metadata is that of any object of Kubernetes.
type Metadata struct {
	v3.ObjectMeta `json:",inline"`
	ManagedFields []Ignored `json:"managedFields,omitempty"`
}

// Ignored is an object that is passed over, whatever is in it.
type Ignored struct{}

// Partial marks the struct as knowing only some fields.
func (*Ignored) Partial() {}

// KubeNetworkPolicy is a NetworkPolicy of networking.k8s.io/v1.
type KubeNetworkPolicy struct {
	v3.TypeMeta `json:",inline"`
	Metadata    `json:"metadata"`
	Spec        v3.KubernetesNetworkPolicySpec `json:"spec"`
	Status      Ignored                        `json:"status,omitzero"`
}

// ClusterNetworkPolicy is that of policy.networking.k8s.io/v1alpha2, as
// network-policy-api v0.2.0 defines it.
type ClusterNetworkPolicy struct {
	v3.TypeMeta `json:",inline"`
	Metadata    `json:"metadata"`
	Spec        ClusterPolicySpec `json:"spec"`
	Status      Ignored           `json:"status,omitzero"`
}

// ClusterPolicySpec says whom a ClusterNetworkPolicy is for, when it is asked,
// and its rules.
type ClusterPolicySpec struct {
	Tier     string               `json:"tier"`     // Admin or Baseline
	Priority *int32               `json:"priority"` // 0 to 1000, the lowest first
	Subject  ClusterPeer          `json:"subject"`  // namespaces or pods
	Ingress  []ClusterIngressRule `json:"ingress,omitempty"`
	Egress   []ClusterEgressRule  `json:"egress,omitempty"`
}

// ClusterIngressRule is about traffic to the subject.
type ClusterIngressRule struct {
	Name      string            `json:"name,omitempty"`
	Action    string            `json:"action"` // Accept, Deny or Pass
	From      []ClusterPeer     `json:"from"`
	Protocols []ClusterProtocol `json:"protocols,omitempty"`
}

// ClusterEgressRule is about traffic of the subject.
type ClusterEgressRule struct {
	Name      string            `json:"name,omitempty"`
	Action    string            `json:"action"` // Accept, Deny or Pass
	To        []ClusterPeer     `json:"to"`
	Protocols []ClusterProtocol `json:"protocols,omitempty"`
}

// ClusterPeer is one end; exactly one field is set. Networks, nodes and domain
// names are for destinations alone.
type ClusterPeer struct {
	Namespaces  *v3.LabelSelector `json:"namespaces,omitempty"`
	Pods        *NamespacedPods   `json:"pods,omitempty"`
	Nodes       *v3.LabelSelector `json:"nodes,omitempty"`
	Networks    []string          `json:"networks,omitempty"`
	DomainNames []string          `json:"domainNames,omitempty"`
}

// NamespacedPods selects pods of selected namespaces.
type NamespacedPods struct {
	NamespaceSelector v3.LabelSelector `json:"namespaceSelector"`
	PodSelector       v3.LabelSelector `json:"podSelector"`
}

// ClusterProtocol matches a protocol, or a port by its name; at most one field
// is set.
type ClusterProtocol struct {
	TCP                  *ClusterPorts `json:"tcp,omitempty"`
	UDP                  *ClusterPorts `json:"udp,omitempty"`
	SCTP                 *ClusterPorts `json:"sctp,omitempty"`
	DestinationNamedPort string        `json:"destinationNamedPort,omitempty"`
}

// ClusterPorts matches the destination port; nil is any.
type ClusterPorts struct {
	DestinationPort *ClusterPort `json:"destinationPort,omitempty"`
}

// ClusterPort is one port or a range of them.
type ClusterPort struct {
	Number *int32            `json:"number,omitempty"`
	Range  *ClusterPortRange `json:"range,omitempty"`
}

// ClusterPortRange is the ports from Start to End, both included.
type ClusterPortRange struct {
	Start int32 `json:"start"`
	End   int32 `json:"end"`
}
