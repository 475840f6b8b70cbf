package labtest

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// A Pinger sends echo requests of one family from one namespace, a thousand a
// second to each address, and keeps count of the answers.
type Pinger struct {
	Names []string // of what is pinged
	addrs []net.Addr
	v6    bool
	conn  net.PacketConn
	stop  chan struct{}
	sends sync.WaitGroup
	reads sync.WaitGroup

	mu       sync.Mutex // guards what follows
	sent     []uint32   // by address
	base     []uint32   // what was sent before is counted
	answered []map[uint32]bool
	since    []time.Time // when the last answer of each came
	worst    []time.Duration
}

// roomy lets a socket hold what comes while its reader is not given the CPU.
func roomy(_, _ string, raw syscall.RawConn) error {
	var err error
	ctl := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	})
	if ctl != nil {
		return ctl
	}
	return err
}

// Ping starts to ping; to has addresses of one family, by names.
func (w *World) Ping(ns *netns.NS, to map[string]string) *Pinger {
	w.T.Helper()
	p := &Pinger{stop: make(chan struct{})}
	for name, a := range to {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			w.T.Fatal(err)
		}
		p.v6 = addr.Is6()
		p.Names = append(p.Names, name)
		p.addrs = append(p.addrs, &net.IPAddr{IP: addr.AsSlice()})
		p.answered = append(p.answered, map[uint32]bool{})
	}
	n := len(to)
	p.sent, p.base, p.since, p.worst = make([]uint32, n), make([]uint32, n), make([]time.Time, n), make([]time.Duration, n)
	Inside(w.T, ns, func() (err error) {
		network := "ip4:icmp"
		if p.v6 {
			network = "ip6:ipv6-icmp"
		}
		lc := net.ListenConfig{Control: roomy}
		p.conn, err = lc.ListenPacket(w.T.Context(), network, "")
		return err
	})
	p.sends.Go(p.send)
	p.reads.Go(p.receive)
	w.T.Cleanup(func() { p.End() })
	return p
}

func (p *Pinger) send() {
	tick := time.NewTicker(beat) // the pace is the test's subject
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		for i, a := range p.addrs {
			p.mu.Lock()
			n := p.sent[i]
			p.sent[i]++
			p.mu.Unlock()
			_, _ = p.conn.WriteTo(echoRequest(p.v6, uint16(i), n), a) // not sent is lost
		}
	}
}

// echoID tells our echo requests.
const echoID = 0x6c74

// echoRequest is one of RFC 792 or RFC 4443 with its number and that of whom it
// goes to; the kernel fills in the checksum of ICMPv6.
func echoRequest(v6 bool, whom uint16, n uint32) []byte {
	b := make([]byte, 56)
	b[0] = 8
	if v6 {
		b[0] = 128
	}
	binary.BigEndian.PutUint16(b[4:], echoID)
	binary.BigEndian.PutUint16(b[6:], whom)
	binary.BigEndian.PutUint32(b[8:], n)
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

// receive notes the answers until the socket is closed.
func (p *Pinger) receive() {
	buf := make([]byte, 1500)
	reply := byte(0)
	if p.v6 {
		reply = 129
	}
	for {
		n, _, err := p.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		whom := int(binary.BigEndian.Uint16(buf[6:]))
		if n < 12 || buf[0] != reply || binary.BigEndian.Uint16(buf[4:]) != echoID || whom >= len(p.addrs) {
			continue
		}
		now := time.Now()
		p.mu.Lock()
		p.answered[whom][binary.BigEndian.Uint32(buf[8:])] = true
		if last := p.since[whom]; !last.IsZero() {
			p.worst[whom] = max(p.worst[whom], now.Sub(last))
		}
		p.since[whom] = now
		p.mu.Unlock()
	}
}

// Answered waits a moment until each has answered so many more.
func (p *Pinger) Answered(more int) error {
	p.mu.Lock()
	want := make([]int, len(p.answered))
	for i, a := range p.answered {
		want[i] = len(a) + more
	}
	p.mu.Unlock()
	return soon(func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i, a := range p.answered {
			if len(a) < want[i] {
				return fmt.Errorf("%s: %d answers, want %d", p.Names[i], len(a), want[i])
			}
		}
		return nil
	})
}

// soon waits a moment until f has nothing to complain of.
func soon(f func() error) error {
	deadline := time.NewTimer(2 * time.Second)
	defer deadline.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-look.C:
		case <-deadline.C:
			return err
		}
	}
}

// Lost lists who has not answered all that was sent since the last call, with
// the numbers of what was lost, and how many were sent.
func (p *Pinger) Lost() (out []string, sent int) {
	p.mu.Lock()
	upTo := slices.Clone(p.sent)
	p.mu.Unlock()
	_ = soon(func() error { // what is still not there then is lost
		p.mu.Lock()
		defer p.mu.Unlock()
		for i, n := range upTo {
			if len(p.missing(i, n)) > 0 {
				return fmt.Errorf("%s lacks some", p.Names[i])
			}
		}
		return nil
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, n := range upTo {
		sent += int(n - p.base[i])
		if list := p.missing(i, n); len(list) > 0 {
			out = append(out, fmt.Sprintf("%s: %d of %d lost, the first as number %d; longest silence %v",
				p.Names[i], len(list), n-p.base[i], list[0], p.worst[i]))
		}
		p.base[i], p.worst[i] = n, 0
	}
	return out, sent
}

// missing lists the numbers before n that were not answered. p.mu is held.
func (p *Pinger) missing(i int, n uint32) []uint32 {
	var out []uint32
	for k := p.base[i]; k < n; k++ {
		if !p.answered[i][k] {
			out = append(out, k)
		}
	}
	return out
}

// End stops.
func (p *Pinger) End() {
	select {
	case <-p.stop:
		return
	default:
		close(p.stop)
	}
	p.sends.Wait()
	p.conn.Close()
	p.reads.Wait()
}
