package workload

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/ipam"
)

// checkAdd refuses a request that makes no sense, before anything is done.
func checkAdd(req agentapi.AddRequest) error {
	if req.Netns == "" && !wantsTap(req) {
		return invalid("netns is empty: give the path of the workload's network namespace")
	}
	if err := checkAddresses(req); err != nil {
		return err
	}
	least := 68 // RFC 791
	if req.AssignIPv6 || hasFamily(req.Addresses, 6) || req.Special != nil && hasFamily(req.Special.Given, 6) {
		least = 1280 // RFC 8200
	}
	if req.MTU != 0 && (req.MTU < least || req.MTU > 65535) {
		return invalid("mtu %d: must be %d to 65535, or 0 to follow the host", req.MTU, least)
	}
	if req.Special != nil {
		if err := checkSpecial(req.Special); err != nil {
			return err
		}
	}
	_, err := parseMAC(req.MAC)
	return err
}

// checkAddresses refuses a request for addresses that makes no sense.
func checkAddresses(req agentapi.AddRequest) error {
	if req.Special != nil && len(req.Special.Given) > 0 {
		return checkGiven(req)
	}
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

// addresses returns the addresses of an attachment, IPv4 first.
func (m *Manager) addresses(ctx context.Context, req agentapi.AddRequest, id Identity) ([]ipam.Assignment, error) {
	had, err := m.cfg.IPAM.IPsOfHost(ctx, id.Handle, m.cfg.Node)
	if err != nil {
		return nil, err
	}
	return m.moreAddresses(ctx, req, id, had)
}

// moreAddresses returns the addresses of an attachment, IPv4 first. Those that
// its handle had already, from an add that did not end, are used again; when
// there are any, a failure gives back the new ones only. Asking for one address
// of a family is asking for no other of that family.
func (m *Manager) moreAddresses(ctx context.Context, req agentapi.AddRequest, id Identity, had []ipam.Assignment) ([]ipam.Assignment, error) {
	if req.Special != nil && len(req.Special.Given) > 0 {
		return given(req)
	}
	want, err := requested(req)
	if err != nil {
		return nil, err
	}
	if want, err = missing(want, had); err != nil {
		return nil, err
	}
	more, err := m.assign(ctx, want, had, req, id)
	if err != nil && len(had) > 0 {
		err = errors.Join(err, m.unassign(ctx, id.Handle, more))
	}
	if err != nil {
		return nil, err
	}
	got := append(had, more...)
	slices.SortFunc(got, func(a, b ipam.Assignment) int { return a.Addr.Compare(b.Addr) }) // IPv4 sorts before IPv6
	return got, nil
}

// missing returns what is wanted and not there. Where there is another address
// of the family, the container is not what was asked for.
func missing(want []netip.Addr, had []ipam.Assignment) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, a := range want {
		i := slices.IndexFunc(had, func(h ipam.Assignment) bool { return h.Addr.Is4() == a.Is4() })
		if i < 0 {
			out = append(out, a)
		} else if had[i].Addr != a {
			return nil, &Error{"conflict", fmt.Errorf("address %s: the container has %s already: remove it before it is added with another", a, had[i].Addr)}
		}
	}
	return out, nil
}

// assign takes the addresses that were asked for by name, and then one of each
// family that is asked for and lacking. It returns what it took also when that
// is not all.
func (m *Manager) assign(ctx context.Context, want []netip.Addr, had []ipam.Assignment, req agentapi.AddRequest, id Identity) ([]ipam.Assignment, error) {
	var got []ipam.Assignment
	for _, a := range want {
		one, err := m.cfg.IPAM.AssignIP(ctx, ipam.AssignIPArgs{
			Addr: a, Host: m.cfg.Node, Handle: id.Handle, Attrs: attributes(m.cfg.Node, req, id), Use: v3.UseWorkload,
		})
		if err != nil {
			return got, err
		}
		got = append(got, one)
	}
	has := func(family int) bool {
		is := func(a ipam.Assignment) bool { return a.Addr.Is4() == (family == 4) }
		return slices.ContainsFunc(had, is) || slices.ContainsFunc(got, is)
	}
	need4, need6 := req.AssignIPv4 && !has(4), req.AssignIPv6 && !has(6)
	if !need4 && !need6 {
		return got, nil
	}
	more, err := m.autoAssign(ctx, req, id, need4, need6)
	return append(got, more...), err
}

// unassign gives back some addresses of a handle.
func (m *Manager) unassign(ctx context.Context, handle string, list []ipam.Assignment) error {
	if len(list) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	var options []ipam.ReleaseOptions
	for _, a := range list {
		options = append(options, ipam.ReleaseOptions{Addr: a.Addr, Handle: handle, Sequence: a.Sequence})
	}
	if err := m.cfg.IPAM.Release(ctx, options...); err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	return nil
}

// hasFamily reports whether one of the addresses is of the family.
func hasFamily(list []string, family int) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		a, err := parseAddr(s)
		return err == nil && a.Is4() == (family == 4)
	})
}

// autoAssign takes one address of each family that is needed. Fewer than that
// is a failure, and they are returned beside it.
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
	return append(res.V4, res.V6...), err
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
