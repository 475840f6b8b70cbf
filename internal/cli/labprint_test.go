package cli

import (
	"bytes"
	"maps"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/lab"
)

func exampleLab() lab.State {
	return lab.State{
		Name: "lab", Datastore: lab.Datastore{Running: true},
		Hosts: []lab.Host{
			{Name: "h1", Addresses: []string{"192.0.2.1", "2001:db8::1"}, ASNumber: 64512, Ready: true, Sessions: 1, MaxSession: 1},
			{Name: "h2", Addresses: []string{"192.0.2.2"}, ASNumber: 64512, NotReady: " Routing: no session\x1b;"},
		},
		Workloads: []lab.Workload{{Name: "w1", Host: "h1", Addresses: []string{"10.48.0.1", "fd00::1"}, HostInterface: "cali1"}},
	}
}

func TestPrintLab(t *testing.T) {
	var b bytes.Buffer
	printLab(&b, exampleLab())
	want := `HOST   ADDRESSES               AS      SESSIONS   READY
h1     192.0.2.1 2001:db8::1   64512   1 of 1     yes
h2     192.0.2.2               64512   0 of 0     no: Routing: no session\x1b

WORKLOAD   HOST   ADDRESSES           INTERFACE
w1         h1     10.48.0.1 fd00::1   cali1
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	st := exampleLab()
	st.Datastore.Running = false
	b.Reset()
	printLab(&b, st)
	if !strings.HasSuffix(b.String(), "`brindle lab datastore start` starts it again.\n") {
		t.Errorf("%s", b.String())
	}
}

func TestPrintPaths(t *testing.T) {
	var b bytes.Buffer
	path := func(from, to, family, pool, form, through string) lab.Path {
		return lab.Path{From: from, To: to, Family: family, Pool: pool, Form: form, Through: through}
	}
	printPaths(&b, []lab.Path{
		path("h1", "h2", "v4", "a", "direct", ""), path("h1", "h10", "v4", "a", "ipip", ""), path("h2", "h1", "v4", "a", "direct", ""),
		path("h1", "h2", "v6", "b", "direct", ""), path("h1", "h10", "v6", "b", "ipip", ""), path("h2", "h1", "v6", "b", "direct", ""),
		path("h1", "h2", "v6", "", "none", ""), path("h2", "h1", "v6", "", "default", "r1"),
	})
	want := `
How packets travel to workloads in a and b:
FROM \ TO   h1       h2       h10
h1          ·        direct   ipip
h2          direct   ·        ·

How packets travel to workloads in no known pool (IPv6):
FROM \ TO   h1               h2
h1          ·                none
h2          default via r1   ·
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	if printPaths(&b, nil); b.Len() > 0 {
		t.Errorf("%s", b.String())
	}
}

func TestPrintMatrix(t *testing.T) {
	var b bytes.Buffer
	printMatrix(&b, lab.Matrix{
		Members: []lab.Member{{Name: "w1"}, {Name: "w2"}, {Name: "w3"}},
		Cells:   [][]lab.Cell{{lab.Self, lab.Reached, lab.Silent}, {lab.Unmeasured, lab.Self, lab.Reached}, {lab.Reached, lab.Reached, lab.Self}},
	})
	want := `FROM \ TO   w1   w2   w3
w1          ·    ✓    ✗
w2          ?    ·    ✓
w3          ✓    ✓    ·
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestResolve(t *testing.T) {
	st := exampleLab()
	for _, c := range []struct{ to, family, want string }{
		{"w1", "", "10.48.0.1"}, {"w1", "v6", "fd00::1"}, {"h2", "v4", "192.0.2.2"}, {"192.0.2.9", "", "192.0.2.9"}, {"::ffff:192.0.2.9", "", "192.0.2.9"},
		{"h2", "v6", "h2 has no IPv6 address"}, {"w9", "", `no host, workload or router "w9"`},
	} {
		got, err := resolve(st, c.to, c.family)
		if err != nil && !strings.Contains(err.Error(), c.want) || err == nil && got.String() != c.want {
			t.Errorf("%s over %q: %v %v, want %s", c.to, c.family, got, err, c.want)
		}
	}
}

func TestProbeEnds(t *testing.T) {
	st := exampleLab()
	for _, c := range []struct{ from, to, family, want string }{
		{"w1", "h2", "", "w1 192.0.2.2"}, {"10.48.0.1", "h2", "", "w1 192.0.2.2"}, {"::ffff:10.48.0.1", "h2", "v4", "w1 192.0.2.2"},
		{"192.0.2.2", "w1", "", "h2 10.48.0.1"}, {"fd00::1", "w1", "", "w1 fd00::1"},
		{"fd00::1", "w1", "v4", "is of the other family"}, {"fd00::1", "10.48.0.1", "", "are of two families"},
		{"fd00::1", "h2", "", "h2 has no IPv6 address"}, {"10.48.0.9", "w1", "", "nobody in lab"}, {"w9", "w1", "", "no host, workload or router"},
		{"w1", "w1", "v5", "must be v4 or v6"},
	} {
		p := probing{family: c.family, Probe: &lab.Probe{}}
		err := p.ends(st, c.from, c.to)
		if err != nil && !strings.Contains(err.Error(), c.want) || err == nil && p.From.Name+" "+p.To.String() != c.want {
			t.Errorf("%s to %s over %q: %v to %v, %v, want %s", c.from, c.to, c.family, p.From, p.To, err, c.want)
		}
	}
}

func TestLabWords(t *testing.T) {
	for want, p := range map[string]lab.Probe{"icmp": {Protocol: "icmp"}, "80/tcp": {Protocol: "tcp", Port: 80}} {
		if got := describe(&p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	labels, err := parseLabels([]string{"a=b", "c=", "d=e=f"})
	if err != nil || !maps.Equal(labels, map[string]string{"a": "b", "c": "", "d": "e=f"}) {
		t.Errorf("%v %v", labels, err)
	}
	for _, bad := range []string{"a", "=b", ""} {
		if _, err := parseLabels([]string{bad}); err == nil {
			t.Errorf("%q was taken for a label", bad)
		}
	}
	names := map[string]string{"192.0.2.2": "h2"}
	for peer, want := range map[string]string{"192.0.2.2": "h2", "192.0.2.3": "192.0.2.3"} {
		if got := sender(agentapi.BGPRoute{Peer: peer}, names); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if up, down := goOn(true, "lab"), goOn(false, "mine"); strings.Contains(up, "lab up") || !strings.Contains(down, "lab up") || !strings.Contains(up, "lab down") {
		t.Errorf("%s%s", up, down)
	} else if strings.Contains(up+down, "--name") || !strings.Contains(goOn(true, "mine"), "bin/brindle lab --name mine down") {
		t.Errorf("%s%s%s", up, down, goOn(true, "mine"))
	}
	st := exampleLab()
	for want, of := range map[string]lab.State{
		"\nTry:  brindle lab --name mine down\n":                                                                  {Name: "mine"},
		"\nTry:  brindle lab exec w1 -- ip route\n      brindle lab down\n":                                       {Name: "lab", Workloads: st.Workloads[:1]},
		"\nTry:  brindle lab exec w1 -- ip route\n      brindle lab probe w1 w1 80/tcp\n      brindle lab down\n": {Name: "lab", Workloads: []lab.Workload{st.Workloads[0], st.Workloads[0]}},
	} {
		if got := tryThese(of); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

// What needs a lab says so when there is none; probe says that it could not
// measure.
func TestNoLab(t *testing.T) {
	w := newWorld(t)
	const name = "nosuchlab"
	for _, in := range []string{"status", "env", "exec w1 -- true", "workload add w9 --host h1", "workload rm w9", "host stop h1", "datastore stop"} {
		got := w.run(append([]string{"lab", "--name", name}, line(in)...)...)
		if got.status != 1 || got.stdout != "" || !strings.Contains(got.stderr, name) {
			t.Errorf("%s: %+v", in, got)
		}
	}
	for _, in := range []string{"probe w1", "probe w1 w2 80/tcp more", "probe w1 w2 --tmeout 1s", "probe w1 w2 --count many"} {
		if got := w.run(line("lab " + in)...); got.status != 3 || got.stdout != "" || got.stderr == "" {
			t.Errorf("%s: %+v", in, got)
		}
	}
	if got := w.run(line("lab probe w1 w2 --name " + name)...); got.status != 3 || got.stdout != "" || !strings.Contains(got.stderr, name) {
		t.Errorf("%+v", got)
	}
}

// What stands behind the name of a member is its command's, flags and all.
func TestFlagsOfTheCommandInALab(t *testing.T) {
	for in, want := range map[string]string{
		"lab exec w1 ip --json route -o x --log-level y --name z": "ip --json route -o x --log-level y --name z",
		"lab exec --name other w1 -- ip --help":                   "ip --help",
		"lab exec w1 --name other -- ip --name z":                 "ip --name z",
		"lab --name other exec w1 sh -c x -- y":                   "sh -c x -- y",
		"lab exec w1 --":                                          "which command",
	} {
		root := newRoot(quietEnv())
		cmd, _, err := root.Find(line("lab exec"))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		cmd.RunE = func(c *cobra.Command, args []string) (err error) {
			got, err = memberCommand(c, args)
			return err
		}
		root.SetArgs(line(in))
		err = root.ExecuteContext(t.Context())
		if strings.Join(got, " ") != want && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %q, %v", in, got, err)
		}
		if name := cmd.Flag("name").Value.String(); name != "other" && name != "lab" {
			t.Errorf("%s: it took --name %s for itself", in, name)
		}
	}
}
