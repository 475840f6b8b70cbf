package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/store"
)

// statusLeft is the exit status of `brindle ipam migrate` while somebody still
// has an address of the old pool.
const statusLeft = 2

// How long hosts have to hear that a pool is disabled, and how often a waiting
// migration looks whether or not it has heard of a change.
const (
	hearPool   = 500 * time.Millisecond
	lookAgain  = 10 * time.Second
	watchAgain = time.Second
)

// migrateOptions are the flags of `brindle ipam migrate`.
type migrateOptions struct {
	ds      datastoreFlags
	dryRun  bool
	wait    bool
	timeout time.Duration
	output  string
}

// newIPAMMigrate builds `brindle ipam migrate`.
func newIPAMMigrate(e *Env) *cobra.Command {
	var o migrateOptions
	c := &cobra.Command{
		Use: "migrate POOL NEWPOOL", Short: "Move from one pool to another, block by block", Args: cobra.ExactArgs(2),
		Long: `Move from one pool to another: disable POOL, so that new addresses come from
NEWPOOL, take its blocks back as nobody uses them any more, and say who still
has an address of it and what to restart. Addresses in use stay with their
owners. Both pools are given by name or CIDR.

It may be stopped at any time: the same command goes on with what is left. With
--wait it goes on by itself until nothing is. When the pool is empty, delete it;
to go back before, enable it again.

Exit status: 0 nothing is left in POOL, 1 it failed, 2 something is left.`,
		Example: `  brindle ipam migrate pool-a pool-b --dry-run
  brindle ipam migrate pool-a pool-b --wait --timeout 1h`,
		RunE: func(c *cobra.Command, args []string) error {
			if o.output != "" && o.output != "json" {
				return fmt.Errorf("output format %q: must be json, or nothing for a table", o.output)
			}
			switch {
			case o.wait && o.dryRun:
				return errors.New("give --wait or --dry-run, not both")
			case c.Flags().Changed("timeout") && !o.wait:
				return errors.New("--timeout says how long to wait: give --wait too")
			case o.timeout < 0:
				return fmt.Errorf("--timeout %s: must not be negative", o.timeout)
			}
			db, err := o.ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			m := migration{e: e, db: db, o: &o}
			return m.run(c.Context(), args[0], args[1])
		},
	}
	o.ds.addClient(c)
	c.ValidArgsFunction = completePools(e, &o.ds, 1)
	f := c.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "change nothing, say what would be done")
	f.BoolVar(&o.wait, "wait", false, "go on until nothing is left")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait; 0: for ever")
	f.StringVarP(&o.output, "output", "o", "", "json, or nothing for a table")
	return c
}

// migration is one run of `brindle ipam migrate`. Its fields are printed with
// -o json.
type migration struct {
	e  *Env
	db *session
	o  *migrateOptions

	cidr    netip.Prefix // of the old pool
	shown   string       // the line of progress on the terminal
	outcome struct {
		Pool     string      `json:"pool"`
		NewPool  string      `json:"newPool"`
		DryRun   bool        `json:"dryRun"`
		Empty    bool        `json:"empty"` // or will be, once the pool is deleted
		Blocks   int         `json:"blocks"`
		Released int         `json:"released"`
		Left     []ipam.Left `json:"left"`
	}
}

func (m *migration) run(ctx context.Context, from, to string) error {
	plan, err := m.db.addresses.CheckMigration(ctx, from, to)
	if err != nil {
		return err
	}
	warn(m.e, plan.Warnings)
	m.cidr = plan.From.CIDR
	out := &m.outcome
	out.Pool, out.NewPool, out.DryRun, out.Left = plan.From.Name, plan.To.Name, m.o.dryRun, []ipam.Left{}
	if !m.o.dryRun {
		if err := m.disable(ctx); err != nil {
			return err
		}
	}
	err = m.drain(ctx)
	m.clear()
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("stopped after %s: the same command goes on with what is left", many(out.Released, "block", "s"))
	}
	if err != nil {
		return err
	}
	if m.o.output == "json" {
		err = writeJSON(m.e.Stdout, out)
	} else {
		m.print()
	}
	if err == nil && !out.Empty {
		err = &ExitError{Status: statusLeft}
	}
	return err
}

// disable makes new addresses come from elsewhere, and lets hosts hear of it.
func (m *migration) disable(ctx context.Context) error {
	was := false
	_, err := client.Modify(ctx, m.db.Client, "", m.outcome.Pool, func(p *v3.IPPool) error {
		was, p.Spec.Disabled = p.Spec.Disabled, true
		return nil
	})
	if err != nil || was {
		return err
	}
	return store.Pause(ctx, hearPool)
}

// drain drains the pool once, or while there is something to wait for.
func (m *migration) drain(ctx context.Context) error {
	if !m.o.wait {
		return m.pass(ctx)
	}
	wait := ctx
	if m.o.timeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, m.o.timeout)
		defer cancel()
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	changes := m.db.driver.Watch(watching, store.BlockRoot, "")
	for first := true; ; first = false {
		if err := m.pass(ctx); err != nil {
			if !first && ctx.Err() != nil {
				return nil // stopped while it waited: what was left is known
			}
			return err
		}
		if m.outcome.Empty || wait.Err() != nil {
			return nil
		}
		if m.news(wait, changes) {
			continue
		}
		if wait.Err() != nil {
			return nil
		}
		if store.Pause(wait, watchAgain) != nil {
			return nil
		}
		changes = m.db.driver.Watch(watching, store.BlockRoot, "")
	}
}

// news waits until a block of the pool has changed, or it is time to look all
// the same; false when the watch or the waiting has ended.
func (m *migration) news(ctx context.Context, changes <-chan store.Batch) bool {
	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case batch, ok := <-changes:
			if !ok {
				return false
			}
			for _, ev := range batch.Events {
				if cidr, ok := store.ParseBlockKey(ev.Key); ok && m.cidr.Contains(cidr.Addr()) {
					return true
				}
			}
		}
	}
}

// pass drains the pool once and adds it to the outcome.
func (m *migration) pass(ctx context.Context) error {
	out := &m.outcome
	o := ipam.DrainOptions{DryRun: m.o.dryRun}
	if m.e.ErrTerminal && m.o.output == "" && m.shown == "" {
		o.Step = func(done, all int) { m.show("block %d of %d", done, all) }
	}
	d, err := m.db.addresses.DrainPool(ctx, out.Pool, o)
	if d != nil {
		out.Released += d.Released
	}
	if err != nil {
		return err
	}
	out.Blocks = max(out.Blocks, out.Released+d.Blocks-d.Released)
	out.Left, out.Empty = d.Left, d.Open() == 0
	if m.o.wait && !out.Empty && m.e.ErrTerminal && m.o.output == "" {
		m.show("%s of %d given up; waiting for %s (Ctrl-C stops, the same command goes on)",
			many(out.Released, "block", "s"), out.Blocks, many(d.Open(), "address", "es"))
	}
	return nil
}

// show writes the line of progress anew.
func (m *migration) show(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != m.shown {
		m.shown = text
		fmt.Fprint(m.e.Stderr, "\r\x1b[K"+text)
	}
}

// clear takes the line of progress away.
func (m *migration) clear() {
	if m.shown != "" {
		fmt.Fprint(m.e.Stderr, "\r\x1b[K")
	}
}

// print says what was done, what is left and what to do.
func (m *migration) print() {
	out, w := &m.outcome, m.e.Stdout
	pool := word(out.Pool) // a stored name may be anything
	first, given := "Pool %s is disabled: new addresses come from %s.\n", "%d of %s given up.\n"
	if out.DryRun {
		first, given = "Pool %s would be disabled: new addresses would come from %s.\n", "%d of %s would be given up.\n"
	}
	fmt.Fprintf(w, first, pool, word(out.NewPool))
	if out.Blocks > 0 {
		fmt.Fprintf(w, given, out.Released, many(out.Blocks, "block", "s"))
	}
	if len(out.Left) > 0 {
		fmt.Fprintf(w, "%s left:\n\n", many(len(out.Left), "address", "es"))
		t := table{header: []string{"IP", "NODE", "OWNER", "WHAT TO DO"}}
		for _, l := range out.Left {
			t.add(l.Addr.String(), l.Node, l.Owner, l.Remedy)
		}
		t.print(w)
		fmt.Fprintln(w)
	}
	switch {
	case out.DryRun:
	case !out.Empty:
		fmt.Fprintln(w, "When that is done, the same command goes on.")
	case len(out.Left) > 0:
		fmt.Fprintf(w, "The rest goes with the pool: `brindle delete ippool %s`.\n", pool)
	default:
		fmt.Fprintf(w, "The pool is empty: `brindle delete ippool %s` removes it.\n", pool)
	}
}
