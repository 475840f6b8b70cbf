package agent

import (
	"context"
	"fmt"
	"sync"

	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/store"
)

// poolCache keeps what the cluster says about addresses at hand, so that an
// assignment reads nothing. It is asked anew after every change, and at every
// call while changes cannot be seen.
type poolCache struct {
	driver store.Driver
	status []store.FollowStatus // one for each prefix

	mu         sync.Mutex // guards everything below
	generation int
	settings   *ipam.Settings // nil: read it
}

func newPoolCache(d store.Driver) *poolCache {
	return &poolCache{driver: d, status: make([]store.FollowStatus, len(poolPrefixes()))}
}

// poolPrefixes is where pools, reservations and the configuration are.
func poolPrefixes() []string {
	return []string{store.ResourcePrefix("ippools", ""), store.ResourcePrefix("ipreservations", ""), store.IPAMConfigKey}
}

// Run follows changes until ctx ends.
func (c *poolCache) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for i, prefix := range poolPrefixes() {
		wg.Go(func() {
			_ = store.Follow(ctx, c.driver, prefix, func(store.Update) { c.forget() }, store.FollowConfig{Status: &c.status[i]}) // ends with ctx
		})
	}
	wg.Wait()
	return ctx.Err()
}

func (c *poolCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	c.settings = nil
}

// Settings returns what holds now.
func (c *poolCache) Settings(ctx context.Context) (*ipam.Settings, error) {
	c.mu.Lock()
	s, generation := c.settings, c.generation
	c.mu.Unlock()
	if s != nil && c.connected() {
		return s, nil
	}
	s, err := ipam.ReadSettings(ctx, c.driver)
	if err != nil {
		return nil, fmt.Errorf("read the address pools: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation == generation { // else it may be older than a change that was seen
		c.settings = s
	}
	return s, nil
}

// connected reports whether changes would be seen.
func (c *poolCache) connected() bool {
	for i := range c.status {
		if st := c.status[i].State(); !st.Connected || !st.InSync {
			return false
		}
	}
	return true
}
