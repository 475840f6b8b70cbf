package kubepolicy

import (
	"reflect"
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
)

const clusterHead = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\nspec:\n"

func TestClusterNetworkPolicyConversion(t *testing.T) {
	o := decode(t, clusterHead+`
  tier: Admin
  priority: 17
  subject: {pods: {namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {app: web}}}}
  ingress:
  - name: from-monitoring
    action: Accept
    from:
    - namespaces: {matchLabels: {kubernetes.io/metadata.name: monitoring}}
    - pods: {namespaceSelector: {}, podSelector: {matchLabels: {role: probe}}}
    protocols:
    - udp: {destinationPort: {number: 53}}
    - tcp: {destinationPort: {range: {start: 80, end: 89}}}
    - tcp: {destinationPort: {number: 90}}
    - destinationNamedPort: metrics
  - action: Deny
    from: [{namespaces: {}}]
  egress:
  - action: Pass
    to: [{networks: [10.0.0.1/8, "fd00::/8"]}]
    protocols: [{sctp: {}}]
`).(*ClusterNetworkPolicy)
	got, errs, ok := Cluster(&o.Spec)
	if !ok || len(errs) > 0 {
		t.Fatal(ok, errs)
	}
	if got.Tier != "kube-admin" || *got.Order != 17 || got.NamespaceSelector != "env == 'prod'" ||
		got.Selector != "projectcalico.org/orchestrator == 'k8s' && app == 'web'" ||
		!reflect.DeepEqual(got.Types, []v3.PolicyType{v3.TypeIngress, v3.TypeEgress}) {
		t.Errorf("%+v", got)
	}
	const monitoring = `"source":{"namespaceSelector":"kubernetes.io/metadata.name == 'monitoring'"}`
	const probe = `"source":{"selector":"projectcalico.org/orchestrator == 'k8s' \u0026\u0026 role == 'probe'","namespaceSelector":"all()"}`
	const name = `"metadata":{"annotations":{"name":"from-monitoring"}}}`
	want := strings.Join([]string{
		`{"action":"Allow",` + monitoring + `,"destination":{"ports":["metrics"]},` + name,
		`{"action":"Allow",` + probe + `,"destination":{"ports":["metrics"]},` + name,
		`{"action":"Allow","protocol":"TCP",` + monitoring + `,"destination":{"ports":["80:90"]},` + name,
		`{"action":"Allow","protocol":"TCP",` + probe + `,"destination":{"ports":["80:90"]},` + name,
		`{"action":"Allow","protocol":"UDP",` + monitoring + `,"destination":{"ports":[53]},` + name,
		`{"action":"Allow","protocol":"UDP",` + probe + `,"destination":{"ports":[53]},` + name,
		`{"action":"Deny","source":{"namespaceSelector":"all()"}}`,
	}, "\n")
	if in := rules(t, got.Ingress); in != want {
		t.Errorf("ingress:\n got %s\nwant %s", in, want)
	}
	want = `{"action":"Pass","protocol":"SCTP","destination":{"nets":["10.0.0.0/8"]}}
{"action":"Pass","protocol":"SCTP","destination":{"nets":["fd00::/8"]}}`
	if out := rules(t, got.Egress); out != want {
		t.Errorf("egress:\n got %s\nwant %s", out, want)
	}
}

func TestClusterNetworkPolicySubjectsAndTypes(t *testing.T) {
	for _, tt := range []struct {
		name, in, tier, namespaces, selector string
		types                                []v3.PolicyType
	}{
		{"all namespaces keep hosts out", "  tier: Baseline\n  priority: 0\n  subject: {namespaces: {}}\n  egress: [{action: Deny, to: [{namespaces: {}}]}]",
			"kube-baseline", "all()", onlyPods, []v3.PolicyType{v3.TypeEgress}},
		{"no rules, no direction", "  tier: Admin\n  priority: 1000\n  subject: {namespaces: {matchExpressions: [{key: a, operator: Exists}]}}",
			"kube-admin", "has(a)", onlyPods, nil},
		{"an accept that matches nothing is no direction", "  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n  ingress: [{action: Accept, from: [{}]}]",
			"kube-admin", "all()", onlyPods, nil},
		{"empty entry of protocols is any", "  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n  ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{}]}]",
			"kube-admin", "all()", onlyPods, []v3.PolicyType{v3.TypeIngress}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _, ok := Cluster(&decode(t, clusterHead+tt.in).(*ClusterNetworkPolicy).Spec)
			if !ok || got.Tier != tt.tier || got.NamespaceSelector != tt.namespaces || got.Selector != tt.selector || !reflect.DeepEqual(got.Types, tt.types) {
				t.Errorf("%v: %+v", ok, got)
			}
		})
	}
}

// TestUnconvertibleDenyAndPassDenyEverything: at their place; an accept is
// dropped, and the rest of the policy is kept.
func TestUnconvertibleDenyAndPassDenyEverything(t *testing.T) {
	ports := func(tcp ClusterPort) []ClusterProtocol {
		return []ClusterProtocol{{TCP: &ClusterPorts{DestinationPort: &tcp}}}
	}
	everyone := []ClusterPeer{{Namespaces: &v3.LabelSelector{}}}
	for _, tt := range []struct {
		name      string
		peers     []ClusterPeer
		protocols []ClusterProtocol
	}{
		{"no peer", nil, nil},
		{"peer of no kind", []ClusterPeer{everyone[0], {}}, nil},
		{"peer of two kinds", []ClusterPeer{{Namespaces: &v3.LabelSelector{}, Pods: &NamespacedPods{}}}, nil},
		{"nodes", []ClusterPeer{{Nodes: &v3.LabelSelector{}}}, nil},
		{"names", []ClusterPeer{{DomainNames: []string{"example.com"}}}, nil},
		{"network", []ClusterPeer{{Networks: []string{"10.0.0.0/40"}}}, nil},
		{"operator", []ClusterPeer{{Namespaces: &v3.LabelSelector{MatchExpressions: []v3.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}}}, nil},
		{"port", everyone, ports(ClusterPort{Number: new(int32(0))})},
		{"range", everyone, ports(ClusterPort{Range: &ClusterPortRange{Start: 9, End: 8}})},
		{"neither", everyone, ports(ClusterPort{})},
		{"two protocols", everyone, []ClusterProtocol{{TCP: &ClusterPorts{}, UDP: &ClusterPorts{}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &ClusterPolicySpec{Tier: "Admin", Priority: new(int32(1)), Subject: everyone[0]}
			for _, action := range []string{"Accept", "Deny", "Pass", "Perhaps"} {
				s.Egress = append(s.Egress, ClusterEgressRule{Action: action, To: tt.peers, Protocols: tt.protocols})
			}
			s.Egress = append(s.Egress, ClusterEgressRule{Action: "Accept", To: everyone})
			got, errs, ok := Cluster(s)
			want := `{"action":"Deny"}
{"action":"Deny"}
{"action":"Deny"}
{"action":"Allow","destination":{"namespaceSelector":"all()"}}`
			if out := rules(t, got.Egress); !ok || out != want || len(errs) < 4 {
				t.Errorf("%v, %v:\n got %s\nwant %s", ok, errs, out, want)
			}
		})
	}
	t.Run("networks as a source", func(t *testing.T) {
		s := &ClusterPolicySpec{Tier: "Admin", Priority: new(int32(1)), Subject: everyone[0], Ingress: []ClusterIngressRule{
			{Action: "Deny", From: []ClusterPeer{{Networks: []string{"10.0.0.0/8"}}}}}}
		if got, errs, _ := Cluster(s); rules(t, got.Ingress) != `{"action":"Deny"}` || len(errs) != 1 {
			t.Errorf("%v: %s", errs, rules(t, got.Ingress))
		}
	})
}

func TestClusterNetworkPolicyWithoutTierOrSubjectIsNone(t *testing.T) {
	for name, in := range map[string]string{
		"tier":          "  tier: Middle\n  priority: 1\n  subject: {namespaces: {}}\n  ingress: [{action: Deny, from: [{namespaces: {}}]}]",
		"subject":       "  tier: Admin\n  priority: 1\n  ingress: [{action: Deny, from: [{namespaces: {}}]}]",
		"two subjects":  "  tier: Admin\n  priority: 1\n  subject: {namespaces: {}, pods: {namespaceSelector: {}, podSelector: {}}}",
		"priority":      "  tier: Admin\n  subject: {namespaces: {}}",
		"subject's key": "  tier: Admin\n  priority: 1\n  subject: {namespaces: {matchLabels: {'a b': c}}}",
	} {
		t.Run(name, func(t *testing.T) {
			if got, errs, ok := Cluster(&decode(t, clusterHead+in).(*ClusterNetworkPolicy).Spec); ok || len(errs) == 0 || len(got.Ingress) > 0 {
				t.Errorf("%v, %v: %+v", ok, errs, got)
			}
		})
	}
}

func TestClusterNetworkPolicyIsValidated(t *testing.T) {
	const good = "  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n"
	for _, tt := range []struct{ name, in, want string }{
		{"sound", good, ""},
		{"priority", "  tier: Admin\n  priority: 1001\n  subject: {namespaces: {}}", "spec.priority: \"1001\": must be from 0 to 1000"},
		{"subject of networks", "  tier: Admin\n  priority: 1\n  subject: {networks: [10.0.0.0/8]}", "spec.subject: must have exactly one of namespaces and pods"},
		{"nodes", good + "  egress: [{action: Accept, to: [{nodes: {}}]}]", "spec.egress[0].to[0].nodes: is not supported"},
		{"named port of a network", good + "  egress: [{action: Accept, to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: a}]}]",
			"spec.egress[0].to[0].networks: must not be set in a rule with destinationNamedPort"},
		{"rules", good + "  egress: [" + strings.Repeat("{action: Deny, to: [{namespaces: {}}]},", 26) + "]", "spec.egress: \"26 entries\": must have at most 25 entries"},
		{"name of a rule", good + "  egress: [{name: " + strings.Repeat("a", 101) + ", action: Deny, to: [{namespaces: {}}]}]", "spec.egress[0].name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			errs := Validate(decode(t, clusterHead+tt.in))
			if tt.want == "" && len(errs) > 0 || tt.want != "" && (len(errs) == 0 || !strings.Contains(errs.Error(), tt.want)) {
				t.Errorf("got %v", errs)
			}
		})
	}
	bad := decode(t, strings.Replace(clusterHead, "name: p", "name: P", 1)+good)
	if errs := Validate(bad); len(errs) == 0 || errs[0].Path != "metadata.name" {
		t.Errorf("name: %v", errs)
	}
}

// TestClusterNames: whatever the name, the policy has one of its own that the
// v3 API accepts.
func TestClusterNames(t *testing.T) {
	long := strings.Repeat("abcdefghi.", 25)
	seen := map[string]string{}
	for _, name := range []string{"p", "a.b", "a-b", "a.b.c", strings.Repeat("x", 63), strings.Repeat("x", 64), long + "a", long + "b"} {
		o := decode(t, strings.Replace(clusterHead, "name: p", "name: "+name, 1)+"  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}")
		got, errs, _ := Stored(o)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		if errs := v3.Validate(got); len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
		}
		if other, taken := seen[got.Meta().Name]; taken {
			t.Errorf("%s and %s are both %s", name, other, got.Meta().Name)
		}
		seen[got.Meta().Name] = name
	}
	if seen["kcnp.p"] != "p" {
		t.Errorf("names: %v", seen)
	}
}
