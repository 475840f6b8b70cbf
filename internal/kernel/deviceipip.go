package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// The kinds of links that tunnels are made of.
const (
	kindIPIP  = "ipip"
	kindVXLAN = "vxlan"
)

// standIns are the kinds of links that stand where the kernel has no device
// for IP in IP, the first that it has: both resolve no neighbours and drop
// what nobody takes from them.
func standIns() []string { return []string{"dummy", "ifb"} }

// standInMAC marks a stand-in from the moment that it exists.
func standInMAC() net.HardwareAddr { return net.HardwareAddr{0x02, 'b', 'r', 'n', 'd', 'l'} }

// ourIPIP reports whether a link is the kernel's device for IP in IP, or what
// we put in its place.
func ourIPIP(l linkInfo) bool {
	if l.Kind == kindIPIP {
		return true
	}
	return slices.Contains(standIns(), l.Kind) && (l.Alias == desired.AliasTunnel || bytes.Equal(l.MAC, standInMAC()))
}

// calicoUses reports whether a device for IP in IP is as Calico's agent leaves
// it: up, with a single address.
func calicoUses(l linkInfo, addresses []addressMessage) bool {
	if l.Name != desired.DeviceIPIP || !l.up() {
		return false
	}
	for _, a := range addresses {
		if a.Index == l.Index && a.Prefix.Addr().Is4() && a.Prefix.IsSingleIP() {
			return true
		}
	}
	return false
}

// IPIPDevice reports whether the device for IP in IP is the kernel's own,
// which carries packets by itself; false: a link that stands in its place, on
// a kernel without the module, carries none. The error wraps ErrNoLink while
// there is neither.
func (k *Kernel) IPIPDevice() (kernel bool, err error) {
	var l linkInfo
	err = k.with(func(c *rtnl.Conn) (err error) {
		l, err = readLink(c, desired.DeviceIPIP)
		return err
	})
	if err == nil && !ourIPIP(l) {
		err = foreign(l)
	}
	return l.Kind == kindIPIP, err
}

// makeIPIP makes the device for IP in IP, or takes the one that is there. The
// kernel makes one in every namespace when its module is loaded, which asking
// for one does.
func (d *Devices) makeIPIP(name string) error {
	var l linkInfo
	read := func(c *rtnl.Conn) (err error) {
		l, err = readLink(c, name)
		return err
	}
	err := d.k.with(read)
	if errors.Is(err, ErrNoLink) {
		if err = d.newIPIP(name); err == nil {
			err = d.k.with(read)
		}
	}
	if err != nil {
		return err
	}
	if !ourIPIP(l) {
		return foreign(l)
	}
	return d.mark(l)
}

// newIPIP makes the first of the possible kinds that the kernel has.
func (d *Devices) newIPIP(name string) error {
	for _, kind := range d.kinds {
		var b rtnl.Batch
		b.Start(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, rtnl.IfInfo(unix.AF_UNSPEC, 0, 0, 0))
		b.String(unix.IFLA_IFNAME, name)
		if kind != kindIPIP {
			b.Bytes(unix.IFLA_ADDRESS, standInMAC())
		}
		b.Nest(unix.IFLA_LINKINFO, func() { b.String(unix.IFLA_INFO_KIND, kind) })
		err := d.k.do(&b)
		switch {
		case err == nil || errors.Is(err, unix.EEXIST): // by the module, this moment
			return nil
		case !errors.Is(err, unix.EOPNOTSUPP):
			return fmt.Errorf("of kind %s: %w", kind, err)
		}
	}
	return fmt.Errorf("the kernel has links of none of the kinds %v: %w", d.kinds, unix.EOPNOTSUPP)
}

// turnOff takes from a device for IP in IP what makes it one of ours: alias,
// addresses, being up. It is deleted too, where the kernel lets it be: the one
// that came with the module stays for as long as that.
func (d *Devices) turnOff(l linkInfo) error {
	var all []addressMessage
	err := d.k.with(func(c *rtnl.Conn) (err error) {
		all, err = readAddresses(c)
		return err
	})
	if err != nil {
		return err
	}
	var b rtnl.Batch
	setUp(&b, l.Index, false)
	for _, a := range all {
		if a.Index == l.Index && a.onTunnel() {
			oldAddress(&b, l.Index, a.Prefix)
		}
	}
	setAlias(&b, l.Index, "")
	if err := d.k.do(&b); err != nil && !gone(err) {
		return err
	}
	return d.k.deleteLink(l.Index)
}
