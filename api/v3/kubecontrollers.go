package v3

// KubeControllersConfiguration steers the cluster's controllers. Only the one
// named default counts.
type KubeControllersConfiguration struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       KubeControllersConfigurationSpec   `json:"spec"`
	Status     KubeControllersConfigurationStatus `json:"status"`
}

// KubeControllersConfigurationSpec is what a user says about the controllers.
type KubeControllersConfigurationSpec struct {
	LogSeverityScreen      string            `json:"logSeverityScreen,omitempty" default:"Info"`
	HealthChecks           string            `json:"healthChecks,omitempty" default:"Enabled"`
	EtcdV3CompactionPeriod *Duration         `json:"etcdV3CompactionPeriod,omitempty" default:"10m0s"` // 0: never
	PrometheusMetricsPort  *int              `json:"prometheusMetricsPort,omitempty" default:"9094"`   // 0: none
	Controllers            ControllersConfig `json:"controllers"`
	DebugProfilePort       *int32            `json:"debugProfilePort,omitempty" default:"off"`
}

// ControllersConfig has one block per controller; without its block a
// controller is off.
type ControllersConfig struct {
	Node             *NodeControllerConfig         `json:"node,omitempty"`
	Policy           *ReconcilerConfig             `json:"policy,omitempty"`
	WorkloadEndpoint *ReconcilerConfig             `json:"workloadEndpoint,omitempty"`
	ServiceAccount   *ReconcilerConfig             `json:"serviceAccount,omitempty"`
	Namespace        *ReconcilerConfig             `json:"namespace,omitempty"`
	LoadBalancer     *LoadBalancerControllerConfig `json:"loadBalancer,omitempty"`
	Migration        *MigrationControllerConfig    `json:"migration,omitempty"`
}

// ReconcilerConfig says how often a controller looks at everything.
type ReconcilerConfig struct {
	ReconcilerPeriod *Duration `json:"reconcilerPeriod,omitempty" default:"5m0s"`
}

// NodeControllerConfig steers the controller of nodes.
type NodeControllerConfig struct {
	ReconcilerPeriod *Duration               `json:"reconcilerPeriod,omitempty" default:"5m0s"`
	SyncLabels       string                  `json:"syncLabels,omitempty" default:"Enabled"`
	HostEndpoint     *AutoHostEndpointConfig `json:"hostEndpoint,omitempty"`
	LeakGracePeriod  *Duration               `json:"leakGracePeriod,omitempty" default:"15m0s"` // 0: collect nothing
}

// AutoHostEndpointConfig says whether and how host endpoints are made.
type AutoHostEndpointConfig struct {
	AutoCreate                string                 `json:"autoCreate,omitempty" default:"Disabled"`
	CreateDefaultHostEndpoint string                 `json:"createDefaultHostEndpoint,omitempty" default:"Enabled"`
	Templates                 []HostEndpointTemplate `json:"templates,omitempty"`
}

// HostEndpointTemplate is a pattern for host endpoints.
type HostEndpointTemplate struct {
	GenerateName     string            `json:"generateName,omitempty"`
	InterfaceCIDRs   []string          `json:"interfaceCIDRs,omitempty"`
	InterfacePattern string            `json:"interfacePattern,omitempty"` // a regular expression
	Labels           map[string]string `json:"labels,omitempty"`
	Annotations      map[string]string `json:"annotations,omitempty"`
	NodeSelector     string            `json:"nodeSelector,omitempty"`
}

// LoadBalancerControllerConfig steers the controller of load balancers.
type LoadBalancerControllerConfig struct {
	AssignIPs string `json:"assignIPs,omitempty" default:"AllServices"`
}

// MigrationControllerConfig steers the controller of migrations.
type MigrationControllerConfig struct {
	PolicyNameMigrator string `json:"policyNameMigrator,omitempty" default:"Enabled"`
}

// KubeControllersConfigurationStatus is what the controllers run with.
type KubeControllersConfigurationStatus struct {
	RunningConfig   *KubeControllersConfigurationSpec `json:"runningConfig,omitempty"`
	EnvironmentVars map[string]string                 `json:"environmentVars,omitempty"`
}
