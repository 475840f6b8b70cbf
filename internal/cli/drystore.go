package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/brindle-net/brindle/internal/store"
)

// dryRevision begins the revisions of what is not written.
const dryRevision = "dry-run-"

// dryStore is a datastore as it would be after changes that are not made: it
// reads from one that stays as it is, and keeps what is written to itself.
type dryStore struct {
	store.Driver
	mu      sync.Mutex          // guards what is below
	changed map[string]store.KV // by key; without a revision: deleted
	writes  int
}

func newDryStore(d store.Driver) *dryStore {
	return &dryStore{Driver: d, changed: map[string]store.KV{}}
}

// Close implements Datastore. The datastore below stays open.
func (d *dryStore) Close() error { return nil }

// Get implements store.Driver.
func (d *dryStore) Get(ctx context.Context, key string) (store.KV, error) {
	d.mu.Lock()
	kv, changed := d.changed[key]
	d.mu.Unlock()
	switch {
	case !changed:
		return d.Driver.Get(ctx, key)
	case kv.Revision == "":
		return store.KV{}, fmt.Errorf("get %s: %w", key, store.ErrNotFound)
	}
	return kv, nil
}

// List implements store.Driver.
func (d *dryStore) List(ctx context.Context, prefix string) (store.Listing, error) {
	list, err := d.Driver.List(ctx, prefix)
	if err != nil {
		return list, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make(map[string]store.KV, len(list.KVs))
	for _, kv := range list.KVs {
		all[kv.Key] = kv
	}
	for key, kv := range d.changed {
		switch {
		case !strings.HasPrefix(key, prefix):
		case kv.Revision == "":
			delete(all, key)
		default:
			all[key] = kv
		}
	}
	list.KVs = list.KVs[:0:0]
	for _, key := range slices.Sorted(maps.Keys(all)) {
		list.KVs = append(list.KVs, all[key])
	}
	return list, nil
}

// Create implements store.Driver.
func (d *dryStore) Create(ctx context.Context, key string, value []byte) (store.Revision, error) {
	if _, err := d.Get(ctx, key); err == nil {
		return "", fmt.Errorf("create %s: %w", key, store.ErrExists)
	} else if !errors.Is(err, store.ErrNotFound) {
		return "", err
	}
	return d.put(store.KV{Key: key, Value: value}), nil
}

// Update implements store.Driver.
func (d *dryStore) Update(ctx context.Context, kv store.KV) (store.Revision, error) {
	if err := d.stands(ctx, kv.Key, kv.Revision); err != nil {
		return "", fmt.Errorf("update %s: %w", kv.Key, err)
	}
	return d.put(kv), nil
}

// Delete implements store.Driver.
func (d *dryStore) Delete(ctx context.Context, key string, rev store.Revision) error {
	if err := d.stands(ctx, key, rev); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed[key] = store.KV{}
	return nil
}

// stands says whether a key is there at a revision.
func (d *dryStore) stands(ctx context.Context, key string, rev store.Revision) error {
	kv, err := d.Get(ctx, key)
	if err == nil && rev != "" && rev != kv.Revision {
		err = store.ErrConflict
	}
	return err
}

// put keeps a value, at a revision that no datastore has.
func (d *dryStore) put(kv store.KV) store.Revision {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes++
	kv.Revision = store.Revision(fmt.Sprint(dryRevision, d.writes))
	d.changed[kv.Key] = kv
	return kv.Revision
}
