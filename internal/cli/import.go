package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/store"
)

// newImport builds `brindle datastore migrate import`.
func newImport(e *Env) *cobra.Command {
	var ds datastoreFlags
	var file string
	c := &cobra.Command{
		Use: "import -f FILE", Short: "Write what was exported into an empty datastore", Args: cobra.NoArgs,
		Long: `Write what "brindle datastore migrate export" or calicoctl's printed into a
datastore that is empty but for what every network has. All of it is checked
before anything is written, and what was written is taken back if the rest
cannot be. The datastore is locked meanwhile, and stays so until "brindle
datastore migrate unlock". It becomes the same cluster: its GUID is that of the
other. An import that was broken off is finished by doing it again.`,
		Example: `  brindle datastore migrate import -f network.txt
  brindle datastore migrate unlock`,
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return errors.New("no file given: use -f FILE or -f - for standard input")
			}
			i := &importer{e: e, values: map[string][]byte{}}
			if err := i.readFile(c.Context(), file); err != nil {
				return err
			}
			db, err := ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			i.db = db.driver
			warn(e, i.warnings())
			return i.run(c.Context())
		},
	}
	ds.addClient(c)
	c.Flags().StringVarP(&file, "filename", "f", "", "file that was exported, or - for standard input")
	return c
}

// importer writes an export into a datastore.
type importer struct {
	e         *Env
	db        store.Driver
	info      *v3.ClusterInformation
	docs      []v3.Document
	values    map[string][]byte // to be stored, by key
	resources int               // among values
	done      []written
}

// written is a key that was written, and how to take that back.
type written struct {
	key string
	rev store.Revision // "": it is not known whether it was written
	old []byte         // nil: it was not there
	new []byte
}

// readFile reads and checks a file whole.
func (i *importer) readFile(ctx context.Context, name string) error {
	var data []byte
	var err error
	if name == "-" {
		name = "standard input"
		data, err = io.ReadAll(i.e.Stdin)
	} else {
		data, err = os.ReadFile(name)
	}
	if err != nil {
		return err
	}
	parts, err := transferParts(name, data)
	if err != nil {
		return err
	}
	docs, err := v3.DecodeAll(name, parts[0])
	if err == nil {
		i.docs = docs
		err = check(ctx, nil, docs)
	}
	return errors.Join(err, i.readInfo(name, parts[1]), i.readIPAM(name, parts[2]), i.encode())
}

// readInfo reads the second part.
func (i *importer) readInfo(name string, data []byte) error {
	docs, err := v3.DecodeAll(name+", second part", data)
	if err != nil {
		return err
	}
	if len(docs) == 1 {
		i.info, _ = docs[0].Object.(*v3.ClusterInformation)
	}
	if i.info == nil {
		return fmt.Errorf("%s: second part: must be a ClusterInformation", name)
	}
	return nil
}

// readIPAM reads the third part.
func (i *importer) readIPAM(name string, data []byte) error {
	var t ipamTransfer
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return fmt.Errorf("%s: third part: %w", name, err)
	}
	var errs []error
	for _, r := range t.records() {
		if err := new(ipamTransfer).add(r); err != nil {
			errs = append(errs, fmt.Errorf("%s: third part: %w", name, err))
		}
		if i.values[r.Key] != nil {
			errs = append(errs, fmt.Errorf("%s: third part: %s: is given twice", name, r.Key))
		}
		var b bytes.Buffer
		if err := json.Compact(&b, r.Value); err != nil {
			errs = append(errs, fmt.Errorf("%s: third part: %s: %w", name, r.Key, err))
		}
		i.values[r.Key] = b.Bytes()
	}
	return errors.Join(errs...)
}

// encode makes the resources ready to be stored.
func (i *importer) encode() error {
	for _, d := range i.docs {
		kind, m := kindOf(d.Object), d.Object.Meta()
		if kind.Kind == "ClusterInformation" || kind.Kind == "IPAMConfiguration" {
			return d.Errors(v3.FieldErrors{{Path: "kind", Value: kind.Kind, Rule: "does not stand in the first part of an export"}})
		}
		m.UID, m.CreationTimestamp, m.ResourceVersion = client.NewUID(), v3.NewTime(time.Now()), ""
		value, err := v3.Encode(d.Object)
		if err != nil {
			return err
		}
		i.values[store.ResourceID{Plural: kind.Plural, Namespace: m.Namespace, Name: m.Name}.Key()] = value
	}
	i.resources = len(i.docs)
	return nil
}

// warnings name hosts that something is of, and that are not in the export.
func (i *importer) warnings() []string {
	hosts, missing := map[string]bool{}, map[string]bool{}
	for _, d := range i.docs {
		if n, ok := d.Object.(*v3.Node); ok {
			hosts[n.Name] = true
		}
	}
	note := func(host string) {
		if host != "" && !hosts[host] {
			missing[word(host)] = true
		}
	}
	for _, d := range i.docs {
		switch o := d.Object.(type) {
		case *v3.HostEndpoint:
			note(o.Spec.Node)
		case *v3.WorkloadEndpoint:
			note(o.Spec.Node)
		case *v3.BGPPeer:
			note(o.Spec.Node)
		case *v3.FelixConfiguration, *v3.BGPConfiguration:
			if host, ok := strings.CutPrefix(d.Object.Meta().Name, nodeScope); ok {
				note(host)
			}
		}
	}
	for key := range i.values {
		if a, ok := store.ParseAffinityKey(key); ok && !a.Virtual {
			note(a.Owner)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return []string{"no Node is in the export of hosts that something in it is of: " + strings.Join(slices.Sorted(maps.Keys(missing)), ", ")}
}

// run writes what is not there yet.
func (i *importer) run(ctx context.Context) error {
	writes, err := i.missing(ctx)
	if err != nil {
		return err
	}
	if err := i.lock(ctx); err != nil {
		return errors.Join(err, i.undo(ctx))
	}
	for batch := range slices.Chunk(writes, store.MaxWrites-1) { // one is left for the signature
		if err := i.write(ctx, batch); err != nil {
			return errors.Join(fmt.Errorf("import: %w", err), i.undo(ctx))
		}
	}
	_, err = fmt.Fprintf(i.e.Stdout, "Imported %s and %s of addresses.\nThe datastore is locked: when all is as it should be, say `brindle datastore migrate unlock`.\n",
		many(i.resources, "resource", "s"), many(len(i.values)-i.resources, "record", "s"))
	return err
}

// infoKey is where ClusterInformation is stored.
func infoKey() string {
	return store.ResourceID{Plural: "clusterinformations", Name: v3.DefaultName}.Key()
}

// missing lists what is to be written. What is in the datastore must be of
// every network, or of an import of the same that was broken off.
func (i *importer) missing(ctx context.Context) ([]store.Write, error) {
	builtIn := map[string]bool{infoKey(): true}
	for _, t := range v3.BuiltInTiers() {
		builtIn[store.ResourceID{Plural: "tiers", Name: t.Name}.Key()] = true
	}
	todo := map[string]store.Write{}
	for key, value := range i.values {
		todo[key] = store.Write{Key: key, Value: value}
	}
	var strange []string
	for _, root := range []string{store.ResourceRoot, store.IPAMRoot} {
		list, err := i.db.List(ctx, root)
		if err != nil {
			return nil, fmt.Errorf("read the datastore: %w", err)
		}
		for _, kv := range list.KVs {
			w, wanted := todo[kv.Key]
			switch {
			case wanted && alike(w.Value, kv.Value):
				delete(todo, kv.Key)
			case wanted && builtIn[kv.Key]:
				w.Revision = kv.Revision
				todo[kv.Key] = w
			case !builtIn[kv.Key]:
				strange = append(strange, word(strings.TrimPrefix(kv.Key, store.ResourceRoot)))
			}
		}
	}
	if n := len(strange); n > 0 {
		if n > 5 {
			strange = append(strange[:5], "…")
		}
		return nil, fmt.Errorf("the datastore is not empty: it has %s that the export has not, or not so: %s. Import into an empty one, before the first agent runs",
			many(n, "key", "s"), strings.Join(strange, ", "))
	}
	return slices.SortedFunc(maps.Values(todo), func(a, b store.Write) int { return strings.Compare(a.Key, b.Key) }), nil
}

// alike reports whether two stored values say the same, but for what a
// datastore gives a resource.
func alike(a, b []byte) bool {
	first, err1 := plain(a)
	second, err2 := plain(b)
	return err1 == nil && err2 == nil && reflect.DeepEqual(first, second)
}

// lock makes the datastore the cluster of the export, and says that it is being
// worked on.
func (i *importer) lock(ctx context.Context) error {
	w := store.Write{Key: infoKey()}
	kv, err := i.db.Get(ctx, w.Key)
	now := &v3.ClusterInformation{}
	switch {
	case errors.Is(err, store.ErrNotFound):
		*now = *i.info
		now.UID, now.CreationTimestamp, now.ResourceVersion = client.NewUID(), v3.NewTime(time.Now()), ""
	case err != nil:
		return fmt.Errorf("lock the datastore: %w", err)
	default:
		if err := json.Unmarshal(kv.Value, now); err != nil {
			return fmt.Errorf("lock the datastore: ClusterInformation: %w", err)
		}
		w.Revision = kv.Revision
	}
	now.Name, now.Spec = v3.DefaultName, i.info.Spec
	*now.Type() = v3.TypeMeta{Kind: "ClusterInformation", APIVersion: v3.Group}
	now.Spec.DatastoreReady = new(false)
	if w.Value, err = v3.Encode(now); err != nil {
		return err
	}
	rev, err := i.put(ctx, w)
	i.done = append(i.done, written{w.Key, rev, kv.Value, w.Value})
	if err != nil {
		return fmt.Errorf("lock the datastore: %w", err)
	}
	return nil
}

// write writes some keys: in one moment where the datastore can. Of what fails
// it is not known whether it was written all the same: the answer may be lost.
func (i *importer) write(ctx context.Context, batch []store.Write) error {
	old := map[string][]byte{}
	for _, w := range batch {
		if w.Revision == "" {
			continue
		}
		kv, err := i.db.Get(ctx, w.Key)
		if err != nil {
			return err
		}
		old[w.Key] = kv.Value
	}
	if tx, ok := i.db.(store.Transactor); ok {
		rev, err := tx.Transact(ctx, batch)
		for _, w := range batch {
			i.done = append(i.done, written{w.Key, rev, old[w.Key], w.Value})
		}
		return err
	}
	for _, w := range batch {
		rev, err := i.put(ctx, w)
		i.done = append(i.done, written{w.Key, rev, old[w.Key], w.Value})
		if err != nil {
			return err
		}
	}
	return nil
}

// put writes one key.
func (i *importer) put(ctx context.Context, w store.Write) (store.Revision, error) {
	if w.Revision == "" {
		return i.db.Create(ctx, w.Key, w.Value)
	}
	return i.db.Update(ctx, store.KV(w))
}

// undoLimit bounds how long is tried to take an import back.
const undoLimit = 30 * time.Second

// undo takes back what was written, also when the command is to end.
func (i *importer) undo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	left := len(i.done)
	for _, w := range slices.Backward(i.done) {
		if err := i.takeBack(ctx, w); err != nil {
			return fmt.Errorf("take back what was written: %w: %s left in the locked datastore: the same import finishes it", err, many(left, "key", "s"))
		}
		left--
	}
	return nil
}

// takeBack takes one write back, if it was made.
func (i *importer) takeBack(ctx context.Context, w written) error {
	if w.rev == "" {
		kv, err := i.db.Get(ctx, w.key)
		if errors.Is(err, store.ErrNotFound) || err == nil && !bytes.Equal(kv.Value, w.new) {
			return nil
		}
		if err != nil {
			return err
		}
		w.rev = kv.Revision
	}
	if w.old == nil {
		return i.db.Delete(ctx, w.key, w.rev)
	}
	_, err := i.db.Update(ctx, store.KV{Key: w.key, Value: w.old, Revision: w.rev})
	return err
}
