package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/selector"
)

// getOptions are the flags of `brindle get`.
type getOptions struct {
	ds     datastoreFlags
	files  fileFlags
	all    bool
	labels string
	output string
}

// newGet builds `brindle get`.
func newGet(e *Env) *cobra.Command {
	var o getOptions
	c := &cobra.Command{
		Use: "get KIND [NAME…]", Short: "Show resources", GroupID: "resources",
		Example: `  brindle get nodes -o wide
  brindle get ippools
  brindle get workloadendpoints -A
  brindle get ippool default-ipv4-ippool -o yaml`,
		ValidArgsFunction: completeKinds,
		RunE: func(c *cobra.Command, args []string) error {
			db, err := o.ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			return o.run(c.Context(), e, db, args)
		},
	}
	o.ds.add(c)
	o.files.add(c)
	c.Flags().BoolVarP(&o.all, "all-namespaces", "A", false, "of every namespace")
	c.Flags().StringVarP(&o.labels, "selector", "l", "", "only those with these labels: a=b,c!=d,e or a selector such as \"a in {'b','c'}\"")
	c.Flags().StringVarP(&o.output, "output", "o", "", "yaml, json, wide or name; nothing for a table")
	return c
}

// run fetches and prints.
func (o *getOptions) run(ctx context.Context, e *Env, db *session, args []string) error {
	if !slices.Contains([]string{"", "ps", "wide", "yaml", "yml", "json", "name"}, o.output) {
		return fmt.Errorf("output format %q: must be yaml, json, wide or name, or nothing for a table", o.output)
	}
	if o.all && o.files.namespace != "" {
		return errors.New("-A and -n cannot be given together")
	}
	match, err := parseLabelSelector(o.labels)
	if err != nil {
		return err
	}
	if len(o.files.names) > 0 {
		return o.fromFiles(ctx, e, db)
	}
	if len(args) == 0 {
		return errors.New("which kind? For example `brindle get nodes`; `brindle kinds` lists them")
	}
	kind, names, err := kindAndNames(args)
	if err != nil {
		return err
	}
	p := printer{e: e, db: db, kind: kind, output: o.output, namespaces: kind.Namespaced && (o.all || o.files.namespace != "")}
	if len(names) > 0 {
		if o.all {
			return errors.New("-A cannot be given with names: a name is of one namespace")
		}
		return o.byName(ctx, p, names)
	}
	namespace := ""
	if kind.Namespaced && !o.all {
		namespace = o.namespace()
	}
	list, err := db.List(ctx, kind, namespace)
	if err != nil && !errors.Is(err, client.ErrUnreadable) {
		return err
	}
	list.Objects = slices.DeleteFunc(list.Objects, func(obj v3.Object) bool {
		return !match.Matches(selector.Map(obj.Meta().Labels))
	})
	return errors.Join(p.list(ctx, list), err)
}

func (o *getOptions) namespace() string {
	if o.files.namespace == "" {
		return "default"
	}
	return o.files.namespace
}

// kindAndNames reads KIND NAME… or KIND/NAME….
func kindAndNames(args []string) (v3.KindInfo, []string, error) {
	k, name, slash := strings.Cut(args[0], "/")
	kind, err := lookUpKind(k)
	if err != nil {
		return kind, nil, err
	}
	if !slash {
		return kind, args[1:], nil
	}
	names := []string{name}
	for _, a := range args[1:] {
		k, name, ok := strings.Cut(a, "/")
		if other, err := lookUpKind(k); !ok || err != nil || other.Kind != kind.Kind {
			return kind, nil, fmt.Errorf("%q: with KIND/NAME every argument must be of the same kind", clean(a))
		}
		names = append(names, name)
	}
	return kind, names, nil
}

// byName fetches the named objects; those that are missing are told at the
// end, after the others were printed.
func (o *getOptions) byName(ctx context.Context, p printer, names []string) error {
	var found []v3.Object
	var errs []error
	namespace := ""
	if p.kind.Namespaced {
		namespace = o.namespace()
	}
	for _, name := range names {
		obj, err := p.db.Get(ctx, p.kind, namespace, name)
		if client.IsNotFound(err) {
			err = fmt.Errorf("resource does not exist: %s", titled(p.kind, namespace, name))
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found = append(found, obj)
	}
	if len(found) > 0 {
		errs = append(errs, p.objects(ctx, found))
	}
	return errors.Join(errs...)
}

// fromFiles shows the stored form of what the files name.
func (o *getOptions) fromFiles(ctx context.Context, e *Env, db *session) error {
	docs, err := o.files.read(e)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range docs {
		kind, _ := v3.LookupKind(d.Object.Type().Kind)
		p := printer{e: e, db: db, kind: kind, output: o.output, namespaces: kind.Namespaced}
		m := d.Object.Meta()
		obj, err := db.Get(ctx, kind, m.Namespace, m.Name)
		if client.IsNotFound(err) {
			err = fmt.Errorf("resource does not exist: %s", titled(kind, m.Namespace, m.Name))
		}
		if err == nil {
			err = p.objects(ctx, []v3.Object{obj})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// printer prints objects of one kind.
type printer struct {
	e          *Env
	db         *session
	kind       v3.KindInfo
	output     string
	namespaces bool // show the namespace as a column
}

// list prints a whole listing.
func (p printer) list(ctx context.Context, l client.Listing) error {
	switch p.output {
	case "yaml", "yml", "json":
		return p.document(v3.NewList(p.kind.Kind, string(l.Revision), l.Objects))
	}
	return p.table(ctx, l.Objects)
}

// objects prints objects that were asked for by name: one as it is, several as
// an array.
func (p printer) objects(ctx context.Context, list []v3.Object) error {
	switch p.output {
	case "yaml", "yml", "json":
		if len(list) == 1 {
			return p.document(list[0])
		}
		return p.document(list)
	}
	return p.table(ctx, list)
}

func (p printer) document(v any) error {
	var out []byte
	var err error
	if p.output == "json" {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err = enc.Encode(v)
		out = escapeJSON(b.Bytes())
	} else {
		out, err = v3.EncodeYAML(v)
	}
	if err != nil {
		return err
	}
	_, err = p.e.Stdout.Write(out)
	return err
}

// escapeJSON writes what a terminal would obey inside JSON strings as escapes.
// The encoder has escaped the C0 controls already.
func escapeJSON(b []byte) []byte {
	if !bytes.ContainsFunc(b, unsafeRune) {
		return b
	}
	var out bytes.Buffer
	for _, r := range string(b) {
		if unsafeRune(r) {
			fmt.Fprintf(&out, `\u%04x`, r)
			continue
		}
		out.WriteRune(r)
	}
	return out.Bytes()
}

func (p printer) table(ctx context.Context, list []v3.Object) error {
	if p.output == "name" {
		for _, o := range list {
			fmt.Fprintf(p.e.Stdout, "%s.projectcalico.org/%s\n", strings.ToLower(p.kind.Kind), clean(o.Meta().Name))
		}
		return nil
	}
	cellCtx, err := p.context(ctx)
	if err != nil {
		return err
	}
	var t table
	var columns []column
	if p.namespaces {
		columns = append(columns, column{"NAMESPACE", "", func(o v3.Object, _ cellContext) string { return o.Meta().Namespace }})
	}
	for _, c := range columnsOf(p.kind.Kind) {
		if c.only == "" || c.only == "wide" && p.output == "wide" {
			columns = append(columns, c)
		}
	}
	for _, c := range columns {
		t.header = append(t.header, c.name)
	}
	for _, o := range list {
		var row []string
		for _, c := range columns {
			row = append(row, c.cell(o, cellCtx))
		}
		t.add(row...)
	}
	t.print(p.e.Stdout)
	return nil
}

// context reads what cells need beyond their object.
func (p printer) context(ctx context.Context) (cellContext, error) {
	if p.kind.Kind != "Node" || p.output != "wide" {
		return cellContext{}, nil
	}
	cfg, err := client.Get[v3.BGPConfiguration](ctx, p.db.Client, "", v3.DefaultName)
	if client.IsNotFound(err) {
		return cellContext{}, nil
	}
	if err != nil {
		return cellContext{}, err
	}
	return cellContext{globalAS: optional(cfg.Spec.ASNumber)}, nil
}

// parseLabelSelector reads kubectl's equality form, or a selector of our own
// language.
func parseLabelSelector(s string) (selector.Selector, error) {
	var terms []string
	simple := s != ""
	for _, term := range strings.Split(s, ",") {
		term = strings.TrimSpace(term)
		if strings.ContainsAny(term, "(){}'\"&|") || strings.Contains(term, " ") {
			simple = false
			break
		}
		switch k, v, ok := cutOperator(term); {
		case ok == "!=":
			terms = append(terms, fmt.Sprintf("%s != '%s'", k, v))
		case ok == "=":
			terms = append(terms, fmt.Sprintf("%s == '%s'", k, v))
		case strings.HasPrefix(term, "!"):
			terms = append(terms, "!has("+term[1:]+")")
		default:
			terms = append(terms, "has("+term+")")
		}
	}
	if simple {
		s = strings.Join(terms, " && ")
	}
	sel, err := selector.Parse(s)
	if err != nil {
		return sel, fmt.Errorf("-l: %w", err)
	}
	return sel, nil
}

// cutOperator splits a term of the equality form.
func cutOperator(term string) (key, value, op string) {
	for _, o := range []string{"!=", "==", "="} {
		if k, v, ok := strings.Cut(term, o); ok {
			if o == "==" {
				o = "="
			}
			return strings.TrimSpace(k), strings.TrimSpace(v), o
		}
	}
	return term, "", ""
}
