package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
)

// Names of the pools that Bootstrap makes.
const (
	DefaultIPv4Pool = "default-ipv4-ippool"
	DefaultIPv6Pool = "default-ipv6-ippool"
)

// BootstrapConfig says what a datastore shall have at least.
type BootstrapConfig struct {
	// IPv4Pool and IPv6Pool are the pools to make where there is none of their
	// family; nil means none is wanted. An empty CIDR is chosen: for IPv4
	// 192.168.0.0/16 or the first private /16 that is free of HostNetworks, for
	// IPv6 a random ULA /48 (RFC 4193).
	IPv4Pool, IPv6Pool *v3.IPPoolSpec

	// HostNetworks are the networks that the hosts are in.
	HostNetworks []netip.Prefix
}

// Bootstrap makes what every network needs: ClusterInformation, the built-in
// tiers and, if wanted, a pool. It may run any number of times, from several
// programs at once. It returns what it made, to be announced.
func (c *Client) Bootstrap(ctx context.Context, cfg BootstrapConfig) ([]v3.Object, error) {
	own := &Client{driver: c.driver, cfg: c.cfg}
	own.cfg.Component = true
	b := &bootstrap{client: own, cfg: cfg}
	for _, step := range []func(context.Context) error{b.information, b.tiers, b.pools} {
		if err := step(ctx); err != nil {
			return b.made, fmt.Errorf("bootstrap the datastore: %w", err)
		}
	}
	return b.made, nil
}

// bootstrap is one run of Bootstrap.
type bootstrap struct {
	client *Client
	cfg    BootstrapConfig
	made   []v3.Object
}

// create creates what does not exist; somebody else may be faster. Who may not
// make it, as a host's own user may not, leaves it to who may.
func (b *bootstrap) create(ctx context.Context, o v3.Object) error {
	made, err := b.client.Create(ctx, o)
	switch {
	case err == nil:
		b.made = append(b.made, made)
	case !IsExists(err) && !errors.Is(err, store.ErrDenied):
		return err
	}
	return nil
}

func (b *bootstrap) information(ctx context.Context) error {
	info, err := Get[v3.ClusterInformation](ctx, b.client, "", v3.DefaultName)
	if IsNotFound(err) {
		info := &v3.ClusterInformation{}
		*info.Type() = v3.TypeMeta{Kind: "ClusterInformation", APIVersion: v3.Group}
		info.Name = v3.DefaultName
		complete(info)
		return b.create(ctx, info)
	}
	if err != nil || info.Spec.ClusterGUID != "" && info.Spec.DatastoreReady != nil {
		return err
	}
	_, err = Modify(ctx, b.client, "", v3.DefaultName, func(o *v3.ClusterInformation) error {
		complete(o)
		return nil
	})
	return err
}

// complete fills what ClusterInformation must say.
func complete(o *v3.ClusterInformation) {
	if o.Spec.ClusterGUID == "" {
		var guid [16]byte
		rand.Read(guid[:]) // never fails
		o.Spec.ClusterGUID = fmt.Sprintf("%x", guid)
	}
	if o.Spec.DatastoreReady == nil {
		o.Spec.DatastoreReady = new(true)
	}
}

func (b *bootstrap) tiers(ctx context.Context) error {
	for _, tier := range v3.BuiltInTiers() {
		if _, err := Get[v3.Tier](ctx, b.client, "", tier.Name); err == nil || errors.Is(err, ErrUnreadable) {
			continue
		} else if !IsNotFound(err) {
			return err
		}
		if err := b.create(ctx, tier); err != nil {
			return err
		}
	}
	return nil
}

// pools makes a pool for each wanted family that has none.
func (b *bootstrap) pools(ctx context.Context) error {
	if b.cfg.IPv4Pool == nil && b.cfg.IPv6Pool == nil {
		return nil
	}
	// A pool that cannot be read may be of either family: no guessing.
	pools, err := List[v3.IPPool](ctx, b.client, "")
	if err != nil {
		return err
	}
	var has4, has6 bool
	for _, p := range pools {
		cidr, err := netip.ParsePrefix(p.Spec.CIDR)
		if err != nil {
			return fmt.Errorf("pool %q: CIDR %q cannot be read", p.Name, p.Spec.CIDR)
		}
		has4 = has4 || cidr.Addr().Is4()
		has6 = has6 || cidr.Addr().Is6()
	}
	if !has4 {
		if err := b.pool(ctx, DefaultIPv4Pool, b.cfg.IPv4Pool, b.freeIPv4); err != nil {
			return err
		}
	}
	if !has6 {
		return b.pool(ctx, DefaultIPv6Pool, b.cfg.IPv6Pool, randomULA)
	}
	return nil
}

// pool makes one pool, choosing a CIDR if none is given.
func (b *bootstrap) pool(ctx context.Context, name string, spec *v3.IPPoolSpec, choose func() (netip.Prefix, error)) error {
	if spec == nil {
		return nil
	}
	pool := &v3.IPPool{Spec: *spec}
	*pool.Type() = v3.TypeMeta{Kind: kindIPPool, APIVersion: v3.Group}
	pool.Name = name
	if pool.Spec.CIDR == "" {
		cidr, err := choose()
		if err != nil {
			return err
		}
		pool.Spec.CIDR = cidr.String()
	}
	return b.create(ctx, pool)
}

// freeIPv4 returns the first /16 of private address space (RFC 1918), in
// Calico's order of preference, that no host is in.
func (b *bootstrap) freeIPv4() (netip.Prefix, error) {
	candidates := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168}), 16)}
	for i := range 16 {
		candidates = append(candidates, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(16 + i)}), 16))
	}
	for i := range 256 {
		candidates = append(candidates, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 16))
	}
	for _, c := range candidates {
		if !b.overlapsHosts(c) {
			return c, nil
		}
	}
	return netip.Prefix{}, errors.New("every private IPv4 /16 overlaps a network of the hosts; create a pool yourself")
}

func (b *bootstrap) overlapsHosts(c netip.Prefix) bool {
	for _, n := range b.cfg.HostNetworks {
		if n.Bits() > 0 && n.Overlaps(c) { // a default route is no network
			return true
		}
	}
	return false
}

// randomULA returns fd00::/8 with 40 random bits (RFC 4193, section 3.2).
func randomULA() (netip.Prefix, error) {
	var a [16]byte
	rand.Read(a[1:6]) // never fails
	a[0] = 0xfd
	return netip.PrefixFrom(netip.AddrFrom16(a), 48), nil
}
