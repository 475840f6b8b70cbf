package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/store"
)

// fence is one term of one leader. Every write goes together with a write of
// LeaderKey at the revision at which the leader wrote it last: after another
// one has taken over, no write of this one can take effect, however late it
// arrives.
type fence struct {
	cfg   LeadConfig
	tx    store.Transactor
	token string

	mu      sync.Mutex // guards everything below, and is held while writing
	rev     store.Revision
	renewed int64
	since   time.Duration // when the last renewal that is known began
	led     bool          // it was heard at least once
	doubt   bool          // the outcome of a write is not known
	lost    bool
}

// patience is for how long a leader works without being heard: the rest of the
// lease is for it to end before another one begins.
func (f *fence) patience() time.Duration { return f.cfg.Lease * 2 / 3 }

// due reports whether it is time to renew.
func (f *fence) due() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cfg.Uptime()-f.since >= f.cfg.Lease/3
}

// holds reports whether this leader may go on working.
func (f *fence) holds() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.lost && f.cfg.Uptime()-f.since < f.patience()
}

// renew writes LeaderKey alone. ErrDeposed says that another one leads.
func (f *fence) renew(ctx context.Context) error {
	_, err := f.write(ctx, nil)
	return err
}

// resign tells the others that they need not wait. It does not matter whether
// that succeeds.
func (f *fence) resign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.lost && f.settle(ctx) == nil {
		_, _ = f.tx.Transact(ctx, []store.Write{{Key: LeaderKey, Value: f.term(""), Revision: f.rev}})
	}
	f.lost = true
}

func (f *fence) term(holder string) []byte {
	text, err := json.Marshal(term{Version: termVersion, Holder: holder, Token: f.token, Lease: f.cfg.Lease, Renewed: f.renewed})
	if err != nil {
		return nil // a struct of texts and numbers has no such error
	}
	return text
}

// settle finds out whether a write of ours took effect.
func (f *fence) settle(ctx context.Context) error {
	if !f.doubt {
		return nil
	}
	kv, err := f.cfg.Driver.Get(ctx, LeaderKey)
	switch {
	case errors.Is(err, store.ErrNotFound) && f.rev == "":
		f.doubt = false // the first one was not made
		return nil
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return err
	}
	var t term
	if err == nil && json.Unmarshal(kv.Value, &t) == nil && t.Token == f.token {
		f.rev, f.doubt = kv.Revision, false
		return nil
	}
	if err == nil && kv.Revision == f.rev {
		f.doubt = false
		return nil
	}
	f.lost = true
	return ErrDeposed
}

// write makes writes, and renews the lead, in one moment.
func (f *fence) write(ctx context.Context, writes []store.Write) (store.Revision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	began := f.cfg.Uptime()
	if f.lost || len(writes) > 0 && began-f.since >= f.patience() {
		return "", ErrDeposed
	}
	// What hangs must not keep this one believing that it leads.
	limit := f.cfg.Lease / 3
	if f.led {
		limit = min(limit, max(f.patience()-(began-f.since), f.cfg.Lease/12))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := f.settle(ctx); err != nil {
		return "", err
	}
	f.renewed++
	all := append([]store.Write{{Key: LeaderKey, Value: f.term(f.cfg.Name), Revision: f.rev}}, writes...)
	rev, err := f.tx.Transact(ctx, all)
	var refused *store.Refusal
	switch {
	case err == nil:
		f.rev, f.since, f.led = rev, began, true
		return rev, nil
	case errors.As(err, &refused) && refused.Key == LeaderKey:
		f.lost = true
		return "", fmt.Errorf("%w: %w", ErrDeposed, err)
	case errors.As(err, &refused):
		return "", err
	}
	f.doubt = true
	return "", err
}

// fenced is the datastore as the leader's work sees it.
type fenced struct {
	store.Driver
	f *fence
}

var (
	_ store.Transactor = (*fenced)(nil)
	_ store.Pager      = (*fenced)(nil)
)

// Pages implements store.Pager.
func (d *fenced) Pages(ctx context.Context, prefix string, page func([]store.KV, store.Revision) error) error {
	return store.Pages(ctx, d.Driver, prefix, page)
}

// Transact implements store.Transactor.
func (d *fenced) Transact(ctx context.Context, writes []store.Write) (store.Revision, error) {
	return d.f.write(ctx, writes)
}

// Create implements store.Driver.
func (d *fenced) Create(ctx context.Context, key string, value []byte) (store.Revision, error) {
	return d.one(ctx, store.Write{Key: key, Value: value})
}

// Update implements store.Driver.
func (d *fenced) Update(ctx context.Context, kv store.KV) (store.Revision, error) {
	return d.existing(ctx, store.Write(kv))
}

// Delete implements store.Driver.
func (d *fenced) Delete(ctx context.Context, key string, rev store.Revision) error {
	_, err := d.existing(ctx, store.Write{Key: key, Revision: rev})
	return err
}

func (d *fenced) one(ctx context.Context, w store.Write) (store.Revision, error) {
	rev, err := d.f.write(ctx, []store.Write{w})
	var refused *store.Refusal
	if errors.As(err, &refused) && !errors.Is(err, ErrDeposed) {
		return "", fmt.Errorf("write %s: %w", w.Key, refused.Err)
	}
	return rev, err
}

// existing writes a key that must exist; with no revision, at any.
func (d *fenced) existing(ctx context.Context, w store.Write) (store.Revision, error) {
	if w.Revision != "" {
		return d.one(ctx, w)
	}
	for {
		kv, err := d.Driver.Get(ctx, w.Key)
		if err != nil {
			return "", err
		}
		w.Revision = kv.Revision
		rev, err := d.one(ctx, w)
		if !errors.Is(err, store.ErrConflict) {
			return rev, err
		}
	}
}
