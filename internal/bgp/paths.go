package bgp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

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
	t.announce(p.Set, failed)
	t.poke()
	return failed
}

// announce hands over all paths that are well-formed, many at a time.
func (t paths) announce(set []reconcile.Entry[desired.PathKey, desired.Path], failed map[desired.PathKey]error) {
	good := make([]reconcile.Entry[desired.PathKey, desired.Path], 0, len(set))
	for _, e := range set {
		if err := checkPath(e.Key, e.Value); err != nil {
			failed[e.Key] = err
			continue
		}
		good = append(good, e)
	}
	for part := range slices.Chunk(good, batch) {
		var err error
		if t.engine != nil {
			err = t.engine.announce(func(yield func(netip.Prefix, desired.Path) bool) {
				for _, e := range part {
					if !yield(e.Key, e.Value) {
						return
					}
				}
			})
		}
		for _, e := range part {
			if err != nil {
				failed[e.Key] = fmt.Errorf("announce %v: %w", e.Key, err)
			} else {
				t.paths[e.Key] = e.Value
			}
		}
	}
}

func (t paths) withdraw(keys []desired.PathKey) error {
	if t.engine == nil || len(keys) == 0 {
		return nil
	}
	return t.engine.withdraw(keys)
}

func checkPath(key netip.Prefix, v desired.Path) error {
	if prefix.Canonical(key) != key || !key.IsValid() {
		return fmt.Errorf("announce %v: not a prefix in canonical form", key)
	}
	if _, err := attributes(key, v); err != nil {
		return fmt.Errorf("announce %v: %w", key, err)
	}
	return nil
}
