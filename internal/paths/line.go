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
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// wire is a line through the kernel. What it sends leaves by the tunnel's
// interface or not at all, also when routes change this moment. Answers may
// come by another one, while hosts change from one form to another.
type wire struct {
	ns   *netns.NS
	path Path
	port uint16
	udp  *net.UDPConn // bound to the interface
	side *net.UDPConn // with the same ends, not bound: hears what comes by others
	in   chan heard
	ends sync.WaitGroup // of those who hear
	wait time.Duration  // for the first answer
	rtt  time.Duration  // of the last answer; 0: none yet
}

// heard is a message, or what the kernel was told of an earlier one.
type heard struct {
	message
	err error
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
	w := &wire{ns: cfg.NS, path: p, port: cfg.Port, wait: cfg.Pace.Wait, in: make(chan heard, 64)}
	err := within(w.ns, func() (err error) {
		bound := func(fd int) error { return unix.BindToDevice(fd, p.Device) }
		if w.udp, err = w.dial(0, bound); err != nil {
			return err
		}
		w.side, err = w.dial(w.udp.LocalAddr().(*net.UDPAddr).Port, func(int) error { return nil })
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a socket from %v to %v: %w", p.Local, p.Remote, err), w.close())
	}
	w.ends.Go(func() { w.hear(w.udp) })
	w.ends.Go(func() { w.hear(w.side) })
	return w, nil
}

// dial opens one of the two sockets.
func (w *wire) dial(port int, set func(fd int) error) (*net.UDPConn, error) {
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: w.path.Local.AsSlice(), Port: port}, Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error {
			return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unsummed(fd, w.path.Local), set(fd))
		})
	}}
	c, err := d.Dial("udp", netip.AddrPortFrom(w.path.Remote, w.port).String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// hear passes on what comes, until the socket is closed.
func (w *wire) hear(c *net.UDPConn) {
	buf := make([]byte, 2*headerSize)
	for {
		n, err := c.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		m, ok := parse(buf[:n])
		if err == nil && (!ok || m.kind != answer) {
			continue
		}
		select {
		case w.in <- heard{m, err}:
		default: // more than was asked for
		}
	}
}

// forget drops what was heard of earlier questions.
func (w *wire) forget() {
	for {
		select {
		case <-w.in:
		default:
			return
		}
	}
}

func (w *wire) close() error {
	var err error
	for _, c := range []*net.UDPConn{w.udp, w.side} {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	w.ends.Wait()
	return err
}

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
			rtt, err = w.askOnce(ctx, how, size, w.given(n))
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
func (w *wire) askOnce(ctx context.Context, how way, size int, wait time.Duration) (time.Duration, error) {
	m := message{kind: question, nonce: rand.Uint64()}
	b := m.put(size - ipHeader(w.path.Remote) - udpHeader)
	start := time.Now()
	got, err := w.exchange(ctx, how, b, wait)
	switch {
	case err != nil:
		return 0, err
	case !got.whole || int(got.size) != len(b) || got.sum != sumOf(b[headerSize:]):
		return 0, errChanged
	}
	return time.Since(start), nil
}

// exchange sends a question and waits for its answer.
func (w *wire) exchange(ctx context.Context, how way, b []byte, wait time.Duration) (message, error) {
	asked, _ := parse(b)
	if err := w.prepare(how); err != nil {
		return message{}, err
	}
	w.forget()
	var err error
	if how == outer {
		err = w.sendOuter(b)
	} else if _, err = w.udp.Write(b); err != nil {
		_, err = w.udp.Write(b) // the first may be about an earlier one
	}
	if err != nil {
		return message{}, meaning(err)
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	last := errSilent
	for {
		select {
		case <-ctx.Done():
			return message{}, ctx.Err()
		case <-late.C:
			return message{}, last
		case got := <-w.in:
			if got.err == nil && got.nonce == asked.nonce {
				return got.message, nil
			}
			if got.err == nil {
				continue // late
			}
			if last = meaning(got.err); !errors.Is(last, errTooBig) && !errors.Is(last, errSilent) {
				return message{}, last
			}
		}
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

// bulk asks to be let in, connects, sends, and compares what arrived. The
// connection is first tried by the tunnel's interface alone; as datagrams pass,
// one that fails may be answered by another.
func (w *wire) bulk(ctx context.Context) error {
	err := w.bulkOnce(ctx, w.path.Device)
	if errors.Is(err, errSilent) && ctx.Err() == nil {
		err = w.bulkOnce(ctx, "")
	}
	return err
}

func (w *wire) bulkOnce(ctx context.Context, device string) error {
	m := message{kind: knock, nonce: rand.Uint64()}
	if err := w.knock(ctx, m); err != nil {
		return err
	}
	c, err := w.connect(ctx, device)
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
func (w *wire) knock(ctx context.Context, m message) error {
	b := m.put(smallSize - ipHeader(w.path.Remote) - udpHeader)
	err := errSilent
	for n := 0; n < tries && errors.Is(err, errSilent); n++ {
		_, err = w.exchange(ctx, plain, b, w.given(n))
	}
	return err
}

// connect opens the connection, by an interface alone unless it is "".
func (w *wire) connect(ctx context.Context, device string) (*net.TCPConn, error) {
	var c *net.TCPConn
	err := within(w.ns, func() error {
		d := net.Dialer{Timeout: bulkWaits * w.wait, LocalAddr: &net.TCPAddr{IP: w.path.Local.AsSlice()}}
		d.SetMultipathTCP(false)
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			return control(raw, func(fd int) error {
				if device == "" {
					return nil
				}
				return unix.BindToDevice(fd, device)
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
