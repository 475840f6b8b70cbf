package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
)

// InspectWire reads a wire back and says all that differs from spec, in one
// error. The fields of spec that are zero are not compared. It changes
// nothing. An end that does not exist is ErrNoLink.
func (k *Kernel) InspectWire(ctx context.Context, spec WireSpec) (Wired, error) {
	w, err := k.inspectWire(ctx, spec)
	if err != nil {
		err = fmt.Errorf("wire %s to %s in %s: %w", spec.HostName, spec.IfName, spec.Netns, err)
	}
	return w, err
}

func (k *Kernel) inspectWire(ctx context.Context, spec WireSpec) (Wired, error) {
	if err := errors.Join(ctx.Err(), spec.check()); err != nil {
		return Wired{}, err
	}
	var host linkInfo
	err := k.with(func(c *rtnl.Conn) (err error) {
		host, err = readLink(c, spec.HostName)
		return err
	})
	if err == nil && host.Kind == kindTap {
		return k.inspectTap(spec, host)
	}
	ns, nerr := netns.OpenPath(spec.Netns)
	if nerr != nil {
		return Wired{}, nerr
	}
	defer ns.Close()
	if err != nil {
		return Wired{}, err
	}
	inside, err := k.farEnd(spec.IfName, ns)
	if err != nil {
		return Wired{}, err
	}
	w := Wired{HostIndex: host.Index, Index: inside.Index, MAC: inside.MAC, MTU: inside.MTU}
	return w, errors.Join(
		k.inspectHost(spec, host),
		inspectEnds(spec, host, inside),
		inspectWorkload(spec, ns, inside.Index),
	)
}

// inspectHost compares the host's end and its settings.
func (k *Kernel) inspectHost(spec WireSpec, host linkInfo) error {
	var errs []error
	if host.Alias != spec.alias() {
		errs = append(errs, fmt.Errorf("%s has alias %q, want %q", host.Name, host.Alias, spec.alias()))
	}
	if host.MAC.String() != HostMAC {
		errs = append(errs, fmt.Errorf("%s has hardware address %v, want %s", host.Name, host.MAC, HostMAC))
	}
	if !host.up() {
		errs = append(errs, fmt.Errorf("%s is down", host.Name))
	}
	want, err := linkSysctls(spec.HostName, desired.SysctlLines(desired.WorkloadSysctls()))
	if err != nil {
		return err
	}
	err = k.inside(func() error {
		for name, value := range want {
			have, err := readSysctl(name)
			if err == nil && have != value {
				err = fmt.Errorf("sysctl %s is %s, want %s", name, have, value)
			}
			errs = append(errs, err)
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// inspectEnds compares what both ends say of each other.
func inspectEnds(spec WireSpec, host, inside linkInfo) error {
	var errs []error
	if host.Peer != inside.Index || inside.Peer != host.Index {
		errs = append(errs, fmt.Errorf("%s and %s are not two ends of one wire", spec.HostName, spec.IfName))
	}
	if !inside.up() {
		errs = append(errs, fmt.Errorf("%s is down", spec.IfName))
	}
	if spec.MTU > 0 && inside.MTU != spec.MTU {
		errs = append(errs, fmt.Errorf("%s has MTU %d, want %d", spec.IfName, inside.MTU, spec.MTU))
	}
	if spec.MAC != nil && !bytes.Equal(spec.MAC, inside.MAC) {
		errs = append(errs, fmt.Errorf("%s has hardware address %v, want %v", spec.IfName, inside.MAC, spec.MAC))
	}
	return errors.Join(errs...)
}

// inspectWorkload compares addresses and routes inside the workload.
func inspectWorkload(spec WireSpec, ns *netns.NS, index int) error {
	c, err := rtnl.Dial(ns)
	if err != nil {
		return err
	}
	defer c.Close()
	addresses, err := readAddresses(c)
	if err != nil {
		return err
	}
	routes, err := readRoutes(c, routeMessage{})
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range spec.Addresses {
		want := netip.PrefixFrom(a, a.BitLen())
		if !slices.ContainsFunc(addresses, func(m addressMessage) bool { return m.Index == index && m.Prefix == want }) {
			errs = append(errs, fmt.Errorf("%s has no address %v", spec.IfName, want))
		}
	}
	for _, p := range spec.routes() {
		via := Gateway4()
		if p.Addr().Is6() {
			via = Gateway6()
		}
		found := slices.ContainsFunc(routes, func(r routeMessage) bool {
			return r.Table == unix.RT_TABLE_MAIN && r.Dst == p && len(r.Hops) == 1 && r.Hops[0].Via == via && r.Hops[0].Out == index
		})
		if !found {
			errs = append(errs, fmt.Errorf("no route %v via %v dev %s", p, via, spec.IfName))
		}
	}
	return errors.Join(errs...)
}
