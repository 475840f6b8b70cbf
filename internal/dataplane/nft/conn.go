package nft

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

const (
	// readBytes is the most that the kernel puts into one datagram of a dump
	// for a reader that offers it.
	readBytes   = 32 << 10
	queueBytes  = 16 << 20         // receive queue: room for all errors of a large batch
	answerLimit = 10 * time.Second // an answer that takes longer never comes
	dumpTries   = 10               // attempts at reading what changes meanwhile
	maxErrors   = 8                // of one batch, that an error mentions
)

// Errors that callers decide on.
var (
	// ErrStale says that somebody changed nftables between reading and
	// writing: what was read may no longer be so, and nothing was written.
	ErrStale = errors.New("nftables changed meanwhile")
	// ErrInterrupted says that nftables changed during every attempt to read it.
	ErrInterrupted = errors.New("nftables kept changing while it was read")
)

// A StepError is what one message of a batch failed with.
type StepError struct {
	Step string // "add rule x 3"
	Err  error  // a syscall.Errno, with the kernel's words if it said any
}

func (e *StepError) Error() string { return e.Step + ": " + e.Err.Error() }

// Unwrap returns the kernel's error.
func (e *StepError) Unwrap() error { return e.Err }

// A conn is a netlink socket of one network namespace. Calls take turns.
type conn struct {
	fd   int
	port uint32

	mu     sync.Mutex // guards what follows and the order of requests
	seq    uint32
	buf    []byte
	queue  int // bytes that one send may have
	closed bool
}

// dial opens a socket in ns, or in the calling thread's namespace if it is nil.
func dial(ns *netns.NS) (*conn, error) {
	c := &conn{buf: make([]byte, readBytes)}
	err := within(ns, func() (err error) {
		c.fd, c.port, err = socket(0)
		return err
	})
	if err != nil {
		return nil, err
	}
	limit := unix.NsecToTimeval(answerLimit.Nanoseconds())
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return nil, errors.Join(fmt.Errorf("set up netlink: %w", err), c.close())
	}
	return c, nil
}

func within(ns *netns.NS, f func() error) error {
	if ns == nil {
		return f()
	}
	return netns.Do(ns, f)
}

// socket opens a socket that listens to the given groups (a mask).
func socket(groups uint32) (fd int, port uint32, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
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
	for _, opt := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK} {
		if err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, 1); err != nil {
			return -1, 0, err
		}
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queueBytes) != nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, queueBytes)
	}
	return fd, port, err
}

func (c *conn) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	return unix.Close(c.fd)
}

// commit carries out a batch, whole or not at all. With a generation (not 0)
// it fails with ErrStale if nftables is at another one by now. The error names
// each step that failed, as StepErrors.
func (c *conn) commit(b *batch, generation uint32) error {
	b.seal()
	if b.err != nil {
		return b.err
	}
	if b.len() == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.seq + 1 // that of the message that begins the batch
	c.seq += uint32(b.len()) + 2
	buf := c.frame(b, generation, first)
	if err := c.grow(len(buf)); err != nil {
		return err
	}
	if err := c.write(buf); err != nil {
		return err
	}
	return c.outcome(b, first)
}

// frame puts a batch between the messages that begin and end it, numbers all
// and asks for an answer to the last that does something. (Older kernels give
// none to the one that ends a batch.)
func (c *conn) frame(b *batch, generation, seq uint32) []byte {
	buf := make([]byte, 0, len(b.buf)+64)
	edge := func(kind uint16) {
		at := len(buf)
		buf = appendHead(buf, kind, unix.NLM_F_REQUEST)
		buf = append(buf, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES)
		if kind == unix.NFNL_MSG_BATCH_BEGIN && generation != 0 {
			buf = native.AppendUint16(buf, attrHead+4)
			buf = native.AppendUint16(buf, 1) // NFNL_BATCH_GENID
			buf = network.AppendUint32(buf, generation)
		}
		native.PutUint32(buf[at:], uint32(len(buf)-at))
		native.PutUint32(buf[at+8:], seq)
		native.PutUint32(buf[at+12:], c.port)
		seq++
	}
	edge(unix.NFNL_MSG_BATCH_BEGIN)
	head := len(buf)
	buf = append(buf, b.buf...)
	for i, at := range b.starts {
		m := buf[head+at:]
		if i == len(b.starts)-1 {
			native.PutUint16(m[6:], native.Uint16(m[6:])|unix.NLM_F_ACK)
		}
		native.PutUint32(m[8:], seq)
		native.PutUint32(m[12:], c.port)
		seq++
	}
	edge(unix.NFNL_MSG_BATCH_END)
	return buf
}

// grow makes room for a batch, which must go out in one piece.
func (c *conn) grow(size int) error {
	size += 4 << 10
	if size <= c.queue {
		return nil
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, size); err != nil {
		if err = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, size); err != nil {
			return fmt.Errorf("make room for a batch of %d bytes: %w", size, err)
		}
	}
	c.queue = size
	return nil
}

// outcome reads what the kernel answers to a batch whose messages are numbered
// from first. Answers are in order; those that belong to an earlier batch are
// passed over.
func (c *conn) outcome(b *batch, first uint32) error {
	var failed []error
	count := 0
	for done := false; !done; {
		err := c.read(func(m message) error {
			at := int(int32(m.seq - first))
			if m.kind != unix.NLMSG_ERROR || at < 0 || at > b.len()+1 {
				return nil
			}
			err := ackError(m)
			switch {
			case at == 0 && errors.Is(err, unix.ERESTART):
				failed, done = append(failed, ErrStale), true
			case at == 0 || at > b.len():
				// The batch as such failed; nothing more is said of it.
				failed, done = append(failed, fmt.Errorf("commit: %w", err)), true
			case err != nil:
				if count++; count <= maxErrors {
					failed = append(failed, &StepError{b.steps[at-1].String(), err})
				}
			}
			done = done || at == b.len()
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the outcome of a batch: %w", err)
		}
	}
	if count > maxErrors {
		failed = append(failed, fmt.Errorf("and %d more", count-maxErrors))
	}
	return join(failed)
}

// join is errors.Join on one line.
func join(list []error) error {
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	return joined(list)
}

type joined []error

func (e joined) Error() string {
	words := make([]string, len(e))
	for i, err := range e {
		words[i] = err.Error()
	}
	return strings.Join(words, "; ")
}

// Unwrap returns all of them.
func (e joined) Unwrap() []error { return e }

func (c *conn) write(buf []byte) error {
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
func (c *conn) read(each func(message) error) error {
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n > len(c.buf):
			return fmt.Errorf("datagram of %d bytes: %w", n, errMalformed)
		}
		if addr, ok := from.(*unix.SockaddrNetlink); !ok || addr.Pid != 0 {
			continue // not from the kernel
		}
		return split(c.buf[:n], each)
	}
}

// get sends a request of one message and hands its answers to each. A dump
// that was interrupted by a change fails with ErrInterrupted.
func (c *conn) get(b *batch, dump bool, each func(message) error) error {
	b.seal()
	if b.err != nil {
		return b.err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_ACK)
	if dump {
		flags = unix.NLM_F_REQUEST | unix.NLM_F_DUMP
	}
	native.PutUint16(b.buf[6:], flags)
	native.PutUint32(b.buf[8:], c.seq)
	native.PutUint32(b.buf[12:], c.port)
	if err := c.write(b.buf); err != nil {
		return err
	}
	var failure error // remembered while the rest is read, so that none of it stays in the queue
	for done := false; !done; {
		err := c.read(func(m message) error {
			if m.seq != c.seq {
				return nil
			}
			err := error(nil)
			if m.flags&unix.NLM_F_DUMP_INTR != 0 {
				err = ErrInterrupted
			}
			switch m.kind {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				done = true
				if e := ackError(m); err == nil {
					err = e
				}
			default:
				if failure == nil && err == nil {
					err = each(m)
				}
			}
			if failure == nil {
				failure = err
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read from netlink: %w", err)
		}
	}
	if errors.Is(failure, unix.EINTR) {
		return ErrInterrupted
	}
	return failure
}

// ackError is the error of an acknowledgement or of the end of a dump, with
// the kernel's explanation if it gave one.
func ackError(m message) error {
	if len(m.body) < 4 {
		if m.kind == unix.NLMSG_DONE {
			return nil
		}
		return errMalformed
	}
	number := int32(native.Uint32(m.body))
	if number >= 0 {
		return nil
	}
	err := error(unix.Errno(-number))
	if m.flags&unix.NLM_F_ACK_TLVS != 0 && len(m.body) > 4+headLen {
		text := ""
		_ = attrs(m.body[4+headLen:], func(kind uint16, v []byte) error {
			if kind == unix.NLMSGERR_ATTR_MSG {
				text = strings.TrimRight(string(v), "\x00")
			}
			return nil
		})
		if text != "" {
			return fmt.Errorf("%w (%s)", err, text)
		}
	}
	return err
}
