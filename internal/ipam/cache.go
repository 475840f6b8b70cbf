package ipam

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/store"
)

// retryWatch is how long a Cache waits after a watch or a read has failed.
const retryWatch = time.Second

// Cache keeps the settings at hand, so that a request need not read them. It
// follows the datastore within a watch's delay; a request made in between uses
// the settings of just before, as one made just before would have.
type Cache struct {
	db  store.Driver
	log *slog.Logger

	mu      sync.Mutex // guards current
	current *Settings
	loaded  chan struct{} // closed when current is there
}

// NewCache returns a Cache. It has nothing until Run runs.
func NewCache(db store.Driver, log *slog.Logger) *Cache {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Cache{db: db, log: log, loaded: make(chan struct{})}
}

// Settings returns the current settings; at first it waits for them. It is
// meant for Config.Settings.
func (c *Cache) Settings(ctx context.Context) (*Settings, error) {
	select {
	case <-c.loaded:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the address settings: %w", ctx.Err())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current, nil
}

// Run follows the datastore until the context ends, whose error it returns.
// What cannot be read keeps its last good state, and is logged.
func (c *Cache) Run(ctx context.Context) error {
	var watchers sync.WaitGroup
	defer watchers.Wait()
	wake := make(chan struct{}, 1) // many changes, one read
	prefixes := []string{
		store.ResourcePrefix(pluralPools, ""), store.ResourcePrefix(pluralReservations, ""), store.IPAMConfigKey,
	}
	for _, prefix := range prefixes {
		watchers.Go(func() { c.watch(ctx, prefix, wake) })
	}
	for {
		var retry <-chan time.Time
		if s, err := ReadSettings(ctx, c.db); err == nil {
			c.publish(s)
		} else if ctx.Err() == nil {
			c.log.WarnContext(ctx, "address settings cannot be read", "err", err, "retry_in", retryWatch)
			retry = time.After(retryWatch)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		case <-retry:
		}
	}
}

func (c *Cache) publish(s *Settings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil {
		defer close(c.loaded)
	}
	c.current = s
}

// watch wakes the reader at every change below a prefix.
func (c *Cache) watch(ctx context.Context, prefix string, wake chan<- struct{}) {
	for ctx.Err() == nil {
		list, err := c.db.List(ctx, prefix)
		if err == nil {
			poke(wake) // for what changed while nobody watched
			for batch := range c.db.Watch(ctx, prefix, list.Revision) {
				if batch.Err != nil {
					err = batch.Err
				}
				if len(batch.Events) > 0 {
					poke(wake)
				}
			}
		}
		if err != nil && ctx.Err() == nil {
			c.log.WarnContext(ctx, "watch of address settings ended", "prefix", prefix, "err", err, "retry_in", retryWatch)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryWatch):
		}
	}
}

func poke(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default: // it is awake already
	}
}
