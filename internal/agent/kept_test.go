package agent

import (
	"net/netip"
	"os"
	"reflect"
	"testing"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

const objectsFile = "/objects.json"

func recallObjects(dir, cluster string) (map[model.ID]model.Value, error) {
	is, err := objectKeeper().recall(dir, cluster)
	return is.by(), err
}

// TestAllOfAnObjectIsKept: every field of them comes back from the file.
func TestAllOfAnObjectIsKept(t *testing.T) {
	racks, err := selector.Parse("rack == 'a' && !has(spare)")
	if err != nil {
		t.Fatal(err)
	}
	on := true
	peer := &model.BGPPeer{
		Name: "p", Node: "h1", Nodes: &racks, Addr: netip.MustParseAddr("2001:db8::1"), Port: 1, Peers: &racks, Workloads: &selector.Selector{},
		AS: 2, LocalAS: 3, AllowLocalAS: 4, TTLSecurity: 5, Filters: []string{"f"}, ReverseManual: true,
		Options: model.PeerOptions{Password: "s/k", NoSource: true, Restart: 6, Keepalive: 7, NextHopMode: "Self", KeepNextHop: true,
			ReachableBy: netip.MustParseAddr("192.0.2.1")},
	}
	pool := &model.Pool{Name: "p", CIDR: netip.MustParsePrefix("10.65.0.0/16"), BlockSize: 26, Encap: model.VXLAN, CrossSubnet: true,
		NATOutgoing: true, Disabled: true, DisableBGPExport: true, LoadBalancerOnly: true}
	config := &model.BGPConfig{Name: "default", Mesh: &on, AS: 1, ListenPort: 2, BindNodeIP: true, MeshRestart: 3, MeshPassword: "s/k",
		Advertisements: []model.Advertisement{{CIDR: pool.CIDR, Communities: []string{"1:2"}}}, Services: true, IPIPRoutes: true, NoPlainRoutes: true}
	dir, want := t.TempDir(), map[model.ID]model.Value{}
	var events []model.Event
	for kind, v := range map[model.Kind]model.Value{model.KindBGPPeer: peer, model.KindPool: pool, model.KindBGPConfig: config} {
		id := model.ID{Kind: kind, Name: reflect.ValueOf(v).Elem().FieldByName("Name").String()}
		for _, of := range []reflect.Value{reflect.ValueOf(v).Elem(), reflect.ValueOf(peer.Options)} {
			for i := range of.NumField() {
				if name := of.Type().Field(i).Name; of.Field(i).IsZero() && name != "Broken" {
					t.Errorf("%s: %s is not tried", id, name)
				}
			}
		}
		want[id] = v
		events = append(events, model.Event{ID: id, Value: v})
	}
	if err := keepObjects(dir, events, true); err != nil {
		t.Fatal(err)
	}
	if got, err := recallObjects(dir, ""); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestObjectsAreKept: what was read last of each pool, BGPConfiguration and BGPPeer
// is known at the next start, until it is deleted, and the file is written when
// that changes.
func TestObjectsAreKept(t *testing.T) {
	dir := t.TempDir() + "/state"
	id := func(name string) model.ID { return model.ID{Kind: model.KindBGPConfig, Name: name} }
	off := false
	first := &model.BGPConfig{Name: "default", AS: 64777, Mesh: &off}
	second := &model.BGPConfig{Name: "node.h1", ListenPort: 1179}
	third := &model.BGPConfig{Name: "node.h2", ListenPort: 1180}
	cluster := func(guid string) model.Event {
		return model.Event{ID: model.ID{Kind: model.KindClusterInfo, Name: "default"}, Value: &model.ClusterInfo{GUID: guid}}
	}
	other := &model.BGPConfig{Name: "default", AS: 64778}
	type known = map[model.ID]model.Value
	for _, s := range []struct {
		name   string
		in     []model.Event
		first  bool // all that there is
		want   known
		writes bool
	}{
		{"nothing of these", []model.Event{{ID: model.ID{Kind: model.KindTier, Name: "p"}}}, false, known{}, false},
		{"two", []model.Event{{ID: id("default"), Value: first}, {ID: id("node.h1"), Value: second}}, false, known{id("default"): first, id("node.h1"): second}, true},
		{"the same", []model.Event{{ID: id("default"), Value: first}}, false, known{id("default"): first, id("node.h1"): second}, false},
		{"cannot be read", []model.Event{{ID: id("default"), Value: &model.Invalid{Message: "m"}}}, false, known{id("default"): first, id("node.h1"): second}, false},
		{"is what it was", []model.Event{{ID: id("default"), Value: &model.BGPConfig{Name: "default", Broken: "m"}}}, false, known{id("default"): first, id("node.h1"): second}, false},
		{"deleted", []model.Event{{ID: id("node.h1")}}, false, known{id("default"): first}, true},
		{"another", []model.Event{{ID: id("default"), Value: other}}, false, known{id("default"): other}, true},
		{"all, at a start", []model.Event{{ID: id("default"), Value: &model.Invalid{Message: "m"}}, {ID: id("node.h2"), Value: third}}, true, known{id("default"): other, id("node.h2"): third}, true},
		{"deleted before a start", []model.Event{{ID: id("default"), Value: &model.Invalid{Message: "m"}}}, true, known{id("default"): other}, true},
		{"whose they are", []model.Event{cluster("one")}, false, known{id("default"): other}, true},
		{"the cluster says so again", []model.Event{cluster("one")}, false, known{id("default"): other}, false},
		{"another cluster", []model.Event{{ID: id("default"), Value: &model.BGPConfig{Name: "default", Broken: "m"}}, cluster("two")}, true, known{}, true},
	} {
		before, _ := os.Stat(dir + objectsFile)
		if err := keepObjects(dir, s.in, s.first); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		after, _ := os.Stat(dir + objectsFile)
		if got, err := recallObjects(dir, ""); err != nil || !reflect.DeepEqual(got, s.want) {
			t.Errorf("%s: %+v, %v", s.name, got, err)
		}
		if same := before == nil && after == nil || before != nil && after != nil && os.SameFile(before, after); same == s.writes {
			t.Errorf("%s: written: %v", s.name, !same)
		}
	}
	if err := os.WriteFile(dir+objectsFile, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := recallObjects(dir, ""); err == nil || len(got) != 0 {
		t.Errorf("broken: %+v, %v", got, err)
	}
	if err := keepObjects(dir, []model.Event{{ID: id("default"), Value: other}}, false); err != nil {
		t.Fatal(err)
	}
	if got, err := recallObjects(dir, ""); err != nil || !reflect.DeepEqual(got, known{id("default"): other}) {
		t.Errorf("mended: %+v, %v", got, err)
	}
}

// TestObjectsOfAnotherCluster: a host that has moved does not take what it knew of
// the cluster before.
func TestObjectsOfAnotherCluster(t *testing.T) {
	dir := t.TempDir()
	id := model.ID{Kind: model.KindBGPConfig, Name: "default"}
	events := []model.Event{
		{ID: id, Value: &model.BGPConfig{Name: "default", AS: 64777}},
		{ID: model.ID{Kind: model.KindClusterInfo, Name: "default"}, Value: &model.ClusterInfo{GUID: "one"}},
	}
	if err := keepObjects(dir, events, true); err != nil {
		t.Fatal(err)
	}
	for cluster, want := range map[string]int{"one": 1, "two": 0, "": 1} {
		if got, err := recallObjects(dir, cluster); err != nil || len(got) != want {
			t.Errorf("of %q: %+v, %v", cluster, got, err)
		}
	}
}
