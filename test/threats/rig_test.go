package threats

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/testenv"
	"github.com/brindle-net/brindle/test/labtest"
)

// The lab that the tests of single packets share, of both families.
var (
	shared     *labtest.World
	sharedOnce sync.Once
)

func TestMain(m *testing.M) {
	code := m.Run()
	if shared != nil {
		if err := shared.Down(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// rig is the shared lab, as one test uses it: w1 is the attacker.
type rig struct {
	*labtest.World
	gateway net.HardwareAddr // of every workload
	mac     net.HardwareAddr // of w1
	ears    map[string]*sniffer
	sink    int // packet socket of w1
}

func newRig(t *testing.T) *rig {
	t.Helper()
	testenv.NeedRoot(t)
	sharedOnce.Do(func() { shared = labtest.Start(t, "threats") })
	if shared == nil {
		t.Skip("the lab did not come up")
	}
	r := rigOf(t, shared.With(t))
	t.Cleanup(func() {
		if t.Failed() {
			r.Logs()
		}
	})
	return r
}

// rigOf is how a test uses a lab.
func rigOf(t *testing.T, w *labtest.World) *rig {
	t.Helper()
	r := &rig{World: w, ears: map[string]*sniffer{}}
	r.gateway, _ = net.ParseMAC("ee:ee:ee:ee:ee:ee")
	r.mac = r.macOf("w1")
	for _, member := range []string{"w2", "w3", "w4", "h2"} {
		r.ears[member] = r.sniff(member)
	}
	r.sink = r.socket("w1")
	return r
}

// with puts policies in force for the rest of the test.
func (r *rig) with(documents string) {
	r.T.Helper()
	r.Apply(documents)
	r.T.Cleanup(func() { r.Remove(documents) })
}

func (r *rig) macOf(workload string) net.HardwareAddr {
	r.T.Helper()
	var mac net.HardwareAddr
	labtest.Inside(r.T, r.NS(workload), func() error {
		i, err := net.InterfaceByName("eth0")
		if err == nil {
			mac = i.HardwareAddr
		}
		return err
	})
	return mac
}

// ip returns a workload's address of a family.
func (r *rig) ip(workload string, family int) netip.Addr { return addr(r.Addr(workload, family)) }

// socket opens a packet socket on eth0 of a member.
func (r *rig) socket(member string) int {
	r.T.Helper()
	var fd int
	labtest.Inside(r.T, r.NS(member), func() (err error) {
		fd, err = openPacket("eth0")
		return err
	})
	r.T.Cleanup(func() { unix.Close(fd) })
	return fd
}

// openPacket opens a packet socket (packet(7)) on a link of the namespace that
// the thread is in.
func openPacket(link string) (int, error) {
	i, err := net.InterfaceByName(link)
	if err != nil {
		return -1, err
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	wait := unix.Timeval{Usec: 50_000}
	return fd, errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20))
}

// sniffer keeps what arrives at a link.
type sniffer struct {
	mu     sync.Mutex // guards frames
	frames [][]byte
}

// sniff listens at eth0 of a member for the rest of the test.
func (r *rig) sniff(member string) *sniffer {
	r.T.Helper()
	return listenTo(r.T, r.socket(member))
}

func listenTo(t *testing.T, fd int) *sniffer {
	s := &sniffer{}
	stop := make(chan struct{})
	var done sync.WaitGroup
	t.Cleanup(func() { close(stop); done.Wait() }) // before the socket is closed
	done.Go(func() {
		buf := make([]byte, 65536)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				continue // nobody sent
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			s.mu.Lock()
			s.frames = append(s.frames, slices.Clone(buf[:n]))
			s.mu.Unlock()
		}
	})
	return s
}

// count is how many frames hold the mark.
func (s *sniffer) count(mark []byte) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, f := range s.frames {
		if bytes.Contains(f, mark) {
			n++
		}
	}
	return n
}

// cookie is a mark that no other packet has.
func cookie() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return b
}

// throw sends frames from w1.
func (r *rig) throw(frames ...[]byte) {
	r.T.Helper()
	for _, f := range frames {
		if err := write(r.sink, f); err != nil {
			r.T.Fatalf("send %x: %v", f, err)
		}
	}
}

func write(fd int, frame []byte) error {
	_, err := unix.Write(fd, frame)
	return err
}

// out is a frame of w1's to its host.
func (r *rig) out(p []byte) []byte {
	kind := etherIPv4
	if p[0]>>4 == 6 {
		kind = etherIPv6
	}
	return frame(r.gateway, r.mac, kind, p)
}

// shot is one attempt of w1's.
type shot struct {
	name   string
	mark   []byte   // that every frame holds
	frames [][]byte // in their order
	want   []string // who shall see it; nobody else may
	either bool     // others may, too
}

// shoot carries out the attempts and holds them to what is wanted. Datagrams
// that are allowed follow: when they arrive, all before them have been judged.
func (r *rig) shoot(shots ...shot) {
	r.T.Helper()
	for _, s := range shots {
		r.throw(s.frames...)
	}
	r.flush()
	for _, s := range shots {
		r.T.Run(s.name, func(t *testing.T) {
			for member, e := range r.ears {
				n := e.count(s.mark)
				switch wanted := slices.Contains(s.want, member); {
				case wanted && n == 0:
					t.Errorf("%s did not get it", member)
				case !wanted && n > 0:
					t.Errorf("%s got it", member)
				}
			}
		})
	}
}

// sentinel is the port that no policy of these tests denies.
const sentinel = 9999

// flush waits until packets that are sent now have arrived, on each path of
// each family.
func (r *rig) flush() {
	r.T.Helper()
	for _, family := range []int{4, 6} {
		for _, to := range []string{"w2", "w3", "w4"} {
			mark := cookie()
			p := packet{src: r.ip("w1", family), dst: r.ip(to, family), proto: protoUDP, payload: udp(sentinel, sentinel, mark)}
			testenv.Until(r.T, 10*time.Second, func() error {
				r.throw(r.out(p.bytes()))
				if r.ears[to].count(mark) < 3 {
					return fmt.Errorf("IPv%d: %s does not get what is allowed", family, to)
				}
				return nil
			})
		}
	}
}

// dropped holds one of our counters to have seen at least n more packets.
func (r *rig) dropped(counter string, n int, f func()) {
	r.T.Helper()
	before := r.Counter(counter)
	f()
	if got := r.Counter(counter) - before; got < n {
		r.T.Errorf("counter %s saw %d packets, want at least %d", counter, got, n)
	}
}

// state is what a host knows that a packet could have taught it. Ages and
// states of neighbours change by themselves.
func (r *rig) state(host string) string {
	r.T.Helper()
	var b strings.Builder
	for _, words := range []string{
		"ip -4 route show table all", "ip -6 route show table all", "ip address show", "ip -4 rule", "ip -6 rule",
	} {
		fmt.Fprintf(&b, "# %s\n", words)
		for line := range strings.Lines(r.On(host, strings.Fields(words)...)) {
			line, _, _ = strings.Cut(line, " expires ")
			fmt.Fprintln(&b, strings.TrimSpace(line))
		}
	}
	return b.String()
}

// neighbour is the link-layer address that a host has of another's.
func (r *rig) neighbour(host, ip, link string) string {
	r.T.Helper()
	for _, word := range strings.Fields(r.On(host, "ip", "neigh", "show", ip, "dev", link)) {
		if _, err := net.ParseMAC(word); err == nil {
			return word
		}
	}
	return ""
}
