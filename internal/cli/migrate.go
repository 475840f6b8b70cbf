package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
)

// newDatastore builds `brindle datastore`, of which calicoctl's users know the
// lock.
func newDatastore(e *Env) *cobra.Command {
	c := &cobra.Command{Use: "datastore", Short: "Look after the datastore", GroupID: "look"}
	migrate := &cobra.Command{Use: "migrate", Short: "Move to another datastore, and lock one while it is worked on"}
	for _, v := range []struct {
		use, short, long, done string
		ready                  bool
	}{
		{"lock", "Say that the datastore is being worked on",
			`Say that the datastore is being worked on: datastoreReady of ClusterInformation is
false then. Hosts set up and remove no workloads until it is unlocked, and their
agents say that they are not ready; packets go on. "brindle ipam split",
"brindle ipam release --from-report" and "brindle datastore migrate export" ask
for it.`, "Datastore locked.", false},
		{"unlock", "Say that the datastore is ready again", "Say that the datastore is ready again.", "Datastore unlocked.", true},
	} {
		var ds datastoreFlags
		one := &cobra.Command{
			Use: v.use, Short: v.short, Long: v.long, Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				db, err := ds.connect(e)
				if err != nil {
					return err
				}
				defer db.close()
				if err := setReady(c.Context(), db, v.ready); err != nil {
					return err
				}
				_, err = fmt.Fprintln(e.Stdout, v.done)
				return err
			},
		}
		ds.addClient(one)
		migrate.AddCommand(one)
	}
	migrate.AddCommand(newExport(e), newImport(e))
	c.AddCommand(migrate, newPolicyNames(e))
	return c
}

// setReady says in ClusterInformation, which users may not write, whether the
// datastore is ready.
func setReady(ctx context.Context, db *session, ready bool) error {
	c := client.New(db.driver, client.Config{Component: true})
	_, err := client.Modify(ctx, c, "", v3.DefaultName, func(info *v3.ClusterInformation) error {
		info.Spec.DatastoreReady = &ready
		return nil
	})
	return err
}
