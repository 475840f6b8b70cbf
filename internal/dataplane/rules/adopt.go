package rules

import (
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
)

// adopt lets a new group take over the number and rows of the one that its
// endpoints were in, when nobody is left there: a policy that comes or goes
// makes a new group of the same endpoints, and most rows stay what they are.
func (c *compiler) adopt(g *compiled) {
	old := g.from
	if old.refs > 0 || old.spare || old.rows == nil || old.broken || old.full || old.program == nil ||
		old.dir != g.dir || old.key.family != g.key.family || old.key.local != g.key.local {
		return
	}
	c.given.release(g.number)
	g.number, g.rows, g.count, g.plain, g.several = old.number, old.rows, old.count, old.plain, old.several
	old.rows, g.adopted = nil, true
	c.removeGroup(old)
	g.program = c.flatten(g)
	changed, same := compare(old.program, g.program)
	far := 1 - g.near()
	c.repaint(g, func(s signature) bool {
		return !same || slices.ContainsFunc(changed, func(k *keyed) bool { return k == nil || k.ends[far].match(s) })
	})
	c.b.putChain(g.chain, g.entry())
}

// compare returns the rules that only one of two programs has, or that are in
// another order. It reports false if more differs than that.
func compare(old, now *flat) (changed []*keyed, same bool) {
	if !slices.Equal(old.stages, now.stages) {
		return nil, false
	}
	at := make(map[desired.RulesID]int, len(old.segments))
	for i, s := range old.segments {
		at[s.id] = i
	}
	if len(at) < len(old.segments) {
		return nil, false // a profile that is named twice
	}
	kept, last := make([]bool, len(old.segments)), -1
	for _, s := range now.segments {
		i, there := at[s.id]
		if !there || i <= last || old.segments[i].stage != s.stage {
			changed = append(changed, s.rules...)
			continue
		}
		a, b := trimSame(old.segments[i].rules, s.rules)
		changed = append(append(changed, a...), b...)
		kept[i], last = true, i
	}
	for i, s := range old.segments {
		if !kept[i] {
			changed = append(changed, s.rules...)
		}
	}
	return changed, true
}
