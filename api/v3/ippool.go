package v3

// EncapMode says when traffic to a pool's addresses is encapsulated.
type EncapMode string

// The encapsulation modes.
const (
	EncapNever       EncapMode = "Never"
	EncapAlways      EncapMode = "Always"
	EncapCrossSubnet EncapMode = "CrossSubnet"
)

// AllowedUse is something that a pool's addresses may be used for.
type AllowedUse string

// The uses of a pool.
const (
	UseWorkload     AllowedUse = "Workload"
	UseTunnel       AllowedUse = "Tunnel"
	UseLoadBalancer AllowedUse = "LoadBalancer"
)

// AssignmentMode says whether addresses are taken from a pool unasked.
type AssignmentMode string

// The assignment modes.
const (
	AssignAutomatic AssignmentMode = "Automatic"
	AssignManual    AssignmentMode = "Manual"
)

// IPPool is a range of addresses that workloads get theirs from.
type IPPool struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       IPPoolSpec    `json:"spec"`
	Status     *IPPoolStatus `json:"status,omitempty"`
}

// IPPoolSpec is what a user says about a pool.
type IPPoolSpec struct {
	CIDR              string         `json:"cidr"`
	VXLANMode         EncapMode      `json:"vxlanMode,omitempty" default:"Never"`
	IPIPMode          EncapMode      `json:"ipipMode,omitempty" default:"Never"`
	NATOutgoing       bool           `json:"natOutgoing,omitempty" default:"false"`
	Disabled          bool           `json:"disabled,omitempty" default:"false"`
	DisableBGPExport  bool           `json:"disableBGPExport,omitempty" default:"false"`
	BlockSize         int            `json:"blockSize,omitempty" default:"26 (IPv4), 122 (IPv6)"`
	NodeSelector      string         `json:"nodeSelector,omitempty" default:"all()"`
	NamespaceSelector string         `json:"namespaceSelector,omitempty"`
	AllowedUses       []AllowedUse   `json:"allowedUses,omitempty" default:"[Workload, Tunnel]"`
	AssignmentMode    AssignmentMode `json:"assignmentMode,omitempty" default:"Automatic"`
}

// IPPoolStatus is what is known about a pool.
type IPPoolStatus struct {
	Conditions []Condition `json:"conditions,omitempty"`
}

// Condition is one observed fact about an object, in the shape of Kubernetes.
type Condition struct {
	Type               string `json:"type"`
	Status             string `json:"status"` // True, False or Unknown
	ObservedGeneration int64  `json:"observedGeneration,omitempty"`
	LastTransitionTime Time   `json:"lastTransitionTime"`
	Reason             string `json:"reason"`
	Message            string `json:"message"`
}

// The condition of a pool, and its reasons.
const (
	ConditionAllocatable = "Allocatable"
	ReasonOK             = "OK"
	ReasonCIDROverlap    = "CIDROverlap"
	ReasonTerminating    = "Terminating"
	ReasonPoolDisabled   = "PoolDisabled"
)

// IPReservation holds addresses back from automatic assignment.
type IPReservation struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       IPReservationSpec `json:"spec"`
}

// IPReservationSpec lists the CIDRs (a bare IP is read too) held back.
type IPReservationSpec struct {
	ReservedCIDRs []string `json:"reservedCIDRs,omitempty"`
}
