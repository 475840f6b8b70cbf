package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
)

func TestNodePaths(t *testing.T) {
	w := newWorld(t)
	fine := agentapi.Checks{Small: "passed", Sum: "passed", Full: "passed", Whole: "passed", Over: "passed", TCP: "passed"}
	p := agentapi.Paths{Node: "h1", Condition: agentapi.Condition{Type: "Paths", Status: true, Reason: "Fine"},
		Paths: []agentapi.PathInfo{
			{Peer: "h2", Device: "vxlan.calico", Form: "vxlan", Local: "10.48.0.1", Remote: "10.48.0.65", Node: "172.30.1.12", MTU: 1450, Fits: 1450,
				Outcome: "fine", Checks: fine, RTTMicros: 254},
			{Peer: "h3", Device: "vxlan-v6.calico", Form: "vxlan", Local: "fd00::1", Remote: "fd00::65", MTU: 1430, Outcome: "measuring"},
		},
		Offloads: []agentapi.Offload{{Device: "vxlan.calico", Why: "because"}, {Device: "vxlan-v6.calico", On: true}},
	}
	socket := agentSaying(t, agentapi.PathPaths, p)
	want := `PEER   DEVICE            MTU    FITS   SMALL    SUM      FULL     WHOLE    OVER     TCP      OUTCOME     AGE
h2     vxlan.calico      1450   1450   passed   passed   passed   passed   passed   passed   fine        -
h3     vxlan-v6.calico   1430   -      -        -        -        -        -        -        measuring   -

Checksum offload of vxlan.calico: off: because
Checksum offload of vxlan-v6.calico: on
`
	if got := w.ok("node", "paths", "--socket", socket); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	wide := w.ok("node", "paths", "--now", "--socket", socket, "-o", "wide")
	for _, part := range []string{"FORM    HOST          FROM        TO           RTT", "vxlan   172.30.1.12   10.48.0.1   10.48.0.65   254µs", "vxlan   -             fd00::1     fd00::65     -"} {
		if !strings.Contains(wide, part) {
			t.Errorf("no %q in\n%s", part, wide)
		}
	}
	if got := w.ok("node", "paths", "--socket", socket, "-o", "json"); !strings.Contains(got, `"rttMicroseconds": 254`) {
		t.Errorf("got %s", got)
	}
	if got := w.run("node", "paths", "--socket", socket, "-o", "yaml"); got.status != 1 || !strings.Contains(got.stderr, "must be json, wide, or") {
		t.Errorf("%+v", got)
	}

	p.Paths[0].Outcome, p.Paths[0].Bad, p.Paths[0].Message = "narrow", true, "set\x1b[31m vxlanMTU"
	p.Condition.Status = false
	got := w.run("node", "paths", "--socket", agentSaying(t, agentapi.PathPaths, p))
	if got.status != 1 || strings.Contains(got.stdout, "\x1b") || !strings.Contains(got.stdout, "vxlanMTU") {
		t.Errorf("a path that is too narrow: %+v", got)
	}
	off := agentapi.Paths{Off: true, Condition: agentapi.Condition{Status: true}}
	if got := w.ok("node", "paths", "--socket", agentSaying(t, agentapi.PathPaths, off)); !strings.Contains(got, "pathProbePort is 0") {
		t.Errorf("got %s", got)
	}
	off.Off = false
	if got := w.ok("node", "paths", "--socket", agentSaying(t, agentapi.PathPaths, off)); !strings.Contains(got, "No tunnel") {
		t.Errorf("got %s", got)
	}
	now := time.Now()
	for at, want := range map[string]string{"": "-", now.Add(-90 * time.Second).Format(time.RFC3339): "1m30s", now.Add(time.Hour).Format(time.RFC3339): "0s"} {
		if got := age(at, now.Truncate(time.Second)); got != want {
			t.Errorf("%q: got %s, want %s", at, got, want)
		}
	}
}
