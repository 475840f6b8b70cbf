package paths

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// An answerer answers at one end of a tunnel, for the ends that it knows. It
// listens at the end's address and hears only what comes by the tunnel's
// interface; answers leave as routes say, which may be another way while hosts
// change from one form to another. It never says more than it was asked with,
// and to others it is silent.
type answerer struct {
	end   End
	index int // of the interface
	log   *slog.Logger
	udp   *net.UDPConn // hears
	reply *net.UDPConn // answers; hears nothing
	tcp   *net.TCPListener

	mu     sync.Mutex // guards everything below
	known  map[netip.Addr]bool
	gate   gate
	bucket map[netip.Addr]*bucket
}

// The answerer's bounds, for each end that asks.
const (
	askRate  = 100 // questions a second
	askBurst = 200
	bulkMost = 1 << 18 // bytes of one connection
)

// bucket bounds how often one end is answered.
type bucket struct {
	left float64
	at   time.Time
}

// take reports whether there is one left.
func (b *bucket) take(now time.Time) bool {
	b.left = min(askBurst, b.left+now.Sub(b.at).Seconds()*askRate)
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// openAnswerer opens the sockets of one end, in a namespace.
func openAnswerer(ns *netns.NS, e End, port uint16, log *slog.Logger) (*answerer, error) {
	a := &answerer{end: e, log: log, bucket: map[netip.Addr]*bucket{}}
	addr := netip.AddrPortFrom(e.Addr, port).String()
	v := "6"
	if e.Addr.Is4() {
		v = "4"
	}
	err := within(ns, func() (err error) {
		if a.index, err = indexOf(e.Device); err != nil {
			return err
		}
		hear := func(fd int) error {
			return errors.Join(unix.BindToDevice(fd, e.Device), unsummed(fd, e.Addr))
		}
		if a.udp, err = listenUDP("udp"+v, addr, hear); err != nil {
			return err
		}
		if a.reply, err = listenUDP("udp"+v, addr, func(fd int) error { return unsummed(fd, e.Addr) }, deaf()...); err != nil {
			return err
		}
		a.gate.index = a.index
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return guard(c, a.gate.program()) }}
		lc.SetMultipathTCP(false) // what is measured is TCP
		l, err := lc.Listen(context.Background(), "tcp"+v, addr)
		if err == nil {
			a.tcp = l.(*net.TCPListener)
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for probes at %s on %s: %w", addr, e.Device, err), a.close())
	}
	return a, nil
}

// listenUDP opens a socket that may share its port with another one of ours.
func listenUDP(network, addr string, set func(fd int) error, filter ...unix.SockFilter) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		if len(filter) > 0 {
			if err := guard(c, filter); err != nil {
				return err
			}
		}
		return control(c, func(fd int) error {
			return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), set(fd))
		})
	}}
	c, err := lc.ListenPacket(context.Background(), network, addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// unsummed makes a socket send datagrams without a checksum, and take them:
// what is said about a path must not depend on what is wrong with it.
func unsummed(fd int, own netip.Addr) error { return setSummed(fd, own, false) }

func setSummed(fd int, own netip.Addr, summed bool) error {
	no := 1
	if summed {
		no = 0
	}
	if own.Is4() {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, no)
	}
	return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_UDP, udpNoCheck6Tx, no),
		unix.SetsockoptInt(fd, unix.IPPROTO_UDP, udpNoCheck6Rx, 1))
}

// Options of UDP over IPv6 (linux/udp.h).
const udpNoCheck6Tx, udpNoCheck6Rx = 101, 102

// know says which ends may ask.
func (a *answerer) know(known map[netip.Addr]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known = known
	for addr := range a.bucket {
		if !known[addr] {
			delete(a.bucket, addr)
		}
	}
}

// close lets go of the sockets.
func (a *answerer) close() error {
	var err error
	if a.udp != nil {
		err = errors.Join(err, a.udp.Close())
	}
	if a.reply != nil {
		err = errors.Join(err, a.reply.Close())
	}
	if a.tcp != nil {
		err = errors.Join(err, a.tcp.Close())
	}
	return err
}

// run answers until the sockets are closed.
func (a *answerer) run() {
	var both sync.WaitGroup
	both.Go(a.hear)
	both.Go(a.accept)
	both.Wait()
}

// hear answers datagrams.
func (a *answerer) hear() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := a.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about an answer: the asker has gone
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		out, ok := a.answer(buf[:n], from.Addr(), time.Now())
		if !ok {
			continue
		}
		if _, err := a.reply.WriteToUDPAddrPort(out, from); err != nil && !errors.Is(err, net.ErrClosed) {
			a.log.Debug("probe not answered", "to", from, "err", err)
		}
	}
}

// answer returns what to say to a datagram; false: nothing.
func (a *answerer) answer(b []byte, from netip.Addr, now time.Time) ([]byte, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.known[from] {
		return nil, false
	}
	m, ok := parse(b)
	if !ok || m.kind == answer {
		return nil, false
	}
	k := a.bucket[from]
	if k == nil {
		k = &bucket{left: askBurst, at: now}
		a.bucket[from] = k
	}
	if !k.take(now) {
		return nil, false
	}
	if m.kind == knock {
		if !a.gate.admit(from, m.nonce, now) || a.guard() != nil {
			return nil, false
		}
	}
	return message{kind: answer, nonce: m.nonce, size: uint32(len(b)), sum: sumOf(b[headerSize:]), whole: m.intact(b)}.put(headerSize), true
}

// guard puts the gate's program in force. a.mu is held.
func (a *answerer) guard() error {
	if a.tcp == nil {
		return nil
	}
	c, err := a.tcp.SyscallConn()
	if err == nil {
		err = guard(c, a.gate.program())
	}
	if err != nil {
		a.log.Warn("who may connect for a probe not set", "err", err)
	}
	return err
}

// accept serves connections, as many at a time as the gate lets in.
func (a *answerer) accept() {
	var busy sync.WaitGroup
	defer busy.Wait()
	room := make(chan struct{}, gateSize)
	for {
		c, err := a.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		select {
		case room <- struct{}{}:
			busy.Go(func() {
				defer func() { <-room }()
				a.serve(c)
			})
		default:
			a.hangUp(c)
		}
	}
}

func (a *answerer) hangUp(c *net.TCPConn) {
	_ = c.Close() // nothing was promised
}

// serve takes what one connection brings, and says what came.
func (a *answerer) serve(c *net.TCPConn) {
	defer a.hangUp(c)
	if c.SetDeadline(time.Now().Add(gateTime)) != nil {
		return
	}
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	var head [12]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return
	}
	a.mu.Lock()
	expected := a.gate.take(from, binary.BigEndian.Uint64(head[:]), time.Now())
	_ = a.guard() // said by itself; who was let in before has been served
	a.mu.Unlock()
	n := binary.BigEndian.Uint32(head[8:])
	if !expected || n > bulkMost {
		return
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		return
	}
	_, _ = c.Write(binary.BigEndian.AppendUint32(nil, sumOf(b))) // the asker has gone
}

// within calls f in a namespace; nil: the calling thread's.
func within(ns *netns.NS, f func() error) error {
	if ns == nil {
		return f()
	}
	return netns.Do(ns, f)
}

// indexOf is the number of an interface of the calling thread's namespace.
func indexOf(name string) (int, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return i.Index, nil
}
