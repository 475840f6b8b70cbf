package bgp

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	wire "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/brindle-net/brindle/internal/desired"
)

// engine is one life of the embedded speaker. It cannot be started twice.
type engine struct {
	srv    *server.BgpServer
	cancel context.CancelFunc // ends the watch
	log    *engineLog
}

// callbacks are what the engine tells. They come one at a time, in order, and
// may call the engine.
type callbacks struct {
	paths    func(e *engine, changed []netip.Prefix)
	endOfRIB func(e *engine, peer netip.Addr)
	peer     func(e *engine, ev peerEvent)
}

// batch is how many paths are handed over at once: everything else waits
// meanwhile.
const batch = 500

func listenPort(sp desired.Speaker) uint16 {
	if sp.ListenPort == 0 {
		return wire.BGP_PORT
	}
	return sp.ListenPort
}

// startEngine listens. Its peers, paths and policy are still to be set. It
// calls wake when the engine has gone deaf.
func startEngine(sp desired.Speaker, cb callbacks, log *slog.Logger, wake func()) (*engine, error) {
	e := &engine{}
	e.log = &engineLog{to: log.Handler(), mute: new(atomic.Bool), isDeaf: new(atomic.Bool), wake: wake}
	e.srv = server.NewBgpServer(server.LoggerOption(slog.New(e.log), nil))
	go e.srv.Serve()
	global := &api.Global{
		Asn: sp.AS, RouterId: sp.RouterID.String(), ListenPort: int32(listenPort(sp)),
		Families:         []uint32{familyIndex(true), familyIndex(false)},
		UseMultiplePaths: true,
	}
	for _, a := range sp.ListenOn {
		global.ListenAddresses = append(global.ListenAddresses, a.String())
	}
	if err := e.srv.StartBgp(context.Background(), &api.StartBgpRequest{Global: global}); err != nil {
		e.stop(true)
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	err := e.srv.WatchEvent(ctx, server.WatchEventMessageCallbacks{
		OnBestPath: func(paths []*apiutil.Path, _ time.Time) { cb.paths(e, prefixesOf(paths)) },
		OnPathEor:  func(p *apiutil.Path, _ time.Time) { cb.endOfRIB(e, p.PeerAddress) },
		OnPeerUpdate: func(ev *apiutil.WatchEventMessage_PeerEvent, at time.Time) {
			if ev.Type == apiutil.PEER_EVENT_STATE {
				cb.peer(e, newPeerEvent(ev, at))
			}
		},
	}, server.WatchBestPath(true), server.WatchPeer(), server.WatchEor(true))
	if err != nil {
		e.stop(true)
		return nil, fmt.Errorf("watch the BGP engine: %w", err)
	}
	return e, nil
}

// stop ends the engine with all its goroutines and sockets. A quiet stop says
// nothing to the peers, so they keep our paths for the restart time.
func (e *engine) stop(quiet bool) {
	e.log.mute.Store(true)
	_ = e.srv.StopBgp(context.Background(), &api.StopBgpRequest{AllowGracefulRestart: quiet})
	e.srv.Stop() // what is left: the goroutine that would serve BFD
	e.abandon()
}

// abandon leaves the engine to the end of the process.
func (e *engine) abandon() {
	if e.cancel != nil {
		e.cancel()
	}
}

// familyIndex is how the engine numbers address families.
func familyIndex(v4 bool) uint32 {
	if v4 {
		return 0
	}
	return 1
}

func familyOf(a netip.Addr) wire.Family {
	if a.Is4() {
		return wire.RF_IPv4_UC
	}
	return wire.RF_IPv6_UC
}

func prefixesOf(paths []*apiutil.Path) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(paths))
	for _, p := range paths {
		if p != nil {
			if n, ok := p.Nlri.(*wire.IPAddrPrefix); ok {
				out = append(out, n.Prefix)
			}
		}
	}
	return out
}

// announce adds or replaces own paths.
func (e *engine) announce(paths iter.Seq2[netip.Prefix, desired.Path]) error {
	var list []*apiutil.Path
	flush := func() error {
		if len(list) == 0 {
			return nil
		}
		_, err := e.srv.AddPath(apiutil.AddPathRequest{Paths: list})
		list = list[:0]
		return err
	}
	for key, v := range paths {
		p, err := ownPath(key, v)
		if err != nil {
			return err
		}
		if list = append(list, p); len(list) == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// withdraw removes own paths.
func (e *engine) withdraw(keys []netip.Prefix) error {
	for part := range slices.Chunk(keys, batch) {
		var list []*apiutil.Path
		for _, key := range part {
			p, err := ownPath(key, desired.Path{})
			if err != nil {
				return err
			}
			list = append(list, p)
		}
		if err := e.srv.DeletePath(apiutil.DeletePathRequest{Paths: list}); err != nil {
			return fmt.Errorf("withdraw %d prefixes: %w", len(list), err)
		}
	}
	return nil
}

func ownPath(key netip.Prefix, v desired.Path) (*apiutil.Path, error) {
	nlri, err := wire.NewIPAddrPrefix(key)
	if err != nil {
		return nil, err
	}
	attrs, err := attributes(key, v)
	if err != nil {
		return nil, err
	}
	return &apiutil.Path{Family: familyOf(key.Addr()), Nlri: nlri, Attrs: attrs, Age: time.Now().Unix()}, nil
}

// attributes are the path attributes of an own path. The unspecified next hop
// stands for our address on each session.
func attributes(key netip.Prefix, v desired.Path) ([]wire.PathAttributeInterface, error) {
	self := netip.IPv4Unspecified()
	if key.Addr().Is6() {
		self = netip.IPv6Unspecified()
	}
	hop, err := wire.NewPathAttributeNextHop(self)
	if err != nil {
		return nil, err
	}
	attrs := []wire.PathAttributeInterface{wire.NewPathAttributeOrigin(wire.BGP_ORIGIN_ATTR_TYPE_IGP), hop}
	if v.LocalPref != 0 {
		attrs = append(attrs, wire.NewPathAttributeLocalPref(v.LocalPref))
	}
	var plain []uint32
	var large []*wire.LargeCommunity
	for _, c := range v.Communities {
		n, err := parseCommunity(c)
		switch {
		case err != nil:
			return nil, err
		case len(n) == 2:
			plain = append(plain, n[0]<<16|n[1])
		default:
			large = append(large, wire.NewLargeCommunity(n[0], n[1], n[2]))
		}
	}
	if len(plain) > 0 {
		attrs = append(attrs, wire.NewPathAttributeCommunities(plain))
	}
	if len(large) > 0 {
		attrs = append(attrs, wire.NewPathAttributeLargeCommunities(large))
	}
	return attrs, nil
}

// parseCommunity reads a community as two numbers of 16 bits (RFC 1997) or
// three of 32 (RFC 8092).
func parseCommunity(s string) ([]uint32, error) {
	parts := strings.Split(s, ":")
	bits := map[int]int{2: 16, 3: 32}[len(parts)]
	if bits == 0 {
		return nil, fmt.Errorf("community %q: neither two nor three numbers with colons between", s)
	}
	var out []uint32
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, bits)
		if err != nil {
			return nil, fmt.Errorf("community %q: %w", s, errors.Unwrap(err))
		}
		out = append(out, uint32(n))
	}
	return out, nil
}

// received is one path in a table of the engine.
type received struct {
	candidate
	peer        netip.Addr // invalid: our own
	best, stale bool
	origin      string
	asPath      string
	localPref   uint32
	med         uint32
	communities []string
}

// table reads a table of the engine: the routes in use (peer ""), or what a
// peer sent or is sent. With prefixes given, only these.
func (e *engine) table(t api.TableType, peer string, v4 bool, only []netip.Prefix, each func(received)) error {
	family := wire.RF_IPv6_UC
	if v4 {
		family = wire.RF_IPv4_UC
	}
	request := apiutil.ListPathRequest{TableType: t, Name: peer, Family: family}
	for _, p := range only {
		request.Prefixes = append(request.Prefixes, &apiutil.LookupPrefix{Prefix: p.String()})
	}
	return e.srv.ListPath(request, func(nlri wire.NLRI, paths []*apiutil.Path) {
		n, ok := nlri.(*wire.IPAddrPrefix)
		if !ok {
			return
		}
		for _, p := range paths {
			each(read(n.Prefix, p))
		}
	})
}

func read(key netip.Prefix, p *apiutil.Path) received {
	r := received{candidate: candidate{prefix: key}, peer: p.PeerAddress, best: p.Best, stale: p.Stale}
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *wire.PathAttributeNextHop:
			r.nextHop = a.Value
		case *wire.PathAttributeMpReachNLRI:
			r.nextHop = a.Nexthop
		case *wire.PathAttributeOriginatorId:
			r.reflected = true
		case *wire.PathAttributeOrigin:
			if int(a.Value) < 3 {
				r.origin = [...]string{"IGP", "EGP", "incomplete"}[a.Value]
			}
		case *wire.PathAttributeAsPath:
			r.asPath = asPath(a)
		case *wire.PathAttributeLocalPref:
			r.localPref = a.Value
		case *wire.PathAttributeMultiExitDisc:
			r.med = a.Value
		case *wire.PathAttributeCommunities:
			for _, c := range a.Value {
				r.communities = append(r.communities, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
			}
		case *wire.PathAttributeLargeCommunities:
			for _, c := range a.Values {
				r.communities = append(r.communities, fmt.Sprintf("%d:%d:%d", c.ASN, c.LocalData1, c.LocalData2))
			}
		}
	}
	slices.Sort(r.communities)
	return r
}

func asPath(a *wire.PathAttributeAsPath) string {
	var out []string
	for _, segment := range a.Value {
		for _, as := range segment.GetAS() {
			out = append(out, strconv.FormatUint(uint64(as), 10))
		}
	}
	return strings.Join(out, " ")
}
