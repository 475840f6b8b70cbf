package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/conntrack"
	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/ipip"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/nflog"
)

// The states of what checksystem looks at.
const (
	checkFine     = "ok"
	checkMissing  = "missing"  // the kernel cannot do it
	checkConflict = "conflict" // somebody would undo or hinder what the agent does
	checkUnknown  = "unknown"
)

// required is what no agent can do without.
const required = "required"

// systemCheck is one thing that `brindle node checksystem` looked at.
type systemCheck struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Needed string `json:"needed,omitempty"` // required, or for what
	Detail string `json:"detail,omitempty"`
	Fix    string `json:"fix,omitempty"`
}

// systemReport is all of it.
type systemReport struct {
	OK     bool          `json:"ok"` // nothing that is required is missing
	Kernel string        `json:"kernel"`
	Checks []systemCheck `json:"checks"`
}

// newNodeCheck builds `brindle node checksystem`.
func newNodeCheck(e *Env) *cobra.Command {
	output, ignored := "", ""
	c := &cobra.Command{
		Use: "checksystem", Short: "Find out whether this host can run the agent", Args: cobra.NoArgs,
		Long: `Find out whether this host can run the agent: what it needs of the kernel is
tried, in a network namespace made for that, which goes away again; the host's
own network is not touched. Then look for programs that manage networks and
would undo or hinder what the agent does, and say how to come to terms with
each. Exit status 1 when something required is missing.

Modules of the kernel are loaded as they would be by the agent, but for that of
IP in IP, which would give the host an interface.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("output format %q: must be json, or nothing for a table", output)
			}
			if os.Geteuid() != 0 {
				return errors.New("node checksystem makes a network namespace: run it as root")
			}
			h := thisHost()
			r, err := checkSystem(h, kernelTrials(h))
			if err != nil {
				return err
			}
			if output == "json" {
				err = writeJSON(e.Stdout, r)
			} else {
				printSystem(e, r)
			}
			if err == nil && !r.OK {
				return &ExitError{Status: 1}
			}
			return err
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "json, or nothing for a table")
	c.Flags().StringVarP(&ignored, "kernel-config", "f", "", "accepted for calicoctl's sake: what the kernel can do is tried, not read")
	return c
}

// host is what of a machine is looked at beside its kernel.
type host struct {
	files  fs.FS                       // from /
	chains func() ([]nft.Chain, error) // of nftables, everybody's
}

func thisHost() host {
	return host{os.DirFS("/"), func() ([]nft.Chain, error) { return nft.Chains(nil) }}
}

// text reads a file; one that cannot be read is empty.
func (h host) text(name string) string {
	data, err := fs.ReadFile(h.files, name)
	if err != nil {
		return ""
	}
	return string(data)
}

// trial tries one thing in a namespace that is there for it.
type trial struct {
	needed, fix string
	// try returns what it found out: usually one check, of which it leaves
	// needed and fix to the trial.
	try func(ns *netns.NS) []systemCheck
}

// checkSystem makes trials, each in the same fresh namespace, and looks for
// managers.
func checkSystem(h host, trials []trial) (systemReport, error) {
	r := systemReport{OK: true, Kernel: strings.TrimSpace(h.text("proc/sys/kernel/osrelease"))}
	ns, err := netns.New()
	if err != nil {
		return r, err
	}
	for _, p := range trials {
		for _, c := range p.try(ns) {
			if c.Needed == "" {
				c.Needed = p.needed
			}
			if c.State != checkFine && c.Fix == "" {
				c.Fix = p.fix
			}
			if c.State == checkMissing && c.Needed == required {
				r.OK = false
			}
			r.Checks = append(r.Checks, c)
		}
	}
	r.Checks = append(r.Checks, managers(h)...)
	return r, ns.Close()
}

// found is a check of one thing.
func found(name string, err error, detail string) systemCheck {
	if err != nil {
		return systemCheck{Name: name, State: checkMissing, Detail: err.Error()}
	}
	return systemCheck{Name: name, State: checkFine, Detail: detail}
}

// single is a trial of one thing.
func single(name, needed, fix string, try func(*netns.NS) error) trial {
	return trial{needed, fix, func(ns *netns.NS) []systemCheck { return []systemCheck{found(name, try(ns), "")} }}
}

// kernelTrials are what the agent needs of the kernel.
func kernelTrials(h host) []trial {
	const build = "use a kernel with %s, or install the package that holds its modules"
	link := func(name, kind, needed, option string) trial {
		return single(name, needed, fmt.Sprintf(build, option), func(ns *netns.NS) error { return kernel.TryLink(ns, kind) })
	}
	return []trial{
		single("settings of the network (sysctl)", required, "mount /proc/sys writable: in a container, run it privileged", trySysctl),
		link("virtual cables (veth)", "veth", required, "CONFIG_VETH"),
		single("policy routing, IPv4", required, fmt.Sprintf(build, "CONFIG_IP_MULTIPLE_TABLES"), func(ns *netns.NS) error { return kernel.TryRule(ns, 4) }),
		single("IPv6", "for IPv6", "boot without ipv6.disable=1, or set ipv6Support to false", func(ns *netns.NS) error { return kernel.TryAddress(ns, 6) }),
		single("policy routing, IPv6", "for IPv6", fmt.Sprintf(build, "CONFIG_IPV6_MULTIPLE_TABLES"), func(ns *netns.NS) error { return kernel.TryRule(ns, 6) }),
		{required, fmt.Sprintf(build, "CONFIG_NF_TABLES_INET, CONFIG_NF_TABLES_ARP, CONFIG_NFT_CT and CONFIG_NFT_FIB_INET"), tryNftables},
		single("connection tracking (ctnetlink)", required, fmt.Sprintf(build, "CONFIG_NF_CT_NETLINK"), tryConntrack),
		single("log of packets (nflog)", "for rules with the action Log", fmt.Sprintf(build, "CONFIG_NETFILTER_NETLINK_LOG"),
			func(ns *netns.NS) error { return nflog.Try(ns, 1) }),
		link("VXLAN", "vxlan", "for pools with vxlanMode", "CONFIG_VXLAN"),
		{"for pools with ipipMode", fmt.Sprintf(build, "CONFIG_NET_IPIP or CONFIG_BPF_SYSCALL"), func(ns *netns.NS) []systemCheck { return tryIPIP(h, ns) }},
		link("WireGuard", "wireguard", "for encryption, which this version does not have", "CONFIG_WIREGUARD"),
	}
}

// trySysctl sets what the agent sets. The calling thread's namespace is what a
// setting belongs to.
func trySysctl(ns *netns.NS) error {
	return netns.Do(ns, func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/all/forwarding", []byte("1"), 0o644) })
}

// nftNeeds are those of nftables' features that not every host needs.
func nftNeeds() map[string]string {
	return map[string]string{
		"log to a group": "for rules with the action Log", "limit": "for logActionRateLimit",
		"reject": "for nftablesFilterDenyAction Reject", "masquerade": "for pools with natOutgoing",
		nft.FeatureFlowtable: "for nftablesFlowTableOffload All",
	}
}

func tryNftables(ns *netns.NS) []systemCheck {
	all, err := nft.Try(ns)
	if err != nil {
		return []systemCheck{found("nftables", err, "")}
	}
	var out []systemCheck
	for _, t := range all {
		c := found("nftables: "+t.Name, t.Err, "")
		c.Needed = nftNeeds()[t.Name]
		out = append(out, c)
	}
	return out
}

func tryConntrack(ns *netns.NS) error {
	t, err := conntrack.Open(ns)
	if err != nil {
		return err
	}
	_, err = t.List()
	return errors.Join(err, t.Close())
}

// tryIPIP tries both ways to carry IP in IP, of which one is enough. The
// kernel's device is left alone where asking for it would load its module.
func tryIPIP(h host, ns *netns.NS) []systemCheck {
	const name = "IP in IP"
	if h.loadable("ipip") {
		return []systemCheck{{Name: name, State: checkFine,
			Detail: "by the kernel's device; not tried, because loading the module ipip would give this host an interface tunl0"}}
	}
	device := kernel.TryLink(ns, "ipip")
	if device == nil || errors.Is(device, unix.EEXIST) {
		return []systemCheck{found(name, nil, "by the kernel's device")}
	}
	hooked, err := ipip.Try(ns)
	switch {
	case err != nil:
		return []systemCheck{found(name, fmt.Errorf("no device: %w; no programs: %w", device, err), "")}
	case hooked:
		return []systemCheck{found(name, nil, "by BPF programs (tcx): the kernel has no device for it")}
	}
	return []systemCheck{found(name, nil, "by BPF programs (filters of traffic control): the kernel has no device for it")}
}

// loadable reports whether a module is there, and neither loaded nor part of
// the kernel.
func (h host) loadable(module string) bool {
	if _, err := fs.Stat(h.files, "sys/module/"+module); err == nil {
		return false
	}
	dir := "lib/modules/" + strings.TrimSpace(h.text("proc/sys/kernel/osrelease"))
	for line := range strings.Lines(h.text(dir + "/modules.dep")) {
		file, _, _ := strings.Cut(line, ":")
		base := file[strings.LastIndex(file, "/")+1:]
		if base, _, _ = strings.Cut(base, ".ko"); base == module {
			return true
		}
	}
	return false
}

func printSystem(e *Env, r systemReport) {
	fmt.Fprintf(e.Stdout, "Linux %s\n\n", word(r.Kernel))
	t := table{header: []string{"CHECK", "STATE", "NEEDED", "DETAIL"}}
	for _, c := range r.Checks {
		t.add(c.Name, c.State, dash(c.Needed), c.Detail)
	}
	t.print(e.Stdout)
	fmt.Fprintln(e.Stdout)
	for _, c := range r.Checks {
		if c.Fix != "" {
			fmt.Fprintf(e.Stdout, "%s: %s\n", word(c.Name), clean(strings.ReplaceAll(c.Fix, "\n", "\n    ")))
		}
	}
	if r.OK {
		fmt.Fprintln(e.Stdout, "This host can run the agent.")
	} else {
		fmt.Fprintln(e.Stdout, "This host cannot run the agent: something required is missing.")
	}
}
