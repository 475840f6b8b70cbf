package ipam

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"strings"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/store"
)

// maxName is the longest name of a resource.
const maxName = 253

// maxParts is how many pools one call makes at most: more is a slip of the hand.
const maxParts = 4096

// Part is one of the pools that a pool was split into.
type Part struct {
	Name string
	CIDR netip.Prefix
}

// SplitPool replaces a pool, found by name or CIDR, by n pools of equal size
// that are otherwise as it was, named split-<name>-<i> (documented Calico
// behaviour). Blocks, affinities and addresses stay as they are: each lies in
// one of the parts. Where the datastore can, all is one transaction; else, and
// for more than 64 parts, an interrupted call is finished by the next. The
// error wraps ErrNoPool when there is no such pool, ErrInvalid when it cannot be
// split so, store.ErrExists when a part's name is another pool's.
//
// Nobody may make or delete pools meanwhile: the parts overlap with the pool
// until it is gone.
func (m *Manager) SplitPool(ctx context.Context, name string, n int) ([]Part, error) {
	s, err := m.settings(ctx)
	if err != nil {
		return nil, err
	}
	p, err := s.find(name)
	if err != nil {
		return nil, err
	}
	parts, err := p.parts(n)
	if err != nil {
		return nil, fmt.Errorf("split pool %q: %w", p.Name, err)
	}
	if err := m.checkBlocks(ctx, p, parts[0].CIDR.Bits()); err != nil {
		return nil, fmt.Errorf("split pool %q: %w", p.Name, err)
	}
	writes, err := m.splitWrites(ctx, p.Name, parts)
	if err == nil {
		err = m.writeAll(ctx, writes)
	}
	if err != nil {
		return nil, fmt.Errorf("split pool %q: %w", p.Name, err)
	}
	return parts, nil
}

// parts says what a pool is split into.
func (p Pool) parts(n int) ([]Part, error) {
	if n < 2 || n > maxParts || n&(n-1) != 0 {
		return nil, fmt.Errorf("%w: %d parts: must be a power of two from 2 to %d", ErrInvalid, n, maxParts)
	}
	length := p.CIDR.Bits() + bits.TrailingZeros(uint(n))
	if length > p.BlockSize {
		return nil, fmt.Errorf("%w: %d parts: must be at most %s, so that each holds a block of /%d",
			ErrInvalid, n, prefix.BlockCount(p.CIDR, p.BlockSize), p.BlockSize)
	}
	parts := make([]Part, n)
	for i := range parts {
		cidr, ok := prefix.NthBlock(p.CIDR, length, uint64(i))
		if !ok {
			return nil, fmt.Errorf("%w: %s has no part %d", ErrInvalid, p.CIDR, i)
		}
		parts[i] = Part{partName(p.Name, i), cidr}
	}
	return parts, nil
}

// partName names a part; what would be too long is cut out of the pool's name.
func partName(pool string, i int) string {
	tail := fmt.Sprintf("-%d", i)
	if room := maxName - len("split-") - len(tail); len(pool) > room {
		pool = strings.TrimRight(pool[:room], ".-")
	}
	return "split-" + pool + tail
}

// checkBlocks refuses a split that would cut a block in two.
func (m *Manager) checkBlocks(ctx context.Context, p Pool, length int) error {
	blocks, err := m.listBlocks(ctx, familyOf(p.CIDR.Addr()))
	if err != nil {
		return err
	}
	for _, b := range blocks {
		if prefix.Contains(p.CIDR, b.CIDR) && b.CIDR.Bits() < length {
			return fmt.Errorf("%w: block %s is larger than a part", ErrInvalid, b.CIDR)
		}
	}
	return nil
}

// splitWrites says what is to be written: the parts that are not there yet, and
// last the deletion of the pool.
func (m *Manager) splitWrites(ctx context.Context, name string, parts []Part) ([]store.Write, error) {
	key := store.ResourceID{Plural: pluralPools, Name: name}.Key()
	old, err := m.db.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	created := m.now().UTC().Truncate(time.Second).Format(time.RFC3339)
	var writes []store.Write
	for _, part := range parts {
		value, err := part.document(old.Value, created)
		if err != nil {
			return nil, err
		}
		w := store.Write{Key: store.ResourceID{Plural: pluralPools, Name: part.Name}.Key(), Value: value}
		there, err := m.db.Get(ctx, w.Key)
		switch {
		case errors.Is(err, store.ErrNotFound):
			writes = append(writes, w)
		case err != nil:
			return nil, err
		case !sameSpec(there.Value, value):
			return nil, fmt.Errorf("pool %q is there already and is another: %w", part.Name, store.ErrExists)
		}
	}
	return append(writes, store.Write{Key: key, Revision: old.Revision}), nil
}

// document is the pool's with the part's name and CIDR. Fields that we do not
// know go along; what the pool was told by others than users does not.
func (part Part) document(pool []byte, created string) ([]byte, error) {
	var doc, meta, spec map[string]rawJSON
	if err := json.Unmarshal(pool, &doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	for name, into := range map[string]*map[string]rawJSON{"metadata": &meta, "spec": &spec} {
		if err := json.Unmarshal(doc[name], into); err != nil {
			return nil, fmt.Errorf("%w: field %s: %w", ErrCorrupt, name, err)
		}
	}
	delete(doc, "status")
	kept := map[string]rawJSON{}
	for _, name := range []string{"labels", "annotations"} {
		if v, ok := meta[name]; ok {
			kept[name] = v
		}
	}
	for name, v := range map[string]string{"name": part.Name, "uid": newUID(), "creationTimestamp": created} {
		kept[name], _ = json.Marshal(v) // a string always is JSON
	}
	spec["cidr"], _ = json.Marshal(part.CIDR.String())
	var err error
	if doc["metadata"], err = json.Marshal(kept); err != nil {
		return nil, err
	}
	if doc["spec"], err = json.Marshal(spec); err != nil {
		return nil, err
	}
	value, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	o, err := v3.DecodeStored(value)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if _, ok := o.(*v3.IPPool); !ok {
		return nil, fmt.Errorf("%w: it is of kind %q", ErrCorrupt, o.Type().Kind)
	}
	return value, nil
}

// sameSpec reports whether two documents say the same of a pool.
func sameSpec(a, b []byte) bool {
	var specs [2]struct{ Spec any }
	for i, doc := range [][]byte{a, b} {
		if err := json.Unmarshal(doc, &specs[i]); err != nil {
			return false
		}
	}
	x, errX := json.Marshal(specs[0].Spec) // keys come out sorted
	y, errY := json.Marshal(specs[1].Spec)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// newUID returns a random UUID (RFC 9562, version 4).
func newUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// writeAll makes writes in their order, as many in one transaction as the
// datastore takes. One that an earlier try has made, whose reply was lost, is
// refused: the caller begins anew.
func (m *Manager) writeAll(ctx context.Context, writes []store.Write) error {
	for len(writes) > 0 {
		n := 1
		var err error
		if w := writes[0]; m.tx != nil {
			n = min(len(writes), store.MaxWrites)
			_, err = m.tx.Transact(ctx, writes[:n])
		} else if w.Value == nil {
			err = m.db.Delete(ctx, w.Key, w.Revision)
		} else {
			_, err = m.db.Create(ctx, w.Key, w.Value)
		}
		if err != nil {
			return err
		}
		writes = writes[n:]
	}
	return nil
}
