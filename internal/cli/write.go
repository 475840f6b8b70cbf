package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
)

// verb is one of the commands that write files of resources.
type verb struct {
	name, past, short string
	write             func(ctx context.Context, db *session, o v3.Object) error
	skip              func(error) bool // errors that a flag turns into nothing
}

// writeOptions are the flags of such a command.
type writeOptions struct {
	ds    datastoreFlags
	files fileFlags
	skip  bool
}

// newApply builds `brindle apply`.
func newApply(e *Env) *cobra.Command {
	return newWriter(e, verb{
		name: "apply", past: "applied", short: "Create resources, or bring those that exist to what the files say",
		write: func(ctx context.Context, db *session, o v3.Object) error { _, _, err := db.Apply(ctx, o); return err },
	}, nil)
}

// newReplace builds `brindle replace`.
func newReplace(e *Env) *cobra.Command {
	return newWriter(e, verb{
		name: "replace", past: "replaced", short: "Bring resources that exist to what the files say",
		write: func(ctx context.Context, db *session, o v3.Object) error { _, _, err := db.Replace(ctx, o); return err },
	}, nil)
}

// newCreate builds `brindle create`.
func newCreate(e *Env) *cobra.Command {
	return newWriter(e, verb{
		name: "create", past: "created", short: "Create resources that do not exist",
		write: func(ctx context.Context, db *session, o v3.Object) error { _, err := db.Create(ctx, o); return err },
		skip:  client.IsExists,
	}, func(c *cobra.Command, o *writeOptions) {
		c.Flags().BoolVar(&o.skip, "skip-exists", false, "leave out resources that exist")
	})
}

// newWriter builds a command that checks every document of its files and then
// writes them one by one.
func newWriter(e *Env, v verb, flags func(*cobra.Command, *writeOptions)) *cobra.Command {
	var o writeOptions
	c := &cobra.Command{
		Use: v.name + " -f FILE", Short: v.short, GroupID: "resources", Args: cobra.NoArgs,
		Long: v.short + `.

Every document of every file is checked before anything is written: one that is
wrong means that nothing is.`,
		RunE: func(c *cobra.Command, _ []string) error {
			docs, err := o.files.read(e)
			if err != nil {
				return err
			}
			db, err := o.ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			warnings := warningsOf(docs) // before defaults are filled in
			if err := check(c.Context(), db.Client, docs); err != nil {
				return err
			}
			// A network's first object may come before its first agent. Agents
			// do the same, so a failure here is not the writer's problem.
			_, _ = db.Bootstrap(c.Context(), client.BootstrapConfig{})
			for _, w := range warnings {
				fmt.Fprintln(e.Stderr, "warning:", clean(w))
			}
			return o.write(c.Context(), e, db, writing{v, docs})
		},
	}
	o.ds.add(c)
	o.files.add(c)
	if flags != nil {
		flags(c, &o)
	}
	return c
}

// writing is what one command is to write.
type writing struct {
	verb verb
	docs []v3.Document
}

// write writes every document and reports. A failure does not stop the others.
func (o *writeOptions) write(ctx context.Context, e *Env, db *session, w writing) error {
	done, skipped := 0, 0
	var errs []error
	for _, d := range w.docs {
		err := w.verb.write(ctx, db, d.Object)
		switch {
		case err == nil:
			done++
		case o.skip && w.verb.skip != nil && w.verb.skip(err):
			skipped++
		default:
			kind, _ := v3.LookupKind(d.Object.Type().Kind)
			m := d.Object.Meta()
			errs = append(errs, fmt.Errorf("%s: document %d: %s: %w", d.File, d.Index, titled(kind, m.Namespace, m.Name), err))
		}
	}
	return report(e, w, done+skipped, errs)
}

// report tells how many resources were written, in calicoctl's words.
func report(e *Env, w writing, done int, errs []error) error {
	kinds := map[string]bool{}
	for _, d := range w.docs {
		kinds[d.Object.Type().Kind] = true
	}
	what := ""
	if len(kinds) == 1 {
		what = "'" + w.docs[0].Object.Type().Kind + "' "
	}
	switch {
	case len(w.docs) == 0:
		fmt.Fprintln(e.Stdout, "No resources specified")
	case len(errs) == 0:
		fmt.Fprintf(e.Stdout, "Successfully %s %d %sresource(s)\n", w.verb.past, done, what)
	case done > 0:
		fmt.Fprintf(e.Stdout, "Partial success: %s %d out of %d %sresources\n", w.verb.past, done, len(w.docs), what)
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("failed to %s %d of %d %sresource(s):\n%w", w.verb.name, len(errs), len(w.docs), what, errors.Join(errs...))
}

// warningsOf names the fields that are accepted and that nothing comes of yet.
func warningsOf(docs []v3.Document) []string {
	var out []string
	for _, d := range docs {
		kind, ok := v3.LookupKind(d.Object.Type().Kind)
		if !ok {
			continue
		}
		m := d.Object.Meta()
		for _, path := range v3.NotHonoured(d.Object) {
			out = append(out, fmt.Sprintf("%s: document %d: %s: %s is accepted but not honoured by this version", d.File, d.Index, titled(kind, m.Namespace, m.Name), path))
		}
		if enforcedKind(kind.Kind) {
			out = append(out, fmt.Sprintf("%s: document %d: %s is stored but not enforced by this version: hosts whose endpoints it selects will not be ready (condition Policy, reason PolicyNotEnforced)",
				d.File, d.Index, titled(kind, m.Namespace, m.Name)))
		}
	}
	return out
}

// enforcedKind reports whether users count on a kind to forbid traffic.
func enforcedKind(kind string) bool {
	switch kind {
	case "NetworkPolicy", "GlobalNetworkPolicy", "HostEndpoint":
		return true
	}
	return false
}

// newValidate builds `brindle validate`.
func newValidate(e *Env) *cobra.Command {
	var files fileFlags
	c := &cobra.Command{
		Use: "validate -f FILE", Short: "Check files without a datastore", GroupID: "resources", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			docs, err := files.read(e)
			if err != nil {
				return err
			}
			for _, w := range warningsOf(docs) {
				fmt.Fprintln(e.Stderr, "warning:", clean(w))
			}
			if err := check(c.Context(), nil, docs); err != nil {
				return err
			}
			return report(e, writing{verb{name: "validate", past: "validated"}, docs}, len(docs), nil)
		},
	}
	files.add(c)
	return c
}

// newDelete builds `brindle delete`.
func newDelete(e *Env) *cobra.Command {
	var o writeOptions
	c := &cobra.Command{
		Use: "delete (KIND NAME… | -f FILE)", Short: "Delete resources", GroupID: "resources", ValidArgsFunction: completeKinds,
		RunE: func(c *cobra.Command, args []string) error {
			docs, err := o.targets(e, args)
			if err != nil {
				return err
			}
			db, err := o.ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			return o.write(c.Context(), e, db, writing{verb{
				name: "delete", past: "deleted", skip: client.IsNotFound,
				write: func(ctx context.Context, db *session, obj v3.Object) error {
					kind, _ := v3.LookupKind(obj.Type().Kind)
					m := obj.Meta()
					return db.Delete(ctx, kind, m.Namespace, m.Name, client.Preconditions{UID: m.UID, ResourceVersion: m.ResourceVersion})
				},
			}, docs})
		},
	}
	o.ds.add(c)
	o.files.add(c)
	c.Flags().BoolVarP(&o.skip, "skip-not-exists", "s", false, "leave out resources that do not exist")
	c.Flags().BoolVar(&o.skip, "ignore-not-found", false, "the same, as kubectl spells it")
	return c
}

// targets are the objects that a command names by arguments or by files.
func (o *writeOptions) targets(e *Env, args []string) ([]v3.Document, error) {
	if len(args) == 0 {
		return o.files.read(e)
	}
	if len(o.files.names) > 0 {
		return nil, errors.New("give KIND NAME or -f FILE, not both")
	}
	kind, names, err := kindAndNames(args)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("which %s? Give its name", kind.Kind)
	}
	var docs []v3.Document
	for i, name := range names {
		obj := kind.New()
		obj.Meta().Name = name
		docs = append(docs, v3.Document{File: "command line", Index: i + 1, Object: obj})
	}
	return docs, o.files.placeNamespaces(docs)
}
