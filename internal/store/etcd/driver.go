// Package etcd keeps the datastore in an etcd cluster, version 3.5 or later.
// It is the only package that speaks to etcd as a client.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/brindle-net/brindle/internal/store"
)

// Driver is one etcd. It connects when it is first used, and again whenever
// the connection was lost.
type Driver struct {
	cfg Config

	mu     sync.Mutex // guards everything below
	conn   *clientv3.Client
	closed bool
}

var (
	_ store.Driver     = (*Driver)(nil)
	_ store.Transactor = (*Driver)(nil)
	_ store.Pager      = (*Driver)(nil)
	_ store.Orderer    = (*Driver)(nil)
)

// errClosed is what calls after Close get.
var errClosed = errors.New("the connection to etcd was closed by this program")

// New checks a configuration, TLS files included, without connecting: an etcd
// that is down is an error of the calls, not of New. Close it after use.
func New(cfg Config) (*Driver, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Driver{cfg: cfg.withDefaults()}, nil
}

// Close drops the connection and ends every watch with an error.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.conn == nil {
		return nil
	}
	err := d.conn.Close()
	d.conn = nil
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close the connection to etcd: %w", err)
	}
	return nil
}

// client returns the connection, made on first use. Logging in may block for
// DialTimeout; without a login nothing blocks.
func (d *Driver) client() (*clientv3.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	if d.conn != nil {
		return d.conn, nil
	}
	tlsConfig, err := d.cfg.tls()
	if err != nil {
		return nil, err
	}
	conn, err := clientv3.New(clientv3.Config{
		Endpoints:   d.cfg.Endpoints,
		Username:    d.cfg.Username,
		Password:    d.cfg.Password.Reveal(),
		TLS:         tlsConfig,
		DialTimeout: d.cfg.DialTimeout,
		// A silent peer is found out in 15 s; etcd allows a ping each 5 s.
		DialKeepAliveTime:    d.cfg.CheckInterval * 2,
		DialKeepAliveTimeout: d.cfg.CheckInterval,
		// The library's own pauses grow to two minutes: far too long after etcd
		// is back. Callers have a pause of their own.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: d.cfg.DialTimeout,
		})},
		Logger: zap.NewNop(), // what matters comes back as errors
	})
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	d.conn = conn
	return conn, nil
}

// call runs one request within CallTimeout and says what failed, on what.
func (d *Driver) call(ctx context.Context, what, key string, f func(context.Context, *clientv3.Client) error) error {
	return d.callWithin(ctx, d.cfg.CallTimeout, what+" "+key, f)
}

// callWithin is call with a time limit of its own.
func (d *Driver) callWithin(ctx context.Context, limit time.Duration, what string, f func(context.Context, *clientv3.Client) error) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := d.client()
	if err == nil {
		err = f(limited, conn)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() == nil && limited.Err() != nil {
		err = fmt.Errorf("no answer from etcd within %v (%s): %w", limit, d.diagnose(ctx), err)
	}
	if errors.Is(err, rpctypes.ErrPermissionDenied) || status.Code(err) == codes.PermissionDenied {
		err = fmt.Errorf("%w: %w", store.ErrDenied, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Get implements store.Driver.
func (d *Driver) Get(ctx context.Context, key string) (store.KV, error) {
	var out store.KV
	err := d.call(ctx, "get", key, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, d.cfg.Prefix+key)
		if err != nil {
			return err
		}
		if len(resp.Kvs) == 0 {
			return store.ErrNotFound
		}
		out = store.KV{Key: key, Value: value(resp.Kvs[0].Value), Revision: format(resp.Kvs[0].ModRevision)}
		return nil
	})
	return out, err
}

// List implements store.Driver. It fetches page by page, all as of the
// revision of the first.
func (d *Driver) List(ctx context.Context, prefix string) (store.Listing, error) {
	// A history compacted between two pages means starting over; twice in a
	// row would need a compaction each few seconds.
	const attempts = 3
	var err error
	for range attempts {
		var list store.Listing
		err = d.Pages(ctx, prefix, func(kvs []store.KV, rev store.Revision) error {
			list.KVs, list.Revision = append(list.KVs, kvs...), rev
			return nil
		})
		if !errors.Is(err, store.ErrCompacted) {
			if err != nil {
				list = store.Listing{}
			}
			return list, err
		}
	}
	return store.Listing{}, err
}

// Pages implements store.Pager.
func (d *Driver) Pages(ctx context.Context, prefix string, page func([]store.KV, store.Revision) error) error {
	first := d.cfg.Prefix + prefix
	opts := []clientv3.OpOption{clientv3.WithLimit(int64(d.cfg.PageSize)), clientv3.WithFromKey()}
	if first != "" {
		opts[1] = clientv3.WithRange(clientv3.GetPrefixRangeEnd(first))
	} else {
		first = "\x00"
	}
	var rev store.Revision
	for {
		var got *clientv3.GetResponse
		err := d.call(ctx, "list", prefix, func(ctx context.Context, c *clientv3.Client) (err error) {
			got, err = c.Get(ctx, first, opts...)
			return err
		})
		switch {
		case errors.Is(err, rpctypes.ErrCompacted):
			return fmt.Errorf("list %s: %w", prefix, store.ErrCompacted)
		case err != nil:
			return err
		case rev == "":
			rev = mark(got.Header.Revision, got.Header.ClusterId)
			opts = append(opts, clientv3.WithRev(got.Header.Revision))
		}
		kvs := make([]store.KV, len(got.Kvs))
		for i, kv := range got.Kvs {
			kvs[i] = store.KV{Key: strings.TrimPrefix(string(kv.Key), d.cfg.Prefix), Value: value(kv.Value), Revision: format(kv.ModRevision)}
		}
		if err := page(kvs, rev); err != nil {
			return err
		}
		if !got.More || len(got.Kvs) == 0 {
			return nil
		}
		first = string(got.Kvs[len(got.Kvs)-1].Key) + "\x00"
	}
}

// Create implements store.Driver.
func (d *Driver) Create(ctx context.Context, key string, val []byte) (store.Revision, error) {
	var rev store.Revision
	err := d.call(ctx, "create", key, func(ctx context.Context, c *clientv3.Client) error {
		full := d.cfg.Prefix + key
		resp, err := c.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(full), "=", 0)).
			Then(clientv3.OpPut(full, string(val))).Commit()
		if err != nil {
			return err
		}
		if !resp.Succeeded {
			return store.ErrExists
		}
		rev = format(resp.Header.Revision)
		return nil
	})
	return rev, err
}

// Update implements store.Driver.
func (d *Driver) Update(ctx context.Context, kv store.KV) (store.Revision, error) {
	put := clientv3.OpPut(d.cfg.Prefix+kv.Key, string(kv.Value))
	return d.swap(ctx, "update", store.KV{Key: kv.Key, Revision: kv.Revision}, put)
}

// Delete implements store.Driver.
func (d *Driver) Delete(ctx context.Context, key string, rev store.Revision) error {
	_, err := d.swap(ctx, "delete", store.KV{Key: key, Revision: rev}, clientv3.OpDelete(d.cfg.Prefix+key))
	return err
}

// swap does op if the key of at exists, at its revision if that is set.
func (d *Driver) swap(ctx context.Context, what string, at store.KV, op clientv3.Op) (store.Revision, error) {
	var rev store.Revision
	err := d.call(ctx, what, at.Key, func(ctx context.Context, c *clientv3.Client) error {
		full := d.cfg.Prefix + at.Key
		cond := clientv3.Compare(clientv3.CreateRevision(full), ">", 0)
		if at.Revision != "" {
			n, _, err := parse(at.Revision)
			if err != nil {
				return err
			}
			cond = clientv3.Compare(clientv3.ModRevision(full), "=", n)
		}
		resp, err := c.Txn(ctx).If(cond).Then(op).
			Else(clientv3.OpGet(full, clientv3.WithKeysOnly())).Commit()
		switch {
		case err != nil:
			return err
		case resp.Succeeded:
			rev = format(resp.Header.Revision)
			return nil
		case len(resp.Responses[0].GetResponseRange().Kvs) == 0:
			return store.ErrNotFound
		}
		return store.ErrConflict
	})
	return rev, err
}

// Transact implements store.Transactor.
func (d *Driver) Transact(ctx context.Context, writes []store.Write) (store.Revision, error) {
	var rev store.Revision
	err := d.call(ctx, "transaction on", writes[0].Key, func(ctx context.Context, c *clientv3.Client) error {
		var conds []clientv3.Cmp
		var ops, looks []clientv3.Op
		for _, w := range writes {
			full := d.cfg.Prefix + w.Key
			n, err := int64(0), error(nil) // etcd's number of a key that is not there
			if w.Revision != "" {
				if n, _, err = parse(w.Revision); err != nil {
					return &store.Refusal{Key: w.Key, Err: err}
				}
			}
			conds = append(conds, clientv3.Compare(clientv3.ModRevision(full), "=", n))
			if w.Value == nil {
				ops = append(ops, clientv3.OpDelete(full))
			} else {
				ops = append(ops, clientv3.OpPut(full, string(w.Value)))
			}
			looks = append(looks, clientv3.OpGet(full, clientv3.WithKeysOnly()))
		}
		resp, err := c.Txn(ctx).If(conds...).Then(ops...).Else(looks...).Commit()
		if err != nil {
			return err
		}
		if resp.Succeeded {
			rev = format(resp.Header.Revision)
			return nil
		}
		for i, r := range resp.Responses {
			found := r.GetResponseRange().Kvs
			now := store.Revision("")
			if len(found) > 0 {
				now = format(found[0].ModRevision)
			}
			if err := writes[i].Check(len(found) > 0, now); err != nil {
				return err
			}
		}
		return store.ErrConflict // etcd refused what it finds in order
	})
	return rev, err
}

// value makes an empty value differ from none.
func value(v []byte) []byte {
	if v == nil {
		return []byte{}
	}
	return v
}
