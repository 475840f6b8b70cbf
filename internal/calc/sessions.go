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
// worked out anew whenever a node or a piece of BGP configuration changes:
// a cluster has far fewer of them than workloads.
type sessions struct {
	me       *model.Node // nil: this host takes no part
	speaker  map[string]desired.Speaker
	peers    map[desired.PeerKey]desired.Peer
	gateways map[netip.Addr]netip.Addr // peer that is reached by a static route -> its gateway
	adverts  []model.Advertisement
	troubles desired.Notices
}

// sessionRun is one calculation of the stage.
type sessionRun struct {
	*sessions
	in     *inputs
	nodes  []*model.Node // by name
	byAddr map[netip.Addr]*model.Node
	common *model.BGPConfig // the cluster's; never nil
}

func (s *sessions) update(in *inputs, t *touched) {
	if !t.sessions {
		return
	}
	*s = sessions{
		speaker:  map[string]desired.Speaker{},
		peers:    map[desired.PeerKey]desired.Peer{},
		gateways: map[netip.Addr]netip.Addr{},
		troubles: desired.Notices{},
	}
	r := &sessionRun{
		sessions: s, in: in,
		nodes:  in.order,
		byAddr: map[netip.Addr]*model.Node{},
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
}

// index finds the node of each address of a family: the first by name.
func (r *sessionRun) index(family int, me *model.Node) {
	for _, n := range r.nodes {
		addr := n.Addr(family)
		if !addr.IsValid() {
			continue
		}
		first, taken := r.byAddr[addr]
		if !taken {
			r.byAddr[addr] = n
			continue
		}
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
	taken := map[netip.Addr]bool{}
	for key := range r.peers {
		taken[key.Addr] = true
	}
	for _, family := range r.in.families() {
		own := r.me.Addr(family)
		if !own.IsValid() {
			continue
		}
		ownText := own.String()
		for _, n := range r.nodes {
			far := n.Addr(family)
			if n == r.me || n.ClusterID.IsValid() || !far.IsValid() || far == own || taken[far] {
				continue
			}
			taken[far] = true
			farText := far.String()
			r.peers[desired.PeerKey{Addr: far, Port: r.portOf(n.Name)}] = desired.Peer{
				Name: "Mesh_" + underscored(farText),
				AS:   r.asOf(n), LocalAS: r.asOf(r.me), LocalAddr: own,
				Passive: farText > ownText,
				Mesh:    true, Restart: r.common.MeshRestart,
			}
		}
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
