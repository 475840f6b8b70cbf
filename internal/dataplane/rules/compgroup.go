package rules

import (
	"maps"
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

// staleGroups returns the plain groups that one of the lists is of.
func (c *compiler) staleGroups(lists map[desired.RulesID]struct{}) map[string]struct{} {
	tiers, stale := map[string]struct{}{}, map[string]struct{}{}
	for id := range lists {
		maps.Copy(tiers, c.b.tiersOf[id])
		maps.Copy(stale, c.b.groupsOf[id])
	}
	for name, g := range c.b.groups {
		if slices.ContainsFunc(g.tiers, func(t string) bool { _, ok := tiers[t]; return ok }) {
			stale[name] = struct{}{}
		}
	}
	for name := range c.locals {
		if _, ok := stale[name]; ok || c.b.groups[name] == nil {
			delete(c.locals, name)
		}
	}
	return stale
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
		for _, a := range ep.addrs {
			for dir, plain := range ep.groups {
				c.assignAddr(iface, a.Unmap(), desired.Direction(dir), plain)
			}
		}
	}
	for _, a := range old {
		a.group.refs--
	}
}

func (c *compiler) assignAddr(iface string, a netip.Addr, dir desired.Direction, plain string) {
	g := c.holdGroup(plain, dir, a)
	if g == nil {
		return // the plain rules have it
	}
	m := [...]string{mapTo, mapFrom}[dir] + familyOf(a).digit()
	e := placed{m, Element{Lo: interfaceBytes(iface) + addrBytes(a), Name: g.chain}}
	c.b.putElement(e.set, e.Element)
	c.assigned[iface] = append(c.assigned[iface], assignment{g, a, e})
	addUser(c.near, a, iface)
}

// holdGroup returns the group of an address, nil if there are too many.
func (c *compiler) holdGroup(plain string, dir desired.Direction, a netip.Addr) *compiled {
	local := c.space.of(a).restrictTo(c.asked(plain))
	key := groupKey{plain, familyIndex(a), local.key()}
	if g := c.groups[key]; g != nil {
		g.refs++
		return g
	}
	chain := "q-" + hash(plain, familyOf(a).digit(), c.space.words(local))
	number := c.given.take(chain)
	if number >= 1<<groupBits {
		c.given.release(number)
		return nil
	}
	g := &compiled{key: key, dir: dir, number: number, local: local, refs: 1, chain: chain}
	c.groups[key] = g
	return g
}

func (c *compiler) dropGroup(g *compiled) {
	for number := range g.rows {
		c.unpaint(g, number)
	}
	delete(c.groups, g.key)
	c.given.release(g.number)
	// Another group of this name may have come: its key differs where a set was
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
	seen := map[uint32]struct{}{0: {}}
	if !g.full {
		c.paintClass(g, &class{family: g.key.family})
		for _, cl := range c.space.classes[g.key.family] {
			if c.paintClass(g, cl) {
				seen[cl.number] = struct{}{}
			}
		}
	}
	for number := range g.rows {
		if _, ok := seen[number]; !ok || g.broken || g.full {
			c.unpaint(g, number)
		}
	}
	c.b.putChain(g.chain, g.entry())
}

// paintClass makes the rows of a class, if the group's rules can tell it from
// the class of nothing.
func (c *compiler) paintClass(g *compiled, cl *class) bool {
	if g.broken || g.full || cl.family != g.key.family || cl.number != 0 && !g.program.tells(cl.sig) {
		return false
	}
	p := c.paint(g, cl)
	old := g.rows[cl.number]
	if old != nil {
		c.clearRows(g, old)
	}
	for _, e := range p.elements {
		c.b.putElement(e.set, e.Element)
	}
	g.rows[cl.number] = p
	if g.count += len(p.elements); g.count > maxRows {
		c.breakGroup(g)
		return false
	}
	return true
}

// breakGroup leaves a group to its plain rules.
func (c *compiler) breakGroup(g *compiled) {
	g.broken = true
	for number := range g.rows {
		c.unpaint(g, number)
	}
	c.b.putChain(g.chain, g.entry())
}

func (c *compiler) unpaint(g *compiled, number uint32) {
	if old := g.rows[number]; old != nil {
		c.clearRows(g, old)
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
}

func (f *flat) tells(s signature) bool {
	for _, p := range s.preds {
		if _, ok := f.far[p]; ok {
			return true
		}
	}
	for _, t := range s.triples {
		if _, ok := f.far[t.set]; ok {
			return true
		}
	}
	return false
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
