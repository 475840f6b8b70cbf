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
	"github.com/brindle-net/brindle/internal/selector"
	"github.com/brindle-net/brindle/internal/store"
)

// getOptions are the flags of `brindle get`.
type getOptions struct {
	ds     datastoreFlags
	files  fileFlags
	all    bool
	export bool
	labels string
	output string
	watch  watchFlags
}

// newGet builds `brindle get`.
func newGet(e *Env) *cobra.Command {
	var o getOptions
	c := &cobra.Command{
		Use: "get (KIND [NAME…] | KIND/NAME… | -f FILE)", Short: "Show resources", GroupID: "resources",
		Example: `  brindle get nodes -o wide
  brindle get ippools
  brindle get workloadendpoints -A -l app=web
  brindle get ippool/default-ipv4-ippool -o yaml
  brindle get bgppeers -o custom-columns=NAME,PEERIP
  brindle get workloadendpoints -A --watch`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), e, args) },
	}
	o.ds.addClient(c)
	o.files.add(c)
	f := c.Flags()
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "of every namespace")
	f.BoolVarP(&o.all, "all", "a", false, "the same, as calicoctl once spelled it")
	_ = f.MarkHidden("all") // it was added above
	f.BoolVar(&o.export, "export", false, "without what belongs to this cluster alone: for resources given by name")
	f.StringVarP(&o.labels, "selector", "l", "", "only those with these labels: a=b,c!=d,e or a selector such as \"a in {'b','c'}\"")
	o.watch.add(c)
	f.StringVarP(&o.output, "output", "o", "", "yaml, json, wide, name, custom-columns=NAME,HEADER:.spec.field,…, go-template=… or go-template-file=FILE; nothing for a table")
	completer{e, &o.ds, &o.files.namespace, 0}.addTo(c)
	completeFlag(c, "output", completeOutput)
	return c
}

// run checks the flags, fetches and prints.
func (o *getOptions) run(ctx context.Context, e *Env, args []string) error {
	p, err := newPrinter(e, o.output)
	if err != nil {
		return err
	}
	if o.all && o.files.namespace != "" {
		return errors.New("-A and -n cannot be given together")
	}
	match, err := parseLabelSelector(o.labels)
	if err != nil {
		return err
	}
	if len(o.files.names) > 0 {
		if len(args) > 0 || o.all || o.labels != "" || o.watch.on() {
			return errors.New("with -f the files say which resources: KIND, NAME, -A, -l and --watch cannot be given besides")
		}
		docs, err := o.files.read(e)
		if err != nil {
			return err
		}
		return o.withSession(e, p, func() error { return o.named(ctx, p, docs) })
	}
	if len(args) == 0 {
		return errors.New("which kind? For example `brindle get nodes`; `brindle kinds` lists them")
	}
	kind, names, err := kindAndNames(args)
	if err != nil {
		return err
	}
	p.namespaces = kind.Namespaced && (o.all || o.files.namespace != "")
	if len(names) > 0 && (o.all || o.labels != "") {
		return errors.New("-A and -l cannot be given with names: a name is of one namespace, and says which resource is meant")
	}
	if o.watch.on() {
		return o.withSession(e, p, func() error { return o.follow(ctx, p, following{kind, names, match}) })
	}
	if len(names) == 0 {
		return o.withSession(e, p, func() error { return o.list(ctx, p, kind, match) })
	}
	return o.withSession(e, p, func() error {
		return o.named(ctx, p, namedDocuments(kind, in1(kind, o.files.namespace), names))
	})
}

func (o *getOptions) withSession(e *Env, p *printer, f func() error) error {
	db, err := o.ds.connect(e)
	if err != nil {
		return err
	}
	defer db.close()
	p.db = db
	return f()
}

// list shows all resources of a kind.
func (o *getOptions) list(ctx context.Context, p *printer, kind v3.KindInfo, match selector.Selector) error {
	namespace := ""
	if !o.all {
		namespace = in1(kind, o.files.namespace)
	}
	out, err := p.lister(ctx, kind)
	if err != nil {
		return err
	}
	if kind.Kind == "Tier" {
		out = &tierList{lister: out}
	}
	begun := false
	err = p.db.Pages(ctx, kind, namespace, func(list client.Listing) error {
		begun = true
		list.Objects = slices.DeleteFunc(list.Objects, func(obj v3.Object) bool {
			return !match.Matches(selector.Map(obj.Meta().Labels))
		})
		return out.page(list)
	})
	if errors.Is(err, store.ErrCompacted) {
		return fmt.Errorf("%w: what was printed is not all, because the datastore forgot that moment meanwhile; try again", err)
	}
	if err != nil && !errors.Is(err, client.ErrUnreadable) {
		if begun {
			err = fmt.Errorf("%w: what was printed is not all", err)
		}
		return err
	}
	return errors.Join(out.end(), err)
}

// named shows the stored form of given resources; those that are missing are
// told at the end, after the others were printed.
func (o *getOptions) named(ctx context.Context, p *printer, docs []v3.Document) error {
	var found []v3.Object
	var errs []error
	for _, d := range docs {
		kind, m := kindOf(d.Object), d.Object.Meta()
		obj, err := p.db.Get(ctx, kind, m.Namespace, m.Name)
		if err != nil {
			errs = append(errs, plainError(kind, m, err))
			continue
		}
		if o.export {
			m := obj.Meta()
			m.Namespace, m.UID, m.ResourceVersion, m.CreationTimestamp, m.DeletionTimestamp = "", "", "", nil, nil
		}
		found = append(found, obj)
	}
	if len(found) > 0 {
		errs = append(errs, p.objects(ctx, found))
	}
	return errors.Join(errs...)
}

// kindAndNames reads KIND NAME… or KIND/NAME….
func kindAndNames(args []string) (v3.KindInfo, []string, error) {
	k, name, slash := strings.Cut(args[0], "/")
	kind, err := lookUpKind(k)
	if err != nil {
		return kind, nil, err
	}
	names := args[1:]
	if slash {
		names = []string{name}
		for _, a := range args[1:] {
			k, name, ok := strings.Cut(a, "/")
			if other, err := lookUpKind(k); !ok || err != nil || other.Kind != kind.Kind {
				return kind, nil, fmt.Errorf("%q: with KIND/NAME every argument must be of the same kind", a)
			}
			names = append(names, name)
		}
	}
	if slices.Contains(names, "") {
		return kind, nil, fmt.Errorf("a name of a %s is empty", kind.Kind)
	}
	return kind, names, nil
}

// namedDocuments stand for resources that are named on the command line.
func namedDocuments(kind v3.KindInfo, namespace string, names []string) []v3.Document {
	var docs []v3.Document
	for i, name := range names {
		obj := kind.New()
		obj.Meta().Name, obj.Meta().Namespace = name, namespace
		docs = append(docs, v3.Document{File: commandLine, Index: i + 1, Object: obj})
	}
	return docs
}

// commandLine is the File of documents that are in none.
const commandLine = "command line"

// kindOf returns what there is to know about an object's kind.
func kindOf(o v3.Object) v3.KindInfo {
	kind, _ := v3.LookupKind(o.Type().Kind) // decoding knows no others
	return kind
}

// parseLabelSelector reads kubectl's equality form, or a selector of our own
// language.
func parseLabelSelector(s string) (selector.Selector, error) {
	if terms, simple := equalityTerms(s); simple {
		s = strings.Join(terms, " && ")
	}
	sel, err := selector.Parse(s)
	if err != nil {
		return sel, fmt.Errorf("-l: %w", err)
	}
	return sel, nil
}

// equalityTerms translates kubectl's form; false if it is not that.
func equalityTerms(s string) (terms []string, simple bool) {
	if s == "" || strings.ContainsAny(s, "(){}'\"&|") {
		return nil, false
	}
	for term := range strings.SplitSeq(s, ",") {
		term = strings.TrimSpace(term)
		k, v, op := cutOperator(term)
		switch {
		case op != "":
			terms = append(terms, fmt.Sprintf("%s %s '%s'", k, op, v))
		case strings.Contains(term, " "):
			return nil, false
		case strings.HasPrefix(term, "!"):
			terms = append(terms, "!has("+term[1:]+")")
		default:
			terms = append(terms, "has("+term+")")
		}
	}
	return terms, true
}

// cutOperator splits a term of the equality form.
func cutOperator(term string) (key, value, op string) {
	for _, o := range []string{"!=", "==", "="} {
		if k, v, ok := strings.Cut(term, o); ok {
			if o == "=" {
				o = "=="
			}
			return strings.TrimSpace(k), strings.TrimSpace(v), o
		}
	}
	return term, "", ""
}
