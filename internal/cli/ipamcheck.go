package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
)

// newIPAMAudit builds `brindle ipam audit`.
func newIPAMAudit(e *Env) *cobra.Command {
	var ds datastoreFlags
	output, grace := "", ipam.DefaultGrace
	c := &cobra.Command{
		Use: "audit", Short: "List every address with its owner, and every leak with the reason", Args: cobra.NoArgs,
		Long: `List every address that is not free, with who has it, and every leak with the
reason. An address without an owner that is younger than the grace period may be
being set up: it is no leak yet.

Exit status 1 when there is a leak.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("output format %q: must be json, or nothing for a table", output)
			}
			if grace <= 0 {
				return fmt.Errorf("--grace-period %s: must be more than nothing", grace)
			}
			db, err := ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			a, err := db.addresses.Audit(c.Context(), nil, grace)
			if err != nil {
				return err
			}
			if output == "json" {
				if a.Addresses == nil {
					a.Addresses = []ipam.Audited{}
				}
				err = writeJSON(e.Stdout, a)
			} else {
				printAudit(e, a)
			}
			if err == nil && a.Leaks > 0 {
				return &ExitError{Status: 1}
			}
			return err
		},
	}
	ds.addClient(c)
	c.Flags().StringVarP(&output, "output", "o", "", "json, or nothing for a table")
	c.Flags().DurationVar(&grace, "grace-period", grace, "age from which an address without an owner is a leak")
	return c
}

func printAudit(e *Env, a *ipam.Audit) {
	t := table{header: []string{"IP", "NODE", "HANDLE", "STANDING", "OWNER", "LEAK", "REASON"}}
	for _, x := range a.Addresses {
		t.add(x.Addr.String(), x.Node, x.Handle, string(x.Standing), x.Owner, yesNo(x.Leak, "LEAK", ""), x.Reason)
	}
	if len(t.rows) > 0 {
		t.print(e.Stdout)
		fmt.Fprintln(e.Stdout)
	}
	fmt.Fprintf(e.Stdout, "Audit complete; %s, %s.\n", many(len(a.Addresses), "address", "es"), many(a.Leaks, "leak", "s"))
}

// newIPAMCheck builds `brindle ipam check`.
func newIPAMCheck(e *Env) *cobra.Command {
	var ds datastoreFlags
	var file, kubeconfig string
	var all, problems bool
	c := &cobra.Command{
		Use: "check", Short: "Compare what is stored about addresses with who uses them", Args: cobra.NoArgs,
		Long: `Compare what is stored about addresses with who uses them. Exit status 0 also
when there are problems, as with calicoctl; "brindle ipam audit" has 1 then.
What -o writes can be given to "brindle ipam release --from-report".`,
		RunE: func(c *cobra.Command, _ []string) error {
			db, err := ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			r, err := db.addresses.Check(c.Context())
			if err != nil {
				return err
			}
			if err := stamp(c.Context(), e, db, r); err != nil {
				return err
			}
			if kubeconfig != "" {
				warn(e, []string{"--kubeconfig is not needed: the datastore is etcd"})
			}
			if err := writeReport(file, r); err != nil {
				return err
			}
			printCheck(e, r, all, all || problems)
			return nil
		},
	}
	ds.addClient(c)
	f := c.Flags()
	f.BoolVar(&all, "show-all-ips", false, "every address, and every problem")
	f.BoolVar(&problems, "show-problem-ips", false, "every problem")
	f.StringVarP(&file, "output", "o", "", "also write a report to this file, as JSON")
	f.StringVar(&kubeconfig, "kubeconfig", "", "not needed, for scripts that give it")
	return c
}

func writeReport(file string, r *ipam.Report) error {
	if file == "" {
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o600)
}

// stamp says in a report of which cluster it is, and when.
func stamp(ctx context.Context, e *Env, db *session, r *ipam.Report) error {
	r.Version = e.Build
	info, err := client.Get[v3.ClusterInformation](ctx, db.Client, "", v3.DefaultName)
	if client.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	r.ClusterGUID, r.ClusterType, r.ClusterInformationRevision = info.Spec.ClusterGUID, info.Spec.ClusterType, info.ResourceVersion
	r.DatastoreLocked = info.Spec.DatastoreReady != nil && !*info.Spec.DatastoreReady
	return nil
}

func printCheck(e *Env, r *ipam.Report, all, problems bool) {
	fmt.Fprintf(e.Stdout, "Found %s with %s, %s, and %s that somebody uses.\n", many(r.Blocks, "block", "s"),
		many(len(r.Allocations), "address", "es"), many(r.Handles, "handle", "s"), many(r.InUse, "address", "es"))
	if all {
		t := table{header: []string{"IP", "NODE", "HANDLE", "IN USE BY"}}
		for _, ip := range sortedIPs(r.Allocations) {
			for _, a := range r.Allocations[ip] {
				by := strings.Join(a.Owners, ",")
				if by == "" {
					by = yesNo(a.CoolingDown, "nobody: cooling down", "nobody")
				}
				t.add(a.IP, a.Node, a.Handle, by)
			}
		}
		fmt.Fprintln(e.Stdout)
		t.print(e.Stdout)
		fmt.Fprintln(e.Stdout)
	}
	for _, p := range r.Problems {
		if problems {
			fmt.Fprintf(e.Stdout, "  %s\n", word(p))
		}
	}
	if len(r.Problems) > 0 && !problems {
		fmt.Fprintln(e.Stdout, "--show-problem-ips names the problems.")
	}
	fmt.Fprintf(e.Stdout, "Check complete; found %d problems.\n", len(r.Problems))
}

// many counts things in words.
func many(n int, one, ending string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s%s", n, one, ending)
}

// sortedIPs sorts addresses as numbers.
func sortedIPs[V any](m map[string]V) []string {
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		x, errX := netip.ParseAddr(a)
		y, errY := netip.ParseAddr(b)
		if errX != nil || errY != nil {
			return strings.Compare(a, b)
		}
		return x.Compare(y)
	})
}

// releaseOptions are the flags of `brindle ipam release`.
type releaseOptions struct {
	ds      datastoreFlags
	ip      string
	reports []string
	force   bool
}

// newIPAMRelease builds `brindle ipam release`.
func newIPAMRelease(e *Env) *cobra.Command {
	var o releaseOptions
	c := &cobra.Command{
		Use: "release (--ip ADDRESS | --from-report FILE…)", Short: "Release addresses that nobody uses", Args: cobra.NoArgs,
		Long: `Release one address, or what every one of the given reports found leaked. A
report is what "brindle ipam check -o FILE" wrote; give two that lie some time
apart, so that what was being set up is not taken for leaked.

Reports must be of this cluster, and one of them current. Unless --force is
given they must also be of this version of brindle and taken while the
datastore was locked, and --ip releases no address that a workload has.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if (o.ip == "") == (len(o.reports) == 0) {
				return errors.New("give --ip ADDRESS or --from-report FILE, one of the two")
			}
			var addr netip.Addr
			var reports []*ipam.Report
			var err error
			if o.ip != "" {
				addr, err = parseIP("--ip", o.ip)
			} else {
				reports, err = readReports(o.reports)
			}
			if err != nil {
				return err
			}
			db, err := o.ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			if o.ip != "" {
				return o.one(c.Context(), e, db, addr)
			}
			return o.leaked(c.Context(), e, db, reports)
		},
	}
	o.ds.addClient(c)
	f := c.Flags()
	f.StringVar(&o.ip, "ip", "", "address to release")
	f.StringArrayVar(&o.reports, "from-report", nil, "file that \"brindle ipam check -o\" wrote; again for more")
	f.BoolVar(&o.force, "force", false, "also when reports are of another version or the datastore was not locked, or a workload has the address")
	return c
}

// one releases one address: exactly the assignment that was looked at.
func (o *releaseOptions) one(ctx context.Context, e *Env, db *session, a netip.Addr) error {
	u, err := db.addresses.AssignmentAttributes(ctx, a)
	if errors.Is(err, ipam.ErrNotAssigned) {
		return fmt.Errorf("IP address %s is not assigned", a)
	}
	if err != nil {
		return err
	}
	if !o.force {
		r, err := db.addresses.Check(ctx)
		if err != nil {
			return err
		}
		for _, x := range r.Allocations[a.String()] {
			if x.InUse {
				return fmt.Errorf("IP address %s is in use by %s: delete that, or give --force if nothing uses it", a, word(strings.Join(x.Owners, ", ")))
			}
		}
	}
	if err := db.addresses.Release(ctx, ipam.ReleaseOptions{Addr: a, Handle: u.Attribute.Handle, Sequence: u.Sequence}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.Stdout, "Successfully released IP address %s\n", a)
	return err
}

// readReports reads what `brindle ipam check -o` wrote.
func readReports(files []string) ([]*ipam.Report, error) {
	var out []*ipam.Report
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var r ipam.Report
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf("%s is no report of `brindle ipam check`: %w", name, err)
		}
		if r.ClusterGUID == "" || r.Allocations == nil {
			return nil, fmt.Errorf("%s is no report of `brindle ipam check`: clusterGUID or allocations is missing", name)
		}
		out = append(out, &r)
	}
	return out, nil
}

// leaked releases what all reports agree on.
func (o *releaseOptions) leaked(ctx context.Context, e *Env, db *session, reports []*ipam.Report) error {
	var now ipam.Report
	if err := stamp(ctx, e, db, &now); err != nil {
		return err
	}
	if err := o.sound(now, reports); err != nil {
		return err
	}
	addrs, handles, err := db.addresses.ReleaseLeaked(ctx, reports...)
	for _, a := range addrs {
		fmt.Fprintf(e.Stdout, "released %s\n", a)
	}
	for _, h := range handles {
		fmt.Fprintf(e.Stdout, "deleted handle %s\n", word(h))
	}
	if err != nil {
		return fmt.Errorf("after %s and %s: %w", many(len(addrs), "address", "es"), many(len(handles), "handle", "s"), err)
	}
	_, err = fmt.Fprintf(e.Stdout, "Successfully released %s and %s\n", many(len(addrs), "address", "es"), many(len(handles), "handle", "s"))
	return err
}

// sound says whether reports may be released from (documented Calico
// behaviour).
func (o *releaseOptions) sound(now ipam.Report, reports []*ipam.Report) error {
	current := false
	for i, r := range reports {
		name := o.reports[i]
		switch {
		case r.ClusterGUID != now.ClusterGUID:
			return fmt.Errorf("%s is of another cluster: its GUID is %q, this one's %q", name, r.ClusterGUID, now.ClusterGUID)
		case o.force:
		case r.Version != now.Version:
			return fmt.Errorf("%s was written by version %q, this is %q: check again, or give --force", name, r.Version, now.Version)
		case !r.DatastoreLocked:
			return fmt.Errorf("%s was written while the datastore was not locked: an address that was being set up may look leaked; give --force if you know better", name)
		}
		current = current || r.ClusterInformationRevision == now.ClusterInformationRevision
	}
	if !current {
		return errors.New("no report is current: ClusterInformation has changed since; check again")
	}
	return nil
}
