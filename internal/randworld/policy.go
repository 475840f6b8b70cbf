package randworld

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

const both = model.IPv4 | model.IPv6

// The selectors that policies and rules have.
const (
	fe     = "role == 'fe'"
	nobody = "nothing == 'at all'"
)

func selectors() []string {
	return []string{
		fe, fe, "role == 'be'", "role != 'fe'", "role in {'fe', 'db'}", "role not in {'db'}", "has(app)", "!has(app)",
		"app == 'x' && role == 'be'", "app == 'x' || role == 'db'", "role starts with 'f'", "role contains 'e'",
		"role ends with 'b'", "!(role == 'fe' || app == 'y')", "app == ''", "all()", nobody, "role in {}",
	}
}

func namespaceSelectors() []string {
	return []string{"env == 'a'", "env != 'a'", "has(env)", "all()", "projectcalico.org/name in {'prod', 'dev'}"}
}

func sortBackends(s *model.Service) {
	slices.SortFunc(s.Backends, func(a, b model.Backend) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	s.Backends = slices.Compact(s.Backends)
}

// tierNames has names that policies use; which of them exist is random.
var tierNames = [...]string{"default", "first", "second", "kube-baseline", "aaa"}

func (w *World) tier(i int) (model.ID, model.Value) {
	t := &model.Tier{Name: tierNames[i], Order: w.order(math.Inf(1)), DefaultPass: w.chance(45)}
	if w.rare.IntN(100) < 3 {
		t = &model.Tier{Name: t.Name, Order: math.Inf(-1), Lost: true, Broken: "spec.order: is wrong"}
	}
	return model.ID{Kind: model.KindTier, Name: t.Name}, t
}

// policy is one of a few names, so that orders tie and names decide.
func (w *World) policy(i int) (model.ID, model.Value) {
	kind := pick(w, "NetworkPolicy", "NetworkPolicy", "GlobalNetworkPolicy", "GlobalNetworkPolicy",
		"KubernetesNetworkPolicy", "KubernetesClusterNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy")
	p := &model.Policy{
		APIKind: kind, Name: fmt.Sprintf("p%d", i%3), Tier: pick(w, "default", "default", tierNames[w.rng.IntN(len(tierNames))]),
		Order: w.order(math.Inf(1)),
	}
	switch kind {
	case "NetworkPolicy", "KubernetesNetworkPolicy", "StagedNetworkPolicy":
		p.Namespace = namespaces[i%len(namespaces)]
		p.Selects = sound(selector.ForNetworkPolicy(p.Namespace, w.policySelector(), w.seldom(20, "trusted == 'yes'")))
	default:
		p.Selects = sound(selector.ForGlobalNetworkPolicy(w.policySelector(),
			w.seldom(30, pick(w, namespaceSelectors()...)), w.seldom(10, "all()")))
	}
	if kind == "StagedNetworkPolicy" || kind == "StagedGlobalNetworkPolicy" {
		p.Staged, p.StagedAction = true, pick(w, "Set", "Set", "Delete")
	}
	p.ID = model.PolicyID(kind, p.Namespace, p.Name)
	p.Title = p.ID.String()
	if kind == "GlobalNetworkPolicy" && w.chance(8) {
		p.DoNotTrack, p.ApplyOnForward = true, true
	}
	types := w.rng.IntN(3)
	p.Ingress, p.Egress = w.direction(p, types != 1, true), w.direction(p, types != 0, false)
	if w.chance(5) {
		p.Broken = "spec.ingress[0].action: is wrong"
	}
	return p.ID, p
}

// sound is for selectors that are known to be sound.
func sound(s selector.Selector, err error) selector.Selector {
	if err != nil {
		return selector.Selector{}
	}
	return s
}

func (w *World) policySelector() string {
	if w.chance(45) {
		return ""
	}
	return pick(w, selectors()...)
}

func (w *World) seldom(percent int, text string) string {
	if w.chance(percent) {
		return text
	}
	return ""
}

// direction has rules sometimes though it does not apply.
func (w *World) direction(p *model.Policy, applies, ingress bool) model.Direction {
	d := model.Direction{Applies: applies}
	switch {
	case p.StagedAction == "Delete":
		return model.Direction{}
	case w.chance(8):
		d.Rules = []model.Rule{}
	case w.chance(92):
		for range 1 + w.rng.IntN(4) {
			d.Rules = append(d.Rules, w.rule(p.Namespace, ingress))
		}
	}
	return d
}

// rule has between none and a few of all criteria there are.
func (w *World) rule(namespace string, ingress bool) model.Rule {
	r := model.Rule{Families: both, Name: w.seldom(10, "named")}
	r.Action = pick(w, model.Allow, model.Allow, model.Allow, model.Allow, model.Deny, model.Deny, model.Deny,
		model.Pass, model.Pass, model.Log)
	if r.Action == model.Deny && ingress && w.chance(10) {
		r.HTTP = true
	}
	if w.chance(10) {
		r.Families = pick(w, model.IPv4, model.IPv6)
	}
	w.protocols(&r)
	if w.chance(70) {
		w.entity(&r, &r.Source, namespace)
	}
	if w.chance(70) {
		w.entity(&r, &r.Destination, namespace)
	}
	if w.chance(12) {
		to := &r.Destination
		if ingress {
			to = &r.Source
		}
		*to = model.Entity{ServicePorts: !ingress, Service: &model.ServiceRef{Namespace: pick(w, namespaces[:]...), Name: "svc"}}
		if w.chance(10) {
			to.Service.Name = "gone"
		}
	}
	w.settle(&r)
	return r
}

// protocols sets what a rule says of the protocol, and ports with it.
func (w *World) protocols(r *model.Rule) {
	switch w.rng.IntN(12) {
	case 0, 1, 2:
		r.Protocol = model.ProtocolTCP
	case 3:
		r.Protocol = model.ProtocolUDP
	case 4:
		r.Protocol = model.ProtocolSCTP
	case 5:
		r.Protocol = pick[uint8](w, model.ProtocolUDPLite, 2, 47, 255, model.ProtocolICMP, model.ProtocolICMPv6)
	case 6, 7:
		r.Protocol = pick[uint8](w, model.ProtocolICMP, model.ProtocolICMPv6)
		r.ICMP = w.icmp()
		if w.chance(30) {
			r.NotICMP = w.icmp()
		}
	case 8:
		r.NotICMP = w.icmp()
	}
	if w.chance(12) {
		r.NotProtocol = pick[uint8](w, model.ProtocolTCP, model.ProtocolUDP, model.ProtocolICMP, 47)
	}
}

func (w *World) icmp() *model.ICMP {
	return &model.ICMP{Type: pick[uint8](w, 8, 8, 128, 128, 3, 0, 254), Code: pick[int16](w, -1, -1, 0, 1)}
}

// entity sets what a rule says of one end.
func (w *World) entity(r *model.Rule, e *model.Entity, namespace string) {
	if w.chance(20) {
		e.Nets = w.nets(3, w.chance(60))
	}
	if w.chance(12) {
		e.NotNets = w.nets(2, w.chance(60))
	}
	if w.chance(3) {
		e.Nets = append(e.Nets, w.nets(2, w.chance(50))...) // of both families, at times
	}
	if w.chance(40) {
		in := selector.Entity{Namespace: namespace}
		in.Selector = w.seldom(60, pick(w, selectors()...))
		in.NotSelector = w.seldom(25, pick(w, selectors()...))
		in.NamespaceSelector = w.seldom(25, pick(w, append(namespaceSelectors(), "global()")...))
		if w.chance(10) {
			in.ServiceAccountNames = []string{"robot"}
		}
		in.ServiceAccountSelector = w.seldom(8, "trusted == 'yes'")
		if p, err := in.Compose(); err == nil {
			e.Peers = p
		}
	}
	if model.HasPorts(r.Protocol) || w.chance(2) {
		if w.chance(40) {
			e.Ports = w.ports(3, 25)
		}
		if w.chance(15) {
			e.NotPorts = w.ports(2, 45)
		}
	} else if r.Protocol == 0 { // names need no protocol
		if w.chance(10) {
			e.Ports = w.ports(2, 100)
		}
		if w.chance(12) {
			e.NotPorts = w.ports(2, 100)
		}
	}
}

// ports are numbers, ranges that overlap and touch, and names.
func (w *World) ports(most, names int) []model.PortMatch {
	var out []model.PortMatch
	for range 1 + w.rng.IntN(most) {
		a, b := w.port(), w.port()
		switch {
		case w.chance(names):
			out = append(out, model.PortMatch{Name: pick(w, "http", "http", "dns", "gone")})
		case w.chance(50):
			out = append(out, model.PortMatch{Min: a, Max: a})
		default:
			out = append(out, model.PortMatch{Min: min(a, b), Max: max(a, b)})
		}
	}
	return out
}

// settle works out which families a rule can match, as for a rule that is read
// from the datastore.
func (w *World) settle(r *model.Rule) {
	for _, nets := range [][]netip.Prefix{r.Source.Nets, r.Source.NotNets, r.Destination.Nets, r.Destination.NotNets} {
		var f model.Families
		for _, n := range nets {
			if n.Addr().Is4() {
				f |= model.IPv4
			} else {
				f |= model.IPv6
			}
		}
		if f != 0 {
			r.Families &= f
		}
	}
	if r.Families == 0 || w.chance(1) {
		r.Families, r.Never = both, true
	}
}
