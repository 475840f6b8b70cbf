package client_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/embedded"
	"github.com/brindle-net/brindle/internal/store/etcd"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// eachDriver runs a test on the stand-in and on a real etcd.
func eachDriver(t *testing.T, test func(*testing.T, store.Driver)) {
	t.Run("mem", func(t *testing.T) { test(t, mem.New()) })
	t.Run("etcd", func(t *testing.T) { test(t, startEtcd(t)) })
}

func startEtcd(t *testing.T) store.Driver {
	t.Helper()
	dir, err := os.MkdirTemp("", "be") // short, as the path of a socket must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := embedded.Start(t.Context(), embedded.Config{Dir: filepath.Join(dir, "d"), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	d, err := etcd.New(etcd.Config{Endpoints: []string{s.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// recording returns what Calico's own programs wrote to etcd.
func recording(t *testing.T) map[string]json.RawMessage {
	t.Helper()
	data, err := os.ReadFile("testdata/etcd.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func load(t *testing.T, d store.Driver, all map[string]json.RawMessage) {
	t.Helper()
	for key, value := range all {
		if _, err := d.Create(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
}

// stored returns every key with its value, parsed.
func stored(t *testing.T, d store.Driver) map[string]any {
	t.Helper()
	list, err := d.List(t.Context(), "/calico/")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	for _, kv := range list.KVs {
		out[kv.Key] = parsed(t, kv.Value)
	}
	return out
}

func parsed(t *testing.T, value []byte) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(value)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// listAll returns every object that the typed client finds.
func listAll(t *testing.T, c *client.Client) []v3.Object {
	t.Helper()
	var out []v3.Object
	for _, kind := range v3.Kinds() {
		list, err := c.List(t.Context(), kind, "")
		if errors.Is(err, client.ErrReadOnly) {
			continue // a kind with a form of its own in etcd
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, list.Objects...)
	}
	return out
}

func kind(t *testing.T, name string) v3.KindInfo {
	t.Helper()
	k, ok := v3.LookupKind(name)
	if !ok {
		t.Fatalf("no kind %s", name)
	}
	return k
}

// TestNothingOfCalicosDataIsLost reads a datastore that Calico's programs
// wrote, changes every object and changes it back.
func TestNothingOfCalicosDataIsLost(t *testing.T) {
	eachDriver(t, func(t *testing.T, d store.Driver) {
		load(t, d, recording(t))
		before := stored(t, d)
		c := client.New(d, client.Config{Component: true})
		seen := map[string]bool{}
		for _, o := range listAll(t, c) {
			k, m := kind(t, o.Type().Kind), o.Meta()
			key := store.ResourceID{Plural: k.Plural, Namespace: m.Namespace, Name: m.Name}.Key()
			if _, ok := before[key]; !ok {
				if m.Name != v3.ProfileDefaultAllow {
					t.Errorf("%s %s comes from nowhere", k.Kind, m.Name)
				}
				continue
			}
			seen[key] = true
			same, err := c.Modify(t.Context(), k, m.Namespace, m.Name, func(v3.Object) error { return nil })
			if err != nil || same.Meta().ResourceVersion != m.ResourceVersion {
				t.Errorf("%s: a change of nothing wrote: %v", key, err)
			}
			for _, edit := range []func(v3.Object) error{addLabel, removeLabel} {
				if _, err := c.Modify(t.Context(), k, m.Namespace, m.Name, edit); err != nil {
					t.Errorf("%s: %v", key, err)
				}
			}
		}
		for key := range before {
			if strings.HasPrefix(key, store.ResourceRoot) && !seen[key] {
				t.Errorf("%s is not found by the typed client", key)
			}
		}
		if diff := cmp.Diff(before, stored(t, d)); diff != "" {
			t.Errorf("changed there and back (-before +after):\n%s", diff)
		}
	})
}

func addLabel(o v3.Object) error {
	if o.Meta().Labels == nil {
		o.Meta().Labels = map[string]string{}
	}
	o.Meta().Labels["touched"] = "yes"
	return nil
}

func removeLabel(o v3.Object) error {
	delete(o.Meta().Labels, "touched")
	return nil
}

// TestApplyWritesWhatCalicoWrites applies the file from which the recording
// was made. What the recording has beyond it was made by other commands.
func TestApplyWritesWhatCalicoWrites(t *testing.T) {
	eachDriver(t, func(t *testing.T, d store.Driver) {
		c := client.New(d, client.Config{})
		if _, err := c.Bootstrap(t.Context(), client.BootstrapConfig{}); err != nil {
			t.Fatal(err)
		}
		apply := func(want client.Outcome) {
			for _, o := range input(t) {
				_, did, err := c.Apply(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				if did != want {
					t.Errorf("%s %s: outcome %d, want %d", o.Type().Kind, o.Meta().Name, did, want)
				}
			}
		}
		apply(client.Created)
		want := map[string]any{}
		for key, value := range recording(t) {
			if strings.HasPrefix(key, store.IPAMRoot) || strings.Contains(key, "-cni-cid--") || strings.HasSuffix(key, "/k8s-pod-network") {
				continue // made by CNI ADD
			}
			want[key] = comparable(t, key, value)
		}
		// Made by a command that set a label.
		delete(want["/calico/resources/v3/projectcalico.org/nodes/n1"].(map[string]any)["metadata"].(map[string]any)["labels"].(map[string]any), "zone")
		check := func() {
			t.Helper()
			list, err := d.List(t.Context(), "/calico/")
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]any{}
			for _, kv := range list.KVs {
				got[kv.Key] = comparable(t, kv.Key, kv.Value)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("datastore (-Calico's +ours):\n%s", diff)
			}
		}
		check()
		apply(client.Unchanged)
		check()
	})
}

// comparable parses a value and checks and removes what differs with each run.
func comparable(t *testing.T, key string, value []byte) any {
	t.Helper()
	v := parsed(t, value)
	m := v.(map[string]any)["metadata"].(map[string]any)
	for _, field := range []string{"uid", "creationTimestamp"} {
		if s, _ := m[field].(string); s == "" {
			t.Errorf("%s has no %s", key, field)
		}
		delete(m, field)
	}
	if _, ok := m["resourceVersion"]; ok {
		t.Errorf("%s stores its resourceVersion", key)
	}
	if spec, ok := v.(map[string]any)["spec"].(map[string]any); ok && spec["clusterGUID"] != nil {
		if guid := spec["clusterGUID"].(string); len(guid) != 32 || strings.Trim(guid, "0123456789abcdef") != "" {
			t.Errorf("clusterGUID %q is not 32 hexadecimal digits", guid)
		}
		delete(spec, "clusterGUID")
	}
	return v
}

// input reads the objects of the file.
func input(t *testing.T) []v3.Object {
	t.Helper()
	data, err := os.ReadFile("testdata/input.yaml")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := v3.DecodeAll("input.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	var out []v3.Object
	for _, d := range docs {
		out = append(out, d.Object)
	}
	return out
}
