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
	output, all := "", false
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
			if all {
				v.Rows = v.tried
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
	c.Flags().BoolVar(&all, "all", all, "show every row, also where packets and policies agree")
	return c
}

// verification is what became of a survey.
type verification struct {
	Flows   int     `json:"flows"`   // connections tried
	Allowed int     `json:"allowed"` // by the policies
	Denied  int     `json:"denied"`
	Differ  []tried `json:"differ"`
	Rows    []tried `json:"rows,omitempty"` // of all flows, where they are asked for
	Took    string  `json:"took"`

	tried []tried // all flows, at the last try of each
}

// tried is a connection with what packets and what the policies say of it.
type tried struct {
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
	v := &verification{Flows: len(flows), Differ: []tried{}, tried: make([]tried, len(flows))}
	at := make([]int, len(flows)) // the row of each flow
	for i := range at {
		at[i] = i
	}
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
		v.Differ = v.Differ[:0]
		var again []lab.Flow
		var rows []int
		for i, f := range flows {
			row, same := tryOutcome(f, found[i], verdicts[i])
			v.tried[at[i]] = row
			if !same {
				again, rows, v.Differ = append(again, f), append(rows, at[i]), append(v.Differ, row)
			}
		}
		if flows, at = again, rows; len(flows) == 0 {
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

// tryOutcome says what became of a flow, and whether packets and policies agree.
func tryOutcome(f lab.Flow, found lab.Cell, verdict oracle.Verdict) (tried, bool) {
	return tried{
		From: f.From.Name, To: f.To.Name, Address: f.Dest.String(), Target: f.Target(),
		Measured: compare(verdict.Allowed, found).measured, Policies: yesNo(verdict.Allowed, "allowed", "denied"),
		Why: policytest.Why(verdict),
	}, found == lab.Reached && verdict.Allowed || found == lab.Silent && !verdict.Allowed
}

func (v *verification) print(e *Env) {
	rows := v.Differ
	if v.Rows != nil {
		rows = v.Rows
	}
	if len(rows) > 0 {
		t := table{header: []string{"FROM", "TO", "ADDRESS", "PORT", "PACKETS", "POLICIES", "WHY"}}
		for _, d := range rows {
			t.add(d.From, d.To, d.Address, d.Target, d.Measured, d.Policies, d.Why)
		}
		t.print(e.Stdout)
		fmt.Fprintln(e.Stdout)
	}
	fmt.Fprintf(e.Stdout, "%d connections tried in %s: the policies allow %d and deny %d, %s\n",
		v.Flows, v.Took, v.Allowed, v.Denied,
		yesNo(len(v.Differ) == 0, "and packets agree", fmt.Sprintf("and packets differ in %d", len(v.Differ))))
}
