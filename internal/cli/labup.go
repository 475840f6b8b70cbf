package cli

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/lab"
)

// topologyFlags adds the flags that shape a lab. Those of them that nobody
// sets keep what the preset or the file says: see settle.
func topologyFlags(c *cobra.Command, t *lab.Topology) {
	c.Flags().IntVar(&t.Hosts, "hosts", t.Hosts, "number of hosts (subnets and fabric: 4, reflectors: 6)")
	c.Flags().IntVar(&t.Workloads, "workloads", t.Workloads, "workloads on each host")
	c.Flags().StringVar(&t.Family, "family", t.Family, "addresses: v4, v6 or dual")
	c.Flags().DurationVar(&t.HoldTime, "hold-time", t.HoldTime, "after how much silence hosts give up a BGP peer")
	c.Flags().BoolVar(&t.Fsync, "fsync", t.Fsync, "let etcd wait for the disk at every write, as outside a lab")
	c.Flags().StringVar(&t.IPIP, "ipip", t.IPIP, "IP in IP for the IPv4 pool, instead of VXLAN: Never, Always or CrossSubnet")
	c.Flags().StringVar(&t.VXLAN, "vxlan", t.VXLAN, "VXLAN for the pools: Never, Always or CrossSubnet (subnets and fabric: CrossSubnet)")
	c.Flags().BoolVar(&t.NAT, "nat", t.NAT, "let workloads leave the pools with their host's address (natOutgoing)")
	c.Flags().StringArrayVar(&t.AgentArgs, "agent-arg", nil, "further argument of every agent, as --agent-arg=--bgp=off; again for more")
}

// settle puts the flags that were given over what a file or a preset says.
func settle(c *cobra.Command, flags, base lab.Topology) lab.Topology {
	for flag, keep := range map[string]func(){
		"hosts": func() { base.Hosts = flags.Hosts }, "workloads": func() { base.Workloads = flags.Workloads },
		"family": func() { base.Family = flags.Family }, "fsync": func() { base.Fsync = flags.Fsync },
		"hold-time": func() { base.HoldTime = flags.HoldTime }, "ipip": func() { base.IPIP = flags.IPIP },
		"vxlan": func() { base.VXLAN = flags.VXLAN }, "nat": func() { base.NAT = flags.NAT },
		"agent-arg": func() { base.AgentArgs = flags.AgentArgs },
	} {
		if c.Flags().Changed(flag) {
			keep()
		}
	}
	return base
}

func labUp(e *Env, name *string) *cobra.Command {
	flags, file := lab.Default(""), ""
	c := &cobra.Command{
		Use: "up [PRESET]", Short: "Build a lab and leave it running", Args: cobra.MaximumNArgs(1), ValidArgs: lab.Presets,
		Long: `Build a lab and leave it running. The presets:

  flat        hosts on one segment of layer 2 (the default)
  subnets     two subnets of hosts, joined by a router, r1, that knows no workload:
              it drops packets to one unless they are inside of others
  fabric      two racks of hosts, a router on top of each, r1 and r2, and a spine,
              r3, that two cables join to each: routes between racks have two ways.
              The routers know no workload
  reflectors  hosts on one segment, of which h1 and h2 are route reflectors: the
              others speak BGP with these alone

A file says any other shape: brindle lab presets NAME prints one to begin with, and
docs/reference/topology.md lists its fields.`,
		RunE: func(c *cobra.Command, args []string) error {
			preset := ""
			if len(args) == 1 {
				preset = args[0]
			}
			t := lab.Default(preset)
			if file != "" {
				var err error
				if t, err = fromFile(file, preset); err != nil {
					return err
				}
			}
			t = settle(c, flags, t)
			if t.Name == "" || file == "" || c.Flags().Changed("name") {
				t.Name = *name
			}
			t.Binary = e.Executable
			return bringUp(c, e, t)
		},
	}
	topologyFlags(c, &flags)
	c.Flags().StringVarP(&file, "filename", "f", "", "topology file (YAML), as brindle lab presets NAME prints one; flags win")
	return c
}

// bringUp builds a lab and shows it.
func bringUp(c *cobra.Command, e *Env, t lab.Topology) error {
	began := time.Now()
	if err := lab.Up(c.Context(), t, func(step string) { fmt.Fprintln(e.Stderr, "•", step) }); err != nil {
		return err
	}
	cl, err := lab.Open(t.Name)
	if err != nil {
		return err
	}
	st, err := cl.Status(c.Context())
	if err != nil {
		return err
	}
	fmt.Fprintf(e.Stdout, "lab %s is up (%s)\n\n", t.Name, time.Since(began).Round(100*time.Millisecond))
	printLab(e.Stdout, st)
	fmt.Fprint(e.Stdout, tryThese(st))
	return nil
}

// fromFile reads a topology file; a preset given beside it wins.
func fromFile(file, preset string) (lab.Topology, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return lab.Topology{}, err
	}
	return lab.ReadTopology(file, preset, data)
}

// labPresets prints what `lab up` knows.
func labPresets(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "presets [NAME]", Short: "List the presets, or print one as a topology file", Args: cobra.MaximumNArgs(1), ValidArgs: lab.Presets,
		Long: `List the presets of lab up, or print one as a topology file for lab up -f, to begin
with. docs/reference/topology.md lists all its fields.`,
		Example: `  brindle lab presets fabric > mine.yaml
  sudo brindle lab up -f mine.yaml`,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				if err := v3.OneOf("preset", args[0], lab.Presets...).Err(); err != nil {
					return err
				}
				_, err := fmt.Fprint(e.Stdout, lab.Example(args[0]))
				return err
			}
			t := table{header: []string{"PRESET", "WHAT IT IS"}}
			for _, p := range lab.Presets {
				t.add(p, lab.About(p))
			}
			t.print(e.Stdout)
			return nil
		},
	}
}

// tryThese are commands that work in a lab as it is.
func tryThese(st lab.State) string {
	lines := []string{}
	if n := len(st.Workloads); n > 0 {
		lines = append(lines, fmt.Sprintf("exec %s -- ip route", st.Workloads[0].Name))
		if n > 1 {
			lines = append(lines, fmt.Sprintf("probe %s %s 80/tcp", st.Workloads[0].Name, st.Workloads[n-1].Name))
		}
	}
	sep := fmt.Sprintf("\n      brindle lab%s ", ofLab(st.Name))
	return "\nTry:  " + strings.TrimLeft(sep+strings.Join(append(lines, "down"), sep), "\n ") + "\n"
}
