package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/agentclient"
)

// newNodePaths builds `brindle node paths`.
func newNodePaths(e *Env) *cobra.Command {
	var a agentFlags
	now := false
	c := &cobra.Command{
		Use: "paths", Short: "Show what was measured of the ways to other hosts", Args: cobra.NoArgs,
		Long: `Show what the agent of this host has measured of the ways to other hosts through
tunnels, and what to do about those that lose packets. Exit status 1 when there
is one.

FITS is the largest packet that passes whole. SMALL and SUM are small datagrams
without and with a checksum, FULL is one of the MTU, WHOLE the same in a packet
that must not be cut on the way, OVER one byte more, TCP a connection. Ways are
measured when they change and every few minutes; --now does so at once.`,
		RunE: func(c *cobra.Command, _ []string) error {
			wide := a.output == "wide"
			switch a.output {
			case "", "json":
			case "wide":
				a.output = ""
			default:
				return fmt.Errorf("output format %q: must be json, wide, or nothing for a table", a.output)
			}
			got, printed, err := ask(c.Context(), e, &a, func(cl *agentclient.Client, ctx context.Context) (agentapi.Paths, error) {
				return cl.Paths(ctx, now)
			})
			if err != nil {
				return err
			}
			if !printed {
				printNodePaths(e, got, wide, time.Now())
			}
			if !got.Condition.Status {
				return &ExitError{Status: 1}
			}
			return nil
		},
	}
	a.add(c, e)
	c.Flags().Lookup("output").Usage = "json, wide, or nothing for a table"
	c.Flags().BoolVar(&now, "now", false, "measure all of them first (up to half a minute)")
	return c
}

func printNodePaths(e *Env, p agentapi.Paths, wide bool, now time.Time) {
	switch {
	case p.Off:
		fmt.Fprintln(e.Stdout, "Paths are not measured: pathProbePort is 0.")
		return
	case len(p.Paths) == 0:
		fmt.Fprintln(e.Stdout, "No tunnel to another host is in use.")
		return
	}
	t := table{header: []string{"PEER", "DEVICE", "MTU", "FITS", "SMALL", "SUM", "FULL", "WHOLE", "OVER", "TCP", "OUTCOME", "AGE"}}
	if wide {
		t.header = append(t.header, "FORM", "HOST", "FROM", "TO", "RTT")
	}
	for _, x := range p.Paths {
		row := []string{word(x.Peer), x.Device, fmt.Sprint(x.MTU), countOr(x.Fits)}
		for _, check := range []string{x.Checks.Small, x.Checks.Sum, x.Checks.Full, x.Checks.Whole, x.Checks.Over, x.Checks.TCP} {
			row = append(row, dash(check))
		}
		row = append(row, x.Outcome, age(x.MeasuredAt, now))
		if wide {
			row = append(row, x.Form, dash(x.Node), x.Local, x.Remote, dash(rtt(x.RTTMicros)))
		}
		t.add(row...)
	}
	t.print(e.Stdout)
	fmt.Fprintln(e.Stdout)
	for _, o := range p.Offloads {
		why := ""
		if o.Why != "" {
			why = ": " + o.Why
		}
		fmt.Fprintf(e.Stdout, "Checksum offload of %s: %s%s\n", o.Device, yesNo(o.On, "on", "off"), why)
	}
	for _, x := range p.Paths {
		if x.Message != "" {
			fmt.Fprintln(e.Stdout, word(x.Message))
		}
	}
}

// dash stands for what there is nothing to say of.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// countOr is a number, or a dash.
func countOr(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// rtt writes a round trip.
func rtt(micros int64) string {
	if micros == 0 {
		return ""
	}
	return (time.Duration(micros) * time.Microsecond).String()
}

// age is how long ago a time was.
func age(at string, now time.Time) string {
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return "-"
	}
	return max(0, now.Sub(t).Truncate(time.Second)).String()
}
