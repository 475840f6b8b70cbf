package ipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/store"
)

// inventory is what address management has stored, read at one moment.
type inventory struct {
	blocks     []*Block // sorted, IPv4 first
	affinities []namedAffinity
	handles    map[string]storedHandle
	broken     []string // records that cannot be read, with why
}

type storedHandle struct {
	*handle
	rev store.Revision
}

// readAll reads the whole inventory.
func (m *Manager) readAll(ctx context.Context) (*inventory, error) {
	list, err := m.db.List(ctx, store.IPAMRoot)
	if err != nil {
		return nil, fmt.Errorf("list address records: %w", err)
	}
	inv := &inventory{handles: map[string]storedHandle{}}
	for _, kv := range list.KVs {
		if err := inv.add(kv); err != nil {
			inv.broken = append(inv.broken, fmt.Sprintf("%s: %v", kv.Key, err))
		}
	}
	slices.SortFunc(inv.blocks, func(a, b *Block) int { return a.CIDR.Compare(b.CIDR) })
	return inv, nil
}

func (inv *inventory) add(kv store.KV) error {
	if cidr, ok := store.ParseBlockKey(kv.Key); ok {
		b, err := decodeBlockAt(cidr, kv.Value)
		if err == nil && !b.gone {
			inv.blocks = append(inv.blocks, b)
		}
		return err
	}
	if id, ok := store.ParseHandleKey(kv.Key); ok {
		h, err := decodeHandle(kv.Value)
		if err == nil && !h.gone {
			inv.handles[id] = storedHandle{h, kv.Revision}
		}
		return err
	}
	if _, ok := store.ParseAffinityKey(kv.Key); ok {
		affs, err := decodeAffinities([]store.KV{kv})
		inv.affinities = append(inv.affinities, affs...)
		return err
	}
	return nil
}

// readHost reads the blocks of one host and some others, for an agent to whom
// reading everything would be too much. Handles and affinities are left out.
func (m *Manager) readHost(ctx context.Context, host string, others []netip.Prefix) (*inventory, error) {
	cidrs := slices.Clone(others)
	for _, f := range []Family{IPv4, IPv6} {
		affs, err := m.listAffinities(ctx, host, f)
		if err != nil {
			return nil, err
		}
		for _, a := range affs {
			cidrs = append(cidrs, a.id.CIDR)
		}
	}
	slices.SortFunc(cidrs, netip.Prefix.Compare)
	inv := &inventory{}
	for _, cidr := range slices.Compact(cidrs) {
		b, _, err := m.getBlock(ctx, cidr)
		switch {
		case err == nil:
			inv.blocks = append(inv.blocks, b)
		case errors.Is(err, ErrCorrupt):
			inv.broken = append(inv.broken, err.Error())
		case !errors.Is(err, store.ErrNotFound):
			return nil, err
		}
	}
	return inv, nil
}

// Endpoint is a workload endpoint as far as its addresses go.
type Endpoint struct {
	Namespace, Name string
	Node            string
	ContainerID     string
	Addrs           []netip.Addr
}

func (e Endpoint) String() string { return e.Namespace + "/" + e.Name }

// users is who uses addresses, as the datastore says.
type users struct {
	endpoints map[netip.Addr][]Endpoint
	nodes     map[string]*v3.Node
}

// survey reads what a report compares: the settings, what is stored about
// addresses, and who uses them. Users are read last, so that whoever came
// meanwhile is seen.
func (m *Manager) survey(ctx context.Context) (*Settings, *inventory, *users, error) {
	s, err := m.settings(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	inv, err := m.readAll(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	us, err := m.readUsers(ctx)
	return s, inv, us, err
}

// readUsers reads all workload endpoints and nodes. One that cannot be read is
// an error: what it uses must not be taken for unused.
func (m *Manager) readUsers(ctx context.Context) (*users, error) {
	u := &users{endpoints: map[netip.Addr][]Endpoint{}, nodes: map[string]*v3.Node{}}
	list, err := m.db.List(ctx, store.ResourcePrefix(pluralEndpoints, ""))
	if err != nil {
		return nil, fmt.Errorf("list workload endpoints: %w", err)
	}
	for _, kv := range list.KVs {
		e, err := decodeEndpoint(kv)
		if err != nil {
			return nil, err
		}
		for _, a := range e.Addrs {
			u.endpoints[a] = append(u.endpoints[a], e)
		}
	}
	if list, err = m.db.List(ctx, store.ResourcePrefix(pluralNodes, "")); err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	for _, kv := range list.KVs {
		var node v3.Node
		if err := json.Unmarshal(kv.Value, &node); err != nil {
			return nil, fmt.Errorf("node %s: %w: %w", kv.Key, ErrCorrupt, err)
		}
		if id, ok := store.ParseResourceKey(kv.Key); ok {
			u.nodes[id.Name] = &node
		}
	}
	return u, nil
}

func decodeEndpoint(kv store.KV) (Endpoint, error) {
	var res v3.WorkloadEndpoint
	if err := json.Unmarshal(kv.Value, &res); err != nil {
		return Endpoint{}, fmt.Errorf("workload endpoint %s: %w: %w", kv.Key, ErrCorrupt, err)
	}
	e := Endpoint{Namespace: res.Namespace, Name: res.Name, Node: res.Spec.Node, ContainerID: res.Spec.ContainerID}
	for _, text := range res.Spec.IPNetworks {
		p, err := prefix.ParseLoose(text)
		if err != nil {
			return Endpoint{}, fmt.Errorf("workload endpoint %s: %w: %w", kv.Key, ErrCorrupt, err)
		}
		e.Addrs = append(e.Addrs, p.Addr())
	}
	return e, nil
}

// owns reports whether a handle is the endpoint's: handles of containers end
// with a dot and the container's id. An endpoint without one owns whatever
// addresses it has.
func (e Endpoint) owns(handle string) bool {
	return e.ContainerID == "" || strings.HasSuffix(handle, "."+e.ContainerID) || handle == e.ContainerID
}
