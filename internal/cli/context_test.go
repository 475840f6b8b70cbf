package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// apiConfig is a file of calicoctl.
const apiConfig = `apiVersion: projectcalico.org/v3
kind: CalicoAPIConfig
metadata:
spec:
  datastoreType: etcdv3
  etcdEndpoints: http://192.0.2.7:1
  etcdUsername: fred
  etcdPassword: secret
`

// Who says where the datastore is: of all that are there, the first in the
// order that the guide gives.
func TestPrecedence(t *testing.T) {
	w := newWorld(t)
	file := w.file("calicoctl.cfg", apiConfig)
	given := w.file("given.cfg", strings.Replace(apiConfig, "192.0.2.7", "192.0.2.8", 1))
	secret := w.file("secret", "hush\n")
	contexts := func(current string) string {
		return w.file("config", "apiVersion: brindle.net/v1\nkind: ClientConfig\ncurrentContext: "+current+`
contexts:
- {name: lab, etcdEndpoints: "http://192.0.2.20:1", etcdPrefix: /lab}
- {name: prod, etcdEndpoints: "http://192.0.2.21:1", etcdUsername: carol, etcdPasswordFile: `+secret+`}
`)
	}
	plain := map[string]string{"ETCD_ENDPOINTS": "http://192.0.2.1:1"}
	calico := map[string]string{"ETCD_ENDPOINTS": "http://192.0.2.1:1", "CALICO_ETCD_ENDPOINTS": "http://192.0.2.2:1"}
	own := map[string]string{"ETCD_ENDPOINTS": "http://192.0.2.1:1", "CALICO_ETCD_ENDPOINTS": "http://192.0.2.2:1", "BRINDLE_ETCD_ENDPOINTS": "http://192.0.2.3:1", "BRINDLE_ETCD_PREFIX": "/own"}
	login := map[string]string{"ETCD_USERNAME": "dora", "ETCD_PASSWORD": "x"}
	for _, c := range []struct {
		name     string
		env      map[string]string
		calicos  bool   // there is a file of calicoctl
		current  string // context; "-": there is no file of them
		flags    []string
		endpoint string // the last number of its address
		prefix   string
		user     string
		password string
	}{
		{"environment", plain, false, "-", nil, "1", "", "", ""},
		{"environment of Calico's programs", calico, false, "-", nil, "2", "", "", ""},
		{"environment of our own", own, false, "-", nil, "3", "/own", "", ""},
		{"calicoctl's file before its environment", calico, true, "-", nil, "7", "", "fred", "secret"},
		{"our environment before that", own, true, "-", nil, "3", "/own", "fred", "secret"},
		{"the environment fills in", map[string]string{"ETCD_PREFIX": "/p"}, true, "-", nil, "7", "/p", "fred", "secret"},
		{"contexts without a current one", plain, true, `""`, nil, "7", "", "fred", "secret"},
		{"current context before calicoctl's file", login, true, "prod", nil, "21", "", "carol", "hush"},
		{"environment before it, and not mixed with it", plain, true, "prod", nil, "1", "", "", ""},
		{"nothing of the environment is mixed in", map[string]string{"ETCD_PREFIX": "/p", "ETCD_CA_CERT_FILE": "/x"}, false, "lab", nil, "20", "/lab", "", ""},
		{"a context by flag before the environment", own, true, "lab", []string{"--context", "prod"}, "21", "", "carol", "hush"},
		{"a file by flag", own, true, "lab", []string{"-c", given}, "8", "/own", "fred", "secret"},
		{"a flag before the context, which is not mixed in", nil, false, "prod", []string{"--etcd-endpoints", "http://192.0.2.9:1"}, "9", "", "", ""},
		{"a flag beside a context by flag", nil, false, "lab", []string{"--context", "prod", "--etcd-endpoints", "http://192.0.2.9:1"}, "9", "", "carol", "hush"},
		{"a flag before a file by flag", own, true, "lab", []string{"--config", given, "--etcd-prefix", "/f"}, "8", "/f", "fred", "secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.env = map[string]string{}
			for k, v := range c.env {
				w.env[k] = v
			}
			if c.current != "-" {
				w.env["BRINDLE_CONFIG"] = contexts(c.current)
			}
			if c.calicos {
				w.calicos = file
			}
			w.ok(append([]string{"get", "nodes"}, c.flags...)...)
			got := w.opened[0]
			want := []string{"http://192.0.2." + c.endpoint + ":1"}
			if !slices.Equal(got.Endpoints, want) || got.Prefix != c.prefix || got.Username != c.user || got.Password.Reveal() != c.password {
				t.Errorf("got %q %q %q %q, want %q %q %q %q", got.Endpoints, got.Prefix, got.Username, got.Password.Reveal(), want, c.prefix, c.user, c.password)
			}
		})
	}
	for _, c := range []struct{ name, contexts, calicos, want string }{
		{"unknown context", "apiVersion: brindle.net/v1\nkind: ClientConfig\ncurrentContext: x\ncontexts: []\n", "", `there is no context "x"`},
		{"unknown field", "apiVersion: brindle.net/v1\nkind: ClientConfig\ncontexts: [{name: a, etcdEndpoint: b}]\n", "", `unknown field "etcdEndpoint"`},
		{"another kind", "apiVersion: v1\nkind: Config\n", "", "must be kind ClientConfig"},
		{"no endpoints", "apiVersion: brindle.net/v1\nkind: ClientConfig\ncontexts: [{name: a}]\n", "", "contexts[0].etcdEndpoints"},
		{"twice", "apiVersion: brindle.net/v1\nkind: ClientConfig\ncontexts: [{name: a, etcdEndpoints: b}, {name: a, etcdEndpoints: b}]\n", "", "is there twice"},
		{"no password", "apiVersion: brindle.net/v1\nkind: ClientConfig\ncurrentContext: a\ncontexts: [{name: a, etcdEndpoints: \"http://192.0.2.1:1\", etcdUsername: u, etcdPasswordFile: /nonexistent}]\n", "", "etcdPasswordFile"},
		{"calicoctl's file is no YAML", "", "\t:", "calicoctl.cfg"},
		{"another datastore", "", strings.Replace(apiConfig, "etcdv3", "kubernetes", 1), "DATASTORE_TYPE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.env = map[string]string{}
			if c.contexts != "" {
				w.env["BRINDLE_CONFIG"] = w.file("config", c.contexts)
			}
			if c.calicos != "" {
				w.calicos = w.file("calicoctl.cfg", c.calicos)
			}
			w.fails(c.want, line("get nodes")...)
		})
	}
	w.fails("cannot be given together", "get", "nodes", "-c", given, "--context", "lab")
	w.env["BRINDLE_CONFIG"] = contexts("lab")
	w.fails(`there is no context "nosuch"`, line("get nodes --context nosuch")...)
}

// calicoctl's file may hold certificates and the key itself.
func TestCertificatesWithinTheFile(t *testing.T) {
	w := newWorld(t)
	w.env = map[string]string{}
	w.calicos = w.file("calicoctl.cfg", strings.Replace(apiConfig, "http:", "https:", 1)+"  etcdCACert: |\n    authority\n  etcdCert: certificate\n  etcdKey: key\n")
	w.ok(line("get nodes")...)
	if got := w.opened[0]; got.CA != "authority\n" || got.Cert != "certificate" || got.Key.Reveal() != "key" {
		t.Errorf("%+v, key %q", got, got.Key.Reveal())
	}
}

// The agent's datastore is not that of whoever is logged in.
func TestAgentHasNoContext(t *testing.T) {
	w := newWorld(t)
	w.env["BRINDLE_CONFIG"] = w.file("config", "apiVersion: brindle.net/v1\nkind: ClientConfig\ncurrentContext: a\ncontexts: [{name: a, etcdEndpoints: \"http://192.0.2.21:1\"}]\n")
	w.calicos = w.file("calicoctl.cfg", apiConfig)
	cfg, err := new(datastoreFlags).config(w.environment(nil, nil))
	if err != nil || !slices.Equal(cfg.Endpoints, []string{"http://192.0.2.1:2379"}) {
		t.Errorf("%v: %q", err, cfg.Endpoints)
	}
}

func TestContextCommands(t *testing.T) {
	w := newWorld(t)
	home := t.TempDir()
	path := filepath.Join(home, ".config", "brindle", "config")
	w.env = map[string]string{"HOME": home}
	w.fails("no context is current", line("config current-context")...)
	if got := w.ok(line("config get-contexts")...); got != "CURRENT   NAME   ENDPOINTS   PREFIX   USER\n" {
		t.Errorf("%q", got)
	}
	for _, c := range []struct{ in, want string }{
		{"config set-context lab --etcd-endpoints http://192.0.2.20:1", "Added context \"lab\".\n"},
		{"config set-context prod --etcd-endpoints https://192.0.2.21:1 --etcd-ca ca.pem", "Added context \"prod\".\n"},
		{"config use prod", "Switched to context \"prod\".\n"},
		{"config current-context", "prod\n"},
		{"config use-context lab", "Switched to context \"lab\".\n"},
		{"config set-context lab --etcd-prefix /lab", "Changed context \"lab\".\n"},
		{"config get-contexts", "CURRENT   NAME   ENDPOINTS              PREFIX   USER\n*         lab    http://192.0.2.20:1    /lab\n          prod   https://192.0.2.21:1\n"},
		{"config get-contexts -o name", "lab\nprod\n"},
	} {
		if got := w.ok(line(c.in)...); got != c.want {
			t.Errorf("%s: %q, want %q", c.in, got, c.want)
		}
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got := w.ok(line("config get-contexts -o json")...); !strings.Contains(got, `"etcdCACertFile": "`+filepath.Join(cwd, "ca.pem")) {
		t.Errorf("%s", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v: %v", err, info)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("%v: %v", err, left)
	}
	w.ok(line("get nodes")...)
	if got := w.opened[len(w.opened)-1]; got.Endpoints[0] != "http://192.0.2.20:1" || got.Prefix != "/lab" {
		t.Errorf("%+v", got)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ in, want string }{
		{"config use nosuch", "there is no context"},
		{"config use", "give the name of a context, or --none"},
		{"config use lab --none", "give the name of a context, or --none"},
		{"config delete-context nosuch", "there is no context"},
		{"config set-context empty", "etcdEndpoints: must be given"},
		{"config get-contexts -o yaml", "output format"},
	} {
		w.fails(c.want, line(c.in)...)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("what failed changed the file: %v\n%s", err, after)
	}
	w.ok(line("config delete-context lab")...)
	w.fails("no context is current", line("config current-context")...)
	w.ok(line("config use prod")...)
	if got := w.ok(line("config use --none")...); got != "No context is current now.\n" {
		t.Errorf("%q", got)
	}
	w.env = map[string]string{}
	w.fails("neither BRINDLE_CONFIG nor HOME is set", line("config get-contexts")...)
	w.env = map[string]string{"XDG_CONFIG_HOME": filepath.Join(home, ".config")}
	if got := w.ok(line("config get-contexts -o name")...); got != "prod\n" {
		t.Errorf("%q", got)
	}
}

// A shell is offered kinds, names, namespaces, columns, formats and contexts.
func TestCompletionOfNames(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	w.env["BRINDLE_CONFIG"] = w.file("config", "apiVersion: brindle.net/v1\nkind: ClientConfig\ncontexts: [{name: lab, etcdEndpoints: \"http://192.0.2.20:1\"}, {name: prod, etcdEndpoints: \"http://192.0.2.21:1\"}]\n")
	for _, c := range []struct{ in, want string }{
		{"get ippo", "ippools"},
		{"get ippools ", "ippool-cross-subnet-1 pool-v6 pool-vxlan"},
		{"get pool pool-v", "pool-v6 pool-vxlan"},
		{"get pool pool-v6 pool-v", "pool-vxlan"},
		{"get pool/pool-v", "pool/pool-v6 pool/pool-vxlan"},
		{"get pool/pool-v6 pool/pool-v", "pool/pool-vxlan"},
		{"get pool/pool-v6 pool-v", ""},
		{"delete node n", "n1 n2"},
		{"patch node ", "n1 n2"},
		{"patch node n1 ", ""},
		{"label node n", "n1 n2"},
		{"get np ", "allow-web"},
		{"get np -n nosuch ", ""},
		{"get np -n ", "default"},
		{"get np --namespace d", "default"},
		{"get nodes -n ", ""},
		{"get nosuch ", ""},
		{"get nodes -o w", "wide"},
		{"get nodes -o c", "custom-columns="},
		{"get nodes -o custom-columns=NAME,I", "custom-columns=NAME,IPV4 custom-columns=NAME,IPV6"},
		{"patch node n1 -t s", "strategic"},
		{"apply --dry-run ", ""},
		{"apply --dry-run=s", "server"},
		{"apply -o n", "name"},
		{"get nodes --context ", "lab prod"},
		{"ipam show --context p", "prod"},
		{"config use ", "lab prod"},
		{"config use lab ", ""},
		{"config delete-context l", "lab"},
	} {
		args := append([]string{"__complete"}, strings.Split(c.in, " ")...)
		got := w.run(args...)
		lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
		if is := strings.Join(lines[:len(lines)-1], " "); is != c.want || got.status != 0 {
			t.Errorf("%q: %q, want %q (%+v)", c.in, is, c.want, got)
		}
	}
	w.db = broken{}
	if got := w.run("__complete", "get", "nodes", ""); got.status != 0 || !strings.HasPrefix(got.stdout, ":") {
		t.Errorf("%+v", got)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "zsh --no-descriptions", "fish --no-descriptions"} {
		got := w.ok(append([]string{"completion"}, strings.Fields(shell)...)...)
		if shell != "bash" && !strings.Contains(got, `'^-.*='`) {
			t.Errorf("the script for %s takes the middle of a word for a flag", shell)
		}
		if !strings.Contains(got, "__complete") {
			t.Errorf("the script for %s does not ask the program", shell)
		}
	}
}
