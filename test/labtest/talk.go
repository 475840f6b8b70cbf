package labtest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A Talk is a TCP connection on which both ends send without pause, and each
// looks at every byte that it gets.
type Talk struct {
	Name  string
	ends  [2]net.Conn // the client's and the server's
	heard [2]atomic.Int64
	stop  chan struct{}
	done  sync.WaitGroup

	mu   sync.Mutex // guards what follows
	errs []error
}

// What is sent at once, and how often: small enough to leave the CPU to
// others, and more than one segment.
const (
	mouthful = 16 << 10
	pause    = 10 * time.Millisecond
)

// Talk connects from one member to a port of another and starts to talk.
func (w *World) Talk(from, to string, family, port int) *Talk {
	w.T.Helper()
	k := &Talk{Name: fmt.Sprintf("%s to %s, IPv%d", from, to, family), stop: make(chan struct{})}
	network := fmt.Sprint("tcp", family)
	var l net.Listener
	Inside(w.T, w.NS(to), func() (err error) {
		l, err = net.Listen(network, fmt.Sprintf(":%d", port))
		return err
	})
	defer l.Close()
	Inside(w.T, w.NS(from), func() (err error) {
		d := net.Dialer{Timeout: 10 * time.Second}
		k.ends[0], err = d.Dial(network, net.JoinHostPort(w.Addr(to, family), strconv.Itoa(port)))
		return err
	})
	var err error
	if k.ends[1], err = l.Accept(); err != nil {
		w.T.Fatal(err)
	}
	for i := range k.ends {
		k.done.Go(func() { k.note(k.speak(i)) })
		k.done.Go(func() { k.note(k.listen(i)) })
	}
	w.T.Cleanup(func() { k.End() })
	return k
}

func (k *Talk) note(err error) {
	if err != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.errs = append(k.errs, fmt.Errorf("%s: %w", k.Name, err))
	}
}

// words are what one end says: numbers in turn, which begin elsewhere for each
// end.
func words(end int, n uint64) uint64 { return n*0x9e3779b97f4a7c15 + uint64(end) }

// speak says numbers until the talk is to end, and then that it has ended.
func (k *Talk) speak(end int) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	buf := make([]byte, 0, mouthful)
	for n := uint64(0); ; {
		select {
		case <-k.stop:
			return k.ends[end].(*net.TCPConn).CloseWrite()
		case <-tick.C:
		}
		for buf = buf[:0]; len(buf) < mouthful; n++ {
			buf = binary.BigEndian.AppendUint64(buf, words(end, n))
		}
		if _, err := k.ends[end].Write(buf); err != nil {
			return fmt.Errorf("end %d cannot send: %w", end, err)
		}
	}
}

// listen looks at what the other end says, until it ends.
func (k *Talk) listen(end int) error {
	r := bufio.NewReaderSize(k.ends[end], 4*mouthful)
	var b [8]byte
	for n := uint64(0); ; n++ {
		if _, err := io.ReadFull(r, b[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("end %d hears no more after %d bytes: %w", end, 8*n, err)
		}
		if got, want := binary.BigEndian.Uint64(b[:]), words(1-end, n); got != want {
			return fmt.Errorf("end %d got %x as number %d, want %x", end, got, n, want)
		}
		k.heard[end].Add(8)
	}
}

// GoesOn waits until each end has heard so many bytes more.
func (k *Talk) GoesOn(more int64) error {
	var want [2]int64
	for i := range want {
		want[i] = k.heard[i].Load() + more
	}
	deadline := time.NewTimer(20 * time.Second) // TCP doubles its patience
	defer deadline.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		k.mu.Lock()
		errs := k.errs
		k.mu.Unlock()
		if len(errs) > 0 {
			return errs[0]
		}
		if k.heard[0].Load() >= want[0] && k.heard[1].Load() >= want[1] {
			return nil
		}
		select {
		case <-look.C:
		case <-deadline.C:
			return fmt.Errorf("%s: the ends have heard %d and %d bytes, want %d and %d", k.Name, k.heard[0].Load(), k.heard[1].Load(), want[0], want[1])
		}
	}
}

// Heard is how many bytes each end has heard.
func (k *Talk) Heard() (client, server int64) { return k.heard[0].Load(), k.heard[1].Load() }

// End ends the talk in order, and says what was wrong with it.
func (k *Talk) End() error {
	select {
	case <-k.stop:
	default:
		close(k.stop)
	}
	timer := time.AfterFunc(20*time.Second, func() {
		for _, c := range k.ends {
			c.Close()
		}
	})
	k.done.Wait()
	timer.Stop()
	for _, c := range k.ends {
		c.Close()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.errs) > 0 {
		return k.errs[0]
	}
	return nil
}
