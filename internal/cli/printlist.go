package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
)

// lister prints the objects of a kind some at a time, so that not all of them
// need to be in memory. What comes out is what printing them at once would
// give, but that the columns of a table may become wider as it goes on.
type lister interface {
	page(client.Listing) error
	end() error // after at least one page
}

// lister returns what prints the objects of a kind in the printer's format. A
// template sees them all at once, as calicoctl's does, so it has to keep them.
func (p *printer) lister(ctx context.Context, kind v3.KindInfo) (lister, error) {
	switch p.format {
	case "yaml":
		return &yamlList{p: p, kind: kind}, nil
	case "json":
		return &jsonList{p: p, kind: kind}, nil
	case "go-template":
		return &templateList{p: p, kind: kind}, nil
	}
	r, err := p.rowsOf(ctx, kind)
	if err != nil {
		return nil, err
	}
	return &rowList{r}, nil
}

// rowsPrinter prints objects of one kind as a table, or as names, some at a time.
type rowsPrinter struct {
	p       *printer
	kind    v3.KindInfo
	columns []column
	cells   cellContext
	widths  []int // of what was printed
	begun   bool  // the header was printed
}

// rowsOf begins a table of a kind.
func (p *printer) rowsOf(ctx context.Context, kind v3.KindInfo) (*rowsPrinter, error) {
	r := &rowsPrinter{p: p, kind: kind}
	if p.format == "name" {
		return r, nil
	}
	var err error
	if r.columns, err = p.choose(kind); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(r.columns, func(c column) bool { return c.name == "ASN" && kind.Kind == "Node" }) {
		r.cells.globalAS, err = p.defaultAS(ctx)
	}
	return r, err
}

// print prints some of the objects, the header before the first.
func (r *rowsPrinter) print(list []v3.Object) error {
	return r.printBehind("", "", list)
}

// printBehind is print with one column before all others, unless that has no
// name.
func (r *rowsPrinter) printBehind(name, cell string, list []v3.Object) error {
	if r.p.format == "name" {
		var b strings.Builder
		for _, o := range list {
			fmt.Fprintln(&b, resourceName(r.kind, o))
		}
		_, err := fmt.Fprint(r.p.e.Stdout, b.String())
		return err
	}
	t := table{widths: r.widths, bare: r.begun}
	if name != "" {
		t.header = append(t.header, name)
		if !r.begun {
			t.widths = []int{len("MODIFIED")}
		}
	}
	for _, c := range r.columns {
		t.header = append(t.header, c.name)
	}
	for _, o := range list {
		var row []string
		if name != "" {
			row = append(row, cell)
		}
		for _, c := range r.columns {
			row = append(row, c.cell(o, r.cells))
		}
		t.add(row...)
	}
	t.print(r.p.e.Stdout)
	r.begun = true
	r.widths, _ = t.layout()
	return nil
}

// resourceName is what -o name prints of an object.
func resourceName(kind v3.KindInfo, o v3.Object) string {
	return strings.ToLower(kind.Kind) + "." + groupName + "/" + word(o.Meta().Name)
}

// rowList is a table of all objects of a kind.
type rowList struct{ rows *rowsPrinter }

func (l *rowList) page(list client.Listing) error { return l.rows.print(list.Objects) }

func (l *rowList) end() error { return nil }

// tierList keeps tiers, to print them in the order in which they are asked.
type tierList struct {
	lister
	all client.Listing
}

func (l *tierList) page(list client.Listing) error {
	l.all.Objects, l.all.Revision = append(l.all.Objects, list.Objects...), list.Revision
	return nil
}

func (l *tierList) end() error {
	sortTiers(l.all.Objects)
	if err := l.lister.page(l.all); err != nil {
		return err
	}
	return l.lister.end()
}

// sortTiers puts tiers in the order in which they are asked.
func sortTiers(list []v3.Object) {
	order := func(o v3.Object) float64 {
		if t, ok := o.(*v3.Tier); ok && t.Spec.Order != nil {
			return *t.Spec.Order
		}
		return math.Inf(1)
	}
	slices.SortStableFunc(list, func(a, b v3.Object) int {
		switch x, y := order(a), order(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
}

// templateList keeps what a template is to see.
type templateList struct {
	p    *printer
	kind v3.KindInfo
	all  client.Listing
}

func (l *templateList) page(list client.Listing) error {
	l.all.Objects, l.all.Revision = append(l.all.Objects, list.Objects...), list.Revision
	return nil
}

func (l *templateList) end() error {
	return l.p.execute([]any{v3.NewList(l.kind.Kind, string(l.all.Revision), l.all.Objects)})
}

// jsonList writes a list object: its head, its items one by one, its end.
type jsonList struct {
	p     *printer
	kind  v3.KindInfo
	begun bool
	items int
}

// noItems is how a list without items ends.
const noItems = "[]\n}\n"

func (l *jsonList) page(list client.Listing) error {
	var b bytes.Buffer
	if !l.begun {
		if err := writeJSON(&b, v3.NewList[v3.Object](l.kind.Kind, string(list.Revision), nil)); err != nil {
			return err
		}
		b.Truncate(b.Len() - len(noItems))
		b.WriteByte('[')
		l.begun = true
	}
	for _, o := range list.Objects {
		if l.items > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n    ")
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("    ", "  ")
		if err := enc.Encode(o); err != nil {
			return err
		}
		b.Truncate(b.Len() - 1) // the encoder's newline
		l.items++
	}
	_, err := l.p.e.Stdout.Write(escapeJSON(b.Bytes()))
	return err
}

func (l *jsonList) end() error {
	end := "\n  ]\n}\n"
	if l.items == 0 {
		end = noItems[1:]
	}
	_, err := fmt.Fprint(l.p.e.Stdout, end)
	return err
}

// yamlList does the same in YAML, where the items stand before the rest.
type yamlList struct {
	p        *printer
	kind     v3.KindInfo
	items    int
	revision string
}

func (l *yamlList) page(list client.Listing) error {
	l.revision = string(list.Revision)
	if len(list.Objects) == 0 {
		return nil
	}
	out, err := v3.EncodeYAML(list.Objects)
	if err != nil {
		return err
	}
	if l.items == 0 {
		out = append([]byte("apiVersion: "+v3.Group+"\nitems:\n"), out...)
	}
	l.items += len(list.Objects)
	_, err = l.p.e.Stdout.Write(out)
	return err
}

func (l *yamlList) end() error {
	list := v3.NewList[v3.Object](l.kind.Kind, l.revision, nil)
	if l.items == 0 {
		return l.p.document(list)
	}
	out, err := v3.EncodeYAML(map[string]any{"kind": list.Kind, "metadata": list.Metadata})
	if err != nil {
		return err
	}
	_, err = l.p.e.Stdout.Write(out)
	return err
}
