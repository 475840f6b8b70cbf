package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/agent"
	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/agentclient"
	"github.com/brindle-net/brindle/internal/policytest"
)

// newPolicy builds `brindle policy`.
func newPolicy(e *Env) *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Test policies, and see which are used", GroupID: "look"}
	c.AddCommand(newPolicyTest(e), newPolicyStats(e))
	return c
}

// newPolicyTest builds `brindle policy test`.
func newPolicyTest(e *Env) *cobra.Command {
	var files clusterFiles
	output, staged := "text", false
	c := &cobra.Command{
		Use: "test -f FOLDER", Short: "Check assertions on who may talk to whom, without a network", Args: cobra.NoArgs,
		Long: `Check assertions on who may talk to whom. The files hold a cluster, as explain -f
takes it, and documents of kind PolicyTest; nothing else is asked, and no root
is needed:

  apiVersion: brindle.net/v1
  kind: PolicyTest
  metadata: {name: shop}
  spec:
    workloads:            # in short, if the files have no pods or endpoints
    - {name: web, namespace: shop, labels: {tier: web}}
    - {name: db, namespace: shop, labels: {tier: db}, ports: [{name: sql, port: 5432}]}
    assertions:
    - {from: shop/web, to: shop/db, port: 5432, verdict: allow, by: shop/db}
    - {from: "*", except: [shop/web], to: shop/db, port: 5432, verdict: deny}
    - {from: shop/db, to: 192.0.2.1, protocol: ICMP, verdict: deny, by: tier default}

from and to are namespace/name, a name, a pattern of these with * and ?, or an
address; every connection that a pattern means must have the verdict, in each
address family that both ends have. by names what must have decided: a policy
or profile with or without its kind, one of its rules ("shop/db ingress[0]"), the
end of a tier ("tier default") or of the profiles ("profiles").

Exit status: 0 every assertion holds, 1 some do not, 2 it could not be told.`,
		Example: `  brindle policy test -f policies/
  brindle policy test -f policies/ -o junit >report.xml`,
		RunE: func(c *cobra.Command, _ []string) error {
			defer agent.KeepHeapFloor(filesFloor)()
			return withStatus(policyTest(c.Context(), e, policyTesting{&files, output, staged}))
		},
	}
	files.add(c)
	c.Flags().StringVarP(&output, "output", "o", output, "text, junit, sarif or json")
	c.Flags().BoolVar(&staged, "staged", false, "as if staged policies were enforced")
	return c
}

// policyTesting is what the flags of `policy test` say.
type policyTesting struct {
	files  *clusterFiles
	output string
	staged bool
}

func policyTest(ctx context.Context, e *Env, t policyTesting) error {
	if !slices.Contains([]string{"text", "junit", "sarif", "json"}, t.output) {
		return fmt.Errorf("output format %q: must be text, junit, sarif or json", t.output)
	}
	cluster, docs, err := t.files.read(ctx, e)
	if err != nil {
		return err
	}
	if t.staged {
		cluster = cluster.Enforced()
	}
	results := policytest.Run(cluster, docs)
	if len(results) == 0 {
		return errors.New("there is no PolicyTest in the files: see `brindle policy test --help`")
	}
	var report []byte
	switch t.output {
	case "text":
		report = []byte(clean(policytest.Text(results)))
	case "junit":
		report, err = policytest.JUnit(results)
	case "sarif":
		report, err = policytest.SARIF(results, e.Build)
	case "json":
		err = writeJSON(e.Stdout, policytest.Summarize(results))
	}
	if err != nil {
		return err
	}
	if _, err := e.Stdout.Write(report); err != nil {
		return err
	}
	if slices.ContainsFunc(results, policytest.Result.Failed) {
		return &ExitError{Status: statusNo}
	}
	return nil
}

// newPolicyStats builds `brindle policy stats`.
func newPolicyStats(e *Env) *cobra.Command {
	var a agentFlags
	var ds datastoreFlags
	unused := false
	c := &cobra.Command{
		Use: "stats", Short: "Show how often each rule decided, and since when it has not", Args: cobra.NoArgs,
		Long: `Show how often each rule of policies and profiles decided on this host, and when
it last did. Of a connection its first packet counts. In a lab, that is where
the datastore is a lab's, the hosts are added up.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.output != "" && a.output != "json" {
				return fmt.Errorf("output format %q: must be json, or nothing for a table", a.output)
			}
			sockets, err := statSockets(c, e, &a, &ds)
			if err != nil {
				return err
			}
			stats, err := sumStats(c.Context(), sockets)
			if err != nil {
				return err
			}
			if unused {
				stats.Rules = slices.DeleteFunc(stats.Rules, func(r agentapi.RuleStat) bool { return r.Packets > 0 })
			}
			if a.output == "json" {
				return writeJSON(e.Stdout, stats)
			}
			printStats(e, stats)
			return nil
		},
	}
	a.add(c, e)
	ds.addClient(c)
	c.Flags().BoolVar(&unused, "unused", false, "only rules that have matched nothing")
	return c
}

// statSockets are those of the agents to ask: that of this host, or all of a
// lab.
func statSockets(c *cobra.Command, e *Env, a *agentFlags, ds *datastoreFlags) ([]string, error) {
	if c.Flags().Changed("socket") || !ds.configured(e) || e.Getenv("BRINDLE_SOCKET") != "" {
		return []string{a.socket}, nil
	}
	st, err := ds.lab(c.Context(), e)
	if err != nil || st == nil {
		return []string{a.socket}, err
	}
	var out []string
	for _, h := range st.Hosts {
		out = append(out, h.Socket)
	}
	return out, nil
}

// sumStats asks agents and adds up what they say. Counting began when it did
// on the last of them.
func sumStats(ctx context.Context, sockets []string) (agentapi.PolicyStats, error) {
	type rule struct {
		owner, direction string
		index            int
	}
	all := map[rule]agentapi.RuleStat{}
	out := agentapi.PolicyStats{Rules: []agentapi.RuleStat{}}
	for _, s := range sockets {
		got, err := agentclient.New(s).PolicyStats(ctx)
		if errors.Is(err, agentclient.ErrNoAgent) {
			return out, fmt.Errorf("%w: start it with `brindle agent`, or name its socket with --socket", err)
		}
		if err != nil {
			return out, err
		}
		out.Since = max(out.Since, got.Since)
		for _, r := range got.Rules {
			key := rule{r.Owner, r.Direction, r.Index}
			sum := all[key]
			r.Packets, r.Bytes, r.LastHit = r.Packets+sum.Packets, r.Bytes+sum.Bytes, max(r.LastHit, sum.LastHit)
			all[key] = r
		}
	}
	for _, r := range all {
		out.Rules = append(out.Rules, r)
	}
	slices.SortFunc(out.Rules, func(a, b agentapi.RuleStat) int {
		return cmp.Or(strings.Compare(a.Owner, b.Owner), strings.Compare(a.Direction, b.Direction), cmp.Compare(a.Index, b.Index))
	})
	return out, nil
}

func printStats(e *Env, stats agentapi.PolicyStats) {
	t := table{header: []string{"POLICY", "RULE", "PACKETS", "BYTES", "LAST HIT"}}
	for _, r := range stats.Rules {
		last := r.LastHit
		if last == "" {
			last = "not since " + stats.Since
		}
		t.add(r.Owner, fmt.Sprintf("%s[%d]", r.Direction, r.Index), fmt.Sprint(r.Packets), fmt.Sprint(r.Bytes), last)
	}
	t.print(e.Stdout)
}
