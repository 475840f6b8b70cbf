package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/lab"
)

// newLab builds `brindle lab`.
func newLab(e *Env) *cobra.Command {
	name := "lab"
	c := &cobra.Command{
		Use: "lab", Short: "A data centre in network namespaces on this machine", GroupID: "run",
		Long: `A lab is a network of hosts on one machine: network namespaces that each run the
real agent, workloads wired to them, switches and routers between them, and an etcd. It
needs root and nothing else, and leaves nothing behind.`,
		Example: `  sudo brindle lab up
  sudo brindle lab status
  sudo brindle lab exec w1 -- ping -c 3 10.48.0.1
  eval "$(sudo brindle lab env)"; sudo -E brindle get nodes -o wide
  sudo brindle lab down`,
	}
	c.PersistentFlags().StringVar(&name, "name", name, "name of the lab")
	c.AddCommand(
		labUp(e, &name), labDown(e, &name), labStatus(e, &name), labEnv(e, &name), labExec(e, &name), labCapture(e, &name),
		labProbe(e, &name), labVerify(e, &name), labWorkload(e, &name), labHost(e, &name), labDatastore(e, &name), labPresets(e), labDemo(e, &name),
		labSupervise(e), labEnter(e),
	)
	return c
}

func labDown(e *Env, name *string) *cobra.Command {
	all := false
	c := &cobra.Command{
		Use: "down", Short: "Remove a lab, also one whose supervisor was killed", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			names := []string{*name}
			if all {
				var err error
				if names, err = lab.List(); err != nil {
					return err
				}
				if len(names) == 0 {
					fmt.Fprintln(e.Stdout, "no lab is up")
				}
			}
			var errs []error
			for _, n := range names {
				if err := lab.Down(c.Context(), n); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintf(e.Stdout, "lab %s is gone\n", n)
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().BoolVar(&all, "all", all, "remove every lab of this machine")
	return c
}

func labStatus(e *Env, name *string) *cobra.Command {
	output := ""
	c := &cobra.Command{
		Use: "status", Short: "Show hosts, sessions, workloads, and how packets travel", Args: cobra.NoArgs,
		Long: `Show the hosts of a lab, its routers and its workloads, and for each two hosts how
packets to workloads travel from the one to the other, as the sending host's
kernel says: direct, ipip or vxlan; "via r1" when a router is the next hop;
"default" when the host only has its default route, and "none" when it has no
route at all. On a terminal the first of it is a drawing: each segment with the
hosts and routers on it, their addresses, sessions and workloads.`,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := lab.Open(*name)
			if err != nil {
				return err
			}
			st, err := cl.Status(c.Context())
			if err != nil {
				return err
			}
			if st.Paths, err = lab.Paths(c.Context(), st); err != nil {
				return err
			}
			switch {
			case output == "json":
				enc := json.NewEncoder(e.Stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(st)
			case output == "drawing", output == "" && e.Terminal:
				drawLab(e.Stdout, st, widthOf(e))
				return nil
			case output == "", output == "table":
				printLab(e.Stdout, st)
				return nil
			}
			return fmt.Errorf("output format %q: must be json, drawing or table, or nothing for a drawing on a terminal and tables elsewhere", output)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", output, "output format: json, drawing or table")
	return c
}

func labEnv(e *Env, name *string) *cobra.Command {
	return &cobra.Command{
		Use: "env", Short: "Print shell exports that point brindle at the lab", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, err := lab.Open(*name); err != nil {
				return err
			}
			_, err := fmt.Fprintf(e.Stdout, "export DATASTORE_TYPE=etcdv3\nexport ETCD_ENDPOINTS=%[1]s\nexport BRINDLE_ETCD_ENDPOINTS=%[1]s\n", lab.Endpoints(*name))
			return err
		},
	}
}

func labExec(e *Env, name *string) *cobra.Command {
	c := &cobra.Command{
		Use: "exec NAME [--] COMMAND…", Short: "Run a command inside a host, workload or router", Args: cobra.MinimumNArgs(2),
		Long: `Run a command inside a host, workload or router. From the command on all flags
are its own.`,
		RunE: func(c *cobra.Command, args []string) error {
			argv, err := memberCommand(c, args)
			if err != nil {
				return err
			}
			st, m, err := labMember(c.Context(), *name, args[0])
			if err != nil {
				return err
			}
			env := os.Environ()
			if m.Kind == "host" {
				for _, h := range st.Hosts {
					if h.Name == m.Name {
						env = append(env, "BRINDLE_SOCKET="+h.Socket, "DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS="+st.Datastore.Endpoints, "BRINDLE_ETCD_ENDPOINTS="+st.Datastore.Endpoints)
					}
				}
			}
			if argv[0] == "brindle" { // the one that runs the lab, wherever it lies
				argv = append([]string{e.Executable}, argv[1:]...)
			}
			err = lab.Enter(m.Netns, argv, env)
			if errors.Is(err, exec.ErrNotFound) {
				return &ExitError{Status: 127, Err: err} // as shells and env(1) have it
			}
			return err
		},
	}
	c.Flags().SetInterspersed(false)
	return c
}

// memberCommand is what shall run in the member that is the first of some
// arguments. Flags that stand directly behind it are ours, up to a "--" or to
// the command's name.
func memberCommand(c *cobra.Command, args []string) ([]string, error) {
	argv := args[1:]
	if strings.HasPrefix(argv[0], "-") {
		if err := c.Flags().Parse(argv); err != nil {
			return nil, c.FlagErrorFunc()(c, err)
		}
		argv = c.Flags().Args()
	}
	if len(argv) == 0 {
		return nil, fmt.Errorf("which command shall run in %s?", word(args[0]))
	}
	return argv, nil
}

// labMember looks up a host, workload or router of the lab that runs under a
// name.
func labMember(ctx context.Context, name, member string) (st lab.State, m lab.Member, err error) {
	cl, err := lab.Open(name)
	if err != nil {
		return st, m, err
	}
	if st, err = cl.Status(ctx); err != nil {
		return st, m, err
	}
	m, err = st.Find(member)
	return st, m, err
}

func labProbe(e *Env, name *string) *cobra.Command {
	p, family := lab.Probe{Count: 1, Timeout: 2 * time.Second}, ""
	c := &cobra.Command{
		Use: "probe FROM TO [PORT/PROTO]", Short: "Send real packets from one member to another",
		Args: func(c *cobra.Command, args []string) error { return unmeasured(cobra.RangeArgs(2, 3)(c, args)) },
		Long: `Send real packets and say whether they were answered. FROM is the name of a
workload, host or router, or an address of one, which then is the family of the
packets, too; TO is a name or an address; PORT/PROTO is as 80/tcp, 53/udp or
icmp, which is the default.

Exit status: 0 every probe was answered, 1 none was, 2 some were, 3 it could not
be measured (unknown name, the lab is down, no route at the sender, nobody
listens, a mistake in the command).`,
		RunE: func(c *cobra.Command, args []string) error {
			return unmeasured(probe(c.Context(), e, probing{*name, family, &p}, args))
		},
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return unmeasured(c.Parent().FlagErrorFunc()(c, err)) })
	c.Flags().IntVar(&p.Count, "count", p.Count, "number of probes, one after the other")
	c.Flags().DurationVar(&p.Timeout, "timeout", p.Timeout, "how long to wait for each answer")
	c.Flags().StringVar(&family, "family", family, "v4 or v6, when TO is a name with both (default v4)")
	return c
}

// unmeasured gives an error the exit status that says that nothing was
// measured, unless it has one.
func unmeasured(err error) error {
	var exit *ExitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	return &ExitError{Status: 3, Err: err}
}

// probing is what the flags of `lab probe` say.
type probing struct {
	lab, family string
	*lab.Probe
}

// probe resolves the names, sends and reports.
func probe(ctx context.Context, e *Env, p probing, args []string) error {
	cl, err := lab.Open(p.lab)
	if err != nil {
		return err
	}
	st, err := cl.Status(ctx)
	if err != nil {
		return err
	}
	if err := p.ends(st, args[0], args[1]); err != nil {
		return err
	}
	target := ""
	if len(args) == 3 {
		target = args[2]
	}
	if p.Protocol, p.Port, err = lab.ParseTarget(target); err != nil {
		return err
	}
	if p.Count < 1 || p.Timeout <= 0 {
		return fmt.Errorf("--count %d --timeout %s: both must be more than nothing", p.Count, p.Timeout)
	}
	out, err := p.Send(ctx)
	if err != nil {
		return err
	}
	said := ""
	if out.Said != "" {
		said = " by " + clean(out.Said)
	}
	fmt.Fprintf(e.Stdout, "%s → %s (%s) %s: %d of %d answered%s\n", args[0], args[1], p.To, describe(p.Probe), out.Answered, out.Sent, said)
	switch out.Answered {
	case out.Sent:
		return nil
	case 0:
		return &ExitError{Status: 1}
	}
	return &ExitError{Status: 2}
}

// ends finds who sends, by name or address, and the address to send to.
func (p *probing) ends(st lab.State, from, to string) (err error) {
	if p.family != "" && p.family != lab.V4 && p.family != lab.V6 {
		return fmt.Errorf("--family %q: must be v4 or v6", p.family)
	}
	a, notAddr := netip.ParseAddr(from)
	if notAddr != nil {
		if p.From, err = st.Find(from); err != nil {
			return err
		}
	} else {
		if p.From, err = st.FindAddr(a.Unmap()); err != nil {
			return err
		}
		version := map[bool]string{true: lab.V4, false: lab.V6}[a.Unmap().Is4()]
		if p.family != "" && p.family != version {
			return fmt.Errorf("--family %s: %s is of the other family", p.family, from)
		}
		p.family = version
	}
	if p.To, err = resolve(st, to, p.family); err == nil && notAddr == nil && p.To.Is4() != (p.family == lab.V4) {
		err = fmt.Errorf("%s and %s are of two families", from, to)
	}
	return err
}

func describe(p *lab.Probe) string {
	if p.Protocol == "icmp" {
		return "icmp"
	}
	return fmt.Sprintf("%d/%s", p.Port, p.Protocol)
}

// resolve finds the address of a member, or reads one.
func resolve(st lab.State, to, family string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(to); err == nil {
		return a.Unmap(), nil
	}
	m, err := st.Find(to)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range m.Addresses {
		if family == "" || a.Is4() == (family == "v4") {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has no %s address", to, strings.TrimSpace("IP"+family))
}

func labWorkload(e *Env, name *string) *cobra.Command {
	c := &cobra.Command{Use: "workload", Short: "Add or remove a workload"}
	n, labels, ip := lab.NewWorkload{}, []string{}, []string{}
	add := &cobra.Command{
		Use: "add NAME --host HOST", Short: "Add a workload to a host", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			n.Name, n.Addresses = args[0], ip
			if len(labels) > 0 {
				if n.Labels, err = parseLabels(labels); err != nil {
					return err
				}
			}
			cl, err := lab.Open(*name)
			if err != nil {
				return err
			}
			w, err := cl.AddWorkload(c.Context(), n)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(e.Stdout, "workload %s on %s: %s\n", w.Name, w.Host, strings.Join(w.Addresses, ", "))
			return err
		},
	}
	add.Flags().StringVar(&n.Host, "host", "", "host to run on (required)")
	add.Flags().StringArrayVarP(&labels, "label", "l", nil, "label as key=value; again for more")
	add.Flags().StringVarP(&n.Namespace, "namespace", "n", "default", "namespace")
	add.Flags().BoolVar(&n.Tap, "tap", false, "a virtual machine behind a tap device, in place of a container")
	add.Flags().StringArrayVar(&ip, "ip", nil, "address to ask for; again for the other family")
	_ = add.MarkFlagRequired("host") // it was added above
	rm := &cobra.Command{
		Use: "rm NAME", Short: "Remove a workload", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := lab.Open(*name)
			if err != nil {
				return err
			}
			return cl.RemoveWorkload(c.Context(), args[0])
		},
	}
	c.AddCommand(add, rm)
	return c
}

// parseLabels reads key=value pairs.
func parseLabels(pairs []string) (map[string]string, error) {
	out := map[string]string{}
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("label %q: must be key=value", p)
		}
		out[k] = v
	}
	return out, nil
}

func labHost(_ *Env, name *string) *cobra.Command {
	c := &cobra.Command{Use: "host", Short: "Stop, start or kill the agent of a host"}
	for verb, short := range map[string]string{
		"stop": "Stop the agent politely", "start": "Start the agent again", "kill": "Kill the agent without a word",
	} {
		c.AddCommand(&cobra.Command{
			Use: verb + " NAME", Short: short, Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				cl, err := lab.Open(*name)
				if err != nil {
					return err
				}
				return cl.Host(c.Context(), verb, args[0])
			},
		})
	}
	return c
}

func labDatastore(_ *Env, name *string) *cobra.Command {
	c := &cobra.Command{Use: "datastore", Short: "Stop or start the datastore, or one host's way to it"}
	for verb, short := range map[string]string{"stop": "Stop it", "start": "Start it again"} {
		host := ""
		sub := &cobra.Command{
			Use: verb, Short: short, Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				cl, err := lab.Open(*name)
				if err != nil {
					return err
				}
				return cl.Datastore(c.Context(), verb, host)
			},
		}
		sub.Flags().StringVar(&host, "for", "", "only this host's way to it")
		c.AddCommand(sub)
	}
	return c
}

// labSupervise is what `lab up` starts in the background.
func labSupervise(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "supervise", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var t lab.Topology
			if err := json.NewDecoder(e.Stdin).Decode(&t); err != nil {
				return fmt.Errorf("read the topology: %w", err)
			}
			say := lab.NewAnnounce()
			s := lab.NewSupervisor(t, slog.New(slog.NewTextHandler(e.Stderr, nil)), say.Step)
			err := s.Run(c.Context(), say.Ready)
			if err != nil {
				say.Failed(err)
			}
			return err
		},
	}
}

// labEnter is how the supervisor starts an agent inside a host.
func labEnter(_ *Env) *cobra.Command {
	ns := ""
	c := &cobra.Command{
		Use: "enter -- COMMAND…", Hidden: true, Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return lab.Enter(ns, args, os.Environ()) },
	}
	c.Flags().StringVar(&ns, "netns", "", "namespace")
	return c
}
