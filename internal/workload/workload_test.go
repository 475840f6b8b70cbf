package workload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/store"
)

func mustAdd(t *testing.T, m *Manager, req agentapi.AddRequest) agentapi.Workload {
	t.Helper()
	got, err := m.Add(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func mustRemove(t *testing.T, m *Manager, ref agentapi.WorkloadRef) {
	t.Helper()
	if err := m.Remove(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
}

func (w *world) endpoint(namespace, name string) *v3.WorkloadEndpoint {
	w.t.Helper()
	wep, err := client.Get[v3.WorkloadEndpoint](w.t.Context(), w.client(), namespace, name)
	if err != nil {
		w.t.Fatal(err)
	}
	return wep
}

func TestAddingTwiceIsAddingOnce(t *testing.T) {
	eachKind(t, func(t *testing.T, req agentapi.AddRequest) {
		w := newWorld(t)
		m := w.start(nil)
		first := mustAdd(t, m, req)
		before := w.state()
		for name, m := range map[string]*Manager{"the same agent": m, "an agent that was restarted": w.start(nil)} {
			if again := mustAdd(t, m, req); !reflect.DeepEqual(again, first) {
				t.Errorf("%s: %+v, then %+v", name, first, again)
			}
			if after := w.state(); !reflect.DeepEqual(after, before) {
				t.Errorf("%s: the world went from %+v to %+v", name, before, after)
			}
		}
		w.wantOne(req, first)
	})
}

func TestRemovingTheUnknownIsFine(t *testing.T) {
	eachKind(t, func(t *testing.T, req agentapi.AddRequest) {
		w := newWorld(t)
		m := w.start(nil)
		mustRemove(t, m, refOf(req))
		mustAdd(t, m, req)
		mustRemove(t, m, refOf(req))
		mustRemove(t, m, refOf(req))
		w.wantEmpty("after all")
	})
}

func TestANewerContainerKeepsTheEndpoint(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	older, newer := request("k8s", "sandbox-1", true, true), request("k8s", "sandbox-2", true, true)
	older.Labels = map[string]string{"role": "db"}
	first := mustAdd(t, m, older)
	second := mustAdd(t, m, newer)
	if first.HostInterface != second.HostInterface || first.Addresses[0] == second.Addresses[0] {
		t.Errorf("first %+v, second %+v: want the same interface and other addresses", first, second)
	}
	wep := w.endpoint("default", second.Name)
	if wep.Spec.ContainerID != "sandbox-2" || wep.Labels["role"] != "" {
		t.Errorf("endpoint of %s with labels %v: want the newer one without the older one's labels", wep.Spec.ContainerID, wep.Labels)
	}
	m = w.start(nil)
	mustRemove(t, m, refOf(older))
	s := w.state()
	if len(s.Endpoints) != 1 || len(s.Addresses) != 2 || len(s.Wires) != 1 || !slices.Equal(s.Records, []string{"net.sandbox-2"}) {
		t.Errorf("after the older one's removal: %+v", s)
	}
	if _, err := m.Check(t.Context(), refOf(newer)); err != nil {
		t.Error(err)
	}
	if _, err := m.Check(t.Context(), refOf(older)); codeOf(err) != "conflict" {
		t.Errorf("check of the older one: %v", err)
	}
	mustRemove(t, m, refOf(newer))
	w.wantEmpty("after both")
}

// TestAHandleThatAnotherHostMade: what another host took under the name of a
// workload here is not the workload's.
func TestAHandleThatAnotherHostMade(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	req := request("cni", "aaa", true, true)
	other := ipam.AssignArgs{Host: "another", Handle: "net.aaa", Num4: 1, Num6: 1, Attrs: map[string]string{ipam.AttrNode: "another"}}
	made, err := m.cfg.IPAM.AutoAssign(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got := mustAdd(t, m, req)
		for _, a := range append(made.V4, made.V6...) {
			if slices.ContainsFunc(got.Addresses, func(s string) bool { return strings.HasPrefix(s, a.Addr.String()+"/") }) {
				t.Errorf("it has %s, which another host chose: %v", a.Addr, got.Addresses)
			}
		}
		if len(got.Addresses) != 2 {
			t.Errorf("it has %v", got.Addresses)
		}
		if _, err := m.Check(t.Context(), refOf(req)); err != nil {
			t.Error(err)
		}
	}
}

// TestAFailedAddLeavesTheOlderContainerAlone: until a wire is laid, the older
// one still works.
func TestAFailedAddLeavesTheOlderContainerAlone(t *testing.T) {
	w := newWorld(t, "10.65.0.0/32")
	m := w.start(nil)
	mustAdd(t, m, request("k8s", "sandbox-1", true, false))
	before := w.state()
	if _, err := m.Add(t.Context(), request("k8s", "sandbox-2", true, false)); !errors.Is(err, ipam.ErrExhausted) {
		t.Fatalf("got %v, want no address left", err)
	}
	if after := w.state(); !reflect.DeepEqual(after, before) {
		t.Errorf("the world went from %+v to %+v", before, after)
	}
}

func TestOneFamilyExhaustedReleasesTheOther(t *testing.T) {
	for _, tt := range []struct {
		name  string
		pools []string
	}{{"v6 exhausted", []string{pool4, "fd00:65::/128"}}, {"v4 exhausted", []string{"10.65.0.0/32", pool6}}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.pools...)
			m := w.start(nil)
			mustAdd(t, m, request("cni", "aaa", true, true))
			before := w.state()
			_, err := m.Add(t.Context(), request("cni", "bbb", true, true))
			if !errors.Is(err, ipam.ErrExhausted) || codeOf(err) != "conflict" {
				t.Errorf("got %v", err)
			}
			if after := w.state(); !reflect.DeepEqual(after, before) {
				t.Errorf("the world went from %+v to %+v", before, after)
			}
		})
	}
}

// TestAFamilyMoreThatCannotBeHad: the container had one address, and keeps it.
func TestAFamilyMoreThatCannotBeHad(t *testing.T) {
	w := newWorld(t, pool4, "fd00:65::/128")
	m := w.start(nil)
	mustAdd(t, m, request("cni", "aaa", false, true))
	mustAdd(t, m, request("cni", "bbb", true, false))
	before := w.state()
	if _, err := m.Add(t.Context(), request("cni", "bbb", true, true)); !errors.Is(err, ipam.ErrExhausted) {
		t.Errorf("got %v", err)
	}
	if after := w.state(); !reflect.DeepEqual(after, before) {
		t.Errorf("the world went from %+v to %+v", before, after)
	}
}

func TestRequestedAddresses(t *testing.T) {
	taken := "10.65.0.7"
	for _, tt := range []struct {
		name   string
		ask    []string
		v4, v6 bool
		want   []string // "…" for any of the family
		code   string
	}{
		{"one of IPv4", []string{"10.65.0.9"}, false, false, []string{"10.65.0.9/32"}, ""},
		{"one of IPv6 with its length", []string{"fd00:65::9/64"}, false, false, []string{"fd00:65::9/128"}, ""},
		{"both", []string{"fd00:65::9", "10.65.0.9"}, false, false, []string{"10.65.0.9/32", "fd00:65::9/128"}, ""},
		{"one, the other family assigned", []string{"10.65.0.9"}, true, true, []string{"10.65.0.9/32", "fd00:65::"}, ""},
		{"one twice", []string{"10.65.0.9", "10.65.0.9/24"}, true, false, []string{"10.65.0.9/32"}, ""},
		{"two of a family", []string{"10.65.0.9", "10.65.0.10"}, false, false, nil, "invalid"},
		{"no address", []string{"ten"}, true, false, nil, "invalid"},
		{"with a zone", []string{"fe80::1%eth0"}, true, false, nil, "invalid"},
		{"outside every pool", []string{"192.0.2.1"}, false, false, nil, "invalid"},
		{"taken", []string{taken}, false, false, nil, "conflict"},
		{"free, but the other is taken", []string{"fd00:65::9", taken}, false, false, nil, "conflict"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			m := w.start(nil)
			first := request("cni", "first", false, false)
			first.Addresses = []string{taken}
			mustAdd(t, m, first)
			before := w.state()
			req := request("cni", "second", tt.v4, tt.v6)
			req.Addresses = tt.ask
			got, err := m.Add(t.Context(), req)
			if codeOf(err) != tt.code {
				t.Fatalf("got %v, want code %q", err, tt.code)
			}
			if tt.code != "" {
				if after := w.state(); !reflect.DeepEqual(after, before) {
					t.Errorf("the world went from %+v to %+v", before, after)
				}
				return
			}
			ok := len(got.Addresses) == len(tt.want)
			for i := range got.Addresses {
				ok = ok && strings.HasPrefix(got.Addresses[i], tt.want[i])
			}
			if !ok {
				t.Errorf("got %v, want %v", got.Addresses, tt.want)
			}
			for _, others := range [][]string{{"10.65.0.77", "fd00:65::77"}, {taken, "fd00:65::78"}} {
				other := req
				other.Addresses = others
				before := w.state()
				if _, err := m.Add(t.Context(), other); codeOf(err) != "conflict" {
					t.Errorf("again with %v: %v", others, err)
				}
				if after := w.state(); !reflect.DeepEqual(after, before) {
					t.Errorf("the world went from %+v to %+v", before, after)
				}
			}
			if again := mustAdd(t, m, req); !reflect.DeepEqual(again, got) {
				t.Errorf("again: %+v, first %+v", again, got)
			}
		})
	}
}

func TestBadRequestsAreRefusedBeforeAnythingIsDone(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		edit       func(*agentapi.AddRequest)
	}{
		{"no version", "version", func(r *agentapi.AddRequest) { r.Version = 0 }},
		{"a version from far away", "version", func(r *agentapi.AddRequest) { r.Version = agentapi.Version + 2 }},
		{"no namespace path", "netns", func(r *agentapi.AddRequest) { r.Netns = "" }},
		{"no family", "neither", func(r *agentapi.AddRequest) { r.AssignIPv4 = false }},
		{"a small MTU", "mtu 60", func(r *agentapi.AddRequest) { r.MTU = 60 }},
		{"an MTU too small for IPv6", "1280", func(r *agentapi.AddRequest) { r.MTU, r.AssignIPv6 = 1279, true }},
		{"a large MTU", "mtu", func(r *agentapi.AddRequest) { r.MTU = 65536 }},
		{"a group's MAC", "mac", func(r *agentapi.AddRequest) { r.MAC = "01:00:5e:00:00:01" }},
		{"no MAC", "mac", func(r *agentapi.AddRequest) { r.MAC = "eth0" }},
		{"no container", "containerID", func(r *agentapi.AddRequest) { r.ContainerID = "" }},
		{"a path as container", "containerID", func(r *agentapi.AddRequest) { r.ContainerID = "../../etc" }},
		{"a long interface", "ifName", func(r *agentapi.AddRequest) { r.IfName = "abcdefghijklmnop" }},
		{"a path as interface", "ifName", func(r *agentapi.AddRequest) { r.IfName = "a/b" }},
		{"a pod without a name", "pod", func(r *agentapi.AddRequest) { r.Orchestrator = "k8s" }},
		{"a workload without a name", "workload", func(r *agentapi.AddRequest) { r.Orchestrator = "vm" }},
		{"no network", "network", func(r *agentapi.AddRequest) { r.Network = "" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			f := &faults{}
			req := request("cni", "c1", true, false)
			tt.edit(&req)
			_, err := w.start(f).Add(t.Context(), req)
			if err == nil || !strings.Contains(err.Error(), tt.want) || codeOf(err) != "invalid" && codeOf(err) != "version" {
				t.Errorf("got %v", err)
			}
			if f.steps > 0 {
				t.Errorf("%d steps were taken", f.steps)
			}
		})
	}
}

func TestNotReadyIsSaid(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	w.setReady(errors.New("not in sync"))
	req := request("cni", "c1", true, false)
	_, err := m.Add(t.Context(), req)
	_, cerr := m.Check(t.Context(), refOf(req))
	_, gerr := m.GC(t.Context(), agentapi.GCRequest{Version: agentapi.Version, Network: "net"})
	for _, err := range []error{err, cerr, gerr, m.Remove(t.Context(), refOf(req))} {
		if codeOf(err) != "notReady" {
			t.Errorf("got %v", err)
		}
	}
}

func TestTheEndpointIsWrittenAsCalicoWritesIt(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	req := request("cni", "cid-0001", true, true)
	req.Network, req.Profiles = "k8s-pod-network", []string{"k8s-pod-network"}
	req.Labels = map[string]string{"app": "web", "pcns.team": "a", "pcsa.role": "b", "projectcalico.org/namespace": "kube-system"}
	got := mustAdd(t, m, req)
	wep := w.endpoint("default", "n1-cni-cid--0001-eth0")
	wantLabels := map[string]string{"app": "web", "projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "cni"}
	if !maps.Equal(wep.Labels, wantLabels) {
		t.Errorf("labels %v, want %v", wep.Labels, wantLabels)
	}
	want := v3.WorkloadEndpointSpec{
		ContainerID: "cid-0001", Endpoint: "eth0", InterfaceName: "calicid-0001", IPNetworks: got.Addresses,
		MAC: got.MAC, Node: "n1", Orchestrator: "cni", Profiles: []string{"k8s-pod-network"},
	}
	if !reflect.DeepEqual(wep.Spec, want) {
		t.Errorf("spec %+v, want %+v", wep.Spec, want)
	}
	if !maps.Equal(wep.Annotations, map[string]string{NetworkAnnotation: "k8s-pod-network"}) {
		t.Errorf("annotations %v", wep.Annotations)
	}
	profile, err := client.Get[v3.Profile](t.Context(), w.client(), "", "k8s-pod-network")
	if err != nil {
		t.Fatal(err)
	}
	if s := profile.Spec; len(s.Egress) != 1 || len(s.Ingress) != 1 || s.Ingress[0].Source.Selector != "has(k8s-pod-network)" ||
		!maps.Equal(s.LabelsToApply, map[string]string{"k8s-pod-network": ""}) {
		t.Errorf("profile %+v", s)
	}
	kv, err := w.db.Get(t.Context(), store.HandleKey("k8s-pod-network.cid-0001"))
	if err != nil {
		t.Error(kv, err)
	}
}

func TestLabelsOfOthersStayWhenTheSameContainerIsAddedAgain(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	req := request("cni", "c1", true, false)
	got := mustAdd(t, m, req)
	if _, err := client.Modify(t.Context(), w.client(), "default", got.Name, func(e *v3.WorkloadEndpoint) error {
		e.Labels["tier"] = "gold"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, m, req)
	if wep := w.endpoint("default", got.Name); wep.Labels["tier"] != "gold" {
		t.Errorf("labels %v", wep.Labels)
	}
}

func TestInterfacesOfOneContainerAreApart(t *testing.T) {
	for _, o := range []string{"cni", "k8s", "lab"} {
		t.Run(o, func(t *testing.T) {
			w := newWorld(t)
			m := w.start(nil)
			one, two := request(o, "container-1", true, false), request(o, "container-1", true, false)
			two.IfName = "net1"
			first := mustAdd(t, m, one)
			before := w.state()
			mustRemove(t, m, refOf(two)) // was never added
			if after := w.state(); !reflect.DeepEqual(after, before) {
				t.Errorf("removing the other interface: from %+v to %+v", before, after)
			}
			second := mustAdd(t, m, two)
			if first.HostInterface == second.HostInterface || first.Addresses[0] == second.Addresses[0] {
				t.Errorf("first %+v, second %+v", first, second)
			}
			mustRemove(t, m, refOf(two))
			if after := w.state(); !reflect.DeepEqual(after, before) {
				t.Errorf("removing the second interface: from %+v to %+v", before, after)
			}
		})
	}
}

// TestInterfaceNamesThatCollide: Calico's names of bare containers have only
// the first characters of the id.
func TestInterfaceNamesThatCollide(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	one, two, three := request("cni", "my-container-1", true, true), request("cni", "my-container-2", true, true), request("cni", "my-container-3", true, true)
	first := mustAdd(t, m, one)
	before := w.state()
	mustRemove(t, m, refOf(two)) // was never added
	if after := w.state(); !reflect.DeepEqual(after, before) {
		t.Errorf("removing a stranger: from %+v to %+v", before, after)
	}
	m = w.start(nil)
	second := mustAdd(t, m, two)
	if first.HostInterface != "calimy-containe" || second.HostInterface == first.HostInterface || len(second.HostInterface) != 15 {
		t.Errorf("interfaces %s and %s", first.HostInterface, second.HostInterface)
	}
	if again := mustAdd(t, w.start(nil), two); !reflect.DeepEqual(again, second) {
		t.Errorf("again %+v, first %+v", again, second)
	}
	mustAdd(t, m, three)
	if _, err := m.Check(t.Context(), refOf(two)); err != nil {
		t.Error(err)
	}
	m = w.start(nil)
	mustRemove(t, m, refOf(one))
	mustRemove(t, m, refOf(three))
	if _, err := m.Check(t.Context(), refOf(two)); err != nil {
		t.Error(err)
	}
	mustRemove(t, m, refOf(two))
	w.wantEmpty("after all")
}

func TestALegacyHandleReachesNoOtherAttachment(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	victim := request("cni", "victim", true, false)
	mustAdd(t, m, victim)
	pod := request("k8s", "c2", true, false)
	pod.Namespace, pod.Pod = "net", "victim" // the old form of its handle is the victim's
	mustAdd(t, m, pod)
	mustRemove(t, m, refOf(pod))
	if s := w.state(); len(s.Addresses) != 1 || s.Handles[0] != "net.victim" {
		t.Errorf("left %+v", s)
	}
}

func TestAForeignInterfaceIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	w.cables.foreign["calic1"] = true
	req := request("cni", "c1", true, true)
	if _, err := m.Add(t.Context(), req); !errors.Is(err, kernel.ErrForeign) || codeOf(err) != "conflict" {
		t.Errorf("got %v", err)
	}
	w.wantEmpty("after the failure")
	mustRemove(t, m, refOf(req))
}

func TestCheckSaysWhatIsWrong(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	req := request("cni", "c1", true, true)
	if _, err := m.Check(t.Context(), refOf(req)); codeOf(err) != "unknown" {
		t.Errorf("unknown: %v", err)
	}
	got := mustAdd(t, m, req)
	checked, err := m.Check(t.Context(), refOf(req))
	if err != nil || !reflect.DeepEqual(checked, got) {
		t.Errorf("%+v, %v; want %+v", checked, err, got)
	}
	clear(w.cables.laid)
	if _, err := m.Check(t.Context(), refOf(req)); !errors.Is(err, kernel.ErrNoLink) {
		t.Errorf("without a wire: %v", err)
	}
}

func TestGarbageCollectionByNetwork(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	mustAdd(t, m, request("cni", "alive", true, false))
	mustAdd(t, m, request("cni", "dead", true, false))
	mustAdd(t, m, request("k8s", "dead-pod", true, true))
	elsewhere := request("cni", "elsewhere", true, false)
	elsewhere.Network, elsewhere.Profiles = "other", nil
	mustAdd(t, m, elsewhere)
	if _, err := w.start(&faults{at: 9, crash: true}).Add(t.Context(), request("cni", "half", true, false)); err == nil {
		t.Fatal("the add did not crash")
	}
	m = w.start(nil)
	got, err := m.GC(t.Context(), agentapi.GCRequest{
		Version: agentapi.Version, Network: "net", Valid: []agentapi.GCAttachment{{ContainerID: "alive", IfName: "eth0"}, {ContainerID: "dead", IfName: "net1"}},
	})
	want := []string{"default/n1-cni-dead-eth0", "default/n1-cni-half-eth0", "default/n1-k8s-nginx-eth0"}
	if err != nil || !slices.Equal(got.Removed, want) {
		t.Errorf("removed %v, %v; want %v", got.Removed, err, want)
	}
	s := w.state()
	if len(s.Endpoints) != 2 || len(s.Addresses) != 2 || len(s.Wires) != 2 || !slices.Equal(s.Records, []string{"net.alive", "other.elsewhere"}) {
		t.Errorf("left %+v", s)
	}
	for _, bad := range []agentapi.GCRequest{{Version: agentapi.Version}, {Version: agentapi.Version, Network: "../x"}, {Network: "net"}} {
		if _, err := m.GC(t.Context(), bad); err == nil {
			t.Errorf("%+v was carried out", bad)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	const workloads, each = 8, 3
	var wg sync.WaitGroup
	errs := make(chan error, workloads*each*2)
	for i := range workloads {
		req := request("k8s", fmt.Sprintf("c%d", i), true, true)
		req.Pod = fmt.Sprintf("pod-%d", i)
		for k := range each {
			wg.Go(func() {
				_, err := m.Add(context.Background(), req)
				errs <- err
				if i%2 == 1 && k == 0 {
					errs <- m.Remove(context.Background(), refOf(req))
				}
			})
		}
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	s := w.state()
	if len(s.Addresses) != 2*len(s.Endpoints) || len(s.Wires) != len(s.Endpoints) || len(s.Records) != len(s.Endpoints) || len(s.Endpoints) < workloads/2 {
		t.Errorf("the world is %+v", s)
	}
	for i := range workloads {
		req := request("k8s", fmt.Sprintf("c%d", i), true, true)
		req.Pod = fmt.Sprintf("pod-%d", i)
		mustRemove(t, m, refOf(req))
	}
	w.wantEmpty("after all")
}

func TestRecordsThatCannotBeReadStopCollection(t *testing.T) {
	w := newWorld(t)
	for _, content := range []string{"{", `{"version":9,"handle":"x"}`, `{"version":1}`} {
		file := filepath.Join(w.dir, "attachments", "x.json")
		w.put("../attachments/x.json", content)
		if _, err := w.start(nil).Attached(t.Context()); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v", content, err)
		}
	}
	w.put("../attachments/x.json", `{"version":1,"handle":"h","addressesOnly":true,"ref":{},"new":1}`)
	got, err := w.start(nil).Attached(t.Context())
	if _, ok := got["h"]; err != nil || !ok {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestTapAddedAgain keeps the hardware address that the machine behind a tap
// device has: the kernel does not know it, and nobody tells the machine of
// another. A new container has a new one.
func TestTapAddedAgain(t *testing.T) {
	eachKind(t, func(t *testing.T, req agentapi.AddRequest) {
		w := newWorld(t)
		req.Netns, req.Special = "", &agentapi.Special{Tap: true}
		first, err := w.start(nil).Add(t.Context(), req)
		if err != nil || first.MAC == "" {
			t.Fatalf("%+v, %v", first, err)
		}
		again, err := w.start(nil).Add(t.Context(), req) // by the next agent
		if err != nil || again.MAC != first.MAC || !slices.Equal(again.Addresses, first.Addresses) {
			t.Errorf("%+v, %v; it was %+v", again, err, first)
		}
		w.wantOne(req, again)
		if req.Orchestrator != "k8s" {
			return // another container is another workload
		}
		req.ContainerID = "container-2"
		if other, err := w.start(nil).Add(t.Context(), req); err != nil || other.MAC == first.MAC {
			t.Errorf("another container: %+v, %v", other, err)
		}
	})
}
