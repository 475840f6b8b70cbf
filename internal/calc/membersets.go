package calc

import (
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

type memberSetID uint32

// The kinds of set, as they begin an ID.
const (
	selected     = 's' // the addresses of what a selector matches
	namedPort    = 'n' // those of its endpoints that have a port of a name, with it
	servicePorts = 'v' // what is behind a service
	serviceAddrs = 'w' // the addresses of that
)

// setKey tells sets apart: by canonical selector and port, or by namespace and
// name of a service.
type setKey struct {
	kind byte
	a, b string
}

// memberSets are the sets that rules in force refer to, each once, however
// many rules do.
type memberSets struct {
	all     slab[memberSetID, memberSet]
	by      map[setKey]memberSetID
	touched []memberSetID // in this batch
	scratch []memberSetID
	matched []classID // space
}

type memberSet struct {
	id      desired.SetID
	key     setKey
	selects selector.Selector
	under   registration
	refs    int
	fresh   bool // made in this batch
	noted   bool // among those touched in it
	live    *desired.Set
	// extra counts the contributions beyond the first to members that have
	// several.
	extra          map[desired.Member]int
	added, removed []desired.Member // in this batch
}

func newMemberSets() memberSets { return memberSets{by: map[setKey]memberSetID{}} }

// setIDOf returns the name of a set, which says what is in it.
func setIDOf(key setKey, s selector.Selector) desired.SetID {
	switch key.kind {
	case selected:
		return desired.SetID(s.ID())
	case namedPort:
		sum := sha256.Sum224([]byte("n:" + key.a + "/" + key.b))
		return desired.SetID("n:" + base64.RawURLEncoding.EncodeToString(sum[:]))
	}
	return desired.SetID(string(key.kind) + ":" + key.a + "/" + key.b)
}

// hold counts a reference to a set and makes it if it is not there.
func (m *members) hold(key setKey, s selector.Selector) memberSetID {
	id, ok := m.sets.by[key]
	if !ok {
		set := memberSet{id: setIDOf(key, s), key: key, selects: s, fresh: true, live: &desired.Set{}}
		if key.kind == namedPort || key.kind == servicePorts {
			set.live.Kind = desired.PortSet
		}
		id = m.sets.all.add(set)
		m.sets.by[key] = id
		m.fill(id)
	}
	set := m.sets.all.at(id)
	set.refs++
	if set.fresh {
		m.sets.touch(id, set)
	}
	return id
}

func (m *members) release(id memberSetID) {
	set := m.sets.all.at(id)
	set.refs--
	if set.refs == 0 {
		m.sets.touch(id, set)
	}
}

// touch notes a set for the end of the batch.
func (s *memberSets) touch(id memberSetID, set *memberSet) {
	if !set.noted {
		set.noted = true
		s.touched = append(s.touched, id)
	}
}

// fill puts in the first members of a new set. Only candidates are looked at.
func (m *members) fill(id memberSetID) {
	set := m.sets.all.at(id)
	if set.key.kind == servicePorts || set.key.kind == serviceAddrs {
		set.live.Members = map[desired.Member]struct{}{}
		m.sets.countService(id, m.services[model.ServiceRef{Namespace: set.key.a, Name: set.key.b}], 1)
		return
	}
	size, matched := 0, m.sets.matched[:0]
	m.labels.candidates(set.selects, func(c classID) {
		cls := m.labels.classes.at(c)
		if m.view = (view{&m.labels, c}); m.labels.bags.has(cls.in, uint32(id)) || !set.selects.Matches(&m.view) {
			return
		}
		m.labels.bags.add(&cls.in, uint32(id))
		matched = append(matched, c)
		for k := cls.items; k != 0 && set.key.kind == selected; {
			it := m.items.at(k)
			size += it.size()
			k = it.byClass.next
		}
	})
	set.under = m.labels.register(bySets, uint32(id), set.selects)
	set.live.Members = make(map[desired.Member]struct{}, size)
	set.added = make([]desired.Member, 0, size)
	m.sets.matched = matched
	for _, c := range matched {
		for k := m.labels.classes.at(c).items; k != 0; {
			it := m.items.at(k)
			m.sets.count(id, it, 1)
			k = it.byClass.next
		}
	}
}

// count adds or takes away what an item contributes to a set.
func (s *memberSets) count(id memberSetID, it *item, by int) {
	set := s.all.at(id)
	if set.key.kind == selected {
		it.each(func(p netip.Prefix) { s.one(id, set, desired.Member{Prefix: p}, by) })
		return
	}
	if it.more == nil {
		return
	}
	for _, port := range it.more.ports {
		if port.Name != set.key.b {
			continue
		}
		for _, a := range it.more.addrs {
			s.one(id, set, desired.Member{Prefix: single(a), Protocol: port.Protocol, Port: port.Port}, by)
		}
	}
}

func (s *memberSets) countService(id memberSetID, v *model.Service, by int) {
	if v == nil {
		return
	}
	set := s.all.at(id)
	for _, b := range v.Backends {
		m := desired.Member{Prefix: single(b.Addr)}
		if set.key.kind == servicePorts && (b.Protocol == 0 || b.Port == 0) {
			continue // an address that no port is open at
		}
		if set.key.kind == servicePorts {
			m.Protocol, m.Port = b.Protocol, b.Port
		}
		s.one(id, set, m, by)
	}
}

// one counts one contribution to a member.
func (s *memberSets) one(id memberSetID, set *memberSet, m desired.Member, by int) {
	_, in := set.live.Members[m]
	switch {
	case by > 0 && in:
		if set.extra == nil {
			set.extra = map[desired.Member]int{}
		}
		set.extra[m]++
		return
	case by > 0:
		set.live.Members[m] = struct{}{}
		set.added = append(set.added, m)
	case set.extra[m] > 1:
		set.extra[m]--
		return
	case set.extra[m] == 1:
		delete(set.extra, m)
		return
	default:
		delete(set.live.Members, m)
		set.removed = append(set.removed, m)
	}
	s.touch(id, set)
}

// flush ends a batch: it says what has changed in the sets, and forgets those
// that nothing refers to any more.
func (m *members) flush(to map[desired.SetID]*desired.Set) map[desired.SetID]desired.SetPatch {
	if len(m.sets.touched) == 0 {
		return nil
	}
	out := make(map[desired.SetID]desired.SetPatch, len(m.sets.touched))
	slices.Sort(m.sets.touched)
	for _, id := range m.sets.touched {
		set := m.sets.all.at(id)
		if set.refs == 0 {
			if !set.fresh {
				out[set.id] = desired.SetPatch{Kind: set.live.Kind, Gone: true}
				delete(to, set.id)
			}
			m.forget(id, set)
			continue
		}
		p := desired.SetPatch{Kind: set.live.Kind}
		p.Add, p.Remove = net(set.added, set.removed)
		if set.fresh || len(p.Add)+len(p.Remove) > 0 {
			out[set.id], to[set.id] = p, set.live
		}
		set.fresh, set.noted, set.added, set.removed = false, false, nil, nil
	}
	m.sets.touched = m.sets.touched[:0]
	m.sets.all.settle()
	if len(out) == 0 {
		return nil
	}
	return out
}

// forget takes a set out of the classes that are in it.
func (m *members) forget(id memberSetID, set *memberSet) {
	delete(m.sets.by, set.key)
	if set.key.kind == selected || set.key.kind == namedPort {
		m.labels.candidates(set.selects, func(c classID) {
			m.labels.bags.remove(&m.labels.classes.at(c).in, uint32(id))
		})
		m.labels.unregister(bySets, uint32(id), set.under)
	}
	m.sets.all.drop(id)
}

// net leaves out what was added as often as it was removed.
func net(added, removed []desired.Member) (add, remove []desired.Member) {
	if len(added) == 0 || len(removed) == 0 {
		return added, removed
	}
	sum := make(map[desired.Member]int, len(added)+len(removed))
	for _, m := range added {
		sum[m]++
	}
	for _, m := range removed {
		sum[m]--
	}
	take := func(from []desired.Member, want int) []desired.Member {
		return slices.DeleteFunc(from, func(m desired.Member) bool {
			if sum[m] != want {
				return true
			}
			delete(sum, m)
			return false
		})
	}
	return take(added, 1), take(removed, -1)
}
