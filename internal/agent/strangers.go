package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/health"
	"github.com/brindle-net/brindle/internal/ipip"
	"github.com/brindle-net/brindle/internal/nflog"
)

// senderGroup is the group that a sample of packets from unknown senders goes
// to.
const senderGroup = logGroup + 1

// Bounds of what is kept and said of unknown senders: anybody on the network
// can forge any number of them.
const (
	strangersKept  = 32               // addresses, those seen last
	strangersTell  = 10               // lines a minute
	strangersQuiet = 10 * time.Minute // until the same address is told of again, and until the condition is calm
	strangersPace  = 10 * time.Second // how often programs are asked
)

// strangers knows who sent encapsulated packets without being a host of the
// cluster. Rules count and sample what comes for the kernel's devices, programs
// what comes for theirs; this is where both meet.
type strangers struct {
	log *slog.Logger

	mu     sync.Mutex                // guards everything below
	rules  map[desired.Form]uint64   // packets that rules dropped
	byBPF  uint64                    // packets that programs dropped
	last   map[unknownSender]*visits // at most strangersKept
	asked  map[netip.Addr]uint64     // what programs said last
	known  bool                      // asked is of this run
	lines  int                       // told in this minute
	minute time.Time
}

// unknownSender is an address that is no host's, with the form it sent in.
type unknownSender struct {
	addr netip.Addr
	form desired.Form
}

// visits is what is known of one.
type visits struct {
	seen, told time.Time
}

func newStrangers(log *slog.Logger) *strangers {
	return &strangers{log: log, rules: map[desired.Form]uint64{}, last: map[unknownSender]*visits{}, asked: map[netip.Addr]uint64{}}
}

// counted takes what the kernel's counters say.
func (s *strangers) counted(c map[string]nft.Count) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules[desired.IPIP] = c[rules.CounterUnknownIPIP].Packets
	s.rules[desired.VXLAN] = c[rules.CounterUnknownVXLAN].Packets
}

// heard takes a packet of the sample.
func (s *strangers) heard(p nflog.Packet, now time.Time) {
	form := desired.VXLAN
	if p.Protocol == unix.IPPROTO_IPIP {
		form = desired.IPIP
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.visit(unknownSender{p.Src, form}, now)
}

// reported takes what programs say of IP in IP. Whoever sent before this run
// was told of by the one before.
func (s *strangers) reported(all []ipip.Stranger, dropped uint64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := make(map[netip.Addr]uint64, len(all))
	for _, one := range all {
		asked[one.Addr] = one.Packets
		if s.known && one.Packets != s.asked[one.Addr] {
			s.visit(unknownSender{one.Addr, desired.IPIP}, now)
		}
	}
	s.asked, s.byBPF, s.known = asked, dropped, true
}

// visit notes a sender and tells of it. s.mu is held.
func (s *strangers) visit(who unknownSender, now time.Time) {
	v := s.last[who]
	if v == nil {
		if len(s.last) >= strangersKept {
			delete(s.last, s.byTime()[strangersKept-1])
		}
		v = &visits{}
		s.last[who] = v
	}
	v.seen = now
	if !v.told.IsZero() && now.Sub(v.told) < strangersQuiet {
		return
	}
	if now.Sub(s.minute) >= time.Minute {
		s.minute, s.lines = now, 0
	}
	if s.lines++; s.lines > strangersTell {
		return
	}
	v.told = now
	s.log.Warn("encapsulated packet from an unknown sender dropped", "from", who.addr, "form", who.form)
}

// byTime lists the senders, who was seen last first. s.mu is held.
func (s *strangers) byTime() []unknownSender {
	return slices.SortedFunc(maps.Keys(s.last), func(a, b unknownSender) int {
		return cmp.Or(s.last[b].seen.Compare(s.last[a].seen), a.addr.Compare(b.addr), cmp.Compare(a.form, b.form))
	})
}

// dropped is how many packets were. s.mu is held.
func (s *strangers) dropped(f desired.Form) uint64 {
	if f == desired.IPIP {
		return s.rules[f] + s.byBPF
	}
	return s.rules[f]
}

// samples are the metrics.
func (s *strangers) samples() []health.Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []health.Sample
	for _, f := range []desired.Form{desired.IPIP, desired.VXLAN} {
		out = append(out, health.Sample{Name: "brindle_unknown_sender_packets_total",
			Help:   "Encapsulated packets to this host that were dropped, since no known host sent them.",
			Labels: map[string]string{"form": f.String()}, Value: float64(s.dropped(f)), Counter: true})
	}
	return out
}

// status is what `brindle node status` shows.
func (s *strangers) status() agentapi.UnknownSenders {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := agentapi.UnknownSenders{IPIP: s.dropped(desired.IPIP), VXLAN: s.dropped(desired.VXLAN)}
	for _, who := range s.byTime() {
		out.Last = append(out.Last, agentapi.UnknownSender{
			Address: who.addr.String(), Form: who.form.String(), Seen: s.last[who].seen.UTC().Format(time.RFC3339),
		})
	}
	return out
}

// message names who sent within the last minutes, "" if nobody did.
func (s *strangers) message(now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, who := range s.byTime() {
		if now.Sub(s.last[who].seen) < strangersQuiet {
			names = append(names, fmt.Sprintf("%s (%s)", who.addr, who.form))
		}
	}
	if len(names) == 0 {
		return ""
	}
	more := ""
	if n := len(names) - 3; n > 0 {
		names, more = names[:3], fmt.Sprintf(" and %d more", n)
	}
	return "encapsulated packets from unknown senders were dropped: last from " + strings.Join(names, ", ") + more
}

// watchStrangers asks the programs until ctx ends.
func (a *agent) watchStrangers(ctx context.Context) error {
	tick := time.NewTicker(strangersPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			a.askPrograms()
		}
	}
}

// askPrograms takes what programs say of unknown senders, if there are any.
func (a *agent) askPrograms() {
	if all, dropped, ok := a.carrier.strangers(); ok {
		a.policy.strangers.reported(all, dropped, time.Now())
	}
}

// hearSenders takes the sample of packets from unknown senders.
func (e *enforcement) hearSenders(ctx context.Context) error {
	return nflog.Listen(ctx, nil, senderGroup, func(p nflog.Packet) {
		e.strangers.heard(p, time.Now())
	}, func() {}) // counters have what a sample lacks
}
