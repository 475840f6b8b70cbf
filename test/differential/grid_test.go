package differential

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// grid is every packet, up to what neither the program nor a corruption of it
// can tell apart: if no packet of it comes out otherwise, none does. It is
// what says that a corruption means nothing.
type grid struct {
	*atlas
	seen map[near]*prospect
	part map[partOf]string
}

// prospect is what a near end's packets may meet.
type prospect struct {
	rules  []rules.Rule
	values map[rules.Field][]told // of each field, the values that packets may have
}

// told is a value with what the rules make of it.
type told struct{ value, signature string }

// partOf is a value of one field of a set's key.
type partOf struct {
	set   string
	field int
	value string
}

func newGrid(a *atlas) *grid {
	return &grid{a, map[near]*prospect{}, map[partOf]string{}}
}

// farFields are those of the far end: its address in both families, and
// everything that has no end.
func farFields(n near) []rules.Field {
	far := [][2]rules.Field{{rules.Source4, rules.Source6}, {rules.Destination4, rules.Destination6}}[n.direction]
	return []rules.Field{far[family(n.addr)/6], rules.Protocol, rules.SourcePort, rules.DestinationPort, rules.ICMPType, rules.ICMPCode}
}

// of works out what a near end's packets may meet.
func (g *grid) of(n near) *prospect {
	if p := g.seen[n]; p != nil {
		return p
	}
	p := &prospect{values: map[rules.Field][]told{}}
	for _, name := range slices.Sorted(maps.Keys(g.Chains)) {
		if c := g.Chains[name]; g.reach[name][n] || c.Hook != nil && c.Hook.Point == rules.Forward {
			p.rules = append(p.rules, c.Rules...)
		}
	}
	for _, f := range farFields(n) {
		for _, v := range g.candidates(f, family(n.addr)) {
			p.values[f] = append(p.values[f], told{v, g.signature(p.rules, f, v)})
		}
	}
	g.seen[n] = p
	return p
}

// candidates are the values of a field that some rule or set ends or begins
// at, with those beside them.
func (g *grid) candidates(f rules.Field, fam int) []string {
	switch f {
	case rules.Protocol:
		list := slices.Sorted(slices.Values(g.protocols))
		return slices.DeleteFunc(slices.Compact(list), func(v string) bool { return v == "\x00" })
	case rules.SourcePort, rules.DestinationPort:
		return g.ports
	case rules.ICMPType, rules.ICMPCode:
		return g.messages
	}
	var out []string
	for _, a := range g.addresses[fam] {
		out = append(out, string(a.AsSlice()))
	}
	return out
}

// signature is all that rules can see of a value of a field.
func (g *grid) signature(list []rules.Rule, f rules.Field, v string) string {
	var b strings.Builder
	for _, r := range list {
		for _, m := range r.Matches {
			if m.Set == "" && m.Fields[0] == f {
				b.WriteString(strconv.FormatBool(slices.ContainsFunc(m.In, func(in rules.Range) bool { return in.Lo <= v && v <= in.Hi })))
			}
		}
		asked := lookups(r)
		for _, set := range slices.Sorted(maps.Keys(asked)) {
			i := slices.Index(asked[set], f)
			if i < 0 {
				continue
			}
			key := partOf{set, i, v}
			if _, known := g.part[key]; !known {
				g.part[key] = restOf(g.Sets[set], g.keys[set], i, v)
			}
			b.WriteString(g.part[key] + ";")
		}
	}
	return b.String()
}

// restOf is what the elements of a set that a value is in say besides.
func restOf(s *rules.Set, keys []string, field int, v string) string {
	if s == nil {
		return ""
	}
	at := 0
	for _, t := range s.Key[:field] {
		at += t.Size()
	}
	end := at + s.Key[field].Size()
	var b strings.Builder
	for _, key := range keys {
		e := s.Elements[key]
		hi := e.Hi
		if hi == "" {
			hi = e.Lo
		}
		if e.Lo[at:end] <= v && v <= hi[at:end] {
			b.WriteString(e.Lo[:at] + e.Lo[end:] + hi[:at] + hi[end:] + strconv.Itoa(int(e.Number)) + e.Name)
		}
	}
	return b.String()
}

// kinds returns one value of a field for each kind that neither the program
// nor the corruption of it tells from others.
func (g *grid) kinds(p *prospect, x corruption, f rules.Field) []string {
	seen := map[string]bool{}
	var out []string
	more := slices.Clone(x.changed)
	if x.also != "" { // packets may come to chains of somebody else
		chains := map[string]bool{}
		g.reachable(x.also, chains)
		for _, name := range slices.Sorted(maps.Keys(chains)) {
			more = append(more, g.Chains[name].Rules...)
		}
	}
	var keys []string
	columns := map[rules.Field][]int{}
	if x.set != nil {
		keys = slices.Sorted(maps.Keys(x.set.Elements))
		for _, u := range g.users[x.set.Name] {
			for i, f := range u.fields {
				columns[f] = append(columns[f], i)
			}
		}
	}
	for _, v := range p.values[f] {
		key := v.signature + "|" + g.signature(more, f, v.value)
		if x.set != nil {
			for _, i := range columns[f] {
				key += "|" + restOf(x.set, keys, i, v.value)
			}
		}
		if f == rules.Protocol { // rules see these without asking
			key += strconv.FormatBool(model.HasPorts(v.value[0])) + strconv.FormatBool(v.value[0] == model.ProtocolICMP) + strconv.FormatBool(v.value[0] == model.ProtocolICMPv6)
		}
		if !seen[key] {
			seen[key] = true
			out = append(out, v.value)
		}
	}
	return out
}

// shots gives every packet of the grid that a corruption may matter to, end by
// end, until yield wants no more.
func (g *grid) shots(x corruption, yield func(shot) bool) {
	for _, n := range x.ends {
		if !g.shotsAt(n, x, yield) {
			return
		}
	}
	for _, fam := range []string{"10.65.0.250", "fd00::fa"} {
		for _, d := range []desired.Direction{desired.Egress, desired.Ingress} {
			s := shot{at: near{netip.MustParseAddr(fam), d}, stray: true, state: rules.StateNew}
			s.flow = model.Flow{Protocol: model.ProtocolTCP, Source: s.at.addr, Dest: s.at.addr.Next(), DestPort: 80}
			if d == desired.Ingress {
				s.flow.Source, s.flow.Dest = s.flow.Dest, s.flow.Source
			}
			if !yield(s) {
				return
			}
		}
	}
}

// valuesAt are the kinds of each of farFields.
func (g *grid) valuesAt(n near, x corruption) [][]string {
	var values [][]string
	for _, f := range farFields(n) {
		kinds := g.kinds(g.of(n), x, f)
		if len(kinds) == 0 {
			kinds = []string{"\x00\x00"} // nothing in the program asks for one
		}
		values = append(values, kinds)
	}
	return values
}

// hot returns the kinds of a field that a corrupted set says something else
// of than the right one.
func (g *grid) hot(x corruption, f rules.Field, kinds []string) []string {
	if x.set == nil {
		return nil
	}
	keys := slices.Sorted(maps.Keys(x.set.Elements))
	return slices.DeleteFunc(slices.Clone(kinds), func(v string) bool {
		return !slices.ContainsFunc(g.users[x.set.Name], func(u user) bool {
			i := slices.Index(u.fields, f)
			return i >= 0 && restOf(x.set, keys, i, v) != restOf(g.Sets[x.set.Name], g.keys[x.set.Name], i, v)
		})
	})
}

// sampler returns what takes first packets out of the grid at random, mostly
// those with what the corruption is about.
func (g *grid) sampler(x corruption) func(*rand.Rand) (shot, bool) {
	known, hot := map[near][][]string{}, map[near][][]string{}
	return func(r *rand.Rand) (shot, bool) {
		n := one(r, x.ends)
		if !n.addr.IsValid() {
			return shot{}, false
		}
		if known[n] == nil {
			known[n] = g.valuesAt(n, x)
			for i, f := range farFields(n) {
				hot[n] = append(hot[n], g.hot(x, f, known[n][i]))
			}
		}
		var v [6]string
		for i, kinds := range known[n] {
			if v[i] = one(r, kinds); len(hot[n][i]) > 0 && r.IntN(4) > 0 {
				v[i] = one(r, hot[n][i])
			}
		}
		far, _ := netip.AddrFromSlice([]byte(v[0]))
		s := shot{at: n, state: rules.StateNew, flow: model.Flow{Protocol: v[1][0], Source: far, Dest: n.addr}}
		if n.direction == desired.Egress {
			s.flow.Source, s.flow.Dest = n.addr, far
		}
		s.flow.SourcePort, s.flow.DestPort = network.Uint16([]byte(v[2])), network.Uint16([]byte(v[3]))
		s.flow.ICMPType, s.flow.ICMPCode = v[4][0], v[5][0]
		return s, far.IsValid() && far != n.addr && !forged(s.flow)
	}
}

func (g *grid) shotsAt(n near, x corruption, yield func(shot) bool) bool {
	values := g.valuesAt(n, x)
	for _, far := range values[0] {
		addr, _ := netip.AddrFromSlice([]byte(far))
		if addr == n.addr { // what it says to itself does not leave it
			continue
		}
		for _, protocol := range values[1] {
			s := shot{at: n, state: rules.StateNew, flow: model.Flow{Protocol: protocol[0], Source: addr, Dest: n.addr}}
			if n.direction == desired.Egress {
				s.flow.Source, s.flow.Dest = n.addr, addr
			}
			firsts, seconds := []string{"\x00\x00"}, []string{"\x00\x00"}
			switch {
			case model.HasPorts(s.flow.Protocol):
				firsts, seconds = values[2], values[3]
			case s.flow.HasICMPType():
				firsts, seconds = values[4], values[5]
			}
			for i, one := range firsts {
				for j, two := range seconds {
					s := s
					if s.flow.HasICMPType() {
						s.flow.ICMPType, s.flow.ICMPCode = one[0], two[0]
					} else if model.HasPorts(s.flow.Protocol) {
						s.flow.SourcePort, s.flow.DestPort = network.Uint16([]byte(one)), network.Uint16([]byte(two))
					}
					if forged(s.flow) {
						continue
					}
					if !yield(s) {
						return false
					}
					if i != j%len(firsts) { // later packets are judged before policy is asked
						continue
					}
					for _, later := range laterPackets {
						s.state, s.connMark = later.state, later.connMark
						if !yield(s) {
							return false
						}
					}
				}
			}
		}
	}
	return true
}

// laterPackets are the states that packets of a connection may be in besides
// the first one's.
var laterPackets = []shot{
	{state: rules.StateEstablished}, {state: rules.StateRelated}, {state: rules.StateInvalid},
	{state: rules.StateNew, connMark: cutMark}, {state: rules.StateEstablished, connMark: cutMark},
	{state: rules.StateEstablished, connMark: ^uint32(cutMark)},
}
