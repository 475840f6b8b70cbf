package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
)

// newDiff builds `brindle diff`.
func newDiff(e *Env) *cobra.Command {
	var o writeOptions
	c := &cobra.Command{
		Use: "diff -f FILE", Short: "Show what apply would change", GroupID: "resources", Args: cobra.NoArgs,
		Long: `Show what apply would change: for each resource, how its stored form differs from
what it would be, in the unified format of diff(1). Nothing is written.

Exit status 0: nothing would change; 1: something would; 2: an error.`,
		Example: `  brindle diff -f network.yaml`,
		RunE: func(c *cobra.Command, _ []string) error {
			changed, err := o.diff(c.Context(), e)
			switch {
			case err != nil:
				return &ExitError{Status: 2, Err: err}
			case changed:
				return &ExitError{Status: 1}
			}
			return nil
		},
	}
	o.ds.addClient(c)
	o.files.add(c)
	return c
}

// diff prints the differences, and reports whether there are any.
func (o *writeOptions) diff(ctx context.Context, e *Env) (bool, error) {
	docs, err := o.files.read(e)
	if err != nil {
		return false, err
	}
	db, err := o.ds.connect(e)
	if err != nil {
		return false, err
	}
	defer db.close()
	after := newSession(newDryStore(db.driver))
	if err := applying().prepare(ctx, e, after, docs); err != nil {
		return false, err
	}
	changed := false
	var errs []error
	for _, d := range docs {
		kind, m := kindOf(d.Object), d.Object.Meta()
		is, did, err := applyOne(ctx, after, d.Object)
		if err == nil && did == client.Unchanged {
			continue
		}
		var before v3.Object
		if err == nil {
			before, err = db.Get(ctx, kind, m.Namespace, m.Name)
		}
		if client.IsNotFound(err) && is != nil {
			before, err = nil, nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s%w", place(d), plainError(kind, m, err)))
			continue
		}
		text, err := differ(kind, before, is)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if text != "" {
			changed = true
			fmt.Fprint(e.Stdout, clean(text))
		}
	}
	return changed, errors.Join(errs...)
}

// differ says how an object that is stored, nil if there is none, differs from
// what it is to be.
func differ(kind v3.KindInfo, before, after v3.Object) (string, error) {
	var texts [2]string
	for i, o := range []v3.Object{before, after} {
		if o == nil {
			continue
		}
		m := o.Meta()
		m.ResourceVersion = ""
		if before == nil { // whatever it will be
			m.UID, m.CreationTimestamp = "", nil
		}
		out, err := v3.EncodeYAML(o)
		if err != nil {
			return "", err
		}
		texts[i] = string(out)
	}
	text := unifiedDiff(texts[0], texts[1])
	if text == "" {
		return "", nil
	}
	name := titled(kind, after.Meta().Namespace, after.Meta().Name)
	return "--- stored " + name + "\n+++ given  " + name + "\n" + text, nil
}
