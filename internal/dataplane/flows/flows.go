// Package flows brings established connections in line with a policy that has
// changed. The packet path asks policy for the first packet of a connection
// only; what the new policy would deny is marked in the table of connections,
// and a rule drops what is marked, in both directions. A connection that
// policy allows again loses the mark and goes on, if its ends still do.
package flows

import (
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/brindle-net/brindle/internal/conntrack"
	"github.com/brindle-net/brindle/internal/desired"
)

// Packet is the first packet of a connection as policy sees it: after the
// destination was translated, before the source is.
type Packet struct {
	From, To           string // interfaces of local workloads; "" for anything else
	ToHost, FromHost   bool   // an address of this host itself
	Src, Dst           netip.Addr
	Protocol           uint8
	SrcPort, DstPort   uint16
	ICMPType, ICMPCode uint8
}

// Table is what of the kernel's table of connections is used.
type Table interface {
	List() ([]conntrack.Entry, error)
	Glance() ([]conntrack.Entry, error)
	SetMark(entries []conntrack.Entry, value, mask uint32) error
	Delete(entries []conntrack.Entry) error
}

// Judge says how connections are judged.
type Judge struct {
	Mark uint32 // the bit of the connection mark that says "cut"
	// Allows asks the policy that is enforced now.
	Allows func(Packet) bool
	Host   map[netip.Addr]bool // this host's own addresses
	// Behind returns the interface of the local workload that an address is
	// behind which is nobody's own here; "" for all others. May be nil.
	Behind func(netip.Addr) string
}

// end returns the interface of the local workload whose end of a connection
// has an address, "" if there is none.
func (j *Judge) end(local map[netip.Addr]string, a netip.Addr) string {
	iface := local[a]
	if iface == "" && j.Behind != nil && !j.Host[a] {
		iface = j.Behind(a)
	}
	return iface
}

// Result counts connections.
type Result struct {
	Seen   int // that concern local workloads and were judged
	Cut    int // marked now
	Healed int // unmarked now
	Gone   int // forgotten
}

// Scope is which connections a change of policy may concern.
type Scope struct {
	all       bool
	endpoints map[string]bool     // interfaces whose policy changed
	members   map[netip.Addr]bool // what came into sets or left them
	networks  Networks            // the same, where it is more than an address
	// again is the same of changes that deny nothing that was allowed: they
	// concern connections that are cut, and no others. It has no again itself.
	again *Scope
}

// tooMany is from how many parts on a scope is that of everything: to look for
// each would cost as much as to judge.
const tooMany = 1 << 16

// parts is how many parts the scope has, beside again.
func (s *Scope) parts() int { return len(s.endpoints) + len(s.members) + len(s.networks.in) }

// bounded is the scope, unless it has too many parts.
func (s *Scope) bounded() *Scope {
	if s.all || s.parts() > tooMany {
		return Everything()
	}
	if s.again != nil {
		s.again = s.again.bounded()
	}
	return s
}

// OnlyCut reports whether the scope holds no connections but some that are cut:
// whoever knows those need not look for others. It is false for nil.
func (s *Scope) OnlyCut() bool { return s != nil && !s.all && s.parts() == 0 && s.again != nil }

// Denials is the scope of the changes that may deny what was allowed, nil if
// there are none: those concern what enters the table a little later too.
func (s *Scope) Denials() *Scope {
	if s == nil || s.OnlyCut() {
		return nil
	}
	only := *s
	only.again = nil
	return &only
}

// Everything is the scope of all connections of local workloads.
func Everything() *Scope { return &Scope{all: true} }

// Changed is the scope of a patch to want, before it is played; nil, if no
// connection can be judged otherwise than before. An endpoint that is new may
// have connections: its address was another host's a moment ago, and what
// workloads here had with whoever had it is established. A set that is new is
// asked for by changed rules alone. Where nothing is denied that was allowed,
// only connections that are cut can be judged otherwise, and while there are
// none, cut is false: a workload that starts elsewhere, or a rule that allows
// more, costs no look at connections. by is what the rules of want deny by.
func Changed(want *desired.Policy, p *desired.PolicyPatch, cut bool, by *Deniers) *Scope {
	s := &Scope{endpoints: map[string]bool{}, members: map[netip.Addr]bool{}}
	again := &Scope{endpoints: map[string]bool{}, members: map[netip.Addr]bool{}}
	for iface := range p.Endpoints.Set {
		s.endpoints[iface] = true
	}
	for id, now := range p.Rules.Set {
		if want.Rules[id] == nil {
			continue
		}
		to := s
		if allowsNoLess(want.Rules[id].Rules, now.Rules) {
			to = again
		}
		for iface, e := range want.Endpoints {
			if uses(e, id) {
				to.endpoints[iface] = true
			}
		}
	}
	var come *Deniers // of the rules that come; made when first asked for
	for id, set := range p.Sets {
		if want.Sets[id] == nil || set.Gone {
			continue
		}
		to := s
		if len(set.Add) > 0 {
			if come == nil {
				come = DeniersOf(p.Rules.Set)
			}
			if !come.has(id) && !by.has(id) {
				to = again
			}
		}
		s.addAll(set.Remove)
		to.addAll(set.Add)
	}
	if cut && again.parts() > 0 {
		s.again = again
	}
	if s.parts() == 0 && s.again == nil {
		return nil
	}
	return s.bounded()
}

// allowsNoLess reports whether all that a list of rules allowed is allowed by
// what it has become: that differs only in rules more that allow, and in rules
// less that deny. In doubt it is false.
func allowsNoLess(old, now []desired.PolicyRule) bool {
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(old) > 0 && len(now) > 0 && sameRule(old[0], now[0]):
			old, now = old[1:], now[1:]
		case len(now) > 0 && (now[0].Action == desired.Allow || now[0].Action == desired.Log):
			now = now[1:]
		case len(old) > 0 && (old[0].Action == desired.Deny || old[0].Action == desired.Log):
			old = old[1:]
		default:
			return false
		}
	}
	return true
}

// sameRule reports whether rules match and do the same, wherever they stand.
func sameRule(a, b desired.PolicyRule) bool {
	a.Index, b.Index = 0, 0
	return reflect.DeepEqual(a, b)
}

// Deniers knows the sets of which another member may deny a packet: those that
// a rule other than Allow and Log asks for, or that one must not be in. The zero
// value is that of no rules.
type Deniers struct {
	of    map[desired.RulesID][]desired.SetID // by list that has any
	lists map[desired.SetID]int               // how often they are in of
}

// DeniersOf returns those of some lists of rules.
func DeniersOf(lists map[desired.RulesID]*desired.RuleList) *Deniers {
	d := &Deniers{}
	d.Play(desired.Patch[desired.RulesID, *desired.RuleList]{Set: lists})
	return d
}

// Play takes in a patch to the lists of rules.
func (d *Deniers) Play(p desired.Patch[desired.RulesID, *desired.RuleList]) {
	if d.of == nil {
		d.of, d.lists = map[desired.RulesID][]desired.SetID{}, map[desired.SetID]int{}
	}
	for id, l := range p.Set {
		d.replace(id, denying(l))
	}
	for _, id := range p.Delete {
		d.replace(id, nil)
	}
}

func (d *Deniers) replace(id desired.RulesID, now []desired.SetID) {
	for _, s := range d.of[id] {
		if d.lists[s]--; d.lists[s] == 0 {
			delete(d.lists, s)
		}
	}
	if delete(d.of, id); len(now) > 0 {
		d.of[id] = now
	}
	for _, s := range now {
		d.lists[s]++
	}
}

func (d *Deniers) has(id desired.SetID) bool { return d.lists[id] > 0 }

// denying returns the sets by which a list denies, some more than once.
func denying(l *desired.RuleList) []desired.SetID {
	var out []desired.SetID
	for i := range l.Rules {
		r := &l.Rules[i]
		if r.Action != desired.Deny && r.Action != desired.Pass && allowsAll(&r.Source) && allowsAll(&r.Destination) {
			continue // most are of this kind
		}
		for _, side := range []*desired.Side{&r.Source, &r.Destination} {
			out = append(append(out, side.NotSets...), side.NotPortSets...)
			if r.Action != desired.Allow && r.Action != desired.Log {
				out = append(append(out, side.Sets...), side.PortSets...)
			}
		}
	}
	return out
}

// allowsAll reports whether another member of a set can only make a side match
// more.
func allowsAll(s *desired.Side) bool { return len(s.NotSets)+len(s.NotPortSets) == 0 }

func (s *Scope) addAll(members []desired.Member) {
	for _, m := range members {
		s.add(m.Prefix)
	}
}

func (s *Scope) add(p netip.Prefix) {
	if p.IsSingleIP() {
		s.members[p.Addr()] = true
		return
	}
	s.networks.Add(p)
}

// Join returns the scope of both; either may be nil.
func Join(a, b *Scope) *Scope {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	joined := &Scope{
		all: a.all || b.all, endpoints: map[string]bool{}, members: map[netip.Addr]bool{}, again: Join(a.again, b.again),
	}
	for _, s := range []*Scope{a, b} {
		maps.Copy(joined.endpoints, s.endpoints)
		maps.Copy(joined.members, s.members)
		for p := range s.networks.in {
			joined.networks.Add(p)
		}
	}
	return joined.bounded()
}

// owners returns the interface of each local workload's address.
func owners(want *desired.Policy) map[netip.Addr]string {
	out := make(map[netip.Addr]string, len(want.Endpoints))
	for iface, e := range want.Endpoints {
		for _, a := range e.Addrs {
			out[a] = iface
		}
	}
	return out
}

// uses reports whether a rule list applies to an endpoint.
func uses(e *desired.Endpoint, id desired.RulesID) bool {
	tiers := e.Ingress
	if id.Direction == desired.Egress {
		tiers = e.Egress
	}
	for _, t := range tiers {
		if slices.Contains(t.Policies, id.Owner) {
			return true
		}
	}
	return slices.Contains(e.Profiles, id.Owner)
}

// Verdicts is what is to be done with connections.
type Verdicts struct {
	Result
	cut, heal, gone []conntrack.Entry
	mark            uint32
}

// Judge judges those of the connections that the scope holds, which may be nil
// and then holds none. Those of addresses that are gone are to be forgotten:
// the addresses have left this host, and who gets them next shall not inherit
// any.
func (s *Scope) Judge(entries []conntrack.Entry, want *desired.Policy, gone map[netip.Addr]bool, by Judge) Verdicts {
	v := Verdicts{mark: by.Mark}
	local := owners(want)
	for _, e := range entries {
		if gone[e.Orig.Src] || gone[e.Orig.Dst] || gone[e.Reply.Src] || gone[e.Reply.Dst] {
			v.gone = append(v.gone, e)
			continue
		}
		if s == nil {
			continue
		}
		p, ok := s.packet(e, local, &by)
		if !ok {
			continue
		}
		v.Seen++
		switch allowed, marked := by.Allows(p), e.Mark&by.Mark != 0; {
		case !allowed && !marked:
			v.cut = append(v.cut, e)
		case allowed && marked:
			v.heal = append(v.heal, e)
		}
	}
	v.Cut, v.Healed, v.Gone = len(v.cut), len(v.heal), len(v.gone)
	return v
}

// Ends reports whether there are connections to cut or to forget.
func (v Verdicts) Ends() bool { return v.Cut+v.Gone > 0 }

// Apply marks, unmarks and forgets connections in the table. If some of them are
// to end, halt takes all connections out of whatever bypasses the rules that drop
// what is marked, and keeps them out until the caller lets them back: after the
// marks, so that none that has one gets back, and ahead of forgetting, since what
// bypasses the rules would go on without an entry. It may be nil.
func (v Verdicts) Apply(t Table, halt func() error) error {
	err := t.SetMark(v.cut, v.mark, v.mark)
	if halt != nil && v.Ends() {
		err = errors.Join(err, halt())
	}
	return errors.Join(err, t.Delete(v.gone), t.SetMark(v.heal, 0, v.mark))
}

// Marked returns those of the connections that were judged which are cut once
// the verdicts are carried out.
func (v Verdicts) Marked(entries []conntrack.Entry) []conntrack.Entry {
	done := make(map[conntrack.Entry]bool, len(v.heal)+len(v.gone))
	for _, list := range [][]conntrack.Entry{v.heal, v.gone} {
		for _, e := range list {
			done[e] = true
		}
	}
	var out []conntrack.Entry
	for _, e := range entries {
		if e.Mark&v.mark != 0 && !done[e] {
			out = append(out, e)
		}
	}
	for _, e := range v.cut {
		e.Mark |= v.mark
		out = append(out, e)
	}
	return out
}

// packet is the first packet of a connection, false for one that the scope
// does not hold.
func (s *Scope) packet(e conntrack.Entry, local map[netip.Addr]string, by *Judge) (Packet, bool) {
	p := Packet{
		Src: e.Orig.Src, Dst: e.Reply.Src, Protocol: e.Orig.Protocol,
		SrcPort: e.Orig.SrcPort, DstPort: e.Reply.SrcPort,
		ICMPType: e.Orig.ICMPType, ICMPCode: e.Orig.ICMPCode,
	}
	p.From, p.To = by.end(local, p.Src), by.end(local, p.Dst)
	if p.From == "" && p.To == "" {
		return p, false
	}
	if !s.holds(&p) && (s.again == nil || !s.again.holds(&p)) {
		return p, false
	}
	p.ToHost = p.To == "" && by.Host[p.Dst]
	p.FromHost = p.From == "" && by.Host[p.Src]
	return p, true
}

func (s *Scope) holds(p *Packet) bool {
	return s.all || s.endpoints[p.From] || s.endpoints[p.To] || s.member(p.Src) || s.member(p.Dst)
}

func (s *Scope) member(a netip.Addr) bool {
	return s.members[a] || s.networks.Contain(a)
}
