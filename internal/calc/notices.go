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
	if !(t.workloads || t.pools || t.sessions || t.other || t.matches || t.tunnels || t.tiers) {
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
		switch {
		case id.Kind.Configures(): // of in.unusable
		case id.Kind == model.KindPolicy && !bad.Staged:
			next.InvalidPolicy(id.String(), bad.Message)
		default:
			next.InvalidObject(id.String(), bad.Message)
		}
	}
	for id, why := range c.in.unusable {
		next.InvalidSettings(id.String(), why)
	}
	for name, tier := range c.in.tiers {
		if tier.Broken != "" {
			next.InvalidTier(model.ID{Kind: model.KindTier, Name: name}.String(), tier.Broken)
		}
	}
	for name, info := range c.in.info {
		if !info.Ready {
			next.DatastoreNotReady(model.ID{Kind: model.KindClusterInfo, Name: name}.String())
		}
	}
	c.policies.notices(next)
	for name := range c.policies.told.profiles {
		ingress, egress := c.members.labels.rulesOf(name)
		noticesOfHTTP(next, profileOwner(name), [2][]model.Rule{ingress, egress})
	}
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
		of := p.rulesOf(id)
		for d := range of {
			if at.flags&applies(desired.Direction(d)) == 0 {
				of[d] = nil
			}
		}
		noticesOfHTTP(to, at.on.title, of)
	}
}

// noticesOfHTTP tells of rules that have HTTP criteria, ingress first.
func noticesOfHTTP(to desired.Notices, owner string, of [2][]model.Rule) {
	for d, rules := range of {
		for i, r := range rules {
			if r.HTTP {
				to.HTTPNotEnforced(owner, desired.Direction(d), i, r.Name)
			}
		}
	}
}
