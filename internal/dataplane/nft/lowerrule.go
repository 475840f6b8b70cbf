package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
)

// A lowered chain is a chain in the kernel's terms, with the sets that hold
// the lists of values in its rules. Such a set is named by its content, so
// that equal lists of different chains are one set.
type lowered struct {
	chain  *chain
	inline map[string]inline
	sets   setsByName
}

// setsByName finds the definition of a set of the program.
type setsByName func(name string) (rules.Set, bool)

// An inline set holds a list of values of one field in a rule.
type inline struct {
	*rules.Set
	show uint32 // nft(8)'s type of the values
}

// lower translates the set.
func (s inline) lower() (*set, error) {
	made, err := lowerSet(s.Set)
	if err == nil {
		made.keyType = s.show
	}
	return made, err
}

// lowerChain translates a chain, whose rules refer to the given sets.
func lowerChain(c *rules.Chain, sets setsByName) (*lowered, error) {
	l := &lowered{chain: &chain{}, inline: map[string]inline{}, sets: sets}
	if c.Hook != nil {
		hook, err := hookOf(c.Table, c.Hook.Point)
		if err != nil {
			return nil, fmt.Errorf("chain %s: %w", c.Name, err)
		}
		l.chain.base = &base{hook: hook, priority: int32(c.Hook.Priority), nat: c.Hook.NAT}
	}
	for i, r := range c.Rules {
		made, err := l.rule(c.Table, r)
		if err != nil {
			return nil, fmt.Errorf("chain %s, rule %d: %w", c.Name, i, err)
		}
		l.chain.rules = append(l.chain.rules, made...)
	}
	return l, nil
}

func hookOf(t rules.Table, p rules.Point) (uint32, error) {
	if t == rules.ARP {
		switch p {
		case rules.Input:
			return 0, nil // NF_ARP_IN
		case rules.Output:
			return 1, nil // NF_ARP_OUT
		}
		return 0, fmt.Errorf("ARP at %v: %w", p, errNoForm)
	}
	switch p {
	case rules.Prerouting:
		return unix.NF_INET_PRE_ROUTING, nil
	case rules.Input:
		return unix.NF_INET_LOCAL_IN, nil
	case rules.Forward:
		return unix.NF_INET_FORWARD, nil
	case rules.Postrouting:
		return unix.NF_INET_POST_ROUTING, nil
	}
	return unix.NF_INET_LOCAL_OUT, nil
}

// rule translates a rule: into none if it cannot match, into several if it
// asks for one of several prefixes of names.
func (l *lowered) rule(t rules.Table, r rules.Rule) ([]rule, error) {
	note := r.Note
	if len(note) >= noteBytes {
		note = note[:noteBytes-1]
	}
	ways := []rule{{note: note}}
	for _, m := range r.Matches {
		alternatives, err := l.match(t, r, m)
		if err != nil {
			return nil, err
		}
		var next []rule
		for _, way := range ways {
			for _, a := range alternatives {
				next = append(next, rule{append(way.exprs[:len(way.exprs):len(way.exprs)], a...), note})
			}
		}
		ways = next
	}
	for i := range ways {
		for _, s := range r.Do {
			made, err := l.statement(s)
			if err != nil {
				return nil, err
			}
			ways[i].exprs = append(ways[i].exprs, made...)
		}
	}
	return ways, nil
}

// match translates a match into alternatives, of which one must hold.
func (l *lowered) match(t rules.Table, r rules.Rule, m rules.Match) ([][]expr, error) {
	one := func(exprs ...expr) [][]expr { return [][]expr{exprs} }
	switch {
	case len(m.Fields) == 1 && m.Fields[0] == rules.State:
		return one(stateMatch(m)...), nil
	case m.Set != "":
		exprs, err := l.loadKey(m, rules.NoValue)
		return one(append(exprs, lookup{set: m.Set, not: m.Not})...), err
	case len(m.In) == 0 || len(m.Fields) == 0:
		if m.Not {
			return one(), nil // not in nothing: always
		}
		return nil, nil // in nothing: never
	case len(m.Fields) > 1:
		return nil, fmt.Errorf("a list of values of several fields: %w", errNoForm)
	}
	f := m.Fields[0]
	if f.Type() == rules.InterfaceType && hasStem(m.In) {
		return stems(m), nil
	}
	exprs, err := load(m.Fields, m.Mask)
	if err != nil {
		return nil, err
	}
	if len(m.In) == 1 {
		tests, err := compare(f, m.In[0], m.Not)
		return one(append(exprs, tests...)...), err
	}
	if f == rules.Family {
		return nil, fmt.Errorf("a list of families: %w", errNoForm)
	}
	s := inline{inlineSet(t, f, m.In), shownAs(f, r)}
	if s.show != nftType(f.Type()) {
		s.Name += "-" + strconv.Itoa(int(s.show)) // two sets, since their definitions differ
	}
	l.inline[s.Name] = s
	if s.Interval && number(f.Type()) {
		exprs = append(exprs, toNetwork)
	}
	return one(append(exprs, lookup{set: s.Name, not: m.Not})...), nil
}

// toNetwork turns a mark into network order, in which ranges are compared.
var toNetwork = byteorder{op: 1, length: 4, size: 4}

// stateMatch tests what connection tracking says. Bits of the kernel's are
// those of the program but for the last.
func stateMatch(m rules.Match) []expr {
	const kernelUntracked = 64
	bits := m.Mask & uint32(rules.StateInvalid|rules.StateEstablished|rules.StateRelated|rules.StateNew)
	if m.Mask&uint32(rules.StateUntracked) != 0 {
		bits |= kernelUntracked
	}
	op := uint32(unix.NFT_CMP_NEQ)
	if m.Not {
		op = unix.NFT_CMP_EQ
	}
	zero := make([]byte, 4)
	return []expr{
		ct{key: unix.NFT_CT_STATE, dir: -1},
		bitwise{size: 4, mask: native.AppendUint32(nil, bits), xor: zero},
		comparison{op: op, value: zero},
	}
}

func hasStem(in []rules.Range) bool {
	for _, r := range in {
		if _, ok := r.Stem(); ok {
			return true
		}
	}
	return false
}

// stems matches names by prefixes: one comparison for each.
func stems(m rules.Match) (ways [][]expr) {
	op := uint32(unix.NFT_CMP_EQ)
	if m.Not {
		op = unix.NFT_CMP_NEQ
	}
	var all []expr
	for _, r := range m.In {
		exprs, _ := load(m.Fields, 0)
		text := r.Lo
		if stem, ok := r.Stem(); ok {
			text = stem
		}
		exprs = append(exprs, comparison{op: op, value: []byte(text)})
		ways, all = append(ways, exprs), append(all, exprs...)
	}
	if m.Not {
		return [][]expr{all}
	}
	return ways
}

// compare tests the first register against a range of values of one field.
func compare(f rules.Field, in rules.Range, not bool) ([]expr, error) {
	if len(in.Lo) != f.Type().Size() || len(in.Hi) != len(in.Lo) {
		return nil, fmt.Errorf("a value of %v of %d bytes: %w", f, len(in.Lo), errNoForm)
	}
	if in.Lo == in.Hi {
		op := uint32(unix.NFT_CMP_EQ)
		if not {
			op = unix.NFT_CMP_NEQ
		}
		value := inRegister(f.Type(), in.Lo)
		if f == rules.Family {
			family, err := familyValue(in.Lo)
			if err != nil {
				return nil, err
			}
			value = family
		}
		return []expr{comparison{op: op, value: []byte(value)}}, nil
	}
	if f == rules.Family {
		return nil, fmt.Errorf("a range of families: %w", errNoForm)
	}
	op := uint32(unix.NFT_RANGE_EQ)
	if not {
		op = unix.NFT_RANGE_NEQ
	}
	test := between{op: op, first: []byte(in.Lo), last: []byte(in.Hi)}
	if number(f.Type()) {
		return []expr{toNetwork, test}, nil
	}
	return []expr{test}, nil
}

func familyValue(v string) (string, error) {
	switch v {
	case "\x04":
		return string([]byte{unix.NFPROTO_IPV4}), nil
	case "\x06":
		return string([]byte{unix.NFPROTO_IPV6}), nil
	}
	return "", fmt.Errorf("family %q: %w", v, errNoForm)
}

// shownAs returns nft(8)'s type for a field's values: those of ICMP depend on
// which of the two protocols the rule is about.
func shownAs(f rules.Field, r rules.Rule) uint32 {
	six := slices.ContainsFunc(r.Matches, func(m rules.Match) bool {
		one := len(m.Fields) == 1 && m.Fields[0] == rules.Protocol && !m.Not && len(m.In) == 1
		return one && m.In[0] == rules.Range{Lo: protoICMPv6, Hi: protoICMPv6}
	})
	switch {
	case f == rules.ICMPType && six:
		return typeICMPv6
	case f == rules.ICMPType:
		return typeICMP
	case f == rules.ICMPCode && six:
		return typeICMP6Code
	case f == rules.ICMPCode:
		return typeICMPCode
	}
	return nftType(f.Type())
}

const protoICMPv6 = "\x3a" // IPPROTO_ICMPV6

// inlineSet makes the set that holds a list of values. Its name has 120 bits
// of their hash, so that nobody who may write policy can make two collide.
func inlineSet(t rules.Table, f rules.Field, in []rules.Range) *rules.Set {
	s := &rules.Set{Table: t, Key: []rules.Type{f.Type()}, Elements: make(map[string]rules.Element, len(in))}
	sum := sha256.New()
	for _, v := range in {
		s.Interval = s.Interval || v.Lo != v.Hi
		fmt.Fprintf(sum, "%x-%x ", v.Lo, v.Hi)
	}
	for _, v := range in {
		e := rules.Element{Lo: v.Lo}
		if s.Interval {
			e.Hi = v.Hi
		}
		s.Elements[v.Lo] = e
	}
	s.Name = inlinePrefix + f.Type().String() + "-" + hex.EncodeToString(sum.Sum(nil)[:15])
	if t == rules.ARP {
		s.Name = arpPrefix + s.Name
	}
	return s
}

// inlineTable returns the table of a set that holds a list of values.
func inlineTable(name string) tableID {
	if strings.HasPrefix(name, arpPrefix) {
		return arp
	}
	return inet
}

// What the names of sets that hold lists of values begin with; in the table
// for ARP they begin with both.
const (
	inlinePrefix = "in-"
	arpPrefix    = "arp-"
)
