package bgp

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	wire "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/brindle-net/brindle/internal/desired"
)

// States of a session of which something follows here.
const (
	established = "Established" // routes flow
	openConfirm = "OpenConfirm" // both have said who they are
)

// confirmTime is how long a session may wait in OpenConfirm for the far end to
// agree, which takes as long as a packet there and back. The engine waits
// longer where both ends dialled at the same moment: either may then hold to
// the connection that the other has given up, until the hold time is over. The
// end with the lower address waits for one confirmTime, the other for two, so
// that they do not do it to each other again. An end that does not know its own
// address waits for something in between, by its router id and each time another:
// the engine does not tell that of the far end yet. Each time in a row it is twice
// as long, for the far end may just be slow: a router with much to do must come up
// some time. Nor is one hurried that comes back and whose routes are kept: they
// would go with the session.
const confirmTime = 3 * time.Second

// stuck is how long to let a session in OpenConfirm be. own is our router id.
func (p *session) stuck(now time.Time, own netip.Addr) time.Duration {
	patience := confirmTime << min(p.stalls, 5) // as long as a usual hold time
	if p.restarting {
		patience *= 4
	}
	switch local := p.peer.LocalAddr; {
	case !local.IsValid():
		sum := sha256.Sum256(append(own.AsSlice(), byte(p.stalls)))
		patience += patience * time.Duration(sum[0]) / 256
	case p.key.Addr.Less(local):
		patience *= 2
	}
	return p.since.Add(patience).Sub(now)
}

// session is what we know of a peer.
type session struct {
	key   desired.PeerKey
	peer  desired.Peer
	added bool // the engine has it

	deferral time.Duration // with which it was added

	state     string // of RFC 4271, section 8.2.2
	since     time.Time
	stalls    int // how often in a row it was given up in OpenConfirm
	lastError string
	limited   time.Time // closed until then for too many prefixes

	capabilities []string // negotiated by both ends
	graceful     bool     // the far end restarts gracefully for our family
	promisesEnd  bool     // the far end will send End-of-RIB
	endOfRIB     bool     // and has
	restarting   bool     // the far end is away, its routes are kept
	sentNotices  uint64   // notifications we had sent when it was established
}

func newSession(key desired.PeerKey, peer desired.Peer) *session {
	return &session{key: key, peer: peer, state: "Idle", since: time.Now()}
}

func (p *session) held() bool { return !p.limited.IsZero() }

// lost notes that we ended the session. The engine says so too, but later.
func (p *session) lost(now time.Time) {
	if p.state != "Idle" {
		p.state, p.since = "Idle", now
	}
	p.capabilities, p.endOfRIB, p.restarting = nil, false, false
}

// down notes that the session is gone together with its engine.
func (p *session) down(now time.Time, why string) {
	if p.state != "Idle" {
		p.lastError = why
	}
	p.lost(now)
	p.added, p.limited = false, time.Time{}
}

// unsent is how long to wait for the routes of a peer at most; 0: it has sent
// all.
func (p *session) unsent(now time.Time) time.Duration {
	switch {
	case p.held(), p.endOfRIB:
		return 0
	case p.state != established || p.promisesEnd:
		return time.Hour
	}
	return p.since.Add(quietTime).Sub(now)
}

// peerEvent is a change of a session's state in the engine.
type peerEvent struct {
	at           time.Time
	addr         netip.Addr
	state        string
	reason       string // why the session went down
	limit        bool   // it sent too many prefixes
	keeps        bool   // it went down, and its routes are kept
	gaveUp       bool   // the restart time is over, they are not kept any more
	capabilities []string
	graceful     bool
	promisesEnd  bool
}

func newPeerEvent(ev *apiutil.WatchEventMessage_PeerEvent, at time.Time) peerEvent {
	st := ev.Peer.State
	out := peerEvent{
		at: at, addr: st.NeighborAddress, state: stateName(st.SessionState), reason: st.DisconnectMessage,
		limit:  st.AdminState == api.PeerState_ADMIN_STATE_PFX_CT,
		keeps:  st.DisconnectReason == api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART,
		gaveUp: st.DisconnectReason == api.PeerState_DISCONNECT_REASON_RESTART_TIMER_EXPIRED,
	}
	if out.state != established {
		return out
	}
	family := familyOf(st.NeighborAddress)
	for _, far := range st.RemoteCap {
		near := slices.ContainsFunc(st.LocalCap, func(c wire.ParameterCapabilityInterface) bool {
			return capabilityName(c) == capabilityName(far)
		})
		if name := capabilityName(far); near && name != "" {
			out.capabilities = append(out.capabilities, name)
		}
		if g, ok := far.(*wire.CapGracefulRestart); ok {
			out.promisesEnd = true
			out.graceful = slices.ContainsFunc(g.Tuples, func(t *wire.CapGracefulRestartTuple) bool {
				return wire.NewFamily(t.AFI, t.SAFI) == family
			})
		}
	}
	slices.Sort(out.capabilities)
	out.capabilities = slices.Compact(out.capabilities)
	return out
}

func stateName(st wire.FSMState) string {
	switch st {
	case wire.BGP_FSM_CONNECT:
		return "Connect"
	case wire.BGP_FSM_ACTIVE:
		return "Active"
	case wire.BGP_FSM_OPENSENT:
		return "OpenSent"
	case wire.BGP_FSM_OPENCONFIRM:
		return openConfirm
	case wire.BGP_FSM_ESTABLISHED:
		return established
	}
	return "Idle"
}

// capabilityName names a capability as people know it; "" if it is of no
// interest.
func capabilityName(c wire.ParameterCapabilityInterface) string {
	switch c.Code() {
	case wire.BGP_CAP_MULTIPROTOCOL:
		if m, ok := c.(*wire.CapMultiProtocol); ok {
			return m.CapValue.String()
		}
	case wire.BGP_CAP_ROUTE_REFRESH:
		return "route-refresh"
	case wire.BGP_CAP_GRACEFUL_RESTART:
		return "graceful-restart"
	case wire.BGP_CAP_FOUR_OCTET_AS_NUMBER:
		return "4-octet-as"
	case wire.BGP_CAP_EXTENDED_MESSAGE:
		return "extended-message"
	case wire.BGP_CAP_EXTENDED_NEXTHOP:
		return "extended-nexthop"
	case wire.BGP_CAP_ADD_PATH:
		return "add-path"
	}
	return ""
}

// callbacks takes what the engine tells.
func (s *Server) callbacks() callbacks {
	locked := func(e *engine, f func()) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.engine == nil || s.engine == e { // not the last words of an old one
			f()
			s.poke()
		}
	}
	return callbacks{
		paths: func(e *engine, changed []netip.Prefix) {
			locked(e, func() { s.learned.touch(changed) })
		},
		endOfRIB: func(e *engine, peer netip.Addr) {
			locked(e, func() {
				if p := s.peerAt(peer); p != nil {
					p.endOfRIB, p.restarting = true, false
				}
			})
		},
		peer: func(e *engine, ev peerEvent) {
			locked(e, func() {
				if p := s.peerAt(ev.addr); p != nil && s.engine != nil {
					s.peerChanged(p, ev)
				}
			})
		},
	}
}

// peerChanged follows a session. The caller holds mu.
func (s *Server) peerChanged(p *session, ev peerEvent) {
	was := p.state
	if ev.gaveUp {
		p.restarting, p.lastError = false, "did not come back within its restart time"
	}
	if was == ev.state {
		return
	}
	p.state, p.since = ev.state, ev.at
	switch {
	case ev.state == established:
		p.capabilities, p.graceful, p.promisesEnd = ev.capabilities, ev.graceful, ev.promisesEnd
		p.endOfRIB, p.lastError, p.stalls = false, "", 0
		p.sentNotices = s.notices(p)
		s.cfg.Log.Info("bgp session up", "peer", p.peer.Name, "address", p.key.Addr, "graceful_restart", p.graceful)
		if p.restarting && !p.promisesEnd {
			s.renew(p, "came back without graceful restart")
		}
	case was == established:
		p.capabilities, p.endOfRIB = nil, false
		s.sessionLost(p, ev)
	}
}

// sessionLost decides what becomes of the routes of a peer that went away. The
// engine keeps them whenever the far end can restart gracefully, also if it
// has fallen silent. But who is silent for the hold time is dead, not
// restarting (a restarting one closes its connection): its routes go at once.
// RFC 4724 leaves room for that, for it speaks of the termination of the TCP
// session only. The caller holds mu.
func (s *Server) sessionLost(p *session, ev peerEvent) {
	p.lastError = ev.reason
	silent := ev.keeps && s.notices(p) > p.sentNotices
	switch {
	case ev.limit:
		p.lastError = "sent more than the allowed number of prefixes"
		p.limited = ev.at.Add(s.cfg.LimitHold)
		if err := s.dropPeer(p, false); err != nil {
			s.cfg.Log.Warn("bgp peer not closed", "peer", p.peer.Name, "err", err)
		}
	case silent:
		s.renew(p, "hold timer expired")
	case ev.keeps:
		p.lastError, p.restarting = "connection closed", true
	}
	s.cfg.Log.Info("bgp session down", "peer", p.peer.Name, "address", p.key.Addr, "reason", p.lastError,
		"routes_kept", p.restarting)
}

// ownID is our router id, invalid if there is none. The caller holds mu.
func (s *Server) ownID() netip.Addr {
	if s.speaker == nil {
		return netip.Addr{}
	}
	return s.speaker.RouterID
}

// renew takes a peer out with all its routes and puts it in again. The caller
// holds mu.
func (s *Server) renew(p *session, why string) {
	err := s.dropPeer(p, false)
	if err == nil {
		err = s.addPeer(p, s.greeting(time.Now()))
	}
	if err != nil {
		s.cfg.Log.Warn("bgp peer not reset", "peer", p.peer.Name, "err", err)
	}
	p.lastError = why
}

// staleTime is how long routes of a peer that has come back are kept for want
// of its End-of-RIB (RFC 4724, section 4.2, asks for such a bound; the engine
// has none).
const staleTime = 6 * time.Minute

// notices is how many notifications the engine has sent to a peer. The caller
// holds mu.
func (s *Server) notices(p *session) uint64 {
	var n uint64
	_ = s.engine.srv.ListPeer(context.Background(), &api.ListPeerRequest{Address: p.key.Addr.String()}, func(a *api.Peer) {
		n = a.GetState().GetMessages().GetSent().GetNotification()
	})
	return n
}

// tend lets peers back in that were closed for too many prefixes, tries again
// to add those that could not be, and ends the wait for those that never say
// they are done. It returns when to look again. The caller holds mu.
func (s *Server) tend(now time.Time) time.Duration {
	if s.engine == nil || !s.gate.opened {
		return time.Hour
	}
	next := s.endGreeting(now)
	for _, key := range sortedPeers(s.sessions) {
		p := s.sessions[key]
		if left := p.limited.Sub(now); p.held() && left > 0 {
			next = min(next, left)
			continue
		}
		p.limited = time.Time{}
		if p.added && p.state == openConfirm {
			if left := p.stuck(now, s.ownID()); left > 0 {
				next = min(next, left)
			} else {
				p.stalls++
				s.renew(p, "no agreement on a connection")
			}
			continue
		}
		if p.added {
			if p.restarting && p.state == established {
				if left := p.since.Add(staleTime).Sub(now); left > 0 {
					next = min(next, left)
				} else {
					s.renew(p, "sent no End-of-RIB after it came back")
				}
			}
			continue
		}
		if err := s.addPeer(p, s.greeting(now)); err != nil {
			p.lastError = err.Error()
			next = min(next, time.Second)
		}
	}
	return next
}
