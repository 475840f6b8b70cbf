package lab

import (
	"strings"
	"testing"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
)

func TestReadTopology(t *testing.T) {
	for _, c := range []struct {
		name, preset, in string
		want             Topology
		problem          string
	}{
		{"nothing said", "", `{}`, Default(""), ""},
		{"a preset of the file", "", `{"preset": "subnets"}`, Default(Subnets), ""},
		{"one that was given wins", "flat", `{"preset": "subnets"}`, Default(Flat), ""},
		{"what is said wins over the preset", "", `{"preset": "subnets", "hosts": 6, "vxlan": "Always", "name": "six"}`, func() Topology {
			t := Default(Subnets)
			t.Hosts, t.VXLAN, t.Name = 6, "Always", "six"
			return t
		}(), ""},
		{"no such field", "", "hots: 2", Topology{}, `f.yaml: hots: unknown field (did you mean "hosts"?)`},
		{"no YAML", "", `{`, Topology{}, "f.yaml: bad YAML"},
		{"twice", "", "hosts: 2\nhosts: 3", Topology{}, "f.yaml: hosts:"},
		{"a list", "", "- hosts: 2", Topology{}, "must be an object"},
		{"no such preset", "", "preset: farbic", Topology{}, `f.yaml: preset: "farbic": must be one of flat, subnets, fabric, reflectors (did you mean fabric?)`},
		{"a wrong type", "", "hosts: many", Topology{}, `f.yaml: hosts: "many": must be`},
		{"too many", "", "hosts: 201", Topology{}, `f.yaml: hosts: "201": must be 1 to 200`},
		{"a wrong mode", "", "vxlan: CrossSubnets", Topology{}, `(did you mean CrossSubnet?)`},
		{"a wrong time", "", "holdTime: 1500ms", Topology{}, `f.yaml: holdTime: "1500ms": must be whole seconds`},
		{"routers without segments", "fabric", "routers: [{name: r1, segments: [s1]}]", Topology{}, "f.yaml: segments: must be given with routers"},
		{"no host", "", "segments: [{name: s1}]", Topology{}, "f.yaml: segments: must have a host"},
		{"a number that is another", "", "hosts: 3\nsegments: [{name: s1, hosts: 2}]", Topology{}, `f.yaml: hosts: "3": must be 2, as the segments have`},
		{"a name of a host", "", "segments: [{name: h1, hosts: 2}]", Topology{}, `f.yaml: segments[0].name: "h1": is the name of a host`},
		{"a name twice", "", "segments: [{name: a, hosts: 2}]\nrouters: [{name: a, segments: [a]}]", Topology{}, `f.yaml: routers[0].name: "a": is given twice`},
		{"no such segment", "", "segments: [{name: left, hosts: 2}]\nrouters: [{name: r, segments: [lefd]}]", Topology{}, `f.yaml: routers[0].segments[0]: "lefd": must be one of left (did you mean left?)`},
		{"no such reflector", "", "segments: [{name: a, hosts: 2}]\nreflectors: [h3]", Topology{}, `f.yaml: reflectors[0]: "h3": must be one of h1, h2`},
		{"an AS too large", "", "segments: [{name: a, hosts: 2}]\nrouters: [{name: r, asNumber: 4294967296, segments: [a]}]", Topology{}, "f.yaml: routers[0].asNumber"},
		{"a field of a router", "", "segments: [{name: a, hosts: 2}]\nrouters: [{name: r, asnumber: 1, segments: [a]}]", Topology{}, `f.yaml: routers[0].asnumber: unknown field (did you mean "asNumber"?)`},
	} {
		got, err := ReadTopology("f.yaml", c.preset, []byte(c.in))
		if c.problem != "" {
			if err == nil || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if c.want.Name == "lab" {
			c.want.Name = ""
		}
		if err != nil || !same(got, c.want) {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
}

func same(a, b Topology) bool {
	return a.Name == b.Name && a.Preset == b.Preset && a.Hosts == b.Hosts && a.Workloads == b.Workloads && a.IPIP == b.IPIP && a.VXLAN == b.VXLAN
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		change func(*Topology)
		want   string // empty: nothing is wrong
	}{
		{func(*Topology) {}, ""},
		{func(t *Topology) { *t = Default(Subnets) }, ""},
		{func(t *Topology) { t.Preset = "ring" }, `preset "ring": must be one of ["flat" "subnets" "fabric" "reflectors"]`},
		{func(t *Topology) { t.Hosts = 0 }, "--hosts 0: a lab of the preset flat has 1 to 200"},
		{func(t *Topology) { *t = Default(Subnets); t.Hosts = 1 }, "--hosts 1: a lab of the preset subnets has 2 to 200"},
		{func(t *Topology) { *t = Default(Fabric); t.Hosts = 1 }, "--hosts 1: a lab of the preset fabric has 2 to 200"},
		{func(t *Topology) { *t = Default(Reflectors); t.Hosts = 2 }, "--hosts 2: a lab of the preset reflectors has 3 to 200"},
		{func(t *Topology) { t.Shape = &Shape{Segments: []Segment{{"a", 2}}} }, "--hosts 3: the segments of the file have 2"},
		{func(t *Topology) { t.Workloads = -1 }, "--workloads -1"},
		{func(t *Topology) { t.Family = "v5" }, `--family "v5"`},
		{func(t *Topology) { t.HoldTime = time.Second }, "--hold-time 1s"},
		{func(t *Topology) { t.VXLAN = "always" }, `--vxlan "always": must be Never, Always or CrossSubnet`},
		{func(t *Topology) { t.IPIP = "" }, `--ipip ""`},
		{func(t *Topology) { t.IPIP, t.Family = "Always", V6 }, "IP in IP carries IPv4 only"},
		{func(t *Topology) { t.Name = "-" }, "lab name"},
	} {
		topo := Default("")
		c.change(&topo)
		err := topo.Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", topo, err, c.want)
		}
	}
}

func TestSubnetsAreDealtEvenly(t *testing.T) {
	for _, c := range []struct {
		preset string
		hosts  int
		want   string // the segment of each
	}{
		{Flat, 3, "000"}, {Subnets, 2, "12"}, {Subnets, 3, "112"}, {Subnets, 4, "1122"}, {Subnets, 5, "11122"}, {Subnets, 7, "1111222"},
	} {
		topo, got := Default(c.preset), ""
		topo.Hosts = c.hosts
		for i := 1; i <= c.hosts; i++ {
			got += string(rune('0' + topo.segmentOf(i)))
		}
		if got != c.want {
			t.Errorf("%s, %d hosts: %s, want %s", c.preset, c.hosts, got, c.want)
		}
	}
	topo := Default(Subnets)
	if got := topo.hostAddresses(3); len(got) != 2 || got[0].String() != "172.30.2.13/24" || got[1].String() != "fd00:172:30:2::d/64" {
		t.Errorf("addresses of h3: %v", got)
	}
	if got := Default("").hostAddresses(1); got[0].String() != "172.30.0.11/24" || got[1].String() != "fd00:172:30::b/64" {
		t.Errorf("addresses of h1: %v", got)
	}
	r := topo.routers()
	if len(r) != 1 || strings.Join(r[0].Addresses, " ") != "172.30.1.1 fd00:172:30:1::1 172.30.2.1 fd00:172:30:2::1" || len(Default("").routers()) != 0 {
		t.Errorf("routers: %+v", r)
	}
}

func TestModes(t *testing.T) {
	for _, c := range []struct {
		ipip, vxlan string
		v4, v6      string // of the pools: ipip/vxlan
		near, far   bool   // whether IPv4 to a host of the same subnet, and of the other, is wrapped
	}{
		{"Never", "Never", "Never/Never", "Never/Never", false, false},
		{"Always", "Never", "Always/Never", "Never/Never", true, true},
		{"CrossSubnet", "Always", "CrossSubnet/Never", "Never/Always", false, true},
		{"Never", "CrossSubnet", "Never/CrossSubnet", "Never/CrossSubnet", false, true},
	} {
		topo := Default(Subnets)
		topo.IPIP, topo.VXLAN = c.ipip, c.vxlan
		text := func(four bool) string {
			ipip, vxlan := topo.modes(four)
			return string(ipip) + "/" + string(vxlan)
		}
		if text(true) != c.v4 || text(false) != c.v6 {
			t.Errorf("--ipip %s --vxlan %s: %s, %s", c.ipip, c.vxlan, text(true), text(false))
		}
		if near, far, self := topo.wraps(true, 1, 2), topo.wraps(true, 1, 3), topo.wraps(true, 1, 1); near != c.near || far != c.far || self {
			t.Errorf("--ipip %s --vxlan %s: wrapped near %t far %t self %t", c.ipip, c.vxlan, near, far, self)
		}
		if pools := topo.pools(); len(pools) != 2 || pools[0].Spec.IPIPMode != v3.EncapMode(strings.Split(c.v4, "/")[0]) || pools[0].Spec.NATOutgoing {
			t.Errorf("pools: %+v", pools)
		}
	}
}
