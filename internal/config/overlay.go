package config

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
)

// Overlay is how packets travel to other hosts, and with whose address they
// leave the cluster.
type Overlay struct {
	Backend       Backend
	IPIP, VXLAN   *bool // nil: as the pools ask for
	IPIPMTU       int   // 0: from the host's
	VXLANMTU      int   // the same
	VXLANMTU6     int   // the same
	VNI           int
	Routes        string // programClusterRoutes
	NoRoutes      bool   // no routes of ours in the main table
	ExternalNodes []netip.Prefix
	NAT           NAT
}

// Backend says what takes part in routing.
type Backend string

// The backends, with Calico's names.
const (
	BackendBGP   Backend = "bird"  // a speaker
	BackendVXLAN Backend = "vxlan" // no speaker
	BackendNone  Backend = "none"  // no speaker, no addresses for tunnels, and the host needs no address
)

// NAT is how packets from pools with natOutgoing leave the cluster.
type NAT struct {
	Address             netip.Addr // IPv4; invalid: that of the interface they leave by
	FirstPort, LastPort uint16     // 0: the kernel chooses
	KeepToHosts         bool       // not where they go to hosts of the cluster
	Interface           string     // what the name of the interface must match; "": any
}

func overlayParams() []Param {
	const mtu = "0 to 65535; 0 is found out"
	return []Param{
		{Name: "bgp", Default: "on", Env: []string{"CALICO_NETWORKING_BACKEND"}, Local: true, Fatal: true,
			Rule: "on, off or none; also bird (on) and vxlan (off)",
			Doc:  "Speak BGP. With off the agent itself makes all routes. none also gives the host no addresses of tunnels, and it needs none of its own.",
			Why:  "Where every pool has VXLAN there is nothing to say to other hosts; and other software may see to routes.",
			set:  backend},
		{Name: "ipipEnabled", Live: true, Env: []string{"FELIX_IPINIPENABLED"}, Rule: "true, false or empty",
			Doc: "Take part in IP in IP. Empty: where a pool asks for it.", Why: "A host may be unable to.",
			set: maybe(func(a *Agent) **bool { return &a.Overlay.IPIP })},
		{Name: "vxlanEnabled", Live: true, Rule: "true, false or empty",
			Doc: "Take part in VXLAN. Empty: where a pool asks for it.", Why: "A host may be unable to.",
			set: maybe(func(a *Agent) **bool { return &a.Overlay.VXLAN })},
		{Name: "ipipMTU", Live: true, Env: []string{"FELIX_IPINIPMTU"}, Default: "0", Rule: mtu,
			Doc: "MTU of the interface of IP in IP. Found out: 20 less than the host's.", Why: "The path between hosts may be narrower than their links.",
			set: integer(func(a *Agent) *int { return &a.Overlay.IPIPMTU }, 0, 65535)},
		{Name: "vxlanMTU", Live: true, Default: "0", Rule: mtu,
			Doc: "MTU of the interface of VXLAN over IPv4. Found out: 50 less than the host's.", Why: "The path between hosts may be narrower than their links.",
			set: integer(func(a *Agent) *int { return &a.Overlay.VXLANMTU }, 0, 65535)},
		{Name: "vxlanMTUV6", Live: true, Default: "0", Rule: mtu,
			Doc: "MTU of the interface of VXLAN over IPv6. Found out: 70 less than the host's.", Why: "The path between hosts may be narrower than their links.",
			set: integer(func(a *Agent) *int { return &a.Overlay.VXLANMTU6 }, 0, 65535)},
		{Name: "vxlanVNI", Default: "4096", Rule: "1 to 16777215",
			Doc: "Network identifier of VXLAN. The same on all hosts.", Why: "Another VXLAN may have it.",
			set: integer(func(a *Agent) *int { return &a.Overlay.VNI }, 1, 1<<24-1)},
		{Name: "programClusterRoutes", Live: true, Default: "EnabledIPIPOnly", Rule: "Enabled, Disabled, EnabledIPIPOnly or EnabledNoEncapOnly",
			Doc: "Which routes to the workloads of other hosts the agent works out itself, beside those of pools with VXLAN. The others come by BGP.",
			Why: "Other BGP speakers may see to the routes.",
			set: choice(func(a *Agent) *string { return &a.Overlay.Routes }, "Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly")},
		{Name: "routeSyncDisabled", Default: "false", Rule: "true or false",
			Doc: "Leave routes alone.", Why: "Other software may see to all routes, and only policy be wanted.",
			set: boolean(func(a *Agent) *bool { return &a.Overlay.NoRoutes })},
		{Name: "externalNodesList", Live: true, Rule: "addresses and networks of IPv4 or IPv6, separated by commas",
			Doc: "Who may send us encapsulated packets beside the hosts of the cluster.", Why: "Hosts of another cluster may.",
			set: networks(func(a *Agent) *[]netip.Prefix { return &a.Overlay.ExternalNodes })},
		{Name: "natOutgoingAddress", Live: true, Rule: "an IPv4 address or empty",
			Doc: "Address with which packets of pools with natOutgoing leave. Empty: that of the interface they leave by.",
			Why: "The host may have several, and others may know one of them.",
			set: natAddress},
		{Name: "natPortRange", Live: true, Rule: "a port, FIRST:LAST or empty",
			Doc: "Source ports of TCP and UDP with which packets of pools with natOutgoing leave. Empty: the kernel chooses.",
			Why: "Ports that services of the host use are to be left alone.",
			set: natPorts},
		{Name: "natOutgoingExclusions", Live: true, Default: "IPPoolsOnly", Rule: "IPPoolsOnly or IPPoolsAndHostIPs",
			Doc: "Where packets of pools with natOutgoing keep their address: towards pools; or also towards hosts.",
			Why: "Hosts may want to see which workload speaks to them.",
			set: func(a *Agent, s string) error {
				word := "IPPoolsOnly"
				err := choice(func(*Agent) *string { return &word }, "IPPoolsOnly", "IPPoolsAndHostIPs")(a, s)
				a.Overlay.NAT.KeepToHosts = word == "IPPoolsAndHostIPs"
				return err
			}},
		{Name: "iptablesNATOutgoingInterfaceFilter", Live: true, Rule: "the name of an interface; + at its end stands for anything; empty: any",
			Doc: "By which interfaces packets of pools with natOutgoing must leave to get another address.",
			Why: "Other networks of the host may know the way back.",
			set: text(func(a *Agent) *string { return &a.Overlay.NAT.Interface }, interfaceFilter)},
	}
}

func backend(a *Agent, s string) error {
	switch strings.ToLower(s) {
	case "on", "bird", "":
		a.Overlay.Backend = BackendBGP
	case "off", "vxlan":
		a.Overlay.Backend = BackendVXLAN
	case "none":
		a.Overlay.Backend = BackendNone
	default:
		return errRule
	}
	return nil
}

// maybe reads a boolean that may be left to others.
func maybe(to func(*Agent) **bool) func(*Agent, string) error {
	return func(a *Agent, s string) error {
		if s == "" {
			*to(a) = nil
			return nil
		}
		var v bool
		if err := boolean(func(*Agent) *bool { return &v })(a, s); err != nil {
			return err
		}
		*to(a) = &v
		return nil
	}
}

// networks reads a list as it stands in a FelixConfiguration (JSON) or in the
// environment (commas). An address is a network of its own.
func networks(to func(*Agent) *[]netip.Prefix) func(*Agent, string) error {
	return func(a *Agent, s string) error {
		var list []string
		if strings.HasPrefix(s, "[") {
			if err := json.Unmarshal([]byte(s), &list); err != nil {
				return errRule
			}
		} else if s != "" {
			list = strings.Split(s, ",")
		}
		var out []netip.Prefix
		for _, item := range list {
			p, err := netip.ParsePrefix(strings.TrimSpace(item))
			if a, aerr := netip.ParseAddr(strings.TrimSpace(item)); aerr == nil && a.Zone() == "" {
				p, err = netip.PrefixFrom(a, a.BitLen()), nil
			}
			if err != nil || p.Addr().Is4In6() {
				return errRule
			}
			out = append(out, p.Masked())
		}
		*to(a) = out
		return nil
	}
}

func natAddress(a *Agent, s string) error {
	a.Overlay.NAT.Address = netip.Addr{}
	if s == "" {
		return nil
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || !addr.Is4() {
		return errRule
	}
	a.Overlay.NAT.Address = addr
	return nil
}

func natPorts(a *Agent, s string) error {
	nat := &a.Overlay.NAT
	nat.FirstPort, nat.LastPort = 0, 0
	if s == "" {
		return nil
	}
	first, last, isRange := strings.Cut(s, ":")
	if !isRange {
		last = first
	}
	low, err1 := strconv.ParseUint(first, 10, 16)
	high, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || low == 0 || high < low {
		return errRule
	}
	nat.FirstPort, nat.LastPort = uint16(low), uint16(high)
	return nil
}

// interfaceFilter checks a name, where + at the end stands for anything.
func interfaceFilter(s string) error {
	name := strings.TrimSuffix(s, "+")
	if name != "" && !interfaceNames.MatchString(name) {
		return errRule
	}
	return nil
}
