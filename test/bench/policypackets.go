package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/netns"
)

// path is a way of packets from one namespace over a router to another one.
type path struct {
	name    string
	from    *netns.NS
	to      *netns.NS
	addr    netip.Addr
	rr, crr []float64 // medians in milliseconds, one for each round
}

// echoPort is where each server of a path answers; no policy but the last one
// speaks of it.
const echoPort = 20001

// Local workloads that are servers of paths, each a machine of its own.
const (
	freeIndex     = 7 // under no policy
	distinctIndex = 8
	overlapIndex  = 9
	collapseIndex = serverIndex
)

// measurePolicyPackets measures round trips through one host, as a part of
// those through a router without rules and without connection tracking.
func measurePolicyPackets(ctx context.Context, o options) ([]row, error) {
	p, err := newPolicyWorld(ctx, o, 14, freeIndex, distinctIndex, overlapIndex)
	if err != nil {
		return nil, err
	}
	defer p.close()
	bare, err := newBare()
	if err != nil {
		return nil, err
	}
	defer bare.close()
	many := o.pick(1000, 20)
	if err := p.create(ctx, packetPolicies(many)); err != nil {
		return nil, err
	}
	paths := []*path{
		{name: "bare", from: bare.client.ns, to: bare.server.ns, addr: bareServer},
		{name: "bare again", from: bare.client.ns, to: bare.server.ns, addr: bareServer},
		p.path("under no policy", freeIndex), p.path("policies that collapse", collapseIndex),
		p.path("distinct selectors", distinctIndex), p.path("overlapping ranges of ports", overlapIndex),
	}
	for _, s := range paths {
		if s.name == "bare again" {
			continue
		}
		stop, err := serve(s.to, s.addr)
		if err != nil {
			return nil, err
		}
		defer stop()
		if err := p.host.agent.waitUntil(ctx, time.Minute, func() error { _, err := s.connects(1); return err }); err != nil {
			return nil, fmt.Errorf("reach the server of %q: %w", s.name, err)
		}
	}
	if err := p.quiet(ctx); err != nil {
		return nil, err
	}
	for range o.pick(15, 2) {
		for _, i := range rand.Perm(len(paths)) {
			if err := errors.Join(ctx.Err(), paths[i].sample(o)); err != nil {
				return nil, fmt.Errorf("%s: %w", paths[i].name, err)
			}
		}
	}
	return packetRows(paths, many), nil
}

// path is the way from the client to a local workload.
func (p *policyWorld) path(name string, server int) *path {
	b, _ := p.boxOf(server)
	return &path{name: name, from: p.client.ns, to: b.ns, addr: localAddr(server)}
}

// packetRows are the figures: ratios of medians in the same round.
func packetRows(paths []*path, many int) []row {
	bare, again, free := paths[0], paths[1], paths[2]
	trips, connects := func(s *path) []float64 { return s.rr }, func(s *path) []float64 { return s.crr }
	rows := []row{
		{what: "packets of one host, under no policy, to bare forwarding: round trip, p50", value: ratio(trips, free, bare), unit: "×", aim: 1.1, spread: apart(1, ratio(trips, again, bare)), calico: "1.19–1.45"},
		{what: "– connect, request, close, p50", value: ratio(connects, free, bare), unit: "×", aim: 1.15, spread: apart(1, ratio(connects, again, bare)), calico: "1.19–1.32"},
		{what: "– bare: round trip, p50", value: median(bare.rr), unit: "ms", spread: medianApart(bare.rr)},
		{what: "– bare: connect, request, close, p50", value: median(bare.crr), unit: "ms", spread: medianApart(bare.crr)},
	}
	for _, s := range paths[3:] {
		aim := 1.25
		if s.name == "overlapping ranges of ports" {
			aim = 0
		}
		rows = append(rows,
			row{what: fmt.Sprintf("packets under %d policies, %s: round trip to bare, p50", many, s.name), value: ratio(trips, s, bare), unit: "×", aim: 1.1, spread: apart(1, ratio(trips, again, bare)), calico: "1.19–1.45"},
			row{what: "– connect, request, close to that under no policy, p50", value: ratio(connects, s, free), unit: "×", aim: aim, spread: apart(1, ratio(connects, again, bare)), calico: "4.1 nftables, 1.6 eBPF"})
	}
	return rows
}

// ratio is the median of two paths' ratios in the same round.
func ratio(what func(*path) []float64, a, b *path) float64 {
	var list []float64
	for i, v := range what(a) {
		list = append(list, v/what(b)[i])
	}
	return median(list)
}

// packetPolicies are many policies over each of three workloads, of five
// rules that the measured packets do not match, and then one that allows all.
func packetPolicies(many int) []v3.Object {
	var list []v3.Object
	add := func(server, i int, rules ...v3.Rule) {
		g := policy(i)
		g.Name = fmt.Sprintf("s%d-%d", server, i)
		g.Spec.Selector, g.Spec.Ingress = fmt.Sprintf("pod == 'p%d'", server), rules
		list = append(list, g)
	}
	for i := range many {
		var same, distinct, overlap []v3.Rule
		for j := range 5 {
			n, port := i*5+j, uint16(80+i)
			same = append(same, allow("TCP", fmt.Sprintf("has(t%d)", n%tags), port))
			distinct = append(distinct, allow("TCP", someOf(n), port))
			r := allow("TCP", fmt.Sprintf("has(t%d)", n%10))
			r.Destination.Ports = []v3.Port{{Min: uint16(1000 + 3*n), Max: uint16(1000 + 3*n + 500)}}
			overlap = append(overlap, r)
		}
		add(collapseIndex, i, same...)
		add(distinctIndex, i, distinct...)
		add(overlapIndex, i, overlap...)
	}
	for _, server := range []int{collapseIndex, distinctIndex, overlapIndex} {
		add(server, many, allow("TCP", "all()", echoPort))
	}
	return list
}

// someOf is a selector of some of the local workloads, others for each n.
func someOf(n int) string {
	text := "pod in {'x'"
	for bit := range 14 {
		if (n+1)>>bit&1 == 1 {
			text += fmt.Sprintf(", 'p%d'", bit)
		}
	}
	return text + "}"
}

// bare is a router without rules between two machines.
type bare struct{ client, router, server *box }

var bareServer = netip.MustParseAddr("10.2.0.2")

func newBare() (_ *bare, err error) {
	b := &bare{}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	for _, x := range []**box{&b.client, &b.router, &b.server} {
		if *x, err = newBox(); err != nil {
			return nil, err
		}
	}
	return b, errors.Join(
		b.router.site.SetSysctl("net/ipv4/ip_forward", "1"),
		b.router.join("c", b.client, 1), b.router.join("s", b.server, 2),
	)
}

// join connects a machine to a router.
func (b *box) join(name string, far *box, net byte) error {
	router := netip.AddrFrom4([4]byte{10, net, 0, 1})
	return errors.Join(
		b.site.Cable(name, far.site, "eth0"), b.site.AddAddress(name, netip.PrefixFrom(router, 24)),
		far.site.AddAddress("eth0", netip.PrefixFrom(router.Next(), 24)),
		far.site.AddRoute(netip.MustParsePrefix("10.0.0.0/8"), router),
	)
}

func (b *bare) close() {
	for _, x := range []*box{b.client, b.router, b.server} {
		x.close()
	}
}

// sample measures one round of a path.
func (s *path) sample(o options) error {
	rr, err := s.trips(o.pick(8000, 200))
	if err != nil {
		return err
	}
	crr, err := s.connects(o.pick(1500, 50))
	s.rr, s.crr = append(s.rr, rr.p50()), append(s.crr, crr.p50())
	return err
}

// trips measures round trips of one byte on one connection.
func (s *path) trips(n int) (out sample, err error) {
	err = pinned(s.from, func() error {
		fd, err := s.dial()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for range n {
			begin := time.Now()
			if err := ask(fd); err != nil {
				return err
			}
			out = append(out, time.Since(begin))
		}
		return nil
	})
	return out, err
}

// connects measures connections with one request each.
func (s *path) connects(n int) (out sample, err error) {
	err = pinned(s.from, func() error {
		for range n {
			begin := time.Now()
			fd, err := s.dial()
			if err != nil {
				return err
			}
			err = ask(fd)
			out = append(out, time.Since(begin))
			if err := errors.Join(err, unix.Close(fd)); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// dial connects to the server. The end of the connection is a reset, which
// leaves nothing that waits.
func (s *path) dial() (int, error) {
	fd, err := unix.Socket(familyOf(s.addr), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	err = errors.Join(
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 2), // no answer is an answer
	)
	if err == nil {
		err = unix.Connect(fd, socketAddr(s.addr, echoPort))
	}
	if err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// pinned calls f in a namespace on the first processor that this process may
// use. With both ends there, nothing waits for another processor to wake up,
// and the time is that of the packets' way.
func pinned(ns *netns.NS, f func() error) error {
	return netns.Do(ns, func() error {
		var all, one unix.CPUSet
		if err := unix.SchedGetaffinity(0, &all); err != nil {
			return err
		}
		for i := 0; one.Count() == 0; i++ {
			if all.IsSet(i) {
				one.Set(i)
			}
		}
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return err
		}
		return errors.Join(f(), unix.SchedSetaffinity(0, &all))
	})
}

// ask sends a byte and waits for the answer.
func ask(fd int) error {
	b := []byte{1}
	if _, err := unix.Write(fd, b); err != nil {
		return err
	}
	n, err := unix.Read(fd, b)
	if err == nil && n == 0 {
		err = errors.New("the server hung up")
	}
	return err
}

// familyOf is the family of an address's sockets.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func socketAddr(a netip.Addr, port int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: port}
}

// serve answers bytes at an address of a namespace, one connection at a time, until the
// function it returns is called.
func serve(ns *netns.NS, at netip.Addr) (func(), error) {
	var fd int
	err := netns.Do(ns, func() (err error) {
		if fd, err = unix.Socket(familyOf(at), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}),
			unix.Bind(fd, socketAddr(at, echoPort)), unix.Listen(fd, 128),
		)
	})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_ = pinned(ns, func() error { // what fails there, fails for the client too
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				if c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC); err == nil {
					answerAll(c)
				}
			}
		})
	}()
	return func() { close(stop); <-ended; _ = unix.Close(fd) }, nil
}

// answerAll sends back what comes, until the other side ends it.
func answerAll(fd int) {
	defer unix.Close(fd)
	_ = errors.Join( // slower without the one, and ended too early without the other
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{}),
	)
	var b [1]byte
	for {
		n, err := unix.Read(fd, b[:])
		if err != nil || n == 0 {
			return
		}
		if _, err := unix.Write(fd, b[:]); err != nil {
			return
		}
	}
}
