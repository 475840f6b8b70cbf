package rtnl

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// ErrLost says that notifications were lost because they came faster than they
// were read: anything may have changed.
var ErrLost = errors.New("notifications were lost")

// A Listener hears of changes.
type Listener struct {
	fd   int
	stop int // eventfd that ends Receive
	buf  []byte
}

// Listen opens a socket in ns (nil: the calling thread's) that hears of
// changes in the given multicast groups, a mask of RTMGRP_ bits. From when it
// returns no change is missed without ErrLost.
func Listen(ns *netns.NS, groups uint32) (*Listener, error) {
	return listen(ns, func(l *Listener) (err error) {
		l.fd, _, err = socket(unix.NETLINK_ROUTE, groups)
		return err
	})
}

// ListenNetfilter opens a socket for netfilter's subsystems in ns (nil: the
// calling thread's) and carries out setup over it: what the kernel sends to
// that socket from then on is heard.
func ListenNetfilter(ns *netns.NS, setup *Batch) (*Listener, error) {
	return listen(ns, func(l *Listener) error {
		c := Conn{buf: l.buf}
		var err error
		if c.fd, c.port, err = socket(unix.NETLINK_NETFILTER, 0); err != nil {
			return err
		}
		l.fd = c.fd
		if err := c.Do(setup); err != nil {
			return errors.Join(err, c.Close())
		}
		return nil
	})
}

func listen(ns *netns.NS, socket func(*Listener) error) (*Listener, error) {
	l := &Listener{buf: make([]byte, readBytes)}
	open := func() error { return socket(l) }
	err := error(nil)
	if ns == nil {
		err = open()
	} else {
		err = netns.Do(ns, open)
	}
	if err != nil {
		return nil, err
	}
	if l.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("set up netlink: %w", err), unix.Close(l.fd))
	}
	return l, nil
}

// Close closes the sockets. Receive must have returned.
func (l *Listener) Close() error { return errors.Join(unix.Close(l.fd), unix.Close(l.stop)) }

// Receive hands notifications to each until ctx ends, which it returns as
// ctx's error. ErrLost is handed to lost, and reading goes on.
func (l *Listener) Receive(ctx context.Context, each func(Message), lost func(error)) error {
	stop := context.AfterFunc(ctx, func() {
		one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
		_, _ = unix.Write(l.stop, one) // an eventfd at zero takes a one
	})
	defer stop()
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(l.stop), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for netlink: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		n, from, err := unix.Recvfrom(l.fd, l.buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			continue
		case err == unix.ENOBUFS || err == nil && n > len(l.buf):
			lost(ErrLost)
			continue
		case err != nil:
			return fmt.Errorf("read from netlink: %w", err)
		}
		if addr, ok := from.(*unix.SockaddrNetlink); !ok || addr.Pid != 0 {
			continue
		}
		if err := split(l.buf[:n], func(m Message) error { each(m); return nil }); err != nil {
			lost(err)
		}
	}
}
