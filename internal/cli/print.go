package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"text/template"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
)

// printer prints objects in the form that -o asks for.
type printer struct {
	e          *Env
	db         *session
	format     string // "", "wide", "name", "yaml", "json", "custom-columns" or "go-template"
	columns    []string
	template   *template.Template
	globalAS   string // AS number of nodes without their own, read once by nodeContext
	namespaces bool   // show the namespace as a column
}

// newPrinter reads what stands behind -o.
func newPrinter(e *Env, output string) (*printer, error) {
	p := &printer{e: e}
	format, value, given := strings.Cut(output, "=")
	switch {
	case !given && slices.Contains([]string{"", "wide", "name", "yaml", "json"}, format):
		p.format = format
	case output == "ps":
	case output == "yml":
		p.format = "yaml"
	case format == "custom-columns" && value != "":
		p.format = format
		for name := range strings.SplitSeq(value, ",") {
			if !strings.Contains(name, ":") {
				name = strings.ToUpper(name)
			}
			p.columns = append(p.columns, strings.TrimSpace(name))
		}
	case format == "go-template" && value != "":
		return p, p.parseTemplate(value)
	case format == "go-template-file" && value != "":
		text, err := os.ReadFile(value)
		if err != nil {
			return nil, err
		}
		return p, p.parseTemplate(string(text))
	default:
		return nil, fmt.Errorf("output format %q: must be yaml, json, wide, name, custom-columns=NAME,HEADER:.spec.field,…, go-template=TEMPLATE or go-template-file=FILE, or nothing for a table", output)
	}
	return p, nil
}

// parseTemplate reads a template. It may call join, joinAndTruncate and
// config, as calicoctl's may.
func (p *printer) parseTemplate(text string) (err error) {
	p.format = "go-template"
	p.template, err = template.New("go-template").Funcs(template.FuncMap{
		"join": func(list any, sep string) string { return joinAny(list, sep) },
		"joinAndTruncate": func(list any, sep string, most int) string {
			return truncate(joinAny(list, sep), most)
		},
		"config": func(name string) (string, error) {
			if !strings.EqualFold(name, "asnumber") {
				return "", fmt.Errorf("config %q: only \"asnumber\" is known", name)
			}
			return p.defaultAS(context.Background())
		},
	}).Parse(text)
	if err != nil {
		return fmt.Errorf("-o go-template: %w", err)
	}
	return nil
}

// joinAny joins the elements of any list; what is none stands for itself.
func joinAny(list any, sep string) string {
	v := reflect.ValueOf(list)
	if v.Kind() != reflect.Slice {
		return fmt.Sprint(list)
	}
	out := make([]string, v.Len())
	for i := range out {
		out[i] = fmt.Sprint(v.Index(i).Interface())
	}
	return strings.Join(out, sep)
}

// objects prints objects that were asked for one by one, of any kinds: as a
// document one stands as it is, several as an array.
func (p *printer) objects(ctx context.Context, list []v3.Object) error {
	switch p.format {
	case "yaml", "json":
		if len(list) == 1 {
			return p.document(list[0])
		}
		return p.document(list)
	case "go-template":
		items := make([]any, len(list))
		for i, o := range list {
			items[i] = o
		}
		return p.execute(items)
	}
	for i := 0; i < len(list); {
		kind := kindOf(list[i])
		n := slices.IndexFunc(list[i:], func(o v3.Object) bool { return o.Type().Kind != kind.Kind })
		if n < 0 {
			n = len(list) - i
		}
		if i > 0 && p.format != "name" {
			fmt.Fprintln(p.e.Stdout)
		}
		if err := p.table(ctx, kind, list[i:i+n]); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// execute prints by a template. What comes out may go to a terminal.
func (p *printer) execute(root []any) error {
	var b bytes.Buffer
	if err := p.template.Execute(&b, root); err != nil {
		return fmt.Errorf("-o go-template: %w", err)
	}
	_, err := fmt.Fprint(p.e.Stdout, clean(b.String()))
	return err
}

func (p *printer) document(v any) error {
	if p.format == "json" {
		return writeJSON(p.e.Stdout, v)
	}
	out, err := v3.EncodeYAML(v)
	if err != nil {
		return err
	}
	_, err = p.e.Stdout.Write(out)
	return err
}

// table prints objects of one kind as rows, or as names.
func (p *printer) table(ctx context.Context, kind v3.KindInfo, list []v3.Object) error {
	r, err := p.rowsOf(ctx, kind)
	if err != nil {
		return err
	}
	return r.print(list)
}

// groupName is the API group that kinds belong to.
const groupName = "projectcalico.org"

// choose returns the columns to print.
func (p *printer) choose(kind v3.KindInfo) ([]column, error) {
	all := columnsOf(kind.Kind)
	if kind.Namespaced {
		all = append([]column{{"NAMESPACE", "", func(o v3.Object, _ cellContext) string { return o.Meta().Namespace }}}, all...)
	}
	if p.format != "custom-columns" {
		return slices.DeleteFunc(all, func(c column) bool {
			return c.only == "wide" && p.format != "wide" || c.name == "NAMESPACE" && !p.namespaces
		}), nil
	}
	var out []column
	for _, name := range p.columns {
		if strings.Contains(name, ":") {
			c, err := pathColumn(name)
			if err != nil {
				return nil, err
			}
			out = append(out, c)
			continue
		}
		i := slices.IndexFunc(all, func(c column) bool { return c.name == name })
		if i < 0 {
			var names []string
			for _, c := range all {
				names = append(names, c.name)
			}
			return nil, fmt.Errorf("custom column %q: %s has %s; any field is shown by HEADER:.path.of.field", name, kind.Kind, strings.Join(names, ", "))
		}
		out = append(out, all[i])
	}
	return out, nil
}

// defaultAS reads the AS number of nodes that have none of their own.
func (p *printer) defaultAS(ctx context.Context) (string, error) {
	if p.globalAS != "" {
		return p.globalAS, nil
	}
	p.globalAS = "64512" // documented Calico behaviour
	cfg, err := client.Get[v3.BGPConfiguration](ctx, p.db.Client, "", v3.DefaultName)
	if client.IsNotFound(err) {
		return p.globalAS, nil
	}
	if err != nil {
		return "", err
	}
	if as := optional(cfg.Spec.ASNumber); as != "" {
		p.globalAS = as
	}
	return p.globalAS, nil
}
