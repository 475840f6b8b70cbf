package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
)

// errNoForm says that a rule program asks for what nf_tables has no form for.
var errNoForm = errors.New("cannot be said in nftables")

// Types by which nft(8) knows how to show a value; the kernel ignores them.
// A key of several fields has their types one after the other, 6 bits each.
const (
	typeInteger   = 4
	typeAddr4     = 7
	typeAddr6     = 8
	typeMAC       = 9
	typeARPOp     = 11
	typeProtocol  = 12
	typePort      = 13
	typeMark      = 19
	typeICMP      = 14
	typeICMPv6    = 29
	typeInterface = 41
	typeBits      = 6
)

const (
	maxKey    = 64 // bytes of a key
	allOnes   = ^uint32(0)
	etherType = 1 // ARPHRD_ETHER
)

// nftType returns nft(8)'s number for a type.
func nftType(t rules.Type) uint32 {
	switch t {
	case rules.InterfaceType:
		return typeInterface
	case rules.MACType:
		return typeMAC
	case rules.Addr4Type:
		return typeAddr4
	case rules.Addr6Type:
		return typeAddr6
	case rules.ProtocolType:
		return typeProtocol
	case rules.PortType:
		return typePort
	case rules.MarkType:
		return typeMark
	case rules.ShortType:
		return typeARPOp
	}
	return typeInteger
}

// hostOrder reports whether the kernel has values of the type in the machine's
// byte order. (To nft(8) a name is also such a value.)
func hostOrder(t rules.Type) bool { return t == rules.MarkType || t == rules.InterfaceType }

// inRegister turns a value in network order into what a register holds.
func inRegister(t rules.Type, v string) string {
	if t != rules.MarkType || len(v) != 4 {
		return v
	}
	return string(native.AppendUint32(nil, network.Uint32([]byte(v))))
}

func padded(n int) int { return (n + 3) &^ 3 }

// key turns values of several types, one after the other, into a key: each
// field fills whole words if there are several.
func key(types []rules.Type, v string) (string, error) {
	var b strings.Builder
	for _, t := range types {
		n := t.Size()
		if len(v) < n {
			return "", fmt.Errorf("a key is shorter than its fields: %w", errNoForm)
		}
		b.WriteString(inRegister(t, v[:n]))
		if len(types) > 1 {
			b.WriteString(strings.Repeat("\x00", padded(n)-n))
		}
		v = v[n:]
	}
	if v != "" {
		return "", fmt.Errorf("a key is longer than its fields: %w", errNoForm)
	}
	return b.String(), nil
}

// lowerShape translates the definition of a set.
func lowerShape(s *rules.Set) (*set, error) {
	if len(s.Key) == 0 {
		return nil, fmt.Errorf("set %s has no key: %w", s.Name, errNoForm)
	}
	made := &set{keyOrder: orderNetwork, elems: map[elemID]elem{}}
	for _, t := range s.Key {
		made.keyType = made.keyType<<typeBits | nftType(t)
		made.keyLen += uint32(padded(t.Size()))
	}
	if len(s.Key) == 1 {
		made.keyLen = uint32(s.Key[0].Size())
		if hostOrder(s.Key[0]) && !s.Interval {
			made.keyOrder = orderHost
		}
	}
	if made.keyLen > maxKey {
		return nil, fmt.Errorf("set %s: a key of %d bytes: %w", s.Name, made.keyLen, errNoForm)
	}
	if s.Interval {
		made.flags |= unix.NFT_SET_INTERVAL
		if len(s.Key) > 1 {
			made.flags |= flagConcat
			for _, t := range s.Key {
				made.fields += string([]byte{byte(padded(t.Size()))})
			}
		}
	}
	switch s.Value {
	case rules.ChainValue:
		made.flags |= unix.NFT_SET_MAP
		made.dataType = verdictType
	case rules.NumberValue:
		made.flags |= unix.NFT_SET_MAP
		made.dataType, made.dataLen, made.dataOrder = typeMark, 4, orderHost
	case rules.CounterValue:
		made.flags |= unix.NFT_SET_OBJECT
		made.object = unix.NFT_OBJECT_COUNTER
	}
	return made, nil
}

// lowerElem translates one element into those that the kernel holds, one or
// two, and hands them to each.
func lowerElem(s *rules.Set, e rules.Element, each func(elemID, elem)) error {
	lo, err := key(s.Key, e.Lo)
	if err != nil {
		return fmt.Errorf("set %s: %w", s.Name, err)
	}
	var made elem
	switch s.Value {
	case rules.ChainValue:
		made.verdict = verdict{goTo, e.Name}
	case rules.NumberValue:
		made.data = string(native.AppendUint32(nil, e.Number))
	case rules.CounterValue:
		made.object = e.Name
	}
	if !s.Interval {
		each(elemID{key: lo}, made)
		return nil
	}
	hi, err := key(s.Key, e.Hi)
	if err != nil {
		return fmt.Errorf("set %s: %w", s.Name, err)
	}
	if len(s.Key) > 1 {
		if err := onlyMarks(s, e); err != nil {
			return err
		}
		made.last = hi
		each(elemID{key: lo}, made)
		return nil
	}
	// A mark's interval is compared in network order, as it is in the program.
	each(elemID{key: e.Lo}, made)
	if next, ok := after(e.Hi); ok {
		each(elemID{key: next, end: true}, elem{})
	}
	return nil
}

// onlyMarks refuses a range of marks inside of a key of several fields, which
// the kernel would compare in the machine's byte order.
func onlyMarks(s *rules.Set, e rules.Element) error {
	at := 0
	for _, t := range s.Key {
		n := at + t.Size()
		if t == rules.MarkType && e.Lo[at:n] != e.Hi[at:n] {
			return fmt.Errorf("set %s: a range of marks beside other fields: %w", s.Name, errNoForm)
		}
		at = n
	}
	return nil
}

// after returns the value that follows v; not ok if v is the last.
func after(v string) (string, bool) {
	b := []byte(v)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return string(b), true
		}
	}
	return "", false
}

// A lowered chain is a chain in the kernel's terms, with the sets that hold
// the lists of values in its rules. Such a set is named by its content, so
// that equal lists of different chains are one set.
type lowered struct {
	chain  *chain
	inline map[string]*rules.Set
}

// lowerChain translates a chain.
func lowerChain(c *rules.Chain) (*lowered, error) {
	l := &lowered{chain: &chain{}, inline: map[string]*rules.Set{}}
	if c.Hook != nil {
		hook, err := hookOf(c.Table, c.Hook.Point)
		if err != nil {
			return nil, fmt.Errorf("chain %s: %w", c.Name, err)
		}
		l.chain.base = &base{hook: hook, priority: int32(c.Hook.Priority)}
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
			made, err := statement(s)
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
		exprs, err := load(m.Fields, m.Mask)
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
	s := inlineSet(t, f, r, m.In)
	l.inline[s.Name] = s
	if s.Interval && f.Type() == rules.MarkType {
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
		cmp{op: op, value: zero},
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
		exprs = append(exprs, cmp{op: op, value: []byte(text)})
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
		return []expr{cmp{op: op, value: []byte(value)}}, nil
	}
	if f == rules.Family {
		return nil, fmt.Errorf("a range of families: %w", errNoForm)
	}
	op := uint32(unix.NFT_RANGE_EQ)
	if not {
		op = unix.NFT_RANGE_NEQ
	}
	test := between{op: op, first: []byte(in.Lo), last: []byte(in.Hi)}
	if f.Type() == rules.MarkType {
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

// inlineSet makes the set that holds a list of values. Its name has 120 bits
// of their hash, so that nobody who may write policy can make two collide.
func inlineSet(t rules.Table, f rules.Field, r rules.Rule, in []rules.Range) *rules.Set {
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
