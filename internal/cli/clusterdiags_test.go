package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/testenv"
)

// The bundle of a network has what the datastore says and what this host does,
// and no secret. The recording in it is of both families.
func TestClusterDiagsHoldNoSecrets(t *testing.T) {
	ns := testenv.NetNS(t)
	w, secrets, environ, args := diagsWorld(t)
	var recorded map[string]json.RawMessage
	data, err := os.ReadFile("testdata/etcd.json")
	if err == nil {
		err = json.Unmarshal(data, &recorded)
	}
	if err != nil {
		t.Fatal(err)
	}
	recorded[store.AnswerKey("n1")] = json.RawMessage(`{"done":"x","why":"password=` + secrets.one("") + `"}`)
	for key, value := range recorded {
		if _, err := w.db.Create(t.Context(), key, value); err != nil && !errors.Is(err, store.ErrExists) {
			t.Fatal(err)
		}
	}
	name := filepath.Join(t.TempDir(), "bundle.tar.gz")
	var stdout, stderr bytes.Buffer
	status := 0
	testenv.Do(t, ns, func() error {
		e := w.environment(&stdout, &stderr)
		e.Environ = func() []string { return environ }
		status = Run(t.Context(), e, append(line("cluster diags --focus-nodes n2,gone --max-logs 1 --max-parallelism 2 --config-file"), args[3], "--log-dir", filepath.Dir(args[5]), "--file", name))
		return nil
	})
	if status != 0 || !strings.HasPrefix(stdout.String(), "Wrote "+name+": ") || !strings.Contains(stdout.String(), "run `brindle node diags` there") {
		t.Fatalf("exit status %d: %s%s", status, &stdout, &stderr)
	}
	if !strings.Contains(stderr.String(), `there is no Node "gone"`) {
		t.Errorf("%s", &stderr)
	}
	files := unpack(t, name)
	for _, secret := range secrets {
		for file, text := range files {
			if strings.Contains(text, secret) || strings.Contains(file, secret) || strings.Contains(text, strings.Trim(quoted(secret), `"`)) {
				t.Errorf("%s has %q", file, secret)
			}
		}
		if strings.Contains(stdout.String()+stderr.String(), secret) {
			t.Errorf("%q was printed", secret)
		}
	}
	for file, want := range map[string]string{
		"datastore/bgppeers.json": "192.0.2.9", "datastore/networksets.json": "198.51.100.0/28", "datastore/tiers.json": `"name": "security"`, "datastore/workloadendpoints.json": "n2-cni-c7f3-eth0",
		"datastore/where.json": "192.0.2.1:2379", "datastore/answers.json": `"done": "x"`, "ipam/records.json": store.HandleRoot + "k8s-pod-network.cid-0001", "ipam/check.json": `"192.168.40.128"`, "ipam/usage.json": "ippool-cross-subnet-1",
		"hosts/n2/effective.json": `"healthPort"`, "hosts/h1/agent/status.json": `"node": "h1"`, "hosts/h1/kernel/links.json": `"name": "lo"`, "manifest.json": `"gone"`,
	} {
		if text, ok := files[file]; !ok || !strings.Contains(text, want) {
			t.Errorf("%s has no %q: there %v: %.300s", file, want, ok, text)
		}
	}
	if _, ok := files["hosts/n1/effective.json"]; ok {
		t.Error("--max-logs 1 was passed over")
	}
}

// Without an agent here there is what the datastore says; without a datastore
// there is nothing.
func TestClusterDiagsFromElsewhere(t *testing.T) {
	w := newWorld(t)
	w.env["BRINDLE_SOCKET"] = filepath.Join(t.TempDir(), "none")
	w.loadRecording()
	name := filepath.Join(t.TempDir(), "bundle.tar.gz")
	got := w.run("cluster", "diags", "--file", name, "--skip-temp-dir-cleanup", "--since", "10m")
	if got.status != 0 || got.stderr != "warning: --skip-temp-dir-cleanup is not needed: there is no such folder\n" {
		t.Fatalf("%+v", got)
	}
	files := unpack(t, name)
	for file := range files {
		if strings.HasPrefix(file, "hosts/") && !strings.HasSuffix(file, "/effective.json") {
			t.Errorf("%s is of this host", file)
		}
	}
	if files["hosts/n1/effective.json"] == "" || files["hosts/n2/effective.json"] == "" {
		t.Error("the settings of hosts are not there")
	}
	w.fails("exists", "cluster", "diags", "--file", name)
	w.fails("must be 1 or more", line("cluster diags --max-logs 0")...)
	w.db = broken{}
	w.fails(errBroken.Error(), line("cluster diags --file /nonexistent/x")...)
}

func TestYoungerLines(t *testing.T) {
	than := time.Date(2026, 11, 22, 5, 0, 0, 0, time.UTC)
	for in, want := range map[string]string{
		"time=2026-11-22T04:59:59.999Z level=a\n  more\ntime=2026-11-22T05:00:00Z b\n c\ntime=2026-11-22T04:00:00Z d": "time=2026-11-22T05:00:00Z b\n c\ntime=2026-11-22T04:00:00Z d",
		"2026-11-22T06:30:00+02:00 old\n{\"time\":\"2026-11-22T06:30:00+01:00\",\"msg\":1}\n":                         "{\"time\":\"2026-11-22T06:30:00+01:00\",\"msg\":1}\n",
		"time=2026-11-22T01:00:00Z all of it is old\n and this":                                                       "",
		"no time\nat all": "no time\nat all",
		"":                "",
	} {
		if got := string(younger([]byte(in), than)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestNewestLogs(t *testing.T) {
	dir := t.TempDir()
	var names []string
	for i, name := range []string{"b", "a", "c"} {
		names = append(names, filepath.Join(dir, name))
		when := time.Unix(int64(1000*i), 0)
		if err := os.WriteFile(names[i], nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(names[i], when, when); err != nil {
			t.Fatal(err)
		}
	}
	for most, want := range map[int][]string{0: names, 3: names, 2: {names[1], names[2]}, 1: {names[2]}} {
		if got := newest(names, most); !slices.Equal(got, want) {
			t.Errorf("%d: %q, want %q", most, got, want)
		}
	}
}
