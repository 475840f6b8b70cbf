package workload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/kernel"
)

// undoTime bounds how long an add that failed may take to undo itself.
const undoTime = 5 * time.Second

// attached is a workload with what only the CNI answer tells of it.
type attached struct {
	agentapi.Workload
	blocks []netip.Prefix // of its addresses, in their order
}

// Add sets up one workload interface and returns when the kernel has been
// seen to be programmed. Doing it again returns the same; after a crash in the
// middle it goes on where that one stopped. When it fails, it has taken back
// what it did: an attachment that stood before stays.
func (m *Manager) Add(ctx context.Context, req agentapi.AddRequest) (agentapi.Workload, error) {
	a, err := m.attach(ctx, req)
	return a.Workload, err
}

// attach does the work of Add.
func (m *Manager) attach(ctx context.Context, req agentapi.AddRequest) (attached, error) {
	if err := checkProtocol(req.Version); err != nil {
		return attached{}, err
	}
	id, err := identify(m.cfg.Node, m.cfg.Prefix, refOf(req))
	if err != nil {
		return attached{}, err
	}
	if err := checkAdd(req); err != nil {
		return attached{}, err
	}
	timeout := defaultTimeout
	if req.TimeoutMS > 0 {
		timeout = time.Duration(req.TimeoutMS) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := m.cfg.Ready(); err != nil {
		return attached{}, &Error{"notReady", err}
	}
	if err := m.settle(ctx, req.ContainerID); err != nil {
		return attached{}, err
	}
	unlock, err := m.lock(ctx, id.Namespace+"/"+id.Endpoint)
	if err != nil {
		return attached{}, err
	}
	defer unlock()
	return m.add(ctx, req, id)
}

// adding is one add under way.
type adding struct {
	*Manager
	req   agentapi.AddRequest
	id    Identity
	rec   record
	old   *v3.WorkloadEndpoint // the endpoint as it was before; nil: none
	had   []ipam.Assignment    // what the handle had before
	wires bool                 // a wire has been begun
}

// add begins the record of the attachment and ends it again with whatever it
// was about.
func (m *Manager) add(ctx context.Context, req agentapi.AddRequest, id Identity) (attached, error) {
	defer m.records.begin(id.Handle)()
	var old *v3.WorkloadEndpoint
	var had []ipam.Assignment
	err := both(func() (err error) {
		old, err = client.Get[v3.WorkloadEndpoint](ctx, m.cfg.Client, id.Namespace, id.Endpoint)
		if client.IsNotFound(err) {
			old, err = nil, nil
		}
		if err != nil {
			err = fmt.Errorf("look for endpoint %s/%s: %w", id.Namespace, id.Endpoint, err)
		}
		return err
	}, func() (err error) {
		had, err = m.cfg.IPAM.IPsOfHost(ctx, id.Handle, m.cfg.Node)
		return err
	})
	if err != nil {
		return attached{}, err
	}
	if old != nil && owns(old, req.ContainerID) && interfaceNameOK(old.Spec.InterfaceName) {
		id.HostInterface = old.Spec.InterfaceName // whatever it was called when it was made
	}
	rec, err := m.records.claim(record{Handle: id.Handle, HostInterface: id.HostInterface, Ref: refOf(req)}, id.OtherName)
	if err != nil {
		return attached{}, err
	}
	id.HostInterface = rec.HostInterface
	op := &adding{Manager: m, req: req, id: id, rec: rec, old: old, had: had}
	a, err := op.run(ctx)
	if err != nil && (old == nil || !owns(old, req.ContainerID)) {
		err = errors.Join(err, op.takeBack(ctx))
	}
	return a, err
}

// owns reports whether an endpoint is that of a container. One that names no
// container is anybody's.
func owns(wep *v3.WorkloadEndpoint, container string) bool {
	return wep.Spec.ContainerID == "" || wep.Spec.ContainerID == container
}

// run takes addresses, lays the wire, writes the endpoint and waits for the
// kernel. Where nothing was there before, the wire is laid while the addresses
// are asked for, and the workload's end of it set up while the endpoint is
// written: the one is the kernel's work, the other the datastore's. A workload
// with an endpoint keeps what it has until its addresses are sure.
func (op *adding) run(ctx context.Context) (attached, error) {
	together := both
	if op.old != nil {
		together = inTurn
	}
	var got []ipam.Assignment
	var wired kernel.Wired
	spec, err := op.spec(op.req, op.id)
	if err != nil {
		return attached{}, err
	}
	if spec.Tap && len(spec.MAC) == 0 && op.old != nil && owns(op.old, op.req.ContainerID) && op.old.Spec.MAC != "" {
		if spec.MAC, err = parseMAC(op.old.Spec.MAC); err != nil { // the machine behind it has it
			return attached{}, err
		}
	}
	err = together(func() (err error) {
		got, err = op.moreAddresses(ctx, op.req, op.id, op.had)
		return err
	}, func() (err error) {
		wired, err = op.lay(ctx, spec)
		return err
	})
	if err != nil {
		return attached{}, err
	}
	addrs := addrsOf(got)
	spec.Addresses = addrs
	if err := op.ensureProfiles(ctx, op.req); err != nil {
		return attached{}, err
	}
	mac := wired.MAC
	err = together(func() (err error) {
		wired, err = op.cfg.Wires.FillWire(ctx, spec, wired)
		return err
	}, func() error {
		return op.writeEndpoint(ctx, endpoint(op.cfg.Node, op.req, op.id, addrs, mac), op.old)
	})
	if err != nil {
		return attached{}, err
	}
	if err := op.cfg.Programmed(ctx, op.id.HostInterface, addrs); err != nil {
		return attached{}, &Error{"timeout", fmt.Errorf("endpoint %s/%s is not programmed: %w", op.id.Namespace, op.id.Endpoint, err)}
	}
	return attached{described(op.id, op.req.IfName, wired, addrs), blocksOf(got)}, nil
}

// both does two things side by side and returns when both have ended.
func both(a, b func() error) error {
	var berr error
	var beside sync.WaitGroup
	beside.Go(func() { berr = b() })
	aerr := a()
	beside.Wait()
	return errors.Join(aerr, berr)
}

// inTurn does two things one after the other, the second only if the first
// went well.
func inTurn(a, b func() error) error {
	if err := a(); err != nil {
		return err
	}
	return b()
}

// lay lays the wire as far as it goes without addresses.
func (op *adding) lay(ctx context.Context, spec kernel.WireSpec) (kernel.Wired, error) {
	if err := op.records.supersede(op.rec); err != nil {
		return kernel.Wired{}, err
	}
	op.wires = true
	wired, err := op.cfg.Wires.LayWire(ctx, spec)
	if errors.Is(err, kernel.ErrForeign) {
		return wired, &Error{"conflict", err}
	}
	return wired, err
}

// takeBack undoes an add that failed. The caller's time may be over, so it
// gets a little of its own.
func (op *adding) takeBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	var err error
	if op.wires || op.old == nil { // else an older container still has the interface
		err = op.unwire(op.id.HostInterface, op.id.Handle)
	}
	wep, derr := client.Get[v3.WorkloadEndpoint](ctx, op.cfg.Client, op.id.Namespace, op.id.Endpoint)
	if derr == nil && wep.Spec.ContainerID == op.req.ContainerID {
		derr = op.deleteEndpoint(ctx, wep)
	}
	err = errors.Join(err, notFound(derr))
	if err == nil { // an address is free only when nothing answers for it
		err = op.release(ctx, op.id.Handle)
	}
	if err == nil {
		err = op.records.drop(op.id.Handle)
	}
	if err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	return nil
}

// unwire removes the wire behind a host's interface, unless that belongs to
// another attachment or is no wire of ours.
func (m *Manager) unwire(hostInterface, handle string) error {
	if !m.records.yields(hostInterface, handle) {
		return nil
	}
	if err := m.cfg.Wires.Unwire(hostInterface); err != nil && !errors.Is(err, kernel.ErrForeign) {
		return err
	}
	return nil
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

// spec describes the wire of a workload, but for its addresses.
func (m *Manager) spec(req agentapi.AddRequest, id Identity) (kernel.WireSpec, error) {
	spec := kernel.WireSpec{
		HostName: id.HostInterface, Netns: req.Netns, IfName: req.IfName, MTU: req.MTU,
		Forwarding: req.Forwarding, Tap: wantsTap(req),
	}
	if spec.MTU == 0 {
		spec.MTU = m.cfg.MTU()
	}
	var err error
	if spec.MAC, err = parseMAC(req.MAC); err == nil && req.Special != nil {
		spec.Queues = req.Special.Queues
		spec.Routes, err = prefixes(req.Special.Routes)
	}
	return spec, err
}

// wantsTap reports whether a tap device is asked for.
func wantsTap(req agentapi.AddRequest) bool { return req.Special != nil && req.Special.Tap }

// parseMAC reads the hardware address that a request asks for; nil for none.
func parseMAC(s string) (net.HardwareAddr, error) {
	if s == "" {
		return nil, nil
	}
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00" {
		return nil, invalid("mac %q: must be a hardware address of one station, as 02:00:5e:10:00:01", s)
	}
	return mac, nil
}

func addrsOf(list []ipam.Assignment) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, a.Addr)
	}
	return out
}

func blocksOf(list []ipam.Assignment) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range list {
		out = append(out, a.Block)
	}
	return out
}
