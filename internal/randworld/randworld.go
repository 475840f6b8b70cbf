// Package randworld makes random clusters and random flows through them, the
// same ones for the same seed, for tests that hold several answers to one
// question against each other. The worlds are small, so that things overlap,
// clash, tie and refer to what is not there; the flows are made so that each
// kind of match decides often.
package randworld

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// Node is the name of the host that the tests look at.
const Node = "h1"

// World is one random cluster. It is used by one goroutine.
type World struct {
	rng     *rand.Rand
	rare    *rand.Rand // for what is seldom: the rest of the world is the same with it
	objects map[model.ID]model.Value
	ids     []model.ID // of objects, in order
	flows   flowMaker
	stale   bool // objects have changed since flows was made
	more    func() (model.ID, model.Value)
}

// New returns the cluster of a seed.
func New(seed uint64) *World {
	w := empty(seed)
	w.more = w.anything
	for i := range 3 {
		w.put(w.node(i))
	}
	for i := range namespaces {
		if w.chance(90) {
			w.put(w.namespace(i))
		}
		if w.chance(60) {
			w.put(w.serviceAccount(i))
		}
	}
	for _, part := range []struct {
		most int
		make func(int) (model.ID, model.Value)
	}{
		{2, w.extraProfile}, {8, w.workload}, {2, w.hostEndpoint}, {4, w.networkSet},
		{3, w.service}, {5, w.tier}, {9, w.policy},
	} {
		least := (part.most + 1) / 2
		for i := range least + w.rng.IntN(part.most-least+1) {
			w.put(part.make(i))
		}
	}
	return w
}

func empty(seed uint64) *World {
	return &World{rng: rand.New(rand.NewPCG(seed, 0x6272696e646c65)), rare: rand.New(rand.NewPCG(seed, 0x72617265)),
		objects: map[model.ID]model.Value{}, stale: true}
}

// Events tells of every object of the cluster once, in random order.
func (w *World) Events() []model.Event {
	out := make([]model.Event, 0, len(w.ids))
	for _, id := range w.ids {
		out = append(out, model.Event{ID: id, Value: w.objects[id]})
	}
	w.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// Change changes the cluster a little and returns the events that tell: up to
// a few objects appear, become others or go.
func (w *World) Change() []model.Event {
	var out []model.Event
	for range 1 + w.rng.IntN(3) {
		if len(w.ids) > 0 && w.chance(25) {
			id := w.ids[w.rng.IntN(len(w.ids))]
			w.put(id, nil)
			out = append(out, model.Event{ID: id})
			continue
		}
		id, v := w.more()
		w.put(id, v)
		out = append(out, model.Event{ID: id, Value: v})
	}
	return out
}

// anything makes an object that may be there already as another.
func (w *World) anything() (model.ID, model.Value) {
	switch n := w.rng.IntN(20); {
	case n < 1:
		return w.node(w.rng.IntN(3))
	case n < 2:
		return w.namespace(w.rng.IntN(len(namespaces)))
	case n < 3:
		return w.serviceAccount(w.rng.IntN(len(namespaces)))
	case n < 4:
		return w.extraProfile(w.rng.IntN(2))
	case n < 8:
		return w.workload(w.rng.IntN(8))
	case n < 9:
		return w.hostEndpoint(w.rng.IntN(2))
	case n < 11:
		return w.networkSet(w.rng.IntN(4))
	case n < 12:
		return w.service(w.rng.IntN(3))
	case n < 13:
		return w.tier(w.rng.IntN(5))
	}
	return w.policy(w.rng.IntN(9))
}

// put stores an object, or removes it if it is nil.
func (w *World) put(id model.ID, v model.Value) {
	w.stale = true
	at, found := slices.BinarySearchFunc(w.ids, id, model.ID.Compare)
	switch {
	case v == nil && found:
		w.ids = slices.Delete(w.ids, at, at+1)
		delete(w.objects, id)
		return
	case v == nil:
		return
	case !found:
		w.ids = slices.Insert(w.ids, at, id)
	}
	w.objects[id] = v
}

func (w *World) chance(percent int) bool { return w.rng.IntN(100) < percent }

func pick[T any](w *World, of ...T) T { return of[w.rng.IntN(len(of))] }

// some returns up to most of a list, in its order, each once.
func some[T any](w *World, most int, of []T) []T {
	var out []T
	for _, i := range slices.Sorted(slices.Values(w.rng.Perm(len(of))[:1+w.rng.IntN(min(most, len(of)))])) {
		out = append(out, of[i])
	}
	return out
}

// labelsOf are the labels of an endpoint or network set with those of its
// profiles.
func (w *World) labelsOf(own map[string]string, profiles []string) selector.Map {
	out := selector.Map{}
	for _, name := range slices.Backward(profiles) {
		if p, ok := w.objects[model.ID{Kind: model.KindProfile, Name: name}].(*model.Profile); ok {
			maps.Copy(out, p.Labels)
		}
	}
	maps.Copy(out, own)
	return out
}

// address makes an address out of a few: of workloads, of nobody, of hosts.
func (w *World) address(four bool) netip.Addr {
	n := byte(1 + w.rng.IntN(30))
	switch {
	case w.chance(80) && four:
		return netip.AddrFrom4([4]byte{10, 65, 0, n})
	case four:
		return netip.AddrFrom4([4]byte{192, 0, 2, n % 4})
	case w.chance(80):
		return netip.AddrFrom16([16]byte{0: 0xfd, 15: n})
	}
	return netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 15: n % 4})
}

// The networks that rules and sets name: they overlap, and touch at the edges.
func networks(four bool) []string {
	if four {
		return []string{
			"10.65.0.0/24", "10.65.0.0/28", "10.65.0.0/29", "10.65.0.8/29", "10.65.0.16/28", "10.65.0.5/32", "10.65.0.6/31",
			"10.0.0.0/8", "192.0.2.0/24", "192.0.2.2/31", "128.0.0.0/1", "0.0.0.0/0", "172.16.0.0/24",
		}
	}
	return []string{
		"fd00::/64", "fd00::/124", "fd00::/125", "fd00::8/125", "fd00::10/124", "fd00::5/128", "fd00::6/127",
		"fd00::/8", "2001:db8::/32", "2001:db8::2/127", "8000::/1", "::/0", "fd01::/64",
	}
}

func (w *World) nets(most int, four bool) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range some(w, most, networks(four)) {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// order makes an order that often ties with another.
func (w *World) order(none float64) float64 {
	switch w.rng.IntN(5) {
	case 0:
		return none
	case 1:
		return float64(w.rng.IntN(100_000))
	}
	return pick(w, -5, 0, 0.5, 10, 10, 1000, 1000)
}

// sortedNets sorts networks, each once, as a network set has them.
func sortedNets(nets []netip.Prefix) []netip.Prefix {
	slices.SortFunc(nets, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return slices.Compact(nets)
}
