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
	list, err := d.List(ctx, store.ResourceRoot)
	if err != nil {
		return nil, fmt.Errorf("read the datastore: %w", err)
	}
	p := newParser("")
	var out []model.Event
	for _, kv := range list.KVs {
		// The error is in the event too, as what makes the object invalid.
		if e, ok, _ := p.event(store.Event{Key: kv.Key, Value: kv.Value}); ok {
			out = append(out, e)
		}
	}
	return out, nil
}
