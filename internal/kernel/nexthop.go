package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// nextHops are the next hops behind tunnels for IPv4, as objects of their own
// (ip-nexthop(8)). For a route that names its next hop itself the kernel looks
// through all routes by the same interface for one with the same next hop; for
// one that names an object it does not. (IPv6 has no such search.) Objects are
// a shortcut only: where one cannot be had, or is not what it should be, the
// route names its next hop itself.
type nextHops struct {
	there map[uint32]string // objects in the kernel: the device of one that we make, "" for others
	of    map[desired.RouteKey]uint32
	users map[uint32]int  // routes by way of an object
	idle  map[uint32]bool // objects of ours that no route needs
}

func newNextHops() nextHops {
	return nextHops{there: map[uint32]string{}, of: map[desired.RouteKey]uint32{}, users: map[uint32]int{}, idle: map[uint32]bool{}}
}

// nextHopID returns the number of the object for a next hop, 0 for one without.
// It is the address itself, so that nothing has to be remembered or agreed on;
// for IP in IP with the first bit turned, since there the addresses are those
// of hosts. No two next hops of ours have the same, but for an address that is
// in both networks: one of the two then does without.
func nextHopID(h desired.NextHop) uint32 {
	if !h.OnLink || !h.Via.Is4() {
		return 0
	}
	a := h.Via.As4()
	switch id := binary.BigEndian.Uint32(a[:]); h.Interface {
	case desired.DeviceVXLAN4:
		return id
	case desired.DeviceIPIP:
		return id ^ 1<<31
	}
	return 0
}

// choose returns the object by which a route should go; 0: none. One without an
// MTU goes by none: the kernel would take it for any other route by the object,
// and give it that one's MTU (fib_find_info_nh).
func (n *nextHops) choose(r desired.Route) uint32 {
	if r.Type != desired.Unicast || len(r.Hops) != 1 || r.MTU == 0 {
		return 0
	}
	id := nextHopID(r.Hops[0])
	if device, there := n.there[id]; there && device != r.Hops[0].Interface {
		return 0 // somebody else's, or of the other tunnel
	}
	return id
}

// use notes by which object a route goes from now on; 0: none.
func (n *nextHops) use(key desired.RouteKey, id uint32) {
	was := n.of[key]
	if was == id {
		return
	}
	if was != 0 {
		delete(n.of, key)
		if n.users[was]--; n.users[was] == 0 {
			delete(n.users, was)
			n.idle[was] = true
		}
	}
	if id != 0 {
		n.of[key] = id
		n.users[id]++
		delete(n.idle, id)
	}
}

// A nextHopMessage is an object as netlink has it (struct nhmsg).
type nextHopMessage struct {
	ID       uint32
	Protocol uint8
	Hop      hop
	Odd      bool // a group, a blackhole, or with more than ours have
}

func (m nextHopMessage) put(b *rtnl.Batch, kind, flags uint16) {
	h := make([]byte, unix.SizeofNhmsg)
	h[2] = m.Protocol
	if m.Hop.Via.IsValid() {
		h[0] = familyOf(m.Hop.Via)
		putUint32(h[4:], m.Hop.flags())
	}
	b.Start(kind, flags, h)
	b.Uint32(unix.NHA_ID, m.ID)
	if m.Hop.Via.IsValid() {
		b.Uint32(unix.NHA_OIF, uint32(m.Hop.Out))
		b.Addr(unix.NHA_GATEWAY, m.Hop.Via)
	}
}

func parseNextHop(m rtnl.Message) (nextHopMessage, error) {
	if len(m.Body) < unix.SizeofNhmsg {
		return nextHopMessage{}, rtnl.ErrMalformed
	}
	h := m.Body
	n := nextHopMessage{Protocol: h[2], Hop: hop{OnLink: rtnl.Uint32(h[4:8])&unix.RTNH_F_ONLINK != 0, Weight: 1}}
	err := rtnl.Attrs(h[unix.SizeofNhmsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.NHA_ID:
			n.ID = rtnl.Uint32(v)
		case unix.NHA_OIF:
			n.Hop.Out = int(rtnl.Uint32(v))
		case unix.NHA_GATEWAY:
			n.Hop.Via = rtnl.Addr(v)
		default:
			n.Odd = true
		}
	})
	return n, err
}

// readNextHops reads all objects of a namespace, by number.
func readNextHops(c *rtnl.Conn) (map[uint32]nextHopMessage, error) {
	var b rtnl.Batch
	b.Start(unix.RTM_GETNEXTHOP, unix.NLM_F_DUMP, make([]byte, unix.SizeofNhmsg))
	found := map[uint32]nextHopMessage{}
	err := c.Get(&b, func() { clear(found) }, func(m rtnl.Message) error {
		n, err := parseNextHop(m)
		found[n.ID] = n
		return err
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return found, nil // a kernel without
	}
	if err != nil {
		return nil, fmt.Errorf("read next hops: %w", err)
	}
	return found, nil
}

// learn takes over what was read: the objects, and which route goes by which.
func (n *nextHops) learn(objects map[uint32]nextHopMessage, of map[desired.RouteKey]uint32, names *names) error {
	*n = newNextHops()
	for id, m := range objects {
		name, err := names.nameOf(m.Hop.Out)
		if err != nil {
			return err
		}
		ours := m.Protocol == desired.ProtocolAgent
		n.there[id] = ""
		if ours && !m.Odd && id == nextHopID(desired.NextHop{Via: m.Hop.Via, Interface: name, OnLink: m.Hop.OnLink}) {
			n.there[id] = name
		}
		if ours {
			n.idle[id] = true
		}
	}
	for key, id := range of {
		if n.idle[id] || n.users[id] > 0 { // of ours
			n.use(key, id)
		}
	}
	return nil
}

// make adds the request for an object of a device that is not there yet.
func (n *nextHops) make(w *writer[desired.RouteKey], e reconcile.Entry[desired.RouteKey, desired.Route], id uint32, h hop) {
	if _, there := n.there[id]; there || id == 0 {
		return
	}
	n.there[id], n.idle[id] = e.Value.Hops[0].Interface, true
	w.beside(e.Key, func(b *rtnl.Batch) {
		m := nextHopMessage{ID: id, Protocol: desired.ProtocolAgent, Hop: h}
		m.put(b, unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	}, func(error) {
		n.there[id] = "" // until it is read back
		delete(n.idle, id)
	})
}

// tidy removes the objects that no route needs any more. One that is needed
// takes its routes along, so it is done after these are known to go another way.
func (n *nextHops) tidy(w *writer[desired.RouteKey]) {
	for id := range n.idle {
		w.beside(desired.RouteKey{}, func(b *rtnl.Batch) {
			nextHopMessage{ID: id}.put(b, unix.RTM_DELNEXTHOP, 0)
		}, func(error) {}) // it has gone already, or is found by the next reading
		delete(n.there, id)
	}
	clear(n.idle)
}

// hops returns the next hop that an object stands for.
func (m nextHopMessage) hops() []hop {
	if m.Odd || m.Hop.Via == (netip.Addr{}) && m.Hop.Out == 0 {
		return nil
	}
	return []hop{m.Hop}
}
