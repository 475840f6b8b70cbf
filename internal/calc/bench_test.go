package calc

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/brindle-net/brindle/internal/model"
)

// cluster is a snapshot of a cluster with workloads dealt over hosts, a block
// for each 64 of them, policies that select few, and a profile.
func cluster(workloads, hosts int) []model.Event {
	var events []model.Event
	for h := range hosts {
		addr := netip.AddrFrom4([4]byte{172, 16, byte(h >> 8), byte(h)})
		events = append(events, nodeEvent(&model.Node{Name: hostName(h), Addr4: netip.PrefixFrom(addr, 12)}))
	}
	for w := range workloads {
		events = append(events, remoteWorkload(w, hosts, 0))
	}
	for b := range workloads / 64 {
		events = append(events, remoteBlock(b, hosts, 0)...)
	}
	for p := range 100 {
		id := model.PolicyID("GlobalNetworkPolicy", "", fmt.Sprint("p", p))
		events = append(events, model.Event{ID: id, Value: &model.Policy{ID: id, Title: id.String()}})
	}
	return append(events, poolEvent(&model.Pool{Name: "p", CIDR: pfx("10.0.0.0/8")}))
}

func hostName(h int) string { return fmt.Sprint("host-", h) }

func remoteWorkload(w, hosts, version int) model.Event {
	addr := netip.AddrFrom4([4]byte{10, byte(w >> 16), byte(w >> 8), byte(w)})
	id := model.ID{Kind: model.KindWorkload, Namespace: "default", Name: fmt.Sprint("w", w)}
	return model.Event{ID: id, Value: &model.Workload{
		ID: id, Node: hostName(w % hosts), Interface: fmt.Sprintf("cali%x", w), Addrs: []netip.Addr{addr},
		Labels: map[string]string{"app": "a", "version": fmt.Sprint(version)},
	}}
}

func remoteBlock(b, hosts, version int) []model.Event {
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(b >> 10), byte(b >> 2), byte(b << 6)}), 26)
	host := hostName(b % hosts)
	uses := []model.Use{{Addr: p.Addr(), Node: host, Handle: fmt.Sprint(version)}}
	return []model.Event{
		{ID: model.AffinityID(host, p), Value: &model.Affinity{Host: host, CIDR: p, Confirmed: true}},
		{ID: model.BlockID(p), Value: &model.Block{CIDR: p, Host: host, Uses: uses}},
	}
}

// BenchmarkRemoteWorkloadChange is one change of a workload on another host,
// and of the block that its address is in, with 100 workloads here. Its cost
// must not grow with the cluster.
func BenchmarkRemoteWorkloadChange(b *testing.B) {
	for _, size := range []struct {
		name             string
		workloads, hosts int
	}{{"1k", 1000, 10}, {"100k", 100_000, 1000}} {
		b.Run(size.name, func(b *testing.B) {
			c := New(model.Settings{Node: hostName(0)})
			c.Apply(cluster(size.workloads, size.hosts))
			if n := len(c.State().Links); n != 100 {
				b.Fatalf("%d local workloads", n)
			}
			var changes [][]model.Event
			for i := range 64 {
				changes = append(changes, append(remoteBlock(1, size.hosts, i), remoteWorkload(1, size.hosts, i)))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if u := c.Apply(changes[i%64]); !u.Notices.Empty() || !u.Routes.Empty() {
					b.Fatalf("a remote change changed this host: %+v", u)
				}
			}
		})
	}
}

// BenchmarkLocalWorkloadChange is one change of a workload here.
func BenchmarkLocalWorkloadChange(b *testing.B) {
	for _, size := range []struct {
		name             string
		workloads, hosts int
	}{{"1k", 1000, 10}, {"100k", 100_000, 1000}} {
		b.Run(size.name, func(b *testing.B) {
			c := New(model.Settings{Node: hostName(0)})
			c.Apply(cluster(size.workloads, size.hosts))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.Apply([]model.Event{remoteWorkload(0, size.hosts, i)})
			}
		})
	}
}

// BenchmarkSnapshot is the first batch of a large cluster.
func BenchmarkSnapshot(b *testing.B) {
	events := cluster(100_000, 1000)
	b.ReportAllocs()
	for b.Loop() {
		New(model.Settings{Node: hostName(0)}).Apply(events)
	}
}
