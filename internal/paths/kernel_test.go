package paths

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/testenv"
)

// begin runs a monitor until the test ends or stop is called.
func begin(t *testing.T, m *Monitor) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := m.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("monitor: %v", err)
		}
	})
	stop = func() { cancel(); done.Wait() }
	t.Cleanup(stop)
	return stop
}

// TestKernelFine: both ends, every check, and nothing left behind.
func TestKernelFine(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, k tunnelKind) {
		w := newWorld(t, k)
		w.run()
		for _, h := range []*host{w.a, w.b} {
			r := h.result()
			whole := Skipped
			if k.form == desired.VXLAN {
				whole = Passed
			}
			if r.Outcome != Fine || r.Fits != k.mtu() || r.RTT <= 0 || r.Small != Passed || r.Sum != Passed ||
				r.Full != Passed || r.Whole != whole || r.Over != Passed || r.TCP != Passed {
				t.Errorf("%+v", r)
			}
			if c := h.monitor.Choices(); !h.programs && (len(c) != 1 || !c[0].On || c[0].Why != "") {
				t.Errorf("offload: %+v", c)
			}
		}
	})
}

// TestKernelBlackHole: a router with a link too narrow for the tunnel's MTU,
// which says nothing of it.
func TestKernelBlackHole(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, k tunnelKind) {
		w := newWorld(t, k)
		w.run()
		w.rules("meta length > 1401 drop")
		r := w.a.result()
		if want := 1401 - desired.Overhead(k.form, k.family); r.Outcome != Narrow || r.Full != Lost || r.Fits != want {
			t.Errorf("got fits %d, want %d: %+v", r.Fits, want, r)
		}
	})
}

// TestKernelNarrow: a router with a link too narrow, which does what routers
// do: it says so, or cuts what may be cut.
func TestKernelNarrow(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, k tunnelKind) {
		w := newWorld(t, k)
		w.run()
		w.ip(w.router, "link", "set", "r2", "mtu", "1400")
		w.ip(w.b.ns, "link", "set", "eth0", "mtu", "1400")
		r := w.a.result()
		if want := 1400 - desired.Overhead(k.form, k.family); r.Outcome != Narrow || r.Fits != want || !strings.Contains(r.Message, fmt.Sprint("to ", want)) {
			t.Errorf("got fits %d, want %d: %+v", r.Fits, want, r)
		}
		w.ip(w.router, "link", "set", "r2", "mtu", "1500")
		w.ip(w.b.ns, "link", "set", "eth0", "mtu", "1500")
	})
}

// TestKernelBlocked: a router that lets no tunnel through.
func TestKernelBlocked(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, k tunnelKind) {
		w := newWorld(t, k)
		w.run()
		w.rules("udp dport 4789 drop", "meta l4proto 4 drop")
		if r := w.a.result(); r.Outcome != Blocked || !strings.Contains(r.Message, "the host is up") {
			t.Errorf("%+v", r)
		}
		w.ip(w.router, "link", "set", "r2", "down")
		if r := w.a.result(); r.Outcome != Blocked || !strings.Contains(r.Message, "it is down, or cut off") {
			t.Errorf("%+v", r)
		}
	})
}

// TestKernelNoTCP: a router is not the only one to be in the way: here a
// firewall of the other host keeps TCP out.
func TestKernelNoTCP(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, k tunnelKind) {
		w := newWorld(t, k)
		w.run()
		testenv.Run(t, w.b.ns, "nft", "table inet t { chain c { type filter hook input priority 0; iifname "+k.device+" tcp dport 4797 drop; }; }")
		if r := w.a.result(); r.Outcome != NoTCP || r.TCP != Lost {
			t.Errorf("%+v", r)
		}
		if c := w.a.monitor.Choices(); !w.a.programs && (len(c) != 1 || !c[0].On) {
			t.Errorf("offload was not put back: %+v", c)
		}
	})
}

// TestKernelNoAgent: the other end's agent is not there, or its firewall drops
// everything for the host itself but echoes.
func TestKernelNoAgent(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, k tunnelKind) {
		w := newWorld(t, k)
		w.a.run(nil)
		if r := w.a.result(); r.Outcome != NoAnswer || r.Full != Passed || r.Fits != k.mtu() {
			t.Errorf("%+v", r)
		}
		testenv.Run(t, w.b.ns, "nft", "table inet t { chain c { type filter hook input priority 0; udp dport 4797 drop; }; }")
		if r := w.a.result(); r.Outcome != NoAnswer || r.Full != Passed {
			t.Errorf("%+v", r)
		}
		w.rules("meta length > 1401 drop")
		if r := w.a.result(); r.Outcome != Narrow || r.Full != Lost {
			t.Errorf("%+v", r)
		}
	})
}

// TestKernelRestart: an agent that starts later is found, one whose device was
// made anew listens again.
func TestKernelRestart(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, k tunnelKind) {
		w := newWorld(t, k)
		w.a.run(nil)
		if r := w.a.result(); r.Outcome != NoAnswer {
			t.Fatalf("%+v", r)
		}
		w.b.run(nil)
		testenv.Until(t, 10*time.Second, func() error { return outcomeIs(w.a, Fine) })
		w.b.stop()
		if r := w.a.result(); r.Outcome != NoAnswer {
			t.Errorf("%+v", r)
		}
		w.b.run(nil)
		testenv.Until(t, 10*time.Second, func() error { return outcomeIs(w.a, Fine) })
		if w.b.programs {
			return // programs are for the interface that there was
		}
		w.ip(w.b.ns, "link", "del", k.device)
		w.b.makeTunnel()
		w.ip(w.b.ns, "link", "set", k.device, "mtu", fmt.Sprint(k.mtu()), "up")
		w.ip(w.b.ns, "addr", "add", netip.PrefixFrom(w.b.end, w.b.end.BitLen()).String(), "dev", k.device)
		w.join(w.b, w.a)
		w.b.monitor.Drift()
		testenv.Until(t, 10*time.Second, func() error { return outcomeIs(w.a, Fine) })
		if r := w.a.result(); r.Outcome != Fine {
			t.Errorf("%+v", r)
		}
	})
}

func outcomeIs(h *host, want Outcome) error {
	if r := h.monitor.Results()[0]; r.Outcome != want {
		return fmt.Errorf("%s: %s", r.Outcome, r.Message)
	}
	return nil
}

// TestKernelStrangers: workloads, here and elsewhere, and hosts that are not
// known get no answer from the answerer, by whatever protocol, not even a
// connection.
func TestKernelStrangers(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, k tunnelKind) {
		w := newWorld(t, k)
		w.run()
		if r := w.a.result(); r.Outcome != Fine {
			t.Fatalf("%+v", r)
		}
		ask := func(h *host, from, to netip.Addr, inPod bool) error {
			ns := h.ns
			if inPod {
				ns = h.pod
			}
			device := k.device
			if inPod {
				device = "eth0"
			}
			p := Path{Device: device, Form: k.form, Local: from, Remote: to, MTU: k.mtu(), Peer: "x"}
			l, err := dialWire(Config{NS: ns, Port: DefaultPort, Pace: quick()}, p)
			if err != nil {
				return err
			}
			defer l.close()
			_, err = l.askOnce(t.Context(), plain, smallSize, 300*time.Millisecond)
			return err
		}
		connect := func(h *host, from, to netip.Addr) error {
			return within(h.pod, func() error {
				d := net.Dialer{Timeout: 300 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
				c, err := d.Dial("tcp", netip.AddrPortFrom(to, DefaultPort).String())
				if err == nil {
					c.Close()
				}
				return err
			})
		}
		stop := make(chan struct{})
		var knocking sync.WaitGroup
		knocking.Go(func() { // the gate opens again and again meanwhile
			for {
				select {
				case <-stop:
					return
				default:
					_ = w.a.monitor.Now(t.Context())
				}
			}
		})
		for name, c := range map[string]struct {
			h        *host
			from, to netip.Addr
		}{
			"workload of the asking host":    {w.a, w.a.workload, w.b.end},
			"workload of the answering host": {w.b, w.b.workload, w.b.end},
			"workload as a known host":       {w.b, w.a.end, w.b.end},
		} {
			if c.from == w.a.end {
				w.ip(c.h.pod, "addr", "add", netip.PrefixFrom(c.from, c.from.BitLen()).String(), "dev", "eth0")
			}
			if err := ask(c.h, c.from, c.to, true); err == nil {
				t.Errorf("%s: was answered", name)
			}
			for range 3 {
				if err := connect(c.h, c.from, c.to); err == nil {
					t.Errorf("%s: was let in", name)
				}
			}
		}
		close(stop)
		knocking.Wait()
		w.b.monitor.Want([]End{{Device: k.device, Form: k.form, Addr: w.b.end}}, nil, nil)
		testenv.Until(t, 5*time.Second, func() error {
			if err := ask(w.a, w.a.end, w.b.end, false); !errors.Is(err, errSilent) {
				return fmt.Errorf("a host that is no longer known: %v", err)
			}
			return nil
		})
	})
}
