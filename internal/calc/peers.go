package calc

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// farEnd is the other end of an explicit session.
type farEnd struct {
	addr      netip.Addr
	port      uint16
	as        uint32
	clusterID netip.Addr // invalid: none or unknown
	passive   bool
}

// explicit makes the sessions that BGPPeers ask for, in the documented order:
// those for all nodes, those for some, then the far ends of both. The first to
// name an address and port has it.
func (r *sessionRun) explicit() {
	peers := r.in.sortedPeers()
	for _, p := range peers {
		if p.Node == "" && p.Nodes == nil {
			r.forward(p, "Global_")
		}
	}
	for _, p := range peers {
		if (p.Node != "" || p.Nodes != nil) && local(p, r.me) {
			r.forward(p, "Node_")
		}
	}
	for _, p := range peers {
		if !p.ReverseManual && p.Workloads == nil && r.far(p, r.me) {
			r.reverse(p)
		}
	}
}

// local reports whether a node is on the local side of a peering.
func local(p *model.BGPPeer, n *model.Node) bool {
	switch {
	case p.Node != "":
		return p.Node == n.Name
	case p.Nodes != nil:
		return p.Nodes.Matches(selector.Map(n.Labels))
	}
	return true
}

// far reports whether a node is on the far side of a peering.
func (r *sessionRun) far(p *model.BGPPeer, n *model.Node) bool {
	if p.Peers != nil {
		return p.Peers.Matches(selector.Map(n.Labels))
	}
	if !p.Addr.IsValid() || n.Addr(familyOf(p.Addr)) != p.Addr {
		return false
	}
	return (p.AS == 0 || p.AS == r.asOf(n)) && (p.Port == 0 || p.Port == r.portOf(n.Name))
}

func familyOf(a netip.Addr) int {
	if a.Is6() {
		return 6
	}
	return 4
}

func (r *sessionRun) forward(p *model.BGPPeer, scope string) {
	switch {
	case p.Workloads != nil:
		r.troubles.SessionWithheld(peerID(p), "WorkloadPeeringNotSupported",
			"peering with workloads is not supported by this version")
	case p.Peers != nil:
		for _, n := range r.nodes {
			if n != r.me && p.Peers.Matches(selector.Map(n.Labels)) {
				r.toNode(p, n, scope, p.TTLSecurity)
			}
		}
	case p.Addr.IsValid():
		r.toAddr(p, scope)
	}
}

func peerID(p *model.BGPPeer) string {
	return model.ID{Kind: model.KindBGPPeer, Name: p.Name}.String()
}

// toAddr makes the session with the address of a peer.
func (r *sessionRun) toAddr(p *model.BGPPeer, scope string) {
	own := r.me.Addr(familyOf(p.Addr))
	if own == p.Addr {
		return
	}
	end := farEnd{addr: p.Addr, port: p.Port, as: p.AS}
	if n := r.at[p.Addr]; n != nil {
		end.as = cmp.Or(end.as, r.asOf(n))
		if end.port == 0 && end.as == r.asOf(n) {
			end.port = r.portOf(n.Name)
		}
		end.passive = scope == "Global_" && p.Addr.String() > own.String()
	}
	end.as = cmp.Or(end.as, r.common.AS, model.DefaultAS)
	end.port = cmp.Or(end.port, model.DefaultPort)
	peer := desired.Peer{LocalAS: p.LocalAS, AllowLocalAS: p.AllowLocalAS, TTLSecurity: p.TTLSecurity}
	if r.add(p, scope, end, peer) && p.Options.ReachableBy.IsValid() {
		r.gateways[p.Addr] = p.Options.ReachableBy
	}
}

// toNode makes the sessions with a node, one for each family of both.
func (r *sessionRun) toNode(p *model.BGPPeer, n *model.Node, scope string, ttl uint8) {
	for _, family := range r.in.families() {
		if addr := n.Addr(family); addr.IsValid() && addr != r.me.Addr(family) {
			end := farEnd{addr: addr, port: r.portOf(n.Name), as: r.asOf(n), clusterID: n.ClusterID}
			r.add(p, scope, end, desired.Peer{TTLSecurity: ttl})
		}
	}
}

// reverse makes, at a far end of a peering, the sessions with its local ends.
func (r *sessionRun) reverse(p *model.BGPPeer) {
	for _, n := range r.nodes {
		if n == r.me || !local(p, n) {
			continue
		}
		if p.Peers != nil {
			r.toNode(p, n, "Node_", 0)
			continue
		}
		family := familyOf(p.Addr)
		if addr := n.Addr(family); addr.IsValid() && addr != p.Addr {
			end := farEnd{addr: addr, port: r.portOf(n.Name), as: r.asOf(n), clusterID: n.ClusterID}
			r.add(p, "Node_", end, desired.Peer{})
		}
	}
}

// add completes a session and keeps it, unless the far end has one already or
// something that was asked for cannot be honoured: then it is not made, for a
// session without its password or filter does harm that its absence does not.
func (r *sessionRun) add(p *model.BGPPeer, scope string, end farEnd, peer desired.Peer) bool {
	own := r.me.Addr(familyOf(end.addr))
	gateway := p.Options.ReachableBy
	if !own.IsValid() || r.in.set.NoIPv6 && end.addr.Is6() ||
		gateway.IsValid() && p.Addr.IsValid() && familyOf(gateway) != familyOf(p.Addr) {
		return false
	}
	if p.Options.Password != "" {
		r.troubles.SessionWithheld(peerID(p), "PasswordNotAvailable",
			"password "+p.Options.Password+" cannot be read")
		return false
	}
	for _, f := range p.Filters {
		if r.in.filters[f] != nil {
			r.troubles.SessionWithheld(peerID(p), "FilterNotSupported",
				"BGPFilter "+f+" is not supported by this version")
			return false
		}
	}
	key := desired.PeerKey{Addr: end.addr, Port: end.port}
	if _, taken := r.peers[key]; taken {
		return false
	}
	peer.Name = scope + underscored(end.addr.String())
	if end.port != model.DefaultPort {
		peer.Name += fmt.Sprintf("_port_%d", end.port)
	}
	peer.AS, peer.LocalAS = end.as, cmp.Or(peer.LocalAS, r.asOf(r.me))
	if !p.Options.NoSource {
		peer.LocalAddr = own
	}
	internal := peer.AS == peer.LocalAS
	peer.Passive, peer.Restart, peer.Keepalive = end.passive, p.Options.Restart, p.Options.Keepalive
	peer.NextHopMode = p.Options.NextHopMode
	if peer.NextHopMode == "" && p.Options.KeepNextHop && !internal {
		peer.NextHopMode = "Keep"
	}
	if id := r.me.ClusterID; id.IsValid() && internal && end.clusterID != id {
		peer.ClientOf = id
	}
	r.peers[key] = peer
	return true
}
