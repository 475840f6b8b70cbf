package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
)

// versions is what `brindle version -o json` prints.
type versions struct {
	Client      string `json:"clientVersion"`
	Commit      string `json:"gitCommit,omitempty"`
	Cluster     string `json:"clusterVersion,omitempty"`
	ClusterType string `json:"clusterType,omitempty"`
	ClusterGUID string `json:"clusterGUID,omitempty"`
}

// clusterTimeout is how long `brindle version` waits for the datastore.
const clusterTimeout = 5 * time.Second

// newVersion builds `brindle version`.
func newVersion(e *Env) *cobra.Command {
	var ds datastoreFlags
	only, output := false, ""
	var poll time.Duration
	c := &cobra.Command{
		Use: "version", Short: "Print the version of this program and of the cluster", GroupID: "run", Args: cobra.NoArgs,
		Long: `Print the version of this program and, when a datastore is configured or runs on
this host, the version and type of its cluster.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("output format %q: must be json, or nothing for lines", output)
			}
			if poll < 0 || poll > 0 && (only || output != "") {
				return fmt.Errorf("--poll %v: must not be negative, nor stand with --client or -o", poll)
			}
			v := versions{Client: e.Build, Commit: commitOf(e.Build)}
			var err error
			ask := !only && ds.configured(e)
			if ask {
				err = v.readCluster(c.Context(), e, &ds)
			}
			if output == "json" {
				if err := writeJSON(e.Stdout, v); err != nil {
					return err
				}
				return err
			}
			fmt.Fprintf(e.Stdout, "Client Version:    %s\nGit commit:        %s\n", v.Client, known(v.Commit))
			if ask && err == nil {
				v.printCluster(e)
			}
			if err != nil || poll == 0 {
				return err
			}
			return v.poll(c.Context(), e, &ds, poll)
		},
	}
	ds.addClient(c)
	c.Flags().BoolVar(&only, "client", false, "this program's version only")
	c.Flags().DurationVar(&poll, "poll", 0, "look at the cluster again so often, and print what changed, until interrupted; 0: once")
	c.Flags().StringVarP(&output, "output", "o", "", "json, or nothing for lines")
	return c
}

func (v *versions) printCluster(e *Env) {
	fmt.Fprintf(e.Stdout, "Cluster Version:   %s\nCluster Type:      %s\n", known(v.Cluster), known(v.ClusterType))
}

// poll prints what the cluster says of itself whenever that has changed, until
// ctx ends.
func (v *versions) poll(ctx context.Context, e *Env, ds *datastoreFlags, every time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // an interrupt is how it ends
		case <-ticker.C:
		}
		now := versions{Client: v.Client, Commit: v.Commit}
		if err := now.readCluster(ctx, e, ds); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if now != *v {
			*v = now
			v.printCluster(e)
		}
	}
}

// readCluster reads what the cluster says about itself. A cluster that has
// said nothing yet is fine.
func (v *versions) readCluster(ctx context.Context, e *Env, ds *datastoreFlags) error {
	ctx, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	db, err := ds.connect(e)
	if err != nil {
		return err
	}
	defer db.close()
	info, err := client.Get[v3.ClusterInformation](ctx, db.Client, "", v3.DefaultName)
	if client.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask the cluster for its version: %w", err)
	}
	v.Cluster, v.ClusterType, v.ClusterGUID = info.Spec.CalicoVersion, info.Spec.ClusterType, info.Spec.ClusterGUID
	return nil
}

// commitOf finds the commit in what "git describe" printed: the hash itself, or
// behind a tag, a count and a g. A build of a tag alone has none.
func commitOf(build string) string {
	version, _, _ := strings.Cut(build, " ")
	version = strings.TrimSuffix(version, "-dirty")
	if i := strings.LastIndex(version, "-g"); i >= 0 {
		version = version[i+2:]
	}
	isHex := func(r rune) bool { return strings.ContainsRune("0123456789abcdef", r) }
	if len(version) < 7 || strings.TrimFunc(version, isHex) != "" {
		return ""
	}
	return version
}

func known(s string) string {
	if s == "" {
		return "unknown"
	}
	return word(s)
}
