package cli

import (
	"slices"
	"strings"
	"testing"
)

const kubePolicies = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{ports: [{port: 80}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: no-metadata}
spec:
  tier: Admin
  priority: 5
  subject: {namespaces: {}}
  egress: [{action: Deny, to: [{networks: [169.254.169.254/32]}]}]
`

const toldStored = `networking.k8s.io/v1 NetworkPolicy web: stored as NetworkPolicy(shop/knp.default.web)
policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy no-metadata: stored as GlobalNetworkPolicy(kcnp.no-metadata)
`

// TestKubernetesPoliciesAreStoredConverted from birth to death.
func TestKubernetesPoliciesAreStoredConverted(t *testing.T) {
	w := newWorld(t)
	file := w.file("k.yaml", kubePolicies)
	must := func(want string, args ...string) {
		t.Helper()
		if got := w.run(args...); got.status != 0 || got.stdout != want {
			t.Fatalf("%q: %+v\nwant %q", args, got, want)
		}
	}
	must(toldStored+"Successfully created 2 resource(s)\n", "create", "-f", file, "-n", "shop")
	if keys := w.keys(resources + "networkpolicies/"); !slices.Equal(keys, []string{"shop/knp.default.web"}) {
		t.Errorf("stored %q", keys)
	}
	if keys := w.keys(resources + "globalnetworkpolicies/"); !slices.Equal(keys, []string{"kcnp.no-metadata"}) {
		t.Errorf("stored %q", keys)
	}
	for _, want := range []string{"knp.default.web", "default", "1000"} {
		if got := w.ok("get", "networkpolicy", "-n", "shop", "-o", "wide"); !strings.Contains(got, want) {
			t.Errorf("shown without %q:\n%s", want, got)
		}
	}
	if got := w.ok("get", "-f", file, "-n", "shop", "-o", "name"); got != "networkpolicy.projectcalico.org/knp.default.web\nglobalnetworkpolicy.projectcalico.org/kcnp.no-metadata\n" {
		t.Errorf("named as in the file: %q", got)
	}
	must(toldStored+"Successfully applied 2 resource(s)\n", "apply", "-f", file, "-n", "shop")
	must(toldStored+"Successfully replaced 2 resource(s)\n", "replace", "-f", file, "-n", "shop")
	must(toldStored+"Successfully validated 2 resource(s)\n", "validate", "-f", file, "-n", "shop")
	// What was converted may be carried to another datastore as it is.
	saved := w.file("saved.yaml", w.ok("get", "networkpolicy", "-n", "shop", "-o", "yaml"))
	must("networking.k8s.io/v1 NetworkPolicy web: stored as NetworkPolicy(shop/knp.default.web)\nSuccessfully applied 1 'NetworkPolicy' resource(s)\n", "apply", "-f", saved)
	must("Successfully deleted 1 'NetworkPolicy' resource(s)\n", "delete", "networkpolicy", "knp.default.web", "-n", "shop")
	if got := w.run("delete", "-f", file, "-n", "shop", "--ignore-not-found"); got.status != 0 || len(w.keys(resources+"globalnetworkpolicies/")) != 0 {
		t.Errorf("deleted: %+v", got)
	}
}

// TestNamesOfConvertedPoliciesAreReserved for conversion: a policy that
// somebody else wrote under such a name stays as it is.
func TestNamesOfConvertedPoliciesAreReserved(t *testing.T) {
	w := newWorld(t)
	const np = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: knp.default.web, namespace: shop}\nspec: {}\n"
	const gnp = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: kcnp.no-metadata}\nspec: {}\n"
	w.fails("mirrors a policy of Kubernetes", "apply", "-f", w.file("a.yaml", np))
	w.fails("mirrors a policy of Kubernetes", "apply", "-f", w.file("b.yaml", gnp))
	for key, value := range map[string]string{
		resources + "networkpolicies/shop/knp.default.web":   `{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"knp.default.web","namespace":"shop","uid":"u"},"spec":{}}`,
		resources + "globalnetworkpolicies/kcnp.no-metadata": `{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"kcnp.no-metadata","uid":"u"},"spec":{}}`,
	} {
		if _, err := w.db.Create(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	got := w.run("apply", "-f", w.file("k.yaml", kubePolicies), "-n", "shop")
	if got.status != 1 || strings.Count(got.stderr, "or somebody else gave it this name") != 2 || strings.Contains(got.stdout, "stored") {
		t.Errorf("%+v", got)
	}
}

func TestKubernetesPoliciesAreChecked(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ name, in, want string }{
		{"field", strings.Replace(kubePolicies, "podSelector", "podselector", 1), `document 1: NetworkPolicy web: spec.podselector: unknown field (did you mean "podSelector"?)`},
		{"port", strings.Replace(kubePolicies, "port: 80", "port: 80000", 1), "document 1: NetworkPolicy default/web: spec.ingress[0].ports[0].port: \"80000\": must be from 1 to 65535"},
		{"tier", strings.Replace(kubePolicies, "Admin", "admin", 1), `document 2: ClusterNetworkPolicy no-metadata: spec.tier: "admin": must be Admin or Baseline`},
		{"another version", strings.Replace(kubePolicies, "v1alpha2", "v1alpha1", 1), `apiVersion: "policy.networking.k8s.io/v1alpha1": must be policy.networking.k8s.io/v1alpha2`},
		{"a kind that is no policy", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n", `kind: "Pod": unknown kind`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			w.fails(c.want, "apply", "-f", w.file("k.yaml", c.in))
			if keys := w.keys(resources); len(keys) > 0 {
				t.Errorf("stored %q", keys)
			}
		})
	}
}
