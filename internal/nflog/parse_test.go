package nflog

import (
	"net/netip"
	"testing"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestText(t *testing.T) {
	p := Packet{Prefix: "x: ", In: "cali1", Out: "eth0", Src: addr("10.0.0.1"), Dst: addr("fd00::1"), Length: 60}
	for protocol, want := range map[uint8]string{
		6:   "x: IN=cali1 OUT=eth0 SRC=10.0.0.1 DST=fd00::1 LEN=60 PROTO=TCP SPT=1 DPT=2",
		58:  "x: IN=cali1 OUT=eth0 SRC=10.0.0.1 DST=fd00::1 LEN=60 PROTO=ICMPv6 TYPE=3 CODE=4",
		253: "x: IN=cali1 OUT=eth0 SRC=10.0.0.1 DST=fd00::1 LEN=60 PROTO=253",
	} {
		p.Protocol, p.SrcPort, p.DstPort, p.Type, p.Code = protocol, 1, 2, 3, 4
		if got := p.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestHeaders reads packets with options, extension headers and fragments.
func TestHeaders(t *testing.T) {
	v4 := func(fragment byte, options int, rest ...byte) []byte {
		b := make([]byte, 20+options)
		b[0], b[3], b[7], b[9] = byte(0x45+options/4), 99, fragment, 17
		return append(b, rest...)
	}
	v6 := func(next byte, rest ...byte) []byte {
		b := make([]byte, 40)
		b[0], b[5], b[6] = 0x60, 59, next
		return append(b, rest...)
	}
	ports := []byte{0, 1, 0, 2, 0, 0, 0, 0}
	tests := []struct {
		name     string
		in       []byte
		protocol uint8
		port     uint16
		bad      bool
	}{
		{"plain", v4(0, 0, ports...), 17, 2, false},
		{"options", v4(0, 8, ports...), 17, 2, false},
		{"later fragment", v4(1, 0, ports...), 17, 0, false},
		{"short", v4(0, 0), 17, 0, false},
		{"IPv6", v6(17, ports...), 17, 2, false},
		{"hop by hop", v6(0, append([]byte{17, 0, 0, 0, 0, 0, 0, 0}, ports...)...), 17, 2, false},
		{"first fragment", v6(44, append([]byte{6, 0, 0, 1, 0, 0, 0, 0}, ports...)...), 6, 2, false},
		{"later IPv6 fragment", v6(44, append([]byte{6, 0, 0, 8, 0, 0, 0, 0}, ports...)...), 6, 0, false},
		{"extension beyond the end", v6(60, 17, 255, 0, 0, 0, 0, 0, 0), 17, 0, false},
		{"nothing", nil, 0, 0, true},
		{"no IP", []byte{0, 1, 2, 3}, 0, 0, true},
	}
	for _, tt := range tests {
		var p Packet
		if err := p.parseIP(tt.in); (err != nil) != tt.bad || p.Protocol != tt.protocol || p.DstPort != tt.port {
			t.Errorf("%s: %+v, %v", tt.name, p, err)
		}
	}
}

// FuzzParse holds the parser to not crash on whatever bytes.
func FuzzParse(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 8, 0, 10, 0, 'x', 0, 0, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := parse(body, func(int) string { return "" })
		if err == nil && !p.Src.IsValid() {
			t.Errorf("accepted %+v", p)
		}
	})
}
