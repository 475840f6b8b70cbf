package v3

// Action is what a rule does with what it matches.
type Action string

// The actions.
const (
	ActionAllow Action = "Allow"
	ActionDeny  Action = "Deny"
	ActionLog   Action = "Log"
	ActionPass  Action = "Pass"
)

// PolicyType is a direction that a policy applies to.
type PolicyType string

// The directions.
const (
	TypeIngress PolicyType = "Ingress"
	TypeEgress  PolicyType = "Egress"
)

// NetworkPolicy is policy for workloads of one namespace.
type NetworkPolicy struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       NetworkPolicySpec `json:"spec"`
}

// NetworkPolicySpec says which workloads a policy applies to, and its rules.
type NetworkPolicySpec struct {
	Tier                   string       `json:"tier,omitempty" default:"default"`
	Order                  *float64     `json:"order,omitempty" default:"last"`
	Ingress                []Rule       `json:"ingress,omitempty"`
	Egress                 []Rule       `json:"egress,omitempty"`
	Selector               string       `json:"selector,omitempty" default:"all"`
	Types                  []PolicyType `json:"types,omitempty" default:"by the rules present"`
	ServiceAccountSelector string       `json:"serviceAccountSelector,omitempty"`
	PerformanceHints       []string     `json:"performanceHints,omitempty"` // AssumeNeededOnEveryNode
}

// GlobalNetworkPolicy is policy for workloads of all namespaces and for hosts.
type GlobalNetworkPolicy struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       GlobalNetworkPolicySpec `json:"spec"`
}

// GlobalNetworkPolicySpec says which endpoints a policy applies to, and its
// rules.
type GlobalNetworkPolicySpec struct {
	Tier                   string       `json:"tier,omitempty" default:"default"`
	Order                  *float64     `json:"order,omitempty" default:"last"`
	Ingress                []Rule       `json:"ingress,omitempty"`
	Egress                 []Rule       `json:"egress,omitempty"`
	Selector               string       `json:"selector,omitempty" default:"all"`
	Types                  []PolicyType `json:"types,omitempty" default:"by the rules present"`
	DoNotTrack             bool         `json:"doNotTrack,omitempty" default:"false"`
	PreDNAT                bool         `json:"preDNAT,omitempty" default:"false"`
	ApplyOnForward         bool         `json:"applyOnForward,omitempty" default:"false"`
	ServiceAccountSelector string       `json:"serviceAccountSelector,omitempty"`
	NamespaceSelector      string       `json:"namespaceSelector,omitempty"`
	PerformanceHints       []string     `json:"performanceHints,omitempty"` // AssumeNeededOnEveryNode
}

// Rule matches when all that it says holds.
type Rule struct {
	Action      Action        `json:"action"`
	IPVersion   *int          `json:"ipVersion,omitempty"` // 4 or 6
	Protocol    *Protocol     `json:"protocol,omitempty"`
	ICMP        *ICMPFields   `json:"icmp,omitempty"`
	NotProtocol *Protocol     `json:"notProtocol,omitempty"`
	NotICMP     *ICMPFields   `json:"notICMP,omitempty"`
	Source      EntityRule    `json:"source,omitzero"`
	Destination EntityRule    `json:"destination,omitzero"`
	HTTP        *HTTPMatch    `json:"http,omitempty"`
	Metadata    *RuleMetadata `json:"metadata,omitempty"`
}

// ICMPFields matches a type of ICMP message, and a code of it.
type ICMPFields struct {
	Type *int `json:"type,omitempty"`
	Code *int `json:"code,omitempty"`
}

// EntityRule matches one end of a connection.
type EntityRule struct {
	Nets              []string             `json:"nets,omitempty"`
	Selector          string               `json:"selector,omitempty"`
	NamespaceSelector string               `json:"namespaceSelector,omitempty"`
	Services          *ServiceMatch        `json:"services,omitempty"`
	Ports             []Port               `json:"ports,omitempty"`
	NotNets           []string             `json:"notNets,omitempty"`
	NotSelector       string               `json:"notSelector,omitempty"`
	NotPorts          []Port               `json:"notPorts,omitempty"`
	ServiceAccounts   *ServiceAccountMatch `json:"serviceAccounts,omitempty"`
}

// ServiceMatch matches the endpoints of a Kubernetes service.
type ServiceMatch struct {
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty" default:"the policy's"`
}

// ServiceAccountMatch matches workloads by their service account.
type ServiceAccountMatch struct {
	Names    []string `json:"names,omitempty"`
	Selector string   `json:"selector,omitempty"`
}

// HTTPMatch matches HTTP requests.
type HTTPMatch struct {
	Methods []string   `json:"methods,omitempty"`
	Paths   []HTTPPath `json:"paths,omitempty"`
}

// HTTPPath matches a path whole or by its start; exactly one is set.
type HTTPPath struct {
	Exact  string `json:"exact,omitempty"`
	Prefix string `json:"prefix,omitempty"`
}

// RuleMetadata is free text about a rule.
type RuleMetadata struct {
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Tier groups policies; tiers are gone through in order.
type Tier struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       TierSpec   `json:"spec"`
	Status     TierStatus `json:"status"`
}

// TierSpec places a tier, and says what happens at its end.
type TierSpec struct {
	Order         *float64 `json:"order,omitempty" default:"1000000"`
	DefaultAction *Action  `json:"defaultAction,omitempty" default:"Deny"` // Deny or Pass
}

// TierStatus is what is known about a tier.
type TierStatus struct {
	Conditions []Condition `json:"conditions,omitempty"`
}

// The tiers that always exist.
const (
	TierDefault      = "default"
	TierKubeAdmin    = "kube-admin"
	TierKubeBaseline = "kube-baseline"
)

// NetworkSet is a list of networks that rules of its namespace select by label.
type NetworkSet struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       NetworkSetSpec `json:"spec"`
}

// NetworkSetSpec lists networks, each a CIDR or an IP.
type NetworkSetSpec struct {
	Nets []string `json:"nets,omitempty"`
}

// GlobalNetworkSet is a list of networks that rules select by label.
type GlobalNetworkSet struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       NetworkSetSpec `json:"spec"`
}

// ProfileDefaultAllow is the profile that always exists and allows everything.
const ProfileDefaultAllow = "projectcalico-default-allow"

// Profile is rules and labels for the endpoints that name it. Its rules apply
// where no policy does.
type Profile struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       ProfileSpec `json:"spec"`
}

// ProfileSpec holds a profile's rules and the labels its endpoints inherit.
type ProfileSpec struct {
	Ingress       []Rule            `json:"ingress,omitempty"`
	Egress        []Rule            `json:"egress,omitempty"`
	LabelsToApply map[string]string `json:"labelsToApply,omitempty"`
}
