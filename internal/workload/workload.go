// Package workload sets up and removes the interfaces of workloads on this
// host: addresses, the wire, the WorkloadEndpoint in the datastore, and the
// wait until the kernel is programmed. It serves the socket that the CNI
// plugin, the lab and others ask.
package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/kernel"
)

// defaultTimeout bounds an add that does not say how long it may take.
const defaultTimeout = 30 * time.Second

// checkTimeout bounds how long a check waits for the kernel to be right.
const checkTimeout = 3 * time.Second

// Wires is the part of the kernel that lays wires.
type Wires interface {
	Wire(ctx context.Context, spec kernel.WireSpec) (kernel.Wired, error)
	Unwire(name string) error
	InspectWire(ctx context.Context, spec kernel.WireSpec) (kernel.Wired, error)
}

// Config is what a Manager needs.
type Config struct {
	Node   string
	Prefix string // of host interfaces: "cali"
	Client *client.Client
	IPAM   *ipam.Manager
	Wires  Wires
	// Ready says whether workloads can be set up now: connected and in sync.
	Ready func() error
	// Programmed waits until the kernel has the endpoint with these addresses
	// behind the interface, read back.
	Programmed func(ctx context.Context, iface string, addrs []netip.Addr) error
	// NamespaceLabels returns the labels of a namespace, for pools that select
	// by it; nil: namespaces have none.
	NamespaceLabels func(ctx context.Context, namespace string) (map[string]string, error)
	// MTU is that of workload interfaces which do not ask for another.
	MTU   func() int
	Queue string // folder of queued removals
	Log   *slog.Logger
	Now   func() time.Time
}

// Manager sets up and removes workloads. Calls about one workload run one
// after the other, others side by side.
type Manager struct {
	cfg Config

	mu    sync.Mutex // guards everything below
	busy  map[string]chan struct{}
	known map[string]bool // profiles seen to exist
}

// New returns a Manager.
func New(cfg Config) *Manager {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Manager{cfg: cfg, busy: map[string]chan struct{}{}, known: map[string]bool{}}
}

// lock waits until nobody works on a workload, and keeps it.
func (m *Manager) lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		m.mu.Lock()
		wait, taken := m.busy[key]
		if !taken {
			done := make(chan struct{})
			m.busy[key] = done
			m.mu.Unlock()
			return func() {
				m.mu.Lock()
				delete(m.busy, key)
				m.mu.Unlock()
				close(done)
			}, nil
		}
		m.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, &Error{"timeout", fmt.Errorf("wait for another call about %s: %w", key, ctx.Err())}
		}
	}
}

// Add sets up one workload interface and returns when the kernel has been
// seen to be programmed. Doing it again returns the same; after a crash in the
// middle it goes on where that one stopped. When it fails it has taken back
// what it did.
func (m *Manager) Add(ctx context.Context, req agentapi.AddRequest) (agentapi.Workload, error) {
	if err := checkProtocol(req.Version); err != nil {
		return agentapi.Workload{}, err
	}
	id, err := identify(m.cfg.Node, m.cfg.Prefix, refOf(req))
	if err != nil {
		return agentapi.Workload{}, err
	}
	if err := checkAdd(req); err != nil {
		return agentapi.Workload{}, err
	}
	timeout := defaultTimeout
	if req.TimeoutMS > 0 {
		timeout = time.Duration(req.TimeoutMS) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	unlock, err := m.lock(ctx, id.Namespace+"/"+id.Endpoint)
	if err != nil {
		return agentapi.Workload{}, err
	}
	defer unlock()
	if err := m.cfg.Ready(); err != nil {
		return agentapi.Workload{}, &Error{"notReady", err}
	}
	return m.add(ctx, req, id)
}

// add does the work of Add.
func (m *Manager) add(ctx context.Context, req agentapi.AddRequest, id Identity) (agentapi.Workload, error) {
	old, err := client.Get[v3.WorkloadEndpoint](ctx, m.cfg.Client, id.Namespace, id.Endpoint)
	if err != nil && !client.IsNotFound(err) {
		return agentapi.Workload{}, fmt.Errorf("look for endpoint %s/%s: %w", id.Namespace, id.Endpoint, err)
	}
	if err != nil {
		old = nil
	}
	addrs, err := m.addresses(ctx, req, id)
	var w agentapi.Workload
	if err == nil {
		w, err = m.wireAndWrite(ctx, req, id, addrs, old)
	}
	if err != nil && (old == nil || old.Spec.ContainerID != req.ContainerID) {
		err = errors.Join(err, m.takeBack(ctx, req.ContainerID, id))
	}
	return w, err
}

// wireAndWrite lays the wire, writes the endpoint and waits for the kernel.
func (m *Manager) wireAndWrite(ctx context.Context, req agentapi.AddRequest, id Identity, addrs []netip.Addr, old *v3.WorkloadEndpoint) (agentapi.Workload, error) {
	spec, err := m.spec(req, id, addrs)
	if err != nil {
		return agentapi.Workload{}, err
	}
	if err := m.ensureProfiles(ctx, req); err != nil {
		return agentapi.Workload{}, err
	}
	wired, err := m.cfg.Wires.Wire(ctx, spec)
	if errors.Is(err, kernel.ErrForeign) {
		return agentapi.Workload{}, &Error{"conflict", err}
	}
	if err != nil {
		return agentapi.Workload{}, err
	}
	if err := m.writeEndpoint(ctx, endpoint(m.cfg.Node, req, id, addrs, wired.MAC), old); err != nil {
		return agentapi.Workload{}, err
	}
	if err := m.cfg.Programmed(ctx, id.HostInterface, addrs); err != nil {
		return agentapi.Workload{}, &Error{"timeout", fmt.Errorf("endpoint %s/%s is not programmed: %w", id.Namespace, id.Endpoint, err)}
	}
	return described(id, req.IfName, wired, addrs), nil
}

// described is what callers are told of a workload.
func described(id Identity, ifName string, wired kernel.Wired, addrs []netip.Addr) agentapi.Workload {
	w := agentapi.Workload{
		Name: id.Endpoint, Namespace: id.Namespace, HostInterface: id.HostInterface, Interface: ifName,
		MAC: wired.MAC.String(), MTU: wired.MTU, Addresses: []string{},
	}
	for _, a := range addrs {
		w.Addresses = append(w.Addresses, netip.PrefixFrom(a, a.BitLen()).String())
	}
	return w
}

// spec describes the wire of a workload.
func (m *Manager) spec(req agentapi.AddRequest, id Identity, addrs []netip.Addr) (kernel.WireSpec, error) {
	spec := kernel.WireSpec{
		HostName: id.HostInterface, Netns: req.Netns, IfName: req.IfName, MTU: req.MTU,
		Addresses: addrs, Forwarding: req.Forwarding,
	}
	if spec.MTU == 0 {
		spec.MTU = m.cfg.MTU()
	}
	if req.MAC != "" {
		mac, err := net.ParseMAC(req.MAC)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return spec, invalid("mac %q: must be a hardware address of one station, as 02:00:5e:10:00:01", req.MAC)
		}
		spec.MAC = mac
	}
	return spec, nil
}

// takeBack undoes an add that failed. The caller's time may be over, so it
// gets a little of its own.
func (m *Manager) takeBack(ctx context.Context, container string, id Identity) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := m.cfg.Wires.Unwire(id.HostInterface)
	if errors.Is(err, kernel.ErrForeign) {
		err = nil // it was in our way: that is why the add failed
	}
	wep, derr := client.Get[v3.WorkloadEndpoint](ctx, m.cfg.Client, id.Namespace, id.Endpoint)
	if derr == nil && wep.Spec.ContainerID == container {
		derr = m.deleteEndpoint(ctx, wep)
	}
	err = errors.Join(err, notFound(derr))
	if err == nil { // an address is free only when nothing answers for it
		err = m.release(ctx, id.Handle)
	}
	if err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	return nil
}

// Remove takes one workload interface away. What is not there is no error: a
// runtime may remove a workload twice, or one that was never added.
func (m *Manager) Remove(ctx context.Context, ref agentapi.WorkloadRef) error {
	if err := checkProtocol(ref.Version); err != nil {
		return err
	}
	id, err := identify(m.cfg.Node, m.cfg.Prefix, ref)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	unlock, err := m.lock(ctx, id.Namespace+"/"+id.Endpoint)
	if err != nil {
		return err
	}
	defer unlock()
	if err := m.cfg.Ready(); err != nil {
		return &Error{"notReady", err}
	}
	wep, err := client.Get[v3.WorkloadEndpoint](ctx, m.cfg.Client, id.Namespace, id.Endpoint)
	if err != nil && !client.IsNotFound(err) {
		return fmt.Errorf("look for endpoint %s/%s: %w", id.Namespace, id.Endpoint, err)
	}
	// The interface goes while its routes still stand, so that no other way to
	// the address opens; the address is free last of all. An endpoint that a
	// newer container took over stays: only our addresses go.
	if err == nil && wep.Spec.ContainerID != ref.ContainerID {
		return m.releaseAll(ctx, id)
	}
	if uerr := m.cfg.Wires.Unwire(id.HostInterface); uerr != nil && !errors.Is(uerr, kernel.ErrForeign) {
		return uerr
	}
	if err == nil {
		if err := m.deleteEndpoint(ctx, wep); err != nil {
			return err
		}
	}
	return m.releaseAll(ctx, id)
}

// deleteEndpoint deletes an endpoint as it was read; one that changed
// meanwhile is read again, a few times.
func (m *Manager) deleteEndpoint(ctx context.Context, wep *v3.WorkloadEndpoint) error {
	container := wep.Spec.ContainerID
	for attempt := 0; ; attempt++ {
		err := client.Delete[v3.WorkloadEndpoint](ctx, m.cfg.Client, wep.Namespace, wep.Name,
			client.Preconditions{UID: wep.UID, ResourceVersion: wep.ResourceVersion})
		if err == nil || client.IsNotFound(err) {
			return nil
		}
		if !client.IsConflict(err) || attempt == 5 {
			return fmt.Errorf("delete endpoint %s/%s: %w", wep.Namespace, wep.Name, err)
		}
		next, gerr := client.Get[v3.WorkloadEndpoint](ctx, m.cfg.Client, wep.Namespace, wep.Name)
		if client.IsNotFound(gerr) {
			return nil
		}
		if gerr != nil {
			return fmt.Errorf("look for endpoint %s/%s: %w", wep.Namespace, wep.Name, gerr)
		}
		if next.Spec.ContainerID != container {
			return nil // a newer container owns it now
		}
		wep = next
	}
}

// Check compares a workload with what it should be. The error says what is
// missing.
func (m *Manager) Check(ctx context.Context, ref agentapi.WorkloadRef) (agentapi.Workload, error) {
	if err := checkProtocol(ref.Version); err != nil {
		return agentapi.Workload{}, err
	}
	id, err := identify(m.cfg.Node, m.cfg.Prefix, ref)
	if err != nil {
		return agentapi.Workload{}, err
	}
	if err := m.cfg.Ready(); err != nil {
		return agentapi.Workload{}, &Error{"notReady", err}
	}
	wep, err := client.Get[v3.WorkloadEndpoint](ctx, m.cfg.Client, id.Namespace, id.Endpoint)
	if err != nil {
		return agentapi.Workload{}, fmt.Errorf("endpoint %s/%s: %w", id.Namespace, id.Endpoint, err)
	}
	if wep.Spec.ContainerID != ref.ContainerID {
		return agentapi.Workload{}, &Error{"conflict", fmt.Errorf("endpoint %s/%s belongs to container %s now", id.Namespace, id.Endpoint, wep.Spec.ContainerID)}
	}
	addrs, err := endpointAddrs(wep)
	if err != nil {
		return agentapi.Workload{}, err
	}
	spec := kernel.WireSpec{HostName: id.HostInterface, Netns: ref.Netns, IfName: ref.IfName, Addresses: addrs}
	wired, err := m.cfg.Wires.InspectWire(ctx, spec)
	if err != nil {
		return agentapi.Workload{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := m.cfg.Programmed(ctx, id.HostInterface, addrs); err != nil {
		return agentapi.Workload{}, err
	}
	return described(id, ref.IfName, wired, addrs), nil
}

// GC removes every attachment of a network on this host that is not in the
// list of live ones.
func (m *Manager) GC(ctx context.Context, req agentapi.GCRequest) (agentapi.GCResponse, error) {
	resp := agentapi.GCResponse{Removed: []string{}}
	if err := checkProtocol(req.Version); err != nil {
		return resp, err
	}
	if !nameOK(req.Network) {
		return resp, invalid("network %q is no name of a network", req.Network)
	}
	alive := map[agentapi.GCAttachment]bool{}
	for _, v := range req.Valid {
		alive[v] = true
	}
	weps, err := client.List[v3.WorkloadEndpoint](ctx, m.cfg.Client, "")
	if err != nil {
		return resp, fmt.Errorf("list endpoints: %w", err)
	}
	var errs []error
	for _, wep := range weps {
		s := wep.Spec
		if s.Node != m.cfg.Node || s.ContainerID == "" || wep.Annotations[NetworkAnnotation] != req.Network ||
			alive[agentapi.GCAttachment{ContainerID: s.ContainerID, IfName: s.Endpoint}] {
			continue
		}
		ref := agentapi.WorkloadRef{
			Version: agentapi.Version, Orchestrator: s.Orchestrator, Network: req.Network, ContainerID: s.ContainerID,
			Namespace: wep.Namespace, Pod: s.Pod, Workload: s.Workload, IfName: s.Endpoint,
		}
		if err := m.Remove(ctx, ref); err != nil {
			errs = append(errs, err)
			continue
		}
		resp.Removed = append(resp.Removed, wep.Namespace+"/"+wep.Name)
	}
	slices.Sort(resp.Removed)
	return resp, errors.Join(errs...)
}

// endpointAddrs reads the addresses of an endpoint.
func endpointAddrs(wep *v3.WorkloadEndpoint) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range wep.Spec.IPNetworks {
		a, err := parseAddr(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("endpoint %s/%s: spec.ipNetworks: %w", wep.Namespace, wep.Name, err)
		}
		out = append(out, a)
	}
	return out, nil
}
