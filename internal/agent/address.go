package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/paths"
	"github.com/brindle-net/brindle/internal/store"
)

// search is how this host looks for its own addresses.
type search struct {
	problem problem
	moved   chan struct{} // capacity 1: interfaces, addresses or routes have changed
	asking  chan struct{} // capacity 1: whether peers answer may have changed
	follows bool          // the Node itself says the address
	ask     paths.Ask     // with what peers are asked
	found   reaches
}

func newSearch(s config.Agent) search {
	internal := s.Startup.IPMethod == kubernetesInternalIP || s.Startup.IP6Method == kubernetesInternalIP
	return search{moved: make(chan struct{}, 1), asking: make(chan struct{}, 1), follows: internal,
		ask: paths.Ask{Port: uint16(cmp.Or(s.Probes.Port, paths.DefaultPort)), Wait: reachWait}}
}

// kubernetesInternalIP is the method by which the Node says the address.
const kubernetesInternalIP = "kubernetes-internal-ip"

// drift says that interfaces, addresses or routes of this host have changed.
func (s *search) drift() {
	poke(s.moved)
	poke(s.asking)
}

// stir says that whether peers answer is to be looked at.
func (s *search) stir() { poke(s.asking) }

// noteNodes looks for news of hosts, and of what our own Node says.
func (s *search) noteNodes(events []model.Event, own model.ID) {
	for _, e := range events {
		if e.ID.Kind == model.KindNode {
			poke(s.asking)
		}
		if e.ID == own && s.follows {
			poke(s.moved)
		}
	}
}

// poke wakes whoever listens, unless that is due already.
func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// How changes of a host's interfaces are taken.
const (
	driftSettle   = time.Second      // changes that come together are looked at together
	driftShare    = 50               // times a look is how long the next one waits, at most addressSettle: each workload is a change
	addressSettle = 10 * time.Second // a new answer must last: a lease is renewed, a card comes up later than another
)

// await returns when the host is to be registered again: a look is due, its
// Node is gone, or its addresses have changed.
func (a *agent) await(ctx context.Context, due <-chan time.Time) error {
	settle := driftSettle
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-due:
			return nil
		case <-a.nodeGone:
			return nil
		case <-a.search.moved:
		}
		if err := store.Pause(ctx, settle); err != nil {
			return err
		}
		select {
		case <-a.search.moved:
		default:
		}
		begin := time.Now()
		if a.moves(ctx) {
			return nil
		}
		settle = min(addressSettle, max(driftSettle, driftShare*time.Since(begin)))
	}
}

// moves reports whether the addresses that this host would be known by have
// changed, or may have. The datastore is not asked.
func (a *agent) moves(ctx context.Context) bool {
	was := a.registered.Load()
	if was == nil || a.search.follows {
		return true
	}
	r, err := a.detect(ctx, nil)
	if err != nil || !was.sameAddresses(r) {
		return true
	}
	if r.odd4 != was.odd4 || r.odd6 != was.odd6 {
		next := *was
		next.odd4, next.odd6 = r.odd4, r.odd6
		a.registered.Store(&next)
		a.tellOdd(ctx, was, &next)
	}
	return false
}

// errUnsteady says that a new address did not last.
var errUnsteady = errors.New("the addresses of this host are changing")

// confirm looks again a moment later, and believes what is found twice.
func (a *agent) confirm(ctx context.Context, node *v3.Node, first *registered) (*registered, error) {
	if err := store.Pause(ctx, addressSettle); err != nil {
		return nil, err
	}
	again, err := a.detect(ctx, node)
	switch {
	case err != nil:
		return nil, err
	case again.sameAddresses(first) || a.registered.Load().sameAddresses(again):
		return again, nil
	}
	return nil, fmt.Errorf("%w: %v, then %v", errUnsteady, first.addresses(), again.addresses())
}

// oddity is what is odd about an address, for people; the zero value: nothing.
type oddity struct{ reason, message string }

// What may be odd.
const (
	oddKept      = "AddressKept"     // the method finds nothing any more
	oddAmbiguous = "OtherAddressFit" // another comes first, and this one fits still
)

// tellOdd logs what has become odd about the addresses.
func (a *agent) tellOdd(ctx context.Context, was, now *registered) {
	if was == nil {
		was = &registered{}
	}
	for _, x := range [][2]oddity{{was.odd4, now.odd4}, {was.odd6, now.odd6}} {
		if x[0] != x[1] && x[1].reason != "" {
			a.log.WarnContext(ctx, "own address kept", "reason", x[1].reason, "message", x[1].message)
		}
	}
}

// wantedAddress says how one address of this host is to be found.
type wantedAddress struct {
	family       int
	said, method string
	have         string     // by the Node
	known        netip.Addr // by which this host is known; invalid: none yet
	knownBits    int
	internal     []netip.Addr // of the Node
}

// detect finds the addresses of this host: those that were given, else those
// that its Node has, else by looking (documented Calico behaviour; IPv6 must
// be asked for). Without a Node, it is as when the host was registered.
func (a *agent) detect(ctx context.Context, node *v3.Node) (*registered, error) {
	s, was := a.cfg.Settings.Startup, a.registered.Load()
	have4, have6, internal := saidBy(node)
	if node == nil && was != nil {
		have4, have6 = text(was.v4), text(was.v6)
	}
	if s.IP == "" && have4 == "" && a.cfg.Settings.Overlay.Backend != config.BackendNone {
		s.IP = "autodetect"
	}
	wanted4 := wantedAddress{family: 4, said: s.IP, method: s.IPMethod, have: have4, internal: internal}
	wanted6 := wantedAddress{family: 6, said: s.IP6, method: s.IP6Method, have: have6, internal: internal}
	if was != nil {
		wanted4.know(text(was.v4))
		wanted6.know(text(was.v6))
	} else {
		wanted4.know(have4)
		wanted6.know(have6)
	}
	var r registered
	var err error
	if r.v4, r.odd4, err = a.address(ctx, wanted4); err != nil {
		return nil, err
	}
	if r.v6, r.odd6, err = a.address(ctx, wanted6); err != nil {
		return nil, err
	}
	r.why4, r.why6 = a.whyAddress(wanted4, r.v4), a.whyAddress(wanted6, r.v6)
	return &r, nil
}

// givesUp reports whether a host that looks for its addresses would be known by
// others than its Node says.
func (a *agent) givesUp(node *v3.Node, r *registered) bool {
	have4, have6, _ := saidBy(node)
	s := a.cfg.Settings.Startup
	other := func(said, have, now string) bool {
		have, _, _ = strings.Cut(have, "/")
		now, _, _ = strings.Cut(now, "/")
		return (said == "" || said == "autodetect") && have != "" && have != now
	}
	return other(s.IP, have4, text(r.v4)) || other(s.IP6, have6, text(r.v6))
}

// saidBy is what a Node says of the addresses of its host.
func saidBy(node *v3.Node) (have4, have6 string, internal []netip.Addr) {
	if node == nil {
		return "", "", nil
	}
	if node.Spec.BGP != nil {
		have4, have6 = node.Spec.BGP.IPv4Address, node.Spec.BGP.IPv6Address
	}
	for _, x := range node.Spec.Addresses {
		text, _, _ := strings.Cut(x.Address, "/")
		if addr, err := netip.ParseAddr(text); err == nil && x.Type == "InternalIP" {
			internal = append(internal, addr)
		}
	}
	return have4, have6, internal
}

// know takes the address by which the host is known.
func (w *wantedAddress) know(text string) {
	if p, err := netip.ParsePrefix(text); err == nil {
		w.known, w.knownBits = p.Addr(), p.Bits()
	} else if addr, err := netip.ParseAddr(text); err == nil {
		w.known, w.knownBits = addr, addr.BitLen()
	}
}

// address finds one address of this host, with the length of its subnet.
func (a *agent) address(ctx context.Context, w wantedAddress) (netip.Prefix, oddity, error) {
	switch w.said {
	case "none":
		return netip.Prefix{}, oddity{}, nil
	case "autodetect":
		return w.choose(a.kernel.DetectAddress(ctx, w.method, kernel.Query{Family: w.family, Internal: w.internal}))
	case "":
		if w.have == "" {
			return netip.Prefix{}, oddity{}, nil
		}
		w.said = w.have
	}
	if p, err := netip.ParsePrefix(w.said); err == nil {
		return p, oddity{}, nil
	}
	addr, err := netip.ParseAddr(w.said)
	if err != nil {
		return netip.Prefix{}, oddity{}, fmt.Errorf("IPv%d address %q of this host: must be ADDRESS or ADDRESS/LENGTH: %w", w.family, w.said, errFatal)
	}
	p, err := a.kernel.CompleteAddress(addr)
	if err == nil && p.IsSingleIP() && addr == w.known {
		p = netip.PrefixFrom(addr, w.knownBits) // its interface may be away for a while
	}
	return p, oddity{}, err
}

// choose settles on one of the addresses that were found. A host that is known
// by one keeps it as long as it fits, and when nothing is found: whatever hangs
// on it would have to move, and two answers may take turns.
func (w wantedAddress) choose(found []kernel.Candidate, err error) (netip.Prefix, oddity, error) {
	if err != nil {
		if w.method == kubernetesInternalIP {
			err = fmt.Errorf("%w: among spec.addresses of the Node is no IPv%d address of type InternalIP", err, w.family)
		}
		if !w.known.IsValid() {
			return netip.Prefix{}, oddity{}, fmt.Errorf("detect the IPv%d address of this host (%s): %w", w.family, w.method, err)
		}
		kept := netip.PrefixFrom(w.known, w.knownBits)
		return kept, oddity{oddKept, fmt.Sprintf("%v is kept, though nothing is found any more: %v", kept, err)}, nil
	}
	i := slices.IndexFunc(found, func(c kernel.Candidate) bool { return c.Address.Addr() == w.known })
	if i <= 0 {
		return found[0].Address, oddity{}, nil
	}
	return found[i].Address, oddity{oddAmbiguous, fmt.Sprintf(
		"%v is kept, though %s would choose %v: both fit; narrow %s, or set %s",
		found[i], w.method, found[0], methodVariable(w.family), addressVariable(w.family))}, nil
}

// methodVariable and addressVariable name what a person sets.
func methodVariable(family int) string {
	return map[int]string{4: "IP_AUTODETECTION_METHOD", 6: "IP6_AUTODETECTION_METHOD"}[family]
}

func addressVariable(family int) string { return map[int]string{4: "IP", 6: "IP6"}[family] }

// choices are the addresses that there are, and why.
func (a *agent) choices(r *registered) []agentapi.AddressChoice {
	var out []agentapi.AddressChoice
	for _, x := range []struct {
		addr   netip.Prefix
		why    string
		odd    oddity
		family int
	}{{r.v4, r.why4, r.odd4, 4}, {r.v6, r.why6, r.odd6, 6}} {
		if !x.addr.IsValid() {
			continue
		}
		notes := []string{}
		for _, s := range []string{x.odd.message, a.search.found.of(x.family).message} {
			if s != "" {
				notes = append(notes, s)
			}
		}
		out = append(out, agentapi.AddressChoice{Address: x.addr.String(), Why: x.why, Note: strings.Join(notes, "; ")})
	}
	return out
}

// whyAddress says for people why an address was chosen; "" for none.
func (a *agent) whyAddress(w wantedAddress, found netip.Prefix) string {
	param := map[int]string{4: "ip", 6: "ip6"}[w.family]
	values := a.cfg.outcome().Values
	i := slices.IndexFunc(values, func(v config.Value) bool { return v.Name == param && v.Value != "" })
	source := ""
	if i >= 0 {
		source = values[i].Source
	}
	switch {
	case !found.IsValid():
		return ""
	case w.said == "autodetect" && source != "":
		return fmt.Sprintf("found%s by %s, as asked for (%s)", a.whereIs(found.Addr()), w.method, source)
	case w.said == "autodetect":
		return fmt.Sprintf("found%s by %s, because the Node had none", a.whereIs(found.Addr()), w.method)
	case w.said != "" && source != "":
		return fmt.Sprintf("given (%s)", source)
	case w.said != "":
		return "given"
	}
	return "the Node had it already"
}

// whereIs names the interface that has an address, if one does.
func (a *agent) whereIs(addr netip.Addr) string {
	all, err := a.kernel.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range all {
		if slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr() == addr }) {
			return " on " + i.Name
		}
	}
	return ""
}
