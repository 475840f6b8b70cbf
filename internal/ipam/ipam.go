package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/store"
)

// maxAttempts bounds every loop that reads, changes and writes a record which
// others change too.
const maxAttempts = 100

// maxUnknown bounds how often a write whose outcome is not known is looked
// into before the error is handed on.
const maxUnknown = 2

// Config is what a Manager needs.
type Config struct {
	Driver store.Driver // required
	// Settings returns the current settings. It is called for every request;
	// nil reads them from Driver each time. See Cache.
	Settings func(ctx context.Context) (*Settings, error)
	// Now is the wall clock; nil is time.Now. Steps of the clock delay or
	// hasten the end of cool-downs and nothing else.
	Now func() time.Time
}

// Manager assigns and releases addresses. One Manager serves all callers of a
// process: it remembers the blocks of the hosts it works for, so that an
// assignment with a handle is one transaction, or two writes, and no read; a
// memory that is out of date costs a retry, nothing else. All methods may be called from anywhere.
//
// An error may leave the outcome of a write unknown. Whoever gets an error
// from an assignment and does not try again with the same handle releases the
// handle; what nobody releases a Collector finds.
type Manager struct {
	db       store.Driver
	tx       store.Transactor // the same; nil if it writes one key at a time
	settings func(ctx context.Context) (*Settings, error)
	now      func() time.Time
	handles  locks // one change of a handle at a time
	claims   locks // one claim per host and family at a time

	mu    sync.Mutex // guards everything below
	cells map[netip.Prefix]*cell
	owned map[hostFamily][]netip.Prefix // confirmed blocks, sorted; absent: not read yet
}

type hostFamily struct {
	host   string
	family Family
}

// New returns a Manager.
func New(cfg Config) *Manager {
	m := &Manager{
		db:       cfg.Driver,
		settings: cfg.Settings,
		now:      cfg.Now,
		cells:    map[netip.Prefix]*cell{},
		owned:    map[hostFamily][]netip.Prefix{},
	}
	m.tx, _ = cfg.Driver.(store.Transactor)
	if m.now == nil {
		m.now = time.Now
	}
	if m.settings == nil {
		m.settings = func(ctx context.Context) (*Settings, error) { return ReadSettings(ctx, m.db) }
	}
	return m
}

// locks are mutexes by name. Waiting for one ends with the context.
type locks struct {
	mu   sync.Mutex // guards held
	held map[string]*namedLock
}

type namedLock struct {
	free  chan struct{} // holds one token while nobody has the lock
	users int
}

// lock takes the named lock and returns how to give it back.
func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*namedLock{}
	}
	n := l.held[name]
	if n == nil {
		n = &namedLock{free: make(chan struct{}, 1)}
		n.free <- struct{}{}
		l.held[name] = n
	}
	n.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if n.users--; n.users == 0 {
			delete(l.held, name)
		}
	}
	select {
	case <-n.free:
		return func() { n.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("wait for %s: %w", name, ctx.Err())
	}
}
