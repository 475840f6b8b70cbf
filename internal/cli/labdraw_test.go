package cli

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/brindle-net/brindle/internal/lab"
)

// drawnLab is a lab with all that a drawing shows.
func drawnLab() lab.State {
	st := lab.State{
		Name: "lab", Preset: "custom", Family: "v4", Datastore: lab.Datastore{Running: true},
		Hosts: []lab.Host{
			{Name: "h1", PID: 1, Addresses: []string{"172.30.1.11"}, ASNumber: 64512, Ready: true, Sessions: 2, MaxSession: 2, Reflector: true,
				Peers: []lab.Peer{{Name: "h3", Up: true}, {Name: "h2", Up: true}}},
			{Name: "h2", PID: 1, Addresses: []string{"172.30.1.12"}, ASNumber: 64512, NotReady: "Routing: no session\x1b; ", Sessions: 0, MaxSession: 1,
				Peers: []lab.Peer{{Name: "h1", Address: "172.30.1.11", State: "Active\x1b"}}},
			{Name: "h3", Addresses: []string{"172.30.2.13"}, NotReady: "the agent is not running"},
		},
		Routers: []lab.Router{{Name: "r1", ASNumber: 64601}, {Name: "r2"}},
		Segments: []lab.LaidOut{
			{Name: "s1", Subnets: []string{"172.30.1.0/24"}, Hosts: []string{"h1", "h2"}, Routers: []lab.Port{{Router: "r1", Interface: "eth0", Addresses: []string{"172.30.1.1"}}}},
			{Name: "s2", Subnets: []string{"172.30.2.0/24"}, Hosts: []string{"h3"}, Routers: []lab.Port{{Router: "r2", Interface: "eth0", Addresses: []string{"172.30.2.1"}}}},
			{Name: "c", Cable: true, Routers: []lab.Port{{Router: "r1", Interface: "eth1", Addresses: []string{"172.30.3.1"}}, {Router: "r2", Interface: "eth1", Addresses: []string{"172.30.3.2"}}}},
		},
	}
	for _, name := range []string{"w1", "w2", "w3", "w4", "w5", "w6"} {
		st.Workloads = append(st.Workloads, lab.Workload{Name: name, Host: "h3", Addresses: []string{"10.48.0." + name[1:]}})
	}
	return st
}

// TestDrawLab holds a drawing as a whole. It is the same in both families.
func TestDrawLab(t *testing.T) {
	var b bytes.Buffer
	drawLab(&b, drawnLab(), 60)
	want := `lab lab · custom · v4 · datastore running

s1  172.30.1.0/24
━━┯━━━━━━━━━━━━━━━━━━━━┯━━━━━━━━━━━━━━━━━━━━━━━━━━
┌─┴ r1 ────────────┐ ┌─┴ h1 ✓ ready ─────────────┐
│ eth0             │ │ 172.30.1.11               │
│ 172.30.1.1       │ │ AS 64512, route reflector │
│ AS 64601, no BGP │ │ BGP 2 of 2 up             │
│                  │ │ ✓ h2 h3                   │
└──────────────────┘ └───────────────────────────┘
━━┯━━━━━━━━━━━━━━━━━━━━━━━━━━━━
┌─┴ h2 ✗ NOT READY ───────────┐
│ 172.30.1.12                 │
│ AS 64512                    │
│ BGP 0 of 1 up               │
│ ✗ h1 172.30.1.11 Active\x1b │
└─────────────────────────────┘

s2  172.30.2.0/24
━━┯━━━━━━━━━━━━━━┯━━━━━━━━━━━━━━━━━━━━━━━━━
┌─┴ r2 ──────┐ ┌─┴ h3 ✗ NOT READY ────────┐
│ eth0       │ │ 172.30.2.13              │
│ 172.30.2.1 │ │ the agent is not running │
│            │ │                          │
│            │ │ w1 10.48.0.1             │
│            │ │ w2 10.48.0.2             │
│            │ │ w3 10.48.0.3             │
│            │ │ w4 10.48.0.4             │
│            │ │ … and 2 more             │
└────────────┘ └──────────────────────────┘

c  r1 eth1 172.30.3.1 ━━━━ r2 eth1 172.30.3.2

h2 is not ready: Routing: no session\x1b

h3 is not ready: the agent is not running
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
	for _, width := range []int{leastWidth, 72, 400} {
		b.Reset()
		drawLab(&b, drawnLab(), width)
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); strings.ContainsAny(line, "━│┌└") && !strings.HasPrefix(line, "c ") && n > max(width, 32) {
				t.Errorf("%d columns wide in %d: %s", n, width, line)
			}
		}
	}
	st := drawnLab()
	st.Datastore.Running = false
	b.Reset()
	drawLab(&b, st, 60)
	if !strings.Contains(b.String(), "datastore STOPPED: `brindle lab datastore start`") {
		t.Error(b.String())
	}
}

func TestWidthOf(t *testing.T) {
	for columns, want := range map[string]int{"": usualWidth, "132": 132, "3": usualWidth, "wide": usualWidth} {
		e := &Env{Stdout: new(bytes.Buffer), Getenv: func(string) string { return columns }}
		if got := widthOf(e); got != want {
			t.Errorf("COLUMNS=%q: %d, want %d", columns, got, want)
		}
	}
}

func TestPresets(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "reflectors   hosts on one segment"},
		{[]string{"fabric"}, "- {name: r3, asNumber: 64600, segments: [c1, c2, c3, c4]}\n"},
		{[]string{"farbic"}, "did you mean fabric?"},
	} {
		var out bytes.Buffer
		cmd := labPresets(&Env{Stdout: &out})
		err := cmd.RunE(cmd, c.args)
		if got := out.String(); !strings.Contains(got, c.want) && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: %s, %v", c.args, got, err)
		}
	}
}
