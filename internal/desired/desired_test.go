package desired

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestPatchPlays(t *testing.T) {
	table := map[string]int{"a": 1, "b": 2}
	Patch[string, int]{Set: map[string]int{"b": 3, "c": 4}, Delete: []string{"a", "gone"}}.Play(table)
	if want := map[string]int{"b": 3, "c": 4}; !reflect.DeepEqual(table, want) {
		t.Errorf("got %v, want %v", table, want)
	}
	if !(Patch[string, int]{}).Empty() || (Patch[string, int]{Delete: []string{"a"}}).Empty() {
		t.Error("Empty is wrong")
	}
}

// TestUpdateHasAllOfState fails when a table is added to one of the two only,
// or is not made by NewState.
func TestUpdateHasAllOfState(t *testing.T) {
	s, u := reflect.ValueOf(NewState()), reflect.TypeFor[Update]()
	if s.NumField() != u.NumField() {
		t.Errorf("%d tables in State, %d in Update", s.NumField(), u.NumField())
	}
	for i := range s.NumField() {
		name := s.Type().Field(i).Name
		made := s.Field(i).Kind() != reflect.Map || !s.Field(i).IsNil()
		if _, ok := u.FieldByName(name); !ok || !made {
			t.Errorf("%s: in Update %v, made %v", name, ok, made)
		}
	}
}

func TestSysctlLines(t *testing.T) {
	got := SysctlLines(map[string]string{"ipv6/conf/accept_ra": "0", "ipv4/conf/proxy_arp": "1"})
	if want := "ipv4/conf/proxy_arp=1\nipv6/conf/accept_ra=0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSecretIsNotPrinted formats a secret in every way that text is made.
func TestSecretIsNotPrinted(t *testing.T) {
	p := Peer{Name: "x", Password: NewSecret("hunter2")}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{string(data), fmt.Sprint(p), fmt.Sprintf("%+v %#v %s %q", p, p, p.Password, p.Password), p.Password.String()} {
		if strings.Contains(s, "hunter2") {
			t.Errorf("printed: %s", s)
		}
	}
	if p.Password.Reveal() != "hunter2" || p.Password.Empty() || !NewSecret("").Empty() {
		t.Error("the secret is lost")
	}
}

func TestEqual(t *testing.T) {
	r := Route{Hops: []NextHop{{Interface: "a"}, {Interface: "b"}}, Scope: ScopeLink}
	same := Route{Hops: []NextHop{{Interface: "a"}, {Interface: "b"}}, Scope: ScopeLink}
	for name, other := range map[string]Route{
		"order": {Hops: []NextHop{{Interface: "b"}, {Interface: "a"}}, Scope: ScopeLink},
		"scope": {Hops: r.Hops}, "type": {Hops: r.Hops, Scope: ScopeLink, Type: Blackhole},
		"mtu": {Hops: r.Hops, Scope: ScopeLink, MTU: 1}, "protocol": {Hops: r.Hops, Scope: ScopeLink, Protocol: 1},
		"source": {Hops: r.Hops, Scope: ScopeLink, Source: netip.IPv6Loopback()},
	} {
		if r.Equal(other) {
			t.Errorf("%s makes no difference", name)
		}
	}
	if !r.Equal(same) {
		t.Error("equal routes differ")
	}
	p := Path{Communities: []string{"1:2"}, LocalPref: 1}
	if !p.Equal(Path{Communities: []string{"1:2"}, LocalPref: 1}) || p.Equal(Path{LocalPref: 1}) || p.Equal(Path{Communities: p.Communities}) {
		t.Error("paths")
	}
	s := Speaker{AS: 1, ListenOn: []netip.Addr{netip.IPv6Loopback()}}
	if !s.Equal(Speaker{AS: 1, ListenOn: []netip.Addr{netip.IPv6Loopback()}}) || s.Equal(Speaker{AS: 1}) || s.Equal(Speaker{ListenOn: s.ListenOn}) {
		t.Error("speakers")
	}
}

// TestNoticesAddUp: two facts of one kind about one object are one notice.
func TestNoticesAddUp(t *testing.T) {
	n := Notices{}
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	n.DuplicateNodeAddress("Node z", "Node a", a, false)
	n.DuplicateNodeAddress("Node z", "Node b", b, true)
	n.DuplicateAddress("W", "V", a)
	n.DuplicateAddress("W", "U", b)
	n.NoTunnelAddress("Node y", VXLAN, 4, true)
	n.TunnelAddressTaken("Node y", "Node a", a, false)
	n.NoTunnelAddress("Node x", IPIP, 4, true)
	want := Notices{
		{ConditionRouting, "Node z"}: {"DuplicateNodeAddress", "has the BGP address 10.0.0.1 of Node a; has the BGP address fd00::1 of Node b", true},
		{ConditionRouting, "W"}:      {"DuplicateAddress", "its address 10.0.0.1 is routed to V; its address fd00::1 is routed to U", false},
		{ConditionRouting, "Node y"}: {"NoTunnelAddress",
			"has no address for IPv4 in VXLAN: no other host sends to it by that tunnel; its tunnel address 10.0.0.1 is that of Node a: it is not used", true},
		{ConditionRouting, "Node x"}: {"NoTunnelAddress",
			"has no address for IP in IP: its own packets enter the tunnel from another one", false},
	}
	if !reflect.DeepEqual(n, want) {
		t.Errorf("\n got %v\nwant %v", n, want)
	}
}
