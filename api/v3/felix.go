package v3

// FelixConfiguration steers the agents: all of them (name default), those of
// nodes that a selector picks (any other name), or one (node.<nodename>).
type FelixConfiguration struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       FelixConfigurationSpec `json:"spec"`
}

// FelixConfigurationSpec is one agent's settings. A field that is not set takes
// the value of the next wider object, in the end its default. The tags name
// what a cluster gets, as documented for Calico.
type FelixConfigurationSpec struct {
	NodeSelector string `json:"nodeSelector,omitempty"` // only on objects that are neither default nor node.*

	// Process, health, metrics.
	UseInternalDataplaneDriver        *bool                   `json:"useInternalDataplaneDriver,omitempty" default:"true"`
	DataplaneDriver                   string                  `json:"dataplaneDriver,omitempty" default:"calico-iptables-plugin"`
	DataplaneWatchdogTimeout          *Duration               `json:"dataplaneWatchdogTimeout,omitempty" default:"1m30s"` // deprecated
	HealthTimeoutOverrides            []HealthTimeoutOverride `json:"healthTimeoutOverrides,omitempty"`
	HealthEnabled                     *bool                   `json:"healthEnabled,omitempty" default:"false"`
	HealthHost                        *string                 `json:"healthHost,omitempty" default:"localhost"`
	HealthPort                        *int                    `json:"healthPort,omitempty" default:"9099"`
	PrometheusMetricsEnabled          *bool                   `json:"prometheusMetricsEnabled,omitempty" default:"false"`
	PrometheusMetricsHost             string                  `json:"prometheusMetricsHost,omitempty"`
	PrometheusMetricsPort             *int                    `json:"prometheusMetricsPort,omitempty" default:"9091"`
	PrometheusGoMetricsEnabled        *bool                   `json:"prometheusGoMetricsEnabled,omitempty" default:"true"`
	PrometheusProcessMetricsEnabled   *bool                   `json:"prometheusProcessMetricsEnabled,omitempty" default:"true"`
	PrometheusWireGuardMetricsEnabled *bool                   `json:"prometheusWireGuardMetricsEnabled,omitempty" default:"true"`
	PrometheusMetricsCAFile           *string                 `json:"prometheusMetricsCAFile,omitempty"`
	PrometheusMetricsCertFile         *string                 `json:"prometheusMetricsCertFile,omitempty"`
	PrometheusMetricsKeyFile          *string                 `json:"prometheusMetricsKeyFile,omitempty"`
	PrometheusMetricsClientAuth       *string                 `json:"prometheusMetricsClientAuth,omitempty" default:"NoClientCert"`
	UsageReportingEnabled             *bool                   `json:"usageReportingEnabled,omitempty" default:"true"`
	UsageReportingInitialDelay        *Duration               `json:"usageReportingInitialDelay,omitempty" default:"5m0s"`
	UsageReportingInterval            *Duration               `json:"usageReportingInterval,omitempty" default:"24h0m0s"`
	GoGCThreshold                     *int                    `json:"goGCThreshold,omitempty" default:"40"`
	GoMemoryLimitMB                   *int                    `json:"goMemoryLimitMB,omitempty" default:"-1"`
	GoMaxProcs                        *int                    `json:"goMaxProcs,omitempty" default:"-1"`
	FeatureDetectOverride             string                  `json:"featureDetectOverride,omitempty"`
	FeatureGates                      string                  `json:"featureGates,omitempty"`
	PolicySyncPathPrefix              string                  `json:"policySyncPathPrefix,omitempty"`
	CgroupV2Path                      string                  `json:"cgroupV2Path,omitempty"`

	// Reports and logs.
	ReportingInterval        *Duration `json:"reportingInterval,omitempty" default:"30s"`
	ReportingTTL             *Duration `json:"reportingTTL,omitempty" default:"1m30s"`
	EndpointReportingEnabled *bool     `json:"endpointReportingEnabled,omitempty" default:"false"`
	EndpointReportingDelay   *Duration `json:"endpointReportingDelay,omitempty" default:"1s"`
	EndpointStatusPathPrefix string    `json:"endpointStatusPathPrefix,omitempty" default:"/var/run/calico"`
	LogFilePath              string    `json:"logFilePath,omitempty" default:"/var/log/calico/felix.log"`
	LogSeverityFile          string    `json:"logSeverityFile,omitempty" default:"Info"`
	LogSeverityScreen        string    `json:"logSeverityScreen,omitempty" default:"Info"`
	LogSeveritySys           string    `json:"logSeveritySys,omitempty" default:"Info"`
	LogDebugFilenameRegex    string    `json:"logDebugFilenameRegex,omitempty"`
	DebugMemoryProfilePath   string    `json:"debugMemoryProfilePath,omitempty"`
	DebugHost                *string   `json:"debugHost,omitempty" default:"localhost"`
	DebugPort                *int      `json:"debugPort,omitempty" default:"off"`
	DebugDisableLogDropping  *bool     `json:"debugDisableLogDropping,omitempty" default:"false"`
	DebugSimCalcGraphHang    *Duration `json:"debugSimulateCalcGraphHangAfter,omitempty" default:"0s"`
	DebugSimDataplaneHang    *Duration `json:"debugSimulateDataplaneHangAfter,omitempty" default:"0s"`
	DebugSimDataplaneDelay   *Duration `json:"debugSimulateDataplaneApplyDelay,omitempty" default:"0s"`
	FlowLogsFlushInterval    *Duration `json:"flowLogsFlushInterval,omitempty" default:"5m0s"`
	FlowLogsCollectorDebug   *bool     `json:"flowLogsCollectorDebugTrace,omitempty" default:"false"`
	FlowLogsGoldmaneServer   *string   `json:"flowLogsGoldmaneServer,omitempty"`
	FlowLogsLocalReporter    *string   `json:"flowLogsLocalReporter,omitempty" default:"Disabled"`
	FlowLogsPolicyEvaluation *string   `json:"flowLogsPolicyEvaluationMode,omitempty" default:"Continuous"`

	// Interfaces and routing.
	InterfacePrefix                          string             `json:"interfacePrefix,omitempty" default:"cali"`
	InterfaceExclude                         string             `json:"interfaceExclude,omitempty" default:"kube-ipvs0"`
	IPv6Support                              *bool              `json:"ipv6Support,omitempty" default:"true"`
	IPForwarding                             string             `json:"ipForwarding,omitempty" default:"Enabled"`
	RouteRefreshInterval                     *Duration          `json:"routeRefreshInterval,omitempty" default:"1m30s"`
	InterfaceRefreshInterval                 *Duration          `json:"interfaceRefreshInterval,omitempty" default:"1m30s"`
	NetlinkTimeout                           *Duration          `json:"netlinkTimeout,omitempty" default:"10s"`
	DeviceRouteProtocol                      *int               `json:"deviceRouteProtocol,omitempty" default:"3 (workloads), 80 (others)"`
	DeviceRouteSourceAddress                 string             `json:"deviceRouteSourceAddress,omitempty"`
	DeviceRouteSourceAddressIPv6             string             `json:"deviceRouteSourceAddressIPv6,omitempty"`
	RemoveExternalRoutes                     *bool              `json:"removeExternalRoutes,omitempty" default:"true"`
	ProgramClusterRoutes                     *string            `json:"programClusterRoutes,omitempty" default:"EnabledIPIPOnly"`
	RouteSource                              string             `json:"routeSource,omitempty" default:"CalicoIPAM"`
	RouteSyncDisabled                        *bool              `json:"routeSyncDisabled,omitempty" default:"false"`
	RouteTableRange                          *RouteTableRange   `json:"routeTableRange,omitempty"` // deprecated
	RouteTableRanges                         *[]RouteTableRange `json:"routeTableRanges,omitempty" default:"[1 to 250]"`
	IPv4NormalRoutePriority                  *int               `json:"ipv4NormalRoutePriority,omitempty" default:"1024"`
	IPv6NormalRoutePriority                  *int               `json:"ipv6NormalRoutePriority,omitempty" default:"1024"`
	IPv4ElevatedRoutePriority                *int               `json:"ipv4ElevatedRoutePriority,omitempty" default:"512"`
	IPv6ElevatedRoutePriority                *int               `json:"ipv6ElevatedRoutePriority,omitempty" default:"512"`
	LiveMigrationRouteConvergenceTime        *Duration          `json:"liveMigrationRouteConvergenceTime,omitempty" default:"30s"`
	MTUIfacePattern                          string             `json:"mtuIfacePattern,omitempty" default:"^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)"`
	RequireMTUFile                           *bool              `json:"requireMTUFile,omitempty" default:"false"`
	AWSSrcDstCheck                           *string            `json:"awsSrcDstCheck,omitempty" default:"DoNothing"`
	FloatingIPs                              *string            `json:"floatingIPs,omitempty" default:"Disabled"`
	LocalSubnetL2Reachability                *string            `json:"localSubnetL2Reachability,omitempty" default:"Disabled"`
	LocalSubnetL2ReachabilityRefreshInterval *Duration          `json:"localSubnetL2ReachabilityRefreshInterval,omitempty" default:"2m0s"`
	ExternalNodesCIDRList                    *[]string          `json:"externalNodesList,omitempty"`

	// Encapsulation and encryption.
	IPIPEnabled                    *bool     `json:"ipipEnabled,omitempty" default:"by the pools"`
	VXLANEnabled                   *bool     `json:"vxlanEnabled,omitempty" default:"by the pools"`
	IPIPMTU                        *int      `json:"ipipMTU,omitempty" default:"0 (found out)"`
	VXLANMTU                       *int      `json:"vxlanMTU,omitempty" default:"0 (found out)"`
	VXLANMTUV6                     *int      `json:"vxlanMTUV6,omitempty" default:"0 (found out)"`
	VXLANPort                      *int      `json:"vxlanPort,omitempty" default:"4789"`
	VXLANVNI                       *int      `json:"vxlanVNI,omitempty" default:"4096"`
	AllowVXLANPacketsFromWorkloads *bool     `json:"allowVXLANPacketsFromWorkloads,omitempty" default:"false"`
	AllowIPIPPacketsFromWorkloads  *bool     `json:"allowIPIPPacketsFromWorkloads,omitempty" default:"false"`
	WireguardEnabled               *bool     `json:"wireguardEnabled,omitempty" default:"false"`
	WireguardEnabledV6             *bool     `json:"wireguardEnabledV6,omitempty" default:"false"`
	WireguardListeningPort         *int      `json:"wireguardListeningPort,omitempty" default:"51820"`
	WireguardListeningPortV6       *int      `json:"wireguardListeningPortV6,omitempty" default:"51821"`
	WireguardRoutingRulePriority   *int      `json:"wireguardRoutingRulePriority,omitempty" default:"99"`
	WireguardInterfaceName         string    `json:"wireguardInterfaceName,omitempty" default:"wireguard.cali"`
	WireguardInterfaceNameV6       string    `json:"wireguardInterfaceNameV6,omitempty" default:"wg-v6.cali"`
	WireguardMTU                   *int      `json:"wireguardMTU,omitempty" default:"0 (found out)"`
	WireguardMTUV6                 *int      `json:"wireguardMTUV6,omitempty" default:"0 (found out)"`
	WireguardHostEncryptionEnabled *bool     `json:"wireguardHostEncryptionEnabled,omitempty" default:"false"`
	WireguardPersistentKeepAlive   *Duration `json:"wireguardKeepAlive,omitempty" default:"0s"`
	WireguardThreadingEnabled      *bool     `json:"wireguardThreadingEnabled,omitempty" default:"false"`

	// Packet filter and policy.
	IptablesBackend                    *string      `json:"iptablesBackend,omitempty" default:"Auto"`
	NFTablesMode                       *string      `json:"nftablesMode,omitempty" default:"Auto"`
	NFTablesFlowTableOffload           *string      `json:"nftablesFlowTableOffload,omitempty" default:"Disabled"`
	NFTablesFlowTableDataIfacePattern  string       `json:"nftablesFlowTableDataIfacePattern,omitempty"`
	ChainInsertMode                    string       `json:"chainInsertMode,omitempty" default:"Insert"`
	DefaultEndpointToHostAction        string       `json:"defaultEndpointToHostAction,omitempty" default:"Drop"`
	IptablesFilterAllowAction          string       `json:"iptablesFilterAllowAction,omitempty" default:"Accept"`
	IptablesMangleAllowAction          string       `json:"iptablesMangleAllowAction,omitempty" default:"Accept"`
	IptablesFilterDenyAction           string       `json:"iptablesFilterDenyAction,omitempty" default:"Drop"`
	NftablesFilterAllowAction          string       `json:"nftablesFilterAllowAction,omitempty" default:"Accept"`
	NftablesMangleAllowAction          string       `json:"nftablesMangleAllowAction,omitempty" default:"Accept"`
	NftablesFilterDenyAction           string       `json:"nftablesFilterDenyAction,omitempty" default:"Drop"`
	IptablesMarkMask                   *uint32      `json:"iptablesMarkMask,omitempty" default:"0xffff0000"`
	NftablesMarkMask                   *uint32      `json:"nftablesMarkMask,omitempty" default:"0xffff0000"`
	IptablesRefreshInterval            *Duration    `json:"iptablesRefreshInterval,omitempty" default:"3m0s"`
	NftablesRefreshInterval            *Duration    `json:"nftablesRefreshInterval,omitempty" default:"3m0s"`
	IptablesPostWriteCheckInterval     *Duration    `json:"iptablesPostWriteCheckInterval,omitempty" default:"5s"`
	IptablesLockProbeInterval          *Duration    `json:"iptablesLockProbeInterval,omitempty" default:"50ms"`
	IpsetsRefreshInterval              *Duration    `json:"ipsetsRefreshInterval,omitempty" default:"1m30s"`
	MaxIpsetSize                       *int         `json:"maxIpsetSize,omitempty" default:"1048576"`
	FailsafeInboundHostPorts           *[]ProtoPort `json:"failsafeInboundHostPorts,omitempty" default:"tcp 22, udp 68, tcp 179, 2379, 2380, 5473, 6443, 6666, 6667"`
	FailsafeOutboundHostPorts          *[]ProtoPort `json:"failsafeOutboundHostPorts,omitempty" default:"udp 53, udp 67, tcp 179, 2379, 2380, 5473, 6443, 6666, 6667"`
	KubeNodePortRanges                 *[]Port      `json:"kubeNodePortRanges,omitempty" default:"[30000:32767]"`
	DisableConntrackInvalidCheck       *bool        `json:"disableConntrackInvalidCheck,omitempty" default:"false"`
	LogPrefix                          string       `json:"logPrefix,omitempty" default:"calico-packet"`
	LogActionRateLimit                 *string      `json:"logActionRateLimit,omitempty"`
	LogActionRateLimitBurst            *int         `json:"logActionRateLimitBurst,omitempty" default:"5"`
	WorkloadSourceSpoofing             string       `json:"workloadSourceSpoofing,omitempty" default:"Disabled"`
	ServiceLoopPrevention              string       `json:"serviceLoopPrevention,omitempty" default:"Drop"`
	NATOutgoingAddress                 string       `json:"natOutgoingAddress,omitempty"`
	NATPortRange                       *Port        `json:"natPortRange,omitempty"`
	NATOutgoingExclusions              *string      `json:"natOutgoingExclusions,omitempty" default:"IPPoolsOnly"`
	IptablesNATOutgoingInterfaceFilter string       `json:"iptablesNATOutgoingInterfaceFilter,omitempty"`
	XDPEnabled                         *bool        `json:"xdpEnabled,omitempty" default:"true"`
	GenericXDPEnabled                  *bool        `json:"genericXDPEnabled,omitempty" default:"false"`
	XDPRefreshInterval                 *Duration    `json:"xdpRefreshInterval,omitempty" default:"1m30s"`
	SidecarAccelerationEnabled         *bool        `json:"sidecarAccelerationEnabled,omitempty" default:"false"`
	MetadataAddr                       string       `json:"metadataAddr,omitempty" default:"127.0.0.1"`
	MetadataPort                       *int         `json:"metadataPort,omitempty" default:"8775"`
	OpenstackRegion                    string       `json:"openstackRegion,omitempty"`
	WindowsManageFirewallRules         *string      `json:"windowsManageFirewallRules,omitempty" default:"Disabled"`
	IstioAmbientMode                   *string      `json:"istioAmbientMode,omitempty" default:"Disabled"`
	IstioDSCPMark                      *IntOrString `json:"istioDSCPMark,omitempty" default:"23"`

	// eBPF.
	BPFEnabled                         *bool              `json:"bpfEnabled,omitempty" default:"false"`
	BPFDataIfacePattern                string             `json:"bpfDataIfacePattern,omitempty" default:"^((en|wl|ww|sl|ib)[Popsx].*|(eth|wlan|wwan|bond).*)"`
	BPFL3IfacePattern                  string             `json:"bpfL3IfacePattern,omitempty"`
	BPFConnectTimeLoadBalancingEnabled *bool              `json:"bpfConnectTimeLoadBalancingEnabled,omitempty"` // deprecated
	BPFConnectTimeLoadBalancing        *string            `json:"bpfConnectTimeLoadBalancing,omitempty" default:"TCP"`
	BPFHostNetworkedNATWithoutCTLB     *string            `json:"bpfHostNetworkedNATWithoutCTLB,omitempty" default:"Enabled"`
	BPFExternalServiceMode             string             `json:"bpfExternalServiceMode,omitempty" default:"Tunnel"`
	BPFDSROptoutCIDRs                  *[]string          `json:"bpfDSROptoutCIDRs,omitempty"`
	BPFExtToServiceConnmark            *uint32            `json:"bpfExtToServiceConnmark,omitempty" default:"0"`
	BPFKubeProxyIptablesCleanupEnabled *bool              `json:"bpfKubeProxyIptablesCleanupEnabled,omitempty" default:"true"`
	BPFKubeProxyMinSyncPeriod          *Duration          `json:"bpfKubeProxyMinSyncPeriod,omitempty" default:"1s"`
	BPFKubeProxyHealthzPort            *int               `json:"bpfKubeProxyHealthzPort,omitempty" default:"10256"`
	BPFPSNATPorts                      *Port              `json:"bpfPSNATPorts,omitempty" default:"20000:29999"`
	BPFMapSizeNATFrontend              *int               `json:"bpfMapSizeNATFrontend,omitempty" default:"65536"`
	BPFMapSizeNATBackend               *int               `json:"bpfMapSizeNATBackend,omitempty" default:"262144"`
	BPFMapSizeNATAffinity              *int               `json:"bpfMapSizeNATAffinity,omitempty" default:"65536"`
	BPFMapSizeRoute                    *int               `json:"bpfMapSizeRoute,omitempty" default:"262144"`
	BPFMapSizeConntrack                *int               `json:"bpfMapSizeConntrack,omitempty" default:"512000"`
	BPFMapSizePerCPUConntrack          *int               `json:"bpfMapSizePerCpuConntrack,omitempty" default:"0"`
	BPFMapSizeConntrackCleanupQueue    *int               `json:"bpfMapSizeConntrackCleanupQueue,omitempty" default:"100000"`
	BPFMapSizeIPSets                   *int               `json:"bpfMapSizeIPSets,omitempty" default:"1048576"`
	BPFMapSizeIfState                  *int               `json:"bpfMapSizeIfState,omitempty" default:"1000"`
	BPFMapSizeConntrackScaling         string             `json:"bpfMapSizeConntrackScaling,omitempty" default:"DoubleIfFull"`
	BPFConntrackTimeouts               *ConntrackTimeouts `json:"bpfConntrackTimeouts,omitempty"`
	BPFConntrackMode                   *string            `json:"bpfConntrackMode,omitempty" default:"Auto"`
	BPFHostConntrackBypass             *bool              `json:"bpfHostConntrackBypass,omitempty" default:"false"`
	BPFEnforceRPF                      string             `json:"bpfEnforceRPF,omitempty" default:"Loose"`
	BPFLogLevel                        string             `json:"bpfLogLevel" default:"Off"` // written even when empty, as Calico writes it
	BPFConntrackLogLevel               string             `json:"bpfConntrackLogLevel,omitempty" default:"Off"`
	BPFLogFilters                      map[string]string  `json:"bpfLogFilters,omitempty"`
	BPFCTLBLogFilter                   string             `json:"bpfCTLBLogFilter,omitempty"`
	BPFPolicyDebugEnabled              *bool              `json:"bpfPolicyDebugEnabled,omitempty" default:"true"`
	BPFProfiling                       string             `json:"bpfProfiling,omitempty" default:"Disabled"`
	BPFForceTrackPacketsFromIfaces     *[]string          `json:"bpfForceTrackPacketsFromIfaces,omitempty" default:"[docker+]"`
	BPFDisableUnprivileged             *bool              `json:"bpfDisableUnprivileged,omitempty" default:"true"`
	BPFJITHardening                    *string            `json:"bpfJITHardening,omitempty" default:"Auto"`
	BPFAttachType                      *string            `json:"bpfAttachType,omitempty" default:"Netkit"`
	BPFRedirectToPeer                  string             `json:"bpfRedirectToPeer,omitempty" default:"Enabled"`
	BPFOverlayHostSourceIP             *string            `json:"bpfOverlayHostSourceIP,omitempty" default:"TunnelAddress"`
	BPFExcludeCIDRsFromNAT             *[]string          `json:"bpfExcludeCIDRsFromNAT,omitempty"`
	BPFDisableGROForIfaces             string             `json:"bpfDisableGROForIfaces,omitempty"`
	BPFExportBufferSizeMB              *int               `json:"bpfExportBufferSizeMB,omitempty" default:"1"`
	BPFIPFragTimeout                   *Duration          `json:"bpfIPFragTimeout,omitempty" default:"the kernel's ipfrag_time"`
	BPFIPFragmentReassemblyEnabled     *bool              `json:"bpfIPFragmentReassemblyEnabled,omitempty" default:"true"`
	BPFMaglevMaxEndpointsPerService    *int               `json:"bpfMaglevMaxEndpointsPerService,omitempty" default:"100"`
	BPFMaglevMaxServices               *int               `json:"bpfMaglevMaxServices,omitempty" default:"100"`
}

// HealthTimeoutOverride gives a part of the agent more or less time before it
// counts as stuck.
type HealthTimeoutOverride struct {
	Name    string   `json:"name"`
	Timeout Duration `json:"timeout"`
}

// RouteTableRange is a range of kernel routing tables, both ends in it.
type RouteTableRange struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// ProtoPort is a port that stays open whatever policy says.
type ProtoPort struct {
	Net      string `json:"net,omitempty"` // CIDR of the far end, "" for any
	Protocol string `json:"protocol"`      // TCP, UDP, SCTP
	Port     uint16 `json:"port"`
}

// ConntrackTimeouts are durations, or Auto for the kernel's own.
type ConntrackTimeouts struct {
	CreationGracePeriod *string `json:"creationGracePeriod,omitempty" default:"10s"`
	TCPSynSent          *string `json:"tcpSynSent,omitempty" default:"20s"`
	TCPEstablished      *string `json:"tcpEstablished,omitempty" default:"1h"`
	TCPFinsSeen         *string `json:"tcpFinsSeen,omitempty" default:"Auto"`
	TCPResetSeen        *string `json:"tcpResetSeen,omitempty" default:"40s"`
	UDPTimeout          *string `json:"udpTimeout,omitempty" default:"60s"`
	GenericTimeout      *string `json:"genericTimeout,omitempty" default:"10m"`
	ICMPTimeout         *string `json:"icmpTimeout,omitempty" default:"5s"`
}
