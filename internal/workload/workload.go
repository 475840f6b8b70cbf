// Package workload sets up and removes the interfaces of workloads on this
// host: addresses, the wire, the WorkloadEndpoint in the datastore, and the
// wait until the kernel is programmed. It serves the socket that the CNI
// plugin, the lab and others ask.
package workload

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
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
	LayWire(ctx context.Context, spec kernel.WireSpec) (kernel.Wired, error)
	FillWire(ctx context.Context, spec kernel.WireSpec, laid kernel.Wired) (kernel.Wired, error)
	Unwire(name string) error
	InspectWire(ctx context.Context, spec kernel.WireSpec) (kernel.Wired, error)
	Interfaces() ([]kernel.Interface, error)
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
	Queue string // folder of queued removals; "": none are
	// Delegations is a folder that survives a reboot, for what IPAM plugins of
	// the runtime gave; "": memory.
	Delegations string
	Records     string // folder that a reboot empties, for what is attached; "": memory
	// Grace is how long an address must be nobody's before it is collected;
	// 0: ipam.DefaultGrace.
	Grace time.Duration
	Log   *slog.Logger
}

// Manager sets up and removes workloads. Calls about one workload run one
// after the other, others side by side.
type Manager struct {
	cfg     Config
	records *records

	delegations *delegations

	mu    sync.Mutex // guards everything below
	busy  map[string]chan struct{}
	known map[string]bool // profiles seen to exist
}

// New returns a Manager.
func New(cfg Config) *Manager {
	return &Manager{
		cfg: cfg, records: openRecords(cfg.Records), delegations: openDelegations(cfg.Delegations, cfg.Log),
		busy: map[string]chan struct{}{}, known: map[string]bool{},
	}
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
	if client.IsNotFound(err) {
		return agentapi.Workload{}, &Error{"unknown", fmt.Errorf("endpoint %s/%s: %w", id.Namespace, id.Endpoint, err)}
	}
	if err != nil {
		return agentapi.Workload{}, fmt.Errorf("look for endpoint %s/%s: %w", id.Namespace, id.Endpoint, err)
	}
	if !owns(wep, ref.ContainerID) {
		return agentapi.Workload{}, &Error{"conflict", fmt.Errorf("endpoint %s/%s belongs to container %s now", id.Namespace, id.Endpoint, wep.Spec.ContainerID)}
	}
	addrs, err := endpointAddrs(wep)
	if err != nil {
		return agentapi.Workload{}, err
	}
	if interfaceNameOK(wep.Spec.InterfaceName) {
		id.HostInterface = wep.Spec.InterfaceName
	}
	spec := kernel.WireSpec{HostName: id.HostInterface, Netns: ref.Netns, IfName: ref.IfName, Addresses: addrs}
	wired, err := m.cfg.Wires.InspectWire(ctx, spec)
	if err != nil {
		return agentapi.Workload{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := m.cfg.Programmed(ctx, id.HostInterface, addrs); err != nil {
		return agentapi.Workload{}, fmt.Errorf("endpoint %s/%s is not programmed: %w", id.Namespace, id.Endpoint, err)
	}
	if len(wired.MAC) == 0 { // behind a tap device only its machine and the endpoint know
		wired.MAC, _ = net.ParseMAC(wep.Spec.MAC)
	}
	return described(id, ref.IfName, wired, addrs), nil
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
