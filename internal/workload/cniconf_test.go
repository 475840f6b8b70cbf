package workload

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
)

// podCall is an ADD of a pod with annotations, as containerd and CRI-O pass
// them on.
func podCall(t *testing.T, annotations map[string]string, extra string) agentapi.CNIRequest {
	t.Helper()
	notes, err := json.Marshal(annotations)
	if err != nil {
		t.Fatal(err)
	}
	req := cniCall("ADD", "c1", `{"cniVersion":"1.0.0","name":"n","policy":{"type":"k8s"},"ipam":{"type":"calico-ipam","ipv4_pools":["conf"]},
		"runtimeConfig":{"io.kubernetes.cri.pod-annotations":`+string(notes)+`}`+extra+`}`)
	req.Env.Args = "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod"
	return req
}

func TestAnnotations(t *testing.T) {
	base := agentapi.AddRequest{
		Version: agentapi.Version, Orchestrator: "k8s", Network: "n", ContainerID: "c1", Namespace: "ns", Pod: "pod",
		IfName: "eth0", Netns: "/run/netns/w1", Profiles: []string{"kns.ns"}, IPv4Pools: []string{"conf"}, AssignIPv4: true,
	}
	const noIPAM = `,"feature_control":{"ip_addrs_no_ipam":true}`
	for _, tt := range []struct {
		name, key, value, extra string
		want                    func(*agentapi.AddRequest)
		err                     string
	}{
		{name: "nothing", want: func(*agentapi.AddRequest) {}},
		{name: "unknown", key: "podIP", value: "10.0.0.1/32", want: func(*agentapi.AddRequest) {}},
		{name: "pools", key: "ipv4pools", value: `["a","10.0.0.0/8"]`, want: func(r *agentapi.AddRequest) { r.IPv4Pools = []string{"a", "10.0.0.0/8"} }},
		{name: "IPv6 pools", key: "ipv6pools", value: `["fd00::/8"]`, want: func(r *agentapi.AddRequest) { r.IPv6Pools = []string{"fd00::/8"} }},
		{name: "no JSON", key: "ipv4pools", value: `a`, err: "ipv4pools"},
		{name: "no list", key: "ipv6pools", value: `null`, err: "ipv6pools"},
		{name: "IPv6 only", key: "ipFamilies", value: `["IPv6"]`, want: func(r *agentapi.AddRequest) { r.AssignIPv4, r.AssignIPv6 = false, true }},
		{name: "both families", key: "ipFamilies", value: `["IPv6","IPv4"]`, want: func(r *agentapi.AddRequest) { r.AssignIPv6 = true }},
		{name: "no family", key: "ipFamilies", value: `["IPX"]`, err: "IPX"},
		{name: "addresses", key: "ipAddrs", value: `["10.65.0.9","fd00:65::9"]`, want: func(r *agentapi.AddRequest) {
			r.Addresses, r.AssignIPv4 = []string{"10.65.0.9", "fd00:65::9"}, false
		}},
		{name: "no address", key: "ipAddrs", value: `["10.65.0.9/24"]`, err: "10.65.0.9/24"},
		{name: "without IPAM", key: "ipAddrsNoIpam", value: `["192.0.2.9"]`, extra: noIPAM, want: func(r *agentapi.AddRequest) {
			r.Special, r.AssignIPv4 = &agentapi.Special{Given: []string{"192.0.2.9"}}, false
		}},
		{name: "without IPAM, not allowed", key: "ipAddrsNoIpam", value: `["192.0.2.9"]`, err: "ip_addrs_no_ipam"},
		{name: "without IPAM, nothing", key: "ipAddrsNoIpam", value: `[]`, extra: noIPAM, err: "empty"},
		{name: "hardware address", key: "hwAddr", value: "02-00-00-00-00-0A", want: func(r *agentapi.AddRequest) { r.MAC = "02:00:00:00:00:0a" }},
		{name: "no hardware address", key: "hwAddr", value: "01:00:5e:00:00:01", err: "hwAddr"},
		{name: "floating", key: "floatingIPs", value: `["192.0.2.1"]`, err: "does not allow"},
		{name: "floating, allowed", key: "floatingIPs", value: `["192.0.2.1"]`, extra: `,"feature_control":{"floating_ips":true}`, err: "not served"},
		{name: "no floating", key: "floatingIPs", value: `[]`, want: func(*agentapi.AddRequest) {}},
		{name: "sources", key: "allowedSourcePrefixes", value: `["192.0.2.5/24","fd01::1"]`, want: func(r *agentapi.AddRequest) {
			r.Special = &agentapi.Special{AllowedSources: []string{"192.0.2.0/24", "fd01::1/128"}}
		}},
		{name: "no source", key: "allowedSourcePrefixes", value: `["x"]`, err: "allowedSourcePrefixes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, got, err := parseCNI(podCall(t, map[string]string{annotationPrefix + tt.key: tt.value, "other": "x"}, tt.extra))
			if tt.err != "" {
				if codeOf(err) != "invalid" || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			want := base
			tt.want(&want)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
			}
		})
	}
}

func TestAnnotationsTogether(t *testing.T) {
	for other, value := range map[string]string{"ipAddrs": `["10.65.0.9"]`, "ipFamilies": `["IPv4"]`} {
		_, _, err := parseCNI(podCall(t, map[string]string{
			annotationPrefix + other: value, annotationPrefix + "ipAddrsNoIpam": `["10.65.0.8"]`,
		}, `,"feature_control":{"ip_addrs_no_ipam":true}`))
		if err == nil || !strings.Contains(err.Error(), other+" and ") || !strings.Contains(err.Error(), "exclude each other") {
			t.Error(err)
		}
	}
	// The strongest source wins: the runtime, "args", CNI_ARGS.
	req := podCall(t, map[string]string{annotationPrefix + "ipv4pools": `["runtime"]`},
		`,"args":{"cni":{"annotations":{"cni.projectcalico.org/ipv4pools":"[\"args\"]","cni.projectcalico.org/ipv6pools":"[\"args\"]"}}}`)
	req.Env.Args += `;cni.projectcalico.org/ipv6pools=["env"];cni.projectcalico.org/hwAddr=02:00:00:00:00:01`
	_, got, err := parseCNI(req)
	if err != nil || fmt.Sprintf("%v %v %s", got.IPv4Pools, got.IPv6Pools, got.MAC) != "[runtime] [args] 02:00:00:00:00:01" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAnnotationsThatNothingServes(t *testing.T) {
	var log bytes.Buffer
	w := newWorld(t)
	m := w.start(nil)
	m.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	req := podCall(t, map[string]string{"qos.projectcalico.org/dscp": "7", "kubernetes.io/egress-bandwidth": "1M", "a": "b"}, "")
	req.Config = bytes.Replace(req.Config, []byte(`"conf"`), []byte(`"pool-0"`), 1)
	if resp := m.CNI(t.Context(), req); resp.Failed {
		t.Errorf("%s", resp.Output)
	}
	if s := log.String(); strings.Count(s, "WARN") != 2 || !strings.Contains(s, "qos.projectcalico.org/dscp") || !strings.Contains(s, "egress-bandwidth") {
		t.Errorf("the log says %s", s)
	}
}

func TestFieldsOfAConfiguration(t *testing.T) {
	with := func(extra string) agentapi.CNIRequest {
		return cniCall("ADD", "c1", `{"cniVersion":"1.0.0","name":"n","ipam":{"type":"calico-ipam"}`+extra+`}`)
	}
	for _, tt := range []struct{ name, extra, err string }{
		{"of Calico's plugin", `,"datastore_type":"etcdv3","etcd_endpoints":"x","nodename":"n1","nodename_file":"/x","nodename_file_optional":true,
			"ipam_lock_file":"/x","log_level":"info","log_file_max_size":1,"kubernetes":{"kubeconfig":"/x"},"policy":{"type":"","k8s_api_root":"x"},
			"require_mtu_file":true,"endpoint_status_dir":"/x","policy_setup_timeout_seconds":5,"mode":"vxlan","vxlan_vni":7,"calico_api_group":"x",
			"windows_use_single_network":true,"include_default_routes":true,"dataplane_options":{"type":"linux"},"num_queues":4`, ""},
		{"another host's", `,"nodename":"n2"`, `the agent here is \"n1\"`},
		{"negative queues", `,"num_queues":-1`, "num_queues"},
		{"too many queues", `,"num_queues":5000`, "num_queues"},
		{"negative time", `,"policy_setup_timeout_seconds":-1`, "policy_setup_timeout_seconds"},
		{"a gate that is no URL", `,"readiness_gates":["localhost:80"]`, "readiness_gates"},
		{"another dataplane", `,"dataplane_options":{"type":"grpc"}`, "dataplane_options"},
		{"labels that are none", `,"args":{"cni":{"labels":7}}`, "labels"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			resp := w.start(nil).CNI(t.Context(), with(tt.extra))
			if resp.Failed != (tt.err != "") || !strings.Contains(string(resp.Output), tt.err) {
				t.Fatalf("%s", resp.Output)
			}
			del := with(tt.extra) // what cannot be added can be removed
			del.Command = "DEL"
			if resp := w.start(nil).CNI(t.Context(), del); resp.Failed {
				t.Errorf("del: %s", resp.Output)
			}
			w.wantEmpty("after DEL")
		})
	}
}

func TestLabelsOfAConfiguration(t *testing.T) {
	for _, args := range []string{
		`{"cni":{"labels":{"a":"b"}}}`, `{"cni":{"labels":[{"key":"a","value":"b"}]}}`,
		`{"org.apache.mesos":{"network_info":{"labels":{"labels":[{"key":"a","value":"b"}]}}}}`,
	} {
		_, add, err := parseCNI(cniCall("ADD", "c1", `{"name":"n","ipam":{"type":"calico-ipam"},"args":`+args+`}`))
		if err != nil || !reflect.DeepEqual(add.Labels, map[string]string{"a": "b"}) {
			t.Errorf("%s: %v, %v", args, add.Labels, err)
		}
	}
}

// TestGivenAddresses: a pod whose addresses are written down has these, and
// nothing of the pools.
func TestGivenAddresses(t *testing.T) {
	w := newWorld(t)
	m := w.start(nil)
	req := podCall(t, map[string]string{
		annotationPrefix + "ipAddrsNoIpam": `["fd01::9","192.0.2.9"]`, annotationPrefix + "allowedSourcePrefixes": `["198.51.100.0/24"]`,
	}, `,"feature_control":{"ip_addrs_no_ipam":true},"num_queues":2`)
	resp := m.CNI(t.Context(), req)
	if resp.Failed || !strings.Contains(string(resp.Output), `"192.0.2.9/32"`) || strings.Contains(string(resp.Output), "routes") {
		t.Fatalf("%s", resp.Output)
	}
	wep := w.endpoint("ns", "n1-k8s-pod-eth0")
	if fmt.Sprint(wep.Spec.IPNetworks, wep.Spec.AllowSpoofedSourcePrefixes) != "[192.0.2.9/32 fd01::9/128] [198.51.100.0/24]" {
		t.Errorf("the endpoint is %+v", wep.Spec)
	}
	if s := w.state(); len(s.Addresses) != 0 || w.cables.laid[wep.Spec.InterfaceName].Queues != 2 {
		t.Errorf("taken %v, wire %+v", s.Addresses, w.cables.laid)
	}
	req.Command = "DEL"
	if resp := m.CNI(t.Context(), req); resp.Failed {
		t.Errorf("%s", resp.Output)
	}
	w.wantEmpty("after DEL")
	for _, bad := range []agentapi.Special{
		{Given: []string{"192.0.2.9", "192.0.2.10"}}, {Given: []string{"224.0.0.1"}}, {Given: []string{"x"}},
		{Queues: -1}, {Routes: []string{"10.0.0.1/8"}}, {AllowedSources: []string{"x"}},
	} {
		req := request("cni", "bad", len(bad.Given) == 0, false)
		req.Special = &bad
		if _, err := m.Add(t.Context(), req); codeOf(err) != "invalid" {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	w.wantEmpty("after what was refused")
}

func TestReadinessGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		began := time.Now()
		opens := func(context.Context, string) error {
			if asked++; asked < 3 {
				return errors.New("closed")
			}
			return nil
		}
		if err := passGates(t.Context(), []string{"a", "b"}, opens); err != nil || asked != 4 || time.Since(began) != 2*gatePoll {
			t.Errorf("%v after %d questions, %v", err, asked, time.Since(began))
		}
		began = time.Now()
		err := passGates(t.Context(), []string{"a"}, func(context.Context, string) error { return errors.New("closed") })
		if codeOf(err) != "notReady" || time.Since(began) != gateTimeout {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
	answers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/302" {
			w.Header().Set("Location", "/500")
			w.WriteHeader(http.StatusFound)
		} else if r.URL.Path == "/500" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer answers.Close()
	for path, lets := range map[string]bool{"/200": true, "/302": true, "/500": false} {
		if err := askGate(t.Context(), answers.URL+path); (err == nil) != lets {
			t.Errorf("%s: %v", path, err)
		}
	}
}
