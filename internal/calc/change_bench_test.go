package calc

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/brindle-net/brindle/internal/model"
)

// busy is a host with 250 workloads under policies of five rules each, every
// policy on a tenth of them, in a cluster with 5,000 other workloads and a
// network set of 10,000 networks.
func busy(policies int) []model.Event {
	var events []model.Event
	for i := range 5250 {
		host := "remote"
		if i < 250 {
			host = "local"
		}
		events = append(events, numbered(i, host, map[string]string{
			"group": fmt.Sprint(i % 10), "role": fmt.Sprint("r", i%100), "pod": fmt.Sprint(i)}))
	}
	set := &model.NetworkSet{ID: model.ID{Kind: model.KindNetworkSet, Name: "big"}, Labels: map[string]string{"big": "yes"}}
	for i := range 10_000 {
		set.Nets = append(set.Nets, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, byte(i >> 8), byte(i), 0}), 24))
	}
	events = append(events, model.Event{ID: set.ID, Value: set})
	for i := range policies {
		events = append(events, busyPolicy(i, 0))
	}
	return events
}

func numbered(i int, host string, labels map[string]string) model.Event {
	id := model.ID{Kind: model.KindWorkload, Namespace: "default", Name: fmt.Sprint("w", i)}
	return model.Event{ID: id, Value: &model.Workload{
		ID: id, Node: host, Interface: fmt.Sprintf("cali%x", i), Labels: labels,
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})},
	}}
}

// busyPolicy is the i-th policy; versions differ in a port.
func busyPolicy(i, version int) model.Event {
	var rules []model.Rule
	for j := range 4 {
		r := allowFrom(fmt.Sprintf("role == 'r%d'", (i*4+j)%100))
		r.Protocol = 6
		r.Destination.Ports = []model.PortMatch{{Min: 80, Max: uint16(80 + version)}}
		rules = append(rules, r)
	}
	return globalPolicy(fmt.Sprint("p", i), fmt.Sprintf("group == '%d'", i%10), append(rules, allowFrom("has(big)"))...)
}

// BenchmarkPolicyChange is one policy with other rules, whose sets are in
// use. It must not grow with the number of policies.
func BenchmarkPolicyChange(b *testing.B) {
	for _, policies := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(policies), func(b *testing.B) {
			c := New(model.Settings{Node: "local"})
			c.Apply(busy(policies))
			versions := [][]model.Event{{busyPolicy(5, 1)}, {busyPolicy(5, 2)}}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if u := c.Apply(versions[i%2]); len(u.Policy.Rules.Set) != 1 || len(u.Policy.Sets) != 0 || !u.Policy.Endpoints.Empty() {
					b.Fatalf("%+v", u.Policy)
				}
			}
		})
	}
}

// BenchmarkPolicyCreate is one policy that comes and goes, on a tenth of the
// local workloads.
func BenchmarkPolicyCreate(b *testing.B) {
	for _, policies := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(policies), func(b *testing.B) {
			c := New(model.Settings{Node: "local"})
			c.Apply(busy(policies))
			e := globalPolicy("new", "group == '3'", allowFrom("has(big)"))
			steps := [][]model.Event{{e}, {{ID: e.ID}}}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if u := c.Apply(steps[i%2]); len(u.Policy.Endpoints.Set) != 25 {
					b.Fatalf("%+v", u.Policy)
				}
			}
		})
	}
}

// BenchmarkFirstUse is the first rule that refers to the set of 10,000, and
// its end.
func BenchmarkFirstUse(b *testing.B) {
	c := New(model.Settings{Node: "local"})
	c.Apply(busy(0))
	e := globalPolicy("new", "group == '3'", allowFrom("has(big)"))
	steps := [][]model.Event{{e}, {{ID: e.ID}}}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if u := c.Apply(steps[i%2]); len(u.Policy.Sets) != 1 {
			b.Fatalf("%+v", u.Policy)
		}
	}
}

// BenchmarkRemoteWorkloadInSets is one remote workload whose labels, never the
// same twice in a row, put it in a tenth of 1,000 sets in use.
func BenchmarkRemoteWorkloadInSets(b *testing.B) {
	for _, total := range []int{5000, 50_000} {
		b.Run(fmt.Sprint(total), func(b *testing.B) {
			c := New(model.Settings{Node: "local"})
			var events []model.Event
			labels := func(i, version int) map[string]string {
				return map[string]string{"team": fmt.Sprint("t", i%10), "pod": fmt.Sprint(i, "-", version)}
			}
			for i := range total {
				events = append(events, numbered(i, "remote", labels(i, 0)))
			}
			events = append(events, numbered(total, "local", map[string]string{"app": "here"}))
			for i := range 1000 { // distinct selectors, each of a tenth of the workloads
				events = append(events, globalPolicy(fmt.Sprint("p", i), "has(app)",
					allowFrom(fmt.Sprintf("team == 't%d' && pod != 'x%d'", i%10, i))))
			}
			c.Apply(events)
			var changes [][]model.Event
			for i := range 64 {
				changes = append(changes, []model.Event{numbered(1, "remote", labels(1+i%7, i))})
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.Apply(changes[i%64])
			}
			if n := len(c.State().Policy.Sets); n != 1000 {
				b.Fatalf("%d sets", n)
			}
		})
	}
}

// BenchmarkLocalWorkloadUnderPolicies is one workload here that comes and
// goes, with 10,000 policies of which a tenth selects it.
func BenchmarkLocalWorkloadUnderPolicies(b *testing.B) {
	for _, policies := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(policies), func(b *testing.B) {
			c := New(model.Settings{Node: "local"})
			c.Apply(busy(policies))
			e := numbered(6000, "local", map[string]string{"group": "3", "role": "r3", "pod": "new"})
			steps := [][]model.Event{{e}, {{ID: e.ID}}}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.Apply(steps[i%2])
			}
		})
	}
}
