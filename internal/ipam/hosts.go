package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/store"
)

// ReleaseHostAffinities makes a host give up all its blocks; with ifEmpty set
// only those of which nobody has an address. Addresses stay assigned.
func (m *Manager) ReleaseHostAffinities(ctx context.Context, host string, ifEmpty bool) error {
	return m.releaseAffinities(ctx, store.AffinityPrefix(false, host), ifEmpty, func(netip.Prefix) bool { return true })
}

// RemoveHost takes back what a host that is gone had for itself: the addresses
// of its tunnels and its blocks. The addresses of its workloads stay assigned
// until the workloads are removed, or a Collector finds them.
func (m *Manager) RemoveHost(ctx context.Context, host string) error {
	var errs []error
	for _, kind := range []string{TypeIPIPTunnel, TypeVXLANTunnel, TypeVXLANV6Tunnel, TypeWireguardTunnel, TypeWireguardV6Tunnel} {
		errs = append(errs, m.ReleaseByHandle(ctx, TunnelHandle(kind, host)))
	}
	return errors.Join(append(errs, m.ReleaseHostAffinities(ctx, host, false))...)
}

// ReleasePoolAffinities makes everybody give up their blocks in a pool that is
// about to be deleted. Disable the pool first, and let hosts notice, or they
// claim new ones. Addresses stay assigned.
func (m *Manager) ReleasePoolAffinities(ctx context.Context, pool netip.Prefix) error {
	within := func(cidr netip.Prefix) bool { return prefix.Contains(pool, cidr) }
	return errors.Join(
		m.releaseAffinities(ctx, store.HostRoot, false, within),
		m.releaseAffinities(ctx, store.VirtualRoot, false, within),
	)
}

func (m *Manager) releaseAffinities(ctx context.Context, root string, ifEmpty bool, which func(netip.Prefix) bool) error {
	list, err := m.db.List(ctx, root)
	if err != nil {
		return fmt.Errorf("list affinities: %w", err)
	}
	affs, err := decodeAffinities(list.KVs)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range affs {
		if !which(a.id.CIDR) {
			continue
		}
		if err := m.giveUp(ctx, a.id, ifEmpty); err != nil && !(ifEmpty && errors.Is(err, errInUse)) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// giveUp is releaseAffinity also against an owner who claims the block again
// meanwhile.
func (m *Manager) giveUp(ctx context.Context, id store.AffinityID, ifEmpty bool) error {
	err := m.releaseAffinity(ctx, id, ifEmpty)
	for range maxAttempts {
		if !errors.Is(err, store.ErrConflict) {
			break
		}
		err = m.releaseAffinity(ctx, id, ifEmpty)
	}
	return err
}
