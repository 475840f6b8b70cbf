package rules

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
)

// large is a host under many policies: endpoints, policies of five rules each,
// of which one refers to a set of many members, and remote workloads that are
// members of a few sets. distinct: each policy has sets of its own.
type large struct {
	endpoints, policies, remotes, members int
	distinct                              bool
}

func (l large) policy() *desired.Policy {
	p := desired.NewPolicy()
	big := &desired.Set{Kind: desired.AddressSet, Members: map[desired.Member]struct{}{}}
	for i := range l.members {
		big.Members[member(20<<24|i)] = struct{}{}
	}
	p.Sets["s:big"] = big
	sets := 10
	if l.distinct {
		sets = l.policies
	}
	for i := range sets {
		s := &desired.Set{Kind: desired.AddressSet, Members: map[desired.Member]struct{}{}}
		for j := range 1 + l.remotes/sets {
			s.Members[member(10<<24|(i+j*sets)%max(1, l.remotes))] = struct{}{}
		}
		p.Sets[desired.SetID(fmt.Sprintf("s:%d", i))] = s
	}
	var owners []string
	for i := range l.policies {
		owner := fmt.Sprintf("NetworkPolicy default/p%d", i)
		owners = append(owners, owner)
		p.Rules[desired.RulesID{Owner: owner, Direction: desired.Ingress}] = l.rules(i, sets)
	}
	p.Rules[desired.RulesID{Owner: "Profile kns.default", Direction: desired.Egress}] = list(both(desired.Allow))
	tiers := []desired.Tier{{Name: "default", Policies: owners}}
	for i := range l.endpoints {
		p.Endpoints[fmt.Sprintf("cali%d", i)] = &desired.Endpoint{
			MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", i/256, i%256), Ingress: tiers, Profiles: []string{"Profile kns.default"},
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i / 256), byte(i)})},
		}
	}
	return &p
}

func member(n int) desired.Member {
	a := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	return desired.Member{Prefix: netip.PrefixFrom(a, 32)}
}

func (l large) rules(i, sets int) *desired.RuleList {
	var rules []desired.PolicyRule
	for j := range 5 {
		r := both(desired.Allow)
		r.Protocol = 6
		r.Source.Sets = []desired.SetID{desired.SetID(fmt.Sprintf("s:%d", (i+j)%sets))}
		if j == 4 {
			r.Source.Sets[0] = "s:big"
		}
		r.Destination.Ports = []desired.PortRange{{Min: uint16(1000 + i), Max: uint16(1000 + i)}}
		rules = append(rules, r)
	}
	return list(rules...)
}

func BenchmarkUpdate(b *testing.B) {
	for name, l := range map[string]large{
		"10policies":   {250, 10, 500, 10_000, false},
		"1000policies": {250, 1000, 500, 10_000, false},
		"1000distinct": {250, 1000, 2000, 10_000, true},
	} {
		for _, compiled := range []bool{false, true} {
			cfg := testConfig()
			cfg.Compiled = compiled
			title := fmt.Sprintf("%s/compiled=%v/", name, compiled)
			p := l.policy()
			b.Run(title+"all", func(b *testing.B) {
				var builder *Builder
				for b.Loop() {
					builder = New(cfg, p)
				}
				rows := 0
				for _, s := range builder.Program().Sets {
					rows += len(s.Elements)
				}
				b.ReportMetric(float64(rows), "elements")
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "MiB")
				runtime.KeepAlive(builder)
			})
			builder := New(cfg, p)
			b.Run(title+"policy", func(b *testing.B) { l.onePolicy(b, builder, p) })
			b.Run(title+"comes", func(b *testing.B) { l.policyComes(b, builder, p) })
			b.Run(title+"workload", func(b *testing.B) { l.oneWorkload(b, builder, p) })
		}
	}
}

func (l large) onePolicy(b *testing.B, builder *Builder, p *desired.Policy) {
	id := desired.RulesID{Owner: "NetworkPolicy default/p3", Direction: desired.Ingress}
	changed := 0
	for i := 0; b.Loop(); i++ {
		rules := l.rules(3, len(p.Sets)-1)
		rules.Rules[2].Destination.Ports[0] = desired.PortRange{Min: uint16(20000 + i%2), Max: uint16(20000 + i%2)}
		patch := desired.PolicyPatch{}
		patch.Rules.Set = map[desired.RulesID]*desired.RuleList{id: rules}
		patch.Play(*p)
		changed = sizeOf(builder.Update(p, &patch))
	}
	b.ReportMetric(float64(changed), "changed")
}

// policyComes adds a policy to all endpoints, or removes it.
func (l large) policyComes(b *testing.B, builder *Builder, p *desired.Policy) {
	id := desired.RulesID{Owner: "NetworkPolicy default/more", Direction: desired.Ingress}
	changed := 0
	without := p.Endpoints["cali0"].Ingress[0].Policies
	at := len(without) / 2
	with := append(append(append([]string{}, without[:at]...), id.Owner), without[at:]...)
	for i := 0; b.Loop(); i++ {
		patch := desired.PolicyPatch{}
		owners := with
		if i%2 == 1 {
			owners = without
			patch.Rules.Delete = []desired.RulesID{id}
		} else {
			patch.Rules.Set = map[desired.RulesID]*desired.RuleList{id: l.rules(l.policies, len(p.Sets)-1)}
		}
		tiers := []desired.Tier{{Name: "default", Policies: owners}}
		patch.Endpoints.Set = map[string]*desired.Endpoint{}
		for name, ep := range p.Endpoints {
			ep := *ep
			ep.Ingress = tiers
			patch.Endpoints.Set[name] = &ep
		}
		patch.Play(*p)
		changed = sizeOf(builder.Update(p, &patch))
	}
	b.ReportMetric(float64(changed), "changed")
}

func (l large) oneWorkload(b *testing.B, builder *Builder, p *desired.Policy) {
	changed := 0
	for i := 0; b.Loop(); i++ {
		m := []desired.Member{member(11<<24 | 7)}
		patch := desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{}}
		for s := range 10 {
			sp := desired.SetPatch{Add: m}
			if i%2 == 1 {
				sp = desired.SetPatch{Remove: m}
			}
			patch.Sets[desired.SetID(fmt.Sprintf("s:%d", s))] = sp
		}
		patch.Play(*p)
		changed = sizeOf(builder.Update(p, &patch))
	}
	b.ReportMetric(float64(changed), "changed")
}

func sizeOf(d Delta) int {
	n := len(d.Chains.Set) + len(d.Chains.Delete)
	for _, s := range d.Sets {
		n += len(s.Add) + len(s.Remove)
	}
	return n
}
