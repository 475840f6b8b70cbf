package nft

import (
	"errors"

	"golang.org/x/sys/unix"
)

// loud is from how many bytes on a batch is so large that the kernel's telling
// of it, element by element, costs more than to find out otherwise whether
// somebody else changed something meanwhile.
const loud = 32 << 10

// quietly commits a batch of so many bytes. While a large one is carried out
// nobody of ours hears of changes: the kernel would write a message for each element, only to
// have it dropped. Every commit to nftables, by anybody, counts up one number.
// If that went up by one, the only change was ours; else something may have
// been missed, and is told as a change by somebody else.
func (d *Driver) quietly(size int, commit func() error) error {
	l := d.hearing.Load()
	if l == nil || size < loud {
		return commit()
	}
	before, err := d.conn.generation()
	if err != nil || l.member(unix.NETLINK_DROP_MEMBERSHIP) != nil {
		return commit()
	}
	failure := commit()
	if err := l.member(unix.NETLINK_ADD_MEMBERSHIP); err != nil {
		l.fail(err)
	}
	if after, err := d.conn.generation(); err != nil || after != before+1 {
		l.tell()
	}
	return failure
}

// member joins or leaves the group of those who are told of changes.
func (l *listener) member(option int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil // it hears nothing any more in any case
	}
	return unix.SetsockoptInt(l.fd, unix.SOL_NETLINK, option, unix.NFNLGRP_NFTABLES)
}

// fail ends receive: a listener that hears nothing is of no use.
func (l *listener) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = err
	if !l.closed {
		l.wake()
	}
}

// wake has receive look up.
func (l *listener) wake() {
	one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	_, _ = unix.Write(l.stop, one) // an eventfd at zero takes a one
}

// failure is what fail was told.
func (l *listener) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

func (l *listener) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return errors.Join(unix.Close(l.fd), unix.Close(l.stop))
}
