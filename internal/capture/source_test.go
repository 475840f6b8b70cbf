package capture

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// next reads packets until a filter chooses one.
func next(t *testing.T, s *Source, text string) *Packet {
	t.Helper()
	filter, err := ParseFilter(text)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		f, err := s.Next(ctx)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		p, err := Decode(s.Link(), f, 0)
		if err != nil {
			t.Fatal(err)
		}
		if filter(p) {
			return p
		}
	}
}

func source(t *testing.T, ns *netns.NS, name string) *Source {
	t.Helper()
	s, err := Open(ns, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSource(t *testing.T) {
	for _, c := range []struct{ family, a, b, network string }{
		{"-4", "192.0.2.1/24", "192.0.2.2", "udp4"}, {"-6", "2001:db8::1/64", "2001:db8::2", "udp6"},
	} {
		t.Run(c.network, func(t *testing.T) {
			ns := testenv.NetNS(t)
			testenv.Run(t, ns, "ip", "link", "add", "a0", "type", "veth", "peer", "name", "b0")
			for _, name := range []string{"a0", "b0"} {
				testenv.Run(t, ns, "ip", "link", "set", name, "up")
			}
			testenv.Run(t, ns, "ip", c.family, "addr", "add", c.a, "dev", "a0", "nodad")
			testenv.Run(t, ns, "ip", c.family, "neigh", "add", c.b, "lladdr", "02:00:00:00:00:02", "dev", "a0")
			all, one := source(t, ns, ""), source(t, ns, "b0")
			if all.Link() != Cooked || one.Link() != Ethernet {
				t.Errorf("links %d and %d", all.Link(), one.Link())
			}
			began := time.Now()
			testenv.Do(t, ns, func() error {
				conn, err := net.Dial(c.network, net.JoinHostPort(c.b, "4790"))
				if err != nil {
					return err
				}
				defer conn.Close()
				_, err = conn.Write(make([]byte, 100))
				return err
			})
			out := next(t, all, "out udp dst port 4790 dst "+c.b)
			in := next(t, all, "in udp dst port 4790 dst "+c.b)
			raw := next(t, one, "udp dst port 4790 dst "+c.b+" dst mac 02:00:00:00:00:02")
			want := map[string]int{"udp4": 128, "udp6": 148}[c.network]
			if out.Length != want || in.Length != want || raw.Length != want || out.Interface == in.Interface || out.SourceMAC != raw.SourceMAC {
				t.Errorf("out %+v\nin  %+v\nraw %+v", out, in, raw)
			}
			if age := in.Time.Sub(began); age < -time.Second || age > time.Minute {
				t.Errorf("it came %v after it was sent", age)
			}
			if lost, err := all.Lost(); lost != 0 || err != nil {
				t.Errorf("%d lost, %v", lost, err)
			}
		})
	}
}

// No family: interfaces have none.
func TestOpen(t *testing.T) {
	ns := testenv.NetNS(t)
	s := source(t, ns, "lo")
	if s.Link() != Ethernet {
		t.Errorf("the loopback's link is %d", s.Link())
	}
	if _, err := Open(ns, "nosuch0"); err == nil {
		t.Error("packets of an interface that is not there are read")
	}
}

// One family: it is about waiting.
func TestNextEnds(t *testing.T) {
	ns := testenv.NetNS(t)
	s := source(t, ns, "lo")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	testenv.Do(t, ns, func() error {
		conn, err := net.Dial("udp4", "127.0.0.1:9")
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte("x"))
		return err
	})
	if _, err := s.Next(ctx); err != nil {
		t.Errorf("after a wait that ended: %v", err)
	}
}
