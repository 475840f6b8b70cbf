package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/brindle-net/brindle/internal/kernel"
)

// buildUnderlay lays the segments of layer 2, each with a switch in a
// namespace of its own and a cable from it to eth0 of every host, and where
// there are several, the router between them.
func buildUnderlay(t Topology) error {
	var switches []*kernel.Site
	defer func() {
		for _, s := range switches {
			s.Close()
		}
	}()
	for i := 1; i <= t.segments(); i++ {
		sw, err := newSite(t.Name, fmt.Sprintf("s%d", i))
		if err != nil {
			return err
		}
		switches = append(switches, sw)
		if err := sw.AddBridge("br0"); err != nil {
			return fmt.Errorf("switch s%d: %w", i, err)
		}
	}
	for i := 1; i <= t.Hosts; i++ {
		if err := addHost(t, i, switches[max(t.segmentOf(i), 1)-1]); err != nil {
			return fmt.Errorf("host h%d: %w", i, err)
		}
	}
	if len(switches) == 1 {
		return nil
	}
	if err := addRouter(t, switches); err != nil {
		return fmt.Errorf("router r1: %w", err)
	}
	return nil
}

// addHost makes the i-th host and connects it to its switch.
func addHost(t Topology, i int, sw *kernel.Site) error {
	name := fmt.Sprintf("h%d", i)
	host, err := newSite(t.Name, name)
	if err != nil {
		return err
	}
	defer host.Close()
	if err := plug(sw, name, host, "eth0", t.hostAddresses(i)); err != nil {
		return err
	}
	if t.segments() == 1 {
		return nil
	}
	for _, via := range t.addresses(t.segmentOf(i), routerNumber) {
		if err := host.AddRoute(everywhere(via.Addr()), via.Addr()); err != nil {
			return err
		}
	}
	return nil
}

// addRouter makes the router between the segments: eth0 is in the first, eth1
// in the second. It knows these and no other network.
func addRouter(t Topology, switches []*kernel.Site) error {
	r, err := newSite(t.Name, "r1")
	if err != nil {
		return err
	}
	defer r.Close()
	for i, sw := range switches {
		if err := plug(sw, "r1", r, fmt.Sprintf("eth%d", i), t.addresses(i+1, routerNumber)); err != nil {
			return err
		}
	}
	if t.has4() {
		err = r.SetSysctl("net/ipv4/ip_forward", "1")
	}
	if t.has6() {
		err = errors.Join(err, r.SetSysctl("net/ipv6/conf/all/forwarding", "1"))
	}
	return err
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

// routers lists the routers of a topology.
func (t Topology) routers() []Router {
	out := []Router{}
	if t.segments() == 1 {
		return out
	}
	r := Router{Name: "r1", Netns: netnsName(t.Name, "r1")}
	for i := 1; i <= t.segments(); i++ {
		for _, p := range t.addresses(i, routerNumber) {
			r.Addresses = append(r.Addresses, p.Addr().String())
		}
	}
	return append(out, r)
}
