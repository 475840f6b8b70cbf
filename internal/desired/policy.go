package desired

import "net/netip"

// Direction is that of traffic as an endpoint sees it.
type Direction uint8

// The directions.
const (
	Ingress Direction = iota
	Egress
)

// String returns "ingress" or "egress".
func (d Direction) String() string { return [...]string{"ingress", "egress"}[d&1] }

// Action is what a rule does with what it matches.
type Action uint8

// The actions. Log goes on to the next rule; Pass ends the tier.
const (
	Allow Action = iota + 1
	Deny
	Pass
	Log
)

// Policy is all that the policy back end of this host enforces. Whatever a
// rule list or an endpoint refers to is there; a back end that misses
// something denies.
type Policy struct {
	Sets      map[SetID]*Set
	Rules     map[RulesID]*RuleList
	Endpoints map[string]*Endpoint // by interface name
	// Hosts are the addresses of all hosts, this one too, and the prefixes of
	// external ones, each with the forms in which it may send to this host.
	Hosts map[netip.Prefix]Forms
	// Pools are all that hold addresses of workloads, also disabled ones.
	Pools map[netip.Prefix]PoolUse
	// Tunnels are the interfaces of tunnels that this host has, by name, with
	// its address there; invalid: none yet.
	Tunnels map[string]netip.Addr
	// Strict are the interfaces at which the outer source of a packet in a
	// packet is believed only if packets to it leave there, too. The agent says
	// so, by what the host's settings and routes are.
	Strict map[LinkFamily]struct{}
}

// LinkFamily is an interface, for one family of addresses, 4 or 6.
type LinkFamily struct {
	Interface string
	Family    int
}

// PolicyPatch changes a Policy. Rule lists and endpoints are replaced whole;
// a set by its members, since it may have many. Merged patches may add members
// that are there and remove ones that are not.
type PolicyPatch struct {
	Sets      map[SetID]SetPatch
	Rules     Patch[RulesID, *RuleList]
	Endpoints Patch[string, *Endpoint]
	Hosts     Patch[netip.Prefix, Forms]
	Pools     Patch[netip.Prefix, PoolUse]
	Tunnels   Patch[string, netip.Addr]
	Strict    Patch[LinkFamily, struct{}]
}

// SetID names a set by its content, not by who uses it.
type SetID string

// SetKind tells what the members of a set are.
type SetKind uint8

// The kinds of set.
const (
	AddressSet SetKind = iota // prefixes
	PortSet                   // one address with a protocol and a port each
)

// Set is a set of addresses, of both families.
type Set struct {
	Kind    SetKind
	Members map[Member]struct{}
}

// Member is an element of a set. Protocol and Port are 0 in an AddressSet; in
// a PortSet the prefix is a single address. Members of an AddressSet may
// overlap.
type Member struct {
	Prefix   netip.Prefix
	Protocol uint8
	Port     uint16
}

// SetPatch changes one set, which it makes if it is not there. Gone removes
// it, after all that refers to it.
type SetPatch struct {
	Kind        SetKind
	Gone        bool
	Add, Remove []Member
}

// RulesID names the rules of a policy or profile for one direction.
type RulesID struct {
	Owner     string // "NetworkPolicy default/allow-web", "Profile kns.default"
	Direction Direction
}

// RuleList is the rules of one owner and direction, in order, without those
// that can match no packet. It is never changed once it is in a patch.
type RuleList struct {
	Rules []PolicyRule
}

// PolicyRule matches a packet by all that it states; of a list, one entry suffices.
type PolicyRule struct {
	Index       int    // position in the owner's list: with RulesID it names the rule
	Action      Action //
	IPv4, IPv6  bool   // the families that it can match
	Protocol    uint8  // 0: any
	NotProtocol uint8  // 0: none
	ICMP        *ICMP
	NotICMP     *ICMP
	Source      Side
	Destination Side
}

// ICMP matches a type of ICMP message (ICMPv6 where the packet is IPv6) and,
// unless Code is negative, a code. As NotICMP it matches all packets but those.
type ICMP struct {
	Type uint8
	Code int16
}

// Side matches one end of a packet.
type Side struct {
	Nets    []netip.Prefix // in one of them; empty: any
	NotNets []netip.Prefix
	Sets    []SetID // the address is in each of these
	NotSets []SetID // and in none of these
	// The port, of TCP, UDP or SCTP, is in one of Ports, or address, protocol
	// and port are in one of PortSets. Both empty: any.
	Ports       []PortRange
	PortSets    []SetID
	NotPorts    []PortRange
	NotPortSets []SetID
}

// PortRange is the ports from Min to Max, both included.
type PortRange struct{ Min, Max uint16 }

// Endpoint is one workload of this host under policy.
type Endpoint struct {
	Name    string       // "WorkloadEndpoint default/h1-k8s-web-eth0"
	MAC     string       // lower case; "" if it may have any
	Addrs   []netip.Addr // its own, sorted
	Sources []netip.Prefix
	Ingress []Tier
	Egress  []Tier
	// Profiles are the owners of its profiles' rules, in order. They decide
	// when no tier did; after the last comes a denial.
	Profiles []string
}

// Tier is the enforced policies of one tier that apply to an endpoint in one
// direction. After the last comes a denial unless Pass. Without a policy it is
// one of which nobody knows where it comes, and denies everything.
type Tier struct {
	Name     string
	Policies []string // owners, in order
	Pass     bool
}

// NewPolicy returns a policy with every table made and empty.
func NewPolicy() Policy {
	return Policy{
		Sets: map[SetID]*Set{}, Rules: map[RulesID]*RuleList{}, Endpoints: map[string]*Endpoint{},
		Hosts: map[netip.Prefix]Forms{}, Pools: map[netip.Prefix]PoolUse{}, Tunnels: map[string]netip.Addr{},
		Strict: map[LinkFamily]struct{}{},
	}
}

// Empty reports whether the patch changes nothing.
func (p PolicyPatch) Empty() bool {
	return len(p.Sets) == 0 && p.Rules.Empty() && p.Endpoints.Empty() &&
		p.Hosts.Empty() && p.Pools.Empty() && p.Tunnels.Empty() && p.Strict.Empty()
}

// Play applies the patch to tables in memory.
func (p PolicyPatch) Play(to Policy) {
	for id, s := range p.Sets {
		s.play(id, to.Sets)
	}
	p.Rules.Play(to.Rules)
	p.Endpoints.Play(to.Endpoints)
	p.Hosts.Play(to.Hosts)
	p.Pools.Play(to.Pools)
	p.Tunnels.Play(to.Tunnels)
	p.Strict.Play(to.Strict)
}

func (p SetPatch) play(id SetID, sets map[SetID]*Set) {
	if p.Gone {
		delete(sets, id)
		return
	}
	s := sets[id]
	if s == nil {
		s = &Set{Kind: p.Kind, Members: make(map[Member]struct{}, len(p.Add))}
		sets[id] = s
	}
	for _, m := range p.Remove {
		delete(s.Members, m)
	}
	for _, m := range p.Add {
		s.Members[m] = struct{}{}
	}
}

// Merge makes of p what p and then next come to. It reports false where that
// cannot be said as a patch: a set that was removed and is there again.
func (p *PolicyPatch) Merge(next PolicyPatch) bool {
	p.Rules = p.Rules.then(next.Rules)
	p.Endpoints = p.Endpoints.then(next.Endpoints)
	p.Hosts, p.Pools, p.Tunnels = p.Hosts.then(next.Hosts), p.Pools.then(next.Pools), p.Tunnels.then(next.Tunnels)
	p.Strict = p.Strict.then(next.Strict)
	if p.Sets == nil && len(next.Sets) > 0 {
		p.Sets = make(map[SetID]SetPatch, len(next.Sets))
	}
	for id, s := range next.Sets {
		old, ok := p.Sets[id]
		switch {
		case !ok || s.Gone:
			p.Sets[id] = s
		case old.Gone:
			return false
		default:
			p.Sets[id] = old.then(s)
		}
	}
	return true
}

// then returns what p and then next come to.
func (p Patch[K, V]) then(next Patch[K, V]) Patch[K, V] {
	if p.Empty() {
		return next
	}
	if next.Empty() {
		return p
	}
	set, gone := make(map[K]V, len(p.Set)+len(next.Set)), map[K]bool{}
	for _, k := range p.Delete {
		gone[k] = true
	}
	for k, v := range p.Set {
		set[k] = v
	}
	for _, k := range next.Delete {
		delete(set, k)
		gone[k] = true
	}
	for k, v := range next.Set {
		set[k] = v
		delete(gone, k)
	}
	out := Patch[K, V]{Set: set}
	for k := range gone {
		out.Delete = append(out.Delete, k)
	}
	return out
}

// then returns what p and then next come to: for each member, what was said
// of it last.
func (p SetPatch) then(next SetPatch) SetPatch {
	in := make(map[Member]bool, len(p.Add)+len(p.Remove)+len(next.Add)+len(next.Remove))
	for _, part := range []SetPatch{p, next} {
		for _, m := range part.Remove {
			in[m] = false
		}
		for _, m := range part.Add {
			in[m] = true
		}
	}
	out := SetPatch{Kind: next.Kind}
	for m, there := range in {
		if there {
			out.Add = append(out.Add, m)
		} else {
			out.Remove = append(out.Remove, m)
		}
	}
	return out
}
