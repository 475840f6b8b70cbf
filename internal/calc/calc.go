// Package calc turns what is in the datastore into what this host should look
// like, a little at a time. It is pure: no clock, no kernel, no goroutine, no
// log. The same events in any order give the same result.
package calc

import (
	"maps"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// Core holds what has been seen and what has been asked for. It is used by
// one goroutine.
type Core struct {
	in       inputs
	active   active
	owned    owned
	sessions sessions
	members  members
	policies *policies
	overlay  overlay
	own      own
	asked    desired.State
}

// New returns the core of one host, which has seen nothing yet. What holds
// without any input (forwarding, the notice that the host has no address) is
// in the first Update, whatever its batch.
func New(s model.Settings) *Core {
	c := &Core{
		in:       newInputs(s),
		members:  newMembers(),
		policies: newPolicies(),
		own:      newOwn(),
		asked:    desired.NewState(),
	}
	c.overlay = newOverlay(&c.in)
	return c
}

// Apply takes a batch of events and returns what changes for the host. Each
// stage reads the ones above it and nothing else: the calculation is this
// function, read from top to bottom. A stage that nothing it reads has
// changed for is skipped, and so is its part of the comparison.
func (c *Core) Apply(batch []model.Event) desired.Update {
	t := c.in.take(batch)                 // 1 what the datastore says; t: what was touched
	c.overlay.meet(t)                     // 2 which node has which address
	c.active.update(&c.in, &c.overlay, t) // 3 local workloads, each address with one owner
	c.owned.update(&c.in, t)              // 4 blocks of addresses that are this host's
	c.sessions.update(&c.in, t)           // 5 the BGP speaker and its sessions
	c.overlay.update(&c.active, t)        // 6 the other hosts, their ends of tunnels and their blocks
	c.members.take(batch)                 // 7 labels and addresses of the cluster, and the sets of them in use
	c.policies.update(c, batch, t)        // 8 which policies select whom here, in which order
	var u desired.Update                  //
	c.kernel(t, &u)                       // 9 links, routes, neighbours, sysctls
	c.announce(t, &u)                     // 10 what is told to peers and believed of them
	c.endpoints(t, &u)                    // 11 workloads under policy, its rules and their sets
	c.tunnels(t, &u)                      // 12 interfaces of tunnels, routes to other hosts, and who may send
	c.notices(t, &u)                      // 13 what a person must know
	if t.sessions {
		u.Speakers = diff(c.asked.Speakers, c.sessions.speaker, desired.Speaker.Equal)
		u.Peers = diff(c.asked.Peers, c.sessions.peers, same)
	} else {
		u.Peers = c.sessions.moved(c.asked.Peers)
	}
	return u
}

// State is everything asked for so far. The caller does not change it.
func (c *Core) State() desired.State { return c.asked }

// diff makes old equal to next and says what it took.
func diff[K comparable, V any](old, next map[K]V, equal func(a, b V) bool) desired.Patch[K, V] {
	var p desired.Patch[K, V]
	for k, v := range next {
		if o, ok := old[k]; !ok || !equal(o, v) {
			if p.Set == nil {
				p.Set = make(map[K]V, max(0, len(next)-len(old)))
			}
			p.Set[k], old[k] = v, v
		}
	}
	if len(old) == len(next) {
		return p
	}
	for k := range old {
		if _, ok := next[k]; !ok {
			p.Delete = append(p.Delete, k)
			delete(old, k)
		}
	}
	return p
}

// exchange takes some entries out of a table and puts others in, and says what
// it took. An empty table becomes what is put into it.
func exchange[K comparable, V any](to *map[K]V, out, in map[K]V, equal func(a, b V) bool) desired.Patch[K, V] {
	var p desired.Patch[K, V]
	table := *to
	if len(table) == 0 && len(in) > 0 {
		*to = in
		return desired.Patch[K, V]{Set: maps.Clone(in)}
	}
	for k, v := range in {
		if o, ok := table[k]; !ok || !equal(o, v) {
			if p.Set == nil {
				p.Set = make(map[K]V, len(in))
			}
			p.Set[k], table[k] = v, v
		}
	}
	for k := range out {
		if _, stays := in[k]; stays {
			continue
		}
		if _, ok := table[k]; ok {
			p.Delete = append(p.Delete, k)
			delete(table, k)
		}
	}
	return p
}

// same compares values that == can compare.
func same[V comparable](a, b V) bool { return a == b }
