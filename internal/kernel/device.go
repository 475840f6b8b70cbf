package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// Devices is the table of the interfaces of tunnels. Ours are those with
// desired.AliasTunnel, and those of the names and kinds that Calico's agent
// makes: they are taken over as they are. An object of another kind under such
// a name is left alone, and wanting ours fails with ErrForeign.
type Devices struct {
	k     *Kernel
	kinds []string // of links for IP in IP, the best first
}

// Devices returns the table of tunnels' interfaces. Its keys are the names
// DeviceIPIP, DeviceVXLAN4 and DeviceVXLAN6 of package desired.
func (k *Kernel) Devices() *Devices {
	return &Devices{k, append([]string{kindIPIP}, standIns()...)}
}

// EqualDevices reports whether the kernel's device is what is wanted. The
// kernel's device for IP in IP has no address of its own: packets leave from
// the one that the route to the other host says.
func EqualDevices(want, have desired.Device) bool {
	if want.Form == desired.IPIP {
		return have.Form == desired.IPIP
	}
	return want == have
}

// tunnelKind tells what a device of a name must be for; false for other names.
func tunnelKind(name string) (form desired.Form, family int, ok bool) {
	switch name {
	case desired.DeviceIPIP:
		return desired.IPIP, 4, true
	case desired.DeviceVXLAN4:
		return desired.VXLAN, 4, true
	case desired.DeviceVXLAN6:
		return desired.VXLAN, 6, true
	}
	return desired.Direct, 0, false
}

// tunnelName reports whether a name is that of a tunnel's interface.
func tunnelName(name string) bool {
	_, _, ok := tunnelKind(name)
	return ok
}

// List reads back the devices that are ours, also under a name that somebody
// gave them. One that can not stay as it is reads as without an address. The
// kernel's own device for IP in IP is always there; it counts as absent while
// it is turned off for us (down, without our alias).
func (d *Devices) List(context.Context) (map[string]desired.Device, error) {
	have := map[string]desired.Device{}
	err := d.k.with(func(c *rtnl.Conn) error {
		links, err := readLinks(c)
		if err != nil {
			return err
		}
		links = slices.DeleteFunc(links, func(l linkInfo) bool {
			return !tunnelName(l.Name) && l.Alias != desired.AliasTunnel
		})
		if len(links) == 0 {
			return nil
		}
		addresses, err := readAddresses(c)
		if err != nil {
			return err
		}
		for _, l := range links {
			switch {
			case l.Kind == kindVXLAN:
				have[l.Name] = l.VXLAN.device(l, addresses)
			case ourIPIP(l) && (l.Alias == desired.AliasTunnel || calicoUses(l, addresses)):
				have[l.Name] = desired.Device{Form: desired.IPIP}
			}
		}
		return nil
	})
	return have, err
}

// Apply makes, changes and removes devices. A VXLAN device keeps what it
// carries when only its address, the interface below or its hardware address
// change. Otherwise it is made anew, and what was on it of ours is put back at
// once. Without an interface that has the address it fails with ErrNoLink.
func (d *Devices) Apply(_ context.Context, p reconcile.Plan[string, desired.Device]) map[string]error {
	failed := map[string]error{}
	for _, name := range p.Delete {
		if err := d.remove(name); err != nil {
			failed[name] = fmt.Errorf("remove tunnel device %s: %w", name, err)
		}
	}
	for _, e := range p.Set {
		err := checkDevice(e.Key, e.Value)
		switch {
		case err != nil:
		case e.Value.Form == desired.IPIP:
			err = d.makeIPIP(e.Key)
		default:
			err = d.makeVXLAN(e.Key, e.Value)
		}
		if err != nil {
			failed[e.Key] = fmt.Errorf("make tunnel device %s: %w", e.Key, err)
		}
	}
	return failed
}

// checkDevice says what is wrong with a wanted device.
func checkDevice(name string, want desired.Device) error {
	form, family, ok := tunnelKind(name)
	switch {
	case !ok:
		return fmt.Errorf("name %q: must be %s, %s or %s", name, desired.DeviceIPIP, desired.DeviceVXLAN4, desired.DeviceVXLAN6)
	case want.Form != form:
		return fmt.Errorf("form %v: must be %v", want.Form, form)
	case form == desired.IPIP:
		return nil
	case !want.Local.IsValid() || want.Local.Is4() != (family == 4) || want.Local.Is4In6() || want.Local.Zone() != "":
		return fmt.Errorf("local address %v: must be a plain IPv%d address", want.Local, family)
	case want.VNI == 0 || want.VNI >= 1<<24:
		return fmt.Errorf("VNI %d: must be from 1 to %d", want.VNI, 1<<24-1)
	case want.Port == 0:
		return errors.New("UDP port 0: must be from 1 to 65535")
	}
	if mac, err := net.ParseMAC(want.MAC); err != nil || len(mac) != 6 || mac.String() != want.MAC {
		return fmt.Errorf("hardware address %q: must be 6 bytes in lower case, with colons", want.MAC)
	}
	return nil
}

// remove removes a device of ours. What cannot be deleted is turned off.
func (d *Devices) remove(name string) error {
	var l linkInfo
	err := d.k.with(func(c *rtnl.Conn) (err error) {
		l, err = readLink(c, name)
		return err
	})
	switch {
	case errors.Is(err, ErrNoLink):
		return nil
	case err != nil:
		return err
	case l.Kind == kindIPIP:
		return d.turnOff(l)
	case l.Kind == kindVXLAN || ourIPIP(l):
		return d.k.deleteLink(l.Index)
	}
	return nil // somebody else's by now
}

// mark makes a device ours.
func (d *Devices) mark(l linkInfo) error {
	if l.Alias == desired.AliasTunnel {
		return nil
	}
	var b rtnl.Batch
	setAlias(&b, l.Index, desired.AliasTunnel)
	return d.k.do(&b)
}

// setAlias adds a request that gives a link an alias; "" takes it away.
func setAlias(b *rtnl.Batch, index int, alias string) {
	b.Start(unix.RTM_SETLINK, 0, rtnl.IfInfo(unix.AF_UNSPEC, index, 0, 0))
	b.String(unix.IFLA_IFALIAS, alias)
}

// foreign says that a link is in the way.
func foreign(l linkInfo) error {
	return fmt.Errorf("%s (%s, alias %q): %w", l.Name, l.Kind, l.Alias, ErrForeign)
}

// readTunnels returns the numbers of the tunnels' interfaces that are ours.
func readTunnels(c *rtnl.Conn) (map[int]bool, error) {
	out := map[int]bool{}
	for _, name := range []string{desired.DeviceIPIP, desired.DeviceVXLAN4, desired.DeviceVXLAN6} {
		l, err := readLink(c, name)
		switch {
		case errors.Is(err, ErrNoLink):
		case err != nil:
			return nil, err
		case l.Kind == kindVXLAN || ourIPIP(l) && l.Alias == desired.AliasTunnel:
			out[l.Index] = true
		}
	}
	return out, nil
}

// holders are the numbers of the interfaces that have an address.
func holders(addresses []addressMessage, a netip.Addr) []int {
	var out []int
	for _, m := range addresses {
		if m.Prefix.Addr() == a {
			out = append(out, m.Index)
		}
	}
	return out
}

// onTunnel reports whether an address of a tunnel's interface is one that
// somebody put there, and not the kernel's own for the link.
func (a addressMessage) onTunnel() bool { return !a.Prefix.Addr().IsLinkLocalUnicast() }
