package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
)

// chaos makes random policies, steps from one to the next, and packets, out
// of few names, addresses and ports, so that things meet.
type chaos struct {
	*rand.Rand
	cfg    rules.Config
	policy desired.Policy
}

func newChaos(seed uint64) *chaos {
	c := &chaos{rand.New(rand.NewPCG(seed, 7)), settings(), desired.NewPolicy()}
	if seed%2 == 1 {
		c.cfg = compiled()
	}
	c.cfg.NAT.KeepToHosts = c.once(2)
	if c.once(2) {
		c.cfg.NAT.Interface = oneOf(c, "eth0", "eth+", "cali1")
	}
	if c.once(2) {
		c.cfg.NAT.Ports = oneOf(c, desired.PortRange{Min: 1000, Max: 2000}, desired.PortRange{Min: 4000, Max: 6000})
	}
	if c.once(2) {
		c.cfg.NAT.Address = oneOf(c, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"))
	}
	for _, owner := range ruleOwners() {
		for _, d := range []desired.Direction{desired.Ingress, desired.Egress} {
			c.policy.Rules[desired.RulesID{Owner: owner, Direction: d}] = c.rules()
		}
	}
	return c
}

func ruleOwners() []string {
	return []string{"NetworkPolicy a 0", "NetworkPolicy a 1", "NetworkPolicy b 0", "NetworkPolicy b 1", "Profile 0", "Profile 1"}
}

func oneOf[T any](c *chaos, list ...T) T { return list[c.IntN(len(list))] }

func (c *chaos) once(in int) bool { return c.IntN(in) == 0 }

func (c *chaos) addr() netip.Addr {
	n := byte(c.IntN(10))
	if c.once(2) {
		return netip.AddrFrom4([4]byte{10, 0, n / 4, n})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 14: n / 4, 15: n})
}

func (c *chaos) net() netip.Prefix {
	a := c.addr()
	p, _ := a.Prefix(max(0, a.BitLen()-oneOf(c, 0, 0, 1, 2, 4, 10, 24, 200)))
	return p
}

func (c *chaos) nets(n int) (out []netip.Prefix) {
	for range c.IntN(n + 1) {
		out = append(out, c.net())
	}
	return out
}

func (c *chaos) port() uint16    { return oneOf[uint16](c, 0, 79, 80, 81, 443, 8080, 65535) }
func (c *chaos) protocol() uint8 { return oneOf[uint8](c, 6, 17, 132, 1, 58, 50) }

func (c *chaos) ports() (out []desired.PortRange) {
	for range c.IntN(4) {
		a, b := c.port(), c.port()
		if c.once(2) {
			b = a
		}
		out = append(out, desired.PortRange{Min: min(a, b), Max: max(a, b)})
	}
	return out
}

func setID(kind desired.SetKind, i int) desired.SetID {
	return desired.SetID(fmt.Sprintf("%d:%d", kind, i))
}

func (c *chaos) sets(kind desired.SetKind) []desired.SetID {
	if id := setID(kind, c.IntN(5)); c.policy.Sets[id] != nil || c.once(5) {
		return []desired.SetID{id}
	}
	return nil
}

func (c *chaos) side() (s desired.Side) {
	for _, put := range []func(){
		func() { s.Nets = c.nets(3) }, func() { s.NotNets = c.nets(2) },
		func() { s.Sets = c.sets(desired.AddressSet) }, func() { s.NotSets = c.sets(desired.AddressSet) },
		func() { s.Ports = c.ports() }, func() { s.NotPorts = c.ports() },
		func() { s.PortSets = c.sets(desired.PortSet) }, func() { s.NotPortSets = c.sets(desired.PortSet) },
	} {
		if c.once(10) {
			put()
		}
	}
	return s
}

func (c *chaos) rules() *desired.RuleList {
	l := &desired.RuleList{}
	for i := range 1 + c.IntN(5) {
		r := desired.PolicyRule{
			Index: i, Action: oneOf(c, desired.Allow, desired.Allow, desired.Deny, desired.Pass, desired.Pass, desired.Log),
			IPv4: !c.once(8), IPv6: !c.once(8), Source: c.side(), Destination: c.side(),
		}
		if c.once(3) {
			r.Protocol = c.protocol()
		}
		if c.once(8) {
			r.NotProtocol = c.protocol()
		}
		icmp := &desired.ICMP{Type: oneOf[uint8](c, 8, 128), Code: oneOf[int16](c, -1, 0, 1)}
		if c.once(12) {
			r.ICMP = icmp
		} else if c.once(8) {
			r.NotICMP = icmp
		}
		l.Rules = append(l.Rules, r)
	}
	return l
}

// owners picks owners of rules: mostly such that have some.
func (c *chaos) owners(kind string, n int) (out []string) {
	for i := range n {
		owner := fmt.Sprintf("%s %d", kind, i)
		_, in := c.policy.Rules[desired.RulesID{Owner: owner, Direction: desired.Ingress}]
		_, eg := c.policy.Rules[desired.RulesID{Owner: owner, Direction: desired.Egress}]
		if !c.once(3) && (in && eg || c.once(10)) {
			out = append(out, owner)
		}
	}
	return out
}

func (c *chaos) tiers() (out []desired.Tier) {
	for _, name := range []string{"a", "b"} {
		if p := c.owners("NetworkPolicy "+name, 2); len(p) > 0 {
			out = append(out, desired.Tier{Name: name, Policies: p, Pass: c.once(2)})
		}
	}
	return out
}

func (c *chaos) endpoint(i int) *desired.Endpoint {
	ep := &desired.Endpoint{
		Name: fmt.Sprintf("WorkloadEndpoint %d", i), Ingress: c.tiers(), Egress: c.tiers(),
		Profiles: c.owners("Profile", 2), Sources: c.nets(2),
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)})},
	}
	if c.once(2) {
		ep.MAC = fmt.Sprintf("02:00:00:00:00:%02x", i)
	}
	return ep
}

func cali(i int) string { return fmt.Sprintf("cali%d", i) }

// step makes a patch of up to n changes and plays it.
func (c *chaos) step(n int) *desired.PolicyPatch {
	p := desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{}}
	p.Rules.Set, p.Endpoints.Set = map[desired.RulesID]*desired.RuleList{}, map[string]*desired.Endpoint{}
	for range 1 + c.IntN(n) {
		switch c.IntN(6) {
		case 0, 1:
			c.stepSet(p)
		case 4, 5:
			c.stepOverlay(&p)
		case 2:
			id := desired.RulesID{
				Owner:     oneOf(c, ruleOwners()...),
				Direction: desired.Direction(c.IntN(2)),
			}
			if c.once(12) && p.Rules.Set[id] == nil {
				p.Rules.Delete = append(p.Rules.Delete, id)
			} else if !slices.Contains(p.Rules.Delete, id) {
				p.Rules.Set[id] = c.rules()
			}
		case 3:
			i := 1 + c.IntN(5)
			if c.once(4) && p.Endpoints.Set[cali(i)] == nil {
				p.Endpoints.Delete = append(p.Endpoints.Delete, cali(i))
			} else if !slices.Contains(p.Endpoints.Delete, cali(i)) {
				p.Endpoints.Set[cali(i)] = c.endpoint(i)
			}
		}
	}
	p.Play(c.policy)
	return &p
}

func (c *chaos) stepSet(p desired.PolicyPatch) {
	kind := desired.SetKind(c.IntN(2))
	id := setID(kind, c.IntN(5))
	if _, ok := p.Sets[id]; ok {
		return
	}
	s := desired.SetPatch{Kind: kind}
	now := c.policy.Sets[id]
	if now != nil && c.once(6) {
		p.Sets[id] = desired.SetPatch{Kind: kind, Gone: true}
		return
	}
	if now != nil {
		for m := range now.Members {
			if c.once(3) {
				s.Remove = append(s.Remove, m)
			}
		}
	}
	for range c.IntN(oneOf(c, 2, 4, 12)) {
		a := c.addr()
		m := desired.Member{Prefix: netip.PrefixFrom(a, a.BitLen())}
		switch {
		case kind == desired.PortSet:
			m.Protocol, m.Port = oneOf[uint8](c, 6, 17, 132), c.port()
		case c.once(3):
			m.Prefix = c.net()
		}
		if !slices.Contains(s.Remove, m) && !slices.Contains(s.Add, m) {
			s.Add = append(s.Add, m)
		}
	}
	p.Sets[id] = s
}

func (c *chaos) packet() rules.Packet {
	from, to := 1+c.IntN(6), 1+c.IntN(6)
	p := rules.Packet{
		Way: rules.Way(c.IntN(5)), Protocol: c.protocol(), SourcePort: c.port(), DestPort: c.port(),
		State: oneOf(c, rules.StateNew, rules.StateNew, rules.StateNew, rules.StateNew, rules.StateInvalid, rules.StateEstablished),
		Mark:  oneOf[uint32](c, 0, 0x4000, 0x20000), ConnMark: oneOf[uint32](c, 0, 0, 0, settings().CutMark),
		EthSource: string([]byte{2, 0, 0, 0, 0, byte(oneOf(c, from, from, from, to))}),
		ICMPType:  oneOf[uint8](c, 8, 128, 135, 136, 134, 143), ICMPCode: oneOf[uint8](c, 0, 0, 1),
	}
	if p.Way != rules.FromHost && p.Way != rules.ARPOut {
		p.In = oneOf(c, cali(from), cali(from), "eth0")
	}
	if p.Way == rules.Forwarded || p.Way == rules.FromHost || p.Way == rules.ARPOut {
		p.Out = oneOf(c, cali(to), cali(to), "eth0")
	}
	four := c.once(2)
	at := func(i int) netip.Addr {
		if four {
			return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		}
		return netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)})
	}
	if p.Way >= rules.ARPIn {
		p.State, p.ConnMark = 0, 0
		p.ARP = rules.ARPMessage{Op: oneOf[uint16](c, 1, 2), MAC: p.EthSource, Source: netip.AddrFrom4([4]byte{10, 0, 0, byte(oneOf(c, from, to, 0))})}
		if c.once(5) {
			p.ARP.Source = netip.IPv4Unspecified()
		}
		return p
	}
	c.overlay(&p)
	if p.Source, p.Dest = at(oneOf(c, from, from, from, to)), at(to); !four && c.once(6) {
		p.Source = netip.MustParseAddr("fe80::1")
	}
	if p.Source.Is6() && p.Protocol == 58 && (p.ICMPType == 135 || p.ICMPType == 136) {
		p.NDTarget = oneOf(c, at(from), at(to), netip.MustParseAddr("fe80::1"))
	}
	return p
}

// outcome is what two ways of evaluating must agree on.
func outcome(t rules.Trace) string {
	text := fmt.Sprintf("accepted %v rejected %v untracked %v mark %#x", t.Accepted, t.Rejected, t.Untracked, t.Mark)
	if t.NAT != nil {
		text += " " + t.NAT.String()
	}
	for _, s := range t.Steps {
		if s.Counter != "" || s.Log != "" {
			text += "\n  " + s.Counter + " " + s.Log
		}
	}
	return text
}

// rounds is how many random worlds a test plays.
func rounds(n int) uint64 {
	if testing.Short() || os.Getenv("BRINDLE_VM") != "" {
		n = max(2, n/5) // an emulated machine is slow; one world of plain rules, one of look-ups
	}
	return uint64(n)
}

// What is written for the kernel means what the program says: random policies
// and packets, through the program itself and through the machine that reads
// the bytes.
func TestMachineAgreesWithProgram(t *testing.T) {
	for seed := range rounds(30) {
		c := newChaos(seed)
		for range 4 {
			c.step(15)
		}
		program := rules.Render(c.cfg, &c.policy)
		m, err := NewMachine(program)
		if err != nil {
			t.Fatal(err)
		}
		agree(t, c, program, m, 150)
	}
}

func agree(t *testing.T, c *chaos, program *rules.Program, m *Machine, packets int) {
	t.Helper()
	for range packets {
		p := c.packet()
		want, err := program.Trace(p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Trace(p)
		if err != nil {
			t.Fatal(err)
		}
		if outcome(got) != outcome(want) {
			t.Fatalf("packet %+v\nthe bytes: %v\n%v\nthe program: %v\n%v", p, outcome(got), got, outcome(want), want)
		}
	}
}

// Changes lead to what a whole translation of the same policy leads to, and
// the edits name nothing that is not there: random histories against a kernel
// that is an image.
func TestChangesLeadToTheWhole(t *testing.T) {
	came, went := 0, 0 // plain rules that are not in the kernel
	for seed := range rounds(25) {
		c := newChaos(seed)
		builder := rules.New(c.cfg, &c.policy)
		im, held, err := lowerProgram(builder.Program())
		if err != nil {
			t.Fatal(err)
		}
		kernel := newImage()
		write := func(edits ...*edit) {
			t.Helper()
			var b batch
			for _, e := range edits {
				e.write(&b)
			}
			if err := kernel.play(&b); err != nil {
				t.Fatal(err)
			}
		}
		write(difference(inet, nil, im.tables[inet]), difference(arp, nil, im.tables[arp]))
		for range 15 {
			patch := c.step(6)
			if seed%2 == 1 {
				lookable(c.Rand, patch.Rules.Set)
			}
			unreached := len(builder.Program().Chains) - len(held.chains)
			delta := builder.Update(&c.policy, patch)
			edits, pending, err := held.change(builder.Program(), delta)
			if err != nil {
				t.Fatal(err)
			}
			write(edits...)
			pending.settle(held)
			if now := len(builder.Program().Chains) - len(held.chains); now < unreached {
				came++
			} else if now > unreached {
				went++
			}
			program := builder.Program()
			if !c.cfg.Compiled { // otherwise the numbers in it depend on the history
				program = rules.Render(c.cfg, &c.policy)
			}
			want, whole, err := lowerProgram(program)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range []tableID{inet, arp} {
				if e := difference(id, kernel.tables[id], want.tables[id]); !e.empty() {
					t.Fatalf("seed %d: table %v is not what it should be: %s", seed, id, missing(e))
				}
			}
			if a, b := fmt.Sprint(held.users, len(held.chains), held.counters), fmt.Sprint(whole.users, len(whole.chains), whole.counters); a != b {
				t.Fatalf("seed %d: the driver believes %v, the kernel holds %v", seed, a, b)
			}
		}
	}
	if least := int(rounds(25)); came < least || went < least {
		t.Errorf("plain rules came %d times and went %d times", came, went)
	}
	t.Logf("plain rules came %d times and went %d times", came, went)
}

// stepOverlay changes hosts, pools or tunnels.
func (c *chaos) stepOverlay(p *desired.PolicyPatch) {
	switch c.IntN(4) {
	case 3:
		stepTable(c, &p.Strict, desired.LinkFamily{Interface: oneOf(c, "eth0", "eth1"), Family: oneOf(c, 4, 6)}, struct{}{})
	case 0:
		stepTable(c, &p.Hosts, c.net(), desired.Forms(c.IntN(8)))
	case 1:
		stepTable(c, &p.Pools, c.net(), desired.PoolUse{Masquerade: c.once(2)})
	default:
		stepTable(c, &p.Tunnels, oneOf(c, desired.DeviceIPIP, desired.DeviceVXLAN4, desired.DeviceVXLAN6), c.addr())
	}
}

func stepTable[K comparable, V any](c *chaos, p *desired.Patch[K, V], k K, v V) {
	if _, ok := p.Set[k]; ok || slices.Contains(p.Delete, k) {
		return
	}
	if c.once(3) {
		p.Delete = append(p.Delete, k)
		return
	}
	if p.Set == nil {
		p.Set = map[K]V{}
	}
	p.Set[k] = v
}

// overlay makes some packets ones of tunnels.
func (c *chaos) overlay(p *rules.Packet) {
	p.FromUs, p.ForUs, p.Astray = c.once(3), c.once(2), c.once(2)
	if c.once(4) {
		p.Protocol, p.DestPort, p.VNI = oneOf[uint8](c, 17, 17, 4), oneOf[uint16](c, 4789, 4789, 8472), oneOf[uint32](c, 4096, 4096, 7, 0)
	}
	if p.Out != "" && c.once(4) {
		p.Out = oneOf(c, desired.DeviceIPIP, desired.DeviceVXLAN4, desired.DeviceVXLAN6)
	}
}
