package agent

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/brindle-net/brindle/internal/health"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/store"
)

// How other hosts are asked whether they answer this host's addresses.
const (
	reachWait    = 500 * time.Millisecond
	reachSettle  = 2 * time.Second // what changes together is looked at together
	reachPeriod  = time.Minute
	reachRetry   = 10 * time.Second // while something is wrong
	reachSample  = 4                // hosts asked at a time
	reachSamples = 2                // none of so many samples answers: nobody does
)

// reaches is what was found of each of this host's addresses.
type reaches struct {
	mu     sync.Mutex // guards all
	byIPv4 reach
	byIPv6 reach
}

// reach is what was found of one address. An empty reason: nothing is wrong.
type reach struct{ reason, message string }

// What may be wrong.
const (
	reachNotHere = "AddressNotHere"
	reachNobody  = "PeersUnreachable"
)

func (r *reaches) of(family int) reach {
	r.mu.Lock()
	defer r.mu.Unlock()
	if family == 4 {
		return r.byIPv4
	}
	return r.byIPv6
}

func (r *reaches) set(family int, now reach) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := &r.byIPv4
	if family == 6 {
		at = &r.byIPv6
	}
	changed = at.reason != now.reason
	*at = now
	return changed
}

// checkAddresses is advice: an address that is wrong is told of, and stays until
// a person or the network says otherwise.
func (a *agent) checkAddresses() health.Verdict {
	r := a.registered.Load()
	if r == nil {
		return health.Verdict{OK: true, Reason: "Searching", Message: a.search.problem.get()}
	}
	v, said := health.Verdict{OK: true, Reason: "Chosen"}, []string{}
	for _, x := range []struct {
		family int
		odd    oddity
	}{{4, r.odd4}, {6, r.odd6}} {
		for _, one := range []struct {
			reason, message string
			bad             bool
		}{{x.odd.reason, x.odd.message, x.odd.reason == oddKept}, {reason: a.search.found.of(x.family).reason, message: a.search.found.of(x.family).message, bad: true}} {
			if one.reason == "" {
				continue
			}
			said = append(said, one.message)
			if one.bad && v.OK || v.Reason == "Chosen" {
				v.OK, v.Reason = !one.bad, one.reason
			}
		}
	}
	v.Message = strings.Join(said, "; ")
	return v
}

// watchReach looks whether this host has the addresses that it is known by, and
// whether others answer there, until ctx ends.
func (a *agent) watchReach(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-a.synced:
	}
	for {
		next := reachPeriod
		if r := a.registered.Load(); r != nil {
			for family, own := range map[int]netip.Prefix{4: r.v4, 6: r.v6} {
				found := a.judgeReach(ctx, family, own)
				if a.search.found.set(family, found); found.reason != "" {
					next = reachRetry
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.search.asking:
		case <-time.After(next):
		}
		if err := store.Pause(ctx, reachSettle); err != nil {
			return err
		}
	}
}

// judgeReach finds out how it is about one address.
func (a *agent) judgeReach(ctx context.Context, family int, own netip.Prefix) reach {
	if !own.IsValid() {
		return reach{}
	}
	here, err := a.kernel.OwnAddresses([]netip.Addr{own.Addr()})
	if err != nil {
		a.log.WarnContext(ctx, "own addresses not read", "err", err)
		return reach{}
	}
	if !here[own.Addr()] {
		if a.registered.Load().oddOf(family).reason == oddKept {
			return reach{} // it is told of already
		}
		return reach{reachNotHere, fmt.Sprintf("no interface of this host has %v: add it to one, or set %s to autodetect or to another",
			own, addressVariable(family))}
	}
	peers := a.probes.peers(family, a.cfg.Node, own.Addr())
	if len(peers) == 0 || a.anySession(ctx, peers) {
		return reach{}
	}
	asked := []peerAddr{}
	for n := range reachSamples {
		if n*reachSample >= len(peers) {
			break
		}
		sample := peers[n*reachSample : min(len(peers), (n+1)*reachSample)]
		if a.anyAnswers(ctx, own.Addr(), "", sample) != nil {
			return reach{}
		}
		asked = append(asked, sample...)
	}
	if ctx.Err() != nil {
		return reach{}
	}
	return reach{reachNobody, a.unreachable(ctx, family, own, asked)}
}

func (r *registered) oddOf(family int) oddity {
	if family == 4 {
		return r.odd4
	}
	return r.odd6
}

// unreachable says that nobody answers an address, and what to try instead.
func (a *agent) unreachable(ctx context.Context, family int, own netip.Prefix, asked []peerAddr) string {
	var names []string
	for _, p := range asked {
		names = append(names, fmt.Sprintf("%s (%v)", p.name, p.addr))
	}
	said := fmt.Sprintf("of the hosts asked, none answers %v%s: %s", own.Addr(), a.whereIs(own.Addr()), strings.Join(names, ", "))
	all, err := a.kernel.Candidates(family)
	if err != nil {
		a.log.WarnContext(ctx, "own addresses not read", "err", err)
	}
	at := slices.IndexFunc(all, func(c kernel.Candidate) bool { return c.Address.Addr() == own.Addr() })
	for _, c := range all {
		if at >= 0 && c.Interface == all[at].Interface {
			continue
		}
		if p := a.anyAnswers(ctx, c.Address.Addr(), c.Interface, asked[:min(len(asked), reachSample)]); p != nil {
			return said + fmt.Sprintf("; %s answers %v: try %s=autodetect with %s=interface=%s", p.name, c,
				addressVariable(family), methodVariable(family), c.Interface)
		}
	}
	if len(all) > 1 {
		said += "; nor do they answer any other interface"
	}
	return said + ": they are down, or the network or a firewall between is at fault"
}

// peerAddr is another host and its address.
type peerAddr struct {
	name string
	addr netip.Addr
}

// peers lists other hosts with an address of a family. Whom they begin with is
// another one each time.
func (p *probes) peers(family int, self string, own netip.Addr) []peerAddr {
	if p.running() == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []peerAddr
	for name, n := range p.nodes {
		if addr := n.Addr(family); name != self && addr.IsValid() && addr != own {
			out = append(out, peerAddr{name, addr})
		}
	}
	slices.SortFunc(out, func(a, b peerAddr) int { return cmp.Compare(a.name, b.name) })
	if len(out) > reachSample {
		p.turn = (p.turn + reachSample) % len(out)
		out = slices.Concat(out[p.turn:], out[:p.turn])
	}
	return out
}

// anySession reports whether BGP runs with one of them: it need not be asked.
func (a *agent) anySession(ctx context.Context, peers []peerAddr) bool {
	if !a.speaks() {
		return false
	}
	sessions, err := a.speaker.States(ctx)
	if err != nil {
		return false
	}
	for _, s := range sessions {
		if s.State == "Established" && slices.ContainsFunc(peers, func(p peerAddr) bool { return p.addr == s.Key.Addr }) {
			return true
		}
	}
	return false
}

// anyAnswers asks all of them at once, by a device unless it is "", and returns
// one that answers.
func (a *agent) anyAnswers(ctx context.Context, from netip.Addr, device string, peers []peerAddr) *peerAddr {
	var all sync.WaitGroup
	var first atomic.Pointer[peerAddr]
	for _, p := range peers {
		q := a.search.ask
		q.From, q.Device, q.To = from, device, p.addr
		all.Go(func() {
			if q.Answered(ctx) {
				first.CompareAndSwap(nil, &p)
			}
		})
	}
	all.Wait()
	return first.Load()
}
