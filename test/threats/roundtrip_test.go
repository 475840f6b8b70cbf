package threats

import (
	"fmt"
	"reflect"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// TestThreat19RoundTrip writes policies to a datastore and reads them back:
// they mean what they meant, also where something is empty, or is not there.
// It is not about packets, and so not about their families.
func TestThreat19RoundTrip(t *testing.T) {
	rules := []string{
		"{action: Allow}", "{action: Deny}", "{action: Pass}", "{action: Log}",
		"{action: Allow, source: {}}", "{action: Allow, source: {}, destination: {}}",
		"{action: Allow, source: {nets: []}}", "{action: Allow, source: {notNets: []}}", "{action: Allow, source: {nets: [10.0.0.0/8], notNets: []}}",
		`{action: Allow, source: {selector: ""}}`, `{action: Allow, source: {selector: "all()"}}`, `{action: Allow, source: {notSelector: ""}}`,
		`{action: Allow, source: {namespaceSelector: ""}}`, `{action: Allow, source: {namespaceSelector: "global()"}}`, `{action: Allow, source: {selector: "!all()"}}`,
		"{action: Allow, source: {serviceAccounts: {}}}", "{action: Allow, source: {serviceAccounts: {names: []}}}", `{action: Allow, source: {serviceAccounts: {selector: ""}}}`,
		"{action: Allow, protocol: TCP, destination: {ports: []}}", "{action: Allow, protocol: TCP, destination: {notPorts: []}}", "{action: Allow, protocol: TCP, destination: {ports: [0, \"1:65535\", http]}}",
		"{action: Allow, protocol: ICMP, icmp: {}}", "{action: Allow, protocol: ICMP, icmp: {type: 0}}", "{action: Allow, protocol: ICMP, icmp: {type: 0, code: 0}}", "{action: Allow, protocol: ICMP, notICMP: {type: 0, code: 0}}",
		"{action: Allow, protocol: 6}", "{action: Allow, protocol: 255}", "{action: Allow, notProtocol: 1}", "{action: Allow, ipVersion: 4}", "{action: Allow, ipVersion: 6}",
		"{action: Allow, protocol: TCP, http: {}}", "{action: Allow, protocol: TCP, http: {methods: []}}", "{action: Deny, protocol: TCP, http: {paths: []}}",
		"{action: Allow, source: {nets: [0.0.0.0/0]}}", "{action: Allow, source: {nets: [\"::/0\"]}}", "{action: Allow, source: {notNets: [0.0.0.0/0]}}", "{action: Allow, source: {nets: [10.0.0.1]}}",
		"{action: Allow, destination: {services: {name: a, namespace: b}}}", "{action: Allow, metadata: {annotations: {}}}",
	}
	var docs []string
	policy := func(kind, meta, spec string) {
		docs = append(docs, fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: %s\nmetadata: {name: p%d%s}\nspec: {%s}\n", kind, len(docs), meta, spec))
	}
	for _, kind := range []string{"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"} {
		meta := ""
		if kind == "NetworkPolicy" || kind == "StagedNetworkPolicy" {
			meta = ", namespace: default"
		}
		for _, r := range rules {
			policy(kind, meta, "ingress: ["+r+"]")
			policy(kind, meta, "egress: ["+r+"], types: [Egress]")
		}
		for _, spec := range []string{
			"", "types: []", "types: [Ingress]", "types: [Egress]", "types: [Ingress, Egress]", "ingress: []", "egress: []", "ingress: [], types: []", "ingress: [], egress: []",
			`selector: ""`, "selector: all()", `selector: "!all()"`, "order: 0", "order: -1", "order: 1e300", "order: null", "order: 65536", "order: 1.25", `serviceAccountSelector: ""`,
			"ingress: [{action: Allow}], egress: []", "ingress: [{action: Allow}], types: [Egress]",
		} {
			policy(kind, meta, spec)
		}
	}
	for _, spec := range []string{"", "nets: []", "nets: [0.0.0.0/0, \"::/0\"]", "nets: [10.0.0.1]"} {
		policy("GlobalNetworkSet", ", labels: {}", spec)
		policy("NetworkSet", ", namespace: default", spec)
	}
	for _, spec := range []string{"", "ingress: []", "ingress: [{action: Deny}], egress: []", "labelsToApply: {}", `labelsToApply: {a: ""}`} {
		policy("Profile", "", spec)
	}
	for _, spec := range []string{"", "order: 0", "order: null", "defaultAction: Pass", "defaultAction: Deny", "order: -5.5"} {
		policy("Tier", "", spec)
	}
	refused := 0
	for _, doc := range docs {
		objects, err := v3.DecodeAll("test", []byte(doc))
		if err != nil || len(objects) != 1 {
			t.Fatalf("%v in\n%s", err, doc)
		}
		c := client.New(mem.New(), client.Config{})
		o := objects[0].Object
		stored, err := c.Create(t.Context(), o)
		if err != nil {
			refused++
			t.Logf("refused: %v", err)
			continue
		}
		kind, ok := v3.LookupKind(stored.Type().Kind)
		if !ok {
			t.Fatalf("no kind %s", stored.Type().Kind)
		}
		read, err := c.Get(t.Context(), kind, stored.Meta().Namespace, stored.Meta().Name)
		if err != nil {
			t.Fatal(err)
		}
		v3.Default(o)
		want, _, err := model.FromObject(o)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := model.FromObject(read)
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := want.Value.(*model.Policy); ok {
			p.LastWriter = got.Value.(*model.Policy).LastWriter // when it was written is no matter of meaning
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("stored and read again\n%s\nmeans %+v, and meant %+v", doc, got.Value, want.Value)
		}
	}
	if refused > len(docs)/5 {
		t.Errorf("%d of %d were refused: the test proves little", refused, len(docs))
	}
}
