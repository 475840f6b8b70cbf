// Package rtnl speaks rtnetlink(7), the protocol by which links, addresses,
// routes, rules and neighbours are read and changed. It knows the frame of
// the messages and nothing of their meaning. Requests go out many at a time
// and only the last one asks for an acknowledgement, so that ten thousand
// routes cost little more than the kernel's own work.
package rtnl

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

const (
	sendBytes   = 32 << 10         // most bytes in one send
	readBytes   = 64 << 10         // at least what the kernel puts into one datagram
	queueBytes  = 4 << 20          // receive queue
	answerLimit = 10 * time.Second // an answer that takes longer never comes
	dumpTries   = 10               // attempts at reading a table that changes meanwhile
)

// ErrInterrupted says that a table changed during every attempt to read it.
var ErrInterrupted = errors.New("the table kept changing while it was read")

// A Conn is a netlink socket of one network namespace. Its methods may be
// called from anywhere; calls take turns.
type Conn struct {
	fd   int
	port uint32

	mu  sync.Mutex // guards everything below and the order of requests
	seq uint32
	buf []byte
}

// Dial opens a socket in ns, or in the calling thread's namespace when ns is
// nil.
func Dial(ns *netns.NS) (*Conn, error) { return dialProtocol(ns, unix.NETLINK_ROUTE) }

// DialNetfilter opens a socket as Dial does, for netfilter's subsystems
// (nfnetlink): messages have the same frame.
func DialNetfilter(ns *netns.NS) (*Conn, error) { return dialProtocol(ns, unix.NETLINK_NETFILTER) }

func dialProtocol(ns *netns.NS, protocol int) (*Conn, error) {
	c := &Conn{buf: make([]byte, readBytes)}
	open := func() (err error) {
		c.fd, c.port, err = socket(protocol, 0)
		return err
	}
	err := error(nil)
	if ns == nil {
		err = open()
	} else {
		err = netns.Do(ns, open)
	}
	if err != nil {
		return nil, err
	}
	limit := unix.NsecToTimeval(answerLimit.Nanoseconds())
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return nil, errors.Join(fmt.Errorf("set up netlink: %w", err), c.Close())
	}
	return c, nil
}

// socket opens a socket of a netlink protocol that listens to the given groups
// and returns its port.
func socket(protocol int, groups uint32) (fd int, port uint32, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, 0, fmt.Errorf("open netlink: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("set up netlink: %w", err), unix.Close(fd))
		}
	}()
	if err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return -1, 0, err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return -1, 0, err
	}
	if addr, ok := name.(*unix.SockaddrNetlink); ok {
		port = addr.Pid
	}
	// Explanations in acknowledgements, filters in dumps, and errors without
	// the request that they answer: all since before the oldest kernel we
	// support.
	for _, opt := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_GET_STRICT_CHK, unix.NETLINK_CAP_ACK} {
		if err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, 1); err != nil {
			return -1, 0, err
		}
	}
	// Forced, because the limit for others is small; without the privilege the
	// plain way takes what it can get.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queueBytes) != nil {
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, queueBytes); err != nil {
			return -1, 0, err
		}
	}
	return fd, port, nil
}

// Close closes the socket. No other call may be under way.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Port returns the socket's netlink port, by which notifications name who
// caused a change.
func (c *Conn) Port() uint32 { return c.port }

// Send carries out all requests in order, also after one has failed, and
// returns what failed by its number in the batch. The outcome of requests that
// the kernel never answered for is an error too.
func (c *Conn) Send(b *Batch) map[int]error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var failed failures
	for first := 0; first < b.Len(); {
		next, size := first, 0
		for next < b.Len() {
			m := b.message(next)
			if size += len(m); size > sendBytes && next > first {
				break
			}
			next++
		}
		if err := c.exchange(b, first, next, &failed); err != nil {
			for i := first; i < next; i++ {
				failed.add(i, err)
			}
		}
		first = next
	}
	return failed.of
}

// failures are errors by the number of the request, mostly none.
type failures struct{ of map[int]error }

func (f *failures) add(i int, err error) {
	if f.of == nil {
		f.of = map[int]error{}
	}
	f.of[i] = err
}

// Do carries out a batch and returns the first thing that failed.
func (c *Conn) Do(b *Batch) error {
	failed := c.Send(b)
	for i := range b.Len() {
		if err := failed[i]; err != nil {
			return err
		}
	}
	return nil
}

// exchange sends requests first to next-1 in one piece and reads answers until
// that of the last.
func (c *Conn) exchange(b *Batch, first, next int, failed *failures) error {
	base := c.seq + 1 // sequence number of request first
	c.seq += uint32(next - first)
	from := b.starts[first]
	end := from
	for i := first; i < next; i++ {
		m := b.message(i)
		end += len(m)
		native.PutUint32(m[8:], base+uint32(i-first))
		native.PutUint32(m[12:], c.port)
		if i == next-1 {
			native.PutUint16(m[6:], native.Uint16(m[6:])|unix.NLM_F_ACK)
		}
	}
	if err := c.write(b.buf[from:end]); err != nil {
		return err
	}
	for done := false; !done; {
		err := c.read(func(m Message) error {
			at := int(int32(m.Seq - base))
			if m.Kind != unix.NLMSG_ERROR || at < 0 || first+at >= next {
				return nil // left over from a call that gave up
			}
			if err := ackError(m); err != nil {
				failed.add(first+at, err)
			}
			done = done || first+at == next-1
			return nil
		})
		if err != nil {
			return fmt.Errorf("read acknowledgement: %w", err)
		}
	}
	return nil
}

func (c *Conn) write(buf []byte) error {
	for {
		err := unix.Sendto(c.fd, buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("send to netlink: %w", err)
		}
		return nil
	}
}

// read takes one datagram and hands out its messages.
func (c *Conn) read(each func(Message) error) error {
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n > len(c.buf):
			return fmt.Errorf("datagram of %d bytes: %w", n, ErrMalformed)
		}
		if addr, ok := from.(*unix.SockaddrNetlink); !ok || addr.Pid != 0 {
			continue // not from the kernel
		}
		return split(c.buf[:n], each)
	}
}

// Get sends the one request of b and hands its answers to each. With
// NLM_F_DUMP the request reads a whole table: when the table changed meanwhile
// it is read again, after reset has been called to forget the first answers.
func (c *Conn) Get(b *Batch, reset func(), each func(Message) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range dumpTries {
		reset()
		err := c.get(b, each)
		if !errors.Is(err, ErrInterrupted) && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return ErrInterrupted
}

func (c *Conn) get(b *Batch, each func(Message) error) error {
	c.seq++
	m := b.message(0)
	native.PutUint32(m[8:], c.seq)
	native.PutUint32(m[12:], c.port)
	dump := native.Uint16(m[6:])&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	if !dump {
		native.PutUint16(m[6:], native.Uint16(m[6:])|unix.NLM_F_ACK)
	}
	if err := c.write(m); err != nil {
		return err
	}
	var failure error // remembered while the rest is read, so that none of it stays in the queue
	for done := false; !done; {
		err := c.read(func(m Message) error {
			if m.Seq != c.seq {
				return nil
			}
			if m.Flags&unix.NLM_F_DUMP_INTR != 0 {
				failure = ErrInterrupted
			}
			switch m.Kind {
			case unix.NLMSG_DONE:
				done = true
				if err := doneError(m); err != nil && failure == nil {
					failure = err
				}
			case unix.NLMSG_ERROR:
				done = true
				if err := ackError(m); err != nil && failure == nil {
					failure = err
				}
			default:
				if failure == nil {
					failure = each(m)
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read from netlink: %w", err)
		}
	}
	return failure
}

// doneError is the error at the end of a dump: a negative number.
func doneError(m Message) error {
	if len(m.Body) < 4 {
		return nil
	}
	if code := int32(native.Uint32(m.Body)); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}

// ackError is the error of an acknowledgement, with the kernel's explanation
// when it gave one.
func ackError(m Message) error {
	if len(m.Body) < 4 {
		return ErrMalformed
	}
	code := int32(native.Uint32(m.Body))
	if code == 0 {
		return nil
	}
	errno := unix.Errno(-code)
	if m.Flags&unix.NLM_F_ACK_TLVS == 0 || len(m.Body) < 4+headerLen {
		return errno
	}
	// The header of the request follows; NLM_F_CAPPED says that its body was
	// left out.
	rest := m.Body[4+headerLen:]
	if m.Flags&unix.NLM_F_CAPPED == 0 {
		n := align(int(native.Uint32(m.Body[4:]))) - headerLen
		if n < 0 || n > len(rest) {
			return errno
		}
		rest = rest[n:]
	}
	why := ""
	err := Attrs(rest, func(kind uint16, value []byte) {
		if kind == unix.NLMSGERR_ATTR_MSG {
			why = Text(value)
		}
	})
	if err != nil || why == "" {
		return errno
	}
	return fmt.Errorf("%w (%s)", errno, why)
}
