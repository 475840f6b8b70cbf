package agent

import (
	"fmt"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// clusterOf is a datastore of so many hosts, and a pool of each family with
// tunnels.
func clusterOf(t testing.TB, hosts int) store.Driver {
	t.Helper()
	db := mem.New()
	c := client.New(db, client.Config{})
	for _, s := range []v3.IPPoolSpec{
		{CIDR: "10.0.0.0/8", BlockSize: 26, VXLANMode: v3.EncapAlways}, {CIDR: "fd00:1::/64", BlockSize: 122, VXLANMode: v3.EncapAlways},
		{CIDR: "172.20.0.0/14", BlockSize: 26, IPIPMode: v3.EncapAlways},
	} {
		p := &v3.IPPool{Spec: s}
		p.Name = fmt.Sprintf("pool-%d", len(s.CIDR))
		if _, err := client.Create(t.Context(), c, p); err != nil {
			t.Fatal(err)
		}
	}
	for i := range hosts {
		n := &v3.Node{}
		n.Name = fmt.Sprintf("h%d", i)
		n.Spec.BGP = &v3.NodeBGPSpec{IPv4Address: fmt.Sprintf("172.16.%d.%d/12", i/250, 1+i%250), IPv6Address: fmt.Sprintf("fd01::%x/64", i+1)}
		if _, err := client.Create(t.Context(), c, n); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

// TestForeseeManyHosts gives addresses to the tunnels of 1,000 hosts, of which
// no two are equal.
func TestForeseeManyHosts(t *testing.T) {
	const hosts = 1000
	db := clusterOf(t, hosts)
	f, err := Foresee(t.Context(), db, nil)
	if err != nil || len(f.Settings) != hosts || len(f.Warnings) > 0 {
		t.Fatalf("%v, %d settings, %q", err, len(f.Settings), f.Warnings)
	}
	nodes, err := client.List[v3.Node](t.Context(), client.New(db, client.Config{}), "")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, n := range nodes {
		for _, a := range []string{n.Spec.IPv4VXLANTunnelAddr, n.Spec.IPv6VXLANTunnelAddr, n.Spec.BGP.IPv4IPIPTunnelAddr} {
			if a == "" || seen[a] != "" {
				t.Fatalf("host %s has the address %q, which %q has, too", n.Name, a, seen[a])
			}
			seen[a] = n.Name
		}
	}
}
