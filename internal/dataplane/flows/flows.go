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
	List(family int) ([]conntrack.Entry, error)
	SetMark(entries []conntrack.Entry, value, mask uint32) error
	Delete(entries []conntrack.Entry) error
}

// Config says how to judge and mark.
type Config struct {
	Table Table
	Mark  uint32 // the bit of the connection mark that says "cut"
	// Allows asks the policy that is enforced now.
	Allows func(Packet) bool
	// Host reads this host's own addresses.
	Host func() ([]netip.Addr, error)
}

// Result counts connections.
type Result struct {
	Seen   int // that concern local workloads and were judged
	Cut    int // marked now
	Healed int // unmarked now
}

// Scope is which connections a change of policy may concern.
type Scope struct {
	all       bool
	owners    map[netip.Addr]string // interface of each local workload's address
	endpoints map[string]bool       // interfaces whose policy changed
	members   map[netip.Addr]bool   // what came into sets or left them
	networks  []netip.Prefix        // the same, where it is more than an address
}

// Everything is the scope of all connections of local workloads.
func Everything(want *desired.Policy) *Scope { return &Scope{all: true, owners: owners(want)} }

// Changed is the scope of a patch that made want what it is; nil, if no
// connection can be judged otherwise than before.
func Changed(want *desired.Policy, p *desired.PolicyPatch) *Scope {
	s := &Scope{endpoints: map[string]bool{}, members: map[netip.Addr]bool{}}
	for iface := range p.Endpoints.Set {
		s.endpoints[iface] = true
	}
	if len(p.Rules.Set) > 0 {
		for iface, e := range want.Endpoints {
			if uses(e, p.Rules.Set) {
				s.endpoints[iface] = true
			}
		}
	}
	for _, set := range p.Sets {
		for _, part := range [][]desired.Member{set.Add, set.Remove} {
			for _, m := range part {
				s.add(m.Prefix)
			}
		}
	}
	if len(s.endpoints)+len(s.members)+len(s.networks) == 0 {
		return nil
	}
	s.owners = owners(want)
	return s
}

func (s *Scope) add(p netip.Prefix) {
	if p.IsSingleIP() {
		s.members[p.Addr()] = true
		return
	}
	s.networks = append(s.networks, p)
}

// Join returns the scope of both, of which b is the later one; either may be
// nil.
func Join(a, b *Scope) *Scope {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	joined := &Scope{all: a.all || b.all, owners: b.owners, endpoints: map[string]bool{}, members: map[netip.Addr]bool{}}
	for _, s := range []*Scope{a, b} {
		maps.Copy(joined.endpoints, s.endpoints)
		maps.Copy(joined.members, s.members)
		joined.networks = append(joined.networks, s.networks...)
	}
	return joined
}

func owners(want *desired.Policy) map[netip.Addr]string {
	out := make(map[netip.Addr]string, len(want.Endpoints))
	for iface, e := range want.Endpoints {
		for _, a := range e.Addrs {
			out[a] = iface
		}
	}
	return out
}

// uses reports whether one of the changed rule lists applies to an endpoint.
func uses(e *desired.Endpoint, changed map[desired.RulesID]*desired.RuleList) bool {
	for d, tiers := range [][]desired.Tier{desired.Ingress: e.Ingress, desired.Egress: e.Egress} {
		for _, t := range tiers {
			for _, owner := range t.Policies {
				if _, ok := changed[desired.RulesID{Owner: owner, Direction: desired.Direction(d)}]; ok {
					return true
				}
			}
		}
		for _, owner := range e.Profiles {
			if _, ok := changed[desired.RulesID{Owner: owner, Direction: desired.Direction(d)}]; ok {
				return true
			}
		}
	}
	return false
}

// Bring judges the connections of the scope and marks them by the outcome.
// Those that cannot be read or marked are an error, after all others are done.
func (s *Scope) Bring(cfg Config) (Result, error) {
	var r Result
	addrs, err := cfg.Host()
	if err != nil {
		return r, err
	}
	host := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		host[a] = true
	}
	var errs []error
	for _, family := range []int{4, 6} {
		entries, err := cfg.Table.List(family)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var cut, heal []conntrack.Entry
		for _, e := range entries {
			p, ok := s.packet(e, host)
			if !ok {
				continue
			}
			r.Seen++
			switch allowed, marked := cfg.Allows(p), e.Mark&cfg.Mark != 0; {
			case !allowed && !marked:
				cut = append(cut, e)
			case allowed && marked:
				heal = append(heal, e)
			}
		}
		r.Cut += len(cut)
		r.Healed += len(heal)
		errs = append(errs, cfg.Table.SetMark(cut, cfg.Mark, cfg.Mark), cfg.Table.SetMark(heal, 0, cfg.Mark))
	}
	return r, errors.Join(errs...)
}

// packet is the first packet of a connection, false for one that the scope
// does not hold.
func (s *Scope) packet(e conntrack.Entry, host map[netip.Addr]bool) (Packet, bool) {
	p := Packet{
		Src: e.Orig.Src, Dst: e.Reply.Src, Protocol: e.Orig.Protocol,
		SrcPort: e.Orig.SrcPort, DstPort: e.Reply.SrcPort,
		ICMPType: e.Orig.ICMPType, ICMPCode: e.Orig.ICMPCode,
	}
	p.From, p.To = s.owners[p.Src], s.owners[p.Dst]
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
	if s.members[a] {
		return true
	}
	for _, n := range s.networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// Forget deletes every connection that one of the addresses takes part in:
// they have left this host, and who gets them next shall not inherit any.
func Forget(t Table, gone map[netip.Addr]bool) (int, error) {
	if len(gone) == 0 {
		return 0, nil
	}
	n := 0
	var errs []error
	for _, family := range []int{4, 6} {
		entries, err := t.List(family)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		entries = slices.DeleteFunc(entries, func(e conntrack.Entry) bool {
			return !gone[e.Orig.Src] && !gone[e.Orig.Dst] && !gone[e.Reply.Src] && !gone[e.Reply.Dst]
		})
		n += len(entries)
		errs = append(errs, t.Delete(entries))
	}
	return n, errors.Join(errs...)
}
