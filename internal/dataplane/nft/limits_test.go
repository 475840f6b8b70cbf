package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// crowd is a policy with a set of n single addresses and one of n networks
// that do not touch, of each family.
func crowd(n int) *desired.Policy {
	p := desired.NewPolicy()
	hosts := &desired.Set{Members: make(map[desired.Member]struct{}, n)}
	spans := &desired.Set{Members: make(map[desired.Member]struct{}, n)}
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if i%2 == 1 {
			a = netip.AddrFrom16([16]byte{0: 0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
		}
		hosts.Members[desired.Member{Prefix: netip.PrefixFrom(a, a.BitLen())}] = struct{}{}
		spans.Members[desired.Member{Prefix: crowdNet(i)}] = struct{}{}
	}
	p.Sets["s:hosts"], p.Sets["s:spans"] = hosts, spans
	id := desired.RulesID{Owner: "NetworkPolicy default/crowd", Direction: desired.Ingress}
	rule := desired.PolicyRule{Action: desired.Allow, IPv4: true, IPv6: true}
	other := rule
	rule.Source.Sets, other.Source.Sets, other.Index = []desired.SetID{"s:hosts"}, []desired.SetID{"s:spans"}, 1
	p.Rules[id] = &desired.RuleList{Rules: []desired.PolicyRule{rule, other}}
	p.Endpoints["cali1"] = &desired.Endpoint{
		Name: "WorkloadEndpoint default/a", Addrs: []netip.Addr{at4(1)},
		Ingress: []desired.Tier{{Name: "default", Policies: []string{id.Owner}}},
	}
	return &p
}

// crowdNet is the i-th network of the crowd, /26 or /122; between two of them
// is a gap.
func crowdNet(i int) netip.Prefix {
	if i%2 == 1 {
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 12: byte(i >> 16), 13: byte(i >> 8), 14: byte(i)}), 122)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{100 + byte(i>>16), byte(i >> 8), byte(i), 0}), 26)
}

// A set that fills many attributes arrives whole, and one member more or less
// is one element more or less.
func TestLargeSets(t *testing.T) {
	members := int(rounds(12000))
	ns := testenv.NetNS(t)
	d := open(t, ns)
	want := crowd(members)
	mustSync(t, d, want, nil)
	settled(t, d, want)
	for _, patch := range []desired.SetPatch{
		{Add: addrs("10.99.0.1/32", "fd99::1/128")},
		{Remove: addrs("10.99.0.1/32"), Add: addrs("10.99.0.2/32")},
	} {
		p := &desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{"s:hosts": patch}}
		p.Play(*want)
		mustSync(t, d, want, p)
		settled(t, d, want)
	}
	p := &desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{"s:spans": {
		Add: addrs("192.0.2.0/24", "100.0.0.0/24"), Remove: []desired.Member{{Prefix: crowdNet(2)}, {Prefix: crowdNet(3)}},
	}}}
	p.Play(*want)
	mustSync(t, d, want, p)
	settled(t, d, want)
	var b batch
	b.flushChain(inet, "forward-to")
	for name, s := range rules.Render(settings(), want).Sets {
		if len(s.Elements) > 1000 {
			b.emptySet(inet, name)
		}
	}
	if err := d.look.commit(&b, 0); err != nil {
		t.Fatal(err)
	}
	mustSync(t, d, want, nil)
	settled(t, d, want)
}

// Thousands of rules and chains go out in one batch.
func TestManyChains(t *testing.T) {
	ns := testenv.NetNS(t)
	d := open(t, ns)
	want := desired.NewPolicy()
	var tier desired.Tier
	for i := range 400 {
		owner := fmt.Sprintf("NetworkPolicy default/%d", i)
		l := &desired.RuleList{}
		for k := range 10 {
			l.Rules = append(l.Rules, desired.PolicyRule{
				Index: k, Action: desired.Allow, IPv4: true, Protocol: 6, Destination: desired.Side{Ports: []desired.PortRange{{Min: uint16(i), Max: uint16(i + k)}}},
			})
		}
		want.Rules[desired.RulesID{Owner: owner, Direction: desired.Ingress}] = l
		tier.Policies = append(tier.Policies, owner)
	}
	want.Endpoints["cali1"] = &desired.Endpoint{Name: "WorkloadEndpoint default/a", Ingress: []desired.Tier{tier}}
	mustSync(t, d, &want, nil)
	settled(t, d, &want)
	if text := lists(t, ns); text != "" && strings.Count(text, "dport") != 4001 { // one of them is that for VXLAN
		t.Errorf("nft lists %d rules with ports", strings.Count(text, "dport"))
	}
}

// An attribute whose length has no room in its head is refused; the kernel
// would take its beginning and say nothing.
func TestTooLongIsRefused(t *testing.T) {
	ns := testenv.NetNS(t)
	d := open(t, ns)
	var b batch
	b.addTable(inet)
	long := make([]expr, 3000)
	for i := range long {
		long[i] = meta{key: 3}
	}
	b.addChain(inet, "c", nil)
	b.addRules(inet, "c", []rule{{exprs: long}})
	err := d.conn.commit(&b, 0)
	if !errors.Is(err, errTooLong) || !strings.Contains(err.Error(), "add rule c 0") {
		t.Fatalf("commit: %v", err)
	}
	if text := lists(t, ns); text != "" {
		t.Errorf("something was written:\n%s", text)
	}
}

// Element messages are cut before they get too long for an attribute.
func TestElementsAreCut(t *testing.T) {
	var elems []member
	for i := range 20000 {
		elems = append(elems, member{elemID{key: string(mark(uint32(i)))}, elem{rare: &rareElem{note: strings.Repeat("x", 100)}}})
	}
	var b batch
	b.addElems(inet, "s", elems)
	if b.seal(); b.err != nil || b.len() < 2 {
		t.Fatalf("%d messages: %v", b.len(), b.err)
	}
	im := newImage()
	im.tables[inet] = newTable()
	im.tables[inet].sets["s"] = &set{elems: map[elemID]elem{}}
	for i, at := range b.starts {
		end := len(b.buf)
		if i+1 < len(b.starts) {
			end = b.starts[i+1]
		}
		if end-at > cutBytes+1024 {
			t.Errorf("message %d has %d bytes", i, end-at)
		}
	}
	if err := im.play(&b); err != nil {
		t.Fatal(err)
	}
	if n := len(im.tables[inet].sets["s"].elems); n != len(elems) {
		t.Errorf("%d elements arrived, %d were sent", n, len(elems))
	}
}

// Drivers of two namespaces share nothing.
func TestTwoDriversAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 2 {
		ns := testenv.NetNS(t)
		d := open(t, ns)
		wg.Go(func() {
			c := newChaos(uint64(i))
			if err := d.Sync(t.Context(), &c.policy, nil); err != nil {
				t.Error(err)
			}
			for range 10 {
				if err := d.Sync(t.Context(), &c.policy, c.step(5)); err != nil {
					t.Error(err)
				}
				if _, err := d.Counters(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// Names of interfaces may begin with several prefixes in one match.
func TestStems(t *testing.T) {
	name := func(s string) string { return string(interfaceName(s)) }
	stem := func(s string) rules.Range {
		return rules.Range{Lo: name(s), Hi: s + strings.Repeat("\xff", 16-len(s))}
	}
	for _, tt := range []struct {
		in   string
		not  bool
		want bool
	}{
		{"cali7", false, true}, {"tap0", false, true}, {"eth0", false, true}, {"eth1", false, false}, {"cal", false, false},
		{"cali7", true, false}, {"eth1", true, true},
	} {
		c := &rules.Chain{Name: "input", Hook: &rules.Hook{Point: rules.Input}, Rules: []rules.Rule{{
			Matches: []rules.Match{{Fields: []rules.Field{rules.InInterface}, Not: tt.not, In: []rules.Range{
				stem("cali"), {Lo: name("eth0"), Hi: name("eth0")}, stem("tap"),
			}}},
			Do: []rules.Statement{rules.Drop{}},
		}}}
		m, err := NewMachine(&rules.Program{Chains: map[string]*rules.Chain{"input": c}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Trace(rules.Packet{Way: rules.ToHost, In: tt.in, Source: at4(1), Dest: at4(2)})
		if err != nil || got.Accepted == tt.want {
			t.Errorf("%+v: accepted %v, %v", tt, got.Accepted, err)
		}
	}
}

func benchmark(b *testing.B, set desired.SetID, one string) {
	ns, err := netns.New()
	if err != nil {
		b.Skip(err)
	}
	defer ns.Close()
	d := open(b, ns)
	want := crowd(100000)
	if err := d.Sync(b.Context(), want, nil); err != nil {
		b.Fatal(err)
	}
	add := desired.SetPatch{Add: addrs(one)}
	remove := desired.SetPatch{Remove: addrs(one)}
	for b.Loop() {
		for _, s := range []desired.SetPatch{add, remove} {
			p := &desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{set: s}}
			p.Play(*want)
			if err := d.Sync(b.Context(), want, p); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// One address in and out of a set of 50,000 of its family.
func BenchmarkOneAddress(b *testing.B) { benchmark(b, "s:hosts", "10.99.0.1/32") }

// One network in and out of a set of 50,000 of its family.
func BenchmarkOneNetwork(b *testing.B) { benchmark(b, "s:spans", "192.0.2.0/24") }

// Reading everything back with 200,000 members, and finding nothing to do.
func BenchmarkReadBack(b *testing.B) {
	ns, err := netns.New()
	if err != nil {
		b.Skip(err)
	}
	defer ns.Close()
	d := open(b, ns)
	want := crowd(100000)
	for b.Loop() {
		if err := d.Sync(b.Context(), want, nil); err != nil {
			b.Fatal(err)
		}
	}
}
