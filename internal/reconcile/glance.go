package reconcile

import (
	"context"
	"fmt"
	"time"
)

// DefaultGlance is the time between two glances. With DefaultSpacing after it,
// what a glance sees is mended within a second.
const DefaultGlance = 400 * time.Millisecond

// A Glancer is a Target a part of which changes without a word to anybody. A
// Loop glances at it often, so that the part need not wait for a read-back.
type Glancer[K comparable] interface {
	// Glance returns keys that seem to be other than the last Apply made
	// them. It looks only at what changes unannounced, is much cheaper than
	// List, and may miss what List sees.
	Glance(ctx context.Context) ([]K, error)
}

// glance looks at the world if it is time to, and asks for a read-back if
// something seems to have changed. What could not be made as wanted is no news:
// it is tried again, ever more rarely, whatever a glance says.
func (l *Loop[K, V]) glance(ctx context.Context) {
	g, ok := l.target.(Glancer[K])
	if !ok || l.run.have == nil || time.Now().Before(l.run.glanceAt) {
		return
	}
	l.run.glanceAt = time.Now().Add(l.cfg.Glance)
	keys, err := g.Glance(ctx)
	if err != nil && ctx.Err() == nil {
		l.complain(ctx, fmt.Errorf("glance: %w", err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Glances++
	for _, k := range keys {
		if _, wanted := l.want[k]; wanted && l.failed[k] == nil {
			l.reading.stale = true
		}
	}
}

// nextLook returns when the world must be read back or glanced at.
func (l *Loop[K, V]) nextLook() time.Time {
	at := l.nextRead()
	if _, ok := l.target.(Glancer[K]); ok && l.run.have != nil && l.run.glanceAt.Before(at) {
		at = l.run.glanceAt
	}
	return at
}
