package v3

// LiveMigration says that a workload moves from one host to another. Only the
// orchestrator's driver writes it.
type LiveMigration struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       LiveMigrationSpec `json:"spec"`
}

// LiveMigrationSpec names both ends of the move.
type LiveMigrationSpec struct {
	Source *LiveMigrationEnd `json:"source,omitempty"`
	Target *LiveMigrationEnd `json:"target,omitempty"`
}

// LiveMigrationEnd is one end of the move.
type LiveMigrationEnd struct {
	WorkloadEndpoint *WorkloadEndpointID `json:"workloadEndpoint,omitempty"`
}

// WorkloadEndpointID identifies an endpoint by where it is.
type WorkloadEndpointID struct {
	Hostname       string `json:"hostname"`
	OrchestratorID string `json:"orchestratorID"`
	WorkloadID     string `json:"workloadID"`
	EndpointID     string `json:"endpointID"`
}
