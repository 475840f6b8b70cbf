package kernel

import (
	"errors"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// TestTap lays a tap device twice, has a machine behind it answer, takes
// settings away, and removes it. One of somebody else is left alone.
func TestTap(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, ns := open(t)
		forwarding(t, ns)
		spec, inside := workloadSpec(t, 1, f)
		guest := spec
		spec.Tap, spec.Netns, spec.IfName = true, "", ""
		first, err := k.LayWire(t.Context(), spec)
		if err != nil || !first.Made || len(first.MAC) != 6 || first.MTU != 1450 {
			t.Fatalf("%+v, %v", first, err)
		}
		if second, err := k.LayWire(t.Context(), spec); err != nil || second.Made || second.HostIndex != first.HostIndex {
			t.Errorf("again: %+v, %v", second, err)
		}
		if _, err := k.FillWire(t.Context(), spec, first); err != nil {
			t.Error(err)
		}
		guest.MAC = first.MAC
		machine(t, ns, inside, guest, spec.HostName)
		testenv.Run(t, ns, "ip", "address", "add", "192.0.2.1/32", "dev", "lo")
		hostRoutes(t, ns, spec)
		for _, a := range spec.Addresses {
			testenv.Run(t, ns, "ping", "-c", "1", "-W", "5", a.String())
		}
		if w, err := k.InspectWire(t.Context(), spec); err != nil || w.HostIndex != first.HostIndex || w.MTU != 1450 {
			t.Errorf("%+v, %v", w, err)
		}
		testenv.Run(t, ns, "ip", "link", "set", spec.HostName, "down")
		if _, err := k.InspectWire(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "is down") {
			t.Errorf("down: %v", err)
		}
		for range 2 {
			if err := k.Unwire(spec.HostName); err != nil {
				t.Error(err)
			}
		}
		if _, err := k.IndexOf(spec.HostName); !errors.Is(err, ErrNoLink) {
			t.Errorf("it is still there: %v", err)
		}
		testenv.Run(t, ns, "ip", "tuntap", "add", spec.HostName, "mode", "tap")
		if _, err := k.LayWire(t.Context(), spec); !errors.Is(err, ErrForeign) {
			t.Errorf("somebody else's: %v", err)
		}
		if err := k.Unwire(spec.HostName); !errors.Is(err, ErrForeign) {
			t.Errorf("somebody else's removed: %v", err)
		}
	})
}

// machine runs a machine behind a tap device until the test ends.
func machine(t *testing.T, host, inside *netns.NS, spec WireSpec, device string) {
	t.Helper()
	at, err := OpenTap(host, device)
	if err != nil {
		t.Fatal(err)
	}
	in, err := OpenTap(inside, spec.IfName)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	pump := func(from, to interface {
		Read([]byte) (int, error)
		Write([]byte) (int, error)
	}) {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, 1<<16)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			if _, err := to.Write(buf[:n]); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}
	go pump(at, in)
	go pump(in, at)
	t.Cleanup(func() {
		if err := errors.Join(at.Close(), in.Close()); err != nil {
			t.Error(err)
		}
		<-done
		<-done
	})
	if err := FillGuest(inside, spec); err != nil {
		t.Fatal(err)
	}
}

// TestTapCutShort ends a set-up before the device is ours: then there is none,
// and the next attempt is not in its way. A device is a device in each family.
func TestTapCutShort(t *testing.T) {
	k, ns := open(t)
	cut := errors.New("cut short")
	err := k.makeTap("cali0123", func() error {
		if _, err := k.IndexOf("cali0123"); err != nil {
			t.Errorf("it is not there while it is made: %v", err)
		}
		return cut
	})
	if !errors.Is(err, cut) {
		t.Errorf("error is %v", err)
	}
	if _, err := k.IndexOf("cali0123"); !errors.Is(err, ErrNoLink) {
		t.Errorf("it is still there: %v", err)
	}
	testenv.Run(t, ns, "ip", "tuntap", "add", "cali0123", "mode", "tap")
	if err := k.makeTap("cali0123", func() error { return nil }); !errors.Is(err, unix.EBUSY) {
		t.Errorf("one that is there already: %v", err)
	}
}
