package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// Ports are where every workload answers, by TCP and UDP.
var Ports = []int{80, 443, 5432, 8080}

// responder answers for one workload: whoever connects or sends a datagram is
// told the workload's name.
type responder struct {
	name    string
	cancel  context.CancelFunc
	closers []func() error
	wg      sync.WaitGroup
}

// startResponder opens the sockets inside the workload's namespace. Sockets
// stay in the namespace that they were opened in; the goroutines need not.
func startResponder(ctx context.Context, name string, ns *netns.NS) (*responder, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &responder{name: name, cancel: cancel}
	err := netns.Do(ns, func() error {
		for _, port := range Ports {
			if err := r.listen(ctx, strconv.Itoa(port)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.stop()
		return nil, fmt.Errorf("answer for workload %s: %w", name, err)
	}
	return r, nil
}

// listen answers on one port, each family by a socket of its own: what
// package net makes of an address without a family depends on the namespace
// that this process was born in.
func (r *responder) listen(ctx context.Context, port string) error {
	for family, any := range map[string]string{"4": "0.0.0.0", "6": "::"} {
		err := r.listenOn(ctx, family, net.JoinHostPort(any, port))
		if family == "6" && errors.Is(err, unix.EAFNOSUPPORT) {
			continue // this kernel has no IPv6
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *responder) listenOn(ctx context.Context, family, addr string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp"+family, addr)
	if err != nil {
		return err
	}
	r.closers = append(r.closers, l.Close)
	pc, err := lc.ListenPacket(ctx, "udp"+family, addr)
	if err != nil {
		return err
	}
	r.closers = append(r.closers, pc.Close)
	r.wg.Add(2)
	go func() { defer r.wg.Done(); r.serveTCP(ctx, l) }()
	go func() { defer r.wg.Done(); r.serveUDP(pc) }()
	return nil
}

// idleTimeout is how long a silent TCP client is kept.
const idleTimeout = 10 * time.Minute

// serveTCP greets, then echoes what comes, so that a test can hold a
// connection open and see it live.
func (r *responder) serveTCP(ctx context.Context, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		r.wg.Add(1)
		go func() {
			defer r.wg.Done()
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			r.converse(c)
		}()
	}
}

func (r *responder) converse(c net.Conn) {
	if _, err := fmt.Fprintf(c, "%s\n", r.name); err != nil {
		return
	}
	buf := make([]byte, 4096)
	for {
		if c.SetReadDeadline(time.Now().Add(idleTimeout)) != nil {
			return
		}
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// serveUDP answers each datagram with the name and what it said.
func (r *responder) serveUDP(pc net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return // closed
		}
		answer := append([]byte(r.name+" "), buf[:n]...)
		_, _ = pc.WriteTo(answer, from) // a lost answer is for the prober to notice
	}
}

// stop closes every socket and conversation and waits for their ends. No
// responder is none to end.
func (r *responder) stop() {
	if r == nil {
		return
	}
	r.cancel()
	for _, c := range r.closers {
		_ = c() // closing twice is all that can fail
	}
	r.wg.Wait()
}
