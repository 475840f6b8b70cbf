// Package store is the seam to the datastore: flat keys with JSON values,
// opaque revisions, compare-and-swap, and a watch that can be resumed. Every
// driver passes the suite of package storetest. Keys are those of Calico's
// etcd layout (see keys.go), whatever the driver stores them in.
package store

import (
	"context"
	"errors"
	"strings"
)

// Errors that callers decide on. Drivers wrap them with the key.
var (
	ErrNotFound  = errors.New("not found")
	ErrExists    = errors.New("already exists")
	ErrConflict  = errors.New("changed by somebody else meanwhile")
	ErrCompacted = errors.New("the revision is too old to watch from")
	ErrDenied    = errors.New("the datastore does not allow that to this user")
)

// Revision is an opaque mark of a moment in the datastore's history. It can
// only be compared for equality and handed back to the driver it came from.
// The empty revision means "any".
type Revision string

// ResourceVersion returns the revision as Calico's programs show it: without
// what a driver keeps behind an "@" for itself.
func (r Revision) ResourceVersion() string {
	shown, _, _ := strings.Cut(string(r), "@")
	return shown
}

// KV is one stored value.
type KV struct {
	Key      string
	Value    []byte
	Revision Revision // of the last change of this key
}

// Listing is the outcome of a List: the values sorted by key, and the
// revision from which a Watch sees every later change and nothing earlier.
type Listing struct {
	KVs      []KV
	Revision Revision
}

// Event is one change: Value is nil when the key is gone. Existence is
// decided by Value alone; the value of a key that exists is never nil.
type Event struct {
	Key      string
	Value    []byte
	Revision Revision
}

// Batch is what a watch delivers at once: events in order, up to Revision. A
// batch without events tells progress only. Err is set in the last batch,
// which may still carry events.
type Batch struct {
	Events   []Event
	Revision Revision
	Err      error // ErrCompacted: list again; anything else: watch again
}

// Driver is one datastore. All methods may be called from anywhere.
type Driver interface {
	// Get returns one value or ErrNotFound.
	Get(ctx context.Context, key string) (KV, error)
	// List returns everything below a prefix, as of one moment.
	List(ctx context.Context, prefix string) (Listing, error)
	// Watch delivers every change below a prefix after a revision, until ctx
	// ends or a batch with Err; then the channel is closed. The first batch
	// comes as soon as the watch stands, with or without events. It never drops
	// or reorders; a slow reader sees events coalesced into larger batches. The
	// empty revision means from some moment after the call on. A datastore
	// that was replaced by another or put back to an older state ends the
	// watch with ErrCompacted, one that does not answer with another error.
	Watch(ctx context.Context, prefix string, after Revision) <-chan Batch
	// Create writes a key that must not exist, else ErrExists.
	Create(ctx context.Context, key string, value []byte) (Revision, error)
	// Update writes a key that must exist. With kv.Revision set it must be the
	// key's current one, else ErrConflict.
	Update(ctx context.Context, kv KV) (Revision, error)
	// Delete removes a key that must exist, with the same rule.
	Delete(ctx context.Context, key string, rev Revision) error
}

// MaxWrites is how many keys one transaction may write.
const MaxWrites = 100

// Pager is a Driver that can hand over a listing piece by piece, so that its
// reader needs not have all of it in memory. Whoever uses it goes by Pages.
type Pager interface {
	// Pages calls page with the values below a prefix, sorted by key, some at a
	// time, all as of one moment: rev is the same at each call, and a Watch from
	// it sees every later change. page is called at least once, and not after it
	// returned an error, which Pages returns as it is. ErrCompacted means that
	// the datastore has forgotten that moment before the last page.
	Pages(ctx context.Context, prefix string, page func(kvs []KV, rev Revision) error) error
}

// Pages lists a datastore page by page, as Pager does; all at once if it
// cannot.
func Pages(ctx context.Context, d Driver, prefix string, page func(kvs []KV, rev Revision) error) error {
	if p, ok := d.(Pager); ok {
		return p.Pages(ctx, prefix, page)
	}
	list, err := d.List(ctx, prefix)
	if err != nil {
		return err
	}
	return page(list.KVs, list.Revision)
}

// Write is one key of a transaction.
type Write struct {
	Key      string
	Value    []byte   // nil deletes the key
	Revision Revision // the key's current one; "": the key must not exist
}

// Transactor is a Driver that can write several keys in one moment. Not every
// datastore can, so whoever uses it has another way.
type Transactor interface {
	// Transact makes all of these writes, or none. There are 1 to MaxWrites, of
	// different keys. All get the returned revision. If any is refused, the
	// error has a *Refusal of the first of them.
	Transact(ctx context.Context, writes []Write) (Revision, error)
}

// Refusal is why a transaction was not made.
type Refusal struct {
	Key string // of the first write that was refused
	Err error  // ErrExists, ErrNotFound or ErrConflict
}

func (r *Refusal) Error() string { return "write " + r.Key + ": " + r.Err.Error() }

func (r *Refusal) Unwrap() error { return r.Err }

// Check says whether a key may be written, given whether it exists and at which
// revision; the error is a *Refusal. It is for drivers.
func (w Write) Check(exists bool, now Revision) error {
	var err error
	switch {
	case w.Revision == "" && exists:
		err = ErrExists
	case w.Revision == "":
		return nil
	case !exists:
		err = ErrNotFound
	case w.Revision != now:
		err = ErrConflict
	default:
		return nil
	}
	return &Refusal{Key: w.Key, Err: err}
}
