package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// group runs named goroutines that end together: when one fails, or the
// context ends, all end.
type group struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu  sync.Mutex // guards everything below
	err error
}

func newGroup(ctx context.Context) (*group, context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	return &group{cancel: cancel}, ctx
}

// start runs f under a name that its error carries.
func (g *group) start(name string, f func() error) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		err := f()
		g.mu.Lock()
		if err != nil && !errors.Is(err, context.Canceled) && g.err == nil {
			g.err = fmt.Errorf("%s: %w", name, err)
		}
		g.mu.Unlock()
		g.cancel()
	}()
}

// wait returns the first error once all have ended.
func (g *group) wait() error {
	g.wg.Wait()
	g.cancel()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}
