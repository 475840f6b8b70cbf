package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/brindle-net/brindle/internal/desired"
)

// Session is one BGP session as it is.
type Session struct {
	Key              desired.PeerKey
	Name             string
	AS               uint32
	State            string // Idle, Connect, Active, OpenSent, OpenConfirm, Established
	Since            time.Time
	Mesh             bool
	GracefulRestart  bool           // negotiated by both ends
	Restarting       bool           // the far end is away and its routes are kept
	Capabilities     []string       // negotiated by both ends, sorted
	EndOfRIBReceived bool           // or it promises none and has been up for 10 s
	EndOfRIBSent     bool           // or it would not know what that is, and all has been sent
	Received         int            // prefixes that the peer sent
	Accepted         int            // of these, the ones that passed the filter
	Refused          map[string]int // and the others, by reason
	Advertised       int            // prefixes that we send
	LastError        string         // why the session was last lost, or cannot be made
}

// Route is one route as it was received from a peer or is sent to it.
type Route struct {
	Prefix      netip.Prefix
	NextHop     netip.Addr
	ASPath      string // numbers with blanks between
	Origin      string // IGP, EGP, incomplete
	LocalPref   uint32
	MED         uint32
	Communities []string // sorted
	Stale       bool     // kept for a peer that restarts
	Refused     string   // why it is not used; "" if it may be
}

// Sessions returns all sessions, sorted by address. It counts routes, so it is
// for people and scrapers, not for tight loops: see States.
func (s *Server) Sessions(ctx context.Context) ([]Session, error) { return s.list(ctx, true) }

// States is Sessions without the numbers of routes: cheap, whatever the
// sessions carry.
func (s *Server) States(ctx context.Context) ([]Session, error) { return s.list(ctx, false) }

func (s *Server) list(ctx context.Context, count bool) ([]Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var out []Session
	for _, key := range sortedPeers(s.sessions) {
		p := s.sessions[key]
		one := Session{
			Key: key, Name: p.peer.Name, AS: p.peer.AS, State: p.state, Since: p.since, Mesh: p.peer.Mesh,
			GracefulRestart: p.state == established && p.graceful, Restarting: p.restarting,
			Capabilities: slices.Clone(p.capabilities), EndOfRIBReceived: p.state == established && p.unsent(now) <= 0,
			Refused: map[string]int{}, LastError: p.lastError,
		}
		if s.engine != nil && p.added {
			if err := s.ask(ctx, p, &one, count); err != nil {
				return nil, err
			}
		}
		out = append(out, one)
	}
	return out, nil
}

// ask fills in what only the engine knows of a session. The caller holds mu.
func (s *Server) ask(ctx context.Context, p *session, one *Session, count bool) error {
	request := &api.ListPeerRequest{Address: p.key.Addr.String(), EnableAdvertised: count}
	err := s.engine.srv.ListPeer(ctx, request, func(a *api.Peer) {
		for _, family := range a.GetAfiSafis() {
			one.Advertised += int(family.GetState().GetAdvertised())
		}
		// Nothing is sent before our own restart is over, and after it
		// End-of-RIB follows the routes at once.
		one.EndOfRIBSent = p.state == established && !a.GetGracefulRestart().GetLocalRestarting()
	})
	if err != nil || !count {
		return wrapPeer("list", p, err)
	}
	if p.state == established && !one.EndOfRIBSent {
		one.Advertised = 0
	}
	routes, err := s.routes(p, api.TableType_TABLE_TYPE_ADJ_IN)
	if err != nil {
		return err
	}
	one.Received = len(routes)
	for _, r := range routes {
		if r.Refused == "" {
			one.Accepted++
		} else {
			one.Refused[r.Refused]++
		}
	}
	return nil
}

// Routes returns what a peer sent us and what we send it, sorted.
func (s *Server) Routes(_ context.Context, key desired.PeerKey) (in, out []Route, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.sessions[key]
	if p == nil {
		return nil, nil, fmt.Errorf("list routes of BGP peer %v: no such peer", key.Addr)
	}
	if s.engine == nil || !p.added {
		return nil, nil, nil
	}
	if in, err = s.routes(p, api.TableType_TABLE_TYPE_ADJ_IN); err != nil {
		return nil, nil, err
	}
	if p.state != established {
		return in, nil, nil
	}
	out, err = s.routes(p, api.TableType_TABLE_TYPE_ADJ_OUT)
	return in, out, err
}

func (s *Server) routes(p *session, table api.TableType) ([]Route, error) {
	var out []Route
	err := s.engine.table(table, p.key.Addr.String(), p.key.Addr.Is4(), nil, func(r received) {
		one := Route{
			Prefix: r.prefix, NextHop: r.nextHop, ASPath: r.asPath, Origin: r.origin,
			LocalPref: r.localPref, MED: r.med, Communities: r.communities, Stale: r.stale,
		}
		if table == api.TableType_TABLE_TYPE_ADJ_IN {
			one.Refused = s.imports.judge(r.candidate, p.key, p.peer)
			if one.Refused == "" && len(s.way(r.nextHop)) == 0 {
				one.Refused = RefusedFar
			}
		}
		out = append(out, one)
	})
	if err != nil {
		return nil, peerError("list routes of", p, err)
	}
	slices.SortFunc(out, func(a, b Route) int {
		if c := prefixOrder(a.Prefix, b.Prefix); c != 0 {
			return c
		}
		if c := a.NextHop.Compare(b.NextHop); c != 0 {
			return c
		}
		return strings.Compare(a.ASPath, b.ASPath)
	})
	return out, nil
}
