package calc

import (
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// policies is the stage that knows which policies select which endpoints of
// this host. Its work is one policy times the local endpoints, or one local
// endpoint times the policies; the rest of the cluster is not in it.
type policies struct {
	selected map[model.ID]map[model.ID]bool // policy -> endpoints; never empty
}

func newPolicies() policies {
	return policies{selected: map[model.ID]map[model.ID]bool{}}
}

func (p *policies) update(in *inputs, t *touched) {
	for name := range t.profiles {
		for id, w := range in.workloads {
			if slices.Contains(w.Profiles, name) {
				t.endpoints[id] = true
			}
		}
		for id, h := range in.hosts {
			if slices.Contains(h.Profiles, name) {
				t.endpoints[id] = true
			}
		}
	}
	for id := range t.endpoints {
		labels, here := in.labels(id)
		for policy, rules := range in.policies {
			p.set(t, policy, id, here && !rules.Staged && rules.Selects.Matches(labels))
		}
	}
	for policy := range t.policies {
		rules := in.policies[policy]
		t.matches = t.matches || p.selected[policy] != nil // its title may be another
		if rules == nil {
			delete(p.selected, policy)
			continue
		}
		one := func(id model.ID) {
			labels, here := in.labels(id)
			p.set(t, policy, id, here && !rules.Staged && rules.Selects.Matches(labels))
		}
		for id := range in.workloads {
			one(id)
		}
		for id := range in.hosts {
			one(id)
		}
	}
}

// set notes whether a policy selects an endpoint.
func (p *policies) set(t *touched, policy, endpoint model.ID, selects bool) {
	if p.selected[policy][endpoint] == selects {
		return
	}
	t.matches = true
	if selects {
		if p.selected[policy] == nil {
			p.selected[policy] = map[model.ID]bool{}
		}
		p.selected[policy][endpoint] = true
		return
	}
	delete(p.selected[policy], endpoint)
	if len(p.selected[policy]) == 0 {
		delete(p.selected, policy)
	}
}

// labels returns the labels of a local endpoint with those of its profiles,
// and whether there is such an endpoint.
func (in *inputs) labels(id model.ID) (selector.Labels, bool) {
	var own map[string]string
	var profiles []string
	if w := in.workloads[id]; w != nil && len(w.Addrs) > 0 {
		own, profiles = w.Labels, w.Profiles
	} else if h := in.hosts[id]; h != nil {
		own, profiles = h.Labels, h.Profiles
	} else {
		return nil, false
	}
	layers := selector.Layers{selector.Map(own)}
	for _, name := range profiles {
		if profile := in.profiles[name]; profile != nil {
			layers = append(layers, selector.Map(profile.Labels))
		}
	}
	return layers, true
}

// notices is the stage that tells people.
func (c *Core) notices(t *touched, u *desired.Update) {
	if !(t.workloads || t.pools || t.sessions || t.other || t.matches) {
		return
	}
	next := desired.Notices{}
	for _, from := range []desired.Notices{c.active.clashes, c.sessions.troubles} {
		for key, notice := range from {
			next[key] = notice
		}
	}
	for policy, endpoints := range c.policies.selected {
		next.PolicyNotEnforced(c.in.policies[policy].Title, len(endpoints))
	}
	for id, h := range c.in.hosts {
		if !slices.Contains(h.Profiles, model.DefaultAllow) {
			next.HostEndpointNotEnforced(id.String())
		}
	}
	for name, pool := range c.in.pools {
		id := model.ID{Kind: model.KindPool, Name: name}.String()
		if pool.Encap != model.NoEncap {
			next.EncapsulationNotSupported(id, pool.Encap.String())
		}
		if pool.NATOutgoing {
			next.NATNotSupported(id)
		}
	}
	for id, bad := range c.in.invalid {
		if id.Kind == model.KindPolicy && !bad.Staged {
			next.InvalidPolicy(id.String(), bad.Message)
		} else {
			next.InvalidObject(id.String(), bad.Message)
		}
	}
	for name, info := range c.in.info {
		if !info.Ready {
			next.DatastoreNotReady(model.ID{Kind: model.KindClusterInfo, Name: name}.String())
		}
	}
	u.Notices = diff(c.asked.Notices, next, same)
}
