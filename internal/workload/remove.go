package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/client"
)

// removals is the lock under which workloads are removed. It is no workload's
// key: those have a slash.
const removals = "removals"

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
	// One removal at a time: a burst of them must not keep those waiting who
	// are to start.
	turn, err := m.lock(ctx, removals)
	if err != nil {
		return err
	}
	defer turn()
	if err := m.cfg.Ready(); err != nil {
		return &Error{"notReady", err}
	}
	defer m.records.begin(id.Handle)()
	wep, err := client.Get[v3.WorkloadEndpoint](ctx, m.cfg.Client, id.Namespace, id.Endpoint)
	if err != nil && !client.IsNotFound(err) {
		return fmt.Errorf("look for endpoint %s/%s: %w", id.Namespace, id.Endpoint, err)
	}
	if err != nil {
		wep = nil
	}
	return m.remove(ctx, ref, id, wep)
}

// remove does the work of Remove. The interface goes while its routes still
// stand, so that no other way to the address opens; the address is free last
// of all. An endpoint that a newer container took over stays, and so does its
// interface: only our addresses go.
func (m *Manager) remove(ctx context.Context, ref agentapi.WorkloadRef, id Identity, wep *v3.WorkloadEndpoint) error {
	rec, recorded := m.records.get(id.Handle)
	if recorded && !rec.sameWorkload(record{Ref: ref}) {
		return nil // nothing of this one can be here: the names are another's
	}
	if wep == nil || owns(wep, ref.ContainerID) {
		host := id.HostInterface
		if recorded {
			host = rec.HostInterface
		} else if wep != nil && interfaceNameOK(wep.Spec.InterfaceName) {
			host = wep.Spec.InterfaceName
		}
		if host != "" {
			if err := m.unwire(host, id.Handle); err != nil {
				return err
			}
		}
		if wep != nil {
			if err := m.deleteEndpoint(ctx, wep); err != nil {
				return err
			}
		}
	}
	if err := m.releaseAll(ctx, id); err != nil {
		return err
	}
	return m.records.drop(id.Handle)
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

// notFound makes "not there" no error.
func notFound(err error) error {
	if client.IsNotFound(err) {
		return nil
	}
	return err
}

// release gives back everything that a handle has.
func (m *Manager) release(ctx context.Context, handle string) error {
	return m.cfg.IPAM.ReleaseByHandle(ctx, handle)
}

// releaseAll gives back what an attachment has by any form of its handle. The
// form that old releases used is made of names that users choose; it may not
// reach another attachment's.
func (m *Manager) releaseAll(ctx context.Context, id Identity) error {
	err := m.release(ctx, id.Handle)
	if id.LegacyHandle != "" {
		if _, other := m.records.get(id.LegacyHandle); !other {
			err = errors.Join(err, m.release(ctx, id.LegacyHandle))
		}
	}
	if err != nil {
		return fmt.Errorf("release the addresses of %s: %w", id.Workload, err)
	}
	return nil
}

// GC removes every attachment of a network on this host that is not in the
// list of live ones.
func (m *Manager) GC(ctx context.Context, req agentapi.GCRequest) (agentapi.GCResponse, error) {
	resp := agentapi.GCResponse{Removed: []string{}}
	if err := checkProtocol(req.Version); err != nil {
		return resp, err
	}
	if req.Network == "" || !nameOK(req.Network) {
		return resp, invalid("network %q is no name of a network", req.Network)
	}
	if err := m.cfg.Ready(); err != nil {
		return resp, &Error{"notReady", err}
	}
	refs, err := m.attachments(ctx, req.Network)
	if err != nil {
		return resp, err
	}
	var errs []error
	for _, ref := range refs {
		if slices.Contains(req.Valid, agentapi.GCAttachment{ContainerID: ref.ContainerID, IfName: ref.IfName}) {
			continue
		}
		id, err := identify(m.cfg.Node, m.cfg.Prefix, ref)
		if err == nil {
			err = m.Remove(ctx, ref)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		resp.Removed = append(resp.Removed, id.Namespace+"/"+id.Endpoint)
	}
	slices.Sort(resp.Removed)
	resp.Removed = slices.Compact(resp.Removed)
	return resp, errors.Join(errs...)
}

// attachments lists what this host has of a network: what has an endpoint,
// and what an add that was cut short has left. What is being set up is left
// out.
func (m *Manager) attachments(ctx context.Context, network string) ([]agentapi.WorkloadRef, error) {
	recs, busy, _ := m.records.list() // what cannot be read is not removed
	weps, err := client.List[v3.WorkloadEndpoint](ctx, m.cfg.Client, "")
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	var refs []agentapi.WorkloadRef
	for _, rec := range recs {
		if rec.Ref.Network == network && !rec.AddressesOnly && !busy[rec.Handle] {
			refs = append(refs, rec.Ref)
		}
	}
	for _, wep := range weps {
		s := wep.Spec
		if s.Node != m.cfg.Node || s.ContainerID == "" || wep.Annotations[NetworkAnnotation] != network {
			continue
		}
		ref := agentapi.WorkloadRef{
			Version: agentapi.Version, Orchestrator: s.Orchestrator, Network: network, ContainerID: s.ContainerID,
			Namespace: wep.Namespace, Pod: s.Pod, Workload: s.Workload, IfName: s.Endpoint,
		}
		if id, err := identify(m.cfg.Node, m.cfg.Prefix, ref); err == nil && !busy[id.Handle] {
			refs = append(refs, ref)
		}
	}
	return refs, nil
}
