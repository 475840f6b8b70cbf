package paths

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// wire is a line through the kernel.
type wire struct {
	ns   *netns.NS
	path Path
	port uint16
	udp  *net.UDPConn
	wait time.Duration // for the first answer
	rtt  time.Duration // of the last answer; 0: none yet
}

// How long an answer is waited for.
const (
	firstWait  = 300 * time.Millisecond
	leastWait  = 60 * time.Millisecond
	bulkWaits  = 8 // times the first: a first segment may be lost, and sent again after a second
	aliveWaits = 3
	tries      = 3
	bulkSize   = 24 << 10 // bytes: more segments than one
)

// dialWire opens the line of a path.
func dialWire(cfg Config, p Path) (*wire, error) {
	w := &wire{ns: cfg.NS, path: p, port: cfg.Port, wait: cfg.Pace.Wait}
	err := within(w.ns, func() error {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: p.Local.AsSlice()}}
		c, err := d.Dial("udp", netip.AddrPortFrom(p.Remote, w.port).String())
		if err == nil {
			w.udp = c.(*net.UDPConn)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a socket from %v to %v: %w", p.Local, p.Remote, err)
	}
	return w, nil
}

func (w *wire) close() error { return w.udp.Close() }

// given is how long the n-th try is given, from 0.
func (w *wire) given(n int) time.Duration {
	if w.rtt == 0 {
		return w.wait << n
	}
	return max(leastWait, 4*w.rtt) << n
}

func (w *wire) ask(ctx context.Context, how way, size int) (time.Duration, error) {
	var err error
	for n := range tries {
		if err = ctx.Err(); err != nil {
			return 0, err
		}
		var rtt time.Duration
		switch how {
		case echo:
			rtt, err = w.ping(size, w.given(n))
		default:
			rtt, err = w.askOnce(how, question, size, w.given(n))
		}
		if !errors.Is(err, errSilent) {
			if err == nil {
				w.rtt = max(rtt, time.Microsecond)
			}
			return rtt, err
		}
	}
	return 0, err
}

// askOnce sends one question and waits for its answer.
func (w *wire) askOnce(how way, k kind, size int, wait time.Duration) (time.Duration, error) {
	m := message{kind: k, nonce: rand.Uint64()}
	b := m.put(size - ipHeader(w.path.Remote) - udpHeader)
	if err := w.prepare(how); err != nil {
		return 0, err
	}
	start := time.Now()
	var err error
	if how == outer {
		err = w.sendOuter(b)
	} else if _, err = w.udp.Write(b); err != nil {
		_, err = w.udp.Write(b) // the first may be about an earlier one
	}
	if err != nil {
		return 0, meaning(err)
	}
	if err := w.udp.SetReadDeadline(start.Add(wait)); err != nil {
		return 0, err
	}
	told := false
	buf := make([]byte, 2*headerSize)
	for {
		n, err := w.udp.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && told:
			return 0, errTooBig
		case errors.Is(err, unix.EMSGSIZE):
			told = true
			continue
		case err != nil:
			return 0, meaning(err)
		}
		got, ok := parse(buf[:n])
		if !ok || got.kind != answer || got.nonce != m.nonce {
			continue // late
		}
		if !got.whole || int(got.size) != len(b) || got.sum != sumOf(b[headerSize:]) {
			return 0, errChanged
		}
		return time.Since(start), nil
	}
}

const udpHeader = 8

// ipHeader is the size of the header of an address's family.
func ipHeader(a netip.Addr) int {
	if a.Is4() {
		return 20
	}
	return 40
}

// prepare sets the socket up for one way of asking.
func (w *wire) prepare(how way) error {
	c, err := w.udp.SyscallConn()
	if err != nil {
		return err
	}
	discover := unix.IP_PMTUDISC_PROBE
	switch how {
	case strict:
		discover = unix.IP_PMTUDISC_DO
	case pieces:
		discover = unix.IP_PMTUDISC_DONT
	}
	return control(c, func(fd int) error {
		return errors.Join(setSummed(fd, w.path.Local, how == summed), setDiscover(fd, w.path.Local, discover))
	})
}

// setDiscover says whether packets may be cut; IPv6 has the same numbers.
func setDiscover(fd int, own netip.Addr, how int) error {
	if own.Is4() {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, how)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, how)
}

// meaning is what an error of a socket says of a path.
func meaning(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSilent
	case errors.Is(err, unix.EMSGSIZE):
		return errTooBig
	case errors.Is(err, unix.ECONNREFUSED):
		return errRefused
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.ECONNRESET):
		return errSilent // said by somebody on the way, not by the host
	}
	return err
}

func (w *wire) learned() int {
	c, err := w.udp.SyscallConn()
	if err != nil {
		return 0
	}
	mtu := 0
	err = control(c, func(fd int) (err error) {
		level, name := unix.IPPROTO_IP, unix.IP_MTU
		if !w.path.Local.Is4() {
			level, name = unix.IPPROTO_IPV6, unix.IPV6_MTU
		}
		mtu, err = unix.GetsockoptInt(fd, level, name)
		return err
	})
	if err != nil {
		return 0
	}
	return mtu
}

// alive asks the host itself for a connection where nobody listens: the
// refusal is the answer.
func (w *wire) alive(ctx context.Context) bool {
	if !w.path.Node.IsValid() {
		return false
	}
	err := within(w.ns, func() error {
		d := net.Dialer{Timeout: aliveWaits * w.wait}
		c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(w.path.Node, w.port).String())
		if err == nil {
			_ = c.Close() // it answered
		}
		return err
	})
	return err == nil || errors.Is(err, unix.ECONNREFUSED)
}

// bulk asks to be let in, connects, sends, and compares what arrived.
func (w *wire) bulk(ctx context.Context) error {
	m := message{kind: knock, nonce: rand.Uint64()}
	_, err := w.knock(m)
	if err != nil {
		return err
	}
	c, err := w.connect(ctx)
	if err != nil {
		return bulkMeaning(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(bulkWaits * w.wait)); err != nil {
		return err
	}
	b := make([]byte, 12+bulkSize)
	binary.BigEndian.PutUint64(b, m.nonce)
	binary.BigEndian.PutUint32(b[8:], bulkSize)
	fill(b[12:], m.nonce)
	if _, err := c.Write(b); err != nil {
		return bulkMeaning(err)
	}
	var sum [4]byte
	if _, err := io.ReadFull(c, sum[:]); err != nil {
		return bulkMeaning(err)
	}
	if binary.BigEndian.Uint32(sum[:]) != sumOf(b[12:]) {
		return errChanged
	}
	_ = c.SetLinger(0) // all was said: leave nothing behind in either kernel
	return nil
}

// knock asks with a nonce that the connection will say.
func (w *wire) knock(m message) (time.Duration, error) {
	if err := w.prepare(plain); err != nil {
		return 0, err
	}
	b := m.put(smallSize - ipHeader(w.path.Remote) - udpHeader)
	buf := make([]byte, 2*headerSize)
	for n := range tries {
		start := time.Now()
		if _, err := w.udp.Write(b); err != nil {
			continue
		}
		if err := w.udp.SetReadDeadline(start.Add(w.given(n))); err != nil {
			return 0, err
		}
		for {
			n, err := w.udp.Read(buf)
			if err != nil {
				break
			}
			if got, ok := parse(buf[:n]); ok && got.kind == answer && got.nonce == m.nonce {
				return time.Since(start), nil
			}
		}
	}
	return 0, errSilent
}

// connect opens the connection.
func (w *wire) connect(ctx context.Context) (*net.TCPConn, error) {
	var c *net.TCPConn
	err := within(w.ns, func() error {
		d := net.Dialer{Timeout: bulkWaits * w.wait, LocalAddr: &net.TCPAddr{IP: w.path.Local.AsSlice()}}
		d.SetMultipathTCP(false)
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			return control(raw, func(fd int) error {
				return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			})
		}
		conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(w.path.Remote, w.port).String())
		if err == nil {
			c = conn.(*net.TCPConn)
		}
		return err
	})
	return c, err
}

// bulkMeaning is what an error of the connection says: whatever ended it, what
// was sent did not arrive.
func bulkMeaning(err error) error {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, unix.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errSilent
	}
	return meaning(err)
}
