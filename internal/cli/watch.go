package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/selector"
	"github.com/brindle-net/brindle/internal/store"
)

// watchFlags say whether to go on with what changes.
type watchFlags struct{ all, only, events bool }

func (w *watchFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.BoolVarP(&w.all, "watch", "w", false, "go on with every change, until interrupted")
	f.BoolVar(&w.only, "watch-only", false, "changes only, not what is there already")
	f.BoolVar(&w.events, "output-watch-events", false, "with --watch or --watch-only: say which change it is: ADDED, MODIFIED or DELETED")
}

func (w *watchFlags) on() bool { return w.all || w.only }

// following is what of a kind is watched: all, or some by name.
type following struct {
	kind  v3.KindInfo
	names []string
	match selector.Selector
}

// wants reports whether an object is one of those watched.
func (f *following) wants(o v3.Object) bool {
	return (len(f.names) == 0 || slices.Contains(f.names, o.Meta().Name)) && f.match.Matches(selector.Map(o.Meta().Labels))
}

// follow shows what there is, and then every change, until ctx ends. What goes
// is shown as it was last.
func (o *getOptions) follow(ctx context.Context, p *printer, f following) error {
	// What Follow tries again for ever is an error when nothing has worked yet.
	if _, err := client.Get[v3.ClusterInformation](ctx, p.db.Client, "", v3.DefaultName); err != nil && !client.IsNotFound(err) {
		return err
	}
	w, err := o.newWatcher(ctx, p, f)
	if err != nil {
		return err
	}
	namespace := ""
	if !o.all {
		namespace = in1(f.kind, o.files.namespace)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err = p.db.Follow(ctx, f.kind, namespace, func(u client.Changes) {
		if err := w.take(u); err != nil {
			cancel(err)
		}
	}, store.FollowConfig{Log: troubles(p.e)})
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if errors.Is(err, context.Canceled) {
		return nil // an interrupt is how it ends
	}
	return err
}

// troubles is a log for what goes wrong while a command goes on.
func troubles(e *Env) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slog.LevelWarn}
	if e.jsonErrors {
		return slog.New(slog.NewJSONHandler(e.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(e.Stderr, opts))
}

// watcher prints changes.
type watcher struct {
	p      *printer
	flags  watchFlags
	f      following
	rows   *rowsPrinter            // of a table or names
	shown  map[[2]string]v3.Object // by namespace and name: as last shown
	synced bool
	docs   int // documents printed
}

func (o *getOptions) newWatcher(ctx context.Context, p *printer, f following) (*watcher, error) {
	w := &watcher{p: p, flags: o.watch, f: f, shown: map[[2]string]v3.Object{}}
	var err error
	if !slices.Contains([]string{"yaml", "json", "go-template"}, p.format) {
		w.rows, err = p.rowsOf(ctx, f.kind)
	}
	return w, err
}

// take prints what some changes come to.
func (w *watcher) take(u client.Changes) error {
	var first []v3.Object
	for _, e := range u.Events {
		if e.Err != nil {
			warn(w.p.e, []string{e.Err.Error()})
			continue
		}
		id := [2]string{e.Namespace, e.Name}
		before := w.shown[id]
		is := e.Object != nil && w.f.wants(e.Object)
		if is {
			w.shown[id] = e.Object
		} else {
			delete(w.shown, id)
		}
		var err error
		switch {
		case is && !w.synced:
			first = append(first, e.Object)
		case is && before == nil:
			err = w.print("ADDED", e.Object)
		case is:
			err = w.print("MODIFIED", e.Object)
		case before != nil:
			err = w.print("DELETED", before)
		}
		if err != nil {
			return err
		}
	}
	if !u.InSync {
		return nil
	}
	w.synced = true
	return w.begin(first)
}

// begin prints what was there when the watch began.
func (w *watcher) begin(list []v3.Object) error {
	for _, name := range w.f.names {
		if !slices.ContainsFunc(list, func(o v3.Object) bool { return o.Meta().Name == name }) {
			return fmt.Errorf("resource does not exist: %s(%s)", w.f.kind.Kind, word(name))
		}
	}
	if w.f.kind.Kind == "Tier" {
		sortTiers(list)
	}
	if w.flags.only {
		list = nil
	}
	if w.rows != nil {
		return w.rows.printBehind(w.eventColumn(), "ADDED", list)
	}
	for _, o := range list {
		if err := w.print("ADDED", o); err != nil {
			return err
		}
	}
	return nil
}

// eventColumn is the name of the column that says which change it is; "" if
// that was not asked for.
func (w *watcher) eventColumn() string {
	if w.flags.events {
		return "EVENT"
	}
	return ""
}

// print prints one change.
func (w *watcher) print(event string, o v3.Object) error {
	if w.rows != nil {
		return w.rows.printBehind(w.eventColumn(), event, []v3.Object{o})
	}
	if w.p.format == "go-template" {
		return w.p.execute([]any{o})
	}
	if w.docs++; w.docs > 1 && w.p.format == "yaml" {
		fmt.Fprintln(w.p.e.Stdout, "---")
	}
	if w.flags.events {
		return w.p.document(struct {
			Type   string    `json:"type"`
			Object v3.Object `json:"object"`
		}{event, o})
	}
	return w.p.document(o)
}
