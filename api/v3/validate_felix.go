package v3

import (
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// fieldRule checks the text of one field that is set.
type fieldRule func(c *checker, path, value string)

// oneOfAnyCase wants a value from a list, in any case. An empty value counts
// as not set.
func (c *checker) oneOfAnyCase(path, value string, allowed ...string) {
	if !slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, value) }) {
		oneOf(c, path, value, allowed...)
	}
}

func exactly(allowed ...string) fieldRule {
	return func(c *checker, path, value string) { oneOf(c, path, value, allowed...) }
}

func anyCase(allowed ...string) fieldRule {
	return func(c *checker, path, value string) { c.oneOfAnyCase(path, value, allowed...) }
}

func from(low, high int64) fieldRule {
	return func(c *checker, path, value string) {
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			c.between(path, n, low, high)
		}
	}
}

func form(pattern, rule string) fieldRule {
	r := regexp.MustCompile(pattern)
	return func(c *checker, path, value string) { c.match(path, value, r, rule) }
}

func addressOf(v6 bool) fieldRule {
	return func(c *checker, path, value string) { c.ofFamily(path, value, v6) }
}

// onOff are the fields that are Enabled or Disabled.
var onOff = exactly("Enabled", "Disabled")

const maxInt32 = 1<<31 - 1

// felixRules are the documented constraints on FelixConfiguration, by the
// field's name in JSON. A field that is not here may have any value of its
// type. It is only read.
var felixRules = map[string]fieldRule{
	"logSeverityScreen": anyCase(logSeverities...),
	"logSeverityFile":   anyCase(logSeverities...),
	"logSeveritySys":    anyCase(logSeverities...),

	"defaultEndpointToHostAction": anyCase("Drop", "Accept", "Return"),
	"iptablesFilterAllowAction":   anyCase("Accept", "Return"),
	"iptablesMangleAllowAction":   anyCase("Accept", "Return"),
	"nftablesFilterAllowAction":   anyCase("Accept", "Return"),
	"nftablesMangleAllowAction":   anyCase("Accept", "Return"),
	"iptablesFilterDenyAction":    anyCase("Drop", "Reject"),
	"nftablesFilterDenyAction":    anyCase("Drop", "Reject"),

	"chainInsertMode":            anyCase("Insert", "Append"),
	"iptablesBackend":            anyCase("Auto", "Legacy", "NFT"),
	"routeSource":                anyCase("CalicoIPAM", "WorkloadIPs"),
	"workloadSourceSpoofing":     anyCase("Disabled", "Any"),
	"serviceLoopPrevention":      anyCase("Drop", "Reject", "Disabled"),
	"bpfEnforceRPF":              anyCase("Disabled", "Strict", "Loose"),
	"bpfExternalServiceMode":     anyCase("Tunnel", "DSR"),
	"bpfLogLevel":                anyCase("Off", "Info", "Debug"),
	"bpfMapSizeConntrackScaling": anyCase("Disabled", "DoubleIfFull"),

	"programClusterRoutes":           exactly(programClusterRoutes...),
	"ipForwarding":                   onOff,
	"floatingIPs":                    onOff,
	"nftablesFlowTableOffload":       exactly("All", "Disabled"),
	"windowsManageFirewallRules":     onOff,
	"istioAmbientMode":               onOff,
	"bpfHostNetworkedNATWithoutCTLB": onOff,
	"bpfProfiling":                   onOff,
	"flowLogsLocalReporter":          onOff,
	"bpfRedirectToPeer":              exactly("Enabled", "Disabled", "L2Only"),
	"nftablesMode":                   exactly("Auto", "Enabled", "Disabled"),
	"flowLogsPolicyEvaluationMode":   exactly("None", "Continuous"),
	"localSubnetL2Reachability":      exactly("Disabled", "PodsAndLoadBalancers"),
	"bpfConntrackLogLevel":           exactly("Off", "Debug"),
	"bpfConntrackMode":               exactly("Auto", "Userspace", "BPFProgram"),
	"bpfAttachType":                  exactly("TC", "TCX", "Netkit"),
	"bpfConnectTimeLoadBalancing":    exactly("TCP", "Enabled", "Disabled"),
	"bpfJITHardening":                exactly("Auto", "Strict"),
	"bpfOverlayHostSourceIP":         exactly("TunnelAddress", "HostAddress"),
	"awsSrcDstCheck":                 exactly("DoNothing", "Enable", "Disable"),
	"natOutgoingExclusions":          exactly("IPPoolsOnly", "IPPoolsAndHostIPs"),
	"prometheusMetricsClientAuth": exactly("RequireAndVerifyClientCert", "RequireAnyClientCert",
		"VerifyClientCertIfGiven", "NoClientCert"),

	"logPrefix":               form(`^[a-zA-Z0-9%: /_-]*$`, "must be letters, digits, spaces and % : / _ -"),
	"logActionRateLimit":      form(`^[1-9]\d{0,3}/(second|minute|hour|day)$`, "must be a number up to 9999 and /second, /minute, /hour or /day, such as 10/second"),
	"logActionRateLimitBurst": from(0, 9999),
	"featureDetectOverride":   form(`^([a-zA-Z0-9_-]+=(true|false),)*[a-zA-Z0-9_-]+=(true|false)$`, "must be a list such as A=true,B=false"),
	"featureGates":            form(`^([a-zA-Z0-9_-]+=[^=,]+,)*[a-zA-Z0-9_-]+=[^=,]+$`, "must be a list such as A=x,B=y"),
	"interfacePrefix":         form(`^[a-zA-Z0-9_.-]{1,15}(,[a-zA-Z0-9_.-]{1,15})*$`, "must be a list of starts of interface names, such as cali,tap"),
	"interfaceExclude":        interfaceList,
	"prometheusMetricsHost":   host,

	"healthPort":                   from(0, 65535),
	"prometheusMetricsPort":        from(0, 65535),
	"debugPort":                    from(0, 65535),
	"bpfKubeProxyHealthzPort":      from(0, 65535),
	"metadataPort":                 from(0, 65535),
	"wireguardListeningPort":       from(1, 65535),
	"wireguardListeningPortV6":     from(1, 65535),
	"wireguardRoutingRulePriority": from(1, 32765),
	"wireguardInterfaceName":       interfaceName,
	"wireguardInterfaceNameV6":     interfaceName,
	"vxlanPort":                    from(1, 65535),
	"vxlanVNI":                     from(0, 1<<24-1),
	"ipipMTU":                      from(0, 65535),
	"vxlanMTU":                     from(0, 65535),
	"vxlanMTUV6":                   from(0, 65535),
	"wireguardMTU":                 from(0, 65535),
	"wireguardMTUV6":               from(0, 65535),
	"deviceRouteProtocol":          from(0, 255),
	"ipv4NormalRoutePriority":      from(1, maxPriority),
	"ipv6NormalRoutePriority":      from(1, maxPriority),
	"ipv4ElevatedRoutePriority":    from(1, maxPriority),
	"ipv6ElevatedRoutePriority":    from(1, maxPriority),
	"goGCThreshold":                from(-1, maxInt32),
	"goMemoryLimitMB":              from(-1, maxInt32),
	"goMaxProcs":                   from(-1, maxInt32),
	"maxIpsetSize":                 from(1, maxInt32),

	"bpfMaglevMaxEndpointsPerService": from(1, 3000),
	"bpfMaglevMaxServices":            from(1, 3000),
	"bpfMapSizeNATFrontend":           from(0, maxInt32),
	"bpfMapSizeNATBackend":            from(0, maxInt32),
	"bpfMapSizeNATAffinity":           from(0, maxInt32),
	"bpfMapSizeRoute":                 from(0, maxInt32),
	"bpfMapSizeConntrack":             from(0, maxInt32),
	"bpfMapSizePerCpuConntrack":       from(0, maxInt32),
	"bpfMapSizeConntrackCleanupQueue": from(0, maxInt32),
	"bpfMapSizeIPSets":                from(0, maxInt32),
	"bpfMapSizeIfState":               from(0, maxInt32),
	"bpfExportBufferSizeMB":           from(0, maxInt32),

	"natOutgoingAddress":           addressOf(false),
	"deviceRouteSourceAddress":     addressOf(false),
	"deviceRouteSourceAddressIPv6": addressOf(true),

	"bpfDataIfacePattern":               (*checker).regex,
	"bpfL3IfacePattern":                 (*checker).regex,
	"bpfDisableGROForIfaces":            (*checker).regex,
	"mtuIfacePattern":                   (*checker).regex,
	"nftablesFlowTableDataIfacePattern": (*checker).regex,
	"logDebugFilenameRegex":             (*checker).regex,
}

func interfaceName(c *checker, path, value string) {
	c.match(path, value, interfaceRegexp, ruleInterface)
}

// interfaceList is names, and regular expressions between slashes.
func interfaceList(c *checker, path, value string) {
	for item := range strings.SplitSeq(value, ",") {
		item = strings.TrimSpace(item)
		if len(item) > 1 && item[0] == '/' && item[len(item)-1] == '/' {
			c.regex(path, item[1:len(item)-1])
			continue
		}
		c.match(path, item, globRegexp, "must be a list of interface names, or of regular expressions between slashes")
	}
}

// host is an address or a name (RFC 1123).
func host(c *checker, path, value string) {
	_, err := netip.ParseAddr(value)
	c.must(err == nil || isSubdomain(strings.ToLower(value)), path, value, "must be an IP address or a host name")
}

func (c *checker) felix(name string, s *FelixConfigurationSpec) {
	if s.NodeSelector != "" && (name == DefaultName || strings.HasPrefix(name, "node.")) {
		c.wrong("spec.nodeSelector", s.NodeSelector, "must not be set on the object "+name, "give the object another name")
	}
	c.selector("spec.nodeSelector", s.NodeSelector, maxSelector)
	v := reflect.ValueOf(s).Elem()
	for _, f := range fieldsOf(v.Type()) {
		if rule, ok := felixRules[f.name]; ok {
			if text, set := plainText(v.FieldByIndex(f.index)); set {
				rule(c, "spec."+f.name, text)
			}
		}
	}
	c.felixLists(s)
	c.routeTables(s)
	if s.IstioDSCPMark != nil {
		c.dscp("spec.istioDSCPMark", *s.IstioDSCPMark)
	}
	if s.BPFConntrackTimeouts != nil {
		c.conntrackTimeouts(s.BPFConntrackTimeouts)
	}
}

// plainText returns a text or number, and whether it is set: an empty text is
// not.
func plainText(v reflect.Value) (text string, set bool) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return "", false
		}
		v = v.Elem()
	}
	switch {
	case v.Kind() == reflect.String:
		return v.String(), v.String() != ""
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10), true
	case v.CanUint():
		return strconv.FormatUint(v.Uint(), 10), true
	}
	return "", false
}

// felixLists checks the fields that hold more than one value.
func (c *checker) felixLists(s *FelixConfigurationSpec) {
	for i, o := range s.HealthTimeoutOverrides {
		c.required(indexed("spec.healthTimeoutOverrides", i)+".name", o.Name)
	}
	for _, l := range []struct {
		path  string
		cidrs *[]string
	}{
		{"spec.externalNodesList", s.ExternalNodesCIDRList},
		{"spec.bpfDSROptoutCIDRs", s.BPFDSROptoutCIDRs},
		{"spec.bpfExcludeCIDRsFromNAT", s.BPFExcludeCIDRsFromNAT},
	} {
		if l.cidrs != nil {
			c.networks(l.path, *l.cidrs)
		}
	}
	for _, l := range []struct {
		path  string
		ports *[]ProtoPort
	}{
		{"spec.failsafeInboundHostPorts", s.FailsafeInboundHostPorts},
		{"spec.failsafeOutboundHostPorts", s.FailsafeOutboundHostPorts},
	} {
		if l.ports != nil {
			c.failsafes(l.path, *l.ports)
		}
	}
	if r := s.KubeNodePortRanges; r != nil {
		c.atMost("spec.kubeNodePortRanges", len(*r), 7)
		for i, p := range *r {
			c.numericPort(indexed("spec.kubeNodePortRanges", i), p)
		}
	}
	if s.NATPortRange != nil {
		c.numericPort("spec.natPortRange", *s.NATPortRange)
	}
	if s.BPFPSNATPorts != nil {
		c.numericPort("spec.bpfPSNATPorts", *s.BPFPSNATPorts)
	}
}

func (c *checker) failsafes(path string, ports []ProtoPort) {
	for i, p := range ports {
		at := indexed(path, i)
		if p.Net != "" {
			c.network(at+".net", p.Net)
		}
		c.must(p.Protocol != "", at+".protocol", "", "must be one of TCP, UDP, SCTP")
		oneOf(c, at+".protocol", p.Protocol, ProtocolTCP, ProtocolUDP, ProtocolSCTP)
		c.between(at+".port", int64(p.Port), 1, 65535)
	}
}

func (c *checker) routeTables(s *FelixConfigurationSpec) {
	if r := s.RouteTableRange; r != nil {
		const path = "spec.routeTableRange"
		c.must(s.RouteTableRanges == nil, path, "", "must not be set beside routeTableRanges, which replaces it")
		c.must(r.Min >= 1 && r.Min <= r.Max && r.Max <= 250, path, rangeText(*r), "must have 1 ≤ min ≤ max ≤ 250")
	}
	if s.RouteTableRanges == nil {
		return
	}
	tables := int64(0)
	for i, r := range *s.RouteTableRanges {
		at := indexed("spec.routeTableRanges", i)
		good := r.Min >= 1 && r.Min <= r.Max && int64(r.Max) <= 1<<32-1
		c.must(good, at, rangeText(r), "must have 1 ≤ min ≤ max ≤ 4294967295")
		if good {
			tables += int64(r.Max) - int64(r.Min) + 1
		}
	}
	c.must(tables <= 65535, "spec.routeTableRanges", strconv.FormatInt(tables, 10)+" tables", "must have at most 65535 tables together")
}

func rangeText(r RouteTableRange) string { return strconv.Itoa(r.Min) + " to " + strconv.Itoa(r.Max) }

func (c *checker) conntrackTimeouts(t *ConntrackTimeouts) {
	v := reflect.ValueOf(t).Elem()
	for _, f := range fieldsOf(v.Type()) {
		text, set := plainText(v.FieldByIndex(f.index))
		if set && text != "Auto" && !durationRegexp.MatchString(text) {
			c.wrong("spec.bpfConntrackTimeouts."+f.name, text, `must be Auto, or a duration such as "90s" or "1h30m"`, "")
		}
	}
}
