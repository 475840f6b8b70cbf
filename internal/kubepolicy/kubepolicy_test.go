package kubepolicy

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// decode reads one manifest.
func decode(t *testing.T, text string) v3.Object {
	t.Helper()
	docs, err := v3.DecodeWith(Kinds(), "test.yaml", []byte(text))
	if err != nil || len(docs) != 1 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	return docs[0].Object
}

// rules writes rules one a line, for comparing.
func rules(t *testing.T, rules []v3.Rule) string {
	t.Helper()
	var lines []string
	for _, r := range rules {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(b))
	}
	return strings.Join(lines, "\n")
}

// TestKubernetesNetworkPolicyConversion is the documented example, and what is
// said of the edges.
func TestKubernetesNetworkPolicyConversion(t *testing.T) {
	const head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: prod}\nspec:\n"
	tests := []struct {
		name, in string
		selector string // "" for that of the example
		types    []v3.PolicyType
		ingress  string
		egress   string
	}{
		{name: "protocols by peers", in: `
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector: {matchLabels: {role: fe}}
    - namespaceSelector: {matchLabels: {team: a}}
    ports:
    - {protocol: UDP, port: dns}
    - {protocol: TCP, port: 81}
    - {protocol: TCP, port: 80}`,
			selector: "projectcalico.org/orchestrator == 'k8s' && app == 'web'", types: []v3.PolicyType{v3.TypeIngress},
			ingress: `{"action":"Allow","protocol":"TCP","source":{"selector":"projectcalico.org/orchestrator == 'k8s' \u0026\u0026 role == 'fe'"},"destination":{"ports":["80:81"]}}
{"action":"Allow","protocol":"TCP","source":{"selector":"projectcalico.org/orchestrator == 'k8s'","namespaceSelector":"team == 'a'"},"destination":{"ports":["80:81"]}}
{"action":"Allow","protocol":"UDP","source":{"selector":"projectcalico.org/orchestrator == 'k8s' \u0026\u0026 role == 'fe'"},"destination":{"ports":["dns"]}}
{"action":"Allow","protocol":"UDP","source":{"selector":"projectcalico.org/orchestrator == 'k8s'","namespaceSelector":"team == 'a'"},"destination":{"ports":["dns"]}}`},
		{name: "empty from is any source", in: "  ingress: [{from: []}]", ingress: `{"action":"Allow"}`},
		{name: "a rule without anything", in: "  ingress: [{}]", ingress: `{"action":"Allow"}`},
		{name: "a protocol alone is all its ports", in: "  ingress: [{ports: [{protocol: UDP}, {protocol: UDP, port: 53}]}]",
			ingress: `{"action":"Allow","protocol":"UDP"}`},
		{name: "a port alone is of TCP", in: "  ingress: [{ports: [{port: 80}]}]",
			ingress: `{"action":"Allow","protocol":"TCP","destination":{"ports":[80]}}`},
		{name: "endPort is a range, ranges merge", in: "  ingress: [{ports: [{port: 90}, {port: 80, endPort: 89}, {port: 85, endPort: 86}, {port: 92}, {port: http}]}]",
			ingress: `{"action":"Allow","protocol":"TCP","destination":{"ports":["80:90",92,"http"]}}`},
		{name: "empty podSelector is the pods of the own namespace", in: "  ingress: [{from: [{podSelector: {}}]}]",
			ingress: `{"action":"Allow","source":{"selector":"projectcalico.org/orchestrator == 'k8s'"}}`},
		{name: "empty namespaceSelector is all namespaces, no host", in: "  ingress: [{from: [{namespaceSelector: {}}]}]",
			ingress: `{"action":"Allow","source":{"selector":"projectcalico.org/orchestrator == 'k8s'","namespaceSelector":"all()"}}`},
		{name: "ipBlock", in: "  policyTypes: [Egress]\n  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]", types: []v3.PolicyType{v3.TypeEgress},
			egress: `{"action":"Allow","destination":{"nets":["10.0.0.0/8"],"notNets":["10.1.0.0/16"]}}`},
		{name: "egress to a port", in: "  policyTypes: [Egress]\n  egress: [{ports: [{protocol: SCTP, port: 1}]}]", types: []v3.PolicyType{v3.TypeEgress},
			egress: `{"action":"Allow","protocol":"SCTP","destination":{"ports":[1]}}`},
		{name: "labels by key, then expressions", in: `
  podSelector:
    matchLabels: {b: "2", a: "1"}
    matchExpressions:
    - {key: z, operator: In, values: [p, q]}
    - {key: v, operator: NotIn, values: [p]}
    - {key: x, operator: Exists}
    - {key: w, operator: DoesNotExist}`,
			selector: "projectcalico.org/orchestrator == 'k8s' && a == '1' && b == '2' && z in {'p', 'q'} && v not in {'p'} && has(x) && ! has(w)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := decode(t, head+tt.in).(*KubeNetworkPolicy)
			if errs := Validate(o); len(errs) > 0 {
				t.Fatal(errs)
			}
			got, errs := NetworkPolicy(&o.Spec)
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			if tt.selector == "" {
				tt.selector = onlyPods
			}
			if tt.types == nil { // missing is ingress alone
				tt.types = []v3.PolicyType{v3.TypeIngress}
			}
			if got.Tier != "default" || *got.Order != 1000 || got.Selector != tt.selector || !reflect.DeepEqual(got.Types, tt.types) {
				t.Errorf("tier %q, order %v, selector %q, types %v", got.Tier, *got.Order, got.Selector, got.Types)
			}
			if in := rules(t, got.Ingress); in != tt.ingress {
				t.Errorf("ingress:\n got %s\nwant %s", in, tt.ingress)
			}
			if out := rules(t, got.Egress); out != tt.egress {
				t.Errorf("egress:\n got %s\nwant %s", out, tt.egress)
			}
		})
	}
}

// TestUnconvertibleRulesAreDropped also holds a peer with an unreadable block
// to that: it would allow everybody.
func TestUnconvertibleRulesAreDropped(t *testing.T) {
	port := func(p v3.KubernetesPolicyPort) *v3.KubernetesNetworkPolicySpec {
		return &v3.KubernetesNetworkPolicySpec{Ingress: []v3.KubernetesIngressRule{
			{Ports: []v3.KubernetesPolicyPort{p}}, {Ports: []v3.KubernetesPolicyPort{{Port: &v3.IntOrString{Int: 80}}}},
		}}
	}
	peer := func(p v3.KubernetesPolicyPeer) *v3.KubernetesNetworkPolicySpec {
		return &v3.KubernetesNetworkPolicySpec{Ingress: []v3.KubernetesIngressRule{
			{From: []v3.KubernetesPolicyPeer{p}}, {From: []v3.KubernetesPolicyPeer{{PodSelector: &v3.LabelSelector{}}}},
		}}
	}
	bad := &v3.LabelSelector{MatchExpressions: []v3.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
	for _, tt := range []struct {
		name string
		in   *v3.KubernetesNetworkPolicySpec
		want string // path of the error
		left int    // rules that are left
	}{
		{"block", peer(v3.KubernetesPolicyPeer{IPBlock: &v3.IPBlock{CIDR: "10.0.0.0/33"}}), "spec.ingress[0].from[0].ipBlock.cidr", 1},
		{"part of a block", peer(v3.KubernetesPolicyPeer{IPBlock: &v3.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"x"}}}), "spec.ingress[0].from[0].ipBlock.except[0]", 1},
		{"block beside pods", peer(v3.KubernetesPolicyPeer{IPBlock: &v3.IPBlock{CIDR: "10.0.0.0/8"}, PodSelector: &v3.LabelSelector{}}), "spec.ingress[0].from[0].ipBlock", 1},
		{"nobody", peer(v3.KubernetesPolicyPeer{}), "spec.ingress[0].from[0]", 1},
		{"operator", peer(v3.KubernetesPolicyPeer{PodSelector: bad}), "spec.ingress[0].from[0].podSelector.matchExpressions[0].operator", 1},
		{"key", peer(v3.KubernetesPolicyPeer{PodSelector: &v3.LabelSelector{MatchLabels: map[string]string{"a b": "c"}}}), "spec.ingress[0].from[0].podSelector", 1},
		{"value", peer(v3.KubernetesPolicyPeer{PodSelector: &v3.LabelSelector{MatchLabels: map[string]string{"a": `'"`}}}), `spec.ingress[0].from[0].podSelector.matchLabels["a"]`, 1},
		{"protocol", port(v3.KubernetesPolicyPort{Protocol: new("ICMP")}), "spec.ingress[0].ports[0].protocol", 1},
		{"port", port(v3.KubernetesPolicyPort{Port: &v3.IntOrString{Int: 65536}}), "spec.ingress[0].ports[0].port", 1},
		{"end without a start", port(v3.KubernetesPolicyPort{EndPort: new(int32(9))}), "spec.ingress[0].ports[0].endPort", 1},
		{"end before the start", port(v3.KubernetesPolicyPort{Port: &v3.IntOrString{Int: 80}, EndPort: new(int32(79))}), "spec.ingress[0].ports[0].port", 1},
		{"whom it is for", &v3.KubernetesNetworkPolicySpec{PodSelector: *bad, Ingress: []v3.KubernetesIngressRule{{}}}, "spec.podSelector.matchExpressions[0].operator", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, errs := NetworkPolicy(tt.in)
			if len(errs) != 1 || errs[0].Path != tt.want {
				t.Errorf("errors: %v", errs)
			}
			if len(got.Ingress) != tt.left {
				t.Errorf("rules left: %s", rules(t, got.Ingress))
			}
		})
	}
}

// TestManyPortsAreSeveralRules: a list of ports of the v3 API holds fifty.
func TestManyPortsAreSeveralRules(t *testing.T) {
	var ports []v3.KubernetesPolicyPort
	for i := range 120 {
		ports = append(ports, v3.KubernetesPolicyPort{Port: &v3.IntOrString{Int: int32(2*i + 1)}})
	}
	got, errs := NetworkPolicy(&v3.KubernetesNetworkPolicySpec{Ingress: []v3.KubernetesIngressRule{{Ports: ports}}})
	if len(errs) > 0 || len(got.Ingress) != 3 || len(got.Ingress[2].Destination.Ports) != 20 {
		t.Errorf("%v: %s", errs, rules(t, got.Ingress))
	}
}

func TestStored(t *testing.T) {
	o := decode(t, `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: my.policy
  namespace: prod
  uid: 6c9b
  resourceVersion: "17"
  generation: 3
  creationTimestamp: "2026-01-02T03:04:05Z"
  labels: {a: b}
  annotations:
    note: x
    kubectl.kubernetes.io/last-applied-configuration: "{}"
  managedFields:
  - manager: kubectl
    operation: Update
    fieldsV1: {"f:spec": {}}
spec:
  podSelector: {}
  egress: [{}]
status: {}
`)
	got, errs, ok := Stored(o)
	if !ok || len(errs) > 0 {
		t.Fatal(ok, errs)
	}
	p := got.(*v3.NetworkPolicy)
	if p.Name != "knp.default.my.policy" || p.Namespace != "prod" || p.UID != "" || p.ResourceVersion != "" || p.CreationTimestamp != nil ||
		p.Labels["a"] != "b" || p.Annotations["note"] != "x" || len(p.Annotations) != 2 ||
		p.Annotations[SourceAnnotation] != "networking.k8s.io/v1 NetworkPolicy my.policy" {
		t.Errorf("%+v", p.ObjectMeta)
	}
	// What Kubernetes' API server would have written.
	if want := []v3.PolicyType{v3.TypeIngress, v3.TypeEgress}; !reflect.DeepEqual(p.Spec.Types, want) {
		t.Errorf("types %v, want %v", p.Spec.Types, want)
	}
	if errs := v3.Validate(p); len(errs) > 0 {
		t.Error(errs)
	}
	if !Reserved("NetworkPolicy", p.Name) || Reserved("GlobalNetworkPolicy", p.Name) || !Reserved("GlobalNetworkPolicy", "kcnp.x") || Reserved("NetworkPolicy", "kcnp.x") {
		t.Error("names that are reserved are not as documented")
	}
}

func TestStrictDecoding(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"field", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {podselector: {}}",
			`spec.podselector: unknown field (did you mean "podSelector"?)`},
		{"version", "apiVersion: networking.k8s.io/v1beta1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {}", "apiVersion: "},
		{"cluster field", "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: a}\nspec: {teir: Admin}",
			`spec.teir: unknown field (did you mean "tier"?)`},
		{"field of a peer", "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: a}\nspec: {subject: {pod: {}}}",
			`spec.subject.pod: unknown field (did you mean "pods"?)`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := v3.DecodeWith(PolicyKinds(), "f.yaml", []byte(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// FuzzNetworkPolicy: what passes validation converts without loss, into what
// the v3 API accepts.
func FuzzNetworkPolicy(f *testing.F) {
	f.Add([]byte(`{"podSelector":{"matchLabels":{"a":"b"}},"ingress":[{"from":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}}],"ports":[{"port":80,"endPort":90},{"protocol":"UDP","port":"dns"}]}]}`))
	f.Add([]byte(`{"podSelector":{"matchExpressions":[{"key":"a","operator":"NotIn","values":["b"]}]},"egress":[{"to":[{"namespaceSelector":{}},{"podSelector":{}}]}],"policyTypes":["Egress"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var spec v3.KubernetesNetworkPolicySpec
		if json.Unmarshal(data, &spec) != nil {
			return
		}
		o := &KubeNetworkPolicy{Spec: spec}
		o.Name, o.Namespace = "p", "ns"
		valid := len(Validate(o)) == 0
		got, errs, _ := Stored(o)
		if valid && len(errs) > 0 {
			t.Errorf("valid, and yet: %v", errs)
		}
		if p := got.(*v3.NetworkPolicy); valid && len(p.Spec.Ingress)+len(p.Spec.Egress) < 1000 {
			if errs := v3.Validate(p); len(errs) > 0 && !strings.Contains(errs.Error(), "must have at most") {
				t.Errorf("the v3 API refuses: %v", errs)
			}
		}
	})
}
