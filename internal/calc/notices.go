package calc

import (
	"cmp"
	"maps"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// notices is the stage that tells people.
func (c *Core) notices(t *touched, u *desired.Update) {
	if !(t.workloads || t.pools || t.sessions || t.other || t.matches || t.tunnels) {
		return
	}
	next := desired.Notices{}
	for _, from := range []desired.Notices{c.active.clashes, c.sessions.troubles} {
		maps.Copy(next, from)
	}
	for id, h := range c.in.hosts {
		if !slices.Contains(h.Profiles, model.DefaultAllow) {
			next.HostEndpointNotEnforced(id.String())
		}
	}
	c.overlay.notices(next)
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
	c.policies.notices(next)
	u.Notices = diff(c.asked.Notices, next, same)
}

// notices tells what of policies is not as it was asked for. What is said of
// one policy adds up in this order.
func (p *policies) notices(to desired.Notices) {
	for _, v := range p.told.broken {
		if v.staged {
			to.InvalidObject(v.title, v.why)
		} else {
			to.InvalidPolicy(v.title, v.why)
		}
	}
	for id := range p.told.hosts {
		to.PolicyNotEnforced(p.all.at(id).on.title, p.selectsHosts(id))
	}
	http := slices.SortedFunc(maps.Keys(p.told.http), func(a, b policyID) int { return cmp.Compare(a, b) })
	for _, id := range http {
		at := p.all.at(id)
		for d, rules := range p.rulesOf(id) {
			for i, r := range rules {
				if at.flags&applies(desired.Direction(d)) != 0 && r.HTTP {
					to.HTTPNotEnforced(at.on.title, desired.Direction(d), i, r.Name)
				}
			}
		}
	}
}
