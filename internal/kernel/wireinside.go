package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// configureWorkload prepares the workload's end, on a thread that is in the
// workload's namespace.
func configureWorkload(spec WireSpec, w *Wired) error {
	names, err := nameSocket()
	if err != nil {
		return err
	}
	defer unix.Close(names)
	if w.Index, err = indexOf(names, spec.IfName); err != nil {
		return err
	}
	if err := assertWorkloadSysctls(spec); err != nil {
		return err
	}
	c, err := rtnl.Dial(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if w.MTU == 0 {
		l, err := readLink(c, spec.IfName)
		if err != nil {
			return err
		}
		w.MTU = l.MTU
	}
	var b rtnl.Batch
	fillWorkload(&b, spec, w.Index)
	if err := c.Do(&b); err != nil {
		return fmt.Errorf("set up %s: %w", spec.IfName, err)
	}
	return nil
}

// fillWorkload adds the requests that give the workload's end its addresses
// and its way out. Each is of the kind that may be repeated.
func fillWorkload(b *rtnl.Batch, spec WireSpec, index int) {
	v4, v6 := spec.has()
	for _, a := range spec.Addresses {
		newAddress(b, index, netip.PrefixFrom(a, a.BitLen()))
	}
	setUp(b, index, true)
	if v4 {
		// The next hop is on no interface of the host, and a host without a
		// route to it would not answer for it: so the workload knows.
		newNeighbour(b, index, Gateway4(), hostMAC())
		newRoute(b, routeMessage{
			Dst: netip.PrefixFrom(Gateway4(), 32), Out: index, Scope: unix.RT_SCOPE_LINK, Protocol: unix.RTPROT_BOOT,
		})
	}
	for _, p := range spec.routes() {
		switch {
		case p.Addr().Is4() && v4:
			newRoute(b, routeMessage{Dst: p, Out: index, Via: Gateway4(), Protocol: unix.RTPROT_BOOT})
		case p.Addr().Is6() && v6:
			newRoute(b, routeMessage{Dst: p, Out: index, Via: Gateway6(), Protocol: unix.RTPROT_BOOT, Metric: 1024})
		}
	}
}

// assertWorkloadSysctls prepares the workload's namespace: IPv6 works where it
// is wanted, at once (no duplicate address detection), and nobody's router
// advertisement is believed.
func assertWorkloadSysctls(spec WireSpec) error {
	v4, v6 := spec.has()
	forward := "0"
	if spec.Forwarding {
		forward = "1"
	}
	settings := map[string]string{}
	if v4 {
		settings["net/ipv4/ip_forward"] = forward
	}
	if hasIPv6() {
		own := "net/ipv6/conf/" + spec.IfName + "/"
		settings[own+"accept_ra"] = "0"
		settings[own+"accept_dad"] = "0"
		if v6 {
			for _, each := range []string{"all", "default", "lo", spec.IfName} {
				settings["net/ipv6/conf/"+each+"/disable_ipv6"] = "0"
			}
			settings["net/ipv6/conf/all/forwarding"] = forward
		}
	} else if v6 {
		return errors.New("the kernel has no IPv6")
	}
	err := assertAll(settings)
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w (is /proc/sys read-only here?)", err)
	}
	return err
}

// newAddress adds a request that gives a link an address, usable at once.
func newAddress(b *rtnl.Batch, index int, p netip.Prefix) {
	a := p.Addr()
	h := addressHeader(a, p.Bits(), index)
	b.Start(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, h)
	b.Addr(unix.IFA_LOCAL, a)
	b.Addr(unix.IFA_ADDRESS, a)
	if a.Is6() {
		b.Uint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
	}
}

// addressHeader is struct ifaddrmsg.
func addressHeader(a netip.Addr, bits, index int) []byte {
	h := make([]byte, unix.SizeofIfAddrmsg)
	h[0] = familyOf(a)
	h[1] = uint8(bits)
	if a.Is6() && a.IsLinkLocalUnicast() {
		h[3] = unix.RT_SCOPE_LINK
	}
	putUint32(h[4:], uint32(index))
	return h
}

// familyOf returns AF_INET or AF_INET6.
func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
