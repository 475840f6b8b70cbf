package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/ipip"
	"github.com/brindle-net/brindle/internal/nflog"
)

func sampled(src string, protocol uint8) nflog.Packet {
	return nflog.Packet{Src: netip.MustParseAddr(src), Protocol: protocol}
}

// TestUnknownSendersAreToldOf: of both sources, each address once in a while,
// and no more than so many.
func TestUnknownSendersAreToldOf(t *testing.T) {
	var log strings.Builder
	s := newStrangers(slog.New(slog.NewTextHandler(&log, nil)))
	start := time.Unix(1e9, 0)
	s.reported([]ipip.Stranger{{Addr: netip.MustParseAddr("192.0.2.1"), Packets: 7}}, 7, start) // of an earlier run
	if got := s.message(start); got != "" {
		t.Errorf("tells of an earlier run: %s", got)
	}
	s.counted(map[string]nft.Count{rules.CounterUnknownIPIP: {Packets: 2}, rules.CounterUnknownVXLAN: {Packets: 5}})
	s.heard(sampled("2001:db8::9", unix.IPPROTO_UDP), start)
	s.heard(sampled("203.0.113.9", unix.IPPROTO_IPIP), start.Add(time.Second))
	s.reported([]ipip.Stranger{{Addr: netip.MustParseAddr("192.0.2.1"), Packets: 8}, {Addr: netip.MustParseAddr("192.0.2.2"), Packets: 1}}, 9, start.Add(2*time.Second))
	st := s.status()
	var last []string
	for _, one := range st.Last {
		last = append(last, one.Address+" "+one.Form)
	}
	if st.IPIP != 11 || st.VXLAN != 5 || strings.Join(last, ", ") != "192.0.2.1 ipip, 192.0.2.2 ipip, 203.0.113.9 ipip, 2001:db8::9 vxlan" {
		t.Errorf("status %+v", st)
	}
	want := "encapsulated packets from unknown senders were dropped: last from 192.0.2.1 (ipip), 192.0.2.2 (ipip), 203.0.113.9 (ipip) and 1 more"
	if got := s.message(start.Add(3 * time.Second)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := s.message(start.Add(time.Hour)); got != "" {
		t.Errorf("an hour later: %s", got)
	}
	for _, m := range s.samples() {
		if want := map[string]float64{"ipip": 11, "vxlan": 5}[m.Labels["form"]]; m.Value != want || !m.Counter {
			t.Errorf("metric %+v, want %v", m, want)
		}
	}
	lines := func() int { return strings.Count(log.String(), "level=WARN") }
	if got := lines(); got != 4 {
		t.Errorf("%d lines, want 4:\n%s", got, log.String())
	}
	for range 100 {
		s.heard(sampled("203.0.113.9", unix.IPPROTO_IPIP), start.Add(5*time.Minute))
	}
	if got := lines(); got != 4 {
		t.Errorf("%d lines after more of the same, want 4", got)
	}
	s.heard(sampled("203.0.113.9", unix.IPPROTO_IPIP), start.Add(11*time.Minute))
	if got := lines(); got != 5 {
		t.Errorf("%d lines ten minutes later, want 5", got)
	}
}

// TestForgedSendersDoNotFill: memory and log are bounded, and who was seen
// last is known.
func TestForgedSendersDoNotFill(t *testing.T) {
	var log strings.Builder
	s := newStrangers(slog.New(slog.NewTextHandler(&log, nil)))
	now := time.Unix(1e9, 0)
	for i := range 1000 {
		s.heard(sampled(fmt.Sprintf("198.51.%d.%d", i/256, i%256), unix.IPPROTO_UDP), now.Add(time.Duration(i)*time.Millisecond))
	}
	st := s.status()
	if len(st.Last) != strangersKept || st.Last[0].Address != "198.51.3.231" {
		t.Errorf("%d are kept, first %+v", len(st.Last), st.Last[0])
	}
	if n := strings.Count(log.String(), "level=WARN"); n != strangersTell {
		t.Errorf("%d lines, want %d", n, strangersTell)
	}
}
