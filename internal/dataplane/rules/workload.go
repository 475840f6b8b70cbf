package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Workload is the part of a program that judges packets of one workload.
type Workload struct {
	Text     string
	Counters []string // that rules and rows in it count with, sorted
}

// Workload returns what judges packets from and to a workload's interface:
// the chains that the program dispatches it to, all that they lead to, and the
// rows of the look-ups on the way. false: the program has no such workload.
func (p *Program) Workload(iface string) (Workload, bool) {
	key := interfaceBytes(iface)
	r := &reached{program: p, iface: key, seen: map[string]bool{}, counters: map[string]bool{}}
	found := false
	for _, name := range []string{mapFrom, mapTo} {
		if s := p.Sets[name]; s != nil {
			if e, ok := s.Elements[key]; ok {
				found = true
				r.chain(e.Name)
			}
		}
	}
	if !found {
		return Workload{}, false
	}
	var b strings.Builder
	for _, name := range r.order {
		b.WriteString(p.Chains[name].String())
	}
	if len(r.groups) > 0 {
		p.writeRows(&b, r)
	}
	return Workload{b.String(), slices.Sorted(maps.Keys(r.counters))}, true
}

// reached collects what a workload's packets get to.
type reached struct {
	program  *Program
	iface    string // as a key
	seen     map[string]bool
	order    []string // of chains, in which a packet gets to them
	counters map[string]bool
	groups   []rowGroup
}

// rowGroup is a group of compiled rules: what its rows have in their key.
type rowGroup struct {
	chain  string
	number uint32
	six    bool
}

// chain adds a chain and those that it leads to.
func (r *reached) chain(name string) {
	c := r.program.Chains[name]
	if c == nil || r.seen[name] {
		return
	}
	r.seen[name] = true
	r.order = append(r.order, name)
	for _, rule := range c.Rules {
		for _, s := range rule.Do {
			switch s := s.(type) {
			case Jump:
				r.chain(s.Chain)
			case Goto:
				r.chain(s.Chain)
			case Dispatch:
				r.dispatch(s)
			case Count:
				r.counters[s.Counter] = true
			case SetMark:
				if s.Mask == groupMask {
					six := strings.Contains(c.String(), mapClasses+"6")
					r.groups = append(r.groups, rowGroup{name, s.Value, six})
				}
			}
		}
	}
}

// dispatch follows a map that tells interfaces apart.
func (r *reached) dispatch(d Dispatch) {
	set := r.program.Sets[d.Map]
	if set == nil || len(set.Key) == 0 || set.Key[0] != InterfaceType {
		return
	}
	for _, lo := range slices.Sorted(maps.Keys(set.Elements)) {
		if strings.HasPrefix(lo, r.iface) {
			r.chain(set.Elements[lo].Name)
		}
	}
}

// mostRows is how many classes' rows of a group are written, and mostAddresses
// how many addresses of a class.
const mostRows, mostAddresses = 64, 4

// writeRows writes what the look-ups decide for the groups.
func (p *Program) writeRows(b *strings.Builder, r *reached) {
	rows := map[uint32][]string{} // by group and class
	for _, name := range []string{mapPorts, mapProtocols, mapRows} {
		set := p.Sets[name]
		for _, lo := range slices.Sorted(maps.Keys(set.Elements)) {
			at := numberOf(lo[:4])
			if slices.ContainsFunc(r.groups, func(g rowGroup) bool { return g.number == at&groupMask }) {
				rows[at] = append(rows[at], p.row(set, set.Elements[lo], r.counters))
			}
		}
	}
	inClass := [2]map[uint32][]string{p.addressesOf(4), p.addressesOf(6)}
	for _, g := range r.groups {
		fmt.Fprintf(b, "rows of %s, by the other end's address\n", g.chain)
		classes := 0
		for _, at := range slices.Sorted(maps.Keys(rows)) {
			if at&groupMask != g.number {
				continue
			}
			if classes++; classes > mostRows {
				continue
			}
			who := "any other"
			if class := at & classMask; class != 0 {
				family := 0
				if g.six {
					family = 1
				}
				who = some(inClass[family][class])
			}
			b.WriteString("  " + who + "\n")
			for _, row := range rows[at] {
				b.WriteString("    " + row + "\n")
			}
		}
		if classes > mostRows {
			fmt.Fprintf(b, "  and %d more classes of addresses\n", classes-mostRows)
		}
	}
}

// row writes one row, and adds what it counts with.
func (p *Program) row(set *Set, e Element, counters map[string]bool) string {
	var words []string
	rest := e.Lo[4:]
	for _, t := range set.Key[1:] {
		words = append(words, t.String()+" "+t.valueText(rest[:t.Size()]))
		rest = rest[t.Size():]
	}
	text := strings.Join(append(words, ""), " ")
	if text == "" {
		text = "else "
	}
	switch {
	case e.Number&markPlain != 0:
		return text + "the plain rules decide"
	case e.Number&markAllow != 0:
		text += "allow"
	default:
		text += "deny"
	}
	for i := range maxCounted {
		if c, ok := p.Sets[countedMap(i)].Elements[markBytes(e.Number)]; ok {
			counters[c.Name] = true
			text += " count " + c.Name
		}
	}
	return text
}

// addressesOf returns the addresses of a family by class.
func (p *Program) addressesOf(f family) map[uint32][]string {
	out := map[uint32][]string{}
	for _, name := range []string{mapRanges + f.digit(), mapClasses + f.digit()} {
		set := p.Sets[name]
		for _, lo := range slices.Sorted(maps.Keys(set.Elements)) {
			e := set.Elements[lo]
			at := Range{e.Lo, e.Hi}
			if e.Hi == "" {
				at.Hi = e.Lo
			}
			out[e.Number] = append(out[e.Number], set.Key[0].rangeText(at))
		}
	}
	return out
}

// some writes the first of a list, and how many more there are.
func some(list []string) string {
	if n := len(list) - mostAddresses; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:mostAddresses], ", "), n)
	}
	return strings.Join(list, ", ")
}

func numberOf(v string) uint32 {
	return uint32(v[0])<<24 | uint32(v[1])<<16 | uint32(v[2])<<8 | uint32(v[3])
}
