package workload

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/ipam"
)

// checkAdd refuses a request that makes no sense, before anything is done.
func checkAdd(req agentapi.AddRequest) error {
	if req.Netns == "" {
		return invalid("netns is empty: give the path of the workload's network namespace")
	}
	if err := checkAddresses(req); err != nil {
		return err
	}
	least := 68 // RFC 791
	if req.AssignIPv6 || hasFamily(req.Addresses, 6) {
		least = 1280 // RFC 8200
	}
	if req.MTU != 0 && (req.MTU < least || req.MTU > 65535) {
		return invalid("mtu %d: must be %d to 65535, or 0 to follow the host", req.MTU, least)
	}
	_, err := parseMAC(req.MAC)
	return err
}

// checkAddresses refuses a request for addresses that makes no sense.
func checkAddresses(req agentapi.AddRequest) error {
	if !req.AssignIPv4 && !req.AssignIPv6 && len(req.Addresses) == 0 {
		return invalid("neither IPv4 nor IPv6 addresses are asked for: a workload needs at least one")
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
		if slices.Contains(out, a) {
			continue
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
// Asking for one address of a family is asking for no other of that family.
func (m *Manager) addresses(ctx context.Context, req agentapi.AddRequest, id Identity) ([]ipam.Assignment, error) {
	want, err := requested(req)
	if err != nil {
		return nil, err
	}
	got, err := m.cfg.IPAM.IPsByHandle(ctx, id.Handle)
	if err != nil {
		return nil, err
	}
	for _, a := range want {
		if got, err = m.assign(ctx, a, got, req, id); err != nil {
			return nil, err
		}
	}
	has := func(family int) bool {
		return slices.ContainsFunc(got, func(a ipam.Assignment) bool { return a.Addr.Is4() == (family == 4) })
	}
	need4, need6 := req.AssignIPv4 && !has(4), req.AssignIPv6 && !has(6)
	if need4 || need6 {
		more, err := m.autoAssign(ctx, req, id, need4, need6)
		if err != nil {
			return nil, err
		}
		got = append(got, more...)
	}
	slices.SortFunc(got, func(a, b ipam.Assignment) int { return a.Addr.Compare(b.Addr) }) // IPv4 sorts before IPv6
	return got, nil
}

// assign takes one address that was asked for by name, unless it is there.
func (m *Manager) assign(ctx context.Context, a netip.Addr, got []ipam.Assignment, req agentapi.AddRequest, id Identity) ([]ipam.Assignment, error) {
	for _, has := range got {
		if has.Addr == a {
			return got, nil
		}
		if has.Addr.Is4() == a.Is4() {
			return nil, &Error{"conflict", fmt.Errorf("address %s: the container has %s already: remove it before it is added with another", a, has.Addr)}
		}
	}
	one, err := m.cfg.IPAM.AssignIP(ctx, ipam.AssignIPArgs{
		Addr: a, Host: m.cfg.Node, Handle: id.Handle, Attrs: attributes(m.cfg.Node, req, id), Use: v3.UseWorkload,
	})
	return append(got, one), err
}

// hasFamily reports whether one of the addresses is of the family.
func hasFamily(list []string, family int) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		a, err := parseAddr(s)
		return err == nil && a.Is4() == (family == 4)
	})
}

// autoAssign takes one address of each family that is needed. Fewer than that
// is a failure: a workload gets all or nothing.
func (m *Manager) autoAssign(ctx context.Context, req agentapi.AddRequest, id Identity, need4, need6 bool) ([]ipam.Assignment, error) {
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
	return append(res.V4, res.V6...), nil
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
