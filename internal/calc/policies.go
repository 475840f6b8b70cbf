package calc

import (
	"hash/maphash"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

type (
	policyID uint32
	slotID   uint32
)

// policies is the stage that knows which policies select which endpoints of
// this host. Endpoints of one class stand in one slot. A change costs what it
// touches: a policy is tried on the slots with a label that it asks for, an
// endpoint's class on the policies that ask for a label of it.
type policies struct {
	all      slab[policyID, policy]
	byID     index[policyID]
	texts    texts
	packer   packer
	slots    slab[slotID, slot]
	slotOf   map[slotKey]slotID
	byPair   map[pairID]bag // of slotID
	byKey    map[keyID]bag
	bags     bags
	tiers    map[string]*tier
	order    []policyID // those that select a workload here, first to last
	lists    map[uint64][]*tierLists
	told     told
	changes  changes
	profiles map[string]*[2]enforced // those that workloads here name
	shared   map[rulesKey]*sharedRules
	ends     map[string]end // by interface
	seed     maphash.Seed
	none     *ruleList // no rules; always held
	scratch  scratch
}

// scratch is space that is used again and again.
type scratch struct {
	users  []uint32
	owners []string
	pairs  []pairID
	keys   []keyID
	rules  []model.Rule
}

// told is what a person must hear of.
type told struct {
	hosts  map[policyID]bool   // policies that select host endpoints here
	http   map[policyID]bool   // policies in force with HTTP rules
	broken map[model.ID]broken // policies that break the rules
	// profiles in force with HTTP rules, by name
	profiles map[string]bool
}

// changes is what a batch came to so far.
type changes struct {
	enforce map[policyID]bool // began or ceased to select a workload, or has other rules
	sort    bool              // the order of policies may be another
	dirty   map[slotID]bool   // has other policies, or their order may be another
	gained  map[slotID][]policyID
	lost    map[slotID]bool    // slots that some policy left
	built   map[uint64][]*slot // slots with new lists, by a hash of their policies
	dead    []policyID         // deleted, and perhaps there again
	told    bool               // what is to be said of policies may be something else
}

type policy struct {
	namespace, name textID // of its ID
	packed          packed // "": deleted
	under           registration
	parsed          *selector.Selector // whom it selects, where that is asked often
	flags           byte               // of packed, for one that is not staged
	staged          bool
	on              *selection // nil: selects nothing here
}

// id returns the name of a policy.
func (p *policies) id(k policyID) model.ID {
	at := p.all.at(k)
	return model.ID{Kind: model.KindPolicy, Namespace: p.texts.of(at.namespace), Name: p.texts.of(at.name)}
}

// broken is what is told of a policy that breaks the rules.
type broken struct {
	title, why string
	staged     bool
}

// selection is what is kept of a policy that selects endpoints here.
type selection struct {
	head
	selects   selector.Selector
	slots     bits
	workloads int // slots of workloads among them
	hosts     int // the others
	rank      int
	tier      *tier // nil: it is not known where it comes
	listed    bool  // it is in the order
	lists     [2]enforced
}

func newPolicies() *policies {
	p := &policies{
		texts: newTexts(), slotOf: map[slotKey]slotID{},
		byPair: map[pairID]bag{}, byKey: map[keyID]bag{},
		tiers: map[string]*tier{}, told: told{hosts: map[policyID]bool{}, http: map[policyID]bool{}, broken: map[model.ID]broken{}, profiles: map[string]bool{}},
		lists: map[uint64][]*tierLists{}, none: &ruleList{of: &desired.RuleList{}, refs: 1},
		profiles: map[string]*[2]enforced{}, ends: map[string]end{}, shared: map[rulesKey]*sharedRules{}, seed: maphash.MakeSeed(),
	}
	p.packer.texts = &p.texts
	return p
}

func (p *policies) update(c *Core, batch []model.Event, t *touched) {
	p.changes = changes{
		enforce: map[policyID]bool{}, dirty: map[slotID]bool{}, gained: map[slotID][]policyID{},
		lost: map[slotID]bool{}, built: map[uint64][]*slot{},
	}
	m := &c.members
	fresh := p.reslot(c, t)
	for _, cls := range m.changed {
		for _, host := range []bool{false, true} {
			if s, ok := p.slotOf[slotKey{cls, host}]; ok && !slices.Contains(fresh, s) {
				p.find(m, s)
				p.reselect(m, s)
			}
		}
	}
	for _, s := range fresh {
		p.reselect(m, s)
	}
	for _, e := range batch {
		switch e.ID.Kind {
		case model.KindPolicy:
			v, _ := e.Value.(*model.Policy)
			p.put(m, e.ID, v, t)
		case model.KindProfile, model.KindNetworkSet:
			p.putPart(e, t)
		}
	}
	p.arrange(&c.in, t)
}

// reselect tries the policies on a slot that is new or has other labels.
func (p *policies) reselect(m *members, s slotID) {
	at := p.slots.at(s)
	v := view{&m.labels, at.key.class}
	for _, id := range at.policies {
		if !p.applies(id, at) || !p.all.at(id).on.selects.Matches(&v) {
			p.clear(id, s)
		}
	}
	p.scratch.users = m.labels.usersFor(byPolicies, at.key.class, p.scratch.users[:0])
	for _, u := range p.scratch.users {
		id := policyID(u)
		if !p.applies(id, at) {
			continue
		}
		if selects := p.selectorOf(id); selects.Matches(&v) {
			p.set(id, s, selects)
		}
	}
}

// applies reports whether a policy is for the kind of endpoint in a slot.
func (p *policies) applies(id policyID, at *slot) bool {
	return at.key.host || p.all.at(id).flags&packHostsOnly == 0
}

// selectorOf returns whom a policy selects.
func (p *policies) selectorOf(id policyID) selector.Selector {
	at := p.all.at(id)
	switch {
	case at.on != nil:
		return at.on.selects
	case at.parsed != nil:
		return *at.parsed
	}
	u := at.packed.open(&p.texts)
	return u.selector()
}

// headOf reads what a policy is besides whom it selects and its rules.
func (p *policies) headOf(id policyID) head {
	u := p.all.at(id).packed.open(&p.texts)
	return u.head(p.id(id))
}

func (p *policies) hash(id model.ID) uint32 {
	return mix(maphash.String(p.seed, id.Name) ^ maphash.String(p.seed, id.Namespace)*3)
}

// put stores a policy and tries it on the slots that it may select. Staged
// policies are not looked at: they have no effect.
func (p *policies) put(m *members, id model.ID, v *model.Policy, t *touched) {
	if v != nil && v.Broken != "" {
		p.putBroken(id, broken{v.Title, v.Broken, v.Staged}, t)
	} else {
		p.putBroken(id, broken{}, t)
	}
	hash := p.hash(id)
	k := p.byID.find(hash, func(k policyID) bool { return p.id(k) == id })
	if v == nil {
		if k != 0 && p.all.at(k).packed != "" {
			p.erase(m, k)
			p.changes.dead = append(p.changes.dead, k)
		}
		return
	}
	next := p.packer.pack(v)
	if k == 0 {
		k = p.all.add(policy{namespace: p.texts.hold(id.Namespace), name: p.texts.hold(id.Name)})
		p.byID.add(hash, k)
	}
	at := p.all.at(k)
	if at.staged == v.Staged && string(next) == string(at.packed) {
		packed(next).release(&p.texts)
		return
	}
	old, now := at.packed, packed(next)
	was, is := old != "" && !at.staged, !v.Staged
	if was && !(is && p.selectsSame(old, now)) {
		p.retract(m, k)
		was = false
	}
	at.packed, at.staged, at.flags = now, v.Staged, flagsOf(v)
	switch {
	case was:
		p.change(k)
	case is:
		p.enter(m, k, v)
	}
	old.release(&p.texts)
}

// putPart notes that a profile in use here has changed, and whether a profile
// or network set breaks the rules: a policy may deny what it lists, or it may.
func (p *policies) putPart(e model.Event, t *touched) {
	why := ""
	if e.ID.Kind == model.KindProfile && p.profiles[e.ID.Name] != nil {
		t.profiles = append(t.profiles, e.ID.Name)
	}
	switch v := e.Value.(type) {
	case *model.Profile:
		why = v.Broken
	case *model.NetworkSet:
		why = v.Broken
	}
	if why == "" {
		p.putBroken(e.ID, broken{}, t)
		return
	}
	p.putBroken(e.ID, broken{e.ID.String(), why, false}, t)
}

// putBroken notes what is to be told of what breaks the rules; the zero value
// says that nothing is.
func (p *policies) putBroken(id model.ID, next broken, t *touched) {
	old := p.told.broken[id]
	if old == next {
		return
	}
	t.matches = true
	if p.told.broken[id] = next; next == (broken{}) {
		delete(p.told.broken, id)
	}
}

// selectsSame reports whether two policies are for the same endpoints.
func (p *policies) selectsSame(a, b packed) bool {
	x, y := a.open(&p.texts), b.open(&p.texts)
	if x.text() != y.text() {
		return false
	}
	return (x.byte()^y.byte())&packHostsOnly == 0
}

// erase forgets what a policy is. What is asked for because of it goes later.
func (p *policies) erase(m *members, k policyID) {
	at := p.all.at(k)
	if !at.staged {
		p.retract(m, k)
	}
	at.packed.release(&p.texts)
	at.packed, at.staged, at.flags = "", false, 0
}

// enter makes a policy known under its labels and tries it on the slots.
func (p *policies) enter(m *members, k policyID, v *model.Policy) {
	at := p.all.at(k)
	at.under = m.labels.register(byPolicies, uint32(k), v.Selects)
	if at.under.key != 0 {
		s := v.Selects // apart from the event's value, which need not stay
		at.parsed = &s
	}
	if at.on != nil { // it was here a moment ago, perhaps as another
		at.on.selects = v.Selects
		p.change(k)
	}
	p.candidates(k, func(s slotID) {
		to := p.slots.at(s)
		if m.view = (view{&m.labels, to.key.class}); p.applies(k, to) && v.Selects.Matches(&m.view) {
			p.set(k, s, v.Selects)
		}
	})
}

// retract takes a policy from all that it selects.
func (p *policies) retract(m *members, k policyID) {
	at := p.all.at(k)
	m.labels.unregister(byPolicies, uint32(k), at.under)
	at.under, at.parsed = registration{}, nil
	if at.on != nil {
		at.on.slots.each(func(s slotID) { p.clear(k, s) })
	}
}

// change takes over what a policy is now, for one that selects something.
func (p *policies) change(k policyID) {
	at := p.all.at(k)
	if at.on == nil {
		return
	}
	p.changes.enforce[k] = true
	p.changes.told = p.changes.told || at.on.hosts > 0
	if next := p.headOf(k); next != at.on.head {
		at.on.head, at.on.tier, p.changes.sort = next, nil, true
		at.on.slots.each(func(s slotID) { p.changes.dirty[s] = true })
	}
}

// candidates visits the slots that have the rarest label that a policy asks
// for, some of them more than once.
func (p *policies) candidates(k policyID, visit func(slotID)) {
	under := p.all.at(k).under
	switch {
	case under.key == everyKey:
		for _, s := range p.slotOf {
			visit(s)
		}
	case under.key != 0:
		p.bags.each(p.byKey[under.key], func(s uint32) { visit(slotID(s)) })
	}
	under.each(func(id pairID) {
		p.bags.each(p.byPair[id], func(s uint32) { visit(slotID(s)) })
	})
}

// set notes that a policy selects a slot, by a selector.
func (p *policies) set(k policyID, s slotID, selects selector.Selector) {
	at := p.all.at(k)
	if at.on == nil {
		at.on = &selection{selects: selects, head: p.headOf(k)}
	}
	if at.on.slots.has(s) {
		return
	}
	at.on.slots.set(s)
	if p.slots.at(s).key.host {
		at.on.hosts++
		p.told.hosts[k], p.changes.told = true, true
	} else if at.on.workloads++; at.on.workloads == 1 {
		p.changes.enforce[k] = true
	}
	p.changes.gained[s] = append(p.changes.gained[s], k)
	p.changes.dirty[s] = true
}

// clear notes that it does so no longer.
func (p *policies) clear(k policyID, s slotID) {
	at := p.all.at(k)
	if at.on == nil || !at.on.slots.has(s) {
		return
	}
	at.on.slots.clear(s)
	if p.slots.at(s).key.host {
		p.changes.told = true
		if at.on.hosts--; at.on.hosts == 0 {
			delete(p.told.hosts, k)
		}
	} else {
		at.on.workloads--
	}
	if at.on.workloads == 0 {
		p.changes.enforce[k] = true
	}
	p.changes.dirty[s], p.changes.lost[s] = true, true
}

// selectsHosts counts the host endpoints that a policy selects.
func (p *policies) selectsHosts(k policyID) int {
	n := 0
	p.all.at(k).on.slots.each(func(s slotID) {
		if at := p.slots.at(s); at.key.host {
			n += at.count
		}
	})
	return n
}
