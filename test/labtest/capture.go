package labtest

import (
	"context"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/capture"
)

// A Capture is the packets of one member of a lab, while it runs.
type Capture struct {
	w       *World
	source  *capture.Source
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	err     error
	packets []*capture.Packet
}

// Capture begins to read packets off an interface of a host, workload or
// router; off all of them when name is empty.
func (w *World) Capture(member, name string) *Capture {
	w.T.Helper()
	source, err := capture.Open(w.NS(member), name)
	if err != nil {
		w.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Capture{w: w, source: source, cancel: cancel}
	c.wg.Go(func() {
		for c.err == nil && ctx.Err() == nil {
			c.read(ctx)
		}
	})
	w.T.Cleanup(func() {
		cancel()
		c.wg.Wait()
		_ = source.Close() // Stop may have closed it
	})
	return c
}

// read takes one packet, or none when ctx has ended.
func (c *Capture) read(ctx context.Context) bool {
	f, err := c.source.Next(ctx)
	if ctx.Err() != nil {
		return false
	}
	var p *capture.Packet
	if err == nil {
		p, err = capture.Decode(c.source.Link(), f, 0)
	}
	if err != nil {
		c.err = err
		return false
	}
	c.packets = append(c.packets, p)
	return true
}

// Stop ends the capture and returns the packets so far, those included that
// the kernel still has.
func (c *Capture) Stop() []*capture.Packet {
	c.w.T.Helper()
	c.cancel()
	c.wg.Wait()
	for more := true; more; {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		more = c.err == nil && c.read(ctx)
		cancel()
	}
	lost, err := c.source.Lost()
	if c.err != nil || err != nil || lost > 0 {
		c.w.T.Fatalf("capture: %d packets lost, %v, %v", lost, c.err, err)
	}
	_ = c.source.Close() // nothing is read from it any more
	return c.packets
}

// Choose returns the packets that a filter chooses, in the language of `brindle
// lab capture`.
func (w *World) Choose(packets []*capture.Packet, filter string) []*capture.Packet {
	w.T.Helper()
	f, err := capture.ParseFilter(filter)
	if err != nil {
		w.T.Fatal(err)
	}
	var out []*capture.Packet
	for _, p := range packets {
		if f(p) {
			out = append(out, p)
		}
	}
	return out
}
