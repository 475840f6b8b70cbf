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
	write             func(ctx context.Context, db *session, o v3.Object) (v3.Object, error)
	skip              func(error) bool // errors that a flag turns into nothing
	fresh             bool             // the objects must look like new ones
	bare              bool             // the objects are names only: there is nothing in them to check
}

// writeOptions are the flags of such a command.
type writeOptions struct {
	ds     datastoreFlags
	files  fileFlags
	skip   bool
	dry    dryRun
	wait   waiting
	output string // "", name, yaml or json: what was written
}

// newApply builds `brindle apply`.
func newApply(e *Env) *cobra.Command {
	return newWriter(e, applying(), nil)
}

func applying() verb {
	return verb{
		name: "apply", past: "applied", short: "Create resources, or bring those that exist to what the files say",
		write: func(ctx context.Context, db *session, o v3.Object) (v3.Object, error) {
			is, _, err := applyOne(ctx, db, o)
			return is, err
		},
	}
}

// applyOne applies one object, and says what came of it.
func applyOne(ctx context.Context, db *session, o v3.Object) (is v3.Object, did client.Outcome, err error) {
	err = db.as(ctx, o, func(c *client.Client) (err error) { is, did, err = c.Apply(ctx, o); return err })
	return is, did, err
}

// newReplace builds `brindle replace`.
func newReplace(e *Env) *cobra.Command {
	return newWriter(e, verb{
		name: "replace", past: "replaced", short: "Bring resources that exist to what the files say",
		write: func(ctx context.Context, db *session, o v3.Object) (is v3.Object, err error) {
			err = db.as(ctx, o, func(c *client.Client) (err error) { is, _, err = c.Replace(ctx, o); return err })
			return is, err
		},
	}, nil)
}

// newCreate builds `brindle create`.
func newCreate(e *Env) *cobra.Command {
	return newWriter(e, verb{
		name: "create", past: "created", short: "Create resources that do not exist",
		write: func(ctx context.Context, db *session, o v3.Object) (is v3.Object, err error) {
			err = db.as(ctx, o, func(c *client.Client) (err error) { is, err = c.Create(ctx, o); return err })
			return is, err
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
			if err := o.check("yaml", "json", "name"); err != nil {
				return err
			}
			docs, err := o.files.read(e)
			if err != nil {
				return err
			}
			return o.carryOut(c.Context(), e, writing{verb: v, docs: docs})
		},
	}
	o.ds.addClient(c)
	o.files.add(c)
	o.dry.add(c)
	o.wait.add(c, &o.ds)
	c.Flags().StringVarP(&o.output, "output", "o", "", "yaml, json or name: print what was written instead of a message")
	completeFlag(c, "output", oneOf("yaml", "json", "name"))
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

// check checks the flags.
func (o *writeOptions) check(formats ...string) error {
	if o.output != "" && !slices.Contains(formats, o.output) {
		return fmt.Errorf("output format %q: must be %s, or nothing for a message", o.output, strings.Join(formats, ", "))
	}
	return errors.Join(o.dry.check(), o.wait.check(o.dry.on()))
}

// carryOut writes what a command is to write, or does as if.
func (o *writeOptions) carryOut(ctx context.Context, e *Env, w writing) error {
	if o.dry.mode == dryClient {
		return o.pretend(ctx, e, w)
	}
	db, err := o.ds.connect(e)
	if err != nil {
		return err
	}
	defer db.close()
	db = o.wait.session(o.dry.session(db))
	if !w.verb.bare {
		if err := w.verb.prepare(ctx, e, db, w.docs); err != nil {
			return err
		}
	}
	return o.wait.finish(ctx, e, o.output != "", o.write(ctx, e, db, w))
}

// pretend checks documents by themselves, and says that it did.
func (o *writeOptions) pretend(ctx context.Context, e *Env, w writing) error {
	warnings := warningsOf(w.docs)
	if !w.verb.bare {
		if err := errors.Join(mayWrite(w.docs, w.verb.fresh), check(ctx, nil, w.docs)); err != nil {
			return err
		}
	}
	warn(e, warnings)
	for _, d := range w.docs {
		w.written = append(w.written, d.Object)
	}
	return o.report(ctx, e, w, len(w.docs), nil)
}

// writing is what one command is to write, and has written.
type writing struct {
	verb    verb
	docs    []v3.Document
	written []v3.Object
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
	say := newProgress(e, w.verb.past, len(w.docs))
	for i, d := range w.docs {
		say.step(i)
		if silent || ctx.Err() != nil {
			errs = append(errs, fmt.Errorf("%d not tried", len(w.docs)-i))
			break
		}
		is, err := w.verb.write(ctx, db, d.Object)
		if err == nil || o.skip && w.verb.skip != nil && w.verb.skip(err) {
			done++
			if err == nil && !w.verb.bare {
				o.wait.saw(is)
			}
			if err == nil && o.output == "" && converted(d.Object) {
				say.clear()
				tellStored(e, d.Object)
			}
			if err == nil && o.output != "" {
				w.written = append(w.written, is)
			}
			continue
		}
		silent = errors.Is(err, context.DeadlineExceeded)
		errs = append(errs, fmt.Errorf("%s%w", place(d), plainError(kindOf(d.Object), d.Object.Meta(), err)))
	}
	say.clear()
	return o.report(ctx, e, w, done, errs)
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

// report tells how many resources were written, in calicoctl's words, or prints
// them if that was asked for.
func (o *writeOptions) report(ctx context.Context, e *Env, w writing, done int, errs []error) error {
	kinds := map[string]bool{}
	for _, d := range w.docs {
		kinds[d.Object.Type().Kind] = true
	}
	what := ""
	if len(kinds) == 1 {
		what = "'" + w.docs[0].Object.Type().Kind + "' "
	}
	switch {
	case o.output != "":
		if err := o.printWritten(ctx, e, w.written); err != nil {
			errs = append(errs, err)
		}
	case len(w.docs) == 0:
		fmt.Fprintln(e.Stdout, "No resources specified")
	case len(errs) == 0:
		fmt.Fprintf(e.Stdout, "Successfully %s %d %sresource(s)%s\n", w.verb.past, done, what, o.dry.note())
	case done > 0:
		fmt.Fprintf(e.Stdout, "Partial success: %s %d out of %d %sresources%s\n", w.verb.past, done, len(w.docs), what, o.dry.note())
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
			w := writing{verb: verb{name: "validate", past: "validated"}, docs: docs}
			return new(writeOptions).report(c.Context(), e, w, len(docs), nil)
		},
	}
	files.add(c)
	return c
}

func deleting() verb {
	return verb{
		name: "delete", past: "deleted", skip: client.IsNotFound, bare: true,
		write: func(ctx context.Context, db *session, obj v3.Object) (v3.Object, error) {
			m := obj.Meta()
			return obj, db.as(ctx, obj, func(c *client.Client) error {
				return c.Delete(ctx, kindOf(obj), m.Namespace, m.Name, client.Preconditions{UID: m.UID, ResourceVersion: m.ResourceVersion})
			})
		},
	}
}

// newDelete builds `brindle delete`.
func newDelete(e *Env) *cobra.Command {
	var o writeOptions
	c := &cobra.Command{
		Use: "delete (KIND NAME… | KIND/NAME… | -f FILE)", Short: "Delete resources", GroupID: "resources",
		Example: `  brindle delete ippool pool-a
  brindle delete networkset/office -n shop
  brindle delete -f network.yaml --ignore-not-found`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check("name"); err != nil {
				return err
			}
			docs, err := o.targets(e, args)
			if err != nil {
				return err
			}
			tiersLast(docs)
			return o.carryOut(c.Context(), e, writing{verb: deleting(), docs: docs})
		},
	}
	o.ds.addClient(c)
	o.files.add(c)
	o.dry.add(c)
	o.wait.add(c, &o.ds)
	c.Flags().StringVarP(&o.output, "output", "o", "", "name: print what was deleted instead of a message")
	c.Flags().BoolVarP(&o.skip, "skip-not-exists", "s", false, "leave out resources that do not exist")
	c.Flags().BoolVar(&o.skip, "ignore-not-found", false, "the same, as kubectl spells it")
	completer{e, &o.ds, &o.files.namespace, 0}.addTo(c)
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
