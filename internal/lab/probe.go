package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// Probe says what to send, from where to where.
type Probe struct {
	From     Member
	To       netip.Addr
	Protocol string // icmp, tcp or udp
	Port     uint16 // of tcp and udp
	Count    int
	Timeout  time.Duration // for each probe
}

// Outcome is what came back.
type Outcome struct {
	Sent, Answered int
	Said           string        // what the far end called itself, by tcp or udp
	Fastest        time.Duration // of the answered ones
}

// ErrNotMeasured says that the probes could prove nothing: there was no route
// at the sender, or nobody listens at the far end.
var ErrNotMeasured = errors.New("could not measure")

// ParseTarget reads PORT/PROTO, PORT or icmp: tcp when only a port is given,
// icmp when nothing is.
func ParseTarget(s string) (protocol string, port uint16, err error) {
	if s == "" || s == "icmp" {
		return "icmp", 0, nil
	}
	number, protocol, ok := strings.Cut(s, "/")
	if !ok {
		protocol = "tcp"
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("port %q: must be 1 to 65535, as in 80/tcp, or icmp", s)
	}
	switch protocol {
	case "tcp", "udp", "sctp":
		return protocol, uint16(n), nil
	}
	return "", 0, fmt.Errorf("protocol %q: must be icmp, tcp, udp or sctp", protocol)
}

// Send carries out the probes, each from a source port of its own, and counts
// the answers. The error wraps ErrNotMeasured when nothing was proven.
func (p Probe) Send(ctx context.Context) (Outcome, error) {
	ns, err := netns.Open(p.From.Netns)
	if err != nil {
		return Outcome{}, fmt.Errorf("%w: %w", ErrNotMeasured, err)
	}
	defer ns.Close()
	var out Outcome
	for i := range p.Count {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		began := time.Now()
		said, err := p.once(ctx, ns, i)
		out.Sent++
		switch {
		case err == nil:
			out.Answered++
			if took := time.Since(began); out.Fastest == 0 || took < out.Fastest {
				out.Fastest = took
			}
			out.Said = said
		case errors.Is(err, ErrNotMeasured):
			return out, err
		}
	}
	return out, nil
}

// once sends one probe and waits for its answer.
func (p Probe) once(ctx context.Context, ns *netns.NS, seq int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	var said string
	var err error
	switch p.Protocol {
	case "icmp":
		err = p.ping(ctx, ns, seq)
	case "tcp", "udp":
		said, err = p.talk(ctx, ns)
	default:
		return "", fmt.Errorf("%w: this machine's kernel has no %s sockets", ErrNotMeasured, p.Protocol)
	}
	switch {
	case errors.Is(err, unix.ENETUNREACH) && !p.routed(ns):
		return "", fmt.Errorf("%w: %s has no route to %s", ErrNotMeasured, p.From.Name, p.To)
	case errors.Is(err, unix.ECONNREFUSED):
		return "", fmt.Errorf("%w: nobody listens on %s port %d/%s", ErrNotMeasured, p.To, p.Port, p.Protocol)
	}
	return said, err
}

// routed reports whether the sender itself has a route: a router on the way
// that has none answers with the same error. Connecting a datagram socket
// looks up the route and sends nothing.
func (p Probe) routed(ns *netns.NS) bool {
	err := netns.Do(ns, func() error {
		c, err := dialHere(context.Background(), "udp", netip.AddrPortFrom(p.To, 9))
		if err != nil {
			return err
		}
		return c.Close()
	})
	return !errors.Is(err, unix.ENETUNREACH)
}

// talk connects or sends a datagram, and reads who answers.
func (p Probe) talk(ctx context.Context, ns *netns.NS) (string, error) {
	var conn net.Conn
	err := netns.Do(ns, func() (err error) {
		conn, err = dialHere(ctx, p.Protocol, netip.AddrPortFrom(p.To, p.Port))
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	if p.Protocol == "udp" {
		if _, err := conn.Write([]byte("probe")); err != nil {
			return "", err
		}
	}
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
	return name, nil
}

// dialHere connects with a socket opened on the calling thread, so that it
// belongs to that thread's namespace. The connection is made without waiting;
// the wait is package net's, on whatever thread.
func dialHere(ctx context.Context, protocol string, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{FallbackDelay: -1} // one address: the socket is opened by this goroutine
	return d.DialContext(ctx, protocol, to.String())
}

// ping sends one ICMP echo request and waits for its reply.
func (p Probe) ping(ctx context.Context, ns *netns.NS, seq int) error {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if p.To.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	var pc net.PacketConn
	err := netns.Do(ns, func() (err error) {
		var lc net.ListenConfig
		pc, err = lc.ListenPacket(ctx, network, "")
		return err
	})
	if err != nil {
		return err
	}
	defer pc.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := pc.SetDeadline(deadline); err != nil {
			return err
		}
	}
	id := uint16(os.Getpid()) ^ uint16(time.Now().UnixNano())
	if _, err := pc.WriteTo(echo(request, id, uint16(seq)), &net.IPAddr{IP: p.To.AsSlice()}); err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return err
		}
		ip, ok := from.(*net.IPAddr)
		if ok && n >= 8 && buf[0] == reply && ip.IP.Equal(p.To.AsSlice()) &&
			binary.BigEndian.Uint16(buf[4:]) == id && binary.BigEndian.Uint16(buf[6:]) == uint16(seq) {
			return nil
		}
	}
}

// echo is an echo request (RFC 792, RFC 4443). The kernel fills in the
// checksum of ICMPv6.
func echo(kind byte, id, seq uint16) []byte {
	b := []byte{kind, 0, 0, 0, 0, 0, 0, 0, 'b', 'r', 'i', 'n', 'd', 'l', 'e', '.'}
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	binary.BigEndian.PutUint16(b[2:], fold(sum(0, b)))
	return b
}
