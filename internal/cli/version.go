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
	c := &cobra.Command{
		Use: "version", Short: "Print the version of this program and of the cluster", GroupID: "run", Args: cobra.NoArgs,
		Long: `Print the version of this program and, when a datastore is configured or runs on
this host, the version and type of its cluster.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("output format %q: must be json, or nothing for lines", output)
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
				fmt.Fprintf(e.Stdout, "Cluster Version:   %s\nCluster Type:      %s\n", known(v.Cluster), known(v.ClusterType))
			}
			return err
		},
	}
	ds.addClient(c)
	c.Flags().BoolVar(&only, "client", false, "this program's version only")
	c.Flags().StringVarP(&output, "output", "o", "", "json, or nothing for lines")
	return c
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
