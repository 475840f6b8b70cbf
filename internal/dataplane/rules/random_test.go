package rules

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
)

// world makes random policies, and random steps from one to the next, out of
// few names, addresses and ports, so that things meet.
type world struct {
	*rand.Rand
	policy desired.Policy
	// missing lets rules and endpoints refer to what is not there.
	missing bool
}

func newWorld(seed uint64) *world {
	return &world{Rand: rand.New(rand.NewPCG(seed, 1)), policy: desired.NewPolicy()}
}

func pick[T any](w *world, list ...T) T { return list[w.IntN(len(list))] }

func (w *world) chance(n int) bool { return w.IntN(n) == 0 }

func (w *world) addr() netip.Addr {
	n := byte(w.IntN(12))
	if w.chance(2) {
		return netip.AddrFrom4([4]byte{10, 0, n / 4, n})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 13: n / 4, 15: n})
}

func (w *world) prefix() netip.Prefix {
	a := w.addr()
	bits := pick(w, 32, 32, 32, 31, 30, 28, 22, 8, 0)
	if a.Is6() {
		bits = pick(w, 128, 128, 128, 127, 126, 120, 16, 0)
	}
	p, _ := a.Prefix(bits)
	return p
}

func (w *world) someNets(n int) []netip.Prefix {
	var out []netip.Prefix
	for range w.IntN(n + 1) {
		out = append(out, w.prefix())
	}
	return out
}

func (w *world) protocol() uint8 { return pick[uint8](w, 6, 17, 132, 1, 58, 6, 17, 50, 136) }
func (w *world) port() uint16    { return pick[uint16](w, 0, 79, 80, 81, 443, 1000, 65535) }

func (w *world) member(kind desired.SetKind) desired.Member {
	if kind == desired.PortSet {
		a := w.addr()
		return desired.Member{Prefix: netip.PrefixFrom(a, a.BitLen()), Protocol: pick[uint8](w, 6, 17, 132), Port: w.port()}
	}
	if w.chance(3) {
		return desired.Member{Prefix: w.prefix()}
	}
	a := w.addr()
	return desired.Member{Prefix: netip.PrefixFrom(a, a.BitLen())}
}

const setNames, ownerNames, interfaces = 8, 6, 6

func (w *world) setID(kind desired.SetKind) desired.SetID {
	n := w.IntN(setNames)
	return desired.SetID(fmt.Sprintf("%s:%d", []string{"s", "n"}[kind], n))
}

// refs picks sets that are there, now and then one that is not.
func (w *world) refs(kind desired.SetKind) []desired.SetID {
	var out []desired.SetID
	for range w.IntN(3) {
		id := w.setID(kind)
		if w.policy.Sets[id] != nil || w.missing && w.chance(4) {
			out = append(out, id)
		}
	}
	return out
}

func (w *world) ports() []desired.PortRange {
	var out []desired.PortRange
	for range w.IntN(4) {
		a, b := w.port(), w.port()
		if w.chance(2) {
			b = a
		}
		out = append(out, desired.PortRange{Min: min(a, b), Max: max(a, b)})
	}
	return out
}

func (w *world) side() desired.Side {
	var s desired.Side
	if w.chance(3) {
		s.Nets = w.someNets(3)
	}
	if w.chance(6) {
		s.NotNets = w.someNets(2)
	}
	if w.chance(3) {
		s.Sets = w.refs(desired.AddressSet)
	}
	if w.chance(6) {
		s.NotSets = w.refs(desired.AddressSet)
	}
	if w.chance(4) {
		s.Ports = w.ports()
	}
	if w.chance(6) {
		s.PortSets = w.refs(desired.PortSet)
	}
	if w.chance(6) {
		s.NotPorts = w.ports()
	}
	if w.chance(8) {
		s.NotPortSets = w.refs(desired.PortSet)
	}
	return s
}

func (w *world) icmp() *desired.ICMP {
	return &desired.ICMP{Type: pick[uint8](w, 8, 3, 128), Code: pick[int16](w, -1, 0, 1)}
}

func (w *world) rule(index int) desired.PolicyRule {
	families := pick(w, 3, 3, 3, 1, 2)
	r := desired.PolicyRule{
		Index: index, Action: pick(w, desired.Allow, desired.Deny, desired.Pass, desired.Log),
		IPv4: families&1 != 0, IPv6: families&2 != 0, Source: w.side(), Destination: w.side(),
	}
	if w.chance(2) {
		r.Protocol = w.protocol()
	}
	if w.chance(6) {
		r.NotProtocol = w.protocol()
	}
	if w.chance(6) {
		r.ICMP = w.icmp()
	}
	if w.chance(6) {
		r.NotICMP = w.icmp()
	}
	return r
}

func (w *world) rulesID() desired.RulesID {
	owner := fmt.Sprintf("NetworkPolicy default/%d", w.IntN(ownerNames))
	if w.chance(3) {
		owner = fmt.Sprintf("Profile %d", w.IntN(3))
	}
	return desired.RulesID{Owner: owner, Direction: desired.Direction(w.IntN(2))}
}

func (w *world) list() *desired.RuleList {
	l := &desired.RuleList{}
	for i := range w.IntN(5) {
		if !w.chance(8) { // an index may be left out
			l.Rules = append(l.Rules, w.rule(i))
		}
	}
	return l
}

func (w *world) owners(profile bool, dir desired.Direction) []string {
	var out []string
	for i := range ownerNames {
		owner := fmt.Sprintf("NetworkPolicy default/%d", i)
		if profile {
			owner = fmt.Sprintf("Profile %d", i)
		}
		there := w.policy.Rules[desired.RulesID{Owner: owner, Direction: dir}] != nil
		if (there || w.missing && w.chance(4)) && !w.chance(3) {
			out = append(out, owner)
		}
	}
	w.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func (w *world) tiers(dir desired.Direction) []desired.Tier {
	var out []desired.Tier
	rest := w.owners(false, dir)
	for _, name := range []string{"a", "b", "c"} {
		n := min(len(rest), w.IntN(3))
		if n > 0 {
			out = append(out, desired.Tier{Name: name, Policies: rest[:n], Pass: w.chance(3)})
			rest = rest[n:]
		}
	}
	return out
}

func (w *world) endpoint(i int) *desired.Endpoint {
	ep := &desired.Endpoint{Name: fmt.Sprintf("WorkloadEndpoint default/%d", i), Sources: w.someNets(2)}
	if !w.chance(4) {
		ep.MAC = fmt.Sprintf("02:00:00:00:00:%02x", i)
	}
	ep.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)})}
	if w.chance(3) {
		ep.Addrs = ep.Addrs[w.IntN(2):]
	}
	ep.Ingress, ep.Egress = w.tiers(desired.Ingress), w.tiers(desired.Egress)
	ep.Profiles = w.owners(true, desired.Ingress)
	return ep
}

// full fills an empty world.
func (w *world) full() *desired.Policy {
	for range 3 {
		patch := w.step(20)
		patch.Play(w.policy)
	}
	return &w.policy
}

// step makes a patch of up to n changes, and does not play it. Without
// missing, everything that is referred to stays.
func (w *world) step(n int) desired.PolicyPatch {
	p := desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{}}
	p.Rules.Set, p.Endpoints.Set = map[desired.RulesID]*desired.RuleList{}, map[string]*desired.Endpoint{}
	for range 1 + w.IntN(n) {
		switch w.IntN(6) {
		case 0, 1:
			w.stepSet(&p)
		case 4, 5:
			w.stepOverlay(&p)
		case 2:
			id := w.rulesID()
			if w.missing && w.chance(4) {
				delete(p.Rules.Set, id)
				p.Rules.Delete = append(p.Rules.Delete, id)
			} else if !slices.Contains(p.Rules.Delete, id) {
				p.Rules.Set[id] = w.list()
			}
		case 3:
			i := w.IntN(interfaces)
			name := fmt.Sprintf("cali%d", i)
			if w.chance(4) {
				delete(p.Endpoints.Set, name)
				p.Endpoints.Delete = append(p.Endpoints.Delete, name)
			} else if !slices.Contains(p.Endpoints.Delete, name) {
				p.Endpoints.Set[name] = w.endpoint(i)
			}
		}
	}
	return p
}

func (w *world) stepSet(p *desired.PolicyPatch) {
	kind := desired.SetKind(w.IntN(2))
	id := w.setID(kind)
	if _, ok := p.Sets[id]; ok {
		return
	}
	s := desired.SetPatch{Kind: kind}
	if now := w.policy.Sets[id]; now != nil {
		if w.missing && w.chance(4) {
			p.Sets[id] = desired.SetPatch{Gone: true}
			return
		}
		for _, m := range slices.SortedFunc(maps.Keys(now.Members), func(a, b desired.Member) int {
			return a.Prefix.Addr().Compare(b.Prefix.Addr())*1000 + a.Prefix.Bits() - b.Prefix.Bits()
		}) {
			if w.chance(3) {
				s.Remove = append(s.Remove, m)
			}
		}
	}
	for range w.IntN(pick(w, 2, 4, 15)) {
		if m := w.member(kind); !slices.Contains(s.Remove, m) && !slices.Contains(s.Add, m) {
			s.Add = append(s.Add, m)
		}
	}
	p.Sets[id] = s
}
