// Package bgp is the BGP speaker of a host: it announces the host's prefixes,
// learns those of others, and keeps both over its own restart. It drives an
// embedded GoBGP, of which no type leaves the package. It opens no port but
// the one for BGP: no API, no admin socket.
//
// The wanted state comes in through four reconcile targets: Speakers, Peers,
// Paths and Imports. What is learned goes out as patches of kernel routes.
package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
)

// Defaults of Config and of desired.Peer.
const (
	DefaultHoldTime     = 90 * time.Second  // suggested by RFC 4271, section 10
	DefaultConnectRetry = 5 * time.Second   // documented Calico behaviour
	DefaultRestartTime  = 120 * time.Second // documented Calico behaviour
	DefaultLimitHold    = time.Minute
	DefaultMaxPrefixes  = 20000
)

// Config is what a Server needs.
type Config struct {
	Log *slog.Logger

	// Learned gets every change of the learned routes, several at once. It is
	// called from Run, never twice at the same time.
	Learned func(desired.Patch[desired.RouteKey, desired.Route])

	// LearnedInSync is called once, from Run: the patches so far hold all that
	// the peers have to say, so routes of an earlier life that are not among
	// them can go. See Server.InSync.
	LearnedInSync func()

	// Resolve says by which next hops on this host's links an address is
	// reached; none: it is not. It is asked for the next hop of each path, and
	// again after Rerouted. nil: every next hop is on a link.
	Resolve func(netip.Addr) []desired.NextHop

	// Fresh says that this host forwards nothing yet, as after it was booted:
	// then there is nothing that peers could keep our paths for, and the
	// speaker greets them as a new one, which waits for nobody before it sends
	// (RFC 4724, section 4.1, speaks of a speaker that preserved its
	// forwarding state).
	Fresh bool

	// HoldTime is after how much silence a peer is dead; seconds, at least 3.
	HoldTime time.Duration
	// ConnectRetry is the pause between two attempts to connect; at least 2 s.
	ConnectRetry time.Duration
	// LimitHold is how long a peer that sent too many prefixes stays closed.
	LimitHold time.Duration
}

func (c Config) withDefaults() Config {
	if c.HoldTime == 0 {
		c.HoldTime = DefaultHoldTime
	}
	if c.ConnectRetry == 0 {
		c.ConnectRetry = DefaultConnectRetry
	}
	if c.LimitHold == 0 {
		c.LimitHold = DefaultLimitHold
	}
	if c.Learned == nil {
		c.Learned = func(desired.Patch[desired.RouteKey, desired.Route]) {}
	}
	if c.LearnedInSync == nil {
		c.LearnedInSync = func() {}
	}
	if c.Resolve == nil {
		c.Resolve = func(a netip.Addr) []desired.NextHop { return []desired.NextHop{{Via: a, Weight: 1}} }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// ErrStopped is the error of changes after Run has ended.
var ErrStopped = errors.New("the BGP speaker has stopped")

// settle is how long changes gather before they are handed on.
const settle = 20 * time.Millisecond

// A Server is the speaker. All methods may be called from anywhere; none
// blocks on a peer.
type Server struct {
	cfg  Config
	wake chan struct{} // capacity 1: many wakes, one step

	mu       sync.Mutex // guards everything below
	stopped  bool
	speaker  *desired.Speaker // nil: none wanted
	engine   *engine          // nil: none runs
	restart  bool             // the engine is to be started again
	fresh    bool             // nobody has paths of ours that an engine started now could come back for
	sessions map[desired.PeerKey]*session
	paths    map[desired.PathKey]desired.Path
	imports  filter
	gate     gate
	learned  learned
}

// New returns a speaker that does nothing until it is given its tables.
func New(cfg Config) *Server {
	return &Server{
		cfg: cfg.withDefaults(), wake: make(chan struct{}, 1),
		sessions: map[desired.PeerKey]*session{}, paths: map[desired.PathKey]desired.Path{},
		imports: filter{}, learned: newLearned(), fresh: cfg.Fresh,
	}
}

// Run hands on what is learned until ctx ends. Then the speaker goes silent
// without a word to its peers, so that they keep our paths for the restart
// time (RFC 4724), and forgets nothing it told Learned about.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	for {
		begin := time.Now()
		next := s.step()
		rest := max(settle, time.Since(begin)) // half of the time at most
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-s.wake:
			timer.Stop()
		case <-timer.C:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rest):
		}
	}
}

func (s *Server) close() {
	s.mu.Lock()
	s.stopped = true
	e, keep := s.engine, s.transit()
	s.engine = nil
	s.mu.Unlock()
	switch {
	case e == nil:
	case keep:
		// Stopping tells the other peers to forget what each peer sent us.
		// The end of the process says nothing, which is what we want.
		e.abandon()
	default:
		e.stop(true)
	}
}

// poke makes Run take a step soon.
func (s *Server) poke() {
	select {
	case s.wake <- struct{}{}:
	default: // a step is already due
	}
}

// InSync says what the core wanted when it first was in sync. No peer is
// dialled or answered before it is called and those paths and filter entries
// are in, for a peer that we greet takes what we have not announced by
// End-of-RIB as withdrawn. The learned routes are in sync when all of these
// peers (those that are still wanted) have sent End-of-RIB, or the restart
// time is over.
func (s *Server) InSync(peers []desired.PeerKey, paths []desired.PathKey, imports []desired.ImportKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.gate.told {
		s.gate.tell(peers, paths, imports)
	}
	s.poke()
}

// Rerouted says that what Resolve answers may have changed.
func (s *Server) Rerouted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learned.stale = true
	s.poke()
}

// step does all that is due and returns when to look again.
func (s *Server) step() time.Duration {
	s.mu.Lock()
	now := time.Now()
	next := s.revive()
	s.openGate(now)
	next = min(next, s.tend(now))
	wait, done := s.syncing(now)
	next = min(next, wait)
	patch, err := s.collect()
	if err != nil {
		s.cfg.Log.Warn("bgp routes not read", "retry_in", time.Second, "err", err)
		next, done = min(next, time.Second), false
	}
	first := done && !s.gate.reported
	if first {
		s.gate.reported = true
	}
	s.mu.Unlock()
	if !patch.Empty() {
		s.cfg.Learned(patch)
	}
	if first {
		s.cfg.LearnedInSync()
	}
	return max(next, time.Millisecond)
}

// startEngine brings the embedded speaker up with all tables. The caller
// holds mu.
func (s *Server) startEngine() error {
	e, err := startEngine(*s.speaker, s.callbacks(), s.cfg.Log, s.poke)
	if err != nil {
		return err
	}
	if err = e.setPolicy(s.policy()); err == nil {
		err = e.announce(maps.All(s.paths))
	}
	if err != nil {
		e.stop(true)
		return err
	}
	s.engine, s.restart = e, false
	s.learned.carry()
	s.gate.restart(!s.fresh)
	s.openGate(time.Now())
	s.poke()
	return nil
}

// revive starts the engine again once it has gone deaf, until that works, and
// returns when to try again. The caller holds mu.
func (s *Server) revive() time.Duration {
	deaf := s.engine != nil && s.engine.log.isDeaf.Load()
	if !deaf && !s.restart || s.speaker == nil {
		return time.Hour
	}
	s.cfg.Log.Warn("bgp restarts itself", "reason", "the listening socket failed")
	s.stopEngine(true)
	s.restart = true
	if err := s.startEngine(); err != nil {
		s.cfg.Log.Warn("bgp not started", "retry_in", time.Second, "err", err)
		return time.Second
	}
	return time.Hour
}

// stopEngine takes the embedded speaker down. A quiet stop lets peers keep our
// paths. The caller holds mu.
func (s *Server) stopEngine(quiet bool) {
	if s.engine == nil {
		return
	}
	e := s.engine
	s.engine, s.fresh = nil, s.fresh || !quiet
	now := time.Now()
	for _, p := range s.sessions {
		p.down(now, "the speaker was restarted")
	}
	e.stop(quiet)
}

// openGate lets the peers in once everything that must be there first is. The
// caller holds mu.
func (s *Server) openGate(now time.Time) {
	if s.engine == nil || s.gate.opened || !s.gate.ready(s.paths, s.imports) {
		return
	}
	s.gate.open(now, s.deferral())
	s.fresh = false // from now on peers may have paths of ours
	for _, key := range sortedPeers(s.sessions) {
		p := s.sessions[key]
		if err := s.addPeer(p, s.gate.restarting); err != nil {
			p.lastError = err.Error()
			s.cfg.Log.Warn("bgp peer not added", "peer", p.peer.Name, "retry_in", time.Second, "err", err)
		}
	}
}

// transit reports whether peers hear routes of other peers from us. The caller
// holds mu.
func (s *Server) transit() bool {
	for _, p := range s.sessions {
		if p.peer.ClientOf.IsValid() || (s.speaker != nil && p.peer.AS != s.localAS(p.peer)) {
			return true
		}
	}
	return false
}

func (s *Server) localAS(p desired.Peer) uint32 {
	if p.LocalAS != 0 || s.speaker == nil {
		return p.LocalAS
	}
	return s.speaker.AS
}

// peerAt returns the session with the peer at addr that the engine has. The
// caller holds mu.
func (s *Server) peerAt(addr netip.Addr) *session {
	for _, p := range s.sessions {
		if p.added && p.key.Addr == addr {
			return p
		}
	}
	return nil
}

func peerError(do string, p *session, err error) error {
	return fmt.Errorf("%s BGP peer %s (%v): %w", do, p.peer.Name, p.key.Addr, err)
}

// wrapPeer is peerError, and nil for nil.
func wrapPeer(do string, p *session, err error) error {
	if err == nil {
		return nil
	}
	return peerError(do, p, err)
}
