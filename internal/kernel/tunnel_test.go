package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/reconcile"
	"github.com/brindle-net/brindle/internal/testenv"
)

// These tests need no program besides themselves either.

// A tunnelEnd is a host at one end of a tunnel: what it is called there, and
// the tables that make it so.
type tunnelEnd struct {
	k  *Kernel
	ns *netns.NS

	underlay netip.Addr   // on eth0
	own      netip.Prefix // on the tunnel, in the block
	block    netip.Prefix
	mac      string

	devices    *reconcile.Loop[string, desired.Device]
	links      *reconcile.Loop[string, desired.Link]
	addresses  *reconcile.Loop[desired.AddrKey, struct{}]
	neighbours *reconcile.Loop[desired.NeighKey, desired.Neigh]
	routes     *reconcile.Loop[desired.RouteKey, desired.Route]
	stop       func()
}

// A tunnelCase is a kind of tunnel with two ends.
type tunnelCase struct {
	name, device string
	form         desired.Form
	mtu          int
	ends         [2][3]string // underlay, block, address in it
}

// tunnelCases are the three devices. IP in IP has no IPv6 form (compare the
// rule that IPv6 pools must not ask for it).
func tunnelCases() []tunnelCase {
	four := [2][3]string{{"192.0.2.1/24", "10.65.1.0/26", "10.65.1.1/32"}, {"192.0.2.2/24", "10.65.2.0/26", "10.65.2.1/32"}}
	six := [2][3]string{
		{"2001:db8::1/64", "fd65:1::/122", "fd65:1::1/128"}, {"2001:db8::2/64", "fd65:2::/122", "fd65:2::1/128"},
	}
	return []tunnelCase{
		{"VXLAN v4", desired.DeviceVXLAN4, desired.VXLAN, 1450, four},
		{"VXLAN v6", desired.DeviceVXLAN6, desired.VXLAN, 1430, six},
		{"IP in IP", desired.DeviceIPIP, desired.IPIP, 1480, four},
	}
}

// twoEnds makes two hosts, one cable long.
func twoEnds(t *testing.T, c tunnelCase) [2]*tunnelEnd {
	t.Helper()
	var ends [2]*tunnelEnd
	var sites [2]*Site
	for i := range ends {
		k, ns := open(t)
		own, err := netns.OpenPath(ns.Path()) // the site closes it
		if err != nil {
			t.Fatal(err)
		}
		if sites[i], err = OpenSite(own); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sites[i].Close)
		ends[i] = &tunnelEnd{
			k: k, ns: ns, underlay: netip.MustParsePrefix(c.ends[i][0]).Addr(), block: netip.MustParsePrefix(c.ends[i][1]),
			own: netip.MustParsePrefix(c.ends[i][2]), mac: fmt.Sprintf("66:00:00:00:00:0%d", i+1),
		}
	}
	if err := sites[0].Cable("eth0", sites[1], "eth0"); err != nil {
		t.Fatal(err)
	}
	for i, s := range sites {
		if err := s.AddAddress("eth0", netip.MustParsePrefix(c.ends[i][0])); err != nil {
			t.Fatal(err)
		}
	}
	return ends
}

// run starts the tables of a host, which hear of drift as the agent's do.
func (e *tunnelEnd) run(t *testing.T) {
	t.Helper()
	var stops [5]func()
	e.devices, stops[0] = run(t, e.k.Devices(), cmp.Compare[string], EqualDevices)
	e.links, stops[1] = run(t, e.k.Links(), cmp.Compare[string], same[desired.Link])
	e.addresses, stops[2] = run(t, e.k.Addresses(), CompareAddrs, same[struct{}])
	e.neighbours, stops[3] = run(t, e.k.Neighbours(), CompareNeighs, same[desired.Neigh])
	e.routes, stops[4] = run(t, e.k.Routes(desired.ProtocolAgent), CompareRoutes, EqualRoutes)
	e.stop = func() {
		for _, s := range stops {
			s()
		}
	}
	devices, links, addresses, neighbours, routes := e.devices, e.links, e.addresses, e.neighbours, e.routes
	watch(t, e.k, func(d Drift) {
		for _, x := range []struct {
			changed      bool
			drift, retry func()
		}{
			{d.Devices, devices.Drift, devices.Retry}, {d.Links, links.Drift, links.Retry}, {d.Addresses, addresses.Drift, addresses.Retry},
			{d.Neighbours, neighbours.Drift, neighbours.Retry}, {d.Routes, routes.Drift, routes.Retry},
		} {
			if x.changed {
				x.drift()
			}
			if d.Appeared {
				x.retry()
			}
		}
	})
}

// device is what a host wants of its tunnel.
func (e *tunnelEnd) device(c tunnelCase, vni uint32) desired.Device {
	if c.form == desired.IPIP {
		return desired.Device{Form: c.form, Local: e.underlay}
	}
	return desired.Device{Form: c.form, Local: e.underlay, MAC: e.mac, VNI: vni, Port: 4789}
}

// want asks for a tunnel to another host, all tables at once.
func (e *tunnelEnd) want(c tunnelCase, peer *tunnelEnd) {
	e.devices.Want(set(c.device, e.device(c, 4096)))
	e.links.Want(set(c.device, desired.Link{
		Up: true, MTU: c.mtu, Alias: desired.AliasTunnel, Sysctls: desired.SysctlLines(desired.TunnelSysctls()),
	}))
	e.addresses.Want(set(desired.AddrKey{Interface: c.device, Prefix: e.own}, struct{}{}))
	e.neighbours.Want(desired.Patch[desired.NeighKey, desired.Neigh]{Set: e.entries(c, peer)})
	e.routes.Want(desired.Patch[desired.RouteKey, desired.Route]{Set: e.ways(c, peer)})
}

// entries are the neighbour and the forwarding entry for another host.
func (e *tunnelEnd) entries(c tunnelCase, peer *tunnelEnd) map[desired.NeighKey]desired.Neigh {
	if c.form == desired.IPIP {
		return nil
	}
	return map[desired.NeighKey]desired.Neigh{
		{Interface: c.device, Addr: peer.own.Addr()}: {MAC: peer.mac},
		{Interface: c.device, MAC: peer.mac}:         {Dst: peer.underlay},
	}
}

// ways are the routes to another host's block.
func (e *tunnelEnd) ways(c tunnelCase, peer *tunnelEnd) map[desired.RouteKey]desired.Route {
	hop := desired.NextHop{Via: peer.own.Addr(), Interface: c.device, OnLink: true}
	if c.form == desired.IPIP {
		hop.Via = peer.underlay
	}
	r := agentRoute(hop)
	r.MTU = c.mtu
	return map[desired.RouteKey]desired.Route{key(peer.block.String()): r}
}

// inSync says that all has been asked for.
func (e *tunnelEnd) inSync() {
	for _, f := range []func(){e.devices.InSync, e.links.InSync, e.addresses.InSync, e.neighbours.InSync, e.routes.InSync} {
		f()
	}
}

// settled waits until the host is as wanted. What one table makes wakes
// another, so it reads the kernel, and not what the loops say.
func (e *tunnelEnd) settled(t *testing.T, c tunnelCase, peer *tunnelEnd) {
	t.Helper()
	testenv.Until(t, waitLimit, func() error {
		devices, err := e.k.Devices().List(t.Context())
		if err != nil || !EqualDevices(e.device(c, 4096), devices[c.device]) {
			return fmt.Errorf("devices %+v, %w", devices, errors.Join(err, e.devices.Err()))
		}
		addresses, err := e.k.Addresses().List(t.Context())
		if _, ok := addresses[desired.AddrKey{Interface: c.device, Prefix: e.own}]; !ok || len(addresses) != 1 {
			return fmt.Errorf("addresses %+v, %w", addresses, errors.Join(err, e.addresses.Err()))
		}
		neighbours, err := e.k.Neighbours().List(t.Context())
		if err != nil || !maps.Equal(neighbours, e.entries(c, peer)) {
			return fmt.Errorf("neighbours %+v, %w", neighbours, errors.Join(err, e.neighbours.Err()))
		}
		routes, err := e.k.Routes(desired.ProtocolAgent).List(t.Context())
		if err != nil || !maps.EqualFunc(e.ways(c, peer), routes, EqualRoutes) {
			return fmt.Errorf("routes %+v, %w", routes, errors.Join(err, e.routes.Err()))
		}
		interfaces, err := e.k.Interfaces()
		for _, i := range interfaces {
			if i.Name == c.device && (!i.Up || i.MTU != c.mtu || i.Alias != desired.AliasTunnel) {
				return fmt.Errorf("link %+v, %w", i, errors.Join(err, e.links.Err()))
			}
		}
		for file, want := range e.settings(t, c) {
			got := ""
			testenv.Do(t, e.ns, func() (err error) { got, err = readSysctl(file); return err })
			if got != want {
				return fmt.Errorf("%s is %s, not %s", file, got, want)
			}
		}
		return err
	})
}

func (e *tunnelEnd) settings(t *testing.T, c tunnelCase) map[string]string {
	t.Helper()
	all, err := linkSysctls(c.device, desired.SysctlLines(desired.TunnelSysctls()))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// carries sends a packet each way, unless the kernel has no such tunnel and a
// link that carries nothing by itself stands in its place. The kernel takes a
// moment to answer for a new IPv6 address, so the first packet may be lost.
func carries(t *testing.T, c tunnelCase, ends [2]*tunnelEnd) {
	t.Helper()
	if c.form == desired.IPIP {
		switch own, err := ends[0].k.IPIPDevice(); {
		case err != nil:
			t.Fatal(err)
		case !own && os.Getenv("BRINDLE_VM") != "":
			t.Fatal("the kernels of the virtual machines have IP in IP, and a stand-in is used")
		case !own:
			return
		}
	}
	for i, e := range ends {
		peer := ends[1-i]
		testenv.Until(t, waitLimit, func() error {
			return exchangeWithin(e.ns, peer.ns, e.own.Addr(), peer.own.Addr(), waitLimit/20)
		})
	}
}

// Two hosts whose tables alone make the tunnel between them: at the start, when
// the device is deleted, over a restart, and until nothing is wanted.
func TestTunnelsOnAnyKernel(t *testing.T) {
	for _, c := range tunnelCases() {
		t.Run(c.name, func(t *testing.T) {
			ends := twoEnds(t, c)
			all := func(f func(e, peer *tunnelEnd)) {
				t.Helper()
				f(ends[0], ends[1])
				f(ends[1], ends[0])
			}
			start := func(e, peer *tunnelEnd) { e.run(t); e.want(c, peer); e.inSync() }
			settled := func(e, peer *tunnelEnd) { t.Helper(); e.settled(t, c, peer) }
			all(start)
			all(settled)
			carries(t, c, ends)

			// Somebody else deletes a device, for all that the host knows.
			other, err := Open(Config{Netns: ends[0].ns.Path()})
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			if failed := other.Devices().Apply(t.Context(), reconcile.Plan[string, desired.Device]{Delete: []string{c.device}}); len(failed) > 0 {
				t.Fatal(failed)
			}
			all(settled)
			carries(t, c, ends)

			for _, name := range slices.Sorted(maps.Keys(tampers())) {
				ends[0].tampered(t, name, c.device)
				all(settled)
			}
			carries(t, c, ends)

			all(func(e, _ *tunnelEnd) { e.stop() })
			carries(t, c, ends)
			all(start)
			all(settled)
			for _, e := range ends {
				if s := e.devices.Stats(); s.Sets+s.Deletes > 0 {
					t.Errorf("a restart changed devices: %+v", s)
				}
			}
			carries(t, c, ends)

			all(func(e, _ *tunnelEnd) { e.stop(); e.run(t); e.inSync() })
			for _, e := range ends {
				e.gone(t, c)
			}
		})
	}
}

// tampers are what somebody else may do to a tunnel's interface.
func tampers() map[string]func(h *netlink.Handle, l netlink.Link) error {
	each := func(family int, del func(h *netlink.Handle, n *netlink.Neigh) error) func(h *netlink.Handle, l netlink.Link) error {
		return func(h *netlink.Handle, l netlink.Link) error {
			list, err := h.NeighList(l.Attrs().Index, family)
			for _, n := range list {
				if n.State&netlink.NUD_PERMANENT != 0 && n.IP != nil {
					err = errors.Join(err, del(h, &n))
				}
			}
			return err
		}
	}
	return map[string]func(h *netlink.Handle, l netlink.Link) error{
		"down":  func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetDown(l) },
		"MTU":   func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetMTU(l, 1300) },
		"alias": func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetAlias(l, "other") },
		"setting": func(_ *netlink.Handle, l netlink.Link) error {
			return writeSysctl("net/ipv4/conf/"+l.Attrs().Name+"/rp_filter", "1")
		},
		"IPv6 setting": func(_ *netlink.Handle, l netlink.Link) error {
			return writeSysctl("net/ipv6/conf/"+l.Attrs().Name+"/accept_redirects", "1")
		},
		"addresses": func(h *netlink.Handle, l netlink.Link) error {
			list, err := h.AddrList(l, netlink.FAMILY_ALL)
			for _, a := range list {
				err = errors.Join(err, h.AddrDel(l, &a))
			}
			return err
		},
		"another address": func(h *netlink.Handle, l netlink.Link) error {
			return errors.Join(
				h.AddrAdd(l, &netlink.Addr{IPNet: ipNetOf(netip.MustParsePrefix("10.99.0.1/32"))}),
				h.AddrAdd(l, &netlink.Addr{IPNet: ipNetOf(netip.MustParsePrefix("fd99::1/128"))}))
		},
		"neighbours": each(netlink.FAMILY_ALL, func(h *netlink.Handle, n *netlink.Neigh) error { return h.NeighDel(n) }),
		"forwarding": each(unix.AF_BRIDGE, func(h *netlink.Handle, n *netlink.Neigh) error { return h.NeighDel(n) }),
		"routes": func(h *netlink.Handle, l netlink.Link) error {
			list, err := h.RouteList(l, netlink.FAMILY_ALL)
			for _, r := range list {
				if r.Protocol == desired.ProtocolAgent {
					// By its key: a route by way of an object has no next hop of its own.
					err = errors.Join(err, h.RouteDel(&netlink.Route{Dst: r.Dst, Table: r.Table, Priority: r.Priority}))
				}
			}
			return err
		},
		"next hops": func(*netlink.Handle, netlink.Link) error {
			c, err := rtnl.Dial(nil)
			if err != nil {
				return err
			}
			defer c.Close()
			found, err := readNextHops(c)
			for id := range found {
				var b rtnl.Batch
				nextHopMessage{ID: id}.put(&b, unix.RTM_DELNEXTHOP, 0)
				err = errors.Join(err, c.Do(&b))
			}
			return err
		},
	}
}

// tampered does something to a host's tunnel.
func (e *tunnelEnd) tampered(t *testing.T, name, device string) {
	t.Helper()
	h := handle(t, e.ns)
	testenv.Do(t, e.ns, func() error {
		l, err := h.LinkByName(device)
		if err != nil {
			return err
		}
		if err := tampers()[name](h, l); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
}

// gone waits until nothing is left of a tunnel. The kernel's own device for IP
// in IP may stay, down and with nothing on it.
func (e *tunnelEnd) gone(t *testing.T, c tunnelCase) {
	t.Helper()
	testenv.Until(t, waitLimit, func() error {
		interfaces, err := e.k.Interfaces()
		for _, i := range interfaces {
			left := i.Name == c.device && (i.Kind != kindIPIP || i.Up || i.Alias != "" || len(i.Addresses) > 0)
			if left {
				return fmt.Errorf("left %+v", i)
			}
		}
		return err
	})
}

// A device that must be made anew has on it at once what the old one had: no
// table but that of devices is there to see to it.
func TestNewDeviceCarriesOnOnAnyKernel(t *testing.T) {
	for _, c := range tunnelCases() {
		if c.form != desired.VXLAN {
			continue // the other has nothing that can not change
		}
		t.Run(c.name, func(t *testing.T) {
			ends := twoEnds(t, c)
			for i, e := range ends {
				e.run(t)
				e.want(c, ends[1-i])
			}
			for i, e := range ends {
				e.settled(t, c, ends[1-i])
				e.stop()
			}
			for _, e := range ends {
				was, err := e.k.IndexOf(c.device)
				if err != nil {
					t.Fatal(err)
				}
				p := reconcile.Plan[string, desired.Device]{Set: []reconcile.Entry[string, desired.Device]{
					{Key: c.device, Value: e.device(c, 5000), Exists: true},
				}}
				if failed := e.k.Devices().Apply(t.Context(), p); len(failed) > 0 {
					t.Fatal(failed)
				}
				if now, err := e.k.IndexOf(c.device); err != nil || now == was {
					t.Errorf("number %d was %d, %v: the device was not made anew", now, was, err)
				}
			}
			carries(t, c, ends)
		})
	}
}
