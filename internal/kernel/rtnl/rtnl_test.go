package rtnl

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/testenv"
)

func dial(t *testing.T) *Conn {
	t.Helper()
	c, err := Dial(testenv.NetNS(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// blackhole adds a request for route i; every route of the same number is the
// same.
func blackhole(b *Batch, kind, flags uint16, i int) {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1], h[4], h[5], h[7] = unix.AF_INET, 32, unix.RT_TABLE_MAIN, 80, unix.RTN_BLACKHOLE
	b.Start(kind, flags, h)
	b.Addr(unix.RTA_DST, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
}

func count(t *testing.T, c *Conn) int {
	t.Helper()
	var b Batch
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[5] = unix.AF_INET, 80
	b.Start(unix.RTM_GETROUTE, unix.NLM_F_DUMP, h)
	n := 0
	if err := c.Get(&b, func() { n = 0 }, func(Message) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEachFailureHasItsNumber(t *testing.T) {
	c := dial(t)
	const n = 3000 // several sends
	var b Batch
	for i := range n {
		at := i
		if i%7 == 3 {
			at = i - 1 // a repetition, which fails
		}
		blackhole(&b, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, at)
	}
	failed := c.Send(&b)
	for i := range n {
		if want := i%7 == 3; errors.Is(failed[i], unix.EEXIST) != want {
			t.Fatalf("request %d: %v", i, failed[i])
		}
	}
	if got := count(t, c); got != n-len(failed) {
		t.Errorf("%d routes, %d failed of %d", got, len(failed), n)
	}
	if err := c.Do(&b); !errors.Is(err, unix.EEXIST) {
		t.Errorf("Do: %v", err)
	}
}

func TestEverythingFails(t *testing.T) {
	c := dial(t)
	const n = 10_000 // more errors than a queue of the usual size holds
	var b Batch
	for i := range n {
		blackhole(&b, unix.RTM_DELROUTE, 0, i)
	}
	failed := c.Send(&b)
	if len(failed) != n {
		t.Errorf("%d of %d failed", len(failed), n)
	}
	var ok Batch
	blackhole(&ok, unix.RTM_NEWROUTE, unix.NLM_F_CREATE, 1)
	if err := c.Do(&ok); err != nil {
		t.Errorf("the connection is out of step: %v", err)
	}
}

func TestKernelExplains(t *testing.T) {
	c := dial(t)
	var b Batch
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1], h[4], h[7] = unix.AF_INET, 77, unix.RT_TABLE_MAIN, unix.RTN_UNICAST
	b.Start(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, h)
	err := c.Do(&b)
	if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "prefix length") {
		t.Errorf("got %v, want EINVAL with the kernel's words", err)
	}
}

func TestErrorOfAReading(t *testing.T) {
	c := dial(t)
	var b Batch
	b.Start(unix.RTM_GETLINK, 0, IfInfo(unix.AF_UNSPEC, 9999, 0, 0))
	if err := c.Get(&b, func() {}, func(Message) error { return nil }); !errors.Is(err, unix.ENODEV) {
		t.Errorf("got %v", err)
	}
	stop := errors.New("enough")
	var all Batch
	all.Start(unix.RTM_GETLINK, unix.NLM_F_DUMP, IfInfo(unix.AF_UNSPEC, 0, 0, 0))
	if err := c.Get(&all, func() {}, func(Message) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	if n := count(t, c); n != 0 {
		t.Errorf("%d routes", n)
	}
}

func TestManyCallers(t *testing.T) {
	c := dial(t)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				var b Batch
				blackhole(&b, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, w*50+i)
				if err := c.Do(&b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := count(t, c); n != 400 {
		t.Errorf("%d routes", n)
	}
}

func TestAttributesRoundTrip(t *testing.T) {
	var b Batch
	b.Start(1, 0, []byte{1, 2, 3})
	b.String(2, "name")
	b.Uint32(3, 0xdeadbeef)
	b.Uint8(4, 7)
	b.Addr(5, netip.MustParseAddr("10.0.0.1"))
	b.Addr(6, netip.MustParseAddr("fd00::1"))
	b.Nest(7, func() { b.Bytes(8, []byte{9, 9, 9, 9, 9}) })
	var got []Message
	if err := split(b.message(0), func(m Message) error { got = append(got, m); return nil }); err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	seen := map[uint16]bool{}
	err := Attrs(got[0].Body[4:], func(kind uint16, v []byte) {
		seen[kind] = true
		ok := true
		switch kind {
		case 2:
			ok = Text(v) == "name"
		case 3:
			ok = Uint32(v) == 0xdeadbeef
		case 4:
			ok = bytes.Equal(v, []byte{7})
		case 5:
			ok = Addr(v) == netip.MustParseAddr("10.0.0.1")
		case 6:
			ok = Addr(v) == netip.MustParseAddr("fd00::1")
		case 7:
			ok = Attrs(v, func(kind uint16, v []byte) { ok = kind == 8 && len(v) == 5 }) == nil && ok
		}
		if !ok {
			t.Errorf("attribute %d is %x", kind, v)
		}
	})
	if err != nil || len(seen) != 6 {
		t.Errorf("saw %v, %v", seen, err)
	}
}

// The kernel is trusted, and still nothing that it says may end the process.
func FuzzSplit(f *testing.F) {
	var b Batch
	b.Start(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS, make([]byte, 20))
	b.String(unix.NLMSGERR_ATTR_MSG, "why")
	f.Add(b.message(0))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, buf []byte) {
		_ = split(buf, func(m Message) error {
			_ = ackError(m)
			_ = doneError(m)
			return Attrs(m.Body, func(_ uint16, v []byte) {
				_, _, _ = Uint32(v), Text(v), Addr(v)
			})
		})
	})
}
