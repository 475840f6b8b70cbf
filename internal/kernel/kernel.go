// Package kernel makes the Linux network stack look as wanted: links,
// addresses, routes, rules, neighbours and sysctls. Each table is a
// reconcile.Target that recognises its own objects by a mark that the kernel
// keeps for us (a route protocol, a link alias) and never touches another's.
// The package also lays the wire between a workload and its host, tells which
// addresses and MTUs the host has, and watches for changes by others.
package kernel

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
)

// ErrNoLink says that an interface does not exist.
var ErrNoLink = errors.New("no such interface")

// ErrForeign says that somebody else's object is where ours should be. It is
// left alone.
var ErrForeign = errors.New("taken by an object that is not ours")

// Config says which network to work on.
type Config struct {
	// Netns is the path of a network namespace; empty: that of this process.
	Netns string
}

// A Kernel is the network stack of one namespace. Its methods may be called
// from anywhere.
type Kernel struct {
	ns    *netns.NS
	home  bool // ns is where this process's threads are anyway
	ioctl int  // a socket that turns interface names into numbers

	leaving leaving

	mu    sync.Mutex // guards everything below
	idle  []*rtnl.Conn
	ports map[uint32]bool // of all our sockets, to recognise our own changes
}

// Open opens the network stack that cfg names. Close it when nothing uses it
// any more.
func Open(cfg Config) (*Kernel, error) {
	open := netns.Current
	if cfg.Netns != "" {
		open = func() (*netns.NS, error) { return netns.OpenPath(cfg.Netns) }
	}
	ns, err := open()
	if err != nil {
		return nil, err
	}
	k := &Kernel{ns: ns, home: cfg.Netns == "", ports: map[uint32]bool{}}
	k.leaving.slots = make(chan struct{}, maxLeaving)
	err = k.inside(func() (err error) {
		k.ioctl, err = nameSocket()
		return err
	})
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return k, nil
}

// Close closes all sockets, after the kernel has acknowledged what was deleted.
func (k *Kernel) Close() error {
	k.leaving.wg.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	err := unix.Close(k.ioctl)
	for _, c := range k.idle {
		err = errors.Join(err, c.Close())
	}
	k.idle = nil
	if err = errors.Join(err, k.ns.Close()); err != nil {
		return fmt.Errorf("close kernel: %w", err)
	}
	return nil
}

// inside calls f on a thread that is in the kernel's namespace.
func (k *Kernel) inside(f func() error) error {
	if k.home {
		return f()
	}
	return netns.Do(k.ns, f)
}

// with calls f with a netlink socket that nobody else uses meanwhile.
func (k *Kernel) with(f func(*rtnl.Conn) error) error {
	c, err := k.take()
	if err != nil {
		return err
	}
	defer k.put(c)
	return f(c)
}

func (k *Kernel) take() (*rtnl.Conn, error) {
	k.mu.Lock()
	if n := len(k.idle); n > 0 {
		defer k.mu.Unlock()
		c := k.idle[n-1]
		k.idle = k.idle[:n-1]
		return c, nil
	}
	k.mu.Unlock()
	c, err := k.dial()
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ports[c.Port()] = true
	return c, nil
}

func (k *Kernel) dial() (*rtnl.Conn, error) {
	if k.home {
		return rtnl.Dial(nil)
	}
	return rtnl.Dial(k.ns)
}

func (k *Kernel) put(c *rtnl.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.idle = append(k.idle, c)
}

// ours reports whether a notification is of a change that we made.
func (k *Kernel) ours(port uint32) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ports[port]
}

// do carries out a batch and returns the first failure.
func (k *Kernel) do(b *rtnl.Batch) error {
	return k.with(func(c *rtnl.Conn) error { return c.Do(b) })
}
