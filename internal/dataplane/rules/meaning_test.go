package rules

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
)

// meaning says what a policy means for one packet, word for word as
// internal/desired has it, and knows nothing of chains.
type meaning struct {
	policy *desired.Policy
	pkt    Packet
	// counted are the rules that matched, in order, as counters.
	counted []string
}

func (m *meaning) allowed(ep *desired.Endpoint, dir desired.Direction) bool {
	tiers := ep.Ingress
	if dir == desired.Egress {
		tiers = ep.Egress
	}
	for _, t := range tiers {
		switch end := m.tier(t, dir); {
		case end == desired.Allow:
			return true
		case end == desired.Deny, end == 0 && !t.Pass:
			return false
		}
	}
	for _, p := range ep.Profiles {
		switch m.owner(desired.RulesID{Owner: p, Direction: dir}) {
		case desired.Allow:
			return true
		case desired.Deny:
			return false
		}
	}
	return false
}

func (m *meaning) tier(t desired.Tier, dir desired.Direction) desired.Action {
	for _, p := range t.Policies {
		if end := m.owner(desired.RulesID{Owner: p, Direction: dir}); end != 0 {
			return end
		}
	}
	return 0
}

func (m *meaning) owner(id desired.RulesID) desired.Action {
	list := m.policy.Rules[id]
	if list == nil {
		return desired.Deny
	}
	for _, r := range list.Rules {
		if !m.matches(r) {
			continue
		}
		m.counted = append(m.counted, RuleCounter(id, r.Index))
		if r.Action != desired.Log {
			return r.Action
		}
	}
	return 0
}

func (m *meaning) matches(r desired.PolicyRule) bool {
	v4 := m.pkt.Source.Is4()
	switch p := m.pkt.Protocol; {
	case v4 && !r.IPv4, !v4 && !r.IPv6:
		return false
	case r.Protocol != 0 && p != r.Protocol, r.NotProtocol != 0 && p == r.NotProtocol:
		return false
	case r.ICMP != nil && !m.message(*r.ICMP), r.NotICMP != nil && m.message(*r.NotICMP):
		return false
	}
	return m.side(r.Source, m.pkt.Source, m.pkt.SourcePort) && m.side(r.Destination, m.pkt.Dest, m.pkt.DestPort)
}

func (m *meaning) message(i desired.ICMP) bool {
	want := uint8(58)
	if m.pkt.Source.Is4() {
		want = 1
	}
	return m.pkt.Protocol == want && m.pkt.ICMPType == i.Type && (i.Code < 0 || m.pkt.ICMPCode == uint8(i.Code))
}

func (m *meaning) side(s desired.Side, a netip.Addr, port uint16) bool {
	inNets := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	ofFamily := func(list []netip.Prefix) bool {
		return len(list) == 0 || slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Addr().Is4() == a.Is4() })
	}
	in := func(id desired.SetID) bool {
		for member := range m.policy.Sets[id].Members {
			if member.Prefix.Contains(a) {
				return true
			}
		}
		return false
	}
	ported := m.pkt.Protocol == 6 || m.pkt.Protocol == 17 || m.pkt.Protocol == 132
	inPorts := func(list []desired.PortRange, sets []desired.SetID) bool {
		return ported && (slices.ContainsFunc(list, func(p desired.PortRange) bool { return p.Min <= port && port <= p.Max }) ||
			slices.ContainsFunc(sets, func(id desired.SetID) bool {
				_, ok := m.policy.Sets[id].Members[desired.Member{
					Prefix: netip.PrefixFrom(a, a.BitLen()), Protocol: m.pkt.Protocol, Port: port}]
				return ok
			}))
	}
	switch {
	case !ofFamily(s.Nets), !ofFamily(s.NotNets):
		return false
	case len(s.Nets) > 0 && !inNets(s.Nets), inNets(s.NotNets):
		return false
	case slices.ContainsFunc(s.Sets, func(id desired.SetID) bool { return !in(id) }), slices.ContainsFunc(s.NotSets, in):
		return false
	case len(s.Ports)+len(s.PortSets) > 0 && !inPorts(s.Ports, s.PortSets):
		return false
	}
	return !inPorts(s.NotPorts, s.NotPortSets)
}

// packet makes one that a workload sends to another, or to or from elsewhere.
func (w *world) packet() Packet {
	p := Packet{
		Way: Forwarded, In: "eth0", Out: "eth0", EthSource: "\x02\x00\x00\x00\x00\xff", Protocol: w.protocol(),
		SourcePort: w.port(), DestPort: w.port(), ICMPType: pick[uint8](w, 8, 3, 128), ICMPCode: pick[uint8](w, 0, 1),
		State: StateNew, Mark: w.Uint32() &^ 0xffff0000,
	}
	p.Source, p.Dest = w.addr(), w.addr()
	for p.Dest.Is4() != p.Source.Is4() {
		p.Dest = w.addr()
	}
	for name, ep := range w.policy.Endpoints {
		for _, a := range ep.Addrs {
			if a == p.Source {
				p.In, p.EthSource = name, fmt.Sprintf("\x02\x00\x00\x00\x00%c", rune(name[4]-'0'))
			}
			if a == p.Dest {
				p.Out = name
			}
		}
	}
	return p
}

// TestMeaning: what a program does with a packet is what the policy means, at
// both ends; the counters are those of the rules that matched; and the mark's
// other bits are untouched, ours clear.
func TestMeaning(t *testing.T) {
	seeds := 200
	if testing.Short() {
		seeds = 50
	}
	verdicts, ways, anyMark := map[bool]int{}, map[string]int{}, 0
	for seed := range seeds {
		w := newWorld(uint64(seed))
		w.full()
		plain, compiled := testConfig(), testConfig()
		compiled.Compiled = true
		plain.smallChunks = seed%2 == 0
		programs := []*Program{Render(plain, &w.policy), Render(compiled, &w.policy)}
		if err := programs[1].sound(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i := range 200 {
			pkt := w.packet()
			if i%4 > 1 {
				pkt.Mark = 0
			}
			got, want := w.check(t, programs[i%2], pkt)
			verdicts[want]++
			for _, s := range got.Steps {
				ways[s.Chain]++
				if strings.HasPrefix(s.Chain, "u-") && s.Counter != "" {
					anyMark++
				}
			}
		}
	}
	if anyMark < seeds*5 {
		t.Errorf("only %d marked flows were decided by look-ups", anyMark)
	}
	if ways[chainDecided] < seeds*5 {
		t.Errorf("only %d flows were decided by look-ups", ways[chainDecided])
	}
	for verdict, n := range verdicts {
		if n < seeds*100/10 {
			t.Errorf("only %d flows ended with %v", n, verdict)
		}
	}
	t.Logf("verdicts: %v", verdicts)
}

// check sends a packet through a program, and compares what comes of it with
// what the policy means.
func (w *world) check(t *testing.T, program *Program, pkt Packet) (got Trace, want bool) {
	t.Helper()
	m := &meaning{policy: &w.policy, pkt: pkt}
	want = true
	if ep := w.policy.Endpoints[pkt.In]; ep != nil {
		want = m.allowed(ep, desired.Egress)
	}
	if ep := w.policy.Endpoints[pkt.Out]; ep != nil && want {
		want = m.allowed(ep, desired.Ingress)
	}
	got, err := program.Trace(pkt)
	if err != nil {
		t.Fatal(err)
	}
	var counted []string
	for _, s := range got.Steps {
		if strings.HasPrefix(s.Counter, "c-") {
			counted = append(counted, s.Counter)
		}
	}
	if got.Accepted != want || !slices.Equal(counted, m.counted) || want && got.Mark != pkt.Mark {
		t.Fatalf("%+v\nwant accepted: %v %v\ngot %s%v mark %#x\n%s", pkt, want, m.counted, got, counted, got.Mark, program)
	}
	return got, want
}

// TestCompiledUpdate: after any history, the compiled rules decide as the
// policy means, they are those that are made in one go but for their numbers,
// and the deltas lead there.
func TestCompiledUpdate(t *testing.T) {
	seeds, steps := 60, 12
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		w := newWorld(uint64(seed))
		w.missing = seed%3 == 0
		cfg := testConfig()
		cfg.Compiled, cfg.CompileFrom = true, seed%2*6
		b, mirror := New(cfg, &w.policy), Render(cfg, &w.policy)
		for step := range steps {
			patch := w.step(6)
			patch.Play(w.policy)
			d := b.Update(&w.policy, &patch)
			if err := b.Program().sound(); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			if err := mirror.play(d); err != nil {
				t.Fatalf("seed %d, step %d: delta: %v", seed, step, err)
			}
			if diff := difference(mirror.String(), b.Program().String()); diff != "" {
				t.Fatalf("seed %d, step %d: deltas (-) against updated (+):\n%s", seed, step, diff)
			}
			cfg.NAT.Begun = b.Translates()
			want, plain := Render(cfg, &w.policy), Render(testConfig(), &w.policy)
			for name, s := range want.Sets {
				if n := len(b.Program().Sets[name].Elements); n != len(s.Elements) {
					t.Fatalf("seed %d, step %d: %d elements, want %d:\n%v\n%v", seed, step, n, len(s.Elements), b.Program().Sets[name], s)
				}
			}
			if diff := difference(Renew(cfg, &w.policy, b).Program().String(), b.Program().String()); diff != "" {
				t.Fatalf("seed %d, step %d: made anew with the same numbers (-) against updated (+):\n%s", seed, step, diff)
			}
			if n := len(b.Program().Chains); n != len(want.Chains) {
				t.Fatalf("seed %d, step %d: %d chains, want %d", seed, step, n, len(want.Chains))
			}
			for range 20 {
				pkt := w.packet()
				pkt.Mark = 0
				if !w.missing {
					w.check(t, b.Program(), pkt)
					continue
				}
				got, err := b.Program().Trace(pkt)
				if err != nil {
					t.Fatal(err)
				}
				if twin, err := plain.Trace(pkt); err != nil || twin.Accepted != got.Accepted {
					t.Fatalf("seed %d, step %d: %+v\ncompiled: %v\nplain: %v %v", seed, step, pkt, got, twin, err)
				}
			}
			if d := b.Update(&w.policy, &desired.PolicyPatch{}); !d.Empty() {
				t.Fatalf("seed %d, step %d: no patch changes something: %v", seed, step, d)
			}
		}
	}
}
