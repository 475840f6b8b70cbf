package model

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/desired"
)

func TestTunnelsOfANode(t *testing.T) {
	ip := netip.MustParseAddr
	tests := []struct {
		name, metadata, spec string
		want                 *Node  // nil: refused
		says                 string // in the error
	}{
		{"all of it", `"annotations":{"brindle.net/accepts":"ipip,vxlan"}`,
			`"bgp":{"ipv4IPIPTunnelAddr":"10.0.0.1"},"ipv4VXLANTunnelAddr":"10.0.0.2","vxlanTunnelMACAddr":"66-AA-00-00-00-01",
			"ipv6VXLANTunnelAddr":"fd00::2","vxlanTunnelMACAddrV6":"66:aa:00:00:00:02"`,
			&Node{IPIP: ip("10.0.0.1"), VXLAN4: TunnelEnd{ip("10.0.0.2"), "66:aa:00:00:00:01"},
				VXLAN6: TunnelEnd{ip("fd00::2"), "66:aa:00:00:00:02"}, Accepts: desired.FormsOf(desired.IPIP, desired.VXLAN), Speaks: true}, ""},
		{"without BGP", ``, `"ipv4VXLANTunnelAddr":"10.0.0.2"`, &Node{VXLAN4: TunnelEnd{Addr: ip("10.0.0.2")}}, ""},
		{"with a length", ``, `"ipv4VXLANTunnelAddr":"10.0.0.2/32"`, &Node{VXLAN4: TunnelEnd{Addr: ip("10.0.0.2")}}, ""},
		{"accepts nothing", `"annotations":{"brindle.net/accepts":""}`, ``, &Node{Speaks: true}, ""},
		{"accepts what is not known here", `"annotations":{"brindle.net/accepts":" vxlan , geneve,direct"}`, ``,
			&Node{Accepts: desired.FormsOf(desired.Direct, desired.VXLAN), Speaks: true}, ""},
		{"IPv6 for IPv4", ``, `"ipv4VXLANTunnelAddr":"fd00::2"`, nil, "spec.ipv4VXLANTunnelAddr"},
		{"IPv4 for IPv6", ``, `"ipv6VXLANTunnelAddr":"10.0.0.1"`, nil, "spec.ipv6VXLANTunnelAddr"},
		{"a network", ``, `"bgp":{"ipv4IPIPTunnelAddr":"10.0.0.0/24"}`, nil, "spec.bgp.ipv4IPIPTunnelAddr"},
		{"loopback", ``, `"bgp":{"ipv4IPIPTunnelAddr":"127.0.0.1"}`, nil, "127.0.0.1"},
		{"of one link", ``, `"ipv6VXLANTunnelAddr":"fe80::1"`, nil, "fe80::1"},
		{"no MAC", ``, `"vxlanTunnelMACAddr":"66:aa"`, nil, "spec.vxlanTunnelMACAddr"},
		{"MAC of a group", ``, `"vxlanTunnelMACAddrV6":"67:00:00:00:00:01"`, nil, "spec.vxlanTunnelMACAddrV6"},
		{"MAC of zeros", ``, `"vxlanTunnelMACAddr":"00:00:00:00:00:00"`, nil, "00:00:00:00:00:00"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			metadata := `"name":"n"`
			if tt.metadata != "" {
				metadata += "," + tt.metadata
			}
			o, err := v3.DecodeStored([]byte(`{"kind":"Node","metadata":{` + metadata + `},"spec":{` + tt.spec + `}}`))
			if err != nil {
				t.Fatal(err)
			}
			e, _, err := FromObject(o)
			if tt.want == nil {
				if _, invalid := e.Value.(*Invalid); !invalid || err == nil ||
					!strings.Contains(err.Error(), tt.says) {
					t.Errorf("taken as %+v, %v", e.Value, err)
				}
				return
			}
			tt.want.Name = "n"
			if err != nil || !reflect.DeepEqual(e.Value, tt.want) {
				t.Errorf("%v:\n got %+v\nwant %+v", err, e.Value, tt.want)
			}
		})
	}
}

// TestVTEPMAC holds addresses that Calico gives to hosts of these names.
func TestVTEPMAC(t *testing.T) {
	for _, tt := range []struct {
		node   string
		family int
		want   string
	}{{"node1", 4, "66:f9:37:c3:7e:94"}, {"node1", 6, "66:0f:35:f2:60:df"}, {"worker-0", 4, "66:db:c4:e3:5c:86"}} {
		n := &Node{Name: tt.node}
		if got := VTEPMAC(tt.node, tt.family); got != tt.want || n.VXLAN(tt.family).MAC != tt.want {
			t.Errorf("%s, IPv%d: %s, want %s", tt.node, tt.family, got, tt.want)
		}
	}
	n := &Node{Name: "node1", VXLAN6: TunnelEnd{MAC: "66:00:00:00:00:01"}}
	if got := n.VXLAN(6).MAC; got != "66:00:00:00:00:01" {
		t.Errorf("overridden: %s", got)
	}
}

// TestTunnelsAreNoWorkloads: whatever the prefixes are.
func TestTunnelsAreNoWorkloads(t *testing.T) {
	s := Settings{Prefixes: []string{"tun", "vx"}}
	for name, want := range map[string]bool{"tun7": true, "vx1": true, "tunl0": false, "vxlan.calico": false, "vxlan-v6.calico": false} {
		if s.WorkloadInterface(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
