package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// contents are what a datastore has, as trees, without what it gave itself.
func (w *world) contents() map[string]string {
	w.t.Helper()
	out := map[string]string{}
	for _, root := range []string{store.ResourceRoot, store.IPAMRoot} {
		list, err := w.db.List(w.t.Context(), root)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, kv := range list.KVs {
			tree, err := plain(kv.Value)
			if err != nil {
				w.t.Fatalf("%s: %v", kv.Key, err)
			}
			text, err := json.Marshal(tree)
			if err != nil {
				w.t.Fatal(err)
			}
			out[kv.Key] = string(text)
		}
	}
	return out
}

// same reports keys by which two datastores differ.
func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] {
			t.Errorf("%s:\n%s\nwant:\n%s", key, got[key], want[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok {
			t.Errorf("%s is too much: %s", key, got[key])
		}
	}
}

// exported is the recorded datastore, locked, and its export.
func exported(t *testing.T) (w *world, text string) {
	t.Helper()
	w = newWorld(t)
	w.loadRecording()
	w.ok(line("ipam configure --strictaffinity true --max-blocks-per-host 4")...)
	w.fails("not locked", line("datastore migrate export")...)
	w.ok(line("datastore migrate lock")...)
	return w, w.ok(line("datastore migrate export")...)
}

// What Calico's programs stored comes out of another datastore as it was. The
// recording has both families.
func TestTransferOfTheRecording(t *testing.T) {
	from, text := exported(t)
	for name, prepare := range map[string]func(*world){
		"empty": func(*world) {},
		"a server's": func(w *world) { // with what every network has
			w.stdin = "# nothing\n"
			w.ok(line("create --skip-empty -f -")...)
		},
		"one key at a time": func(w *world) { w.db = struct{ store.Driver }{w.db} },
		"broken off": func(w *world) {
			i := &importer{e: w.environment(t.Output(), t.Output()), db: w.db, values: map[string][]byte{}}
			if err := i.readFile(t.Context(), w.file("x", text)); err != nil {
				t.Fatal(err)
			}
			writes, err := i.missing(t.Context())
			if err := errors.Join(err, i.lock(t.Context()), i.write(t.Context(), writes[:20])); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			prepare(w)
			w.stdin = text
			if got := w.ok(line("datastore migrate import -f -")...); !strings.HasPrefix(got, "Imported ") || !strings.Contains(got, "7 records of addresses") {
				t.Errorf("%s", got)
			}
			same(t, w.contents(), from.contents())
			if again := w.ok(line("datastore migrate export")...); again != text {
				t.Errorf("another export differs:\n%s", again)
			}
			// And it is of use.
			w.ok(line("datastore migrate unlock")...)
			if got := w.ok(line("ipam check")...); !strings.Contains(got, "Check complete; found ") {
				t.Errorf("%s", got)
			}
			if got := w.ok(line("get wep -A -o name")...); strings.Count(got, "\n") != 3 {
				t.Errorf("%s", got)
			}
		})
	}
}

// The form is calicoctl's.
func TestFormOfAnExport(t *testing.T) {
	_, text := exported(t)
	parts, err := transferParts("x", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for l := range strings.Lines(string(parts[0])) {
		if kind, ok := strings.CutPrefix(l, "kind: "); ok {
			kinds = append(kinds, strings.TrimSuffix(strings.TrimSpace(kind), "List"))
		}
	}
	if got, want := strings.Join(kinds, " "), "IPPool BGPPeer Tier GlobalNetworkPolicy StagedGlobalNetworkPolicy GlobalNetworkSet HostEndpoint KubeControllersConfiguration NetworkPolicy StagedNetworkPolicy NetworkSet Node BGPConfiguration FelixConfiguration IPReservation BGPFilter Profile WorkloadEndpoint CalicoNodeStatus"; got != want {
		t.Errorf("kinds %s, want %s", got, want)
	}
	var info struct {
		Kind string
		Spec struct{ DatastoreReady *bool }
	}
	if err := json.Unmarshal(parts[1], &info); err != nil || info.Kind != "ClusterInformation" || info.Spec.DatastoreReady == nil || *info.Spec.DatastoreReady {
		t.Errorf("second part: %v, %s", err, parts[1])
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(parts[2], &all); err != nil || strings.Join(slices.Sorted(maps.Keys(all)), " ") != "block_affinities blocks config handles" {
		t.Errorf("third part: %v, %v", err, slices.Sorted(maps.Keys(all)))
	}
	if strings.Contains(text, "uid:") || strings.Contains(text, "creationTimestamp") {
		t.Error("what the datastore gave its objects is in it")
	}
}

// For Kubernetes hosts get the names that they have there, everywhere.
func TestExportForKubernetes(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	w.ok(line("datastore migrate lock")...)
	w.fails("what they are called in Kubernetes (spec.orchRefs with orchestrator k8s): n1, n2", line("datastore migrate export --kubernetes")...)
	for _, name := range []string{"n1", "n2"} {
		w.ok("patch", "node", name, "-p", `{"spec":{"orchRefs":[{"nodeName":"`+name+`.example","orchestrator":"k8s"}]}}`)
	}
	w.stdin = `
{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: node.n1}, spec: {healthPort: 9199}}
---
{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: of-n2}, spec: {node: n2, peerIP: 192.0.2.9, asNumber: 65000}}
`
	w.ok(line("apply -f -")...)
	block := `{"cidr":"192.168.7.0/30","affinity":"host:n2","allocations":[0,null,null,null],"unallocated":[1,2,3],"attributes":[{"handle_id":"vxlan-tunnel-addr-n2","secondary":{"node":"n2","type":"vxlanTunnelAddress"},"alternate":{"node":"n1"}}],"sequenceNumber":18446744073709551615,"sequenceNumberForAllocation":{"0":7},"deleted":false}`
	for key, value := range map[string]string{
		store.BlockRoot + "ipv4/block/192.168.7.0-30": block, store.HandleKey("vxlan-tunnel-addr-n2"): `{"block":{"192.168.7.0/30":1},"deleted":false}`,
		store.HostRoot + "n2/ipv4/block/192.168.7.0-30": `{"state":"confirmed","deleted":false}`,
	} {
		if _, err := w.db.Create(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	text := w.ok(line("datastore migrate export --kubernetes")...)
	for _, want := range []string{
		"name: n1.example", "name: node.n1.example", "node: n2.example", `"affinity": "host:n1.example"`, `"affinity": "host:n2.example"`, `"handle_id": "vxlan-tunnel-addr-n2.example"`,
		store.HandleKey("vxlan-tunnel-addr-n2.example"), store.HostRoot + "n2.example/ipv4/block/192.168.7.0-30", `"node": "n1.example"`, `"sequenceNumber": 18446744073709551615`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	for _, no := range []string{"WorkloadEndpoint", "ProfileList", "CalicoNodeStatus", "name: n1\n", "node: n1\n", "node: n2\n", `"node": "n1"`, `"host:n1"`, `"host:n2"`, "addr-n2\"", "/n1/", "/n2/"} {
		if strings.Contains(text, no) {
			t.Errorf("there is %q", no)
		}
	}
	// It is a whole export all the same.
	other := newWorld(t)
	other.stdin = text
	other.ok(line("datastore migrate import -f -")...)
}

// What is wrong is told before anything is written.
func TestImportsThatAreRefused(t *testing.T) {
	_, text := exported(t)
	for _, c := range []struct {
		name, in, want string
		there          string // already
	}{
		{"no export", "kind: Node\n", "is no export of a datastore", ""},
		{"too much", text + "===\n", "3 lines", ""},
		{"a field", strings.Replace(text, "natOutgoing:", "natOutgoin:", 1), "spec.natOutgoin: unknown field", ""},
		{"a value", strings.Replace(text, "cidr: 192.168.0.0/16", "cidr: 192.168.0.0/99", 1), "192.168.0.0/99", ""},
		{"no information", strings.Replace(text, `"kind": "ClusterInformation"`, `"kind": "Tier"`, 1), "spec.clusterGUID: unknown field", ""},
		{"IPAM", strings.Replace(text, `"blocks":`, `"blocs":`, 1), "third part", ""},
		{"a block elsewhere", strings.Replace(text, "block/192.168.40.128-26\",\n      \"Value\": {\n        \"affinity\"", "block/192.168.40.64-26\",\n      \"Value\": {\n        \"affinity\"", 1), "is of block 192.168.40.128/26", ""},
		{"a key", strings.Replace(text, store.HandleRoot, "/other/", 1), "is no key of IPAM", ""},
		{"twice", strings.Replace(text, "/handle/k8s-pod-network.cid-0002", "/handle/k8s-pod-network.cid-0001", 1), "is given twice", ""},
		{"not empty", text, "not empty: it has 1 key that the export has not, or not so: ippools/mine", store.ResourceRoot + "ippools/mine"},
		{"another", text, "ippools/pool-v6", store.ResourceRoot + "ippools/pool-v6"},
		{"addresses", text, "not empty", store.HandleKey("x")},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			want := map[string]string{}
			if c.there != "" {
				want[c.there] = `{"a":1}`
				if _, err := w.db.Create(t.Context(), c.there, []byte(want[c.there])); err != nil {
					t.Fatal(err)
				}
			}
			w.stdin = c.in
			w.fails(c.want, line("datastore migrate import -f -")...)
			same(t, w.contents(), want)
		})
	}
	w := newWorld(t)
	w.fails("no file given", line("datastore migrate import")...)
	w.fails("no such file", line("datastore migrate import -f /nonexistent/x")...)
}

// failing is a datastore that lets so many writes through, and then some
// deletions.
type failing struct {
	store.Driver
	writes, deletes int
	late            bool // the first write that fails is made all the same
}

func (f *failing) Create(ctx context.Context, key string, value []byte) (store.Revision, error) {
	if f.writes--; f.writes < 0 {
		if f.late && f.writes == -1 {
			if _, err := f.Driver.Create(ctx, key, value); err != nil {
				return "", err
			}
		}
		return "", errBroken
	}
	return f.Driver.Create(ctx, key, value)
}

func (f *failing) Delete(ctx context.Context, key string, rev store.Revision) error {
	if f.deletes--; f.deletes < 0 {
		return errBroken
	}
	return f.Driver.Delete(ctx, key, rev)
}

// An import that fails leaves nothing, or can be done again.
func TestImportsThatFail(t *testing.T) {
	from, text := exported(t)
	for _, c := range []struct {
		writes, deletes, left int
		late                  bool
	}{{0, 99, 0, false}, {1, 99, 0, false}, {17, 99, 0, false}, {17, 7, 10, false}, {0, 99, 0, true}, {1, 99, 0, true}, {17, 99, 0, true}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			w := newWorld(t)
			below := mem.New()
			w.db = &failing{below, c.writes, c.deletes, c.late}
			w.stdin = text
			got := w.run(line("datastore migrate import -f -")...)
			if got.status != 1 || got.stdout != "" || !strings.Contains(got.stderr, errBroken.Error()) || strings.Contains(got.stderr, "10 keys left in the locked datastore") != (c.left > 0) {
				t.Errorf("%+v", got)
			}
			if n := len(w.contents()); n != c.left {
				t.Errorf("%d keys are there, want %d", n, c.left)
			}
			w.db = below
			w.ok(line("datastore migrate import -f -")...)
			same(t, w.contents(), from.contents())
		})
	}
}

// Hosts that nobody knows are named.
func TestImportNamesUnknownHosts(t *testing.T) {
	_, text := exported(t)
	w := newWorld(t)
	w.stdin = strings.ReplaceAll(text, "interfaceName: eth0\n    node: n1", "interfaceName: eth0\n    node: gone")
	got := w.run(line("datastore migrate import -f -")...)
	if got.status != 0 || got.stderr != "warning: no Node is in the export of hosts that something in it is of: gone\n" {
		t.Errorf("%+v", got)
	}
}
