// Package client reads and writes the objects of api/v3 in the datastore: one
// client for all kinds, by type (Get, List, Create, Modify…) or, for programs
// that learn the kind at run time, by v3.KindInfo (the methods of Client).
//
// Every write is a compare-and-swap. A write changes in the stored document
// only what changed in the object, so that fields written by newer programs
// survive, at any depth.
package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
)

// Errors that callers decide on, beside those of package store (see IsNotFound
// and its like) and v3.FieldErrors, which tells that an object is invalid.
var (
	// ErrReadOnly says that users may not write this object.
	ErrReadOnly = errors.New("is written by Brindle itself, not by users")

	// ErrInUse says that an object cannot go while others need it.
	ErrInUse = errors.New("is still in use")

	// ErrUnreadable says that a stored object cannot be read as its kind.
	ErrUnreadable = errors.New("stored object cannot be read")
)

// Config tunes a Client. The zero value is useful.
type Config struct {
	// Component lets the client write what users may not: ClusterInformation
	// and objects that mirror Kubernetes'.
	Component bool

	// ReleasePool is called before a pool is deleted, when it is disabled
	// already: it takes the pool's blocks from the hosts. nil does nothing.
	ReleasePool func(ctx context.Context, pool *v3.IPPool) error
}

// Client reads and writes objects. All methods may be called from anywhere.
type Client struct {
	driver store.Driver
	cfg    Config
}

// New returns a client of a datastore, which stays the caller's to close.
func New(d store.Driver, cfg Config) *Client { return &Client{driver: d, cfg: cfg} }

// Driver returns the datastore below.
func (c *Client) Driver() store.Driver { return c.driver }

// Preconditions must hold for a deletion; empty fields ask for nothing.
type Preconditions struct {
	UID             string
	ResourceVersion string
}

// Listing is the outcome of a List: objects sorted by namespace and name, and
// the revision from which a Watch sees every later change.
type Listing struct {
	Objects  []v3.Object
	Revision store.Revision
}

// IsNotFound says whether an error means that the object does not exist.
func IsNotFound(err error) bool { return errors.Is(err, store.ErrNotFound) }

// IsExists says whether an error means that the object exists already.
func IsExists(err error) bool { return errors.Is(err, store.ErrExists) }

// IsConflict says whether an error means that somebody else changed the object
// meanwhile.
func IsConflict(err error) bool { return errors.Is(err, store.ErrConflict) }

// Get reads one object. namespace is empty for kinds without one.
func (c *Client) Get(ctx context.Context, kind v3.KindInfo, namespace, name string) (v3.Object, error) {
	id := ident{kind, namespace, name}
	doc, err := c.read(ctx, id)
	if err != nil {
		return nil, id.fail("get", err)
	}
	return doc.object, nil
}

// List reads all objects of a kind, or with a namespace those in it. Objects
// that cannot be read are left out and named in the error, which is then
// ErrUnreadable; the listing has the others.
func (c *Client) List(ctx context.Context, kind v3.KindInfo, namespace string) (Listing, error) {
	id := ident{kind, namespace, ""}
	if err := id.checkKind(); err != nil {
		return Listing{}, id.fail("list", err)
	}
	raw, err := c.driver.List(ctx, id.prefix())
	if err != nil {
		return Listing{}, id.fail("list", err)
	}
	objects, err := id.decodeAll(raw.KVs)
	return Listing{withVirtual(kind, objects), raw.Revision}, err
}

// Pages is List piece by piece: it calls page with the objects in the order of
// List, some at a time, so that not all of them are in memory at once. Each
// Listing has the revision of all. page is called at least once, and not after
// it returned an error, which Pages returns. Objects that cannot be read are
// left out and named in the error at the end, which is then ErrUnreadable.
func (c *Client) Pages(ctx context.Context, kind v3.KindInfo, namespace string, page func(Listing) error) error {
	id := ident{kind, namespace, ""}
	if err := id.checkKind(); err != nil {
		return id.fail("list", err)
	}
	if virtual(ident{kind: kind, name: v3.ProfileDefaultAllow}) != nil {
		list, err := c.List(ctx, kind, namespace) // whose place is among the others
		if err != nil && !errors.Is(err, ErrUnreadable) {
			return err
		}
		return errors.Join(page(list), err)
	}
	var unreadable []error
	var stopped error
	err := store.Pages(ctx, c.driver, id.prefix(), func(kvs []store.KV, rev store.Revision) error {
		objects, err := id.decodeAll(kvs)
		if err != nil {
			unreadable = append(unreadable, err)
		}
		stopped = page(Listing{objects, rev})
		return stopped
	})
	if err != nil && stopped == nil {
		return id.fail("list", err)
	}
	return errors.Join(append(unreadable, err)...)
}

// Names lists the names of a kind's objects in a namespace, empty for kinds
// without one, that begin with a prefix, sorted, and no more than most of them.
// It reads no more objects than it must, and none that it need not.
func (c *Client) Names(ctx context.Context, kind v3.KindInfo, namespace, prefix string, most int) ([]string, error) {
	id := ident{kind, namespace, prefix}
	if err := id.checkKind(); err != nil {
		return nil, id.fail("list names of", err)
	}
	at := id.prefix()
	if kind.Kind != kindIPAMConfiguration {
		at += prefix
	}
	var out []string
	err := store.Pages(ctx, c.driver, at, func(kvs []store.KV, _ store.Revision) error {
		for _, kv := range kvs {
			if one, ok := id.parse(kv.Key); ok && strings.HasPrefix(one.name, prefix) {
				out = append(out, one.name)
			}
		}
		if len(out) >= most {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, id.fail("list names of", err)
	}
	if o := virtual(ident{kind: kind, name: v3.ProfileDefaultAllow}); o != nil && strings.HasPrefix(o.Meta().Name, prefix) {
		out = append(out, o.Meta().Name)
		slices.Sort(out)
		out = slices.Compact(out)
	}
	return out[:min(len(out), most)], nil
}

// errEnough ends a listing that needs no more pages.
var errEnough = errors.New("no more is needed")

// decodeAll reads what is stored below the prefix of a kind. What cannot be
// read is left out and named in the error.
func (id ident) decodeAll(kvs []store.KV) ([]v3.Object, error) {
	var out []v3.Object
	var unreadable []error
	for _, kv := range kvs {
		one, ok := id.parse(kv.Key)
		if !ok {
			continue
		}
		doc, err := decode(one, kv)
		if err != nil {
			unreadable = append(unreadable, one.fail("list", err))
			continue
		}
		out = append(out, doc.object)
	}
	return out, errors.Join(unreadable...)
}

// read reads one document, under the name it has or once had.
func (c *Client) read(ctx context.Context, id ident) (document, error) {
	if err := id.check(); err != nil {
		return document{}, err
	}
	if o := virtual(id); o != nil {
		return document{object: o}, nil
	}
	kv, err := c.driver.Get(ctx, id.key())
	if old, ok := id.legacy(); ok && errors.Is(err, store.ErrNotFound) {
		if kvOld, errOld := c.driver.Get(ctx, old.key()); errOld == nil {
			id, kv, err = old, kvOld, nil
		}
	}
	if err != nil {
		return document{}, bare(err)
	}
	return decode(id, kv)
}

// fail says what failed on which object.
func (id ident) fail(verb string, err error) error { return fmt.Errorf("%s %s: %w", verb, id, err) }

// bare drops the datastore's own words where its meaning is all that counts:
// they name the key, and the caller names the object.
func bare(err error) error {
	for _, known := range []error{store.ErrNotFound, store.ErrExists, store.ErrConflict} {
		if errors.Is(err, known) {
			return known
		}
	}
	return err
}
