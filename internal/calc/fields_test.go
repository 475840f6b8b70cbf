package calc

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// TestBGPConfiguration goes from fields of the object to what the speaker is
// asked to do.
func TestBGPConfiguration(t *testing.T) {
	speaker := func(s desired.State) any { return s.Speakers[""] }
	mesh := func(s desired.State) any { return s.Peers[desired.PeerKey{Addr: ip("172.30.0.12"), Port: 179}] }
	communities := func(s desired.State) any { return s.Paths[pfx("10.65.0.0/26")].Communities }
	peer := desired.Peer{Name: "Mesh_172_30_0_12", AS: 64512, LocalAS: 64512, LocalAddr: ip("172.30.0.11"), Passive: true, Mesh: true}
	other, slow := peer, peer
	other.AS, other.LocalAS = 64513, 64513
	slow.Restart = 30e9
	nodeIP := desired.Speaker{AS: 64512, RouterID: ip("172.30.0.11"), ListenPort: 179, ListenOn: []netip.Addr{ip("172.30.0.11"), ip("fd01::11")}}
	tests := []struct {
		name, spec string
		of         func(desired.State) any
		want       any
	}{
		{"nothing", ``, mesh, peer},
		{"asNumber", `"asNumber":64513`, mesh, other},
		{"nodeMeshMaxRestartTime", `"nodeMeshMaxRestartTime":"30s"`, mesh, slow},
		{"bindMode", `"bindMode":"NodeIP"`, speaker, nodeIP},
		{"no communities", ``, communities, []string(nil)},
		{"prefixAdvertisements", `"communities":[{"name":"c","value":"1:2:3"}],
			"prefixAdvertisements":[{"cidr":"10.65.0.0/16","communities":["c","65535:1"]},{"cidr":"10.66.0.0/16","communities":["7:7"]}]`,
			communities, []string{"1:2:3", "65535:1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := v3.DecodeStored([]byte(`{"kind":"BGPConfiguration","metadata":{"name":"default"},"spec":{` + tt.spec + `}}`))
			if err != nil {
				t.Fatal(err)
			}
			e, ok, err := model.FromObject(o)
			if err != nil || !ok {
				t.Fatal(e, err)
			}
			c := New(model.Settings{Node: "h1"})
			c.Apply(slices.Concat([]model.Event{
				e,
				nodeEvent(&model.Node{Name: "h1", Addr4: pfx("172.30.0.11/24"), Addr6: pfx("fd01::11/64")}),
				nodeEvent(&model.Node{Name: "h2", Addr4: pfx("172.30.0.12/24")}),
				poolEvent(&model.Pool{Name: "p4", CIDR: pfx("10.65.0.0/16")}),
			}, claimEvents("h1", "10.65.0.0/26", true)))
			if got, want := fmt.Sprintf("%+v", tt.of(c.State())), fmt.Sprintf("%+v", tt.want); got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
		})
	}
}

// TestProgramClusterRoutes: who makes the routes to pools of each form, for each
// value here and in the agent's settings. IPv4 only, the one family with IP in
// IP; both families are in the random histories.
func TestProgramClusterRoutes(t *testing.T) {
	const agent, bgp, both, nobody = "agent", "bgp", "both", "nobody"
	agents := []model.RoutesBy{model.RoutesIPIPOnly, model.RoutesAll, model.RoutesNone, model.RoutesNoEncapOnly}
	for value, want := range map[string]map[model.RoutesBy][2]string{ // without encapsulation, IP in IP
		"":                   {model.RoutesIPIPOnly: {bgp, both}, model.RoutesAll: {both, both}, model.RoutesNone: {bgp, bgp}, model.RoutesNoEncapOnly: {both, bgp}},
		"EnabledNoEncapOnly": {model.RoutesIPIPOnly: {bgp, both}, model.RoutesAll: {both, both}, model.RoutesNone: {bgp, bgp}, model.RoutesNoEncapOnly: {both, bgp}},
		"EnabledIPIPOnly":    {model.RoutesIPIPOnly: {nobody, both}, model.RoutesAll: {agent, both}, model.RoutesNone: {nobody, both}, model.RoutesNoEncapOnly: {agent, both}},
		"Enabled":            {model.RoutesIPIPOnly: {bgp, both}, model.RoutesAll: {both, both}, model.RoutesNone: {bgp, both}, model.RoutesNoEncapOnly: {both, both}},
		"Disabled":           {model.RoutesIPIPOnly: {nobody, agent}, model.RoutesAll: {agent, agent}, model.RoutesNone: {nobody, nobody}, model.RoutesNoEncapOnly: {agent, nobody}},
	} {
		o, err := v3.DecodeStored([]byte(`{"kind":"BGPConfiguration","metadata":{"name":"default"},"spec":{"programClusterRoutes":"` + value + `"}}`))
		if err != nil {
			t.Fatal(err)
		}
		e, _, err := model.FromObject(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, by := range agents {
			c := New(model.Settings{Node: "h1", Overlay: model.Overlay{Routes: by}})
			c.Apply(tunnelCluster(tunnelNodes(), model.Pool{Encap: model.IPIP}, model.Pool{}))
			c.Apply(slices.Concat(claimEvents("h2", "10.66.0.0/26", true), []model.Event{poolEvent(&model.Pool{Name: "plain", CIDR: pfx("10.66.0.0/16")})}))
			c.Apply([]model.Event{e})
			s := c.State()
			who := func(pool, block string) string {
				_, ours := s.Routes[desired.RouteKey{Table: desired.MainTable, Prefix: pfx(block), Priority: 1023}]
				i, learned := s.Imports[desired.ImportKey{Prefix: pfx(pool)}]
				return map[[2]bool]string{{true, true}: both, {true, false}: agent, {false, true}: bgp, {}: nobody}[[2]bool{ours, learned && !i.Aside}]
			}
			got := [2]string{who("10.66.0.0/16", "10.66.0.0/26"), who("10.65.0.0/16", "10.65.2.0/26")}
			if got != want[by] {
				t.Errorf("BGPConfiguration %q, agent %d: got %v, want %v", value, by, got, want[by])
			}
			for pool, who := range map[string]string{"plain": got[0], "p4": got[1]} {
				id := model.ID{Kind: model.KindPool, Name: pool}.String()
				if n := s.Notices[desired.NoticeKey{Condition: desired.ConditionRouting, Object: id}]; (n.Reason == "RoutesOfNobody") != (who == nobody) {
					t.Errorf("BGPConfiguration %q, agent %d: notice of %s: %+v", value, by, pool, n)
				}
			}
		}
	}
}

// TestDatastoreThatIsNotReady: what the cluster's own record says is told.
func TestDatastoreThatIsNotReady(t *testing.T) {
	id := model.ID{Kind: model.KindClusterInfo, Name: "default"}
	c := New(model.Settings{Node: "h1"})
	for _, ready := range []bool{true, false, true} {
		c.Apply([]model.Event{{ID: id, Value: &model.ClusterInfo{Ready: ready}}})
		n, ok := c.State().Notices[desired.NoticeKey{Condition: desired.ConditionDatastore, Object: id.String()}]
		if ok == ready || ok && !n.Blocking {
			t.Errorf("ready %v: %+v", ready, c.State().Notices)
		}
	}
}

// TestBGPPeer goes from fields of the object to what is asked of the session.
func TestBGPPeer(t *testing.T) {
	base := desired.Peer{Name: "Global_172_30_0_99", AS: 65001, LocalAS: 64512, LocalAddr: ip("172.30.0.11")}
	with := func(edit func(*desired.Peer)) desired.Peer {
		p := base
		edit(&p)
		return p
	}
	tests := []struct {
		name, spec string
		want       desired.Peer
	}{
		{"nothing", ``, base},
		{"localASNumber", `,"localASNumber":65020`, with(func(p *desired.Peer) { p.LocalAS = 65020 })},
		{"numAllowedLocalASNumbers", `,"numAllowedLocalASNumbers":2`, with(func(p *desired.Peer) { p.AllowLocalAS = 2 })},
		{"keepOriginalNextHop", `,"keepOriginalNextHop":true`, with(func(p *desired.Peer) { p.NextHopMode = "Keep" })},
		{"nextHopMode wins over it", `,"keepOriginalNextHop":true,"nextHopMode":"Self"`, with(func(p *desired.Peer) { p.NextHopMode = "Self" })},
		{"sourceAddress", `,"sourceAddress":"None"`, with(func(p *desired.Peer) { p.LocalAddr = netip.Addr{} })},
		{"maxRestartTime", `,"maxRestartTime":"30s"`, with(func(p *desired.Peer) { p.Restart = 30e9 })},
		{"keepaliveTime", `,"keepaliveTime":"5s"`, with(func(p *desired.Peer) { p.Keepalive = 5e9 })},
		{"ttlSecurity", `,"ttlSecurity":3`, with(func(p *desired.Peer) { p.TTLSecurity = 3 })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := v3.DecodeStored([]byte(`{"kind":"BGPPeer","metadata":{"name":"p"},"spec":{"peerIP":"172.30.0.99","asNumber":65001` + tt.spec + `}}`))
			if err != nil {
				t.Fatal(err)
			}
			e, ok, err := model.FromObject(o)
			if err != nil || !ok {
				t.Fatal(e, err)
			}
			c := New(model.Settings{Node: "h1"})
			c.Apply([]model.Event{e, nodeEvent(&model.Node{Name: "h1", Addr4: pfx("172.30.0.11/24")})})
			if got := c.State().Peers[desired.PeerKey{Addr: ip("172.30.0.99"), Port: 179}]; got != tt.want {
				t.Errorf("\n got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}
