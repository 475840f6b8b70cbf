package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/feed"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// TestLiveFields: each field that is said to take effect while the agent runs
// does not end the run, and changes what some part of the agent is told; each
// other one ends it. No family is concerned but by the fields.
func TestLiveFields(t *testing.T) {
	other := map[string]string{
		"logSeverityScreen": "Debug", "healthEnabled": "false", "healthHost": "127.0.0.2", "healthPort": "1",
		"prometheusMetricsEnabled": "false", "prometheusMetricsHost": "127.0.0.2", "prometheusMetricsPort": "1",
		"prometheusGoMetricsEnabled": "false", "prometheusProcessMetricsEnabled": "false",
		"mtuIfacePattern": "^eth", "interfaceRefreshInterval": "7s", "routeRefreshInterval": "7s", "ipForwarding": "Disabled",
		"defaultEndpointToHostAction": "Accept", "nftablesFilterDenyAction": "Reject", "nftablesRefreshInterval": "7s",
		"disableConntrackInvalidCheck": "true", "workloadSourceSpoofing": "Any", "allowVXLANPacketsFromWorkloads": "true",
		"allowIPIPPacketsFromWorkloads": "true", "logPrefix": "here", "logActionRateLimit": "1/second", "logActionRateLimitBurst": "9",
		"ipipEnabled": "true", "vxlanEnabled": "true", "ipipMTU": "1300", "vxlanMTU": "1300", "vxlanMTUV6": "1300",
		"programClusterRoutes": "Enabled", "externalNodesList": "192.0.2.0/24", "natOutgoingAddress": "192.0.2.1", "natPortRange": "9:10",
		"natOutgoingExclusions": "IPPoolsAndHostIPs", "iptablesNATOutgoingInterfaceFilter": "eth+",
		"nftablesFlowTableOffload": "Disabled", "nftablesFlowTableDataIfacePattern": "^eth",
		// These are not.
		"interfacePrefix": "tap", "ipv6Support": "false", "ipv4NormalRoutePriority": "7", "ipv6NormalRoutePriority": "7",
		"nftablesMarkMask": "0xff000000", "vxlanPort": "4790", "vxlanVNI": "7", "routeSyncDisabled": "true", "featureDetectOverride": "ChecksumOffloadBroken=true",
	}
	parts := func(s config.Agent) []any {
		return []any{coreSettings(Config{Settings: s}), ruleConfig(s, 0), paceOf(s), refreshOf(s), listenOn(s), s.LogLevel,
			s.Metrics.Go, s.Metrics.Process, s.Interfaces.MTUPattern.String()}
	}
	resolve := func(name, value string) config.Result {
		t.Helper()
		// Without these, others say nothing.
		said := map[string]string{"logActionRateLimit": "1/hour", "nftablesFlowTableOffload": "All"}
		if name != "" {
			said[name] = value
		}
		res, err := config.Resolve(config.Sources{Node: "h1", File: said})
		if err != nil || len(res.Refused) > 0 {
			t.Fatalf("%s: %v, %v", name, err, res.Refused)
		}
		return res
	}
	plain := resolve("", "")
	for _, p := range config.Params() {
		value, tried := other[p.Name]
		if p.Local {
			if p.Live {
				t.Errorf("%s is read at the start alone, and said to be live", p.Name)
			}
			continue
		}
		if !tried {
			t.Errorf("%s is not tried", p.Name)
			continue
		}
		res := resolve(p.Name, value)
		if config.Renews(plain.Values, res.Values) == p.Live {
			t.Errorf("%s: live %v, and the agent starts anew: %v", p.Name, p.Live, !p.Live)
		}
		if p.Live && reflect.DeepEqual(parts(plain.Agent), parts(res.Agent)) {
			t.Errorf("%s changes nothing that anybody is told", p.Name)
		}
		core, next := coreSettings(Config{Settings: plain.Agent}), coreSettings(Config{Settings: res.Agent})
		if p.Live && !reflect.DeepEqual(core.Live(next), next) {
			t.Errorf("%s: the core does not take it while it lives", p.Name)
		}
	}
}

// TestSettingsComeWithPolicy: what a batch says of settings and of who may send is
// put in force in one step, with one thing that does not change while the agent
// runs none of it is, and what settings say of tunnels reaches the core.
func TestSettingsComeWithPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, k := hostOf(t, mem.New(), "h1", "172.30.0.1/24"), newKernelOf()
		db := mem.New()
		a.client, a.cfg.Driver, a.cfg.Log = client.New(db, client.Config{}), db, a.log
		res, err := config.Resolve(config.Sources{Node: "h1", Flags: map[string]string{"ip": "172.30.0.1/24", "stateDir": t.TempDir()}})
		if err != nil {
			t.Fatal(err)
		}
		res.Agent.Startup.NoDefaultPools, res.Agent.Startup.PollInterval = true, 0
		src := config.Sources{Node: "h1", Flags: map[string]string{"ip": "172.30.0.1/24", "stateDir": res.Agent.Paths.StateDir}}
		a.cfg.Settings, a.cfg.Outcome, a.cfg.refused, a.cfg.live = res.Agent, res, &refusals{}, newLive(src)
		if err := a.cfg.live.begin(res); err != nil {
			t.Fatal(err)
		}
		a.listeners = newListeners(nil, a.log)
		pool := &v3.IPPool{Spec: v3.IPPoolSpec{CIDR: "10.65.0.0/16", VXLANMode: "Always"}}
		pool.Name = "p"
		if _, err := client.Create(t.Context(), a.client, pool); err != nil {
			t.Fatal(err)
		}
		defer startOverlay(t, a, k)()
		close(k.rules.open)
		a.overlay.setMTU(1500)
		time.Sleep(time.Minute)
		felix := &v3.FelixConfiguration{}
		felix.Name = v3.DefaultName
		felix.Spec.VXLANMTU, felix.Spec.LogPrefix, felix.Spec.ExternalNodesCIDRList = new(1300), "here", &[]string{"192.0.2.0/24"}
		felix.Spec.PrometheusMetricsPort = new(1)
		if felix, err = client.Create(t.Context(), a.client, felix); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		took := k.rules.last(t)
		if took.rules == nil || took.rules.LogPrefix != "here" {
			t.Errorf("policy is enforced by %+v", took.rules)
		}
		if _, ok := took.Hosts.Set[netip.MustParsePrefix("192.0.2.0/24")]; !ok {
			t.Errorf("who may send comes apart from it: %+v", took.Hosts)
		}
		a.coreMu.Lock()
		mtu := a.core.State().Links[desired.DeviceVXLAN4].MTU
		a.coreMu.Unlock()
		if mtu != 1300 || a.mtu.Load() != 1300 {
			t.Errorf("MTU of the tunnel %d, of workloads %d", mtu, a.mtu.Load())
		}
		if !slices.Contains(a.listeners.wanted, "localhost:1") || a.cfg.live.renewing() != nil {
			t.Errorf("listens on %v; ends: %v", a.listeners.wanted, a.cfg.live.renewing())
		}
		_, err = client.Modify(t.Context(), a.client, "", felix.Name, func(f *v3.FelixConfiguration) error {
			f.Spec.VXLANMTU, f.Spec.VXLANVNI = new(1200), new(7)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if a.cfg.live.renewing() == nil || a.mtu.Load() != 1300 || a.cfg.inForce().Overlay.VXLANMTU != 1300 {
			t.Errorf("with another network of VXLAN: ends %v, MTU of workloads %d", a.cfg.live.renewing(), a.mtu.Load())
		}
	})
}

// TestOtherSettingsJudgeConnections: the driver is told of them with the next
// transaction and not before, and what they deny is cut, what they allow let go on.
func TestOtherSettingsJudgeConnections(t *testing.T) {
	denied := map[string]bool{}
	d, b, table := document(false, denied, connection("10.0.0.1", "172.30.0.1"))
	told := 0
	d.others.tell = func(rules.Config) { told++ }
	both := policyAndSettings{d}
	e := endpoint("a", "10.0.0.1")
	sync := func(want uint32) {
		t.Helper()
		before := told
		if err := errors.Join(d.Sync(t.Context(), false), lookNow(t, d)); err != nil {
			t.Fatal(err)
		}
		if marks, _ := table.marks(); !slices.Equal(marks, []uint32{want}) || told > before+1 {
			t.Errorf("marks %v, want %d", marks, want)
		}
	}
	both.Take(policyPatch{PolicyPatch: set("cali1", e)})
	sync(0)
	for i, deny := range []bool{true, false} {
		both.Take(policyPatch{rules: &rules.Config{}})
		if told != i {
			t.Fatalf("told %d times before the transaction", told-i)
		}
		denied["172.30.0.1"] = deny
		sync(map[bool]uint32{true: 1}[deny])
		if told != i+1 || b.calls[len(b.calls)-1] != "all" {
			t.Errorf("told %d times; calls %v", told, b.calls)
		}
	}
}

// lookNow judges connections that wait for it.
func lookNow(t *testing.T, d *policyDoc) error {
	t.Helper()
	_, err := d.lookOnce(t.Context(), nil, true)
	return err
}

// TestSettingsOfTheClusterBefore: what was recalled while nobody knew which cluster
// it is ends when it turns out to be another.
func TestSettingsOfTheClusterBefore(t *testing.T) {
	for _, tt := range []struct {
		guid string
		ends bool
	}{{"one", false}, {"two", true}, {"", false}} {
		now := newLive(config.Sources{Node: "h1", Flags: map[string]string{"stateDir": t.TempDir()}})
		dir := now.src.Flags["stateDir"]
		if err := keepSettings(dir, "one", []config.Value{{Name: "vxlanVNI", Value: "7", Source: "FelixConfiguration default"}}); err != nil {
			t.Fatal(err)
		}
		if err := now.recall(dir); err != nil {
			t.Fatal(err)
		}
		src := now.sources()
		src.Unread = true // the datastore is out of reach
		res, err := config.Resolve(src)
		if err := errors.Join(err, now.begin(res)); err != nil || res.Agent.Overlay.VNI != 7 {
			t.Fatalf("%v, %+v", err, res.Agent.Overlay)
		}
		run := Config{Log: slog.New(slog.DiscardHandler), Outcome: res, Settings: res.Agent, refused: &refusals{}, live: now}
		id := model.ID{Kind: model.KindConfig, Name: "default"}
		_, others := run.heed(t.Context(), feed.Batch{InSync: true, Events: []model.Event{
			{ID: id, Value: &model.Invalid{Message: "m"}},
			{ID: model.ID{Kind: model.KindClusterInfo, Name: "default"}, Value: &model.ClusterInfo{GUID: tt.guid}},
		}})
		if others || (run.live.renewing() != nil) != tt.ends {
			t.Errorf("cluster %q: ends: %v", tt.guid, run.live.renewing())
		}
	}
}

// TestStartsAgree: what a start makes of what the datastore says is what the feed
// makes of it, or the agent would start anew for ever; also where its own Node, by
// whose labels settings are chosen, cannot be read, or the start did not get to
// read anything.
func TestStartsAgree(t *testing.T) {
	felix := func(name, spec string) [2]string {
		return [2]string{"felixconfigurations/" + name, `{"kind":"FelixConfiguration","metadata":{"name":"` + name + `"},"spec":` + spec + `}`}
	}
	node := func(name, meta string) [2]string {
		return [2]string{"nodes/" + name, `{"kind":"Node","metadata":{"name":"` + name + `"` + meta + `},"spec":{}}`}
	}
	chosen := felix("edge", `{"nodeSelector":"role == 'edge'","vxlanVNI":9}`)
	for _, tt := range []struct {
		name string
		last string // VNI that was in force at the last start
		in   [][2]string
		want int
	}{
		{"nothing", "", nil, 4096},
		{"one object", "", [][2]string{felix("default", `{"vxlanVNI":7}`)}, 7},
		{"of this host, and of one whose name begins as its", "", [][2]string{felix("node.h1", `{"vxlanVNI":7}`), felix("node.h10", `{"vxlanVNI":8}`),
			node("h1", ""), node("h10", `,"labels":{"role":"edge"}`), chosen}, 7},
		{"chosen by labels", "", [][2]string{chosen, node("h1", `,"labels":{"role":"edge"}`)}, 9},
		{"labels that cannot be read", "9", [][2]string{chosen, {"nodes/h1", `{"kind":`}}, 9},
		{"those of a host that is new", "", [][2]string{chosen, felix("default", `{"vxlanVNI":7}`), {"nodes/h1", `{"kind":`}}, 7},
		{"an object that cannot be read", "9", [][2]string{{"felixconfigurations/edge", `{"spec":`}}, 9},
		{"one that does not say what it is", "9", [][2]string{{"felixconfigurations/edge", `{"spec":{"vxlanVNI":8}}`}}, 9},
	} {
		for _, out := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				db, dir := mem.New(), t.TempDir()
				for _, kv := range tt.in {
					if _, err := db.Create(t.Context(), store.ResourceRoot+kv[0], []byte(kv[1])); err != nil {
						t.Fatal(err)
					}
				}
				if tt.last != "" {
					if err := keepSettings(dir, "", []config.Value{{Name: "vxlanVNI", Value: tt.last, Source: "FelixConfiguration edge"}}); err != nil {
						t.Fatal(err)
					}
				}
				starts := 0
				for again := true; again; starts++ {
					if starts > 2 {
						t.Fatalf("%s, out of reach at the start %v: starts anew for ever", tt.name, out)
					}
					again = startOnce(t, db, dir, out, tt.want)
				}
				if !out && starts > 1 {
					t.Errorf("%s: %d starts", tt.name, starts)
				}
			})
		}
	}
}

// TestGoneSinceTheStart: what a start read and was deleted before there was a feed
// does not hold.
func TestGoneSinceTheStart(t *testing.T) {
	id := func(kind model.Kind, name string) model.ID { return model.ID{Kind: kind, Name: name} }
	felix := &v3.FelixConfiguration{}
	felix.Name = "edge"
	now := newLive(config.Sources{Node: "h1"})
	now.note(feed.Batch{Events: []model.Event{
		{ID: id(model.KindConfig, "edge"), Value: &model.Config{Object: felix}}, {ID: id(model.KindConfig, "default"), Value: &model.Invalid{Message: "m"}},
		{ID: id(model.KindNode, "h1"), Value: &model.Node{Name: "h1", Labels: map[string]string{"role": "edge"}}},
	}})
	if s := now.sources(); len(s.Objects) != 1 || !s.Unread || s.Labels == nil {
		t.Errorf("at the start: %+v", s)
	}
	if now.note(feed.Batch{InSync: true}); now.unreadable() != nil {
		t.Error(now.unreadable())
	}
	if s := now.sources(); len(s.Objects) != 0 || s.Unread || s.Labels != nil {
		t.Errorf("later: %+v", s)
	}
}

// startOnce starts with the settings of a datastore, which may be out of reach at
// that moment, and follows it. It reports whether the agent would start anew.
func startOnce(t *testing.T, db *mem.Store, dir string, out bool, want int) bool {
	t.Helper()
	now := newLive(config.Sources{Node: "h1", Flags: map[string]string{"stateDir": dir}})
	if !out {
		if err := now.read(t.Context(), db); err != nil {
			t.Fatal(err)
		}
	}
	if err := now.recall(dir); err != nil {
		t.Fatal(err)
	}
	src := now.sources()
	src.Unread = src.Unread || out
	res, err := config.Resolve(src)
	if err := errors.Join(err, now.begin(res)); err != nil {
		t.Fatal(err)
	}
	run := Config{Log: slog.New(slog.DiscardHandler), Outcome: res, Settings: res.Agent, refused: &refusals{}, live: now}
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() {
		_ = feed.Run(ctx, feed.Config{Driver: db, Node: "h1"}, func(b feed.Batch) { _, _ = run.heed(ctx, b) }) // ends with ctx
	})
	synctest.Wait()
	cancel()
	ended.Wait()
	if now.renewing() != nil {
		return true
	}
	if got := run.inForce().Overlay.VNI; got != want {
		t.Errorf("VNI %d is in force, want %d", got, want)
	}
	return false
}

// TestListenersMove: one that is not wanted goes when the others are there, also
// where one takes the port of all addresses; one that cannot be had is told of, and
// what was there stays until it can. Loopback is IPv4 here: which family it is
// makes no difference.
func TestListenersMove(t *testing.T) {
	l := newListeners(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	open := map[string]serving{}
	defer func() {
		cancel()
		for _, s := range open {
			s.close()
		}
	}()
	answers := func(addr string) bool {
		_, port, _ := net.SplitHostPort(addr)
		r, err := http.Get("http://127.0.0.1:" + port)
		if err != nil {
			return false
		}
		defer r.Body.Close()
		return r.StatusCode == http.StatusOK
	}
	free := func() (string, net.Listener) {
		t.Helper()
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return taken.Addr().String(), taken
	}
	first, held := free()
	held.Close()
	second, taken := free()
	defer taken.Close()
	l.want([]string{first})
	if !l.look(ctx, open) || !answers(first) {
		t.Fatal("nobody answers at the first")
	}
	l.want([]string{second})
	if _, tried := l.trouble(); tried {
		t.Error("said to be tried before it was")
	}
	if l.look(ctx, open) || !answers(first) {
		t.Error("the first went although the second cannot be had")
	}
	if failed, tried := l.trouble(); !tried || len(failed) != 1 || !strings.Contains(failed[0], second) {
		t.Errorf("told: %v, %v", failed, tried)
	}
	taken.Close()
	if !l.look(ctx, open) || answers(first) || !answers(second) {
		t.Error("the second is not in the place of the first")
	}
	_, port, _ := net.SplitHostPort(second)
	l.want([]string{":" + port})
	if !l.look(ctx, open) || !answers(second) || len(open) != 1 {
		t.Errorf("all addresses do not take the port of one: %v", open)
	}
	l.want(nil)
	if failed, _ := l.trouble(); !l.look(ctx, open) || answers(second) || len(failed) > 0 {
		t.Error("none is wanted, and one answers")
	}
}
