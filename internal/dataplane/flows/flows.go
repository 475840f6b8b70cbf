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
	SetMark(entries []conntrack.Entry, value, mask uint32) error
	Delete(entries []conntrack.Entry) error
}

// Judge says how connections are judged.
type Judge struct {
	Mark uint32 // the bit of the connection mark that says "cut"
	// Allows asks the policy that is enforced now.
	Allows func(Packet) bool
	Host   map[netip.Addr]bool // this host's own addresses
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
	networks  networks            // the same, where it is more than an address
}

// networks are prefixes of both families, each once.
type networks struct {
	in      map[netip.Prefix]bool
	lengths [129]bool // that some have
}

func (n *networks) add(p netip.Prefix) {
	if n.in == nil {
		n.in = map[netip.Prefix]bool{}
	}
	n.in[p.Masked()], n.lengths[p.Bits()] = true, true
}

func (n *networks) contain(a netip.Addr) bool {
	for bits := range a.BitLen() {
		if !n.lengths[bits] {
			continue
		}
		if p, err := a.Prefix(bits); err == nil && n.in[p] {
			return true
		}
	}
	return false
}

// tooMany is from how many parts on a scope is that of everything: to look for
// each would cost as much as to judge.
const tooMany = 1 << 16

// bounded is the scope, unless it has too many parts.
func (s *Scope) bounded() *Scope {
	if s.all || len(s.endpoints)+len(s.members)+len(s.networks.in) > tooMany {
		return Everything()
	}
	return s
}

// Everything is the scope of all connections of local workloads.
func Everything() *Scope { return &Scope{all: true} }

// Changed is the scope of a patch to want, before it is played; nil, if no
// connection can be judged otherwise than before. An endpoint that is new may
// have connections: its address was another host's a moment ago, and what
// workloads here had with whoever had it is established. A set that is new is
// asked for by changed rules alone. While no connection is cut, what comes into sets that only allow changes
// none: a workload that starts elsewhere costs no look at connections.
func Changed(want *desired.Policy, p *desired.PolicyPatch, cut bool) *Scope {
	s := &Scope{endpoints: map[string]bool{}, members: map[netip.Addr]bool{}}
	for iface := range p.Endpoints.Set {
		s.endpoints[iface] = true
	}
	for _, id := range slices.Collect(maps.Keys(p.Rules.Set)) {
		if want.Rules[id] == nil {
			continue
		}
		for iface, e := range want.Endpoints {
			if uses(e, id) {
				s.endpoints[iface] = true
			}
		}
	}
	var denies map[desired.SetID]bool // made when first asked for
	for id, set := range p.Sets {
		if want.Sets[id] == nil || set.Gone {
			continue
		}
		parts := [][]desired.Member{set.Remove, set.Add}
		if !cut && len(set.Add) > 0 {
			if denies == nil {
				denies = denying(want)
			}
			if !denies[id] {
				parts = parts[:1]
			}
		}
		for _, part := range parts {
			for _, m := range part {
				s.add(m.Prefix)
			}
		}
	}
	if len(s.endpoints)+len(s.members)+len(s.networks.in) == 0 {
		return nil
	}
	return s.bounded()
}

// denying returns the sets of which another member may deny a packet: those
// that a rule other than Allow and Log asks for, or that one must not be in.
func denying(want *desired.Policy) map[desired.SetID]bool {
	out := map[desired.SetID]bool{}
	for _, l := range want.Rules {
		for i := range l.Rules {
			r := &l.Rules[i]
			for _, side := range []*desired.Side{&r.Source, &r.Destination} {
				lists := [][]desired.SetID{side.NotSets, side.NotPortSets, side.Sets, side.PortSets}
				if r.Action == desired.Allow || r.Action == desired.Log {
					lists = lists[:2]
				}
				for _, ids := range lists {
					for _, id := range ids {
						out[id] = true
					}
				}
			}
		}
	}
	return out
}

func (s *Scope) add(p netip.Prefix) {
	if p.IsSingleIP() {
		s.members[p.Addr()] = true
		return
	}
	s.networks.add(p)
}

// Join returns the scope of both; either may be nil.
func Join(a, b *Scope) *Scope {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	joined := &Scope{all: a.all || b.all, endpoints: map[string]bool{}, members: map[netip.Addr]bool{}}
	for _, s := range []*Scope{a, b} {
		maps.Copy(joined.endpoints, s.endpoints)
		maps.Copy(joined.members, s.members)
		for p := range s.networks.in {
			joined.networks.add(p)
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
		p, ok := s.packet(e, local, by.Host)
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

// Apply marks, unmarks and forgets connections in the table.
func (v Verdicts) Apply(t Table) error {
	return errors.Join(t.Delete(v.gone), t.SetMark(v.cut, v.mark, v.mark), t.SetMark(v.heal, 0, v.mark))
}

// packet is the first packet of a connection, false for one that the scope
// does not hold.
func (s *Scope) packet(e conntrack.Entry, local map[netip.Addr]string, host map[netip.Addr]bool) (Packet, bool) {
	p := Packet{
		Src: e.Orig.Src, Dst: e.Reply.Src, Protocol: e.Orig.Protocol,
		SrcPort: e.Orig.SrcPort, DstPort: e.Reply.SrcPort,
		ICMPType: e.Orig.ICMPType, ICMPCode: e.Orig.ICMPCode,
	}
	p.From, p.To = local[p.Src], local[p.Dst]
	if p.From == "" && p.To == "" {
		return p, false
	}
	if !s.all && !s.endpoints[p.From] && !s.endpoints[p.To] && !s.member(p.Src) && !s.member(p.Dst) {
		return p, false
	}
	p.ToHost = p.To == "" && host[p.Dst]
	p.FromHost = p.From == "" && host[p.Src]
	return p, true
}

func (s *Scope) member(a netip.Addr) bool {
	return s.members[a] || s.networks.contain(a)
}
