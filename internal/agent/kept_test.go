package agent

import (
	"os"
	"reflect"
	"testing"

	"github.com/brindle-net/brindle/internal/model"
)

// TestBGPIsKept: what was read last of each BGPConfiguration is known at the
// next start, until it is deleted, and the file is written when that changes.
func TestBGPIsKept(t *testing.T) {
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
		{"nothing of BGP", []model.Event{{ID: model.ID{Kind: model.KindPool, Name: "p"}}}, false, known{}, false},
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
		before, _ := os.Stat(dir + bgpFile)
		if err := keepBGP(dir, s.in, s.first); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		after, _ := os.Stat(dir + bgpFile)
		if got, err := recallBGP(dir, ""); err != nil || !reflect.DeepEqual(got, s.want) {
			t.Errorf("%s: %+v, %v", s.name, got, err)
		}
		if same := before == nil && after == nil || before != nil && after != nil && os.SameFile(before, after); same == s.writes {
			t.Errorf("%s: written: %v", s.name, !same)
		}
	}
	if err := os.WriteFile(dir+bgpFile, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := recallBGP(dir, ""); err == nil || len(got) != 0 {
		t.Errorf("broken: %+v, %v", got, err)
	}
	if err := keepBGP(dir, []model.Event{{ID: id("default"), Value: other}}, false); err != nil {
		t.Fatal(err)
	}
	if got, err := recallBGP(dir, ""); err != nil || !reflect.DeepEqual(got, known{id("default"): other}) {
		t.Errorf("mended: %+v, %v", got, err)
	}
}

// TestBGPOfAnotherCluster: a host that has moved does not take what it knew of
// the cluster before.
func TestBGPOfAnotherCluster(t *testing.T) {
	dir := t.TempDir()
	id := model.ID{Kind: model.KindBGPConfig, Name: "default"}
	events := []model.Event{
		{ID: id, Value: &model.BGPConfig{Name: "default", AS: 64777}},
		{ID: model.ID{Kind: model.KindClusterInfo, Name: "default"}, Value: &model.ClusterInfo{GUID: "one"}},
	}
	if err := keepBGP(dir, events, true); err != nil {
		t.Fatal(err)
	}
	for cluster, want := range map[string]int{"one": 1, "two": 0, "": 1} {
		if got, err := recallBGP(dir, cluster); err != nil || len(got) != want {
			t.Errorf("of %q: %+v, %v", cluster, got, err)
		}
	}
}
