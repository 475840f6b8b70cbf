// Package feed follows the datastore for the core of one host: it turns
// stored keys and values into model events, leaves out what no host needs,
// and hands over what changed, at most once for each object.
package feed

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/store"
)

// Batch is what changed. InSync is true in the first batch of a Run and no
// other: it holds everything that the datastore held at the start.
type Batch struct {
	Events []model.Event
	InSync bool
}

// Config says what to follow. Driver and Node are needed.
type Config struct {
	Driver     store.Driver
	Node       string        // name of this host
	MinBackoff time.Duration // as of store.FollowConfig
	MaxBackoff time.Duration
	Log        *slog.Logger // nil: nowhere
	Status     *Status      // kept up to date if not nil
	// Last is what was last read, before the start, of objects that hold when
	// they cannot be read.
	Last map[model.ID]model.Value
}

// Run follows the datastore until ctx ends and returns the error of ctx. It
// calls sink from its own goroutine, one batch at a time; while sink works
// changes pile up, one for each object at most, the last one winning. An
// object that cannot be used arrives as model.Invalid and is logged once for
// each change. What is said about policy (tiers, policies, profiles, sets of
// networks), pools and BGP and cannot be read stays what it was when it could be,
// as long as Run lasts.
func Run(ctx context.Context, cfg Config, sink func(Batch)) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Status == nil {
		cfg.Status = &Status{}
	}
	q := newQueue(len(cfg.Status.parts))
	q.passage = &cfg.Status.passage
	p := newParser(cfg.Node)
	p.known = &known{last: map[model.ID]model.Value{}, unseen: map[model.ID]bool{}}
	maps.Copy(p.known.last, cfg.Last)
	for id := range cfg.Last {
		p.known.unseen[id] = true
	}
	var group sync.WaitGroup
	for i, prefix := range prefixes(cfg.Node) {
		group.Go(func() {
			handle := func(u store.Update) {
				events := p.events(ctx, cfg.Log, u.Events)
				if u.InSync && prefix == store.ResourceRoot {
					p.known.forget()
				}
				q.add(events, u.InSync)
			}
			err := store.Follow(ctx, cfg.Driver, prefix, handle, store.FollowConfig{
				MinBackoff: cfg.MinBackoff, MaxBackoff: cfg.MaxBackoff,
				Log: cfg.Log, Status: &cfg.Status.parts[i],
			})
			if err != nil && !errors.Is(err, ctx.Err()) {
				cfg.Log.ErrorContext(ctx, "datastore is not followed any more", "prefix", prefix, "err", err)
			}
		})
	}
	defer group.Wait()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-q.wake:
			b, any := q.take()
			if any {
				sink(b.Batch)
			}
			cfg.Status.passage.passed(b.upTo)
		}
	}
}

// prefixes are the parts of the datastore that a host needs: the resources,
// all blocks, and its own claims. Handles, which change as often as blocks,
// are not among them.
func prefixes(node string) [3]string {
	return [3]string{store.ResourceRoot, store.BlockRoot, store.AffinityPrefix(false, node)}
}

// queue holds what was not handed over yet.
type queue struct {
	wake    chan struct{} // capacity 1: many additions, one hand-over
	passage *passage

	mu      sync.Mutex // guards everything below
	order   []model.ID
	pending map[model.ID]model.Value
	missing int  // parts that are not in sync yet: nothing is handed over
	inSync  bool // the next batch is the first
}

func newQueue(parts int) *queue {
	return &queue{wake: make(chan struct{}, 1), pending: map[model.ID]model.Value{}, missing: parts}
}

// add puts changes of one part into the queue.
func (q *queue) add(events []model.Event, inSync bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range events {
		if _, waiting := q.pending[e.ID]; !waiting {
			q.order = append(q.order, e.ID)
		}
		q.pending[e.ID] = e.Value
	}
	if inSync {
		q.missing--
		q.inSync = q.missing == 0
	}
	q.passage.queue() // before the wake, so that no addition is counted late
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// taken is a batch, and how many additions to the queue it ends with.
type taken struct {
	Batch
	upTo uint64
}

// take empties the queue; false if there is nothing to hand over. Half of a
// datastore is no state of it: a workload would seem to be outside of its
// block and be announced by itself, to be withdrawn a moment later.
func (q *queue) take() (taken, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.missing > 0 {
		return taken{}, false
	}
	b := taken{Batch: Batch{InSync: q.inSync}, upTo: q.passage.mark()}
	for _, id := range q.order {
		b.Events = append(b.Events, model.Event{ID: id, Value: q.pending[id]})
	}
	q.order, q.pending, q.inSync = nil, map[model.ID]model.Value{}, false
	return b, b.InSync || len(b.Events) > 0
}
