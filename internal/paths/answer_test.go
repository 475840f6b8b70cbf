package paths

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/testenv"
)

// strangerAndFriend are an address that is known and one that is not.
func strangerAndFriend(f testenv.Family) (friend, stranger netip.Addr) {
	if f.HasV6() {
		return netip.MustParseAddr("fd65:2::1"), netip.MustParseAddr("fd65:2::2")
	}
	return netip.MustParseAddr("10.65.2.1"), netip.MustParseAddr("10.65.2.2")
}

func newAnswerer(known ...netip.Addr) *answerer {
	a := &answerer{log: slog.New(slog.DiscardHandler), bucket: map[netip.Addr]*bucket{}}
	set := map[netip.Addr]bool{}
	for _, k := range known {
		set[k] = true
	}
	a.know(set)
	return a
}

func TestAnswers(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		friend, stranger := strangerAndFriend(f)
		now := time.Unix(0, 0)
		q := message{kind: question, nonce: 7}.put(200)
		broken := append([]byte{}, q...)
		broken[100]++
		header := append([]byte{}, q...)
		header[9]++
		for _, c := range []struct {
			name  string
			from  netip.Addr
			in    []byte
			say   bool
			whole bool
		}{
			{"a question", friend, q, true, true},
			{"the smallest question", friend, message{kind: question, nonce: 7}.put(0), true, true},
			{"one that was changed", friend, broken, true, false},
			{"one that was cut off", friend, q[:150], true, false},
			{"a header that was changed", friend, header, false, false},
			{"part of a header", friend, q[:31], false, false},
			{"nothing", friend, nil, false, false},
			{"an answer", friend, message{kind: answer, nonce: 7}.put(0), false, false},
			{"a stranger's", stranger, q, false, false},
			{"a stranger's knock", stranger, message{kind: knock, nonce: 7}.put(0), false, false},
		} {
			a := newAnswerer(friend)
			out, ok := a.answer(c.in, c.from, now)
			if ok != c.say || len(a.gate.open) != 0 {
				t.Errorf("%s: answered %v, let in %v", c.name, ok, a.gate.open)
				continue
			}
			if !ok {
				continue
			}
			m, sound := parse(out)
			if !sound || len(out) > len(c.in) || m.kind != answer || m.nonce != 7 || m.whole != c.whole || int(m.size) != len(c.in) {
				t.Errorf("%s: %d bytes for %d: %+v", c.name, len(out), len(c.in), m)
			}
		}
	})
}

// TestFlood: one end that asks without end is not answered without end, and
// takes nothing from another. Buckets are no more than ends.
func TestFlood(t *testing.T) {
	a1, a2 := netip.MustParseAddr("10.65.2.1"), netip.MustParseAddr("fd65::2")
	a := newAnswerer(a1, a2)
	q := message{kind: question, nonce: 7}.put(100)
	now, n := time.Unix(0, 0), 0
	for range 10000 {
		if _, ok := a.answer(q, a1, now); ok {
			n++
		}
		now = now.Add(time.Millisecond)
	}
	if n < askBurst+9*askRate || n > askBurst+11*askRate {
		t.Errorf("%d answers in ten seconds", n)
	}
	if _, ok := a.answer(q, a2, now); !ok || len(a.bucket) != 2 {
		t.Errorf("the other was not answered; %d buckets", len(a.bucket))
	}
	a.know(map[netip.Addr]bool{a2: true})
	if len(a.bucket) != 1 {
		t.Errorf("%d buckets for one end", len(a.bucket))
	}
}

func TestGate(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		friend, stranger := strangerAndFriend(f)
		now := time.Unix(0, 0)
		var g gate
		if g.take(friend, 1, now) {
			t.Error("open to begin with")
		}
		g.admit(friend, 1, now)
		g.admit(friend, 2, now) // again
		for _, c := range []struct {
			name string
			addr netip.Addr
			n    uint64
			at   time.Time
			want bool
		}{
			{"another", stranger, 2, now, false}, {"an old nonce", friend, 1, now, false},
			{"as said", friend, 2, now, true}, {"twice", friend, 2, now, false},
		} {
			if got := g.take(c.addr, c.n, c.at); got != c.want {
				t.Errorf("%s: got %v", c.name, got)
			}
		}
		g.admit(friend, 3, now)
		if g.take(friend, 3, now.Add(gateTime)) {
			t.Error("open for ever")
		}
		a := friend
		for i := range gateSize + 1 {
			if ok := g.admit(a, 1, now); ok != (i < gateSize) {
				t.Errorf("%d: let in %v", i, ok)
			}
			a = a.Next()
		}
		if n := len(g.program()); n > 255 {
			t.Errorf("%d instructions", n)
		}
		if !g.admit(stranger.Next().Next(), 1, now.Add(gateTime)) || len(g.open) != 1 {
			t.Error("those who did not come are in the way")
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(message{kind: question, nonce: 1}.put(200))
	f.Add(message{kind: answer, nonce: 1, whole: true}.put(0))
	friend := netip.MustParseAddr("10.65.2.1")
	f.Fuzz(func(t *testing.T, b []byte) {
		a := newAnswerer(friend)
		if out, ok := a.answer(b, friend, time.Unix(0, 0)); ok && len(out) > len(b) {
			t.Errorf("%d bytes for %d", len(out), len(b))
		}
	})
}
