package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// newSimulate builds `brindle simulate`.
func newSimulate(e *Env) *cobra.Command {
	var s simulation
	c := &cobra.Command{
		Use: "simulate --routes -f FILE", Short: "Say what would change if files were applied", GroupID: "look", Args: cobra.NoArgs,
		Long: `Say what would change if files were applied: which tunnels and routes of the
agents would appear, change and vanish on which host, and between which hosts
packets would travel in another form. Nothing is written.

The files are checked and applied, as apply does it, to a copy of the
datastore in memory, or of the files given by --base. The hosts' agents are
taken to have done then what they do by and by: addresses of tunnels are taken
and given back, and every host accepts the forms that its pools ask for. While
a cluster changes, hosts go on receiving by a tunnel that is to vanish for ten
minutes. Routes that come by BGP are not the agents', so they are not listed;
how packets travel is told for them too.

FelixConfiguration is heeded. What agents were told or find out on their hosts
is not known here: --bgp says whether they speak BGP, and an MTU is told where
it is configured.

Exit status: 0 whether or not something would change, 1 after a failure.`,
		Example: `  brindle simulate --routes -f pool.yaml
  brindle simulate --routes -f new/ --host h2 -o json
  brindle simulate --routes --base cluster/ -f pool.yaml`,
		RunE: func(c *cobra.Command, _ []string) error { return s.run(c.Context(), e) },
	}
	s.ds.addClient(c)
	f := c.Flags()
	f.StringArrayVarP(&s.files.names, "filename", "f", nil, "file, folder or - for standard input; again for more")
	f.BoolVarP(&s.files.recursive, "recursive", "R", false, "folders with all that is below them")
	f.StringVarP(&s.files.namespace, "namespace", "n", "", "namespace of resources that have none in the file (default \"default\")")
	f.StringArrayVar(&s.base, "base", nil, "file or folder with the cluster as it is, instead of the datastore; again for more")
	f.BoolVar(&s.routes, "routes", false, "say what becomes of tunnels and routes (required)")
	f.StringVar(&s.host, "host", "", "only what becomes of this host, and of packets from and to it")
	f.StringVar(&s.bgp, "bgp", "on", "on, off or none, as agents were told")
	f.StringVarP(&s.output, "output", "o", "text", "text or json")
	return c
}

// simulation is one run of simulate, as its flags say.
type simulation struct {
	ds                datastoreFlags
	files             fileFlags
	base              []string
	routes            bool
	host, bgp, output string
}

func (s *simulation) run(ctx context.Context, e *Env) error {
	switch {
	case s.output != "text" && s.output != "json":
		return fmt.Errorf("output format %q: must be text or json", s.output)
	case !slices.Contains([]string{"on", "off", "none"}, s.bgp):
		return fmt.Errorf("--bgp %q: must be on, off or none", s.bgp)
	case !s.routes:
		return errors.New("what is to be simulated? --routes says what becomes of tunnels and routes; what becomes of connections when policies change is not told by this version")
	case slices.Contains(s.base, "-") && slices.Contains(s.files.names, "-"):
		return errors.New("standard input can be --base or -f, not both")
	}
	docs, err := s.files.read(e)
	if err != nil {
		return err
	}
	db, err := s.copyBase(ctx, e, docs)
	if err != nil {
		return err
	}
	before, err := s.look(ctx, db)
	if err != nil {
		return err
	}
	if err := applyTo(ctx, e, db, docs); err != nil {
		return err
	}
	after, err := s.look(ctx, db)
	if err != nil {
		return err
	}
	if names := slices.Concat(before.names, after.names); s.host != "" && !slices.Contains(names, s.host) {
		slices.Sort(names)
		return fmt.Errorf("--host: there is no host %q: the hosts are %s", s.host, strings.Join(slices.Compact(names), ", "))
	}
	d := compareNetworks(before, after, s.host)
	warn(e, after.warnings)
	if s.output == "json" {
		return writeJSON(e.Stdout, d.json())
	}
	d.print(e)
	return nil
}

// copyBase makes a datastore in memory that holds the cluster as it is, and
// sees to it that the documents meet in it what they would meet there.
func (s *simulation) copyBase(ctx context.Context, e *Env, docs []v3.Document) (*session, error) {
	copied := newSession(inMemory{mem.New()})
	if len(s.base) > 0 {
		for _, d := range docs {
			d.Object.Meta().ResourceVersion = ""
		}
		return copied, s.fill(ctx, e, copied)
	}
	db, err := s.ds.connect(e)
	if err != nil {
		return nil, fmt.Errorf("%w; or give the cluster as files, by --base", err)
	}
	defer db.close()
	for _, d := range docs {
		if err := carryOver(ctx, db, d.Object); err != nil {
			return nil, err
		}
	}
	list, err := db.driver.List(ctx, "/calico/")
	if err != nil {
		return nil, fmt.Errorf("read the datastore: %w", err)
	}
	for _, kv := range list.KVs {
		if _, err := copied.driver.Create(ctx, kv.Key, kv.Value); err != nil {
			return nil, fmt.Errorf("copy the datastore: %w", err)
		}
	}
	return copied, nil
}

// carryOver makes an object's resourceVersion mean in a copy what it means in
// the datastore: revisions are not copied.
func carryOver(ctx context.Context, db *session, o v3.Object) error {
	m := o.Meta()
	if m.ResourceVersion == "" {
		return nil
	}
	stored, err := db.Get(ctx, kindOf(o), m.Namespace, m.Name)
	switch {
	case client.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case stored.Meta().ResourceVersion == m.ResourceVersion:
		m.ResourceVersion = ""
	default:
		m.ResourceVersion = "stale" // no revision of the copy is called so
	}
	return nil
}

// fill puts the files of --base into a datastore. They may be what get prints.
// What Brindle writes by itself is left out. The addresses of workloads are
// taken, as they were when the workloads were set up: hosts have the blocks
// that this gives them.
func (s *simulation) fill(ctx context.Context, e *Env, db *session) error {
	files := fileFlags{names: s.base, recursive: s.files.recursive, namespace: s.files.namespace}
	docs, err := files.read(e)
	if err != nil {
		return err
	}
	docs = slices.DeleteFunc(docs, func(d v3.Document) bool {
		m := d.Object.Meta()
		m.UID, m.ResourceVersion, m.CreationTimestamp = "", "", nil
		return kindOf(d.Object).ReadOnly
	})
	quiet := &Env{Stdout: io.Discard, Stderr: io.Discard} // warnings are for what is to be applied
	if err := applyTo(ctx, quiet, db, docs); err != nil {
		return err
	}
	for _, d := range docs {
		w, ok := d.Object.(*v3.WorkloadEndpoint)
		if !ok {
			continue
		}
		ev, _, err := model.FromObject(w)
		x, ok := ev.Value.(*model.Workload)
		if err != nil || !ok {
			continue // it is told when it is used
		}
		for _, a := range x.Addrs {
			_, err := db.addresses.AssignIP(ctx, ipam.AssignIPArgs{Addr: a, Host: w.Spec.Node, Handle: "base." + w.Name, Use: v3.UseWorkload})
			if err != nil && !errors.Is(err, ipam.ErrNoPool) && !errors.Is(err, ipam.ErrAssigned) {
				return fmt.Errorf("%s%w", place(d), err)
			}
		}
	}
	return nil
}

// applyTo does what apply does, and says what apply says of what is wrong.
func applyTo(ctx context.Context, e *Env, db *session, docs []v3.Document) error {
	v := applying()
	if err := v.prepare(ctx, e, db, docs); err != nil {
		return err
	}
	quiet := &Env{Stdout: io.Discard, Stderr: e.Stderr}
	return new(writeOptions).write(ctx, quiet, db, writing{verb: v, docs: docs})
}

// inMemory is a datastore that ends with the command.
type inMemory struct{ *mem.Store }

// Close implements Datastore.
func (inMemory) Close() error { return nil }
