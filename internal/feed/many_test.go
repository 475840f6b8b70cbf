package feed

import (
	"fmt"
	"log/slog"
	"reflect"
	"testing"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/store"
)

// TestManyEvents: many at once are read as one after the other, in their order.
// Addresses have no part in it, so neither has their family.
func TestManyEvents(t *testing.T) {
	var stored []store.Event
	for i := range 3*manyEvents + 1 {
		name := fmt.Sprint("n", i)
		key, value := object("nodes", "Node", "", name, fmt.Sprintf(`{"bgp":{"asNumber":%d}}`, i+1))
		e := store.Event{Key: key, Value: []byte(value)}
		switch i % 5 {
		case 1:
			e.Value = []byte("{")
		case 2:
			e.Value = nil
		case 3:
			e.Key = "/calico/other/" + name
		}
		stored = append(stored, e)
	}
	p, log := newParser("me"), slog.New(slog.DiscardHandler)
	got := p.events(t.Context(), log, stored)
	var want []model.Event
	for _, s := range stored {
		want = append(want, p.events(t.Context(), log, []store.Event{s})...)
	}
	if !reflect.DeepEqual(got, want) || len(got) == len(stored) || len(got) == 0 {
		t.Errorf("%d events, one by one %d", len(got), len(want))
	}
}
