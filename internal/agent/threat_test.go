package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// TestThreat34BackEndThatAlwaysFails lets the back end fail for an hour in
// which policy and the kernel keep changing: attempts, the log and memory stay
// small, and the failure is told.
func TestThreat34BackEndThatAlwaysFails(t *testing.T) {
	for _, c := range []struct {
		name  string
		every time.Duration // between two changes; 0: none after the first
		tries int           // at most, in the hour
	}{
		{"nothing changes", 0, 400},
		{"everything changes all the time", 100 * time.Millisecond, 3700},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, b, table := document(false, nil, connection("10.0.0.9", "10.0.0.1"))
				b.fail = errors.New("no buffer space available")
				var log bytes.Buffer
				loop := reconcile.NewWhole(d, reconcile.WholeConfig{
					Name: "policy", Settle: settle, MaxRetry: maxRetry, Log: slog.New(slog.NewTextHandler(&log, nil)),
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() { _ = loop.Run(ctx) }() // ends with ctx
				go func() { _ = d.look(ctx) }()
				loop.Want(set("cali1", endpoint("a", "10.0.0.1")))
				loop.InSync()
				for end := time.Now().Add(time.Hour); time.Now().Before(end); {
					if c.every == 0 {
						time.Sleep(time.Hour) // fake time
						continue
					}
					time.Sleep(c.every)
					loop.Want(set("cali1", endpoint("a", "10.0.0.1")))
					loop.Want(desired.PolicyPatch{Endpoints: desired.Patch[string, *desired.Endpoint]{Delete: []string{"cali2"}}})
					loop.Drift()
				}
				cancel()
				synctest.Wait()
				lines := strings.Count(log.String(), "\n")
				if n := len(b.calls); n > c.tries || n < 100 {
					t.Errorf("%d attempts, want at most %d and not none", n, c.tries)
				}
				if lines > c.tries || lines == 0 || log.Len() > 1<<20 {
					t.Errorf("%d lines of %d bytes in the log", lines, log.Len())
				}
				if table.lists > 0 {
					t.Errorf("the table of connections was read %d times for a policy that is not in force", table.lists)
				}
				if s := loop.Stats(); s.Failing != 1 || loop.Err() == nil {
					t.Errorf("the failure is not told: %+v, %v", s, loop.Err())
				}
			})
		})
	}
}
