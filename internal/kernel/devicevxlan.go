package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// A vxlanInfo is what a VXLAN device says of itself (IFLA_INFO_DATA).
type vxlanInfo struct {
	VNI      uint32
	Port     uint16
	Local    netip.Addr
	Parent   int  // number of the interface below
	Learning bool // of addresses out of what arrives
	Other    bool // does what ours never do: multicast, metadata, extensions, many VNIs
}

// parseVXLAN reads IFLA_INFO_DATA of a VXLAN device.
func parseVXLAN(data []byte) (v vxlanInfo, err error) {
	err = rtnl.Attrs(data, func(kind uint16, value []byte) {
		switch kind {
		case unix.IFLA_VXLAN_ID:
			v.VNI = rtnl.Uint32(value)
		case unix.IFLA_VXLAN_PORT:
			if len(value) == 2 {
				v.Port = binary.BigEndian.Uint16(value)
			}
		case unix.IFLA_VXLAN_LOCAL, unix.IFLA_VXLAN_LOCAL6:
			v.Local = rtnl.Addr(value)
		case unix.IFLA_VXLAN_LINK:
			v.Parent = int(rtnl.Uint32(value))
		case unix.IFLA_VXLAN_LEARNING:
			v.Learning = isOn(value)
		case unix.IFLA_VXLAN_COLLECT_METADATA, unix.IFLA_VXLAN_VNIFILTER:
			v.Other = v.Other || isOn(value)
		case unix.IFLA_VXLAN_GROUP, unix.IFLA_VXLAN_GROUP6, unix.IFLA_VXLAN_GBP, unix.IFLA_VXLAN_GPE:
			v.Other = true
		}
	})
	return v, err
}

func isOn(value []byte) bool { return len(value) == 1 && value[0] != 0 }

// device returns what the device is in terms of what can be wanted. One that
// is not over the interface that has its address has no address.
func (v vxlanInfo) device(l linkInfo, addresses []addressMessage) desired.Device {
	out := desired.Device{Form: desired.VXLAN, Local: v.Local, MAC: l.MAC.String(), VNI: v.VNI, Port: v.Port}
	below := holders(addresses, v.Local)
	if v.Learning || v.Other || len(below) > 0 && !slices.Contains(below, v.Parent) {
		out.Local = netip.Addr{}
	}
	return out
}

// fits reports whether the device can become what is wanted as it stands:
// VNI, port and the family of the address are for life.
func (v vxlanInfo) fits(want desired.Device) bool {
	return v.VNI == want.VNI && v.Port == want.Port && !v.Other && v.Local.IsValid() && v.Local.Is4() == want.Local.Is4()
}

// makeVXLAN makes a device, changes the one that is there, or replaces it.
func (d *Devices) makeVXLAN(name string, want desired.Device) error {
	var l linkInfo
	var addresses []addressMessage
	err := d.k.with(func(c *rtnl.Conn) (err error) {
		if addresses, err = readAddresses(c); err != nil {
			return err
		}
		l, err = readLink(c, name)
		return err
	})
	exists := !errors.Is(err, ErrNoLink)
	if exists && err != nil {
		return err
	}
	if exists && l.Kind != kindVXLAN {
		return foreign(l)
	}
	below := holders(addresses, want.Local)
	if len(below) == 0 {
		return fmt.Errorf("address %v to send from: %w", want.Local, ErrNoLink)
	}
	if !exists {
		return d.newVXLAN(name, want, below[0], nil)
	}
	parent := below[0]
	if slices.Contains(below, l.VXLAN.Parent) {
		parent = l.VXLAN.Parent
	}
	if l.VXLAN.fits(want) && d.changeVXLAN(l, want, parent) == nil {
		return nil
	}
	carried, err := d.k.carriedBy(l)
	if err != nil {
		return err
	}
	if err := d.k.deleteLink(l.Index); err != nil {
		return err
	}
	return d.newVXLAN(name, want, parent, carried)
}

// changeVXLAN changes a device in place: nothing that it carries is lost.
func (d *Devices) changeVXLAN(l linkInfo, want desired.Device, parent int) error {
	var b rtnl.Batch
	b.Start(unix.RTM_NEWLINK, 0, rtnl.IfInfo(unix.AF_UNSPEC, l.Index, 0, 0))
	if mac, err := net.ParseMAC(want.MAC); err != nil || !slices.Equal(mac, l.MAC) { // the same one again would cost all neighbours
		if err := putMAC(&b, want.MAC); err != nil {
			return err
		}
	}
	b.Nest(unix.IFLA_LINKINFO, func() {
		b.String(unix.IFLA_INFO_KIND, kindVXLAN)
		b.Nest(unix.IFLA_INFO_DATA, func() { putVXLAN(&b, want, parent) })
	})
	setAlias(&b, l.Index, desired.AliasTunnel)
	if err := d.k.do(&b); err != nil || l.VXLAN.Local == want.Local {
		return err
	}
	return d.k.renewForwarding(l.Index)
}

// renewForwarding makes the forwarding entries of a device anew. To each the
// kernel keeps the way to the other host, with the address that packets leave
// from, until routes change: whatever address the device has got meanwhile
// (vxlan_get_route and its dst_cache).
func (k *Kernel) renewForwarding(index int) error {
	return k.with(func(c *rtnl.Conn) error {
		found, err := readNeighbours(c, unix.AF_BRIDGE)
		if err != nil {
			return err
		}
		var b rtnl.Batch
		for _, m := range found {
			if m.Index != index || !m.ours() || m.Odd {
				continue
			}
			m.Flags, m.State = unix.NTF_SELF, unix.NUD_PERMANENT
			m.put(&b, unix.RTM_DELNEIGH, 0)
			m.put(&b, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
		}
		_ = c.Send(&b) // what fails is left to the table, which finds it missing
		return nil
	})
}

// newVXLAN makes a device and puts on it what an earlier one carried. It stays
// down unless that one was up.
func (d *Devices) newVXLAN(name string, want desired.Device, parent int, c *carried) error {
	var b rtnl.Batch
	b.Start(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, rtnl.IfInfo(unix.AF_UNSPEC, 0, 0, 0))
	b.String(unix.IFLA_IFNAME, name)
	if err := putMAC(&b, want.MAC); err != nil {
		return err
	}
	if c != nil {
		b.Uint32(unix.IFLA_MTU, uint32(c.mtu))
	}
	b.Nest(unix.IFLA_LINKINFO, func() {
		b.String(unix.IFLA_INFO_KIND, kindVXLAN)
		b.Nest(unix.IFLA_INFO_DATA, func() {
			b.Uint32(unix.IFLA_VXLAN_ID, want.VNI)
			b.Bytes(unix.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, want.Port))
			putVXLAN(&b, want, parent)
		})
	})
	switch err := d.k.do(&b); {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("the name, or VNI %d on UDP port %d: %w: %w", want.VNI, want.Port, err, ErrForeign)
	case err != nil:
		return err
	}
	index, err := indexOf(d.k.ioctl, name)
	if err != nil {
		return err
	}
	b.Reset()
	setAlias(&b, index, desired.AliasTunnel)
	if err := d.k.do(&b); err != nil || c == nil {
		return err
	}
	return d.k.putBack(*c, name, index)
}

// putVXLAN adds what may change in a device's life.
func putVXLAN(b *rtnl.Batch, want desired.Device, parent int) {
	local := uint16(unix.IFLA_VXLAN_LOCAL)
	if want.Local.Is6() {
		local = unix.IFLA_VXLAN_LOCAL6
	}
	b.Addr(local, want.Local)
	b.Uint32(unix.IFLA_VXLAN_LINK, uint32(parent))
	b.Uint8(unix.IFLA_VXLAN_LEARNING, 0)
}

func putMAC(b *rtnl.Batch, text string) error {
	mac, err := net.ParseMAC(text)
	if err != nil {
		return fmt.Errorf("hardware address %q: %w", text, err)
	}
	b.Bytes(unix.IFLA_ADDRESS, mac)
	return nil
}
