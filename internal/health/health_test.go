package health

import (
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestReadinessFollowsTheChecks(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ok := true
	h := New(Config{
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
		Checks: []Check{
			{Type: Kernel, Eval: func() Verdict { return Verdict{true, "Programmed", ""} }},
			{Type: Policy, Eval: func() Verdict {
				if ok {
					return Verdict{true, "NoPolicy", ""}
				}
				return Verdict{false, "PolicyNotEnforced", "1 policy"}
			}},
			{Type: Paths, Eval: func() Verdict { return Verdict{false, "PathMTU", "advice"} }, Advisory: true},
		},
		Samples: func() []Sample {
			return []Sample{{Name: "brindle_routes", Help: "Routes.", Labels: map[string]string{"table": "bgp"}, Value: 7}}
		},
	})
	if ready, _ := h.Ready(); !ready {
		t.Fatal("not ready although every check passes")
	}
	now, ok = now.Add(time.Minute), false
	ready, conds := h.Ready()
	if ready || conds[1].Since != "2026-01-02T03:05:05Z" || conds[0].Since != "2026-01-02T03:04:05Z" {
		t.Errorf("ready=%v conditions=%+v", ready, conds)
	}
	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": `"reason": "PolicyNotEnforced"`,
		"/metrics": `brindle_routes{table="bgp"} 7`,
	} {
		rec := httptest.NewRecorder()
		h.Handler().ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		body, _ := io.ReadAll(rec.Result().Body)
		if !strings.Contains(string(body), want) {
			t.Errorf("%s: %s\nlacks %s", path, body, want)
		}
		if code := rec.Result().StatusCode; (code == 503) != (path == "/readyz") {
			t.Errorf("%s: status %d", path, code)
		}
	}
}
