package v3

// Labels by which block affinities are looked up.
const (
	LabelHostnameHash = "projectcalico.org/hostname-hash"
	LabelAffinityType = "projectcalico.org/affinity-type"
	LabelIPVersion    = "projectcalico.org/ip-version"
)

// AffinityState is a step in the life of a block affinity.
type AffinityState string

// The states of an affinity.
const (
	AffinityConfirmed       AffinityState = "confirmed"
	AffinityPending         AffinityState = "pending"
	AffinityPendingDeletion AffinityState = "pendingDeletion"
)

// BlockAffinity says that a block of addresses belongs to a host, or to a
// virtual owner. Only address management writes it.
type BlockAffinity struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       BlockAffinitySpec `json:"spec"`
}

// BlockAffinitySpec names the block and its owner.
type BlockAffinitySpec struct {
	State   AffinityState `json:"state"`
	Node    string        `json:"node"`
	Type    string        `json:"type,omitempty" default:"host"` // host or virtual
	CIDR    string        `json:"cidr"`
	Deleted bool          `json:"deleted,omitempty" default:"false"`
}

// IPAMBlock is a block of addresses with who has which. Only address
// management writes it.
type IPAMBlock struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       IPAMBlockSpec `json:"spec"`
}

// IPAMBlockSpec is the state of a block. Ordinals count addresses from the
// first of the block.
type IPAMBlockSpec struct {
	CIDR                        string                `json:"cidr"`
	Affinity                    *string               `json:"affinity,omitempty"` // "host:name" or "virtual:owner"
	AffinityClaimTime           *Time                 `json:"affinityClaimTime,omitempty"`
	Allocations                 []*int                `json:"allocations"` // per ordinal an index into Attributes, null when free
	Unallocated                 []int                 `json:"unallocated"` // free ordinals, the next to be used first
	Attributes                  []AllocationAttribute `json:"attributes"`
	SequenceNumber              uint64                `json:"sequenceNumber,omitempty"`
	SequenceNumberForAllocation map[string]uint64     `json:"sequenceNumberForAllocation,omitempty"`
	Deleted                     bool                  `json:"deleted,omitempty" default:"false"`
	StrictAffinity              bool                  `json:"strictAffinity,omitempty" default:"false"` // deprecated, ignored
}

// AllocationAttribute says who holds an address.
type AllocationAttribute struct {
	HandleID            *string           `json:"handle_id,omitempty"`
	Secondary           map[string]string `json:"secondary,omitempty"` // of the active owner
	AlternateOwnerAttrs map[string]string `json:"alternateOwnerAttrs,omitempty"`
	ReleasedAt          *Time             `json:"releasedAt,omitempty"`
}

// IPAMHandle names the blocks in which one owner holds addresses. Only address
// management writes it.
type IPAMHandle struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       IPAMHandleSpec `json:"spec"`
}

// IPAMHandleSpec counts an owner's addresses by block.
type IPAMHandleSpec struct {
	HandleID string         `json:"handleID"`
	Block    map[string]int `json:"block"`
	Deleted  bool           `json:"deleted,omitempty" default:"false"`
}

// IPAMConfiguration steers address management. Only the one named default
// counts.
type IPAMConfiguration struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       IPAMConfigurationSpec `json:"spec"`
}

// IPAMConfigurationSpec says how hosts take blocks and addresses.
type IPAMConfigurationSpec struct {
	StrictAffinity               bool   `json:"strictAffinity" default:"false"`
	MaxBlocksPerHost             int    `json:"maxBlocksPerHost,omitempty" default:"0 (at most 20)"`
	AutoAllocateBlocks           *bool  `json:"autoAllocateBlocks,omitempty" default:"true"`
	KubeVirtVMAddressPersistence string `json:"kubeVirtVMAddressPersistence,omitempty" default:"Enabled"`
	IPCooldownSeconds            int    `json:"ipCooldownSeconds,omitempty" default:"0"`
}
