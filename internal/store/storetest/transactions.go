package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/brindle-net/brindle/internal/store"
)

// transactor skips the test for a datastore without transactions.
func (s *suite) transactor(t *testing.T) store.Transactor {
	t.Helper()
	tx, ok := s.Driver.(store.Transactor)
	if !ok {
		t.Skip("this datastore writes one key at a time")
	}
	return tx
}

func transactions(t *testing.T, s *suite) {
	tx := s.transactor(t)
	start := s.list(t, "/").Revision
	w := s.watch(t, "/", start)
	rev, err := tx.Transact(s.ctx, []store.Write{{Key: "/a", Value: []byte("1")}, {Key: "/b", Value: []byte{}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range s.list(t, "/").KVs {
		if kv.Revision != rev {
			t.Errorf("%s has revision %q, the transaction %q", kv.Key, kv.Revision, rev)
		}
	}
	w.want("/a=1", "/b=")
	if last := w.last.Events[len(w.last.Events)-1]; last.Revision != rev {
		t.Errorf("the event has revision %q, the transaction %q", last.Revision, rev)
	}
	next, err := tx.Transact(s.ctx, []store.Write{
		{Key: "/a", Revision: rev}, {Key: "/b", Value: []byte("2"), Revision: rev}, {Key: "/c", Value: []byte("3")},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.want("/a=1", "/b=", "/a gone", "/b=2", "/c=3")
	s.watch(t, "/", rev).want("/a gone", "/b=2", "/c=3") // resumes between the two
	s.update(t, "/c", "4", next)
	many := make([]store.Write, store.MaxWrites)
	for i := range many {
		many[i] = store.Write{Key: fmt.Sprintf("/many/%d", i), Value: []byte("x")}
	}
	if _, err := tx.Transact(s.ctx, many); err != nil {
		t.Errorf("a transaction of %d writes: %v", len(many), err)
	}
}

func refusedTransactions(t *testing.T, s *suite) {
	tx := s.transactor(t)
	old := s.create(t, "/a", "1")
	now := s.update(t, "/a", "2", old)
	s.create(t, "/b", "1")
	fresh := store.Write{Key: "/new", Value: []byte("x")}
	tests := []struct {
		name   string
		writes []store.Write
		key    string
		want   error
	}{
		{"create of what exists", []store.Write{fresh, {Key: "/b", Value: []byte("x")}}, "/b", store.ErrExists},
		{"update of nothing", []store.Write{fresh, {Key: "/c", Value: []byte("x"), Revision: now}}, "/c", store.ErrNotFound},
		{"update of an old revision", []store.Write{{Key: "/a", Value: []byte("x"), Revision: old}, fresh}, "/a", store.ErrConflict},
		{"update of a revision that never was", []store.Write{{Key: "/a", Value: []byte("x"), Revision: "no revision"}, fresh}, "/a", store.ErrConflict},
		{"delete of an old revision", []store.Write{fresh, {Key: "/a", Revision: old}}, "/a", store.ErrConflict},
		{"the first of two", []store.Write{{Key: "/a", Revision: old}, {Key: "/b", Value: []byte("x")}, fresh}, "/a", store.ErrConflict},
	}
	for _, tt := range tests {
		_, err := tx.Transact(s.ctx, tt.writes)
		wantError(t, tt.name, err, tt.want)
		var refused *store.Refusal
		if !errors.As(err, &refused) || refused.Key != tt.key {
			t.Errorf("%s: error %v does not name %s", tt.name, err, tt.key)
		}
	}
	ended, cancel := context.WithCancel(s.ctx)
	cancel()
	_, err := tx.Transact(ended, []store.Write{fresh})
	wantError(t, "cancelled", err, context.Canceled)
	if d := cmp.Diff([]string{"/a=2", "/b=1"}, lines(s.list(t, "/"))); d != "" {
		t.Errorf("refused transactions wrote (-want +got):\n%s", d)
	}
}
