package kubepolicy

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// read turns manifests into what they mean.
func read(t *testing.T, text string) Manifests {
	t.Helper()
	docs, err := v3.DecodeWith(Kinds(), "test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Read(docs, "default")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func endpoints(m Manifests) map[string]*v3.WorkloadEndpoint {
	out := map[string]*v3.WorkloadEndpoint{}
	for _, d := range m.Docs {
		if w, ok := d.Object.(*v3.WorkloadEndpoint); ok {
			out[w.Namespace+"/"+w.Spec.Pod] = w
		}
	}
	return out
}

func profiles(m Manifests) map[string]*v3.Profile {
	out := map[string]*v3.Profile{}
	for _, d := range m.Docs {
		if p, ok := d.Object.(*v3.Profile); ok {
			out[p.Name] = p
		}
	}
	return out
}

func TestPodsBecomeEndpoints(t *testing.T) {
	m := read(t, `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {env: prod}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: teller, namespace: shop, labels: {trusted: "yes"}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec:
  nodeName: node-1
  serviceAccountName: teller
  restartPolicy: Always
  initContainers:
  - {name: sidecar, image: x, restartPolicy: Always, ports: [{name: mesh, containerPort: 15001}]}
  - {name: once, image: x, ports: [{name: never, containerPort: 1}]}
  containers:
  - name: web
    image: x
    resources: {limits: {cpu: 1}}
    ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}, {containerPort: 99}]
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}], qosClass: BestEffort}
`)
	w := endpoints(m)["shop/web-1"]
	want := v3.WorkloadEndpointSpec{
		Orchestrator: "k8s", Node: "node-1", Pod: "web-1", Endpoint: "eth0", ServiceAccountName: "teller",
		IPNetworks: []string{"10.0.0.1/32", "fd00::1/128"}, Profiles: []string{"kns.shop", "ksa.shop.teller"},
		Ports: []v3.WorkloadEndpointPort{
			{Name: "http", Protocol: v3.Protocol{Name: "TCP"}, Port: 8080}, {Name: "dns", Protocol: v3.Protocol{Name: "UDP"}, Port: 53},
			{Name: "mesh", Protocol: v3.Protocol{Name: "TCP"}, Port: 15001},
		},
	}
	if w == nil || !reflect.DeepEqual(w.Spec, want) || w.Name != "node--1-k8s-web--1-eth0" || w.Labels["app"] != "web" {
		t.Fatalf("got %+v", w)
	}
	if errs := v3.Validate(w); len(errs) > 0 {
		t.Error(errs)
	}
	ns := profiles(m)["kns.shop"]
	if !reflect.DeepEqual(ns.Spec.LabelsToApply, map[string]string{"pcns.env": "prod", "pcns.projectcalico.org/name": "shop", "pcns.kubernetes.io/metadata.name": "shop"}) ||
		rules(t, ns.Spec.Ingress) != `{"action":"Allow"}` || rules(t, ns.Spec.Egress) != `{"action":"Allow"}` {
		t.Errorf("namespace: %+v", ns)
	}
	sa := profiles(m)["ksa.shop.teller"]
	if !reflect.DeepEqual(sa.Spec, v3.ProfileSpec{LabelsToApply: map[string]string{"pcsa.trusted": "yes", "pcsa.projectcalico.org/name": "teller"}}) {
		t.Errorf("account: %+v", sa)
	}
	for name, p := range profiles(m) {
		if errs := v3.Validate(p); len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
		}
	}
}

// TestAddressesOfPods: the first place that has any decides.
func TestAddressesOfPods(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []string // nil: none
	}{
		{"podIPs", "status: {podIP: 10.0.0.9, podIPs: [{ip: 10.0.0.1}]}", []string{"10.0.0.1/32"}},
		{"podIP", "status: {podIP: 10.0.0.1}", []string{"10.0.0.1/32"}},
		{"annotation of many", "metadata: {annotations: {cni.projectcalico.org/podIPs: '10.0.0.1/32,fd00::1/128', cni.projectcalico.org/podIP: 10.0.0.9/32}}", []string{"10.0.0.1/32", "fd00::1/128"}},
		{"annotation of one", "metadata: {annotations: {cni.projectcalico.org/podIP: 10.0.0.1/32}}", []string{"10.0.0.1/32"}},
		{"annotation of AWS", "metadata: {annotations: {vpc.amazonaws.com/pod-ips: '10.0.0.1'}}", []string{"10.0.0.1/32"}},
		{"asked for", `metadata: {annotations: {cni.projectcalico.org/ipAddrs: '["10.0.0.1"]'}}`, []string{"10.0.0.1/32"}},
		{"none", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := decode(t, "apiVersion: v1\nkind: Pod\n"+tt.in).(*Pod)
			p.Name, p.Namespace = "p", "ns"
			if w, ok := p.Endpoint(); !ok || w.Spec.Node != "unscheduled" || w.Spec.ServiceAccountName != "default" || !slices.Equal(w.Spec.IPNetworks, tt.want) {
				t.Errorf("got %+v", w)
			}
		})
	}
}

// TestPlainManifests have no cluster that would fill in the rest.
func TestPlainManifests(t *testing.T) {
	m := read(t, `
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {containers: [{name: c}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: c, namespace: ns}, status: {podIP: 100.64.0.2}}
- {apiVersion: v1, kind: Pod, metadata: {name: host}, spec: {hostNetwork: true}}
- {apiVersion: v1, kind: Pod, metadata: {name: done}, status: {phase: Failed}}
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny}, spec: {podSelector: {}}}
- {apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: set}, spec: {nets: [10.0.0.0/8]}}
`)
	got := map[string]string{}
	for name, w := range endpoints(m) {
		got[name] = strings.Join(w.Spec.IPNetworks, ",")
		if errs := v3.Validate(w); len(errs) > 0 {
			t.Error(errs)
		}
	}
	want := map[string]string{"default/a": "100.64.0.1/32", "default/b": "100.64.0.3/32", "ns/c": "100.64.0.2/32"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("addresses:\n got %v\nwant %v", got, want)
	}
	var names []string
	for name := range profiles(m) {
		names = append(names, name)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"kns.default", "kns.ns", "ksa.default.default", "ksa.ns.default"}) {
		t.Errorf("profiles: %v", names)
	}
	if len(m.Notes) != 4 {
		t.Errorf("notes: %q", m.Notes)
	}
	var policy *v3.NetworkPolicy
	for _, d := range m.Docs {
		if p, ok := d.Object.(*v3.NetworkPolicy); ok {
			policy = p
		}
	}
	if policy == nil || policy.Name != "knp.default.deny" || policy.Namespace != "default" || len(m.Docs) != 9 {
		t.Errorf("policy %+v of %d documents", policy, len(m.Docs))
	}
}

func TestServices(t *testing.T) {
	m := read(t, `
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: web, tier: x}}
spec: {containers: [{ports: [{name: http, containerPort: 8080}, {name: http, containerPort: 8081, protocol: UDP}]}]}
status: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, labels: {app: db}}, status: {podIP: 10.0.0.2}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: ClusterIP
  selector: {app: web}
  ports: [{name: p, port: 80, targetPort: http}, {port: 443}, {port: 1, targetPort: 2, protocol: SCTP}, {port: 5, targetPort: nothing}]
---
{apiVersion: v1, kind: Service, metadata: {name: outside}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {selector: {app: db}, ports: [{port: 80}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-abc, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.7], conditions: {ready: true}, nodeName: n}
- {addresses: [10.0.0.8], conditions: {ready: false}}
- {addresses: [10.0.0.7]}
ports: [{name: pg, port: 5432, protocol: TCP}, {}]
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: x, labels: {kubernetes.io/service-name: bare}}, addressType: IPv4, endpoints: [{addresses: [10.0.0.9]}], ports: []}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: z, labels: {kubernetes.io/service-name: bare}}, addressType: FQDN, endpoints: [{addresses: [example.com]}], ports: [{port: 1}]}
`)
	four, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	seven, nine := netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("10.0.0.9")
	want := []Ends{
		{"default", "bare", []Backend{{nine, 0, 0}}},
		{"default", "db", []Backend{{seven, 6, 5432}}},
		{"default", "outside", nil},
		{"default", "web", []Backend{{four, 6, 443}, {four, 6, 8080}, {four, 132, 2}, {six, 6, 443}, {six, 6, 8080}, {six, 132, 2}}},
	}
	if !reflect.DeepEqual(m.Services, want) {
		t.Errorf("\n got %+v\nwant %+v", m.Services, want)
	}
}

func TestPolicies(t *testing.T) {
	docs, err := v3.DecodeWith(PolicyKinds(), "f.yaml", []byte(`
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a}, spec: {podSelector: {}, ingress: [{from: [{}]}]}}
---
{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: b}, spec: {tier: Admin, subject: {namespaces: {}}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Policies(docs, "ns")
	for _, want := range []string{
		"f.yaml: document 1: NetworkPolicy ns/a: spec.ingress[0].from[0]: must have one of", "f.yaml: document 2: ClusterNetworkPolicy b: spec.priority: must be set",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}
