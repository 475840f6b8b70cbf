// Package mem is a datastore in memory, for tests and tools. It behaves as
// the real ones do: revisions, compare-and-swap, watches that resume, and
// compaction, which forgets the history that old watches would need.
package mem

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/brindle-net/brindle/internal/store"
)

// Store is one datastore. The zero value is not usable; see New.
type Store struct {
	mu        sync.Mutex // guards everything below
	rev       int64      // of the last change
	compacted int64      // no watch may start before this
	data      map[string]store.KV
	keys      []string // of data, sorted
	log       []change // what is not compacted or still read, oldest first
	watchers  map[*watch]struct{}
}

// change is an event with its revision as a number.
type change struct {
	rev   int64
	event store.Event
}

var (
	_ store.Driver     = (*Store)(nil)
	_ store.Transactor = (*Store)(nil)
	_ store.Pager      = (*Store)(nil)
	_ store.Orderer    = (*Store)(nil)
)

// New returns an empty datastore.
func New() *Store {
	return &Store{rev: 1, data: map[string]store.KV{}, watchers: map[*watch]struct{}{}}
}

// Get implements store.Driver.
func (s *Store) Get(ctx context.Context, key string) (store.KV, error) {
	if err := ctx.Err(); err != nil {
		return store.KV{}, fmt.Errorf("get %s: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kv, ok := s.data[key]
	if !ok {
		return store.KV{}, fmt.Errorf("get %s: %w", key, store.ErrNotFound)
	}
	return clone(kv), nil
}

// List implements store.Driver.
func (s *Store) List(ctx context.Context, prefix string) (store.Listing, error) {
	if err := ctx.Err(); err != nil {
		return store.Listing{}, fmt.Errorf("list %s: %w", prefix, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := store.Listing{Revision: format(s.rev)}
	i, _ := slices.BinarySearch(s.keys, prefix)
	for ; i < len(s.keys) && strings.HasPrefix(s.keys[i], prefix); i++ {
		list.KVs = append(list.KVs, clone(s.data[s.keys[i]]))
	}
	return list, nil
}

// pageSize is how many values Pages hands over at once.
const pageSize = 500

// Pages implements store.Pager.
func (s *Store) Pages(ctx context.Context, prefix string, page func([]store.KV, store.Revision) error) error {
	list, err := s.List(ctx, prefix)
	if err != nil {
		return err
	}
	for first := true; first || len(list.KVs) > 0; first = false {
		n := min(pageSize, len(list.KVs))
		if err := page(list.KVs[:n:n], list.Revision); err != nil {
			return err
		}
		list.KVs = list.KVs[n:]
	}
	return nil
}

// Create implements store.Driver.
func (s *Store) Create(ctx context.Context, key string, value []byte) (store.Revision, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("create %s: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.data[key]; ok {
		return "", fmt.Errorf("create %s: %w", key, store.ErrExists)
	}
	return s.put(key, value), nil
}

// Update implements store.Driver.
func (s *Store) Update(ctx context.Context, kv store.KV) (store.Revision, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("update %s: %w", kv.Key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(kv.Key, kv.Revision); err != nil {
		return "", fmt.Errorf("update %s: %w", kv.Key, err)
	}
	return s.put(kv.Key, kv.Value), nil
}

// Delete implements store.Driver.
func (s *Store) Delete(ctx context.Context, key string, rev store.Revision) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(key, rev); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	s.remove(key)
	s.append(store.Event{Key: key})
	return nil
}

// Transact implements store.Transactor.
func (s *Store) Transact(ctx context.Context, writes []store.Write) (store.Revision, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("transaction: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range writes {
		kv, ok := s.data[w.Key]
		if err := w.Check(ok, kv.Revision); err != nil {
			return "", fmt.Errorf("transaction: %w", err)
		}
	}
	s.rev++
	for _, w := range writes {
		e := store.Event{Key: w.Key, Revision: format(s.rev)}
		if w.Value == nil {
			s.remove(w.Key)
		} else {
			e.Value = append([]byte{}, w.Value...)
			s.set(store.KV{Key: w.Key, Value: e.Value, Revision: e.Revision})
		}
		s.log = append(s.log, change{rev: s.rev, event: e})
	}
	s.wake()
	return format(s.rev), nil
}

// Compact forgets all history, as real datastores do from time to time: a
// watch that would have to start before this moment gets ErrCompacted. Watches
// that run go on.
func (s *Store) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacted = s.rev
	needed := s.rev
	for w := range s.watchers {
		needed = min(needed, w.pos)
	}
	keep := sort.Search(len(s.log), func(i int) bool { return s.log[i].rev > needed })
	s.log = slices.Clone(s.log[keep:])
}

// check says whether key exists at rev. The caller holds the lock.
func (s *Store) check(key string, rev store.Revision) error {
	kv, ok := s.data[key]
	if !ok {
		return store.ErrNotFound
	}
	if rev != "" && rev != kv.Revision {
		return store.ErrConflict
	}
	return nil
}

// set stores what a key has. The caller holds the lock.
func (s *Store) set(kv store.KV) {
	if _, there := s.data[kv.Key]; !there {
		i, _ := slices.BinarySearch(s.keys, kv.Key)
		s.keys = slices.Insert(s.keys, i, kv.Key)
	}
	s.data[kv.Key] = kv
}

// remove forgets a key. The caller holds the lock.
func (s *Store) remove(key string) {
	if i, there := slices.BinarySearch(s.keys, key); there {
		s.keys = slices.Delete(s.keys, i, i+1)
	}
	delete(s.data, key)
}

// put writes a value. The caller holds the lock.
func (s *Store) put(key string, value []byte) store.Revision {
	value = append([]byte{}, value...)
	rev := s.append(store.Event{Key: key, Value: value})
	s.set(store.KV{Key: key, Value: value, Revision: rev})
	return rev
}

// append adds a change to the history. The caller holds the lock.
func (s *Store) append(e store.Event) store.Revision {
	s.rev++
	e.Revision = format(s.rev)
	s.log = append(s.log, change{rev: s.rev, event: e})
	s.wake()
	return e.Revision
}

// wake tells every watcher to look at the history. The caller holds the lock.
func (s *Store) wake() {
	for w := range s.watchers {
		select {
		case w.wake <- struct{}{}:
		default: // it is awake already
		}
	}
}

func format(rev int64) store.Revision { return store.Revision(strconv.FormatInt(rev, 10)) }

// parse reads a revision that this driver handed out.
func parse(rev store.Revision) (int64, error) {
	n, err := strconv.ParseInt(string(rev), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("revision %q is not one of this datastore", rev)
	}
	return n, nil
}

// Reached implements store.Orderer.
func (s *Store) Reached(at, rev store.Revision) (bool, error) {
	is, err := parse(at)
	if err != nil {
		return false, err
	}
	want, err := parse(rev)
	return err == nil && is >= want, err
}

func clone(kv store.KV) store.KV {
	kv.Value = append([]byte{}, kv.Value...)
	return kv
}
