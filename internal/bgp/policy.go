package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/osrg/gobgp/v4/api"
)

// policy is what the engine must know to filter what it receives and passes
// on. It says the same as filter.judge, but for the next hop, which is judged
// when routes are collected.
type policy struct {
	imports    filter
	mesh       []netip.Addr // hosts of the cluster
	nextSelf   []netip.Addr // who hears of us as the next hop of everything
	nextKeep   []netip.Addr // who hears the next hops as we heard them
	assignOnce bool         // the engine has no policy yet
}

// policy gathers the wanted policy. The caller holds mu.
func (s *Server) policy() policy {
	p := policy{imports: s.imports, assignOnce: s.engine == nil}
	for _, key := range sortedPeers(s.sessions) {
		peer := s.sessions[key].peer
		if peer.Mesh {
			p.mesh = append(p.mesh, key.Addr)
		}
		switch peer.NextHopMode {
		case "Self":
			p.nextSelf = append(p.nextSelf, key.Addr)
		case "Keep":
			p.nextKeep = append(p.nextKeep, key.Addr)
		}
	}
	return p
}

const (
	importPolicy = "import"
	exportPolicy = "export"
	globalTable  = "global"
)

// setPolicy replaces the engine's policy at once. It does not judge anew what
// was judged before.
func (e *engine) setPolicy(p policy) error {
	b := &policyBuilder{}
	b.statements(p)
	request := &api.SetPoliciesRequest{DefinedSets: b.sets, Policies: []*api.Policy{
		{Name: importPolicy, Statements: b.imports},
		{Name: exportPolicy, Statements: b.exports},
	}}
	if err := e.srv.SetPolicies(context.Background(), request); err != nil {
		return fmt.Errorf("set BGP policy: %w", err)
	}
	if !p.assignOnce {
		return nil
	}
	for _, a := range []*api.PolicyAssignment{
		{
			Name: globalTable, Direction: api.PolicyDirection_POLICY_DIRECTION_IMPORT,
			Policies: request.Policies[:1], DefaultAction: api.RouteAction_ROUTE_ACTION_ACCEPT,
		},
		{
			Name: globalTable, Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT,
			Policies: request.Policies[1:], DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
		},
	} {
		if err := e.srv.AddPolicyAssignment(context.Background(), &api.AddPolicyAssignmentRequest{Assignment: a}); err != nil {
			return fmt.Errorf("assign BGP policy: %w", err)
		}
	}
	return nil
}

// policyBuilder collects statements. An empty set matches everything in the
// engine, so a set is only made of something.
type policyBuilder struct {
	sets             []*api.DefinedSet
	imports, exports []*api.Statement
}

func (b *policyBuilder) statements(p policy) {
	accept, reject := api.RouteAction_ROUTE_ACTION_ACCEPT, api.RouteAction_ROUTE_ACTION_REJECT
	local := &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL}
	b.addImport(local, accept)
	b.add(&b.exports, "export", local, &api.Actions{RouteAction: accept})
	if c := b.neighbours("self", p.nextSelf); c != nil {
		b.add(&b.exports, "export", c, &api.Actions{Nexthop: &api.NexthopAction{Self: true}})
	}
	if c := b.neighbours("keep", p.nextKeep); c != nil {
		b.add(&b.exports, "export", c, &api.Actions{Nexthop: &api.NexthopAction{Unchanged: true}})
	}
	for _, v4 := range []bool{true, false} {
		for _, layer := range p.imports.layers(v4) {
			own := func(q netip.Prefix) bool { return p.imports[q].Own }
			if c := b.prefixes(layer, own); c != nil {
				b.addImport(c, reject)
				b.add(&b.exports, "export", c, &api.Actions{RouteAction: reject})
			}
			if c := b.prefixes(layer, func(q netip.Prefix) bool { return !own(q) }); c != nil {
				b.addImport(c, accept)
				b.add(&b.exports, "export", c, &api.Actions{RouteAction: accept})
			}
		}
	}
	if c := b.neighbours("mesh", p.mesh); c != nil {
		b.addImport(c, reject)
	}
}

func (b *policyBuilder) addImport(c *api.Conditions, action api.RouteAction) {
	b.add(&b.imports, "import", c, &api.Actions{RouteAction: action})
}

func (b *policyBuilder) add(to *[]*api.Statement, name string, c *api.Conditions, a *api.Actions) {
	name += "-" + strconv.Itoa(len(*to))
	*to = append(*to, &api.Statement{Name: name, Conditions: c, Actions: a})
}

// prefixes makes a set of those prefixes of layer that pass, with all that
// lies inside them, and returns the condition that asks for it, or nil.
func (b *policyBuilder) prefixes(layer []netip.Prefix, pass func(netip.Prefix) bool) *api.Conditions {
	set := &api.DefinedSet{
		DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX,
		Name:        "prefixes-" + strconv.Itoa(len(b.sets)),
	}
	for _, p := range layer {
		if pass(p) {
			set.Prefixes = append(set.Prefixes, &api.Prefix{
				IpPrefix:      p.String(),
				MaskLengthMin: uint32(p.Bits()), MaskLengthMax: uint32(p.Addr().BitLen()),
			})
		}
	}
	if len(set.Prefixes) == 0 {
		return nil
	}
	b.sets = append(b.sets, set)
	return &api.Conditions{PrefixSet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: set.Name}}
}

// neighbours makes a set of peers and returns the condition that asks for it,
// or nil if there are none.
func (b *policyBuilder) neighbours(name string, addrs []netip.Addr) *api.Conditions {
	if len(addrs) == 0 {
		return nil
	}
	set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: name}
	for _, a := range slices.Compact(addrs) {
		set.List = append(set.List, netip.PrefixFrom(a.WithZone(""), a.BitLen()).String())
	}
	b.sets = append(b.sets, set)
	return &api.Conditions{NeighborSet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: name}}
}

// rejudge applies the policy to everything that was received before and, if
// peers hear of it from us, to what was passed on. The caller holds mu.
func (s *Server) rejudge() error {
	if !s.gate.opened {
		return nil
	}
	direction := api.ResetPeerRequest_DIRECTION_IN
	if s.gate.synced && s.transit() {
		direction = api.ResetPeerRequest_DIRECTION_BOTH
	}
	err := s.engine.srv.ResetPeer(context.Background(), &api.ResetPeerRequest{Address: "all", Soft: true, Direction: direction})
	if err != nil {
		return fmt.Errorf("judge received BGP routes anew: %w", err)
	}
	return nil
}
