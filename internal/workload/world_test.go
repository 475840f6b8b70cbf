package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// errFault is what a step fails with that the test lets fail.
var errFault = errors.New("the test broke this step")

// faults counts the steps that touch the world, and breaks one.
type faults struct {
	mu    sync.Mutex
	steps int
	at    int  // the step that fails; 0: none
	done  bool // it takes effect all the same
	crash bool // no later step works either
}

// step reports whether the next step takes effect, and its error.
func (f *faults) step() (does bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps++
	switch {
	case f.at == 0 || f.steps < f.at:
		return true, nil
	case f.steps == f.at:
		return f.done, errFault
	case f.crash:
		return false, errFault
	}
	return true, nil
}

// brittle is a datastore whose steps can be broken.
type brittle struct {
	store.Driver
	f *faults
}

func (b brittle) Get(ctx context.Context, key string) (store.KV, error) {
	if _, err := b.f.step(); err != nil {
		return store.KV{}, err
	}
	return b.Driver.Get(ctx, key)
}

func (b brittle) Create(ctx context.Context, key string, v []byte) (rev store.Revision, err error) {
	does, fault := b.f.step()
	if does {
		rev, err = b.Driver.Create(ctx, key, v)
	}
	if fault != nil {
		return "", fault
	}
	return rev, err
}

func (b brittle) Update(ctx context.Context, kv store.KV) (rev store.Revision, err error) {
	does, fault := b.f.step()
	if does {
		rev, err = b.Driver.Update(ctx, kv)
	}
	if fault != nil {
		return "", fault
	}
	return rev, err
}

func (b brittle) Delete(ctx context.Context, key string, rev store.Revision) (err error) {
	does, fault := b.f.step()
	if does {
		err = b.Driver.Delete(ctx, key, rev)
	}
	if fault != nil {
		return fault
	}
	return err
}

// cables are the wires of a host without a kernel.
type cables struct {
	mu      sync.Mutex // guards everything below
	laid    map[string]kernel.WireSpec
	macs    map[string]net.HardwareAddr
	foreign map[string]bool // interfaces that are not ours
	made    int
}

// handle is one agent's hold on the cables.
type hold struct {
	*cables
	f *faults
}

func (h hold) LayWire(_ context.Context, s kernel.WireSpec) (kernel.Wired, error) {
	does, fault := h.f.step()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.foreign[s.HostName] {
		return kernel.Wired{}, kernel.ErrForeign
	}
	if does {
		old, ok := h.laid[s.HostName]
		if !ok || old.Netns != s.Netns || old.IfName != s.IfName {
			h.made++
			h.macs[s.HostName] = net.HardwareAddr{2, 0, 0, 0, byte(h.made >> 8), byte(h.made)}
		}
		if s.Tap { // the kernel does not know the address of the machine behind it
			h.made++
			h.macs[s.HostName] = net.HardwareAddr{2, 0, 0, 1, byte(h.made >> 8), byte(h.made)}
			if len(s.MAC) > 0 {
				h.macs[s.HostName] = s.MAC
			}
		}
		h.laid[s.HostName] = s
	}
	if fault != nil {
		return kernel.Wired{}, fault
	}
	return kernel.Wired{MAC: h.macs[s.HostName], MTU: s.MTU}, nil
}

func (h hold) FillWire(_ context.Context, s kernel.WireSpec, w kernel.Wired) (kernel.Wired, error) {
	does, fault := h.f.step()
	h.mu.Lock()
	defer h.mu.Unlock()
	if does {
		h.laid[s.HostName] = s
	}
	if fault != nil {
		return kernel.Wired{}, fault
	}
	return w, nil
}

func (h hold) Unwire(name string) error {
	does, fault := h.f.step()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.foreign[name] {
		return kernel.ErrForeign
	}
	if does {
		delete(h.laid, name)
	}
	return fault
}

func (h hold) InspectWire(_ context.Context, s kernel.WireSpec) (kernel.Wired, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	have, ok := h.laid[s.HostName]
	if !ok || have.Netns != s.Netns || have.IfName != s.IfName || !slices.Equal(have.Addresses, s.Addresses) {
		return kernel.Wired{}, fmt.Errorf("%s: %w", s.HostName, kernel.ErrNoLink)
	}
	return kernel.Wired{MAC: h.macs[s.HostName], MTU: have.MTU}, nil
}

func (h hold) Interfaces() ([]kernel.Interface, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []kernel.Interface{{Name: "eth9"}}
	for name := range h.laid {
		out = append(out, kernel.Interface{Name: name, Kind: "veth", Alias: desired.AliasWorkload})
	}
	return out, nil
}

// world is a datastore and a host, which outlive the agents on it.
type world struct {
	t      *testing.T
	db     *mem.Store
	cables *cables
	dir    string

	mu    sync.Mutex // guards ready
	ready error
}

// setReady says whether agents are ready; nil: they are.
func (w *world) setReady(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ready = err
}

func (w *world) isReady() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ready
}

const (
	pool4 = "10.65.0.0/24"
	pool6 = "fd00:65::/120"
)

func newWorld(t *testing.T, pools ...string) *world {
	t.Helper()
	w := &world{t: t, db: mem.New(), dir: t.TempDir(), cables: &cables{
		laid: map[string]kernel.WireSpec{}, macs: map[string]net.HardwareAddr{}, foreign: map[string]bool{},
	}}
	if len(pools) == 0 {
		pools = []string{pool4, pool6}
	}
	for i, cidr := range pools {
		p := &v3.IPPool{}
		prefix := netip.MustParsePrefix(cidr)
		p.Name, p.Spec.CIDR = fmt.Sprintf("pool-%d", i), cidr
		if small := prefix.Addr().BitLen() - 6; prefix.Bits() > small {
			p.Spec.BlockSize = prefix.Bits()
		}
		if _, err := client.Create(t.Context(), w.client(), p); err != nil {
			t.Fatal(err)
		}
	}
	w.addNode("n1")
	return w
}

func (w *world) client() *client.Client { return client.New(w.db, client.Config{}) }

func (w *world) addNode(name string) {
	w.t.Helper()
	n := &v3.Node{}
	n.Name = name
	if _, err := client.Create(w.t.Context(), w.client(), n); err != nil {
		w.t.Fatal(err)
	}
}

// start returns a fresh agent on the host, as after a restart.
func (w *world) start(f *faults) *Manager {
	if f == nil {
		f = &faults{}
	}
	db := brittle{w.db, f}
	return New(Config{
		Node: "n1", Prefix: "cali", Client: client.New(db, client.Config{}),
		// Pools come from a cache in the real agent: reading them is no step.
		IPAM:  ipam.New(ipam.Config{Driver: db, Settings: func(ctx context.Context) (*ipam.Settings, error) { return ipam.ReadSettings(ctx, w.db) }}),
		Wires: hold{w.cables, f}, MTU: func() int { return 1450 }, Log: slog.New(slog.DiscardHandler),
		Ready: w.isReady, Delegations: filepath.Join(w.dir, "delegations"),
		Programmed: func(context.Context, string, []netip.Addr) error {
			_, err := f.step()
			return err
		},
		Queue: filepath.Join(w.dir, "queue"), Records: filepath.Join(w.dir, "attachments"),
	})
}

// state is everything that attachments leave in the world.
type state struct {
	Endpoints []string // name container interface addresses
	Addresses []string // handle address, in use
	Handles   []string
	Wires     []string // interface -> namespace/interface
	Records   []string // handles
}

func (w *world) state() state {
	w.t.Helper()
	ctx := w.t.Context()
	var s state
	weps, err := client.List[v3.WorkloadEndpoint](ctx, w.client(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range weps {
		s.Endpoints = append(s.Endpoints, fmt.Sprintf("%s/%s %s %s %v", e.Namespace, e.Name, e.Spec.ContainerID, e.Spec.InterfaceName, e.Spec.IPNetworks))
	}
	audit, err := ipam.New(ipam.Config{Driver: w.db}).Audit(ctx, nil, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range audit.Addresses {
		if a.Standing != ipam.CoolingDown {
			s.Addresses = append(s.Addresses, a.Handle+" "+a.Addr.String())
		}
	}
	list, err := w.db.List(ctx, store.HandleRoot)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, kv := range list.KVs {
		s.Handles = append(s.Handles, strings.TrimPrefix(kv.Key, store.HandleRoot))
	}
	w.cables.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(w.cables.laid)) {
		s.Wires = append(s.Wires, name+" -> "+w.cables.laid[name].Netns+" "+w.cables.laid[name].IfName)
	}
	w.cables.mu.Unlock()
	for handle := range openRecords(filepath.Join(w.dir, "attachments")).byHandle {
		s.Records = append(s.Records, handle)
	}
	slices.Sort(s.Records)
	return s
}

// wantEmpty fails the test when attachments have left anything.
func (w *world) wantEmpty(when string) {
	w.t.Helper()
	s := w.state()
	if len(s.Endpoints)+len(s.Addresses)+len(s.Handles)+len(s.Wires)+len(s.Records) > 0 {
		w.t.Errorf("%s: left over: %+v", when, s)
	}
	if left, _ := filepath.Glob(filepath.Join(w.dir, "attachments", "*")); len(left) > 0 {
		w.t.Errorf("%s: files left over: %v", when, left)
	}
}

// request is an add of each kind of orchestrator.
func request(orchestrator, container string, v4, v6 bool) agentapi.AddRequest {
	req := agentapi.AddRequest{
		Version: agentapi.Version, Orchestrator: orchestrator, Network: "net", ContainerID: container,
		IfName: "eth0", Netns: "/run/netns/" + container, Profiles: []string{"net"}, AssignIPv4: v4, AssignIPv6: v6,
	}
	switch orchestrator {
	case "k8s":
		req.Namespace, req.Pod = "default", "nginx"
	case "lab":
		req.Workload = container
	}
	return req
}

// families are the combinations that everything runs in.
func families() map[string][2]bool {
	return map[string][2]bool{"v4": {true, false}, "v6": {false, true}, "dual": {true, true}}
}

// put writes a file into the queue.
func (w *world) put(name, content string) string {
	w.t.Helper()
	file := filepath.Join(w.dir, "queue", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return file
}
