package embedded

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/brindle-net/brindle/internal/store"
)

// checkShared holds a host to its own part of what hosts share: blocks and
// handles of address management. It has to say at which revision it writes one,
// as agents do, for only then is it certain what the write replaces.
func (g *guard) checkShared(ctx context.Context, host string, req any) error {
	switch r := req.(type) {
	case *etcdserverpb.PutRequest:
		if isShared(r.Key) {
			return fmt.Errorf("%s may be written at a revision only", r.Key)
		}
	case *etcdserverpb.DeleteRangeRequest:
		if isShared(r.Key) {
			return fmt.Errorf("%s may be deleted at a revision only", r.Key)
		}
	case *etcdserverpb.TxnRequest:
		return g.checkSharedTxn(ctx, host, r)
	}
	return nil
}

func isShared(key []byte) bool {
	return strings.HasPrefix(string(key), store.BlockRoot) || strings.HasPrefix(string(key), store.HandleRoot)
}

func (g *guard) checkSharedTxn(ctx context.Context, host string, txn *etcdserverpb.TxnRequest) error {
	at := map[string]int64{} // 0: the key must not exist
	for _, c := range txn.Compare {
		if c.Result != etcdserverpb.Compare_EQUAL || len(c.RangeEnd) > 0 {
			continue
		}
		switch {
		case c.Target == etcdserverpb.Compare_MOD:
			at[string(c.Key)] = c.GetModRevision()
		case c.Target == etcdserverpb.Compare_CREATE && c.GetCreateRevision() == 0:
			at[string(c.Key)] = 0
		}
	}
	for i, ops := range [][]*etcdserverpb.RequestOp{txn.Success, txn.Failure} {
		for _, op := range ops {
			w := store.HostWrite{Host: host, List: func(prefix string) ([]store.KV, error) { return g.list(ctx, prefix) }}
			switch put, del := op.GetRequestPut(), op.GetRequestDeleteRange(); {
			case put != nil && isShared(put.Key):
				w.Key, w.New = string(put.Key), put.Value
				if w.New == nil {
					w.New = []byte{}
				}
			case del != nil && isShared(del.Key):
				w.Key = string(del.Key)
			default:
				continue
			}
			rev, ok := at[w.Key]
			if !ok || i == 1 {
				return fmt.Errorf("%s may be written at a revision only", w.Key)
			}
			if err := g.checkSharedWrite(ctx, w, rev); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkSharedWrite judges one write that is made only if the key is at a
// revision.
func (g *guard) checkSharedWrite(ctx context.Context, w store.HostWrite, rev int64) error {
	if g.check == nil {
		return errors.New("blocks and handles are not for hosts here")
	}
	if rev == 0 {
		return g.check(w)
	}
	old, now, err := g.at(ctx, w.Key, rev)
	switch {
	case err != nil:
		return err
	case now > rev:
		return nil // etcd will not do it
	case now < rev:
		return fmt.Errorf("%s has never been at revision %d", w.Key, rev)
	}
	w.Old = old
	return g.check(w)
}

// at reads a key and at which revision it is. What this member knows is enough
// when that is the one asked for, or later: what a key is at a revision never
// changes. Else it asks the others, too.
func (g *guard) at(ctx context.Context, key string, rev int64) (value []byte, now int64, err error) {
	for _, alone := range []bool{true, false} {
		resp, err := g.open.Load().Server.Range(asRoot(ctx), &etcdserverpb.RangeRequest{Key: []byte(key), Serializable: alone})
		if err != nil {
			return nil, 0, err
		}
		if len(resp.Kvs) == 0 {
			value, now = nil, resp.Header.Revision // deleted, by then
			if now < rev {
				continue
			}
			return nil, max(now, rev+1), nil
		}
		value, now = resp.Kvs[0].Value, resp.Kvs[0].ModRevision
		if now >= rev {
			return value, now, nil
		}
	}
	return value, now, nil
}

// list reads what is below a prefix.
func (g *guard) list(ctx context.Context, prefix string) ([]store.KV, error) {
	resp, err := g.open.Load().Server.Range(asRoot(ctx), listing(prefix))
	if err != nil {
		return nil, err
	}
	out := make([]store.KV, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		out = append(out, store.KV{Key: string(kv.Key), Value: kv.Value})
	}
	return out, nil
}

// listing asks for what is below a prefix. Pools and settings decide what a host
// may have, and are asked for seldom: what the members agree on counts, not what
// this one knows, which may lag behind. Of blocks, which are asked for with every
// handle, the latest that it knows will do.
func listing(prefix string) *etcdserverpb.RangeRequest {
	known := strings.HasPrefix(prefix, store.BlockRoot)
	return &etcdserverpb.RangeRequest{Key: []byte(prefix), RangeEnd: after(prefix), Serializable: known}
}

// after is the first key after all that begin with a prefix.
func after(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++ // never the highest byte: keys of ours are text
	return end
}
