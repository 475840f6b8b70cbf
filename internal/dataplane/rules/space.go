package rules

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
)

// predicate is something that rules tell addresses apart by: a set, or a list
// of nets in a rule.
type predicate uint32

// triple says that an address is in a set with a protocol and a port.
type triple struct {
	set      predicate
	protocol uint8
	port     uint16
}

// signature is all that the rules of this host can tell of an address, in
// order, each once.
type signature struct {
	preds   []predicate
	triples []triple
}

func (s signature) empty() bool { return len(s.preds)+len(s.triples) == 0 }

func (s signature) equal(o signature) bool {
	return slices.Equal(s.preds, o.preds) && slices.Equal(s.triples, o.triples)
}

func (s signature) has(p predicate) bool {
	_, ok := slices.BinarySearch(s.preds, p)
	return ok
}

// key is the same for the same signature.
func (s signature) key() string {
	b := make([]byte, 0, 4*len(s.preds)+7*len(s.triples)+1)
	for _, p := range s.preds {
		b = binary.BigEndian.AppendUint32(b, uint32(p))
	}
	b = append(b, '/')
	for _, t := range s.triples {
		b = binary.BigEndian.AppendUint32(b, uint32(t.set))
		b = binary.BigEndian.AppendUint16(append(b, t.protocol), t.port)
	}
	return string(b)
}

// class is the addresses of a family that have one signature. The one with
// nothing in it has number 0 and no elements.
type class struct {
	number uint32
	name   string // the same in every run
	family int    // index in families
	sig    signature
	refs   int  // elements
	heir   bool // in this change: the number was another's
}

// space is the addresses of both families, cut into classes.
type space struct {
	numbers map[string]predicate
	names   map[predicate]string
	last    predicate
	singles map[netip.Addr]*single
	nets    [2]netIndex
	ranges  [2]map[string]*class // elements of the map of ranges, by Lo

	classes [2]map[string]*class // by signature
	given   *numbers             // to classes

	// What changed since the last settle.
	dirty     []dirtyAddr // each once
	dirtyNets [2][]netip.Prefix
	touched   map[*class]struct{} // made, or lost an element

	// The last that with and without were asked: thousands ask the same.
	more, less changedList
}

// changedList is a list of predicates, and what it is with one more or less.
type changedList struct {
	p        predicate
	old, now []predicate
}

// of reports whether this is what becomes of a list. Lists are compared as they
// lie in memory: none of them is ever written to.
func (c *changedList) of(p predicate, list []predicate) bool {
	return c.p == p && len(c.old) == len(list) && (len(list) == 0 || &c.old[0] == &list[0])
}

// with returns the list with p in it.
func (s *space) with(list []predicate, p predicate) []predicate {
	if !s.more.of(p, list) {
		now := list
		if at, found := slices.BinarySearch(list, p); !found {
			now = slices.Insert(slices.Clip(list), at, p)
		}
		s.more = changedList{p, list, now}
	}
	return s.more.now
}

// without returns the list without p.
func (s *space) without(list []predicate, p predicate) []predicate {
	if !s.less.of(p, list) {
		now := list
		if at, found := slices.BinarySearch(list, p); found {
			now = slices.Concat(list[:at], list[at+1:])
		}
		s.less = changedList{p, list, now}
	}
	return s.less.now
}

// single is an address that is a member of something by itself.
type single struct {
	own   signature // without what it gets by nets
	class *class    // nil: none but the empty one
	dirty bool      // it is among those of the space
}

// dirtyAddr is an address whose class may be another.
type dirtyAddr struct {
	addr netip.Addr
	*single
}

// spoil notes that an address may be in another class.
func (s *space) spoil(a netip.Addr, x *single) {
	if !x.dirty {
		x.dirty = true
		s.dirty = append(s.dirty, dirtyAddr{a, x})
	}
}

// netIndex is the members that are more than one address.
type netIndex struct {
	at      map[netip.Prefix][]predicate
	lengths [129]int
}

func newSpace(hints map[string]uint32) *space {
	s := &space{given: newNumbers(1, hints), numbers: map[string]predicate{}, names: map[predicate]string{}, singles: map[netip.Addr]*single{},
		touched: map[*class]struct{}{}}
	for i := range families {
		s.nets[i].at, s.ranges[i], s.classes[i] = map[netip.Prefix][]predicate{}, map[string]*class{}, map[string]*class{}
	}
	return s
}

// number returns the predicate of a name.
func (s *space) number(name string) predicate {
	n, ok := s.numbers[name]
	if !ok {
		s.last++
		n = s.last
		s.numbers[name], s.names[n] = n, name
	}
	return n
}

func familyIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// add makes m a member of p, if it isn't.
func (s *space) add(p predicate, kind desired.SetKind, m desired.Member) {
	m.Prefix = canonical(m.Prefix)
	a := m.Prefix.Addr()
	if kind == desired.AddressSet && !m.Prefix.IsSingleIP() {
		i := familyIndex(a)
		n := &s.nets[i]
		list, there := n.at[m.Prefix]
		at, found := slices.BinarySearch(list, p)
		if found {
			return
		}
		if !there {
			n.lengths[m.Prefix.Bits()]++
		}
		n.at[m.Prefix] = slices.Insert(slices.Clip(list), at, p)
		s.dirtyNets[i] = append(s.dirtyNets[i], m.Prefix)
		return
	}
	x := s.singles[a]
	if x == nil {
		x = &single{}
		s.singles[a] = x
	}
	if kind == desired.AddressSet {
		x.own.preds = s.with(x.own.preds, p)
	} else {
		t := triple{p, m.Protocol, m.Port}
		if at, found := slices.BinarySearchFunc(x.own.triples, t, triple.compare); !found {
			x.own.triples = slices.Insert(slices.Clip(x.own.triples), at, t)
		}
	}
	s.spoil(a, x)
}

func (t triple) compare(o triple) int {
	return cmp.Or(cmp.Compare(t.set, o.set), cmp.Compare(t.protocol, o.protocol), cmp.Compare(t.port, o.port))
}

// remove undoes add.
func (s *space) remove(p predicate, kind desired.SetKind, m desired.Member) {
	m.Prefix = canonical(m.Prefix)
	a := m.Prefix.Addr()
	if kind == desired.AddressSet && !m.Prefix.IsSingleIP() {
		s.removeNet(p, m.Prefix)
		return
	}
	x := s.singles[a]
	if x == nil {
		return
	}
	drop := func(t triple) bool { return t == triple{p, m.Protocol, m.Port} }
	if kind == desired.AddressSet {
		x.own.preds = s.without(x.own.preds, p)
	} else {
		x.own.triples = slices.DeleteFunc(slices.Clone(x.own.triples), drop)
	}
	s.spoil(a, x)
}

func (s *space) removeNet(p predicate, net netip.Prefix) {
	i := familyIndex(net.Addr())
	n := &s.nets[i]
	if _, found := slices.BinarySearch(n.at[net], p); !found {
		return
	}
	if left := s.without(n.at[net], p); len(left) > 0 {
		n.at[net] = left
	} else {
		delete(n.at, net)
		n.lengths[net.Bits()]--
	}
	s.dirtyNets[i] = append(s.dirtyNets[i], net)
}

// forget removes all members of a predicate, and it.
func (s *space) forget(name string) {
	p, ok := s.numbers[name]
	if !ok {
		return
	}
	delete(s.numbers, name)
	delete(s.names, p)
	for a, x := range s.singles {
		before := len(x.own.preds) + len(x.own.triples)
		x.own.preds = s.without(x.own.preds, p)
		if of := func(t triple) bool { return t.set == p }; slices.ContainsFunc(x.own.triples, of) {
			x.own.triples = slices.DeleteFunc(slices.Clone(x.own.triples), of)
		}
		if len(x.own.preds)+len(x.own.triples) < before {
			s.spoil(a, x)
		}
	}
	for i := range families {
		for net, list := range s.nets[i].at {
			if _, found := slices.BinarySearch(list, p); found {
				s.removeNet(p, net)
			}
		}
	}
}

// spread marks the single addresses whose signature may have changed with the
// nets of a family.
func (s *space) spread(family int) {
	nets := s.dirtyNets[family]
	all := len(nets) > 8 // comparing each with each would take longer
	for a, x := range s.singles {
		if familyIndex(a) == family && (all || slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) })) {
			s.spoil(a, x)
		}
	}
}

// of returns the signature of any address.
func (s *space) of(a netip.Addr) signature {
	if x := s.singles[a]; x != nil {
		return s.ofOwn(a, x.own)
	}
	return s.ofOwn(a, signature{})
}

// ofOwn returns the signature of an address that has this one by itself.
func (s *space) ofOwn(a netip.Addr, sig signature) signature {
	n := &s.nets[familyIndex(a)]
	if len(n.at) == 0 {
		return sig
	}
	merged := false
	for bits := range a.BitLen() {
		if n.lengths[bits] == 0 {
			continue
		}
		net, err := a.Prefix(bits)
		if list := n.at[net]; err == nil && len(list) > 0 {
			sig.preds, merged = slices.Concat(sig.preds, list), true
		}
	}
	if merged {
		slices.Sort(sig.preds)
		sig.preds = slices.Compact(sig.preds)
	}
	return sig
}

// classOf returns the class of a signature, nil for the empty one.
func (s *space) classOf(family int, sig signature) *class {
	if sig.empty() {
		return nil
	}
	key := sig.key()
	c := s.classes[family][key]
	if c == nil {
		c = &class{family: family, sig: sig}
		s.classes[family][key] = c
		s.touched[c] = struct{}{}
	}
	return c
}

// hold and release count a class's elements.
func (s *space) hold(c *class) {
	if c != nil {
		c.refs++
	}
}

func (s *space) release(c *class) {
	if c != nil {
		c.refs--
		s.touched[c] = struct{}{}
	}
}

// enumerate gives the new classes their numbers and forgets those without
// elements. It returns both.
func (s *space) enumerate() (fresh, gone []*class) {
	for c := range s.touched {
		switch {
		case c.refs == 0:
			delete(s.classes[c.family], c.sig.key())
			if c.heir = false; c.number != 0 {
				gone = append(gone, c)
			}
		case c.number == 0 || c.heir:
			fresh = append(fresh, c)
		}
	}
	for _, c := range gone {
		s.given.release(c.number)
	}
	clear(s.touched)
	for i, c := range fresh {
		fresh[i].name = hash(families[c.family].digit(), s.words(c.sig))
	}
	slices.SortFunc(fresh, func(a, b *class) int { return cmp.Compare(a.name, b.name) })
	for _, c := range fresh {
		if !c.heir {
			c.number = s.given.take(c.name)
		}
		c.heir = false
	}
	return fresh, gone
}

// words names a signature the same way in every run.
func (s *space) words(sig signature) string {
	var b strings.Builder
	for _, p := range sig.preds {
		b.WriteString(s.names[p] + "\n")
	}
	for _, t := range sig.triples {
		fmt.Fprintf(&b, "%s %d %d\n", s.names[t.set], t.protocol, t.port)
	}
	lines := strings.SplitAfter(b.String(), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}
