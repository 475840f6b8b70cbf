package oracle

import (
	"crypto/sha256"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// nodeAddr is the address of a node in one family, invalid if there is none.
func nodeAddr(n *model.Node, four bool) netip.Addr {
	if four {
		return n.Addr4.Addr()
	}
	return n.Addr6.Addr()
}

// me is this host if it has an address to speak BGP from, else nil.
func (w world) me() *model.Node {
	for _, n := range each[*model.Node](w) {
		if n.Name == w.set.Node && (n.Addr4.IsValid() || n.Addr6.IsValid() && !w.set.NoIPv6) {
			return n
		}
	}
	return nil
}

// config returns a BGP configuration, an empty one if there is none.
func (w world) config(name string) model.BGPConfig {
	for _, c := range each[*model.BGPConfig](w) {
		if c.Name == name {
			return *c
		}
	}
	return model.BGPConfig{}
}

func (w world) clusterAS() uint32 {
	if as := w.config("default").AS; as != 0 {
		return as
	}
	return model.DefaultAS
}

func (w world) as(n *model.Node) uint32 {
	if n.AS != 0 {
		return n.AS
	}
	return w.clusterAS()
}

func (w world) port(n *model.Node) uint16 {
	for _, name := range []string{"node." + n.Name, "default"} {
		if port := w.config(name).ListenPort; port != 0 {
			return port
		}
	}
	return model.DefaultPort
}

func (w world) speakers() map[string]desired.Speaker {
	me := w.me()
	if me == nil || w.set.Overlay.NoBGP {
		return map[string]desired.Speaker{}
	}
	s := desired.Speaker{AS: w.as(me), ListenPort: w.port(me), RouterID: w.set.RouterID}
	if !s.RouterID.IsValid() {
		s.RouterID = me.Addr4.Addr()
	}
	if !s.RouterID.IsValid() {
		h := sha256.Sum256([]byte(w.set.Node))
		if h[0] >= 224 {
			h[0] -= 32
		}
		s.RouterID, _ = netip.AddrFromSlice(h[:4])
	}
	if w.config("default").BindNodeIP || w.config("node."+me.Name).BindNodeIP {
		if me.Addr4.IsValid() {
			s.ListenOn = append(s.ListenOn, me.Addr4.Addr())
		}
		if me.Addr6.IsValid() && !w.set.NoIPv6 {
			s.ListenOn = append(s.ListenOn, me.Addr6.Addr())
		}
	}
	return map[string]desired.Speaker{"": s}
}

func (w world) path(prefix netip.Prefix) desired.Path {
	adverts := w.config("default").Advertisements
	if own := w.config("node." + w.set.Node).Advertisements; len(own) > 0 {
		adverts = own
	}
	seen := map[string]bool{}
	p := desired.Path{LocalPref: 2147483647 - uint32(w.metric(prefix.Addr()))}
	for _, a := range adverts {
		for _, c := range a.Communities {
			if covers(a.CIDR, prefix) && !seen[c] {
				seen[c] = true
				p.Communities = append(p.Communities, c)
			}
		}
	}
	slices.Sort(p.Communities)
	return p
}

// session is one session that a BGPPeer asks for, honoured or not.
type session struct {
	by       *model.BGPPeer
	key      desired.PeerKey
	peer     desired.Peer
	gateway  netip.Addr
	withheld string // reason; "" if the session is made
	because  string
}

// peers: explicit sessions, and those of the mesh with addresses that have no
// explicit one.
func (w world) peers() map[desired.PeerKey]desired.Peer {
	out := map[desired.PeerKey]desired.Peer{}
	addrs := map[netip.Addr]bool{}
	for _, s := range w.explicitSessions() {
		out[s.key] = s.peer
		addrs[s.key.Addr] = true
	}
	me, common := w.me(), w.config("default")
	if me == nil || w.set.Overlay.NoBGP || me.ClusterID.IsValid() || common.MeshPassword != "" || common.Mesh != nil && !*common.Mesh {
		return out
	}
	for _, n := range each[*model.Node](w) {
		for _, four := range []bool{true, false} {
			mine, theirs := nodeAddr(me, four), nodeAddr(n, four)
			if n.ClusterID.IsValid() || !mine.IsValid() || !theirs.IsValid() || mine == theirs ||
				!w.wanted(mine) || addrs[theirs] {
				continue
			}
			addrs[theirs] = true
			out[desired.PeerKey{Addr: theirs, Port: w.port(n)}] = desired.Peer{
				Name: "Mesh_" + plain(theirs), Mesh: true, AS: w.as(n), LocalAS: w.as(me),
				LocalAddr: mine, Passive: theirs.String() > mine.String(), Restart: common.MeshRestart,
			}
		}
	}
	return out
}

func plain(a netip.Addr) string {
	return strings.ReplaceAll(strings.ReplaceAll(a.String(), ".", "_"), ":", "_")
}

// explicitSessions are those made: of all that are asked for and can be
// honoured, the first for each far end.
func (w world) explicitSessions() []session {
	var out []session
	for _, s := range w.asked() {
		taken := slices.ContainsFunc(out, func(o session) bool { return o.key == s.key })
		if s.withheld == "" && !taken {
			out = append(out, s)
		}
	}
	return out
}

// asked lists what every BGPPeer asks of this host: first the peers of all
// nodes, then those of some, then the far ends.
func (w world) asked() []session {
	me := w.me()
	if me == nil || w.set.Overlay.NoBGP {
		return nil
	}
	var everyone, some, back []session
	for _, p := range each[*model.BGPPeer](w) {
		if p.Node == "" && p.Nodes == nil {
			everyone = append(everyone, w.forward(p, me)...)
		} else if isLocal(p, me) {
			some = append(some, w.forward(p, me)...)
		}
		if !p.ReverseManual && p.Workloads == nil {
			back = append(back, w.backward(p, me)...)
		}
	}
	return slices.Concat(everyone, some, back)
}

func isLocal(p *model.BGPPeer, n *model.Node) bool {
	if p.Node == "" && p.Nodes == nil {
		return true
	}
	if p.Node != "" {
		return n.Name == p.Node
	}
	return p.Nodes.Matches(selector.Map(n.Labels))
}

// named writes the name of a session.
func named(p *model.BGPPeer, key desired.PeerKey, back bool) string {
	name := "Node_"
	if p.Node == "" && p.Nodes == nil && !back {
		name = "Global_"
	}
	name += plain(key.Addr)
	if key.Port != 179 {
		name += "_port_" + strconv.Itoa(int(key.Port))
	}
	return name
}

// forward lists the sessions of a peer on its local side.
func (w world) forward(p *model.BGPPeer, me *model.Node) []session {
	if p.Workloads != nil {
		return []session{{by: p, withheld: "WorkloadPeeringNotSupported",
			because: "peering with workloads is not supported by this version"}}
	}
	if p.Peers == nil {
		return w.toAddress(p, me)
	}
	var out []session
	for _, n := range each[*model.Node](w) {
		if n.Name == me.Name || !p.Peers.Matches(selector.Map(n.Labels)) {
			continue
		}
		for _, s := range w.between(p, me, n, false) {
			s.peer.TTLSecurity = p.TTLSecurity
			out = append(out, s)
		}
	}
	return out
}

func (w world) toAddress(p *model.BGPPeer, me *model.Node) []session {
	mine := nodeAddr(me, v4(p.Addr))
	if !p.Addr.IsValid() || !w.wanted(p.Addr) || !mine.IsValid() || mine == p.Addr {
		return nil
	}
	var node *model.Node
	for _, n := range each[*model.Node](w) {
		if node == nil && nodeAddr(n, v4(p.Addr)) == p.Addr {
			node = n
		}
	}
	as, port := p.AS, p.Port
	if as == 0 && node != nil {
		as = w.as(node)
	}
	if as == 0 {
		as = w.clusterAS()
	}
	if port == 0 && node != nil && as == w.as(node) {
		port = w.port(node)
	}
	if port == 0 {
		port = model.DefaultPort
	}
	localAS := p.LocalAS
	if localAS == 0 {
		localAS = w.as(me)
	}
	global := p.Node == "" && p.Nodes == nil
	return w.complete(p, me, session{
		key: desired.PeerKey{Addr: p.Addr, Port: port}, gateway: p.Options.ReachableBy,
		peer: desired.Peer{
			AS: as, LocalAS: localAS, AllowLocalAS: p.AllowLocalAS, TTLSecurity: p.TTLSecurity,
			Passive: global && node != nil && p.Addr.String() > mine.String(),
		},
	}, netip.Addr{}, false)
}

// between lists the sessions of this host with a node, one for each family
// that both have.
func (w world) between(p *model.BGPPeer, me, n *model.Node, back bool) []session {
	var out []session
	for _, four := range []bool{true, false} {
		mine, theirs := nodeAddr(me, four), nodeAddr(n, four)
		if !mine.IsValid() || !theirs.IsValid() || mine == theirs || !w.wanted(mine) {
			continue
		}
		out = append(out, w.complete(p, me, session{
			key:  desired.PeerKey{Addr: theirs, Port: w.port(n)},
			peer: desired.Peer{AS: w.as(n), LocalAS: w.as(me)},
		}, n.ClusterID, back)...)
	}
	return out
}

// backward lists the sessions of a peer on its far side, if this host is
// there.
func (w world) backward(p *model.BGPPeer, me *model.Node) []session {
	var out []session
	for _, n := range each[*model.Node](w) {
		if n.Name == me.Name || !isLocal(p, n) {
			continue
		}
		for _, s := range w.between(p, me, n, true) {
			byLabel := p.Peers != nil && p.Peers.Matches(selector.Map(me.Labels))
			byAddr := p.Peers == nil && p.Addr.IsValid() && p.Addr == nodeAddr(me, v4(s.key.Addr)) &&
				(p.AS == 0 || p.AS == w.as(me)) && (p.Port == 0 || p.Port == w.port(me))
			if byLabel || byAddr {
				out = append(out, s)
			}
		}
	}
	return out
}

// complete fills in what a peer says of all its sessions.
func (w world) complete(p *model.BGPPeer, me *model.Node, s session, cluster netip.Addr, back bool) []session {
	o := p.Options
	if o.ReachableBy.IsValid() && p.Addr.IsValid() && v4(o.ReachableBy) != v4(p.Addr) {
		return nil
	}
	s.by = p
	s.peer.Name = named(p, s.key, back)
	s.peer.Restart, s.peer.Keepalive, s.peer.NextHopMode = o.Restart, o.Keepalive, o.NextHopMode
	if !o.NoSource {
		s.peer.LocalAddr = nodeAddr(me, v4(s.key.Addr))
	}
	if s.peer.AS != s.peer.LocalAS {
		if o.NextHopMode == "" && o.KeepNextHop {
			s.peer.NextHopMode = "Keep"
		}
	} else if me.ClusterID.IsValid() && cluster != me.ClusterID {
		s.peer.ClientOf = me.ClusterID
	}
	for _, name := range slices.Backward(p.Filters) {
		for _, f := range each[*model.BGPFilter](w) {
			if f.Name == name {
				s.withheld = "FilterNotSupported"
				s.because = "BGPFilter " + name + " is not supported by this version"
			}
		}
	}
	if o.Password != "" {
		s.withheld, s.because = "PasswordNotAvailable", "password "+o.Password+" cannot be read"
	}
	return []session{s}
}
