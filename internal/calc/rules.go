package calc

import (
	"reflect"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// enforced is a rule list that is asked for under a name.
type enforced struct {
	id   desired.RulesID
	list *ruleList // nil: not asked for
}

// ruleList is rules as a back end gets them, with the sets that they refer
// to, for all policies that say the same.
type ruleList struct {
	of   *desired.RuleList
	sets []memberSetID
	refs int
	with *sharedRules // nil: it is not of a policy
}

// sharedRules are the lists of all policies whose rules are the same.
type sharedRules struct {
	key rulesKey
	by  [2]*ruleList // direction
}

// rulesKey is the rules of a policy, packed.
type rulesKey struct{ texts, body packed }

// resolver turns the rules of one list into those of a back end. The sets
// that it finds it holds.
type resolver struct {
	m    *members
	sets []memberSetID
}

// resolve makes a list of rules.
func (c *Core) resolve(rules []model.Rule) *ruleList {
	r := resolver{m: &c.members}
	list, n := &desired.RuleList{}, 0
	for i := range rules {
		if !rules[i].Never {
			n++
		}
	}
	if n > 0 {
		list.Rules = make([]desired.PolicyRule, 0, n)
	}
	for i := range rules {
		if !rules[i].Never {
			list.Rules = append(list.Rules, r.rule(i, &rules[i]))
		}
	}
	return &ruleList{of: list, sets: r.sets}
}

// resolvePolicy returns the list of a policy for a direction. Policies with
// the same rules have the same one.
func (c *Core) resolvePolicy(id policyID, d desired.Direction) *ruleList {
	p := c.policies
	u := p.all.at(id).packed.open(&p.texts)
	u.skipHead()
	key := rulesKey{u.held, u.body}
	both := p.shared[key]
	if both == nil {
		both = &sharedRules{key: key}
		p.shared[key] = both
	}
	if both.by[d] == nil {
		u.read = readSelectors{p.all.at(id).on.selects, &c.members.sets}
		rules := u.rules(p.scratch.rules)
		if d == desired.Egress {
			rules = u.rules(rules)
		}
		both.by[d] = c.resolve(rules)
		both.by[d].with = both
		if rules != nil {
			p.scratch.rules = rules
		}
	}
	return both.by[d]
}

// enforce makes a list of rules asked for under a name, in place of the one
// that was.
func (c *Core) enforce(e *enforced, id desired.RulesID, list *ruleList, u *desired.Update) {
	old := *e
	list.refs++
	*e = enforced{id, list}
	if old.list == nil || old.id != id || old.list != list && !reflect.DeepEqual(old.list.of, list.of) {
		if u.Policy.Rules.Set == nil {
			n := 2 * len(c.policies.changes.enforce)
			if len(c.asked.Policy.Rules) == 0 {
				n += 2 * len(c.active.workloads) // and their profiles
			}
			u.Policy.Rules.Set = make(map[desired.RulesID]*desired.RuleList, n)
		}
		u.Policy.Rules.Set[id], c.asked.Policy.Rules[id] = list.of, list.of
	}
	c.unhand(old.list)
}

// waive takes back what enforce did.
func (c *Core) waive(e *enforced, u *desired.Update) {
	if e.list == nil {
		return
	}
	u.Policy.Rules.Delete = append(u.Policy.Rules.Delete, e.id)
	delete(c.asked.Policy.Rules, e.id)
	c.unhand(e.list)
	*e = enforced{}
}

// unhand counts a reference to a list less.
func (c *Core) unhand(list *ruleList) {
	if list == nil {
		return
	}
	if list.refs--; list.refs > 0 {
		return
	}
	for _, s := range list.sets {
		c.members.release(s)
	}
	if s := list.with; s != nil {
		for d := range s.by {
			if s.by[d] == list {
				s.by[d] = nil
			}
		}
		if s.by == [2]*ruleList{} {
			delete(c.policies.shared, s.key)
		}
	}
}

func (r *resolver) rule(index int, in *model.Rule) desired.PolicyRule {
	out := desired.PolicyRule{
		Index: index, Action: action(in.Action),
		IPv4: in.Families&model.IPv4 != 0, IPv6: in.Families&model.IPv6 != 0,
		Protocol: in.Protocol, NotProtocol: in.NotProtocol,
		Source: r.side(&in.Source), Destination: r.side(&in.Destination),
	}
	if in.ICMP != nil {
		out.ICMP = &desired.ICMP{Type: in.ICMP.Type, Code: in.ICMP.Code}
	}
	if in.NotICMP != nil {
		out.NotICMP = &desired.ICMP{Type: in.NotICMP.Type, Code: in.NotICMP.Code}
	}
	return out
}

// action translates; what is not known denies.
func action(a model.Action) desired.Action {
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

func (r *resolver) side(in *model.Entity) desired.Side {
	out := desired.Side{Nets: in.Nets, NotNets: in.NotNets}
	if in.Peers.Restricted {
		out.Sets = append(out.Sets, r.set(setKey{selected, in.Peers.Selector.String(), ""}, in))
	}
	if in.Peers.Excluding {
		s := in.Peers.Not
		id := r.m.hold(setKey{selected, s.String(), ""}, s)
		r.sets = append(r.sets, id)
		out.NotSets = append(out.NotSets, r.m.sets.all.at(id).id)
	}
	out.Ports, out.PortSets = r.ports(in.Ports, in)
	out.NotPorts, out.NotPortSets = r.ports(in.NotPorts, in)
	if s := in.Service; s != nil {
		if in.ServicePorts {
			out.PortSets = append(out.PortSets, r.set(setKey{servicePorts, s.Namespace, s.Name}, in))
		} else {
			out.Sets = append(out.Sets, r.set(setKey{serviceAddrs, s.Namespace, s.Name}, in))
		}
	}
	return out
}

// set holds a set that is found by the entity's own selector.
func (r *resolver) set(key setKey, in *model.Entity) desired.SetID {
	var s selector.Selector
	if in.Peers.Restricted {
		s = in.Peers.Selector
	}
	id := r.m.hold(key, s)
	r.sets = append(r.sets, id)
	return r.m.sets.all.at(id).id
}

// ports are ranges, and sets for what has a name: the ports of that name of
// the endpoints that the entity's selector matches, all if it has none.
func (r *resolver) ports(in []model.PortMatch, of *model.Entity) ([]desired.PortRange, []desired.SetID) {
	var ranges []desired.PortRange
	var sets []desired.SetID
	all := selector.Selector{}.String()
	for _, p := range in {
		if p.Name == "" {
			ranges = append(ranges, desired.PortRange{Min: p.Min, Max: p.Max})
			continue
		}
		from := all
		if of.Peers.Restricted {
			from = of.Peers.Selector.String()
		}
		sets = append(sets, r.set(setKey{namedPort, from, p.Name}, of))
	}
	return ranges, sets
}

// everything is a rule that matches all packets.
func everything(a model.Action) []model.Rule {
	return []model.Rule{{Action: a, Families: model.IPv4 | model.IPv6}}
}

// enforcePolicies makes the rules of policies that select a workload here
// asked for, and no others.
func (c *Core) enforcePolicies(u *desired.Update) {
	p := c.policies
	want := func(id policyID, d desired.Direction) (desired.RulesID, bool) {
		at := p.all.at(id)
		if at.on == nil || at.on.workloads == 0 {
			return desired.RulesID{}, false
		}
		return desired.RulesID{Owner: at.on.title, Direction: d}, at.flags&applies(d) != 0 && !at.on.tier.lost
	}
	both := []desired.Direction{desired.Ingress, desired.Egress}
	for id := range p.changes.enforce { // what goes comes first: names are free then
		if on := p.all.at(id).on; on != nil {
			for _, d := range both {
				if name, ok := want(id, d); !ok || name != on.lists[d].id {
					c.waive(&on.lists[d], u)
				}
			}
		}
	}
	for id := range p.changes.enforce {
		at := p.all.at(id)
		if at.on != nil && at.on.workloads > 0 {
			for _, d := range both {
				if name, ok := want(id, d); ok {
					c.enforce(&at.on.lists[d], name, c.resolvePolicy(id, d), u)
				}
			}
		}
		p.noteHTTP(id)
		if at.on != nil && at.on.workloads+at.on.hosts == 0 {
			at.on = nil
		}
	}
	p.bury()
}

// rulesOf reads the rules of a policy.
func (p *policies) rulesOf(id policyID) [2][]model.Rule {
	u := p.all.at(id).packed.open(&p.texts)
	u.skipHead()
	return [2][]model.Rule{u.rules(nil), u.rules(nil)}
}

// noteHTTP keeps who has rules with HTTP criteria in force.
func (p *policies) noteHTTP(id policyID) {
	at := p.all.at(id)
	has := at.on != nil && at.on.workloads > 0 && at.flags&packHTTP != 0 && !at.on.tier.lost
	if has || p.told.http[id] {
		p.changes.told = true
		delete(p.told.http, id)
		if has {
			p.told.http[id] = true
		}
	}
}

// bury forgets the deleted policies.
func (p *policies) bury() {
	for _, k := range p.changes.dead {
		if at := p.all.at(k); at.packed == "" && at.name != 0 {
			p.byID.remove(p.hash(p.id(k)), k)
			p.texts.release(at.namespace)
			p.texts.release(at.name)
			p.all.drop(k)
		}
	}
	p.tidyTiers()
	p.slots.settle()
	p.bags.crowds.settle()
	p.all.settle()
	p.texts.all.settle()
}
