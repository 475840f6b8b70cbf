package v3

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// keyOf returns the key of an object below the resources' prefix.
func keyOf(o Object) string {
	k, _ := LookupKind(o.Type().Kind)
	if k.Namespaced {
		return k.Plural + "/" + o.Meta().Namespace + "/" + o.Meta().Name
	}
	return k.Plural + "/" + o.Meta().Name
}

func TestInputDefaultsToWhatCalicoStores(t *testing.T) {
	data, err := os.ReadFile("testdata/calico/input.yaml")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := DecodeAll("input.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	if len(docs) != 22 {
		t.Errorf("%d documents", len(docs))
	}
	stored := storedResources(t)
	for _, d := range docs {
		t.Run(keyOf(d.Object), func(t *testing.T) {
			Default(d.Object)
			ours, err := Encode(d.Object)
			if err != nil {
				t.Fatal(err)
			}
			theirs, ok := generic(t, stored[keyOf(d.Object)]).(map[string]any)
			if !ok {
				t.Fatal("not stored by Calico")
			}
			meta := theirs["metadata"].(map[string]any)
			delete(meta, "uid")
			delete(meta, "creationTimestamp")
			if keyOf(d.Object) == "nodes/n1" {
				delete(meta["labels"].(map[string]any), "zone") // by a later command
			}
			if d := cmp.Diff(any(theirs), generic(t, ours)); d != "" {
				t.Errorf("-stored +ours:\n%s", d)
			}
		})
	}
}

func TestStoredResourcesNeedNoDefaults(t *testing.T) {
	for key, value := range storedResources(t) {
		o, err := DecodeStored(value)
		if err != nil {
			t.Fatal(err)
		}
		Default(o)
		again, err := Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(generic(t, value), generic(t, again)); d != "" {
			t.Errorf("%s (-stored +defaulted):\n%s", key, d)
		}
	}
}

func TestTypesInference(t *testing.T) {
	allow := []Rule{{Action: ActionAllow}}
	in, out := []PolicyType{TypeIngress}, []PolicyType{TypeEgress}
	both := []PolicyType{TypeIngress, TypeEgress}
	tests := []struct {
		name            string
		ingress, egress []Rule
		given           []PolicyType
		want            []PolicyType
		wantKubernetes  []PolicyType
	}{
		{"no rules", nil, nil, nil, in, in},
		{"ingress rules", allow, nil, nil, in, in},
		{"egress rules", nil, allow, nil, out, both},
		{"both", allow, allow, nil, both, both},
		{"given", allow, allow, out, out, out},
		{"given without rules", nil, nil, both, both, both},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := NetworkPolicySpec{Ingress: tt.ingress, Egress: tt.egress, Types: tt.given}
			global := GlobalNetworkPolicySpec{Ingress: tt.ingress, Egress: tt.egress, Types: tt.given}
			np, snp := &NetworkPolicy{Spec: spec}, &StagedNetworkPolicy{Spec: StagedNetworkPolicySpec{NetworkPolicySpec: spec}}
			gnp, sgnp := &GlobalNetworkPolicy{Spec: global}, &StagedGlobalNetworkPolicy{Spec: StagedGlobalNetworkPolicySpec{GlobalNetworkPolicySpec: global}}
			sknp := &StagedKubernetesNetworkPolicy{Spec: StagedKubernetesNetworkPolicySpec{
				Ingress: make([]KubernetesIngressRule, len(tt.ingress)), Egress: make([]KubernetesEgressRule, len(tt.egress)), PolicyTypes: tt.given}}
			for _, o := range []Object{np, gnp, snp, sgnp, sknp} {
				Default(o)
			}
			got := [][]PolicyType{np.Spec.Types, gnp.Spec.Types, snp.Spec.Types, sgnp.Spec.Types, sknp.Spec.PolicyTypes}
			want := [][]PolicyType{tt.want, tt.want, tt.want, tt.want, tt.wantKubernetes}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestDefault(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want string
	}{
		{"IPv6 pool",
			`{"kind":"IPPool","spec":{"cidr":"fd00::/64"}}`,
			`{"kind":"IPPool","metadata":{},"spec":{"cidr":"fd00::/64","vxlanMode":"Never","ipipMode":"Never","blockSize":122,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}}`},
		{"pool for some namespaces",
			`{"kind":"IPPool","spec":{"cidr":"10.0.0.0/8","namespaceSelector":"a == 'b'"}}`,
			`{"kind":"IPPool","metadata":{},"spec":{"cidr":"10.0.0.0/8","vxlanMode":"Never","ipipMode":"Never","blockSize":26,"nodeSelector":"all()","namespaceSelector":"a == 'b'","allowedUses":["Workload"],"assignmentMode":"Automatic"}}`},
		{"pool with everything said",
			`{"kind":"IPPool","spec":{"cidr":"10.0.0.0/8","vxlanMode":"Always","blockSize":28,"nodeSelector":"x == 'y'","allowedUses":["Tunnel"],"assignmentMode":"Manual"}}`,
			`{"kind":"IPPool","metadata":{},"spec":{"cidr":"10.0.0.0/8","vxlanMode":"Always","ipipMode":"Never","blockSize":28,"nodeSelector":"x == 'y'","allowedUses":["Tunnel"],"assignmentMode":"Manual"}}`},
		{"tier",
			`{"kind":"Tier","metadata":{"name":"a"}}`,
			`{"kind":"Tier","metadata":{"name":"a"},"spec":{"order":1000000,"defaultAction":"Deny"},"status":{}}`},
		{"built-in tier",
			`{"kind":"Tier","metadata":{"name":"kube-baseline"}}`,
			`{"kind":"Tier","metadata":{"name":"kube-baseline"},"spec":{"order":10000000,"defaultAction":"Pass"},"status":{}}`},
		{"address management",
			`{"kind":"IPAMConfiguration","metadata":{"name":"default"}}`,
			`{"kind":"IPAMConfiguration","metadata":{"name":"default"},"spec":{"strictAffinity":false,"autoAllocateBlocks":true}}`},
		{"agents of one node say nothing unasked",
			`{"kind":"FelixConfiguration","metadata":{"name":"node.a"}}`,
			`{"kind":"FelixConfiguration","metadata":{"name":"node.a"},"spec":{"bpfLogLevel":""}}`},
		{"BGP of one node says nothing unasked",
			`{"kind":"BGPConfiguration","metadata":{"name":"node.a"}}`,
			`{"kind":"BGPConfiguration","metadata":{"name":"node.a"},"spec":{}}`},
		{"label follows the tier",
			`{"kind":"NetworkPolicy","metadata":{"name":"p","labels":{"projectcalico.org/tier":"old","a":"b"},"annotations":{"projectcalico.org/metadata":"{\"name\":\"old\"}"}},"spec":{"tier":"new"}}`,
			`{"kind":"NetworkPolicy","metadata":{"name":"p","labels":{"projectcalico.org/tier":"new","a":"b"},"annotations":{"projectcalico.org/metadata":"{\"name\":\"p\"}"}},"spec":{"tier":"new","types":["Ingress"]}}`},
		{"staged deletion says nothing else",
			`{"kind":"StagedNetworkPolicy","metadata":{"name":"p"},"spec":{"stagedAction":"Delete"}}`,
			`{"kind":"StagedNetworkPolicy","metadata":{"name":"p","labels":{"projectcalico.org/tier":"default"},"annotations":{"projectcalico.org/metadata":"{\"name\":\"p\"}"}},"spec":{"stagedAction":"Delete","tier":"default"}}`},
		{"workload",
			`{"kind":"WorkloadEndpoint","metadata":{"name":"w","namespace":"ns"},"spec":{"orchestrator":"k8s","serviceAccountName":"sa"}}`,
			`{"kind":"WorkloadEndpoint","metadata":{"name":"w","namespace":"ns","labels":{"projectcalico.org/namespace":"ns","projectcalico.org/orchestrator":"k8s","projectcalico.org/serviceaccount":"sa"}},"spec":{"orchestrator":"k8s","serviceAccountName":"sa"}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := DecodeStored([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			o.Type().APIVersion = ""
			for range 2 { // the second time changes nothing
				Default(o)
				got, err := json.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(generic(t, []byte(tt.want)), generic(t, got)); d != "" {
					t.Errorf("-want +got:\n%s", d)
				}
			}
		})
	}
}
