package conntrack

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// tracked makes a namespace whose connections are tracked, with a UDP echo on
// port 7 of the loopback of both families that port 9 is translated to.
func tracked(t *testing.T) *netns.NS {
	t.Helper()
	ns := testenv.NetNS(t)
	testenv.Run(t, ns, "nft", `table inet test {
		chain in { type filter hook input priority 0; ct state new counter; }
		chain nat { type nat hook output priority -100;
			ip daddr 127.0.0.1 udp dport 9 dnat to 127.0.0.1:7
			ip6 daddr ::1 udp dport 9 dnat to [::1]:7
		}
	}`)
	for _, addr := range []string{"127.0.0.1:7", "[::1]:7"} {
		var c net.PacketConn
		testenv.Do(t, ns, func() (err error) {
			c, err = net.ListenPacket("udp", addr)
			return err
		})
		t.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 64)
			for {
				n, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteTo(buf[:n], from)
			}
		}()
	}
	return ns
}

// ask sends a datagram and waits for its echo.
func ask(t *testing.T, ns *netns.NS, addr string) netip.AddrPort {
	t.Helper()
	var c net.Conn
	testenv.Do(t, ns, func() (err error) {
		c, err = net.Dial("udp", addr)
		return err
	})
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddrPort(c.LocalAddr().String())
}

// find returns the entry of a client.
func find(t *testing.T, table *Table, family int, client netip.AddrPort) (Entry, bool) {
	t.Helper()
	all, err := table.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.Orig.Src.Is4() == (family == 4) && netip.AddrPortFrom(e.Orig.Src, e.Orig.SrcPort) == client {
			return e, true
		}
	}
	return Entry{}, false
}

func TestEntriesAreReadMarkedAndDeleted(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedProgram(t, "nft")
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		ns := tracked(t)
		table, err := Open(ns)
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		for _, family := range []int{4, 6} {
			if family == 4 && !f.HasV4() || family == 6 && !f.HasV6() {
				continue
			}
			host := map[int]string{4: "127.0.0.1", 6: "::1"}[family]
			client := ask(t, ns, net.JoinHostPort(host, "9"))
			other := ask(t, ns, net.JoinHostPort(host, "7"))
			e, ok := find(t, table, family, client)
			a := netip.MustParseAddr(host)
			want := Entry{
				Orig:  Tuple{Src: a, Dst: a, Protocol: 17, SrcPort: client.Port(), DstPort: 9},
				Reply: Tuple{Src: a, Dst: a, Protocol: 17, SrcPort: 7, DstPort: client.Port()},
			}
			if !ok || e != want {
				t.Fatalf("IPv%d: got %+v, %v; want %+v", family, e, ok, want)
			}
			gone := e
			gone.Orig.SrcPort++
			for _, step := range []struct{ value, mask, want uint32 }{
				{0xff00, 0xff00, 0xff00}, {0, 0x0f00, 0xf000}, {0x1, 0x3, 0xf001}, {0xffffffff, 0, 0xf001},
			} {
				if err := table.SetMark([]Entry{gone, e}, step.value, step.mask); err != nil {
					t.Fatal(err)
				}
				if got, _ := find(t, table, family, client); got.Mark != step.want {
					t.Errorf("IPv%d: mark %#x, want %#x", family, got.Mark, step.want)
				}
			}
			if got, _ := find(t, table, family, other); got.Mark != 0 {
				t.Errorf("IPv%d: a neighbour was marked %#x", family, got.Mark)
			}
			if err := table.Delete([]Entry{gone, e}); err != nil {
				t.Fatal(err)
			}
			if _, there := find(t, table, family, client); there {
				t.Errorf("IPv%d: still there", family)
			}
			if _, there := find(t, table, family, other); !there {
				t.Errorf("IPv%d: its neighbour is gone too", family)
			}
		}
	})
}

func TestICMPEntries(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedProgram(t, "nft")
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		ns := tracked(t)
		table, err := Open(ns)
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		check := func(family int, host string, protocol, kind uint8) {
			testenv.Run(t, ns, "ping", "-c", "1", host)
			all, err := table.List()
			if err != nil || len(all) != 1 {
				t.Fatalf("IPv%d: %v, %v", family, all, err)
			}
			e := all[0]
			if e.Orig.Protocol != protocol || e.Orig.ICMPType != kind || e.Orig.ICMPID == 0 || e.Orig.DstPort != 0 {
				t.Errorf("IPv%d: %+v", family, e)
			}
			if err := table.SetMark(all, 4, 4); err != nil {
				t.Error(err)
			}
			if all, _ := table.List(); len(all) != 1 || all[0].Mark != 4 {
				t.Errorf("IPv%d: marked %+v", family, all)
			}
			if err := table.Delete(all); err != nil {
				t.Error(err)
			}
			if all, err := table.List(); len(all) != 0 || err != nil {
				t.Errorf("IPv%d: left %+v, %v", family, all, err)
			}
		}
		if f.HasV4() {
			check(4, "127.0.0.1", 1, 8)
		}
		if f.HasV6() {
			check(6, "::1", 58, 128)
		}
	})
}

// FuzzParse holds the parser to not crash on whatever bytes.
func FuzzParse(f *testing.F) {
	e := Entry{Orig: Tuple{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Protocol: 6, SrcPort: 1, DstPort: 2}}
	f.Add([]byte(fmt.Sprint(e)))
	f.Add([]byte{2, 0, 0, 0, 8, 0, 1, 0x80, 4, 0, 1, 0x80})
	f.Fuzz(func(t *testing.T, body []byte) {
		if e, err := parse(body); err == nil && !e.Orig.Src.IsValid() {
			t.Errorf("accepted %+v", e)
		}
	})
}
