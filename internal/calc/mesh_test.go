package calc

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// TestMeshFollows: whatever nodes do one after the other, with one address
// twice at times, the sessions and what is said of them are those of a core
// that learns all at once; and what an update says leads there.
func TestMeshFollows(t *testing.T) {
	moved := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		c := New(model.Settings{Node: "n0", NoIPv6: seed%5 == 0})
		state, told := map[model.ID]model.Event{}, desired.NewState()
		step := func(batch []model.Event) {
			for _, e := range batch {
				state[e.ID] = e
			}
			u := c.Apply(batch)
			u.Peers.Play(told.Peers)
			u.Notices.Play(told.Notices)
			moved += btoi(c.sessions.meshed)
			fresh := New(model.Settings{Node: "n0", NoIPv6: seed%5 == 0})
			var all []model.Event
			for _, e := range state {
				all = append(all, e)
			}
			fresh.Apply(all)
			want := fresh.State()
			for _, got := range []desired.State{c.State(), told} {
				if !maps.Equal(got.Peers, want.Peers) {
					t.Fatalf("seed %d: after %v: got sessions %v\nwant %v", seed, batch, got.Peers, want.Peers)
				}
				if !maps.Equal(got.Notices, want.Notices) {
					t.Fatalf("seed %d: after %v: got notices %v\nwant %v", seed, batch, got.Notices, want.Notices)
				}
			}
		}
		for range 60 {
			var batch []model.Event
			for range 1 + r.IntN(3) {
				batch = append(batch, randomNode(r))
			}
			if r.IntN(15) == 0 {
				batch = append(batch, model.Event{ID: model.ID{Kind: model.KindBGPConfig, Name: "node.n2"}, Value: &model.BGPConfig{ListenPort: uint16(179 + r.IntN(2))}})
			}
			step(batch)
		}
	}
	if moved < 1000 {
		t.Errorf("there was nothing but the mesh after %d steps only", moved)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// randomNode is a node that comes, changes or goes.
func randomNode(r *rand.Rand) model.Event {
	i := r.IntN(6)
	id := model.ID{Kind: model.KindNode, Name: fmt.Sprintf("n%d", i)}
	if r.IntN(5) == 0 && i != 0 {
		return model.Event{ID: id}
	}
	n := &model.Node{Name: id.Name}
	at := i + 1
	if r.IntN(8) == 0 {
		at = 1 + r.IntN(8)
	}
	if r.IntN(6) != 0 {
		n.Addr4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, 0, byte(at)}), 24)
	}
	if r.IntN(3) != 0 {
		n.Addr6 = netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(at)}), 64)
	}
	if r.IntN(10) == 0 {
		n.AS = 65000
	}
	if r.IntN(10) == 0 && i != 0 {
		n.ClusterID = netip.AddrFrom4([4]byte{1, 1, 1, 1})
	}
	return model.Event{ID: id, Value: n}
}
