package cli

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// cniHost is a host's folders, as far as installing goes.
type cniHost struct {
	*world
	root string
}

func newCNIHost(t *testing.T) cniHost {
	t.Helper()
	h := cniHost{newWorld(t), t.TempDir()}
	h.put("brindle-cni", "\x7fELF one")
	return h
}

func (h cniHost) path(name string) string { return filepath.Join(h.root, name) }

func (h cniHost) put(name, body string) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(h.path(name)), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.path(name), []byte(body), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h cniHost) read(name string) string {
	data, err := os.ReadFile(h.path(name))
	if err != nil {
		return ""
	}
	return string(data)
}

// install are the words of an installation into the host's folders.
func (h cniHost) install(more ...string) []string {
	return append([]string{"cni", "install", "--plugin", h.path("brindle-cni"), "--bin-dir", h.path("bin"), "--conf-dir", h.path("net.d"),
		"--state", h.path("note.json"), "--socket", h.path("run/agent.sock")}, more...)
}

func (h cniHost) uninstall(more ...string) []string {
	return append([]string{"cni", "uninstall", "--state", h.path("note.json"), "--socket", h.path("run/agent.sock")}, more...)
}

// files lists what is below a folder, with its mode.
func (h cniHost) files() []string {
	h.t.Helper()
	var out []string
	for _, dir := range []string{"bin", "net.d", "note.json"} {
		err := filepath.WalkDir(h.path(dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				info, _ := d.Info()
				name, _ := filepath.Rel(h.root, path)
				out = append(out, info.Mode().String()+" "+name)
			}
			return nil
		})
		if err != nil {
			h.t.Fatal(err)
		}
	}
	return out
}

const ownConf = "net.d/10-brindle.conflist"

func TestCNIInstall(t *testing.T) {
	h := newCNIHost(t)
	if err := os.MkdirAll(h.path("net.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	got := h.ok(h.install("--ipv6", "--mtu", "1400")...)
	if want := "installed " + h.path("bin/brindle-cni") + "\ninstalled " + h.path("bin/brindle-ipam") + "\ninstalled " + h.path(ownConf) + "\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	all := []string{"-rwxr-xr-x bin/brindle-cni", "Lrwxrwxrwx bin/brindle-ipam", "-rw------- net.d/10-brindle.conflist", "-rw------- note.json"}
	if f := h.files(); !slices.Equal(f, all) {
		t.Errorf("there is %q", f)
	}
	var conf struct {
		CNIVersion string
		Plugins    []struct {
			Type string
			MTU  int
			IPAM map[string]string
		}
	}
	if err := json.Unmarshal([]byte(h.read(ownConf)), &conf); err != nil || conf.CNIVersion != "1.0.0" || len(conf.Plugins) != 1 ||
		conf.Plugins[0].MTU != 1400 || conf.Plugins[0].IPAM["assign_ipv6"] != "true" {
		t.Errorf("configuration %s, %v", h.read(ownConf), err)
	}
	if got := h.ok(h.install("--ipv6", "--mtu", "1400")...); strings.Count(got, "unchanged") != 3 {
		t.Errorf("again: %q", got)
	}
	h.put("brindle-cni", "\x7fELF two") // an upgrade
	if got := h.ok(h.install()...); strings.Count(got, "installed") != 2 || h.read("bin/brindle-cni") != "\x7fELF two" {
		t.Errorf("upgrade: %q", got)
	}
	if err := os.Chmod(h.path(ownConf), 0o644); err != nil {
		t.Fatal(err)
	}
	h.ok(h.install()...)
	if f := h.files(); !slices.Equal(f, all) {
		t.Errorf("there is %q", f)
	}
	got = h.ok(h.install("--remove")...)
	if !strings.HasPrefix(got, "removed   "+h.path(ownConf)) || len(h.files()) != 0 {
		t.Errorf("removed %q, left %q", got, h.files())
	}
	if got := h.ok(h.uninstall()...); got != "nothing is installed\n" {
		t.Errorf("again: %q", got)
	}
}

func TestCNIInstallLeavesOthersFilesAlone(t *testing.T) {
	h := newCNIHost(t)
	h.put(ownConf, `{"mine":true}`)
	h.fails("--force", h.install()...)
	if h.read(ownConf) != `{"mine":true}` || len(h.files()) != 1 {
		t.Errorf("there is %q", h.files())
	}
	if got := h.ok(h.install("--force")...); !strings.Contains(got, "kept      "+h.path(ownConf)+".replaced") || h.read(ownConf+".replaced") != `{"mine":true}` {
		t.Errorf("got %q, there is %q", got, h.files())
	}
	h.put(ownConf, `{"edited":true}`)
	h.fails("was changed", h.install()...)
	if got := h.run(h.uninstall()...); got.status != 1 || !strings.Contains(got.stderr, "was changed") || h.read("bin/brindle-cni") != "" || h.read(ownConf) != `{"edited":true}` {
		t.Errorf("%+v, there is %q", got, h.files())
	}
	h.ok(h.uninstall("--force")...)
	if f := h.files(); len(f) != 1 || h.read(ownConf+".replaced") == "" {
		t.Errorf("there is %q", f)
	}
}

func TestCNIInstallKnowsNewerVersions(t *testing.T) {
	h := newCNIHost(t)
	for _, tt := range []struct {
		build, version string
		ok             bool
	}{
		{"v1.2.3", "1", true}, {"v1.2.2-9-gabc", "1", true}, {"v1.2.3-1-gabc", "1", false}, {"v1.10.0", "1", false}, {"dev", "1", true},
		{"a2253ab-dirty", "1", true}, {"v1.2.3", "2", false},
	} {
		h.put("note.json", `{"version":`+tt.version+`,"build":"`+tt.build+`"}`)
		if got := h.run(h.install()...); (got.status == 0) != tt.ok || !tt.ok && !strings.Contains(got.stderr, "newer") {
			t.Errorf("%s: %+v", tt.build, got)
		}
	}
	h.put("note.json", `{"version":1,"build":"v9.0.0"}`)
	h.ok(h.install("--force")...)
}

// TestCNIInstallCutShort: killed between two files, it goes on with the next.
func TestCNIInstallCutShort(t *testing.T) {
	h := newCNIHost(t)
	h.ok(h.install()...)
	old := h.read("note.json")
	h.put("brindle-cni", "\x7fELF two")
	// Where a folder is in its way it stops after the plugin.
	if err := os.Remove(h.path(ownConf)); err != nil {
		t.Fatal(err)
	}
	h.put(ownConf+"/x", "")
	h.fails("no plain file", h.install()...)
	if h.read("note.json") != old || h.read("bin/brindle-cni") != "\x7fELF one" {
		t.Error("something was touched")
	}
	if err := os.RemoveAll(h.path(ownConf)); err != nil {
		t.Fatal(err)
	}
	var note installNote
	if err := json.Unmarshal([]byte(old), &note); err != nil {
		t.Fatal(err)
	}
	as := note.Files[h.path("bin/brindle-cni")]
	as.Sums = append(as.Sums, installFile{body: []byte("\x7fELF two")}.sum())
	note.Files[h.path("bin/brindle-cni")] = as
	data, _ := json.Marshal(note)
	h.put("note.json", string(data))
	h.put("bin/brindle-cni", "\x7fELF two")
	h.put("brindle-cni", "\x7fELF three")
	h.ok(h.install()...)
	if h.read("bin/brindle-cni") != "\x7fELF three" {
		t.Error("it was not brought up to date")
	}
}

func TestCNIUninstallWithWorkloads(t *testing.T) {
	h := newCNIHost(t)
	h.ok(h.install()...)
	h.put("run/attachments/a.json", "{}")
	if got := h.run(h.uninstall()...); got.status != 1 || !strings.Contains(got.stderr, "1 workload interfaces of this host live") || h.read(ownConf) != "" || h.read("bin/brindle-cni") == "" {
		t.Errorf("%+v, there is %q", got, h.files())
	}
	if err := os.RemoveAll(h.path("run")); err != nil {
		t.Fatal(err)
	}
	h.ok(h.uninstall()...)
	if f := h.files(); len(f) != 0 {
		t.Errorf("there is %q", f)
	}
}

const calicoTemplate = `{
  "name": "k8s-pod-network", "cniVersion": "0.3.1",
  "plugins": [
    {"type": "calico", "log_level": "__LOG_LEVEL__", "datastore_type": "__DATASTORE_TYPE__", "nodename": "__KUBERNETES_NODE_NAME__",
     "mtu": __CNI_MTU__, "etcd_endpoints": "__ETCD_ENDPOINTS__", "etcd_key_file": "/calico-secrets/etcd-key",
     "ipam": {"type": "calico-ipam", "ipv4_pools": ["a"]}, "policy": {"type": "k8s", "k8s_auth_token": "secret-token"},
     "kubernetes": {"kubeconfig": "__KUBECONFIG_FILEPATH__"}},
    {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}
  ]
}`

func TestCNIInstallFromCalicosTemplate(t *testing.T) {
	h := newCNIHost(t)
	h.put("net.d/10-calico.conflist", calicoTemplate)
	args := h.install("--template", h.path("net.d/10-calico.conflist"), "--old-conf-name", "10-calico.conflist")
	h.env["CNI_MTU"], h.env["SLEEP"] = "1350", "false"
	h.ok(args...)
	var conf any
	if err := json.Unmarshal([]byte(h.read(ownConf)), &conf); err != nil {
		t.Fatal(err)
	}
	compact, _ := json.Marshal(conf)
	want := `{"cniVersion":"0.3.1","name":"k8s-pod-network","plugins":[{"datastore_type":"etcdv3","ipam":{"ipv4_pools":["a"],"type":"brindle-ipam"},` +
		`"log_level":"info","mtu":1350,"policy":{"type":"k8s"},"type":"brindle-cni"},{"capabilities":{"portMappings":true},"snat":true,"type":"portmap"}]}`
	if string(compact) != want {
		t.Errorf("got  %s\nwant %s", compact, want)
	}
	if h.read("net.d/10-calico.conflist.replaced") != calicoTemplate || h.read("net.d/10-calico.conflist") != "" {
		t.Error("the old configuration is not kept aside")
	}
	if got := h.ok(args...); strings.Count(got, "unchanged") != 3 {
		t.Errorf("again: %q", got)
	}
	for _, tt := range []struct{ template, want string }{
		{"{", "not valid JSON"}, {"{}", "name is empty"}, {`{"name":"n","plugins":[{"type":"bridge"}]}`, "would not be ours"},
		{`{"name":"n","plugins":[7]}`, "plugins[0]"}, {`{"name":"__NO_SUCH__"}`, "__NO_SUCH__"},
	} {
		h.env["CNI_NETWORK_CONFIG"] = tt.template
		h.fails(tt.want, h.install()...)
	}
	h.env["CNI_NETWORK_CONFIG"] = `{"name":"n","cniVersion":"0.4.0","type":"calico","ipam":{"type":"host-local"}}`
	h.ok(h.install()...)
	if got := h.read(ownConf); !strings.Contains(got, `"plugins"`) || !strings.Contains(got, "host-local") {
		t.Errorf("of one plugin: %s", got)
	}
}

func TestCNIInstallSaysWhoComesFirst(t *testing.T) {
	h := newCNIHost(t)
	h.put("net.d/05-other.conf", "{}")
	if got := h.run(h.install()...); got.status != 0 || !strings.Contains(got.stderr, "05-other.conf before 10-brindle.conflist") {
		t.Errorf("%+v", got)
	}
	for _, tt := range []struct{ name, value, want string }{
		{"CNI_CONF_NAME", "../x.conflist", "without its folder"}, {"CNI_CONF_NAME", "x.yaml", ".conflist"}, {"SLEEP", "maybe", "SLEEP"}, {"CNI_MTU", "many", "CNI_MTU"},
	} {
		h.env = map[string]string{tt.name: tt.value}
		h.fails(tt.want, h.install()...)
	}
	h.env = map[string]string{}
	h.put("brindle-cni", "#!/bin/sh")
	h.fails("is no program", h.install()...)
}

// TestCNIStamps differ as soon as anything that is installed, or installed from,
// is another file, or was written to.
func TestCNIStamps(t *testing.T) {
	h := newCNIHost(t)
	if got := h.run(h.install()...); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	o := &cniOptions{plugin: h.path("brindle-cni"), binDir: h.path("bin"), confDir: h.path("net.d"), state: h.path("note.json"), from: h.path("template")}
	e := &Env{Executable: h.path("brindle")}
	was := o.stamps(e)
	if was != o.stamps(e) {
		t.Error("they change by themselves")
	}
	for _, name := range []string{"brindle-cni", "template", "template" + replacedSuffix, "note.json", "bin/other", "net.d/00-first.conf"} {
		h.put(name, "another")
		now := o.stamps(e)
		if now == was {
			t.Errorf("a new %s is not seen", name)
		}
		was = now
	}
}

// TestCNIInstallStays: what goes missing comes back, and what somebody changes
// is told of once.
func TestCNIInstallStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newCNIHost(t)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		done := make(chan outcome)
		go func() { done <- h.runContext(ctx, h.install("--watch")...) }()
		synctest.Wait()
		if err := os.Remove(h.path(ownConf)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * cniPoll)
		if h.read(ownConf) == "" {
			t.Error("the configuration did not come back")
		}
		h.put(ownConf, "{}")
		time.Sleep(3 * cniPoll)
		stop()
		got := <-done
		if got.status != 0 || strings.Count(got.stdout, "installed") != 4 || strings.Contains(got.stdout, "unchanged") || strings.Count(got.stderr, "was not written by this program") != 1 {
			t.Errorf("%+v", got)
		}
	})
}
