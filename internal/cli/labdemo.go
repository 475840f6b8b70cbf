package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/agentclient"
	"github.com/brindle-net/brindle/internal/lab"
)

// labDemo shows in under a minute what Brindle does, and cleans up.
func labDemo(e *Env, name *string) *cobra.Command {
	t, keep := lab.Default(""), false
	c := &cobra.Command{
		Use: "demo", Short: "Build a lab, show what it does, take it down again", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			t.Name, t.Binary = *name, e.Executable
			if err := lab.Up(c.Context(), t, func(step string) { fmt.Fprintln(e.Stdout, "•", step) }); err != nil {
				return err
			}
			if !keep {
				defer func() {
					fmt.Fprintln(e.Stdout, "• taking it down")
					ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), time.Minute)
					defer cancel()
					if derr := lab.Down(ctx, t.Name); err == nil {
						err = derr
					}
					if err == nil {
						fmt.Fprint(e.Stdout, goOn(false, *name))
					}
				}()
			}
			if err := show(c.Context(), e, t.Name); err != nil {
				return err
			}
			if keep {
				fmt.Fprint(e.Stdout, goOn(true, *name))
			}
			return nil
		},
	}
	topologyFlags(c, &t)
	c.Flags().BoolVar(&keep, "keep", keep, "leave the lab running")
	return c
}

// show prints addresses, routes and the matrix of a running lab, then what
// policies do.
func show(ctx context.Context, e *Env, name string) error {
	cl, err := lab.Open(name)
	if err != nil {
		return err
	}
	st, err := cl.Status(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.Stdout, "\n%s\n\n", heading(e, "Three hosts on one segment, workloads with addresses of their own"))
	printLab(e.Stdout, st)
	if err := showRoutes(ctx, e, st); err != nil {
		return err
	}
	var members []lab.Member
	for _, w := range st.Workloads {
		m, err := st.Find(w.Name)
		if err != nil {
			return err
		}
		members = append(members, m)
	}
	failed := false
	for _, family := range []string{lab.V4, lab.V6} {
		if st.Family != family && st.Family != lab.Dual {
			continue
		}
		m, err := lab.Measure(ctx, members, family, lab.Probe{Protocol: "tcp", Port: 80})
		if err != nil {
			return err
		}
		fmt.Fprintf(e.Stdout, "\n%s\n\n", heading(e, "Who reaches whom: TCP port 80 over IP"+family+", measured with real packets"))
		printMatrix(e.Stdout, m)
		failed = failed || !m.Complete()
	}
	if failed {
		return fmt.Errorf("somebody does not reach somebody: see the matrix above")
	}
	return showPolicy(ctx, e, st)
}

// showRoutes prints what the first host learned by BGP.
func showRoutes(ctx context.Context, e *Env, st lab.State) error {
	if len(st.Hosts) < 2 {
		return nil
	}
	routes, err := agentclient.New(st.Hosts[0].Socket).Routes(ctx)
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, h := range st.Hosts {
		for _, a := range h.Addresses {
			names[a] = h.Name
		}
	}
	fmt.Fprintf(e.Stdout, "\n%s\n\n", heading(e, "What "+st.Hosts[0].Name+" learned by BGP"))
	t := table{header: []string{"PREFIX", "NEXT HOP", "FROM"}}
	for _, r := range routes.Learned {
		t.add(r.Prefix, r.NextHop, sender(r, names))
	}
	t.print(e.Stdout)
	return nil
}

// sender is the host that a route came from, or its address.
func sender(r agentapi.BGPRoute, names map[string]string) string {
	if n, ok := names[r.Peer]; ok {
		return n
	}
	return r.Peer
}

// heading stands out on a terminal.
func heading(e *Env, s string) string {
	if e.Terminal && e.Getenv("NO_COLOR") == "" {
		return "\x1b[1m" + s + "\x1b[0m"
	}
	return s
}

// ofLab is what names a lab in a command about it.
func ofLab(name string) string {
	if name == "lab" {
		return ""
	}
	return " --name " + name
}

// goOn says what to type next, about a lab that is up or about a new one.
func goOn(up bool, name string) string {
	lines := []string{"", "To play with one yourself:", ""}
	sudo := "sudo "
	if os.Geteuid() == 0 {
		sudo = ""
	}
	if !up {
		name = "lab"
		lines = append(lines, "  "+sudo+"bin/brindle lab up")
	}
	probe := "lab probe w1 w3 80/tcp"
	if up { // with the shop's policies
		probe = "lab probe w1 w3 8080/tcp"
	}
	for _, l := range []string{
		"lab exec w1 -- ip route", probe, "lab workload add db --host h2 -l app=db", "lab verify", "lab down",
	} {
		lines = append(lines, "  "+sudo+"bin/brindle lab"+ofLab(name)+strings.TrimPrefix(l, "lab"))
	}
	return strings.Join(lines, "\n") + "\n"
}
