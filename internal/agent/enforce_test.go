package agent

import (
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
	return r.Agent, rules.Render(ruleConfig(r.Agent, 0), &want)
}

// TestPolicySettingsAreObeyed goes from a field of a FelixConfiguration to
// what becomes of a packet. Rules are the same for both families here.
func TestPolicySettingsAreObeyed(t *testing.T) {
	base := rules.Packet{
		Way: rules.Forwarded, In: "cali1", Out: "eth0", Source: netip.MustParseAddr("10.65.0.1"),
		Dest: netip.MustParseAddr("10.9.0.9"), Protocol: 17, SourcePort: 5, DestPort: 80, State: rules.StateNew, EthSource: "\x02\x00\x00\x00\x00\x01",
	}
	with := func(change func(*rules.Packet)) rules.Packet {
		p := base
		change(&p)
		return p
	}
	toHost := with(func(p *rules.Packet) { p.Way, p.Out = rules.ToHost, "" })
	vxlan := with(func(p *rules.Packet) { p.DestPort = 4789 })
	other := with(func(p *rules.Packet) { p.DestPort = 4790 })
	ipip := with(func(p *rules.Packet) { p.Protocol, p.SourcePort, p.DestPort = 4, 0, 0 })
	spoofed := with(func(p *rules.Packet) { p.Source = netip.MustParseAddr("192.0.2.7") })
	invalid := with(func(p *rules.Packet) { p.State = rules.StateInvalid })
	denied := with(func(p *rules.Packet) { p.Way, p.In, p.Out = rules.Forwarded, "eth0", "cali1" })
	type spec = v3.FelixConfigurationSpec
	yes := true
	port := 4790
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
