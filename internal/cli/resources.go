package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
)

// fileFlags say which files to read.
type fileFlags struct {
	names     []string
	recursive bool
	skipEmpty bool
	namespace string
	cluster   bool // takes objects of Kubernetes and tests as they are
	old       bool // takes objects of the API before v3, and converts them
}

func (f *fileFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVarP(&f.names, "filename", "f", nil, "file, folder or - for standard input; again for more")
	c.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "folders with all that is below them")
	c.Flags().BoolVar(&f.skipEmpty, "skip-empty", false, "no error when there is no resource in the files")
	c.Flags().StringVarP(&f.namespace, "namespace", "n", "", "namespace of resources that have none in the file (default \"default\")")
}

// read decodes every file whole. All faults of all files are told at once.
func (f *fileFlags) read(e *Env) ([]v3.Document, error) {
	if len(f.names) == 0 {
		return nil, errors.New("no file given: use -f FILE, -f FOLDER or -f - for standard input")
	}
	var docs []v3.Document
	var errs []error
	for _, name := range f.names {
		got, err := f.readOne(e, name)
		docs, errs = append(docs, got...), append(errs, err)
	}
	errs = append(errs, f.placeNamespaces(docs))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(docs) == 0 && !f.skipEmpty {
		return nil, fmt.Errorf("no resources specified: there is none in %s", strings.Join(f.names, ", "))
	}
	return docs, nil
}

// readOne decodes one file, the files of one folder, or standard input.
func (f *fileFlags) readOne(e *Env, name string) ([]v3.Document, error) {
	if name == "-" {
		data, err := io.ReadAll(e.Stdin)
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return f.decode("standard input", data)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	files := []string{name}
	if info.IsDir() {
		if files, err = f.filesIn(name); err != nil {
			return nil, err
		}
	}
	var docs []v3.Document
	var errs []error
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		got, err := f.decode(file, data)
		docs, errs = append(docs, got...), append(errs, err)
	}
	return docs, errors.Join(errs...)
}

// filesIn lists the resource files of a folder, sorted.
func (f *fileFlags) filesIn(folder string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != folder && !f.recursive:
			return filepath.SkipDir
		case !d.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)):
			files = append(files, path)
		}
		return nil
	})
	return files, err
}

// placeNamespaces gives every object of a namespaced kind its namespace.
func (f *fileFlags) placeNamespaces(docs []v3.Document) error {
	var all v3.DocumentErrors
	for _, d := range docs {
		m := d.Object.Meta()
		kind, ok := v3.LookupKind(d.Object.Type().Kind)
		if !ok {
			continue
		}
		switch {
		case !kind.Namespaced && m.Namespace != "":
			all = append(all, d.Errors(v3.FieldErrors{{Path: "metadata.namespace", Value: m.Namespace, Rule: kind.Kind + " belongs to no namespace", Hint: "leave it out"}})...)
		case !kind.Namespaced:
		case m.Namespace == "" && f.namespace == "":
			m.Namespace = "default"
		case m.Namespace == "":
			m.Namespace = f.namespace
		case f.namespace != "" && m.Namespace != f.namespace:
			all = append(all, d.Errors(v3.FieldErrors{{Path: "metadata.namespace", Value: m.Namespace, Rule: "differs from -n " + f.namespace, Hint: "give one of the two"}})...)
		}
	}
	return all.Err()
}

// check validates every object by itself and all of them against each other
// and what is stored, before anything is written. db may be nil: then only
// what needs no datastore is checked.
func check(ctx context.Context, db *client.Client, docs []v3.Document) error {
	objects := make([]v3.Object, len(docs))
	for i, d := range docs {
		objects[i] = d.Object
	}
	var all v3.DocumentErrors
	for i, wrong := range v3.ValidateEach(objects) {
		all = append(all, docs[i].Errors(wrong)...)
	}
	all = append(all, twice(docs)...)
	if len(all) > 0 {
		return all
	}
	for _, d := range docs {
		v3.Default(d.Object)
	}
	var world v3.World = noWorld{}
	readError := func() error { return nil }
	if db != nil {
		world, readError = db.View(ctx)
	}
	for i, wrong := range v3.ValidateSet(objects, world) {
		all = append(all, docs[i].Errors(wrong)...)
	}
	if err := readError(); err != nil {
		return err
	}
	return all.Err()
}

// twice finds resources that stand in the files more than once: the last would
// win in silence.
func twice(docs []v3.Document) v3.DocumentErrors {
	type id struct{ kind, namespace, name string }
	first := map[id]v3.Document{}
	var all v3.DocumentErrors
	for _, d := range docs {
		m := d.Object.Meta()
		key := id{d.Object.Type().Kind, m.Namespace, m.Name}
		before, seen := first[key]
		if !seen || m.Name == "" {
			first[key] = d
			continue
		}
		all = append(all, d.Errors(v3.FieldErrors{{
			Path: "metadata.name", Value: m.Name, Rule: "is given twice: the other is in " + strings.TrimSuffix(place(before), ": "), Hint: "leave one of them out",
		}})...)
	}
	return all
}

// noWorld is a datastore with nothing in it but what always exists.
type noWorld struct{}

// List returns the built-in tiers.
func (noWorld) List(kind string) []v3.Object {
	var out []v3.Object
	if kind == "Tier" {
		for _, t := range v3.BuiltInTiers() {
			out = append(out, t)
		}
	}
	return out
}

// lookUpKind finds a kind by any of its names; a mistyped one is answered with
// the nearest.
func lookUpKind(name string) (v3.KindInfo, error) {
	if k, ok := v3.LookupKind(name); ok {
		return k, nil
	}
	if s := v3.SuggestKind(name); s != "" {
		return v3.KindInfo{}, fmt.Errorf("there is no kind %q: did you mean %s?", name, s)
	}
	return v3.KindInfo{}, fmt.Errorf("there is no kind %q: see `brindle kinds`", name)
}

// titled is an object's kind and name for messages.
func titled(kind v3.KindInfo, namespace, name string) string {
	if kind.Namespaced {
		name = namespace + "/" + name
	}
	return kind.Kind + "(" + word(name) + ")"
}

// completeKinds offers the kinds' names to a shell.
func completeKinds(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, k := range v3.Kinds() {
		if strings.HasPrefix(k.Plural, strings.ToLower(prefix)) {
			out = append(out, k.Plural)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
