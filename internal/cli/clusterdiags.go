package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentclient"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/store"
)

// clusterDiags gathers what somebody needs who looks for a fault of a network.
type clusterDiags struct {
	diags
	focus    []string
	parallel int
	keepTemp bool
}

// newCluster builds `brindle cluster`, of which calicoctl's users know diags.
func newCluster(e *Env) *cobra.Command {
	c := &cobra.Command{Use: "cluster", Short: "Look after the network as a whole", GroupID: "look"}
	c.AddCommand(newClusterDiags(e))
	return c
}

// newClusterDiags builds `brindle cluster diags`.
func newClusterDiags(e *Env) *cobra.Command {
	d := &clusterDiags{diags: diags{e: e}}
	c := &cobra.Command{
		Use: "diags", Short: "Gather what helps to find a fault of the network, without secrets", Args: cobra.NoArgs,
		Long: `Gather what helps to find a fault of the network into one file: all resources, what
IPAM knows and what is wrong with it, what hosts have answered, and the settings
of hosts. Where an agent runs on this host, and for root, it has what "brindle
node diags" gathers here too. Nothing is asked of Kubernetes, and nobody logs in
to other hosts: run "brindle node diags" on those that matter.

Secrets are left out as by node diags. Read it before you hand it on: names and
addresses of your network are in it.`,
		Example: `  brindle cluster diags
  brindle cluster diags --focus-nodes n1,n2 --since 1h`,
		RunE: func(c *cobra.Command, _ []string) error {
			if d.most < 1 || d.parallel < 1 || d.since < 0 {
				return errors.New("--max-logs and --max-parallelism must be 1 or more, and --since a time like 90s, 10m or 3h")
			}
			if d.keepTemp {
				warn(e, []string{"--skip-temp-dir-cleanup is not needed: there is no such folder"})
			}
			return d.run(c.Context())
		},
	}
	d.ds.addClient(c)
	f := c.Flags()
	f.StringVarP(&d.file, "file", "f", "", "file to write, which must not be there yet (default: brindle-diags-cluster-TIME.tar.gz in this folder)")
	f.DurationVar(&d.since, "since", 0, "leave out lines of logs that are older, such as 90s, 10m or 3h")
	f.IntVar(&d.most, "max-logs", 5, "of how many hosts to include the settings, and how many logs of this host")
	f.StringSliceVar(&d.focus, "focus-nodes", nil, "hosts to begin with, with commas")
	f.IntVar(&d.parallel, "max-parallelism", 10, "how many questions to ask the datastore at a time")
	f.BoolVar(&d.keepTemp, "skip-temp-dir-cleanup", false, "accepted for calicoctl's sake: there is no such folder")
	d.addHost(c)
	return c
}

func (d *clusterDiags) run(ctx context.Context) error {
	begin := time.Now().UTC()
	d.agent = agentclient.New(d.socket)
	d.findAgent(ctx)
	d.redact = newRedactor(d.secrets())
	db, err := d.ds.connect(d.e)
	if err != nil {
		return err
	}
	defer db.close()
	if _, err := client.List[v3.Node](ctx, db.Client, ""); err != nil && !errors.Is(err, client.ErrUnreadable) {
		return err // nothing else would come either
	}
	err = d.gather(ctx, []diagsPart{
		{"resources", func(ctx context.Context) error {
			return d.ofDatastore(ctx, func(ctx context.Context) error { return d.resources(ctx, db) })
		}},
		{"addresses", func(ctx context.Context) error { return d.addresses(ctx, db) }},
		{"answers of hosts", func(ctx context.Context) error { return d.answers(ctx, db) }},
		{"settings of hosts", func(ctx context.Context) error { return d.hosts(ctx, db) }},
	})
	if err != nil {
		return err
	}
	manifest := map[string]any{"focus": append([]string{}, d.focus...)}
	if _, err := d.agent.Status(ctx); err == nil && os.Geteuid() == 0 {
		manifest["node"] = d.node
		if err := d.thisHost(ctx); err != nil {
			return err
		}
	} else if err == nil {
		d.failed = append(d.failed, "this host: node diags reads what only root may")
	}
	if err := d.finish(begin, "cluster", manifest); err != nil {
		return err
	}
	_, err = fmt.Fprintln(d.e.Stdout, "What other hosts' kernels and logs say is not in it: run `brindle node diags` there.")
	return err
}

// thisHost gathers what node diags does, in a folder of its own.
func (d *clusterDiags) thisHost(ctx context.Context) error {
	here := d.diags
	here.files, here.failed = nil, nil
	if err := here.gather(ctx, here.hostParts()); err != nil {
		return err
	}
	for _, f := range here.files {
		f.name = "hosts/" + here.node + "/" + f.name
		d.files = append(d.files, f)
	}
	for _, f := range here.failed {
		d.failed = append(d.failed, here.node+": "+f)
	}
	return nil
}

// resources are those of every kind, some kinds at a time.
func (d *clusterDiags) resources(ctx context.Context, db *session) error {
	kinds := slices.DeleteFunc(v3.Kinds(), func(k v3.KindInfo) bool {
		return slices.Contains([]string{"BlockAffinity", "IPAMBlock", "IPAMHandle"}, k.Kind)
	})
	lists, errs := make([]client.Listing, len(kinds)), make([]error, len(kinds))
	var wait sync.WaitGroup
	turn := make(chan struct{}, d.parallel)
	for i, kind := range kinds {
		turn <- struct{}{}
		wait.Go(func() {
			defer func() { <-turn }()
			lists[i], errs[i] = db.List(ctx, kind, "")
		})
	}
	wait.Wait()
	for i, kind := range kinds {
		if errs[i] == nil || errors.Is(errs[i], client.ErrUnreadable) {
			d.add("datastore/"+kind.Plural+".json", append([]v3.Object{}, lists[i].Objects...))
		}
	}
	return errors.Join(errs...)
}

// addresses are what IPAM has stored, and what is wrong with it.
func (d *clusterDiags) addresses(ctx context.Context, db *session) error {
	ctx, cancel := context.WithTimeout(ctx, gatherLimit)
	defer cancel()
	list, err := db.driver.List(ctx, store.IPAMRoot)
	if err != nil {
		return err
	}
	d.addRaw("ipam/records.json", list.KVs)
	report, err := db.addresses.Check(ctx)
	if err == nil {
		err = stamp(ctx, d.e, db, report)
	}
	d.addUnless(err, "ipam/check.json", report)
	var usage []ipam.Usage
	usage, err2 := db.addresses.Usage(ctx)
	d.addUnless(err2, "ipam/usage.json", usage)
	return errors.Join(err, err2)
}

// answers are what hosts have said in the datastore.
func (d *clusterDiags) answers(ctx context.Context, db *session) error {
	ctx, cancel := context.WithTimeout(ctx, gatherLimit)
	defer cancel()
	list, err := db.driver.List(ctx, store.AnswerRoot)
	if err == nil {
		d.addRaw("datastore/answers.json", list.KVs)
	}
	return err
}

// addRaw adds stored values as they are, with their keys.
func (d *clusterDiags) addRaw(name string, kvs []store.KV) {
	all := map[string]any{}
	for _, kv := range kvs {
		if all[kv.Key] = any(string(kv.Value)); json.Valid(kv.Value) {
			all[kv.Key] = json.RawMessage(bytes.Clone(kv.Value))
		}
	}
	n := len(d.files)
	d.add(name, all)
	for i := range d.files[n:] { // messages of hosts are in it
		d.files[n+i].data = d.redact.text(d.files[n+i].data)
	}
}

// hosts adds the settings of some hosts, those first that were named.
func (d *clusterDiags) hosts(ctx context.Context, db *session) error {
	nodes, err := client.List[v3.Node](ctx, db.Client, "")
	if err != nil && !errors.Is(err, client.ErrUnreadable) {
		return err
	}
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	var chosen []string
	var errs []error
	for _, name := range d.focus {
		if !slices.Contains(names, name) {
			errs = append(errs, fmt.Errorf("there is no Node %q", name))
		} else if !slices.Contains(chosen, name) {
			chosen = append(chosen, name)
		}
	}
	for _, name := range names {
		if len(chosen) < d.most && !slices.Contains(chosen, name) {
			chosen = append(chosen, name)
		}
	}
	for _, name := range chosen {
		if err := d.settingsOf(ctx, name, "hosts/"+strings.ReplaceAll(name, "/", "-")+"/effective.json"); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
