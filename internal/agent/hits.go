package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/files"
)

// hits adds up how often each rule of a policy matched, over restarts of the
// agent and of the host: the kernel's counters begin at zero now and then.
type hits struct {
	path string // of the file that they are kept in
	log  *slog.Logger
	// counters reads the kernel's counters by name.
	counters func(ctx context.Context) (map[string]nft.Count, error)
	// listed says which rules this host enforces now.
	listed func() map[desired.RulesID]int // number of rules

	mu      sync.Mutex // guards what follows
	kept    keptHits
	changed bool // since the file was written
}

// keptHits is the file's content.
type keptHits struct {
	Version int                  `json:"version"`
	Since   time.Time            `json:"since"`
	Rules   map[string]*ruleHits `json:"rules"`
}

// ruleHits is one rule, by the name of its counter.
type ruleHits struct {
	Owner     string    `json:"owner"`
	Direction string    `json:"direction"`
	Index     int       `json:"index"`
	Packets   uint64    `json:"packets"`
	Bytes     uint64    `json:"bytes"`
	LastHit   time.Time `json:"lastHit,omitzero"`
	Seen      time.Time `json:"seen"`   // when this host last enforced it
	Kernel    nft.Count `json:"kernel"` // the counter as last read
}

const (
	hitsVersion = 1
	// hitsPace is how often counters are read: what LastHit is exact to.
	hitsPace = 10 * time.Second
	// hitsStay is how long a rule that this host does not enforce any more is
	// remembered: its workload may come back.
	hitsStay = 7 * 24 * time.Hour
	// hitsMost is how many such rules are remembered: who may write policy can
	// make and delete any number of them.
	hitsMost = 10000
)

// newHits reads what was kept. A file that cannot be read is started anew,
// loudly: it holds statistics, not policy.
func newHits(path string, log *slog.Logger) *hits {
	h := &hits{path: path, log: log, kept: keptHits{Version: hitsVersion, Since: time.Now().UTC(), Rules: map[string]*ruleHits{}}}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return h
	}
	var kept keptHits
	if err == nil {
		err = json.Unmarshal(data, &kept)
	}
	if err == nil && kept.Version != hitsVersion {
		err = fmt.Errorf("version %d, and %d is known", kept.Version, hitsVersion)
	}
	if err != nil {
		log.Warn("hits of policy rules start anew", "file", path, "err", err)
		return h
	}
	if kept.Rules == nil {
		kept.Rules = map[string]*ruleHits{}
	}
	h.kept = kept
	return h
}

// run reads the counters now and then and keeps the sums, until ctx ends.
func (h *hits) run(ctx context.Context) error {
	tick := time.NewTicker(hitsPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), h.save())
		case <-tick.C:
		}
		err := h.read(ctx)
		if err == nil {
			err = h.save()
		}
		if err != nil && ctx.Err() == nil {
			h.log.WarnContext(ctx, "hits of policy rules not read", "err", err)
		}
	}
}

// read adds what the kernel counted since the last time.
func (h *hits) read(ctx context.Context) error {
	now, err := h.counters(ctx)
	if err != nil {
		return err
	}
	listed, at := h.listed(), time.Now().UTC()
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, n := range listed {
		for i := range n {
			name := rules.RuleCounter(id, i)
			c, counted := now[name]
			if !counted {
				continue // not in force yet
			}
			r := h.kept.Rules[name]
			if r == nil {
				r = &ruleHits{Owner: id.Owner, Direction: id.Direction.String(), Index: i}
				h.kept.Rules[name] = r
			}
			h.changed = r.add(c, at) || h.changed
		}
	}
	h.forget(at)
	return nil
}

// forget forgets rules that this host does not enforce any more: those that it
// has not for long, and of too many the oldest. h.mu is held.
func (h *hits) forget(at time.Time) {
	var idle []string
	for name, r := range h.kept.Rules {
		switch {
		case at.Sub(r.Seen) > hitsStay:
			delete(h.kept.Rules, name)
			h.changed = true
		case r.Seen.Before(at):
			idle = append(idle, name)
		}
	}
	if len(idle) <= hitsMost {
		return
	}
	slices.SortFunc(idle, func(a, b string) int {
		return cmp.Or(h.kept.Rules[a].Seen.Compare(h.kept.Rules[b].Seen), cmp.Compare(a, b))
	})
	for _, name := range idle[:len(idle)-hitsMost] {
		delete(h.kept.Rules, name)
	}
	h.changed = true
}

// add takes a counter's new reading. One that went down was made anew.
func (r *ruleHits) add(c nft.Count, at time.Time) bool {
	old := r.Kernel
	if c.Packets < old.Packets || c.Bytes < old.Bytes {
		old = nft.Count{}
	}
	r.Seen, r.Kernel = at, c
	if c.Packets == old.Packets {
		return false
	}
	r.Packets += c.Packets - old.Packets
	r.Bytes += c.Bytes - old.Bytes
	r.LastHit = at
	return true
}

// save writes the file anew if anything changed.
func (h *hits) save() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.changed {
		return nil
	}
	data, err := json.Marshal(h.kept)
	if err != nil {
		return fmt.Errorf("keep hits of policy rules: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(h.path), 0o700); err != nil {
		return fmt.Errorf("keep hits of policy rules: %w", err)
	}
	if err := files.Swap(h.path, data, 0o600); err != nil {
		return fmt.Errorf("keep hits of policy rules: %w", err)
	}
	h.changed = false
	return nil
}

// stats returns the sums of the rules that this host enforces now.
func (h *hits) stats(ctx context.Context) (agentapi.PolicyStats, error) {
	if err := h.read(ctx); err != nil {
		return agentapi.PolicyStats{}, err
	}
	listed := h.listed()
	h.mu.Lock()
	defer h.mu.Unlock()
	out := agentapi.PolicyStats{Since: h.kept.Since.Format(time.RFC3339), Rules: []agentapi.RuleStat{}}
	for id, n := range listed {
		for i := range n {
			out.Rules = append(out.Rules, h.stat(id, i))
		}
	}
	slices.SortFunc(out.Rules, compareStats)
	return out, nil
}

// stat is one rule's sum. h.mu is held.
func (h *hits) stat(id desired.RulesID, index int) agentapi.RuleStat {
	s := agentapi.RuleStat{Owner: id.Owner, Direction: id.Direction.String(), Index: index}
	r := h.kept.Rules[rules.RuleCounter(id, index)]
	if r == nil {
		return s
	}
	s.Packets, s.Bytes = r.Packets, r.Bytes
	if !r.LastHit.IsZero() {
		s.LastHit = r.LastHit.Format(time.RFC3339)
	}
	return s
}

// of returns the sums of the rules whose counters are among names.
func (h *hits) of(names []string) []agentapi.RuleStat {
	listed := h.listed()
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []agentapi.RuleStat{}
	for id, n := range listed {
		for i := range n {
			if _, ok := slices.BinarySearch(names, rules.RuleCounter(id, i)); ok {
				out = append(out, h.stat(id, i))
			}
		}
	}
	slices.SortFunc(out, compareStats)
	return out
}

func compareStats(a, b agentapi.RuleStat) int {
	return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Index, b.Index))
}
