package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// commits finds out when the kernel puts new rules in force in a namespace: each
// transaction of nf_tables counts up one number, which is asked for again and
// again. To be told would make the kernel write a message for each element of
// each transaction, in the time of whoever makes it.
type commits struct {
	fd     int
	stop   chan struct{}
	ended  chan struct{}
	events chan time.Time
}

// askEvery is how exact the time of a commit is.
const askEvery = 200 * time.Microsecond

func hearCommits(ns *netns.NS) (*commits, error) {
	c := &commits{stop: make(chan struct{}), ended: make(chan struct{}), events: make(chan time.Time, 1<<16)}
	err := netns.Do(ns, func() (err error) {
		c.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a socket to ask nf_tables: %w", err)
	}
	if _, err := c.generation(); err != nil {
		return nil, errors.Join(err, unix.Close(c.fd))
	}
	go c.ask()
	return c, nil
}

// ask notes the time of each commit, until stop.
func (c *commits) ask() {
	defer close(c.ended)
	last, _ := c.generation()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}
		now, err := c.generation()
		if err != nil || now == last {
			continue // a commit is asked for again at once
		}
		last = now
		select {
		case c.events <- time.Now():
		default: // nobody waits
		}
	}
}

// generation asks for the number of the last commit (NFT_MSG_GETGEN).
func (c *commits) generation() (uint32, error) {
	var m [20]byte
	binary.NativeEndian.PutUint32(m[0:], uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(c.fd, m[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("ask nf_tables: %w", err)
	}
	var buf [512]byte
	n, _, err := unix.Recvfrom(c.fd, buf[:], 0)
	const number = 20 + 4 // in the first attribute, NFTA_GEN_ID
	if err != nil || n < number+4 || binary.NativeEndian.Uint16(buf[4:]) == unix.NLMSG_ERROR {
		return 0, fmt.Errorf("ask nf_tables: an answer of %d bytes: %w", n, errors.Join(err, unix.EBADMSG))
	}
	return binary.BigEndian.Uint32(buf[number:]), nil
}

// forget drops what was heard until now.
func (c *commits) forget() {
	for {
		select {
		case <-c.events:
		default:
			return
		}
	}
}

// until waits for the commit after which f is true, and returns its time. A
// packet may be late, so f is asked again now and then.
func (c *commits) until(ctx context.Context, limit time.Duration, f func() (bool, error)) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	var at time.Time
	for {
		select {
		case at = <-c.events:
			for len(c.events) > 0 { // of several, the last is what counts
				at = <-c.events
			}
		case <-again.C:
		case <-ctx.Done():
			return at, fmt.Errorf("no commit in time did it: %w", ctx.Err())
		}
		if at.IsZero() {
			continue
		}
		if ok, err := f(); err != nil || ok {
			return at, err
		}
	}
}

func (c *commits) close() {
	if c == nil {
		return
	}
	close(c.stop)
	<-c.ended
	_ = unix.Close(c.fd) // nothing is lost
}

// prober sends datagrams, each from a port of its own and so a new connection.
type prober struct {
	from   *netns.NS
	source netip.Addr // what to send from; invalid: the only address there
	to     netip.Addr
	in     int // where they arrive
	shared bool
	number byte
}

// newProber listens in one namespace for what is sent from another one.
func newProber(to, from *netns.NS, addr netip.Addr) (*prober, error) {
	p := &prober{from: from, to: addr}
	err := netns.Do(to, func() (err error) {
		if p.in, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(p.in, &unix.SockaddrInet4{Port: probePort})
	})
	if err != nil {
		return nil, fmt.Errorf("listen for probes: %w", err)
	}
	return p, nil
}

// from another namespace to the same place.
func (p *prober) other(from *netns.NS, source netip.Addr) *prober {
	return &prober{from: from, source: source, to: p.to, in: p.in, shared: true, number: 100}
}

// passes sends one datagram and reports whether it arrives. All of its way is
// in the kernel of this machine, so it arrives at once if ever; one that is not
// expected is waited for a little longer.
func (p *prober) passes(expected bool) (bool, error) {
	p.number++
	err := netns.Do(p.from, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if p.source.IsValid() {
			if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: p.source.As4()}); err != nil {
				return err
			}
		}
		return unix.Sendto(fd, []byte{p.number}, 0, &unix.SockaddrInet4{Addr: p.to.As4(), Port: probePort})
	})
	if err != nil {
		return false, fmt.Errorf("send a probe: %w", err)
	}
	wait := 20
	if expected {
		wait = 5
	}
	for {
		fds := []unix.PollFd{{Fd: int32(p.in), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, wait)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return false, err
		}
		var buf [16]byte
		got, _, err := unix.Recvfrom(p.in, buf[:], 0)
		if err != nil {
			return false, err
		}
		if got == 1 && buf[0] == p.number {
			return true, nil
		}
	}
}

func (p *prober) close() {
	if p != nil && !p.shared {
		_ = unix.Close(p.in) // nothing is lost
	}
}
