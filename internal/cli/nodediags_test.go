package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/testenv"
)

// unpack reads a bundle.
func unpack(t *testing.T, name string) map[string]string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		_, inside, _ := strings.Cut(h.Name, "/")
		if out[inside] = string(data); h.Mode != 0o600 || !strings.HasPrefix(h.Name, "brindle-diags-") {
			t.Errorf("%s has mode %o", h.Name, h.Mode)
		}
	}
}

// canaries hands out secrets that stand nowhere else.
type canaries []string

func (c *canaries) one(odd string) string {
	*c = append(*c, fmt.Sprintf("canary%s-%d-7f3a9c", odd, len(*c)))
	return (*c)[len(*c)-1]
}

// diagsWorld is a host with a canary in each place that a secret may be in.
func diagsWorld(t *testing.T) (w *world, secrets canaries, environ []string, args []string) {
	w = newWorld(t)
	one := func() string { return secrets.one("") }
	w.stdin = strings.NewReplacer("name: bgp, key: mesh", "name: "+one()+", key: "+one()).Replace(someSettings) + `
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor, annotations: {kubectl.kubernetes.io/last-applied-configuration: '` + one() + `', projectcalico.org/x: kept}}
spec: {peerIP: 192.0.2.9, asNumber: 65009, password: {secretKeyRef: {name: ` + one() + `, key: ` + one() + `}}}
`
	applied(w)
	w.stdin = "{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: other, annotations: {config.projectcalico.org/LogPrefix: " + one() + "}}, spec: {nodeSelector: 'x == ''y'''}}"
	applied(w)
	password, token, odd, setting := secrets.one(`"\+/`), one(), secrets.one(` "q`), one()
	cert, key, keyLine := certificate(w)
	secrets = append(secrets, keyLine)
	w.env["ETCD_PASSWORD"], w.env["ETCD_USERNAME"], w.env["ETCD_KEY_FILE"] = password, "somebody", key
	w.env["ETCD_ENDPOINTS"] = "https://192.0.2.1:2379"
	w.env["ETCD_CERT_FILE"], w.env["ETCD_CA_CERT_FILE"] = cert, cert
	environ = []string{"ETCD_PASSWORD=" + password, "ETCD_USERNAME=somebody", "ETCD_KEY_FILE=" + key, "MY_TOKEN=" + token, "FELIX_LOGPREFIX=" + setting, "ANYTHING=" + one(),
		"FELIX_ETCDPASSWORD=" + one(), "PGPASSWORD=" + odd, "FELIX_HEALTHPORT=9199"}
	fileSecret, fileOdd := one(), one()
	config := w.file("agent.cfg", "EtcdPassword = "+fileSecret+"\nLogPrefix = "+fileOdd+"\nHealthPort = 9198\n")
	b64 := base64.StdEncoding.EncodeToString([]byte(password))
	secrets = append(secrets, b64, url.QueryEscape(odd))
	said := []agentapi.Setting{
		{Name: "healthPort", Value: "9199", Source: "environment, FELIX_HEALTHPORT"}, {Name: "logPrefix", Value: fileOdd, Source: "configuration file, LogPrefix"},
		{Name: "logPrefix", Value: setting, Source: "environment, FELIX_LOGPREFIX"}, {Name: "metadataAddr", Value: one(), Source: "flag --metadataAddr"},
	}
	w.env["BRINDLE_SOCKET"] = answering(t, map[string]any{
		agentapi.PathStatus: agentapi.Status{Node: "h1", Ready: true, Build: "v1.2.3", Sessions: []agentapi.Session{{Name: "tor", LastError: "password " + password + " refused"}},
			Conditions: []agentapi.Condition{{Type: "Datastore", Message: "https://root:" + one() + "@192.0.2.1:2379 refused"}}},
		agentapi.PathRoutes: agentapi.Routes{}, agentapi.PathPaths: agentapi.Paths{}, agentapi.PathPolicyStats: agentapi.PolicyStats{},
		agentapi.PathSettings: agentapi.Settings{Node: "h1", Values: said[:3:3], Said: said, Ignored: said[3:], Warnings: []string{"environment, FELIX_LOGPREFIX: " + setting}},
	})
	log := w.file("brindle.log", strings.Join([]string{
		"a line that stays", "auth " + password, "encoded " + b64, "query ?p=" + url.QueryEscape(odd), `quoted {"p":` + quoted(odd) + `}`,
		"Authorization: Bearer " + one(), "db_password=" + one(), `secret: "` + one() + ` with spaces"`, "-----BEGIN RSA PRIVATE KEY-----\n" + one() + "\n-----END RSA PRIVATE KEY-----",
		"key " + keyLine, "problem: " + setting, "problem: " + fileOdd, "token " + token,
	}, "\n")+"\n")
	return w, secrets, environ, []string{"node", "diags", "--config-file", config, "--log", log, "--log-dir", filepath.Dir(key)}
}

// certificate makes one, and returns its file, that of its key, and a line of
// the key.
func certificate(w *world) (cert, key, line string) {
	w.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, of, of, &private.PublicKey, private)
	if err != nil {
		w.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		w.t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	return w.file("tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))), w.file("tls.key", text), strings.Split(text, "\n")[1]
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestDiagsHoldNoSecrets(t *testing.T) {
	ns := testenv.NetNS(t)
	w, secrets, environ, args := diagsWorld(t)
	name := filepath.Join(t.TempDir(), "bundle.tar.gz")
	var stdout, stderr bytes.Buffer
	status := 0
	testenv.Do(t, ns, func() error {
		e := w.environment(&stdout, &stderr)
		e.Environ = func() []string { return environ }
		status = Run(t.Context(), e, append(args, "--file", name))
		return nil
	})
	if status != 0 || !strings.HasPrefix(stdout.String(), "Wrote "+name+": ") {
		t.Fatalf("exit status %d: %s%s", status, &stdout, &stderr)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v: others may read it: %v", err, info.Mode())
	}
	t.Logf("%s", &stderr)
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
	if len(secrets) < 20 {
		t.Errorf("%d canaries only", len(secrets))
	}
	// What is no secret is there, so the search above was of something.
	for file, want := range map[string]string{
		"agent/status.json": `"node": "h1"`, "agent/process.json": `"MY_TOKEN"`, "settings.json": `"value": "9199"`, "datastore/bgppeers.json": "192.0.2.9",
		"datastore/felixconfigurations.json": `"healthPort": 1`, "datastore/bgpconfigurations.json": `"nodeMeshPassword": "(redacted)"`, "datastore/where.json": "192.0.2.1:2379",
		"kernel/links.json": `"name": "lo"`, "kernel/rules.json": `"priority": 32766`, "kernel/routes.json": "[", "kernel/addresses.json": "127.0.0.1/8", "kernel/neighbours.json": "",
		"nftables/chains.json": "", "nftables/brindle.txt": "", "connections.json": `"entries": `, "host/versions.json": `"brindle": "v1.2.3"`, "host/sysctl.txt": "ipv4/conf/all/rp_filter = ",
		"host/checksystem.json": "nftables: maps", "manifest.json": `"node": "h1"`,
	} {
		if text, ok := files[file]; !ok || !strings.Contains(text, want) {
			t.Errorf("%s has no %q: there %v: %.300s", file, want, ok, text)
		}
	}
	logs := ""
	for file, text := range files {
		if strings.HasPrefix(file, "logs/") {
			logs += text
		}
		if strings.HasSuffix(file, ".json") && !json.Valid([]byte(text)) {
			t.Errorf("%s is no JSON", file)
		}
	}
	if !strings.Contains(logs, "a line that stays\nauth (redacted)\n") {
		t.Errorf("logs: %s", logs)
	}
	if !strings.Contains(files["datastore/bgppeers.json"], `"projectcalico.org/x": "kept"`) {
		t.Errorf("%s", files["datastore/bgppeers.json"])
	}
}

// A bundle is made of what can be had, and never in place of another file.
func TestDiagsOfAHostWithoutAnything(t *testing.T) {
	ns := testenv.NetNS(t)
	w := newWorld(t)
	w.env["BRINDLE_SOCKET"] = filepath.Join(t.TempDir(), "none")
	w.db = broken{}
	name := filepath.Join(t.TempDir(), "bundle.tar.gz")
	var first, second outcome
	testenv.Do(t, ns, func() error {
		first = w.run("node", "diags", "--file", name, "--log", "/nonexistent/x.log")
		second = w.run("node", "diags", "--file", name)
		return nil
	})
	for _, want := range []string{"not gathered: the agent: no agent is running", "not gathered: the datastore: ", "not gathered: logs: "} {
		if !strings.Contains(first.stderr, want) {
			t.Errorf("%q is not in %s", want, first.stderr)
		}
	}
	if first.status != 0 || second.status != 1 || !strings.Contains(second.stderr, "exists") {
		t.Errorf("%+v\n%+v", first, second)
	}
}

// Whatever is wrong with calicoctl's file, what stands in it stays there.
func TestDiagsDoNotQuoteFiles(t *testing.T) {
	ns := testenv.NetNS(t)
	for name, text := range map[string]string{
		"no YAML":   "spec:\n  etcdPassword: canary-a-1\n etcdKey: [canary-a-2\n",
		"of a kind": "kind: Other\nspec: {etcdPassword: canary-a-1, etcdKey: canary-a-2}\n",
		"with keys": "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nspec: {etcdPassword: canary-a-1, etcdKey: canary-a-2}\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.env["BRINDLE_SOCKET"] = filepath.Join(t.TempDir(), "none")
			bundle := filepath.Join(t.TempDir(), "b.tar.gz")
			config := w.file("calicoctl.cfg", text)
			log := w.file("x.log", "it says canary-a-1 and canary-a-2\n")
			var got outcome
			testenv.Do(t, ns, func() error {
				got = w.run("node", "diags", "--file", bundle, "-c", config, "--log", log)
				return nil
			})
			if got.status != 0 || !strings.Contains(got.stderr, "not gathered: the datastore: ") || strings.Contains(got.stderr, "canary") {
				t.Errorf("%+v", got)
			}
			for file, text := range unpack(t, bundle) {
				if strings.Contains(text, "canary") {
					t.Errorf("%s: %s", file, text)
				}
			}
		})
	}
}

func TestTellable(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		want        bool
	}{
		{"healthPort", "9099", true}, {"healthPort", "hunter2", false}, {"ipForwarding", "Disabled", true}, {"ip", "192.0.2.1/24", true},
		{"routeRefreshInterval", "90s", true}, {"logPrefix", "calico-packet", true}, {"logPrefix", "s3cr3t", false}, {"externalNodesList", "10.0.0.0/8,fd00::1", true},
		{"nftablesMarkMask", "0xffff0000", true}, {"interfacePrefix", "cali", true}, {"noSuch", "word", false}, {"noSuch", "12345678901", false},
	} {
		if got := tellable(tt.name, tt.value); got != tt.want {
			t.Errorf("%s %q: %v", tt.name, tt.value, got)
		}
	}
}

func TestRedactedTree(t *testing.T) {
	var v any
	in := `{"a":[{"password":{"secretKeyRef":{"name":"n"}},"keep":1.5,"apiKey":"x"}],"annotations":{"config.projectcalico.org/X":"1","x.projectcalico.org/y":"2","z":"3"},"key":"kept","annotation":"kept"}`
	if err := json.Unmarshal([]byte(in), &v); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(tree(v))
	const want = `{"a":[{"apiKey":"(redacted)","keep":1.5,"password":"(redacted)"}],"annotation":"kept","annotations":{"config.projectcalico.org/X":"(redacted)","x.projectcalico.org/y":"2","z":"(redacted)"},"key":"kept"}`
	if err != nil || string(got) != want {
		t.Errorf("%v: got\n%s, want\n%s", err, got, want)
	}
	r := newRedactor([]string{"abcdef", "abc", "", "bcde"})
	if got := string(r.text([]byte("abcdef abc bcde YWJjZGVm 616263646566"))); got != "(redacted) abc (redacted) (redacted) (redacted)" || !slices.IsSortedFunc(r.known, func(a, b []byte) int { return len(b) - len(a) }) {
		t.Errorf("got %s", got)
	}
}
