package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

// A gate is one host's own way to the datastore: a unix socket that passes
// everything on while it is open, and is not there while it is shut, so that
// one host can be cut off from etcd without touching the others.
type gate struct {
	path, to string

	mu     sync.Mutex // guards everything below
	cancel context.CancelFunc
	done   chan struct{}
}

// open starts to pass connections on; open already is no error.
func (g *gate) open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cancel != nil {
		return nil
	}
	if err := os.Remove(g.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open the way to the datastore: %w", err)
	}
	l, err := net.Listen("unix", g.path)
	if err != nil {
		return fmt.Errorf("open the way to the datastore: %w", err)
	}
	if err := os.Chmod(g.path, 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel, g.done = cancel, make(chan struct{})
	go g.serve(ctx, l, g.done)
	return nil
}

// isOpen reports whether connections are passed on.
func (g *gate) isOpen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cancel != nil
}

// shut cuts every connection and takes the socket away.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cancel == nil {
		return
	}
	g.cancel()
	<-g.done
	g.cancel = nil
}

func (g *gate) serve(ctx context.Context, l net.Listener, done chan struct{}) {
	defer close(done)
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return // shut
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			g.pass(ctx, c)
		}()
	}
}

// pass copies both ways until either end or the gate closes.
func (g *gate) pass(ctx context.Context, c net.Conn) {
	defer c.Close()
	var d net.Dialer
	far, err := d.DialContext(ctx, "unix", g.to)
	if err != nil {
		return // the datastore is stopped: the agent sees its connection close
	}
	defer far.Close()
	defer context.AfterFunc(ctx, func() { c.Close(); far.Close() })()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(far, c)
		far.Close()
	}()
	_, _ = io.Copy(c, far)
	c.Close()
	<-done
}
