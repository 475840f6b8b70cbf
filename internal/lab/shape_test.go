package lab

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestExamplesAreThePresets: the file that is printed for a preset is the
// preset, and says every field but those that name files or the lab.
func TestExamplesAreThePresets(t *testing.T) {
	for _, preset := range Presets {
		text := Example(preset)
		got, err := ReadTopology("example.yaml", "", []byte(text))
		if err != nil {
			t.Errorf("%s: %v\n%s", preset, err, text)
			continue
		}
		want := Default(preset)
		shape := want.shape()
		want.Name, want.Shape = "", &shape
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v %+v\nwant %+v %+v", preset, got, *got.Shape, want, shape)
		}
		got.Name = "lab"
		if err := got.Check(); err != nil {
			t.Errorf("%s: %v", preset, err)
		}
		if About(preset) == "" {
			t.Errorf("%s: nothing is said about it", preset)
		}
	}
}

// TestFieldsOfFilesAreListed holds the reference to the struct that is read.
func TestFieldsOfFilesAreListed(t *testing.T) {
	var want, got []string
	var walk func(path string, of reflect.Type)
	walk = func(path string, of reflect.Type) {
		for i := range of.NumField() {
			f := of.Field(i)
			name := path + f.Tag.Get("json")
			want = append(want, name)
			if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
				walk(name+"[].", f.Type.Elem())
			}
		}
	}
	walk("", reflect.TypeFor[file]())
	for _, f := range FileFields() {
		got = append(got, f.Path)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("listed: %v\nread:   %v", got, want)
	}
}

// TestWaysBetweenRouters: the shortest, all of them.
func TestWaysBetweenRouters(t *testing.T) {
	ring := Shape{
		Segments: []Segment{{"a", 1}, {"b", 0}, {"c", 0}, {"d", 0}, {"e", 1}},
		Routers:  []RouterShape{{"r1", 0, []string{"a", "b", "c"}}, {"r2", 0, []string{"b", "d"}}, {"r3", 0, []string{"c", "d"}}, {"r4", 0, []string{"d", "e"}}},
	}
	for _, c := range []struct {
		shape      Shape
		router, to string
		want       string
	}{
		{Default(Subnets).shape(), "r1", "s2", "[]"}, // it is on it
		{Default(Fabric).shape(), "r1", "s2", "[[r3 c1] [r3 c2]]"},
		{Default(Fabric).shape(), "r1", "c4", "[[r3 c1] [r3 c2]]"},
		{Default(Fabric).shape(), "r3", "s1", "[[r1 c1] [r1 c2]]"},
		{ring, "r1", "e", "[[r2 b] [r3 c]]"},
		{ring, "r2", "e", "[[r4 d]]"},
		{ring, "r4", "a", "[[r2 d] [r3 d]]"},
		{ring, "r2", "c", "[[r1 b] [r3 d]]"},
		{Shape{Segments: []Segment{{"a", 1}, {"b", 1}}, Routers: []RouterShape{{"r1", 0, []string{"a"}}, {"r2", 0, []string{"b"}}}}, "r1", "b", "[]"},
	} {
		for _, r := range c.shape.Routers {
			if r.Name != c.router {
				continue
			}
			if got := fmt.Sprint(c.shape.hopsTo(r, c.to)); got != c.want && !slices.Contains(r.Segments, c.to) {
				t.Errorf("%s to %s: %s, want %s", c.router, c.to, got, c.want)
			}
		}
	}
}

func TestWhatIsLaidOut(t *testing.T) {
	topo := Default(Fabric)
	topo.Name, topo.Hosts, topo.Family = "x", 3, V4
	var got []string
	for _, s := range topo.laidOut() {
		got = append(got, fmt.Sprintf("%s %v %v %v %t", s.Name, s.Subnets, s.Hosts, s.Routers, s.Cable))
	}
	want := []string{
		"s1 [172.30.1.0/24] [h1 h2] [{r1 eth0 [172.30.1.1]}] false",
		"s2 [172.30.2.0/24] [h3] [{r2 eth0 [172.30.2.1]}] false",
		"c1 [172.30.3.0/24] [] [{r1 eth1 [172.30.3.1]} {r3 eth0 [172.30.3.2]}] true",
		"c2 [172.30.4.0/24] [] [{r1 eth2 [172.30.4.1]} {r3 eth1 [172.30.4.2]}] true",
		"c3 [172.30.5.0/24] [] [{r2 eth1 [172.30.5.1]} {r3 eth2 [172.30.5.2]}] true",
		"c4 [172.30.6.0/24] [] [{r2 eth2 [172.30.6.1]} {r3 eth3 [172.30.6.2]}] true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %s", strings.Join(got, "\n"))
	}
	for address, want := range map[string]string{"172.30.1.12": "h2", "172.30.6.2": "r3", "192.0.2.1": ""} {
		if got := topo.memberAt(address); got != want {
			t.Errorf("%s is %q, want %q", address, got, want)
		}
	}
}

// TestTooManyRouters are refused at once, however many they are. Routers are of
// no family.
func TestTooManyRouters(t *testing.T) {
	text := `{"segments": [{"name": "a", "hosts": 1}`
	routers := ""
	for i := range 3000 {
		text += fmt.Sprintf(`, {"name": "c%d"}`, i)
		routers += fmt.Sprintf(`, {"name": "r%d", "segments": ["c%d"]}`, i, i)
	}
	text += `], "routers": [` + routers[2:] + "]}"
	_, err := ReadTopology("f.yaml", "", []byte(text))
	for _, want := range []string{`routers: "3000": must be at most 64`, "segments: must be at most 250"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error has no %q: %.300v", want, err)
		}
	}
}
