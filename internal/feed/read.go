package feed

import (
	"context"
	"fmt"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/store"
)

// Read reads all resources of a datastore once, as of one moment, for those
// who look at the whole network and not for one host. Like Run, it hands over
// what cannot be used as model.Invalid.
func Read(ctx context.Context, d store.Driver) ([]model.Event, error) {
	return ReadBelow(ctx, d, store.ResourceRoot)
}

// ReadBelow is Read for the keys that begin with a prefix.
func ReadBelow(ctx context.Context, d store.Driver, prefix string) ([]model.Event, error) {
	list, err := d.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("read the datastore: %w", err)
	}
	p := newParser("")
	stored := make([]store.Event, len(list.KVs))
	for i, kv := range list.KVs {
		stored[i] = store.Event{Key: kv.Key, Value: kv.Value}
	}
	var out []model.Event
	for _, r := range p.readAll(stored) {
		if r.ok { // the error is in the event too, as what makes the object invalid
			out = append(out, r.event)
		}
	}
	return out, nil
}
