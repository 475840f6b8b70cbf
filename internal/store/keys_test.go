package store

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKeysAreThoseOfTheLayout(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"cluster resource", ResourceID{Plural: "ippools", Name: "pool-v6"}.Key(), "/calico/resources/v3/projectcalico.org/ippools/pool-v6"},
		{"namespaced resource", ResourceID{Plural: "networkpolicies", Namespace: "default", Name: "allow-web"}.Key(), "/calico/resources/v3/projectcalico.org/networkpolicies/default/allow-web"},
		{"name with dots", ResourceID{Plural: "globalnetworkpolicies", Name: "security.block-bad"}.Key(), "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/security.block-bad"},
		{"name with a slash", ResourceID{Plural: "profiles", Name: "a/b%c"}.Key(), "/calico/resources/v3/projectcalico.org/profiles/a%2Fb%25c"},
		{"kind", ResourcePrefix("tiers", ""), "/calico/resources/v3/projectcalico.org/tiers/"},
		{"kind in a namespace", ResourcePrefix("networksets", "default"), "/calico/resources/v3/projectcalico.org/networksets/default/"},
		{"block v4", BlockKey(netip.MustParsePrefix("192.168.40.128/26")), "/calico/ipam/v2/assignment/ipv4/block/192.168.40.128-26"},
		{"block v6", BlockKey(netip.MustParsePrefix("fd00:10:20:0:5add:9051:4065:cb40/122")), "/calico/ipam/v2/assignment/ipv6/block/fd00:10:20:0:5add:9051:4065:cb40-122"},
		{"affinity of a host", AffinityID{Owner: "n1", CIDR: netip.MustParsePrefix("192.168.40.128/26")}.Key(), "/calico/ipam/v2/host/n1/ipv4/block/192.168.40.128-26"},
		{"affinity of a service", AffinityID{Virtual: true, Owner: "load-balancer", CIDR: netip.MustParsePrefix("fd00::/122")}.Key(), "/calico/ipam/v2/virtual/load-balancer/ipv6/block/fd00::-122"},
		{"handle", HandleKey("k8s-pod-network.cid-0001"), "/calico/ipam/v2/handle/k8s-pod-network.cid-0001"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.in != tt.want {
				t.Errorf("got %s, want %s", tt.in, tt.want)
			}
		})
	}
}

func TestForeignKeysAreNotParsed(t *testing.T) {
	for _, key := range []string{
		"", "/", "/calico", ResourceRoot, ResourceRoot + "ippools", ResourceRoot + "ippools/",
		ResourceRoot + "/x", ResourceRoot + "a/b/c/d", ResourceRoot + "ippools/a%2fb", ResourceRoot + "ippools/a%", ResourceRoot + "ip%25pools/a",
		BlockRoot + "ipv4/block/fd00::-122", BlockRoot + "ipv6/block/10.0.0.0-26", BlockRoot + "ipv4/block/10.0.0.0-026",
		BlockRoot + "ipv4/block/10.0.0.0-33", BlockRoot + "ipv4/block/10.0.0.0", HostRoot + "/ipv4/block/10.0.0.0-26",
		HostRoot + "n1/ipv4/block/", HandleRoot, HandleRoot + "a/b", HandleRoot + "%41",
	} {
		if id, ok := ParseResourceKey(key); ok {
			t.Errorf("ParseResourceKey(%q) = %v", key, id)
		}
		if id, ok := ParseBlockKey(key); ok {
			t.Errorf("ParseBlockKey(%q) = %v", key, id)
		}
		if id, ok := ParseAffinityKey(key); ok {
			t.Errorf("ParseAffinityKey(%q) = %v", key, id)
		}
		if id, ok := ParseHandleKey(key); ok {
			t.Errorf("ParseHandleKey(%q) = %v", key, id)
		}
	}
}

func FuzzResourceKeyRoundTrip(f *testing.F) {
	f.Add("ippools", "", "default")
	f.Add("networkpolicies", "a/b", "100%")
	f.Add("profiles", "%2F", "%25%2f/../x")
	f.Fuzz(func(t *testing.T, plural, namespace, name string) {
		if plural == "" || strings.ContainsAny(plural, "/%") || name == "" {
			return
		}
		want := ResourceID{Plural: plural, Namespace: namespace, Name: name}
		got, ok := ParseResourceKey(want.Key())
		if !ok || got != want {
			t.Errorf("ParseResourceKey(%q): %v: %s", want.Key(), ok, cmp.Diff(want, got))
		}
		if !strings.HasPrefix(want.Key(), ResourcePrefix(plural, namespace)) {
			t.Errorf("%q is not below %q", want.Key(), ResourcePrefix(plural, namespace))
		}
	})
}

func FuzzIPAMKeysRoundTrip(f *testing.F) {
	f.Add("n1", "10.0.0.0", 26, false)
	f.Add("a/b", "fd00::1", 122, true)
	f.Add("k8s-pod-network.cid%", "::ffff:10.0.0.1", 128, true)
	f.Fuzz(func(t *testing.T, owner, addr string, bits int, virtual bool) {
		ip, err := netip.ParseAddr(addr)
		if err != nil || owner == "" {
			return
		}
		if cidr, err := ip.WithZone("").Prefix(bits); err == nil {
			if got, ok := ParseBlockKey(BlockKey(cidr)); !ok || got != cidr {
				t.Errorf("ParseBlockKey(%q) = %v, %v", BlockKey(cidr), got, ok)
			}
			want := AffinityID{Virtual: virtual, Owner: owner, CIDR: cidr}
			if got, ok := ParseAffinityKey(want.Key()); !ok || got != want {
				t.Errorf("ParseAffinityKey(%q) = %v, %v", want.Key(), got, ok)
			}
		}
		if got, ok := ParseHandleKey(HandleKey(owner)); !ok || got != owner {
			t.Errorf("ParseHandleKey(%q) = %q, %v", HandleKey(owner), got, ok)
		}
	})
}

func FuzzParseNeverPanics(f *testing.F) {
	f.Add("/calico/resources/v3/projectcalico.org/ippools/x")
	f.Add("/calico/ipam/v2/host/n1/ipv4/block/192.168.40.128-26")
	f.Fuzz(func(t *testing.T, key string) {
		if id, ok := ParseResourceKey(key); ok && id.Key() != key {
			t.Errorf("%q parses as %v, whose key is %q", key, id, id.Key())
		}
		if id, ok := ParseAffinityKey(key); ok && id.Key() != key {
			t.Errorf("%q parses as %v, whose key is %q", key, id, id.Key())
		}
		if id, ok := ParseHandleKey(key); ok && HandleKey(id) != key {
			t.Errorf("%q parses as %q, whose key is %q", key, id, HandleKey(id))
		}
	})
}
