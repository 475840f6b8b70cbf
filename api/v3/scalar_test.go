package v3

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestScalars(t *testing.T) {
	tests := []struct {
		name string
		in   string
		into any
		want string // as it is written again; "" when it is refused
	}{
		{"port number", `80`, new(Port), `80`},
		{"port zero", `0`, new(Port), `0`},
		{"port number as text", `"80"`, new(Port), `80`},
		{"port range", `"80:90"`, new(Port), `"80:90"`},
		{"port range of one", `"80:80"`, new(Port), `80`},
		{"port range from zero", `"0:65535"`, new(Port), `"0:65535"`},
		{"port name", `"pg-1"`, new(Port), `"pg-1"`},
		{"port backwards", `"90:80"`, new(Port), ``},
		{"port too high", `65536`, new(Port), ``},
		{"port too high in text", `"65536"`, new(Port), ``},
		{"port below zero", `-1`, new(Port), ``},
		{"port with a fraction", `1.5`, new(Port), ``},
		{"port with three ends", `"1:2:3"`, new(Port), ``},
		{"port range with a sign", `"+1:2"`, new(Port), ``},
		{"port empty", `""`, new(Port), ``},
		{"port true", `true`, new(Port), ``},
		{"protocol name", `"TCP"`, new(Protocol), `"TCP"`},
		{"protocol number", `6`, new(Protocol), `6`},
		{"protocol number as text", `"6"`, new(Protocol), `6`},
		{"protocol unknown name", `"tcp"`, new(Protocol), `"tcp"`},
		{"protocol too high", `256`, new(Protocol), ``},
		{"protocol empty", `""`, new(Protocol), ``},
		{"protocol list", `[]`, new(Protocol), ``},
		{"AS number", `4294967295`, new(ASNumber), `4294967295`},
		{"AS number as text", `"64512"`, new(ASNumber), `64512`},
		{"AS number dotted", `"1.10"`, new(ASNumber), `65546`},
		{"AS number highest dotted", `"65535.65535"`, new(ASNumber), `4294967295`},
		{"AS number that lost a digit", `1.1`, new(ASNumber), ``},
		{"AS number too high", `4294967296`, new(ASNumber), ``},
		{"AS number with three parts", `"1.2.3"`, new(ASNumber), ``},
		{"AS number below zero", `-1`, new(ASNumber), ``},
		{"duration", `"30s"`, new(Duration), `"30s"`},
		{"duration zero", `"0s"`, new(Duration), `"0s"`},
		{"duration normalised", `"15m"`, new(Duration), `"15m0s"`},
		{"duration carried", `"90s"`, new(Duration), `"1m30s"`},
		{"duration in parts", `"1h30m15.5s"`, new(Duration), `"1h30m15.5s"`},
		{"duration in any order", `"1s1h"`, new(Duration), `"1h0m1s"`},
		{"duration below a millisecond", `"0.25ms"`, new(Duration), `"0.25ms"`},
		{"duration of a nanosecond", `"0.000001ms"`, new(Duration), `"0.000001ms"`},
		{"duration without unit", `"30"`, new(Duration), ``},
		{"duration number", `30`, new(Duration), ``},
		{"duration empty", `""`, new(Duration), ``},
		{"duration negative", `"-1s"`, new(Duration), ``},
		{"duration in microseconds", `"5us"`, new(Duration), ``},
		{"duration in days", `"1d"`, new(Duration), ``},
		{"duration too long", `"9999999999h"`, new(Duration), ``},
		{"int", `-5`, new(IntOrString), `-5`},
		{"string", `"AF11"`, new(IntOrString), `"AF11"`},
		{"string of digits", `"5"`, new(IntOrString), `"5"`},
		{"neither", `1.5`, new(IntOrString), ``},
		{"int too large", `2147483648`, new(IntOrString), ``},
		{"time", `"2026-01-31T12:00:00Z"`, new(Time), `"2026-01-31T12:00:00Z"`},
		{"time elsewhere", `"2026-01-31T12:00:00.9+02:00"`, new(Time), `"2026-01-31T10:00:00Z"`},
		{"time none", `null`, new(Time), `null`},
		{"time wrong", `"yesterday"`, new(Time), ``},
		{"time before time", `"0000-01-01T00:00:00+23:00"`, new(Time), ``},
		{"time number", `5`, new(Time), ``},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := json.Unmarshal([]byte(tt.in), tt.into)
			if tt.want == "" {
				if err == nil {
					t.Errorf("read as %v", tt.into)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(tt.into)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, string(got)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestProtocolNumbers(t *testing.T) {
	for name, want := range map[string]uint8{"TCP": 6, "UDP": 17, "ICMP": 1, "ICMPv6": 58, "SCTP": 132, "UDPLite": 136, "47": 47} {
		p, err := ParseProtocol(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := p.IP(); !ok || got != want || p.String() != name {
			t.Errorf("%s is %d, %v, and prints %s", name, got, ok, p)
		}
	}
	if _, ok := (Protocol{Name: "tcp"}).IP(); ok {
		t.Error("tcp has a number")
	}
}

func TestNewTimeCutsToTheSecond(t *testing.T) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 999, time.FixedZone("x", 3600))
	if got := NewTime(at).Format(time.RFC3339Nano); got != "2026-01-31T11:00:00Z" {
		t.Error(got)
	}
}
