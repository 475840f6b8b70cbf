package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/agentclient"
)

// diags gathers what somebody needs who looks for a fault on this host.
type diags struct {
	e      *Env
	ds     datastoreFlags
	socket string
	file   string
	config string
	logs   []string
	logDir string
	most   int           // logs, the newest; 0: all
	since  time.Duration // how old lines of logs may be; 0: any

	agent  *agentclient.Client
	pid    int // of the agent; 0: none runs
	node   string
	redact *redactor
	files  []bundled
	failed []string // what could not be gathered, and why
}

// bundled is one file of the bundle.
type bundled struct {
	name string
	data []byte
}

// gatherLimit bounds each thing that is asked of somebody.
const gatherLimit = 10 * time.Second

// newNodeDiags builds `brindle node diags`.
func newNodeDiags(e *Env) *cobra.Command {
	d := &diags{e: e}
	c := &cobra.Command{
		Use: "diags", Short: "Gather what helps to find a fault on this host, without secrets", Args: cobra.NoArgs,
		Example: `  brindle node diags
  brindle node diags --file /tmp/n1.tar.gz --log /var/log/brindle.log`,
		Long: `Gather what helps to find a fault on this host into one file: what the agent
says of itself, its settings and where they come from, links, addresses,
routes, rules and neighbours, nftables, connections by protocol, what the
datastore says of hosts, pools and BGP, and the end of the logs. What cannot be
gathered is listed; the rest is there nonetheless.

Secrets are left out: of the environment there are names only, of objects no
passwords, references to secrets or other programs' annotations, and what is
known to be a secret is taken out of logs too. Read it before you hand it on:
names and addresses of your network are in it.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("node diags reads what only root may: run it as root")
			}
			return d.run(c.Context())
		},
	}
	d.ds.addClient(c)
	f := c.Flags()
	f.StringVarP(&d.file, "file", "f", "", "file to write, which must not be there yet (default: brindle-diags-NODE-TIME.tar.gz in this folder)")
	f.StringArrayVar(&d.logs, "log", nil, "file whose end to include; again for more")
	d.addHost(c)
	return c
}

// addHost adds the flags that say where this host keeps what is gathered of it.
func (d *diags) addHost(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&d.logDir, "log-dir", "/var/log/brindle", "folder whose files that end with .log to include; it may be missing")
	f.StringVar(&d.config, "config-file", defaultAgentFile, "configuration file of this host's agent; it may be missing")
	f.StringVar(&d.socket, "socket", agentSocketOf(d.e), "unix socket of this host's agent")
}

func (d *diags) run(ctx context.Context) error {
	begin := time.Now().UTC()
	d.agent = agentclient.New(d.socket)
	d.findAgent(ctx)
	d.redact = newRedactor(d.secrets())
	if err := d.gather(ctx, append(d.hostParts(), diagsPart{"the datastore", d.datastore})); err != nil {
		return err
	}
	return d.finish(begin, d.node, map[string]any{"node": d.node})
}

// diagsPart is one thing to gather.
type diagsPart struct {
	name   string
	gather func(context.Context) error
}

// hostParts are what there is to gather on this host.
func (d *diags) hostParts() []diagsPart {
	return []diagsPart{
		{"the agent", d.askAgent}, {"its process", d.process}, {"settings", d.settings}, {"the host", d.system}, {"the kernel's tables", d.kernel},
		{"nftables", d.nftables}, {"connections", d.connections}, {"logs", d.gatherLogs},
	}
}

// gather gathers what can be had.
func (d *diags) gather(ctx context.Context, parts []diagsPart) error {
	for _, part := range parts {
		if err := part.gather(ctx); err != nil {
			d.failed = append(d.failed, part.name+": "+strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// finish writes the bundle, of a host or the cluster, and says so.
func (d *diags) finish(begin time.Time, of string, manifest map[string]any) error {
	manifest["created"], manifest["build"], manifest["notGathered"] = begin.Format(time.RFC3339), d.e.Build, append([]string{}, d.failed...)
	d.add("manifest.json", manifest)
	top := "brindle-diags-" + of + "-" + begin.Format("20060102_150405")
	if d.file == "" {
		d.file = top + ".tar.gz"
	}
	if err := writeBundle(d.file, top, begin, d.files); err != nil {
		return err
	}
	for _, f := range d.failed {
		fmt.Fprintf(d.e.Stderr, "brindle: not gathered: %s\n", word(string(d.redact.text([]byte(f)))))
	}
	fmt.Fprintf(d.e.Stdout, "Wrote %s: %d files.\n", d.file, len(d.files))
	return nil
}

// add puts a value into the bundle as JSON, without secrets.
func (d *diags) add(name string, v any) {
	data, err := json.Marshal(v)
	var generic any
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		err = dec.Decode(&generic)
	}
	var b bytes.Buffer
	if err == nil {
		err = writeJSON(&b, tree(generic))
	}
	if err != nil {
		d.failed = append(d.failed, name+": "+err.Error())
		return
	}
	d.files = append(d.files, bundled{name, d.redact.data(b.Bytes())})
}

// addText puts text of others into the bundle, without secrets.
func (d *diags) addText(name string, text []byte) {
	d.files = append(d.files, bundled{name, d.redact.text(text)})
}

// writeBundle writes files below a folder into a compressed archive that only
// its owner may read. A file that is there already is an error; one that could
// not be finished is taken away.
func writeBundle(name, top string, when time.Time, files []bundled) (err error) {
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			err = fmt.Errorf("write the bundle: %w", errors.Join(err, os.Remove(name)))
		}
	}()
	return archive(out, top, when, files)
}

func archive(out io.Writer, top string, when time.Time, files []bundled) error {
	z := gzip.NewWriter(out)
	t := tar.NewWriter(z)
	for _, f := range slices.SortedFunc(slices.Values(files), func(a, b bundled) int { return strings.Compare(a.name, b.name) }) {
		h := &tar.Header{Name: filepath.ToSlash(filepath.Join(top, f.name)), Mode: 0o600, Size: int64(len(f.data)), ModTime: when.Truncate(time.Second), Typeflag: tar.TypeReg}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(f.data); err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), z.Close())
}
