package nft

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
)

// host is one with many workloads under many policies: each is on a tenth of
// the workloads, and has four rules by sets that others ask for too, and one by
// a set of many members.
type host struct{ workloads, policies, members int }

const hostGroups, hostSets = 10, 100

func (h host) policy() *desired.Policy {
	p := desired.NewPolicy()
	address := func(net byte, i int) netip.Addr { return netip.AddrFrom4([4]byte{10, net, byte(i >> 8), byte(i)}) }
	big := &desired.Set{Members: map[desired.Member]struct{}{}}
	for i := range h.members {
		big.Members[desired.Member{Prefix: netip.PrefixFrom(address(9, i), 32)}] = struct{}{}
	}
	p.Sets["s:big"] = big
	for i := range hostSets {
		s := &desired.Set{Members: map[desired.Member]struct{}{}}
		for j := i; j < h.workloads; j += hostSets {
			s.Members[desired.Member{Prefix: netip.PrefixFrom(address(65, j), 32)}] = struct{}{}
		}
		p.Sets[desired.SetID(fmt.Sprint("s:", i))] = s
	}
	profile := desired.RulesID{Owner: "Profile kns.default", Direction: desired.Egress}
	p.Rules[profile] = &desired.RuleList{Rules: []desired.PolicyRule{{Action: desired.Allow, IPv4: true, IPv6: true}}}
	tiers := [hostGroups]desired.Tier{}
	for i := range h.policies {
		id := h.id(i)
		p.Rules[id] = h.rules(i)
		t := &tiers[i%hostGroups]
		t.Name, t.Policies = "default", append(t.Policies, id.Owner)
	}
	for i := range h.workloads {
		p.Endpoints[fmt.Sprint("cali", i)] = &desired.Endpoint{
			Name: fmt.Sprint("WorkloadEndpoint default/", i), MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", i>>8, i&255),
			Addrs: []netip.Addr{address(65, i)}, Ingress: []desired.Tier{tiers[i%hostGroups]}, Profiles: []string{profile.Owner},
		}
	}
	return &p
}

func (h host) id(i int) desired.RulesID {
	return desired.RulesID{Owner: fmt.Sprint("GlobalNetworkPolicy p", i), Direction: desired.Ingress}
}

func (h host) rules(i int, more ...desired.PolicyRule) *desired.RuleList {
	l := &desired.RuleList{}
	for j := range 5 {
		r := desired.PolicyRule{Action: desired.Allow, IPv4: true, IPv6: true, Protocol: 6, Index: j}
		r.Source.Sets = []desired.SetID{desired.SetID(fmt.Sprint("s:", (i*4+j)%hostSets))}
		if j == 4 {
			r.Source.Sets[0] = "s:big"
		}
		r.Destination.Ports = []desired.PortRange{{Min: uint16(80 + i), Max: uint16(80 + i)}}
		l.Rules = append(l.Rules, r)
	}
	l.Rules = append(l.Rules, more...)
	return l
}

// enforced puts the host's policy in force, until the returned function is called.
func (h host) enforced(b *testing.B) (*Driver, *desired.Policy, func()) {
	ns, err := netns.New()
	if err != nil {
		b.Skip(err)
	}
	d, want := openWith(b, ns, compiled()), h.policy()
	mustSync(b, d, want, nil)
	return d, want, func() { ns.Close() }
}

// askFor is a rule more that asks for a set.
func askFor(set desired.SetID) desired.PolicyRule {
	r := desired.PolicyRule{Action: desired.Allow, IPv4: true, IPv6: true, Protocol: 17, Index: 5}
	r.Source.Sets, r.Destination.Ports = []desired.SetID{set}, []desired.PortRange{{Min: 9999, Max: 9999}}
	return r
}

// One policy of a thousand loses a rule, and gets it back.
func BenchmarkOnePolicy(b *testing.B) {
	h := host{250, 1000, 10_000}
	d, want, end := h.enforced(b)
	defer end()
	more := askFor("s:0")
	for i := 0; b.Loop(); i++ {
		p := &desired.PolicyPatch{}
		l := h.rules(5)
		if i%2 == 0 {
			l = h.rules(5, more)
		}
		p.Rules.Set = map[desired.RulesID]*desired.RuleList{h.id(5): l}
		p.Play(*want)
		mustSync(b, d, want, p)
	}
}

// A rule begins to ask for a set of many members that others ask for too, under
// another name, and ends.
func BenchmarkFirstUse(b *testing.B) {
	h := host{250, 1000, 10_000}
	d, want, end := h.enforced(b)
	defer end()
	more := askFor("s:other")
	other := desired.SetPatch{}
	for m := range want.Sets["s:big"].Members {
		other.Add = append(other.Add, m)
	}
	for b.Loop() {
		p := &desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{"s:other": other}}
		p.Rules.Set = map[desired.RulesID]*desired.RuleList{h.id(5): h.rules(5, more)}
		p.Play(*want)
		mustSync(b, d, want, p)
		b.StopTimer()
		p = &desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{"s:other": {Gone: true}}}
		p.Rules.Set = map[desired.RulesID]*desired.RuleList{h.id(5): h.rules(5)}
		p.Play(*want)
		mustSync(b, d, want, p)
		b.StartTimer()
	}
}

// A thousand policies come, five at a time.
func BenchmarkManyPolicies(b *testing.B) {
	const atOnce = 5
	for b.Loop() {
		b.StopTimer()
		h := host{250, 1000, 10_000}
		all := h.policy()
		d, want, end := host{250, 0, 10_000}.enforced(b)
		before := processorTime(b)
		b.StartTimer()
		for i := 0; i < h.policies; i += atOnce {
			p := &desired.PolicyPatch{}
			p.Rules.Set, p.Endpoints.Set = map[desired.RulesID]*desired.RuleList{}, map[string]*desired.Endpoint{}
			for n := i; n < i+atOnce; n++ {
				p.Rules.Set[h.id(n)] = all.Rules[h.id(n)]
				for w := n % hostGroups; w < h.workloads; w += hostGroups {
					name := fmt.Sprint("cali", w)
					e := *all.Endpoints[name]
					e.Ingress = []desired.Tier{{Name: "default", Policies: e.Ingress[0].Policies[:n/hostGroups+1]}}
					p.Endpoints.Set[name] = &e
				}
			}
			p.Play(*want)
			mustSync(b, d, want, p)
		}
		b.StopTimer()
		b.ReportMetric(float64((processorTime(b) - before).Milliseconds()), "cpu-ms/op")
		end()
		b.StartTimer()
	}
}

func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
