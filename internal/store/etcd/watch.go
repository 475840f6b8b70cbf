package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/brindle-net/brindle/internal/store"
)

// watch is one running Watch. The client library hides a lost connection: it
// reconnects and resumes for as long as it takes, and tells nobody. So beside
// the stream runs a check that asks etcd for its revision, and ends the watch
// when there is no answer or another datastore answers.
type watch struct {
	driver  *Driver
	prefix  string
	last    int64  // the revision up to which everything is in pending or delivered
	cluster uint64 // the etcd cluster that last belongs to; 0 until known
	pending store.Batch
}

// moment is what a check learned: where which cluster stands.
type moment struct {
	cluster  uint64
	revision int64
	least    int64 // what the revision was known to have reached before
	err      error
}

// Watch implements store.Driver.
func (d *Driver) Watch(ctx context.Context, prefix string, after store.Revision) <-chan store.Batch {
	out := make(chan store.Batch)
	go func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		w := &watch{driver: d, prefix: prefix}
		err := w.run(ctx, after, out)
		if err == nil || ctx.Err() != nil {
			return
		}
		w.pending.Err = fmt.Errorf("watch %s: %w", prefix, err)
		select {
		case out <- w.pending:
		case <-ctx.Done():
		}
	}()
	return out
}

// run delivers until ctx ends (nil) or the watch must start anew (an error).
func (w *watch) run(ctx context.Context, after store.Revision, out chan<- store.Batch) error {
	conn, err := w.driver.client()
	if err != nil {
		return err
	}
	if after != "" {
		if w.last, w.cluster, err = parse(after); err != nil {
			return err
		}
	}
	now := w.check(ctx, w.last)
	if err := w.compare(now); err != nil {
		return err
	}
	if after == "" {
		w.last = now.revision
	}
	stream := conn.Watch(clientv3.WithRequireLeader(ctx), w.driver.cfg.Prefix+w.prefix,
		clientv3.WithPrefix(), clientv3.WithRev(w.last+1), clientv3.WithProgressNotify())
	return w.deliver(ctx, stream, out)
}

// deliver passes on what the stream says until one of them ends.
func (w *watch) deliver(ctx context.Context, stream clientv3.WatchChan, out chan<- store.Batch) error {
	checks := make(chan moment)
	timer := time.NewTimer(w.driver.cfg.CheckInterval)
	defer timer.Stop()
	w.pending.Revision = mark(w.last, w.cluster)
	send := out // nil while there is nothing to say
	for {
		select {
		case <-ctx.Done():
			return nil
		case resp, ok := <-stream:
			if !ok {
				return errors.New("etcd closed the watch")
			}
			if err := w.take(resp); err != nil {
				return err
			}
			send = out
		case <-timer.C:
			least := w.last
			go func() {
				select {
				case checks <- w.check(ctx, least):
				case <-ctx.Done():
				}
			}()
		case now := <-checks:
			if err := w.compare(now); err != nil {
				return err
			}
			timer.Reset(w.driver.cfg.CheckInterval)
		case send <- w.pending:
			w.pending, send = store.Batch{}, nil
		}
	}
}

// take adds a response to the pending batch.
func (w *watch) take(resp clientv3.WatchResponse) error {
	if resp.CompactRevision != 0 || errors.Is(resp.Err(), rpctypes.ErrCompacted) {
		return fmt.Errorf("after revision %d: %w", w.last, store.ErrCompacted)
	}
	if err := resp.Err(); err != nil {
		return err
	}
	for _, e := range resp.Events {
		event := store.Event{
			Key:      strings.TrimPrefix(string(e.Kv.Key), w.driver.cfg.Prefix),
			Revision: format(e.Kv.ModRevision),
		}
		if e.Type != clientv3.EventTypeDelete {
			event.Value = value(e.Kv.Value)
		}
		w.pending.Events = append(w.pending.Events, event)
	}
	// To a watch that is far behind etcd sends some of the events at a time, and
	// its current revision with each of them: only without events does that say
	// how far the watch has come.
	came := resp.Header.Revision
	if n := len(resp.Events); n > 0 {
		came = resp.Events[n-1].Kv.ModRevision
	}
	w.last = max(w.last, came)
	w.pending.Revision = mark(w.last, w.cluster)
	return nil
}

// compare notices that etcd no longer is the one that the watch started with:
// restored from a snapshot, or replaced. Its history then tells nothing about
// what we hold.
func (w *watch) compare(now moment) error {
	switch {
	case now.err != nil:
		return now.err
	case w.cluster != 0 && now.cluster != w.cluster:
		return fmt.Errorf("etcd was replaced by another cluster: %w", store.ErrCompacted)
	case now.revision < now.least:
		return fmt.Errorf("etcd went back from revision %d to %d: %w", now.least, now.revision, store.ErrCompacted)
	}
	w.cluster = now.cluster
	return nil
}

// check asks for the current revision, by consensus of the cluster, so that it
// cannot be less than what any member has told us before. It reads below the
// watch's own prefix, which is all that etcd's roles may allow.
func (w *watch) check(ctx context.Context, least int64) moment {
	now := moment{least: least}
	key := w.driver.cfg.Prefix + w.prefix
	if key == "" {
		key = "\x00"
	}
	limit := min(w.driver.cfg.CallTimeout, w.driver.cfg.CheckInterval)
	now.err = w.driver.callWithin(ctx, limit, "check the connection", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, key, clientv3.WithCountOnly())
		if err != nil {
			return err
		}
		now.cluster, now.revision = resp.Header.ClusterId, resp.Header.Revision
		return nil
	})
	return now
}
