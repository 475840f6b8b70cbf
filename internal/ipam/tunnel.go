package ipam

import (
	"context"
	"net/netip"
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/selector"
)

// TunnelPools are the pools that a host's tunnel address may come from, in
// order: those whose mode and family are the tunnel's, that allow tunnels and
// select the host (documented Calico behaviour). Usable ones may give an
// address; the others, disabled ones for instance, may only go on having one.
type TunnelPools struct {
	Usable, Other []Pool
}

// TunnelPools returns the pools for a type of tunnel (TypeIPIPTunnel,
// TypeVXLANTunnel, TypeVXLANV6Tunnel) on a host with these labels.
func (s *Settings) TunnelPools(kind string, hostLabels map[string]string) TunnelPools {
	family := IPv4
	if kind == TypeVXLANV6Tunnel {
		family = IPv6
	}
	var out TunnelPools
	for _, p := range s.Pools {
		mode := p.VXLAN
		if kind == TypeIPIPTunnel {
			mode = p.IPIP
		}
		switch {
		case !mode || !p.is(family) || p.Manual || !slices.Contains(p.Uses, v3.UseTunnel) ||
			!p.NodeSelector.Matches(selector.Map(hostLabels)):
		case p.Unusable != "":
			out.Other = append(out.Other, p)
		default:
			out.Usable = append(out.Usable, p)
		}
	}
	return out
}

// Holds reports whether an address lies in a pool that it may be kept in: a
// usable one or, where there is none, any.
func (t TunnelPools) Holds(a netip.Addr) bool {
	pools := t.Usable
	if len(pools) == 0 {
		pools = t.Other
	}
	return slices.ContainsFunc(pools, func(p Pool) bool { return prefix.Contains(p.CIDR, prefix.Host(a)) })
}

// Names returns the names of the usable pools.
func (t TunnelPools) Names() []string {
	var out []string
	for _, p := range t.Usable {
		out = append(out, p.Name)
	}
	return out
}

// UsesByHandle is IPsByHandle with all that is stored of each address.
func (m *Manager) UsesByHandle(ctx context.Context, id string) ([]Use, error) {
	blocks, err := m.blocksOf(ctx, id)
	if err != nil {
		return nil, err
	}
	var out []Use
	for _, b := range blocks {
		for _, u := range b.Uses() {
			if ord, ok := b.ordinal(u.Addr); ok && b.handle(ord) == id && !u.CoolingDown() {
				out = append(out, u)
			}
		}
	}
	return out, nil
}
