package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// newPatch builds `brindle patch`.
func newPatch(e *Env) *cobra.Command {
	var o writeOptions
	var patch, file, kindOfPatch, namespace string
	c := &cobra.Command{
		Use: "patch KIND NAME -p PATCH", Short: "Change some fields of a resource", GroupID: "resources",
		Args: cobra.MinimumNArgs(1),
		Example: `  brindle patch ippool pool-a -p '{"spec":{"natOutgoing":true}}'
  brindle patch node h1 -t json -p '[{"op":"remove","path":"/spec/bgp/asNumber"}]'`,
		Long: `Change some fields of a resource. With --type merge and strategic objects are
merged field by field, lists are replaced whole, null removes a field (RFC 7386);
strategic also knows "$patch": "replace" and "delete". With --type json the patch
is a list of operations (RFC 6902). The patch may be JSON or YAML.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check("yaml", "json", "name"); err != nil {
				return err
			}
			kind, name, err := oneName(args)
			if err != nil {
				return err
			}
			edit, err := readPatch(kindOfPatch, patch, file)
			if err != nil {
				return err
			}
			return o.modify(c.Context(), e, changing{"patch", target{kind, in1(kind, namespace), name}, edit, func() {
				fmt.Fprintf(e.Stdout, "Successfully patched 1 '%s' resource%s\n", kind.Kind, o.dry.note())
			}})
		},
	}
	o.addChange(c)
	c.Flags().StringVarP(&patch, "patch", "p", "", "the patch itself")
	c.Flags().StringVar(&file, "patch-file", "", "file that holds the patch")
	c.Flags().StringVarP(&kindOfPatch, "type", "t", "strategic", "strategic, merge or json")
	completeFlag(c, "type", oneOf("strategic", "merge", "json"))
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace (default \"default\")")
	completer{e, &o.ds, &namespace, 1}.addTo(c)
	return c
}

// addChange adds the flags of commands that change one stored resource.
func (o *writeOptions) addChange(c *cobra.Command) {
	o.ds.addClient(c)
	o.dry.addServer(c)
	o.wait.add(c, &o.ds)
	c.Flags().StringVarP(&o.output, "output", "o", "", "yaml, json or name: print the resource instead of a message")
	completeFlag(c, "output", oneOf("yaml", "json", "name"))
}

// target is one stored resource.
type target struct {
	kind            v3.KindInfo
	namespace, name string
}

// changing is what a command does to one stored resource.
type changing struct {
	verb string
	of   target
	edit func(v3.Object) error
	say  func() // tells of success, unless the resource is printed
}

// modify changes one stored resource, tells of it, and waits if it is to.
func (o *writeOptions) modify(ctx context.Context, e *Env, do changing) error {
	db, err := o.ds.connect(e)
	if err != nil {
		return failed(do.verb, do.of.kind, err)
	}
	defer db.close()
	t := do.of
	is, err := o.wait.session(o.dry.session(db)).Modify(ctx, t.kind, t.namespace, t.name, do.edit)
	if err != nil {
		return failed(do.verb, t.kind, plainError(t.kind, &v3.ObjectMeta{Namespace: t.namespace, Name: t.name}, err))
	}
	o.wait.saw(is)
	if o.output == "" {
		do.say()
	} else {
		err = o.printWritten(ctx, e, []v3.Object{is})
	}
	return o.wait.finish(ctx, e, o.output != "", err)
}

// oneName reads KIND NAME or KIND/NAME.
func oneName(args []string) (v3.KindInfo, string, error) {
	kind, names, err := kindAndNames(args)
	if err != nil {
		return kind, "", err
	}
	if len(names) != 1 {
		return kind, "", fmt.Errorf("one name is needed, not %d: for example `%s NAME`", len(names), strings.ToLower(kind.Kind))
	}
	return kind, names[0], nil
}

// in1 is the namespace of one named object.
func in1(kind v3.KindInfo, namespace string) string {
	if !kind.Namespaced {
		return ""
	}
	if namespace == "" {
		return "default"
	}
	return namespace
}

// failed tells which kind could not be changed.
func failed(verb string, kind v3.KindInfo, err error) error {
	return fmt.Errorf("failed to %s '%s' resource: %w", verb, kind.Kind, err)
}

// readPatch reads the patch from where it was given, and returns what carries
// it out.
func readPatch(kindOfPatch, patch, file string) (func(v3.Object) error, error) {
	switch {
	case kindOfPatch != "merge" && kindOfPatch != "strategic" && kindOfPatch != "json":
		return nil, fmt.Errorf("--type %q: must be strategic, merge or json", kindOfPatch)
	case patch == "" && file == "":
		return nil, errors.New("no patch given: use -p '{\"spec\": …}' or --patch-file FILE")
	case patch != "" && file != "":
		return nil, errors.New("give -p or --patch-file, not both")
	case file != "":
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		patch = string(data)
	}
	data, err := v3.YAMLToJSON([]byte(patch))
	if err != nil {
		return nil, fmt.Errorf("the patch is neither JSON nor YAML: %w", err)
	}
	if kindOfPatch == "json" {
		ops, err := parseJSONPatch(data)
		return func(o v3.Object) error {
			return editTree(o, func(doc any) (any, error) { return applyJSONPatch(doc, ops) })
		}, err
	}
	var changes map[string]any
	if err := json.Unmarshal(data, &changes); err != nil || changes == nil {
		return nil, errors.New("the patch must be an object, as {\"spec\": {…}}")
	}
	m := merger{strategic: kindOfPatch == "strategic"}
	return func(o v3.Object) error {
		return editTree(o, func(doc any) (any, error) { return m.merge(doc, changes) })
	}, nil
}

// editTree changes an object as JSON. The outcome is read strictly, so that a
// mistyped field is an error here as it is in a file.
func editTree(o v3.Object, edit func(any) (any, error)) error {
	data, err := v3.Encode(o)
	if err != nil {
		return err
	}
	var doc any
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	if doc, err = edit(doc); err != nil {
		return err
	}
	if data, err = json.Marshal(doc); err != nil {
		return err
	}
	docs, err := v3.DecodeAll("patch", data)
	if err != nil {
		return err
	}
	if len(docs) != 1 || docs[0].Object.Type().Kind != o.Type().Kind {
		return errors.New("a patch cannot change the kind")
	}
	was, is := o.Meta(), docs[0].Object.Meta()
	for _, f := range []struct{ path, was, is string }{
		{"name", was.Name, is.Name}, {"namespace", was.Namespace, is.Namespace}, {"uid", was.UID, is.UID},
	} {
		if f.was != f.is {
			return fmt.Errorf("metadata.%s: %q: a patch cannot change it: it is %q (create another and delete this one)", f.path, f.is, f.was)
		}
	}
	reflect.ValueOf(o).Elem().Set(reflect.ValueOf(docs[0].Object).Elem())
	return nil
}

// merger merges trees by RFC 7386, section 2; a strategic one follows the
// directive that a tree may hold, too. No list of this API has a merge key.
type merger struct{ strategic bool }

// directive is where a strategic patch says what to do with an object.
const directive = "$patch"

func (m merger) merge(doc any, changes map[string]any) (any, error) {
	target, ok := doc.(map[string]any)
	if !ok {
		target = map[string]any{}
	}
	if do, given := changes[directive]; given && m.strategic {
		changes = maps.Clone(changes)
		delete(changes, directive)
		switch do {
		case "replace":
			target = map[string]any{}
		case "merge":
		case "delete":
			return nil, nil
		default:
			return nil, fmt.Errorf("%s: %v: must be replace, merge or delete", directive, do)
		}
	}
	for k, v := range changes {
		sub, ok := v.(map[string]any)
		switch {
		case v == nil:
			delete(target, k)
		case !ok:
			target[k] = v
		default:
			is, err := m.merge(target[k], sub)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", k, err)
			}
			if target[k] = is; is == nil {
				delete(target, k)
			}
		}
	}
	return target, nil
}

// newLabel builds `brindle label`.
func newLabel(e *Env) *cobra.Command {
	var o writeOptions
	var overwrite, remove bool
	namespace := ""
	c := &cobra.Command{
		Use: "label KIND NAME (KEY=VALUE… | KEY-… | KEY… --remove)", Short: "Set or remove labels of a resource", GroupID: "resources",
		Args: cobra.MinimumNArgs(2),
		Example: `  brindle label nodes h1 rack=r1
  brindle label nodes h1 rack-`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check("yaml", "json", "name"); err != nil {
				return err
			}
			named := 2
			if strings.Contains(args[0], "/") {
				named = 1
			}
			kind, name, err := oneName(args[:named])
			if err != nil {
				return err
			}
			changes, err := parseLabelChanges(args[named:], remove)
			if err != nil {
				return err
			}
			var said []string
			edit := func(obj v3.Object) (err error) {
				said, err = relabel(obj.Meta(), changes, overwrite)
				return err
			}
			return o.modify(c.Context(), e, changing{"label", target{kind, in1(kind, namespace), name}, edit, func() {
				written, _, _ := strings.Cut(args[0], "/")
				for _, s := range said {
					fmt.Fprintf(e.Stdout, "Successfully %s on %s %s%s\n", word(s), word(written), word(name), o.dry.note())
				}
			}})
		},
	}
	o.addChange(c)
	c.Flags().BoolVar(&overwrite, "overwrite", false, "change labels that have another value")
	c.Flags().BoolVar(&remove, "remove", false, "remove the labels named")
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace (default \"default\")")
	completer{e, &o.ds, &namespace, 1}.addTo(c)
	return c
}

// labelChange sets a label, or removes it.
type labelChange struct {
	key, value string
	remove     bool
}

func parseLabelChanges(args []string, remove bool) ([]labelChange, error) {
	if len(args) == 0 {
		return nil, errors.New("no label given: KEY=VALUE sets one, KEY- removes it")
	}
	var out []labelChange
	for _, a := range args {
		k, v, set := strings.Cut(a, "=")
		switch {
		case set && remove:
			return nil, fmt.Errorf("label %q: with --remove give keys only", a)
		case set && k != "":
			out = append(out, labelChange{key: k, value: v})
		case !set && remove:
			out = append(out, labelChange{key: a, remove: true})
		case !set && strings.HasSuffix(a, "-") && len(a) > 1:
			out = append(out, labelChange{key: a[:len(a)-1], remove: true})
		default:
			return nil, fmt.Errorf("label %q: must be KEY=VALUE to set it, or KEY- to remove it", a)
		}
	}
	return out, nil
}

// relabel changes labels and says what it did.
func relabel(m *v3.ObjectMeta, changes []labelChange, overwrite bool) ([]string, error) {
	labels := maps.Clone(m.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	var said []string
	for _, c := range changes {
		old, exists := labels[c.key]
		switch {
		case c.remove && !exists:
			return nil, fmt.Errorf("there is no label %q to remove", c.key)
		case c.remove:
			delete(labels, c.key)
			said = append(said, "removed label "+c.key)
		case exists && old != c.value && !overwrite:
			return nil, fmt.Errorf("label %q has the value %q already: --overwrite changes it", c.key, old)
		case exists && old != c.value:
			labels[c.key] = c.value
			said = append(said, "updated label "+c.key)
		default:
			labels[c.key] = c.value
			said = append(said, "set label "+c.key)
		}
	}
	m.Labels = labels
	return said, nil
}
