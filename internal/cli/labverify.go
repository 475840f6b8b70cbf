package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/lab"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/policytest"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

func labVerify(e *Env, name *string) *cobra.Command {
	output := ""
	c := &cobra.Command{
		Use: "verify [WORKLOAD…]", Short: "Compare real packets between all workloads with what the policies say",
		Long: `Send real packets between every two workloads, both ways, in each address family,
to TCP and UDP ports 80, 443, 5432 and 8080 and by ICMP, and compare who answers
with what the policies in the datastore say. With names, only between those.
Silence counts only where the workload's own host gets an answer, and a row that
differs is tried again.

Exit status: 0 all agree, 1 some rows differ, which are shown, 2 it could not be
told.`,
		RunE: func(c *cobra.Command, args []string) error {
			if output != "" && output != "json" {
				return withStatus(fmt.Errorf("output format %q: must be json, or nothing for a table", output))
			}
			v, err := verify(c.Context(), *name, args)
			if err != nil {
				return withStatus(err)
			}
			if output == "json" {
				err = writeJSON(e.Stdout, v)
			} else {
				v.print(e)
			}
			if err == nil && len(v.Differ) > 0 {
				err = &ExitError{Status: statusNo}
			}
			return err
		},
	}
	c.Flags().StringVarP(&output, "output", "o", output, "json, or nothing for a table")
	return c
}

// verification is what became of a survey.
type verification struct {
	Flows   int         `json:"flows"`   // connections tried
	Allowed int         `json:"allowed"` // by the policies
	Denied  int         `json:"denied"`
	Differ  []differing `json:"differ"`
	Took    string      `json:"took"`
}

// differing is a connection of which packets and policies say different things.
type differing struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Address  string `json:"address"`
	Target   string `json:"target"`
	Measured string `json:"measured"` // answered, silent or unmeasured
	Policies string `json:"policies"` // allowed or denied
	Why      string `json:"why"`      // what decided
}

// verify surveys the named workloads of a lab, or all, and compares.
func verify(ctx context.Context, name string, only []string) (*verification, error) {
	began := time.Now()
	cl, err := lab.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := cl.Status(ctx)
	if err != nil {
		return nil, err
	}
	members := st.WorkloadMembers()
	if len(only) > 0 {
		members = nil
		for _, n := range only {
			m, err := st.Find(n)
			if err != nil {
				return nil, err
			}
			members = append(members, m)
		}
	}
	flows := lab.Flows(members)
	v := &verification{Flows: len(flows), Differ: []differing{}}
	// What was changed a moment ago may not be everywhere yet: rows that differ
	// are judged and tried once more.
	for range 2 {
		verdicts, err := judgeFlows(ctx, name, flows)
		if err != nil {
			return nil, err
		}
		if v.Allowed+v.Denied == 0 {
			v.count(verdicts)
		}
		found, err := survey(ctx, st, flows, verdicts)
		if err != nil {
			return nil, err
		}
		flows, v.Differ = differences(flows, found, verdicts)
		if len(flows) == 0 {
			break
		}
	}
	v.Took = time.Since(began).Round(100 * time.Millisecond).String()
	return v, nil
}

func survey(ctx context.Context, st lab.State, flows []lab.Flow, verdicts []oracle.Verdict) ([]lab.Cell, error) {
	expected := make([]bool, len(flows))
	for i, v := range verdicts {
		expected[i] = v.Allowed
	}
	return lab.Survey(ctx, st, flows, expected)
}

func (v *verification) count(verdicts []oracle.Verdict) {
	for _, x := range verdicts {
		if x.Allowed {
			v.Allowed++
		} else {
			v.Denied++
		}
	}
}

// judgeFlows asks the oracle about flows in a lab as its datastore is now.
func judgeFlows(ctx context.Context, name string, flows []lab.Flow) ([]oracle.Verdict, error) {
	driver, err := etcd.New(etcd.Config{Endpoints: []string{lab.Endpoints(name)}})
	if err != nil {
		return nil, fmt.Errorf("open the lab's datastore: %w", err)
	}
	defer driver.Close()
	c, err := liveCluster(ctx, newSession(driver))
	if err != nil {
		return nil, err
	}
	view := oracle.NewView(c.Snapshot())
	var out []oracle.Verdict
	for _, f := range flows {
		protocol, err := protocolNumber(f.Protocol)
		if err != nil {
			return nil, err
		}
		out = append(out, view.Outcome(policytest.NewFlow(protocol, f.Source, f.Dest, f.Port)))
	}
	return out, nil
}

// differences returns the flows where packets and policies differ.
func differences(flows []lab.Flow, found []lab.Cell, verdicts []oracle.Verdict) ([]lab.Flow, []differing) {
	var again []lab.Flow
	out := []differing{}
	for i, f := range flows {
		allowed := verdicts[i].Allowed
		if found[i] == lab.Reached && allowed || found[i] == lab.Silent && !allowed {
			continue
		}
		again = append(again, f)
		out = append(out, differing{
			From: f.From.Name, To: f.To.Name, Address: f.Dest.String(), Target: f.Target(),
			Measured: compare(allowed, found[i]).measured, Policies: yesNo(allowed, "allowed", "denied"),
			Why: policytest.Why(verdicts[i]),
		})
	}
	return again, out
}

func (v *verification) print(e *Env) {
	if len(v.Differ) > 0 {
		t := table{header: []string{"FROM", "TO", "ADDRESS", "PORT", "PACKETS", "POLICIES", "WHY"}}
		for _, d := range v.Differ {
			t.add(d.From, d.To, d.Address, d.Target, d.Measured, d.Policies, d.Why)
		}
		t.print(e.Stdout)
		fmt.Fprintln(e.Stdout)
	}
	fmt.Fprintf(e.Stdout, "%d connections tried in %s: the policies allow %d and deny %d, %s\n",
		v.Flows, v.Took, v.Allowed, v.Denied,
		yesNo(len(v.Differ) == 0, "and packets agree", fmt.Sprintf("and packets differ in %d", len(v.Differ))))
}
