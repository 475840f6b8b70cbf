package kernel

import (
	"fmt"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// A writer carries out the plan of one table, some hundred requests at a time,
// and says which keys failed.
type writer[K comparable] struct {
	k      *Kernel
	names  *names
	batch  rtnl.Batch
	keys   []request[K] // of the requests in batch, in order
	failed map[K]error
}

// A request is what a message in the batch is for.
type request[K comparable] struct {
	key     K
	what    string
	missing bool // whether it is all right when the object is not there
	beside  func(error)
}

func newWriter[K comparable](k *Kernel) *writer[K] {
	return &writer[K]{k: k, names: k.names(), failed: map[K]error{}}
}

// add puts what f adds into the batch, in the name of key. f adds nothing
// when it fails.
func (w *writer[K]) add(key K, what string, f func(*rtnl.Batch) error) {
	w.put(request[K]{key: key, what: what}, f)
}

// remove is add for a request that deletes: an object that is not there is as
// good as deleted.
func (w *writer[K]) remove(key K, what string, f func(*rtnl.Batch) error) {
	w.put(request[K]{key: key, what: what, missing: true}, f)
}

// beside puts into the batch what f adds, to which the key's own request does
// not owe its success: of a failure tell is told.
func (w *writer[K]) beside(key K, f func(*rtnl.Batch), tell func(error)) {
	w.put(request[K]{key: key, beside: tell}, func(b *rtnl.Batch) error { f(b); return nil })
}

func (w *writer[K]) put(r request[K], f func(*rtnl.Batch) error) {
	if err := f(&w.batch); err != nil {
		w.fail(r, err)
	}
	for len(w.keys) < w.batch.Len() {
		w.keys = append(w.keys, r)
	}
	if len(w.keys) >= writerBatch {
		w.flush()
	}
}

func (w *writer[K]) fail(r request[K], err error) {
	if r.beside != nil {
		r.beside(err)
		return
	}
	if r.missing && gone(err) {
		return
	}
	w.failed[r.key] = fmt.Errorf("%s %v: %w", r.what, r.key, err)
}

// send carries out what is left and returns what failed.
func (w *writer[K]) send() map[K]error {
	w.flush()
	return w.failed
}

// writerBatch is about how many requests are gathered before they are sent: so
// few that they stay in the processor's cache however large the table is.
const writerBatch = 512

// flush carries out the batch and begins another.
func (w *writer[K]) flush() {
	if w.batch.Len() == 0 {
		return
	}
	err := w.k.with(func(c *rtnl.Conn) error {
		for i, err := range c.Send(&w.batch) {
			w.fail(w.keys[i], err)
		}
		return nil
	})
	if err != nil {
		for _, r := range w.keys {
			w.fail(r, err)
		}
	}
	w.batch.Reset()
	w.keys = w.keys[:0]
}
