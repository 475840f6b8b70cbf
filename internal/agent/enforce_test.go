package agent

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
)

// programOf is what the settings make of a host with one workload, whose
// policy logs all that leaves it and then allows it.
func programOf(t *testing.T, spec v3.FelixConfigurationSpec) (config.Agent, *rules.Program) {
	t.Helper()
	o := &v3.FelixConfiguration{Spec: spec}
	o.Name = "default"
	r, err := config.Resolve(config.Sources{Node: "h1", Objects: []*v3.FelixConfiguration{o}})
	if err != nil || len(r.Warnings)+len(r.Ignored) > 0 {
		t.Fatalf("%v, %v, %v", err, r.Warnings, r.Ignored)
	}
	want := desired.NewPolicy()
	want.Endpoints["cali1"] = &desired.Endpoint{
		Name: "WorkloadEndpoint default/a", Addrs: []netip.Addr{netip.MustParseAddr("10.65.0.1")},
		Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		Egress:  []desired.Tier{{Name: "default", Policies: []string{"NetworkPolicy default/log"}}},
	}
	list := &desired.RuleList{}
	for i, action := range []desired.Action{desired.Log, desired.Allow} {
		list.Rules = append(list.Rules, desired.PolicyRule{Index: i, Action: action, IPv4: true, IPv6: true})
	}
	want.Rules[desired.RulesID{Owner: "NetworkPolicy default/log", Direction: desired.Egress}] = list
	want.Pools[netip.MustParsePrefix("10.65.0.0/16")] = desired.PoolUse{Masquerade: true}
	want.Hosts[netip.MustParsePrefix("172.30.0.12/32")] = desired.FormsOf(desired.Direct)
	return r.Agent, rules.Render(ruleConfig(r.Agent, 0), &want)
}

// TestPolicySettingsAreObeyed goes from a field of a FelixConfiguration to
// what becomes of a packet. Rules are the same for both families here.
func TestPolicySettingsAreObeyed(t *testing.T) {
	base := rules.Packet{ // to another workload: nothing is rewritten
		Way: rules.Forwarded, In: "cali1", Out: "eth0", Source: netip.MustParseAddr("10.65.0.1"),
		Dest: netip.MustParseAddr("10.65.0.9"), Protocol: 17, SourcePort: 5, DestPort: 80, State: rules.StateNew, EthSource: "\x02\x00\x00\x00\x00\x01",
	}
	with := func(change func(*rules.Packet)) rules.Packet {
		p := base
		change(&p)
		return p
	}
	toHost := with(func(p *rules.Packet) { p.Way, p.Out = rules.ToHost, "" })
	vxlan := with(func(p *rules.Packet) { p.DestPort, p.VNI = 4789, 4096 })
	other := with(func(p *rules.Packet) { p.DestPort, p.VNI = 4790, 4096 })
	foreign := with(func(p *rules.Packet) { p.DestPort, p.VNI = 4789, 77 })
	ipip := with(func(p *rules.Packet) { p.Protocol, p.SourcePort, p.DestPort = 4, 0, 0 })
	spoofed := with(func(p *rules.Packet) { p.Source = netip.MustParseAddr("192.0.2.7") })
	invalid := with(func(p *rules.Packet) { p.State = rules.StateInvalid })
	denied := with(func(p *rules.Packet) { p.Way, p.In, p.Out = rules.Forwarded, "eth0", "cali1" })
	type spec = v3.FelixConfigurationSpec
	yes := true
	port, vni := 4790, 77
	for _, tt := range []struct {
		name string
		in   spec
		pkt  rules.Packet
		want string // accepted, dropped or rejected
	}{
		{"plain", spec{}, base, "accepted"},
		{"to the host", spec{}, toHost, "dropped"},
		{"to the host, Accept", spec{DefaultEndpointToHostAction: "Accept"}, toHost, "accepted"},
		{"to the host, Return", spec{DefaultEndpointToHostAction: "Return"}, toHost, "accepted"},
		{"denied", spec{}, denied, "dropped"},
		{"denied, Reject", spec{NftablesFilterDenyAction: "Reject"}, denied, "rejected"},
		{"VXLAN", spec{}, vxlan, "dropped"},
		{"VXLAN, allowed", spec{AllowVXLANPacketsFromWorkloads: &yes}, vxlan, "accepted"},
		{"VXLAN, another port", spec{VXLANPort: &port}, vxlan, "accepted"},
		{"VXLAN, to the other port", spec{VXLANPort: &port}, other, "dropped"},
		{"VXLAN of others", spec{}, foreign, "accepted"},
		{"VXLAN, another network", spec{VXLANVNI: &vni}, vxlan, "accepted"},
		{"VXLAN, of the other network", spec{VXLANVNI: &vni}, foreign, "dropped"},
		{"IP in IP", spec{}, ipip, "dropped"},
		{"IP in IP, allowed", spec{AllowIPIPPacketsFromWorkloads: &yes}, ipip, "accepted"},
		{"spoofed", spec{}, spoofed, "dropped"},
		{"spoofed, allowed", spec{WorkloadSourceSpoofing: "Any"}, spoofed, "accepted"},
		{"invalid", spec{}, invalid, "dropped"},
		{"invalid, judged", spec{DisableConntrackInvalidCheck: &yes}, invalid, "accepted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, program := programOf(t, tt.in)
			got, err := program.Trace(tt.pkt)
			if err != nil {
				t.Fatal(err)
			}
			if text, _, _ := strings.Cut(got.String(), "\n"); text != tt.want {
				t.Errorf("%v, want %s", got, tt.want)
			}
		})
	}
}

// TestNATSettingsAreObeyed goes from a field to the source with which a packet
// of a pool leaves. The fields are for IPv4; ports hold for both families.
func TestNATSettingsAreObeyed(t *testing.T) {
	packet := func(out, to string) rules.Packet {
		return rules.Packet{
			Way: rules.Forwarded, In: "cali1", Out: out, Source: netip.MustParseAddr("10.65.0.1"), Dest: netip.MustParseAddr(to),
			Protocol: 17, SourcePort: 5, DestPort: 80, State: rules.StateNew, EthSource: "\x02\x00\x00\x00\x00\x01",
		}
	}
	outside, host := packet("eth0", "192.0.2.1"), packet("eth0", "172.30.0.12")
	type spec = v3.FelixConfigurationSpec
	for _, tt := range []struct {
		name string
		in   spec
		pkt  rules.Packet
		want *rules.SourceNAT
	}{
		{"plain", spec{}, outside, &rules.SourceNAT{}},
		{"to a host", spec{}, host, &rules.SourceNAT{}},
		{"to a host, excluded", spec{NATOutgoingExclusions: new("IPPoolsAndHostIPs")}, host, nil},
		{"address", spec{NATOutgoingAddress: "192.0.2.77"}, outside, &rules.SourceNAT{To: netip.MustParseAddr("192.0.2.77")}},
		{"ports", spec{NATPortRange: &v3.Port{Min: 30000, Max: 40000}}, outside, &rules.SourceNAT{Ports: desired.PortRange{Min: 30000, Max: 40000}}},
		{"interface", spec{IptablesNATOutgoingInterfaceFilter: "eth+"}, outside, &rules.SourceNAT{}},
		{"another interface", spec{IptablesNATOutgoingInterfaceFilter: "ens+"}, outside, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, program := programOf(t, tt.in)
			got, err := program.Trace(tt.pkt)
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got.NAT) != fmt.Sprint(tt.want) || !got.Accepted {
				t.Errorf("%v, %v, want %v", got, got.NAT, tt.want)
			}
		})
	}
}

func TestLogSettingsAreObeyed(t *testing.T) {
	rate, burst := "10/minute", 7
	_, program := programOf(t, v3.FelixConfigurationSpec{LogPrefix: "flow %n", LogActionRateLimit: &rate, LogActionRateLimitBurst: &burst})
	for _, want := range []string{`"flow log: "`, "10", "7"} {
		found := false
		for line := range strings.Lines(program.String()) {
			found = found || strings.Contains(line, "log ") && strings.Contains(line, want)
		}
		if !found {
			t.Errorf("no line that logs has %s in\n%v", want, program)
		}
	}
}

func TestMarkAndPaceSettingsAreObeyed(t *testing.T) {
	mask := uint32(0xff000000)
	s, _ := programOf(t, v3.FelixConfigurationSpec{NftablesMarkMask: &mask, NftablesRefreshInterval: &v3.Duration{Duration: time.Minute}})
	if got := ruleConfig(s, 0).MarkMask; got != mask || s.Policy.Refresh != time.Minute {
		t.Errorf("mask %#x, refresh %v", got, s.Policy.Refresh)
	}
}
