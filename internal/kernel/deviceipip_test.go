package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/reconcile"
	"github.com/brindle-net/brindle/internal/testenv"
)

// These tests need no program besides themselves. There is no IP in IP for
// IPv6, so none has a case for it.

func ipipWanted() map[string]desired.Device {
	return map[string]desired.Device{desired.DeviceIPIP: {Form: desired.IPIP, Local: netip.MustParseAddr("192.0.2.1")}}
}

// ipipLoop runs a loop on the table of devices.
func ipipLoop(t *testing.T, d *Devices) (*reconcile.Loop[string, desired.Device], func()) {
	t.Helper()
	l, stop := run(t, d, cmp.Compare[string], EqualDevices)
	watch(t, d.k, func(d Drift) {
		if d.Devices {
			l.Drift()
		}
	})
	return l, stop
}

// handle opens a namespace for somebody else.
func handle(t *testing.T, ns *netns.NS) *netlink.Handle {
	t.Helper()
	h, err := openHandle(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// noIPIP puts the device that came with the module out of the way.
func noIPIP(t *testing.T, h *netlink.Handle) {
	t.Helper()
	l, err := h.LinkByName(desired.DeviceIPIP)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return
	}
	if err == nil {
		err = h.LinkSetName(l, "away")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// tunl reads the interface back.
func tunl(t *testing.T, k *Kernel) (Interface, bool) {
	t.Helper()
	all, err := k.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Name == desired.DeviceIPIP {
			return i, true
		}
	}
	return Interface{}, false
}

// On a kernel without the module another kind of link stands in its place.
func TestStandInForIPIPOnAnyKernel(t *testing.T) {
	k, ns := open(t)
	h := handle(t, ns)
	noIPIP(t, h)
	if _, err := k.IPIPDevice(); !errors.Is(err, ErrNoLink) {
		t.Errorf("got %v, want ErrNoLink", err)
	}
	d := k.Devices()
	d.kinds = append([]string{"no-such-kind"}, standIns()...)
	l, stop := ipipLoop(t, d)
	l.Want(desired.Patch[string, desired.Device]{Set: ipipWanted()})
	swept(t, l)
	good := func() {
		t.Helper()
		testenv.Until(t, waitLimit, func() error {
			if i, ok := tunl(t, k); !ok || i.Alias != desired.AliasTunnel || i.Kind == kindIPIP {
				return fmt.Errorf("have %+v", i)
			}
			return nil
		})
		if own, err := k.IPIPDevice(); own || err != nil {
			t.Errorf("the stand-in is said to be the kernel's own: %v, %v", own, err)
		}
	}
	good()
	own, err := h.LinkByName(desired.DeviceIPIP)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkDel(own); err != nil {
		t.Fatal(err)
	}
	good()
	stop()
	// One that was made and not marked any more is ours all the same.
	if own, err = h.LinkByName(desired.DeviceIPIP); err == nil {
		err = h.LinkSetAlias(own, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	l, stop = ipipLoop(t, d)
	l.Want(desired.Patch[string, desired.Device]{Set: ipipWanted()})
	swept(t, l)
	good()
	stop()
	l, _ = ipipLoop(t, d)
	swept(t, l)
	if i, ok := tunl(t, k); ok {
		t.Errorf("left %+v", i)
	}
	if have, err := d.List(t.Context()); err != nil || len(have) > 0 {
		t.Errorf("left %+v, %v", have, err)
	}
}

// Somebody else's links under the name stay, of a kind that is never ours and
// of one that could be.
func TestForeignLinkForIPIPOnAnyKernel(t *testing.T) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = desired.DeviceIPIP
	for _, link := range []netlink.Link{&netlink.Bridge{LinkAttrs: attrs}, &netlink.Ifb{LinkAttrs: attrs}} {
		t.Run(link.Type(), func(t *testing.T) {
			k, ns := open(t)
			h := handle(t, ns)
			noIPIP(t, h)
			if err := h.LinkAdd(link); errors.Is(err, errors.ErrUnsupported) {
				return // the kernel has no such kind, so nobody has one
			} else if err != nil {
				t.Fatal(err)
			}
			l, stop := ipipLoop(t, k.Devices())
			l.InSync()
			l.Want(desired.Patch[string, desired.Device]{Set: ipipWanted()})
			testenv.Until(t, waitLimit, func() error {
				if err := l.Failed()[desired.DeviceIPIP]; !errors.Is(err, ErrForeign) {
					return fmt.Errorf("got %w, want ErrForeign", err)
				}
				return nil
			})
			if _, err := k.IPIPDevice(); !errors.Is(err, ErrForeign) {
				t.Errorf("got %v, want ErrForeign", err)
			}
			stop()
			l, _ = ipipLoop(t, k.Devices())
			swept(t, l)
			if i, ok := tunl(t, k); !ok || i.Alias != "" || i.Kind != link.Type() {
				t.Errorf("have %+v, %v", i, ok)
			}
		})
	}
}

// The kernel's own device: taken over as Calico's agent leaves it, turned off
// when nothing is wanted, and not touched while nobody uses it.
func TestIPIPTakenOverOnAnyKernel(t *testing.T) {
	k, ns := open(t)
	h := handle(t, ns)
	link, err := h.LinkByName(desired.DeviceIPIP)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		if os.Getenv("BRINDLE_VM") != "" {
			t.Fatal("the kernels of the virtual machines have IP in IP")
		}
		t.Skip("this kernel has no IP in IP")
	}
	if err != nil {
		t.Fatal(err)
	}
	d := k.Devices()
	lists := func(want map[string]desired.Device) {
		t.Helper()
		if have, err := d.List(t.Context()); err != nil || !maps.EqualFunc(want, have, EqualDevices) {
			t.Errorf("have %+v, %v, want %+v", have, err, want)
		}
	}
	was, _ := tunl(t, k)
	lists(nil)
	l, stop := ipipLoop(t, d)
	swept(t, l)
	stop()
	if now, _ := tunl(t, k); fmt.Sprint(now) != fmt.Sprint(was) {
		t.Errorf("unused, and was %+v and is %+v", was, now)
	}
	// As Calico leaves it.
	addr, err := netlink.ParseAddr("10.65.0.1/32")
	if err == nil {
		err = errors.Join(h.LinkSetUp(link), h.AddrAdd(link, addr))
	}
	if err != nil {
		t.Fatal(err)
	}
	lists(ipipWanted())
	if own, err := k.IPIPDevice(); !own || err != nil {
		t.Errorf("the kernel's own device is said to be a stand-in: %v, %v", own, err)
	}
	l, stop = ipipLoop(t, d)
	l.Want(desired.Patch[string, desired.Device]{Set: ipipWanted()})
	swept(t, l)
	stop()
	if i, _ := tunl(t, k); !i.Up || len(i.Addresses) == 0 {
		t.Errorf("taken over, and is %+v", i)
	}
	l, stop = ipipLoop(t, d)
	swept(t, l)
	stop()
	lists(nil)
	if i, _ := tunl(t, k); i.Up || i.Alias != "" || len(i.Addresses) > 0 {
		t.Errorf("not wanted, and is %+v", i)
	}
}
