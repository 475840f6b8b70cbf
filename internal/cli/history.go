package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/lab"
	"github.com/brindle-net/brindle/internal/server"
)

// historyOptions are the flags of `brindle history`.
type historyOptions struct {
	ds        datastoreFlags
	namespace string
	dir       string
	file      string
	output    string
	most      int
}

// newHistory builds `brindle history`.
func newHistory(e *Env) *cobra.Command {
	o := historyOptions{dir: defaultDataDir}
	c := &cobra.Command{
		Use: "history [KIND [NAME]]", Short: "Show who changed a resource, and when", GroupID: "look", Args: cobra.MaximumNArgs(2),
		Long: `Show who changed a resource, what was done, when, and which resource versions it
had before and after. The server of a network keeps this: run it on the host of
the server (or of one member of several), as root. A lab keeps its own. Who made
a change is what the command said that made it; what agents and other programs
change has no name.`,
		Example: `  brindle history globalnetworkpolicy default.deny
  brindle history networkset office -n shop -o json
  brindle history --limit 20`,
		RunE: func(c *cobra.Command, args []string) error { return o.show(e, args) },
	}
	o.ds.addClient(c)
	f := c.Flags()
	f.StringVarP(&o.namespace, "namespace", "n", "", "namespace (default \"default\")")
	f.StringVar(&o.dir, "data-dir", o.dir, "folder of the server's data")
	f.StringVarP(&o.file, "filename", "f", "", "read this file, written by --audit-log, instead")
	f.IntVar(&o.most, "limit", 1000, "show the newest so many")
	f.StringVarP(&o.output, "output", "o", "", "json, or nothing for a table")
	completeFlag(c, "output", oneOf("json"))
	completer{e, &o.ds, &o.namespace, 1}.addTo(c)
	return c
}

// show reads and prints.
func (o *historyOptions) show(e *Env, args []string) error {
	if o.output != "" && o.output != "json" {
		return fmt.Errorf("output format %q: must be json, or nothing for a table", o.output)
	}
	if o.most <= 0 {
		return fmt.Errorf("--limit %d: must be more than nothing", o.most)
	}
	want, err := o.wanted(args)
	if err != nil {
		return err
	}
	path, err := o.path(e)
	if err != nil {
		return err
	}
	list, err := server.ReadAudit(path, o.most, want)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: run as root", err)
	case errors.Is(err, server.ErrNoAudit):
		return fmt.Errorf("%w: run this on the host of `brindle server`, name its folder with --data-dir, or read a command's own file with -f", err)
	case err != nil:
		return err
	}
	if o.output == "json" {
		if list == nil {
			list = []server.Change{}
		}
		return writeJSON(e.Stdout, list)
	}
	return printHistory(e, list)
}

// path is where the audit log is.
func (o *historyOptions) path(e *Env) (string, error) {
	if o.file != "" {
		return o.file, nil
	}
	cfg, err := o.ds.config(e)
	if err != nil {
		return "", err
	}
	if name, ok := lab.At(strings.Join(cfg.Endpoints, ",")); ok {
		return lab.AuditDir(name), nil
	}
	return server.AuditDir(o.dir), nil
}

// wanted tells which changes are asked for.
func (o *historyOptions) wanted(args []string) (func(server.Change) bool, error) {
	if len(args) == 0 {
		return func(server.Change) bool { return true }, nil
	}
	kind, names, err := kindAndNames(args)
	if err != nil {
		return nil, err
	}
	if kind.Kind == "WorkloadEndpoint" {
		return nil, errors.New("the changes of WorkloadEndpoints are not kept: agents write them for every workload")
	}
	namespace := in1(kind, o.namespace)
	return func(c server.Change) bool { return c.Kind == kind.Kind && o.named(c, kind, namespace, names) }, nil
}

// named reports whether a change is of one of these names; without names, of
// any in the namespace, if one is given.
func (o *historyOptions) named(c server.Change, kind v3.KindInfo, namespace string, names []string) bool {
	if len(names) == 0 {
		return o.namespace == "" || c.Namespace == namespace
	}
	for _, n := range names {
		if c.Name == n && c.Namespace == namespace {
			return true
		}
	}
	return false
}

// printHistory prints a table, with lines about the log itself in their place.
func printHistory(e *Env, list []server.Change) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(e.Stdout, "No change is known.")
		return err
	}
	t := table{header: []string{"TIME", "WHO", "ACTION", "KIND", "NAME", "OLD", "NEW", "COMMAND"}}
	for _, c := range list {
		when := c.Time.UTC().Format(time.RFC3339)
		if c.Kind == "" {
			t.add(when, "-", c.Action, "-", "-", dash(c.Old), dash(c.At), c.Message)
			continue
		}
		if c.Later {
			when = "before " + when
		}
		name := strings.TrimPrefix(c.Namespace+"/"+c.Name, "/")
		t.add(when, dash(c.By), c.Action, c.Kind, name, dash(c.Old), dash(c.New), dash(c.Via))
	}
	t.print(e.Stdout)
	return nil
}
