// Package config works out the settings of one host's agent from all the
// places that may say something about them: the FelixConfiguration objects of
// the cluster, a file, the environment, flags. It is a function of its inputs;
// the agent starts anew when the outcome changes.
package config

import (
	"log/slog"
	"net/netip"
	"regexp"
	"time"
)

// Agent is the outcome: what an agent does that is not in the datastore's
// other objects. Every field has its row in Params.
type Agent struct {
	Node       string // name of this host; "" means the host's own, in lower case
	LogLevel   slog.Level
	IPv6       bool // care for IPv6 at all
	Forwarding bool // switch on the forwarding sysctls
	Health     Listener
	Metrics    Metrics
	Interfaces Interfaces
	Routes     Routes
	Startup    Startup
	Policy     Policy
	Overlay    Overlay
	Probes     Probes
	Paths      Paths
}

// Listener is one HTTP listener.
type Listener struct {
	Enabled bool
	Host    string // address or name; "" means all addresses
	Port    int
}

// Metrics is what is exported in Prometheus's format, and where.
type Metrics struct {
	Listener
	Go      bool // of the Go runtime
	Process bool // of the process
}

// Interfaces tells the host's links apart.
type Interfaces struct {
	Prefixes   []string       // of workload interfaces; the first names new ones
	MTUPattern *regexp.Regexp // links whose MTU bounds that of workloads
	Refresh    time.Duration  // most time between two read-backs of links; 0: only on events
}

// Routes is how routes are written.
type Routes struct {
	Refresh   time.Duration // most time between two read-backs; 0: only on events
	Priority4 int           // metric of our IPv4 routes
	Priority6 int
}

// Startup is what the agent registers of its host.
type Startup struct {
	IP, IP6                 string // address[/length], autodetect, none or ""
	IPMethod, IP6Method     string // how to find an address, as documented for IP_AUTODETECTION_METHOD
	PollInterval            time.Duration
	AS                      uint32     // 0: the cluster's
	RouterID                netip.Addr // invalid: the IPv4 address
	RouterIDHash            bool       // derive it from the node's name
	SkipAddressConflicts    bool       // start although another node has our address
	NoDefaultPools          bool
	Pool4, Pool6            DefaultPool
	WaitForDatastoreTimeout time.Duration // 0: for ever
}

// DefaultPool is the pool made when the cluster has none.
type DefaultPool struct {
	CIDR             string // "": chosen
	BlockSize        int
	IPIP, VXLAN      string // Never, Always, CrossSubnet
	NATOutgoing      bool
	DisableBGPExport bool
	NodeSelector     string
}

// Paths are the places on disk.
type Paths struct {
	Socket   string
	StateDir string // survives a reboot
}
