package bgp

import (
	"net/netip"
	"slices"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
)

// quietTime is how long we wait for routes of a peer that does not speak
// graceful restart and so never says that it has sent all.
const quietTime = 10 * time.Second

// gate holds the peers back until our side is complete, then counts who has
// sent all. Its zero value is closed.
type gate struct {
	told    bool // InSync was called
	peers   []desired.PeerKey
	paths   []desired.PathKey
	imports []desired.ImportKey

	opened     bool      // peers may be dialled
	restarting bool      // greet peers as one who comes back (RFC 4724, section 4.1)
	deferred   time.Time // until then what is sent may wait for others
	deadline   time.Time // of the synchronisation
	synced     bool      // all peers have sent all, or the deadline is over
	reported   bool      // LearnedInSync was called
}

func (g *gate) tell(peers []desired.PeerKey, paths []desired.PathKey, imports []desired.ImportKey) {
	g.told = true
	g.peers = slices.Clone(peers)
	g.paths = slices.Clone(paths)
	g.imports = slices.Clone(imports)
}

// restart closes the gate for a new engine.
func (g *gate) restart(restarting bool) {
	g.opened, g.synced, g.restarting = false, false, restarting
}

func (g *gate) ready(paths map[desired.PathKey]desired.Path, imports filter) bool {
	if !g.told {
		return false
	}
	for _, p := range g.paths {
		if _, ok := paths[p]; !ok {
			return false
		}
	}
	for _, i := range g.imports {
		if _, ok := imports[i.Prefix]; !ok {
			return false
		}
	}
	return true
}

func (g *gate) open(now time.Time, deferral time.Duration) {
	g.opened, g.deferred = true, now.Add(deferral)
	g.deadline = now.Add(DefaultRestartTime)
	// They were in, once: what goes away from now on is not waited for.
	g.paths, g.imports = nil, nil
}

// over reports when peers have given up what they kept of us.
func (g *gate) over() time.Time { return g.deadline }

// gone forgets a path or entry that is not wanted any more.
func (g *gate) gone(p netip.Prefix) {
	g.paths = slices.DeleteFunc(g.paths, func(k desired.PathKey) bool { return k == p })
}

func (g *gate) goneImport(k desired.ImportKey) {
	g.imports = slices.DeleteFunc(g.imports, func(i desired.ImportKey) bool { return i == k })
}

func (g *gate) gonePeer(k desired.PeerKey) {
	g.peers = slices.DeleteFunc(g.peers, func(p desired.PeerKey) bool { return p == k })
}

// syncing decides whether the peers have sent all, and when to ask again if
// they have not. The caller holds mu.
func (s *Server) syncing(now time.Time) (wait time.Duration, done bool) {
	g := &s.gate
	switch {
	case g.synced:
		return time.Hour, true
	case !g.opened:
		// Without a speaker there is nothing to wait for: what an earlier life
		// learned can go.
		return time.Hour, g.told && s.speaker == nil && len(g.peers) == 0
	}
	wait = g.deadline.Sub(now)
	waiting := 0
	for _, key := range g.peers { // not yet applied counts as waiting
		if s.sessions[key] == nil {
			waiting++
		}
	}
	for _, p := range s.sessions {
		if left := p.unsent(now); left > 0 {
			waiting, wait = waiting+1, min(wait, left)
		}
	}
	if waiting > 0 && now.Before(g.deadline) {
		return wait, false
	}
	s.cfg.Log.Info("bgp routes in sync", "peers", len(s.sessions), "missing", waiting)
	g.synced, g.peers = true, nil
	s.learned.release()
	return time.Hour, true
}
