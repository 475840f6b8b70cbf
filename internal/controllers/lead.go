package controllers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/brindle-net/brindle/internal/store"
)

// LeaderKey says who leads. It lies outside everything that Calico's programs
// read.
const LeaderKey = "/brindle/leader"

// DefaultLease is for how long a leader is believed without a word.
const DefaultLease = 15 * time.Second

// ErrDeposed is the error of writes by one who leads no more.
var ErrDeposed = errors.New("another one leads now")

// LeadConfig is what Lead needs.
type LeadConfig struct {
	Driver store.Driver  // required; a store.Transactor
	Name   string        // of this candidate, for humans
	Lease  time.Duration // 0: DefaultLease
	// Work is what only the leader does, until ctx ends. Each of its writes
	// to d takes effect only if this candidate leads at that very moment.
	Work func(ctx context.Context, d store.Driver) error
	// Uptime is a clock that never steps; nil is the process's own.
	Uptime func() time.Duration
	Log    *slog.Logger // nil: silent
}

// term is what LeaderKey holds. Nobody compares clocks: the others note how
// long, by their own, the key has not changed.
type term struct {
	Version int           `json:"version"`
	Holder  string        `json:"holder"` // "": the leader left
	Token   string        `json:"token"`  // of this one term
	Lease   time.Duration `json:"lease"`  // nanoseconds
	Renewed int64         `json:"renewed"`
}

// termVersion is the version of term as JSON.
const termVersion = 1

// candidate is one run of Lead.
type candidate struct {
	cfg  LeadConfig
	tx   store.Transactor
	seen store.Revision // of LeaderKey
	at   time.Duration  // when it was seen first
}

// Lead does the work while this candidate leads, and stands by while another
// one does. It takes over when that one has been silent for its lease, or has
// left. It returns the context's error, or that of work that ended by itself.
func Lead(ctx context.Context, cfg LeadConfig) error {
	if cfg.Lease <= 0 {
		cfg.Lease = DefaultLease
	}
	if cfg.Uptime == nil {
		began := time.Now()
		cfg.Uptime = func() time.Duration { return time.Since(began) } // monotonic
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	tx, ok := cfg.Driver.(store.Transactor)
	if !ok {
		return errors.New("lead: this datastore cannot write two keys at once, so a leader could not be told from a former one")
	}
	c := &candidate{cfg: cfg, tx: tx}
	tick := time.NewTicker(cfg.Lease / 3)
	defer tick.Stop()
	for {
		f, err := c.campaign(ctx)
		if err != nil && ctx.Err() == nil {
			cfg.Log.WarnContext(ctx, "cannot say who leads", "err", err, "retry_in", cfg.Lease/3)
		}
		if f != nil {
			if err := c.lead(ctx, f); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// campaign makes this candidate the leader if nobody else is; nil if somebody
// is.
func (c *candidate) campaign(ctx context.Context) (*fence, error) {
	kv, err := c.cfg.Driver.Get(ctx, LeaderKey)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err == nil {
		var t term
		bad := json.Unmarshal(kv.Value, &t)
		if bad == nil && t.Version > termVersion+1 {
			return nil, fmt.Errorf("%s is of version %d, this program reads up to %d; use the newer release", LeaderKey, t.Version, termVersion+1)
		}
		if kv.Revision != c.seen {
			c.seen, c.at = kv.Revision, c.cfg.Uptime()
		}
		if (bad != nil || t.Holder != "") && c.cfg.Uptime()-c.at < max(t.Lease, c.cfg.Lease) {
			return nil, nil
		}
	}
	f := &fence{cfg: c.cfg, tx: c.tx, token: rand.Text(), rev: kv.Revision}
	err = f.renew(ctx)
	if errors.Is(err, ErrDeposed) {
		return nil, nil // somebody was faster
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// lead works until ctx ends or another one leads; both are no error.
func (c *candidate) lead(ctx context.Context, f *fence) error {
	log := c.cfg.Log
	log.InfoContext(ctx, "this server leads", "name", c.cfg.Name)
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.cfg.Work(working, &fenced{Driver: c.cfg.Driver, f: f}) }()
	tick := time.NewTicker(c.cfg.Lease / 6)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			f.resign(ctx)
			if ctx.Err() != nil {
				return nil
			}
			return err
		case <-tick.C:
		}
		if ctx.Err() == nil && !f.due() {
			continue
		}
		err := f.renew(ctx)
		if err != nil && !errors.Is(err, ErrDeposed) && f.holds() && ctx.Err() == nil {
			log.WarnContext(ctx, "lead not renewed", "err", err, "retry_in", c.cfg.Lease/6)
			continue
		}
		if err == nil {
			continue
		}
		cancel()
		<-done
		f.resign(ctx)
		if ctx.Err() == nil {
			log.WarnContext(ctx, "this server leads no more", "name", c.cfg.Name, "err", err)
		}
		return nil
	}
}
