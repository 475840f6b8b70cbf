package calc

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func nodeEvent(n *model.Node) model.Event {
	return model.Event{ID: model.ID{Kind: model.KindNode, Name: n.Name}, Value: n}
}

func poolEvent(p *model.Pool) model.Event {
	return model.Event{ID: model.ID{Kind: model.KindPool, Name: p.Name}, Value: p}
}

func peerEvent(p *model.BGPPeer) model.Event {
	return model.Event{ID: model.ID{Kind: model.KindBGPPeer, Name: p.Name}, Value: p}
}

func configEvent(c *model.BGPConfig) model.Event {
	return model.Event{ID: model.ID{Kind: model.KindBGPConfig, Name: c.Name}, Value: c}
}

func workloadEvent(node, name string, addrs ...string) model.Event {
	w := &model.Workload{
		ID: model.ID{Kind: model.KindWorkload, Namespace: "default", Name: name}, Node: node,
		Interface: "cali" + name, MAC: "02:00:00:00:00:01",
	}
	for _, a := range addrs {
		w.Addrs = append(w.Addrs, ip(a))
	}
	return model.Event{ID: w.ID, Value: w}
}

func claimEvents(host, cidr string, confirmed bool, uses ...model.Use) []model.Event {
	p := pfx(cidr)
	return []model.Event{
		{ID: model.AffinityID(host, p), Value: &model.Affinity{Host: host, CIDR: p, Confirmed: confirmed}},
		{ID: model.BlockID(p), Value: &model.Block{CIDR: p, Host: host, Uses: uses}},
	}
}

// TestExport holds the documented examples of what a node announces that owns
// block 10.65.0.0/26 of pool 10.65.0.0/16, and the same for IPv6.
func TestExport(t *testing.T) {
	me := nodeEvent(&model.Node{Name: "h1", Addr4: pfx("172.30.0.11/24"), Addr6: pfx("fd01::11/64")})
	base := slices.Concat([]model.Event{me,
		poolEvent(&model.Pool{Name: "p4", CIDR: pfx("10.65.0.0/16")}),
		poolEvent(&model.Pool{Name: "p6", CIDR: pfx("fd00::/64")}),
	}, claimEvents("h1", "10.65.0.0/26", true), claimEvents("h1", "fd00::/122", true))
	blocks := []string{"10.65.0.0/26", "fd00::/122"}
	tests := []struct {
		name string
		in   []model.Event
		want []string
	}{
		{"own blocks", nil, blocks},
		{"local workload inside: aggregated",
			[]model.Event{workloadEvent("h1", "a", "10.65.0.7", "fd00::7")}, blocks},
		{"local workload with a borrowed address",
			[]model.Event{workloadEvent("h1", "a", "10.65.9.3", "fd00::1:3")},
			append([]string{"10.65.9.3/32", "fd00::1:3/128"}, blocks...)},
		{"workload of another node", []model.Event{workloadEvent("h2", "a", "10.65.9.3", "fd00::1:3")}, blocks},
		{"block of another node", slices.Concat(claimEvents("h2", "10.65.8.0/26", true),
			claimEvents("h2", "fd00::8:0/122", true)), blocks},
		{"address outside of pools", []model.Event{workloadEvent("h1", "a", "192.168.50.1", "fd99::1")}, blocks},
		{"pools that keep their addresses", []model.Event{
			poolEvent(&model.Pool{Name: "p4", CIDR: pfx("10.65.0.0/16"), DisableBGPExport: true}),
			poolEvent(&model.Pool{Name: "p6", CIDR: pfx("fd00::/64"), DisableBGPExport: true}),
			workloadEvent("h1", "a", "10.65.9.3", "fd00::1:3")}, nil},
		{"disabled pools go on", []model.Event{
			poolEvent(&model.Pool{Name: "p4", CIDR: pfx("10.65.0.0/16"), Disabled: true}),
			poolEvent(&model.Pool{Name: "p6", CIDR: pfx("fd00::/64"), Disabled: true}),
			workloadEvent("h1", "a", "10.65.9.3", "fd00::1:3")},
			append([]string{"10.65.9.3/32", "fd00::1:3/128"}, blocks...)},
		{"deleted pools: the blocks stay", []model.Event{
			{ID: model.ID{Kind: model.KindPool, Name: "p4"}}, {ID: model.ID{Kind: model.KindPool, Name: "p6"}},
			workloadEvent("h1", "a", "10.65.9.3", "fd00::1:3")}, blocks},
		{"claims that are not confirmed: single addresses", slices.Concat(claimEvents("h1", "10.65.0.0/26", false),
			claimEvents("h1", "fd00::/122", false), []model.Event{workloadEvent("h1", "a", "10.65.0.7", "fd00::7")}),
			[]string{"10.65.0.7/32", "fd00::7/128"}},
		{"a lost race for a block", slices.Concat([]model.Event{
			{ID: model.BlockID(pfx("10.65.0.0/26")), Value: &model.Block{CIDR: pfx("10.65.0.0/26"), Host: "h2"}},
			{ID: model.BlockID(pfx("fd00::/122")), Value: &model.Block{CIDR: pfx("fd00::/122"), Host: "load-balancer", Virtual: true}},
		}), nil},
		{"node without address of the family",
			[]model.Event{nodeEvent(&model.Node{Name: "h1", Addr6: pfx("fd01::11/64")})}, []string{"fd00::/122"}},
		{"node that is not there", []model.Event{{ID: me.ID}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := New(model.Settings{Node: "h1"})
			c.Apply(base)
			c.Apply(tt.in)
			var got []string
			for p, path := range c.State().Paths {
				got = append(got, p.String())
				if path.LocalPref != 2147483647-1024 || len(path.Communities) > 0 {
					t.Errorf("%v: %+v", p, path)
				}
			}
			slices.Sort(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLocalWorkload(t *testing.T) {
	c := New(model.Settings{Node: "h1"})
	u := c.Apply(slices.Concat([]model.Event{workloadEvent("h1", "a", "10.65.0.7", "fd00::7")},
		claimEvents("h1", "10.65.0.0/26", true), claimEvents("h1", "10.65.1.1/32", true)))
	key := func(p string) desired.RouteKey {
		return desired.RouteKey{Table: 254, Prefix: pfx(p), Priority: 1024}
	}
	hop := []desired.NextHop{{Interface: "calia"}}
	want := map[desired.RouteKey]desired.Route{
		key("10.65.0.7/32"): {Hops: hop, Scope: 253, Protocol: 80},
		key("fd00::7/128"):  {Hops: hop, Protocol: 80},
		key("10.65.0.0/26"): {Type: desired.Blackhole, Protocol: 80},
	}
	if !reflect.DeepEqual(u.Routes.Set, want) || len(u.Routes.Delete) > 0 {
		t.Errorf("routes:\n got %+v\nwant %+v", u.Routes, want)
	}
	neighbours := map[desired.NeighKey]desired.Neigh{
		{Interface: "calia", Addr: ip("10.65.0.7")}: {MAC: "02:00:00:00:00:01"},
	}
	if !reflect.DeepEqual(u.Neighbours.Set, neighbours) {
		t.Errorf("neighbours: %+v", u.Neighbours.Set)
	}
	link := u.Links.Set["calia"]
	if len(u.Links.Set) != 1 || !link.Up || link.MTU != 0 || link.Alias != "brindle:workload" {
		t.Errorf("links: %+v", u.Links.Set)
	}
	for _, line := range []string{"ipv4/conf/proxy_arp=1", "ipv4/conf/route_localnet=0", "ipv4/conf/rp_filter=1", "ipv6/conf/accept_ra=0"} {
		if !slices.Contains(strings.Split(link.Sysctls, "\n"), line) {
			t.Errorf("no %s in:\n%s", line, link.Sysctls)
		}
	}
	forwarding := map[string]string{"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}
	if !maps.Equal(u.Sysctls.Set, forwarding) {
		t.Errorf("sysctls: %v", u.Sysctls.Set)
	}
	u = c.Apply([]model.Event{{ID: model.ID{Kind: model.KindWorkload, Namespace: "default", Name: "a"}}})
	if len(u.Routes.Delete) != 2 || len(u.Links.Delete) != 1 || len(u.Neighbours.Delete) != 1 || !u.Sysctls.Empty() {
		t.Errorf("when it goes: %+v", u)
	}
}

// TestMesh holds the documented rules for the full mesh of nodes.
func TestMesh(t *testing.T) {
	off := false
	me := &model.Node{Name: "h2", Addr4: pfx("172.30.0.12/24"), Addr6: pfx("fd01::12/64")}
	other := []model.Event{
		nodeEvent(&model.Node{Name: "h1", Addr4: pfx("172.30.0.9/24"), Addr6: pfx("fd01::9/64"), AS: 65001}),
		nodeEvent(&model.Node{Name: "h3", Addr4: pfx("172.30.0.100/24")}),
		nodeEvent(&model.Node{Name: "rr", Addr4: pfx("172.30.0.200/24"), ClusterID: ip("244.0.0.1")}),
		configEvent(&model.BGPConfig{Name: "node.h3", ListenPort: 1790}),
	}
	mesh := map[desired.PeerKey]desired.Peer{
		// "172.30.0.9" is after "172.30.0.12" as text: that side waits.
		{Addr: ip("172.30.0.9"), Port: 179}: {Name: "Mesh_172_30_0_9", AS: 65001, LocalAS: 64512,
			LocalAddr: ip("172.30.0.12"), Passive: true, Mesh: true},
		{Addr: ip("fd01::9"), Port: 179}: {Name: "Mesh_fd01__9", AS: 65001, LocalAS: 64512,
			LocalAddr: ip("fd01::12"), Passive: true, Mesh: true},
		{Addr: ip("172.30.0.100"), Port: 1790}: {Name: "Mesh_172_30_0_100", AS: 64512, LocalAS: 64512,
			LocalAddr: ip("172.30.0.12"), Mesh: true},
	}
	tests := []struct {
		name string
		me   *model.Node
		in   []model.Event
		want map[desired.PeerKey]desired.Peer
	}{
		{"on by default", me, nil, mesh},
		{"switched off", me, []model.Event{configEvent(&model.BGPConfig{Name: "default", Mesh: &off})}, nil},
		{"this node is a route reflector", &model.Node{Name: "h2", Addr4: me.Addr4, ClusterID: ip("244.0.0.1")}, nil, nil},
		{"this node has no address", &model.Node{Name: "h2"}, nil, nil},
		{"a password that nobody can read", me, []model.Event{configEvent(&model.BGPConfig{Name: "default", MeshPassword: "s/k"})}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := New(model.Settings{Node: "h2"})
			c.Apply(slices.Concat(other, tt.in, []model.Event{nodeEvent(tt.me)}))
			if got := c.State().Peers; !maps.Equal(got, tt.want) {
				t.Errorf("\n got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// TestMeshHasOnePassiveEnd checks both ends of every session of a mesh.
func TestMeshHasOnePassiveEnd(t *testing.T) {
	addrs := map[string]string{"a": "9", "b": "10", "c": "11", "d": "100", "e": "2"}
	var events []model.Event
	for name, last := range addrs {
		events = append(events, nodeEvent(&model.Node{Name: name, Addr4: pfx("10.0.0." + last + "/24"), Addr6: pfx("fd00::" + last + "/64")}))
	}
	passive := map[[2]netip.Addr]bool{}
	for name := range addrs {
		c := New(model.Settings{Node: name})
		c.Apply(events)
		for key, p := range c.State().Peers {
			passive[[2]netip.Addr{p.LocalAddr, key.Addr}] = p.Passive
		}
	}
	if len(passive) != 5*4*2 {
		t.Fatalf("%d ends of sessions", len(passive))
	}
	for ends, waits := range passive {
		if other, ok := passive[[2]netip.Addr{ends[1], ends[0]}]; !ok || other == waits {
			t.Errorf("between %v: %v and %v (%v)", ends, waits, other, ok)
		}
	}
}

func sel(t *testing.T, text string) *selector.Selector {
	t.Helper()
	s, err := selector.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

// TestPeers holds the documented rules for explicit sessions, seen from h1.
func TestPeers(t *testing.T) {
	off := false
	nodes := []model.Event{
		configEvent(&model.BGPConfig{Name: "default", Mesh: &off}),
		nodeEvent(&model.Node{Name: "h1", Addr4: pfx("10.0.0.1/24"), Addr6: pfx("fd00::1/64"), Labels: map[string]string{"rack": "a"}}),
		nodeEvent(&model.Node{Name: "rr", Addr4: pfx("10.0.0.2/24"), Addr6: pfx("fd00::2/64"),
			Labels: map[string]string{"rr": "yes"}, ClusterID: ip("244.0.0.1")}),
	}
	reflector := nodeEvent(&model.Node{Name: "h1", Addr4: pfx("10.0.0.1/24"), Addr6: pfx("fd00::1/64"),
		Labels: map[string]string{"rack": "a"}, ClusterID: ip("244.0.0.1")})
	tests := []struct {
		name string
		in   []model.Event
		want []string // name, AS, port, passive, client
	}{
		{"global, by address, outside", []model.Event{peerEvent(&model.BGPPeer{Name: "t", Addr: ip("10.0.0.254"), AS: 65001})},
			[]string{"Global_10_0_0_254 65001"}},
		{"global, by address of a node: the side of the greater text waits",
			[]model.Event{peerEvent(&model.BGPPeer{Name: "t", Addr: ip("10.0.0.2"), AS: 64512})},
			[]string{"Global_10_0_0_2 64512 passive"}},
		{"global with a port", []model.Event{peerEvent(&model.BGPPeer{Name: "t", Addr: ip("fd00::99"), Port: 1179, AS: 65001})},
			[]string{"Global_fd00__99_port_1179 65001"}},
		{"of this node, by address of a node that listens elsewhere", []model.Event{
			configEvent(&model.BGPConfig{Name: "node.rr", ListenPort: 1180}),
			peerEvent(&model.BGPPeer{Name: "t", Node: "h1", Addr: ip("10.0.0.2"), AS: 64512})},
			[]string{"Node_10_0_0_2_port_1180 64512"}},
		{"of this node, by address of a node with another AS", []model.Event{
			configEvent(&model.BGPConfig{Name: "node.rr", ListenPort: 1180}),
			peerEvent(&model.BGPPeer{Name: "t", Node: "h1", Addr: ip("10.0.0.2"), AS: 65009})},
			[]string{"Node_10_0_0_2 65009"}},
		{"of another node", []model.Event{peerEvent(&model.BGPPeer{Name: "t", Node: "h9", Addr: ip("10.0.0.254"), AS: 65001})}, nil},
		{"by labels of this node", []model.Event{peerEvent(&model.BGPPeer{Name: "t", Nodes: sel(t, "rack == 'a'"), Addr: ip("10.0.0.254"), AS: 65001})},
			[]string{"Node_10_0_0_254 65001"}},
		{"with all reflectors: both families", []model.Event{peerEvent(&model.BGPPeer{Name: "t", Peers: sel(t, "has(rr)")})},
			[]string{"Global_10_0_0_2 64512", "Global_fd00__2 64512"}},
		{"at the far end: reversed", []model.Event{peerEvent(&model.BGPPeer{Name: "t", Node: "rr", Peers: sel(t, "rack == 'a'")})},
			[]string{"Node_10_0_0_2 64512", "Node_fd00__2 64512"}},
		{"at the far end by address: its family only", []model.Event{peerEvent(&model.BGPPeer{Name: "t", Node: "rr", Addr: ip("10.0.0.1"), AS: 64512})},
			[]string{"Node_10_0_0_2 64512"}},
		{"at the far end by address, of another AS", []model.Event{peerEvent(&model.BGPPeer{Name: "t", Node: "rr", Addr: ip("10.0.0.1"), AS: 65009})}, nil},
		{"at the far end, manual", []model.Event{peerEvent(&model.BGPPeer{Name: "t", Node: "rr", Peers: sel(t, "rack == 'a'"), ReverseManual: true})}, nil},
		{"to itself: the far end of what the others have, with them only",
			[]model.Event{peerEvent(&model.BGPPeer{Name: "t", Addr: ip("10.0.0.1"), AS: 64512})}, []string{"Node_10_0_0_2 64512"}},
		{"a global one suppresses that of a node", []model.Event{
			peerEvent(&model.BGPPeer{Name: "a", Node: "h1", Addr: ip("10.0.0.254"), AS: 65002}),
			peerEvent(&model.BGPPeer{Name: "b", Addr: ip("10.0.0.254"), AS: 65001})}, []string{"Global_10_0_0_254 65001"}},
		{"reflector: internal peers are clients", []model.Event{reflector,
			peerEvent(&model.BGPPeer{Name: "a", Addr: ip("10.0.0.7"), AS: 64512}),
			peerEvent(&model.BGPPeer{Name: "b", Addr: ip("10.0.0.8"), AS: 65001})},
			[]string{"Global_10_0_0_7 64512 client", "Global_10_0_0_8 65001"}},
		{"reflector: another of the same cluster is none", []model.Event{reflector,
			peerEvent(&model.BGPPeer{Name: "a", Peers: sel(t, "has(rr)")})}, []string{"Global_10_0_0_2 64512", "Global_fd00__2 64512"}},
		{"reflector: a bare address of the same cluster is one", []model.Event{reflector,
			peerEvent(&model.BGPPeer{Name: "a", Node: "h1", Addr: ip("10.0.0.2"), AS: 64512})}, []string{"Node_10_0_0_2 64512 client"}},
		{"password, filter, workloads: withheld", []model.Event{
			{ID: model.ID{Kind: model.KindBGPFilter, Name: "f"}, Value: &model.BGPFilter{Name: "f"}},
			peerEvent(&model.BGPPeer{Name: "a", Addr: ip("10.0.0.7"), AS: 1, Options: model.PeerOptions{Password: "s/k"}}),
			peerEvent(&model.BGPPeer{Name: "b", Addr: ip("10.0.0.8"), AS: 1, Filters: []string{"f"}}),
			peerEvent(&model.BGPPeer{Name: "c", Workloads: sel(t, "all()"), AS: 1})}, nil},
		{"a filter that does not exist is ignored", []model.Event{
			peerEvent(&model.BGPPeer{Name: "b", Addr: ip("10.0.0.8"), AS: 1, Filters: []string{"gone"}})}, []string{"Global_10_0_0_8 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := New(model.Settings{Node: "h1"})
			c.Apply(slices.Concat(nodes, tt.in))
			var got []string
			for _, p := range c.State().Peers {
				got = append(got, describe(p))
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestReachableBy(t *testing.T) {
	c := New(model.Settings{Node: "h1"})
	c.Apply([]model.Event{
		nodeEvent(&model.Node{Name: "h1", Addr4: pfx("10.0.0.1/24"), Addr6: pfx("fd00::1/64")}),
		peerEvent(&model.BGPPeer{Name: "a", Addr: ip("192.0.2.1"), AS: 1, Options: model.PeerOptions{ReachableBy: ip("10.0.0.254")}}),
		peerEvent(&model.BGPPeer{Name: "b", Addr: ip("2001:db8::1"), AS: 1, Options: model.PeerOptions{ReachableBy: ip("fd00::fe")}}),
	})
	want := map[desired.RouteKey]desired.Route{
		{Table: 254, Prefix: pfx("192.0.2.1/32"), Priority: 1024}:    {Hops: []desired.NextHop{{Via: ip("10.0.0.254")}}, Protocol: 80},
		{Table: 254, Prefix: pfx("2001:db8::1/128"), Priority: 1024}: {Hops: []desired.NextHop{{Via: ip("fd00::fe")}}, Protocol: 80},
	}
	if got := c.State().Routes; !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

// TestRouterID holds the documented ways to one: the setting, the IPv4
// address, else the name's hash.
func TestRouterID(t *testing.T) {
	tests := []struct {
		name string
		set  model.Settings
		node *model.Node
		want string
	}{
		{"address", model.Settings{Node: "n"}, &model.Node{Name: "n", Addr4: pfx("10.0.0.1/24"), Addr6: pfx("fd00::1/64")}, "10.0.0.1"},
		{"setting", model.Settings{Node: "n", RouterID: ip("1.2.3.4")}, &model.Node{Name: "n", Addr4: pfx("10.0.0.1/24")}, "1.2.3.4"},
		// SHA-256("n") begins 1b 16 b1 df, SHA-256("node-18") begins f5 c2 8b e3: multicast, so less 32.
		{"IPv6 only", model.Settings{Node: "n"}, &model.Node{Name: "n", Addr6: pfx("fd00::1/64")}, "27.22.177.223"},
		{"IPv6 only, hash in the multicast range", model.Settings{Node: "node-18"}, &model.Node{Name: "node-18", Addr6: pfx("fd00::1/64")}, "213.194.139.227"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := New(tt.set)
			c.Apply([]model.Event{nodeEvent(tt.node)})
			if got := c.State().Speakers[""].RouterID; got != ip(tt.want) {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

func describe(p desired.Peer) string {
	s := fmt.Sprint(p.Name, " ", p.AS)
	if p.Passive {
		s += " passive"
	}
	if p.ClientOf.IsValid() {
		s += " client"
	}
	return s
}

// TestBorrowedAddressIsLearned: the most specific import entry decides, so an
// address of our block that another host uses is believed, the rest is not,
// and a workload here has an entry only where no block of ours speaks for it.
func TestBorrowedAddressIsLearned(t *testing.T) {
	c := New(model.Settings{Node: "h1"})
	c.Apply(slices.Concat([]model.Event{
		poolEvent(&model.Pool{Name: "4", CIDR: pfx("10.65.0.0/16")}), poolEvent(&model.Pool{Name: "6", CIDR: pfx("fd00::/64")}),
		workloadEvent("h1", "a", "10.65.0.7", "fd00::7"), workloadEvent("h1", "borrows", "10.65.8.9", "fd00::5"),
	}, claimEvents("h1", "10.65.0.0/26", true, model.Use{Addr: ip("10.65.0.5"), Node: "h2"}, model.Use{Addr: ip("10.65.0.7"), Node: "h1"},
		model.Use{Addr: ip("10.65.0.9")}), claimEvents("h1", "fd00::/122", true, model.Use{Addr: ip("fd00::5"), Node: "h2"}),
		claimEvents("h2", "10.65.8.0/26", true, model.Use{Addr: ip("10.65.8.1"), Node: "h3"})))
	want := map[desired.ImportKey]desired.Import{}
	for p, own := range map[string]bool{
		"10.65.0.0/16": false, "10.65.0.0/26": true, "10.65.0.5/32": false, "10.65.8.9/32": true,
		"fd00::/64": false, "fd00::/122": true, "fd00::5/128": true,
	} {
		want[desired.ImportKey{Prefix: pfx(p)}] = desired.Import{Own: own}
	}
	if got := c.State().Imports; !maps.Equal(got, want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
}

// TestPolicyIsNotPretended: policies are not enforced on host endpoints, and
// those that select one here say so.
func TestPolicyIsNotPretended(t *testing.T) {
	id := model.PolicyID("NetworkPolicy", "default", "allow-web")
	policy := func(staged bool, text string) model.Event {
		return model.Event{ID: id, Value: &model.Policy{ID: id, Title: id.String(), Staged: staged, Selects: *sel(t, text)}}
	}
	broken := policy(false, "app == 'db'")
	broken.Value.(*model.Policy).Broken = "spec.x is wrong"
	host := func(node, name string) model.Event {
		id := model.ID{Kind: model.KindHostEndpoint, Name: name}
		return model.Event{ID: id, Value: &model.HostEndpoint{
			ID: id, Node: node, Interface: "eth0", Labels: map[string]string{"app": "web"}, Profiles: []string{"p", model.DefaultAllow},
		}}
	}
	c := New(model.Settings{Node: "h1"})
	w := workloadEvent("h1", "a", "10.65.0.7", "fd00::7")
	w.Value.(*model.Workload).Labels = map[string]string{"app": "db"}
	c.Apply([]model.Event{host("h1", "e1"), host("h2", "e2"), w})
	key := desired.NoticeKey{Condition: "Policy", Object: "NetworkPolicy default/allow-web"}
	const selects = "selects 1 host endpoint(s) of this host and is not enforced on them by this version"
	steps := []struct {
		name string
		in   model.Event
		want string
	}{
		{"selects nobody", policy(false, "app == 'x'"), ""},
		{"selects a workload", policy(false, "app == 'db'"), ""},
		{"selects a host endpoint here", policy(false, "app == 'web'"), selects},
		{"staged", policy(true, "app == 'web'"), ""},
		{"by a profile that is not there", policy(false, "team == 'x'"), ""},
		{"by a profile", model.Event{ID: model.ID{Kind: model.KindProfile, Name: "p"},
			Value: &model.Profile{Name: "p", Labels: map[string]string{"team": "x"}}}, selects},
		{"partly unreadable", broken, "spec.x is wrong"},
		{"cannot be read", model.Event{ID: id, Value: &model.Invalid{Message: "m"}}, "m"},
		{"deleted", model.Event{ID: id}, ""},
		{"selects both", policy(false, "has(app)"), selects},
		{"the host endpoint goes", model.Event{ID: host("h1", "e1").ID}, ""},
	}
	for _, s := range steps {
		c.Apply([]model.Event{s.in})
		if n, ok := c.State().Notices[key]; n.Message != s.want || ok != n.Blocking {
			t.Errorf("%s: %+v", s.name, c.State().Notices)
		}
	}
}

// Whoever may write endpoints shall not reroute a host, nor have its own
// interfaces configured as a workload's.
func TestInterfacesOfTheHostStayTheHosts(t *testing.T) {
	tests := []struct {
		name     string
		prefixes []string
		iface    string
		want     bool
	}{
		{"a workload's", nil, "calia", true},
		{"the uplink", nil, "eth0", false},
		{"loopback", nil, "lo", false},
		{"a prefix of two", []string{"tap", "cali"}, "calia", true},
		{"another prefix", []string{"tap"}, "calia", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := New(model.Settings{Node: "h1", Prefixes: tt.prefixes})
			e := workloadEvent("h1", "a", "10.65.0.7", "fd00::7")
			e.Value.(*model.Workload).Interface = tt.iface
			u := c.Apply([]model.Event{e})
			if got := len(u.Links.Set) == 1 && len(u.Routes.Set) == 2; got != tt.want {
				t.Errorf("links %v, routes %v; want them: %v", u.Links.Set, u.Routes.Set, tt.want)
			}
		})
	}
}
