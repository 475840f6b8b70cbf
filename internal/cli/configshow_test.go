package cli

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/agentapi"
)

// answering is an agent that answers each path with a value; it returns the
// socket.
func answering(t *testing.T, answers map[string]any) string {
	t.Helper()
	socket := filepath.Join(shortDir(t), "a")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for path, v := range answers {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) })
	}
	s := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return socket
}

const someSettings = `
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: h1, labels: {rack: a}}
spec: {bgp: {ipv4Address: 192.0.2.1/24, asNumber: 65002}}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {healthPort: 1, vxlanPort: 4790, wireguardMTU: 1400, bpfEnabled: false}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: rack-a}
spec: {nodeSelector: rack == 'a', healthPort: 2}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: node.h1}
spec: {healthPort: 3, vxlanVNI: 5000}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 65001, nodeToNodeMeshEnabled: true, nodeMeshPassword: {secretKeyRef: {name: bgp, key: mesh}}}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: node.h1}
spec: {listenPort: 1179}
`

// applied puts standard input into the datastore. Some of it is not honoured,
// which is said.
func applied(w *world) {
	w.t.Helper()
	if got := w.run("apply", "-f", "-"); got.status != 0 {
		w.t.Fatalf("%+v", got)
	}
}

// squeezed are the lines of a table, each cell one space from the next.
func squeezed(text string) string {
	var out []string
	for _, l := range strings.Split(text, "\n") {
		out = append(out, strings.Join(strings.Fields(l), " "))
	}
	return "\n" + strings.Join(out, "\n") + "\n"
}

func wantRows(t *testing.T, text string, want ...string) {
	t.Helper()
	got := squeezed(text)
	for _, row := range want {
		if !strings.Contains(got, "\n"+row+"\n") {
			t.Errorf("there is no row %q in\n%s", row, got)
		}
	}
}

func TestConfigShowEffective(t *testing.T) {
	w := newWorld(t)
	w.env["BRINDLE_SOCKET"] = filepath.Join(t.TempDir(), "none")
	w.stdin = someSettings
	applied(w)
	got := w.run("config", "show", "--effective", "h1")
	if got.status != 0 {
		t.Fatalf("%+v", got)
	}
	wantRows(t, got.stdout,
		"Settings of node h1, as the datastore has them. Its own configuration file, environment and flags are known on that node only, and win over these:",
		"SETTING VALUE FROM", "healthPort 3 FelixConfiguration node.h1", "vxlanPort 4790 FelixConfiguration default", "vxlanVNI 5000 FelixConfiguration node.h1",
		"healthHost localhost default", "asNumber 65002 Node h1", "listenPort 1179 BGPConfiguration node.h1", "bindMode None default")
	if strings.Contains(got.stdout, "rack-a") || strings.Contains(got.stdout, "wireguardMTU") {
		t.Errorf("what does not hold is shown:\n%s", got.stdout)
	}
	got = w.run("config", "show", "--effective", "h1", "--all")
	wantRows(t, got.stdout, "SETTING VALUE FROM STATE", "healthPort 3 FelixConfiguration node.h1", "healthPort 2 FelixConfiguration rack-a overridden",
		"healthPort 1 FelixConfiguration default overridden", "wireguardMTU 1400 FelixConfiguration default not honoured", "asNumber 65001 BGPConfiguration default overridden")
	// The strongest of what does not hold comes first.
	if all := squeezed(got.stdout); strings.Index(all, "healthPort 2") > strings.Index(all, "healthPort 1 ") {
		t.Errorf("order:\n%s", all)
	}
	var view settingsView
	if err := json.Unmarshal([]byte(w.run("config", "show", "--effective", "h1", "-o", "json").stdout), &view); err != nil || view.From != "datastore" ||
		len(view.NotKnown) != 3 || len(view.Settings) < 50 || len(view.BGP) != 19 {
		t.Errorf("%v: %+v", err, view)
	}
	if got := w.run("config", "show", "--effective", "h1", "-o", "yaml"); !strings.Contains(got.stdout, "from: datastore\n") {
		t.Errorf("%+v", got)
	}
	w.fails(`there is no Node "h9"`, "config", "show", "--effective", "h9")
	w.fails(`output format "wide"`, "config", "show", "-o", "wide")
}

func TestConfigShowAsksTheAgent(t *testing.T) {
	w := newWorld(t)
	w.env["BRINDLE_SOCKET"] = answering(t, map[string]any{agentapi.PathSettings: agentapi.Settings{
		Node: "h1", Warnings: []string{"a warning"},
		Values: []agentapi.Setting{{Name: "healthPort", Value: "6", Source: "environment, FELIX_HEALTHPORT"}, {Name: "vxlanPort", Value: "4789", Source: "default"}},
		Said: []agentapi.Setting{{Name: "healthPort", Value: "3", Source: "FelixConfiguration node.h1"}, {Name: "healthPort", Value: "6", Source: "environment, FELIX_HEALTHPORT"},
			{Name: "vxlanPort", Value: "0", Source: "flag --vxlanPort"}},
	}})
	w.stdin = someSettings
	applied(w)
	got := w.run("config", "show", "--effective", "h1", "--all")
	wantRows(t, got.stdout, "Settings of node h1, as its agent has them:", "healthPort 6 environment, FELIX_HEALTHPORT",
		"healthPort 3 FelixConfiguration node.h1 overridden", "vxlanPort 0 flag --vxlanPort refused", "listenPort 1179 BGPConfiguration node.h1")
	if !strings.Contains(got.stderr, "warning: a warning") {
		t.Errorf("%q", got.stderr)
	}
	// It speaks for its own node alone.
	w.stdin = strings.ReplaceAll(someSettings, "h1", "h2")
	applied(w)
	wantRows(t, w.run("config", "show", "--effective", "h2").stdout, "healthPort 3 FelixConfiguration node.h2")
	// Without a datastore it is what there is to ask.
	w.db = broken{}
	got = w.run("config", "show", "--effective", "h1")
	if got.status != 0 || !strings.Contains(got.stderr, "the settings of BGP are not known: ") {
		t.Errorf("%+v", got)
	}
}

func TestConfigShowRaw(t *testing.T) {
	w := newWorld(t)
	w.stdin = someSettings
	applied(w)
	file := w.file("agent.cfg", "[global]\nHealthPort = 4\nEtcdPassword = hush\n")
	var stdout, stderr bytes.Buffer
	e := w.environment(&stdout, &stderr)
	e.Environ = func() []string {
		return []string{"FELIX_HEALTHPORT=5", "FELIX_ETCDPASSWORD=hush", "ETCD_PASSWORD=hush"}
	}
	if status := Run(t.Context(), e, []string{"config", "show", "--config-file", file}); status != 0 || stderr.Len() > 0 {
		t.Fatalf("exit status %d: %s", status, &stderr)
	}
	wantRows(t, stdout.String(), "healthPort 1 FelixConfiguration default", "healthPort 2 FelixConfiguration rack-a", "nodeSelector rack == 'a' FelixConfiguration rack-a",
		"wireguardMTU 1400 FelixConfiguration default", "healthPort 4 configuration file, HealthPort", "healthPort 5 environment, FELIX_HEALTHPORT", "asNumber 65001 BGPConfiguration default")
	if strings.Contains(stdout.String(), "hush") {
		t.Errorf("a password is shown:\n%s", &stdout)
	}
	w.fails("line 1", "config", "show", "--config-file", w.file("bad.cfg", "x\n"))
}
