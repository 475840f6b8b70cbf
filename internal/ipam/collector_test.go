package ipam

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

func (w *world) node(name string) {
	w.t.Helper()
	raw, _ := json.Marshal(&v3.Node{ObjectMeta: v3.ObjectMeta{Name: name}})
	if _, err := w.db.Create(w.t.Context(), key(pluralNodes, name), raw); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) endpoint(name, node, container string, addrs ...netip.Addr) {
	w.t.Helper()
	res := &v3.WorkloadEndpoint{Spec: v3.WorkloadEndpointSpec{Node: node, ContainerID: container}}
	res.Name, res.Namespace = name, "default"
	for _, a := range addrs {
		res.Spec.IPNetworks = append(res.Spec.IPNetworks, prefix.Host(a).String())
	}
	raw, _ := json.Marshal(res)
	if _, err := w.db.Create(w.t.Context(), (&workload{endpoint: name}).key(), raw); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) delete(key string) {
	w.t.Helper()
	if err := w.db.Delete(w.t.Context(), key, ""); err != nil {
		w.t.Fatal(err)
	}
}

func TestJudge(t *testing.T) {
	a := netip.MustParseAddr("10.0.0.1")
	us := &users{nodes: map[string]*v3.Node{"n1": {}}, endpoints: map[netip.Addr][]Endpoint{
		netip.MustParseAddr("10.0.0.9"): {{Namespace: "default", Name: "w", ContainerID: "c9"}}}}
	on := func(node string, more ...string) Attribute {
		at := Attribute{Handle: "net.c1", Owner: map[string]string{AttrNode: node}}
		for i := 0; i < len(more); i += 2 {
			at.Owner[more[i]] = more[i+1]
		}
		return at
	}
	asked := func(at Attachments) map[string]Attachments { return map[string]Attachments{"n1": at} }
	for _, tc := range []struct {
		name   string
		addr   netip.Addr
		in     Attribute
		agents map[string]Attachments
		want   Standing
		why    string
	}{
		{"endpoint", netip.MustParseAddr("10.0.0.9"), Attribute{Handle: "net.c9"}, nil, InUse, ""},
		{"endpoint of another container", netip.MustParseAddr("10.0.0.9"), on("n1"), asked(nil), InUse, "does not name"},
		{"agent not asked", a, on("n1"), nil, Unproven, "not asked"},
		{"agent does not know it", a, on("n1"), asked(Attachments{"net.c2": {a}}), Leaked, "no such attachment"},
		{"agent has it", a, on("n1"), asked(Attachments{"net.c1": {a}}), InUse, ""},
		{"agent has the handle with another address", a, on("n1"), asked(Attachments{"net.c1": {a.Next()}}), Leaked, ""},
		{"agent is setting it up", a, on("n1"), asked(Attachments{"net.c1": nil}), InUse, ""},
		{"another agent has it", a, on("n2"), map[string]Attachments{"n1": {}}, Leaked, "node n2 is gone"},
		{"tunnel", a, on("n1", AttrType, TypeVXLANTunnel), asked(nil), InUse, ""},
		{"tunnel of a node that is gone", a, on("n2", AttrType, TypeVXLANTunnel), nil, Leaked, "gone"},
		{"unknown type", a, on("n1", AttrType, "x"), asked(nil), Leaked, ""},
		{"service", a, on("", AttrService, "s"), asked(nil), InUse, ""},
		{"Windows", a, Attribute{Handle: WindowsReservedHandle}, asked(nil), InUse, ""},
		{"no node", a, Attribute{Handle: "h"}, asked(nil), Unknown, "no node attribute"},
		{"virtual machine", a, Attribute{Handle: "h", Alternate: map[string]string{AttrNode: "n1"}}, asked(nil), InUse, ""},
		{"cooling down", a, Attribute{ReleasedAt: start}, asked(nil), CoolingDown, "2026"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := judge(&Block{Affinity: "host:n1"}, Use{Addr: tc.addr, Attribute: tc.in}, us, tc.agents)
			if v.standing != tc.want || !strings.Contains(v.why, tc.why) {
				t.Errorf("got %+v, want %s because %q", v, tc.want, tc.why)
			}
		})
	}
	if v := judge(&Block{Affinity: "virtual:load-balancer"}, Use{Addr: a, Attribute: on("n2")}, us, nil); v.standing != InUse {
		t.Errorf("load balancer: %+v", v)
	}
}

// scanner is a collector with a clock of its own.
type scanner struct {
	*world
	c  *Collector
	at time.Duration
}

func (w *world) collector(host string, attached func() Attachments) *scanner {
	s := &scanner{world: w}
	cfg := CollectorConfig{Manager: w.m, Host: host, Uptime: func() time.Duration { return s.at }}
	if attached != nil {
		cfg.Attached = func(context.Context) (Attachments, error) { return attached(), nil }
	}
	s.c = NewCollector(cfg)
	return s
}

// scan scans after some time and returns what was released.
func (s *scanner) scan(after time.Duration) Collected {
	s.t.Helper()
	s.at += after
	done, err := s.c.Scan(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return done
}

func TestLeakIsCollectedAfterTheGracePeriod(t *testing.T) {
	for _, tc := range []struct {
		name   string
		host   string // whose collector; "": the cluster's
		gone   bool   // the node is
		during func(w *world, live Attachments)
		want   bool
	}{
		{"agent's own", "n1", false, nil, true},
		{"another agent's", "n2", false, nil, false},
		{"cluster's, of a living node", "", false, nil, false},
		{"cluster's, of a node that is gone", "", true, nil, true},
		{"the endpoint comes", "n1", false, func(w *world, _ Attachments) {
			w.endpoint("w", "n1", "c1", netip.MustParseAddr("10.0.0.0"))
		}, false},
		{"it is attached after all", "n1", false, func(w *world, live Attachments) { live["net.c1"] = nil }, false},
		{"it is assigned anew", "n1", false, func(w *world, _ Attachments) {
			if err := w.m.ReleaseByHandle(w.t.Context(), "net.c1"); err != nil {
				w.t.Fatal(err)
			}
			w.mustAssign("n1", "net.c1", 1, 0)
		}, false},
		{"the node comes back", "", true, func(w *world, _ Attachments) { w.node("n1") }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, pool("p", "10.0.0.0/32", 32))
			if !tc.gone {
				w.node("n1")
			}
			w.mustAssign("n1", "net.c1", 1, 0)
			live := Attachments{}
			s := w.collector(tc.host, func() Attachments { return live })
			for range 2 {
				if done := s.scan(DefaultGrace / 2); len(done.Released) > 0 {
					t.Errorf("released too early: %+v", done)
				}
			}
			if tc.during != nil {
				tc.during(w, live)
			}
			if done := s.scan(DefaultGrace / 2); (len(done.Released) == 1) != tc.want {
				t.Errorf("%+v, released wanted: %v", done, tc.want)
			}
		})
	}
}

// Wall clocks that step neither hasten nor delay the collector.
func TestCollectorIgnoresClockSteps(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/32", 32))
	w.node("n1")
	w.mustAssign("n1", "net.c1", 1, 0)
	s := w.collector("n1", func() Attachments { return nil })
	s.scan(0)
	w.now = start.Add(24 * time.Hour)
	if done := s.scan(time.Minute); len(done.Released) > 0 {
		t.Error("a step forward hastened it")
	}
	w.now = start.Add(-24 * time.Hour)
	if done := s.scan(DefaultGrace); len(done.Released) != 1 {
		t.Error("a step back delayed it")
	}
}

// All addresses of a handle are released, or none.
func TestHandleIsReleasedWhole(t *testing.T) {
	w := newWorld(t, pool("p4", "10.0.0.0/24", 26), pool("p6", "fd00::/112", 122))
	w.node("n1")
	got := w.mustAssign("n1", "net.c1", 1, 1)
	w.endpoint("w", "n1", "c1", got[1])
	s := w.collector("n1", func() Attachments { return nil })
	s.scan(0)
	if done := s.scan(DefaultGrace); len(done.Released) > 0 {
		t.Errorf("released %v while the endpoint has %v", done.Released, got[1])
	}
	w.delete((&workload{endpoint: "w"}).key())
	s.scan(DefaultGrace)
	if done := s.scan(DefaultGrace); len(done.Released) != 2 {
		t.Errorf("%+v", done)
	}
	for _, k := range w.keys() {
		if strings.HasPrefix(k, "handle/") {
			t.Errorf("left %s", k)
		}
	}
}

// What comes to life between the decision and the release is kept.
func TestCollectorLooksOnceMore(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/32", 32))
	w.node("n1")
	w.mustAssign("n1", "net.c1", 1, 0)
	asked := 0
	s := w.collector("n1", func() Attachments {
		if asked++; asked == 3 { // two scans, then the look before the release
			return Attachments{"net.c1": nil}
		}
		return nil
	})
	s.scan(0)
	if done := s.scan(DefaultGrace); len(done.Released) > 0 || done.Kept != 1 {
		t.Errorf("%+v", done)
	}
}

func TestClusterIsCleanedUp(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/24", 30))
	w.node("n1")
	w.mustAssign("n1", "idle", 9, 0) // three blocks
	w.mustAssign("n2", "gone", 1, 0)
	w.mustAssign("n1", "kept", 1, 0)
	for _, h := range []string{"idle", "gone"} {
		if err := w.m.ReleaseByHandle(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	put := func(key string, value []byte) {
		if _, err := w.db.Create(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	put(store.HandleKey("left"), []byte(`{"block":{"10.0.0.0/30":1},"deleted":false}`))
	w.delete(store.HandleKey("kept"))
	put(store.AffinityID{Owner: "n1", CIDR: netip.MustParsePrefix("10.0.0.252/30")}.Key(), affinity{state: Pending}.encode())
	lonely := netip.MustParsePrefix("10.0.0.248/30")
	put(store.BlockKey(lonely), newBlock(lonely, "", start).encode())

	s := w.collector("", nil)
	s.scan(0)
	s.scan(DefaultGrace)
	var blocks, others []string
	for _, k := range w.keys() {
		if strings.HasPrefix(k, "block ") {
			blocks = append(blocks, k)
		} else {
			others = append(others, k)
		}
	}
	// n1 keeps the block it uses and n2 none; the handle is repaired.
	if len(blocks) != 1 || !strings.HasSuffix(blocks[0], "host:n1 uses 1") || len(others) != 2 ||
		!strings.HasPrefix(others[0], `handle/kept {"block":{"10.`) || !strings.HasPrefix(others[1], "host/n1/") {
		t.Errorf("left\n%s\n%s", strings.Join(blocks, "\n"), strings.Join(others, "\n"))
	}
	if s.scan(DefaultGrace).Suspects != 0 {
		t.Error("there still are suspects")
	}
}

func TestIdleBlockKeepsOnePerHost(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/24", 30))
	w.node("n1")
	w.mustAssign("n1", "a", 12, 0)
	if err := w.m.ReleaseByHandle(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	s := w.collector("", nil)
	s.scan(0)
	s.scan(DefaultGrace)
	if keys := w.keys(); len(keys) != 2 {
		t.Errorf("left %v, want one block with its affinity", keys)
	}
}

func TestCooledBlocksAreSwept(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/30", 30))
	w.settings.Configuration.CoolDown = time.Minute
	w.node("n1")
	w.mustAssign("n1", "a", 4, 0)
	if err := w.m.ReleaseByHandle(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.assign(w.m, "n1", "b", 1, 0); !errors.Is(err, ErrExhausted) {
		t.Errorf("error %v, want ErrExhausted while addresses cool down", err)
	}
	s := w.collector("", nil)
	s.scan(0)
	if keys := w.keys(); keys[0] != "block 10.0.0.0/30 host:n1 uses 4" {
		t.Errorf("swept too early: %v", keys)
	}
	w.now = start.Add(time.Minute)
	s.scan(0)
	if keys := w.keys(); keys[0] != "block 10.0.0.0/30 host:n1 uses 0" {
		t.Errorf("not swept: %v", keys)
	}
	if _, err := w.assign(w.m, "n1", "b", 1, 0); err != nil {
		t.Error(err)
	}
}

func TestCollectorRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pool("p", "10.0.0.0/32", 32))
		w.mustAssign("n1", "net.c1", 1, 0)
		ctx, cancel := context.WithTimeout(t.Context(), 2*DefaultGrace)
		defer cancel()
		if err := NewCollector(CollectorConfig{Manager: w.m}).Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		for _, k := range w.keys() {
			if strings.HasPrefix(k, "handle/") {
				t.Errorf("left %s", k)
			}
		}
	})
}

func goldenManager(t *testing.T) *Manager {
	db := mem.New()
	for key, raw := range golden(t) {
		if _, err := db.Create(t.Context(), key, raw); err != nil {
			t.Fatal(err)
		}
	}
	return New(Config{Driver: db, Now: func() time.Time { return start }})
}

func TestAudit(t *testing.T) {
	m := goldenManager(t)
	audit, err := m.Audit(t.Context(), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if audit.Leaks != 0 || len(audit.Addresses) != 3 || audit.Addresses[0].Owner != "workload default/n1-cni-cid--0001-eth0" ||
		audit.Addresses[0].Pool != "ippool-cross-subnet-1" || audit.Addresses[0].Node != "n1" {
		t.Errorf("%+v", audit)
	}
	if err := m.db.Delete(t.Context(), (&workload{endpoint: "n1-cni-cid--0002-eth0"}).key(), ""); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		agents map[string]Attachments
		grace  time.Duration
		leaks  int
		want   Standing
		reason string
	}{
		{"not asked", nil, 0, 1, Unproven, "no workload endpoint has it; the agent of n1 was not asked"},
		{"proven", map[string]Attachments{"n1": {}}, 0, 1, Leaked, "the agent of n1 has no such attachment"},
		{"young", map[string]Attachments{"n1": {}}, 24 * time.Hour, 0, Leaked, "may be being set up"},
		{"alive", map[string]Attachments{"n1": {"k8s-pod-network.cid-0002": nil}}, 0, 0, InUse, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			audit, err := m.Audit(t.Context(), tc.agents, tc.grace)
			if err != nil {
				t.Fatal(err)
			}
			last := audit.Addresses[2]
			if audit.Leaks != tc.leaks || last.Standing != tc.want || !strings.Contains(last.Reason, tc.reason) {
				t.Errorf("%d leaks, %+v", audit.Leaks, last)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	m := goldenManager(t)
	// Calico's own data has faults: an endpoint whose address was released by
	// hand, and one made by hand whose address was never assigned.
	want := []string{
		"192.168.7.9 is used by [Workload(default/n2-cni-c7f3-eth0)] and not assigned",
		"192.168.40.129 is used by [Workload(default/n1-cni-cid--0002-eth0)] and not assigned",
	}
	r, err := m.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.Problems, want) || r.InUse != 5 || r.Blocks != 2 || r.Handles != 2 {
		t.Errorf("%d in use, %d blocks, %d handles, problems:\n%s", r.InUse, r.Blocks, r.Handles, strings.Join(r.Problems, "\n"))
	}
	if _, err := m.db.Create(t.Context(), store.HandleKey("left"), []byte(`{"block":{},"deleted":false}`)); err != nil {
		t.Fatal(err)
	}
	if err := m.db.Delete(t.Context(), (&workload{endpoint: "n1-cni-cid--0002-eth0"}).key(), ""); err != nil {
		t.Fatal(err)
	}
	if r, err = m.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	const leaked = `"fd00:10:20:0:5add:9051:4065:cb41":[{"ip":"fd00:10:20:0:5add:9051:4065:cb41","handle":"k8s-pod-network.cid-0002",` +
		`"sequenceNumber":1795238872990160669,"node":"n1","creationTimestamp":"2026-11-21 05:27:53.13288535 +0000 UTC","inUse":false,"borrowed":false,"coolingDown":false}]`
	if !strings.Contains(string(raw), leaked) || !strings.Contains(string(raw), `"leakedHandles":[{"id":"left"`) {
		t.Errorf("report %s", raw)
	}
	var stored Report
	if err := json.Unmarshal(raw, &stored); err != nil {
		t.Fatal(err)
	}
	// A report in which nothing is leaked holds everything back.
	if ips, handles, err := m.ReleaseLeaked(t.Context(), &stored, &Report{}); err != nil || len(ips)+len(handles) != 0 {
		t.Errorf("released %v %v, %v", ips, handles, err)
	}
	ips, handles, err := m.ReleaseLeaked(t.Context(), &stored, r)
	if err != nil || len(ips) != 1 || !slices.Equal(handles, []string{"left"}) {
		t.Errorf("released %v %v, %v", ips, handles, err)
	}
	if r, err = m.Check(t.Context()); err != nil || len(r.Problems) != 1 {
		t.Errorf("afterwards %v, %v", r.Problems, err)
	}
}

// unlisted is a datastore that lets nobody list workload endpoints.
type unlisted struct{ store.Driver }

func (u unlisted) List(ctx context.Context, p string) (store.Listing, error) {
	if strings.Contains(p, pluralEndpoints) {
		return store.Listing{}, errors.New("listed all workload endpoints")
	}
	return u.Driver.List(ctx, p)
}

// TestAnAgentWithoutLeaksReadsNoEndpoints: they are the whole network's.
func TestAnAgentWithoutLeaksReadsNoEndpoints(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/24", 26))
	w.node("n1")
	w.db.Driver = unlisted{w.db.Driver}
	got := w.mustAssign("n1", "net.c1", 2, 0)
	live := Attachments{"net.c1": nil}
	s := w.collector("n1", func() Attachments { return live })
	if done := s.scan(0); done.Suspects != 0 {
		t.Errorf("%+v", done)
	}
	live["net.c1"] = got[:1]
	if _, err := s.c.Scan(t.Context()); err == nil {
		t.Error("an address that is not attached was not judged")
	}
}
