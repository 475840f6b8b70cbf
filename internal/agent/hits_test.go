package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
)

// counted is a kernel that has counted so much for the first rule of a policy.
func counted(h *hits, packets uint64) {
	id := desired.RulesID{Owner: "NetworkPolicy default/web"}
	h.listed = func() map[desired.RulesID]int { return map[desired.RulesID]int{id: 2} }
	h.counters = func(context.Context) (map[string]nft.Count, error) {
		return map[string]nft.Count{rules.RuleCounter(id, 0): {Packets: packets, Bytes: 100 * packets}}, nil
	}
}

func statsOf(t *testing.T, h *hits) []agentapi.RuleStat {
	t.Helper()
	s, err := h.stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Rules
}

// TestHitsAddUp: over counters that begin anew, and over restarts.
func TestHitsAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "state", "hits.json")
		h := newHits(path, slog.New(slog.DiscardHandler))
		since := time.Now().UTC()
		counted(h, 0)
		if got := statsOf(t, h); len(got) != 2 || got[0].Packets != 0 || got[0].LastHit != "" {
			t.Fatalf("at first %+v", got)
		}
		time.Sleep(time.Minute)
		counted(h, 5)
		hit := time.Now().UTC().Format(time.RFC3339)
		statsOf(t, h)
		time.Sleep(time.Hour)
		want := agentapi.RuleStat{Owner: "NetworkPolicy default/web", Direction: "ingress", Packets: 5, Bytes: 500, LastHit: hit}
		if got := statsOf(t, h)[0]; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if err := h.save(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("file %v, %v", info.Mode(), err)
		}

		// The agent starts anew and finds the counter where it left it, then
		// made anew.
		h = newHits(path, slog.New(slog.DiscardHandler))
		counted(h, 5)
		if got := statsOf(t, h)[0]; got != want {
			t.Errorf("after a restart %+v, want %+v", got, want)
		}
		counted(h, 2)
		want.Packets, want.Bytes, want.LastHit = 7, 700, time.Now().UTC().Format(time.RFC3339)
		if got := statsOf(t, h)[0]; got != want {
			t.Errorf("after the counter was made anew %+v, want %+v", got, want)
		}
		s, err := h.stats(t.Context())
		if err != nil || s.Since != since.Format(time.RFC3339) {
			t.Errorf("since %s, %v; want %v", s.Since, err, since)
		}
		names := []string{rules.RuleCounter(desired.RulesID{Owner: "NetworkPolicy default/web"}, 0)}
		if got := h.of(names); len(got) != 1 || got[0] != want {
			t.Errorf("of one rule: %+v", got)
		}

		// A rule that is long gone is forgotten.
		h.listed = func() map[desired.RulesID]int { return nil }
		time.Sleep(8 * 24 * time.Hour)
		if statsOf(t, h); len(h.kept.Rules) != 0 {
			t.Errorf("still kept: %v", h.kept.Rules)
		}
	})
}

func TestHitsRunSavesAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "hits.json")
		h := newHits(path, slog.New(slog.DiscardHandler))
		counted(h, 3)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.run(ctx) }()
		time.Sleep(hitsPace + time.Second)
		cancel()
		<-done
		h = newHits(path, slog.New(slog.DiscardHandler))
		if len(h.kept.Rules) != 1 {
			t.Errorf("kept %v", h.kept.Rules)
		}
	})
}

// TestBadHitsFile: statistics that cannot be read are not worth a host.
func TestBadHitsFile(t *testing.T) {
	for name, text := range map[string]string{"broken": "{", "newer": `{"version": 9}`} {
		path := filepath.Join(t.TempDir(), "hits.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		h := newHits(path, slog.New(slog.NewTextHandler(&log, nil)))
		counted(h, 1)
		if got := statsOf(t, h); got[0].Packets != 1 || !strings.Contains(log.String(), "start anew") {
			t.Errorf("%s: %+v, log %s", name, got, &log)
		}
	}
}
