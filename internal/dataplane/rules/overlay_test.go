package rules

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
)

// network is two hosts, a third that uses no tunnels, an external network that
// may send VXLAN, and three pools: with natOutgoing, without, and disabled.
func network() *desired.Policy {
	p := shop()
	both := desired.FormsOf(desired.IPIP, desired.VXLAN)
	for prefix, forms := range map[string]desired.Forms{
		"192.168.0.1/32": desired.OwnHost(), "192.168.0.2/32": both, "192.168.0.3/32": 0, "192.168.9.0/24": desired.FormsOf(desired.VXLAN),
		"2001:db8::1/128": desired.OwnHost(), "2001:db8::2/128": desired.FormsOf(desired.VXLAN), "2001:db8::3/128": 0,
	} {
		p.Hosts[netip.MustParsePrefix(prefix)] = forms
	}
	for prefix, masquerade := range map[string]bool{
		"10.0.0.0/16": true, "10.1.0.0/16": false, "172.16.0.0/12": false,
		"fd00::/48": true, "fd01::/48": false,
	} {
		p.Pools[netip.MustParsePrefix(prefix)] = desired.PoolUse{Masquerade: masquerade}
	}
	p.Tunnels[desired.DeviceIPIP] = netip.MustParseAddr("10.0.5.1")
	p.Tunnels[desired.DeviceVXLAN4] = netip.MustParseAddr("10.0.5.2")
	p.Tunnels[desired.DeviceVXLAN6] = netip.MustParseAddr("fd00::5:2")
	return p
}

func forUs(p *Packet) {
	local(p)
	p.ForUs, p.Dest = true, netip.MustParseAddr("192.168.0.1")
	if p.Source.Is6() {
		p.Dest = netip.MustParseAddr("2001:db8::1")
	}
}

func fromUs(p *Packet) { byHost(p); p.FromUs = true }

// TestSenders: packets in packets get to this host from known hosts only.
func TestSenders(t *testing.T) {
	p := network()
	for _, l := range []desired.LinkFamily{{Interface: "eth9", Family: 4}, {Interface: "eth9", Family: 6}, {Interface: "eth8", Family: 4}} {
		p.Strict[l] = struct{}{}
	}
	program := Render(testConfig(), p)
	by := func(name string) func(*Packet) { return func(p *Packet) { p.In = name } }
	astray := func(p *Packet) { p.Astray = true }
	toAnother := func(p *Packet) { p.Dest = netip.MustParseAddr("192.168.7.1") }
	from := func(a string) func(*Packet) { return from("eth0", macOther, a) }
	vxlan := func(p *Packet) { transport(17, 4789)(p); vni(4096)(p) }
	tests := []struct {
		name      string
		pkt       Packet
		want      string // counter
		untracked bool
	}{
		{"IP in IP from a host", packetOf(from("192.168.0.2"), forUs, transport(4, 0)), "", false},
		{"IP in IP from a host without tunnels", packetOf(from("192.168.0.3"), forUs, transport(4, 0)), CounterUnknownIPIP, false},
		{"IP in IP from one that may send VXLAN only", packetOf(from("192.168.9.7"), forUs, transport(4, 0)), CounterUnknownIPIP, false},
		{"IP in IP from outside", packetOf(from("198.51.100.7"), forUs, transport(4, 0)), CounterUnknownIPIP, false},
		{"IP in IP for everybody on the link", packetOf(from("198.51.100.7"), local, transport(4, 0)), CounterUnknownIPIP, false},
		{"IP in IPv6 from a host", packetOf(from("2001:db8::2"), forUs, transport(4, 0)), CounterUnknownIPIP, false},
		{"IP in IP passes by", packetOf(from("198.51.100.7"), to("eth1", "203.0.113.1"), transport(4, 0)), "", false},
		{"VXLAN from a host", packetOf(from("192.168.0.2"), forUs, vxlan), "", true},
		{"VXLAN from a host, IPv6", packetOf(from("2001:db8::2"), forUs, vxlan), "", true},
		{"VXLAN from a host to another address", packetOf(from("192.168.0.2"), forUs, toAnother, vxlan), "", false},
		{"VXLAN from outside to another address", packetOf(from("198.51.100.7"), forUs, toAnother, vxlan), CounterUnknownVXLAN, false},
		{"VXLAN from a host passes by", packetOf(from("192.168.0.2"), to("eth1", "203.0.113.1"), vxlan), "", false},
		{"VXLAN from an external network", packetOf(from("192.168.9.7"), forUs, vxlan), "", true},
		{"VXLAN from a host without tunnels", packetOf(from("192.168.0.3"), forUs, vxlan), CounterUnknownVXLAN, true},
		{"VXLAN from a host without tunnels, IPv6", packetOf(from("2001:db8::3"), forUs, vxlan), CounterUnknownVXLAN, true},
		{"VXLAN from outside", packetOf(from("198.51.100.7"), forUs, vxlan), CounterUnknownVXLAN, true},
		{"VXLAN from outside in a connection", packetOf(from("198.51.100.7"), forUs, vxlan, inState(StateEstablished)), CounterUnknownVXLAN, true},
		{"VXLAN from outside, IPv6", packetOf(from("2001:db8:9::1"), forUs, vxlan), CounterUnknownVXLAN, true},
		{"VXLAN for everybody on the link", packetOf(from("198.51.100.7"), local, vxlan), CounterUnknownVXLAN, false},
		{"VXLAN with our own address, IPv6", packetOf(from("2001:db8::1"), forUs, vxlan, func(p *Packet) { p.FromUs = true }), CounterUnknownVXLAN, true},
		{"VXLAN from a host by a strict interface", packetOf(from("192.168.0.2"), by("eth9"), forUs, vxlan), "", true},
		{"VXLAN from a host by another way", packetOf(from("192.168.0.2"), astray, forUs, vxlan), "", true},
		{"VXLAN from a host by the wrong interface", packetOf(from("192.168.0.2"), by("eth9"), astray, forUs, vxlan), CounterUnknownVXLAN, false},
		{"VXLAN from a host by the wrong interface, IPv6", packetOf(from("2001:db8::2"), by("eth9"), astray, forUs, vxlan), CounterUnknownVXLAN, false},
		{"VXLAN from a host by an interface that is strict for IPv4", packetOf(from("2001:db8::2"), by("eth8"), astray, forUs, vxlan), "", true},
		{"IP in IP from a host by the wrong interface", packetOf(from("192.168.0.2"), by("eth9"), astray, forUs, transport(4, 0)), CounterUnknownIPIP, false},
		{"another's VXLAN by the wrong interface", packetOf(from("192.168.0.2"), by("eth9"), astray, forUs, vxlan, vni(7)), "", false},
		{"VXLAN passes by, from the wrong interface", packetOf(from("192.168.0.2"), by("eth9"), astray, to("eth1", "203.0.113.1"), vxlan), "", false},
		{"VXLAN of another network", packetOf(from("198.51.100.7"), forUs, vxlan, vni(4097)), "", false},
		{"VXLAN on another port", packetOf(from("198.51.100.7"), forUs, vxlan, transport(17, 8472)), "", false},
		{"UDP to the port that is no VXLAN", packetOf(from("198.51.100.7"), forUs, transport(17, 4789)), "", false},
		{"VXLAN passes by", packetOf(from("198.51.100.7"), to("eth1", "203.0.113.1"), vxlan), "", false},
		{"VXLAN from this host", packetOf(fromUs, vxlan), "", true},
		{"another's VXLAN from this host", packetOf(fromUs, vxlan, vni(7)), "", false},
		{"TCP", packetOf(from("192.168.0.2"), forUs, transport(6, 4789)), "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := program.Trace(tt.pkt)
			if err != nil {
				t.Fatal(err)
			}
			if lastCounter(got) != tt.want || got.Accepted != (tt.want == "") || got.Untracked != tt.untracked {
				t.Errorf("want counter %q, untracked %v, got:\n%v(untracked: %v)", tt.want, tt.untracked, got, got.Untracked)
			}
		})
	}
}

// TestWorkloadsInTunnels: where workloads may send packets in packets, and one
// may send from the address of a host, its policy is asked all the same.
func TestWorkloadsInTunnels(t *testing.T) {
	cfg := testConfig()
	cfg.Encapsulations, cfg.ToHost = nil, FateAccept
	open, closed := network(), network()
	for _, p := range []*desired.Policy{open, closed} {
		p.Endpoints["cali2"].Sources = nets("192.168.0.0/16", "2001:db8::/32")
		if p == closed {
			p.Rules[desired.RulesID{Owner: "Profile kns.default", Direction: desired.Egress}] = list(both(desired.Deny))
		}
	}
	from := func(a string) func(*Packet) { return from("cali2", macOther, a) }
	vxlan := func(p *Packet) { transport(17, 4789)(p); vni(4096)(p) }
	for _, tt := range []struct {
		name    string
		pkt     Packet
		unknown string // counter, whatever policy says; "": it is policy's to say
	}{
		{"IP in IP from a host's address", packetOf(from("192.168.0.2"), forUs, transport(4, 0)), ""},
		{"VXLAN from a host's address", packetOf(from("192.168.0.2"), forUs, vxlan), ""},
		{"VXLAN from a host's address, IPv6", packetOf(from("2001:db8::2"), forUs, vxlan), ""},
		{"VXLAN from an external network's", packetOf(from("192.168.9.7"), forUs, vxlan), ""},
		{"IP in IP from another", packetOf(from("192.168.7.7"), forUs, transport(4, 0)), CounterUnknownIPIP},
		{"VXLAN from another", packetOf(from("192.168.7.7"), forUs, vxlan), CounterUnknownVXLAN},
		{"VXLAN from another, IPv6", packetOf(from("2001:db8:7::7"), forUs, vxlan), CounterUnknownVXLAN},
		{"another's VXLAN", packetOf(from("192.168.7.7"), forUs, vxlan, vni(7)), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for p, allows := range map[*desired.Policy]bool{open: true, closed: false} {
				got, err := Render(cfg, p).Trace(tt.pkt)
				if err != nil {
					t.Fatal(err)
				}
				if got.Accepted != (allows && tt.unknown == "") || tt.unknown != "" && lastCounter(got) != tt.unknown {
					t.Errorf("policy allows: %v; want counter %q, got:\n%v", allows, tt.unknown, got)
				}
			}
		})
	}
}

// TestSendersOnlyWhileUsed: who uses no tunnels has nothing to do with those
// that somebody else on the host has.
func TestSendersOnlyWhileUsed(t *testing.T) {
	p := network()
	for prefix := range p.Hosts {
		p.Hosts[prefix] = 0
	}
	clear(p.Tunnels)
	program := Render(testConfig(), p)
	for _, name := range []string{"ipip-senders", "vxlan-senders", "untrack-out", chainUnderlay} {
		if program.Chains[name] != nil {
			t.Errorf("there is a chain %s", name)
		}
	}
	// With an interface of its own, the host listens before it knows anybody.
	p.Tunnels[desired.DeviceVXLAN4] = netip.Addr{}
	program = Render(testConfig(), p)
	got, err := program.Trace(packetOf(from("eth0", macOther, "192.168.0.2"), forUs, transport(17, 4789), vni(4096)))
	if err != nil || got.Accepted {
		t.Errorf("VXLAN where no host is known: %v, %v", got, err)
	}
	if program.Chains["ipip-senders"] != nil {
		t.Error("IP in IP is ours, though there is none")
	}
}

// TestNAT: the matrix of what leaves a workload and what leaves the host.
func TestNAT(t *testing.T) {
	masquerade := "masquerade"
	udp := "masquerade ports 4790-65535"
	pod4, pod6 := from("cali1", mac1, "10.0.0.1"), from("cali1", mac1, "fd00::1")
	tests := []struct {
		name string
		cfg  func(*Config)
		pkt  Packet
		want string
	}{
		{"outside", nil, packetOf(pod4, to("eth0", "198.51.100.7")), masquerade},
		{"outside, UDP beside VXLAN", nil, packetOf(pod4, to("eth0", "198.51.100.7"), transport(17, 53)), udp},
		{"outside, ICMP", nil, packetOf(pod4, to("eth0", "198.51.100.7"), icmp(1, 8, 0)), masquerade},
		{"outside, IPv6", nil, packetOf(pod6, to("eth0", "2001:db8:9::1")), masquerade},
		{"outside, in a connection", nil, packetOf(pod4, to("eth0", "198.51.100.7"), inState(StateEstablished)), ""},
		{"a workload here", nil, packetOf(pod4, to("cali2", "10.0.0.2")), ""},
		{"a workload there", nil, packetOf(pod4, to("eth0", "10.0.9.9")), ""},
		{"a workload there, IPv6", nil, packetOf(pod6, to("eth0", "fd00::9:9")), ""},
		{"a workload of another pool", nil, packetOf(pod4, to("eth0", "10.1.9.9")), ""},
		{"a disabled pool", nil, packetOf(pod4, to("eth0", "172.16.1.1")), ""},
		{"another pool, IPv6", nil, packetOf(pod6, to("eth0", "fd01::9")), ""},
		{"a host", nil, packetOf(pod4, to("eth0", "192.168.0.3")), masquerade},
		{"a host, IPv6", nil, packetOf(pod6, to("eth0", "2001:db8::3")), masquerade},
		{"a host that keeps its sources", keepHosts, packetOf(pod4, to("eth0", "192.168.0.3")), ""},
		{"an external one that keeps its sources", keepHosts, packetOf(pod4, to("eth0", "192.168.9.3")), ""},
		{"a host that keeps its sources, IPv6", keepHosts, packetOf(pod6, to("eth0", "2001:db8::3")), ""},
		{"outside beside hosts that keep their sources", keepHosts, packetOf(pod4, to("eth0", "198.51.100.7")), masquerade},
		{"a pool without natOutgoing", nil, packetOf(from("eth1", macOther, "10.1.0.1"), to("eth0", "198.51.100.7")), ""},
		{"no pool", nil, packetOf(from("eth1", macOther, "192.0.2.1"), to("eth0", "198.51.100.7")), ""},
		{"a host's process", nil, packetOf(fromUs, from("", "", "192.168.0.1"), to("eth0", "198.51.100.7")), ""},
		{"from outside to a workload", nil, packetOf(from("eth0", macOther, "198.51.100.7"), to("cali1", "10.0.0.1")), ""},
		{"a filter that fits", outBy("eth0"), packetOf(pod4, to("eth0", "198.51.100.7")), masquerade},
		{"a filter that does not", outBy("eth0"), packetOf(pod4, to("eth1", "198.51.100.7")), ""},
		{"a filter that is longer", outBy("eth01"), packetOf(pod4, to("eth0", "198.51.100.7")), ""},
		{"a filter of many", outBy("eth+"), packetOf(pod4, to("eth1", "198.51.100.7")), masquerade},
		{"a filter of many, none of them", outBy("eth+"), packetOf(pod4, to("wl0", "198.51.100.7")), ""},
		{"a filter of all", outBy("+"), packetOf(pod4, to("wl0", "198.51.100.7")), masquerade},
		{"ports, TCP", ports(2000, 3000), packetOf(pod4, to("eth0", "198.51.100.7")), "masquerade ports 2000-3000"},
		{"ports, UDP", ports(2000, 3000), packetOf(pod4, to("eth0", "198.51.100.7"), transport(17, 53)), "masquerade ports 2000-3000"},
		{"ports, UDP beside VXLAN, below", ports(2000, 5000), packetOf(pod4, to("eth0", "198.51.100.7"), transport(17, 53)), "masquerade ports 2000-4788"},
		{"ports, UDP beside VXLAN, above", ports(4000, 60000), packetOf(pod4, to("eth0", "198.51.100.7"), transport(17, 53)), udp[:21] + "-60000"},
		{"ports, ICMP", ports(2000, 3000), packetOf(pod4, to("eth0", "198.51.100.7"), icmp(1, 8, 0)), masquerade},
		{"ports, SCTP", ports(2000, 3000), packetOf(pod4, to("eth0", "198.51.100.7"), transport(132, 9)), masquerade},
		{"an address", address, packetOf(pod4, to("eth0", "198.51.100.7")), "source 203.0.113.9"},
		{"an address of the other family", address, packetOf(pod6, to("eth0", "2001:db8:9::1")), masquerade},
		{"an address, UDP", address, packetOf(pod4, to("eth0", "198.51.100.7"), transport(17, 53)), "source 203.0.113.9 ports 4790-65535"},
		{"host into IP in IP", nil, packetOf(fromUs, from("", "", "192.168.0.1"), to("tunl0", "10.0.9.9")), masquerade},
		{"host into VXLAN", nil, packetOf(fromUs, from("", "", "192.168.0.1"), to("vxlan.calico", "10.0.9.9")), masquerade},
		{"host into VXLAN, UDP", nil, packetOf(fromUs, from("", "", "192.168.0.1"), to("vxlan.calico", "10.0.9.9"), transport(17, 53)), udp},
		{"host into VXLAN, IPv6", nil, packetOf(fromUs, from("", "", "2001:db8::1"), to("vxlan-v6.calico", "fd00::9:9")), masquerade},
		{"host into VXLAN, the link's own", nil, packetOf(fromUs, from("", "", "fe80::1"), to("vxlan-v6.calico", "ff02::1")), ""},
		{"the tunnel's own address", nil, packetOf(fromUs, from("", "", "10.0.5.2"), to("vxlan.calico", "10.0.9.9")), ""},
		{"the other tunnel's address", nil, packetOf(fromUs, from("", "", "10.0.5.1"), to("vxlan.calico", "10.0.9.9")), masquerade},
		{"a workload into a tunnel", nil, packetOf(pod4, to("vxlan.calico", "10.0.9.9")), ""},
		{"somebody's packet into a tunnel", nil, packetOf(from("eth1", macOther, "192.0.2.1"), to("vxlan.calico", "10.0.9.9")), ""},
		{"a tunnel's address outside", nil, packetOf(fromUs, from("", "", "10.0.5.2"), to("eth0", "198.51.100.7")), masquerade},
		{"VXLAN itself", nil, packetOf(fromUs, from("", "", "192.168.0.1"), to("eth0", "192.168.0.2"), transport(17, 4789), vni(4096)), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig()
			if tt.cfg != nil {
				tt.cfg(&cfg)
			}
			got, err := Render(cfg, open(network())).Trace(tt.pkt)
			if err != nil {
				t.Fatal(err)
			}
			text := ""
			if got.NAT != nil {
				text = got.NAT.String()
			}
			if text != tt.want || !got.Accepted {
				t.Errorf("want %q, got %q:\n%v", tt.want, text, got)
			}
		})
	}
}

func keepHosts(c *Config) { c.NAT.KeepToHosts = true }
func address(c *Config)   { c.NAT.Address = netip.MustParseAddr("203.0.113.9") }

func outBy(name string) func(*Config) { return func(c *Config) { c.NAT.Interface = name } }

func ports(lo, hi uint16) func(*Config) {
	return func(c *Config) { c.NAT.Ports = desired.PortRange{Min: lo, Max: hi} }
}

// TestNATStays: what was begun goes on, so the chain stays when nothing is
// translated any more.
func TestNATStays(t *testing.T) {
	p := network()
	clear(p.Tunnels)
	b := New(testConfig(), p)
	var patch desired.PolicyPatch
	patch.Pools.Set = map[netip.Prefix]desired.PoolUse{
		netip.MustParsePrefix("10.0.0.0/16"): {}, netip.MustParsePrefix("fd00::/48"): {},
	}
	patch.Play(*p)
	d := b.Update(p, &patch)
	if want := []string{"nat-out4", "nat-out6"}; !slices.Equal(d.Chains.Delete, want) {
		t.Errorf("chains %v go, want %v", d.Chains.Delete, want)
	}
	if c := b.Program().Chains["nat"]; c == nil || len(c.Rules) > 0 {
		t.Errorf("the chain is %v", c)
	}
}

// TestOneHostMore: it costs its elements and nothing else, however many there
// are.
func TestOneHostMore(t *testing.T) {
	p := network()
	for i := range 1000 {
		p.Hosts[netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(100 + i/250), byte(i % 250)}), 32)] = desired.FormsOf(desired.IPIP, desired.VXLAN)
	}
	cfg := testConfig()
	cfg.NAT.KeepToHosts = true
	b := New(cfg, p)
	var patch desired.PolicyPatch
	patch.Hosts.Set = map[netip.Prefix]desired.Forms{netip.MustParsePrefix("192.168.99.1/32"): desired.FormsOf(desired.VXLAN)}
	patch.Play(*p)
	d := b.Update(p, &patch)
	if !d.Chains.Empty() || len(d.Sets) != 2 || sizeOf(d) != 2 {
		t.Errorf("a host more changes %+v", d)
	}
	patch.Hosts.Set[netip.MustParsePrefix("192.168.99.1/32")] = desired.FormsOf(desired.IPIP)
	patch.Play(*p)
	d = b.Update(p, &patch)
	if !d.Chains.Empty() || len(d.Sets) != 2 || len(d.Sets["vxlan-hosts4"].Remove) != 1 || len(d.Sets["ipip-hosts4"].Add) != 1 {
		t.Errorf("another form changes %+v", d)
	}
}

// stepOverlay changes hosts, pools and tunnels.
func (w *world) stepOverlay(p *desired.PolicyPatch) {
	switch w.IntN(6) {
	case 5:
		change(w, &p.Strict, desired.LinkFamily{Interface: pick(w, "eth0", "eth1"), Family: pick(w, 4, 6)}, struct{}{})
	case 0, 1:
		change(w, &p.Hosts, w.prefix(), desired.Forms(w.IntN(8)))
	case 2, 3:
		change(w, &p.Pools, w.prefix(), desired.PoolUse{Masquerade: w.chance(2)})
	default:
		name := pick(w, desired.DeviceIPIP, desired.DeviceVXLAN4, desired.DeviceVXLAN6)
		change(w, &p.Tunnels, name, pick(w, w.addr(), netip.Addr{}))
	}
}

func change[K comparable, V any](w *world, p *desired.Patch[K, V], k K, v V) {
	if p.Set == nil {
		p.Set = map[K]V{}
	}
	switch _, ok := p.Set[k]; {
	case ok || slices.Contains(p.Delete, k):
	case w.chance(3):
		p.Delete = append(p.Delete, k)
	default:
		p.Set[k] = v
	}
}

// inside reports whether one of the prefixes has the address.
func inside[V any](in map[netip.Prefix]V, a netip.Addr, which func(V) bool) bool {
	for p, v := range in {
		if p.Contains(a) && which(v) {
			return true
		}
	}
	return false
}

// natOf is what the policy says of a packet's source, slowly: "" as it is.
func natOf(cfg Config, p *desired.Policy, pkt Packet) string {
	vxlan := false
	for _, forms := range p.Hosts {
		vxlan = vxlan || forms.Has(desired.VXLAN)
	}
	for name := range p.Tunnels {
		vxlan = vxlan || strings.HasPrefix(name, "vxlan")
	}
	if pkt.State != StateNew || pkt.Way == ToHost {
		return ""
	}
	own, tunnel := p.Tunnels[pkt.Out]
	any := func(desired.PoolUse) bool { return true }
	to := ""
	switch {
	case tunnel && own.IsValid() && own.Is4() == pkt.Source.Is4() && pkt.Source != own && pkt.FromUs && !pkt.Source.IsLinkLocalUnicast():
		to = "masquerade"
	case !inside(p.Pools, pkt.Source, func(u desired.PoolUse) bool { return u.Masquerade }) || inside(p.Pools, pkt.Dest, any):
		return ""
	case cfg.NAT.KeepToHosts && inside(p.Hosts, pkt.Dest, func(desired.Forms) bool { return true }):
		return ""
	default:
		to = "masquerade"
	}
	if pkt.Protocol == protoUDP && vxlan {
		to += " ports 4790-65535"
	}
	return to
}

// senderOf is what the policy says of who sends a packet in a packet: whether
// it is dropped.
func senderOf(p *desired.Policy, pkt Packet) bool {
	form := desired.IPIP
	if pkt.Protocol == protoUDP && pkt.DestPort == 4789 && pkt.VNI == 4096 {
		form = desired.VXLAN
	} else if pkt.Protocol != protoIPIP {
		return false
	}
	used := false
	for _, forms := range p.Hosts {
		used = used || forms.Has(form)
	}
	for name := range p.Tunnels {
		used = used || (name == desired.DeviceIPIP) == (form == desired.IPIP)
	}
	family := 4
	if pkt.Source.Is6() {
		family = 6
	}
	_, strict := p.Strict[desired.LinkFamily{Interface: pkt.In, Family: family}]
	return used && (strict && pkt.Astray && pkt.ForUs || !inside(p.Hosts, pkt.Source, func(f desired.Forms) bool { return f.Has(form) }))
}

// TestOverlayMeaning: random hosts, pools, tunnels and packets, against what
// they mean.
func TestOverlayMeaning(t *testing.T) {
	seen := map[string]int{}
	for seed := range 60 {
		w := newWorld(uint64(seed))
		cfg := testConfig()
		cfg.NAT.KeepToHosts = seed%2 == 0
		b := New(cfg, &w.policy)
		for range 12 {
			var patch desired.PolicyPatch
			for range 4 {
				w.stepOverlay(&patch)
			}
			patch.Play(w.policy)
			b.Update(&w.policy, &patch)
			tracer := NewTracer(b.Program())
			for range 40 {
				pkt := packetOf(from("eth0", macOther, "192.0.2.1"), transport(pick[uint8](w, 4, 6, 17, 17), pick[uint16](w, 53, 4789)), vni(pick[uint32](w, 0, 7, 4096)))
				pkt.Out = pick(w, "eth1", "tunl0", "vxlan.calico", "vxlan-v6.calico")
				pkt.Source, pkt.Dest = w.addr(), w.addr()
				for pkt.Dest.Is4() != pkt.Source.Is4() {
					pkt.Dest = w.addr()
				}
				pkt.Way, pkt.State = pick(w, Forwarded, ToHost, FromHost), pick(w, StateNew, StateNew, StateEstablished)
				pkt.FromUs, pkt.ForUs, pkt.Astray = pkt.Way == FromHost, pkt.Way == ToHost, w.chance(3)
				if pkt.Way == FromHost && pkt.VNI != 0 {
					continue // TestSenders has those that are not tracked
				}
				got, err := tracer.Trace(pkt)
				if err != nil {
					t.Fatal(err)
				}
				text := fmt.Sprint("dropped ", pkt.Way == ToHost && senderOf(&w.policy, pkt), ", ", natOf(cfg, &w.policy, pkt))
				nat := ""
				if got.NAT != nil {
					nat = got.NAT.String()
				}
				if have := fmt.Sprint("dropped ", !got.Accepted, ", ", nat); have != text {
					t.Fatalf("seed %d: packet %+v:\nwant %s\ngot  %s\n%v\n%v", seed, pkt, text, have, got, b.Program())
				}
				seen[text]++
			}
		}
	}
	if len(seen) < 4 {
		t.Errorf("too few kinds of outcome: %v", seen)
	}
	t.Log(seen)
}

// TestSampleOfUnknownSenders: it goes to a group of its own, or else where log
// lines go.
func TestSampleOfUnknownSenders(t *testing.T) {
	for _, tt := range []struct{ sender, log, want uint16 }{{0, 0, 0}, {0, 17, 17}, {18, 0, 18}, {18, 17, 18}} {
		c := testConfig()
		c.SenderGroup, c.LogGroup = tt.sender, tt.log
		program, seen := Render(c, network()), 0
		for _, name := range []string{"ipip-senders", "vxlan-senders"} {
			for _, r := range program.Chains[name].Rules {
				for _, a := range r.Do {
					if line, ok := a.(Log); ok {
						if seen++; line.Group != tt.want {
							t.Errorf("%s with groups %d, %d: goes to %d, want %d", name, tt.sender, tt.log, line.Group, tt.want)
						}
					}
				}
			}
		}
		if seen != 2 {
			t.Errorf("%d samples are taken, want 2", seen)
		}
	}
}
