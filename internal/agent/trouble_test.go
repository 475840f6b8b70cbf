package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// refusing is a table that is empty and stays so.
type refusing map[string]error

func (r refusing) List(context.Context) (map[string]int, error) { return nil, nil }

func (r refusing) Apply(_ context.Context, p reconcile.Plan[string, int]) map[string]error {
	failed := map[string]error{}
	for _, e := range p.Set {
		if err := r[e.Key]; err != nil {
			failed[e.Key] = err
		}
	}
	return failed
}

func TestMissingInterfacesAreNoTrouble(t *testing.T) {
	gone, busy := fmt.Errorf("set up link: cali1: %w", kernel.ErrNoLink), errors.New("device busy")
	for _, c := range []struct {
		name string
		in   refusing
		want string
	}{
		{"nothing fails", refusing{}, ""},
		{"interfaces are gone", refusing{"a": gone, "b": gone}, ""},
		{"something else fails", refusing{"b": busy}, "1 of the changes failed; first b: device busy"},
		{"both, the missing one first", refusing{"a": gone, "b": busy}, "1 of the changes failed; first b: device busy"},
		{"both, the missing one last", refusing{"a": busy, "b": gone}, "first a: device busy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := reconcile.New(c.in, reconcile.Config[string, int]{
					Name: "test", Compare: cmp.Compare[string], Equal: func(a, b int) bool { return a == b },
					Settle: time.Millisecond, Resync: time.Minute, MaxRetry: time.Second, Log: slog.New(slog.DiscardHandler),
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() { _ = l.Run(ctx) }()
				l.Want(desired.Patch[string, int]{Set: map[string]int{"a": 1, "b": 1}})
				l.InSync()
				time.Sleep(time.Second)
				synctest.Wait()
				err := present(l)
				if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			})
		})
	}
}
