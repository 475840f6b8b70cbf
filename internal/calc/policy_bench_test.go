package calc

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
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
	snapshotBench(b, func() [][]model.Event { return customers(1000, 100, 16) })
}

func BenchmarkIsolatedCustomers10k(b *testing.B) {
	snapshotBench(b, func() [][]model.Event { return customers(10_000, 100, 16) })
}

func BenchmarkIsolatedCustomers100k(b *testing.B) {
	snapshotBench(b, func() [][]model.Event { return customers(100_000, 100, 16) })
}

func BenchmarkDistinctCustomers1k(b *testing.B) {
	snapshotBench(b, func() [][]model.Event { return customers(1000, 100, 1<<62) })
}

func BenchmarkDistinctCustomers10k(b *testing.B) {
	snapshotBench(b, func() [][]model.Event { return customers(10_000, 100, 1<<62) })
}

func BenchmarkDistinctCustomers100k(b *testing.B) {
	snapshotBench(b, func() [][]model.Event { return customers(100_000, 100, 1<<62) })
}

// snapshotBench reports CPU of this process, so of its garbage collector too:
// what the core took, and all with the making of what it is told, as the figure
// of Calico's agent has it. It reports the heap that is left when nobody but the
// core holds on to what it was told. B/op and allocs/op are of the core and of
// reading whom policies select, which is the calculation's in Calico's agent.
func snapshotBench(b *testing.B, build func() [][]model.Event) {
	b.ReportAllocs()
	var cpu time.Duration
	var core *Core
	begin := processCPU(b)
	batches := build()
	policies, texts := unread(batches)
	building := processCPU(b) - begin
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		core = New(model.Settings{Node: "local"})
		runtime.GC()
		b.StartTimer()
		begin := processCPU(b)
		for i, p := range policies {
			p.Selects = mustSelector(texts[i])
		}
		for _, batch := range batches {
			core.Apply(batch)
		}
		cpu += processCPU(b) - begin
	}
	b.StopTimer()
	b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/op")
	b.ReportMetric((building + cpu/time.Duration(b.N)).Seconds(), "all-cpu-s/op")
	batches, policies, texts = nil, nil, nil
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

// unread makes policies forget whom they select, and returns the texts of that
// as a person may have written them.
func unread(batches [][]model.Event) (policies []*model.Policy, texts []string) {
	for _, batch := range batches {
		for _, e := range batch {
			if p, ok := e.Value.(*model.Policy); ok {
				policies, texts = append(policies, p), append(texts, strings.ReplaceAll(p.Selects.String(), `"`, "'"))
				p.Selects = selector.Selector{}
			}
		}
	}
	return policies, texts
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

// customers is n namespaces with one pod each. A policy lets the pod be reached
// from its own namespace only, and reach that and DNS. Pods have 15 labels: five
// with an identity, one with a tenant, eight with two to five values, and one
// that all have. Namespaces have three, their name and an identity among them.
// The benchmark that Calico's agent was measured by means identities to be each
// pod's own, but makes only 16 values: so many there are at most here too. Some
// pods all over are local.
func customers(n, local, words int) [][]model.Event {
	var c counter
	var policies, profiles, remoteEndpoints, localEndpoints []model.Event
	stride := max(1, n/local)
	for i := range n {
		ns := fmt.Sprint("customer-", i)
		id := model.ID{Kind: model.KindProfile, Name: "kns." + ns}
		profiles = append(profiles, model.Event{ID: id, Value: &model.Profile{Name: id.Name, Labels: wired(map[string]string{
			"pcns.projectcalico.org/name": ns, "namespace-id": word(i%words, 20), "production": fmt.Sprint(i%2 == 0),
		})}})
		policies = append(policies, isolation(ns))
		id = model.ID{Kind: model.KindWorkload, Namespace: apart(ns), Name: fmt.Sprintf("app-%09x-%05x", i*7+3, uint16(i*17+5))}
		w := &model.Workload{
			ID: id, Node: "remote", Interface: fmt.Sprintf("cali%x", i), Addrs: []netip.Addr{c.addr()},
			Labels: wired(customerLabels(i, words)), Profiles: []string{"kns." + ns},
		}
		if len(localEndpoints) < local && i%stride == 0 {
			w.Node = "local"
			localEndpoints = append(localEndpoints, model.Event{ID: id, Value: w})
		} else {
			remoteEndpoints = append(remoteEndpoints, model.Event{ID: id, Value: w})
		}
	}
	return [][]model.Event{policies, profiles, remoteEndpoints, localEndpoints}
}

// isolation is the policy of a customer's namespace.
func isolation(ns string) model.Event {
	inside := "pcns.projectcalico.org/name == '" + ns + "'"
	to := allowFrom(inside)
	to.Source, to.Destination = to.Destination, to.Source
	dns := model.Rule{Action: model.Allow, Families: model.IPv4, Protocol: 17, Destination: model.Entity{
		Nets: []netip.Prefix{netip.MustParsePrefix("10.96.0.10/32")}, Ports: []model.PortMatch{{Min: 53, Max: 53}}}}
	id := model.PolicyID("NetworkPolicy", ns, "isolation")
	return model.Event{ID: id, Value: &model.Policy{
		ID: id, APIKind: apart("NetworkPolicy"), Name: apart("isolation"), Namespace: ns, Title: id.String(), Tier: apart("default"),
		Selects: mustSelector(inside), Ingress: model.Direction{Applies: true, Rules: []model.Rule{allowFrom(inside)}},
		Egress: model.Direction{Applies: true, Rules: []model.Rule{to, dns}},
	}}
}

// customerLabels are those of the i-th customer's pod.
func customerLabels(i, words int) map[string]string {
	return map[string]string{
		"pod-id": word((5*i)%words, 20), "instance-id": word((5*i+1)%words, 20), "short-id": word((5*i+2)%words, 10),
		"config-hash": word((5*i+3)%words, 20), "version-tag": word((5*i+4)%words, 8),
		"tenant-id": word(i%5000%words, 10), "managed-by": "saas-controller",
		"enabled": fmt.Sprint(i % 2), "debug": fmt.Sprint(i / 2 % 2), "canary": fmt.Sprint(i / 4 % 2), "managed": fmt.Sprint(i / 8 % 2),
		"environment": []string{"dev", "staging", "prod"}[i%3], "tier": []string{"frontend", "backend", "middleware", "data"}[i%4],
		"region": []string{"us-east", "us-west", "eu-west", "ap-south"}[i%4],
		"team":   []string{"platform", "payments", "identity", "growth", "infra"}[i%5],
	}
}

// word is n characters that look like chance, the same for the same seed.
func word(seed, n int) string {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(seed)))
	return hex.EncodeToString(sum[:])[:n]
}

// wired returns labels as they come from a datastore: each text on its own,
// in a map that was read from JSON.
func wired(labels map[string]string) map[string]string {
	var out map[string]string
	raw, err := json.Marshal(labels)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		panic(err)
	}
	return out
}
