package cli

import (
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
	var ds datastoreFlags
	var patch, file, kindOfPatch, namespace string
	c := &cobra.Command{
		Use: "patch KIND NAME -p PATCH", Short: "Change some fields of a resource", GroupID: "resources",
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeKinds,
		Example: `  brindle patch ippool pool-a -p '{"spec":{"natOutgoing":true}}'`,
		Long: `Change some fields of a resource. Objects are merged field by field, lists are
replaced whole, null removes a field (RFC 7386). The patch may be JSON or YAML.`,
		RunE: func(c *cobra.Command, args []string) error {
			kind, name, err := oneName(args)
			if err != nil {
				return err
			}
			if kindOfPatch != "merge" && kindOfPatch != "strategic" {
				return fmt.Errorf("--type %q: must be merge or strategic, which mean the same here: no list of this API has a merge key", kindOfPatch)
			}
			change, err := readPatch(patch, file)
			if err != nil {
				return err
			}
			db, err := ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			_, err = db.Modify(c.Context(), kind, in1(kind, namespace), name, func(o v3.Object) error { return merge(o, change) })
			if err != nil {
				return failed("patch", kind, plainError(kind, &v3.ObjectMeta{Namespace: in1(kind, namespace), Name: name}, err))
			}
			_, err = fmt.Fprintf(e.Stdout, "Successfully patched 1 '%s' resource\n", kind.Kind)
			return err
		},
	}
	ds.addClient(c)
	c.Flags().StringVarP(&patch, "patch", "p", "", "the patch itself")
	c.Flags().StringVar(&file, "patch-file", "", "file that holds the patch")
	c.Flags().StringVarP(&kindOfPatch, "type", "t", "strategic", "merge or strategic")
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace (default \"default\")")
	return c
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

// readPatch reads the patch from where it was given.
func readPatch(patch, file string) (map[string]any, error) {
	switch {
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
	var change map[string]any
	if err := json.Unmarshal(data, &change); err != nil || change == nil {
		return nil, errors.New("the patch must be an object, as {\"spec\": {…}}")
	}
	return change, nil
}

// merge applies a merge patch to an object. The outcome is read strictly, so
// that a mistyped field is an error here as it is in a file.
func merge(o v3.Object, change map[string]any) error {
	data, err := v3.Encode(o)
	if err != nil {
		return err
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	mergeMaps(doc, change)
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

// mergeMaps is RFC 7386, section 2.
func mergeMaps(doc, change map[string]any) {
	for k, v := range change {
		sub, ok := v.(map[string]any)
		switch {
		case v == nil:
			delete(doc, k)
		case !ok:
			doc[k] = v
		default:
			target, ok := doc[k].(map[string]any)
			if !ok {
				target = map[string]any{}
				doc[k] = target
			}
			mergeMaps(target, sub)
		}
	}
}

// newLabel builds `brindle label`.
func newLabel(e *Env) *cobra.Command {
	var ds datastoreFlags
	var overwrite, remove bool
	namespace := ""
	c := &cobra.Command{
		Use: "label KIND NAME (KEY=VALUE… | KEY-… | KEY… --remove)", Short: "Set or remove labels of a resource", GroupID: "resources",
		Args: cobra.MinimumNArgs(2), ValidArgsFunction: completeKinds,
		Example: `  brindle label nodes h1 rack=r1
  brindle label nodes h1 rack-`,
		RunE: func(c *cobra.Command, args []string) error {
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
			db, err := ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			var said []string
			_, err = db.Modify(c.Context(), kind, in1(kind, namespace), name, func(o v3.Object) error {
				said, err = relabel(o.Meta(), changes, overwrite)
				return err
			})
			if err != nil {
				return failed("label", kind, plainError(kind, &v3.ObjectMeta{Namespace: in1(kind, namespace), Name: name}, err))
			}
			written, _, _ := strings.Cut(args[0], "/")
			for _, s := range said {
				fmt.Fprintf(e.Stdout, "Successfully %s on %s %s\n", word(s), word(written), word(name))
			}
			return nil
		},
	}
	ds.addClient(c)
	c.Flags().BoolVar(&overwrite, "overwrite", false, "change labels that have another value")
	c.Flags().BoolVar(&remove, "remove", false, "remove the labels named")
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace (default \"default\")")
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
