package scenarios

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/netns"
)

// How a flood pings.
const (
	floodRate = 100             // a second
	floodLast = 2 * time.Second // for the answers to the last ones
)

// flood is pings without pause from one member to others.
type flood struct {
	streams []*stream
	wg      sync.WaitGroup
}

// stream is the pings to one address.
type stream struct {
	name   string
	conn   net.PacketConn
	to     netip.Addr
	id     uint16
	every  time.Duration
	cancel context.CancelFunc

	mu       sync.Mutex // guards everything below
	sent     int
	answered map[uint32]bool
}

// flood start NAME FROM TO… [rate=N] pings every address of the members, each
// 100 or N times a second, until `flood stop NAME [maxlost=N]`, which says how many
// were lost and fails when there were more than N (0 when not given).
func (c call) flood(args []string) outcome {
	verb, name := args[0], args[1]
	if verb == "start" {
		f, err := c.startFlood(args[2], args[3:])
		if err != nil {
			return failf("flood: %v", err)
		}
		c.floods[name] = f
		return outcome{}
	}
	f, ok := c.floods[name]
	if !ok || verb != "stop" {
		return failf("flood %s %s: start it first, then stop it", verb, name)
	}
	most := 0
	for _, a := range args[2:] {
		n, err := strconv.Atoi(strings.TrimPrefix(a, "maxlost="))
		if err != nil {
			return failf("flood stop: %v", err)
		}
		most = n
	}
	f.stop()
	var out outcome
	for _, s := range f.streams {
		lost, first := s.lost()
		out.stdout += fmt.Sprintf("%s: %d sent, %d lost\n", s.name, s.sent, lost)
		if lost > most {
			out.err, out.status = fmt.Errorf("%s: %d of %d lost, at most %d may be; the first lost was number %d", s.name, lost, s.sent, most, first), 1
		}
		if s.sent == 0 {
			return failf("%s: nothing was sent", s.name)
		}
	}
	return out
}

// startFlood opens the sockets in the sender's namespace and waits for the
// first answer of each stream.
func (c call) startFlood(from string, to []string) (*flood, error) {
	nsName, _, err := c.find(from)
	if err != nil {
		return nil, err
	}
	ns, err := netns.Open(nsName)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	f := &flood{}
	rate := floodRate
	if text, ok := strings.CutPrefix(to[len(to)-1], "rate="); ok {
		if rate, err = strconv.Atoi(text); err != nil || rate < 1 {
			return nil, fmt.Errorf("rate %q: must be a number of pings a second", text)
		}
		to = to[:len(to)-1]
	}
	for _, member := range to {
		for _, v := range c.versions() {
			addr, err := c.address(member, v)
			if err != nil {
				return nil, err
			}
			s := &stream{
				name: fmt.Sprintf("%s to %s by IPv%d", from, member, v), to: addr, id: uint16(0x4200 + len(f.streams)),
				every: time.Second / time.Duration(rate), answered: map[uint32]bool{},
			}
			network := map[int]string{4: "ip4:icmp", 6: "ip6:ipv6-icmp"}[v]
			err = netns.Do(ns, func() (err error) {
				var lc net.ListenConfig
				s.conn, err = lc.ListenPacket(context.Background(), network, "")
				return err
			})
			if err != nil {
				return nil, err
			}
			f.streams = append(f.streams, s)
		}
	}
	for _, s := range f.streams {
		ctx, cancel := context.WithCancel(context.Background())
		s.cancel = cancel
		f.wg.Add(2)
		go func() { defer f.wg.Done(); s.send(ctx) }()
		go func() { defer f.wg.Done(); s.receive() }()
	}
	return f, nil
}

// send pings until ctx ends, waits for the last answers and closes the
// socket, which ends receive.
func (s *stream) send(ctx context.Context) {
	defer s.conn.Close()
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.waitForLast()
			return
		case <-tick.C:
		}
		s.mu.Lock()
		number := uint32(s.sent)
		s.sent++
		s.mu.Unlock()
		_, _ = s.conn.WriteTo(s.echo(number), &net.IPAddr{IP: s.to.AsSlice()}) // not sent is lost
	}
}

// waitForLast returns when all were answered, or after a while.
func (s *stream) waitForLast() {
	limit := time.After(floodLast)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if lost, _ := s.lost(); lost == 0 {
			return
		}
		select {
		case <-limit:
			return
		case <-tick.C:
		}
	}
}

// receive notes the answers until the socket is closed.
func (s *stream) receive() {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		ip, ok := from.(*net.IPAddr)
		reply := map[bool]byte{true: 0, false: 129}[s.to.Is4()]
		if !ok || n < 12 || buf[0] != reply || !ip.IP.Equal(s.to.AsSlice()) || binary.BigEndian.Uint16(buf[4:]) != s.id {
			continue
		}
		s.mu.Lock()
		s.answered[binary.BigEndian.Uint32(buf[8:])] = true
		s.mu.Unlock()
	}
}

// lost counts the pings without an answer; first is the first of them.
func (s *stream) lost() (lost, first int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := s.sent - 1; i >= 0; i-- {
		if !s.answered[uint32(i)] {
			lost, first = lost+1, i
		}
	}
	return lost, first
}

// echo is an echo request (RFC 792, RFC 4443) that carries its number; the
// kernel fills in the checksum of ICMPv6.
func (s *stream) echo(number uint32) []byte {
	b := make([]byte, 16)
	b[0] = map[bool]byte{true: 8, false: 128}[s.to.Is4()]
	binary.BigEndian.PutUint16(b[4:], s.id)
	binary.BigEndian.PutUint16(b[6:], uint16(number))
	binary.BigEndian.PutUint32(b[8:], number)
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	return b
}

// stop ends the flood and waits; stopping twice is fine.
func (f *flood) stop() {
	for _, s := range f.streams {
		s.cancel()
	}
	f.wg.Wait()
}
