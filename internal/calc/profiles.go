package calc

import (
	"hash/maphash"
	"slices"

	"github.com/brindle-net/brindle/internal/model"
)

// profile returns the number of a profile, a new one if need be.
func (l *labels) profile(name string) profileID {
	hash, id := l.profileOf(name)
	if id == 0 {
		id = l.profiles.add(profile{name: name})
		l.profileBy.add(hash, id)
	}
	return id
}

// profileOf returns the number of a profile, or 0, and its hash.
func (l *labels) profileOf(name string) (uint32, profileID) {
	hash := mix(maphash.String(l.seed, name))
	return hash, l.profileBy.find(hash, func(id profileID) bool { return l.profiles.at(id).name == name })
}

func (l *labels) tidyProfile(id profileID) {
	p := l.profiles.at(id)
	if !p.exists && p.lists == 0 && p.classes == 0 {
		l.profileBy.remove(mix(maphash.String(l.seed, p.name)), id)
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
	p.exists, p.rules = v != nil, nil
	if v != nil {
		set = l.holdSet(v.Labels)
		if len(v.Ingress)+len(v.Egress) > 0 {
			p.rules = &profileRules{v.Ingress, v.Egress}
		}
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

// holdList returns the list of these profiles and counts a reference to it; one
// of a single profile is there as long as that.
func (l *labels) holdList(names []string) listID {
	switch len(names) {
	case 0:
		return 0
	case 1:
		return lonely | listID(l.profile(names[0]))
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
				l.bags.add(&l.profiles.at(p).lists, uint32(id))
			}
		}
	}
	l.lists.at(id).refs++
	return id
}

func (l *labels) releaseList(id listID) {
	switch {
	case id == 0:
		return
	case id&lonely != 0:
		l.tidyProfile(profileID(id &^ lonely))
		return
	}
	s := l.lists.at(id)
	if s.refs--; s.refs > 0 {
		return
	}
	l.listsBy.remove(s.hash, id)
	for i, p := range s.of {
		if !slices.Contains(s.of[:i], p) {
			l.bags.remove(&l.profiles.at(p).lists, uint32(id))
			l.tidyProfile(p)
		}
	}
	l.lists.drop(id)
}

// listed are the profiles of a list. The space is for a single one.
func (l *labels) listed(id listID, space *[1]profileID) []profileID {
	switch {
	case id == 0:
		return nil
	case id&lonely != 0:
		space[0] = profileID(id &^ lonely)
		return space[:]
	}
	return l.lists.at(id).of
}

// classesWith is where the classes with a list begin.
func (l *labels) classesWith(id listID) *classID {
	if id&lonely != 0 {
		return &l.profiles.at(profileID(id &^ lonely)).classes
	}
	return &l.lists.at(id).classes
}

// eachIn visits the classes that name a profile.
func (l *labels) eachIn(id profileID, visit func(classID)) {
	p := l.profiles.at(id)
	for c := p.classes; c != 0; c = l.classes.at(c).byList.next {
		visit(c)
	}
	l.bags.each(p.lists, func(list uint32) {
		for c := l.lists.at(listID(list)).classes; c != 0; c = l.classes.at(c).byList.next {
			visit(c)
		}
	})
}
