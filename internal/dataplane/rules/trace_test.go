package rules

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
)

const mac1, macOther = "\x02\x00\x00\x00\x00\x01", "\x02\x00\x00\x00\x00\x99"

// packetOf is a new TCP connection of the shop's world, changed as asked.
func packetOf(change ...func(*Packet)) Packet {
	p := Packet{
		Way: Forwarded, In: "cali1", Out: "cali2", EthSource: mac1, Source: netip.MustParseAddr("10.0.0.1"),
		Dest: netip.MustParseAddr("10.0.0.2"), Protocol: 6, SourcePort: 40000, DestPort: 80, State: StateNew, Mark: 0x4000,
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

func from(iface, mac, a string) func(*Packet) {
	return func(p *Packet) { p.In, p.EthSource, p.Source = iface, mac, netip.MustParseAddr(a) }
}

func to(iface, a string) func(*Packet) {
	return func(p *Packet) { p.Out, p.Dest = iface, netip.MustParseAddr(a) }
}

func local(p *Packet)   { p.Way, p.Out = ToHost, "" }
func byHost(p *Packet)  { p.Way, p.In, p.EthSource = FromHost, "", "" }
func invalid(p *Packet) { p.State = StateInvalid }

func inState(s ConnState) func(*Packet) { return func(p *Packet) { p.State = s } }

func cutFlow(p *Packet) { p.State, p.ConnMark = StateEstablished, 0x10003 }

func transport(protocol uint8, port uint16) func(*Packet) {
	return func(p *Packet) { p.Protocol, p.SourcePort, p.DestPort = protocol, port, port }
}

func vni(n uint32) func(*Packet) { return func(p *Packet) { p.VNI = n } }

func icmp(protocol, kind, code uint8) func(*Packet) {
	return func(p *Packet) { p.Protocol, p.ICMPType, p.ICMPCode = protocol, kind, code }
}

func target(a string) func(*Packet) { return func(p *Packet) { p.NDTarget = netip.MustParseAddr(a) } }

func about(a string) func(*Packet) { return func(p *Packet) { p.About = netip.MustParseAddr(a) } }

func arp(way Way, m ARPMessage) Packet {
	p := Packet{Way: way, In: "cali1", Out: "cali1", EthSource: m.MAC, ARP: m}
	return p
}

// TestSkeleton: what happens outside of policy. want is the counter of the
// drop, "" if the packet is accepted.
func TestSkeleton(t *testing.T) {
	zero := netip.MustParseAddr("0.0.0.0")
	own, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.9")
	v6 := []func(*Packet){from("cali1", mac1, "fd00::1"), to("cali2", "fd00::2")}
	tests := []struct {
		name string
		pkt  Packet
		want string
	}{
		{"own address", packetOf(), ""},
		{"own address, IPv6", packetOf(v6...), ""},
		{"another's address", packetOf(from("cali1", mac1, "10.0.0.2")), "d-spoof"},
		{"another's address, IPv6", packetOf(v6[1], from("cali1", mac1, "fd00::2")), "d-spoof"},
		{"another's hardware address", packetOf(from("cali1", macOther, "10.0.0.1")), "d-spoof"},
		{"any hardware address where none is known", packetOf(from("cali2", macOther, "10.0.0.2"), to("eth0", "192.0.2.1")), ""},
		{"further prefix", packetOf(from("cali2", macOther, "10.9.1.1"), to("eth0", "192.0.2.1")), ""},
		{"further prefix of another", packetOf(from("cali1", mac1, "10.9.1.1")), "d-spoof"},
		{"spoofed in a connection", packetOf(from("cali1", mac1, "10.0.0.2"), inState(StateEstablished)), "d-spoof"},
		{"unknown workload interface", packetOf(from("cali9", mac1, "10.0.0.1")), "d-spoof"},
		{"to an unknown workload interface", packetOf(to("cali9", "10.0.0.9")), "d-unknown-to"},
		{"no workload", packetOf(from("eth0", macOther, "10.0.0.1"), to("eth1", "10.0.0.2")), ""},
		{"no workload, no connection", packetOf(from("eth0", macOther, "10.0.0.1"), to("eth1", "10.0.0.2"), invalid), ""},
		{"no connection", packetOf(invalid), "d-invalid"},
		{"no connection, to a workload", packetOf(from("eth0", macOther, "192.0.2.1"), invalid), "d-invalid"},
		{"established", packetOf(to("cali2", "10.0.0.2"), transport(6, 9), inState(StateEstablished)), ""},
		{"related", packetOf(to("cali2", "10.0.0.2"), transport(6, 9), inState(StateRelated)), ""},
		{"cut", packetOf(cutFlow), "d-cut"},
		{"cut, the way back", packetOf(from("eth0", macOther, "192.0.2.1"), cutFlow), "d-cut"},
		{"cut, from the host", packetOf(byHost, cutFlow), "d-cut"},
		{"cut, to the host", packetOf(local, cutFlow), "d-cut"},
		{"to the host", packetOf(local), "d-to-host"},
		{"to the host, established", packetOf(local, inState(StateEstablished)), ""},
		{"to the host, not from a workload", packetOf(from("eth0", macOther, "192.0.2.1"), local), ""},
		{"neighbour discovery with the host", packetOf(append(v6, local, icmp(58, 135, 0))...), ""},
		{"ping to the host", packetOf(append(v6, local, icmp(58, 128, 0))...), "d-to-host"},
		{"from the host", packetOf(byHost, transport(6, 9)), ""},
		{"from the host to an unknown workload interface", packetOf(byHost, to("cali9", "10.0.0.9")), "d-unknown-to"},
		{"from the host elsewhere", packetOf(byHost, to("eth0", "192.0.2.1")), ""},
		{"VXLAN", packetOf(transport(17, 4789), vni(4096)), "d-encapsulation"},
		{"VXLAN in a connection", packetOf(transport(17, 4789), vni(4096), inState(StateEstablished)), "d-encapsulation"},
		{"VXLAN of another network", packetOf(transport(17, 4789), vni(4097)), ""},
		{"VXLAN on another port", packetOf(transport(17, 8472), vni(4096)), ""},
		{"IP in IP", packetOf(transport(4, 0)), "d-encapsulation"},
		{"router advertisement", packetOf(append(v6, icmp(58, 134, 0))...), "d-router"},
		{"redirect", packetOf(append(v6, icmp(58, 137, 0))...), "d-router"},
		{"error about what another was sent, IPv4", packetOf(icmp(1, 3, 1), about("10.0.0.9")), "d-error"},
		{"redirect", packetOf(icmp(1, 5, 0), about("10.0.0.1")), "d-router"},
		{"to the host's loopback", packetOf(local, to("", "127.0.0.1")), "d-loopback"},
		{"error about what it was sent", packetOf(append(v6, icmp(58, 1, 4), about("fd00::1"))...), ""},
		{"error about what another was sent", packetOf(append(v6, icmp(58, 1, 4), about("fd00::9"))...), "d-error"},
		{"error about a packet on its link", packetOf(append(v6, icmp(58, 3, 0), about("fe80::1"))...), ""},
		{"router advertisement, link-local", packetOf(from("cali1", mac1, "fe80::1"), to("", "ff02::1"), local, icmp(58, 134, 0)), "d-spoof"},
		{"looking for duplicates", packetOf(from("cali1", mac1, "::"), to("", "ff02::1"), local, icmp(58, 135, 0)), ""},
		{"multicast listener", packetOf(from("cali1", mac1, "fe80::1"), to("", "ff02::1"), local, icmp(58, 131, 0)), ""},
		{"link-local, another's hardware address", packetOf(from("cali1", macOther, "fe80::1"), to("", "ff02::1"), local, icmp(58, 135, 0)), "d-spoof"},
		{"link-local TCP", packetOf(from("cali1", mac1, "fe80::1"), to("", "fe80::2"), local), "d-spoof"},
		{"advertises itself", packetOf(append(v6, local, icmp(58, 136, 0), target("fd00::1"))...), ""},
		{"advertises another", packetOf(append(v6, local, icmp(58, 136, 0), target("fd00::2"))...), "d-spoof"},
		{"advertises another, link-local", packetOf(from("cali1", mac1, "fe80::1"), to("", "fe80::2"), local, icmp(58, 136, 0), target("fd00::2")), "d-spoof"},
		{"advertises itself, link-local", packetOf(from("cali1", mac1, "fe80::1"), to("", "fe80::2"), local, icmp(58, 136, 0), target("fe80::1")), ""},
		{"ARP for itself", arp(ARPIn, ARPMessage{1, mac1, own}), ""},
		{"ARP probe", arp(ARPIn, ARPMessage{1, mac1, zero}), ""},
		{"ARP for another", arp(ARPIn, ARPMessage{2, mac1, other}), "d-arp"},
		{"ARP with another's hardware address", arp(ARPIn, ARPMessage{2, macOther, own}), "d-arp"},
		{"our ARP answer for another", arp(ARPOut, ARPMessage{2, macOther, other}), ""},
		{"our ARP answer for itself", arp(ARPOut, ARPMessage{2, macOther, own}), "d-arp-claim"},
		{"our ARP request", arp(ARPOut, ARPMessage{1, macOther, own}), ""},
	}
	program := Render(testConfig(), open(shop()))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := program.Trace(tt.pkt)
			if err != nil {
				t.Fatal(err)
			}
			if by := lastCounter(got); got.Accepted != (tt.want == "") || !got.Accepted && by != tt.want {
				t.Errorf("want %q, got %v", tt.want, got)
			}
			if got.Accepted && got.Mark != tt.pkt.Mark {
				t.Errorf("the mark is %#x, and was %#x", got.Mark, tt.pkt.Mark)
			}
		})
	}
}

func lastCounter(t Trace) string {
	if len(t.Steps) == 0 {
		return ""
	}
	return t.Steps[len(t.Steps)-1].Counter
}

// open lets policy allow everything.
func open(p *desired.Policy) *desired.Policy {
	for id := range p.Rules {
		p.Rules[id] = list(both(desired.Allow))
	}
	return p
}

// TestMatches: each kind of match, in a rule that alone allows.
func TestMatches(t *testing.T) {
	dst := func(s desired.Side) func(*desired.PolicyRule) {
		return func(r *desired.PolicyRule) { r.Destination = s }
	}
	src := func(s desired.Side) func(*desired.PolicyRule) { return func(r *desired.PolicyRule) { r.Source = s } }
	v6 := []func(*Packet){from("eth0", macOther, "fd00::1"), to("cali2", "fd00::2")}
	with := func(more ...func(*Packet)) []func(*Packet) { return append(append([]func(*Packet){}, v6...), more...) }
	type packets [][]func(*Packet)
	tests := []struct {
		name     string
		rule     func(*desired.PolicyRule)
		yes, not packets
	}{
		{"protocol", func(r *desired.PolicyRule) { r.Protocol = 17 },
			packets{{transport(17, 1)}, with(transport(17, 1))}, packets{{}, v6}},
		{"not protocol", func(r *desired.PolicyRule) { r.NotProtocol = 6 },
			packets{{transport(17, 1)}, with(transport(58, 1))}, packets{{}, v6}},
		{"protocol 58 in IPv4 is compared as a number", func(r *desired.PolicyRule) { r.Protocol = 58 },
			packets{{transport(58, 0)}, with(icmp(58, 128, 0))}, packets{{icmp(1, 8, 0)}}},
		{"IPv6 only", func(r *desired.PolicyRule) { r.IPv4 = false }, packets{v6}, packets{{}}},
		{"ICMP type", func(r *desired.PolicyRule) { r.ICMP = &desired.ICMP{Type: 8, Code: -1} },
			packets{{icmp(1, 8, 3)}, with(icmp(58, 8, 3))}, packets{{icmp(1, 9, 3)}, {icmp(58, 8, 0)}, with(icmp(1, 8, 0)), {}}},
		{"ICMP type and code", func(r *desired.PolicyRule) { r.ICMP = &desired.ICMP{Type: 3, Code: 4} },
			packets{{icmp(1, 3, 4)}, with(icmp(58, 3, 4))}, packets{{icmp(1, 3, 3)}}},
		{"not ICMP type and code", func(r *desired.PolicyRule) { r.NotICMP = &desired.ICMP{Type: 3, Code: 4} },
			packets{{icmp(1, 3, 3)}, {icmp(1, 4, 4)}, {}, {icmp(58, 3, 4)}, v6}, packets{{icmp(1, 3, 4)}, with(icmp(58, 3, 4))}},
		{"nets", src(desired.Side{Nets: nets("192.0.2.0/25", "192.0.2.128/25", "fd00::/16")}),
			packets{{from("eth0", macOther, "192.0.2.200")}, v6}, packets{{from("eth0", macOther, "192.0.3.1")}}},
		{"nets of one family", src(desired.Side{Nets: nets("0.0.0.0/0")}), packets{{}}, packets{v6}},
		{"not nets of one family", src(desired.Side{NotNets: nets("192.0.2.0/24")}), packets{{}}, packets{v6, {from("eth0", macOther, "192.0.2.1")}}},
		{"not everything", src(desired.Side{NotNets: nets("0.0.0.0/0")}), nil, packets{{}, v6}},
		{"in a set", dst(desired.Side{Sets: []desired.SetID{"s:a"}}), packets{{}, v6}, packets{{from("eth0", macOther, "10.0.0.9"), to("cali2", "10.0.0.3")}}},
		{"in both sets", dst(desired.Side{Sets: []desired.SetID{"s:a", "s:b"}}), packets{{}}, packets{v6}},
		{"not in a set", dst(desired.Side{NotSets: []desired.SetID{"s:b"}}), packets{v6}, packets{{}}},
		{"port", dst(desired.Side{Ports: []desired.PortRange{{Min: 80, Max: 81}, {Min: 5, Max: 5}}}),
			packets{{}, {transport(17, 81)}, {transport(132, 5)}}, packets{{transport(6, 82)}, {transport(136, 80)}}},
		{"source port", src(desired.Side{Ports: []desired.PortRange{{Min: 9, Max: 9}}}), packets{{transport(6, 9)}}, packets{{}}},
		{"any port", dst(desired.Side{Ports: []desired.PortRange{{Min: 0, Max: 65535}}}), packets{{}}, packets{{transport(50, 0)}}},
		{"named port", dst(desired.Side{PortSets: []desired.SetID{"n:p"}}), packets{{transport(6, 8080)}}, packets{{}, {transport(17, 8080)}}},
		{"port or named port", dst(desired.Side{Ports: []desired.PortRange{{Min: 80, Max: 80}}, PortSets: []desired.SetID{"n:p"}}),
			packets{{}, {transport(6, 8080)}, {transport(17, 80)}}, packets{{transport(6, 81)}}},
		{"not ports", dst(desired.Side{NotPorts: []desired.PortRange{{Min: 80, Max: 80}}}),
			packets{{transport(6, 81)}, {transport(50, 0)}, {icmp(1, 8, 0)}}, packets{{}, v6, {transport(17, 80)}}},
		{"not named ports", dst(desired.Side{NotPortSets: []desired.SetID{"n:p"}}),
			packets{{}, {transport(50, 0)}, {transport(17, 8080)}}, packets{{transport(6, 8080)}}},
		{"not any port", dst(desired.Side{NotPorts: []desired.PortRange{{Min: 0, Max: 65535}}}), packets{{transport(50, 0)}}, packets{{}}},
		{"port and not port", dst(desired.Side{Ports: []desired.PortRange{{Min: 80, Max: 90}}, NotPorts: []desired.PortRange{{Min: 85, Max: 85}}}),
			packets{{}}, packets{{transport(6, 85)}, {transport(50, 0)}}},
		{"port and ICMP", func(r *desired.PolicyRule) {
			r.ICMP, r.Destination.Ports = &desired.ICMP{Type: 8, Code: -1}, []desired.PortRange{{Min: 80, Max: 80}}
		}, nil, packets{{}, {icmp(1, 8, 0)}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := shop()
			p.Sets["s:a"], p.Sets["s:b"] = addressSet("10.0.0.2/32", "fd00::2/128"), addressSet("10.0.0.0/30")
			p.Sets["n:p"] = portSet(6, 8080, "10.0.0.2")
			r := both(desired.Allow)
			tt.rule(&r)
			id := desired.RulesID{Owner: "NetworkPolicy default/web", Direction: desired.Ingress}
			p.Rules[id] = list(r)
			ep := p.Endpoints["cali2"]
			ep.Ingress, ep.Profiles = []desired.Tier{{Name: "default", Policies: []string{id.Owner}}}, nil
			ep.Addrs = append(ep.Addrs, netip.MustParseAddr("10.0.0.3"))
			program := Render(testConfig(), p)
			for want, list := range map[bool]packets{true: tt.yes, false: tt.not} {
				for _, change := range list {
					pkt := packetOf(append([]func(*Packet){from("eth0", macOther, "192.0.3.7")}, change...)...)
					got, err := program.Trace(pkt)
					if err != nil {
						t.Fatal(err)
					}
					if got.Accepted != want {
						t.Errorf("want %v of %+v\ngot %v%v", want, pkt, got, program.Chains[rulesChain(id)])
					}
				}
			}
		})
	}
}

// TestMissing: what is missing denies.
func TestMissing(t *testing.T) {
	gone := []desired.SetID{"s:gone"}
	side := map[string]desired.Side{
		"set":            {Sets: gone},
		"not set":        {NotSets: gone},
		"named port":     {PortSets: gone},
		"not named port": {NotPortSets: gone},
		"port or named":  {PortSets: gone, Ports: []desired.PortRange{{Min: 1, Max: 1}}},
		"another kind":   {Sets: []desired.SetID{"n:http"}},
	}
	for name, s := range side {
		for _, action := range []desired.Action{desired.Allow, desired.Deny, desired.Pass} {
			p := open(shop())
			r := both(action)
			r.Destination = s
			rules := []desired.PolicyRule{r}
			if action != desired.Allow {
				rules = append(rules, both(desired.Allow))
			}
			p.Rules[desired.RulesID{Owner: "NetworkPolicy default/web", Direction: desired.Ingress}] = list(rules...)
			p.Rules[desired.RulesID{Owner: "GlobalNetworkPolicy guard", Direction: desired.Ingress}] = list(both(desired.Pass))
			got, err := Render(testConfig(), p).Trace(packetOf())
			if err != nil || got.Accepted {
				t.Errorf("%s, action %d: %v %v", name, action, got, err)
			}
		}
	}
	for _, owner := range []string{"NetworkPolicy default/web", "Profile kns.default"} {
		p := open(shop())
		delete(p.Rules, desired.RulesID{Owner: owner, Direction: desired.Ingress})
		p.Rules[desired.RulesID{Owner: "GlobalNetworkPolicy guard", Direction: desired.Ingress}] = list(both(desired.Pass))
		if owner[0] == 'P' {
			p.Endpoints["cali2"].Ingress = nil
		}
		got, err := Render(testConfig(), p).Trace(packetOf())
		if err != nil || got.Accepted || lastCounter(got) != counterMissing {
			t.Errorf("%s: %v %v", owner, got, err)
		}
	}
}

func TestLogLines(t *testing.T) {
	cfg := testConfig()
	for prefix, want := range map[string]string{
		"calico-packet":          "calico-packet: ",
		"%t %k %n %p":            "default NetworkPolicy web default/web: ",
		strings.Repeat("%p", 20): strings.Repeat("default/web", 20)[:125] + ": ",
	} {
		cfg.LogPrefix = prefix
		p := shop()
		p.Rules[desired.RulesID{Owner: "NetworkPolicy default/web", Direction: desired.Ingress}] = list(both(desired.Log), both(desired.Deny))
		p.Endpoints["cali2"].Ingress = p.Endpoints["cali2"].Ingress[1:]
		got, err := Render(cfg, p).Trace(packetOf())
		if err != nil || got.Accepted {
			t.Fatal(got, err)
		}
		line := ""
		for _, s := range got.Steps {
			line += s.Log
		}
		if line != want {
			t.Errorf("prefix %q: want %q, got %q", prefix, want, line)
		}
	}
}

// TestUnsound: a program that refers to what is not there is no verdict.
func TestUnsound(t *testing.T) {
	loop := func(s ...Statement) *Program {
		c := base("a", Forward, 0, Rule{Do: s})
		return &Program{Chains: map[string]*Chain{"a": c}, Sets: map[string]*Set{"s": {Name: "s", Key: []Type{PortType}}}}
	}
	for _, p := range []*Program{
		loop(Jump{"a"}), loop(Goto{"b"}), loop(Count{"c"}), loop(Dispatch{[]Field{InInterface}, "m"}),
		loop(Dispatch{[]Field{InInterface}, "s"}), loop(Dispatch{[]Field{SourcePort, SourcePort}, "s"}),
	} {
		if got, err := p.Trace(packetOf()); err == nil {
			t.Errorf("%v: %v", p, got)
		}
	}
}
