package rules

import (
	"net/netip"

	"github.com/brindle-net/brindle/internal/desired"
)

// The packet's mark between look-ups. It is 0 when the compiled chains begin,
// or they are not gone through, and when they end.
const (
	classBits    = 18
	groupBits    = 10
	classMask    = 1<<classBits - 1
	groupMask    = (1<<groupBits - 1) << classBits
	markDecided  = 1 << 28 // the rest is a decision, no class and group
	markAllow    = 1 << 29
	markPlain    = 1 << 30 // the plain rules decide
	decisionMask = 1<<28 - 1
	everyMark    = 1<<32 - 1
)

// Names of what the compiled rules have beside the plain ones.
const (
	mapRanges    = "class-ranges" // + family: addresses in nets to classes
	mapClasses   = "class"        // + family: single addresses to classes
	setPainted   = "painted"      // groups and classes that have rows
	mapPorts     = "row-ports"    // group and class, protocol, port
	mapProtocols = "row-protocols"
	mapRows      = "row-classes"
	mapCounted   = "counted" // + 1 to maxCounted: decisions to counters
	chainDecide  = "decide"
	chainDecided = "decided"
	maxCounted   = 3
)

// limits are how many rows there may be: of one group, and of all. A group
// with more is left to its plain rules, of all groups the largest first: who
// makes policy that needs many rows pays for it, and not the others.
type limits struct{ group, all int }

// compiler keeps the compiled rules: maps that take the class of the far
// address, protocol and port to what the plain rules of a group of endpoints
// would decide. What they don't decide is left to the plain rules.
type compiler struct {
	b      *Builder
	space  *space
	loaded map[desired.SetID]desired.SetKind
	inline map[string]int // lists of nets in rules: how often they are used
	groups map[groupKey]*compiled
	limits limits
	rows   int              // of all groups
	given  *numbers         // to groups
	asks   map[string]asked // by plain group
	fronts map[string]alone // by plain group: how its front is written

	decisions map[string]*decision
	numbered  *numbers
	unused    map[*decision]struct{}

	assigned map[string][]assignment            // by interface
	near     map[netip.Addr]map[string]struct{} // interfaces by address
	dirtyEnd map[string]struct{}
	asksElse map[desired.RulesID]struct{} // lists that ask something else of the near address
	moves    []moved                      // empty; its memory is for the next change
}

// groupKey tells compiled groups apart: the plain rules, and what these can
// tell of the near address.
type groupKey struct {
	plain  string // chain
	family int
	local  string // signature
}

// compiled is one group of endpoints' addresses.
type compiled struct {
	key     groupKey
	dir     desired.Direction
	number  uint32
	chain   string
	local   signature
	refs    int
	from    *compiled // the group that the endpoints of a new one come from
	adopted bool      // in this change
	program *flat
	rows    map[uint32]*painted // by class; 0 is the class of nothing
	count   int
	plain   int  // rows that leave it to the plain rules
	several int  // decisions of rows that have several counters
	spare   bool // no endpoint has an address of the family, but another has
	alone   bool // with the group of the other family: see alone.go
	broken  bool // too many rows
	full    bool // too many classes
	// Of a group that was broken: how many rows it had, and classes there were.
	brokenRows, brokenClasses int
}

// painted is the rows of a class.
type painted struct {
	class     *class
	elements  []placed
	decisions []*decision
	plain     int // rows that leave it to the plain rules
	several   int // decisions that have several counters
}

// decision is a verdict, and the counters of the rules that led to it.
type decision struct {
	key      string
	number   uint32
	value    uint32 // of the mark
	counters []string
	refs     int
}

// hints are the numbers of a program before.
type hints struct{ classes, groups, decisions map[string]uint32 }

// hints returns the numbers that are given out now.
func (c *compiler) hints() hints {
	h := hints{map[string]uint32{}, map[string]uint32{}, map[string]uint32{}}
	for _, of := range c.space.classes {
		for _, cl := range of {
			h.classes[cl.name] = cl.number
		}
	}
	for _, g := range c.groups {
		h.groups[g.chain] = g.number
	}
	for _, d := range c.decisions {
		if d.number != 0 {
			h.decisions[d.key] = d.number
		}
	}
	return h
}

func newCompiler(b *Builder, h hints) *compiler {
	c := &compiler{
		given: newNumbers(0, h.groups), numbered: newNumbers(1, h.decisions), limits: limits{group: 1 << 17, all: 1 << 20},

		b: b, space: newSpace(h.classes), loaded: map[desired.SetID]desired.SetKind{}, inline: map[string]int{}, groups: map[groupKey]*compiled{}, asks: map[string]asked{},
		decisions: map[string]*decision{}, unused: map[*decision]struct{}{}, assigned: map[string][]assignment{},
		near: map[netip.Addr]map[string]struct{}{}, dirtyEnd: map[string]struct{}{}, asksElse: map[desired.RulesID]struct{}{},
	}
	for _, s := range []Set{
		{Name: setPainted, Key: []Type{MarkType}},
		{Name: mapPorts, Key: []Type{MarkType, ProtocolType, PortType}, Value: NumberValue},
		{Name: mapProtocols, Key: []Type{MarkType, ProtocolType}, Value: NumberValue},
		{Name: mapRows, Key: []Type{MarkType}, Value: NumberValue},
	} {
		b.addSet(s)
	}
	for i := range maxCounted {
		b.addSet(Set{Name: countedMap(i), Key: []Type{MarkType}, Value: CounterValue})
	}
	for _, f := range families {
		b.addSet(Set{Name: mapClasses + f.digit(), Key: []Type{f.addrType()}, Value: NumberValue})
		b.addSet(Set{Name: mapRanges + f.digit(), Key: []Type{f.addrType()}, Interval: true, Value: NumberValue})
		for _, m := range []string{mapFrom, mapTo} {
			b.addSet(Set{Name: m + f.digit(), Key: []Type{InterfaceType, f.addrType()}, Value: ChainValue})
		}
	}
	for _, ch := range c.chains() {
		b.putChain(ch.Name, ch)
	}
	return c
}

func countedMap(i int) string { return mapCounted + string('1'+rune(i)) }

// chains are those that all groups share. They leave the mark with a verdict
// only where they end the packet's way; otherwise the caller clears it.
func (c *compiler) chains() []*Chain {
	bit := func(b uint32) Match {
		return Match{Fields: []Field{Mark}, Mask: b, In: []Range{{markBytes(b), markBytes(b)}}}
	}
	ready := when(bit(markDecided)).do(Goto{chainDecided})
	decide := []Rule{
		when(Match{Fields: []Field{Mark}, Set: setPainted, Not: true}).do(SetMark{classMask, 0}),
		when(withPorts(false)).do(MarkBy{[]Field{Mark, Protocol, DestinationPort}, mapPorts}), ready,
		when().do(MarkBy{[]Field{Mark, Protocol}, mapProtocols}), ready,
		when().do(MarkBy{[]Field{Mark}, mapRows}), ready,
	}
	decided := []Rule{when(bit(markPlain)).do(Return{})}
	for i := range maxCounted {
		decided = append(decided, when().do(CountBy{[]Field{Mark}, countedMap(i)}))
	}
	decided = append(decided, when(bit(markAllow)).do(SetMark{everyMark, 0}, Accept{}))
	if c.b.cfg.Reject { // the answer may take the packet's mark over (fwmark_reflect)
		decided = append(decided, when().do(SetMark{everyMark, 0}, Reject{}))
	} else {
		decided = append(decided, when().do(Drop{}))
	}
	return []*Chain{
		{Name: chainDecide, Rules: decide, Note: "from group and class to a decision"},
		{Name: chainDecided, Rules: decided},
	}
}

// entry is where the packets of a group's endpoints come in.
func (g *compiled) entry() *Chain {
	c := &Chain{Name: g.chain, Note: "group, " + g.dir.String() + ", compiled"}
	if g.broken || g.full {
		c.Rules = []Rule{when().do(Goto{g.key.plain})}
		return c
	}
	far, f := g.far(), families[g.key.family]
	fam := bytesOf(Family, byte(f))
	c.Rules = []Rule{
		when(fam).do(MarkBy{[]Field{far}, mapRanges + f.digit()}),
		when(fam).do(MarkBy{[]Field{far}, mapClasses + f.digit()}),
		when().do(SetMark{groupMask, g.number << classBits}, Jump{chainDecide}),
		when().do(SetMark{everyMark, 0}, Goto{g.rest()}),
	}
	return c
}

// front is where the packets of a plain group's endpoints come in: compiled
// rules are for packets whose mark nobody else has a bit in, from or to an
// address of an endpoint's own; or for all packets, if they decide all.
func front(plain string, dir desired.Direction, a alone) *Chain {
	m, iface, near := mapTo, OutInterface, []Field{Destination4, Destination6}
	if dir == desired.Egress {
		m, iface, near = mapFrom, InInterface, []Field{Source4, Source6}
	}
	c := &Chain{Name: frontOf(plain), Note: "group, " + dir.String()}
	if a.groups[0] != nil {
		for i, g := range a.groups {
			c.Rules = append(c.Rules, when(is(Mark, markBytes(0)), bytesOf(Family, byte(families[i]))).do(Goto{g.chain}))
		}
		for i, number := range a.numbers {
			c.Rules = append(c.Rules, when(bytesOf(Family, byte(families[i]))).do(Goto{unmarked(number)}))
		}
		c.Rules = append(c.Rules, when().do(Goto{chainMissing}))
		return c
	}
	for i, f := range families {
		c.Rules = append(c.Rules, when(is(Mark, markBytes(0)), bytesOf(Family, byte(f))).do(Dispatch{[]Field{iface, near[i]}, m + f.digit()}))
	}
	c.Rules = append(c.Rules, when().do(Goto{plain}))
	return c
}

func frontOf(plain string) string { return "k-" + plain[len("g-"):] }
