package calc

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// The shapes of the benchmarks of a start are those in which Calico's agent
// has been measured (its calculation graph's own benchmarks), so that numbers
// can be compared. They are told kind by kind, local endpoints last.

func BenchmarkSnapshot200Local10kTotal1000NetsetPols(b *testing.B) {
	snapshotBench(b, func() [][]model.Event { return mixedCluster(10_000, 0, 1000) })
}

func BenchmarkSnapshot200Local10kTotal10000NetsetPols(b *testing.B) {
	snapshotBench(b, func() [][]model.Event { return mixedCluster(10_000, 0, 10_000) })
}

func BenchmarkSnapshot200Local250kTotal10000TagPols(b *testing.B) {
	snapshotBench(b, func() [][]model.Event { return mixedCluster(250_000, 10_000, 0) })
}

func BenchmarkIsolatedCustomers1k(b *testing.B) {
	snapshotBench(b, func() [][]model.Event { return customers(1000, 100) })
}

func BenchmarkIsolatedCustomers10k(b *testing.B) {
	snapshotBench(b, func() [][]model.Event { return customers(10_000, 100) })
}

func BenchmarkIsolatedCustomers100k(b *testing.B) {
	snapshotBench(b, func() [][]model.Event { return customers(100_000, 100) })
}

// snapshotBench reports the CPU of this process, so of its garbage collector
// too, and the heap that is left when nobody but the core holds on to what it
// was told. B/op and allocs/op are of the core alone.
func snapshotBench(b *testing.B, build func() [][]model.Event) {
	b.ReportAllocs()
	var cpu time.Duration
	var core *Core
	batches := build()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		core = New(model.Settings{Node: "local"})
		runtime.GC()
		b.StartTimer()
		begin := processCPU(b)
		for _, batch := range batches {
			core.Apply(batch)
		}
		cpu += processCPU(b) - begin
	}
	b.StopTimer()
	b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/op")
	batches = nil
	p := core.State().Policy
	b.ReportMetric(float64(len(p.Sets)), "sets")
	b.ReportMetric(float64(len(p.Rules)), "lists")
	if len(p.Endpoints) == 0 {
		b.Fatal("no endpoint")
	}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "heap-MB")
	runtime.KeepAlive(core)
}

func processCPU(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func mustSelector(text string) selector.Selector {
	s, err := selector.Parse(text)
	if err != nil {
		panic(err)
	}
	return s
}

// apart copies a string, as what was read from a datastore is in no other
// object.
func apart(s string) string { return strings.Clone(s) }

// counter makes addresses and labels that go on from one endpoint to the next.
type counter struct{ addrs, labels int }

func (c *counter) addr() netip.Addr {
	c.addrs++
	return netip.AddrFrom4([4]byte{10, byte(c.addrs >> 16), byte(c.addrs >> 8), byte(c.addrs)})
}

// markers are 31 names of labels, two of them twice.
func markers() []string {
	base := []string{"FOO_BAR", "FOO_BAR", "BIFF_BOP", "calico/FizzBuzz", "calico/BoffBip", "calico/Bazzle",
		"calico/Razzle", "calico/DoopDeeDoo", "calico/SOME_LABEL", "calico/BORED_NOW", "MyMarkerLabel"}
	out := append([]string{}, base...)
	for _, prefix := range []string{"x", "yx"} {
		for _, m := range base[1:] {
			out = append(out, prefix+m)
		}
	}
	return out
}

func (c *counter) endpoints(n int, host string) []model.Event {
	out := make([]model.Event, n)
	marks := markers()
	for i := range out {
		c.labels++
		labels := map[string]string{}
		for _, in := range []int{10, 11, 20, 30, 40} {
			labels[fmt.Sprint("one-in-", in)] = fmt.Sprint("value-", c.labels%in)
		}
		labels[apart(marks[c.labels%len(marks)])] = apart("true")
		id := model.ID{Kind: model.KindWorkload, Name: fmt.Sprintf("%s-wep-%d", host, i)}
		out[i] = model.Event{ID: id, Value: &model.Workload{
			ID: id, Node: host, Interface: fmt.Sprintf("cali%x", i), Addrs: []netip.Addr{c.addr()},
			Labels: labels, Profiles: []string{fmt.Sprint("kns.namespace-", i%100)},
		}}
	}
	return out
}

func globalPolicy(name, selects string, ingress ...model.Rule) model.Event {
	id := model.PolicyID("GlobalNetworkPolicy", "", name)
	return model.Event{ID: id, Value: &model.Policy{
		ID: id, APIKind: "GlobalNetworkPolicy", Name: name, Title: id.String(), Tier: "default",
		Selects: mustSelector(selects), Ingress: model.Direction{Applies: true, Rules: ingress},
	}}
}

func allowFrom(text string) model.Rule {
	return model.Rule{
		Action: model.Allow, Families: model.IPv4 | model.IPv6,
		Source: model.Entity{Peers: selector.Peers{Restricted: true, Selector: mustSelector(text)}},
	}
}

// mixedCluster has remote endpoints, 200 local ones, policies of five rules by
// label, and policies of one rule with a network set each, of 1 to 1,000
// addresses.
func mixedCluster(remote, tagPolicies, netsetPolicies int) [][]model.Event {
	var c counter
	var policies, profiles, netsets []model.Event
	marks := markers()
	for i := range tagPolicies {
		var rules []model.Rule
		for j := range 5 {
			rules = append(rules, allowFrom("has("+marks[(i+j)%len(marks)]+")"))
		}
		policies = append(policies, globalPolicy(fmt.Sprint("tag-pol-", i), "has("+marks[i%len(marks)]+")", rules...))
	}
	for i := range 100 {
		name := fmt.Sprint("namespace-", i)
		id := model.ID{Kind: model.KindProfile, Name: "kns." + name}
		profiles = append(profiles, model.Event{ID: id, Value: &model.Profile{
			Name: id.Name, Labels: map[string]string{"pcns.projectcalico.org/name": name},
		}})
	}
	endpoints := c.endpoints(remote, "remote")
	sizes := []int{1, 1, 1, 1, 2, 3, 4, 5, 100, 1000}
	next := netip.MustParseAddr("10.0.0.1")
	for i := range netsetPolicies {
		name := fmt.Sprint("network-set-", i)
		set := &model.NetworkSet{ID: model.ID{Kind: model.KindNetworkSet, Name: name}, Labels: map[string]string{"network-set-name": name}}
		for range sizes[i%len(sizes)] {
			set.Nets = append(set.Nets, single(next))
			next = next.Next()
		}
		netsets = append(netsets, model.Event{ID: set.ID, Value: set},
			globalPolicy("network-set-pol-"+fmt.Sprint(i), "all()", allowFrom("network-set-name == '"+name+"'")))
	}
	return [][]model.Event{policies, profiles, endpoints, netsets, c.endpoints(200, "local")}
}

// customers is a namespace each with two frontends, two backends and a
// database, a policy for each of the three, and monitoring that reaches all.
// Some pods of them all over are local.
func customers(n, local int) [][]model.Event {
	var c counter
	var policies, profiles, remoteEndpoints, localEndpoints []model.Event
	tcp := func(port uint16, r model.Rule) model.Rule {
		r.Protocol = 6
		r.Destination.Ports = []model.PortMatch{{Min: port, Max: port}}
		return r
	}
	to := func(text string) model.Rule {
		r := allowFrom(text)
		r.Source, r.Destination = r.Destination, r.Source
		return r
	}
	const inNS = "pcns.projectcalico.org/name == "
	dns := model.Rule{Action: model.Allow, Families: model.IPv4, Protocol: 17, Destination: model.Entity{
		Nets: []netip.Prefix{netip.MustParsePrefix("10.96.0.10/32")}, Ports: []model.PortMatch{{Min: 53, Max: 53}}}}
	namespace := func(name string) {
		id := model.ID{Kind: model.KindProfile, Name: "kns." + name}
		profiles = append(profiles, model.Event{ID: id, Value: &model.Profile{
			Name: id.Name, Labels: map[string]string{apart("pcns.projectcalico.org/name"): apart(name)}}})
	}
	endpoint := func(host, ns, name, role, app string) model.Event {
		id := model.ID{Kind: model.KindWorkload, Namespace: apart(ns), Name: name}
		return model.Event{ID: id, Value: &model.Workload{
			ID: id, Node: host, Interface: fmt.Sprintf("cali%x", c.addrs), Addrs: []netip.Addr{c.addr()},
			Labels:   map[string]string{apart("role"): apart(role), apart("app"): apart(app), apart("customer"): apart(ns)},
			Profiles: []string{"kns." + ns},
		}}
	}
	stride := max(1, 5*n/(local-2))
	for i := range n {
		ns := fmt.Sprint("customer-", i)
		mine := inNS + "'" + ns + "' && role == "
		namespace(ns)
		policy := func(role string, ingress, egress []model.Rule) {
			ingress = append(ingress, tcp(9090, allowFrom(inNS+"'system' && role == 'monitoring'")))
			id := model.PolicyID("NetworkPolicy", ns, role)
			policies = append(policies, model.Event{ID: id, Value: &model.Policy{
				ID: id, APIKind: apart("NetworkPolicy"), Name: apart(role), Namespace: ns, Title: id.String(), Tier: apart("default"),
				Selects: mustSelector(mine + "'" + role + "'"), Ingress: model.Direction{Applies: true, Rules: ingress},
				Egress: model.Direction{Applies: true, Rules: append(egress, dns)},
			}})
		}
		policy("frontend", nil, []model.Rule{tcp(8080, to(mine+"'backend'"))})
		policy("backend", []model.Rule{tcp(8080, allowFrom(mine+"'frontend'"))}, []model.Rule{tcp(5432, to(mine+"'database'"))})
		policy("database", []model.Rule{tcp(5432, allowFrom(mine+"'backend'"))}, nil)
		for j, pod := range [][2]string{{"frontend", "web"}, {"frontend", "web"}, {"backend", "api"}, {"backend", "api"}, {"database", "db"}} {
			name := fmt.Sprintf("%s-%09x-%05x", pod[0], i*7+3, uint16(j*13+i*17+5))
			if len(localEndpoints) < local-2 && (5*i+j)%stride == 0 {
				localEndpoints = append(localEndpoints, endpoint("local", ns, name, pod[0], pod[1]))
			} else {
				remoteEndpoints = append(remoteEndpoints, endpoint("remote", ns, name, pod[0], pod[1]))
			}
		}
	}
	namespace("system")
	for i := range 10 {
		host := "remote"
		if i < 2 {
			host = "local"
		}
		e := endpoint(host, "system", fmt.Sprint("prometheus-", i), "monitoring", "prometheus")
		if i < 2 {
			localEndpoints = append(localEndpoints, e)
		} else {
			remoteEndpoints = append(remoteEndpoints, e)
		}
	}
	monitoring := globalPolicy("system-monitoring-egress", inNS+"'system' && role == 'monitoring'")
	v := monitoring.Value.(*model.Policy)
	v.Ingress, v.Egress = model.Direction{}, model.Direction{Applies: true, Rules: []model.Rule{tcp(9090, to("has(role)")), dns}}
	return [][]model.Event{append(policies, monitoring), profiles, remoteEndpoints, localEndpoints}
}
