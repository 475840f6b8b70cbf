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
	seeds := 400
	if testing.Short() {
		seeds = 50
	}
	verdicts := map[bool]int{}
	for seed := range seeds {
		w := newWorld(uint64(seed))
		w.full()
		program := Render(testConfig(), &w.policy)
		for range 100 {
			pkt := w.packet()
			m := &meaning{policy: &w.policy, pkt: pkt}
			want := true
			if ep := w.policy.Endpoints[pkt.In]; ep != nil {
				want = m.allowed(ep, desired.Egress)
			}
			if ep := w.policy.Endpoints[pkt.Out]; ep != nil && want {
				want = m.allowed(ep, desired.Ingress)
			}
			verdicts[want]++
			got, err := program.Trace(pkt)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			var counted []string
			for _, s := range got.Steps {
				if strings.HasPrefix(s.Counter, "c-") {
					counted = append(counted, s.Counter)
				}
			}
			if got.Accepted != want || !slices.Equal(counted, m.counted) || want && got.Mark != pkt.Mark {
				t.Fatalf("seed %d: %+v\nwant accepted: %v %v\ngot %s%v mark %#x\n%s", seed, pkt, want, m.counted,
					got, counted, got.Mark, program)
			}
		}
	}
	for verdict, n := range verdicts {
		if n < seeds*100/10 {
			t.Errorf("only %d flows ended with %v", n, verdict)
		}
	}
	t.Logf("verdicts: %v", verdicts)
}
