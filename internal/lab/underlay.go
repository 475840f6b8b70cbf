package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/kernel"
)

// underlay is an underlay that is being built.
type underlay struct {
	topo     Topology
	shape    Shape
	switches map[string]*kernel.Site // by segment; none of a mere cable
	routers  map[string]*kernel.Site
}

// buildUnderlay lays the segments of layer 2, each with a switch in a
// namespace of its own and a cable from it to eth0 of every host, and the
// routers between them. A segment between two routers alone is a cable.
func buildUnderlay(t Topology) error {
	u := underlay{topo: t, shape: t.shape(), switches: map[string]*kernel.Site{}, routers: map[string]*kernel.Site{}}
	defer u.close()
	for _, seg := range u.shape.Segments {
		if u.shape.cable(seg) {
			continue
		}
		sw, err := newSite(t.Name, seg.Name)
		if err != nil {
			return err
		}
		u.switches[seg.Name] = sw
		if err := sw.AddBridge("br0"); err != nil {
			return fmt.Errorf("switch %s: %w", seg.Name, err)
		}
	}
	for i := 1; i <= t.Hosts; i++ {
		if err := u.addHost(i); err != nil {
			return fmt.Errorf("host h%d: %w", i, err)
		}
	}
	return u.addRouters()
}

func (u *underlay) close() {
	for _, all := range []map[string]*kernel.Site{u.switches, u.routers} {
		for _, s := range all {
			s.Close()
		}
	}
}

// addHost makes the i-th host and connects it to its switch. Its default route
// leads to the routers there.
func (u *underlay) addHost(i int) error {
	name, segment := fmt.Sprintf("h%d", i), u.shape.segmentName(i)
	host, err := newSite(u.topo.Name, name)
	if err != nil {
		return err
	}
	defer host.Close()
	if err := plug(u.switches[segment], name, host, "eth0", u.topo.hostAddresses(i)); err != nil {
		return err
	}
	var via []netip.Addr
	for _, r := range u.shape.routersOn(segment) {
		for _, p := range u.topo.routerAddresses(u.shape, r.Name, segment) {
			via = append(via, p.Addr())
		}
	}
	return addRoutes(host, []netip.Prefix{everywhere(netip.IPv4Unspecified()), everywhere(netip.IPv6Unspecified())}, via)
}

// addRoutes adds a route to each of the networks, by the next hops of its
// family. One without is left out.
func addRoutes(s *kernel.Site, to []netip.Prefix, via []netip.Addr) error {
	for _, dst := range to {
		hops := slices.DeleteFunc(slices.Clone(via), func(a netip.Addr) bool { return a.Is4() != dst.Addr().Is4() })
		if len(hops) == 0 {
			continue
		}
		if err := s.AddRoute(dst, hops...); err != nil {
			return err
		}
	}
	return nil
}

// addRouters makes the routers, connects them, and tells each the way to the
// segments that it is not on. They know no other network.
func (u *underlay) addRouters() error {
	for _, r := range u.shape.Routers {
		if err := u.addRouter(r); err != nil {
			return fmt.Errorf("router %s: %w", r.Name, err)
		}
	}
	for _, r := range u.shape.Routers {
		for _, seg := range u.shape.Segments {
			if slices.Contains(r.Segments, seg.Name) {
				continue
			}
			var to []netip.Prefix
			for _, p := range u.topo.addresses(u.shape.numberOf(seg.Name), 0) {
				to = append(to, p.Masked())
			}
			var via []netip.Addr
			for _, hop := range u.shape.hopsTo(r, seg.Name) {
				for _, p := range u.topo.routerAddresses(u.shape, hop[0], hop[1]) {
					via = append(via, p.Addr())
				}
			}
			if err := addRoutes(u.routers[r.Name], to, via); err != nil {
				return fmt.Errorf("router %s: %w", r.Name, err)
			}
		}
	}
	return nil
}

// addRouter makes one router: eth0 is in its first segment, eth1 in its second.
func (u *underlay) addRouter(r RouterShape) error {
	site, err := newSite(u.topo.Name, r.Name)
	if err != nil {
		return err
	}
	u.routers[r.Name] = site
	for i, segment := range r.Segments {
		if err := u.connect(r, fmt.Sprintf("eth%d", i), segment); err != nil {
			return err
		}
	}
	// A way whose cable is out is none, as on any router.
	if u.topo.has4() {
		err = errors.Join(site.SetSysctl("net/ipv4/ip_forward", "1"), site.SetSysctl("net/ipv4/conf/all/ignore_routes_with_linkdown", "1"))
	}
	if u.topo.has6() {
		err = errors.Join(err, site.SetSysctl("net/ipv6/conf/all/forwarding", "1"), site.SetSysctl("net/ipv6/conf/all/ignore_routes_with_linkdown", "1"))
	}
	return err
}

// connect connects a router to a segment: to its switch, or, at the end of a
// cable, to the router that was there before; the first does nothing yet.
func (u *underlay) connect(r RouterShape, name, segment string) error {
	if sw := u.switches[segment]; sw != nil {
		return plug(sw, r.Name, u.routers[r.Name], name, u.topo.routerAddresses(u.shape, r.Name, segment))
	}
	first := u.shape.routersOn(segment)[0]
	if first.Name == r.Name {
		return nil
	}
	far := fmt.Sprintf("eth%d", slices.Index(first.Segments, segment))
	if err := u.routers[r.Name].Cable(name, u.routers[first.Name], far); err != nil {
		return err
	}
	for _, p := range u.topo.routerAddresses(u.shape, r.Name, segment) {
		if err := u.routers[r.Name].AddAddress(name, p); err != nil {
			return err
		}
	}
	for _, p := range u.topo.routerAddresses(u.shape, first.Name, segment) {
		if err := u.routers[first.Name].AddAddress(far, p); err != nil {
			return err
		}
	}
	return nil
}

// plug lays a cable from a port of a switch to an interface with addresses.
func plug(sw *kernel.Site, port string, to *kernel.Site, name string, addresses []netip.Prefix) error {
	if err := sw.Cable(port, to, name); err != nil {
		return err
	}
	if err := sw.Join(port, "br0"); err != nil {
		return err
	}
	for _, p := range addresses {
		if err := to.AddAddress(name, p); err != nil {
			return err
		}
	}
	return nil
}

// everywhere is the prefix of a default route of an address's family.
func everywhere(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// newSite makes the namespace of a member with its loopback up.
func newSite(lab, member string) (*kernel.Site, error) {
	ns, err := claim(lab, member)
	if err != nil {
		return nil, err
	}
	site, err := kernel.OpenSite(ns)
	if err != nil {
		ns.Close()
		return nil, err
	}
	if err := site.Up("lo"); err != nil {
		site.Close()
		return nil, err
	}
	return site, nil
}
