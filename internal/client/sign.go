package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"

	"github.com/brindle-net/brindle/internal/store"
)

// Writer says who changes resources, as stored below store.WriterRoot. Nobody
// has checked it.
type Writer struct {
	By  string `json:"by"`            // user@host
	Via string `json:"via,omitempty"` // the command
}

// writerSlots is how many keys all writers share.
const writerSlots = 64

// writerKey is where a writer signs.
func writerKey(w Writer) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(w.By)) // never fails
	return fmt.Sprintf("%s%02d", store.WriterRoot, h.Sum32()%writerSlots)
}

// Signed is a datastore in which every change of a resource says who made it.
// All methods may be called from anywhere.
type Signed struct {
	store.Driver
	tx    store.Transactor
	key   string
	value []byte

	mu    sync.Mutex     // guards what is below
	rev   store.Revision // of key, as far as is known
	plain bool           // the datastore does not let this user sign
}

// Sign returns a datastore that signs changes of resources, or d itself where
// it cannot write two keys in one moment. It stays the caller's to close.
func Sign(d store.Driver, w Writer) store.Driver {
	tx, ok := d.(store.Transactor)
	if !ok {
		return d
	}
	value, err := json.Marshal(w)
	if err != nil {
		return d // texts always can be
	}
	return &Signed{Driver: d, tx: tx, key: writerKey(w), value: value}
}

// Reached implements store.Orderer.
func (s *Signed) Reached(at, rev store.Revision) (bool, error) {
	return store.Reached(s.Driver, at, rev)
}

// Pages implements store.Pager.
func (s *Signed) Pages(ctx context.Context, prefix string, page func([]store.KV, store.Revision) error) error {
	return store.Pages(ctx, s.Driver, prefix, page)
}

// Transact implements store.Transactor.
func (s *Signed) Transact(ctx context.Context, writes []store.Write) (store.Revision, error) {
	for _, w := range writes {
		if !s.signs(w.Key) || len(writes) == store.MaxWrites {
			continue
		}
		rev, err := s.sign(ctx, writes)
		if errors.Is(err, errUnsigned) {
			break
		}
		return rev, err
	}
	return s.tx.Transact(ctx, writes)
}

// Create implements store.Driver.
func (s *Signed) Create(ctx context.Context, key string, value []byte) (store.Revision, error) {
	if !s.signs(key) {
		return s.Driver.Create(ctx, key, value)
	}
	rev, err := s.sign(ctx, []store.Write{{Key: key, Value: some(value)}})
	if errors.Is(err, errUnsigned) {
		return s.Driver.Create(ctx, key, value)
	}
	return rev, err
}

// Update implements store.Driver.
func (s *Signed) Update(ctx context.Context, kv store.KV) (store.Revision, error) {
	if !s.signs(kv.Key) || kv.Revision == "" {
		return s.Driver.Update(ctx, kv)
	}
	rev, err := s.sign(ctx, []store.Write{{Key: kv.Key, Value: some(kv.Value), Revision: kv.Revision}})
	if errors.Is(err, errUnsigned) {
		return s.Driver.Update(ctx, kv)
	}
	return rev, err
}

// Delete implements store.Driver.
func (s *Signed) Delete(ctx context.Context, key string, rev store.Revision) error {
	if !s.signs(key) || rev == "" {
		return s.Driver.Delete(ctx, key, rev)
	}
	_, err := s.sign(ctx, []store.Write{{Key: key, Revision: rev}})
	if errors.Is(err, errUnsigned) {
		return s.Driver.Delete(ctx, key, rev)
	}
	return err
}

// some makes a value that is written differ from a deletion.
func some(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// signs reports whether changes of a key are signed.
func (s *Signed) signs(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.plain && strings.HasPrefix(key, store.ResourceRoot)
}

// errUnsigned says that the change is to be made without a signature.
var errUnsigned = errors.New("not signed")

// sign makes writes together with the signature. Another who signs in the same
// place at the same time makes it begin anew.
func (s *Signed) sign(ctx context.Context, writes []store.Write) (store.Revision, error) {
	s.mu.Lock()
	last := s.rev
	s.mu.Unlock()
	var err error
	for attempt := range maxAttempts {
		if attempt > 0 {
			if err := pause(ctx, attempt); err != nil {
				return "", err
			}
		}
		if last == "" || attempt > 0 {
			if last, err = s.signature(ctx); err != nil {
				return s.unsigned(err)
			}
		}
		var rev store.Revision
		rev, err = s.tx.Transact(ctx, append([]store.Write{{Key: s.key, Value: s.value, Revision: last}}, writes...))
		if err == nil {
			s.mu.Lock()
			s.rev = rev
			s.mu.Unlock()
			return rev, nil
		}
		var refused *store.Refusal
		if errors.As(err, &refused) && refused.Key == s.key {
			continue
		}
		return s.unsigned(err)
	}
	return "", err
}

// signature is the revision of the signature's key now, "" if there is none.
func (s *Signed) signature(ctx context.Context) (store.Revision, error) {
	kv, err := s.Get(ctx, s.key)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return kv.Revision, err
}

// unsigned says what to do after an error: a user who may not sign may perhaps
// write all the same, and does so from then on.
func (s *Signed) unsigned(err error) (store.Revision, error) {
	if !errors.Is(err, store.ErrDenied) {
		return "", err
	}
	s.mu.Lock()
	s.plain = true
	s.mu.Unlock()
	return "", errUnsigned
}
