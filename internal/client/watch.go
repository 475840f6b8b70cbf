package client

import (
	"context"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
)

// Event is one change of one object.
type Event struct {
	Namespace, Name string
	Object          v3.Object // nil when it is gone, or when Err is set
	Revision        store.Revision
	Err             error // ErrUnreadable: there is an object, but of no known form
}

// Batch is what a watch delivers at once, as store.Batch.
type Batch struct {
	Events   []Event
	Revision store.Revision
	Err      error // store.ErrCompacted: list again; anything else: watch again
}

// Watch delivers every change of a kind, or with a namespace of those in it,
// after a revision that a List or a Batch gave, as store.Driver's Watch does.
// What exists without being stored never changes.
func (c *Client) Watch(ctx context.Context, kind v3.KindInfo, namespace string, after store.Revision) <-chan Batch {
	out := make(chan Batch)
	id := ident{kind, namespace, ""}
	go func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		send := func(b Batch) bool {
			select {
			case out <- b:
				return true
			case <-ctx.Done():
				return false
			}
		}
		if err := id.checkKind(); err != nil {
			send(Batch{Err: id.fail("watch", err)})
			return
		}
		for raw := range c.driver.Watch(ctx, id.prefix(), after) {
			b := Batch{Revision: raw.Revision, Events: events(id, raw.Events)}
			if raw.Err != nil {
				b.Err = id.fail("watch", raw.Err)
			}
			if !send(b) {
				return
			}
		}
	}()
	return out
}

// Changes is what Follow delivers at once.
type Changes struct {
	Events []Event
	InSync bool // with this update everything that was there has been handed over
}

// Follow hands over every object of a kind, or with a namespace those in it,
// and then every change, until ctx ends, whose error it returns. It lists and
// watches again by itself, as store.Follow does, and calls handle from one
// goroutine. What exists without being stored is not among it.
func (c *Client) Follow(ctx context.Context, kind v3.KindInfo, namespace string, handle func(Changes), cfg store.FollowConfig) error {
	id := ident{kind, namespace, ""}
	if err := id.checkKind(); err != nil {
		return id.fail("watch", err)
	}
	return store.Follow(ctx, c.driver, id.prefix(), func(u store.Update) {
		handle(Changes{Events: events(id, u.Events), InSync: u.InSync})
	}, cfg)
}

// events translates what the datastore delivers.
func events(id ident, raw []store.Event) []Event {
	var out []Event
	for _, e := range raw {
		one, ok := id.parse(e.Key)
		if !ok || virtual(one) != nil {
			continue
		}
		ev := Event{Namespace: one.namespace, Name: one.name, Revision: e.Revision}
		if e.Value != nil {
			doc, err := decode(one, store.KV(e))
			ev.Object = doc.object
			if err != nil {
				ev.Err = one.fail("watch", err)
			}
		}
		out = append(out, ev)
	}
	return out
}
