package calc

import (
	"hash/maphash"
	"net/netip"
	"reflect"
	"slices"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

type itemID uint32

// members is the stage that knows every endpoint and network set of the
// cluster by what policy can see of them, labels and addresses, and keeps the
// sets that rules refer to up to date. It is compact: most of what it holds is
// about other hosts.
type members struct {
	labels   labels
	seed     maphash.Seed
	items    slab[itemID, item]
	byID     index[itemID]
	services map[model.ServiceRef]*model.Service
	sets     memberSets
	watched  map[classID]bool // of local endpoints
	changed  []classID        // those of them whose labels came out anew in this batch
	scratch  []uint32
	was, is  []uint32 // sets, in order
	view     view     // of the class that is looked at
}

// item is an endpoint or a network set. Most have one address.
type item struct {
	name, namespace string
	kind            model.Kind
	class           classID
	byClass         link[itemID]
	addr            netip.Addr // if it has nothing else
	more            *content
}

// content is what an item has to be a member with.
type content struct {
	addrs []netip.Addr
	nets  []netip.Prefix
	ports []model.NamedPort
}

func newMembers() members {
	return members{
		labels: newLabels(), seed: maphash.MakeSeed(), watched: map[classID]bool{},
		services: map[model.ServiceRef]*model.Service{}, sets: newMemberSets(),
	}
}

// take stores what of a batch is about members.
func (m *members) take(batch []model.Event) {
	m.changed = m.changed[:0]
	for _, e := range batch {
		switch e.ID.Kind {
		case model.KindWorkload:
			v, _ := e.Value.(*model.Workload)
			if v == nil {
				m.drop(e.ID)
				continue
			}
			m.put(e.ID, v.Labels, v.Profiles, content{addrs: v.Addrs, ports: v.Ports})
		case model.KindHostEndpoint:
			v, _ := e.Value.(*model.HostEndpoint)
			if v == nil {
				m.drop(e.ID)
				continue
			}
			m.put(e.ID, v.Labels, v.Profiles, content{addrs: v.Addrs, ports: v.Ports})
		case model.KindNetworkSet:
			v, _ := e.Value.(*model.NetworkSet)
			if v == nil {
				m.drop(e.ID)
				continue
			}
			m.put(e.ID, v.Labels, v.Profiles, content{nets: v.Nets})
		case model.KindProfile:
			v, _ := e.Value.(*model.Profile)
			m.putProfile(e.ID.Name, v)
		case model.KindService:
			v, _ := e.Value.(*model.Service)
			m.putService(model.ServiceRef{Namespace: e.ID.Namespace, Name: e.ID.Name}, v)
		}
	}
}

// settle ends a batch.
func (m *members) settle() {
	m.labels.settle()
	m.items.settle()
}

func (m *members) hash(id model.ID) uint32 {
	return mix(maphash.String(m.seed, id.Name) ^ maphash.String(m.seed, id.Namespace)*3 ^ uint64(id.Kind))
}

func (m *members) find(id model.ID, hash uint32) itemID {
	return m.byID.find(hash, func(k itemID) bool {
		it := m.items.at(k)
		return it.name == id.Name && it.namespace == id.Namespace && it.kind == id.Kind
	})
}

func (m *members) siblings() chain[itemID, item] {
	return chain[itemID, item]{&m.items, func(i *item) *link[itemID] { return &i.byClass }}
}

// put stores an item.
func (m *members) put(id model.ID, own map[string]string, profiles []string, has content) {
	hash := m.hash(id)
	k := m.find(id, hash)
	cls, fresh := m.labels.holdClass(own, profiles)
	if fresh {
		c := m.labels.classes.at(cls)
		for _, s := range m.matching(cls) {
			m.labels.bags.add(&c.in, uint32(s))
		}
	}
	var old item
	if k != 0 {
		old = *m.items.at(k)
		if old.class == cls && old.has(has) {
			m.labels.releaseClass(cls)
			return
		}
	} else {
		k = m.items.add(item{name: id.Name, namespace: m.shared(id.Namespace), kind: id.Kind})
		m.byID.add(hash, k)
	}
	it := m.items.at(k)
	it.class = cls
	it.addr, it.more = netip.Addr{}, nil
	if len(has.addrs) == 1 && len(has.nets) == 0 && len(has.ports) == 0 {
		it.addr = has.addrs[0]
	} else if len(has.addrs)+len(has.nets) > 0 {
		it.more = &content{has.addrs, has.nets, has.ports}
	}
	m.move(&old, it)
	if old.class != cls {
		if old.class != 0 {
			m.siblings().unlink(&m.labels.classes.at(old.class).items, k)
		}
		m.siblings().push(&m.labels.classes.at(cls).items, k)
	}
	if old.class != 0 {
		m.labels.releaseClass(old.class)
	}
}

func (m *members) drop(id model.ID) {
	hash := m.hash(id)
	k := m.find(id, hash)
	if k == 0 {
		return
	}
	old := *m.items.at(k)
	m.move(&old, &item{})
	m.siblings().unlink(&m.labels.classes.at(old.class).items, k)
	m.labels.releaseClass(old.class)
	m.byID.remove(hash, k)
	m.items.drop(k)
}

// shared returns the one copy of a namespace's name that its labels have, if
// there is one.
func (m *members) shared(namespace string) string {
	if k, ok := m.labels.keyOf[selector.NamespaceLabel]; ok {
		if p := m.labels.known(k, namespace); p != 0 {
			return m.labels.pairs.at(p).value
		}
	}
	return namespace
}

// has reports whether an item has just this.
func (i *item) has(c content) bool {
	if i.more == nil {
		if i.addr.IsValid() {
			return len(c.addrs) == 1 && c.addrs[0] == i.addr && len(c.nets) == 0 && len(c.ports) == 0
		}
		return len(c.addrs)+len(c.nets) == 0
	}
	return slices.Equal(i.more.addrs, c.addrs) && slices.Equal(i.more.nets, c.nets) && slices.Equal(i.more.ports, c.ports)
}

// same reports whether two items have the same.
func (i *item) same(o *item) bool {
	if o.more != nil {
		return i.has(*o.more)
	}
	return i.more == nil && i.addr == o.addr
}

// each visits the prefixes that an item is a member with.
func (i *item) each(visit func(netip.Prefix)) {
	if i.addr.IsValid() {
		visit(single(i.addr))
	}
	if i.more != nil {
		for _, a := range i.more.addrs {
			visit(single(a))
		}
		for _, n := range i.more.nets {
			visit(n)
		}
	}
}

// size is how often each calls.
func (i *item) size() int {
	if i.more != nil {
		return len(i.more.addrs) + len(i.more.nets)
	}
	if i.addr.IsValid() {
		return 1
	}
	return 0
}

// matching returns the sets that a class is in. The result is good until the
// next call.
func (m *members) matching(id classID) []memberSetID {
	m.scratch = m.labels.usersFor(bySets, id, m.scratch[:0])
	m.view = view{&m.labels, id}
	m.sets.scratch = m.sets.scratch[:0]
	for _, u := range m.scratch {
		if m.sets.all.at(memberSetID(u)).selects.Matches(&m.view) {
			m.sets.scratch = append(m.sets.scratch, memberSetID(u))
		}
	}
	return m.sets.scratch
}

// move brings the sets up to date when an item's class or content changes.
// What comes is added before what goes is taken away.
func (m *members) move(from, to *item) {
	m.was, m.is = m.was[:0], m.is[:0]
	if from.class != 0 {
		m.was = m.labels.bags.list(m.labels.classes.at(from.class).in, m.was)
	}
	if to.class != 0 {
		m.is = m.labels.bags.list(m.labels.classes.at(to.class).in, m.is)
	}
	same := from.same(to)
	m.sets.countAll(m.is, m.was, same, to, 1)
	m.sets.countAll(m.was, m.is, same, from, -1)
}

// countAll counts an item in some sets, but for others that are in order.
func (s *memberSets) countAll(in, but []uint32, except bool, it *item, by int) {
	for _, set := range in {
		if _, found := slices.BinarySearch(but, set); !found || !except {
			s.count(memberSetID(set), it, by)
		}
	}
}

// putProfile stores a profile and, where its labels are others now, sees to
// all endpoints that name it.
func (m *members) putProfile(name string, v *model.Profile) {
	id, relabelled := m.labels.setProfile(name, v)
	if !relabelled {
		return
	}
	m.labels.eachIn(id, func(c classID) {
		if m.watched[c] {
			m.changed = append(m.changed, c)
		}
		m.relabel(c)
	})
}

// relabel works out again which sets a class is in.
func (m *members) relabel(id classID) {
	c, bags := m.labels.classes.at(id), &m.labels.bags
	m.was, m.is = bags.list(c.in, m.was[:0]), m.is[:0]
	for _, s := range m.matching(id) {
		m.is = append(m.is, uint32(s))
	}
	if slices.Equal(m.is, m.was) {
		return
	}
	for _, s := range m.was {
		bags.remove(&c.in, s)
	}
	for _, s := range m.is {
		bags.add(&c.in, s)
	}
	for k := c.items; k != 0; {
		it := m.items.at(k)
		m.sets.countAll(m.is, m.was, true, it, 1)
		m.sets.countAll(m.was, m.is, true, it, -1)
		k = it.byClass.next
	}
}

// putService stores what is behind a service.
func (m *members) putService(ref model.ServiceRef, v *model.Service) {
	old := m.services[ref]
	if reflect.DeepEqual(old, v) {
		return
	}
	if v == nil {
		delete(m.services, ref)
	} else {
		m.services[ref] = v
	}
	for _, kind := range []byte{servicePorts, serviceAddrs} {
		if s, ok := m.sets.by[setKey{kind, ref.Namespace, ref.Name}]; ok {
			m.sets.countService(s, v, 1)
			m.sets.countService(s, old, -1)
		}
	}
}

// classOf returns the class of an endpoint, 0 if there is no such endpoint.
func (m *members) classOf(id model.ID) classID {
	if k := m.find(id, m.hash(id)); k != 0 {
		return m.items.at(k).class
	}
	return 0
}
