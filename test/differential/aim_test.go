package differential

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// near is an endpoint's address in one direction.
type near struct {
	addr      netip.Addr
	direction desired.Direction
}

// atlas knows of a program which endpoints' packets come to which chain, what
// refers to a set, and what values packets may have that matter.
type atlas struct {
	*rules.Program
	ends      []near
	iface     map[netip.Addr]string
	endpoints map[string]*desired.Endpoint
	reach     map[string]map[near]bool // by chain
	judged    map[near][]rules.Rule    // the rules with a verdict that an end's packets come to
	users     map[string][]user        // by set
	allowing  map[near][]rules.Rule    // of those, the ones that accept
	addresses map[int][]netip.Addr     // by family
	ports     []string
	protocols []string
	messages  []string            // types and codes of ICMP
	keys      map[string][]string // of sets, sorted
}

// user is a rule that refers to a set, with the fields that it looks up.
type user struct {
	chain  string
	rule   int
	fields []rules.Field
}

func newAtlas(p *rules.Program, endpoints map[string]*desired.Endpoint) *atlas {
	a := &atlas{Program: p, endpoints: endpoints, iface: map[netip.Addr]string{}, reach: map[string]map[near]bool{}, judged: map[near][]rules.Rule{}, allowing: map[near][]rules.Rule{}, users: map[string][]user{}, addresses: map[int][]netip.Addr{}, keys: map[string][]string{}}
	for name, s := range p.Sets {
		a.keys[name] = slices.Sorted(maps.Keys(s.Elements))
	}
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		for _, addr := range endpoints[name].Addrs {
			a.iface[addr] = name
			a.ends = append(a.ends, near{addr, desired.Egress}, near{addr, desired.Ingress})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Chains)) {
		a.survey(p.Chains[name], endpoints)
	}
	for _, name := range slices.Sorted(maps.Keys(a.reach)) {
		for _, r := range p.Chains[name].Rules {
			switch r.Do[len(r.Do)-1].(type) {
			case rules.Accept, rules.Drop, rules.Reject, rules.Return:
				_, allows := r.Do[len(r.Do)-1].(rules.Accept)
				for n := range a.reach[name] {
					a.judged[n] = append(a.judged[n], r)
					if allows {
						a.allowing[n] = append(a.allowing[n], r)
					}
				}
			}
		}
	}
	a.values()
	return a
}

// lookups are the sets that a rule asks, and by what.
func lookups(r rules.Rule) map[string][]rules.Field {
	out := map[string][]rules.Field{}
	for _, m := range r.Matches {
		if m.Set != "" {
			out[m.Set] = m.Fields
		}
	}
	for _, s := range r.Do {
		switch s := s.(type) {
		case rules.Dispatch:
			out[s.Map] = s.Fields
		case rules.MarkBy:
			out[s.Map] = s.Fields
		}
	}
	return out
}

// survey notes who uses sets, and follows those that dispatch by interface.
func (a *atlas) survey(c *rules.Chain, endpoints map[string]*desired.Endpoint) {
	for i, r := range c.Rules {
		for set, fields := range lookups(r) {
			a.users[set] = append(a.users[set], user{c.Name, i, fields})
			d := desired.Egress
			switch {
			case a.Sets[set] == nil || a.Sets[set].Value != rules.ChainValue:
				continue
			case fields[0] == rules.OutInterface:
				d = desired.Ingress
			case fields[0] != rules.InInterface:
				continue
			}
			for _, lo := range a.keys[set] {
				e := endpoints[strings.TrimRight(lo[:16], "\x00")]
				if e == nil {
					continue
				}
				for _, addr := range e.Addrs {
					if raw := lo[16:]; raw == "" || raw == string(addr.AsSlice()) {
						a.follow(a.Sets[set].Elements[lo].Name, near{addr, d})
					}
				}
			}
		}
	}
}

func (a *atlas) follow(chain string, n near) {
	if a.reach[chain][n] || a.Chains[chain] == nil {
		return
	}
	if a.reach[chain] == nil {
		a.reach[chain] = map[near]bool{}
	}
	a.reach[chain][n] = true
	for _, r := range a.Chains[chain].Rules {
		for _, s := range r.Do {
			switch s := s.(type) {
			case rules.Jump:
				a.follow(s.Chain, n)
			case rules.Goto:
				a.follow(s.Chain, n)
			}
		}
	}
}

// from returns the ends whose packets come to a chain, all if it is nobody's
// in particular.
func (a *atlas) from(chain string) []near {
	if len(a.reach[chain]) == 0 {
		return a.ends
	}
	return slices.DeleteFunc(slices.Clone(a.ends), func(n near) bool { return !a.reach[chain][n] })
}

// values collects the edges of all that rules and sets tell apart.
func (a *atlas) values() {
	of := map[rules.Type]map[string]bool{}
	note := func(t rules.Type, v string) {
		if of[t] == nil {
			of[t] = map[string]bool{}
		}
		for _, x := range []string{v, step(v, 1), step(v, -1)} {
			of[t][x] = true
		}
	}
	for _, c := range a.Chains {
		for _, r := range c.Rules {
			for _, m := range r.Matches {
				for _, in := range m.In {
					note(m.Fields[0].Type(), in.Lo)
					note(m.Fields[0].Type(), in.Hi)
				}
			}
		}
	}
	for _, s := range a.Sets {
		for _, e := range s.Elements {
			for i, v := range split(s.Key, e.Lo) {
				note(s.Key[i], v)
			}
			if e.Hi != "" {
				for i, v := range split(s.Key, e.Hi) {
					note(s.Key[i], v)
				}
			}
		}
	}
	for _, n := range a.ends {
		note(map[int]rules.Type{4: rules.Addr4Type, 6: rules.Addr6Type}[family(n.addr)], string(n.addr.AsSlice()))
	}
	for _, t := range []rules.Type{rules.Addr4Type, rules.Addr6Type} {
		for _, v := range slices.Sorted(maps.Keys(of[t])) {
			if x, ok := netip.AddrFromSlice([]byte(v)); ok && !x.Is4In6() {
				a.addresses[family(x)] = append(a.addresses[family(x)], x)
			}
		}
	}
	a.ports = slices.Sorted(maps.Keys(of[rules.PortType]))
	a.messages = slices.Sorted(maps.Keys(of[rules.ByteType]))
	a.protocols = []string{"\x01", "\x06", "\x06", "\x11", "\x2f", "\x3a", "\x84"}
	a.protocols = append(a.protocols, slices.Sorted(maps.Keys(of[rules.ProtocolType]))...)
}

// step is the value one more or less, wrapping round.
func step(v string, by int) string {
	b := []byte(v)
	for i := len(b) - 1; i >= 0; i-- {
		b[i] += byte(by)
		if by > 0 && b[i] != 0 || by < 0 && b[i] != 0xff {
			break
		}
	}
	return string(b)
}

// split cuts a key into its fields' values.
func split(key []rules.Type, v string) []string {
	var out []string
	for _, t := range key {
		out = append(out, v[:t.Size()])
		v = v[t.Size():]
	}
	return out
}

// target is what a flow should have, by field.
type target map[rules.Field]string

// aimer makes flows for the rules of a program.
type aimer struct {
	*atlas
	*rand.Rand
}

func one[T any](r *rand.Rand, list []T) (v T) {
	if len(list) > 0 {
		v = list[r.IntN(len(list))]
	}
	return v
}

// satisfy puts values into a target with which a packet passes a match, often
// at an edge of it, and now and then just beyond.
func (a *aimer) satisfy(to target, m rules.Match) {
	put := func(f rules.Field, v string) {
		switch a.IntN(8) {
		case 0:
			v = step(v, 1)
		case 1:
			v = step(v, -1)
		}
		to[f] = v
	}
	switch {
	case m.Not && a.IntN(3) > 0:
	case m.Fields[0] == rules.State:
		to[rules.State] = one(a.Rand, []string{"\x01", "\x02", "\x04", "\x08"}) // any of them: see rules.ConnState
		for s := rules.StateInvalid; s <= rules.StateNew; s <<= 1 {
			if uint32(s)&m.Mask != 0 && a.IntN(2) == 0 {
				to[rules.State] = string([]byte{byte(s)})
			}
		}
	case m.Set != "":
		s := a.Sets[m.Set]
		e, ok := s.Elements[one(a.Rand, a.keys[m.Set])]
		if !ok {
			return
		}
		a.element(to, m.Fields, s.Key, e, put)
	case len(m.In) > 0:
		in := one(a.Rand, m.In)
		v := one(a.Rand, []string{in.Lo, in.Hi})
		if f := m.Fields[0]; f == rules.Family {
			to[f] = v
		} else {
			put(f, v)
		}
	}
}

// element puts the values of a set's element into a target.
func (a *aimer) element(to target, fields []rules.Field, key []rules.Type, e rules.Element, put func(rules.Field, string)) {
	v := e.Lo
	if e.Hi != "" && a.IntN(2) == 0 {
		v = e.Hi
	}
	for i, v := range split(key, v) {
		if fields[i] == rules.Mark {
			to[rules.Mark] = v
			continue
		}
		put(fields[i], v)
	}
}

// rule puts into a target what a rule asks for, and once in a while leaves one
// match out.
func (a *aimer) rule(to target, r rules.Rule) {
	skip := a.IntN(3*len(r.Matches) + 1)
	for i, m := range r.Matches {
		if i != skip {
			a.satisfy(to, m)
		}
	}
}

// shot makes a packet of one of the ends that has what the target asks for,
// and of the rest anything.
func (a *aimer) shot(ends []near, to target) (shot, bool) {
	want := 0
	for f, v := range to {
		switch f {
		case rules.Family:
			want = int(v[0])
		case rules.Source4, rules.Destination4:
			want = 4
		case rules.Source6, rules.Destination6:
			want = 6
		}
	}
	fits := slices.DeleteFunc(slices.Clone(ends), func(n near) bool { return want != 0 && family(n.addr) != want })
	if len(fits) == 0 {
		return shot{}, false
	}
	s := shot{at: one(a.Rand, fits), state: rules.StateNew}
	wanted := func(d desired.Direction) netip.Addr { // of the source of egress, the destination of ingress
		fields := [2][2]rules.Field{{rules.Destination4, rules.Destination6}, {rules.Source4, rules.Source6}}[d]
		v := to[fields[map[int]int{4: 0, 6: 1}[family(s.at.addr)]]]
		x, _ := netip.AddrFromSlice([]byte(v))
		return x
	}
	for _, other := range fits { // an end of its own that is asked for
		if other.direction == s.at.direction && other.addr == wanted(s.at.direction) {
			s.at = other
		}
	}
	far := wanted(1 - s.at.direction)
	if !far.IsValid() {
		far = one(a.Rand, a.addresses[family(s.at.addr)])
	}
	s.flow = model.Flow{Source: far, Dest: s.at.addr}
	if s.at.direction == desired.Egress {
		s.flow.Source, s.flow.Dest = s.flow.Dest, s.flow.Source
	}
	a.layer4(&s.flow, to)
	a.connection(&s, to)
	return s, s.flow.Source.IsValid() && s.flow.Dest.IsValid() && far != s.at.addr && !forged(s.flow)
}

// connection makes a packet be of the connection that the target asks for, or
// of a workload interface that nobody knows.
func (a *aimer) connection(s *shot, to target) {
	if v, ok := to[rules.State]; ok {
		s.state = rules.ConnState(v[0])
	}
	if v, ok := to[rules.ConnMark]; ok {
		s.connMark = network.Uint32([]byte(v))
	}
	for f, d := range map[rules.Field]desired.Direction{rules.InInterface: desired.Egress, rules.OutInterface: desired.Ingress} {
		name := strings.TrimRight(to[f], "\x00")
		if strings.HasPrefix(name, "cali") && a.endpoints[name] == nil && s.at.direction == d {
			s.stray, s.state = true, rules.StateNew
		}
	}
}

// layer4 fills in protocol, ports and message.
func (a *aimer) layer4(f *model.Flow, to target) {
	value := func(field rules.Field, else_ []string) string {
		if v, ok := to[field]; ok {
			return v
		}
		if v := one(a.Rand, else_); v != "" {
			return v
		}
		return "\x00\x00" // nothing in the program asks for one
	}
	f.Protocol = value(rules.Protocol, a.protocols)[0]
	f.SourcePort = network.Uint16([]byte(value(rules.SourcePort, a.ports)))
	f.DestPort = network.Uint16([]byte(value(rules.DestinationPort, a.ports)))
	f.ICMPType, f.ICMPCode = value(rules.ICMPType, a.messages)[0], value(rules.ICMPCode, a.messages)[0]
}
