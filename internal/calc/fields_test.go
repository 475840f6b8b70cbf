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
