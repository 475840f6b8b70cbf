package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/agentapi"
)

// cniOptions are the flags of `brindle cni install` and `uninstall`.
type cniOptions struct {
	plugin  string
	binDir  string
	confDir string
	name    string
	oldName string
	state   string
	socket  string
	from    string // template; "": our own
	inline  string // the template itself
	mtu     int
	ipv6    bool
	noBins  bool
	watch   bool
	remove  bool
	force   bool
}

// cniPoll is how often --watch looks.
const cniPoll = 10 * time.Second

// newCNI builds `brindle cni`.
func newCNI(e *Env) *cobra.Command {
	c := &cobra.Command{Use: "cni", Short: "Install the plugin for container runtimes, and remove it", GroupID: "run"}
	c.AddCommand(newCNIInstall(e), newCNIUninstall(e))
	return c
}

func newCNIInstall(e *Env) *cobra.Command {
	o := cniOptions{}
	c := &cobra.Command{
		Use: "install", Short: "Put the plugin and its network configuration where the runtime looks for them", Args: cobra.NoArgs,
		Long: `Put the plugin and its network configuration where the runtime looks for them:
the plugin first, under both its names, then the configuration. Each file is
there whole or not at all. The configuration is root's alone; there is no
credential to be written, because the plugin asks the agent of its host.

Done again, it brings what it has installed up to date. A file that somebody
else wrote or changed, and one that a newer version of this program installed,
stays and is an error, unless --force is given: then the old file is kept beside
it, its name ending in .replaced.

--template takes a network configuration of your own, also one that was made
for Calico's plugin: its types become those of this one, its placeholders
(__CNI_MTU__ and the like) are filled in, and passwords and tokens are left out.

The variables of Calico's installer are read where the flag is not given:
CNI_NET_DIR, CNI_CONF_NAME, CNI_OLD_CONF_NAME, CNI_NETWORK_CONFIG,
CNI_NETWORK_CONFIG_FILE, CNI_MTU, SKIP_CNI_BINARIES, UPDATE_CNI_BINARIES, SLEEP.`,
		Example: `  brindle cni install --ipv6
  brindle cni install --template /etc/cni/net.d/10-calico.conflist --old-conf-name 10-calico.conflist
  brindle cni install --watch
  brindle cni install --remove`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.environment(e, c.Flags().Changed); err != nil {
				return err
			}
			if o.remove {
				return o.uninstall(e)
			}
			return o.install(c.Context(), e)
		},
	}
	f := c.Flags()
	o.flags(c)
	f.StringVar(&o.plugin, "plugin", "", "the plugin's program (default: brindle-cni beside this one)")
	f.StringVar(&o.binDir, "bin-dir", "/opt/cni/bin", "where the runtime looks for plugins")
	f.StringVar(&o.confDir, "conf-dir", "/etc/cni/net.d", "where the runtime looks for network configurations")
	f.StringVar(&o.name, "conf-name", "10-brindle.conflist", "name of the configuration's file; the runtime takes the first by name")
	f.StringVar(&o.oldName, "old-conf-name", "", "a configuration in the same folder that this one replaces")
	f.StringVar(&o.from, "template", "", "file with the network configuration (default: one with addresses of this program's)")
	f.IntVar(&o.mtu, "mtu", 0, "MTU of workloads; 0: the one that the agent finds")
	f.BoolVar(&o.ipv6, "ipv6", false, "give workloads an IPv6 address, too")
	f.BoolVar(&o.noBins, "no-binaries", false, "install the configuration only")
	f.BoolVar(&o.watch, "watch", false, "stay, and keep what is installed up to date")
	f.BoolVar(&o.remove, "remove", false, "the same as uninstall")
	return c
}

func newCNIUninstall(e *Env) *cobra.Command {
	o := cniOptions{}
	c := &cobra.Command{
		Use: "uninstall", Short: "Remove what install has put there", Args: cobra.NoArgs,
		Long: `Remove what "brindle cni install" has put there: the configuration first, so
that no new workload comes, then the plugin. While workloads of this host live
the plugin stays, because the runtime needs it to remove them, and the exit
status is 1. A file that was changed since stays too. --force removes both.`,
		RunE: func(*cobra.Command, []string) error { return o.uninstall(e) },
	}
	o.flags(c)
	return c
}

// flags are those that installing and removing have in common.
func (o *cniOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.state, "state", "/var/lib/brindle/cni-install.json", "where it is noted what was installed")
	f.StringVar(&o.socket, "socket", agentapi.DefaultSocket, "the agent's socket")
	f.BoolVar(&o.force, "force", false, "replace or remove files that somebody else wrote or changed, too")
}

// environment reads the variables of Calico's installer.
func (o *cniOptions) environment(e *Env, given func(flag string) bool) error {
	for _, v := range []struct {
		name, flag string
		to         *string
	}{
		{"CNI_NET_DIR", "conf-dir", &o.confDir}, {"CNI_CONF_NAME", "conf-name", &o.name}, {"CNI_OLD_CONF_NAME", "old-conf-name", &o.oldName},
		{"CNI_NETWORK_CONFIG_FILE", "template", &o.from},
	} {
		if s := e.Getenv(v.name); s != "" && !given(v.flag) {
			*v.to = s
		}
	}
	if !given("template") && o.from == "" {
		o.inline = e.Getenv("CNI_NETWORK_CONFIG")
	}
	for _, v := range []struct {
		name, flag string
		to         *bool
		not        bool
	}{
		{"SKIP_CNI_BINARIES", "no-binaries", &o.noBins, false}, {"UPDATE_CNI_BINARIES", "no-binaries", &o.noBins, true}, {"SLEEP", "watch", &o.watch, false},
	} {
		s := e.Getenv(v.name)
		if s == "" || given(v.flag) {
			continue
		}
		yes, err := strconv.ParseBool(strings.ToLower(s))
		if err != nil {
			return fmt.Errorf("%s=%q: must be true or false", v.name, s)
		}
		*v.to = *v.to || yes != v.not
	}
	if s := e.Getenv("CNI_MTU"); s != "" && !given("mtu") {
		mtu, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("CNI_MTU=%q: must be a number of bytes", s)
		}
		o.mtu = mtu
	}
	for _, name := range []string{o.name, o.oldName} {
		if name != "" && name != filepath.Base(name) {
			return fmt.Errorf("%q: the name of a configuration is that of a file, without its folder", name)
		}
	}
	if ext := filepath.Ext(o.name); ext != ".conflist" {
		return fmt.Errorf("%q: the name of the configuration must end in .conflist", o.name)
	}
	return nil
}

// install brings everything up to date, once or, with --watch, for as long as
// the context lives.
func (o *cniOptions) install(ctx context.Context, e *Env) error {
	seen := o.stamps(e)
	err := o.update(e, e.Stdout)
	if !o.watch {
		return err
	}
	said := ""
	for looks := 1; ; looks++ {
		if text := errorText(err); text != said {
			if err != nil {
				tell(e, &ExitError{Status: 1, Err: err})
			}
			said = text
		}
		select {
		case <-time.After(cniPoll):
		case <-ctx.Done():
			return nil
		}
		now := o.stamps(e)
		if err == nil && now == seen && looks%cniFullLook != 0 {
			continue // reading megabytes would say the same
		}
		seen, err = now, o.update(e, onlyChanges{e.Stdout})
	}
}

// cniFullLook is which of the looks of --watch reads the files, whatever the
// file system says of them.
const cniFullLook = 60

// stamps is what the file system says of everything that an installation reads
// and writes: it is another text as soon as any of it is another file, or was
// written to.
func (o *cniOptions) stamps(e *Env) string {
	paths := []string{o.state, o.plugin, o.from, o.from + replacedSuffix, filepath.Join(filepath.Dir(e.Executable), "brindle-cni")}
	for _, dir := range []string{o.binDir, o.confDir} {
		list, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			return err.Error()
		}
		paths = append(paths, list...)
	}
	var out strings.Builder
	for _, path := range paths {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			fmt.Fprintln(&out, path, err)
			continue
		}
		fmt.Fprintln(&out, path, st.Dev, st.Ino, st.Mode, st.Size, st.Mtim, st.Ctim)
	}
	return out.String()
}

// onlyChanges drops the lines that say that a file is as it should be.
type onlyChanges struct{ io.Writer }

// Write passes on whatever is not such a line.
func (w onlyChanges) Write(line []byte) (int, error) {
	if strings.HasPrefix(string(line), "unchanged ") {
		return len(line), nil
	}
	return w.Writer.Write(line)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// update installs once.
func (o *cniOptions) update(e *Env, out io.Writer) error {
	files, err := o.wanted(e)
	if err != nil {
		return err
	}
	in := installer{state: o.state, build: buildOf(e), force: o.force, out: out}
	if err := in.install(files); err != nil {
		return err
	}
	if o.oldName != "" && o.oldName != o.name {
		if err := in.discard(filepath.Join(o.confDir, o.oldName)); err != nil {
			return err
		}
	}
	if first, err := firstConf(o.confDir); err == nil && first != o.name {
		fmt.Fprintf(e.Stderr, "warning: the runtime takes %s before %s, if it takes one: remove it, or give --conf-name a name that comes first\n",
			filepath.Join(o.confDir, first), o.name)
	}
	return nil
}

// uninstall removes what was installed.
func (o *cniOptions) uninstall(e *Env) error {
	in := installer{state: o.state, build: buildOf(e), force: o.force, out: e.Stdout}
	live, err := filepath.Glob(filepath.Join(filepath.Dir(o.socket), "attachments", "*.json"))
	if err != nil {
		return err
	}
	return in.uninstall(len(live))
}

// buildOf is the version of this program without that of the toolchain.
func buildOf(e *Env) string {
	v, _, _ := strings.Cut(e.Build, " ")
	return v
}

// errKept says that something that was to go is there still.
var errKept = errors.New("not everything was removed")
