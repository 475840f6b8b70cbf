package windows

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

// stream is a row of numbered datagrams from one workload to a port of
// another, from many source ports in turn: each is a connection of its own
// while nothing answers, and an established one once something did.
type stream struct {
	name  string
	socks []net.Conn
	stop  chan struct{}
	done  sync.WaitGroup
	sent  uint64 // after stop
	fails uint64 // refused by the sender's own host
}

// ear receives what arrives at a port and answers it.
type ear struct {
	conn net.PacketConn
	done chan struct{}

	mu   sync.Mutex // guards what follows
	seen map[uint64]bool
}

// listen puts an ear to a port of a workload.
func (w *world) listen(ns *netns.NS, family, port int) *ear {
	w.t.Helper()
	e := &ear{seen: map[uint64]bool{}, done: make(chan struct{})}
	inside(w.t, ns, func() (err error) {
		e.conn, err = net.ListenPacket(fmt.Sprint("udp", family), fmt.Sprintf(":%d", port))
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
	w.t.Cleanup(func() { e.close() })
	return e
}

// heard counts the datagrams that arrived.
func (e *ear) heard() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.seen)
}

func (e *ear) close() {
	e.conn.Close()
	<-e.done
}

// send starts a stream from so many source ports.
func (w *world) send(name string, ns *netns.NS, to string, ports int) *stream {
	w.t.Helper()
	s := &stream{name: name, stop: make(chan struct{})}
	inside(w.t, ns, func() error {
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
		tick := time.NewTicker(beat) // the pace is the test's subject
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
			}
			// An earlier answer of the network ("unreachable") ends one call.
			msg := binary.BigEndian.AppendUint64(nil, s.sent)
			if _, err := s.socks[s.sent%uint64(len(s.socks))].Write(msg); err != nil {
				s.fails++
				continue
			}
			s.sent++
		}
	})
	w.t.Cleanup(func() { s.end() })
	return s
}

// end stops the stream.
func (s *stream) end() {
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

// inside runs f in a namespace of the lab that this test brought up.
func inside(t *testing.T, ns *netns.NS, f func() error) {
	t.Helper()
	if err := netns.Do(ns, f); err != nil {
		t.Fatal(err)
	}
}
