package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/brindle-net/brindle/internal/store"
)

// Written is up to where a program has changed the datastore. The zero value
// says that it has changed nothing.
type Written struct {
	Resources store.Revision // of the last change of a resource
	Blocks    store.Revision // of an IPAM block
}

// Recorder is a datastore that remembers at which revision it was last
// written. All methods may be called from anywhere.
type Recorder struct {
	store.Driver
	mu      sync.Mutex // guards what is below
	written Written
	unknown error // why written does not say all
}

// Record returns a recorder on a datastore, which stays the caller's to close.
func Record(d store.Driver) *Recorder { return &Recorder{Driver: d} }

// Written returns up to where the datastore was written through the recorder.
// The error says why that is not known.
func (r *Recorder) Written() (Written, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.written, r.unknown
}

// Saw notes the revision of a resource that was found as it should be.
func (r *Recorder) Saw(rev store.Revision) { r.note(store.ResourceRoot, rev) }

// note keeps the later one of what was last written and a revision.
func (r *Recorder) note(key string, rev store.Revision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var last *store.Revision
	switch {
	case strings.HasPrefix(key, store.ResourceRoot):
		last = &r.written.Resources
	case strings.HasPrefix(key, store.BlockRoot):
		last = &r.written.Blocks
	default:
		return
	}
	past, err := store.Reached(r.Driver, *last, rev)
	if err != nil {
		r.unknown = fmt.Errorf("at which revision %s was written: %w", key, err)
	}
	if !past {
		*last = rev
	}
}

// Pages implements store.Pager.
func (r *Recorder) Pages(ctx context.Context, prefix string, page func([]store.KV, store.Revision) error) error {
	return store.Pages(ctx, r.Driver, prefix, page)
}

// Create implements store.Driver.
func (r *Recorder) Create(ctx context.Context, key string, value []byte) (store.Revision, error) {
	rev, err := r.Driver.Create(ctx, key, value)
	if err == nil {
		r.note(key, rev)
	}
	return rev, err
}

// Update implements store.Driver.
func (r *Recorder) Update(ctx context.Context, kv store.KV) (store.Revision, error) {
	rev, err := r.Driver.Update(ctx, kv)
	if err == nil {
		r.note(kv.Key, rev)
	}
	return rev, err
}

// Delete implements store.Driver. A deletion has a revision only where it can
// be a transaction.
func (r *Recorder) Delete(ctx context.Context, key string, rev store.Revision) error {
	tx, ok := r.Driver.(store.Transactor)
	if !ok {
		err := r.Driver.Delete(ctx, key, rev)
		if err == nil {
			r.mu.Lock()
			r.unknown = fmt.Errorf("at which revision %s was deleted: %w", key, store.ErrUnordered)
			r.mu.Unlock()
		}
		return err
	}
	for {
		is := rev
		if is == "" {
			kv, err := r.Get(ctx, key)
			if err != nil {
				return err
			}
			is = kv.Revision
		}
		at, err := tx.Transact(ctx, []store.Write{{Key: key, Revision: is}})
		switch {
		case err == nil:
			r.note(key, at)
		case rev == "" && errors.Is(err, store.ErrConflict):
			continue // any state of it may go
		}
		return err
	}
}
