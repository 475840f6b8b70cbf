package lab

import (
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// TestReflectorsAreSeeded looks at what hosts read: it is the same in both
// families.
func TestReflectorsAreSeeded(t *testing.T) {
	c := client.New(mem.New(), client.Config{})
	if err := seedReflectors(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get[v3.BGPConfiguration](t.Context(), c, "", v3.DefaultName); !client.IsNotFound(err) {
		t.Errorf("a lab without reflectors has a BGPConfiguration: %v", err)
	}
	if err := seedReflectors(t.Context(), c, Default(Reflectors).shape().Reflectors); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"h1", "h2"} {
		n, err := client.Get[v3.Node](t.Context(), c, "", name)
		if err != nil || n.Labels[reflectorLabel] == "" || n.Spec.BGP == nil || n.Spec.BGP.RouteReflectorClusterID != reflectorCluster {
			t.Errorf("Node %s: %+v, %v", name, n, err)
		}
	}
	cfg, err := client.Get[v3.BGPConfiguration](t.Context(), c, "", v3.DefaultName)
	if err != nil || cfg.Spec.NodeToNodeMeshEnabled == nil || *cfg.Spec.NodeToNodeMeshEnabled {
		t.Errorf("the mesh is on: %+v, %v", cfg, err)
	}
	p, err := client.Get[v3.BGPPeer](t.Context(), c, "", "reflectors")
	if err != nil || p.Spec.NodeSelector != "all()" || p.Spec.PeerSelector != "has(route-reflector)" {
		t.Errorf("peers: %+v, %v", p, err)
	}
}
