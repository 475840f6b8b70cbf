package rules

import (
	"fmt"
	"slices"
)

// A plain group is decided by look-ups alone where none of its rules asks
// anything of the near address, and none of its rows leaves anything to the
// plain rules. Its packets never come to those then, whatever mark they have
// and whatever near address. The kernel, which looks through all rules that a
// packet may come to before it takes a changed one, has so much less to do.

// alone is a group that is decided by look-ups alone, by family.
type alone struct {
	groups  [2]*compiled
	numbers [2]uint32
	several [2]bool
}

// spareNumbers are left for groups that have endpoints.
const spareNumbers = 1 << (groupBits - 1)

// addSpares makes groups for families of which the endpoints of a plain group
// have no address, if it may be decided by look-ups alone otherwise.
func (c *compiler) addSpares() {
	for _, g := range c.groups {
		g.spare = false
	}
	for _, g := range c.sortedGroups() {
		if g.refs == 0 || len(c.askedBy(g.key.plain).near) > 0 {
			continue
		}
		key := groupKey{g.key.plain, 1 - g.key.family, g.key.local}
		other := c.groups[key]
		if other == nil && c.given.low < spareNumbers {
			other = c.newGroup(key, g.dir, g.local)
		}
		if other == nil {
			continue
		}
		other.spare = true
		if other.rows == nil && other.from == nil && g.from != nil {
			other.from = c.groups[groupKey{g.from.key.plain, key.family, g.from.key.local}]
		}
	}
}

// settleFronts writes the chains by which packets come to groups.
func (c *compiler) settleFronts() {
	now, changed := map[string]alone{}, map[string]alone{}
	for _, g := range c.groups {
		a := now[g.key.plain]
		if len(c.askedBy(g.key.plain).near) == 0 && g.decidesAll() {
			a.groups[g.key.family], a.numbers[g.key.family], a.several[g.key.family] = g, g.number, g.several > 0
		}
		now[g.key.plain] = a
	}
	for plain, a := range now {
		if a.groups[0] == nil || a.groups[1] == nil {
			now[plain], a = alone{}, alone{}
		}
		if old, ok := c.fronts[plain]; !ok || old != a {
			changed[plain] = a
		}
	}
	for plain := range c.fronts {
		if _, ok := now[plain]; !ok {
			changed[plain] = alone{}
		}
	}
	// What goes does so first: a new group may have taken a number over, and with
	// it the chain of that.
	for plain, a := range changed {
		c.leaveFront(c.fronts[plain], a)
	}
	for plain, a := range changed {
		c.writeFront(plain, c.fronts[plain], a)
		if _, ok := now[plain]; !ok {
			c.b.putChain(frontOf(plain), nil)
		}
	}
	c.fronts = now
}

// leaveFront takes away what groups had as long as they decided all.
func (c *compiler) leaveFront(old, now alone) {
	for i, g := range old.groups {
		if g != nil && (g != now.groups[i] || old.numbers[i] != now.numbers[i]) {
			g.alone = false
			c.b.putChain(unmarked(old.numbers[i]), nil)
		}
	}
}

func (c *compiler) writeFront(plain string, old, now alone) {
	for i, g := range now.groups {
		if g != nil {
			g.alone = true
			c.b.putChain(unmarked(g.number), c.anyMark(g, now.several[i]))
		}
	}
	for _, g := range slices.Concat(old.groups[:], now.groups[:]) {
		if g != nil && c.groups[g.key] == g {
			c.b.putChain(g.chain, g.entry())
		}
	}
	if g := c.b.groups[plain]; g != nil {
		c.b.putChain(frontOf(plain), front(plain, g.dir, now))
	}
}

// decidesAll reports whether nothing of the group is left to the plain rules.
func (g *compiled) decidesAll() bool {
	return g.rows != nil && !g.broken && !g.full && g.plain == 0
}

// rest is where packets go that the look-ups don't decide.
func (g *compiled) rest() string {
	if g.alone {
		return chainMissing // there are none
	}
	return g.key.plain
}

// unmarked is the chain for packets with a mark of somebody else's, of the group
// that has a number: who takes the number over has the same.
func unmarked(number uint32) string { return fmt.Sprint("u-", number) }

// far is the field of the far address.
func (g *compiled) far() Field {
	return [2][2]Field{{Source4, Source6}, {Destination4, Destination6}}[g.dir][g.key.family]
}

// anyMark is what decide does, without the mark: slower, since each rule begins
// anew. Classes of single addresses come first: where a group has no rows for
// one of these, it has none for the class of a net that the address is in.
func (c *compiler) anyMark(g *compiled, several bool) *Chain {
	ch := &Chain{Name: unmarked(g.number), Note: "group, " + g.dir.String() + ", any mark"}
	f := families[g.key.family]
	for _, classes := range []string{mapClasses + f.digit(), mapRanges + f.digit(), ""} {
		for _, row := range []Decide{
			{Fields: []Field{Protocol, DestinationPort}, Rows: mapPorts}, {Fields: []Field{Protocol}, Rows: mapProtocols}, {Rows: mapRows},
		} {
			var m []Match
			if classes != "" {
				m = append(m, bytesOf(Family, byte(f)))
				row.Far, row.Classes = g.far(), classes
			}
			if len(row.Fields) > 1 {
				m = append(m, withPorts(false))
			}
			row.Group, row.Counted = g.number<<classBits, countedMap(0)
			ch.Rules = append(ch.Rules, c.byRow(m, row, several)...)
		}
	}
	ch.Rules = append(ch.Rules, when().do(Goto{chainMissing}))
	return ch
}

// byRow does what a row says. several: of some decisions there are several
// counters, which are counted first, in their order.
func (c *compiler) byRow(m []Match, row Decide, several bool) []Rule {
	var out []Rule
	if several {
		for i := range maxCounted {
			count := row
			count.Counted = countedMap(i)
			out = append(out, when(m...).do(count))
		}
		row.Counted = ""
	}
	allow, deny := row, row
	allow.Mask, allow.Is, deny.Mask = markAllow, markAllow, markAllow
	return append(out, when(m...).do(allow, Accept{}), when(m...).do(deny, c.b.cfg.deny()))
}
