package rules

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
)

// update brings the compiled rules to what the plain ones are now. Sets,
// lists and endpoints have been told before.
func (c *compiler) update(lists map[desired.RulesID]struct{}) {
	fresh, gone := c.settle()
	for _, g := range c.groups {
		for _, cl := range gone {
			c.unpaint(g, cl.number)
		}
	}
	stale := c.staleGroups(lists)
	c.reassign(stale)
	for _, iface := range slices.Sorted(maps.Keys(c.dirtyEnd)) {
		c.assign(iface)
	}
	clear(c.dirtyEnd)
	c.addSpares()
	full := c.space.given.highest > classMask
	for _, g := range c.sortedGroups() {
		if g.from != nil && (g.refs > 0 || g.spare) && !full {
			c.adopt(g)
		}
		g.from = nil
	}
	for _, g := range c.sortedGroups() {
		switch ids := stale[g.key.plain]; {
		case g.refs == 0 && !g.spare:
			c.dropGroup(g)
			continue
		case g.adopted:
			g.adopted = false
			continue
		case g.rows == nil || full != g.full || g.broken && (len(ids) > 0 || c.fits(g)):
			c.paintGroup(g)
			continue
		case len(ids) > 0:
			c.rewriteGroup(g, ids)
			continue
		}
		for _, cl := range fresh {
			if g.program.tells(cl.sig) {
				if !g.keeps(cl) {
					c.paintClass(g, cl)
				}
			} else {
				c.unpaint(g, cl.number) // rows of the class that had the number
			}
		}
	}
	c.settleFronts()
	c.forgetDecisions()
	for _, n := range []*numbers{c.space.given, c.given, c.numbered} {
		n.forgetHints()
	}
}

// keeps reports whether the rows of the class that had a class's number are
// right for it, and takes them over: the group's rules ask for nothing that
// tells the two apart. The group's rules are those that the rows are of.
func (g *compiled) keeps(cl *class) bool {
	p := g.rows[cl.number]
	if g.broken || g.full || p == nil || cl.number == 0 || p.class.family != cl.family || !g.program.alike(p.class.sig, cl.sig) {
		return false
	}
	p.class = cl
	return true
}

// alike reports whether no rule tells addresses of two signatures apart.
func (f *flat) alike(a, b signature) bool {
	ignored := func(p predicate) bool { return f.far[p] == 0 }
	x, y := a.preds, b.preds
	for {
		for len(x) > 0 && ignored(x[0]) {
			x = x[1:]
		}
		for len(y) > 0 && ignored(y[0]) {
			y = y[1:]
		}
		if len(x) == 0 || len(y) == 0 || x[0] != y[0] {
			break
		}
		x, y = x[1:], y[1:]
	}
	return len(x)+len(y) == 0 && slices.Equal(f.toldTriples(a), f.toldTriples(b))
}

// toldTriples returns the triples of a signature that rules ask for.
func (f *flat) toldTriples(s signature) []triple {
	var out []triple
	for _, t := range s.triples {
		if f.far[t.set] > 0 {
			out = append(out, t)
		}
	}
	return out
}

func (c *compiler) sortedGroups() []*compiled {
	return slices.SortedFunc(maps.Values(c.groups), func(a, b *compiled) int { return strings.Compare(a.chain, b.chain) })
}

// learnSet takes in what a set says of addresses.
func (c *compiler) learnSet(id desired.SetID, want *desired.Set, p desired.SetPatch) {
	name := "set:" + string(id)
	kind, known := c.loaded[id]
	if want == nil || known && (p.Gone || kind != want.Kind) {
		c.space.forget(name)
		delete(c.loaded, id)
		known = false
	}
	switch {
	case want == nil:
	case !known:
		c.loaded[id] = want.Kind
		n := c.space.number(name)
		c.space.dirty = slices.Grow(c.space.dirty, len(want.Members))
		for m := range want.Members {
			c.space.add(n, want.Kind, m)
		}
	default:
		n := c.space.number(name)
		for _, m := range p.Remove {
			c.space.remove(n, kind, m)
		}
		for _, m := range p.Add {
			c.space.add(n, kind, m)
		}
	}
}

// holdNets takes in a list of nets in a rule, and returns its predicate.
func (c *compiler) holdNets(list []netip.Prefix) predicate {
	name := netsPredicate(list)
	n := c.space.number(name)
	if c.inline[name]++; c.inline[name] == 1 {
		for _, p := range list {
			c.space.add(n, desired.AddressSet, desired.Member{Prefix: p})
		}
	}
	return n
}

func (c *compiler) releaseNets(list []netip.Prefix) {
	name := netsPredicate(list)
	if c.inline[name]--; c.inline[name] == 0 {
		delete(c.inline, name)
		c.space.forget(name)
	}
}

func netsPredicate(list []netip.Prefix) string {
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = canonical(p).String()
	}
	slices.Sort(words)
	return "nets:" + strings.Join(slices.Compact(words), ",")
}

// settle moves every address to its class, and returns the classes that are
// new and those that are no more.
func (c *compiler) settle() (fresh, gone []*class) {
	s := c.space
	singles := slices.Grow(c.moves[:0], len(s.dirty)+fewMoves)
	var ranges [2][]piece
	for i := range families {
		if len(s.dirtyNets[i]) > 0 {
			s.spread(i)
			for a, at := range c.near {
				if familyIndex(a) == i {
					maps.Copy(c.dirtyEnd, at)
				}
			}
			ranges[i] = s.pieces(i)
			for _, cl := range s.ranges[i] {
				s.release(cl)
			}
			for _, p := range ranges[i] {
				s.hold(p.class)
			}
		}
	}
	var last signature // thousands have the same
	var same [2]*class
	for _, d := range s.dirty {
		a, x := d.addr, d.single
		for iface := range c.near[a] {
			c.dirtyEnd[iface] = struct{}{}
		}
		var to *class
		if !x.own.empty() {
			sig, f := s.ofOwn(a, x.own), familyIndex(a)
			if !sig.equal(last) {
				last, same = sig, [2]*class{}
			}
			if same[f] == nil {
				same[f] = s.classOf(f, sig)
			}
			to = same[f]
		}
		s.release(x.class)
		s.hold(to)
		singles = append(singles, moveOf(a, x, to))
	}
	singles = s.inherit(singles)
	fresh, gone = s.enumerate()
	for i := range singles {
		c.place(&singles[i])
	}
	for i := range families {
		if len(s.dirtyNets[i]) > 0 {
			c.placeRanges(i, ranges[i])
			s.dirtyNets[i] = nil
		}
	}
	s.dirty, c.moves = emptied(s.dirty), emptied(singles)
	return fresh, gone
}

// mostEmptied is how long a list may be whose memory is kept for the next: ten
// thousand addresses that come and go shall not be garbage each time.
const mostEmptied = 1 << 14

func emptied[T any](list []T) []T {
	if cap(list) > mostEmptied {
		return nil
	}
	clear(list)
	return list[:0]
}

// place puts a single address in its class.
func (c *compiler) place(m *moved) {
	m.single.class, m.single.dirty = m.to, false
	set := mapClasses + familyOf(m.addr).digit()
	switch {
	case m.to == nil:
		if delete(c.space.singles, m.addr); m.was != 0 {
			c.b.dropElement(set, addrBytes(m.addr))
		}
	case m.to.number != m.was:
		c.b.putElement(set, Element{Lo: addrBytes(m.addr), Number: m.to.number})
	}
}

func (c *compiler) placeRanges(i int, pieces []piece) {
	set, now := mapRanges+families[i].digit(), make(map[string]Element, len(pieces))
	c.space.ranges[i] = make(map[string]*class, len(pieces))
	for _, p := range pieces {
		e := Element{Lo: addrBytes(p.lo), Hi: addrBytes(p.hi), Number: p.class.number}
		now[e.Lo] = e
		c.space.ranges[i][e.Lo] = p.class
	}
	d, _ := differ(c.b.prog.Sets[set].Elements, now)
	for _, e := range d.Remove {
		c.b.dropElement(set, e.Lo)
	}
	for _, e := range d.Add {
		c.b.putElement(set, e)
	}
}
