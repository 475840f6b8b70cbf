package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/agent"
)

// newAgent builds `brindle agent`.
func newAgent(e *Env) *cobra.Command {
	var ds datastoreFlags
	o := agent.Options{File: "/etc/brindle/agent.cfg"}
	extra := []string{}
	c := &cobra.Command{
		Use: "agent", Short: "Run the agent of this host", GroupID: "run", Args: cobra.NoArgs,
		Long: `The agent registers this host, turns what the datastore says into links, routes
and BGP sessions, and sets up workloads for whoever asks on its socket. What it
programmed stays when it stops: a host forwards packets with or without it.

A setting comes from a flag, else from the environment (the names that Calico's
users know are understood: NODENAME, IP, IP6, AS, FELIX_…), else from the file,
else from FelixConfiguration objects, else it has its default. All of them are in
docs/reference/parameters.md; --set names any.`,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Flags = map[string]string{}
			for flag, param := range agentParams() {
				if f := c.Flags().Lookup(flag); f.Changed {
					o.Flags[param] = f.Value.String()
				}
			}
			for _, s := range extra {
				name, value, ok := strings.Cut(s, "=")
				if !ok {
					return fmt.Errorf("--set %q: must be NAME=VALUE", s)
				}
				o.Flags[name] = value
			}
			driver, err := ds.open(e)
			if err != nil {
				return err
			}
			defer driver.Close()
			o.Driver, o.LogTo, o.Build, o.Env = driver, e.Stderr, e.Build, e.Environ()
			if err = agent.Start(c.Context(), o); errors.Is(err, agent.ErrReconfigured) {
				if err = agent.KeepHanded(agent.Handed(o.Env), true); err == nil {
					err = e.Restart()
				}
				return fmt.Errorf("start anew with the new settings: %w", err)
			}
			return err
		},
	}
	ds.add(c)
	f := c.Flags()
	f.String("node", "", "name of this host (default: its own, in lower case)")
	f.String("socket", "/run/brindle/agent.sock", "unix socket of the workload API")
	f.String("state-dir", "/var/lib/brindle", "folder for what survives a restart of the host")
	f.String("ip", "", "IPv4 address of this host: ADDRESS[/LENGTH], autodetect or none (default: that of its Node, else autodetect)")
	f.String("ip6", "", "IPv6 address of this host, likewise (default: that of its Node)")
	f.String("ip-autodetection-method", "first-found", "first-found, can-reach=…, interface=…, skip-interface=…, cidr=… or kubernetes-internal-ip")
	f.String("ip6-autodetection-method", "first-found", "likewise for IPv6")
	f.String("as", "", "AS number of this host (default: the cluster's)")
	f.String("bgp", "on", "on, off, or none: off also makes all routes here, none also takes no addresses for tunnels")
	f.Bool("no-default-pools", false, "do not create address pools when there are none")
	f.String("log-level", "Info", "Debug, Info, Warning or Error")
	f.StringArrayVar(&extra, "set", nil, "any other parameter as NAME=VALUE; again for more")
	f.StringVar(&o.File, "config-file", o.File, "configuration file")
	f.DurationVar(&o.HoldTime, "bgp-hold-time", 90*time.Second, "after how much silence a BGP peer is dead")
	return c
}

// agentParams maps flags to the parameters that they set.
func agentParams() map[string]string {
	return map[string]string{
		"node": "nodename", "socket": "socket", "state-dir": "stateDir", "ip": "ip", "ip6": "ip6",
		"ip-autodetection-method": "ipAutodetectionMethod", "ip6-autodetection-method": "ip6AutodetectionMethod",
		"as": "asNumber", "bgp": "bgp", "no-default-pools": "noDefaultPools", "log-level": "logSeverityScreen",
	}
}
