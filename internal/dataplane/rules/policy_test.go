package rules

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
)

var update = flag.Bool("update", false, "write the goldens anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs (go test -update writes it anew); got:\n%s", path, got)
	}
}

// testConfig is the one of a host with nothing set.
func testConfig() Config {
	return Config{
		Prefixes: []string{"cali"}, MarkMask: 0xffff0000, CutMark: 0x10000, Spoofing: true,
		Encapsulations: []Encapsulation{{Protocol: 17, Port: 4789, VNI: 4096}, {Protocol: 4}},
		VXLAN:          VXLAN{Port: 4789, VNI: 4096},
		LogPrefix:      "calico-packet",
	}
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func nets(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addressSet(list ...string) *desired.Set {
	s := &desired.Set{Kind: desired.AddressSet, Members: map[desired.Member]struct{}{}}
	for _, p := range nets(list...) {
		s.Members[desired.Member{Prefix: p}] = struct{}{}
	}
	return s
}

func portSet(protocol uint8, port uint16, list ...string) *desired.Set {
	s := &desired.Set{Kind: desired.PortSet, Members: map[desired.Member]struct{}{}}
	for _, a := range addrs(list...) {
		s.Members[desired.Member{Prefix: netip.PrefixFrom(a, a.BitLen()), Protocol: protocol, Port: port}] = struct{}{}
	}
	return s
}

func list(rules ...desired.PolicyRule) *desired.RuleList {
	for i := range rules {
		rules[i].Index = i
	}
	return &desired.RuleList{Rules: rules}
}

// both is a rule for both families.
func both(a desired.Action) desired.PolicyRule {
	return desired.PolicyRule{Action: a, IPv4: true, IPv6: true}
}

// shop is a small world: two workloads, two tiers, a profile.
func shop() *desired.Policy {
	p := desired.NewPolicy()
	p.Sets["s:front"] = addressSet("10.0.0.1/32", "fd00::1/128")
	p.Sets["s:office"] = addressSet("192.0.2.0/24", "192.0.2.64/26", "198.51.100.7/32")
	p.Sets["n:http"] = portSet(6, 8080, "10.0.0.2", "fd00::2")
	in := func(owner string) desired.RulesID { return desired.RulesID{Owner: owner, Direction: desired.Ingress} }
	out := func(owner string) desired.RulesID { return desired.RulesID{Owner: owner, Direction: desired.Egress} }

	guard := both(desired.Pass)
	guard.Source.Sets = []desired.SetID{"s:office"}
	log := both(desired.Log)
	p.Rules[in("GlobalNetworkPolicy guard")] = list(guard, log)
	web := both(desired.Allow)
	web.Protocol = 6
	web.Source.Sets = []desired.SetID{"s:front"}
	web.Destination.Ports = []desired.PortRange{{Min: 80, Max: 80}, {Min: 443, Max: 443}}
	web.Destination.PortSets = []desired.SetID{"n:http"}
	ping := both(desired.Allow)
	ping.ICMP = &desired.ICMP{Type: 8, Code: -1}
	p.Rules[in("NetworkPolicy default/web")] = list(web, ping)
	p.Rules[out("GlobalNetworkPolicy guard")] = list(both(desired.Pass))
	p.Rules[in("Profile kns.default")] = list(both(desired.Allow))
	p.Rules[out("Profile kns.default")] = list(both(desired.Allow))

	p.Endpoints["cali1"] = &desired.Endpoint{
		Name: "WorkloadEndpoint default/h1-k8s-front-eth0", MAC: "02:00:00:00:00:01", Addrs: addrs("10.0.0.1", "fd00::1"),
		Egress:   []desired.Tier{{Name: "security", Policies: []string{"GlobalNetworkPolicy guard"}}},
		Profiles: []string{"Profile kns.default"},
	}
	p.Endpoints["cali2"] = &desired.Endpoint{
		Name: "WorkloadEndpoint default/h1-k8s-web-eth0", Addrs: addrs("10.0.0.2", "fd00::2"), Sources: nets("10.9.0.0/16"),
		Ingress: []desired.Tier{
			{Name: "security", Policies: []string{"GlobalNetworkPolicy guard"}, Pass: true},
			{Name: "default", Policies: []string{"NetworkPolicy default/web"}},
		},
		Profiles: []string{"Profile kns.default"},
	}
	return &p
}

func TestText(t *testing.T) {
	golden(t, "shop.txt", Render(testConfig(), shop()).String())
	empty := desired.NewPolicy()
	golden(t, "empty.txt", Render(testConfig(), &empty).String())
	cfg := testConfig()
	cfg.Compiled = true
	builder := New(cfg, shop())
	golden(t, "compiled.txt", builder.Program().String())
	if got, want := builder.Stats(), (Stats{Groups: 4, Compiled: 4, Classes: 5, Rows: 12, PlainRows: 5}); got != want {
		t.Errorf("want %+v, got %+v", want, got)
	}
	cfg = testConfig()
	cfg.Prefixes, cfg.Reject, cfg.ToHost, cfg.CutMark = []string{"cali", "tap"}, true, FateReject, 0
	cfg.AllowInvalid, cfg.Encapsulations, cfg.LogPrefix, cfg.LogGroup = true, nil, "%t %k %n", 5
	cfg.LogLimit = Limit{Rate: 10, Seconds: 60, Burst: 5}
	golden(t, "settings.txt", Render(cfg, shop()).String())
	p := desired.NewPolicy()
	p.Hosts, p.Pools, p.Tunnels = network().Hosts, network().Pools, network().Tunnels
	cfg = testConfig()
	golden(t, "overlay.txt", Render(cfg, &p).String())
	cfg.NAT = NAT{Address: netip.MustParseAddr("203.0.113.9"), Ports: desired.PortRange{Min: 4000, Max: 5000}, KeepToHosts: true, Interface: "eth+"}
	golden(t, "overlay-settings.txt", Render(cfg, &p).String())
}
