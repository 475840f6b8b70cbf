package oracle

import (
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// Survey is a snapshot of which one wants to know the networks of many hosts:
// what does not depend on the host is looked at once. It changes nothing of
// the snapshot, which must not change while it is used.
type Survey struct {
	shared []model.Value            // of all hosts, in the order of the IDs
	own    map[string][]model.Value // workloads, by host
	names  []string                 // of all nodes
	all    Snapshot
	found  map[bool]*index // without IPv6, and with it
}

// NewSurvey looks at a snapshot.
func NewSurvey(s Snapshot) *Survey {
	v := &Survey{own: map[string][]model.Value{}, all: s, found: map[bool]*index{}}
	for _, x := range newWorld(s, model.Settings{}).values {
		switch x := x.(type) {
		case *model.Workload:
			v.own[x.Node] = append(v.own[x.Node], x)
		case *model.Node:
			v.names, v.shared = append(v.names, x.Name), append(v.shared, x)
		case *model.Policy, *model.Profile, *model.NetworkSet, *model.HostEndpoint, *model.Service, *model.Tier:
		default:
			v.shared = append(v.shared, x)
		}
	}
	for _, noIPv6 := range []bool{false, true} {
		v.found[noIPv6] = newIndex(world{values: v.shared, set: model.Settings{NoIPv6: noIPv6}})
	}
	return v
}

// Nodes lists the hosts, sorted.
func (v *Survey) Nodes() []string { return slices.Clone(v.names) }

// world is the part that the network of a host depends on.
func (v *Survey) world(set model.Settings) world {
	return world{all: v.all, values: slices.Concat(v.shared, v.own[set.Node]), set: set, index: v.found[set.NoIPv6]}
}

// Network says what the network of the host of the settings should look like.
// MTUs are known if the snapshot has an Underlay, which then holds for all.
func (v *Survey) Network(set model.Settings) Network {
	w, state := v.world(set), desired.NewState()
	f := w.fabric()
	f.tunnels(&state)
	state.Routes = w.routes()
	for k, r := range f.routes() {
		state.Routes[k] = r
	}
	return Network{
		Node: set.Node, Devices: state.Devices, Addresses: state.Addresses,
		Neighbours: state.Neighbours, Routes: state.Routes,
	}
}

// Journeys says, for each other host and each pool that holds addresses of
// workloads, how packets travel there from the host of the settings, sorted by
// receiver and pool. It is what the datastore asks for: a host that is down
// does not show. only is the one receiver that one wants to know of; "": all.
func (v *Survey) Journeys(set model.Settings, only string) []Journey {
	var out []Journey
	f := v.world(set).fabric()
	for _, to := range f.nodes {
		for _, p := range f.pools {
			if to.Name == set.Node || only != "" && to.Name != only || p.LoadBalancerOnly || !f.wanted(p.CIDR.Addr()) {
				continue
			}
			j := f.journey(to, p, v4(p.CIDR.Addr()))
			j.From, j.To, j.Pool = set.Node, to.Name, p.Name
			out = append(out, j)
		}
	}
	return out
}

// index finds nodes and blocks without going through all again. It holds for
// every host that cares for the same families.
type index struct {
	common model.BGPConfig // the cluster's
	nodes  []*model.Node
	byName map[string]*model.Node
	byAddr map[netip.Addr]*model.Node      // the first that has it
	byEnd  map[netip.Addr]*model.Node      // the first with a tunnel that has it
	byMAC  map[bool]map[string]*model.Node // the first that has it for VXLAN, by family
	blocks []*model.Block                  // of hosts
	byCIDR map[netip.Prefix][]*model.Block
	ofHost map[string][]*model.Block
	uses   map[netip.Addr][]blockUse
	ends   map[*model.Node][2]model.TunnelEnd // of VXLAN, IPv6 and IPv4, with their MACs
}

// blockUse is one use of an address of a block.
type blockUse struct {
	block *model.Block
	use   model.Use
}

func newIndex(w world) *index {
	x := &index{
		common: w.config("default"), nodes: each[*model.Node](w),
		byName: map[string]*model.Node{}, byAddr: map[netip.Addr]*model.Node{}, byEnd: map[netip.Addr]*model.Node{},
		byMAC:  map[bool]map[string]*model.Node{true: {}, false: {}},
		byCIDR: map[netip.Prefix][]*model.Block{}, ofHost: map[string][]*model.Block{}, uses: map[netip.Addr][]blockUse{},
		ends: map[*model.Node][2]model.TunnelEnd{},
	}
	for _, n := range x.nodes {
		x.byName[n.Name] = n
		x.ends[n] = [2]model.TunnelEnd{vxlanEnd(n, false), vxlanEnd(n, true)}
		for _, four := range []bool{true, false} {
			if a := nodeAddr(n, four); a.IsValid() {
				first(x.byAddr, a, n)
			}
			if end := vxlanEnd(n, four); end.Addr.IsValid() {
				first(x.byMAC[four], end.MAC, n)
			}
		}
		for _, a := range w.tunnelAddrs(n) {
			first(x.byEnd, a, n)
		}
	}
	for _, b := range each[*model.Block](w) {
		if b.Virtual || !w.wanted(b.CIDR.Addr()) {
			continue
		}
		x.blocks = append(x.blocks, b)
		x.byCIDR[b.CIDR] = append(x.byCIDR[b.CIDR], b)
		x.ofHost[b.Host] = append(x.ofHost[b.Host], b)
		for _, u := range b.Uses {
			x.uses[u.Addr] = append(x.uses[u.Addr], blockUse{b, u})
		}
	}
	return x
}

// first keeps the value that was there before.
func first[K comparable, V any](m map[K]V, k K, v V) {
	if _, there := m[k]; !there {
		m[k] = v
	}
}
