package v3

import (
	"reflect"
	"strings"
	"testing"
)

func TestValidateFelix(t *testing.T) {
	const kind = "FelixConfiguration"
	run(t, []verdict{
		{"nothing", kind, "name: default", "", ""},
		{"any case", kind, "", "logSeverityScreen: INFO, logSeverityFile: trace, defaultEndpointToHostAction: RETURN, iptablesFilterAllowAction: accept, iptablesFilterDenyAction: reject, chainInsertMode: append, iptablesBackend: nft, routeSource: workloadips, workloadSourceSpoofing: any, serviceLoopPrevention: drop, bpfEnforceRPF: strict, bpfExternalServiceMode: dsr, bpfLogLevel: debug, bpfMapSizeConntrackScaling: doubleiffull", ""},
		{"empty is not set", kind, "", "logSeverityScreen: '', chainInsertMode: '', logPrefix: '', prometheusMetricsHost: '', interfacePrefix: '', bpfDataIfacePattern: '', natOutgoingAddress: ''", ""},
		{"exact words", kind, "", "programClusterRoutes: EnabledIPIPOnly, ipForwarding: Enabled, bpfConntrackLogLevel: Debug, bpfRedirectToPeer: Disabled, bpfProfiling: Enabled, flowLogsLocalReporter: Enabled, bpfConntrackMode: BPFProgram, bpfAttachType: TCX, bpfConnectTimeLoadBalancing: TCP, bpfJITHardening: Strict, bpfOverlayHostSourceIP: HostAddress, awsSrcDstCheck: Disable, natOutgoingExclusions: IPPoolsAndHostIPs, prometheusMetricsClientAuth: VerifyClientCertIfGiven, floatingIPs: Enabled, nftablesMode: Enabled, flowLogsPolicyEvaluationMode: None, localSubnetL2Reachability: PodsAndLoadBalancers", ""},
		{"log level", kind, "", "logSeveritySys: Warn", `spec.logSeveritySys: "Warn": must be one of Trace, Debug, Info, Warning, Error, Fatal`},
		{"exact words in another case", kind, "", "bpfAttachType: tcx, awsSrcDstCheck: disable, programClusterRoutes: enabled", "spec.programClusterRoutes: \"enabled\": must be one of Enabled, Disabled, EnabledIPIPOnly, EnabledNoEncapOnly (did you mean Enabled?)\nspec.awsSrcDstCheck: \"disable\": must be one of DoNothing, Enable, Disable (did you mean Disable?)\nspec.bpfAttachType: \"tcx\": must be one of TC, TCX, Netkit (did you mean TCX?)"},
		{"actions", kind, "", "defaultEndpointToHostAction: Deny, nftablesFilterDenyAction: Drpo, iptablesMangleAllowAction: Drop", "spec.defaultEndpointToHostAction: \"Deny\": must be one of Drop, Accept, Return\nspec.iptablesMangleAllowAction: \"Drop\": must be one of Accept, Return\nspec.nftablesFilterDenyAction: \"Drpo\": must be one of Drop, Reject (did you mean Drop?)"},
		{"log prefix", kind, "", `logPrefix: "a%t: b_/-"`, ""},
		{"bad log prefix", kind, "", `logPrefix: "a(b"`, `spec.logPrefix: "a(b": must be letters, digits`},
		{"log rate", kind, "", "logActionRateLimit: 9999/second, logActionRateLimitBurst: 9999", ""},
		{"bad log rate", kind, "", "logActionRateLimit: 0/second, logActionRateLimitBurst: 10000", "spec.logActionRateLimit: \"0/second\": must be\nspec.logActionRateLimitBurst: \"10000\": must be from 0 to 9999"},
		{"lists of switches", kind, "", "featureDetectOverride: 'A=true,B=false', featureGates: 'A=x,B=y'", ""},
		{"bad lists of switches", kind, "", "featureDetectOverride: 'A=maybe', featureGates: 'A'", "spec.featureDetectOverride: \"A=maybe\": must be a list\nspec.featureGates: \"A\": must be a list"},
		{"ports", kind, "", "wireguardListeningPort: 0, wireguardListeningPortV6: 65536, debugPort: 65536, bpfKubeProxyHealthzPort: -1, wireguardRoutingRulePriority: 32766, vxlanVNI: 16777216", "spec.debugPort: \"65536\": must be from 0\nspec.vxlanVNI: \"16777216\": must\nspec.wireguardListeningPort: \"0\": must be from 1\nspec.wireguardListeningPortV6: \"65536\": must be from 1\nspec.wireguardRoutingRulePriority: \"32766\": must be from 1 to 32765\nspec.bpfKubeProxyHealthzPort: \"-1\": must be from 0 to 65535"},
		{"highest ports", kind, "", "wireguardListeningPort: 65535, debugPort: 0, wireguardRoutingRulePriority: 32765, bpfKubeProxyHealthzPort: 0", ""},
		{"names", kind, "", "wireguardInterfaceName: wg0, interfacePrefix: 'cali,tap', interfaceExclude: 'kube-ipvs0,/^veth.*/'", ""},
		{"bad names", kind, "", "wireguardInterfaceName: 0123456789abcdef, interfacePrefix: 'cali,,', interfaceExclude: '/(/,a b'", "spec.interfacePrefix: \"cali,,\": must\nspec.interfaceExclude: \"(\": must be a regular expression\nspec.interfaceExclude: \"a b\": must be a list of interface names\nspec.wireguardInterfaceName: \"0123456789abcdef\": must be an interface name"},
		{"priorities", kind, "", "ipv4NormalRoutePriority: 0, ipv6ElevatedRoutePriority: 2147483647", "spec.ipv4NormalRoutePriority: \"0\": must be from 1 to 2147483646\nspec.ipv6ElevatedRoutePriority: \"2147483647\": must"},
		{"addresses", kind, "", "natOutgoingAddress: 192.0.2.1, deviceRouteSourceAddress: 192.0.2.1, deviceRouteSourceAddressIPv6: 'fd00::1'", ""},
		{"bad addresses", kind, "", "natOutgoingAddress: 'fd00::1', deviceRouteSourceAddressIPv6: 192.0.2.1", "spec.deviceRouteSourceAddressIPv6: \"192.0.2.1\": must be an IPv6 address\nspec.natOutgoingAddress: \"fd00::1\": must be an IPv4 address"},
		{"table range", kind, "", "routeTableRange: {min: 1, max: 250}", ""},
		{"bad table range", kind, "", "routeTableRange: {min: 0, max: 251}", `spec.routeTableRange: "0 to 251": must have 1 ≤ min ≤ max ≤ 250`},
		{"table ranges", kind, "", "routeTableRanges: [{min: 1, max: 250}, {min: 4294900000, max: 4294967295}]", `spec.routeTableRanges: "67546 tables": must have at most 65535`},
		{"bad table ranges", kind, "", "routeTableRanges: [{min: 5, max: 4}], routeTableRange: {min: 1, max: 2}", "spec.routeTableRange: must not be set beside routeTableRanges\nspec.routeTableRanges[0]: \"5 to 4\": must have 1 ≤ min ≤ max"},
		{"node ports", kind, "", "kubeNodePortRanges: ['30000:32767', 80]", ""},
		{"bad node ports", kind, "", "kubeNodePortRanges: [http, 0, 1, 2, 3, 4, 5, 6]", "spec.kubeNodePortRanges: \"8 entries\": must have at most 7\nspec.kubeNodePortRanges[0]: \"http\": must be a port number\nspec.kubeNodePortRanges[1]: \"0\": must be"},
		{"port ranges", kind, "", "natPortRange: '1024:65535', bpfPSNATPorts: '20000:29999'", ""},
		{"bad port ranges", kind, "", "natPortRange: a, bpfPSNATPorts: 0", "spec.natPortRange: \"a\": must\nspec.bpfPSNATPorts: \"0\": must"},
		{"Maglev", kind, "", "bpfMaglevMaxEndpointsPerService: 3001, bpfMaglevMaxServices: 0", "spec.bpfMaglevMaxEndpointsPerService: \"3001\": must be from 1 to 3000\nspec.bpfMaglevMaxServices: \"0\": must be from 1 to 3000"},
		{"Go", kind, "", "goGCThreshold: -2, goMemoryLimitMB: -1, goMaxProcs: -2", "spec.goGCThreshold: \"-2\": must be from -1\nspec.goMaxProcs: \"-2\": must be from -1"},
		{"patterns", kind, "", "bpfDataIfacePattern: '^eth.*', mtuIfacePattern: '(', logDebugFilenameRegex: '['", "spec.logDebugFilenameRegex: \"[\": must be a regular expression\nspec.mtuIfacePattern: \"(\": must be a regular expression"},
		{"CIDRs", kind, "", "externalNodesList: [10.0.0.0/8, 192.0.2.1], bpfDSROptoutCIDRs: [], bpfExcludeCIDRsFromNAT: ['fd00::/8']", ""},
		{"bad CIDRs", kind, "", "externalNodesList: [x], bpfDSROptoutCIDRs: [z], bpfExcludeCIDRsFromNAT: [10.0.0.0/33]", "spec.externalNodesList[0]: \"x\"\nspec.bpfDSROptoutCIDRs[0]: \"z\"\nspec.bpfExcludeCIDRsFromNAT[0]: \"10.0.0.0/33\""},
		{"failsafes", kind, "", "failsafeInboundHostPorts: [{protocol: TCP, port: 22}, {protocol: UDP, port: 68, net: 10.0.0.0/8}], failsafeOutboundHostPorts: []", ""},
		{"bad failsafes", kind, "", "failsafeInboundHostPorts: [{protocol: tcp, port: 22}, {port: 0, net: x}]", "spec.failsafeInboundHostPorts[0].protocol: \"tcp\": must be one of TCP, UDP, SCTP (did you mean TCP?)\nspec.failsafeInboundHostPorts[1].net: \"x\": must\nspec.failsafeInboundHostPorts[1].protocol: must be one of\nspec.failsafeInboundHostPorts[1].port: \"0\": must"},
		{"metrics host", kind, "", "prometheusMetricsHost: 'fd00::1'", ""},
		{"metrics host by name", kind, "", "prometheusMetricsHost: Node-1.example.com", ""},
		{"bad metrics host", kind, "", "prometheusMetricsHost: 'a b'", `spec.prometheusMetricsHost: "a b": must be an IP address or a host name`},
		{"timeouts", kind, "", "bpfConntrackTimeouts: {tcpSynSent: 20s, tcpFinsSeen: Auto}, healthTimeoutOverrides: [{name: a, timeout: 5s}]", ""},
		{"bad timeouts", kind, "", "bpfConntrackTimeouts: {tcpSynSent: '20', udpTimeout: auto}, healthTimeoutOverrides: [{timeout: 5s}]", "spec.healthTimeoutOverrides[0].name: must be set\nspec.bpfConntrackTimeouts.tcpSynSent: \"20\": must be Auto, or a duration\nspec.bpfConntrackTimeouts.udpTimeout: \"auto\": must"},
		{"DSCP", kind, "", "istioDSCPMark: 23", ""},
		{"DSCP by name", kind, "", "istioDSCPMark: cs7", ""},
		{"bad DSCP", kind, "", "istioDSCPMark: 64", `spec.istioDSCPMark: "64": must be a number from 0 to 63`},
		{"selected nodes", kind, "name: rack1", "nodeSelector: rack == 'r1'", ""},
		{"selected nodes of all", kind, "name: default", "nodeSelector: all()", `spec.nodeSelector: "all()": must not be set on the object default`},
		{"selected nodes of one", kind, "name: node.n1", "nodeSelector: all()", `spec.nodeSelector: "all()": must not be set on the object node.n1`},
		{"bad selector", kind, "name: rack1", "nodeSelector: rack", `spec.nodeSelector: "rack": must be a selector`},
		{"long selector", kind, "name: rack1", "nodeSelector: has(" + strings.Repeat("a", 1020) + ")", `spec.nodeSelector: "1025 bytes"`},
	})
}

// TestFelixRulesNameFields catches a rule whose field is spelt wrongly, which
// would never apply, or is of a type that it cannot read.
func TestFelixRulesNameFields(t *testing.T) {
	readable := map[string]bool{}
	for _, f := range fieldsOf(reflect.TypeFor[FelixConfigurationSpec]()) {
		typ := f.typ
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		switch typ.Kind() {
		case reflect.String, reflect.Int, reflect.Uint32:
			readable[f.name] = true
		}
	}
	for name := range felixRules {
		if !readable[name] {
			t.Errorf("there is no text or number %s in FelixConfiguration", name)
		}
	}
}

// TestFelixRulesAreExact holds each rule on words to its documented spelling:
// the defaults of the fields, which the types name, must be among them.
func TestFelixRulesAreExact(t *testing.T) {
	for _, f := range fieldsOf(reflect.TypeFor[FelixConfigurationSpec]()) {
		rule, ok := felixRules[f.name]
		value := f.tag.Get("default")
		if !ok || value == "" || strings.ContainsAny(value, " ") || value == "off" {
			continue
		}
		c := &checker{}
		rule(c, f.name, value)
		if c.errs != nil {
			t.Errorf("the default: %v", c.errs)
		}
	}
}

func TestValidateControllers(t *testing.T) {
	const kind = "KubeControllersConfiguration"
	run(t, []verdict{
		{"nothing", kind, "", "", ""},
		{"all of it", kind, "", "logSeverityScreen: none, healthChecks: Disabled, etcdV3CompactionPeriod: 0s, prometheusMetricsPort: 0, debugProfilePort: 6060, controllers: {node: {reconcilerPeriod: 5m, syncLabels: Enabled, leakGracePeriod: 0s, hostEndpoint: {autoCreate: Enabled, createDefaultHostEndpoint: Disabled, templates: [{generateName: a, interfaceCIDRs: [10.0.0.0/8], labels: {a: b}, annotations: {a: b}, nodeSelector: has(a)}, {interfacePattern: '^eth.*'}]}}, loadBalancer: {assignIPs: RequestedServicesOnly}, migration: {policyNameMigrator: Disabled}, policy: {}}", ""},
		{"bad words", kind, "", "logSeverityScreen: Trace, healthChecks: 'yes', controllers: {node: {syncLabels: enabled, hostEndpoint: {autoCreate: 'true', createDefaultHostEndpoint: x}}, loadBalancer: {assignIPs: All}, migration: {policyNameMigrator: z}}",
			"spec.logSeverityScreen: \"Trace\": must be one of None, Debug, Info, Warning, Error, Fatal, Panic\nspec.healthChecks: \"yes\": must be one of Enabled, Disabled\nspec.controllers.node.syncLabels: \"enabled\": must be one of Enabled, Disabled (did you mean Enabled?)\nspec.controllers.node.hostEndpoint.autoCreate: \nspec.controllers.node.hostEndpoint.createDefaultHostEndpoint: \nspec.controllers.loadBalancer.assignIPs: \"All\": must be one of AllServices, RequestedServicesOnly\nspec.controllers.migration.policyNameMigrator: "},
		{"bad ports", kind, "", "prometheusMetricsPort: 65536, debugProfilePort: -1", "spec.prometheusMetricsPort: \"65536\": must\nspec.debugProfilePort: \"-1\": must"},
		{"bad templates", kind, "", "controllers: {node: {hostEndpoint: {templates: [{generateName: A}, {interfacePattern: '(', interfaceCIDRs: [10.0.0.1/8], labels: {a: b c}, annotations: {a b: c}, nodeSelector: x}]}}}",
			"spec.controllers.node.hostEndpoint.templates[0].generateName: \"A\": must\nspec.controllers.node.hostEndpoint.templates[0]: must have interfaceCIDRs or interfacePattern\nspec.controllers.node.hostEndpoint.templates[1].interfaceCIDRs[0]: \"10.0.0.1/8\": must\nspec.controllers.node.hostEndpoint.templates[1].interfacePattern: \"(\": must be a regular\nspec.controllers.node.hostEndpoint.templates[1].labels.a: \"b c\": must\nspec.controllers.node.hostEndpoint.templates[1].annotations[\"a b\"]: \"a b\": must\nspec.controllers.node.hostEndpoint.templates[1].nodeSelector: \"x\": must"},
	})
}
