package oracle

import (
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

func (w world) notices(policy desired.Policy) desired.Notices {
	out := desired.Notices{}
	w.routingNotices(out)
	w.addressNotices(out)
	w.policyNotices(policy, out)
	for id, v := range w.all {
		if why := model.Unusable(id, v); why != "" {
			out.InvalidSettings(id.String(), why)
		}
		switch v := v.(type) {
		case *model.Invalid:
			switch {
			case id.Kind.Configures(): // below
			case id.Kind == model.KindPolicy && !v.Staged:
				out.InvalidPolicy(id.String(), v.Message)
			default:
				out.InvalidObject(id.String(), v.Message)
			}
		case *model.Tier:
			if v.Broken != "" {
				out.InvalidTier(id.String(), v.Broken)
			}
		case *model.ClusterInfo:
			if !v.Ready {
				out.DatastoreNotReady(id.String())
			}
		}
	}
	return out
}

func (w world) routingNotices(out desired.Notices) {
	common := w.config("default")
	config := model.ID{Kind: model.KindBGPConfig, Name: "default"}.String()
	if common.Services {
		out.ServicesNotAnnounced(config)
	}
	me := w.me()
	if me == nil {
		out.NoBGPAddress(model.ID{Kind: model.KindNode, Name: w.set.Node}.String())
		return
	}
	if w.set.Overlay.NoBGP {
		return
	}
	if common.MeshPassword != "" && !me.ClusterID.IsValid() && (common.Mesh == nil || *common.Mesh) {
		out.SessionWithheld(config, "PasswordNotAvailable",
			"nodeMeshPassword "+common.MeshPassword+" cannot be read")
	}
	for _, s := range w.asked() {
		if s.withheld != "" {
			id := model.ID{Kind: model.KindBGPPeer, Name: s.by.Name}
			out.SessionWithheld(id.String(), s.withheld, s.because)
		}
	}
}

// addressNotices names the nodes and workloads that claim what another has.
func (w world) addressNotices(out desired.Notices) {
	nodes := each[*model.Node](w)
	for i, n := range nodes {
		for _, four := range []bool{true, false} {
			a := nodeAddr(n, four)
			if !a.IsValid() || !w.wanted(a) {
				continue
			}
			first := slices.IndexFunc(nodes, func(o *model.Node) bool { return nodeAddr(o, four) == a })
			own := slices.ContainsFunc(nodes, func(o *model.Node) bool {
				return o.Name == w.set.Node && nodeAddr(o, four) == a
			})
			if first < i {
				out.DuplicateNodeAddress(model.ID{Kind: model.KindNode, Name: n.Name}.String(),
					model.ID{Kind: model.KindNode, Name: nodes[first].Name}.String(), a, own)
			}
		}
	}
	for _, x := range each[*model.Workload](w) {
		here := x.Node == w.set.Node && len(x.Addrs) > 0 && x.Interface != ""
		if here && !w.set.WorkloadInterface(x.Interface) {
			out.ForeignInterface(x.ID.String(), x.Interface)
		}
	}
	for _, x := range w.candidates() {
		if k := keeper(w.candidates(), x.Interface); k != x {
			out.DuplicateInterface(x.ID.String(), k.ID.String(), x.Interface)
			continue
		}
		for _, a := range x.Addrs {
			if h := w.hostOf(a); h != "" && w.wanted(a) {
				out.HostAddress(x.ID.String(), h, a)
			}
			if o := w.owner(a); o != nil && o != x {
				out.DuplicateAddress(x.ID.String(), o.ID.String(), a)
			}
		}
	}
}

// policyNotices names what should protect an endpoint here and does not, and
// what of policies, and of what they refer to, cannot be read or is not looked
// at.
func (w world) policyNotices(asked desired.Policy, out desired.Notices) {
	for id, v := range w.all {
		switch v := v.(type) {
		case *model.Profile:
			if v.Broken != "" {
				out.InvalidPolicy(id.String(), v.Broken)
			}
			if v.Name == model.DefaultAllow {
				continue // it allows everything, whatever is stored
			}
			for d, rules := range [][]model.Rule{v.Ingress, v.Egress} {
				way := desired.Direction(d)
				_, inForce := asked.Rules[desired.RulesID{Owner: id.String(), Direction: way}]
				for i, r := range rules {
					if inForce && r.HTTP {
						out.HTTPNotEnforced(id.String(), way, i, r.Name)
					}
				}
			}
		case *model.NetworkSet:
			if v.Broken != "" {
				out.InvalidPolicy(id.String(), v.Broken)
			}
		}
	}
	for _, p := range each[*model.Policy](w) {
		n := 0
		for _, x := range each[*model.HostEndpoint](w) {
			if x.Node == w.set.Node && p.Selects.Matches(w.labels(x.Labels, x.Profiles)) {
				n++
			}
		}
		switch {
		case p.Broken != "" && p.Staged:
			out.InvalidObject(p.Title, p.Broken)
		case p.Broken != "":
			out.InvalidPolicy(p.Title, p.Broken)
		}
		if n > 0 && !p.Staged {
			out.PolicyNotEnforced(p.Title, n)
		}
		for d, of := range []model.Direction{p.Ingress, p.Egress} {
			way := desired.Direction(d)
			_, inForce := asked.Rules[desired.RulesID{Owner: p.Title, Direction: way}]
			for i, r := range of.Rules {
				if inForce && r.HTTP {
					out.HTTPNotEnforced(p.Title, way, i, r.Name)
				}
			}
		}
	}
	for _, x := range each[*model.HostEndpoint](w) {
		if x.Node == w.set.Node && !slices.Contains(x.Profiles, model.DefaultAllow) {
			out.HostEndpointNotEnforced(x.ID.String())
		}
	}
}

// labels are an endpoint's own and those of its profiles, the first winning.
func (w world) labels(own map[string]string, profiles []string) selector.Map {
	out := selector.Map{}
	for _, name := range slices.Backward(profiles) {
		for _, p := range each[*model.Profile](w) {
			if p.Name == name {
				for k, v := range p.Labels {
					out[k] = v
				}
			}
		}
	}
	for k, v := range own {
		out[k] = v
	}
	return out
}
