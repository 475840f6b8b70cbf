package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/store/etcd"
)

// nodeRun is `node run`, by which calicoctl's users start a node.
type nodeRun struct {
	e          *Env
	ds         datastoreFlags
	values     map[string]*string // of the flags that the agent has too, by its name for them
	backend    string
	noPools    bool
	dryRun     bool
	foreground bool
	logDir     string
	image      string

	start func(ctx context.Context, e *Env, args []string) error // the agent
}

// newNodeRun builds `brindle node run`.
func newNodeRun(e *Env) *cobra.Command {
	n := &nodeRun{e: e, values: map[string]*string{}, start: runAgent}
	c := &cobra.Command{
		Use: "run", Short: "Start a node as calicoctl does, or say how", Args: cobra.NoArgs,
		Long: `Start the agent of this host from the flags that calicoctl has for it. Nothing runs
in a container: with --init-system the agent runs in the foreground, as a
service manager wants it, and --dryrun prints the same as a command of "brindle
agent". With neither it prints the command and fails, so that no script takes
the host for running: the agent is a service (packaging/systemd), and stays when
the script ends.`,
		Example: `  brindle node run --name h1 --ip 192.0.2.1 --dryrun
  brindle node run --name h1 --ip 192.0.2.1 --init-system`,
		RunE: func(c *cobra.Command, _ []string) error { return n.run(c.Context(), c) },
	}
	n.ds.addClient(c)
	f := c.Flags()
	for _, flag := range []struct{ name, agents, usage string }{
		{"name", "node", "name of this host (default: its own, in lower case)"},
		{"ip", "ip", "IPv4 address of this host, autodetect or none (default: that of its Node, else autodetect)"},
		{"ip6", "ip6", "IPv6 address of this host, likewise (default: that of its Node)"},
		{"as", "as", "AS number of this host (default: the cluster's)"},
		{"ip-autodetection-method", "ip-autodetection-method", "how the IPv4 address is found: see brindle agent --help"},
		{"ip6-autodetection-method", "ip6-autodetection-method", "likewise for IPv6"},
		{"felix-config", "config-file", "configuration file of the agent"},
	} {
		value := new(string)
		n.values[flag.agents] = value
		f.StringVar(value, flag.name, "", flag.usage)
	}
	f.StringVar(&n.backend, "backend", "bird", "bird: routes travel by BGP; none: this host has policy only")
	f.BoolVar(&n.noPools, "no-default-ippools", false, "do not create address pools when there are none")
	f.BoolVar(&n.dryRun, "dryrun", false, "print the command of the agent")
	f.BoolVar(&n.foreground, "init-system", false, "run the agent in the foreground")
	f.StringVar(&n.logDir, "log-dir", "", "accepted for calicoctl's sake: the agent logs to standard error")
	f.StringVar(&n.image, "node-image", "", "accepted for calicoctl's sake: there is no image")
	return c
}

func (n *nodeRun) run(ctx context.Context, c *cobra.Command) error {
	args, err := n.arguments()
	if err != nil {
		return err
	}
	cfg, err := n.ds.config(n.e)
	if err != nil {
		return err
	}
	var notes []string
	for _, flag := range []struct{ name, why string }{{"log-dir", "the agent logs to standard error"}, {"node-image", "there is no image: the agent is this program"}} {
		if c.Flags().Changed(flag.name) {
			notes = append(notes, "--"+flag.name+" is not needed: "+flag.why)
		}
	}
	if n.foreground && !n.dryRun {
		warn(n.e, notes)
		return n.start(ctx, withConfig(n.e, cfg), args)
	}
	if cfg.Password.Reveal() != "" {
		notes = append(notes, "the password of the datastore stands in no command: give it as ETCD_PASSWORD")
	}
	if cfg.CA+cfg.Cert+cfg.Key.Reveal() != "" {
		notes = append(notes, "certificates that stand in a file of settings as texts must be files for this command: see brindle agent --help")
	}
	warn(n.e, notes)
	command := "brindle agent"
	for _, arg := range append(datastoreArguments(cfg), args...) {
		command += " " + shellQuoted(arg)
	}
	if n.dryRun {
		_, err := fmt.Fprintf(n.e.Stdout, "Use the following command to start the agent:\n\n%s\n", command)
		return err
	}
	return fmt.Errorf(`nothing was started: the agent runs in no container, but as a service (packaging/systemd, docs/guides/install.md):
  systemctl enable --now brindle-agent
which runs this command, with what it is given in /etc/brindle/agent.env, or in the foreground with --init-system:
  %s`, command)
}

// arguments are those of `brindle agent` that mean the same.
func (n *nodeRun) arguments() ([]string, error) {
	var args []string
	for _, name := range []string{"node", "ip", "ip6", "as", "ip-autodetection-method", "ip6-autodetection-method", "config-file"} {
		if v := *n.values[name]; v != "" {
			args = append(args, "--"+name+"="+v)
		}
	}
	switch n.backend {
	case "bird":
	case "none":
		args = append(args, "--bgp=none")
	default:
		return nil, fmt.Errorf("--backend %q: must be bird or none", n.backend)
	}
	if n.noPools {
		args = append(args, "--no-default-pools")
	}
	return args, nil
}

// datastoreArguments are the agent's for a datastore, but for what is secret.
func datastoreArguments(cfg etcd.Config) []string {
	var args []string
	for _, flag := range []struct{ name, value string }{
		{"etcd-endpoints", strings.Join(cfg.Endpoints, ",")}, {"etcd-prefix", cfg.Prefix}, {"etcd-username", cfg.Username},
		{"etcd-ca", cfg.CAFile}, {"etcd-cert", cfg.CertFile}, {"etcd-key", cfg.KeyFile},
	} {
		if flag.value != "" && flag.value != etcd.DefaultEndpoint {
			args = append(args, "--"+flag.name+"="+flag.value)
		}
	}
	return args
}

// withConfig is an environment for a program that has no files of settings,
// which says what they say, secrets included.
func withConfig(e *Env, cfg etcd.Config) *Env {
	said := fixed(map[string]string{
		"ETCD_ENDPOINTS": strings.Join(cfg.Endpoints, ","), "ETCD_PREFIX": cfg.Prefix, "ETCD_USERNAME": cfg.Username, "ETCD_PASSWORD": cfg.Password.Reveal(),
		"ETCD_CA_CERT_FILE": cfg.CAFile, "ETCD_CERT_FILE": cfg.CertFile, "ETCD_KEY_FILE": cfg.KeyFile,
		inlineCA: cfg.CA, inlineCert: cfg.Cert, inlineKey: cfg.Key.Reveal(),
	})
	own := *e
	own.Getenv = func(name string) string { return cmp.Or(said(name), e.Getenv(name)) }
	return &own
}

// runAgent is `brindle agent` with these arguments.
func runAgent(ctx context.Context, e *Env, args []string) error {
	c := newAgent(e)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args)
	return c.ExecuteContext(ctx)
}

// shellQuoted is a word as a shell reads it.
func shellQuoted(s string) string {
	plain := func(r rune) bool {
		return r < 128 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_=.,:/@%+", r))
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(word(s), "'", `'\''`) + "'"
}
