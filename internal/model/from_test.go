package model

import (
	"encoding/json"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/selector"
)

func parse(t *testing.T, text string) selector.Selector {
	t.Helper()
	s, err := selector.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ptr[T any](v T) *T { return &v }

func TestFromObject(t *testing.T) {
	rack, app := parse(t, "rack == 'r1'"), parse(t, "has(app)")
	tests := []struct {
		name, in string
		want     Value
	}{
		{"node", `{"kind":"Node","metadata":{"name":"n","labels":{"rack":"r1"}},"spec":{"bgp":{"asNumber":"1.10",
			"ipv4Address":"172.30.0.11/16","ipv6Address":"fd00::1/64","routeReflectorClusterID":"244.0.0.1"}}}`,
			&Node{Name: "n", Labels: map[string]string{"rack": "r1"}, AS: 65546,
				Addr4: netip.MustParsePrefix("172.30.0.11/16"), Addr6: netip.MustParsePrefix("fd00::1/64"),
				ClusterID: netip.MustParseAddr("244.0.0.1")}},
		{"node whose subnet is unknown", `{"kind":"Node","metadata":{"name":"n"},"spec":{"bgp":{"ipv4Address":"10.0.0.1"}}}`,
			&Node{Name: "n", Addr4: netip.MustParsePrefix("10.0.0.1/32")}},
		{"node without BGP", `{"kind":"Node","metadata":{"name":"n"},"spec":{}}`, &Node{Name: "n"}},
		{"workload", `{"kind":"WorkloadEndpoint","metadata":{"name":"w","namespace":"ns",
			"labels":{"app":"a","pcns.env":"prod","pcsa.x":"y"}},
			"spec":{"node":"n","orchestrator":"k8s","serviceAccountName":"sa","interfaceName":"cali1","mac":"AA-BB-CC-00-11-22",
			"ipNetworks":["10.0.0.1/32","fd00::1/128","10.0.0.2"],"profiles":["p"],
			"ports":[{"name":"pg","protocol":"TCP","port":5432},{"name":"","protocol":"UDP","port":1,"hostPort":2}]}}`,
			&Workload{ID: ID{KindWorkload, "ns", "w"}, Node: "n", Interface: "cali1", MAC: "aa:bb:cc:00:11:22",
				Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.0.0.2")},
				Labels: map[string]string{"app": "a", "projectcalico.org/namespace": "ns",
					"projectcalico.org/orchestrator": "k8s", "projectcalico.org/serviceaccount": "sa"},
				Profiles: []string{"p"}, Ports: []NamedPort{{"pg", 6, 5432}}}},
		{"host endpoint", `{"kind":"HostEndpoint","metadata":{"name":"h","labels":{"a":"b"}},
			"spec":{"node":"n","interfaceName":"*","expectedIPs":["10.0.0.1","fd00::1"],"profiles":["p"]}}`,
			&HostEndpoint{ID: ID{KindHostEndpoint, "", "h"}, Node: "n", Interface: "*", Labels: map[string]string{"a": "b"},
				Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}, Profiles: []string{"p"}}},
		{"pool", `{"kind":"IPPool","metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/16","natOutgoing":true,
			"ipipMode":"CrossSubnet","vxlanMode":"Never","disabled":true,"disableBGPExport":true,"blockSize":28}}`,
			&Pool{Name: "p", CIDR: netip.MustParsePrefix("10.0.0.0/16"), BlockSize: 28, Encap: IPIP, CrossSubnet: true,
				NATOutgoing: true, Disabled: true, DisableBGPExport: true}},
		{"pool of IPv6 with defaults", `{"kind":"IPPool","metadata":{"name":"p"},"spec":{"cidr":"fd00::/64","vxlanMode":"Always"}}`,
			&Pool{Name: "p", CIDR: netip.MustParsePrefix("fd00::/64"), BlockSize: 122, Encap: VXLAN}},
		{"pool for services", `{"kind":"IPPool","metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/16","allowedUses":["LoadBalancer"]}}`,
			&Pool{Name: "p", CIDR: netip.MustParsePrefix("10.0.0.0/16"), BlockSize: 26, LoadBalancerOnly: true}},
		{"profile", `{"kind":"Profile","metadata":{"name":"p"},"spec":{"labelsToApply":{"a":"b"}}}`,
			&Profile{Name: "p", Labels: map[string]string{"a": "b"}}},
		{"network policy", `{"kind":"NetworkPolicy","metadata":{"name":"p","namespace":"ns1"},"spec":{"selector":"r == 'x'"}}`,
			&Policy{ID: ID{KindPolicy, "ns1", "NetworkPolicy/p"}, Title: "NetworkPolicy ns1/p",
				Selects: parse(t, "(r == 'x') && projectcalico.org/namespace == 'ns1'")}},
		{"global policy", `{"kind":"GlobalNetworkPolicy","metadata":{"name":"p"},"spec":{"selector":"r == 'x'","namespaceSelector":"env == 'prod'"}}`,
			&Policy{ID: ID{KindPolicy, "", "GlobalNetworkPolicy/p"}, Title: "GlobalNetworkPolicy p",
				Selects: parse(t, "(r == 'x') && pcns.env == 'prod'")}},
		{"staged policy", `{"kind":"StagedNetworkPolicy","metadata":{"name":"p","namespace":"ns1"},"spec":{"stagedAction":"Set"}}`,
			&Policy{ID: ID{KindPolicy, "ns1", "StagedNetworkPolicy/p"}, Title: "StagedNetworkPolicy ns1/p", Staged: true,
				Selects: parse(t, "projectcalico.org/namespace == 'ns1'")}},
		{"staged Kubernetes policy", `{"kind":"StagedKubernetesNetworkPolicy","metadata":{"name":"p","namespace":"ns1"},
			"spec":{"podSelector":{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"c","operator":"NotIn","values":["d"]},
			{"key":"e","operator":"Exists"},{"key":"f","operator":"DoesNotExist"},{"key":"g","operator":"In","values":["h","i"]}]}}}`,
			&Policy{ID: ID{KindPolicy, "ns1", "StagedKubernetesNetworkPolicy/p"}, Title: "StagedKubernetesNetworkPolicy ns1/p", Staged: true,
				Selects: parse(t, `(projectcalico.org/orchestrator == "k8s" && a == "b" && c not in {"d"} && has(e) && !has(f) && g in {"h","i"}) && projectcalico.org/namespace == "ns1"`)}},
		{"BGP configuration", `{"kind":"BGPConfiguration","metadata":{"name":"default"},"spec":{"asNumber":64513,"listenPort":1790,
			"nodeToNodeMeshEnabled":false,"bindMode":"NodeIP","nodeMeshMaxRestartTime":"30s","serviceClusterIPs":[{"cidr":"10.96.0.0/12"}],
			"nodeMeshPassword":{"secretKeyRef":{"name":"s","key":"k"}},"communities":[{"name":"c","value":"1:2:3"}],
			"prefixAdvertisements":[{"cidr":"10.0.0.0/8","communities":["c","65535:1"]}]}}`,
			&BGPConfig{Name: "default", AS: 64513, ListenPort: 1790, Mesh: ptr(false), BindNodeIP: true, MeshRestart: 30 * time.Second,
				MeshPassword: "s/k", Services: true, Advertisements: []Advertisement{
					{CIDR: netip.MustParsePrefix("10.0.0.0/8"), Communities: []string{"1:2:3", "65535:1"}}}}},
		{"BGP peer by address", `{"kind":"BGPPeer","metadata":{"name":"p"},"spec":{"nodeSelector":"rack == 'r1'","peerIP":"[fd00::1]:1790",
			"asNumber":65001,"localASNumber":65002,"numAllowedLocalASNumbers":2,"ttlSecurity":3,"filters":["f"],"keepOriginalNextHop":true,
			"password":{"secretKeyRef":{"name":"s","key":"k"}},"sourceAddress":"None","maxRestartTime":"10s","keepaliveTime":"5s",
			"reachableBy":"fd00::2","reversePeering":"Manual","nextHopMode":"Auto"}}`,
			&BGPPeer{Name: "p", Nodes: &rack, Addr: netip.MustParseAddr("fd00::1"), Port: 1790, AS: 65001, LocalAS: 65002, AllowLocalAS: 2,
				TTLSecurity: 3, Filters: []string{"f"}, ReverseManual: true, Options: PeerOptions{Password: "s/k", NoSource: true,
					Restart: 10 * time.Second, Keepalive: 5 * time.Second, KeepNextHop: true, ReachableBy: netip.MustParseAddr("fd00::2")}}},
		{"BGP peer by selectors", `{"kind":"BGPPeer","metadata":{"name":"p"},"spec":{"node":"n","peerSelector":"rack == 'r1'","nextHopMode":"Self"}}`,
			&BGPPeer{Name: "p", Node: "n", Peers: &rack, Options: PeerOptions{NextHopMode: "Self"}}},
		{"BGP peer in a workload", `{"kind":"BGPPeer","metadata":{"name":"p"},"spec":{"localWorkloadSelector":"has(app)","asNumber":65001}}`,
			&BGPPeer{Name: "p", Workloads: &app, AS: 65001}},
		{"cluster", `{"kind":"ClusterInformation","metadata":{"name":"default"},"spec":{"clusterGUID":"x","datastoreReady":false}}`,
			&ClusterInfo{GUID: "x"}},
		{"cluster that says nothing", `{"kind":"ClusterInformation","metadata":{"name":"default"},"spec":{}}`, &ClusterInfo{Ready: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := v3.DecodeStored([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			e, ok, err := FromObject(o)
			if err != nil || !ok || !equal(e.Value, tt.want) {
				t.Errorf("%v, %v:\n got %+v\nwant %+v", ok, err, e.Value, tt.want)
			}
		})
	}
}

// equal compares values; of selectors their meaning, for one parsed from a
// different text remembers it.
func equal(a, b Value) bool {
	if p, ok := a.(*Policy); ok {
		q, ok := b.(*Policy)
		return ok && p.ID == q.ID && p.Title == q.Title && p.Staged == q.Staged && p.Selects.Equal(q.Selects)
	}
	return reflect.DeepEqual(a, b)
}

func TestFromObjectRefuses(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string // in the error
	}{
		{"node address of the wrong family", `{"kind":"Node","metadata":{"name":"n"},"spec":{"bgp":{"ipv4Address":"fd00::1/64"}}}`,
			[]string{"Node n", "spec.bgp.ipv4Address", "fd00::1/64"}},
		{"cluster id", `{"kind":"Node","metadata":{"name":"n"},"spec":{"bgp":{"routeReflectorClusterID":"1"}}}`,
			[]string{"Node n", "spec.bgp.routeReflectorClusterID", `"1"`, "dotted quad"}},
		{"interface that leaves its folder", `{"kind":"WorkloadEndpoint","metadata":{"name":"w","namespace":"ns"},"spec":{"interfaceName":"../x"}}`,
			[]string{"WorkloadEndpoint ns/w", "spec.interfaceName", "../x"}},
		{"interface of dots", `{"kind":"WorkloadEndpoint","metadata":{"name":"w","namespace":"ns"},"spec":{"interfaceName":".."}}`,
			[]string{"spec.interfaceName"}},
		{"interface too long", `{"kind":"WorkloadEndpoint","metadata":{"name":"w","namespace":"ns"},"spec":{"interfaceName":"cali012345678901"}}`,
			[]string{"spec.interfaceName"}},
		{"network for an address", `{"kind":"WorkloadEndpoint","metadata":{"name":"w","namespace":"ns"},"spec":{"ipNetworks":["10.0.0.1/32","10.0.0.0/24"]}}`,
			[]string{"spec.ipNetworks[1]", "10.0.0.0/24"}},
		{"loopback for an address", `{"kind":"WorkloadEndpoint","metadata":{"name":"w","namespace":"ns"},"spec":{"ipNetworks":["127.0.0.1/32"]}}`,
			[]string{"spec.ipNetworks[0]", "127.0.0.1/32"}},
		{"IPv4 in IPv6 clothes", `{"kind":"WorkloadEndpoint","metadata":{"name":"w","namespace":"ns"},"spec":{"ipNetworks":["::ffff:10.0.0.1"]}}`,
			[]string{"spec.ipNetworks[0]"}},
		{"MAC", `{"kind":"WorkloadEndpoint","metadata":{"name":"w","namespace":"ns"},"spec":{"mac":"aa:bb"}}`, []string{"spec.mac", "aa:bb"}},
		{"pool with host bits", `{"kind":"IPPool","metadata":{"name":"p"},"spec":{"cidr":"10.0.0.1/16"}}`, []string{"IPPool p", "spec.cidr"}},
		{"IP in IP over IPv6", `{"kind":"IPPool","metadata":{"name":"p"},"spec":{"cidr":"fd00::/64","ipipMode":"Always"}}`, []string{"spec.ipipMode"}},
		{"peer address", `{"kind":"BGPPeer","metadata":{"name":"p"},"spec":{"peerIP":"10.0.0.1:0"}}`, []string{"BGPPeer p", "spec.peerIP", "10.0.0.1:0"}},
		{"gateway of the other family", `{"kind":"BGPPeer","metadata":{"name":"p"},"spec":{"peerIP":"10.0.0.1","reachableBy":"fd00::1"}}`, []string{"spec.reachableBy"}},
		{"community", `{"kind":"BGPConfiguration","metadata":{"name":"default"},"spec":{"prefixAdvertisements":[{"cidr":"10.0.0.0/8","communities":["nobody"]}]}}`,
			[]string{"spec.prefixAdvertisements[0].communities", "nobody"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := v3.DecodeStored([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			e, ok, err := FromObject(o)
			if _, invalid := e.Value.(*Invalid); !ok || !invalid || err == nil {
				t.Fatalf("taken as %+v, %v", e, err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q: %v", part, err)
				}
			}
		})
	}
}

func TestFromBlock(t *testing.T) {
	a, x := netip.MustParseAddr("10.65.0.1"), netip.MustParseAddr("fd00::2")
	tests := []struct {
		name, cidr, in string
		want           Value // nil: as if gone
	}{
		{"own", "10.65.0.0/30", `{"cidr":"10.65.0.0/30","affinity":"host:h1","allocations":[null,0,null,null],
			"attributes":[{"handle_id":"h","secondary":{"node":"h2"}}],"unallocated":[0,2,3],"deleted":false}`,
			&Block{CIDR: netip.MustParsePrefix("10.65.0.0/30"), Host: "h1", Uses: []Use{{a, "h2", "h"}}}},
		{"of nobody, one address cooling down", "fd00::/126", `{"cidr":"fd00::/126","allocations":[0,null,1,null],
			"attributes":[{"handle_id":null,"secondary":null,"releasedAt":"2026-01-01T00:00:00Z"},{"handle_id":null}]}`,
			&Block{CIDR: netip.MustParsePrefix("fd00::/126"), Uses: []Use{{x, "", ""}}}},
		{"virtual", "10.65.0.0/30", `{"cidr":"10.65.0.0/30","affinity":"virtual:load-balancer","allocations":[],"attributes":[]}`,
			&Block{CIDR: netip.MustParsePrefix("10.65.0.0/30"), Host: "load-balancer", Virtual: true}},
		{"deleted", "10.65.0.0/30", `{"cidr":"10.65.0.0/30","affinity":"host:h1","deleted":true}`, nil},
		{"another CIDR than its key", "10.65.0.0/30", `{"cidr":"10.65.0.4/30"}`, &Invalid{}},
		{"index of nothing", "10.65.0.0/30", `{"cidr":"10.65.0.0/30","allocations":[0],"attributes":[]}`, &Invalid{}},
		{"more addresses than it has", "10.65.0.0/31", `{"cidr":"10.65.0.0/31","allocations":[null,null,null],"attributes":[]}`, &Invalid{}},
		{"owner of no kind", "10.65.0.0/31", `{"cidr":"10.65.0.0/31","affinity":"h1"}`, &Invalid{}},
		{"no JSON", "10.65.0.0/31", `{`, &Invalid{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := FromBlock(netip.MustParsePrefix(tt.cidr), []byte(tt.in))
			if _, refused := tt.want.(*Invalid); refused {
				if _, invalid := e.Value.(*Invalid); !invalid || err == nil || !strings.Contains(err.Error(), "IPAMBlock "+tt.cidr) {
					t.Errorf("taken as %+v, %v", e.Value, err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(e.Value, tt.want) || e.ID != BlockID(netip.MustParsePrefix(tt.cidr)) {
				t.Errorf("%v:\n got %+v\nwant %+v", err, e, tt.want)
			}
		})
	}
}

func TestFromAffinity(t *testing.T) {
	cidr := netip.MustParsePrefix("fd00::/122")
	for _, tt := range []struct {
		name, in string
		want     Value
	}{
		{"confirmed", `{"state":"confirmed","deleted":false}`, &Affinity{Host: "h", CIDR: cidr, Confirmed: true}},
		{"pending", `{"state":"pending"}`, &Affinity{Host: "h", CIDR: cidr}},
		{"going", `{"state":"pendingDeletion"}`, &Affinity{Host: "h", CIDR: cidr}},
		{"deleted", `{"state":"confirmed","deleted":true}`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if e, err := FromAffinity("h", cidr, []byte(tt.in)); err != nil || !reflect.DeepEqual(e.Value, tt.want) {
				t.Errorf("%v: got %+v, want %+v", err, e.Value, tt.want)
			}
		})
	}
	if e, err := FromAffinity("h", cidr, []byte(`{"state":"perhaps"}`)); err == nil || !strings.Contains(err.Error(), "h/fd00::/122") {
		t.Errorf("taken as %+v, %v", e, err)
	}
}

// TestGoldenBlocks reads blocks that Calico's IPAM wrote.
func TestGoldenBlocks(t *testing.T) {
	data, err := os.ReadFile("../../api/v3/testdata/calico/etcd.json")
	if err != nil {
		t.Fatal(err)
	}
	var stored map[string]json.RawMessage
	if err := json.Unmarshal(data, &stored); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string][]Use{
		"ipv4/block/192.168.40.128-26": {{netip.MustParseAddr("192.168.40.128"), "n1", "k8s-pod-network.cid-0001"}},
		"ipv6/block/fd00:10:20:0:5add:9051:4065:cb40-122": {
			{netip.MustParseAddr("fd00:10:20:0:5add:9051:4065:cb40"), "n1", "k8s-pod-network.cid-0001"},
			{netip.MustParseAddr("fd00:10:20:0:5add:9051:4065:cb41"), "n1", "k8s-pod-network.cid-0002"}},
	} {
		cidr := netip.MustParsePrefix(strings.ReplaceAll(key[len("ipv4/block/"):], "-", "/"))
		e, err := FromBlock(cidr, stored["/calico/ipam/v2/assignment/"+key])
		if err != nil {
			t.Fatal(err)
		}
		if b := e.Value.(*Block); b.Host != "n1" || b.Virtual || !reflect.DeepEqual(b.Uses, want) {
			t.Errorf("%s: %+v", key, b)
		}
	}
}

func FuzzFromBlock(f *testing.F) {
	f.Add([]byte(`{"cidr":"10.65.0.0/26","affinity":"host:a","allocations":[0,null],"attributes":[{"handle_id":"x"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		cidr := netip.MustParsePrefix("10.65.0.0/26")
		e, err := FromBlock(cidr, data)
		b, ok := e.Value.(*Block)
		if ok != (err == nil && e.Value != nil) {
			t.Fatalf("%+v, %v", e, err)
		}
		for i := range ok2uses(b) {
			if !cidr.Contains(b.Uses[i].Addr) || i > 0 && !b.Uses[i-1].Addr.Less(b.Uses[i].Addr) {
				t.Fatalf("%+v", b.Uses)
			}
		}
	})
}

func ok2uses(b *Block) []Use {
	if b == nil {
		return nil
	}
	return b.Uses
}
