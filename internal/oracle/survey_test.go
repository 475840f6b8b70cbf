package oracle_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
)

// manyHosts is a cluster of so many hosts with a block of each family, and
// pools with tunnels.
func manyHosts(hosts int) oracle.Snapshot {
	snap := oracle.Snapshot{}
	add := func(id model.ID, v model.Value) { snap.Add(model.Event{ID: id, Value: v}) }
	add(model.UnderlayID(), &model.Underlay{MTU: 1500})
	for i, cidr := range []string{"10.0.0.0/8", "fd00:10::/48"} {
		name := fmt.Sprint("pool", i)
		add(model.ID{Kind: model.KindPool, Name: name}, &model.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), Encap: model.VXLAN})
	}
	for i := range hosts {
		n := &model.Node{
			Name:  fmt.Sprintf("h%04d", i),
			Addr4: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), 12),
			Addr6: netip.MustParsePrefix(fmt.Sprintf("fd01::%x/64", i+1)),
		}
		four := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
		six := netip.MustParsePrefix(fmt.Sprintf("fd00:10::%x:0/122", i))
		n.VXLAN4.Addr, n.VXLAN6.Addr = four.Addr().Next(), six.Addr().Next()
		add(model.ID{Kind: model.KindNode, Name: n.Name}, n)
		for _, b := range []netip.Prefix{four, six} {
			add(model.AffinityID(n.Name, b), &model.Affinity{Host: n.Name, CIDR: b, Confirmed: true})
			add(model.BlockID(b), &model.Block{CIDR: b, Host: n.Name})
		}
	}
	return snap
}

// TestSurveyOfManyHosts: each of 1,000 hosts has a route to every other one's
// blocks and to its end of IPv6 VXLAN, and packets travel to all. Some hosts
// are looked at.
func TestSurveyOfManyHosts(t *testing.T) {
	const hosts = 1000
	v := oracle.NewSurvey(manyHosts(hosts))
	if n := len(v.Nodes()); n != hosts {
		t.Fatalf("%d hosts", n)
	}
	for i := 0; i < hosts; i += 100 {
		set := model.Settings{Node: v.Nodes()[i]}
		n := v.Network(set)
		if len(n.Routes) != 3*(hosts-1)+2 || len(n.Neighbours) != 4*(hosts-1) || len(n.Devices) != 2 {
			t.Errorf("%s: %d routes, %d neighbours, %d devices", set.Node, len(n.Routes), len(n.Neighbours), len(n.Devices))
		}
		if j := v.Journeys(set, ""); len(j) != 2*(hosts-1) {
			t.Errorf("%s: %d ways", set.Node, len(j))
		}
		if j := v.Journeys(set, "h0001"); len(j) != 2 || j[0].To != "h0001" {
			t.Errorf("%s: ways %+v", set.Node, j)
		}
	}
}

// BenchmarkSurvey is one host of 1,000.
func BenchmarkSurvey(b *testing.B) {
	v := oracle.NewSurvey(manyHosts(1000))
	for b.Loop() {
		v.Network(model.Settings{Node: "h0500"})
		v.Journeys(model.Settings{Node: "h0500"}, "")
	}
}
