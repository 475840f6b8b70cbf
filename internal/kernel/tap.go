package kernel

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
)

// kindTap is what the kernel calls a tap device.
const kindTap = "tun"

// layTap makes the tap device of a virtual machine, or finds it. It stays
// without a program that has it open: a machine may be started anew.
func (k *Kernel) layTap(spec WireSpec) (Wired, error) {
	mac, err := spec.MAC, error(nil)
	if len(mac) == 0 {
		if mac, err = randomMAC(); err != nil {
			return Wired{}, err
		}
	}
	var host linkInfo
	look := func() error {
		return k.with(func(c *rtnl.Conn) (err error) {
			host, err = readLink(c, spec.HostName)
			return err
		})
	}
	err = look()
	if err == nil && !ourTap(host, spec.alias()) {
		return Wired{}, fmt.Errorf("%s (%s, alias %q): %w", host.Name, host.Kind, host.Alias, ErrForeign)
	}
	made := errors.Is(err, ErrNoLink)
	dress := func() error {
		var b rtnl.Batch
		b.Start(unix.RTM_SETLINK, 0, rtnl.IfInfo(unix.AF_UNSPEC, host.Index, 0, 0))
		b.Bytes(unix.IFLA_ADDRESS, hostMAC())
		b.String(unix.IFLA_IFALIAS, spec.alias())
		if spec.MTU > 0 {
			b.Uint32(unix.IFLA_MTU, uint32(spec.MTU))
		}
		if err := k.do(&b); err != nil {
			return fmt.Errorf("set up %s: %w", spec.HostName, err)
		}
		return nil
	}
	switch {
	case made:
		err = k.makeTap(spec.HostName, func() error {
			if err := look(); err != nil {
				return err
			}
			return dress()
		})
	case err == nil:
		err = dress()
	}
	if err != nil {
		return Wired{}, err
	}
	return Wired{HostIndex: host.Index, MAC: mac, MTU: spec.MTU, Made: made}, nil
}

// ourTap reports whether a link is the tap device of a workload. One that a
// call of an earlier release left behind has no alias.
func ourTap(l linkInfo, alias string) bool {
	return l.Kind == kindTap && (l.Alias == alias || l.Alias == "" && l.MAC.String() == HostMAC)
}

// makeTap makes a tap device that stays once dress has made it ours. Until then
// it goes with whoever makes it: one who is killed leaves nothing behind that
// would be taken for somebody else's.
func (k *Kernel) makeTap(name string, dress func() error) error {
	fd := -1
	err := k.inside(func() (err error) {
		fd, err = attachTap(name, unix.IFF_TUN_EXCL)
		return err
	})
	if err != nil {
		return err
	}
	if err = dress(); err == nil {
		if err = unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
			err = fmt.Errorf("keep tap device %s: %w", name, err)
		}
	}
	return errors.Join(err, unix.Close(fd))
}

// attachTap opens a tap device of the calling thread's namespace, and makes it
// where it is not there yet.
func attachTap(name string, flags uint16) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun (does the kernel have tun?): %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("open tap device %s: %w", name, err), unix.Close(fd))
	}
	return fd, nil
}

// OpenTap opens a tap device of a namespace, as the program that runs a virtual
// machine does: each read is a frame that left by it, each write one that comes
// in. A device that is not there is made, and goes when it is closed.
func OpenTap(ns *netns.NS, name string) (*os.File, error) {
	fd := -1
	err := netns.Do(ns, func() (err error) {
		fd, err = attachTap(name, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// FillGuest gives an interface of a namespace that stands for a virtual machine
// the hardware address, MTU, addresses and ways out that a workload has.
func FillGuest(ns *netns.NS, spec WireSpec) error {
	err := netns.Do(ns, func() error {
		link, err := net.InterfaceByName(spec.IfName)
		if err != nil {
			return err
		}
		c, err := rtnl.Dial(nil)
		if err != nil {
			return err
		}
		defer c.Close()
		var b rtnl.Batch
		b.Start(unix.RTM_SETLINK, 0, rtnl.IfInfo(unix.AF_UNSPEC, link.Index, 0, 0))
		b.Bytes(unix.IFLA_ADDRESS, spec.MAC)
		b.Uint32(unix.IFLA_MTU, uint32(spec.MTU))
		if err := c.Do(&b); err != nil {
			return err
		}
		return configureWorkload(spec, &Wired{MTU: spec.MTU})
	})
	if err != nil {
		return fmt.Errorf("set up %s of the guest: %w", spec.IfName, err)
	}
	return nil
}

// inspectTap compares a tap device with what it is to be.
func (k *Kernel) inspectTap(spec WireSpec, host linkInfo) (Wired, error) {
	return Wired{HostIndex: host.Index, MTU: host.MTU}, k.inspectHost(spec, host)
}

// ourEnd reports whether a link is the host's end of a workload's wire, or its
// tap device.
func ourEnd(l linkInfo) bool {
	return ourWire(l, desired.AliasWorkload) || ourTap(l, desired.AliasWorkload)
}
