package calc

import (
	"hash/maphash"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// The numbers under which labels and what carries them are kept.
type (
	keyID     uint32 // a label key
	pairID    uint32 // a label key with a value
	labelsID  uint32 // labels of one endpoint or profile
	profileID uint32
	listID    uint32 // profiles of one endpoint; lonely marks the number of the only one
	classID   uint32 // labels and profiles of one endpoint
)

// labels keeps each label, each set of labels and each combination of labels
// and profiles of the cluster once, and finds by a label all that carry it.
// Endpoints with the same labels and profiles are one class: no selector can
// tell them apart. Where each endpoint has labels that no other has, there is
// one of each for each endpoint, so all are small.
type labels struct {
	seed      maphash.Seed
	keys      slab[keyID, labelKey]
	keyOf     map[string]keyID
	pairs     slab[pairID, pair]
	pairsBy   index[pairID]
	sets      slab[labelsID, labelSet]
	setsBy    index[labelsID]
	profiles  slab[profileID, profile]
	profileBy index[profileID]
	lists     slab[listID, profileList]
	listsBy   index[listID]
	classes   slab[classID, class]
	classBy   index[classID]
	bags      bags

	scan [userKinds][]uint32 // whoever wants to see every class

	scratch  []pairID
	scratchP []profileID
}

// labelKey is a key with all its values that are in use.
type labelKey struct {
	name  string
	pairs pairID         // the first of them
	sets  int            // how many sets of labels have the key
	users [userKinds]bag // whoever wants to see what has the key
}

type pair struct {
	value string
	key   keyID
	ofKey link[pairID]
	sets  bag            // of labelsID, that have it
	users [userKinds]bag // whoever wants to see what has the pair
}

type labelSet struct {
	pairs    []pairID // in order
	refs     uint32
	hash     uint32
	classes  classID   // those with it as own labels
	profiles profileID // those that carry it
}

// profile is there as long as it exists or an endpoint names it.
type profile struct {
	name    string
	set     labelsID // 0: no labels
	bySet   link[profileID]
	lists   bag     // of listID, those with others beside it
	classes classID // those with it alone
	exists  bool
	rules   *profileRules // nil: none
}

type profileRules struct{ ingress, egress []model.Rule }

type profileList struct {
	of      []profileID
	refs    uint32
	hash    uint32
	classes classID
}

const lonely listID = 1 << 31

type class struct {
	set    labelsID
	list   listID
	refs   uint32
	bySet  link[classID]
	byList link[classID]
	items  itemID
	in     bag // of memberSetID: the sets that its items are members of
}

func newLabels() labels { return labels{seed: maphash.MakeSeed(), keyOf: map[string]keyID{}} }

func (l *labels) ofKey() chain[pairID, pair] {
	return chain[pairID, pair]{&l.pairs, func(p *pair) *link[pairID] { return &p.ofKey }}
}

func (l *labels) bySet() chain[classID, class] {
	return chain[classID, class]{&l.classes, func(c *class) *link[classID] { return &c.bySet }}
}

func (l *labels) byList() chain[classID, class] {
	return chain[classID, class]{&l.classes, func(c *class) *link[classID] { return &c.byList }}
}

func (l *labels) carriers() chain[profileID, profile] {
	return chain[profileID, profile]{&l.profiles, func(p *profile) *link[profileID] { return &p.bySet }}
}

// settle lets numbers that the batch dropped be used again.
func (l *labels) settle() {
	l.keys.settle()
	l.pairs.settle()
	l.sets.settle()
	l.profiles.settle()
	l.lists.settle()
	l.classes.settle()
	l.bags.crowds.settle()
}

// pair returns the number of a label, a new one if need be. The texts are kept
// as they are.
func (l *labels) pair(key, value string) pairID {
	k := l.key(key)
	hash := l.hash(k, value)
	p := l.pairBy(hash, k, value)
	if p == 0 {
		p = l.pairs.add(pair{key: k, value: value})
		l.pairsBy.add(hash, p)
		l.ofKey().push(&l.keys.at(k).pairs, p)
	}
	return p
}

// known returns the number of a label, or 0.
func (l *labels) known(k keyID, value string) pairID { return l.pairBy(l.hash(k, value), k, value) }

func (l *labels) pairBy(hash uint32, k keyID, value string) pairID {
	return l.pairsBy.find(hash, func(id pairID) bool {
		p := l.pairs.at(id)
		return p.key == k && p.value == value
	})
}

func (l *labels) hash(k keyID, value string) uint32 {
	return mix(maphash.String(l.seed, value) ^ uint64(k)*0x9E3779B97F4A7C15)
}

func (l *labels) key(name string) keyID {
	k, ok := l.keyOf[name]
	if !ok {
		name = strings.Clone(name)
		k = l.keys.add(labelKey{name: name})
		l.keyOf[name] = k
	}
	return k
}

// tidy forgets a label that nothing has and nobody asks for.
func (l *labels) tidy(id pairID) {
	p := l.pairs.at(id)
	if p.sets != 0 || p.users != [userKinds]bag{} {
		return
	}
	k := p.key
	l.pairsBy.remove(l.hash(k, p.value), id)
	l.ofKey().unlink(&l.keys.at(k).pairs, id)
	l.pairs.drop(id)
	l.tidyKey(k)
}

func (l *labels) tidyKey(id keyID) {
	if k := l.keys.at(id); k.pairs == 0 && k.users == [userKinds]bag{} {
		delete(l.keyOf, k.name)
		l.keys.drop(id)
	}
}

// holdSet returns the set of these labels and counts a reference to it; 0 for
// none.
func (l *labels) holdSet(m map[string]string) labelsID {
	if len(m) == 0 {
		return 0
	}
	l.scratch = l.scratch[:0]
	for k, v := range m {
		l.scratch = append(l.scratch, l.pair(k, v))
	}
	slices.Sort(l.scratch)
	sum := uint64(len(m))
	for _, p := range l.scratch {
		sum = (sum ^ uint64(p)) * 0x100000001B3
	}
	hash := mix(sum)
	id := l.setsBy.find(hash, func(id labelsID) bool { return slices.Equal(l.sets.at(id).pairs, l.scratch) })
	if id == 0 {
		id = l.sets.add(labelSet{pairs: slices.Clone(l.scratch), hash: hash})
		for _, p := range l.scratch {
			to := l.pairs.at(p)
			l.bags.add(&to.sets, uint32(id))
			l.keys.at(to.key).sets++
		}
		l.setsBy.add(hash, id)
	}
	l.sets.at(id).refs++
	return id
}

func (l *labels) releaseSet(id labelsID) {
	if id == 0 {
		return
	}
	s := l.sets.at(id)
	if s.refs--; s.refs > 0 {
		return
	}
	l.setsBy.remove(s.hash, id)
	for _, p := range s.pairs {
		from := l.pairs.at(p)
		l.bags.remove(&from.sets, uint32(id))
		l.keys.at(from.key).sets--
		l.tidy(p)
	}
	l.sets.drop(id)
}

// holdClass returns the class of an endpoint with these labels and profiles,
// counts a reference to it, and says whether it is new.
func (l *labels) holdClass(own map[string]string, profiles []string) (classID, bool) {
	set, list := l.holdSet(own), l.holdList(profiles)
	hash := mix(uint64(set)<<32 | uint64(list))
	id := l.classBy.find(hash, func(id classID) bool {
		c := l.classes.at(id)
		return c.set == set && c.list == list
	})
	if id != 0 {
		l.releaseSet(set)
		l.releaseList(list)
		l.classes.at(id).refs++
		return id, false
	}
	id = l.classes.add(class{set: set, list: list, refs: 1})
	l.classBy.add(hash, id)
	if set != 0 {
		l.bySet().push(&l.sets.at(set).classes, id)
	}
	if list != 0 {
		l.byList().push(l.classesWith(list), id)
	}
	return id, true
}

func (l *labels) releaseClass(id classID) {
	c := l.classes.at(id)
	if c.refs--; c.refs > 0 {
		return
	}
	set, list := c.set, c.list
	l.classBy.remove(mix(uint64(set)<<32|uint64(list)), id)
	if set != 0 {
		l.bySet().unlink(&l.sets.at(set).classes, id)
	}
	if list != 0 {
		l.byList().unlink(l.classesWith(list), id)
	}
	l.classes.drop(id)
	l.releaseSet(set)
	l.releaseList(list)
}

// view is the labels of one class as selectors read them.
type view struct {
	l  *labels
	of classID
}

var _ selector.Labels = (*view)(nil)

// Get looks first at the endpoint's own labels, then at those of its profiles
// in their order.
func (v *view) Get(key string) (string, bool) {
	k, ok := v.l.keyOf[key]
	if !ok {
		return "", false
	}
	c := v.l.classes.at(v.of)
	if value, ok := v.l.value(c.set, k); ok {
		return value, true
	}
	var space [1]profileID
	for _, p := range v.l.listed(c.list, &space) {
		if value, ok := v.l.value(v.l.profiles.at(p).set, k); ok {
			return value, true
		}
	}
	return "", false
}

func (l *labels) value(set labelsID, k keyID) (string, bool) {
	if set == 0 {
		return "", false
	}
	for _, id := range l.sets.at(set).pairs {
		if p := l.pairs.at(id); p.key == k {
			return p.value, true
		}
	}
	return "", false
}

// eachPair visits the labels of a class and of its profiles, those too that
// are hidden behind others.
func (l *labels) eachPair(id classID, visit func(pairID)) {
	c := l.classes.at(id)
	l.eachOf(c.set, visit)
	var space [1]profileID
	for _, p := range l.listed(c.list, &space) {
		l.eachOf(l.profiles.at(p).set, visit)
	}
}

func (l *labels) eachOf(set labelsID, visit func(pairID)) {
	if set == 0 {
		return
	}
	for _, id := range l.sets.at(set).pairs {
		visit(id)
	}
}

// eachClass visits all classes.
func (l *labels) eachClass(visit func(classID)) {
	for id := classID(1); id < l.classes.next; id++ {
		if l.classes.at(id).refs > 0 {
			visit(id)
		}
	}
}

// eachWith visits the classes that have a label, of their own or by a
// profile, some of them more than once.
func (l *labels) eachWith(id pairID, visit func(classID)) {
	l.bags.each(l.pairs.at(id).sets, func(set uint32) {
		s := l.sets.at(labelsID(set))
		for c := s.classes; c != 0; c = l.classes.at(c).bySet.next {
			visit(c)
		}
		for p := s.profiles; p != 0; p = l.profiles.at(p).bySet.next {
			l.eachIn(p, visit)
		}
	})
}
