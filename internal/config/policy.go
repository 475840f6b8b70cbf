package config

import (
	"math/bits"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Policy is how policy is enforced on this host.
type Policy struct {
	EndpointToHost string // from a workload to this host itself: Drop, Reject, Return or Accept
	Deny           string // Drop or Reject
	MarkMask       uint32 // bits of the packet mark that are ours
	FlowMark       uint32 // bit of the connection mark that is ours
	Refresh        time.Duration
	KeepFlows      bool // established flows outlive a change that denies them
	AllowInvalid   bool // packets that belong to no connection go on to policy
	Spoofing       bool // workloads may send from the further prefixes they ask for
	VXLANPort      int
	AllowVXLAN     bool // from workloads
	AllowIPIP      bool // from workloads
	LogPrefix      string
	LogRate        string // "": no limit; else "10/second"
	LogBurst       int
	Offload        bool   // established connections bypass the rules
	OffloadDevices string // a regular expression: also by these interfaces
}

func policyParams() []Param {
	return []Param{
		{Name: "defaultEndpointToHostAction", Live: true, Default: "Drop", Rule: "Drop, Reject, Return or Accept",
			Doc: "What happens to packets from workloads to this host itself, after the workload's own policy. Return leaves them to the host's other rules.",
			Why: "A kubelet or a local DNS server may serve workloads.",
			set: choice(func(a *Agent) *string { return &a.Policy.EndpointToHost }, "Drop", "Reject", "Return", "Accept")},
		{Name: "nftablesFilterDenyAction", Live: true, Default: "Drop", Env: []string{"FELIX_IPTABLESFILTERDENYACTION"}, Rule: "Drop or Reject",
			Doc: "What happens to denied packets. Reject tells the sender.",
			Why: "Silence hides what is there; an answer saves the sender a timeout.",
			set: choice(func(a *Agent) *string { return &a.Policy.Deny }, "Drop", "Reject")},
		{Name: "nftablesMarkMask", Default: "0xffff0000", Env: []string{"FELIX_IPTABLESMARKMASK"}, Fatal: true,
			Rule: "a mask of at least 8 bits, without 0x4000 and 0x8000",
			Doc:  "Bits of the packet mark that we may use; all others are preserved.",
			Why:  "Other programs on the host use marks too.",
			set:  markMask},
		{Name: "flowMark", Default: "0x10000", Local: true, Fatal: true, Rule: "one bit",
			Doc: "Bit of the connection mark that says that policy cut the connection; all others are preserved.",
			Why: "Other programs on the host use connection marks too.",
			set: flowMark},
		{Name: "onPolicyChange", Default: "Cut", Local: true, Rule: "Cut or Keep",
			Doc: "What happens to established connections that a change of policy denies. Calico's agent keeps them.",
			Why: "Some would rather let long transfers end by themselves.",
			set: func(a *Agent, s string) error {
				word := "Cut"
				err := choice(func(*Agent) *string { return &word }, "Cut", "Keep")(a, s)
				a.Policy.KeepFlows = word == "Keep"
				return err
			}},
		{Name: "nftablesRefreshInterval", Live: true, Default: "90s", Rule: "a duration; 0 switches it off",
			Doc: "Most time between two read-backs of the policy in the kernel, beside events.",
			Why: "It trades CPU for the time a lost event is noticed in.",
			set: duration(func(a *Agent) *time.Duration { return &a.Policy.Refresh })},
		{Name: "disableConntrackInvalidCheck", Live: true, Default: "false", Rule: "true or false",
			Doc: "Judge packets that the kernel takes for part of no connection by policy, instead of dropping them.",
			Why: "Asymmetric routes show a host one half of a connection only.",
			set: boolean(func(a *Agent) *bool { return &a.Policy.AllowInvalid })},
		{Name: "workloadSourceSpoofing", Live: true, Default: "Disabled", Rule: "Disabled or Any",
			Doc: "Any: a workload may send from the prefixes that its endpoint asks for, besides its own addresses.",
			Why: "A workload that is a router forwards for others.",
			set: func(a *Agent, s string) error {
				word := "Disabled"
				err := choice(func(*Agent) *string { return &word }, "Disabled", "Any")(a, s)
				a.Policy.Spoofing = word == "Any"
				return err
			}},
		{Name: "vxlanPort", Default: "4789", Rule: "1 to 65535",
			Doc: "UDP port of VXLAN: workloads may not send to it.", Why: "Another VXLAN on the host may have the port.",
			set: integer(func(a *Agent) *int { return &a.Policy.VXLANPort }, 1, 65535)},
		{Name: "allowVXLANPacketsFromWorkloads", Live: true, Default: "false", Rule: "true or false",
			Doc: "Let workloads send VXLAN packets to vxlanPort.", Why: "A workload may run a VXLAN of its own.",
			set: boolean(func(a *Agent) *bool { return &a.Policy.AllowVXLAN })},
		{Name: "allowIPIPPacketsFromWorkloads", Live: true, Default: "false", Rule: "true or false",
			Doc: "Let workloads send IP in IP packets.", Why: "A workload may run tunnels of its own.",
			set: boolean(func(a *Agent) *bool { return &a.Policy.AllowIPIP })},
		{Name: "logPrefix", Live: true, Default: "calico-packet", Rule: "up to 120 characters",
			Doc: "What lines of the Log action begin with, before a colon.", Why: "Log collectors look for it.",
			set: text(func(a *Agent) *string { return &a.Policy.LogPrefix }, logPrefix)},
		{Name: "logActionRateLimit", Live: true, Rule: "a number a unit: 10/second, 100/minute; empty: no limit",
			Doc: "How many packets each Log rule logs at most.", Why: "A flood of packets must not fill a disk.",
			set: text(func(a *Agent) *string { return &a.Policy.LogRate }, rateLimit)},
		{Name: "logActionRateLimitBurst", Live: true, Default: "5", Rule: "0 to 9999",
			Doc: "How many packets a Log rule may log at once before its limit holds.", Why: "Bursts are short.",
			set: integer(func(a *Agent) *int { return &a.Policy.LogBurst }, 0, 9999)},
	}
}

// offloadParams are those of the flowtable.
func offloadParams() []Param {
	return []Param{
		{Name: "nftablesFlowTableOffload", Live: true, Default: "Disabled", Rule: "Disabled or All",
			Doc: "All: packets of established TCP and UDP connections of workloads bypass the stack and all rules, ours and others', by the kernel's flowtable, where it has one.",
			Why: "A round trip costs less than with connection tracking alone.",
			set: func(a *Agent, s string) error {
				word := "Disabled"
				err := choice(func(*Agent) *string { return &word }, "Disabled", "All")(a, s)
				a.Policy.Offload = word == "All"
				return err
			}},
		{Name: "nftablesFlowTableDataIfacePattern", Live: true, Rule: "a regular expression; empty: none",
			Doc: "Further interfaces whose packets the flowtable looks for, beside those of workloads and tunnels: the ways to other hosts.",
			Why: "Packets to workloads from outside come by other names on each host.",
			set: text(func(a *Agent) *string { return &a.Policy.OffloadDevices }, anyRegexp)},
	}
}

// choice reads one of several words, in whatever case, and writes it as here.
func choice(to func(*Agent) *string, words ...string) func(*Agent, string) error {
	return func(a *Agent, s string) error {
		i := slices.IndexFunc(words, func(w string) bool { return strings.EqualFold(w, s) })
		if i < 0 {
			return errRule
		}
		*to(a) = words[i]
		return nil
	}
}

// kubeMarks are the bits of the packet mark that kube-proxy uses.
const kubeMarks = 0xc000

func markMask(a *Agent, s string) error {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil || bits.OnesCount64(n) < 8 || n&kubeMarks != 0 {
		return errRule
	}
	a.Policy.MarkMask = uint32(n)
	return nil
}

func flowMark(a *Agent, s string) error {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil || bits.OnesCount64(n) != 1 {
		return errRule
	}
	a.Policy.FlowMark = uint32(n)
	return nil
}

func logPrefix(s string) error {
	if len(s) > 120 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return errRule
	}
	return nil
}

func anyRegexp(s string) error {
	if _, err := regexp.Compile(s); err != nil {
		return errRule
	}
	return nil
}

func rateLimit(s string) error {
	n, unit, ok := strings.Cut(s, "/")
	v, err := strconv.ParseUint(n, 10, 31)
	if !ok || err != nil || v == 0 || !slices.Contains([]string{"second", "minute", "hour", "day"}, unit) {
		return errRule
	}
	return nil
}
