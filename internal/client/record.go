package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
)

// Written is up to where a program has changed the datastore. The zero value
// says that it has changed nothing.
type Written struct {
	Resources store.Revision // of the last change of a resource
	Blocks    store.Revision // of an IPAM block
	// Objects are the resources that were written or found as they should be,
	// as in "GlobalNetworkPolicy a" and "NetworkPolicy ns/a", sorted. What was
	// deleted is none of them. nil: too many to name.
	Objects []string
}

// Nothing reports whether nothing was written.
func (w Written) Nothing() bool { return w.Resources == "" && w.Blocks == "" }

// mostObjects is how many objects are named.
const mostObjects = 1000

// Recorder is a datastore that remembers at which revision it was last
// written. All methods may be called from anywhere.
type Recorder struct {
	store.Driver
	mu      sync.Mutex // guards what is below
	written Written
	objects map[string]bool
	unknown error // why written does not say all
}

// Record returns a recorder on a datastore, which stays the caller's to close.
func Record(d store.Driver) *Recorder { return &Recorder{Driver: d, objects: map[string]bool{}} }

// Written returns up to where the datastore was written through the recorder.
// The error says why that is not known.
func (r *Recorder) Written() (Written, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.written
	if len(r.objects) <= mostObjects {
		w.Objects = append([]string{}, slices.Sorted(maps.Keys(r.objects))...)
	}
	return w, r.unknown
}

// Saw notes a resource that was found as it should be.
func (r *Recorder) Saw(o v3.Object) {
	m := o.Meta()
	r.named(o.Type().Kind, m.Namespace, m.Name)
	r.note(store.ResourceRoot, store.Revision(m.ResourceVersion))
}

// named notes an object that was written.
func (r *Recorder) named(kind, namespace, name string) {
	if namespace != "" {
		name = namespace + "/" + name
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.objects) <= mostObjects {
		r.objects[kind+" "+name] = true
	}
}

// wrote notes that a key was written.
func (r *Recorder) wrote(key string, rev store.Revision) {
	if id, ok := store.ParseResourceKey(key); ok {
		kind := id.Plural
		if i := slices.IndexFunc(v3.Kinds(), func(k v3.KindInfo) bool { return k.Plural == id.Plural }); i >= 0 {
			kind = v3.Kinds()[i].Kind
		}
		r.named(kind, id.Namespace, id.Name)
	}
	r.note(key, rev)
}

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
		r.wrote(key, rev)
	}
	return rev, err
}

// Update implements store.Driver.
func (r *Recorder) Update(ctx context.Context, kv store.KV) (store.Revision, error) {
	rev, err := r.Driver.Update(ctx, kv)
	if err == nil {
		r.wrote(kv.Key, rev)
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
