package bgp

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// badPeer speaks bytes to the speaker from one address of the cluster.
type badPeer struct {
	from, to string
	id       [4]byte
	ns       *netns.NS
}

// dial connects and, if asked, goes through the handshake.
func (b badPeer) dial(handshake bool) (net.Conn, error) {
	var conn net.Conn
	err := netns.Do(b.ns, func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(b.from)}, Timeout: 5 * time.Second}
		d.SetMultipathTCP(false)
		conn, err = d.Dial("tcp4", b.to+":179")
		return err
	})
	if err != nil || !handshake {
		return conn, err
	}
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write(append(message(msgOpen, sampleOpen(b.id)), message(msgKeepalive, nil)...)); err != nil {
		return nil, err
	}
	for range 2 { // their OPEN and KEEPALIVE
		if err := readMessage(conn); err != nil {
			conn.Close()
			return nil, fmt.Errorf("handshake: %w", err)
		}
	}
	return conn, nil
}

func readMessage(conn net.Conn) error {
	head := make([]byte, 19)
	if _, err := io.ReadFull(conn, head); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, conn, int64(head[16])<<8+int64(head[17])-19)
	return err
}

// send says some bytes and closes as soon as the far end does, or after a
// moment. Errors are the far end's good right.
func (b badPeer) send(handshake bool, say []byte) error {
	var conn net.Conn
	var err error
	for range 20 { // an address rests for 5 s after it misbehaved
		if conn, err = b.dial(handshake); err == nil {
			break
		}
		<-time.After(500 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("from %s: %w", b.from, err)
	}
	defer conn.Close()
	_, _ = conn.Write(say)
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	_, _ = io.Copy(io.Discard, conn)
	return nil
}

// mutate spoils some bytes of a message.
func mutate(r *rand.Rand, in []byte) []byte {
	out := append([]byte(nil), in...)
	for range 1 + r.IntN(4) {
		switch i := r.IntN(len(out)); r.IntN(4) {
		case 0:
			out[i] = byte(r.Uint32())
		case 1:
			out[i] ^= 1 << r.IntN(8)
		case 2:
			out = append(out[:i], append([]byte{byte(r.Uint32())}, out[i:]...)...)
		case 3:
			if len(out) > 1 {
				out = append(out[:i], out[i+1:]...)
			}
		}
	}
	return out
}

// TestBadPeers has hosts of the cluster say what no host should: the speaker
// lives on, and the session with a good peer never goes down.
func TestBadPeers(t *testing.T) {
	t.Parallel()
	const many, rounds = 40, 3
	f := newFabric(t)
	us, good, bad := f.host(), f.host(), f.host()
	bird(t, good, birdMesh(us, "", "route 10.65.3.0/26 blackhole;", "route fd65:0:0:3::/122 blackhole;"))
	want := tables{Speaker: speakerOf(us), Paths: ourPaths(), Imports: pools(), Peers: map[string]wantPeer{
		good.v4: meshPeer(us, false), good.v6: meshPeer(us, true),
	}}
	var worst []badPeer
	for i := range many {
		addr := fmt.Sprintf("172.30.0.%d", 100+i)
		testenv.Run(t, bad.ns, "ip", "addr", "add", addr+"/24", "dev", "eth0")
		worst = append(worst, badPeer{from: addr, to: us.v4, id: netip.MustParseAddr(addr).As4(), ns: bad.ns})
		peer := meshPeer(us, false)
		peer.Passive = true
		want.Peers[addr] = peer
	}
	p := start(t, us.ns, usual(), want)
	p.up(good.v4, good.v6)
	since4, since6 := p.session(good.v4).Since, p.session(good.v6).Since

	open, update := sampleOpen([4]byte{172, 30, 0, 100}), message(msgUpdate, sampleUpdate())
	long := message(msgUpdate, sampleUpdate())
	long[16], long[17] = 0xff, 0xff
	type speech struct {
		handshake bool
		say       []byte
	}
	cases := []speech{
		{false, nil},
		{false, []byte("GET / HTTP/1.1\r\n\r\n")},
		{false, message(msgUpdate, sampleUpdate())},
		{false, message(msgKeepalive, nil)},
		{false, message(msgOpen, nil)},
		{false, message(msgOpen, open[:9])},
		{false, message(msgOpen, append([]byte{3}, open[1:]...))},                // version
		{false, message(msgOpen, append([]byte{4, 0, 7}, open[3:]...))},          // AS
		{false, message(msgOpen, append([]byte{4, 0xfc, 0, 0, 1}, open[5:]...))}, // hold time 1
		{false, message(msgOpen, sampleOpen([4]byte{172, 30, 0, 1}))},            // our id
		{false, message(9, nil)},
		{false, make([]byte, 64)}, // no marker
		{true, long},
		{true, append(long, make([]byte, 1<<16)...)},
		{true, update[:30]},
		{true, message(msgUpdate, sampleUpdate()[:20])},
		{true, message(msgUpdate, []byte{0xff, 0xff})},
		{true, message(msgUpdate, []byte{0, 0, 0xff, 0xff})},
		{true, message(msgUpdate, sampleUpdate6())},
		{true, message(msgOpen, open)},
		{true, message(msgNotification, []byte{6})},
		{true, message(msgNotification, []byte{6, 2, 200})},
		{true, message(msgRefresh, []byte{0})},
		{true, message(msgRefresh, []byte{0, 1, 0, 1, 64, 0})},
		{true, message(msgRefresh, []byte{0xff, 0xff, 0xff, 0xff})},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for len(cases) < many*rounds {
		one := speech{handshake: true}
		switch r.IntN(6) {
		case 0:
			one = speech{false, message(msgOpen, mutate(r, open))}
		case 1:
			one.say = message(msgUpdate, mutate(r, sampleUpdate6()))
		case 2:
			one.say = mutate(r, update)
		case 3:
			one.say = make([]byte, r.IntN(5000))
			for i := range one.say {
				one.say[i] = byte(r.Uint32())
			}
		default:
			one.say = message(msgUpdate, mutate(r, sampleUpdate()))
		}
		cases = append(cases, one)
	}
	var wg sync.WaitGroup
	for i, b := range worst {
		wg.Go(func() {
			for n := i; n < len(cases); n += many {
				if err := b.send(cases[n].handshake, cases[n].say); err != nil {
					t.Errorf("case %d: %v", n, err)
				}
			}
		})
	}
	wg.Wait()
	p.alive()
	s4, s6 := p.session(good.v4), p.session(good.v6)
	if s4.Since != since4 || s6.Since != since6 || s4.State != established || s6.State != established {
		t.Errorf("the good sessions were touched: %+v, %+v", s4, s6)
	}
	for _, e := range p.events() {
		if e == "delete 10.65.3.0/26" || e == "delete fd65:0:0:3::/122" {
			t.Errorf("a good route was gone for a moment: %s", e)
		}
	}
}

// TestNoAgreement has a peer that says who it is and then nothing, as one does
// that holds to another connection: it is not waited for until the hold time is
// over.
func TestNoAgreement(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	us, them := f.host(), f.host()
	peer := meshPeer(us, false)
	peer.Passive = true
	set := usual()
	set.Hold = time.Hour
	p := start(t, us.ns, set, tables{Speaker: speakerOf(us), Imports: pools(), Peers: map[string]wantPeer{them.v4: peer}})
	b := badPeer{from: them.v4, to: us.v4, id: netip.MustParseAddr(them.v4).As4(), ns: them.ns}
	p.state(30*time.Second, them.v4, func(s Session) bool { return s.State != "Idle" })
	conn, err := b.dial(false)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Write(message(msgOpen, sampleOpen(b.id))); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Fatalf("the connection is not given up: %v", err)
	}
	p.state(30*time.Second, them.v4, func(s Session) bool { return s.LastError == "no agreement on a connection" })
	var again net.Conn
	testenv.Until(t, 30*time.Second, func() error {
		if again, err = b.dial(true); err == nil && again == nil {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
	defer again.Close()
	p.state(30*time.Second, them.v4, func(s Session) bool { return s.State == established })
}

// TestPatience is how long a session may wait in OpenConfirm: a slow router has
// longer each time, and one whose routes are kept has longer at once.
func TestPatience(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	lower, higher := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	for _, tt := range []struct {
		name      string
		us, them  netip.Addr
		stalls    int
		returning bool
		want      time.Duration
	}{
		{"the lower address", lower, higher, 0, false, 3 * time.Second},
		{"the higher address", higher, lower, 0, false, 6 * time.Second},
		{"again", lower, higher, 1, false, 6 * time.Second},
		{"again, the higher", higher, lower, 1, false, 12 * time.Second},
		{"often", lower, higher, 100, false, 96 * time.Second},
		{"it comes back", lower, higher, 0, true, 12 * time.Second},
	} {
		p := newSession(desired.PeerKey{Addr: tt.them}, desired.Peer{LocalAddr: tt.us})
		p.since, p.stalls, p.restarting = now, tt.stalls, tt.returning
		if got := p.stuck(now, netip.Addr{}); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	// Two ends that do not know their own addresses do not wait as long as each
	// other every time.
	near := 0
	for stalls := range 6 {
		a, b := newSession(desired.PeerKey{Addr: higher}, desired.Peer{}), newSession(desired.PeerKey{Addr: lower}, desired.Peer{})
		a.since, b.since, a.stalls, b.stalls = now, now, stalls, stalls
		x, y, least := a.stuck(now, netip.MustParseAddr("192.0.2.1")), b.stuck(now, netip.MustParseAddr("192.0.2.2")), 3*time.Second<<min(stalls, 5)
		if x < least || x >= 2*least || y < least || y >= 2*least {
			t.Errorf("the %dth time: %v and %v, want from %v", stalls, x, y, least)
		}
		if (x - y).Abs() < 200*time.Millisecond {
			near++
		}
	}
	if near > 1 {
		t.Errorf("%d times of 6 both waited as long", near)
	}
}
