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
		h := health.New(health.Config{OmitGo: !s.Metrics.Go, OmitProcess: !s.Metrics.Process})
		rec := httptest.NewRecorder()
		h.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
		body := rec.Body.String()
		return []bool{strings.Contains(body, "\ngo_goroutines "), strings.Contains(body, "\nprocess_open_fds ")}
	}
	refresh := func(s config.Agent) any { return paceOf(s) }
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
