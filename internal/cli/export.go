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
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/kubepolicy"
	"github.com/brindle-net/brindle/internal/store"
)

// errNotLocked is told by what wants a datastore at rest.
var errNotLocked = errors.New("the datastore is not locked: lock it with `brindle datastore migrate lock`, and unlock it afterwards")

// newExport builds `brindle datastore migrate export`.
func newExport(e *Env) *cobra.Command {
	var ds datastoreFlags
	var kubernetes bool
	c := &cobra.Command{
		Use: "export", Short: "Print all that is in the datastore, for another one", Args: cobra.NoArgs,
		Long: `Print all that is in the datastore in calicoctl's form, for "brindle datastore
migrate import" or calicoctl's: a list for each kind, ClusterInformation, and
what IPAM knows. The datastore must be locked, so that it is of one moment. What
runs on hosts, and goes with it to the other datastore, is in it too: endpoints
of workloads and profiles. With --kubernetes these are left out, as Kubernetes
makes them anew, and hosts have the names that they have there.`,
		Example: `  brindle datastore migrate lock
  brindle datastore migrate export > network.txt`,
		RunE: func(c *cobra.Command, _ []string) error {
			db, err := ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			x := &exporter{e: e, db: db, kubernetes: kubernetes, names: map[string]string{}}
			t, err := x.read(c.Context())
			if err != nil {
				return err
			}
			warn(e, x.warnings)
			return t.write(e.Stdout)
		},
	}
	ds.addClient(c)
	c.Flags().BoolVar(&kubernetes, "kubernetes", false, "for calicoctl's import into Kubernetes: every Node must say its name there (orchRefs)")
	return c
}

// exporter reads a datastore.
type exporter struct {
	e          *Env
	db         *session
	kubernetes bool
	names      map[string]string // of hosts, in the other datastore
	warnings   []string
}

func (x *exporter) read(ctx context.Context) (*transfer, error) {
	var now ipam.Report
	if err := stamp(ctx, x.e, x.db, &now); err != nil {
		return nil, err
	}
	if !now.DatastoreLocked {
		return nil, errNotLocked
	}
	stored, err := x.db.driver.List(ctx, store.ResourceRoot)
	if err != nil {
		return nil, fmt.Errorf("read the datastore: %w", err)
	}
	addresses, err := x.db.driver.List(ctx, store.IPAMRoot)
	if err != nil {
		return nil, fmt.Errorf("read the datastore: %w", err)
	}
	if x.kubernetes {
		if err := x.nameHosts(stored.KVs); err != nil {
			return nil, err
		}
	}
	t := &transfer{}
	if err := x.resources(t, stored.KVs); err != nil {
		return nil, err
	}
	for _, kv := range addresses.KVs {
		r := ipamRecord{Key: kv.Key, Value: kv.Value}
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", kv.Key, err)
		}
		if r, err = x.renamedRecord(r); err == nil {
			err = t.ipam.add(r)
		}
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// resources puts stored resources into the lists of their kinds.
func (x *exporter) resources(t *transfer, stored []store.KV) error {
	plurals, ours := transferred()
	if !x.kubernetes {
		plurals = append(plurals, ours...)
	}
	items := map[string][]map[string]any{}
	unknown := map[string]bool{}
	for _, kv := range stored {
		id, ok := store.ParseResourceKey(kv.Key)
		kind, known := v3.LookupKind(id.Plural)
		if !ok || !known || kind.Plural != id.Plural {
			unknown[kv.Key] = true
			continue
		}
		tree, err := plain(kv.Value)
		if err != nil {
			return fmt.Errorf("%s: %w", titled(kind, id.Namespace, id.Name), err)
		}
		tree["kind"], tree["apiVersion"] = kind.Kind, v3.Group
		switch {
		case id.Plural == "clusterinformations":
			t.info = tree
		case x.kubernetes && kind.Kind == "NetworkPolicy" && kubepolicy.Reserved(kind.Kind, id.Name): // Kubernetes has it itself
		case slices.Contains(plurals, id.Plural):
			x.renameTree(id.Plural, tree)
			items[id.Plural] = append(items[id.Plural], tree)
		case !slices.Contains(ours, id.Plural):
			unknown[kv.Key] = true
		}
	}
	for key := range unknown {
		x.warnings = append(x.warnings, "not exported: "+key+": this version knows no such kind")
	}
	slices.Sort(x.warnings)
	for _, plural := range plurals {
		if kind, ok := v3.LookupKind(plural); ok && len(items[plural]) > 0 {
			t.lists = append(t.lists, map[string]any{"apiVersion": v3.Group, "kind": kind.Kind + "List", "metadata": map[string]any{}, "items": items[plural]})
		}
	}
	return nil
}

// nameHosts finds out what hosts are called in Kubernetes.
func (x *exporter) nameHosts(stored []store.KV) error {
	var without []string
	for _, kv := range stored {
		id, ok := store.ParseResourceKey(kv.Key)
		if !ok || id.Plural != "nodes" {
			continue
		}
		var n v3.Node
		if err := json.Unmarshal(kv.Value, &n); err != nil {
			return fmt.Errorf("Node(%s): %w", word(id.Name), err)
		}
		i := slices.IndexFunc(n.Spec.OrchRefs, func(r v3.OrchRef) bool { return r.Orchestrator == "k8s" && r.NodeName != "" })
		if i < 0 {
			without = append(without, word(id.Name))
			continue
		}
		x.names[id.Name] = n.Spec.OrchRefs[i].NodeName
	}
	if len(without) > 0 {
		return fmt.Errorf("these hosts do not say what they are called in Kubernetes (spec.orchRefs with orchestrator k8s): %s", strings.Join(without, ", "))
	}
	return nil
}

// renamed is what a host is called in the other datastore.
func (x *exporter) renamed(host string) string {
	if name, ok := x.names[host]; ok {
		return name
	}
	return host
}

// renameTree renames the host that a resource is of, or is for.
func (x *exporter) renameTree(plural string, tree map[string]any) {
	meta, _ := tree["metadata"].(map[string]any)
	spec, _ := tree["spec"].(map[string]any)
	name, _ := meta["name"].(string)
	switch plural {
	case "nodes":
		meta["name"] = x.renamed(name)
	case "bgpconfigurations", "felixconfigurations":
		if host, ok := strings.CutPrefix(name, nodeScope); ok {
			meta["name"] = nodeScope + x.renamed(host)
		}
	case "hostendpoints", "bgppeers":
		if host, ok := spec["node"].(string); ok && host != "" {
			spec["node"] = x.renamed(host)
		}
	}
}

// nodeScope begins the names of settings of one host.
const nodeScope = "node."

// renamedRecord renames hosts in what IPAM stored.
func (x *exporter) renamedRecord(r ipamRecord) (ipamRecord, error) {
	if a, ok := store.ParseAffinityKey(r.Key); ok && !a.Virtual {
		a.Owner = x.renamed(a.Owner)
		r.Key = a.Key()
		return r, nil
	}
	if id, ok := store.ParseHandleKey(r.Key); ok {
		r.Key = store.HandleKey(x.renamedHandle(id))
		return r, nil
	}
	if _, ok := store.ParseBlockKey(r.Key); !ok || len(x.names) == 0 {
		return r, nil
	}
	d := json.NewDecoder(bytes.NewReader(r.Value))
	d.UseNumber()
	var b map[string]any
	if err := d.Decode(&b); err != nil {
		return r, fmt.Errorf("%s: %w", r.Key, err)
	}
	if host, ok := strings.CutPrefix(fmt.Sprint(b["affinity"]), "host:"); ok {
		b["affinity"] = ipam.HostAffinity(x.renamed(host))
	}
	attributes, _ := b["attributes"].([]any)
	for _, attribute := range attributes {
		a, _ := attribute.(map[string]any)
		if id, ok := a["handle_id"].(string); ok {
			a["handle_id"] = x.renamedHandle(id)
		}
		for _, name := range []string{"secondary", "alternate", "alternateOwnerAttrs"} {
			attrs, _ := a[name].(map[string]any)
			if host, ok := attrs["node"].(string); ok {
				attrs["node"] = x.renamed(host)
			}
		}
	}
	value, err := json.Marshal(b)
	r.Value = value
	return r, err
}

// renamedHandle renames the host in the handle of a tunnel's address.
func (x *exporter) renamedHandle(id string) string {
	for _, kind := range []string{ipam.TypeIPIPTunnel, ipam.TypeVXLANTunnel, ipam.TypeVXLANV6Tunnel, ipam.TypeWireguardTunnel, ipam.TypeWireguardV6Tunnel} {
		if host, ok := strings.CutPrefix(id, ipam.TunnelHandle(kind, "")); ok && x.names[host] != "" {
			return ipam.TunnelHandle(kind, x.names[host])
		}
	}
	return id
}
