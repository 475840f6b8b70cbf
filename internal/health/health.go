// Package health says how a program is: a few conditions evaluated when
// somebody asks, served as /healthz, /readyz and /metrics. It owns the
// Prometheus client.
package health

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
)

// The conditions of an agent, in the order in which they are shown.
const (
	Datastore = "Datastore" // connected, in sync, and the cluster's record says ready
	Kernel    = "Kernel"    // every table of the kernel is as it should be
	Policy    = "Policy"    // every policy that selects a local endpoint is enforced
	Routing   = "Routing"   // every session is up and End-of-RIB has passed both ways
	Settings  = "Settings"  // all that settings say is done; advisory: what was in force before stays
	Addresses = "Addresses" // this host has the addresses that it is known by, and others answer there; advisory
	Paths     = "Paths"     // what was measured of the ways through tunnels is fine; advisory
)

// Verdict is what a check finds.
type Verdict struct {
	OK      bool
	Reason  string // CamelCase, for machines
	Message string // for people; says what to do when not OK
}

// Check is one condition and how to evaluate it. Eval is cheap and may be
// called from any goroutine.
type Check struct {
	Type string
	Eval func() Verdict
	// Advisory: the program is ready whatever comes of it.
	Advisory bool
}

// Config is what a Health needs.
type Config struct {
	Checks  []Check
	Samples func() []Sample // metrics of the program, read at each scrape
	Alive   func() error    // nil when the program's main loop is alive
	Log     *slog.Logger
	Now     func() time.Time
	// OmitGo and OmitProcess are asked at each scrape whether the metrics of the
	// Go runtime, and those that the kernel has of the process, are left out;
	// nil: they are not.
	OmitGo, OmitProcess func() bool
}

// Health evaluates the conditions and remembers since when each has held.
type Health struct {
	cfg Config

	mu   sync.Mutex // guards everything below
	last map[string]agentapi.Condition
}

// New returns a Health over the given checks.
func New(cfg Config) *Health {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Health{cfg: cfg, last: map[string]agentapi.Condition{}}
}

// Conditions evaluates every check.
func (h *Health) Conditions() []agentapi.Condition {
	out := make([]agentapi.Condition, 0, len(h.cfg.Checks))
	for _, c := range h.cfg.Checks {
		v := c.Eval()
		out = append(out, h.note(c, v))
	}
	return out
}

// note gives a verdict its "since" and logs it when it is a change.
func (h *Health) note(check Check, v Verdict) agentapi.Condition {
	h.mu.Lock()
	defer h.mu.Unlock()
	kind := check.Type
	old, known := h.last[kind]
	c := agentapi.Condition{Type: kind, Status: v.OK, Reason: v.Reason, Message: v.Message, Since: old.Since, Advisory: check.Advisory}
	if !known || old.Status != c.Status {
		c.Since = h.cfg.Now().UTC().Format(time.RFC3339)
	}
	if !known || old.Status != c.Status || old.Reason != c.Reason {
		level := slog.LevelInfo
		if known && !c.Status {
			level = slog.LevelWarn
		}
		h.cfg.Log.Log(context.Background(), level, "condition changed",
			"condition", kind, "status", c.Status, "reason", c.Reason, "message", c.Message)
	}
	h.last[kind] = c
	return c
}

// Ready reports whether every condition holds that is more than advice, and all
// of them.
func (h *Health) Ready() (bool, []agentapi.Condition) {
	conditions, ready := h.Conditions(), true
	for _, c := range conditions {
		ready = ready && (c.Status || c.Advisory)
	}
	return ready, conditions
}

// Run evaluates the conditions every period, so that changes are logged even
// when nobody asks, until ctx ends.
func (h *Health) Run(ctx context.Context, period time.Duration) error {
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		h.Conditions()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// Handler serves /healthz, /readyz and /metrics.
func (h *Health) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", h.serveAlive)
	mux.HandleFunc("GET /readyz", h.serveReady)
	mux.Handle("GET /metrics", h.metrics())
	return mux
}

func (h *Health) serveAlive(w http.ResponseWriter, _ *http.Request) {
	if h.cfg.Alive != nil {
		if err := h.cfg.Alive(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n")) // the reader has gone: nothing to do
}

func (h *Health) serveReady(w http.ResponseWriter, _ *http.Request) {
	ready, conditions := h.Ready()
	w.Header().Set("Content-Type", "application/json")
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(struct {
		Ready      bool                 `json:"ready"`
		Conditions []agentapi.Condition `json:"conditions"`
	}{ready, conditions}) // as above
}
