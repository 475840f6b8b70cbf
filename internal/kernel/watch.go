package kernel

import (
	"context"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// A Drift says which tables may have been changed by somebody else, or by the
// kernel itself.
type Drift struct {
	Devices    bool
	Links      bool
	Addresses  bool
	Routes     bool
	Rules      bool
	Neighbours bool
	Sysctls    bool

	// Protocol is the only protocol whose routes are meant; 0: any.
	Protocol int
	// Appeared: a link came up or into being, so that what failed for want of
	// it may work now.
	Appeared bool
	// Underlay: the ways to other hosts may have changed. See Kernel.Way.
	Underlay bool
}

// everything is what may have changed when notifications were lost.
func everything() Drift {
	return Drift{
		Devices: true, Links: true, Addresses: true, Routes: true, Rules: true, Neighbours: true, Sysctls: true, Appeared: true,
		Underlay: true,
	}
}

// netconf messages tell of sysctls (linux/netconf.h).
const (
	newNetconf   = 80 // RTM_NEWNETCONF
	groupNetconf = 1<<23 | 1<<24
	groupRules   = 1<<7 | 1<<18
	groupNextHop = 1 << (unix.RTNLGRP_NEXTHOP - 1)
	netconfAll   = -1
	netconfDef   = -2
	netconfHead  = 4 // struct netconfmsg, padded
	netconfIndex = 1 // NETCONFA_IFINDEX
)

const watched = unix.RTMGRP_LINK | unix.RTMGRP_NEIGH | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
	unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE | groupRules | groupNetconf | groupNextHop

// Watch calls tell for changes that we did not make ourselves, until ctx ends.
// It tells first that everything may have changed, so that nothing is missed
// that changed before. tell must be quick.
func (k *Kernel) Watch(ctx context.Context, tell func(Drift)) error {
	ns := k.ns
	if k.home {
		ns = nil
	}
	l, err := rtnl.Listen(ns, watched)
	if err != nil {
		return err
	}
	defer l.Close()
	w := watcher{k: k}
	if err := w.start(); err != nil {
		return err
	}
	tell(everything())
	return l.Receive(ctx, func(m rtnl.Message) {
		if d := w.judge(m); d != (Drift{}) {
			tell(d)
		}
	}, func(error) {
		tell(everything())
	})
}

// A watcher judges notifications.
type watcher struct {
	k    *Kernel
	seen map[int]seenLink // links by number
}

// A seenLink is what a link was like when it was last heard of.
type seenLink struct {
	name  string
	up    bool
	mtu   int
	alias string
}

func seenOf(l linkInfo) seenLink {
	return seenLink{name: l.Name, up: l.up(), mtu: l.MTU, alias: l.Alias}
}

// ours reports whether a link bears an alias of ours.
func (s seenLink) ours() bool { return strings.HasPrefix(s.alias, aliasPrefix) }

// tunnel reports whether a link is the interface of a tunnel. All that is said
// of one is told: its address and the like are not remembered here.
func (s seenLink) tunnel() bool { return s.alias == desired.AliasTunnel || tunnelName(s.name) }

// drifts reports whether a change takes away what is asserted about links.
// Coming up and being given our alias are what setting one up looks like.
func (s seenLink) drifts(now seenLink) bool {
	return s.name != now.name || s.up && !now.up || s.mtu != now.mtu || s.ours() && s.alias != now.alias
}

// start learns which links there are.
func (w *watcher) start() error {
	w.seen = map[int]seenLink{}
	return w.k.with(func(c *rtnl.Conn) error {
		links, err := readLinks(c)
		for _, l := range links {
			w.seen[l.Index] = seenOf(l)
		}
		return err
	})
}

// judge says what a notification means for our tables.
func (w *watcher) judge(m rtnl.Message) Drift {
	// Links are looked at also when we changed them: what a link carries comes
	// and goes with it.
	if m.Kind == unix.RTM_NEWLINK || m.Kind == unix.RTM_DELLINK {
		return w.judgeLink(m)
	}
	if w.k.ours(m.Port) {
		// With the last IPv4 address of a link the kernel takes the routes over it,
		// without a word.
		return Drift{Routes: m.Kind == unix.RTM_DELADDR && len(m.Body) > 0 && m.Body[0] == unix.AF_INET}
	}
	switch m.Kind {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return judgeRoute(m)
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		return judgeNextHop(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		// The kernel says nothing of IPv4 routes that go with their source.
		del := m.Kind == unix.RTM_DELADDR
		return Drift{Addresses: true, Devices: true, Links: del, Routes: del, Underlay: true}
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		return Drift{Rules: true}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return w.judgeNeighbour(m)
	case newNetconf:
		return w.judgeNetconf(m)
	}
	return Drift{}
}

func (w *watcher) judgeLink(m rtnl.Message) Drift {
	l, err := parseLink(m)
	if err != nil {
		return everything()
	}
	if len(m.Body) > 0 && m.Body[0] == unix.AF_BRIDGE {
		return Drift{} // a port of a bridge
	}
	was, seen := w.seen[l.Index]
	now := seenOf(l)
	devices := was.tunnel() || now.tunnel()
	if m.Kind == unix.RTM_DELLINK {
		delete(w.seen, l.Index)
		return Drift{Devices: devices, Links: true, Routes: true, Addresses: true, Neighbours: true, Underlay: true}
	}
	w.seen[l.Index] = now
	// Who changed it is not asked: the kernel names nobody for most changes.
	// Reading all links back is dear, so only what matters makes it due. What
	// waits for a new link has failed so far, and is tried again.
	if !seen {
		return Drift{Devices: devices, Appeared: true}
	}
	d := Drift{Devices: devices, Links: was.drifts(now), Appeared: now.up && !was.up || now.name != was.name, Underlay: now.up != was.up}
	if now.tunnel() && now.alias != was.alias { // what is on it may have become ours
		d.Addresses, d.Neighbours = true, true
	}
	if was.up && !now.up { // the kernel removes routes without a word
		d.Routes, d.Addresses, d.Neighbours = true, true, true
	}
	return d
}

// judgeRoute: a route of another protocol matters only when it replaced one,
// which may have been ours.
func judgeRoute(m rtnl.Message) Drift {
	if len(m.Body) < unix.SizeofRtMsg {
		return everything()
	}
	protocol := int(m.Body[5])
	switch {
	case protocol == desired.ProtocolAgent || protocol == desired.ProtocolBGP:
		return Drift{Routes: true, Protocol: protocol}
	case m.Kind == unix.RTM_NEWROUTE && m.Flags&unix.NLM_F_REPLACE != 0:
		return Drift{Routes: true, Underlay: true}
	case m.Kind == unix.RTM_DELROUTE: // it may have been in our way
		return Drift{Appeared: true, Underlay: true}
	}
	return Drift{Underlay: true}
}

// judgeNextHop: with an object the kernel takes the routes that go by it, and
// says nothing of these.
func judgeNextHop(m rtnl.Message) Drift {
	n, err := parseNextHop(m)
	switch {
	case err != nil:
		return everything()
	case n.Protocol == desired.ProtocolAgent || m.Kind == unix.RTM_NEWNEXTHOP && m.Flags&unix.NLM_F_REPLACE != 0:
		return Drift{Routes: true, Protocol: desired.ProtocolAgent}
	}
	return Drift{Underlay: true}
}

// judgeNeighbour: only permanent entries on our links are ours. One that
// vanishes no longer says that it was permanent.
func (w *watcher) judgeNeighbour(m rtnl.Message) Drift {
	n, err := parseNeigh(m)
	if err != nil {
		return everything()
	}
	gone := m.Kind == unix.RTM_DELNEIGH || n.State&unix.NUD_FAILED != 0
	return Drift{Neighbours: w.seen[n.Index].ours() && (gone || n.State&unix.NUD_PERMANENT != 0)}
}

// judgeNetconf: a link that does not bear our alias yet is being set up, and
// is told of for each setting that we write.
func (w *watcher) judgeNetconf(m rtnl.Message) Drift {
	d := Drift{Links: true, Sysctls: true}
	err := rtnl.Attrs(m.Body[min(netconfHead, len(m.Body)):], func(kind uint16, v []byte) {
		if kind != netconfIndex {
			return
		}
		switch index := int32(rtnl.Uint32(v)); index {
		case netconfAll:
			d.Links = false
		case netconfDef:
			d.Links, d.Sysctls = false, false
		default:
			d.Links, d.Sysctls = w.seen[int(index)].ours(), false
		}
	})
	if err != nil {
		return everything()
	}
	return d
}
