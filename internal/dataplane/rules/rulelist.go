package rules

import (
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
)

// listWriter writes the rules of one policy or profile and direction.
type listWriter struct {
	cfg  *Config
	id   desired.RulesID
	tier string // for log lines
	// set returns the name that a set has for a family, "" if it has no members
	// of it. ok is false for one that is missing or of another kind.
	set func(id desired.SetID, f family, kind desired.SetKind) (name string, ok bool)
	// counters are the names of the rules' counters, rule by rule.
	counters []string
}

// chain returns the chain of the rules. Allow and Deny end the packet's way
// through the hook; Pass leaves the pass bit set, in a profile nothing.
func (w *listWriter) chain(list *desired.RuleList) *Chain {
	c := &Chain{Name: rulesChain(w.id), Note: note(w.id.Owner + " " + w.id.Direction.String())}
	for i := range list.Rules {
		c.Rules = append(c.Rules, w.rule(&list.Rules[i], w.counters[i])...)
	}
	return c
}

// rule returns the program's rules for one of policy: none if it can match
// nothing, several where one match cannot say what it asks for. At most one of
// them matches a packet.
func (w *listWriter) rule(r *desired.PolicyRule, counter string) []Rule {
	if r = w.sound(r); r == nil {
		return nil
	}
	do := append([]Statement{Count{counter}}, w.statements(r)...)
	var alternatives [][]Match
	if needsFamily(r) {
		for _, f := range families {
			alternatives = append(alternatives, w.matches(r, f)...)
		}
	} else {
		alternatives = w.matches(r, 0)
	}
	out := make([]Rule, len(alternatives))
	for i, m := range alternatives {
		out[i] = Rule{Matches: m, Do: do}
	}
	return out
}

// statements returns what a rule does beside counting.
func (w *listWriter) statements(r *desired.PolicyRule) []Statement {
	switch r.Action {
	case desired.Allow:
		return []Statement{Accept{}}
	case desired.Pass:
		if strings.HasPrefix(w.id.Owner, profilePrefix) {
			return []Statement{Return{}}
		}
		bit := w.cfg.passBit()
		return []Statement{SetMark{bit, bit}, Return{}}
	case desired.Log:
		log := Log{w.cfg.logPrefix(w.id.Owner, w.tier), w.cfg.LogGroup}
		if w.cfg.LogLimit != (Limit{}) {
			return []Statement{w.cfg.LogLimit, log}
		}
		return []Statement{log}
	}
	return []Statement{w.cfg.deny()}
}

// sound returns the rule as it is to be written when sets that it refers to
// are missing: what it would allow it doesn't, what it would deny or pass on is
// denied whatever the set says. It is nil if nothing is left.
func (w *listWriter) sound(r *desired.PolicyRule) *desired.PolicyRule {
	there := func(kind desired.SetKind) func(desired.SetID) bool {
		return func(id desired.SetID) bool { _, ok := w.set(id, 4, kind); return ok }
	}
	address, port := there(desired.AddressSet), there(desired.PortSet)
	whole := func(s *desired.Side) bool {
		return allOf(s.Sets, address) && allOf(s.NotSets, address) && allOf(s.PortSets, port) && allOf(s.NotPortSets, port)
	}
	if whole(&r.Source) && whole(&r.Destination) {
		return r
	}
	broken := false
	fixed := *r
	for _, s := range []*desired.Side{&fixed.Source, &fixed.Destination} {
		asked := len(s.Ports)+len(s.PortSets) > 0
		s.Sets = keep(s.Sets, address, &broken)
		s.NotSets = keep(s.NotSets, address, &broken)
		s.NotPortSets = keep(s.NotPortSets, port, &broken)
		lost := false
		if s.PortSets = keep(s.PortSets, port, &lost); lost && asked {
			broken, s.Ports, s.PortSets = true, nil, nil
		}
	}
	switch {
	case !broken:
		return r
	case r.Action == desired.Allow || r.Action == desired.Log:
		return nil
	}
	fixed.Action = desired.Deny
	return &fixed
}

func allOf(ids []desired.SetID, there func(desired.SetID) bool) bool {
	for _, id := range ids {
		if !there(id) {
			return false
		}
	}
	return true
}

func keep(ids []desired.SetID, there func(desired.SetID) bool, lost *bool) []desired.SetID {
	if allOf(ids, there) {
		return ids
	}
	*lost = true
	return slices.DeleteFunc(slices.Clone(ids), func(id desired.SetID) bool { return !there(id) })
}

// needsFamily reports whether the rule has to be written for each family by
// itself.
func needsFamily(r *desired.PolicyRule) bool {
	return !r.IPv4 || !r.IPv6 || r.ICMP != nil || r.NotICMP != nil || hasAddresses(&r.Source) || hasAddresses(&r.Destination)
}

func hasAddresses(s *desired.Side) bool {
	return len(s.Nets)+len(s.NotNets)+len(s.Sets)+len(s.NotSets)+len(s.PortSets)+len(s.NotPortSets) > 0
}

// expansion collects the matches of one rule and family.
type expansion struct {
	w *listWriter
	f family
	// protocol is the one that the packet must have, 0 if it may have several.
	protocol uint8
	// ported: the packet is of a protocol with ports.
	ported bool
	// all has what each alternative begins with; groups of alternatives follow,
	// of each of which one must match. Those of one group exclude each other.
	all    []Match
	groups [][][]Match
	never  bool
}

// matches returns the alternatives for a family (0: for both at once).
func (w *listWriter) matches(r *desired.PolicyRule, f family) [][]Match {
	e := &expansion{w: w, f: f, all: make([]Match, 0, 6)}
	e.family(r)
	e.protocols(r)
	e.ports(&r.Source, ends[0])
	e.ports(&r.Destination, ends[1])
	e.addresses(&r.Source, ends[0])
	e.addresses(&r.Destination, ends[1])
	e.notPorts(r)
	e.notICMP(r.NotICMP)
	if e.never {
		return nil
	}
	out := [][]Match{slices.Clip(e.all)}
	for _, group := range e.groups {
		var next [][]Match
		for _, begin := range out {
			for _, alternative := range group {
				next = append(next, slices.Concat(begin, alternative))
			}
		}
		out = next
	}
	return out
}

func (e *expansion) add(m ...Match) { e.all = append(e.all, m...) }

func (e *expansion) family(r *desired.PolicyRule) {
	switch e.f {
	case 4:
		e.never = !r.IPv4
	case 6:
		e.never = !r.IPv6
	default:
		return
	}
	e.add(is(Family, string([]byte{byte(e.f)})))
}

func (e *expansion) icmp() uint8 {
	if e.f == 4 {
		return protoICMP
	}
	return protoICMPv6
}

func (e *expansion) protocols(r *desired.PolicyRule) {
	e.protocol = r.Protocol
	if r.ICMP != nil {
		if e.protocol != 0 && e.protocol != e.icmp() {
			e.never = true
		}
		e.protocol = e.icmp()
	}
	if e.protocol != 0 {
		e.add(is(Protocol, string([]byte{e.protocol})))
	}
	switch {
	case r.NotProtocol == 0:
	case e.protocol == r.NotProtocol:
		e.never = true
	case e.protocol == 0:
		e.add(isNot(Protocol, string([]byte{r.NotProtocol})))
	}
	if r.ICMP != nil {
		e.add(is(ICMPType, string([]byte{r.ICMP.Type})))
		if r.ICMP.Code >= 0 {
			e.add(is(ICMPCode, string([]byte{byte(r.ICMP.Code)})))
		}
	}
	if len(r.Source.Ports)+len(r.Source.PortSets)+len(r.Destination.Ports)+len(r.Destination.PortSets) > 0 {
		e.onlyPorted()
	}
}

// onlyPorted restricts the packet to the protocols that have ports.
func (e *expansion) onlyPorted() {
	switch {
	case e.protocol == 0:
		e.add(withPorts(false))
		e.ported = true
	case hasPorts(e.protocol):
		e.ported = true
	default:
		e.never = true
	}
}

func hasPorts(protocol uint8) bool {
	return protocol == protoTCP || protocol == protoUDP || protocol == protoSCTP
}

func withPorts(not bool) Match {
	return Match{Fields: []Field{Protocol}, Not: not, In: []Range{
		{"\x06", "\x06"}, {"\x11", "\x11"}, {"\x84", "\x84"}}}
}

// end is the fields of one end of a packet.
type end struct{ addr4, addr6, port Field }

var ends = [...]end{
	{Source4, Source6, SourcePort},
	{Destination4, Destination6, DestinationPort},
}

func (n end) addr(f family) Field {
	if f == 4 {
		return n.addr4
	}
	return n.addr6
}

func (n end) triple(f family) []Field { return []Field{n.addr(f), Protocol, n.port} }

// ports asks for one of the ports or the addresses with ports.
func (e *expansion) ports(s *desired.Side, n end) {
	if len(s.Ports)+len(s.PortSets) == 0 {
		return
	}
	ranges := portRanges(s.Ports)
	if everything(ranges) {
		return
	}
	var group [][]Match
	var before []Match // what the alternatives up to now have not matched
	if len(ranges) > 0 {
		group = append(group, []Match{{Fields: []Field{n.port}, In: ranges}})
		before = append(before, Match{Fields: []Field{n.port}, In: ranges, Not: true})
	}
	for _, id := range s.PortSets {
		name, _ := e.w.set(id, e.f, desired.PortSet)
		if name == "" {
			continue
		}
		m := Match{Fields: n.triple(e.f), Set: name}
		group = append(group, append(slices.Clone(before), m))
		m.Not = true
		before = append(before, m)
	}
	if len(group) == 1 {
		e.add(group[0]...)
		return
	}
	e.groups = append(e.groups, group)
}

// notPorts asks for a packet without ports, or for none of the ports.
func (e *expansion) notPorts(r *desired.PolicyRule) {
	var none []Match
	never := false
	for i, s := range []*desired.Side{&r.Source, &r.Destination} {
		if ranges := portRanges(s.NotPorts); everything(ranges) {
			never = true
		} else if len(ranges) > 0 {
			none = append(none, Match{Fields: []Field{ends[i].port}, In: ranges, Not: true})
		}
		for _, id := range s.NotPortSets {
			name, _ := e.w.set(id, e.f, desired.PortSet)
			if name == "" {
				continue
			}
			none = append(none, Match{Fields: ends[i].triple(e.f), Set: name, Not: true})
		}
	}
	switch {
	case len(none) == 0 && !never, e.protocol != 0 && !hasPorts(e.protocol):
	case e.ported || e.protocol != 0:
		e.never = e.never || never
		e.add(none...)
	case never:
		e.add(withPorts(true))
	default:
		e.groups = append(e.groups, [][]Match{{withPorts(true)}, append([]Match{withPorts(false)}, none...)})
	}
}

// notICMP asks for a packet that is no such message.
func (e *expansion) notICMP(m *desired.ICMP) {
	if m == nil || e.ported || e.protocol != 0 && e.protocol != e.icmp() {
		return
	}
	kind, code := string([]byte{m.Type}), string([]byte{byte(m.Code)})
	other, group := []Match{isNot(ICMPType, kind)}, [][]Match{}
	same := []Match{is(ICMPType, kind), isNot(ICMPCode, code)}
	if e.protocol == 0 {
		proto := string([]byte{e.icmp()})
		group = append(group, []Match{isNot(Protocol, proto)})
		other = append([]Match{is(Protocol, proto)}, other...)
		same = append([]Match{is(Protocol, proto)}, same...)
	}
	group = append(group, other)
	if m.Code >= 0 {
		group = append(group, same)
	}
	e.groups = append(e.groups, group)
}

func (e *expansion) addresses(s *desired.Side, n end) {
	if e.f == 0 {
		return
	}
	if len(s.Nets) > 0 {
		ranges := addressRanges(s.Nets, e.f)
		e.never = e.never || len(ranges) == 0
		if !everything(ranges) {
			e.add(Match{Fields: []Field{n.addr(e.f)}, In: ranges})
		}
	}
	if len(s.NotNets) > 0 {
		ranges := addressRanges(s.NotNets, e.f)
		e.never = e.never || len(ranges) == 0 || everything(ranges)
		e.add(Match{Fields: []Field{n.addr(e.f)}, In: ranges, Not: true})
	}
	for _, id := range s.Sets {
		name, _ := e.w.set(id, e.f, desired.AddressSet)
		e.never = e.never || name == ""
		e.add(Match{Fields: []Field{n.addr(e.f)}, Set: name})
	}
	for _, id := range s.NotSets {
		if name, _ := e.w.set(id, e.f, desired.AddressSet); name != "" {
			e.add(Match{Fields: []Field{n.addr(e.f)}, Set: name, Not: true})
		}
	}
}

func portRanges(list []desired.PortRange) []Range {
	ranges := make([]Range, 0, len(list))
	for _, p := range list {
		if p.Min <= p.Max {
			ranges = append(ranges, Range{portBytes(p.Min), portBytes(p.Max)})
		}
	}
	return joined(ranges)
}

func is(f Field, v string) Match { return Match{Fields: []Field{f}, In: []Range{{v, v}}} }

func isNot(f Field, v string) Match { return Match{Fields: []Field{f}, In: []Range{{v, v}}, Not: true} }
