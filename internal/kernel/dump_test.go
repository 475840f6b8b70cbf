package kernel

import (
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
)

func TestDump(t *testing.T) {
	ns := testenv.NetNS(t)
	for _, cmd := range [][]string{
		{"ip", "link", "add", "va", "type", "veth", "peer", "name", "vb"}, {"ip", "link", "set", "va", "up", "mtu", "1400", "alias", "brindle:test"}, {"ip", "link", "set", "vb", "up"},
		{"ip", "addr", "add", "192.0.2.1/24", "dev", "va"}, {"ip", "addr", "add", "2001:db8::1/64", "dev", "va", "nodad"},
		{"ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.2", "proto", "80", "table", "7", "metric", "5"},
		{"ip", "-6", "route", "add", "2001:db8:1::/64", "via", "2001:db8::2"},
		{"ip", "rule", "add", "from", "192.0.2.0/24", "fwmark", "0x1/0xff", "iif", "va", "lookup", "7", "prio", "99"},
		{"ip", "neigh", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:01", "dev", "va", "nud", "permanent"},
	} {
		testenv.Run(t, ns, cmd...)
	}
	d, err := ReadDump(ns)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(d.Links, func(l DumpedLink) bool {
		return l.Name == "va" && l.Kind == "veth" && l.MTU == 1400 && l.Up && l.Alias == "brindle:test"
	}) {
		t.Errorf("links %+v", d.Links)
	}
	for _, want := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
		if !slices.ContainsFunc(d.Addresses, func(a DumpedAddress) bool { return a.Link == "va" && a.Address == want }) {
			t.Errorf("addresses %+v", d.Addresses)
		}
	}
	hop := DumpedHop{Via: "192.0.2.2", Link: "va"}
	if !slices.ContainsFunc(d.Routes, func(r DumpedRoute) bool {
		return r.Dst == "198.51.100.0/24" && r.Table == 7 && r.Protocol == 80 && r.Metric == 5 && len(r.Hops) == 1 && r.Hops[0].Via == hop.Via && r.Hops[0].Link == hop.Link
	}) || !slices.ContainsFunc(d.Routes, func(r DumpedRoute) bool { return r.Dst == "2001:db8:1::/64" }) {
		t.Errorf("routes %+v", d.Routes)
	}
	rule := DumpedRule{Family: 4, Priority: 99, Action: ruleToTable, From: "192.0.2.0/24", In: "va", Mark: "0x1/0xff", Table: 7}
	if !slices.ContainsFunc(d.Rules, func(r DumpedRule) bool { r.Protocol = 0; return r == rule }) ||
		!slices.ContainsFunc(d.Rules, func(r DumpedRule) bool { return r.Family == 6 }) {
		t.Errorf("rules %+v", d.Rules)
	}
	if !slices.ContainsFunc(d.Neighbours, func(n DumpedNeighbour) bool {
		return n.Link == "va" && n.Addr == "192.0.2.2" && n.MAC == "02:00:00:00:00:01" && n.State == "0x80"
	}) {
		t.Errorf("neighbours %+v", d.Neighbours)
	}
}
