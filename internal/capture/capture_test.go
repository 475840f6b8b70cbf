package capture

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// Frames written by hand, byte by byte from the RFCs.
const (
	macs    = "66a1b2c3d4e5" + "66f1e2d3c4b5"
	inner4  = "45000054" + "00014000" + "3f010000" + "0a300001" + "0a300041" // 10.48.0.1 > 10.48.0.65, TTL 63, DF
	echo    = "0800" + "0000" + "00010002"
	ipip    = "45020068" + "00024000" + "40040000" + "ac1e010b" + "ac1e020d" + inner4 + echo
	vxlan   = "45000086" + "00020000" + "40110000" + "ac1e010b" + "ac1e020d" + "d68412b5" + "00720000" + "08000000" + "00100000" + macs + "0800" + inner4 + echo
	hop6    = "3a00" + "000000000000"
	ping6   = "60000000" + "0010003f" + "fd000010004800000000000000000001" + "fd000010004800000000000000000041" + hop6 + "8000" + "0000" + "00010002"
	later   = "45000054" + "00010010" + "3f110000" + "0a300001" + "0a300041" + "12b512b5" // a fragment that is not the first
	first   = "45000054" + "00012000" + "3f110000" + "0a300001" + "0a300041" + "12b512b6" + "00400000"
	rest    = "45000054" + "00010010" + "3f010000" + "0a300001" + "0a300041" + "00000000"
	arp     = "ffffffffffff" + "66f1e2d3c4b5" + "0806" + "0001"
	options = "46000024" + "00010000" + "40060000" + "0a300001" + "0a300041" + "01010101" + "0050d684"
)

func ether(kind, b string) string { return macs + kind + b }

func frame(t *testing.T, text string) Frame {
	t.Helper()
	data, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return Frame{Time: time.Unix(1700000000, 123456789), Data: data, Length: len(data)}
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name, in string
		link     Link
		want     string
	}{
		{"ipip", ether("0800", ipip), Ethernet, "172.30.1.11 > 172.30.2.13 ipip ttl 64 tos 0x2 df length 104 | 10.48.0.1 > 10.48.0.65 icmp type 8 code 0 ttl 63 df length 84"},
		{"vxlan", ether("0800", vxlan), Ethernet, "172.30.1.11:54916 > 172.30.2.13:4789 vxlan vni 4096 ttl 64 length 134 | 66:f1:e2:d3:c4:b5 > 66:a1:b2:c3:d4:e5 10.48.0.1 > 10.48.0.65 icmp type 8 code 0 ttl 63 df length 84"},
		{"raw", ipip, RawIP, "172.30.1.11 > 172.30.2.13 ipip ttl 64 tos 0x2 df length 104 | 10.48.0.1 > 10.48.0.65 icmp type 8 code 0 ttl 63 df length 84"},
		{"cooked", "86dd0000" + "00000007" + "0001" + "0406" + "66f1e2d3c4b50000" + ping6, Cooked, "fd00:10:48::1 > fd00:10:48::41 icmp type 128 code 0 ttl 63 length 56"},
		{"fragment", ether("0800", later), Ethernet, "10.48.0.1 > 10.48.0.65 udp ttl 63 fragment length 84"},
		{"fragment of an echo reply", ether("0800", rest), Ethernet, "10.48.0.1 > 10.48.0.65 icmp ttl 63 fragment length 84"},
		{"first fragment", ether("0800", first), Ethernet, "10.48.0.1:4789 > 10.48.0.65:4790 udp ttl 63 fragment length 84"},
		{"options", ether("0800", options), Ethernet, "10.48.0.1:80 > 10.48.0.65:54916 tcp ttl 64 length 36"},
		{"arp", arp, Ethernet, "arp 66:f1:e2:d3:c4:b5 > ff:ff:ff:ff:ff:ff"},
		{"another type", ether("88cc", "00"), Ethernet, "ethertype 0x88cc 66:f1:e2:d3:c4:b5 > 66:a1:b2:c3:d4:e5"},
	} {
		p, err := Decode(c.link, frame(t, c.in), 0)
		if err != nil || p.String() != c.want {
			t.Errorf("%s:\ngot  %v %v\nwant %s", c.name, p, err, c.want)
		}
	}
	if _, err := Decode(105, Frame{}, 0); err == nil {
		t.Error("frames of a wireless network were decoded")
	}
	cooked, _ := Decode(Cooked, frame(t, "86dd0000"+"00000007"+"0001"+"0406"+"66f1e2d3c4b50000"+ping6), 0)
	if cooked.Interface != 7 || !cooked.Outgoing || cooked.SourceMAC != "66:f1:e2:d3:c4:b5" {
		t.Errorf("%+v", cooked)
	}
}

// Whatever a frame holds, and wherever it ends, it is decoded without harm.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{ether("0800", ipip), ether("0800", vxlan), ether("86dd", ping6), ipip, arp} {
		data, _ := hex.DecodeString(s)
		for n := range data {
			f.Add(data[:n])
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, link := range []Link{Ethernet, RawIP, Cooked} {
			p, err := Decode(link, Frame{Data: data}, 0)
			if err != nil {
				t.Fatal(err)
			}
			_ = p.String()
		}
	})
}

func TestFilter(t *testing.T) {
	packets := map[string]string{
		"ipip": ether("0800", ipip), "vxlan": ether("0800", vxlan), "ping6": ether("86dd", ping6), "arp": arp,
		"fragment": ether("0800", first), "tcp": ether("0800", options),
	}
	for _, c := range []struct{ in, want string }{
		{"", "arp fragment ipip ping6 tcp vxlan"},
		{"ipip", "ipip"},
		{"vxlan", "vxlan"},
		{"bare", "arp fragment ping6 tcp"},
		{"icmp", "ping6"},
		{"inner icmp", "ipip vxlan"},
		{"icmp or inner icmp", "ipip ping6 vxlan"},
		{"vxlan vni 4096 inner (icmp and src 10.48.0.0/24)", "vxlan"},
		{"vni 4097", ""},
		{"host 172.30.2.13", "ipip vxlan"},
		{"host 10.48.0.65", "fragment tcp"},
		{"src 172.30.2.13", ""},
		{"ip6 host fd00:10:48::/48", "ping6"},
		{"not (ip or ip6)", "arp"},
		{"arp", "arp"},
		{"df", "ipip ping6"},
		{"inner df", "ipip vxlan"},
		{"fragment", "fragment"},
		{"port 4789", "fragment vxlan"},
		{"src port 4789", "fragment"},
		{"dst port 4789", "vxlan"},
		{"udp not vxlan", "fragment"},
		{"inner dst mac 66:A1:B2:C3:D4:E5", "vxlan"},
		{"src mac 66:f1:e2:d3:c4:b5 tcp", "tcp"},
		{"ttl 63", "fragment ping6"},
		{"tos 2", "ipip"},
		{"proto 4", "ipip"},
		{"inner type 8", "ipip vxlan"},
		{"type 0", ""},
		{"greater 104", "ipip vxlan"},
		{"less 84 ip", "fragment tcp"},
		{"in", "arp fragment ipip ping6 tcp vxlan"},
		{"out", ""},
		{"arp or tcp and ttl 1", "arp"},
		{"(arp or tcp) and ttl 1", ""},
		{"not not arp", "arp"},
	} {
		f, err := ParseFilter(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		var got []string
		for _, name := range []string{"arp", "fragment", "ipip", "ping6", "tcp", "vxlan"} {
			p, err := Decode(Ethernet, frame(t, packets[name]), 0)
			if err != nil {
				t.Fatal(err)
			}
			if f(p) {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.in, got, c.want)
		}
	}
	for in, want := range map[string]string{
		"icmpp": `"icmpp" is no word`, "host": `host "": must be`, "port 70000": `port "70000": must be a number of 16 bits`,
		"(ip": "not closed", "ip )": `")" was not expected`, "ip or": "it ends", "inner": "it ends", "mac 1:2": "hardware address",
		"vni x": "24 bits", "src": `src "": must be`,
	} {
		if _, err := ParseFilter(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

func TestFile(t *testing.T) {
	var b bytes.Buffer
	w, err := NewWriter(&b, Ethernet)
	if err != nil {
		t.Fatal(err)
	}
	want := frame(t, ether("0800", ipip))
	long := want
	long.Length = 9000
	for _, f := range []Frame{want, long} {
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	whole := b.Bytes()
	r, err := NewReader(bytes.NewReader(whole))
	if err != nil || r.Link() != Ethernet {
		t.Fatalf("link %d, %v", r.Link(), err)
	}
	for _, f := range []Frame{want, long} {
		got, err := r.Next()
		if err != nil || !got.Time.Equal(f.Time) || !bytes.Equal(got.Data, f.Data) || got.Length != f.Length {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("%v", err)
	}
	r, err = NewReader(bytes.NewReader(whole[:len(whole)-1]))
	if err == nil {
		_, err = r.Next()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
	// Of another machine, in microseconds.
	other, _ := hex.DecodeString("a1b2c3d4" + "00020004" + "0000000000000000" + "00040000" + "00000065" + "6553f100" + "0001e240" + "00000001" + "00000002" + "45")
	if r, err = NewReader(bytes.NewReader(other)); err != nil {
		t.Fatal(err)
	}
	f, err := r.Next()
	if err != nil || r.Link() != RawIP || f.Time.Nanosecond() != 123456000 || f.Length != 2 || len(f.Data) != 1 {
		t.Errorf("%d %+v %v", r.Link(), f, err)
	}
	if _, err := NewReader(strings.NewReader("this is no capture file at all")); err == nil {
		t.Error("any text is a capture file")
	}
}
