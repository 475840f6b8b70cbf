package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/agentclient"
)

// newKinds builds `brindle kinds`.
func newKinds(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "kinds", Short: "List the kinds of resources and their short names", GroupID: "resources", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			t := table{header: []string{"KIND", "NAMES", "NAMESPACED", "WRITTEN BY"}}
			for _, k := range v3.Kinds() {
				writer := "users"
				if k.ReadOnly {
					writer = "Brindle"
				}
				t.add(k.Kind, strings.Join(append([]string{k.Plural}, k.Aliases...), ","), fmt.Sprint(k.Namespaced), writer)
			}
			t.print(e.Stdout)
			return nil
		},
	}
}

// agentFlags say which agent to ask.
type agentFlags struct{ socket, output string }

func (a *agentFlags) add(c *cobra.Command, e *Env) {
	c.Flags().StringVar(&a.socket, "socket", agentSocketOf(e), "unix socket of the agent")
	c.Flags().StringVarP(&a.output, "output", "o", "", "json, or nothing for a table")
}

// agentSocketOf is where the agent of this host listens.
func agentSocketOf(e *Env) string {
	if s := e.Getenv("BRINDLE_SOCKET"); s != "" {
		return s
	}
	return agentapi.DefaultSocket
}

// status asks the agent, and prints JSON if that was asked for.
func (a *agentFlags) status(ctx context.Context, e *Env) (st agentapi.Status, printed bool, err error) {
	return ask(ctx, e, a, (*agentclient.Client).Status)
}

// ask asks the agent one thing, and prints JSON if that was asked for.
func ask[T any](ctx context.Context, e *Env, a *agentFlags, call func(*agentclient.Client, context.Context) (T, error)) (answer T, printed bool, err error) {
	if a.output != "" && a.output != "json" {
		return answer, false, fmt.Errorf("output format %q: must be json, or nothing for a table", a.output)
	}
	answer, err = call(agentclient.New(a.socket), ctx)
	if errors.Is(err, agentclient.ErrNoAgent) {
		return answer, false, fmt.Errorf("%w: start it with `brindle agent`, or name its socket with --socket", err)
	}
	if err != nil || a.output == "" {
		return answer, false, err
	}
	return answer, true, writeJSON(e.Stdout, answer)
}

// newNode builds `brindle node`.
func newNode(e *Env) *cobra.Command {
	c := &cobra.Command{Use: "node", Short: "Look after this host", GroupID: "look"}
	var a agentFlags
	status := &cobra.Command{
		Use: "status", Short: "Show how the agent of this host is", Args: cobra.NoArgs,
		Long: `Show how the agent of this host is: its conditions, its addresses, why they were
chosen and what is wrong with them, pools, tunnels, BGP sessions and MTU. Exit
status 1 when it is not ready.
What is measured of the paths to other hosts is advice: see node paths.`,
		RunE: func(c *cobra.Command, _ []string) error {
			st, printed, err := a.status(c.Context(), e)
			if err != nil {
				return err
			}
			if !printed {
				printStatus(e, st)
			}
			if !st.Ready {
				return &ExitError{Status: 1}
			}
			return nil
		},
	}
	a.add(status, e)
	c.AddCommand(status, newNodePaths(e), newNodeCheck(e), newNodeDiags(e), newNodeRun(e))
	return c
}

func printStatus(e *Env, st agentapi.Status) {
	fmt.Fprintf(e.Stdout, "Node %s: %s\n", word(st.Node), yesNo(st.Ready, "ready", "not ready"))
	printAddresses(e, st)
	fmt.Fprintf(e.Stdout, "  AS number  %d\n  MTU        %d%s\n  workloads  %d\n  version    %s\n\n",
		st.ASNumber, st.MTU, ofHost(st), st.Workloads, word(st.Build))
	t := table{header: []string{"CONDITION", "HOLDS", "REASON", "SINCE", "MESSAGE"}}
	for _, c := range st.Conditions {
		t.add(c.Type, yesNo(c.Status, "yes", "NO"), c.Reason, c.Since, c.Message)
	}
	t.print(e.Stdout)
	fmt.Fprintln(e.Stdout)
	printPools(e, st)
	printTunnels(e, st)
	printUnknown(e, st.UnknownSenders)
	printSessions(e, st)
}

// printAddresses shows the host's addresses, and why they are these.
func printAddresses(e *Env, st agentapi.Status) {
	if len(st.Choices) == 0 {
		fmt.Fprintf(e.Stdout, "  addresses  %s\n", word(strings.Join(st.Addresses, " ")))
		return
	}
	for _, c := range st.Choices {
		fmt.Fprintf(e.Stdout, "  address    %s: %s\n", word(c.Address), word(c.Why))
		if c.Note != "" {
			fmt.Fprintf(e.Stdout, "             ! %s\n", word(c.Note))
		}
	}
}

// ofHost says what the MTU of workloads is made of.
func ofHost(st agentapi.Status) string {
	if st.HostMTU == 0 {
		return ""
	}
	return fmt.Sprintf(" for workloads, of the host's %d", st.HostMTU)
}

// printPools shows the pools of the cluster.
func printPools(e *Env, st agentapi.Status) {
	if len(st.Pools) == 0 {
		return
	}
	t := table{header: []string{"POOL", "NETWORK", "FORM", "NAT", "STATE"}}
	for _, p := range st.Pools {
		form := p.Form
		if p.CrossSubnet {
			form += " to other subnets"
		}
		t.add(p.Name, p.CIDR, form, yesNo(p.NATOutgoing, "yes", "no"), yesNo(p.Disabled, "disabled", "in use"))
	}
	t.print(e.Stdout)
	fmt.Fprintln(e.Stdout)
}

// printTunnels shows the forms in which packets may come to this host, and its
// ends of tunnels.
func printTunnels(e *Env, st agentapi.Status) {
	if len(st.Accepts) > 0 {
		fmt.Fprintf(e.Stdout, "Packets accepted: %s\n\n", word(strings.Join(st.Accepts, ", ")))
	}
	if len(st.Tunnels) == 0 {
		return
	}
	t := table{header: []string{"TUNNEL", "FORM", "FAMILY", "ADDRESS", "FROM", "MTU", "CARRIER", "READY", "UNTIL"}}
	for _, u := range st.Tunnels {
		t.add(u.Device, u.Form, fmt.Sprintf("IPv%d", u.Family), u.Address, u.Local, fmt.Sprint(u.MTU), u.Carrier, yesNo(u.Ready, "yes", "no"), u.KeptUntil)
	}
	t.print(e.Stdout)
	fmt.Fprintln(e.Stdout)
}

// printUnknown shows who sent encapsulated packets without being a host.
func printUnknown(e *Env, u agentapi.UnknownSenders) {
	if u.IPIP+u.VXLAN == 0 && len(u.Last) == 0 {
		return
	}
	fmt.Fprintf(e.Stdout, "Dropped from unknown senders: %d packets of IP in IP, %d of VXLAN\n", u.IPIP, u.VXLAN)
	if len(u.Last) > 0 {
		t := table{header: []string{"UNKNOWN SENDER", "FORM", "LAST SEEN"}}
		for _, s := range u.Last {
			t.add(s.Address, s.Form, s.Seen)
		}
		t.print(e.Stdout)
	}
	fmt.Fprintln(e.Stdout)
}

func yesNo(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func printSessions(e *Env, st agentapi.Status) {
	if st.BGPOff {
		fmt.Fprintln(e.Stdout, "BGP is off.")
		return
	}
	if len(st.Sessions) == 0 {
		fmt.Fprintln(e.Stdout, "No BGP peers.")
		return
	}
	t := table{header: []string{"PEER", "NAME", "AS", "STATE", "SINCE", "GRACEFUL RESTART", "END OF RIB", "RECEIVED", "ACCEPTED", "SENT", "LAST ERROR"}}
	for _, s := range st.Sessions {
		t.add(s.Peer, s.Name, fmt.Sprint(s.AS), s.State, s.Since, yesNo(s.GracefulRestart, "yes", "no"), yesNo(s.EndOfRIB, "yes", "no"),
			fmt.Sprint(s.Received), fmt.Sprint(s.Accepted), fmt.Sprint(s.Advertised), s.LastError)
	}
	t.print(e.Stdout)
}

// newBGP builds `brindle bgp`.
func newBGP(e *Env) *cobra.Command {
	c := &cobra.Command{Use: "bgp", Short: "Look at routing on this host", GroupID: "look"}
	var a agentFlags
	capabilities := false
	status := &cobra.Command{
		Use: "status", Short: "Show the BGP sessions of this host", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			st, printed, err := a.status(c.Context(), e)
			if err != nil || printed {
				return err
			}
			printSessions(e, st)
			for _, s := range st.Sessions {
				if capabilities && len(s.Capabilities) > 0 {
					fmt.Fprintf(e.Stdout, "\n%s negotiated: %s\n", word(s.Name), word(strings.Join(s.Capabilities, ", ")))
				}
			}
			return nil
		},
	}
	a.add(status, e)
	status.Flags().BoolVar(&capabilities, "capabilities", false, "show what each session negotiated")
	var r agentFlags
	routes := &cobra.Command{
		Use: "routes", Short: "Show prefixes learned from and announced to each peer", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			got, printed, err := ask(c.Context(), e, &r, (*agentclient.Client).Routes)
			if err != nil || printed {
				return err
			}
			t := table{header: []string{"DIRECTION", "PREFIX", "NEXT HOP", "PEER", "NOTE"}}
			for _, x := range got.Learned {
				note := x.Refused
				if note != "" {
					note = "refused: " + note
				} else if x.Stale {
					note = "stale: the peer restarts"
				}
				t.add("in", x.Prefix, x.NextHop, x.Peer, note)
			}
			for _, x := range got.Announced {
				t.add("out", x.Prefix, x.NextHop, x.Peer, "")
			}
			t.print(e.Stdout)
			return nil
		},
	}
	r.add(routes, e)
	c.AddCommand(status, routes)
	return c
}
