package workload

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/cni"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

// cniCall is one call of the plugin.
func cniCall(command, container, config string) agentapi.CNIRequest {
	return agentapi.CNIRequest{
		Version: agentapi.Version, Command: command, Plugin: "brindle-cni", Config: json.RawMessage(config),
		Env: agentapi.CNIEnv{ContainerID: container, IfName: "eth0", Netns: "/run/netns/w1"},
	}
}

const dualConfig = `{"cniVersion":"%s","name":"k8s-pod-network","type":"brindle-cni","ipam":{"type":"calico-ipam","assign_ipv6":"true"}%s}`

func TestResultsOfEachVersion(t *testing.T) {
	for _, version := range cni.SpecVersions {
		t.Run(version, func(t *testing.T) {
			w := newWorld(t)
			m := w.start(nil)
			config := fmt.Sprintf(dualConfig, version, "")
			resp := m.CNI(t.Context(), cniCall("ADD", "cid-0001", config))
			if resp.Failed {
				t.Fatalf("%s", resp.Output)
			}
			var got bytes.Buffer
			if err := json.Indent(&got, resp.Output, "", "    "); err != nil {
				t.Fatal(err)
			}
			s := w.state() // which addresses there are is not what this is about
			text := got.String() + "\n"
			for i, full := range s.Addresses {
				_, addr, _ := strings.Cut(full, " ")
				text = strings.ReplaceAll(text, addr, fmt.Sprintf("ADDRESS-%d", i))
			}
			wep := w.endpoint("default", "n1-cni-cid--0001-eth0")
			text = strings.ReplaceAll(text, wep.Spec.MAC, "MAC")
			file := filepath.Join("testdata", "add-"+version+".json")
			if *update {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if text != string(want) {
				t.Errorf("got\n%s\nwant\n%s", text, want)
			}
			again := m.CNI(t.Context(), cniCall("ADD", "cid-0001", config))
			if !bytes.Equal(again.Output, resp.Output) {
				t.Errorf("again: %s\nfirst %s", again.Output, resp.Output)
			}
			withPrevious := fmt.Sprintf(dualConfig, version, `,"prevResult":`+string(resp.Output))
			if resp := m.CNI(t.Context(), cniCall("CHECK", "cid-0001", withPrevious)); resp.Failed {
				t.Errorf("check: %s", resp.Output)
			}
			if resp := m.CNI(t.Context(), cniCall("DEL", "cid-0001", withPrevious)); resp.Failed || resp.Output != nil {
				t.Errorf("del: %s", resp.Output)
			}
			w.wantEmpty("after DEL")
		})
	}
}

// TestTheShapeIsCalicos compares the keys of a result with one that Calico's
// plugin printed.
func TestTheShapeIsCalicos(t *testing.T) {
	var got, want any
	for file, into := range map[string]*any{"add-0.4.0.json": &got, "calico-add-0.4.0.json": &want} {
		data, err := os.ReadFile(filepath.Join("testdata", file))
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if g, w := shape(got), shape(want); !reflect.DeepEqual(g, w) {
		t.Errorf("got  %v\nwant %v", g, w)
	}
}

// shape replaces every string that is no number by its type.
func shape(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = shape(v[k])
		}
	case []any:
		for i := range v {
			v[i] = shape(v[i])
		}
	case string:
		if len(v) > 1 && v != "0.4.0" {
			return "…"
		}
	}
	return v
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	for _, tt := range []struct{ name, command, config, want string }{
		{"not an object", "ADD", `[]`, `"code":7`},
		{"no name", "ADD", `{"cniVersion":"1.0.0"}`, "name is empty"},
		{"a path as name", "ADD", `{"cniVersion":"1.0.0","name":"../x","ipam":{"type":"brindle-ipam"}}`, "network"},
		{"no address plugin", "ADD", `{"cniVersion":"1.0.0","name":"n"}`, "ipam.type is not set"},
		{"another address plugin", "ADD", `{"cniVersion":"1.0.0","name":"n","ipam":{"type":"dhcp"}}`, "dhcp"},
		{"a wrong boolean", "ADD", `{"cniVersion":"1.0.0","name":"n","ipam":{"type":"calico-ipam","assign_ipv4":"yes"}}`, "assign_ipv4"},
		{"no family", "ADD", `{"cniVersion":"1.0.0","name":"n","ipam":{"type":"calico-ipam","assign_ipv4":"false"}}`, "neither"},
		{"an unknown pool", "ADD", `{"cniVersion":"1.0.0","name":"n","ipam":{"type":"calico-ipam","ipv4_pools":["nowhere"]}}`, "nowhere"},
		{"a bad address", "ADD", `{"cniVersion":"1.0.0","name":"n","ipam":{"type":"calico-ipam"},"runtimeConfig":{"ips":["x"]}}`, `\"x\"`},
		{"an unknown device", "ADD", `{"cniVersion":"1.0.0","name":"n","device_type":"tap","ipam":{"type":"calico-ipam"}}`, "device_type"},
		{"an unknown command", "PAINT", `{"cniVersion":"1.0.0","name":"n"}`, "PAINT"},
		{"a bad previous result", "CHECK", `{"cniVersion":"1.0.0","name":"n","prevResult":{"ips":[{"address":"x"}]}}`, "prevResult"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			resp := w.start(nil).CNI(t.Context(), cniCall(tt.command, "c1", tt.config))
			var e struct {
				CNIVersion string `json:"cniVersion"`
				Code       int    `json:"code"`
				Msg        string `json:"msg"`
			}
			if err := json.Unmarshal(resp.Output, &e); err != nil || !resp.Failed || e.Code != cni.CodeInvalid || e.CNIVersion != "1.0.0" {
				t.Errorf("got %s, %v", resp.Output, err)
			}
			if !strings.Contains(string(resp.Output), tt.want) {
				t.Errorf("got %s, want %q", resp.Output, tt.want)
			}
			w.wantEmpty("after it was refused")
		})
	}
}

func TestCodes(t *testing.T) {
	w := newWorld(t, "10.65.0.0/32")
	m := w.start(nil)
	config := `{"cniVersion":"1.1.0","name":"n","ipam":{"type":"brindle-ipam"}}`
	code := func(req agentapi.CNIRequest) int {
		t.Helper()
		var e struct {
			Code int `json:"code"`
		}
		if out := m.CNI(t.Context(), req).Output; out != nil {
			if err := json.Unmarshal(out, &e); err != nil {
				t.Fatal(err)
			}
		}
		return e.Code
	}
	if c := code(cniCall("CHECK", "c1", config)); c != cni.CodeUnknown {
		t.Errorf("check of the unknown: %d", c)
	}
	if c := code(cniCall("ADD", "c1", config)); c != 0 {
		t.Errorf("add: %d", c)
	}
	if c := code(cniCall("ADD", "c2", config)); c != cni.CodeTryAgain {
		t.Errorf("no address left: %d", c)
	}
	if c := code(cniCall("STATUS", "", config)); c != 0 {
		t.Errorf("status: %d", c)
	}
	skewed := cniCall("ADD", "c1", config)
	skewed.Version = agentapi.Version + 2
	if c := code(skewed); c != cni.CodeIncompatible {
		t.Errorf("protocol skew: %d", c)
	}
	w.setReady(errors.New("not now"))
	for _, plugin := range []string{"brindle-cni", addressPlugin} {
		for command, want := range map[string]int{"ADD": cni.CodeTryAgain, "DEL": cni.CodeTryAgain, "STATUS": cni.CodeUnavailable} {
			req := cniCall(command, "c1", config)
			req.Plugin = plugin
			if c := code(req); c != want {
				t.Errorf("%s %s while not ready: %d, want %d", plugin, command, c, want)
			}
		}
	}
}

func TestAddressesOnly(t *testing.T) {
	w := newWorld(t)
	config := func(extra string) string { return fmt.Sprintf(dualConfig, "1.1.0", extra) }
	call := func(m *Manager, command, container, extra string) agentapi.CNIResponse {
		req := cniCall(command, container, config(extra))
		req.Plugin = addressPlugin
		return m.CNI(t.Context(), req)
	}
	m := w.start(nil)
	first := call(m, "ADD", "c1", "")
	if first.Failed || !strings.Contains(string(first.Output), `"ips":[{"address":"10.65.0.`) {
		t.Fatalf("%s", first.Output)
	}
	m = w.start(nil)
	if again := call(m, "ADD", "c1", ""); !bytes.Equal(again.Output, first.Output) {
		t.Errorf("again %s, first %s", again.Output, first.Output)
	}
	if at, err := m.Attached(t.Context()); err != nil || len(at) != 1 {
		t.Errorf("attached %v, %v: the collector would take its addresses", at, err)
	}
	if resp := call(m, "CHECK", "c1", `,"prevResult":`+string(first.Output)); resp.Failed {
		t.Errorf("check: %s", resp.Output)
	}
	if resp := call(m, "CHECK", "c2", `,"prevResult":`+string(first.Output)); !resp.Failed {
		t.Error("check of another container passed")
	}
	before := w.state()
	asked := call(m, "ADD", "c1", `,"runtimeConfig":{"ips":["10.65.0.200"]}`)
	if after := w.state(); !asked.Failed || !reflect.DeepEqual(after, before) {
		t.Errorf("%s; the world went from %+v to %+v", asked.Output, before, after)
	}
	if resp := m.CNI(t.Context(), cniCall("ADD", "c1", config(""))); !resp.Failed {
		t.Error("the main plugin took over the addresses of another's wire")
	}
	if resp := m.CNI(t.Context(), cniCall("ADD", "main", config(""))); resp.Failed {
		t.Fatalf("%s", resp.Output)
	}
	if resp := call(m, "DEL", "main", ""); !resp.Failed {
		t.Error("the address plugin took the addresses of a live interface")
	}
	call(m, "ADD", "c2", "")
	if resp := call(m, "GC", "", `,"cni.dev/valid-attachments":[{"containerID":"c2","ifname":"eth0"}]`); resp.Failed {
		t.Errorf("gc: %s", resp.Output)
	}
	if s := w.state(); !slices.Equal(s.Records, []string{"k8s-pod-network.c2", "k8s-pod-network.main"}) || len(s.Addresses) != 4 {
		t.Errorf("after gc: %+v", s)
	}
	for _, resp := range []agentapi.CNIResponse{call(m, "DEL", "c2", ""), call(m, "DEL", "c2", ""), m.CNI(t.Context(), cniCall("DEL", "main", config("")))} {
		if resp.Failed {
			t.Errorf("del: %s", resp.Output)
		}
	}
	w.wantEmpty("after all")
}

func TestGCNeedsAList(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	for _, tt := range []struct {
		extra string
		left  int
		fails bool
	}{
		{"", 1, false}, {`,"cni.dev/valid-attachments":7`, 1, true},
		{`,"cni.dev/attachments":[{"containerID":"c1","ifname":"eth0"}]`, 1, false},
		{`,"cni.dev/valid-attachments":[]`, 0, false},
		{`,"cni.dev/valid-attachments":null`, 0, false}, // how runtimes in Go write an empty list
	} {
		m.CNI(t.Context(), cniCall("ADD", "c1", fmt.Sprintf(dualConfig, "1.1.0", "")))
		resp := m.CNI(t.Context(), cniCall("GC", "", fmt.Sprintf(dualConfig, "1.1.0", tt.extra)))
		if s := w.state(); resp.Failed != tt.fails || len(s.Endpoints) != tt.left {
			t.Errorf("%s: %s, and left %+v", tt.extra, resp.Output, s)
		}
	}
}

func TestLabelsPodsAndAddressesOfAConfiguration(t *testing.T) {
	req := cniCall("ADD", "c1", `{"name":"n","mtu":1300,"ipam":{"type":"calico-ipam","assign_ipv6":"TRUE","ipv4_pools":["p"]},
		"args":{"cni":{"ips":["10.65.0.3/24"],"labels":{"a":"b"}}},"runtimeConfig":{"ips":["fd00:65::3"],"mac":"02:00:00:00:00:09"},
		"policy":{"type":"k8s"},"container_settings":{"allow_ip_forwarding":true},"device_type":"netkit","datastore_type":"etcdv3"}`)
	req.Env.Args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod;K8S_POD_INFRA_CONTAINER_ID=x;IP=10.65.0.3"
	_, got, err := parseCNI(req)
	want := agentapi.AddRequest{
		Version: agentapi.Version, Orchestrator: "k8s", Network: "n", ContainerID: "c1", Namespace: "ns", Pod: "pod",
		IfName: "eth0", Netns: "/run/netns/w1", Labels: map[string]string{"a": "b"}, Profiles: []string{"kns.ns"}, IPv4Pools: []string{"p"},
		Addresses: []string{"10.65.0.3", "10.65.0.3", "fd00:65::3"}, MAC: "02:00:00:00:00:09", MTU: 1300, Forwarding: true,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

func TestNames(t *testing.T) {
	pod := func(ns, name string) agentapi.WorkloadRef {
		return agentapi.WorkloadRef{Orchestrator: "k8s", Network: "net", ContainerID: "c1", Namespace: ns, Pod: name, IfName: "eth0"}
	}
	bare := func(id, ifName string) agentapi.WorkloadRef {
		return agentapi.WorkloadRef{Orchestrator: "cni", Network: "net", ContainerID: id, IfName: ifName}
	}
	for _, tt := range []struct {
		node                          string
		ref                           agentapi.WorkloadRef
		endpoint, iface, handle, late string
	}{
		{"node1", pod("default", "nginx"), "node1-k8s-nginx-eth0", "calic440f455693", "net.c1", "default.nginx"},
		{"node1", pod("kube-system", "coredns-abc"), "node1-k8s-coredns--abc-eth0", "cali3d5d6ab04b5", "net.c1", "kube-system.coredns-abc"},
		{"node1", pod("ns1", "pod-1"), "node1-k8s-pod--1-eth0", "cali72c8b75e7ea", "net.c1", "ns1.pod-1"},
		{"node-1", pod("default", "web-0"), "node--1-k8s-web--0-eth0", hashedName("cali", "default.web-0"), "net.c1", "default.web-0"},
		{"n1", bare("cid-0001", "eth0"), "n1-cni-cid--0001-eth0", "calicid-0001", "net.cid-0001", ""},
		{"n1", bare("0123456789abcdef", "eth0"), "n1-cni-0123456789abcdef-eth0", "cali0123456789a", "net.0123456789abcdef", ""},
		{"n1", bare("cid-0001", "net1"), "n1-cni-cid--0001-net1", hashedName("cali", "cid-0001.net1"), "net.net1.cid-0001", ""},
	} {
		id, err := identify(tt.node, "cali", tt.ref)
		if err != nil || id.Endpoint != tt.endpoint || id.HostInterface != tt.iface || id.Handle != tt.handle || id.LegacyHandle != tt.late {
			t.Errorf("%+v: got %+v, %v", tt.ref, id, err)
		}
	}
}

// FuzzConfiguration: whatever a runtime sends, no name gets out of its place
// in a key, a file or the name of an interface.
func FuzzConfiguration(f *testing.F) {
	f.Add(`{"cniVersion":"1.0.0","name":"n","ipam":{"type":"calico-ipam"}}`, "c1", "eth0", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b", "cali")
	f.Add(`{"name":"../../etc"}`, "../c", "a/b", "K8S_POD_NAMESPACE=../..;K8S_POD_NAME=%2e", "tap")
	f.Add(`{"name":"a.b"}`, "-x", "..", "IP=1.2.3.4;IP=", "abcdefghijk")
	f.Fuzz(func(t *testing.T, config, container, ifName, args, prefix string) {
		if len(prefix) > 11 || prefix == "" || strings.ContainsAny(prefix, "/: \t\n\x00") || prefix[0] == '.' {
			return // settings refuse such a prefix
		}
		req := agentapi.CNIRequest{Config: json.RawMessage(config), Env: agentapi.CNIEnv{ContainerID: container, IfName: ifName, Args: args}}
		_, add, err := parseCNI(req)
		if err != nil {
			return
		}
		id, err := identify("n1", prefix, refOf(add))
		if err != nil {
			return
		}
		for _, name := range []string{id.HostInterface, id.OtherName, add.IfName} {
			if !interfaceNameOK(name) || strings.ContainsAny(name, "/\x00") || len(name) > 15 {
				t.Errorf("interface %q", name)
			}
		}
		for _, name := range []string{id.Namespace, id.Endpoint, id.Handle, id.LegacyHandle} {
			if strings.ContainsAny(name, "/%\x00 \n") || name == "." || name == ".." {
				t.Errorf("name %q", name)
			}
		}
		key := store.ResourceID{Plural: "workloadendpoints", Namespace: id.Namespace, Name: id.Endpoint}
		if back, ok := store.ParseResourceKey(key.Key()); !ok || back != key {
			t.Errorf("key %q reads as %+v", key.Key(), back)
		}
		file := (&records{dir: "/records"}).file(id.Handle)
		if filepath.Dir(file) != "/records" || len(filepath.Base(file)) != 37 {
			t.Errorf("record %q", file)
		}
	})
}

// FuzzCall: whatever is sent, the answer is a CNI error or the world changed
// as asked.
func FuzzCall(f *testing.F) {
	f.Add("ADD", "brindle-cni", `{"cniVersion":"1.0.0","name":"n","ipam":{"type":"calico-ipam"}}`, "c1")
	f.Add("DEL", "brindle-ipam", `{"cniVersion":"0.3.1","name":"n"}`, "c1")
	f.Add("GC", "brindle-cni", `{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[]}`, "")
	f.Fuzz(func(t *testing.T, command, plugin, config, container string) {
		w := newWorld(t)
		req := cniCall(command, container, config)
		req.Plugin = plugin
		resp := w.start(nil).CNI(t.Context(), req)
		var e struct {
			Code int `json:"code"`
		}
		if resp.Failed && (json.Unmarshal(resp.Output, &e) != nil || e.Code == 0) {
			t.Errorf("failed with %s", resp.Output)
		}
		if resp.Failed {
			w.wantEmpty("after a failure")
		}
	})
}

func queued(container string) string {
	req := cniCall("DEL", container, fmt.Sprintf(dualConfig, "1.0.0", ""))
	body, err := json.Marshal(req)
	if err != nil {
		panic(err)
	}
	return string(body)
}

func TestTheQueueIsDrained(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	for _, c := range []string{"c1", "c2", "c3"} {
		if resp := m.CNI(t.Context(), cniCall("ADD", c, fmt.Sprintf(dualConfig, "1.0.0", ""))); resp.Failed {
			t.Fatalf("%s", resp.Output)
		}
	}
	if err := cni.Enqueue(filepath.Join(w.dir, "queue"), []byte(queued("c1"))); err != nil {
		t.Fatal(err)
	}
	w.put("two.json", queued("c2"))
	w.put(".brindle-new-123", "half a fi")
	w.put("garbage.json", "{")
	w.put("add.json", strings.Replace(queued("c3"), "DEL", "ADD", 1))
	w.put("nonsense.json", strings.Replace(queued("c3"), "k8s-pod-network", "../..", 1))
	newer := strings.Replace(queued("c3"), `{"version":1`, `{"version":9`, 1)
	w.put("newer.json", newer)
	if err := os.Symlink("/dev/zero", filepath.Join(w.dir, "queue", "link.json")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(w.dir, "queue", "pipe.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := w.start(nil).DrainQueue(t.Context())
	if err == nil || !strings.Contains(err.Error(), "newer.json") {
		t.Errorf("got %v, want the one that waits for a newer agent", err)
	}
	if s := w.state(); len(s.Endpoints) != 1 || !strings.Contains(s.Endpoints[0], "c3") {
		t.Errorf("left %+v", s)
	}
	entries, err := os.ReadDir(filepath.Join(w.dir, "queue"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{
		".brindle-new-123", "add.json.unreadable", "garbage.json.unreadable", "link.json.unreadable", "newer.json",
		"nonsense.json.unreadable", "pipe.json.unreadable",
	}
	if !slices.Equal(names, want) {
		t.Errorf("the queue holds %v, want %v", names, want)
	}
}

// TestAnAddComesAfterTheQueuedRemoval: the same container is added again
// before the agent has looked into the queue, and once more while it does.
func TestAnAddComesAfterTheQueuedRemoval(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	add := cniCall("ADD", "c1", fmt.Sprintf(dualConfig, "1.0.0", ""))
	m.CNI(t.Context(), add)
	w.put("one.json", queued("c1"))
	w.put("other.json", queued("c9"))
	m = w.start(nil)
	if resp := m.CNI(t.Context(), add); resp.Failed {
		t.Fatalf("%s", resp.Output)
	}
	if err := m.DrainQueue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := w.state(); len(s.Endpoints) != 1 || len(s.Addresses) != 2 || len(s.Wires) != 1 {
		t.Errorf("the removal came after the add: %+v", s)
	}
}

func TestTheQueueWaitsForTheAgent(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	m.CNI(t.Context(), cniCall("ADD", "c1", fmt.Sprintf(dualConfig, "1.0.0", "")))
	synctest.Test(t, func(t *testing.T) {
		w.setReady(errors.New("not registered"))
		w.put("one.json", queued("c1"))
		done := make(chan error, 1)
		go func() { done <- m.Run(t.Context()) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := w.state(); len(s.Endpoints) != 1 {
			t.Errorf("removed while not ready: %+v", s)
		}
		w.setReady(nil)
		time.Sleep(2 * queuePoll)
		synctest.Wait()
		w.wantEmpty("once ready")
		if resp := m.CNI(t.Context(), cniCall("ADD", "c2", fmt.Sprintf(dualConfig, "1.0.0", ""))); resp.Failed {
			t.Errorf("%s", resp.Output)
		}
		w.put("late.json", queued("c2")) // by a plugin that found no agent a moment ago
		time.Sleep(2 * queuePoll)
		synctest.Wait()
		w.wantEmpty("after the late one")
	})
}

// TestTheHostCollectsOnceItIsReady: the agent's own collector, with its clock.
func TestTheHostCollectsOnceItIsReady(t *testing.T) {
	var w *world
	var before state
	for at := 1; len(before.Addresses) == 0; at++ {
		w = newWorld(t)
		if _, err := w.start(&faults{at: at, crash: true}).Add(t.Context(), request("cni", "half", true, true)); err == nil {
			t.Fatal("the add did not crash")
		}
		clear(w.cables.laid) // the namespace is gone
		before = w.state()
	}
	synctest.Test(t, func(t *testing.T) {
		w.setReady(errors.New("not registered"))
		m := w.start(nil)
		go func() { _ = m.Collect(t.Context()) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if after := w.state(); len(before.Addresses) == 0 || !reflect.DeepEqual(after, before) {
			t.Errorf("while not ready it went from %+v to %+v", before, after)
		}
		w.setReady(nil)
		time.Sleep(time.Hour)
		synctest.Wait()
	})
	w.wantEmpty("an hour later")
}

func TestAnEndpointUnderAnotherInterfaceNameIsFound(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	req := request("cni", "c1", true, false)
	got := mustAdd(t, m, req)
	// As another program wrote it, on a host that had no record.
	wep := w.endpoint("default", got.Name)
	wep.Spec.InterfaceName = "caliother"
	if _, err := client.Update(t.Context(), w.client(), wep); err != nil {
		t.Fatal(err)
	}
	w.cables.laid = map[string]kernel.WireSpec{"caliother": w.cables.laid["calic1"]}
	if err := os.RemoveAll(filepath.Join(w.dir, "attachments")); err != nil {
		t.Fatal(err)
	}
	m = w.start(nil)
	if _, err := m.Check(t.Context(), refOf(req)); err != nil {
		t.Error(err)
	}
	mustRemove(t, m, refOf(req))
	w.wantEmpty("after the removal")
}

// TestNamesBeginWithThePrefix: the first interfacePrefix names what we make.
func TestNamesBeginWithThePrefix(t *testing.T) {
	for _, ref := range []agentapi.WorkloadRef{
		{Orchestrator: "cni", Network: "n", ContainerID: "c1", IfName: "eth0"},
		{Orchestrator: "cni", Network: "n", ContainerID: "c1", IfName: "net1"},
		{Orchestrator: "k8s", Network: "n", ContainerID: "c1", Namespace: "a", Pod: "b", IfName: "eth0"},
		{Orchestrator: "lab", Network: "n", ContainerID: "c1", Workload: "w", IfName: "eth0"},
	} {
		id, err := identify("n1", "tap", ref)
		if err != nil || !strings.HasPrefix(id.HostInterface, "tap") || !strings.HasPrefix(id.OtherName, "tap") {
			t.Errorf("%+v: %+v, %v", ref, id, err)
		}
	}
}
