package threats

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// pace is the time between two messages of one end of a talk.
const pace = 10 * time.Millisecond

// senders says which end of a talk sends; the first of two sends first.
type senders string

const (
	clientFirst senders = "client first"
	serverFirst senders = "server first"
	serverOnly  senders = "only the server"
	clientOnly  senders = "only the client"
)

func (s senders) client() bool { return s != serverOnly }
func (s senders) server() bool { return s != clientOnly }

// talk is one connection that is used all the time.
type talk struct {
	spec
	byClient, byServ atomic.Int64 // messages that each end received
	want             [2]bool      // which of them are expected
	close            []io.Closer
	stop             chan struct{}
	done             sync.WaitGroup
}

// spec is what a talk shall be.
type spec struct {
	proto  string // "tcp", "udp" or "icmp"
	family int
	who    senders
	from   *netns.NS
	at     *netns.NS // where the server is
	to     string    // what the client calls it
	port   int
	source string // of the client; "": whatever it chooses
}

// local is where the client sends from, nil for anywhere.
func (s spec) local() net.Addr {
	a := netip.AddrPort{}
	if s.source != "" {
		a = netip.AddrPortFrom(netip.MustParseAddr(s.source), 0)
	}
	switch {
	case s.source == "":
		return nil
	case s.proto == "tcp":
		return net.TCPAddrFromAddrPort(a)
	}
	return net.UDPAddrFromAddrPort(a)
}

func (s spec) String() string {
	return fmt.Sprintf("%s IPv%d %s to %s", s.proto, s.family, s.who, net.JoinHostPort(s.to, strconv.Itoa(s.port)))
}

// start opens a talk.
func (s spec) start(t *testing.T) *talk {
	t.Helper()
	k := &talk{spec: s, stop: make(chan struct{}), want: [2]bool{s.who.server(), s.who.client()}}
	t.Cleanup(k.end)
	var err error
	switch s.proto {
	case "tcp":
		err = k.tcp(t, s)
	case "udp":
		err = k.udp(t, s)
	case "icmp":
		k.want = [2]bool{true, false}
		err = k.icmp(s)
	}
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return k
}

func (k *talk) tcp(t *testing.T, s spec) error {
	var l net.Listener
	err := netns.Do(s.at, func() (err error) {
		l, err = net.Listen(fmt.Sprint("tcp", s.family), fmt.Sprintf(":%d", s.port))
		return err
	})
	if err != nil {
		return err
	}
	defer l.Close()
	var c net.Conn
	err = netns.Do(s.from, func() (err error) {
		d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: s.local()}
		c, err = d.Dial(fmt.Sprint("tcp", s.family), net.JoinHostPort(s.to, strconv.Itoa(s.port)))
		return err
	})
	if err != nil {
		return err
	}
	k.close = append(k.close, c)
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	d, err := l.Accept()
	if err != nil {
		return err
	}
	k.close = append(k.close, d)
	k.hear(c, &k.byClient)
	k.hear(d, &k.byServ)
	if s.who.server() {
		k.say(func() error { _, err := d.Write(message); return err })
	}
	if s.who == serverFirst {
		k.await(t, &k.byClient)
	}
	if s.who.client() {
		k.say(func() error { _, err := c.Write(message); return err })
	}
	return nil
}

func (k *talk) udp(t *testing.T, s spec) error {
	var d net.PacketConn
	err := netns.Do(s.at, func() (err error) {
		d, err = net.ListenPacket(fmt.Sprint("udp", s.family), fmt.Sprintf(":%d", s.port))
		return err
	})
	if err != nil {
		return err
	}
	k.close = append(k.close, d)
	var c net.Conn
	err = netns.Do(s.from, func() (err error) {
		d := net.Dialer{LocalAddr: s.local()}
		c, err = d.Dial(fmt.Sprint("udp", s.family), net.JoinHostPort(s.to, strconv.Itoa(s.port)))
		return err
	})
	if err != nil {
		return err
	}
	k.close = append(k.close, c)
	if _, err := c.Write(message); err != nil {
		return err
	}
	buf := make([]byte, 64)
	if err := d.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	_, client, err := d.ReadFrom(buf)
	if err != nil {
		return err
	}
	if err := d.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	k.hear(c, &k.byClient)
	k.hear(packetReader{d}, &k.byServ)
	if s.who.server() {
		k.say(func() error { _, err := d.WriteTo(message, client); return err })
	}
	if s.who == serverFirst {
		k.await(t, &k.byClient)
	}
	if s.who.client() {
		k.say(func() error { _, err := c.Write(message); return err })
	}
	return nil
}

// icmp pings; the kernel is the server.
func (k *talk) icmp(s spec) error {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if s.family == 6 {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	var c net.Conn
	err := netns.Do(s.from, func() (err error) {
		c, err = net.Dial(network, s.to)
		return err
	})
	if err != nil {
		return err
	}
	k.close = append(k.close, c)
	// A raw socket hears all of its kind: count what has our number.
	k.done.Go(func() {
		buf := make([]byte, 128)
		for {
			n, err := c.Read(buf)
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue
			}
			m := buf[:n]
			if s.family == 4 { // Read gives the header too
				m = m[min(20, n):]
			}
			if len(m) >= 8 && m[0] == reply && int(m[4])<<8|int(m[5]) == s.port {
				k.byClient.Add(1)
			}
		}
	})
	m := []byte{request, 0, 0, 0, byte(s.port >> 8), byte(s.port), 0, 1}
	if s.family == 4 { // the kernel does it for IPv6
		sum := checksum(0, m)
		m[2], m[3] = byte(sum>>8), byte(sum)
	}
	k.say(func() error { _, err := c.Write(m); return err })
	return nil
}

var message = []byte("message\n")

// packetReader reads datagrams of anybody.
type packetReader struct{ net.PacketConn }

func (r packetReader) Read(b []byte) (int, error) {
	n, _, err := r.ReadFrom(b)
	return n, err
}

// hear counts messages until the connection is closed.
func (k *talk) hear(r io.Reader, n *atomic.Int64) {
	k.done.Go(func() {
		buf := make([]byte, 4096)
		for {
			got, err := r.Read(buf)
			if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
				return
			}
			n.Add(int64(got / len(message)))
			select {
			case <-k.stop:
				return
			default:
			}
		}
	})
}

// say sends a message at each beat.
func (k *talk) say(send func() error) {
	k.done.Go(func() {
		tick := time.NewTicker(pace) // the pace is the test's subject
		defer tick.Stop()
		for {
			select {
			case <-k.stop:
				return
			case <-tick.C:
				_ = send() // that it does not arrive is seen at the other end
			}
		}
	})
}

// await waits for the first message.
func (k *talk) await(t *testing.T, n *atomic.Int64) {
	t.Helper()
	testenv.Until(t, 5*time.Second, func() error {
		if n.Load() == 0 {
			return fmt.Errorf("%s: nothing heard", k.spec)
		}
		return nil
	})
}

func (k *talk) end() {
	select {
	case <-k.stop:
		return
	default:
		close(k.stop)
	}
	for _, c := range k.close {
		c.Close()
	}
	k.done.Wait()
}

// local is the client's port, of TCP.
func (k *talk) local() int { return k.close[0].(net.Conn).LocalAddr().(*net.TCPAddr).Port }

// heard is how many messages each end has received.
func (k *talk) heard() [2]int64 { return [2]int64{k.byClient.Load(), k.byServ.Load()} }

// talks are many of them.
type talks []*talk

func (ts talks) heard() [][2]int64 {
	var out [][2]int64
	for _, k := range ts {
		out = append(out, k.heard())
	}
	return out
}

// goOn waits until each end that shall hear something has heard n more.
func (ts talks) goOn(t *testing.T, n int64) {
	t.Helper()
	before := ts.heard()
	testenv.Until(t, 15*time.Second, func() error {
		var silent []string
		for i, k := range ts {
			now := k.heard()
			for end, who := range []string{"client", "server"} {
				if k.want[end] && now[end] < before[i][end]+n {
					silent = append(silent, fmt.Sprintf("%s: the %s has heard %d, %d before", k.spec, who, now[end], before[i][end]))
				}
			}
		}
		if len(silent) > 0 {
			return errors.New(strings.Join(silent, "\n"))
		}
		return nil
	})
}

// silent holds talks to silence while others go on for so many messages.
func (ts talks) silent(t *testing.T, others talks, n int64) {
	t.Helper()
	before := ts.heard()
	others.goOn(t, n)
	after := ts.heard()
	if !slices.Equal(before, after) {
		for i, k := range ts {
			if before[i] != after[i] {
				t.Errorf("%s: the client heard %d messages more, the server %d", k.spec, after[i][0]-before[i][0], after[i][1]-before[i][1])
			}
		}
	}
}
