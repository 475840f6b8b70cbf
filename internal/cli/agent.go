package cli

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/agent"
	"github.com/brindle-net/brindle/internal/agentapi"
)

// newAgent builds `brindle agent`.
func newAgent(e *Env) *cobra.Command {
	cfg := agent.Options{
		Socket: agentapi.DefaultSocket, StateDir: "/var/lib/brindle", RunDir: "/run/brindle",
		Health: "localhost:9099", LogLevel: "info",
	}
	var ds datastoreFlags
	c := &cobra.Command{
		Use: "agent", Short: "Run the agent of this host", GroupID: "run", Args: cobra.NoArgs,
		Long: `The agent registers this host, turns what the datastore says into links, routes
and BGP sessions, and sets up workloads for whoever asks on its socket. What it
programmed stays when it stops: a host forwards packets with or without it.

Environment variables that Calico users know are understood (NODENAME, IP, IP6,
IP_AUTODETECTION_METHOD, AS, CALICO_ROUTER_ID, NO_DEFAULT_POOLS, FELIX_…,
ETCD_…, DATASTORE_TYPE); flags come first.`,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := newLogger(e, cfg.LogLevel)
			if err != nil {
				return err
			}
			driver, err := ds.open(e)
			if err != nil {
				return err
			}
			defer driver.Close()
			cfg.Driver, cfg.Log, cfg.Build, cfg.Getenv, cfg.Environ = driver, log, e.Build, e.Getenv, e.Environ()
			return agent.Start(c.Context(), cfg)
		},
	}
	ds.add(c)
	f := c.Flags()
	f.StringVar(&cfg.Node, "node", "", "name of this host (default: NODENAME, else the host name in lower case)")
	f.StringVar(&cfg.Socket, "socket", cfg.Socket, "unix socket of the workload API")
	f.StringVar(&cfg.StateDir, "state-dir", cfg.StateDir, "folder for what survives a restart of the host")
	f.StringVar(&cfg.RunDir, "run-dir", cfg.RunDir, "folder for what does not")
	f.StringVar(&cfg.IP4, "ip", "", "IPv4 address of this host: ADDRESS[/LENGTH], autodetect or none (default: IP, else autodetect)")
	f.StringVar(&cfg.IP6, "ip6", "", "IPv6 address of this host, likewise (default: IP6, else autodetect)")
	f.StringVar(&cfg.Method4, "ip-autodetection-method", "", "first-found, can-reach=…, interface=…, skip-interface=…, cidr=…")
	f.StringVar(&cfg.Method6, "ip6-autodetection-method", "", "likewise for IPv6")
	f.StringVar(&cfg.AS, "as", "", "AS number of this host (default: AS, else the cluster's)")
	f.BoolVar(&cfg.NoDefaultPools, "no-default-pools", false, "do not create address pools when there are none")
	f.StringVar(&cfg.Health, "health-address", cfg.Health, "where /healthz, /readyz and /metrics are served; empty: on the socket only")
	f.StringVar(&cfg.LogLevel, "log-level", cfg.LogLevel, "debug, info, warn or error")
	f.DurationVar(&cfg.HoldTime, "bgp-hold-time", 90*time.Second, "after how much silence a BGP peer is dead")
	return c
}

// newLogger writes structured lines to standard error.
func newLogger(e *Env, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(strings.ToUpper(level))); err != nil {
		return nil, fmt.Errorf("--log-level %q: must be debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(e.Stderr, &slog.HandlerOptions{Level: l})), nil
}

// hostName is the name that the kernel has for this host, in lower case.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return strings.ToLower(name)
}
