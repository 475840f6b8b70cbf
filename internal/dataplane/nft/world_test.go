package nft

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
)

// settings are like an agent's.
func settings() rules.Config {
	return rules.Config{
		Prefixes: []string{"cali", "tap"}, MarkMask: 0xffff0000, CutMark: 0x80000000, ToHost: rules.FateDrop, Spoofing: true,
		Encapsulations: []rules.Encapsulation{{Protocol: 17, Port: 4789, VNI: 4096}, {Protocol: 4}},
		VXLAN:          rules.VXLAN{Port: 4789, VNI: 4096},
		LogPrefix:      "brindle %k %p",
	}
}

// compiled are settings by which rules are look-ups wherever they can be.
func compiled() rules.Config {
	c := settings()
	c.Compiled, c.CompileFrom = true, 1
	return c
}

func open(t testing.TB, ns *netns.NS) *Driver {
	t.Helper()
	return openWith(t, ns, settings())
}

func openWith(t testing.TB, ns *netns.NS, cfg rules.Config) *Driver {
	t.Helper()
	d, err := Open(Config{NS: ns, Rules: cfg, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func members(kind desired.SetKind, list ...desired.Member) *desired.Set {
	s := &desired.Set{Kind: kind, Members: map[desired.Member]struct{}{}}
	for _, m := range list {
		s.Members[m] = struct{}{}
	}
	return s
}

func nets(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addrs(list ...string) (out []desired.Member) {
	for _, p := range nets(list...) {
		out = append(out, desired.Member{Prefix: p})
	}
	return out
}

// everything is a policy that uses each form that there is.
func everything() *desired.Policy {
	p := desired.NewPolicy()
	p.Sets["s:web"] = members(desired.AddressSet, addrs("10.0.0.2/32", "10.0.0.3/32", "fd00::2/128")...)
	p.Sets["s:nets"] = members(desired.AddressSet,
		addrs("10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/1", "255.0.0.0/8", "192.0.2.1/32", "fd00::/64", "ff00::/8")...)
	p.Sets["n:http"] = members(desired.PortSet,
		desired.Member{Prefix: netip.MustParsePrefix("10.0.0.2/32"), Protocol: 6, Port: 80},
		desired.Member{Prefix: netip.MustParsePrefix("fd00::2/128"), Protocol: 17, Port: 53})
	in := desired.RulesID{Owner: "NetworkPolicy default/all", Direction: desired.Ingress}
	out := desired.RulesID{Owner: "NetworkPolicy default/all", Direction: desired.Egress}
	both := desired.PolicyRule{IPv4: true, IPv6: true}
	rule := func(a desired.Action, change func(*desired.PolicyRule)) desired.PolicyRule {
		r := both
		r.Action = a
		change(&r)
		return r
	}
	list := []desired.PolicyRule{
		rule(desired.Log, func(*desired.PolicyRule) {}),
		rule(desired.Allow, func(r *desired.PolicyRule) {
			r.Protocol, r.Destination.Ports = 6, []desired.PortRange{{Min: 80, Max: 80}, {Min: 443, Max: 443}}
			r.Source.Sets = []desired.SetID{"s:web"}
		}),
		rule(desired.Deny, func(r *desired.PolicyRule) {
			r.Protocol, r.Destination.NotPorts = 17, []desired.PortRange{{Min: 53, Max: 53}, {Min: 1000, Max: 2000}}
			r.Source.NotSets = []desired.SetID{"s:nets"}
		}),
		rule(desired.Pass, func(r *desired.PolicyRule) { r.Destination.PortSets = []desired.SetID{"n:http"} }),
		rule(desired.Allow, func(r *desired.PolicyRule) {
			r.Protocol, r.Destination.Ports = 6, []desired.PortRange{{Min: 1000, Max: 2000}}
			r.Destination.NotPortSets = []desired.SetID{"n:http"}
		}),
		rule(desired.Allow, func(r *desired.PolicyRule) {
			r.IPv6, r.Source.Nets, r.Destination.NotNets = false, nets("10.0.0.0/8", "192.0.2.0/24"), nets("10.9.0.0/16")
		}),
		rule(desired.Allow, func(r *desired.PolicyRule) { r.ICMP = &desired.ICMP{Type: 8, Code: -1} }),
		rule(desired.Allow, func(r *desired.PolicyRule) { r.NotICMP = &desired.ICMP{Type: 128, Code: 0} }),
		rule(desired.Deny, func(r *desired.PolicyRule) { r.NotProtocol = 132 }),
	}
	for i := range list {
		list[i].Index = i
	}
	p.Rules[in], p.Rules[out] = &desired.RuleList{Rules: list}, &desired.RuleList{Rules: list}
	allow := &desired.RuleList{Rules: []desired.PolicyRule{rule(desired.Allow, func(*desired.PolicyRule) {})}}
	for _, d := range []desired.Direction{desired.Ingress, desired.Egress} {
		p.Rules[desired.RulesID{Owner: "Profile kns.default", Direction: d}] = allow
	}
	tiers := []desired.Tier{{Name: "default", Policies: []string{"NetworkPolicy default/all"}}}
	p.Endpoints["cali1"] = &desired.Endpoint{
		Name: "WorkloadEndpoint default/a", MAC: "ee:ee:ee:ee:ee:ee", Ingress: tiers, Egress: tiers,
		Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}, Profiles: []string{"Profile kns.default"},
	}
	p.Endpoints["tap2"] = &desired.Endpoint{
		Name: "WorkloadEndpoint default/b", Ingress: tiers, Profiles: []string{"Profile kns.default"},
		Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.3")}, Sources: nets("198.51.100.0/24"),
	}
	tunnels := desired.FormsOf(desired.IPIP, desired.VXLAN)
	p.Hosts[netip.MustParsePrefix("172.30.0.11/32")] = tunnels
	p.Hosts[netip.MustParsePrefix("172.30.1.0/24")] = tunnels
	p.Hosts[netip.MustParsePrefix("fd00:172:30::b/128")] = desired.FormsOf(desired.VXLAN)
	p.Pools[netip.MustParsePrefix("10.0.0.0/8")] = desired.PoolUse{Masquerade: true}
	p.Pools[netip.MustParsePrefix("fd00::/48")] = desired.PoolUse{Masquerade: true}
	p.Pools[netip.MustParsePrefix("192.168.0.0/16")] = desired.PoolUse{}
	p.Tunnels[desired.DeviceIPIP] = netip.MustParseAddr("10.255.0.1")
	p.Tunnels[desired.DeviceVXLAN6] = netip.MustParseAddr("fd00::ffff:1")
	return &p
}
