package ipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/store"
)

// State is a step in the life of an affinity.
type State string

// The states. Only a confirmed affinity counts for routing.
const (
	Confirmed       State = "confirmed"
	Pending         State = "pending"
	PendingDeletion State = "pendingDeletion"
)

// affinity is a stored affinity; its key says whose it is and of which block.
type affinity struct {
	state State
	gone  bool // marked as deleted
	extra map[string]rawJSON
}

func decodeAffinity(value []byte) (affinity, error) {
	var a affinity
	fields, err := fields(value)
	if err != nil {
		return a, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	for name, into := range map[string]any{"state": &a.state, "deleted": &a.gone} {
		if err := take(fields, name, into); err != nil {
			return a, fmt.Errorf("%w: field %s: %w", ErrCorrupt, name, err)
		}
	}
	a.extra = fields
	return a, nil
}

func (a affinity) encode() []byte {
	out := appendString([]byte(`{"state":`), string(a.state))
	out = strconv.AppendBool(append(out, `,"deleted":`...), a.gone)
	return append(appendExtra(out, a.extra), '}')
}

// handle is a stored handle: how many addresses its owner has per block, at
// most. Numbers may be too high after a crash, never too low.
type handle struct {
	blocks map[netip.Prefix]int
	gone   bool // marked as deleted
	extra  map[string]rawJSON
}

func decodeHandle(value []byte) (*handle, error) {
	h := &handle{blocks: map[netip.Prefix]int{}}
	fields, err := fields(value)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	var blocks map[string]int
	for name, into := range map[string]any{"block": &blocks, "deleted": &h.gone} {
		if err := take(fields, name, into); err != nil {
			return nil, fmt.Errorf("%w: field %s: %w", ErrCorrupt, name, err)
		}
	}
	h.extra = fields
	for cidr, n := range blocks {
		p, err := prefix.Parse(cidr)
		if err != nil {
			return nil, fmt.Errorf("%w: field block: %w", ErrCorrupt, err)
		}
		h.blocks[p] = n
	}
	return h, nil
}

func (h *handle) encode() []byte {
	blocks := make(map[string]int, len(h.blocks))
	for cidr, n := range h.blocks {
		blocks[cidr.String()] = n
	}
	out := []byte(`{"block":{`)
	for i, cidr := range slices.Sorted(maps.Keys(blocks)) {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendString(out, cidr), ':')
		out = strconv.AppendInt(out, int64(blocks[cidr]), 10)
	}
	out = strconv.AppendBool(append(out, `},"deleted":`...), h.gone)
	return append(appendExtra(out, h.extra), '}')
}

// cidrs lists the blocks of the handle in order.
func (h *handle) cidrs() []netip.Prefix {
	return slices.SortedFunc(maps.Keys(h.blocks), netip.Prefix.Compare)
}

// take decodes one field, if it is there, and removes it from fields.
func take(fields map[string]rawJSON, name string, into any) error {
	raw, ok := fields[name]
	if !ok {
		return nil
	}
	delete(fields, name)
	return json.Unmarshal(raw, into)
}

// getBlock reads a block. One that is marked as deleted is absent.
func (m *Manager) getBlock(ctx context.Context, cidr netip.Prefix) (*Block, store.Revision, error) {
	kv, err := m.db.Get(ctx, store.BlockKey(cidr))
	if err != nil {
		return nil, "", fmt.Errorf("read block %s: %w", cidr, err)
	}
	b, err := decodeBlockAt(cidr, kv.Value)
	if err != nil {
		return nil, "", err
	}
	if b.gone {
		return nil, "", m.bury(ctx, kv)
	}
	return b, kv.Revision, nil
}

// bury finishes the deletion of a record that is marked as deleted and says
// that it is absent.
func (m *Manager) bury(ctx context.Context, kv store.KV) error {
	err := m.db.Delete(ctx, kv.Key, kv.Revision)
	if err != nil && !changed(err) {
		return fmt.Errorf("finish deletion of %s: %w", kv.Key, err)
	}
	return fmt.Errorf("%s is deleted: %w", kv.Key, store.ErrNotFound)
}

// getAffinity reads an affinity.
func (m *Manager) getAffinity(ctx context.Context, id store.AffinityID) (affinity, store.Revision, error) {
	kv, err := m.db.Get(ctx, id.Key())
	if err != nil {
		return affinity{}, "", fmt.Errorf("read affinity of %s to %s: %w", id.CIDR, id.Owner, err)
	}
	a, err := decodeAffinity(kv.Value)
	if err != nil {
		return affinity{}, "", fmt.Errorf("affinity of %s to %s: %w", id.CIDR, id.Owner, err)
	}
	if a.gone {
		return affinity{}, "", m.bury(ctx, kv)
	}
	return a, kv.Revision, nil
}

// getHandle reads a handle.
func (m *Manager) getHandle(ctx context.Context, id string) (*handle, store.Revision, error) {
	kv, err := m.db.Get(ctx, store.HandleKey(id))
	if err != nil {
		return nil, "", fmt.Errorf("read handle %q: %w", id, err)
	}
	h, err := decodeHandle(kv.Value)
	if err != nil {
		return nil, "", fmt.Errorf("handle %q: %w", id, err)
	}
	if h.gone {
		return nil, "", m.bury(ctx, kv)
	}
	return h, kv.Revision, nil
}

// changed reports whether a write failed because the record is no longer what
// the writer had read.
func changed(err error) bool {
	return errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrExists)
}
