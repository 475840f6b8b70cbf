package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
)

// newPolicyNames builds `brindle datastore migrate-policy-names`.
func newPolicyNames(e *Env) *cobra.Command {
	var ds datastoreFlags
	c := &cobra.Command{
		Use: "migrate-policy-names", Short: "Give policies of older releases of Calico their names", Args: cobra.NoArgs,
		Long: `Releases of Calico before 3.32 stored a policy of the default tier with "default."
before its name. Brindle finds it by both names. This renames such policies, each
in one moment where the datastore can. One that says itself that it is called
"default.…", as those do that were written since, keeps its name. Hosts with an
older Calico do not know the new names: all must have been updated before.`,
		RunE: func(c *cobra.Command, _ []string) error {
			db, err := ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			return renamePolicies(c.Context(), e, db.driver)
		},
	}
	ds.addClient(c)
	return c
}

// renamePolicies renames what it can, and tells all that it cannot.
func renamePolicies(ctx context.Context, e *Env, db store.Driver) error {
	renamed := 0
	var errs []error
	for _, plural := range []string{"networkpolicies", "globalnetworkpolicies", "stagednetworkpolicies", "stagedglobalnetworkpolicies"} {
		kind, _ := v3.LookupKind(plural) // it is one
		list, err := db.List(ctx, store.ResourcePrefix(plural, ""))
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("read the datastore: %w", err))...)
		}
		for _, kv := range list.KVs {
			id, ok := store.ParseResourceKey(kv.Key)
			name, legacy := strings.CutPrefix(id.Name, v3.TierDefault+".")
			if !ok || !legacy || name == "" {
				continue
			}
			value, err := underName(kv.Value, id.Name, name)
			if err == nil && value == nil {
				continue
			}
			if err == nil {
				err = rename(ctx, db, kv, store.Write{Key: store.ResourceID{Plural: plural, Namespace: id.Namespace, Name: name}.Key(), Value: value})
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("rename %s: %w", titled(kind, id.Namespace, id.Name), err))
				continue
			}
			renamed++
			fmt.Fprintf(e.Stdout, "%s: renamed to %s\n", titled(kind, id.Namespace, id.Name), word(name))
		}
	}
	fmt.Fprintf(e.Stdout, "Renamed %d %s.\n", renamed, yesNo(renamed == 1, "policy", "policies"))
	return errors.Join(errs...)
}

// underName is a stored policy under another name; nil if the one it has is its
// own.
func underName(value []byte, old, name string) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	var tree map[string]any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	spec, _ := tree["spec"].(map[string]any)
	if tier, ok := spec["tier"].(string); ok && tier != "" && tier != v3.TierDefault {
		return nil, nil
	}
	meta, ok := tree["metadata"].(map[string]any)
	if !ok {
		return nil, errors.New("it has no metadata")
	}
	annotations, ok := meta["annotations"].(map[string]any)
	if !ok {
		annotations = map[string]any{}
		meta["annotations"] = annotations
	}
	var said struct {
		Name string `json:"name"`
	}
	if text, ok := annotations[v3.AnnotationMetadata].(string); ok && json.Unmarshal([]byte(text), &said) == nil && said.Name == old {
		return nil, nil
	}
	own, err := json.Marshal(map[string]string{"name": name})
	if err != nil {
		return nil, err
	}
	meta["name"], annotations[v3.AnnotationMetadata] = name, string(own)
	return json.Marshal(tree)
}

// rename puts a value in the place of a key.
func rename(ctx context.Context, db store.Driver, old store.KV, w store.Write) error {
	exists := func(err error) error {
		if errors.Is(err, store.ErrExists) {
			return errors.New("there is one of the new name too: delete one of the two")
		}
		return err
	}
	if tx, ok := db.(store.Transactor); ok {
		_, err := tx.Transact(ctx, []store.Write{w, {Key: old.Key, Revision: old.Revision}})
		return exists(err)
	}
	if _, err := db.Create(ctx, w.Key, w.Value); err != nil {
		return exists(err)
	}
	return db.Delete(ctx, old.Key, old.Revision)
}
