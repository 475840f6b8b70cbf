package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/ipam"
)

// newIPAMSplit builds `brindle ipam split`.
func newIPAMSplit(e *Env) *cobra.Command {
	var ds datastoreFlags
	var cidr, name string
	c := &cobra.Command{
		Use: "split NUMBER (--cidr CIDR | --name NAME)", Short: "Split a pool into smaller ones", Args: cobra.ExactArgs(1),
		Long: `Split a pool into NUMBER pools of equal size, a power of two, that are otherwise
as it was. They are named split-NAME-0 and so on, and take its place. Blocks and
addresses stay as they are. The datastore must be locked, so that nobody makes
or deletes pools meanwhile: "brindle datastore migrate lock".`,
		Example: `  brindle datastore migrate lock
  brindle ipam split 4 --name pool-a
  brindle datastore migrate unlock`,
		RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil {
				return fmt.Errorf("number of parts %q: must be a power of two", args[0])
			}
			if (cidr == "") == (name == "") {
				return errors.New("give --cidr CIDR or --name NAME, one of the two")
			}
			db, err := ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			return split(c.Context(), e, db, name+cidr, n)
		},
	}
	ds.addClient(c)
	c.Flags().StringVar(&cidr, "cidr", "", "CIDR of the pool")
	c.Flags().StringVar(&name, "name", "", "name of the pool")
	completeFlag(c, "name", completePools(e, &ds, 1))
	return c
}

// completePools offers the names of pools that are not among the arguments
// yet, which are so many at most.
func completePools(e *Env, ds *datastoreFlags, most int) completion {
	return func(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		kind, ok := v3.LookupKind("IPPool")
		if !ok || len(args) > most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := completer{e: e, ds: ds, namespace: new("")}.names(c.Context(), kind, prefix)
		return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(args, n) }), cobra.ShellCompDirectiveNoFileComp
	}
}

// split splits a pool of a locked datastore and lists the parts.
func split(ctx context.Context, e *Env, db *session, pool string, n int) error {
	var now ipam.Report
	if err := stamp(ctx, e, db, &now); err != nil {
		return err
	}
	if !now.DatastoreLocked {
		return errNotLocked
	}
	parts, err := db.addresses.SplitPool(ctx, pool, n)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.Stdout, "Successfully split pool %s into %d:\n\n", word(pool), n)
	t := table{header: []string{"NAME", "CIDR"}}
	for _, p := range parts {
		t.add(p.Name, p.CIDR.String())
	}
	t.print(e.Stdout)
	return nil
}
