package bgp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// Paths returns the target that holds the announced prefixes. The next hop is
// this host's own address on each session.
func (s *Server) Paths() reconcile.Target[desired.PathKey, desired.Path] { return paths{s} }

type paths struct{ *Server }

// List returns what is announced.
func (t paths) List(context.Context) (map[desired.PathKey]desired.Path, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.paths), nil
}

// Apply announces and withdraws.
func (t paths) Apply(_ context.Context, p reconcile.Plan[desired.PathKey, desired.Path]) map[desired.PathKey]error {
	t.mu.Lock()
	defer t.mu.Unlock()
	failed := map[desired.PathKey]error{}
	fail := func(keys []desired.PathKey, err error) {
		for _, k := range keys {
			failed[k] = err
		}
	}
	if t.stopped {
		fail(p.Delete, ErrStopped)
		for _, e := range p.Set {
			failed[e.Key] = ErrStopped
		}
		return failed
	}
	if err := t.withdraw(p.Delete); err != nil {
		fail(p.Delete, err)
	} else {
		for _, k := range p.Delete {
			delete(t.paths, k)
			t.gate.gone(k)
		}
	}
	for _, e := range p.Set {
		if err := t.set(e.Key, e.Value); err != nil {
			failed[e.Key] = err
		}
	}
	t.poke()
	return failed
}

func (t paths) withdraw(keys []desired.PathKey) error {
	if t.engine == nil || len(keys) == 0 {
		return nil
	}
	return t.engine.withdraw(keys)
}

func (t paths) set(key netip.Prefix, v desired.Path) error {
	if prefix.Canonical(key) != key || !key.IsValid() {
		return fmt.Errorf("announce %v: not a prefix in canonical form", key)
	}
	if _, err := attributes(key, v); err != nil {
		return fmt.Errorf("announce %v: %w", key, err)
	}
	if t.engine != nil {
		if err := t.engine.announce(func(yield func(netip.Prefix, desired.Path) bool) { yield(key, v) }); err != nil {
			return fmt.Errorf("announce %v: %w", key, err)
		}
	}
	t.paths[key] = v
	return nil
}
