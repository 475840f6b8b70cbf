package agent

import (
	"fmt"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/calc"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/health"
	"github.com/brindle-net/brindle/internal/model"
)

// TestSettingsAreObeyed goes from a field of a FelixConfiguration to what the
// parts of the agent are told to do.
func TestSettingsAreObeyed(t *testing.T) {
	asked := func(of func(desired.State) any) func(config.Agent) any {
		return func(s config.Agent) any {
			core := calc.New(coreSettings(Config{Node: "h1", Settings: s}))
			core.Apply([]model.Event{
				{ID: model.ID{Kind: model.KindNode, Name: "h1"}, Value: &model.Node{Name: "h1",
					Addr4: netip.MustParsePrefix("172.30.0.11/24"), Addr6: netip.MustParsePrefix("fd01::11/64")}},
				{ID: model.ID{Kind: model.KindNode, Name: "h2"}, Value: &model.Node{Name: "h2",
					Addr4: netip.MustParsePrefix("172.30.0.12/24"), Addr6: netip.MustParsePrefix("fd01::12/64")}},
				{ID: model.ID{Kind: model.KindWorkload, Name: "w"}, Value: &model.Workload{Node: "h1", Interface: "cali1",
					Addrs: []netip.Addr{netip.MustParseAddr("10.65.0.7"), netip.MustParseAddr("fd00::7")}}},
			})
			return of(core.State())
		}
	}
	forwarding := asked(func(s desired.State) any { return len(s.Sysctls) })
	peers := asked(func(s desired.State) any { return len(s.Peers) })
	metrics := asked(func(s desired.State) any {
		var out []int
		for k := range s.Routes {
			out = append(out, k.Priority)
		}
		slices.Sort(out)
		return out
	})
	listeners := func(s config.Agent) any { return listenOn(s) }
	runtime := func(s config.Agent) any {
		h := health.New(health.Config{OmitGo: func() bool { return !s.Metrics.Go }, OmitProcess: func() bool { return !s.Metrics.Process }})
		rec := httptest.NewRecorder()
		h.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
		body := rec.Body.String()
		return []bool{strings.Contains(body, "\ngo_goroutines "), strings.Contains(body, "\nprocess_open_fds ")}
	}
	refresh := func(s config.Agent) any { return paceOf(s) }
	tunnels := func(s config.Agent) any { return tunnelsOf(s) }
	tests := []struct {
		name string
		in   v3.FelixConfigurationSpec
		of   func(config.Agent) any
		want any
	}{
		{"forwarding", v3.FelixConfigurationSpec{}, forwarding, 2},
		{"ipForwarding", v3.FelixConfigurationSpec{IPForwarding: "Disabled"}, forwarding, 0},
		{"sessions", v3.FelixConfigurationSpec{}, peers, 2},
		{"ipv6Support", v3.FelixConfigurationSpec{IPv6Support: new(false)}, peers, 1},
		{"metrics of routes", v3.FelixConfigurationSpec{}, metrics, []int{1024, 1024}},
		{"ipv4NormalRoutePriority and its twin", v3.FelixConfigurationSpec{IPv4NormalRoutePriority: new(7), IPv6NormalRoutePriority: new(8)}, metrics, []int{7, 8}},
		{"listeners", v3.FelixConfigurationSpec{}, listeners, []string{"localhost:9099", "localhost:9091"}},
		{"health off", v3.FelixConfigurationSpec{HealthEnabled: new(false)}, listeners, []string{"localhost:9091"}},
		{"health elsewhere", v3.FelixConfigurationSpec{HealthHost: new("::1"), HealthPort: new(1)}, listeners, []string{"[::1]:1", "localhost:9091"}},
		{"metrics off", v3.FelixConfigurationSpec{PrometheusMetricsEnabled: new(false)}, listeners, []string{"localhost:9099"}},
		{"metrics elsewhere", v3.FelixConfigurationSpec{PrometheusMetricsHost: "127.0.0.2", PrometheusMetricsPort: new(2)}, listeners, []string{"localhost:9099", "127.0.0.2:2"}},
		{"one for both", v3.FelixConfigurationSpec{PrometheusMetricsPort: new(9099)}, listeners, []string{"localhost:9099"}},
		{"runtime", v3.FelixConfigurationSpec{}, runtime, []bool{true, true}},
		{"without Go's", v3.FelixConfigurationSpec{PrometheusGoMetricsEnabled: new(false)}, runtime, []bool{false, true}},
		{"without the process's", v3.FelixConfigurationSpec{PrometheusProcessMetricsEnabled: new(false)}, runtime, []bool{true, false}},
		{"tunnels", v3.FelixConfigurationSpec{}, tunnels, []string{
			"tunl0 1480", "vxlan-v6.calico 1430 4096:4789", "vxlan.calico 1450 4096:4789",
			"10.2.0.0/26 by ipip", "10.3.0.0/26 by vxlan", "172.30.0.12/32 may send", "workloads 1430"}},
		{"ipipEnabled", v3.FelixConfigurationSpec{IPIPEnabled: new(false)}, tunnels, []string{
			"vxlan-v6.calico 1430 4096:4789", "vxlan.calico 1450 4096:4789",
			"10.2.0.0/26 by BGP", "10.3.0.0/26 by vxlan", "172.30.0.12/32 may send", "workloads 1430"}},
		{"vxlanEnabled", v3.FelixConfigurationSpec{VXLANEnabled: new(false)}, tunnels, []string{
			"tunl0 1480", "vxlan-v6.calico 1430 4096:4789",
			"10.2.0.0/26 by ipip", "10.3.0.0/26 by BGP", "172.30.0.12/32 may send", "workloads 1430"}},
		{"MTU, port and network", v3.FelixConfigurationSpec{IPIPMTU: new(1300), VXLANMTU: new(1301), VXLANMTUV6: new(1302), VXLANPort: new(99), VXLANVNI: new(7)},
			tunnels, []string{"tunl0 1300", "vxlan-v6.calico 1302 7:99", "vxlan.calico 1301 7:99",
				"10.2.0.0/26 by ipip", "10.3.0.0/26 by vxlan", "172.30.0.12/32 may send", "workloads 1300"}},
		{"programClusterRoutes", v3.FelixConfigurationSpec{ProgramClusterRoutes: new("Disabled")}, tunnels, []string{
			"tunl0 1480", "vxlan-v6.calico 1430 4096:4789", "vxlan.calico 1450 4096:4789",
			"10.2.0.0/26 by BGP", "10.3.0.0/26 by vxlan", "172.30.0.12/32 may send", "workloads 1430"}},
		{"programClusterRoutes: all", v3.FelixConfigurationSpec{ProgramClusterRoutes: new("Enabled")}, tunnels, []string{
			"tunl0 1480", "vxlan-v6.calico 1430 4096:4789", "vxlan.calico 1450 4096:4789",
			"10.2.0.0/26 by ipip", "10.3.0.0/26 by vxlan", "172.30.0.12/32 may send", "workloads 1430"}},
		{"programClusterRoutes: not those of IP in IP", v3.FelixConfigurationSpec{ProgramClusterRoutes: new("EnabledNoEncapOnly")}, tunnels, []string{
			"tunl0 1480", "vxlan-v6.calico 1430 4096:4789", "vxlan.calico 1450 4096:4789",
			"10.2.0.0/26 by BGP", "10.3.0.0/26 by vxlan", "172.30.0.12/32 may send", "workloads 1430"}},
		{"routeSyncDisabled", v3.FelixConfigurationSpec{RouteSyncDisabled: new(true)}, tunnels, []string{
			"tunl0 1480", "vxlan-v6.calico 1430 4096:4789", "vxlan.calico 1450 4096:4789",
			"10.2.0.0/26 by BGP", "10.3.0.0/26 by BGP", "172.30.0.12/32 may send", "workloads 1430"}},
		{"externalNodesList", v3.FelixConfigurationSpec{ExternalNodesCIDRList: &[]string{"192.0.2.0/24"}}, tunnels, []string{
			"tunl0 1480", "vxlan-v6.calico 1430 4096:4789", "vxlan.calico 1450 4096:4789",
			"10.2.0.0/26 by ipip", "10.3.0.0/26 by vxlan", "172.30.0.12/32 may send", "192.0.2.0/24 may send", "workloads 1430"}},
		{"read-backs", v3.FelixConfigurationSpec{}, refresh, pace{90 * time.Second, 90 * time.Second}},
		{"other read-backs", v3.FelixConfigurationSpec{InterfaceRefreshInterval: &v3.Duration{Duration: time.Minute},
			RouteRefreshInterval: &v3.Duration{}}, refresh, pace{time.Minute, never}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := &v3.FelixConfiguration{Spec: tt.in}
			o.Name = v3.DefaultName
			r, err := config.Resolve(config.Sources{Node: "h1", Objects: []*v3.FelixConfiguration{o}})
			if err != nil || len(r.Ignored)+len(r.Warnings) > 0 {
				t.Fatalf("%v, %+v", err, r)
			}
			if got := fmt.Sprint(tt.of(r.Agent)); got != fmt.Sprint(tt.want) {
				t.Errorf("got %s, want %v", got, tt.want)
			}
		})
	}
}

// tunnelsOf is what settings make of a host with pools of each form, with
// another host in its network.
func tunnelsOf(s config.Agent) []string {
	events := []model.Event{{ID: model.UnderlayID(), Value: &model.Underlay{MTU: 1500}}}
	for i, name := range []string{"h1", "h2"} {
		n := &model.Node{Name: name, Addr4: netip.MustParsePrefix(fmt.Sprintf("172.30.0.1%d/24", i+1)), Addr6: netip.MustParsePrefix(fmt.Sprintf("fd01::1%d/64", i+1)),
			IPIP: netip.MustParseAddr(fmt.Sprintf("10.2.9.%d", i))}
		n.VXLAN4.Addr, n.VXLAN6.Addr = netip.MustParseAddr(fmt.Sprintf("10.3.9.%d", i)), netip.MustParseAddr(fmt.Sprintf("fd03::9:%d", i))
		events = append(events, model.Event{ID: model.ID{Kind: model.KindNode, Name: name}, Value: n})
	}
	for _, p := range []*model.Pool{
		{Name: "ipip", CIDR: netip.MustParsePrefix("10.2.0.0/16"), Encap: model.IPIP, BlockSize: 26},
		{Name: "vxlan", CIDR: netip.MustParsePrefix("10.3.0.0/16"), Encap: model.VXLAN, BlockSize: 26},
		{Name: "vxlan6", CIDR: netip.MustParsePrefix("fd03::/64"), Encap: model.VXLAN, BlockSize: 122},
	} {
		events = append(events, model.Event{ID: model.ID{Kind: model.KindPool, Name: p.Name}, Value: p})
	}
	blocks := []netip.Prefix{netip.MustParsePrefix("10.2.0.0/26"), netip.MustParsePrefix("10.3.0.0/26")}
	for _, b := range blocks {
		events = append(events, model.Event{ID: model.BlockID(b), Value: &model.Block{CIDR: b, Host: "h2"}})
	}
	core, o := calc.New(coreSettings(Config{Node: "h1", Settings: s})), newOverlay(s)
	core.Apply(events)
	o.note(events, time.Time{})
	o.setMTU(1500)
	state := core.State()
	var out []string
	for name, d := range state.Devices {
		text := fmt.Sprintf("%s %d", name, state.Links[name].MTU)
		if d.Form == desired.VXLAN {
			text += fmt.Sprintf(" %d:%d", d.VNI, d.Port)
		}
		out = append(out, text)
	}
	slices.Sort(out)
	for _, b := range blocks {
		way := "BGP"
		if r, ours := state.Routes[desired.RouteKey{Table: desired.MainTable, Prefix: b, Priority: desired.DefaultPriority - 1}]; ours {
			way = map[string]string{desired.DeviceIPIP: "ipip", desired.DeviceVXLAN4: "vxlan"}[r.Hops[0].Interface]
		}
		out = append(out, fmt.Sprintf("%v by %s", b, way))
	}
	var senders []string
	for p, forms := range state.Policy.Hosts {
		if forms.Has(desired.VXLAN) || forms.Has(desired.IPIP) {
			senders = append(senders, p.String()+" may send")
		}
	}
	slices.Sort(senders)
	senders = slices.DeleteFunc(senders, func(s string) bool { return strings.Contains(s, ":") })
	return append(append(out, senders...), fmt.Sprintf("workloads %d", o.workloadMTU()))
}
