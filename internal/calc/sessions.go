package calc

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// sessions is the stage that decides with whom this host speaks BGP. It is
// worked out anew whenever a piece of BGP configuration changes, or this host's
// Node; another's only moves its own sessions while there is nothing but the
// mesh.
type sessions struct {
	me       *model.Node // nil: this host takes no part
	speaker  map[string]desired.Speaker
	peers    map[desired.PeerKey]desired.Peer
	gateways map[netip.Addr]netip.Addr // peer that is reached by a static route -> its gateway
	adverts  []model.Advertisement
	troubles desired.Notices

	// What moving a node takes; see follow.
	meshed  bool // there is the mesh and nothing else
	byAddr  map[netip.Addr]string
	addrs   map[string][2]netip.Addr // of a node, by family
	stirred map[desired.PeerKey]bool // sessions that may have changed
}

// sessionRun is one calculation of the stage.
type sessionRun struct {
	*sessions
	in     *inputs
	nodes  []*model.Node // by name
	at     map[netip.Addr]*model.Node
	twice  bool             // two nodes have one address
	common *model.BGPConfig // the cluster's; never nil
}

func (s *sessions) update(in *inputs, t *touched) {
	if !t.peering && (len(t.nodeNames) == 0 || s.follow(in, t.nodeNames)) {
		return
	}
	t.sessions = true
	*s = sessions{
		speaker:  map[string]desired.Speaker{},
		peers:    map[desired.PeerKey]desired.Peer{},
		gateways: map[netip.Addr]netip.Addr{},
		troubles: desired.Notices{},
	}
	r := &sessionRun{
		sessions: s, in: in,
		nodes:  in.byName(),
		at:     make(map[netip.Addr]*model.Node, len(in.nodes)),
		common: cmp.Or(in.configs["default"], &model.BGPConfig{}),
	}
	me := in.nodes[in.set.Node]
	for _, family := range in.families() {
		r.index(family, me)
		if me != nil && me.Addr(family).IsValid() {
			s.me = me
		}
	}
	for _, cfg := range []*model.BGPConfig{r.common, in.configs["node."+in.set.Node]} {
		if cfg != nil && len(cfg.Advertisements) > 0 {
			s.adverts = cfg.Advertisements
		}
	}
	if r.common.Services {
		s.troubles.ServicesNotAnnounced(model.ID{Kind: model.KindBGPConfig, Name: "default"}.String())
	}
	if s.me == nil {
		s.troubles.NoBGPAddress(nodeID(in.set.Node))
		return
	}
	if in.set.Overlay.NoBGP {
		return
	}
	r.speak()
	r.explicit()
	r.mesh()
	if s.meshed = s.meshed && len(in.peers) == 0 && !r.twice; s.meshed {
		r.remember()
	}
}

// remember prepares follow.
func (r *sessionRun) remember() {
	r.byAddr, r.addrs = make(map[netip.Addr]string, len(r.at)), make(map[string][2]netip.Addr, len(r.nodes))
	r.stirred = map[desired.PeerKey]bool{}
	for addr, n := range r.at {
		r.byAddr[addr] = n.Name
	}
	for _, n := range r.nodes {
		r.addrs[n.Name] = r.addrsOf(n)
	}
}

func (r *sessionRun) addrsOf(n *model.Node) (out [2]netip.Addr) {
	for i, family := range r.in.families() {
		out[i] = n.Addr(family)
	}
	return out
}

// follow moves the sessions with some nodes, and reports whether that is all
// that has to be done. If it is not, nothing here counts any more.
func (s *sessions) follow(in *inputs, names map[string]bool) bool {
	if !s.meshed || names[in.set.Node] {
		return false
	}
	r := &sessionRun{sessions: s, in: in, common: cmp.Or(in.configs["default"], &model.BGPConfig{})}
	for name := range names {
		for _, addr := range s.addrs[name] {
			if addr.IsValid() {
				key := desired.PeerKey{Addr: addr, Port: r.portOf(name)}
				s.stirred[key] = true
				delete(s.peers, key)
				delete(s.byAddr, addr)
			}
		}
		delete(s.addrs, name)
	}
	for name := range names {
		n := in.nodes[name]
		if n == nil {
			continue
		}
		s.addrs[name] = r.addrsOf(n)
		for i, family := range in.families() {
			addr := s.addrs[name][i]
			if !addr.IsValid() {
				continue
			}
			if _, taken := s.byAddr[addr]; taken {
				return false
			}
			s.byAddr[addr] = name
			if own := s.me.Addr(family); own.IsValid() && !n.ClusterID.IsValid() {
				key, peer := r.meshPeer(n, addr, own)
				s.peers[key], s.stirred[key] = peer, true
			}
		}
	}
	return true
}

// moved makes asked equal to the sessions that follow has moved, and says what
// it took.
func (s *sessions) moved(asked map[desired.PeerKey]desired.Peer) (p desired.Patch[desired.PeerKey, desired.Peer]) {
	for key := range s.stirred {
		old, had := asked[key]
		switch peer, wanted := s.peers[key]; {
		case wanted && (!had || old != peer):
			if p.Set == nil {
				p.Set = map[desired.PeerKey]desired.Peer{}
			}
			p.Set[key] = peer
		case !wanted && had:
			p.Delete = append(p.Delete, key)
		}
	}
	clear(s.stirred)
	p.Play(asked)
	return p
}

// index finds the node of each address of a family: the first by name.
func (r *sessionRun) index(family int, me *model.Node) {
	for _, n := range r.nodes {
		addr := n.Addr(family)
		if !addr.IsValid() {
			continue
		}
		first, taken := r.at[addr]
		if !taken {
			r.at[addr] = n
			continue
		}
		r.twice = true
		own := me != nil && me.Addr(family) == addr
		r.troubles.DuplicateNodeAddress(nodeID(n.Name), nodeID(first.Name), addr, own)
	}
}

func nodeID(name string) string { return model.ID{Kind: model.KindNode, Name: name}.String() }

func (r *sessionRun) speak() {
	s := desired.Speaker{
		AS: r.asOf(r.me), ListenPort: r.portOf(r.me.Name),
		RouterID: cmp.Or(r.in.set.RouterID, r.me.Addr(4)),
	}
	if !s.RouterID.IsValid() {
		s.RouterID = hashedRouterID(r.me.Name)
	}
	own := r.in.configs["node."+r.me.Name]
	if r.common.BindNodeIP || own != nil && own.BindNodeIP {
		for _, family := range r.in.families() {
			if addr := r.me.Addr(family); addr.IsValid() {
				s.ListenOn = append(s.ListenOn, addr)
			}
		}
	}
	r.speaker[""] = s
}

// hashedRouterID derives a router id from a name as documented for
// CALICO_ROUTER_ID=hash: the first four bytes of the name's SHA-256, below
// the multicast range.
func hashedRouterID(name string) netip.Addr {
	sum := sha256.Sum256([]byte(name))
	id := [4]byte(sum[:4])
	if id[0] > 223 {
		id[0] -= 32
	}
	return netip.AddrFrom4(id)
}

// asOf is the AS number of a node: its own, else the cluster's.
func (r *sessionRun) asOf(n *model.Node) uint32 {
	return cmp.Or(n.AS, r.common.AS, model.DefaultAS)
}

// portOf is the port that a node listens on: its own, else the cluster's.
func (r *sessionRun) portOf(node string) uint16 {
	if own := r.in.configs["node."+node]; own != nil && own.ListenPort != 0 {
		return own.ListenPort
	}
	return cmp.Or(r.common.ListenPort, model.DefaultPort)
}

// mesh makes a session with every other node, unless this host or the other
// is a route reflector. An explicit peer with the same address stands instead:
// one far end has one session.
func (r *sessionRun) mesh() {
	if (r.common.Mesh != nil && !*r.common.Mesh) || r.me.ClusterID.IsValid() {
		return
	}
	if r.common.MeshPassword != "" {
		r.troubles.SessionWithheld(model.ID{Kind: model.KindBGPConfig, Name: "default"}.String(),
			"PasswordNotAvailable", "nodeMeshPassword "+r.common.MeshPassword+" cannot be read")
		return
	}
	r.meshed = true
	r.peers = room(r.peers, len(r.at))
	taken := make(map[netip.Addr]bool, len(r.at))
	for key := range r.peers {
		taken[key.Addr] = true
	}
	for _, family := range r.in.families() {
		own := r.me.Addr(family)
		if !own.IsValid() {
			continue
		}
		for _, n := range r.nodes {
			far := n.Addr(family)
			if n == r.me || n.ClusterID.IsValid() || !far.IsValid() || far == own || taken[far] {
				continue
			}
			taken[far] = true
			key, peer := r.meshPeer(n, far, own)
			r.peers[key] = peer
		}
	}
}

// meshPeer is the session of the mesh between two addresses.
func (r *sessionRun) meshPeer(n *model.Node, far, own netip.Addr) (desired.PeerKey, desired.Peer) {
	farText := far.String()
	return desired.PeerKey{Addr: far, Port: r.portOf(n.Name)}, desired.Peer{
		Name: "Mesh_" + underscored(farText),
		AS:   r.asOf(n), LocalAS: r.asOf(r.me), LocalAddr: own,
		Passive: farText > own.String(),
		Mesh:    true, Restart: r.common.MeshRestart,
	}
}

// underscored writes an address as part of a session's name.
func underscored(addr string) string {
	text := []byte(addr)
	for i, c := range text {
		if c == '.' || c == ':' {
			text[i] = '_'
		}
	}
	return string(text)
}

// sortedPeers returns the explicit peers by name.
func (in *inputs) sortedPeers() []*model.BGPPeer {
	return slices.SortedFunc(maps.Values(in.peers), func(a, b *model.BGPPeer) int {
		return strings.Compare(a.Name, b.Name)
	})
}
