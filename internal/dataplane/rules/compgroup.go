package rules

import (
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
)

// assignment is one of an endpoint's addresses in one direction.
type assignment struct {
	group *compiled
	addr  netip.Addr
	placed
}

// learnEndpoints takes in which endpoints change.
func (c *compiler) learnEndpoints(patch *desired.PolicyPatch) {
	for iface := range patch.Endpoints.Set {
		c.dirtyEnd[iface] = struct{}{}
	}
	for _, iface := range patch.Endpoints.Delete {
		c.dirtyEnd[iface] = struct{}{}
	}
}

// staleGroups returns the plain groups that have one of the lists, with these.
func (c *compiler) staleGroups(lists map[desired.RulesID]struct{}) map[string][]desired.RulesID {
	tiers, stale := map[string][]desired.RulesID{}, map[string][]desired.RulesID{}
	for id := range lists {
		for t := range c.b.tiersOf[id] {
			tiers[t] = append(tiers[t], id)
		}
		for g := range c.b.groupsOf[id] {
			stale[g] = append(stale[g], id)
		}
	}
	if len(tiers) > 0 {
		for name, g := range c.b.groups {
			for _, t := range g.tiers {
				stale[name] = append(stale[name], tiers[t]...)
			}
		}
	}
	for name, ids := range stale {
		if len(ids) == 0 {
			delete(stale, name)
		}
	}
	return stale
}

// asked is what a plain group's rules ask of the near address, in order, and
// whether they are enough to be compiled.
type asked struct {
	near []predicate
	many bool
}

// reassign marks the endpoints of plain groups whose rules ask something else
// of the near address than before.
func (c *compiler) reassign(stale map[string][]desired.RulesID) {
	changed := map[string]struct{}{}
	for name, ids := range stale {
		if !slices.ContainsFunc(ids, func(id desired.RulesID) bool { _, ok := c.asksElse[id]; return ok }) {
			continue
		}
		old, known := c.asks[name]
		if delete(c.asks, name); known {
			now := c.askedBy(name)
			if now.many == old.many && slices.Equal(now.near, old.near) {
				continue
			}
		}
		changed[name] = struct{}{}
	}
	for name := range c.asks {
		if c.b.groups[name] == nil {
			delete(c.asks, name)
		}
	}
	clear(c.asksElse)
	if len(changed) == 0 {
		return
	}
	for iface, st := range c.b.endpoints {
		for _, plain := range st.groups {
			if _, ok := changed[plain]; ok {
				c.dirtyEnd[iface] = struct{}{}
			}
		}
	}
}

// askedBy returns what a plain group asks.
func (c *compiler) askedBy(plain string) asked {
	if a, ok := c.asks[plain]; ok {
		return a
	}
	near, rules := []predicate{}, 0
	g := c.b.groups[plain]
	collect := func(id desired.RulesID) {
		if l := c.b.lists[id]; l != nil {
			near = append(near, l.near...)
			rules += len(l.keyed)
		}
	}
	for _, name := range g.tiers {
		for _, p := range c.b.tiers[name].tier.Policies {
			collect(desired.RulesID{Owner: p, Direction: g.dir})
		}
	}
	for _, id := range g.profiles {
		collect(id)
	}
	slices.Sort(near)
	a := asked{slices.Compact(near), rules >= c.b.cfg.CompileFrom}
	c.asks[plain] = a
	return a
}

// assign puts an endpoint's addresses into their groups.
func (c *compiler) assign(iface string) {
	old := c.assigned[iface]
	for _, a := range old {
		c.b.dropElement(a.set, a.Lo)
		dropUser(c.near, a.addr, iface)
	}
	delete(c.assigned, iface)
	if ep := c.b.endpoints[iface]; ep != nil {
		for dir, plain := range ep.groups {
			e := Element{Lo: interfaceBytes(iface), Name: plain}
			if c.askedBy(plain).many {
				for _, a := range ep.addrs {
					if c.assignAddr(iface, a.Unmap(), desired.Direction(dir), plain) {
						e.Name = frontOf(plain)
					}
				}
			}
			c.b.putElement([...]string{mapTo, mapFrom}[dir], e)
		}
	}
	for _, a := range old {
		a.group.refs--
		for _, now := range c.assigned[iface] {
			if now.addr == a.addr && now.set == a.set && now.group.rows == nil && now.group.from == nil {
				now.group.from = a.group
			}
		}
	}
}

func (c *compiler) assignAddr(iface string, a netip.Addr, dir desired.Direction, plain string) bool {
	g := c.holdGroup(plain, dir, a)
	if g == nil {
		return false // the plain rules have it
	}
	m := [...]string{mapTo, mapFrom}[dir] + familyOf(a).digit()
	e := placed{m, Element{Lo: interfaceBytes(iface) + addrBytes(a), Name: g.chain}}
	c.b.putElement(e.set, e.Element)
	c.assigned[iface] = append(c.assigned[iface], assignment{g, a, e})
	addUser(c.near, a, iface)
	return true
}

// holdGroup returns the group of an address, nil if there are too many.
func (c *compiler) holdGroup(plain string, dir desired.Direction, a netip.Addr) *compiled {
	local := c.space.of(a).restrictTo(c.askedBy(plain).near)
	key := groupKey{plain, familyIndex(a), local.key()}
	if g := c.groups[key]; g != nil {
		g.refs++
		return g
	}
	g := c.newGroup(key, dir, local)
	if g != nil {
		g.refs = 1
	}
	return g
}

// newGroup makes a group without endpoints, nil if there are too many.
func (c *compiler) newGroup(key groupKey, dir desired.Direction, local signature) *compiled {
	chain := "q-" + hash(key.plain, families[key.family].digit(), c.space.words(local))
	number := c.given.take(chain)
	if number >= 1<<groupBits {
		c.given.release(number)
		return nil
	}
	g := &compiled{key: key, dir: dir, number: number, local: local, chain: chain}
	c.groups[key] = g
	return g
}

func (c *compiler) dropGroup(g *compiled) {
	for number := range g.rows {
		c.unpaint(g, number)
	}
	c.given.release(g.number)
	c.removeGroup(g)
}

// removeGroup removes a group whose number and rows are not its own any more.
func (c *compiler) removeGroup(g *compiled) {
	delete(c.groups, g.key)
	// Another group of this chain may have come: its key differs where a set was
	// made anew.
	for _, other := range c.groups {
		if other.chain == g.chain {
			return
		}
	}
	c.b.putChain(g.chain, nil)
}

// paintGroup makes all rows of a group anew.
func (c *compiler) paintGroup(g *compiled) {
	if g.rows == nil {
		g.rows = map[uint32]*painted{}
	}
	g.full, g.broken = c.space.given.highest > classMask, false
	g.program = c.flatten(g)
	c.repaint(g, func(signature) bool { return true })
	c.b.putChain(g.chain, g.entry())
}

// rewriteGroup paints what differs when lists have changed.
func (c *compiler) rewriteGroup(g *compiled, lists []desired.RulesID) {
	changed := c.rewrite(g, lists)
	far := 1 - g.near()
	c.repaint(g, func(s signature) bool {
		return slices.ContainsFunc(changed, func(k *keyed) bool { return k == nil || k.ends[far].match(s) })
	})
}

// repaint paints the classes of which this is said, and those that the rules
// have begun to tell apart; it removes the rows of those they no longer do.
func (c *compiler) repaint(g *compiled, said func(signature) bool) {
	if !g.full && said(signature{}) {
		c.paintClass(g, &class{family: g.key.family})
	}
	for _, cl := range c.space.classes[g.key.family] {
		switch tells := g.program.tells(cl.sig); {
		case g.broken || g.full || !tells:
			c.unpaint(g, cl.number)
		case g.rows[cl.number] == nil || g.rows[cl.number].class != cl || said(cl.sig):
			c.paintClass(g, cl)
		}
	}
	if g.broken || g.full {
		c.unpaint(g, 0)
	}
}

// paintClass makes the rows of a class, if the group's rules can tell it from
// the class of nothing.
func (c *compiler) paintClass(g *compiled, cl *class) {
	if g.broken || g.full || cl.family != g.key.family || cl.number != 0 && !g.program.tells(cl.sig) {
		return
	}
	now, old := c.paint(g, cl), g.rows[cl.number]
	if old == nil {
		old = &painted{}
	}
	gone, fresh := old.elements, now.elements
	for len(gone) > 0 && len(fresh) > 0 && gone[0] == fresh[0] {
		gone, fresh = gone[1:], fresh[1:]
	}
	for len(gone) > 0 && len(fresh) > 0 && gone[len(gone)-1] == fresh[len(fresh)-1] {
		gone, fresh = gone[:len(gone)-1], fresh[:len(fresh)-1]
	}
	c.clearRows(g, &painted{elements: gone, decisions: old.decisions})
	for _, e := range fresh {
		c.b.putElement(e.set, e.Element)
	}
	g.rows[cl.number] = now
	g.plain += now.plain - old.plain
	g.several += now.several - old.several
	c.rows += len(fresh)
	if g.count += len(fresh); g.count > c.limits.group {
		c.breakGroup(g)
	}
	for c.rows > c.limits.all {
		c.breakGroup(c.largest())
	}
}

// largest returns the group with the most rows.
func (c *compiler) largest() (g *compiled) {
	for _, other := range c.groups {
		if g == nil || other.count > g.count || other.count == g.count && other.chain < g.chain {
			g = other
		}
	}
	return g
}

// breakGroup leaves a group to its plain rules.
func (c *compiler) breakGroup(g *compiled) {
	g.broken, g.brokenRows, g.brokenClasses = true, g.count, len(c.space.classes[g.key.family])
	for number := range g.rows {
		c.unpaint(g, number)
	}
	c.b.putChain(g.chain, g.entry())
}

// fits reports whether a broken group may have room by now. To find out costs as
// much as to paint all that a group may have, so not every class that goes is
// reason enough.
func (c *compiler) fits(g *compiled) bool {
	if g.brokenRows > c.limits.group {
		return 4*len(c.space.classes[g.key.family]) <= 3*g.brokenClasses
	}
	return 4*(c.rows+g.brokenRows) <= 3*c.limits.all
}

func (c *compiler) unpaint(g *compiled, number uint32) {
	if old := g.rows[number]; old != nil {
		c.clearRows(g, old)
		g.plain -= old.plain
		g.several -= old.several
		delete(g.rows, number)
	}
}

func (c *compiler) clearRows(g *compiled, p *painted) {
	for _, e := range p.elements {
		c.b.dropElement(e.set, e.Lo)
	}
	for _, d := range p.decisions {
		if d.refs--; d.refs == 0 {
			c.unused[d] = struct{}{}
		}
	}
	g.count -= len(p.elements)
	c.rows -= len(p.elements)
}

// decide returns the decision of a verdict and the counters that led to it.
func (c *compiler) decide(counters []string, verdict uint32) *decision {
	key := string(markBytes(verdict))
	for _, name := range counters {
		key += name + " "
	}
	d := c.decisions[key]
	if d == nil {
		d = &decision{key: key, counters: slices.Clone(counters), value: markDecided | verdict}
		if verdict != markPlain {
			d.number = c.numbered.take(key)
			d.value |= d.number
		}
		c.decisions[key] = d
		for i, name := range d.counters {
			c.b.putElement(countedMap(i), Element{Lo: markBytes(d.value), Name: name})
		}
	}
	c.unused[d] = struct{}{} // unless somebody holds it
	return d
}

func (c *compiler) forgetDecisions() {
	for d := range c.unused {
		if d.refs > 0 {
			continue
		}
		delete(c.decisions, d.key)
		for i := range d.counters {
			c.b.dropElement(countedMap(i), markBytes(d.value))
		}
		if d.number != 0 {
			c.numbered.release(d.number)
		}
	}
	clear(c.unused)
}
