package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// Routes is the table of routes with one protocol number, in all routing
// tables of both families. Routes of any other protocol are not ours, also
// for the same destination and metric: then ours fails with ErrForeign.
//
// It knows which objects its routes by tunnels go by, so one goroutine uses it.
type Routes struct {
	k        *Kernel
	protocol int
	nextHops nextHops
}

// Routes returns the table of routes with a protocol number of ours.
func (k *Kernel) Routes(protocol int) *Routes {
	return &Routes{k: k, protocol: protocol, nextHops: newNextHops()}
}

// CompareRoutes orders routes by table, destination and metric.
func CompareRoutes(a, b desired.RouteKey) int {
	// One by one: it is called some hundred thousand times for a large table.
	if c := cmp.Compare(a.Table, b.Table); c != 0 {
		return c
	}
	if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Priority, b.Priority))
}

// EqualRoutes reports whether the kernel's route is what is wanted. A next hop
// without an interface is content with any but a tunnel's: by that it was found
// while its address was the end of a tunnel too, and there it stays.
func EqualRoutes(want, have desired.Route) bool {
	if want.Type != have.Type || want.MTU != have.MTU || want.Scope != have.Scope || want.Source != have.Source {
		return false
	}
	if want.Type != desired.Unicast && want.Type != desired.Local {
		return true // the kernel shows a link that means nothing
	}
	if len(want.Hops) != len(have.Hops) {
		return false
	}
	if len(want.Hops) == 1 { // nearly all
		return equalHops(want.Hops[0], have.Hops[0])
	}
	left := slices.Clone(have.Hops)
	for _, w := range want.Hops {
		i := slices.IndexFunc(left, func(h desired.NextHop) bool { return equalHops(w, h) })
		if i < 0 {
			return false
		}
		left = slices.Delete(left, i, i+1)
	}
	return true
}

func equalHops(want, have desired.NextHop) bool {
	return want.Via == have.Via && want.OnLink == have.OnLink && max(want.Weight, 1) == max(have.Weight, 1) &&
		(want.Interface == have.Interface || want.Interface == "" && !tunnelName(have.Interface))
}

// routeTypes are the kernel's numbers of the types of routes.
func routeTypes() [5]uint8 {
	return [...]uint8{
		desired.Unicast: unix.RTN_UNICAST, desired.Blackhole: unix.RTN_BLACKHOLE, desired.Throw: unix.RTN_THROW,
		desired.Unreachable: unix.RTN_UNREACHABLE, desired.Local: unix.RTN_LOCAL,
	}
}

// List reads the routes of our protocol. The kernel itself leaves out all
// others.
func (r *Routes) List(context.Context) (map[desired.RouteKey]desired.Route, error) {
	var have map[desired.RouteKey]desired.Route
	types := routeTypes()
	names := r.k.names()
	err := r.k.with(func(c *rtnl.Conn) error {
		if err := takeTurn(c, loopback); err != nil {
			return err
		}
		all, err := readRoutes(c, routeMessage{Protocol: uint8(r.protocol)})
		if err != nil {
			return err
		}
		objects, err := r.objects(c)
		if err != nil {
			return err
		}
		have = make(map[desired.RouteKey]desired.Route, len(all))
		of := map[desired.RouteKey]uint32{}
		for _, m := range all {
			if m.Cloned || m.TOS != 0 {
				continue
			}
			kind := desired.RouteType(math.MaxUint8) // equal to nothing that can be wanted
			if i := slices.Index(types[:], m.Type); i >= 0 {
				kind = desired.RouteType(i)
			}
			route := desired.Route{
				Type: kind, Scope: m.Scope, MTU: int(m.MTU), Source: m.Src, Protocol: r.protocol,
			}
			key := desired.RouteKey{Table: m.Table, Prefix: m.Dst, Priority: int(m.Metric)}
			if m.NextHop != 0 {
				of[key] = m.NextHop
				if len(m.Hops) == 0 { // net.ipv4.nexthop_compat_mode is off
					m.Hops = objects[m.NextHop].hops()
				}
			}
			if len(m.Hops) > 0 {
				route.Hops = make([]desired.NextHop, 0, len(m.Hops))
			}
			for _, h := range m.Hops {
				name, err := names.nameOf(h.Out)
				if err != nil {
					return err
				}
				route.Hops = append(route.Hops, desired.NextHop{Via: h.Via, Interface: name, OnLink: h.OnLink, Weight: h.Weight})
			}
			have[key] = route
		}
		return r.nextHops.learn(objects, of, names)
	})
	return have, err
}

// objects reads the objects that stand for next hops. Only the agent's routes
// go by tunnels.
func (r *Routes) objects(c *rtnl.Conn) (map[uint32]nextHopMessage, error) {
	if r.protocol != desired.ProtocolAgent {
		return nil, nil
	}
	return readNextHops(c)
}

// Apply adds, replaces and removes routes in one go. Routes directly on a link
// come first, because others may need them to reach their next hop.
func (r *Routes) Apply(_ context.Context, p reconcile.Plan[desired.RouteKey, desired.Route]) map[desired.RouteKey]error {
	w := newWriter[desired.RouteKey](r.k)
	var by []uint32 // the object that each goes by, of those that are set
	for _, direct := range []bool{true, false} {
		for i, e := range p.Set {
			if direct != isDirect(e.Value) {
				continue
			}
			id := r.nextHops.choose(e.Value)
			if id != 0 && by == nil {
				by = make([]uint32, len(p.Set))
			}
			if id != 0 {
				by[i] = id
			}
			r.set(w, e, id)
		}
	}
	for _, key := range p.Delete {
		w.remove(key, "remove route", func(b *rtnl.Batch) error {
			putRoute(b, unix.RTM_DELROUTE, 0, routeMessage{
				Dst: key.Prefix, Table: key.Table, Metric: uint32(key.Priority),
				Protocol: uint8(r.protocol), Scope: unix.RT_SCOPE_NOWHERE, // any
			})
			return nil
		})
	}
	failed := w.send()
	r.follow(w, p, by)
	for key, err := range failed {
		if errors.Is(err, unix.EEXIST) {
			failed[key] = fmt.Errorf("%w: %w", err, ErrForeign)
		}
	}
	return failed
}

// set adds the request for a route, by way of an object unless id is 0.
func (r *Routes) set(w *writer[desired.RouteKey], e reconcile.Entry[desired.RouteKey, desired.Route], id uint32) {
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	if e.Exists {
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	m, err := r.message(w.names, e.Key, e.Value)
	if err == nil && id != 0 {
		m.NextHop = id
		r.nextHops.make(w, e, id, m.Hops[0])
	}
	w.add(e.Key, "set route", func(b *rtnl.Batch) error {
		if err == nil {
			putRoute(b, unix.RTM_NEWROUTE, flags, m)
		}
		return err
	})
}

// follow does what is left after a plan was sent: what an object stood in the
// way of is made without, and objects that no route needs are removed. An object
// that is gone, or is not what it was, is what the kernel calls invalid; any
// other error is about the route, and says nothing of the object.
func (r *Routes) follow(w *writer[desired.RouteKey], p reconcile.Plan[desired.RouteKey, desired.Route], by []uint32) {
	n := &r.nextHops
	for i, id := range by {
		e := p.Set[i]
		err := w.failed[e.Key]
		if id == 0 || n.there[id] != "" && !errors.Is(err, unix.EINVAL) {
			continue
		}
		by[i] = 0
		if err != nil && n.there[id] != "" { // somebody took it, but nobody has said so yet
			delete(n.there, id)
			delete(n.idle, id)
		}
		e.Exists = e.Exists || err == nil // it goes by an object that is not ours to trust
		delete(w.failed, e.Key)
		r.set(w, e, 0)
	}
	w.flush()
	for i, e := range p.Set {
		switch {
		case w.failed[e.Key] != nil:
		case by != nil:
			n.use(e.Key, by[i])
		case len(n.of) > 0:
			n.use(e.Key, 0)
		}
	}
	for _, key := range p.Delete {
		if len(n.of) > 0 && w.failed[key] == nil {
			n.use(key, 0)
		}
	}
	n.tidy(w)
	w.flush()
}

func isDirect(r desired.Route) bool {
	return !slices.ContainsFunc(r.Hops, func(h desired.NextHop) bool { return h.Via.IsValid() })
}

// message translates a wanted route.
func (r *Routes) message(names *names, key desired.RouteKey, route desired.Route) (routeMessage, error) {
	types := routeTypes()
	switch {
	case int(route.Type) >= len(types):
		return routeMessage{}, fmt.Errorf("unknown type %d", route.Type)
	case route.Protocol != r.protocol:
		return routeMessage{}, fmt.Errorf("protocol %d in the table of protocol %d", route.Protocol, r.protocol)
	case !key.Prefix.IsValid() || key.Prefix != key.Prefix.Masked():
		return routeMessage{}, errors.New("not a prefix")
	case key.Prefix.Addr().Is6() && key.Priority == 0:
		return routeMessage{}, fmt.Errorf("an IPv6 route needs a priority (the kernel would make it %d)", desired.DefaultPriority)
	}
	m := routeMessage{
		Dst: key.Prefix, Table: key.Table, Metric: uint32(key.Priority), Type: types[route.Type], Scope: route.Scope,
		Protocol: uint8(r.protocol), MTU: uint32(route.MTU), Src: route.Source,
	}
	for _, h := range route.Hops {
		out := 0
		if h.Interface != "" {
			var err error
			if out, err = names.indexOf(h.Interface); err != nil {
				return routeMessage{}, err
			}
		}
		m.Hops = append(m.Hops, hop{Via: h.Via, Out: out, OnLink: h.OnLink, Weight: h.Weight})
	}
	return m, nil
}

// readRoutes reads routes of both families; a protocol or table in filter
// other than 0 is the only one.
func readRoutes(c *rtnl.Conn, filter routeMessage) ([]routeMessage, error) {
	var all []routeMessage
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var b rtnl.Batch
		h := make([]byte, unix.SizeofRtMsg)
		h[0], h[5] = family, filter.Protocol
		b.Start(unix.RTM_GETROUTE, unix.NLM_F_DUMP, h)
		if filter.Table != 0 {
			b.Uint32(unix.RTA_TABLE, uint32(filter.Table))
		}
		first := len(all)
		err := c.Get(&b, func() { all = all[:first] }, func(m rtnl.Message) error {
			r, err := parseRoute(m)
			all = append(all, r)
			return err
		})
		switch {
		case errors.Is(err, unix.ENOENT) && filter.Table != 0, errors.Is(err, unix.EAFNOSUPPORT):
			// No such table yet, or no such family.
		case err != nil:
			return nil, fmt.Errorf("read routes: %w", err)
		}
	}
	return all, nil
}
