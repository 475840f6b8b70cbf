package labtest

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/netns"
)

// beat is the time between two packets of a stream.
const beat = time.Millisecond

// Stream is a row of numbered datagrams from one workload to a port of
// another, from many source ports in turn: each is a connection of its own
// while nothing answers, and an established one once something did.
type Stream struct {
	Name  string
	Sent  uint64 // after End
	Fails uint64 // refused by the sender's own host; after End
	socks []net.Conn
	stop  chan struct{}
	done  sync.WaitGroup
}

// Ear receives what arrives at a port and answers it.
type Ear struct {
	conn net.PacketConn
	done chan struct{}

	mu   sync.Mutex // guards what follows
	seen map[uint64]bool
}

// Listen puts an ear to a port of a workload.
func (w *World) Listen(ns *netns.NS, family, port int) *Ear {
	w.T.Helper()
	e := &Ear{seen: map[uint64]bool{}, done: make(chan struct{})}
	Inside(w.T, ns, func() (err error) {
		lc := net.ListenConfig{Control: roomy}
		e.conn, err = lc.ListenPacket(w.T.Context(), fmt.Sprint("udp", family), fmt.Sprintf(":%d", port))
		return err
	})
	go func() {
		defer close(e.done)
		buf := make([]byte, 64)
		for {
			n, from, err := e.conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if n == 8 {
				e.mu.Lock()
				e.seen[binary.BigEndian.Uint64(buf)] = true
				e.mu.Unlock()
			}
			_, _ = e.conn.WriteTo(buf[:n], from) // an answer may be denied
		}
	}()
	w.T.Cleanup(func() { e.Close() })
	return e
}

// Heard counts the datagrams that arrived.
func (e *Ear) Heard() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.seen)
}

// Arrives waits a moment until so many datagrams of a stream have arrived.
func (e *Ear) Arrives(all int) error {
	deadline := time.NewTimer(2 * time.Second)
	defer deadline.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for e.Heard() < all {
		select {
		case <-look.C:
		case <-deadline.C:
			return fmt.Errorf("%d of %d arrived", e.Heard(), all)
		}
	}
	return nil
}

// Close stops listening.
func (e *Ear) Close() {
	e.conn.Close()
	<-e.done
}

// Send starts a stream from so many source ports, a thousand packets a second.
func (w *World) Send(name string, ns *netns.NS, to string, ports int) *Stream {
	w.T.Helper()
	return w.sendEvery(beat, name, ns, to, ports)
}

// SendSlowly is Send with a packet only now and then.
func (w *World) SendSlowly(name string, ns *netns.NS, to string, ports int) *Stream {
	w.T.Helper()
	return w.sendEvery(4*beat, name, ns, to, ports)
}

func (w *World) sendEvery(pace time.Duration, name string, ns *netns.NS, to string, ports int) *Stream {
	w.T.Helper()
	s := &Stream{Name: name, stop: make(chan struct{})}
	Inside(w.T, ns, func() error {
		for range ports {
			c, err := net.Dial("udp", to)
			if err != nil {
				return err
			}
			s.socks = append(s.socks, c)
		}
		return nil
	})
	s.done.Go(func() {
		tick := time.NewTicker(pace) // the pace is the test's subject
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
			}
			// An earlier answer of the network ("unreachable") ends one call.
			msg := binary.BigEndian.AppendUint64(nil, s.Sent)
			if _, err := s.socks[s.Sent%uint64(len(s.socks))].Write(msg); err != nil {
				s.Fails++
				continue
			}
			s.Sent++
		}
	})
	w.T.Cleanup(func() { s.End() })
	return s
}

// End stops the stream.
func (s *Stream) End() {
	select {
	case <-s.stop:
		return
	default:
		close(s.stop)
	}
	s.done.Wait()
	for _, c := range s.socks {
		c.Close()
	}
}

// Inside runs f in a namespace of the lab that the test brought up.
func Inside(t *testing.T, ns *netns.NS, f func() error) {
	t.Helper()
	if err := netns.Do(ns, f); err != nil {
		t.Fatal(err)
	}
}
