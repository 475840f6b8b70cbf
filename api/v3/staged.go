package v3

// StagedAction says what a staged policy would do when it is enforced.
type StagedAction string

// The staged actions.
const (
	StagedSet    StagedAction = "Set"
	StagedDelete StagedAction = "Delete"
	StagedLearn  StagedAction = "Learn"
	StagedIgnore StagedAction = "Ignore"
)

// StagedNetworkPolicy is a NetworkPolicy that is tried but not enforced.
type StagedNetworkPolicy struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       StagedNetworkPolicySpec `json:"spec"`
}

// StagedNetworkPolicySpec is a NetworkPolicySpec with what is to become of it.
type StagedNetworkPolicySpec struct {
	StagedAction      StagedAction `json:"stagedAction,omitempty" default:"Set"`
	NetworkPolicySpec `json:",inline"`
}

// StagedGlobalNetworkPolicy is a GlobalNetworkPolicy that is tried but not
// enforced.
type StagedGlobalNetworkPolicy struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       StagedGlobalNetworkPolicySpec `json:"spec"`
}

// StagedGlobalNetworkPolicySpec is a GlobalNetworkPolicySpec with what is to
// become of it.
type StagedGlobalNetworkPolicySpec struct {
	StagedAction            StagedAction `json:"stagedAction,omitempty" default:"Set"`
	GlobalNetworkPolicySpec `json:",inline"`
}

// StagedKubernetesNetworkPolicy is a Kubernetes NetworkPolicy that is tried but
// not enforced.
type StagedKubernetesNetworkPolicy struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       StagedKubernetesNetworkPolicySpec `json:"spec"`
}

// StagedKubernetesNetworkPolicySpec is the spec of a Kubernetes NetworkPolicy
// with what is to become of it.
type StagedKubernetesNetworkPolicySpec struct {
	StagedAction StagedAction            `json:"stagedAction,omitempty" default:"Set"`
	PodSelector  LabelSelector           `json:"podSelector,omitzero"`
	Ingress      []KubernetesIngressRule `json:"ingress,omitempty"`
	Egress       []KubernetesEgressRule  `json:"egress,omitempty"`
	PolicyTypes  []PolicyType            `json:"policyTypes,omitempty" default:"by the rules present"`
}

// Kubernetes returns the spec as that of a Kubernetes NetworkPolicy.
func (s *StagedKubernetesNetworkPolicySpec) Kubernetes() KubernetesNetworkPolicySpec {
	return KubernetesNetworkPolicySpec{
		PodSelector: s.PodSelector, Ingress: s.Ingress, Egress: s.Egress, PolicyTypes: s.PolicyTypes,
	}
}

// KubernetesNetworkPolicySpec is the spec of a networking.k8s.io/v1
// NetworkPolicy.
type KubernetesNetworkPolicySpec struct {
	PodSelector LabelSelector           `json:"podSelector,omitzero"`
	Ingress     []KubernetesIngressRule `json:"ingress,omitempty"`
	Egress      []KubernetesEgressRule  `json:"egress,omitempty"`
	PolicyTypes []PolicyType            `json:"policyTypes,omitempty" default:"by the rules present"`
}

// LabelSelector is a selector in the shape of Kubernetes. Empty, it selects
// everything.
type LabelSelector struct {
	MatchLabels      map[string]string          `json:"matchLabels,omitempty"`
	MatchExpressions []LabelSelectorRequirement `json:"matchExpressions,omitempty"`
}

// LabelSelectorRequirement is one condition of a LabelSelector.
type LabelSelectorRequirement struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"` // In, NotIn, Exists, DoesNotExist
	Values   []string `json:"values,omitempty"`
}

// KubernetesIngressRule allows traffic to a pod.
type KubernetesIngressRule struct {
	Ports []KubernetesPolicyPort `json:"ports,omitempty"`
	From  []KubernetesPolicyPeer `json:"from,omitempty"`
}

// KubernetesEgressRule allows traffic from a pod.
type KubernetesEgressRule struct {
	Ports []KubernetesPolicyPort `json:"ports,omitempty"`
	To    []KubernetesPolicyPeer `json:"to,omitempty"`
}

// KubernetesPolicyPort is a port, or ports from Port to EndPort.
type KubernetesPolicyPort struct {
	Protocol *string      `json:"protocol,omitempty" default:"TCP"`
	Port     *IntOrString `json:"port,omitempty"`
	EndPort  *int32       `json:"endPort,omitempty"`
}

// KubernetesPolicyPeer is the other end: pods, or a block of addresses.
type KubernetesPolicyPeer struct {
	PodSelector       *LabelSelector `json:"podSelector,omitempty"`
	NamespaceSelector *LabelSelector `json:"namespaceSelector,omitempty"`
	IPBlock           *IPBlock       `json:"ipBlock,omitempty"`
}

// IPBlock is a CIDR without some parts of it.
type IPBlock struct {
	CIDR   string   `json:"cidr"`
	Except []string `json:"except,omitempty"`
}
