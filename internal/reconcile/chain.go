package reconcile

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A Chain drives several loops by one goroutine: what a later one makes stands
// on what earlier ones make. It is made after that and taken away before it,
// and a change to several of them costs one wake-up.
type Chain struct {
	wake   chan struct{} // capacity 1: many wakes, one round
	held   atomic.Bool   // Together is under way: wakes wait for its end
	owed   atomic.Bool   // a wake that waited
	mu     sync.Mutex    // held by Together, and while plans are made
	links  []link        // all before Run
	settle time.Duration
	alarm  *time.Timer // of sleep; nil: none was needed yet
}

// A link is a loop whatever its table holds. look glances at the world, and
// reports whether it must be read back. Of a pass, read comes first, then plan,
// set, and last remove.
type link interface {
	look(ctx context.Context) bool
	nextLook() time.Time
	read(ctx context.Context, full bool)
	plan()
	set(ctx context.Context, last bool)
	remove(ctx context.Context)
}

// NewChain returns a chain without loops. New adds the loops that name it, in
// the order in which they are made; none is added once one of them runs.
func NewChain() *Chain { return &Chain{wake: make(chan struct{}, 1)} }

func (c *Chain) add(l link, settle time.Duration) {
	c.links = append(c.links, l)
	c.settle = max(c.settle, settle)
}

// Together calls f, which changes what is wanted of loops of the chain. They
// see all of it or nothing, and wake up once. f waits for nothing.
func (c *Chain) Together(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held.Store(true)
	f()
	c.held.Store(false)
	c.post()
}

// stir says that there is something to do.
func (c *Chain) stir() {
	c.owed.Store(true)
	if !c.held.Load() { // else Together sees what is owed
		c.post()
	}
}

func (c *Chain) post() {
	if !c.owed.Swap(false) {
		return
	}
	select {
	case c.wake <- struct{}{}:
	default: // a round is already due
	}
}

// run makes rounds until ctx ends.
func (c *Chain) run(ctx context.Context) error {
	full := make([]bool, len(c.links))
	for {
		c.round(ctx, full)
		if err := c.wait(ctx); err != nil {
			return err
		}
	}
}

// round makes what is due. A read-back of one loop takes its time, so that the
// changes of others, and its own, do not wait for it.
func (c *Chain) round(ctx context.Context, full []bool) {
	reads := false
	for i, l := range c.links {
		full[i] = l.look(ctx)
		reads = reads || full[i]
	}
	if !reads || len(c.links) > 1 {
		c.pass(ctx, func(int) bool { return false })
	}
	if reads {
		c.pass(ctx, func(i int) bool { return full[i] })
	}
}

// pass makes one attempt at what is wanted of all loops. Their plans are of one
// moment.
func (c *Chain) pass(ctx context.Context, full func(i int) bool) {
	for i, l := range c.links {
		l.read(ctx, full(i))
	}
	c.mu.Lock()
	for _, l := range c.links {
		l.plan()
	}
	c.mu.Unlock()
	for i, l := range c.links {
		l.set(ctx, i == len(c.links)-1)
	}
	for i := len(c.links) - 1; i >= 0; i-- {
		c.links[i].remove(ctx)
	}
}

// wait waits for a wake or the next look, and then until the settle time has
// passed since the last round: loops that nothing is wanted of sleep on.
func (c *Chain) wait(ctx context.Context) error {
	passed := time.Now()
	next := c.links[0].nextLook()
	for _, l := range c.links[1:] {
		if at := l.nextLook(); at.Before(next) {
			next = at
		}
	}
	if err := c.sleep(ctx, c.wake, next.Sub(passed)); err != nil {
		return err
	}
	if rest := c.settle - time.Since(passed); rest > 0 {
		if err := c.sleep(ctx, nil, rest); err != nil {
			return err
		}
		select {
		case <-c.wake: // the round that is due sees why
		default:
		}
	}
	return ctx.Err()
}

// sleep returns after so long or when it is woken; with ctx's error when that
// has ended.
func (c *Chain) sleep(ctx context.Context, wake <-chan struct{}, d time.Duration) error {
	if c.alarm == nil {
		c.alarm = time.NewTimer(d)
	} else {
		c.alarm.Reset(d)
	}
	select {
	case <-ctx.Done():
		c.alarm.Stop()
		return ctx.Err()
	case <-wake:
	case <-c.alarm.C:
	}
	return nil
}
