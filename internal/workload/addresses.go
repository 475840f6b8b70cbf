package workload

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/kernel"
)

// checkAdd refuses a request for addresses that makes no sense.
func checkAdd(req agentapi.AddRequest) error {
	if req.Netns == "" {
		return invalid("netns is empty: give the path of the workload's network namespace")
	}
	if !req.AssignIPv4 && !req.AssignIPv6 && len(req.Addresses) == 0 {
		return invalid("neither IPv4 nor IPv6 addresses are asked for: a workload needs at least one")
	}
	if req.MTU != 0 && (req.MTU < 576 || req.MTU > 65535) {
		return invalid("mtu %d: must be 576 to 65535, or 0 to follow the host", req.MTU)
	}
	_, err := requested(req)
	return err
}

// requested reads the addresses that a request asks for by name: at most one
// of each family, as documented.
func requested(req agentapi.AddRequest) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range req.Addresses {
		a, err := parseAddr(s)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(b netip.Addr) bool { return b.Is4() == a.Is4() }) {
			return nil, invalid("address %s: at most one address of each family can be asked for", s)
		}
		out = append(out, a)
	}
	return out, nil
}

// addresses returns the addresses of an attachment, IPv4 first. Those that
// its handle has already, from an add that did not end, are used again.
func (m *Manager) addresses(ctx context.Context, req agentapi.AddRequest, id Identity) ([]netip.Addr, error) {
	want, err := requested(req)
	if err != nil {
		return nil, err
	}
	have, err := m.cfg.IPAM.IPsByHandle(ctx, id.Handle)
	if err != nil {
		return nil, err
	}
	got := addrsOf(have)
	for _, a := range want {
		if slices.Contains(got, a) {
			continue
		}
		_, err := m.cfg.IPAM.AssignIP(ctx, ipam.AssignIPArgs{
			Addr: a, Host: m.cfg.Node, Handle: id.Handle, Attrs: attributes(m.cfg.Node, req, id), Use: v3.UseWorkload,
		})
		if errors.Is(err, ipam.ErrAssigned) {
			return nil, &Error{"conflict", err}
		}
		if err != nil {
			return nil, err
		}
		got = append(got, a)
	}
	need4 := req.AssignIPv4 && !slices.ContainsFunc(got, netip.Addr.Is4) && !hasFamily(want, 4)
	need6 := req.AssignIPv6 && !slices.ContainsFunc(got, netip.Addr.Is6) && !hasFamily(want, 6)
	// Asking for one address of a family is asking for no other of that family;
	// the other family is assigned as usual unless only addresses were named.
	if need4 || need6 {
		more, err := m.autoAssign(ctx, req, id, need4, need6)
		if err != nil {
			return nil, err
		}
		got = append(got, more...)
	}
	slices.SortFunc(got, netip.Addr.Compare) // IPv4 sorts before IPv6
	return got, nil
}

func hasFamily(list []netip.Addr, family int) bool {
	return slices.ContainsFunc(list, func(a netip.Addr) bool { return a.Is4() == (family == 4) })
}

// autoAssign takes one address of each family that is needed. Fewer than that
// is a failure: a workload gets all or nothing.
func (m *Manager) autoAssign(ctx context.Context, req agentapi.AddRequest, id Identity, need4, need6 bool) ([]netip.Addr, error) {
	args := ipam.AssignArgs{
		Host: m.cfg.Node, Handle: id.Handle, Attrs: attributes(m.cfg.Node, req, id), Use: v3.UseWorkload,
		Pools4: req.IPv4Pools, Pools6: req.IPv6Pools,
	}
	if need4 {
		args.Num4 = 1
	}
	if need6 {
		args.Num6 = 1
	}
	labels, err := m.namespaceLabels(ctx, id.Namespace)
	if err != nil {
		return nil, err
	}
	args.NamespaceLabels = labels
	res, err := m.cfg.IPAM.AutoAssign(ctx, args)
	if err != nil {
		return nil, err
	}
	return append(addrsOf(res.V4), addrsOf(res.V6)...), nil
}

// namespaceLabels are the labels of a namespace as its profile carries them,
// nil when there is none.
func (m *Manager) namespaceLabels(ctx context.Context, namespace string) (map[string]string, error) {
	if m.cfg.NamespaceLabels == nil {
		return nil, nil
	}
	return m.cfg.NamespaceLabels(ctx, namespace)
}

// attributes are stored with an address, for people and for garbage
// collection.
func attributes(node string, req agentapi.AddRequest, id Identity) map[string]string {
	attrs := map[string]string{"node": node}
	if req.Orchestrator == "k8s" {
		attrs["namespace"], attrs["pod"] = id.Namespace, req.Pod
	}
	return attrs
}

func addrsOf(list []ipam.Assignment) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, a.Addr)
	}
	return out
}

// release gives back everything that a handle has.
func (m *Manager) release(ctx context.Context, handle string) error {
	return m.cfg.IPAM.ReleaseByHandle(ctx, handle)
}

// releaseAll gives back what an attachment has by any form of its handle.
func (m *Manager) releaseAll(ctx context.Context, id Identity) error {
	err := m.release(ctx, id.Handle)
	if id.LegacyHandle != "" {
		err = errors.Join(err, m.release(ctx, id.LegacyHandle))
	}
	if err != nil {
		return fmt.Errorf("release the addresses of %s: %w", id.Workload, err)
	}
	return nil
}

// wiredNothing is the wire of an attachment that another plugin lays.
func wiredNothing() kernel.Wired { return kernel.Wired{} }

// notFound makes "not there" no error.
func notFound(err error) error {
	if client.IsNotFound(err) {
		return nil
	}
	return err
}
