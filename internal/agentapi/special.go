package agentapi

// Special is what few workloads ask for.
type Special struct {
	// Given are addresses that somebody else has seen to: an IPAM plugin of the
	// runtime, or whoever wrote them down. None is taken from a pool, and none
	// given back to one. At most one of each family.
	Given []string `json:"given,omitempty"`
	// Routes are what goes through the host inside the workload, in place of
	// everything. Prefixes.
	Routes []string `json:"routes,omitempty"`
	// Queues are the transmit and receive queues of the wire; 0: one.
	Queues int `json:"queues,omitempty"`
	// AllowedSources are the prefixes that the workload may send from beside
	// its addresses, where the agent's configuration lets it.
	AllowedSources []string `json:"allowedSources,omitempty"`
	// Tap asks for a tap device on the host in place of a pair of interfaces:
	// the program that runs a virtual machine opens it. Nothing is done inside
	// of the machine, and no netns needs to be given.
	Tap bool `json:"tap,omitempty"`
}
