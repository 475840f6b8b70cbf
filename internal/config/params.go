package config

import (
	"log/slog"
	"regexp"
	"time"
)

// Param is one parameter: one row of the table below and of the reference.
type Param struct {
	Name    string   // as FelixConfiguration spells it; our own in the same style
	Default string   // as text; "" is the zero value
	Rule    string   // what is allowed, for people
	Env     []string // further names in the environment, beside FELIX_NAME and BRINDLE_NAME
	Local   bool     // cannot stand in a FelixConfiguration
	Fatal   bool     // a bad value stops the agent instead of giving way to the default
	Live    bool     // takes effect while the agent goes on as it is
	Doc     string
	Why     string // why one default cannot be right for all
	set     func(*Agent, string) error
}

// Params is every parameter that is honoured, in the order of the reference.
func Params() []Param {
	var all []Param
	for _, part := range [][]Param{processParams(), listenParams(), networkParams(), policyParams(), offloadParams(), overlayParams(), probeParams(), startupParams(), poolParams()} {
		all = append(all, part...)
	}
	return all
}

func processParams() []Param {
	return []Param{
		{Name: "nodename", Env: []string{"NODENAME", "FELIX_FELIXHOSTNAME"}, Local: true, Fatal: true,
			Rule: "a name of lower-case letters, digits, - and .",
			Doc:  "Name of this host's Node. Empty: the host's own name in lower case.",
			Why:  "Some installations name nodes after something else than the host.",
			set:  text(func(a *Agent) *string { return &a.Node }, nodeName)},
		{Name: "logSeverityScreen", Default: "Info", Live: true, Rule: "Trace, Debug, Info, Warning, Error or Fatal",
			Doc: "Least severity of the lines that are logged.",
			Why: "Looking for a fault takes more lines than a disk should hold for ever.",
			set: level(func(a *Agent) *slog.Level { return &a.LogLevel })},
		{Name: "socket", Default: "/run/brindle/agent.sock", Rule: "an absolute path", Local: true, Fatal: true,
			Doc: "Where the agent listens for the CNI plugin and the command line. For root only.",
			Why: "Several agents run on one machine in the lab.",
			set: text(func(a *Agent) *string { return &a.Paths.Socket }, absolute)},
		{Name: "stateDir", Default: "/var/lib/brindle", Rule: "an absolute path", Local: true, Fatal: true,
			Doc: "Where the agent keeps what must survive a reboot.",
			Why: "Several agents run on one machine in the lab.",
			set: text(func(a *Agent) *string { return &a.Paths.StateDir }, absolute)},
	}
}

func listenParams() []Param {
	const beyond = "Empty means all addresses. Calico's agent listens on all by default; ours on loopback until told otherwise."
	return []Param{
		{Name: "healthEnabled", Live: true, Default: "true", Rule: "true or false",
			Doc: "Serve /healthz and /readyz (and Calico's /liveness and /readiness). Calico's default is false; on loopback it harms nobody.",
			Why: "The port may be taken.",
			set: boolean(func(a *Agent) *bool { return &a.Health.Enabled })},
		{Name: "healthHost", Live: true, Default: "localhost", Rule: "an address or a host name",
			Doc: "Where health is served.", Why: "A probe may come from elsewhere.",
			set: text(func(a *Agent) *string { return &a.Health.Host }, nil)},
		{Name: "healthPort", Live: true, Default: "9099", Rule: "0 to 65535",
			Doc: "Port on which health is served.", Why: "The port may be taken.",
			set: integer(func(a *Agent) *int { return &a.Health.Port }, 0, 65535)},
		{Name: "prometheusMetricsEnabled", Live: true, Default: "true", Rule: "true or false",
			Doc: "Serve /metrics. Calico's default is false; on loopback it harms nobody.",
			Why: "The port may be taken.",
			set: boolean(func(a *Agent) *bool { return &a.Metrics.Enabled })},
		{Name: "prometheusMetricsHost", Live: true, Default: "localhost", Rule: "an address or a host name",
			Doc: "Where metrics are served. " + beyond, Why: "The collector may be elsewhere.",
			set: text(func(a *Agent) *string { return &a.Metrics.Host }, nil)},
		{Name: "prometheusMetricsPort", Live: true, Default: "9091", Rule: "0 to 65535",
			Doc: "Port on which metrics are served.", Why: "The port may be taken.",
			set: integer(func(a *Agent) *int { return &a.Metrics.Port }, 0, 65535)},
		{Name: "prometheusGoMetricsEnabled", Live: true, Default: "true", Rule: "true or false",
			Doc: "Include the metrics of the Go runtime.", Why: "They cost space in a large collector.",
			set: boolean(func(a *Agent) *bool { return &a.Metrics.Go })},
		{Name: "prometheusProcessMetricsEnabled", Live: true, Default: "true", Rule: "true or false",
			Doc: "Include the metrics of the process.", Why: "They cost space in a large collector.",
			set: boolean(func(a *Agent) *bool { return &a.Metrics.Process })},
	}
}

func networkParams() []Param {
	return []Param{
		{Name: "interfacePrefix", Default: "cali", Rule: "interface name prefixes of up to 11 characters, separated by commas", Fatal: true,
			Doc: "How names of workload interfaces begin. The first names those that we make.",
			Why: "An orchestrator may name them itself (OpenStack: tap).",
			set: prefixes(func(a *Agent) *[]string { return &a.Interfaces.Prefixes })},
		{Name: "mtuIfacePattern", Live: true, Default: `^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)`, Rule: "a regular expression",
			Doc: "Links whose smallest MTU bounds that of workloads.",
			Why: "Hosts name the links to their network in many ways.",
			set: pattern(func(a *Agent) **regexp.Regexp { return &a.Interfaces.MTUPattern })},
		{Name: "interfaceRefreshInterval", Live: true, Default: "90s", Rule: "a duration; 0 switches it off",
			Doc: "Most time between two read-backs of links, beside events.",
			Why: "It trades CPU for the time a lost event is noticed in.",
			set: duration(func(a *Agent) *time.Duration { return &a.Interfaces.Refresh })},
		{Name: "routeRefreshInterval", Live: true, Default: "90s", Rule: "a duration; 0 switches it off",
			Doc: "Most time between two read-backs of routes, beside events.",
			Why: "It trades CPU for the time a lost event is noticed in.",
			set: duration(func(a *Agent) *time.Duration { return &a.Routes.Refresh })},
		{Name: "ipv6Support", Default: "true", Rule: "true or false",
			Doc: "Care for IPv6: routes, sessions, forwarding.", Why: "A host may have IPv6 switched off.",
			set: boolean(func(a *Agent) *bool { return &a.IPv6 })},
		{Name: "ipForwarding", Live: true, Default: "Enabled", Rule: "Enabled or Disabled",
			Doc: "Switch on forwarding in the kernel. Disabled leaves it alone.",
			Why: "An administrator may govern it, or workloads may only be reached from their own host.",
			set: switched(func(a *Agent) *bool { return &a.Forwarding })},
		{Name: "ipv4NormalRoutePriority", Default: "1024", Rule: "1 to 2147483646",
			Doc: "Metric of our IPv4 routes. Must be the same in BGPConfiguration.",
			Why: "Other routes of the host may need to come before or after.",
			set: integer(func(a *Agent) *int { return &a.Routes.Priority4 }, 1, 2147483646)},
		{Name: "ipv6NormalRoutePriority", Default: "1024", Rule: "1 to 2147483646",
			Doc: "Metric of our IPv6 routes. Must be the same in BGPConfiguration.",
			Why: "Other routes of the host may need to come before or after.",
			set: integer(func(a *Agent) *int { return &a.Routes.Priority6 }, 1, 2147483646)},
	}
}

func startupParams() []Param {
	const methods = "first-found, can-reach=ADDRESS, interface=REGEX,…, skip-interface=REGEX,…, cidr=CIDR,… or kubernetes-internal-ip"
	return []Param{
		{Name: "ip", Env: []string{"IP"}, Local: true, Rule: "an address with or without length, autodetect, none or empty", Fatal: true,
			Doc: "IPv4 address of this host. Empty: what its Node says, else detected.",
			Why: "A host has several addresses.",
			set: text(func(a *Agent) *string { return &a.Startup.IP }, hostAddress(4))},
		{Name: "ip6", Env: []string{"IP6"}, Local: true, Rule: "an address with or without length, autodetect, none or empty", Fatal: true,
			Doc: "IPv6 address of this host. Empty: what its Node says.",
			Why: "A host has several addresses.",
			set: text(func(a *Agent) *string { return &a.Startup.IP6 }, hostAddress(6))},
		{Name: "ipAutodetectionMethod", Default: "first-found", Env: []string{"IP_AUTODETECTION_METHOD"}, Local: true, Fatal: true, Rule: methods,
			Doc: "How the IPv4 address is detected.", Why: "Only the administrator knows which link leads to the others.",
			set: text(func(a *Agent) *string { return &a.Startup.IPMethod }, detection)},
		{Name: "ip6AutodetectionMethod", Default: "first-found", Env: []string{"IP6_AUTODETECTION_METHOD"}, Local: true, Fatal: true, Rule: methods,
			Doc: "How the IPv6 address is detected.", Why: "Only the administrator knows which link leads to the others.",
			set: text(func(a *Agent) *string { return &a.Startup.IP6Method }, detection)},
		{Name: "autodetectPollInterval", Default: "60s", Env: []string{"AUTODETECT_POLL_INTERVAL"}, Local: true, Rule: "a duration; 0 switches it off",
			Doc: "Time between two looks at the host's address.", Why: "Addresses that are leased may change.",
			set: duration(func(a *Agent) *time.Duration { return &a.Startup.PollInterval })},
		{Name: "asNumber", Env: []string{"AS"}, Local: true, Fatal: true, Rule: "1 to 4294967295, also as high.low",
			Doc: "AS number of this host, written into its Node. Empty: what its Node says, else the cluster's.",
			Why: "A rack may have an AS of its own.",
			set: asNumber(func(a *Agent) *uint32 { return &a.Startup.AS })},
		{Name: "routerID", Env: []string{"CALICO_ROUTER_ID"}, Local: true, Fatal: true, Rule: "a dotted quad, hash or empty",
			Doc: "BGP router id. hash: derived from the node's name. Empty: the IPv4 address, else as with hash.",
			Why: "Hosts behind address translation may have equal addresses.",
			set: routerID},
		{Name: "disableNodeIPCheck", Default: "false", Env: []string{"DISABLE_NODE_IP_CHECK"}, Local: true, Rule: "true or false",
			Doc: "Start although another node has our address.", Why: "An old Node may be about to be deleted.",
			set: boolean(func(a *Agent) *bool { return &a.Startup.SkipAddressConflicts })},
		{Name: "waitForDatastoreTimeout", Default: "0", Local: true, Rule: "a duration; 0 waits for ever",
			Doc: "How long the start waits for the datastore.", Why: "A supervisor may rather see a failure.",
			set: duration(func(a *Agent) *time.Duration { return &a.Startup.WaitForDatastoreTimeout })},
	}
}

func poolParams() []Param {
	params := []Param{
		{Name: "noDefaultPools", Default: "false", Env: []string{"NO_DEFAULT_POOLS"}, Local: true, Rule: "true or false",
			Doc: "Do not make pools in a cluster that has none.", Why: "Pools may be managed elsewhere.",
			set: boolean(func(a *Agent) *bool { return &a.Startup.NoDefaultPools })},
	}
	for _, f := range []struct {
		family, size, nat string
		low, high         int
		pool              func(*Agent) *DefaultPool
	}{
		{"4", "26", "true", 20, 32, func(a *Agent) *DefaultPool { return &a.Startup.Pool4 }},
		{"6", "122", "false", 116, 128, func(a *Agent) *DefaultPool { return &a.Startup.Pool6 }},
	} {
		name, env := "ipv"+f.family+"Pool", "CALICO_IPV"+f.family+"POOL_"
		encap := "Never, Always or CrossSubnet"
		params = append(params,
			Param{Name: name + "Cidr", Env: []string{env + "CIDR"}, Local: true, Fatal: true, Rule: "a network, none or empty",
				Doc: "Network of the default IPv" + f.family + " pool. Empty: chosen so that it overlaps nothing here. none: no pool.",
				Why: "Only the administrator knows what is free.",
				set: text(func(a *Agent) *string { return &f.pool(a).CIDR }, network)},
			Param{Name: name + "BlockSize", Default: f.size, Env: []string{env + "BLOCK_SIZE"}, Local: true, Rule: "a prefix length",
				Doc: "Block size of the default IPv" + f.family + " pool.", Why: "Small clusters of large hosts want large blocks.",
				set: integer(func(a *Agent) *int { return &f.pool(a).BlockSize }, f.low, f.high)},
			Param{Name: name + "Vxlan", Default: "Never", Env: []string{env + "VXLAN"}, Local: true, Rule: encap,
				Doc: "VXLAN for the default IPv" + f.family + " pool.", Why: "Some networks route no addresses of workloads.",
				set: encapMode(func(a *Agent) *string { return &f.pool(a).VXLAN })},
			Param{Name: name + "NatOutgoing", Default: f.nat, Env: []string{env + "NAT_OUTGOING"}, Local: true, Rule: "true or false",
				Doc: "natOutgoing of the default IPv" + f.family + " pool.", Why: "The network outside may know the way back.",
				set: boolean(func(a *Agent) *bool { return &f.pool(a).NATOutgoing })},
			Param{Name: name + "DisableBgpExport", Default: "false", Env: []string{env + "DISABLE_BGP_EXPORT"}, Local: true, Rule: "true or false",
				Doc: "disableBGPExport of the default IPv" + f.family + " pool.", Why: "Peers may not be meant to know it.",
				set: boolean(func(a *Agent) *bool { return &f.pool(a).DisableBGPExport })},
			Param{Name: name + "NodeSelector", Default: "all()", Env: []string{env + "NODE_SELECTOR"}, Local: true, Fatal: true, Rule: "a selector",
				Doc: "nodeSelector of the default IPv" + f.family + " pool.", Why: "Not every host may serve it.",
				set: text(func(a *Agent) *string { return &f.pool(a).NodeSelector }, isSelector)})
	}
	return append(params, Param{Name: "ipv4PoolIpip", Default: "Never", Env: []string{"CALICO_IPV4POOL_IPIP"}, Local: true,
		Rule: "Never, Always or CrossSubnet", Doc: "IP in IP for the default IPv4 pool. Calico's default is Always.",
		Why: "Some networks route no addresses of workloads.",
		set: encapMode(func(a *Agent) *string { return &a.Startup.Pool4.IPIP })})
}
