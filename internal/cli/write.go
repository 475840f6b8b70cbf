package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/kubepolicy"
)

// verb is one of the commands that write files of resources.
type verb struct {
	name, past, short string
	write             func(ctx context.Context, db *session, o v3.Object) error
	skip              func(error) bool // errors that a flag turns into nothing
	fresh             bool             // the objects must look like new ones
}

// writeOptions are the flags of such a command.
type writeOptions struct {
	ds    datastoreFlags
	files fileFlags
	skip  bool
}

// newApply builds `brindle apply`.
func newApply(e *Env) *cobra.Command {
	return newWriter(e, applying(), nil)
}

func applying() verb {
	return verb{
		name: "apply", past: "applied", short: "Create resources, or bring those that exist to what the files say",
		write: func(ctx context.Context, db *session, o v3.Object) error {
			return db.as(ctx, o, func(c *client.Client) error { _, _, err := c.Apply(ctx, o); return err })
		},
	}
}

// newReplace builds `brindle replace`.
func newReplace(e *Env) *cobra.Command {
	return newWriter(e, verb{
		name: "replace", past: "replaced", short: "Bring resources that exist to what the files say",
		write: func(ctx context.Context, db *session, o v3.Object) error {
			return db.as(ctx, o, func(c *client.Client) error { _, _, err := c.Replace(ctx, o); return err })
		},
	}, nil)
}

// newCreate builds `brindle create`.
func newCreate(e *Env) *cobra.Command {
	return newWriter(e, verb{
		name: "create", past: "created", short: "Create resources that do not exist",
		write: func(ctx context.Context, db *session, o v3.Object) error {
			return db.as(ctx, o, func(c *client.Client) error { _, err := c.Create(ctx, o); return err })
		},
		skip:  client.IsExists,
		fresh: true,
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
wrong means that nothing is. A NetworkPolicy (networking.k8s.io/v1) or
ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2) of Kubernetes is stored
as the policy that it means, whose name is told.`,
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
			if err := v.prepare(c.Context(), e, db, docs); err != nil {
				return err
			}
			return o.write(c.Context(), e, db, writing{v, docs})
		},
	}
	o.ds.addClient(c)
	o.files.add(c)
	if flags != nil {
		flags(c, &o)
	}
	return c
}

// prepare checks documents, warns of them, and puts them in the order in which
// they are to be written.
func (v verb) prepare(ctx context.Context, e *Env, db *session, docs []v3.Document) error {
	warnings := warningsOf(docs) // before defaults are filled in
	if err := mayWrite(docs, v.fresh); err != nil {
		return err
	}
	if err := check(ctx, db.Client, docs); err != nil {
		return err
	}
	// A network's first object may come before its first agent. Agents do the
	// same, so a failure here is not the writer's problem.
	_, _ = db.Bootstrap(ctx, client.BootstrapConfig{})
	warn(e, warnings)
	tiersFirst(docs)
	return nil
}

// writing is what one command is to write.
type writing struct {
	verb verb
	docs []v3.Document
}

// tiersFirst puts tiers before the policies that are in them, and leaves the
// rest in the order of the files.
func tiersFirst(docs []v3.Document) {
	slices.SortStableFunc(docs, func(a, b v3.Document) int { return rank(b) - rank(a) })
}

// tiersLast is the order for deleting: a tier goes when it is empty.
func tiersLast(docs []v3.Document) {
	slices.SortStableFunc(docs, func(a, b v3.Document) int { return rank(a) - rank(b) })
}

func rank(d v3.Document) int {
	if d.Object.Type().Kind == "Tier" {
		return 1
	}
	return 0
}

// mayWrite refuses, before anything is written, what the datastore's client
// would refuse in the middle: objects that are not users' to write and, for
// new ones, metadata that only the datastore gives.
func mayWrite(docs []v3.Document, fresh bool) error {
	var all v3.DocumentErrors
	for _, d := range docs {
		var wrong v3.FieldErrors
		m := d.Object.Meta()
		if kindOf(d.Object).ReadOnly {
			wrong = append(wrong, v3.FieldError{Path: "kind", Value: d.Object.Type().Kind, Rule: "is written by Brindle itself, not by users"})
		}
		if kubepolicy.Reserved(d.Object.Type().Kind, m.Name) && !converted(d.Object) {
			wrong = append(wrong, v3.FieldError{Path: "metadata.name", Value: m.Name, Rule: "mirrors a policy of Kubernetes, which is to be changed there"})
		}
		if fresh && m.UID != "" {
			wrong = append(wrong, v3.FieldError{Path: "metadata.uid", Value: m.UID, Rule: "must be empty in a new object"})
		}
		if fresh && m.ResourceVersion != "" {
			wrong = append(wrong, v3.FieldError{Path: "metadata.resourceVersion", Value: m.ResourceVersion, Rule: "must be empty in a new object"})
		}
		if fresh && m.CreationTimestamp != nil && !m.CreationTimestamp.IsZero() {
			wrong = append(wrong, v3.FieldError{Path: "metadata.creationTimestamp", Rule: "must be empty in a new object"})
		}
		all = append(all, d.Errors(wrong)...)
	}
	return all.Err()
}

// write writes every document and reports. A failure does not stop the others;
// an interrupt does, and a datastore that does not answer.
func (o *writeOptions) write(ctx context.Context, e *Env, db *session, w writing) error {
	done, silent := 0, false
	var errs []error
	for i, d := range w.docs {
		if silent || ctx.Err() != nil {
			errs = append(errs, fmt.Errorf("%d not tried", len(w.docs)-i))
			break
		}
		err := w.verb.write(ctx, db, d.Object)
		if err == nil || o.skip && w.verb.skip != nil && w.verb.skip(err) {
			done++
			if err == nil {
				tellStored(e, d.Object)
			}
			continue
		}
		silent = errors.Is(err, context.DeadlineExceeded)
		errs = append(errs, fmt.Errorf("%s%w", place(d), plainError(kindOf(d.Object), d.Object.Meta(), err)))
	}
	return report(e, w, done, errs)
}

// place says where a document stands; nothing for the command line.
func place(d v3.Document) string {
	switch {
	case d.File == commandLine:
		return ""
	case d.Item > 0:
		return fmt.Sprintf("%s: document %d, item %d: ", d.File, d.Index, d.Item)
	}
	return fmt.Sprintf("%s: document %d: ", d.File, d.Index)
}

// plainError says in calicoctl's words what scripts look for.
func plainError(kind v3.KindInfo, m *v3.ObjectMeta, err error) error {
	what := ""
	switch {
	case client.IsNotFound(err):
		what = "resource does not exist"
	case client.IsExists(err):
		what = "resource already exists"
	case client.IsConflict(err):
		what = "update conflict: it is not as resourceVersion or uid say, or changes all the time"
	default:
		return err
	}
	return fmt.Errorf("%s: %s", what, titled(kind, m.Namespace, m.Name))
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
	return fmt.Errorf("failed to %s %d of %d %sresource(s):\n%w", w.verb.name, len(w.docs)-done, len(w.docs), what, errors.Join(errs...))
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
		what := place(d) + titled(kind, m.Namespace, m.Name)
		if paths := v3.NotHonoured(d.Object); len(paths) > 0 {
			out = append(out, what+": accepted and stored, but not honoured by this version: "+strings.Join(paths, ", "))
		}
		if kind.Kind == "HostEndpoint" {
			out = append(out, what+": not enforced by this version: hosts that it concerns will not be ready (condition Policy)")
		}
	}
	return out
}

// warn prints warnings, each on its line.
func warn(e *Env, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintln(e.Stderr, "warning:", word(w))
	}
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
			warnings := warningsOf(docs)
			if err := check(c.Context(), nil, docs); err != nil {
				return err
			}
			warn(e, warnings)
			for _, d := range docs {
				tellStored(e, d.Object)
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
		Use: "delete (KIND NAME… | KIND/NAME… | -f FILE)", Short: "Delete resources", GroupID: "resources", ValidArgsFunction: completeKinds,
		Example: `  brindle delete ippool pool-a
  brindle delete networkset/office -n shop
  brindle delete -f network.yaml --ignore-not-found`,
		RunE: func(c *cobra.Command, args []string) error {
			docs, err := o.targets(e, args)
			if err != nil {
				return err
			}
			tiersLast(docs)
			db, err := o.ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			return o.write(c.Context(), e, db, writing{verb{
				name: "delete", past: "deleted", skip: client.IsNotFound,
				write: func(ctx context.Context, db *session, obj v3.Object) error {
					m := obj.Meta()
					return db.as(ctx, obj, func(c *client.Client) error {
						return c.Delete(ctx, kindOf(obj), m.Namespace, m.Name, client.Preconditions{UID: m.UID, ResourceVersion: m.ResourceVersion})
					})
				},
			}, docs})
		},
	}
	o.ds.addClient(c)
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
	return namedDocuments(kind, in1(kind, o.files.namespace), names), nil
}
