package ipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/store"
)

// DefaultMaxBlocks is how many blocks of a family a host may claim when
// nothing lower is configured. It stops a fault from eating a whole pool.
const DefaultMaxBlocks = 20

// Settings is what the cluster says about addresses: a value, never changed.
type Settings struct {
	Pools         []Pool // in the order of their names
	Reserved      *Reserved
	Configuration Configuration
}

// Configuration steers how hosts take blocks. It is stored under one key; the
// zero value is not the default, see DefaultConfiguration.
type Configuration struct {
	StrictAffinity     bool          // hosts use addresses of their own blocks only
	AutoAllocateBlocks bool          // hosts claim blocks when they need them
	MaxBlocksPerHost   int           // per family; 0: DefaultMaxBlocks
	CoolDown           time.Duration // how long a released address rests; whole seconds
	VMPersistence      string        // kept for others; Brindle does not use it

	extra map[string]rawJSON
}

// DefaultConfiguration applies while none is stored.
func DefaultConfiguration() Configuration { return Configuration{AutoAllocateBlocks: true} }

// Limits of a Configuration, as documented for Calico.
const (
	maxMaxBlocks = 1_000_000
	maxCoolDown  = 1200 * time.Second
)

// Validate refuses combinations that would leave hosts without addresses. The
// error wraps ErrInvalid.
func (c Configuration) Validate() error {
	switch {
	case c.MaxBlocksPerHost < 0 || c.MaxBlocksPerHost > maxMaxBlocks:
		return fmt.Errorf("IPAM configuration: maxBlocksPerHost %d: %w: must be from 0 to %d", c.MaxBlocksPerHost, ErrInvalid, maxMaxBlocks)
	case c.MaxBlocksPerHost > 0 && !c.StrictAffinity:
		return fmt.Errorf("IPAM configuration: maxBlocksPerHost %d: %w: needs strictAffinity true, or hosts at the limit would borrow from others", c.MaxBlocksPerHost, ErrInvalid)
	case !c.AutoAllocateBlocks && !c.StrictAffinity:
		return fmt.Errorf("IPAM configuration: autoAllocateBlocks false: %w: needs strictAffinity true", ErrInvalid)
	case c.CoolDown < 0 || c.CoolDown > maxCoolDown || c.CoolDown%time.Second != 0:
		return fmt.Errorf("IPAM configuration: ipCooldownSeconds %v: %w: must be whole seconds from 0 to %v", c.CoolDown.Seconds(), ErrInvalid, maxCoolDown.Seconds())
	}
	return nil
}

// maxBlocks is how many blocks a host may have for a request with this limit
// of its own, 0 being none.
func (c Configuration) maxBlocks(request int) int {
	limit := DefaultMaxBlocks
	if c.MaxBlocksPerHost > 0 {
		limit = c.MaxBlocksPerHost
	}
	if request > 0 {
		limit = min(limit, request)
	}
	return limit
}

// DecodeConfiguration reads the stored configuration. In it, what is absent is
// false or 0, also autoAllocateBlocks.
func DecodeConfiguration(value []byte) (Configuration, error) {
	var c Configuration
	fields, err := fields(value)
	if err != nil {
		return c, fmt.Errorf("IPAM configuration: %w: %w", ErrCorrupt, err)
	}
	var coolDown int64
	for name, into := range map[string]any{
		"strict_affinity": &c.StrictAffinity, "auto_allocate_blocks": &c.AutoAllocateBlocks,
		"maxBlocksPerHost": &c.MaxBlocksPerHost, "ipCooldownSeconds": &coolDown,
		"kubeVirtVMAddressPersistence": &c.VMPersistence,
	} {
		if err := take(fields, name, into); err != nil {
			return c, fmt.Errorf("IPAM configuration: %w: field %s: %w", ErrCorrupt, name, err)
		}
	}
	c.CoolDown = time.Duration(coolDown) * time.Second
	c.extra = fields
	return c, nil
}

// Encode writes the configuration as it is stored. Fields that were there and
// that we do not know are kept.
func (c Configuration) Encode() []byte {
	fields := map[string]any{}
	for name, raw := range c.extra {
		fields[name] = raw
	}
	set := func(name string, v any, there bool) {
		if there {
			fields[name] = v
		}
	}
	set("strict_affinity", true, c.StrictAffinity)
	set("auto_allocate_blocks", true, c.AutoAllocateBlocks)
	set("maxBlocksPerHost", c.MaxBlocksPerHost, c.MaxBlocksPerHost != 0)
	set("ipCooldownSeconds", int64(c.CoolDown/time.Second), c.CoolDown != 0)
	set("kubeVirtVMAddressPersistence", c.VMPersistence, c.VMPersistence != "")
	out, _ := json.Marshal(fields) // bools, numbers and what was JSON before
	return out
}

// ReadSettings reads the settings from the datastore. A pool or reservation
// that cannot be read is an error: an unreadable reservation must not be taken
// for none.
func ReadSettings(ctx context.Context, db store.Driver) (*Settings, error) {
	s := &Settings{Configuration: DefaultConfiguration()}
	kv, err := db.Get(ctx, store.IPAMConfigKey)
	switch {
	case err == nil:
		if s.Configuration, err = DecodeConfiguration(kv.Value); err != nil {
			return nil, err
		}
	case !errors.Is(err, store.ErrNotFound):
		return nil, fmt.Errorf("read IPAM configuration: %w", err)
	}
	pools, err := db.List(ctx, store.ResourcePrefix(pluralPools, ""))
	if err != nil {
		return nil, fmt.Errorf("list pools: %w", err)
	}
	for _, kv := range pools.KVs {
		p, err := decodePool(kv)
		if err != nil {
			return nil, err
		}
		s.Pools = append(s.Pools, p)
	}
	reservations, err := db.List(ctx, store.ResourcePrefix(pluralReservations, ""))
	if err != nil {
		return nil, fmt.Errorf("list reservations: %w", err)
	}
	var cidrs []netip.Prefix
	for _, kv := range reservations.KVs {
		more, err := decodeReservation(kv)
		if err != nil {
			return nil, err
		}
		cidrs = append(cidrs, more...)
	}
	s.Reserved = NewReserved(cidrs)
	return s, nil
}

// Plurals of the kinds that this package reads.
const (
	pluralPools        = "ippools"
	pluralReservations = "ipreservations"
	pluralNodes        = "nodes"
	pluralEndpoints    = "workloadendpoints"
)

func decodePool(kv store.KV) (Pool, error) {
	var res v3.IPPool
	if err := json.Unmarshal(kv.Value, &res); err != nil {
		return Pool{}, fmt.Errorf("pool %s: %w: %w", kv.Key, ErrCorrupt, err)
	}
	return NewPool(&res)
}

func decodeReservation(kv store.KV) ([]netip.Prefix, error) {
	var res v3.IPReservation
	if err := json.Unmarshal(kv.Value, &res); err != nil {
		return nil, fmt.Errorf("reservation %s: %w: %w", kv.Key, ErrCorrupt, err)
	}
	var cidrs []netip.Prefix
	for _, text := range res.Spec.ReservedCIDRs {
		p, err := prefix.ParseLoose(text)
		if err != nil {
			return nil, fmt.Errorf("reservation %q: %w: %w", res.Name, ErrCorrupt, err)
		}
		cidrs = append(cidrs, p)
	}
	return cidrs, nil
}

// SetConfiguration validates and stores a configuration.
func (m *Manager) SetConfiguration(ctx context.Context, change func(*Configuration)) (Configuration, error) {
	for range maxAttempts {
		c := DefaultConfiguration()
		kv, err := m.db.Get(ctx, store.IPAMConfigKey)
		absent := errors.Is(err, store.ErrNotFound)
		if err != nil && !absent {
			return c, fmt.Errorf("read IPAM configuration: %w", err)
		}
		if !absent {
			if c, err = DecodeConfiguration(kv.Value); err != nil {
				return c, err
			}
		}
		change(&c)
		if err := c.Validate(); err != nil {
			return c, err
		}
		if absent {
			_, err = m.db.Create(ctx, store.IPAMConfigKey, c.Encode())
		} else {
			_, err = m.db.Update(ctx, store.KV{Key: store.IPAMConfigKey, Value: c.Encode(), Revision: kv.Revision})
		}
		if err == nil {
			return c, nil
		}
		if !changed(err) {
			return c, fmt.Errorf("store IPAM configuration: %w", err)
		}
	}
	return Configuration{}, fmt.Errorf("store IPAM configuration: %w", ErrBusy)
}

// pool returns the pool that an address or block lies in.
func (s *Settings) pool(p netip.Prefix) (Pool, bool) {
	i := slices.IndexFunc(s.Pools, func(pool Pool) bool { return prefix.Contains(pool.CIDR, p) })
	if i < 0 {
		return Pool{}, false
	}
	return s.Pools[i], true
}
