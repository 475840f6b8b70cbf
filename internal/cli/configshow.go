package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/agentclient"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/config"
)

// defaultAgentFile is the configuration file of the agent.
const defaultAgentFile = "/etc/brindle/agent.cfg"

// configShow is `brindle config show`.
type configShow struct {
	e      *Env
	ds     datastoreFlags
	socket string
	node   string // --effective
	file   string
	output string
	all    bool
}

// newConfigShow builds `brindle config show`.
func newConfigShow(e *Env) *cobra.Command {
	s := &configShow{e: e}
	c := &cobra.Command{
		Use: "show", Short: "Show settings, and where each value comes from", Args: cobra.NoArgs,
		Example: `  brindle config show
  brindle config show --effective node-1 --all`,
		Long: `Show what every source says of settings, the weakest source first: the
FelixConfiguration and BGPConfiguration objects, this host's configuration file,
and the environment of this command.

With --effective NODE, show every setting that the agent of that node has, its
value, and the source that holds. On the node itself its agent is asked. From
elsewhere only the datastore is known: what the node's own file, environment and
flags say is not, and the output says so. --all shows too what was overridden,
refused, or is known of Calico and not honoured here.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"", "text", "json", "yaml"}, s.output) {
				return fmt.Errorf("output format %q: must be text, json or yaml", s.output)
			}
			out, err := s.gather(c.Context())
			if err != nil {
				return err
			}
			return s.print(out)
		},
	}
	s.ds.addClient(c)
	f := c.Flags()
	f.StringVar(&s.node, "effective", "", "name of the node whose settings to work out")
	f.BoolVar(&s.all, "all", false, "with --effective, also what does not hold, and why")
	f.StringVar(&s.file, "config-file", defaultAgentFile, "configuration file of this host's agent; it may be missing")
	f.StringVar(&s.socket, "socket", agentSocketOf(e), "unix socket of this host's agent")
	f.StringVarP(&s.output, "output", "o", "", "text, json or yaml")
	return c
}

// settingsView is what `brindle config show` shows.
type settingsView struct {
	Node string `json:"node,omitempty"`
	// From is agent or datastore; "" without --effective.
	From string `json:"from,omitempty"`
	// NotKnown are the sources that only the node itself knows.
	NotKnown []string      `json:"notKnown,omitempty"`
	Settings []settingView `json:"settings"`
	BGP      []settingView `json:"bgp"`
	Warnings []string      `json:"warnings"`
}

// settingView is one value of one setting.
type settingView struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"`
	// State is "" for what holds, else overridden, refused, or not honoured.
	State string `json:"state,omitempty"`
}

// stored is what the datastore says of settings.
type stored struct {
	felix []*v3.FelixConfiguration
	bgp   []*v3.BGPConfiguration
	nodes []*v3.Node
}

// read reads the datastore. Objects that cannot be read become warnings.
func (s *configShow) read(ctx context.Context) (d stored, warnings []string, err error) {
	db, err := s.ds.connect(s.e)
	if err != nil {
		return d, nil, err
	}
	defer db.close()
	note := func(err error) error {
		if errors.Is(err, client.ErrUnreadable) {
			warnings = append(warnings, err.Error())
			return nil
		}
		return err
	}
	if d.felix, err = client.List[v3.FelixConfiguration](ctx, db.Client, ""); note(err) != nil {
		return d, nil, err
	}
	if d.bgp, err = client.List[v3.BGPConfiguration](ctx, db.Client, ""); note(err) != nil {
		return d, nil, err
	}
	if d.nodes, err = client.List[v3.Node](ctx, db.Client, ""); note(err) != nil {
		return d, nil, err
	}
	return d, warnings, nil
}

func (s *configShow) gather(ctx context.Context) (settingsView, error) {
	if s.node != "" {
		return s.effective(ctx)
	}
	d, warnings, err := s.read(ctx)
	if err != nil {
		return settingsView{}, err
	}
	src := config.Sources{Objects: d.felix, Env: s.e.Environ()}
	if src.File, err = readAgentFile(s.file); err != nil {
		return settingsView{}, err
	}
	return settingsView{
		Settings: viewsOf(config.Raw(src), ""), BGP: viewsOf(config.RawBGP(d.bgp), ""), Warnings: append([]string{}, warnings...),
	}, nil
}

// readAgentFile reads the agent's configuration file, which need not be there.
func readAgentFile(name string) (map[string]string, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	out, err := config.ParseFile(data)
	if err != nil {
		return nil, fmt.Errorf("configuration file %s: %w", name, err)
	}
	return out, nil
}

// effective works out the settings of one node: those that its agent says if
// it runs here, else what the datastore comes to.
func (s *configShow) effective(ctx context.Context) (settingsView, error) {
	running, agentErr := agentclient.New(s.socket).Settings(ctx)
	here := agentErr == nil && running.Node == s.node
	d, warnings, err := s.read(ctx)
	if err != nil && !here {
		return settingsView{}, err
	}
	if err != nil {
		warnings = append(warnings, "the settings of BGP are not known: "+err.Error())
	}
	i := slices.IndexFunc(d.nodes, func(n *v3.Node) bool { return n.Name == s.node })
	if i < 0 && !here {
		return settingsView{}, fmt.Errorf("there is no Node %q: see `brindle get nodes`", s.node)
	}
	bgp := config.BGPSources{Node: s.node, Objects: d.bgp}
	src := config.Sources{Node: s.node, Objects: d.felix}
	if i >= 0 {
		src.Labels = d.nodes[i].Labels
		if spec := d.nodes[i].Spec.BGP; spec != nil {
			bgp.AS = spec.ASNumber
		}
	}
	view := settingsView{Node: s.node, From: "agent", BGP: []settingView{}}
	if err == nil {
		view.BGP = s.views(config.ResolveBGP(bgp))
	}
	if here {
		view.Settings = s.views(fromAgent(running))
		view.Warnings = append(running.Warnings, warnings...)
		return view, nil
	}
	res, err := config.Resolve(src)
	if err != nil {
		warnings = append(warnings, "the agent would not start: "+err.Error())
	}
	view.From, view.NotKnown = "datastore", []string{"configuration file", "environment", "flags"}
	view.Settings, view.Warnings = s.views(res), slices.Concat([]string{}, res.Warnings, warnings)
	return view, nil
}

// fromAgent is what an agent said, as if it had been worked out here.
func fromAgent(a agentapi.Settings) config.Result {
	values := func(list []agentapi.Setting) (out []config.Value) {
		for _, v := range list {
			out = append(out, config.Value{Name: v.Name, Value: v.Value, Source: v.Source})
		}
		return out
	}
	return config.Result{Values: values(a.Values), Said: values(a.Said), Ignored: values(a.Ignored)}
}

// views lists settings, and with --all each time after the one that holds, the
// strongest first, those that do not.
func (s *configShow) views(r config.Result) []settingView {
	out := []settingView{}
	for _, v := range r.Values {
		out = append(out, viewsOf([]config.Value{v}, "")...)
		if !s.all {
			continue
		}
		for i, said := range slices.Backward(r.Said) {
			strongest := i+1 == len(r.Said) || r.Said[i+1].Name != said.Name
			switch {
			case said.Name != v.Name || said == v:
			case strongest:
				out = append(out, viewsOf([]config.Value{said}, "refused")...)
			default:
				out = append(out, viewsOf([]config.Value{said}, "overridden")...)
			}
		}
	}
	if s.all {
		out = append(out, viewsOf(r.Ignored, "not honoured")...)
	}
	return out
}

func viewsOf(values []config.Value, state string) []settingView {
	out := []settingView{}
	for _, v := range values {
		out = append(out, settingView{v.Name, v.Value, v.Source, state})
	}
	return out
}

func (s *configShow) print(v settingsView) error {
	switch s.output {
	case "json":
		return writeJSON(s.e.Stdout, v)
	case "yaml":
		data, err := v3.EncodeYAML(v)
		if err == nil {
			_, err = s.e.Stdout.Write(data)
		}
		return err
	}
	w := s.e.Stdout
	switch v.From {
	case "agent":
		fmt.Fprintf(w, "Settings of node %s, as its agent has them:\n\n", word(v.Node))
	case "datastore":
		fmt.Fprintf(w, "Settings of node %s, as the datastore has them. Its own %s are known on that node only, and win over these:\n\n",
			word(v.Node), strings.Join(v.NotKnown[:len(v.NotKnown)-1], ", ")+" and "+v.NotKnown[len(v.NotKnown)-1])
	}
	s.table(v.Settings)
	if len(v.BGP) > 0 {
		fmt.Fprintln(w, "\nBGP:")
		s.table(v.BGP)
	}
	for _, text := range v.Warnings {
		fmt.Fprintf(s.e.Stderr, "brindle: warning: %s\n", word(text))
	}
	return nil
}

func (s *configShow) table(list []settingView) {
	t := table{header: []string{"SETTING", "VALUE", "FROM"}}
	if s.all {
		t.header = append(t.header, "STATE")
	}
	for _, v := range list {
		row := []string{v.Name, dash(v.Value), v.Source}
		if s.all {
			row = append(row, v.State)
		}
		t.add(row...)
	}
	t.print(s.e.Stdout)
}
