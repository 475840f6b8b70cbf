package conntrack

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
)

// TestLineOfText: what the kernel's text says of a connection. Both families
// are in the table.
func TestLineOfText(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	a6, b6 := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	long := strings.NewReplacer("A", "fd00:0000:0000:0000:0000:0000:0000:0001", "B", "fd00:0000:0000:0000:0000:0000:0000:0002")
	for _, c := range []struct {
		name, in string
		want     *Entry // nil: it cannot be read
	}{
		{
			"udp, translated, in a zone, marked",
			"ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=5 dport=9 packets=1 bytes=30 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=7 dport=5 packets=0 bytes=0 mark=65536 zone=3 delta-time=4 use=2",
			&Entry{Tuple{Src: a, Dst: b, Protocol: 17, SrcPort: 5, DstPort: 9}, Tuple{Src: b, Dst: a, Protocol: 17, SrcPort: 7, DstPort: 5}, 65536, 3},
		},
		{
			"tcp, a zone for each direction",
			long.Replace("ipv6     10 tcp      6 431999 ESTABLISHED src=A dst=B sport=5 dport=9 zone-orig=1 src=B dst=A sport=9 dport=5 zone-reply=2 [ASSURED] mark=0 use=1"),
			&Entry{Tuple{Src: a6, Dst: b6, Protocol: 6, SrcPort: 5, DstPort: 9, Zone: 1}, Tuple{Src: b6, Dst: a6, Protocol: 6, SrcPort: 9, DstPort: 5, Zone: 2}, 0, 0},
		},
		{
			"offloaded: no time",
			"ipv4     2 tcp      6 src=10.0.0.1 dst=10.0.0.2 sport=5 dport=9 src=10.0.0.2 dst=10.0.0.1 sport=9 dport=5 [OFFLOAD] mark=1 use=3",
			&Entry{Tuple{Src: a, Dst: b, Protocol: 6, SrcPort: 5, DstPort: 9}, Tuple{Src: b, Dst: a, Protocol: 6, SrcPort: 9, DstPort: 5}, 1, 0},
		},
		{
			"icmpv6",
			long.Replace("ipv6     10 icmpv6   58 29 src=A dst=B type=128 code=0 id=77 src=B dst=A type=129 code=0 id=77 mark=4294967295 use=1"),
			&Entry{Tuple{Src: a6, Dst: b6, Protocol: 58, ICMPType: 128, ICMPID: 77}, Tuple{Src: b6, Dst: a6, Protocol: 58, ICMPType: 129, ICMPID: 77}, 1<<32 - 1, 0},
		},
		{
			"gre",
			"ipv4     2 gre      47 29 timeout=30, stream_timeout=180 src=10.0.0.1 dst=10.0.0.2 srckey=0x0 dstkey=0xab [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 srckey=0xab dstkey=0x0 mark=0 use=1",
			&Entry{Tuple{Src: a, Dst: b, Protocol: 47, DstPort: 0xab}, Tuple{Src: b, Dst: a, Protocol: 47, SrcPort: 0xab}, 0, 0},
		},
		{
			"no ports",
			"ipv4     2 unknown  99 599 src=10.0.0.1 dst=10.0.0.2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 mark=0 use=1",
			&Entry{Tuple{Src: a, Dst: b, Protocol: 99}, Tuple{Src: b, Dst: a, Protocol: 99}, 0, 0},
		},
		{"cut off", "ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=5 dport=9 [UNREPLIED] src=10.0.0.2", nil},
		{"one direction", "ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=5 dport=9 mark=0 use=1", nil},
		{"three directions", "ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 src=10.0.0.1 dst=10.0.0.2 src=10.0.0.1 dst=10.0.0.2", nil},
		{"a port too large", "ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=65536 dport=9 src=10.0.0.2 dst=10.0.0.1 sport=9 dport=5", nil},
		{"nothing", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseLine([]byte(c.in))
			if (err == nil) != (c.want != nil) || err == nil && got != *c.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// TestResumes: kernels whose text is worth reading. No family is in it.
func TestResumes(t *testing.T) {
	for release, want := range map[string]bool{"6.18.44": true, "6.18.0-rc1+": true, "7.0": true, "6.17.9": false, "6.1.0-13-amd64": false, "": false, "x": false} {
		if got := resumes(release); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}

// TestGlanceIsList: both ways to read the table give the same, for more
// connections than a page holds, in zones, translated or not.
func TestGlanceIsList(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedProgram(t, "nft")
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		ns := tracked(t)
		testenv.Run(t, ns, "nft", `table inet zones {
			chain out { type filter hook output priority -300; udp sport 7 return; udp dport 100-110 ct zone set 5; udp dport 111-120 ct original zone set 6; }
		}`)
		table, err := Open(ns)
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		for _, host := range []string{"127.0.0.1", "::1"} {
			if netip.MustParseAddr(host).Is4() && !f.HasV4() || netip.MustParseAddr(host).Is6() && !f.HasV6() {
				continue
			}
			ask(t, ns, net.JoinHostPort(host, "9"))
			testenv.Run(t, ns, "ping", "-c", "1", host)
			testenv.Do(t, ns, func() error {
				for port := range 200 {
					c, err := net.Dial("udp", net.JoinHostPort(host, fmt.Sprint(100+port)))
					if err != nil {
						return err
					}
					_, _ = c.Write([]byte("x")) // nobody listens
					c.Close()
				}
				return nil
			})
		}
		for round := range 2 {
			want, err := table.List()
			if err != nil {
				t.Fatal(err)
			}
			if err := table.SetMark(want[:len(want)/2], 1, 1); err != nil {
				t.Fatal(err)
			}
			if want, err = table.List(); err != nil {
				t.Fatal(err)
			}
			got, err := table.Glance()
			if err != nil {
				t.Fatal(err)
			}
			order := func(a, b Entry) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }
			slices.SortFunc(want, order)
			slices.SortFunc(got, order)
			if len(want) < 200 || !reflect.DeepEqual(got, want) {
				t.Errorf("round %d: %d of %d: got %+v, want %+v", round, len(got), len(want), got, want)
			}
		}
		if table.text != nil { // the text itself, for Glance would fall back
			if got, err := table.text.read(); err != nil || len(got) < 200 {
				t.Errorf("read %d: %v", len(got), err)
			}
		}
	})
}

// FuzzLine holds the parser of text to not crash on whatever line.
func FuzzLine(f *testing.F) {
	f.Add([]byte("ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=5 dport=9 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=7 dport=5 mark=1 use=2"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if e, err := parseLine(line); err == nil && (!e.Orig.Src.IsValid() || !e.Reply.Dst.IsValid()) {
			t.Errorf("accepted %+v", e)
		}
	})
}
