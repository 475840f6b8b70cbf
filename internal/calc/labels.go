package calc

import (
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// The numbers under which labels and what carries them are kept.
type (
	pairID    uint32 // a label key with a value
	labelsID  uint32 // labels of one endpoint or profile
	profileID uint32
	listID    uint32 // profiles of one endpoint
	classID   uint32 // labels and profiles of one endpoint
)

// labels keeps each label, each set of labels and each combination of labels
// and profiles of the cluster once, and finds by a label all that carry it.
// Endpoints with the same labels and profiles are one class: no selector can
// tell them apart.
type labels struct {
	keys     map[string]*labelKey
	pairs    slab[pairID, pair]
	sets     slab[labelsID, labelSet]
	setsBy   index[labelsID]
	profiles slab[profileID, profile]
	named    map[string]profileID
	lists    slab[listID, profileList]
	listsBy  index[listID]
	classes  slab[classID, class]
	classBy  index[classID]

	scan [userKinds][]uint32 // whoever wants to see every class

	scratch  []pairID
	scratchP []profileID
}

// labelKey is a key with all its values that are in use.
type labelKey struct {
	name   string
	values map[string]pairID
	users  [userKinds][]uint32 // whoever wants to see what has the key
}

type pair struct {
	key   *labelKey
	value string
	sets  []labelsID
	users [userKinds][]uint32 // whoever wants to see what has the pair
}

type labelSet struct {
	entries  []labelEntry // by pair
	refs     uint32
	hash     uint32
	classes  classID   // those with it as own labels
	profiles profileID // those that carry it
}

// labelEntry is a pair of a set, and where the set stands in the pair's list.
type labelEntry struct {
	pair pairID
	at   uint32
}

// profile is there as long as it exists or an endpoint names it.
type profile struct {
	name            string
	exists          bool
	set             labelsID // 0: no labels
	bySet           link[profileID]
	lists           []listID
	ingress, egress []model.Rule
}

type profileList struct {
	of      []profileID
	refs    uint32
	hash    uint32
	classes classID
}

type class struct {
	set    labelsID
	list   listID
	refs   uint32
	bySet  link[classID]
	byList link[classID]
	items  itemID
	in     []memberSetID // the sets that its items are members of, sorted
}

func newLabels() labels {
	return labels{keys: map[string]*labelKey{}, named: map[string]profileID{}}
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
	l.pairs.settle()
	l.sets.settle()
	l.profiles.settle()
	l.lists.settle()
	l.classes.settle()
}

// pair returns the number of a label, a new one if need be.
func (l *labels) pair(key, value string) pairID {
	k := l.key(key)
	if p, ok := k.values[value]; ok {
		return p
	}
	value = strings.Clone(value)
	p := l.pairs.add(pair{key: k, value: value})
	k.values[value] = p
	return p
}

func (l *labels) key(name string) *labelKey {
	k := l.keys[name]
	if k == nil {
		k = &labelKey{name: strings.Clone(name), values: map[string]pairID{}}
		l.keys[k.name] = k
	}
	return k
}

// tidy forgets a label that nothing has and nobody asks for.
func (l *labels) tidy(id pairID) {
	p := l.pairs.at(id)
	if len(p.sets) > 0 || len(p.users[0]) > 0 || len(p.users[1]) > 0 {
		return
	}
	k := p.key
	delete(k.values, p.value)
	l.pairs.drop(id)
	l.tidyKey(k)
}

func (l *labels) tidyKey(k *labelKey) {
	if len(k.values) == 0 && len(k.users[0]) == 0 && len(k.users[1]) == 0 {
		delete(l.keys, k.name)
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
	id := l.setsBy.find(hash, func(id labelsID) bool {
		return slices.EqualFunc(l.sets.at(id).entries, l.scratch, func(e labelEntry, p pairID) bool { return e.pair == p })
	})
	if id == 0 {
		entries := make([]labelEntry, len(l.scratch))
		id = l.sets.add(labelSet{entries: entries, hash: hash})
		for i, p := range l.scratch {
			to := l.pairs.at(p)
			entries[i] = labelEntry{p, uint32(len(to.sets))}
			to.sets = append(to.sets, id)
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
	for _, e := range s.entries {
		p := l.pairs.at(e.pair)
		last := uint32(len(p.sets) - 1)
		if moved := p.sets[last]; moved != id {
			p.sets[e.at] = moved
			in := l.sets.at(moved).entries
			i, _ := slices.BinarySearchFunc(in, e.pair, func(e labelEntry, p pairID) int { return int(e.pair) - int(p) })
			in[i].at = e.at
		}
		p.sets = p.sets[:last]
		l.tidy(e.pair)
	}
	l.sets.drop(id)
}

// profile returns the number of a profile, a new one if need be.
func (l *labels) profile(name string) profileID {
	id, ok := l.named[name]
	if !ok {
		name = strings.Clone(name)
		id = l.profiles.add(profile{name: name})
		l.named[name] = id
	}
	return id
}

func (l *labels) tidyProfile(id profileID) {
	p := l.profiles.at(id)
	if !p.exists && len(p.lists) == 0 {
		delete(l.named, p.name)
		l.profiles.drop(id)
	}
}

// setProfile stores a profile, or that there is none, and reports whether
// that changes any labels.
func (l *labels) setProfile(name string, v *model.Profile) (profileID, bool) {
	id := l.profile(name)
	p := l.profiles.at(id)
	old := p.set
	var set labelsID
	if v != nil {
		set = l.holdSet(v.Labels)
		p.exists, p.ingress, p.egress = true, v.Ingress, v.Egress
	} else {
		p.exists, p.ingress, p.egress = false, nil, nil
	}
	if set == old {
		l.releaseSet(set)
		l.tidyProfile(id)
		return id, false
	}
	if old != 0 {
		l.carriers().unlink(&l.sets.at(old).profiles, id)
	}
	if p.set = set; set != 0 {
		l.carriers().push(&l.sets.at(set).profiles, id)
	}
	l.releaseSet(old)
	l.tidyProfile(id)
	return id, true
}

func (l *labels) holdList(names []string) listID {
	if len(names) == 0 {
		return 0
	}
	l.scratchP = l.scratchP[:0]
	sum := uint64(len(names))
	for _, n := range names {
		p := l.profile(n)
		l.scratchP = append(l.scratchP, p)
		sum = (sum ^ uint64(p)) * 0x100000001B3
	}
	hash := mix(sum)
	id := l.listsBy.find(hash, func(id listID) bool { return slices.Equal(l.lists.at(id).of, l.scratchP) })
	if id == 0 {
		id = l.lists.add(profileList{of: slices.Clone(l.scratchP), hash: hash})
		l.listsBy.add(hash, id)
		for i, p := range l.scratchP {
			if !slices.Contains(l.scratchP[:i], p) {
				at := l.profiles.at(p)
				at.lists = append(at.lists, id)
			}
		}
	}
	l.lists.at(id).refs++
	return id
}

func (l *labels) releaseList(id listID) {
	if id == 0 {
		return
	}
	s := l.lists.at(id)
	if s.refs--; s.refs > 0 {
		return
	}
	l.listsBy.remove(s.hash, id)
	for i, p := range s.of {
		if !slices.Contains(s.of[:i], p) {
			at := l.profiles.at(p)
			at.lists = remove(at.lists, id)
			l.tidyProfile(p)
		}
	}
	l.lists.drop(id)
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
		l.byList().push(&l.lists.at(list).classes, id)
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
		l.byList().unlink(&l.lists.at(list).classes, id)
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
	k := v.l.keys[key]
	if k == nil {
		return "", false
	}
	c := v.l.classes.at(v.of)
	if value, ok := v.l.value(c.set, k); ok || c.list == 0 {
		return value, ok
	}
	for _, p := range v.l.lists.at(c.list).of {
		if value, ok := v.l.value(v.l.profiles.at(p).set, k); ok {
			return value, true
		}
	}
	return "", false
}

func (l *labels) value(set labelsID, k *labelKey) (string, bool) {
	if set == 0 {
		return "", false
	}
	for _, e := range l.sets.at(set).entries {
		if p := l.pairs.at(e.pair); p.key == k {
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
	if c.list == 0 {
		return
	}
	for _, p := range l.lists.at(c.list).of {
		l.eachOf(l.profiles.at(p).set, visit)
	}
}

func (l *labels) eachOf(set labelsID, visit func(pairID)) {
	if set == 0 {
		return
	}
	for _, e := range l.sets.at(set).entries {
		visit(e.pair)
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
	for _, set := range l.pairs.at(id).sets {
		s := l.sets.at(set)
		for c := s.classes; c != 0; c = l.classes.at(c).bySet.next {
			visit(c)
		}
		for p := s.profiles; p != 0; p = l.profiles.at(p).bySet.next {
			l.eachIn(p, visit)
		}
	}
}

// eachIn visits the classes that name a profile.
func (l *labels) eachIn(id profileID, visit func(classID)) {
	for _, list := range l.profiles.at(id).lists {
		for c := l.lists.at(list).classes; c != 0; c = l.classes.at(c).byList.next {
			visit(c)
		}
	}
}
