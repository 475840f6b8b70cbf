package calc

import (
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// endpoints is the stage that writes what each workload of this host is under.
func (c *Core) endpoints(t *touched, u *desired.Update) {
	c.enforcePolicies(u)
	c.enforceProfiles(t, u)
	if t.workloads {
		next := make(map[string]bool, len(c.active.workloads))
		for _, w := range c.active.workloads {
			next[w.Interface] = true
			c.endpoint(w, u)
		}
		for name := range c.asked.Policy.Endpoints {
			if !next[name] {
				u.Policy.Endpoints.Delete = append(u.Policy.Endpoints.Delete, name)
				delete(c.asked.Policy.Endpoints, name)
				delete(c.policies.ends, name)
			}
		}
	} else if len(c.policies.changes.dirty) > 0 {
		for _, w := range c.active.workloads {
			if c.policies.changes.dirty[c.policies.slotOf[slotKey{class: c.members.classOf(w.ID)}]] {
				c.endpoint(w, u)
			}
		}
	}
	u.Policy.Sets = c.members.flush(c.asked.Policy.Sets)
	c.members.settle()
	t.matches = t.matches || c.policies.changes.told
	c.policies.changes = changes{}
}

// end is what an endpoint was last written from.
type end struct {
	workload *model.Workload
	addrs    []netip.Addr
	lists    *tierLists
}

func (c *Core) endpoint(w activeWorkload, u *desired.Update) {
	at := c.policies.slots.at(c.policies.slotOf[slotKey{class: c.members.classOf(w.ID)}])
	last := c.policies.ends[w.Interface]
	if last.workload == w.Workload && last.lists == at.lists && slices.Equal(last.addrs, w.addrs) {
		return
	}
	c.policies.ends[w.Interface] = end{w.Workload, w.addrs, at.lists}
	e := &desired.Endpoint{
		Name: w.ID.String(), MAC: w.MAC, Addrs: slices.Clone(w.addrs), Sources: w.Sources,
	}
	slices.SortFunc(e.Addrs, netip.Addr.Compare)
	if at.lists != nil {
		e.Ingress, e.Egress = at.lists.ingress, at.lists.egress
	}
	for _, name := range w.Profiles {
		e.Profiles = append(e.Profiles, profileOwner(name))
	}
	if old := c.asked.Policy.Endpoints[w.Interface]; old != nil && sameEndpoint(old, e) {
		return
	}
	if u.Policy.Endpoints.Set == nil {
		n := 1
		if len(c.asked.Policy.Endpoints) == 0 {
			n = len(c.active.workloads)
		}
		u.Policy.Endpoints.Set = make(map[string]*desired.Endpoint, n)
	}
	u.Policy.Endpoints.Set[w.Interface], c.asked.Policy.Endpoints[w.Interface] = e, e
}

func sameEndpoint(a, b *desired.Endpoint) bool {
	return a.Name == b.Name && a.MAC == b.MAC && slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Sources, b.Sources) &&
		slices.Equal(a.Profiles, b.Profiles) && sameTiers(a.Ingress, b.Ingress) && sameTiers(a.Egress, b.Egress)
}

func profileOwner(name string) string {
	return model.ID{Kind: model.KindProfile, Name: name}.String()
}

// enforceProfiles makes the rules of the profiles that workloads here name
// asked for, and no others. One that does not exist denies everything.
func (c *Core) enforceProfiles(t *touched, u *desired.Update) {
	p := c.policies
	var look []string
	if t.workloads {
		used := make(map[string]bool, len(c.active.workloads))
		for _, w := range c.active.workloads {
			for _, name := range w.Profiles {
				used[name] = true
			}
		}
		for name, e := range p.profiles {
			if !used[name] {
				c.waive(&e[desired.Ingress], u)
				c.waive(&e[desired.Egress], u)
				delete(p.profiles, name)
				delete(p.told.profiles, name)
			}
		}
		for name := range used {
			if p.profiles[name] == nil {
				p.profiles[name] = &[2]enforced{}
				look = append(look, name)
			}
		}
	}
	for _, name := range t.profiles {
		if p.profiles[name] != nil {
			look = append(look, name)
		}
	}
	slices.Sort(look)
	for _, name := range slices.Compact(look) {
		ingress, egress := c.members.labels.rulesOf(name)
		owner := profileOwner(name)
		c.enforce(&p.profiles[name][0], desired.RulesID{Owner: owner, Direction: desired.Ingress}, c.resolveProfile(ingress), u)
		c.enforce(&p.profiles[name][1], desired.RulesID{Owner: owner, Direction: desired.Egress}, c.resolveProfile(egress), u)
		p.noteProfile(name, hasHTTP(ingress) || hasHTTP(egress))
	}
}

// resolveProfile makes a list of rules; most profiles have none.
func (c *Core) resolveProfile(rules []model.Rule) *ruleList {
	if len(rules) == 0 {
		return c.policies.none
	}
	return c.resolve(rules)
}

// noteProfile keeps which profiles in force have rules with HTTP criteria.
func (p *policies) noteProfile(name string, has bool) {
	p.changes.told = p.changes.told || has || p.told.profiles[name]
	if delete(p.told.profiles, name); has {
		p.told.profiles[name] = true
	}
}

func hasHTTP(rules []model.Rule) bool {
	return slices.ContainsFunc(rules, func(r model.Rule) bool { return r.HTTP })
}

// rulesOf returns the rules of a profile, those too that hold for what is not
// stored.
func (l *labels) rulesOf(name string) (ingress, egress []model.Rule) {
	if name == model.DefaultAllow {
		return everything(model.Allow), everything(model.Allow)
	}
	if _, id := l.profileOf(name); id != 0 {
		switch p := l.profiles.at(id); {
		case p.rules != nil:
			return p.rules.ingress, p.rules.egress
		case p.exists:
			return nil, nil
		}
	}
	return everything(model.Deny), everything(model.Deny)
}
