package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// groupNFTables is the mask of NFNLGRP_NFTABLES.
const groupNFTables = 1 << (unix.NFNLGRP_NFTABLES - 1)

// Watch calls tell whenever somebody else may have changed our tables, and
// once in the beginning, until ctx ends, whose error it returns. What other
// programs do in their own tables is not told. tell must be quick.
func (d *Driver) Watch(ctx context.Context, tell func()) error {
	l, err := d.listen()
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	defer l.close()
	l.tell = tell
	d.hearing.Store(l)
	defer d.hearing.CompareAndSwap(l, nil)
	tell()
	if err := l.receive(ctx, tell); err != nil && ctx.Err() == nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	return ctx.Err()
}

// A listener hears of changes.
type listener struct {
	fd   int
	stop int // eventfd that ends receive
	own  uint32
	buf  []byte
	tell func()

	mu     sync.Mutex // guards what follows
	closed bool
	failed error // it hears nothing any more
}

func (d *Driver) listen() (*listener, error) {
	l := &listener{own: d.conn.port, buf: make([]byte, 64<<10)}
	err := within(d.ns, func() (err error) {
		l.fd, _, err = socket(groupNFTables)
		return err
	})
	if err != nil {
		return nil, err
	}
	if l.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(err, unix.Close(l.fd))
	}
	if err := l.deaf(); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// deaf keeps what we cause ourselves out of the queue, where a large change of
// ours would leave no room for anything else. All of one datagram has one
// cause, whose port is the fourth word of its first header.
func (l *listener) deaf() error {
	// The filter loads numbers in network order.
	own := network.Uint32(native.AppendUint32(nil, l.own))
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 12},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: own},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: ^uint32(0)},
	}
	prog := &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	return unix.SetsockoptSockFprog(l.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog)
}

// receive calls tell for each datagram that says something of our tables, and
// when some were lost.
func (l *listener) receive(ctx context.Context, tell func()) error {
	stop := context.AfterFunc(ctx, l.wake)
	defer stop()
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(l.stop), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return err
		}
		if err := cmp.Or(ctx.Err(), l.failure()); err != nil {
			return err
		}
		n, from, err := unix.Recvfrom(l.fd, l.buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			continue
		case err == unix.ENOBUFS || err == nil && n > len(l.buf):
			tell() // something was lost: anything may have changed
			continue
		case err != nil:
			return err
		}
		if addr, ok := from.(*unix.SockaddrNetlink); !ok || addr.Pid != 0 {
			continue
		}
		if l.drift(l.buf[:n]) {
			tell()
		}
	}
}

// drift reports whether notifications are of our tables and not by us.
func (l *listener) drift(buf []byte) bool {
	found := false
	err := split(buf, func(m message) error {
		found = found || m.port != l.own && m.ours()
		return nil
	})
	return found || err != nil
}

// ours reports whether a message changes something of one of our tables. The
// first attribute of each kind is the table's name.
func (m message) ours() bool {
	if m.kind&0xff00 != subsystem || int(m.kind)-subsystem == unix.NFT_MSG_NEWGEN {
		return false
	}
	name := ""
	_ = attrs(m.body, func(kind uint16, v []byte) error {
		if kind == 1 { // NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE…
			name = (&reader{}).text(v)
		}
		return nil
	})
	return tableID{m.family, name}.ours()
}
