package client

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// watched is what somebody who watches everything sees, in order.
func watched(t *testing.T, d store.Driver, after store.Revision, n int) []store.Event {
	t.Helper()
	var out []store.Event
	for b := range d.Watch(t.Context(), "/", after) {
		if out = append(out, b.Events...); len(out) >= n {
			break
		}
	}
	return out
}

func TestSigned(t *testing.T) {
	d := mem.New()
	start, err := d.List(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	s := Sign(d, Writer{By: "alice@h1", Via: "brindle apply"})
	c := New(s, Config{})
	set := &v3.GlobalNetworkSet{}
	set.Name = "s"
	if _, err := Create(t.Context(), c, set); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), c, set); !IsExists(err) {
		t.Errorf("a second one: %v", err)
	}
	is, err := Modify(t.Context(), c, "", "s", func(s *v3.GlobalNetworkSet) error { s.Labels = map[string]string{"a": "b"}; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := Delete[v3.GlobalNetworkSet](t.Context(), c, "", "s", Preconditions{ResourceVersion: "1"}); !IsConflict(err) {
		t.Errorf("deleted in another state: %v", err)
	}
	if err := Delete[v3.GlobalNetworkSet](t.Context(), c, "", "s", Preconditions{ResourceVersion: is.ResourceVersion}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), store.BlockRoot+"x", nil); err != nil {
		t.Fatal(err)
	}
	events := watched(t, d, start.Revision, 7)
	signed := map[store.Revision]string{}
	for _, e := range events {
		if strings.HasPrefix(e.Key, store.WriterRoot) {
			signed[e.Revision] = string(e.Value)
		}
	}
	changes := 0
	for _, e := range events {
		switch {
		case strings.HasPrefix(e.Key, store.ResourceRoot):
			if changes++; signed[e.Revision] != `{"by":"alice@h1","via":"brindle apply"}` {
				t.Errorf("%s at %s is signed %q", e.Key, e.Revision, signed[e.Revision])
			}
		case strings.HasPrefix(e.Key, store.BlockRoot) && signed[e.Revision] != "":
			t.Error("a block is signed")
		}
	}
	if changes != 3 || len(events) != 7 {
		t.Errorf("%d changes in %d events", changes, len(events))
	}
	if plain := (struct{ store.Driver }{d}); Sign(plain, Writer{}) != store.Driver(plain) {
		t.Error("a datastore without transactions is signed")
	}
}

// TestSignedTogether: many who sign in one place at once all get through.
func TestSignedTogether(t *testing.T) {
	d := mem.New()
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			s := Sign(d, Writer{By: "alice@h1"})
			for j := range 5 {
				key := store.ResourceRoot + strings.Repeat("x", i+1) + "/" + strings.Repeat("y", j+1)
				if _, err := s.Create(t.Context(), key, nil); err != nil {
					t.Errorf("%s: %v", key, err)
				}
			}
		})
	}
	group.Wait()
	list, err := d.List(t.Context(), "/")
	if err != nil || len(list.KVs) != 41 {
		t.Errorf("%d keys, %v", len(list.KVs), err)
	}
}

// restricted is a datastore that lets nobody sign.
type restricted struct{ *mem.Store }

func (restricted) Transact(context.Context, []store.Write) (store.Revision, error) {
	return "", store.ErrDenied
}

func TestSignedWhoMayNot(t *testing.T) {
	s := Sign(restricted{mem.New()}, Writer{By: "bob@h2"})
	key := store.ResourceRoot + "x/y"
	rev, err := s.Create(t.Context(), key, []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	if rev, err = s.Update(t.Context(), store.KV{Key: key, Value: []byte("2"), Revision: rev}); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), key, rev); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("still there: %v", err)
	}
}
