package calc

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/model"
)

// inputs is what the datastore says now, as far as this host needs it whole:
// of workloads, host endpoints and affinities only its own are kept, so that
// the cost of a change elsewhere does not grow with the cluster. What policy
// must know of the others is in members.
type inputs struct {
	set       model.Settings
	fresh     bool // nothing was calculated yet
	nodes     map[string]*model.Node
	order     sorted
	workloads map[model.ID]*model.Workload     // on this host
	local     []model.ID                       // of these, in their order
	hosts     map[model.ID]*model.HostEndpoint // of this host
	pools     map[string]*model.Pool
	blocks    map[model.ID]*model.Block    // all; of those elsewhere only the addresses that are borrowed
	claims    map[model.ID]*model.Affinity // of this host
	configs   map[string]*model.BGPConfig
	byBGP     programmers
	peers     map[string]*model.BGPPeer
	filters   map[string]*model.BGPFilter
	info      map[string]*model.ClusterInfo
	tiers     map[string]*model.Tier
	invalid   map[model.ID]*model.Invalid
	unusable  map[model.ID]string // why: see model.Unusable
	underlay  model.Underlay
	recall    bool // note what blocks were before a batch
}

func newInputs(s model.Settings) inputs {
	return inputs{
		set: s, fresh: true,
		nodes:     map[string]*model.Node{},
		workloads: map[model.ID]*model.Workload{},
		hosts:     map[model.ID]*model.HostEndpoint{},
		pools:     map[string]*model.Pool{},
		blocks:    map[model.ID]*model.Block{},
		claims:    map[model.ID]*model.Affinity{},
		configs:   map[string]*model.BGPConfig{},
		peers:     map[string]*model.BGPPeer{},
		filters:   map[string]*model.BGPFilter{},
		info:      map[string]*model.ClusterInfo{},
		tiers:     map[string]*model.Tier{},
		invalid:   map[model.ID]*model.Invalid{},
		unusable:  map[model.ID]string{},
	}
}

// touched says which inputs a batch changed, and then which stages came out
// anew: a stage skips what it can.
type touched struct {
	first     bool // the very first batch
	workloads bool // local ones, or what they come to
	pools     bool
	blocks    bool // those with a claim of ours
	nodes     bool
	peering   bool // BGP configuration, peers, filters
	sessions  bool // all of them
	other     bool // info, invalid objects, host endpoints
	hosts     bool // local host endpoints
	tiers     bool
	matches   bool     // what is to be said of policies
	profiles  []string // by name
	tunnels   bool     // what is to be told of them
	underlay  bool
	settings  bool
	senders   []netip.Prefix // that settings named before
	nodeNames map[string]bool
	// Blocks, each with what it was before the batch; see inputs.recall.
	blocksWere map[model.ID]*model.Block
}

// take stores a batch. An object that is stored with the value that it has
// already touches nothing.
func (in *inputs) take(batch []model.Event) *touched {
	t := &touched{first: in.fresh, nodeNames: map[string]bool{}, blocksWere: map[model.ID]*model.Block{}}
	in.fresh = false
	if t.first {
		t.workloads, t.pools, t.blocks, t.peering, t.other, t.matches = true, true, true, true, true, true
	}
	for _, e := range batch {
		in.takeOne(e, t)
	}
	return t
}

func (in *inputs) takeOne(e model.Event, t *touched) {
	id := e.ID
	bad, _ := e.Value.(*model.Invalid)
	if put(in.invalid, id, bad, bad != nil) {
		t.other = true
	}
	if why := model.Unusable(id, e.Value); why != in.unusable[id] {
		t.other, in.unusable[id] = true, why
		if why == "" {
			delete(in.unusable, id)
		}
	}
	switch id.Kind {
	case model.KindNode:
		v, ok := e.Value.(*model.Node)
		if put(in.nodes, id.Name, v, ok) {
			t.nodes, t.nodeNames[id.Name] = true, true
			in.order.note(id.Name)
		}
	case model.KindBGPConfig:
		v, ok := e.Value.(*model.BGPConfig)
		t.peering = put(in.configs, id.Name, v, ok) || t.peering
		t.pools = in.takeProgrammers() || t.pools
	case model.KindBGPPeer:
		v, ok := e.Value.(*model.BGPPeer)
		t.peering = put(in.peers, id.Name, v, ok) || t.peering
	case model.KindBGPFilter:
		v, ok := e.Value.(*model.BGPFilter)
		t.peering = put(in.filters, id.Name, v, ok) || t.peering
	case model.KindPool:
		v, ok := e.Value.(*model.Pool)
		t.pools = put(in.pools, id.Name, v, ok) || t.pools
	case model.KindClusterInfo:
		v, ok := e.Value.(*model.ClusterInfo)
		t.other = put(in.info, id.Name, v, ok) || t.other
	case model.KindBlock, model.KindAffinity:
		in.takeBlock(e, t)
	case model.KindSettings:
		if v, ok := e.Value.(*model.Settings); ok {
			in.takeSettings(*v, t)
		}
	case model.KindUnderlay:
		v, ok := e.Value.(*model.Underlay)
		if !ok {
			v = &model.Underlay{}
		}
		t.underlay, in.underlay = t.underlay || *v != in.underlay, *v
	default:
		in.takePolicy(e, t)
	}
}

// takeSettings takes what changes of settings while a core lives. What they say
// of routes to pools touches the pools.
func (in *inputs) takeSettings(next model.Settings, t *touched) {
	next = in.set.Live(next)
	if reflect.DeepEqual(next, in.set) {
		return
	}
	t.senders = append(t.senders, in.set.Overlay.ExternalNodes...)
	in.set, t.settings, t.pools = next, true, true
}

// programmers is what the cluster's BGP configuration says of the routes of
// pools.
type programmers struct{ ipip, noPlain bool }

// takeProgrammers reports whether that has changed.
func (in *inputs) takeProgrammers() bool {
	now := programmers{}
	if c := in.configs["default"]; c != nil {
		now = programmers{c.IPIPRoutes, c.NoPlainRoutes}
	}
	changed := now != in.byBGP
	in.byBGP = now
	return changed
}

// aside reports whether BGP is to bring no routes to a pool into the kernel.
// Those of VXLAN pools it brings beside: they take over while hosts change.
func (in *inputs) aside(p *model.Pool) bool {
	return p != nil && in.byBGP.noPlain && (p.Encap == model.NoEncap || !in.byBGP.ipip)
}

// takeBlock stores a block or a claim. A block matters only together with a
// claim of this host to it.
func (in *inputs) takeBlock(e model.Event, t *touched) {
	id := e.ID
	if id.Kind == model.KindAffinity {
		if id.Namespace == in.set.Node {
			v, ok := e.Value.(*model.Affinity)
			t.blocks = put(in.claims, id, v, ok) || t.blocks
		}
		return
	}
	v, ok := e.Value.(*model.Block)
	if ok && in.elsewhere(v) && len(v.Uses) > 0 {
		v = &model.Block{CIDR: v.CIDR, Host: v.Host, Virtual: v.Virtual, Uses: in.borrowed(v)}
	}
	claim := model.ID{Kind: model.KindAffinity, Namespace: in.set.Node, Name: id.Name}
	old := in.blocks[id]
	if !put(in.blocks, id, v, ok) {
		return
	}
	if _, had := t.blocksWere[id]; in.recall && !had {
		t.blocksWere[id] = old
	}
	if in.claims[claim] != nil {
		t.blocks = true
	}
}

// borrowed are the addresses of another's block that a third host uses.
func (in *inputs) borrowed(b *model.Block) []model.Use {
	var out []model.Use
	for _, use := range b.Uses {
		if !b.Virtual && use.Node != "" && use.Node != b.Host && use.Node != in.set.Node {
			out = append(out, model.Use{Addr: use.Addr, Node: use.Node})
		}
	}
	return out
}

// elsewhere reports whether a block says that it belongs to somebody else.
func (in *inputs) elsewhere(b *model.Block) bool {
	return b.Virtual || b.Host != "" && b.Host != in.set.Node
}

// takePolicy stores the local endpoints and the tiers.
func (in *inputs) takePolicy(e model.Event, t *touched) {
	id := e.ID
	switch id.Kind {
	case model.KindWorkload:
		v, ok := e.Value.(*model.Workload)
		t.workloads = put(in.workloads, id, v, ok && v.Node == in.set.Node) || t.workloads
		at, listed := slices.BinarySearchFunc(in.local, id, model.ID.Compare)
		if _, there := in.workloads[id]; there && !listed {
			in.local = slices.Insert(in.local, at, id)
		} else if !there && listed {
			in.local = slices.Delete(in.local, at, at+1)
		}
	case model.KindHostEndpoint:
		v, ok := e.Value.(*model.HostEndpoint)
		if put(in.hosts, id, v, ok && v.Node == in.set.Node) {
			t.other, t.hosts = true, true
		}
	case model.KindTier:
		v, ok := e.Value.(*model.Tier)
		t.tiers = put(in.tiers, id.Name, v, ok) || t.tiers
	}
}

// put stores a value under its key, or removes the key when there is none to
// keep, and reports whether that changed anything.
func put[K comparable, V any](table map[K]*V, key K, value *V, keep bool) bool {
	old, had := table[key]
	if !keep {
		delete(table, key)
		return had
	}
	if had && reflect.DeepEqual(old, value) {
		return false
	}
	table[key] = value
	return true
}

// sorted is the nodes by name, put in order when somebody asks: most changes of
// a node concern nobody who does.
type sorted struct {
	nodes []*model.Node   // nil: all are to be sorted
	moved map[string]bool // that have changed since; few
}

// few is how many things of a kind are looked at one by one, rather than all
// of them anew.
const few = 64

// note says that a node has changed.
func (s *sorted) note(name string) {
	if s.moved == nil || len(s.moved) == few {
		s.nodes, s.moved = nil, map[string]bool{}
	}
	if s.nodes != nil {
		s.moved[name] = true
	}
}

// byName returns all nodes in order. The caller does not keep the list.
func (in *inputs) byName() []*model.Node {
	s := &in.order
	if s.nodes == nil {
		s.nodes = slices.SortedFunc(maps.Values(in.nodes), func(a, b *model.Node) int { return strings.Compare(a.Name, b.Name) })
		return s.nodes
	}
	for name := range s.moved {
		i, found := slices.BinarySearchFunc(s.nodes, name, func(n *model.Node, name string) int {
			return strings.Compare(n.Name, name)
		})
		switch n := in.nodes[name]; {
		case n != nil && found:
			s.nodes[i] = n
		case n != nil:
			s.nodes = slices.Insert(s.nodes, i, n)
		case found:
			s.nodes = slices.Delete(s.nodes, i, i+1)
		}
	}
	clear(s.moved)
	return s.nodes
}

// families returns the address families that this host cares for.
func (in *inputs) families() []int {
	if in.set.NoIPv6 {
		return []int{4}
	}
	return []int{4, 6}
}
