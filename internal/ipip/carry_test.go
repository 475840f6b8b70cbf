package ipip

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// echo answers datagrams at a namespace's port with what they hold.
func echo(t testing.TB, ns *netns.NS, port int) {
	t.Helper()
	var conn *net.UDPConn
	testenv.Do(t, ns, func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if _, err := conn.WriteToUDPAddrPort(buf[:n], from); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
}

// ask sends a datagram of a size and waits for the same to come back.
func ask(t testing.TB, ns *netns.NS, to netip.Addr, port, size int) error {
	t.Helper()
	var conn net.Conn
	testenv.Do(t, ns, func() (err error) {
		conn, err = net.Dial("udp4", netip.AddrPortFrom(to, uint16(port)).String())
		return err
	})
	defer conn.Close()
	want := bytes.Repeat([]byte("0123456789abcde"), size/15+1)[:size]
	if _, err := conn.Write(want); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	got := make([]byte, 1<<16)
	n, err := conn.Read(got)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if !bytes.Equal(got[:n], want) {
		return errors.New("the answer differs from what was sent")
	}
	return nil
}

// stream asks one question after the other until it is stopped, and returns the
// first that was not answered.
func stream(t testing.TB, from *netns.NS, to netip.Addr) (stop func() error) {
	t.Helper()
	done, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-done:
				failed <- nil
				return
			default:
			}
			if err := ask(t, from, to, 7, 100); err != nil {
				failed <- err
				return
			}
		}
	}()
	return func() error { close(done); return <-failed }
}

// transfer sends bytes over a new TCP connection and compares their sum.
func transfer(t testing.TB, from, to *netns.NS, addr netip.Addr, size int) {
	t.Helper()
	var l net.Listener
	testenv.Do(t, to, func() (err error) {
		l, err = net.Listen("tcp4", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	defer l.Close()
	type result struct {
		n   int64
		sum [32]byte
		err error
	}
	got := make(chan result, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			got <- result{err: err}
			return
		}
		defer conn.Close()
		h := sha256.New()
		n, err := io.Copy(h, conn)
		got <- result{n, [32]byte(h.Sum(nil)), err}
	}()
	var conn net.Conn
	testenv.Do(t, from, func() (err error) {
		conn, err = net.DialTimeout("tcp4", l.Addr().String(), patience)
		return err
	})
	h := sha256.New()
	block := bytes.Repeat([]byte("a few bytes that are not all the same; "), 1600)
	if err := conn.SetDeadline(time.Now().Add(10 * patience)); err != nil {
		t.Fatal(err)
	}
	for sent := 0; sent < size; sent += len(block) {
		h.Write(block)
		if _, err := conn.Write(block); err != nil {
			t.Fatalf("after %d bytes: %v", sent, err)
		}
	}
	conn.Close()
	select {
	case r := <-got:
		if r.err != nil || r.sum != [32]byte(h.Sum(nil)) {
			t.Errorf("%d bytes arrived, other than sent: %v", r.n, r.err)
		}
	case <-time.After(10 * patience):
		t.Error("the connection was never closed")
	}
}

// amount is how much of something a test does: an eighth of n in a virtual
// machine, whose processor is emulated.
func amount(n int) int {
	if os.Getenv("BRINDLE_VM") != "" {
		return n / 8
	}
	return n
}

// TestEachToEach asks from each pod and host for each pod and tunnel address
// of the other side.
func TestEachToEach(t *testing.T) {
	w := newWorld(t, carried, carried)
	for _, h := range []*host{w.a, w.b} {
		echo(t, h.ns, 7)
		echo(t, h.pod, 7)
	}
	for _, c := range []struct {
		name string
		from *netns.NS
		to   netip.Addr
	}{
		{"pod to pod", w.a.pod, w.b.workload},
		{"and back", w.b.pod, w.a.workload},
		{"pod to host", w.a.pod, w.b.tunnel},
		{"host to pod", w.a.ns, w.b.workload},
		{"host to host", w.a.ns, w.b.tunnel},
	} {
		for _, size := range []int{1, tunnelMTU - 28, 20000} {
			if err := ask(t, c.from, c.to, 7, size); err != nil {
				t.Errorf("%s, %d bytes: %v", c.name, size, err)
			}
		}
	}
	n := w.a.counters(t)
	n.Encapsulated, n.Decapsulated = Count{}, Count{}
	if n != (Counters{}) {
		t.Errorf("something was dropped: %+v", n)
	}
}

// TestHeaders looks at each packet between the hosts, and as it arrives.
func TestHeaders(t *testing.T) {
	w := newWorld(t, carried, carried)
	wire, end := listen(t, w.router, "r1"), listen(t, w.b.pod, "eth0")
	for i, c := range []struct {
		name            string
		tos, ttl        uint8
		flags           uint16
		wantTOS, outTTL uint8
	}{
		{"plain", 0, 64, 0, 0, 63},
		{"don't fragment", 0, 64, dontFragment, 0, 63},
		{"DSCP is not copied", 0xb8, 64, 0, 0, 63},
		{"capable of ECN, 0", 0xb8 | 2, 64, 0, 2, 63},
		{"capable of ECN, 1", 1, 64, 0, 1, 63},
		{"congestion is not repeated", 3, 64, 0, 2, 63},
		{"long to live", 0, 255, 0, 0, 254},
		{"short to live", 0, 4, 0, 0, 3},
	} {
		port := uint16(1000 + i)
		in := packet{tos: c.tos, ttl: c.ttl, proto: unix.IPPROTO_UDP, id: 77, flags: c.flags, from: w.a.workload, to: w.b.workload, data: datagram(port, []byte(c.name))}
		sendRaw(t, w.a.pod, in.bytes())
		out := wire.next("packet at the router: "+c.name, carrying(port))
		inner, _ := parse(out.data)
		want := in
		want.ttl--
		compare(t, c.name+", inside", inner, want)
		compare(t, c.name+", outside", out, packet{
			tos: c.wantTOS, ttl: c.outTTL, proto: unix.IPPROTO_IPIP, id: out.id, flags: c.flags, from: w.a.node, to: w.b.node, data: out.data,
		})
		want.ttl--
		compare(t, c.name+", arrived", end.next("packet at the pod: "+c.name, toPort(port)), want)
	}
}

func compare(t testing.TB, what string, got, want packet) {
	t.Helper()
	if !bytes.Equal(got.bytes(), want.bytes()) {
		t.Errorf("%s: got %x\nwant %x", what, got.bytes(), want.bytes())
	}
}

// TestBulk sends a lot over TCP, in segments as large as the kernel makes
// them.
func TestBulk(t *testing.T) {
	w := newWorld(t, carried, carried)
	size := amount(32 << 20)
	transfer(t, w.a.pod, w.b.pod, w.b.workload, size)
	n := w.a.counters(t)
	if mean := n.Encapsulated.Bytes / max(n.Encapsulated.Packets, 1); mean < 3*tunnelMTU {
		t.Errorf("packets of %d bytes in the mean: segments are cut too early", mean)
	}
	transfer(t, w.a.ns, w.b.ns, w.b.tunnel, size/4)
	transfer(t, w.b.pod, w.a.ns, w.a.tunnel, size/4)
}
