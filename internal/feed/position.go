package feed

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/store"
)

// passage counts what was queued for the sink, and what the sink has returned
// from. The zero value is ready for use.
type passage struct {
	mu     sync.Mutex // guards everything below
	queued uint64
	done   uint64
}

// queue counts an addition to the queue.
func (p *passage) queue() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queued++
}

// mark is how many additions there were.
func (p *passage) mark() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queued
}

// passed says that the sink has returned from so many.
func (p *passage) passed(n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = max(p.done, n)
}

func (p *passage) through(n uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done >= n
}

// Position is a place in what a Run hands over.
type Position uint64

// Arrived reports whether the change at a revision below a root
// (store.ResourceRoot or store.BlockRoot) has come from the datastore, and all
// before it there. The position is then that of what came so far.
func (s *Status) Arrived(d store.Driver, root string, rev store.Revision) (Position, bool, error) {
	at := store.Revision("")
	for i, prefix := range prefixes("") {
		if prefix == root {
			at = s.parts[i].State().Revision
		}
	}
	there, err := store.Reached(d, at, rev)
	return Position(s.passage.mark()), there && err == nil, err
}

// pace of looking how far the sink is.
const (
	firstLook = time.Millisecond
	lastLook  = 50 * time.Millisecond
)

// HandedOver waits until the sink has returned from everything up to a
// position. Whoever asks does so rarely, so it looks again and again.
func (s *Status) HandedOver(ctx context.Context, p Position) error {
	for pause := firstLook; !s.passage.through(uint64(p)); pause = min(2*pause, lastLook) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("what came from the datastore is still being computed: %w", ctx.Err())
		}
	}
	return nil
}
