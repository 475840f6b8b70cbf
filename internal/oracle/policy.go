package oracle

import (
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// policy is what the policy back end of this host should have: the endpoints,
// what they refer to, and what that refers to.
func (w world) policy() desired.Policy {
	out, v := desired.NewPolicy(), newView(w)
	for _, x := range w.candidates() {
		if keeper(w.candidates(), x.Interface) == x {
			out.Endpoints[x.Interface] = v.endpoint(x)
		}
	}
	for _, e := range out.Endpoints {
		for _, d := range []desired.Direction{desired.Ingress, desired.Egress} {
			for _, owner := range owners(e, d) {
				id := desired.RulesID{Owner: owner, Direction: d}
				out.Rules[id] = v.ruleList(id)
			}
		}
	}
	for id := range out.Rules {
		for _, r := range v.modelRules(id) {
			for _, e := range []*model.Entity{&r.Source, &r.Destination} {
				for set, what := range setsOf(e) {
					if out.Sets[set] == nil && !r.Never {
						out.Sets[set] = v.set(what)
					}
				}
			}
		}
	}
	return out
}

// owners are those of all rules that an endpoint refers to in a direction.
func owners(e *desired.Endpoint, d desired.Direction) []string {
	tiers := e.Egress
	if d == desired.Ingress {
		tiers = e.Ingress
	}
	out := slices.Clone(e.Profiles)
	for _, t := range tiers {
		out = append(out, t.Policies...)
	}
	return out
}

func (v *View) endpoint(x *model.Workload) *desired.Endpoint {
	e := &desired.Endpoint{Name: x.ID.String(), MAC: x.MAC, Sources: x.Sources}
	for _, a := range x.Addrs {
		if v.owner(a) == x && !slices.Contains(e.Addrs, a) {
			e.Addrs = append(e.Addrs, a)
		}
	}
	slices.SortFunc(e.Addrs, netip.Addr.Compare)
	labels := v.merged(x.Labels, x.Profiles)
	e.Ingress, e.Egress = v.enforced(labels, true), v.enforced(labels, false)
	for _, name := range x.Profiles {
		e.Profiles = append(e.Profiles, profileOwner(name))
	}
	return e
}

// enforced are the tiers that have a policy which is not staged for an
// endpoint, with these policies.
func (v *View) enforced(labels selector.Labels, ingress bool) []desired.Tier {
	var out []desired.Tier
	for _, t := range v.tiers {
		to := desired.Tier{Name: t.name, Pass: t.pass}
		for _, p := range t.applicable(labels, ingress) {
			if !p.Staged {
				to.Policies = append(to.Policies, p.Title)
			}
		}
		switch {
		case len(to.Policies) == 0:
		case t.lost: // no rule of it is looked at
			out = append(out, desired.Tier{Name: t.name})
		default:
			out = append(out, to)
		}
	}
	return out
}

func profileOwner(name string) string {
	return model.ID{Kind: model.KindProfile, Name: name}.String()
}

// modelRules are the rules that go by a name. Those of a profile that does
// not exist deny everything.
func (v *View) modelRules(id desired.RulesID) []model.Rule {
	everything := model.Rule{Families: model.IPv4 | model.IPv6, Action: model.Deny}
	if id.Owner == profileOwner(model.DefaultAllow) {
		everything.Action = model.Allow
		return []model.Rule{everything}
	}
	for _, p := range each[*model.Policy](v.world) {
		if p.Title == id.Owner && id.Direction == desired.Ingress {
			return p.Ingress.Rules
		} else if p.Title == id.Owner {
			return p.Egress.Rules
		}
	}
	for _, p := range each[*model.Profile](v.world) {
		if profileOwner(p.Name) == id.Owner && id.Direction == desired.Ingress {
			return p.Ingress
		} else if profileOwner(p.Name) == id.Owner {
			return p.Egress
		}
	}
	return []model.Rule{everything}
}

func (v *View) ruleList(id desired.RulesID) *desired.RuleList {
	out := &desired.RuleList{}
	for i, r := range v.modelRules(id) {
		if r.Never {
			continue
		}
		to := desired.PolicyRule{
			Index: i, Action: actionOf(r.Action),
			IPv4: r.Families&model.IPv4 != 0, IPv6: r.Families&model.IPv6 != 0,
			Protocol: r.Protocol, NotProtocol: r.NotProtocol, Source: sideOf(&r.Source), Destination: sideOf(&r.Destination),
		}
		if r.ICMP != nil {
			to.ICMP = &desired.ICMP{Type: r.ICMP.Type, Code: r.ICMP.Code}
		}
		if r.NotICMP != nil {
			to.NotICMP = &desired.ICMP{Type: r.NotICMP.Type, Code: r.NotICMP.Code}
		}
		out.Rules = append(out.Rules, to)
	}
	return out
}

// actionOf translates an action; what is not known denies.
func actionOf(a model.Action) desired.Action {
	switch a {
	case model.Allow:
		return desired.Allow
	case model.Pass:
		return desired.Pass
	case model.Log:
		return desired.Log
	}
	return desired.Deny
}

func sideOf(e *model.Entity) desired.Side {
	out := desired.Side{Nets: e.Nets, NotNets: e.NotNets}
	if e.Peers.Restricted {
		out.Sets = append(out.Sets, desired.SetID(e.Peers.Selector.ID()))
	}
	if e.Peers.Excluding {
		out.NotSets = append(out.NotSets, desired.SetID(e.Peers.Not.ID()))
	}
	out.Ports, out.PortSets = portsOf(e.Ports, positive(e))
	out.NotPorts, out.NotPortSets = portsOf(e.NotPorts, positive(e))
	if e.Service != nil {
		if e.ServicePorts {
			out.PortSets = append(out.PortSets, serviceSet(e))
		} else {
			out.Sets = append(out.Sets, serviceSet(e))
		}
	}
	return out
}

// positive is the selector that names of ports are looked up by: everything
// if the entity has none.
func positive(e *model.Entity) selector.Selector {
	if e.Peers.Restricted {
		return e.Peers.Selector
	}
	return selector.Selector{}
}

func portsOf(ports []model.PortMatch, by selector.Selector) (numbers []desired.PortRange, sets []desired.SetID) {
	for _, m := range ports {
		if m.Name != "" {
			sets = append(sets, namedPortSet(by, m.Name))
		} else {
			numbers = append(numbers, desired.PortRange{Min: m.Min, Max: m.Max})
		}
	}
	return numbers, sets
}

func namedPortSet(by selector.Selector, port string) desired.SetID {
	sum := sha256.Sum224([]byte("n:" + by.String() + "/" + port))
	return desired.SetID("n:" + base64.RawURLEncoding.EncodeToString(sum[:]))
}

func serviceSet(e *model.Entity) desired.SetID {
	name := e.Service.Namespace + "/" + e.Service.Name
	if e.ServicePorts {
		return desired.SetID("v:" + name)
	}
	return desired.SetID("w:" + name)
}

// contents says what is in a set: the addresses of what a selector matches,
// the ports of a name of that, or what is behind a service.
type contents struct {
	by      selector.Selector
	port    string
	service *model.ServiceRef
	ports   bool
}

// setsOf names the sets that an entity refers to, with what is in them.
func setsOf(e *model.Entity) map[desired.SetID]contents {
	out := map[desired.SetID]contents{}
	if e.Peers.Restricted {
		out[desired.SetID(e.Peers.Selector.ID())] = contents{by: e.Peers.Selector}
	}
	if e.Peers.Excluding {
		out[desired.SetID(e.Peers.Not.ID())] = contents{by: e.Peers.Not}
	}
	for _, m := range slices.Concat(e.Ports, e.NotPorts) {
		if m.Name != "" {
			out[namedPortSet(positive(e), m.Name)] = contents{by: positive(e), port: m.Name, ports: true}
		}
	}
	if e.Service != nil {
		out[serviceSet(e)] = contents{service: e.Service, ports: e.ServicePorts}
	}
	return out
}

func (v *View) set(what contents) *desired.Set {
	out := &desired.Set{Members: map[desired.Member]struct{}{}}
	if what.ports {
		out.Kind = desired.PortSet
	}
	add := func(m desired.Member) { out.Members[m] = struct{}{} }
	if what.service != nil {
		if s := v.services[*what.service]; s != nil {
			for _, b := range s.Backends {
				m := desired.Member{Prefix: alone(b.Addr)}
				if what.ports && (b.Protocol == 0 || b.Port == 0) {
					continue
				}
				if what.ports {
					m.Protocol, m.Port = b.Protocol, b.Port
				}
				add(m)
			}
		}
		return out
	}
	for _, t := range v.things {
		if !what.by.Matches(t.labels) {
			continue
		}
		for _, n := range t.nets {
			if !what.ports {
				add(desired.Member{Prefix: n})
			}
		}
		for _, a := range t.addrs {
			if !what.ports {
				add(desired.Member{Prefix: alone(a)})
			}
			for _, p := range t.ports {
				if what.ports && p.Name == what.port {
					add(desired.Member{Prefix: alone(a), Protocol: p.Protocol, Port: p.Port})
				}
			}
		}
	}
	return out
}
