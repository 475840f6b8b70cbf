package rules

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
)

// Builder holds the program of one policy and brings it up to date.
type Builder struct {
	cfg  Config
	prog *Program
	was  *journal

	sets      map[desired.SetID]*setState
	lists     map[desired.RulesID]*listState
	users     map[desired.SetID]map[desired.RulesID]struct{} // lists that refer to a set
	tiers     map[string]*tierState                          // by chain
	chunks    map[string]*chunkState                         // by chain
	groups    map[string]*groupState                         // by chain
	tiersOf   map[desired.RulesID]map[string]struct{}        // tiers that refer to a policy
	chunksOf  map[desired.RulesID]map[string]struct{}        // chunks that refer to a policy
	groupsOf  map[desired.RulesID]map[string]struct{}        // groups that refer to a profile
	tierEnds  map[string]int                                 // tiers that refer to a counter
	endpoints map[string]*endpointState

	dirty dirt
	names map[tierKey]string // within one change: lists that many endpoints share

	overlay  *overlay
	compiler *compiler // nil: plain rules only
	chunking chunking
}

// dirt is what has to be written anew before a change is over.
type dirt struct {
	lists                 map[desired.RulesID]struct{}
	chunks, tiers, groups map[string]struct{} // by chain
}

// listState is what others have to know of a list of rules.
type listState struct {
	sets     []desired.SetID
	counters map[string]struct{}
	passes   bool
	keyed    []*keyed         // for the compiler
	nets     [][]netip.Prefix // that the compiler holds
	near     []predicate      // what the rules ask of the near address
}

// New returns a builder with the program of a policy.
func New(cfg Config, want *desired.Policy) *Builder { return Renew(cfg, want, nil) }

// Renew is New for one who has another program in force, whose builder is old:
// what is in both has the same numbers in both, so that little differs. old may
// be nil.
func Renew(cfg Config, want *desired.Policy, old *Builder) *Builder {
	b := &Builder{
		cfg: cfg, chunking: cfg.chunking(), prog: &Program{map[string]*Chain{}, map[string]*Set{}, map[string]Counter{}}, was: &journal{off: true},
		sets: map[desired.SetID]*setState{}, lists: map[desired.RulesID]*listState{},
		users: map[desired.SetID]map[desired.RulesID]struct{}{},
		tiers: map[string]*tierState{}, groups: map[string]*groupState{},
		tiersOf: map[desired.RulesID]map[string]struct{}{}, groupsOf: map[desired.RulesID]map[string]struct{}{},
		chunks: map[string]*chunkState{}, chunksOf: map[desired.RulesID]map[string]struct{}{},
		tierEnds: map[string]int{}, endpoints: map[string]*endpointState{},
		dirty: dirt{map[desired.RulesID]struct{}{}, map[string]struct{}{}, map[string]struct{}{}, map[string]struct{}{}},
	}
	b.overlay = newOverlay()
	b.cfg.NAT.Begun = cfg.NAT.Begun || old != nil && old.Translates()
	b.skeleton()
	if cfg.Compiled {
		h := hints{}
		if old != nil && old.compiler != nil {
			h = old.compiler.hints()
		}
		b.compiler = newCompiler(b, h)
	}
	all := desired.PolicyPatch{Sets: make(map[desired.SetID]desired.SetPatch, len(want.Sets))}
	for id, s := range want.Sets {
		all.Sets[id] = desired.SetPatch{Kind: s.Kind}
	}
	all.Rules.Set, all.Endpoints.Set = want.Rules, want.Endpoints
	all.Hosts.Set, all.Pools.Set, all.Tunnels.Set, all.Strict.Set = want.Hosts, want.Pools, want.Tunnels, want.Strict
	b.take(want, &all)
	b.was = newJournal()
	return b
}

// Render returns the program of a policy.
func Render(cfg Config, want *desired.Policy) *Program { return New(cfg, want).Program() }

// Program returns the present program. The next Update changes it.
func (b *Builder) Program() *Program { return b.prog }

// Update brings the program to want and returns what changes in it. patch is
// what want differs in from the policy before. The work is in proportion to
// the patch and to what refers to it.
func (b *Builder) Update(want *desired.Policy, patch *desired.PolicyPatch) Delta {
	b.take(want, patch)
	d := b.delta()
	b.was = newJournal()
	return d
}

// take brings the program to want.
func (b *Builder) take(want *desired.Policy, patch *desired.PolicyPatch) {
	b.names = map[tierKey]string{}
	for id, p := range patch.Sets {
		if b.compiler != nil {
			b.compiler.learnSet(id, want.Sets[id], p)
		}
		if b.patchSet(id, want.Sets[id], p) {
			for user := range b.users[id] {
				b.dirty.lists[user] = struct{}{}
			}
		}
	}
	for id := range patch.Rules.Set {
		b.dirty.lists[id] = struct{}{}
	}
	for _, id := range patch.Rules.Delete {
		b.dirty.lists[id] = struct{}{}
	}
	b.patchEndpoints(want, patch)
	b.patchOverlay(patch)
	for id := range b.dirty.lists {
		b.writeList(id, want.Rules[id])
	}
	b.writeChunks()
	for name := range b.dirty.tiers {
		if t := b.tiers[name]; t != nil {
			b.putChain(name, b.tierChain(name, t))
		}
	}
	for name := range b.dirty.groups {
		if g := b.groups[name]; g != nil {
			b.putChain(name, b.groupChain(name, g))
		}
	}
	if b.compiler != nil {
		b.compiler.update(b.dirty.lists)
	}
	clear(b.dirty.lists)
	clear(b.dirty.tiers)
	clear(b.dirty.chunks)
	clear(b.dirty.groups)
	b.names = nil
}

// writeList writes the chain and counters of one list; nil: it is gone.
func (b *Builder) writeList(id desired.RulesID, list *desired.RuleList) {
	old, chain := b.lists[id], rulesChain(id)
	if old != nil {
		for _, s := range old.sets {
			dropUser(b.users, s, id)
		}
	}
	if list == nil {
		if old != nil {
			for c := range old.counters {
				b.dropCounter(c)
			}
			delete(b.lists, id)
			if b.compiler != nil {
				b.compiler.forgetList(old)
				b.compiler.asksElse[id] = struct{}{}
			}
			b.putChain(chain, nil)
			b.listChanged(id)
		}
		return
	}
	names := make([]string, len(list.Rules))
	for i := range list.Rules {
		names[i] = RuleCounter(id, list.Rules[i].Index)
	}
	st := stateOf(list, names)
	b.lists[id] = st
	for _, s := range st.sets {
		addUser(b.users, s, id)
	}
	if old != nil {
		for c := range old.counters {
			if _, ok := st.counters[c]; !ok {
				b.dropCounter(c)
			}
		}
	}
	for i := range list.Rules {
		b.putCounter(Counter{Name: names[i], Rule: id, Index: list.Rules[i].Index})
	}
	w := &listWriter{cfg: &b.cfg, id: id, tier: b.tierOf(id), set: b.setNamed, counters: names}
	b.putChain(chain, w.chain(list))
	if b.compiler != nil {
		b.compiler.learnList(w, list, st)
		if old == nil || !slices.Equal(old.near, st.near) || len(old.keyed) != len(st.keyed) {
			b.compiler.asksElse[id] = struct{}{}
		}
		if old != nil {
			b.compiler.forgetList(old)
		}
	}
	if old == nil || old.passes != st.passes {
		b.listChanged(id)
	}
}

func stateOf(list *desired.RuleList, counters []string) *listState {
	st := &listState{counters: make(map[string]struct{}, len(list.Rules))}
	for i := range list.Rules {
		r := &list.Rules[i]
		st.counters[counters[i]] = struct{}{}
		st.passes = st.passes || r.Action == desired.Pass
		for _, s := range []*desired.Side{&r.Source, &r.Destination} {
			for _, ids := range [][]desired.SetID{s.Sets, s.NotSets, s.PortSets, s.NotPortSets} {
				st.sets = append(st.sets, ids...)
			}
		}
	}
	return st
}

// listChanged has everything written anew that refers to the list.
func (b *Builder) listChanged(id desired.RulesID) {
	for part := range b.chunksOf[id] {
		b.dirty.chunks[part] = struct{}{}
	}
	for t := range b.tiersOf[id] {
		if len(b.tiers[t].chunks) == 0 {
			b.dirty.tiers[t] = struct{}{}
		}
	}
	for g := range b.groupsOf[id] {
		b.dirty.groups[g] = struct{}{}
	}
}

// tierOf returns the tier of a policy, if log lines name it.
func (b *Builder) tierOf(id desired.RulesID) string {
	least := ""
	if strings.Contains(b.cfg.LogPrefix, "%t") {
		for name := range b.tiersOf[id] {
			if t := b.tiers[name].tier.Name; least == "" || t < least {
				least = t
			}
		}
	}
	return least
}

func (b *Builder) setNamed(id desired.SetID, f family, kind desired.SetKind) (string, bool) {
	st := b.sets[id]
	if st == nil || st.kind != kind {
		return "", false
	}
	if f == 6 {
		return st.parts[1].name, true
	}
	return st.parts[0].name, true
}

func addUser[K, U comparable](users map[K]map[U]struct{}, of K, user U) {
	if users[of] == nil {
		users[of] = map[U]struct{}{}
	}
	users[of][user] = struct{}{}
}

func dropUser[K, U comparable](users map[K]map[U]struct{}, of K, user U) {
	if delete(users[of], user); len(users[of]) == 0 {
		delete(users, of)
	}
}
