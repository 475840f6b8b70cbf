package rules

import (
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
)

// groupState is the endpoints whose policy of one direction is the same.
type groupState struct {
	refs     int
	tiers    []string // chains
	profiles []desired.RulesID
	dir      desired.Direction
}

// tierState is the policies of one tier, as one or more groups have them.
type tierState struct {
	refs int
	tier desired.Tier
	dir  desired.Direction
	// chunks are chains that go through the policies, if there are many.
	chunks []string
}

// tierKey tells two tiers apart that are not the same list in memory.
type tierKey struct {
	first *string
	n     int
	name  string
	pass  bool
	dir   desired.Direction
}

func (b *Builder) tierName(t desired.Tier, dir desired.Direction) string {
	if len(t.Policies) == 0 {
		return "t-" + hash(dir.String(), t.Name, endWord(t.Pass))
	}
	key := tierKey{&t.Policies[0], len(t.Policies), t.Name, t.Pass, dir}
	name, ok := b.names[key]
	if !ok {
		name = "t-" + hash(append([]string{dir.String(), t.Name, endWord(t.Pass)}, t.Policies...)...)
		b.names[key] = name
	}
	return name
}

func endWord(pass bool) string {
	if pass {
		return "pass"
	}
	return "deny"
}

// holdGroup returns the chain of a group, which it makes if there is none.
func (b *Builder) holdGroup(dir desired.Direction, tiers []desired.Tier, profiles []string) string {
	words := make([]string, 0, len(tiers)+len(profiles)+2)
	words = append(words, dir.String())
	for _, t := range tiers {
		words = append(words, b.tierName(t, dir))
	}
	chains := words[1:]
	name := "g-" + hash(append(append(slices.Clone(words), "profiles"), profiles...)...)
	if g := b.groups[name]; g != nil {
		g.refs++
		return name
	}
	g := &groupState{refs: 1, tiers: slices.Clone(chains), dir: dir}
	for _, p := range profiles {
		id := desired.RulesID{Owner: p, Direction: dir}
		g.profiles = append(g.profiles, id)
		addUser(b.groupsOf, id, name)
	}
	b.groups[name] = g
	for i, t := range g.tiers {
		b.holdTier(t, tiers[i], dir)
	}
	b.dirty.groups[name] = struct{}{}
	return name
}

func (b *Builder) holdTier(name string, t desired.Tier, dir desired.Direction) {
	if st := b.tiers[name]; st != nil {
		st.refs++
		return
	}
	t.Policies = slices.Clone(t.Policies)
	b.tiers[name] = &tierState{refs: 1, tier: t, dir: dir}
	for _, p := range t.Policies {
		id := desired.RulesID{Owner: p, Direction: dir}
		addUser(b.tiersOf, id, name)
		b.logTier(id)
	}
	for _, part := range b.chunking.cut(t.Policies) {
		b.tiers[name].chunks = append(b.tiers[name].chunks, b.holdChunk(name, part, dir))
	}
	b.dirty.tiers[name] = struct{}{}
	// Also for a tier that passes: what it denied before stays counted.
	end := endCounter(b.tiers[name])
	if b.tierEnds[end]++; b.tierEnds[end] == 1 {
		b.putCounter(Counter{Name: end, What: "end of tier " + t.Name + ", " + dir.String()})
	}
}

// endCounter names the counter of what the end of a tier denies.
func endCounter(t *tierState) string { return "e-" + hash(t.tier.Name, t.dir.String()) }

// logTier has a list written anew whose log lines name its tier.
func (b *Builder) logTier(id desired.RulesID) {
	if strings.Contains(b.cfg.LogPrefix, "%t") && b.lists[id] != nil {
		b.dirty.lists[id] = struct{}{}
	}
}

func (b *Builder) releaseGroup(name string) {
	g := b.groups[name]
	if g.refs--; g.refs > 0 {
		return
	}
	delete(b.groups, name)
	b.putChain(name, nil)
	for _, id := range g.profiles {
		dropUser(b.groupsOf, id, name)
	}
	for _, t := range g.tiers {
		b.releaseTier(t)
	}
}

func (b *Builder) releaseTier(name string) {
	t := b.tiers[name]
	if t.refs--; t.refs > 0 {
		return
	}
	delete(b.tiers, name)
	b.putChain(name, nil)
	for _, p := range t.tier.Policies {
		id := desired.RulesID{Owner: p, Direction: t.dir}
		dropUser(b.tiersOf, id, name)
		b.logTier(id)
	}
	for _, part := range t.chunks {
		b.releaseChunk(name, part)
	}
	end := endCounter(t)
	if b.tierEnds[end]--; b.tierEnds[end] == 0 {
		delete(b.tierEnds, end)
		b.dropCounter(end)
	}
}

// tierChain goes through the policies, and ends with what ends the tier.
func (b *Builder) tierChain(name string, t *tierState) *Chain {
	c := &Chain{Name: name, Note: note("tier " + t.tier.Name + ", " + t.dir.String())}
	bit, mayPass := b.cfg.passBit(), false
	step := func(r Rule, passes bool) {
		if c.Rules = append(c.Rules, r); passes {
			mayPass = true
			c.Rules = append(c.Rules, when(b.passed()).do(SetMark{bit, 0}, Return{}))
		}
	}
	if len(t.chunks) > 0 {
		for _, part := range t.chunks {
			step(when().do(Jump{part}), b.chunks[part].passes)
		}
	} else {
		for _, p := range t.tier.Policies {
			step(b.jumpTo(p, t.dir), b.passes(p, t.dir))
		}
	}
	if mayPass {
		c.Rules = slices.Insert(c.Rules, 0, when().do(SetMark{bit, 0}))
	}
	if !t.tier.Pass {
		c.Rules = append(c.Rules, Rule{Do: []Statement{Count{endCounter(t)}, b.cfg.deny()}})
	}
	return c
}

func markBytes(n uint32) string {
	return string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// groupChain goes through the tiers and then the profiles.
func (b *Builder) groupChain(name string, g *groupState) *Chain {
	c := &Chain{Name: name, Note: note("group, " + g.dir.String())}
	for _, t := range g.tiers {
		c.Rules = append(c.Rules, Rule{Do: []Statement{Jump{t}}})
	}
	for _, id := range g.profiles {
		r := Rule{Do: []Statement{Jump{rulesChain(id)}}}
		if b.lists[id] == nil {
			r = Rule{Do: []Statement{Jump{chainMissing}}, Note: note(id.Owner)}
		}
		c.Rules = append(c.Rules, r)
	}
	end := Rule{Do: []Statement{Count{counterNoProfile + "-" + g.dir.String()}, b.cfg.deny()}}
	c.Rules = append(c.Rules, end)
	return c
}
