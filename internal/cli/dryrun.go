package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// The ways not to write.
const (
	dryNone   = "none"
	dryClient = "client" // files are checked by themselves; no datastore is asked
	dryServer = "server" // all is done, on a copy that ends with the command
)

// dryRun is the flag that keeps a command from writing.
type dryRun struct{ mode string }

func (d *dryRun) add(c *cobra.Command) {
	c.Flags().StringVar(&d.mode, "dry-run", dryNone, "client: only check what is given by itself; server: check it against the datastore too, as if it was written; nothing is written")
	c.Flags().Lookup("dry-run").NoOptDefVal = dryClient
	completeFlag(c, "dry-run", oneOf(dryClient, dryServer, dryNone))
}

// addServer is add for commands that need what is stored.
func (d *dryRun) addServer(c *cobra.Command) {
	d.add(c)
	c.Flags().Lookup("dry-run").Usage = "client or server, which are the same here: do all but write"
}

func (d *dryRun) check() error {
	switch d.mode {
	case dryNone, dryClient, dryServer, "":
		return nil
	}
	return fmt.Errorf("--dry-run %q: must be client, server or none", d.mode)
}

// on reports whether nothing is to be written.
func (d *dryRun) on() bool { return d.mode == dryClient || d.mode == dryServer }

// note is what stands behind a message of success.
func (d *dryRun) note() string {
	if d.on() {
		return " (" + d.mode + " dry run)"
	}
	return ""
}

// session returns the datastore to write to: a copy if nothing is to be
// written.
func (d *dryRun) session(db *session) *session {
	if d.on() {
		return newSession(newDryStore(db.driver))
	}
	return db
}

// printWritten prints objects as they were written, or would have been.
func (o *writeOptions) printWritten(ctx context.Context, e *Env, list []v3.Object) error {
	for _, obj := range list {
		if m := obj.Meta(); strings.HasPrefix(m.ResourceVersion, dryRevision) {
			m.ResourceVersion = ""
		}
	}
	p, err := newPrinter(e, o.output)
	if err != nil || len(list) == 0 {
		return err
	}
	return p.objects(ctx, list)
}
