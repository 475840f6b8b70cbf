package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentclient"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/config"
)

// findAgent finds out which node this is, and which process its agent.
func (d *diags) findAgent(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, gatherLimit)
	defer cancel()
	if st, err := d.agent.Status(ctx); err == nil {
		d.node, d.pid = st.Node, listener(d.socket)
	}
	if d.node == "" || strings.ContainsAny(d.node, "/\x00") {
		name, err := os.Hostname()
		if err != nil {
			name = "unknown"
		}
		d.node = strings.ToLower(name)
	}
}

// listener is the process that listens on a unix socket (unix(7),
// SO_PEERCRED), 0 if it cannot be found out.
func listener(socket string) int {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return 0
	}
	defer c.Close()
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	err = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	if err != nil {
		return 0
	}
	return pid
}

// environ is the agent's environment and this command's.
func (d *diags) environ() []string {
	all := d.e.Environ()
	if d.pid != 0 {
		if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", d.pid)); err == nil {
			all = append(all, strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")...)
		}
	}
	return all
}

// secrets are those that this host knows: in environments, in files of
// settings, in files with keys.
func (d *diags) secrets() []string {
	var out []string
	keyFiles := []string{d.ds.key}
	note := func(name, value string) {
		if secretName.MatchString(name) {
			out = append(out, value)
		}
		if strings.HasSuffix(strings.ToUpper(strings.ReplaceAll(name, "_", "")), "KEYFILE") {
			keyFiles = append(keyFiles, value)
		}
	}
	for _, v := range d.environ() {
		name, value, _ := strings.Cut(v, "=")
		note(name, value)
	}
	for name, value := range fileValues(cmp.Or(d.ds.file, calicoctlFile(d.e))) {
		note(name, value)
	}
	if cfg, err := d.ds.config(d.e); err == nil {
		out, keyFiles = append(out, cfg.Password.Reveal(), cfg.Key.Reveal()), append(keyFiles, cfg.KeyFile)
	}
	file, err := readAgentFile(d.config)
	if err != nil {
		file = nil // what stands in it is not included either
	}
	for name, value := range file {
		note(name, value)
	}
	for _, v := range config.Raw(config.Sources{Env: d.environ(), File: file}) {
		if len(v.Value) >= shortestOdd && !showable(v.Name, v.Value) {
			out = append(out, v.Value)
		}
	}
	slices.Sort(keyFiles)
	for _, name := range slices.Compact(keyFiles) {
		if data, err := os.ReadFile(name); err == nil {
			out = append(out, string(data))
		}
	}
	return out
}

// fileValues are the texts in a file of YAML, each with its name. Of a file that
// cannot be read as such every line is one, under a name of secrets: who says
// what is wrong with it quotes it.
func fileValues(name string) map[string]string {
	out := map[string]string{}
	data, err := os.ReadFile(name)
	if err != nil {
		return out
	}
	var all any
	if text, err := v3.YAMLToJSON(data); err == nil && json.Unmarshal(text, &all) == nil {
		texts(all, "", out)
		return out
	}
	for i, line := range strings.Split(string(data), "\n") {
		_, value, found := strings.Cut(line, ":")
		if !found {
			value = line
		}
		out[fmt.Sprintf("secret %d", i)] = strings.Trim(value, " \t\r\"'[]{},")
	}
	return out
}

func texts(v any, name string, out map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			texts(inner, name, out)
		}
	case []any:
		for i, inner := range v {
			texts(inner, fmt.Sprint(name, " ", i), out)
		}
	case string:
		if name == "etcdKey" { // the key itself, not where it is
			name = "secret key"
		}
		out[name] = v
	}
}

// shortestOdd is how long a value that a setting should not have is at least,
// to be looked for in logs, bytes: shorter ones are in the way of others.
const shortestOdd = 12

// showable reports whether a value that the host itself says of a setting can
// be in the bundle. Names of the host and its links, and places of the agent,
// are no secret, and are in it anyway.
func showable(name, value string) bool {
	plain := []string{"nodename", "socket", "stateDir", "interfacePrefix", "ipAutodetectionMethod", "ip6AutodetectionMethod"}
	return slices.Contains(plain, name) || tellable(name, value)
}

// askAgent asks the agent all that it answers.
func (d *diags) askAgent(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, gatherLimit)
	defer cancel()
	st, err := d.agent.Status(ctx)
	if err != nil {
		return err
	}
	d.add("agent/status.json", st)
	routes, err1 := d.agent.Routes(ctx)
	d.addUnless(err1, "agent/bgp-routes.json", routes)
	paths, err2 := d.agent.Paths(ctx, false)
	d.addUnless(err2, "agent/paths.json", paths)
	stats, err3 := d.agent.PolicyStats(ctx)
	d.addUnless(err3, "agent/policy-stats.json", stats)
	return errors.Join(err1, err2, err3)
}

func (d *diags) addUnless(err error, name string, v any) {
	if err == nil {
		d.add(name, v)
	}
}

// process tells of the agent's process: of its environment and flags the names
// alone.
func (d *diags) process(context.Context) error {
	if d.pid == 0 {
		return agentclient.ErrNoAgent
	}
	dir := fmt.Sprintf("/proc/%d/", d.pid)
	cmdline, err := os.ReadFile(dir + "cmdline")
	if err != nil {
		return err
	}
	var flags, names []string
	for _, arg := range strings.Split(string(cmdline), "\x00") {
		if name, _, _ := strings.Cut(arg, "="); strings.HasPrefix(name, "-") {
			flags = append(flags, name)
		}
	}
	for _, v := range d.environ() {
		name, _, _ := strings.Cut(v, "=")
		names = append(names, name)
	}
	slices.Sort(names)
	d.add("agent/process.json", map[string]any{"pid": d.pid, "flags": flags, "environment": slices.Compact(names)})
	for _, name := range []string{"status", "limits", "cgroup"} {
		if data, err := os.ReadFile(dir + name); err == nil {
			d.addText("agent/"+name+".txt", data)
		}
	}
	return nil
}

// settings puts the effective settings into the bundle.
func (d *diags) settings(ctx context.Context) error {
	return d.settingsOf(ctx, d.node, "settings.json")
}

// settingsOf does so for any host.
func (d *diags) settingsOf(ctx context.Context, node, file string) error {
	ctx, cancel := context.WithTimeout(ctx, gatherLimit)
	defer cancel()
	s := &configShow{e: d.e, ds: d.ds, socket: d.socket, node: node, all: true, file: d.config}
	view, err := s.effective(ctx)
	if err != nil {
		return err
	}
	for _, list := range [][]settingView{view.Settings, view.BGP} {
		for i, v := range list {
			if v.hostOnly() && !showable(v.Name, v.Value) || secretName.MatchString(v.Name) {
				list[i].Value = redacted
			}
		}
	}
	if len(view.Warnings) > 0 { // they may quote values
		view.Warnings = []string{fmt.Sprintf("%d warnings: see `brindle config show --effective %s`", len(view.Warnings), node)}
	}
	d.add(file, view)
	return nil
}

// hostOnly reports whether a value comes from the host itself.
func (v settingView) hostOnly() bool {
	return v.Source != "default" && !strings.HasPrefix(v.Source, "Node ") &&
		(!strings.HasPrefix(v.Source, "FelixConfiguration ") || strings.Contains(v.Source, ", annotation ")) && !strings.HasPrefix(v.Source, "BGPConfiguration ")
}

// datastore puts the objects that say how hosts are joined into the bundle.
func (d *diags) datastore(ctx context.Context) error {
	return d.ofDatastore(ctx, func(ctx context.Context) error {
		db, err := d.ds.connect(d.e)
		if err != nil {
			return err
		}
		defer db.close()
		return errors.Join(
			addKind[v3.Node](ctx, d, db, "nodes"), addKind[v3.IPPool](ctx, d, db, "ippools"), addKind[v3.IPReservation](ctx, d, db, "ipreservations"),
			addKind[v3.BGPConfiguration](ctx, d, db, "bgpconfigurations"), addKind[v3.BGPPeer](ctx, d, db, "bgppeers"), addKind[v3.BGPFilter](ctx, d, db, "bgpfilters"),
			addKind[v3.FelixConfiguration](ctx, d, db, "felixconfigurations"), addKind[v3.ClusterInformation](ctx, d, db, "clusterinformations"),
		)
	})
}

// ofDatastore puts into the bundle where the datastore is, and then what f
// finds there.
func (d *diags) ofDatastore(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, gatherLimit)
	defer cancel()
	cfg, err := d.ds.config(d.e)
	if err != nil {
		return err
	}
	d.add("datastore/where.json", map[string]any{"type": "etcdv3", "endpoints": cfg.Endpoints})
	return f(ctx)
}

func addKind[T any, P client.Pointer[T]](ctx context.Context, d *diags, db *session, name string) error {
	list, err := client.List[T, P](ctx, db.Client, "")
	if err == nil || errors.Is(err, client.ErrUnreadable) {
		d.add("datastore/"+name+".json", list)
	}
	return err
}
