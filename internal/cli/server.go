package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/controllers"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/server"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/embedded"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// defaultDataDir is where the server of a host keeps its data.
const defaultDataDir = "/var/lib/brindle/server"

// serverOptions are the flags of `brindle server`.
type serverOptions struct {
	dir    string
	socket string
	tls    embedded.TLS
	clusterOptions
	history  time.Duration
	quota    int64
	grace    time.Duration
	logLevel string
}

// newServer builds `brindle server`.
func newServer(e *Env) *cobra.Command {
	o := serverOptions{dir: defaultDataDir}
	c := &cobra.Command{
		Use: "server", Short: "Run the datastore of a network that has none", GroupID: "run", Args: cobra.NoArgs,
		Long: `Run an etcd inside this program, and collect addresses that crashes left behind.
It listens on a unix socket for root alone. --listen-client lets hosts in over
TCP, with certificates made by "brindle server certs" (--certs), or each with one
that --client-ca has signed. With --peers it is one member of three: the datastore
then lives on as long as two of them do.

With the default folder the socket is where every brindle command on this host
looks for it. With another one, the commands need ETCD_ENDPOINTS as printed.`,
		Example: `  brindle server --data-dir /var/lib/brindle/server
  brindle server --name a --certs /etc/brindle/certs --listen-client 192.0.2.1:2379
  brindle server --name a --peers a=https://192.0.2.1:2380,b=https://192.0.2.2:2380,c=https://192.0.2.3:2380
  brindle server snapshot save /backup/brindle.db`,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.config(e)
			if err != nil {
				return err
			}
			return server.Run(c.Context(), cfg)
		},
	}
	c.PersistentFlags().StringVar(&o.dir, "data-dir", o.dir, "folder for the data, for root alone")
	f := c.Flags()
	f.StringVar(&o.socket, "socket", "", "unix socket of etcd (default: "+strings.TrimPrefix(etcd.DefaultEndpoint, "unix://")+" for the default folder, else etcd.sock in the folder)")
	f.StringVar(&o.tls.Listen, "listen-client", "", "also listen here, ADDRESS:PORT, with TLS and clients' certificates")
	f.StringVar(&o.tls.CertFile, "cert", "", "file with the certificate for --listen-client")
	f.StringVar(&o.tls.KeyFile, "key", "", "file with its key")
	f.StringVar(&o.tls.CAFile, "client-ca", "", "file with the authority that signs clients' certificates")
	f.DurationVar(&o.history, "history", embedded.DefaultHistory, "for how long old revisions are kept, for watches to resume")
	f.Int64Var(&o.quota, "quota", embedded.DefaultQuota, "bytes at which etcd refuses writes")
	f.DurationVar(&o.grace, "leak-grace-period", ipam.DefaultGrace, "for how long an address must be without an owner before it is released")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	o.flags(c)
	c.AddCommand(newServerStatus(e, &o), newSnapshot(e, &o), newCerts(e), newMembers(e, &o), newUsers(e, &o))
	return c
}

// config checks the flags.
func (o *serverOptions) config(e *Env) (server.Config, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return server.Config{}, fmt.Errorf("--log-level %q: must be debug, info, warn or error", o.logLevel)
	}
	log := slog.New(slog.NewTextHandler(e.Stderr, &slog.HandlerOptions{Level: level}))
	cfg := server.Config{Dir: o.dir, Socket: o.socket, History: o.history, Quota: o.quota, Log: log}
	if o.socket == "" && o.dir == defaultDataDir {
		cfg.Socket = strings.TrimPrefix(etcd.DefaultEndpoint, "unix://")
	}
	switch {
	case o.history <= 0:
		return cfg, fmt.Errorf("--history %s: must be more than nothing", o.history)
	case o.quota <= 0:
		return cfg, fmt.Errorf("--quota %d: must be more than nothing", o.quota)
	case o.grace <= 0:
		return cfg, fmt.Errorf("--leak-grace-period %s: must be more than nothing", o.grace)
	}
	cluster, err := o.complete()
	if err != nil {
		return cfg, err
	}
	cfg.Cluster, cfg.Users = cluster, o.certs != ""
	if o.tls != (embedded.TLS{}) {
		for _, f := range []struct{ name, value string }{
			{"listen-client", o.tls.Listen}, {"cert", o.tls.CertFile}, {"key", o.tls.KeyFile}, {"client-ca", o.tls.CAFile},
		} {
			if f.value == "" {
				return cfg, fmt.Errorf("--%s is missing: --listen-client, --cert, --key and --client-ca belong together, nobody is let in over TCP without a certificate", f.name)
			}
		}
		if err := hostPort("listen-client", o.tls.Listen); err != nil {
			return cfg, err
		}
		cfg.TLS = &o.tls
	}
	cfg.Jobs = map[string]func(context.Context, store.Driver) error{
		"controllers": func(ctx context.Context, db store.Driver) error {
			return controllers.Lead(ctx, controllers.LeadConfig{
				Driver: db, Name: o.leaderName(), Log: log,
				Work: func(ctx context.Context, db store.Driver) error { return o.control(ctx, db, log) },
			})
		},
	}
	cfg.Ready = func(st server.Status) {
		fmt.Fprintf(e.Stdout, "export DATASTORE_TYPE=etcdv3\nexport ETCD_ENDPOINTS=%[1]s\nexport BRINDLE_ETCD_ENDPOINTS=%[1]s\n", st.Endpoint)
	}
	return cfg, nil
}

// leaderName is what the others call this server when it leads.
func (o *serverOptions) leaderName() string {
	if o.name != "" {
		return o.name
	}
	name, err := os.Hostname()
	if err != nil {
		return "a server"
	}
	return name
}

// control is what one server does for the whole network.
func (o *serverOptions) control(ctx context.Context, db store.Driver, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error)
	go func() {
		ended <- ipam.NewCollector(ipam.CollectorConfig{Manager: ipam.New(ipam.Config{Driver: db}), Grace: o.grace, Log: log}).Run(ctx)
	}()
	go func() {
		ended <- controllers.NewHosts(controllers.HostsConfig{
			Client: client.New(db, client.Config{}), IPAM: ipam.New(ipam.Config{Driver: db}), Grace: o.grace, Log: log,
		}).Run(ctx)
	}()
	err := <-ended // the first one ends both
	cancel()
	<-ended
	return err
}

// newServerStatus builds `brindle server status`.
func newServerStatus(e *Env, o *serverOptions) *cobra.Command {
	output := ""
	c := &cobra.Command{
		Use: "status", Short: "Show how the server on this host is", Args: cobra.NoArgs,
		Long: `Show how the server on this host is: where it listens, how full it is, and what
a human must see to. Exit status 1 when there is something, or no server.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("output format %q: must be json, or nothing for lines", output)
			}
			st, err := server.ReadStatus(c.Context(), o.dir)
			if errors.Is(err, server.ErrNotRunning) {
				return fmt.Errorf("%w: start one with `brindle server`, or name its folder with --data-dir", err)
			}
			if err != nil {
				return err
			}
			if output == "json" {
				err = writeJSON(e.Stdout, st)
			} else {
				printServer(e, st)
			}
			if err == nil && st.Problem != "" {
				return &ExitError{Status: 1}
			}
			return err
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "json, or nothing for lines")
	return c
}

func printServer(e *Env, st server.Status) {
	listen := st.Listen
	if listen == "" {
		listen = "unix socket only"
	}
	fmt.Fprintf(e.Stdout, "Server: %s\n", yesNo(st.Problem == "", "fine", "NEEDS ATTENTION"))
	if st.Problem != "" {
		fmt.Fprintf(e.Stdout, "  problem   %s (since %s)\n", word(st.Problem), st.Since.UTC().Format(time.RFC3339))
	}
	if st.Member != "" {
		fmt.Fprintf(e.Stdout, "  member    %s of %d, %s\n", word(st.Member), st.Members, yesNo(st.Leads, "leads", "follows"))
	}
	if !st.Expires.IsZero() {
		fmt.Fprintf(e.Stdout, "  expires   %s (the first certificate)\n", st.Expires.UTC().Format(time.DateOnly))
	}
	fmt.Fprintf(e.Stdout, "  endpoint  %s\n  listens   %s\n  started   %s\n  revision  %d\n  size      %s, of which %s in use (quota %s)\n",
		word(st.Endpoint), word(listen), st.Started.UTC().Format(time.RFC3339), st.Revision,
		bytesText(st.Size), bytesText(st.SizeInUse), bytesText(st.Quota))
}

// bytesText prints a number of bytes in the largest binary unit below it.
func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return strconv.FormatInt(n, 10) + " B"
	}
	value, i := float64(n)/unit, 0
	for ; value >= unit && i < 3; i++ {
		value /= unit
	}
	return fmt.Sprintf("%.1f %s", value, []string{"KiB", "MiB", "GiB", "TiB"}[i])
}

// newSnapshot builds `brindle server snapshot`.
func newSnapshot(e *Env, o *serverOptions) *cobra.Command {
	c := &cobra.Command{Use: "snapshot", Short: "Save or restore the whole datastore"}
	save := &cobra.Command{
		Use: "save FILE", Short: "Write the datastore to a file, whether the server runs or not", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := server.SnapshotSave(c.Context(), o.dir, args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(e.Stdout, "Successfully saved a snapshot of %s to %s\n", o.dir, args[0])
			return err
		},
	}
	var of clusterOptions
	restore := &cobra.Command{
		Use: "restore FILE", Short: "Fill an empty data folder from a snapshot, while no server runs", Args: cobra.ExactArgs(1),
		Long: `Fill an empty data folder from a snapshot, while no server runs. For several
members, each restores the same file with the same --peers and its own --name;
they are a new cluster, which those of the old one cannot disturb.`,
		RunE: func(_ *cobra.Command, args []string) error {
			cluster, err := of.cluster()
			if err != nil {
				return err
			}
			if err := server.SnapshotRestore(o.dir, args[0], cluster); err != nil {
				return err
			}
			_, err = fmt.Fprintf(e.Stdout, "Successfully restored %s from %s\n", o.dir, args[0])
			return err
		},
	}
	of.identity(restore)
	c.AddCommand(save, restore)
	return c
}
