package config

import (
	"slices"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// everySource says healthPort in each place that can.
func everySource() Sources {
	return Sources{
		Node: "n", Labels: map[string]string{"rack": "a"},
		Objects: []*v3.FelixConfiguration{
			felix("node.n", "", 0, port(4)), felix("default", "", 0, port(1)), felix("node.other", "", 0, port(9)),
			felix("old", "rack == 'a'", 2, port(2)), felix("elsewhere", "rack == 'b'", 3, port(9)),
		},
		File:  map[string]string{"HealthPort": "5", "EtcdPassword": "hush"},
		Env:   []string{"FELIX_HEALTHPORT=6", "BRINDLE_HEALTH_PORT=7", "FELIX_ETCDPASSWORD=hush", "FELIX_NOSUCH=hush", "FELIX_WIREGUARDMTU=1400"},
		Flags: map[string]string{"healthPort": "8"},
	}
}

// Taking the strongest source away brings out the next, and what is said is
// always the whole ladder below it.
func TestPrecedenceLadder(t *testing.T) {
	ladder := []Value{
		{"healthPort", "1", "FelixConfiguration default"},
		{"healthPort", "2", "FelixConfiguration old"},
		{"healthPort", "4", "FelixConfiguration node.n"},
		{"healthPort", "5", "configuration file, HealthPort"},
		{"healthPort", "6", "environment, FELIX_HEALTHPORT"},
		{"healthPort", "7", "environment, BRINDLE_HEALTH_PORT"},
		{"healthPort", "8", "flag --healthPort"},
	}
	s := everySource()
	for n, without := range []func(){
		func() {}, func() { s.Flags = nil }, func() { s.Env = []string{"felix_HealthPort=6"} }, func() { s.Env = nil }, func() { s.File = nil },
		func() { s.Objects = s.Objects[1:] }, func() { s.Labels = nil }, func() { s.Objects = nil },
	} {
		without()
		r, err := Resolve(s)
		if err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(ladder[:len(ladder)-n])
		if len(s.Env) == 1 {
			want[len(want)-1].Source = "environment, felix_HealthPort"
		}
		if !slices.Equal(r.Said, want) {
			t.Errorf("%d sources gone: said\n%q, want\n%q", n, r.Said, want)
		}
		last := Value{"healthPort", "9099", "default"}
		if len(want) > 0 {
			last = want[len(want)-1]
		}
		if !slices.Contains(r.Values, last) {
			t.Errorf("%d sources gone: %q does not hold", n, last)
		}
	}
}

func TestRaw(t *testing.T) {
	want := []Value{
		{"healthPort", "1", "FelixConfiguration default"},
		{"healthPort", "9", "FelixConfiguration elsewhere"},
		{"nodeSelector", "rack == 'b'", "FelixConfiguration elsewhere"},
		{"healthPort", "2", "FelixConfiguration old"},
		{"nodeSelector", "rack == 'a'", "FelixConfiguration old"},
		{"healthPort", "4", "FelixConfiguration node.n"},
		{"healthPort", "9", "FelixConfiguration node.other"},
		{"healthPort", "5", "configuration file, HealthPort"},
		{"healthPort", "6", "environment, FELIX_HEALTHPORT"},
		{"healthPort", "7", "environment, BRINDLE_HEALTH_PORT"},
		{"WIREGUARDMTU", "1400", "environment, FELIX_WIREGUARDMTU"},
		{"healthPort", "8", "flag --healthPort"},
	}
	if got := Raw(everySource()); !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

func bgp(name string, spec v3.BGPConfigurationSpec) *v3.BGPConfiguration {
	return &v3.BGPConfiguration{ObjectMeta: v3.ObjectMeta{Name: name}, Spec: spec}
}

func TestResolveBGP(t *testing.T) {
	as := func(n v3.ASNumber) *v3.ASNumber { return &n }
	all := []*v3.BGPConfiguration{
		bgp("node.n", v3.BGPConfigurationSpec{ListenPort: ptr(uint16(1179)), ASNumber: as(65003), BindMode: "None"}),
		bgp("default", v3.BGPConfigurationSpec{ListenPort: ptr(uint16(2179)), ASNumber: as(65001), BindMode: "NodeIP", NodeToNodeMeshEnabled: ptr(false)}),
		bgp("node.other", v3.BGPConfigurationSpec{ListenPort: ptr(uint16(9))}),
	}
	tests := []struct {
		name    string
		in      BGPSources
		want    []Value
		ignored int
	}{
		{"nothing", BGPSources{Node: "n"}, []Value{
			{"asNumber", "64512", "default"}, {"bindMode", "None", "default"},
			{"listenPort", "179", "default"}, {"nodeToNodeMeshEnabled", "true", "default"}}, 0},
		{"the cluster's", BGPSources{Node: "n", Objects: all[1:]}, []Value{
			{"asNumber", "65001", "BGPConfiguration default"}, {"bindMode", "NodeIP", "BGPConfiguration default"},
			{"listenPort", "2179", "BGPConfiguration default"}, {"nodeToNodeMeshEnabled", "false", "BGPConfiguration default"}}, 0},
		{"the node's", BGPSources{Node: "n", Objects: all, AS: as(65002)}, []Value{
			{"asNumber", "65002", "Node n"}, {"bindMode", "NodeIP", "BGPConfiguration default"},
			{"listenPort", "1179", "BGPConfiguration node.n"}, {"nodeToNodeMeshEnabled", "false", "BGPConfiguration default"}}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := ResolveBGP(tt.in)
			got := slices.DeleteFunc(slices.Clone(r.Values), func(v Value) bool {
				return !slices.ContainsFunc(tt.want, func(w Value) bool { return w.Name == v.Name })
			})
			if !slices.Equal(got, tt.want) || len(r.Ignored) != tt.ignored || len(r.Values) != 19 {
				t.Errorf("got %q, ignored %q, %d in all", got, r.Ignored, len(r.Values))
			}
		})
	}
	if got := RawBGP(all); len(got) != 8 || got[0].Source != "BGPConfiguration default" {
		t.Errorf("raw: %q", got)
	}
}
