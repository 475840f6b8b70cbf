package bgp

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// Peers returns the target that holds the sessions. A session is touched only
// if what it negotiated changes; the others never notice.
func (s *Server) Peers() reconcile.Target[desired.PeerKey, desired.Peer] { return peers{s} }

type peers struct{ *Server }

// List returns the peers as they were applied.
func (t peers) List(context.Context) (map[desired.PeerKey]desired.Peer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[desired.PeerKey]desired.Peer, len(t.sessions))
	for k, p := range t.sessions {
		if p.added || p.held() || !t.gate.opened {
			out[k] = p.peer
		}
	}
	return out, nil
}

// Apply deletes, then adds and changes peers.
func (t peers) Apply(_ context.Context, p reconcile.Plan[desired.PeerKey, desired.Peer]) map[desired.PeerKey]error {
	t.mu.Lock()
	defer t.mu.Unlock()
	failed := map[desired.PeerKey]error{}
	for _, k := range p.Delete {
		if err := t.remove(k); err != nil {
			failed[k] = err
		}
	}
	before := map[desired.PeerKey]desired.Peer{}
	for _, e := range p.Set {
		if err := t.check(e.Key, e.Value); err != nil {
			failed[e.Key] = err
			continue
		}
		if old := t.sessions[e.Key]; old != nil {
			before[e.Key] = old.peer
			old.peer = e.Value
		} else {
			t.sessions[e.Key] = newSession(e.Key, e.Value)
		}
	}
	if t.engine != nil {
		t.carryOut(p.Set, before, failed)
	}
	t.poke()
	return failed
}

// carryOut brings the engine in line. The policy comes first: a host of the
// cluster must not get one route past the filter.
func (t peers) carryOut(set []reconcile.Entry[desired.PeerKey, desired.Peer], before map[desired.PeerKey]desired.Peer, failed map[desired.PeerKey]error) {
	err := t.engine.setPolicy(t.policy())
	judge, greeting := false, t.gate.opened && t.greeting(time.Now())
	for _, e := range set {
		p := t.sessions[e.Key]
		if failed[e.Key] != nil || !t.gate.opened || p.held() {
			continue
		}
		old, existed := before[e.Key]
		one := err
		switch {
		case one != nil:
		case !p.added:
			one = t.addPeer(p, greeting)
		case existed:
			one = t.changePeer(p, old)
			judge = judge || old.Mesh != p.peer.Mesh || old.NextHopMode != p.peer.NextHopMode
		}
		if one != nil {
			p.lastError = one.Error()
			failed[e.Key] = one
		}
	}
	if judge {
		if err := t.rejudge(); err != nil {
			t.cfg.Log.Warn("bgp routes not judged anew", "err", err)
		}
	}
}

// check refuses what the engine cannot do.
func (t peers) check(key desired.PeerKey, v desired.Peer) error {
	refuse := func(why string) error { return fmt.Errorf("add BGP peer %s (%v): %s", v.Name, key.Addr, why) }
	switch {
	case t.stopped:
		return ErrStopped
	case !key.Addr.IsValid() || key.Addr.IsUnspecified() || key.Addr.Is4In6():
		return refuse("not the address of a peer")
	case v.AS == 0:
		return refuse("AS number 0 is reserved (RFC 7607)")
	case v.LocalAddr.IsValid() && v.LocalAddr.Is4() != key.Addr.Is4():
		return refuse("source address " + v.LocalAddr.String() + " is of the other family")
	}
	for k := range t.sessions {
		if k.Addr == key.Addr && k != key {
			return refuse(fmt.Sprintf("there is a session with the same address and port %d; one address is one session", k.Port))
		}
	}
	return nil
}

func (t peers) remove(key desired.PeerKey) error {
	p := t.sessions[key]
	t.gate.gonePeer(key)
	if p == nil {
		return nil
	}
	if err := t.dropPeer(p, true); err != nil {
		return err
	}
	delete(t.sessions, key)
	return nil
}

// addPeer gives the engine a peer. The caller holds mu.
func (s *Server) addPeer(p *session, restarting bool) error {
	p.deferral = s.deferral() // and stays: the engine ends a session for another
	if err := s.engine.srv.AddPeer(context.Background(), &api.AddPeerRequest{Peer: s.peerConfig(p, restarting)}); err != nil {
		return peerError("add", p, err)
	}
	p.added = true
	return nil
}

// changePeer changes a peer. The engine starts the session anew if it must.
// The caller holds mu.
func (s *Server) changePeer(p *session, old desired.Peer) error {
	if old.ClientOf != p.peer.ClientOf { // the engine would not notice
		if err := s.dropPeer(p, false); err != nil {
			return err
		}
		return s.addPeer(p, s.greeting(time.Now()))
	}
	if _, err := s.engine.srv.UpdatePeer(context.Background(), &api.UpdatePeerRequest{Peer: s.peerConfig(p, s.greeting(time.Now()))}); err != nil {
		return peerError("change", p, err)
	}
	if !sameSession(old, p.peer) {
		p.lost(time.Now())
	}
	return nil
}

// sameSession reports whether the engine keeps a session up over a change. It
// does over these, which are ours alone or count from the next session on.
func sameSession(a, b desired.Peer) bool {
	a.Name, a.Mesh, a.NextHopMode, a.MaxPrefixes = b.Name, b.Mesh, b.NextHopMode, b.MaxPrefixes
	a.Keepalive = b.Keepalive
	return a == b
}

// dropPeer takes a peer from the engine with all its routes. When it is for
// good the password goes from the listening socket too: the engine forgets
// that, and a session without a password would never come up again. The
// caller holds mu.
func (s *Server) dropPeer(p *session, forGood bool) error {
	if s.engine == nil || !p.added {
		return nil
	}
	ctx := context.Background()
	if forGood && !p.peer.Password.Empty() {
		conf := s.peerConfig(p, false)
		conf.Conf.AuthPassword = ""
		conf.Transport.PassiveMode = true
		if _, err := s.engine.srv.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: conf}); err != nil {
			return peerError("clear the password of", p, err)
		}
	}
	if err := s.engine.srv.DeletePeer(ctx, &api.DeletePeerRequest{Address: p.key.Addr.String()}); err != nil {
		return peerError("delete", p, err)
	}
	p.added = false
	p.lost(time.Now())
	return nil
}

// Selection deferral (RFC 4724, section 4.1): how long after a restart we wait
// for the End-of-RIB of all peers before we send anything. What we announce
// for ourselves does not depend on it, so a host waits but a moment. One who
// passes on routes of others waits longer, or its peers would drop what it has
// not heard of yet.
const (
	deferralLeaf    = 3 * time.Second
	deferralTransit = 60 * time.Second
)

// deferral is how long it is for us. The caller holds mu.
func (s *Server) deferral() time.Duration {
	if s.transit() {
		return deferralTransit
	}
	return deferralLeaf
}

// greeting reports whether a peer added now is greeted by one who comes back.
// It is while the others still wait: the engine ends the wait of all when the
// last of them has sent End-of-RIB, but looks only when one that it greeted so
// comes up or sends it, and heeds only from such a one that it comes back
// itself and so is not waited for. The caller holds mu.
func (s *Server) greeting(now time.Time) bool {
	return s.gate.restarting && now.Before(s.gate.deferred) && len(s.waiting()) > 0
}

// waiting lists the peers to which the engine sends nothing before its restart
// is over, and whether there is a session with them. The caller holds mu.
func (s *Server) waiting() map[string]bool {
	out := map[string]bool{}
	_ = s.engine.srv.ListPeer(context.Background(), &api.ListPeerRequest{}, func(a *api.Peer) {
		if a.GetGracefulRestart().GetLocalRestarting() {
			out[a.GetState().GetNeighborAddress()] = a.GetState().GetSessionState() == api.PeerState_SESSION_STATE_ESTABLISHED
		}
	})
	return out
}

// endGreeting lets peers that did not come up while they kept our paths come
// up as new ones: the engine would make the first of them that does wait for
// the others. It returns when to look again. The caller holds mu.
func (s *Server) endGreeting(now time.Time) time.Duration {
	if !s.gate.restarting {
		return time.Hour
	}
	if left := s.gate.over().Sub(now); left > 0 {
		return left
	}
	s.gate.restarting = false
	waiting := s.waiting()
	for _, key := range sortedPeers(s.sessions) {
		p := s.sessions[key]
		if up, is := waiting[key.Addr.String()]; is && !up && p.added {
			s.renew(p, p.lastError)
		}
	}
	return time.Hour
}

// peerConfig is the peer as the engine wants it. The caller holds mu.
func (s *Server) peerConfig(p *session, restarting bool) *api.Peer {
	v := p.peer
	hold, keepalive := s.cfg.HoldTime, v.Keepalive
	if keepalive == 0 {
		keepalive = hold / 3
	}
	hold = max(hold, 3*keepalive) // the ratio that RFC 4271, section 10, suggests
	restart := v.Restart
	if restart == 0 {
		restart = DefaultRestartTime
	}
	family := &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	if key := p.key.Addr; key.Is6() {
		family.Afi = api.Family_AFI_IP6
	}
	most := v.MaxPrefixes
	if most == 0 {
		most = DefaultMaxPrefixes
	}
	conf := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: p.key.Addr.String(), PeerAsn: v.AS, LocalAsn: s.localAS(v),
			AuthPassword: v.Password.Reveal(), AllowOwnAsn: uint32(v.AllowLocalAS),
		},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: seconds(hold), KeepaliveInterval: seconds(keepalive), ConnectRetry: seconds(s.cfg.ConnectRetry),
		}},
		Transport: &api.Transport{PassiveMode: v.Passive, RemotePort: uint32(p.key.Port)},
		GracefulRestart: &api.GracefulRestart{
			Enabled: true, RestartTime: uint32(min(seconds(restart), 4095)), // 12 bits (RFC 4724, section 3)
			DeferralTime: uint32(seconds(p.deferral)), LocalRestarting: restarting,
		},
		AfiSafis: []*api.AfiSafi{{
			Config:            &api.AfiSafiConfig{Family: family, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: true}},
			PrefixLimits:      &api.PrefixLimit{Family: family, MaxPrefixes: most},
		}},
	}
	if v.LocalAddr.IsValid() {
		conf.Transport.LocalAddress = v.LocalAddr.String()
	}
	if v.ClientOf.IsValid() {
		conf.RouteReflector = &api.RouteReflector{RouteReflectorClient: true, RouteReflectorClusterId: v.ClientOf.String()}
	}
	if v.TTLSecurity > 0 {
		conf.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: math.MaxUint8 + 1 - uint32(v.TTLSecurity)}
	} else {
		conf.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: math.MaxUint8}
	}
	return conf
}

// seconds rounds to whole seconds, the unit of the protocol, but not to none.
func seconds(d time.Duration) uint64 {
	return uint64(max(1, d.Round(time.Second)/time.Second))
}

func sortedPeers(m map[desired.PeerKey]*session) []desired.PeerKey {
	return slices.SortedFunc(maps.Keys(m), comparePeers)
}

func comparePeers(a, b desired.PeerKey) int {
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	return int(a.Port) - int(b.Port)
}
