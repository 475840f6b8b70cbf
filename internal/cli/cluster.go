package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/feed"
	"github.com/brindle-net/brindle/internal/policytest"
)

// filesFloor is the heap, in bytes, below which a command that reads a cluster
// and ends collects no garbage: what it reads it keeps to the end.
const filesFloor = 64 << 20

// clusterFiles are the flags of commands that read a whole cluster from files.
type clusterFiles struct{ fileFlags }

func (f *clusterFiles) add(c *cobra.Command) {
	f.cluster = true
	c.Flags().StringArrayVarP(&f.names, "filename", "f", nil, "file, folder or - for standard input; again for more")
	c.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "folders with all that is below them")
	c.Flags().StringVarP(&f.namespace, "namespace", "n", "", "namespace of objects that have none in the file (default \"default\")")
}

// read puts a cluster together. What is wrong is told all at once.
func (f *clusterFiles) read(ctx context.Context, e *Env) (*policytest.Cluster, []v3.Document, error) {
	docs, err := f.fileFlags.read(e)
	if err != nil {
		return nil, nil, err
	}
	var ours, others []v3.Document
	var wrong v3.DocumentErrors
	for _, d := range docs {
		m, kind := d.Object.Meta(), d.Object.Type()
		if kind.APIVersion == v3.Group {
			ours = append(ours, d)
			continue
		}
		others = append(others, d)
		if test, ok := d.Object.(*policytest.PolicyTest); ok {
			wrong = append(wrong, d.Errors(test.Check())...)
		}
		if m.Namespace == "" && policytest.Namespaced(kind.Kind) {
			m.Namespace = in1(v3.KindInfo{Namespaced: true}, f.namespace)
		}
	}
	wrong = append(wrong, twice(others)...)
	if err := errors.Join(check(ctx, nil, ours), wrong.Err()); err != nil {
		return nil, nil, err
	}
	cluster, unusable := policytest.FromDocuments(docs)
	return cluster, docs, unusable.Err()
}

// liveCluster reads the cluster that is in a datastore now.
func liveCluster(ctx context.Context, db *session) (*policytest.Cluster, error) {
	events, err := feed.Read(ctx, db.driver)
	if err != nil {
		return nil, err
	}
	c := policytest.NewCluster()
	for _, e := range events {
		c.Add(e)
	}
	endpoints, err := client.List[v3.WorkloadEndpoint](ctx, db.Client, "")
	if err != nil && !errors.Is(err, client.ErrUnreadable) { // those that cannot be read have no name
		return nil, err
	}
	for _, w := range endpoints {
		c.Call(w)
	}
	return c, nil
}
