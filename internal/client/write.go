package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
)

// How often a read-modify-write that meets another is tried again, and the
// longest pause before it.
const (
	maxAttempts = 20
	maxPause    = time.Second
)

// Outcome says what Apply did.
type Outcome int

// The outcomes of Apply.
const (
	Unchanged Outcome = iota // the object was as it should be; nothing was written
	Created
	Changed
)

// Create writes a new object, whose uid, creationTimestamp and resourceVersion
// must be empty: they are set here. It returns the object as stored; the
// caller's stays as it is.
func (c *Client) Create(ctx context.Context, obj v3.Object) (v3.Object, error) {
	id, err := identOf(obj)
	if err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	o, err := c.create(ctx, id, obj)
	if err != nil {
		return nil, id.fail("create", err)
	}
	return o, nil
}

func (c *Client) create(ctx context.Context, id ident, obj v3.Object) (v3.Object, error) {
	if err := c.mayWrite(id); err != nil {
		return nil, err
	}
	var wrong v3.FieldErrors
	m := obj.Meta()
	for _, f := range []struct{ path, value string }{
		{"metadata.uid", m.UID}, {"metadata.resourceVersion", m.ResourceVersion},
	} {
		if f.value != "" {
			wrong = append(wrong, v3.FieldError{Path: f.path, Value: f.value, Rule: "must be empty in a new object"})
		}
	}
	if m.CreationTimestamp != nil && !m.CreationTimestamp.IsZero() {
		wrong = append(wrong, v3.FieldError{Path: "metadata.creationTimestamp", Rule: "must be empty in a new object"})
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	o, value, err := c.fresh(ctx, id, obj)
	if err != nil {
		return nil, err
	}
	if err := c.checkLegacy(ctx, id); err != nil {
		return nil, err
	}
	rev, err := c.driver.Create(ctx, id.key(), value)
	if err != nil {
		return nil, bare(err)
	}
	o.Meta().ResourceVersion = string(rev)
	return o, nil
}

// fresh checks a new object, gives it what the datastore gives, and encodes it.
func (c *Client) fresh(ctx context.Context, id ident, obj v3.Object) (v3.Object, []byte, error) {
	o, err := copyOf(id.kind, obj)
	if err != nil {
		return nil, nil, err
	}
	if err := c.checkNew(ctx, o); err != nil {
		return nil, nil, err
	}
	v3.Default(o)
	o.Meta().UID, o.Meta().CreationTimestamp = NewUID(), v3.NewTime(time.Now())
	value, err := encode(o)
	return o, value, err
}

// anew writes an object over one that cannot be read, so that it is never away.
func (c *Client) anew(ctx context.Context, id ident, obj v3.Object) (v3.Object, error) {
	if err := c.mayWrite(id); err != nil {
		return nil, err
	}
	kv, err := c.driver.Get(ctx, id.key())
	if err != nil {
		return nil, bare(err)
	}
	if rev := obj.Meta().ResourceVersion; rev != "" && rev != string(kv.Revision) {
		return nil, errStale
	}
	o, value, err := c.fresh(ctx, id, withoutOrigin(id, obj))
	if err != nil {
		return nil, err
	}
	rev, err := c.driver.Update(ctx, store.KV{Key: kv.Key, Value: value, Revision: kv.Revision})
	if err != nil {
		return nil, bare(err)
	}
	o.Meta().ResourceVersion = string(rev)
	return o, nil
}

// Update writes an object that was read before: its resourceVersion must be
// the current one, else the error IsConflict. uid and creationTimestamp stay as
// stored. It returns the object as stored; the caller's stays as it is.
func (c *Client) Update(ctx context.Context, obj v3.Object) (v3.Object, error) {
	id, err := identOf(obj)
	if err != nil {
		return nil, fmt.Errorf("update: %w", err)
	}
	o, err := c.update(ctx, id, obj)
	if err != nil {
		return nil, id.fail("update", err)
	}
	return o, nil
}

func (c *Client) update(ctx context.Context, id ident, obj v3.Object) (v3.Object, error) {
	if err := c.mayWrite(id); err != nil {
		return nil, err
	}
	if obj.Meta().ResourceVersion == "" {
		return nil, v3.FieldErrors{{Path: "metadata.resourceVersion", Rule: "must be given: it says which state is replaced"}}
	}
	doc, err := c.read(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := doc.is(Preconditions{UID: obj.Meta().UID, ResourceVersion: obj.Meta().ResourceVersion}); err != nil {
		return nil, err
	}
	want, err := copyOf(id.kind, obj)
	if err != nil {
		return nil, err
	}
	o, _, err := c.swap(ctx, doc, want)
	return o, err
}

// Modify reads an object, lets edit change it, and writes it if it changed.
// When somebody else writes meanwhile, it begins anew, so edit may be called
// several times; an error of edit ends it. Name, namespace, uid and
// creationTimestamp stay whatever edit does. It returns the object as stored.
func (c *Client) Modify(ctx context.Context, kind v3.KindInfo, namespace, name string, edit func(v3.Object) error) (v3.Object, error) {
	id := ident{kind, namespace, name}
	o, _, err := c.modify(ctx, id, func(stored v3.Object) (v3.Object, error) { return stored, edit(stored) })
	if err != nil {
		return nil, id.fail("modify", err)
	}
	return o, nil
}

// modify is Modify with an edit that may return another object.
func (c *Client) modify(ctx context.Context, id ident, edit func(v3.Object) (v3.Object, error)) (v3.Object, Outcome, error) {
	if err := c.mayWrite(id); err != nil {
		return nil, Unchanged, err
	}
	var err error
	for attempt := range maxAttempts {
		if attempt > 0 {
			if err := pause(ctx, attempt); err != nil {
				return nil, Unchanged, err
			}
		}
		var doc document
		if doc, err = c.read(ctx, id); err != nil {
			return nil, Unchanged, err
		}
		var want v3.Object
		if want, err = copyOf(id.kind, doc.object); err != nil {
			return nil, Unchanged, err
		}
		if want, err = edit(want); err != nil {
			return nil, Unchanged, err
		}
		var o v3.Object
		var did Outcome
		if o, did, err = c.swap(ctx, doc, want); !errors.Is(err, store.ErrConflict) {
			return o, did, err
		}
	}
	return nil, Unchanged, err
}

// Apply creates an object, or makes the stored one like it: spec, labels and
// annotations become those given; status and all other metadata stay as stored.
// If the object carries a resourceVersion, that must be the current one. One that
// cannot be read is written anew.
func (c *Client) Apply(ctx context.Context, obj v3.Object) (v3.Object, Outcome, error) {
	id, err := identOf(obj)
	if err != nil {
		return nil, Unchanged, fmt.Errorf("apply: %w", err)
	}
	o, did, err := c.replace(ctx, id, obj)
	if errors.Is(err, store.ErrNotFound) && obj.Meta().ResourceVersion == "" {
		did = Created
		if o, err = c.create(ctx, id, withoutOrigin(id, obj)); errors.Is(err, store.ErrExists) {
			o, did, err = c.replace(ctx, id, obj)
		}
	}
	if errors.Is(err, ErrUnreadable) {
		if _, unread := c.read(ctx, id); errors.Is(unread, ErrUnreadable) { // this, not another that it has to do with
			did = Changed
			o, err = c.anew(ctx, id, obj)
		}
	}
	if err != nil {
		return nil, Unchanged, id.fail("apply", err)
	}
	return o, did, nil
}

// Replace is Apply for an object that must exist.
func (c *Client) Replace(ctx context.Context, obj v3.Object) (v3.Object, Outcome, error) {
	id, err := identOf(obj)
	if err != nil {
		return nil, Unchanged, fmt.Errorf("replace: %w", err)
	}
	o, did, err := c.replace(ctx, id, obj)
	if err != nil {
		return nil, Unchanged, id.fail("replace", err)
	}
	return o, did, nil
}

func (c *Client) replace(ctx context.Context, id ident, obj v3.Object) (v3.Object, Outcome, error) {
	rev := obj.Meta().ResourceVersion
	return c.modify(ctx, id, func(stored v3.Object) (v3.Object, error) {
		if rev != "" && rev != stored.Meta().ResourceVersion {
			return nil, errStale
		}
		return imitate(id.kind, stored, obj)
	})
}

// errStale is a conflict that trying again does not solve.
var errStale = fmt.Errorf("the resourceVersion given is not the current one: %w", store.ErrConflict)

// withoutOrigin returns a copy without what another datastore, or an object
// deleted since, said about the object's birth.
func withoutOrigin(id ident, obj v3.Object) v3.Object {
	o, err := copyOf(id.kind, obj)
	if err != nil {
		return obj // which create then refuses with the same error
	}
	o.Meta().UID, o.Meta().CreationTimestamp = "", nil
	return o
}

// Delete removes an object if it meets the preconditions. A pool is disabled
// first and its blocks are taken back; a tier with policies is refused, and so
// is what always exists.
func (c *Client) Delete(ctx context.Context, kind v3.KindInfo, namespace, name string, pre Preconditions) error {
	id := ident{kind, namespace, name}
	if err := c.delete(ctx, id, pre); err != nil {
		return id.fail("delete", err)
	}
	return nil
}

func (c *Client) delete(ctx context.Context, id ident, pre Preconditions) error {
	if err := c.mayDelete(id); err != nil {
		return err
	}
	var err error
	for attempt := range maxAttempts {
		if attempt > 0 {
			if err := pause(ctx, attempt); err != nil {
				return err
			}
		}
		var doc document
		if doc, err = c.readForDelete(ctx, id); err != nil {
			return err
		}
		if err := doc.is(pre); err != nil {
			return err
		}
		if doc, err = c.beforeDelete(ctx, doc); err == nil {
			err = bare(c.driver.Delete(ctx, doc.kv.Key, doc.kv.Revision))
		}
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		// Somebody else wrote; preconditions are checked against that.
	}
	return err
}

// readForDelete reads a document. One that cannot be read as its kind can
// still be deleted.
func (c *Client) readForDelete(ctx context.Context, id ident) (document, error) {
	doc, err := c.read(ctx, id)
	if !errors.Is(err, ErrUnreadable) {
		return doc, err
	}
	kv, err := c.driver.Get(ctx, id.key())
	if err != nil {
		return document{}, bare(err)
	}
	o := id.kind.New()
	o.Meta().Namespace, o.Meta().Name, o.Meta().ResourceVersion = id.namespace, id.name, string(kv.Revision)
	return document{id: id, object: o, kv: kv}, nil
}

// is checks preconditions.
func (d document) is(pre Preconditions) error {
	m := d.object.Meta()
	switch {
	case pre.UID != "" && pre.UID != m.UID:
		return fmt.Errorf("its uid is %q, not %q: %w", m.UID, pre.UID, store.ErrConflict)
	case pre.ResourceVersion != "" && pre.ResourceVersion != m.ResourceVersion:
		return errStale
	}
	return nil
}

// swap writes want over a document if they differ, and only if nobody else has
// written meanwhile.
func (c *Client) swap(ctx context.Context, doc document, want v3.Object) (v3.Object, Outcome, error) {
	is, m := doc.object.Meta(), want.Meta()
	*want.Type() = *doc.object.Type()
	m.Namespace, m.Name, m.UID, m.CreationTimestamp = is.Namespace, is.Name, is.UID, is.CreationTimestamp
	m.ResourceVersion = is.ResourceVersion
	before, err := encode(doc.object)
	if err != nil {
		return nil, Unchanged, err
	}
	if asWanted, err := encode(want); err != nil || bytes.Equal(before, asWanted) {
		return want, Unchanged, err
	}
	if err := c.checkChange(ctx, doc.object, want); err != nil {
		return nil, Unchanged, err
	}
	v3.Default(want)
	return c.put(ctx, doc, want)
}

// put writes want over a document as it is.
func (c *Client) put(ctx context.Context, doc document, want v3.Object) (v3.Object, Outcome, error) {
	before, err := encode(doc.object)
	if err != nil {
		return nil, Unchanged, err
	}
	after, err := encode(want)
	if err != nil {
		return nil, Unchanged, err
	}
	value, err := overlay(doc.kv.Value, before, after)
	if err != nil {
		return nil, Unchanged, err
	}
	if bytes.Equal(value, doc.kv.Value) {
		return want, Unchanged, nil
	}
	rev, err := c.driver.Update(ctx, store.KV{Key: doc.kv.Key, Value: value, Revision: doc.kv.Revision})
	if err != nil {
		return nil, Unchanged, bare(err)
	}
	want.Meta().ResourceVersion = string(rev)
	return want, Changed, nil
}

// pause waits a random while, longer with each attempt.
func pause(ctx context.Context, attempt int) error {
	return store.Pause(ctx, mathrand.N(min(maxPause, 5*time.Millisecond<<attempt)))
}

// NewUID returns a random UUID (RFC 9562, version 4).
func NewUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
