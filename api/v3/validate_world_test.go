package v3

import (
	"strings"
	"testing"
)

// objects decodes documents of a file.
func objects(t testing.TB, text string) Objects {
	t.Helper()
	docs, err := DecodeAll("world.yaml", []byte(strings.ReplaceAll(text, "\n", "\n---\n")))
	if err != nil {
		t.Fatal(err)
	}
	var all Objects
	for _, d := range docs {
		all = append(all, d.Object)
	}
	return all
}

func one(t testing.TB, text string) Object {
	t.Helper()
	all := objects(t, text)
	if len(all) != 1 {
		t.Fatalf("%d objects in %s", len(all), text)
	}
	return all[0]
}

const head = "apiVersion: projectcalico.org/v3, "

func poolText(name, spec string) string {
	return "{" + head + "kind: IPPool, metadata: {name: " + name + "}, spec: {" + spec + "}}"
}

func tierText(name string) string {
	return "{" + head + "kind: Tier, metadata: {name: " + name + "}, spec: {}}"
}

func policyText(name, tier string) string {
	return "{" + head + "kind: NetworkPolicy, metadata: {name: " + name + ", namespace: default}, spec: {tier: " + tier + "}}"
}

func TestValidateCreate(t *testing.T) {
	profile := "{" + head + "kind: Profile, metadata: {name: projectcalico-default-allow}, spec: {}}"
	block := "{" + head + "kind: IPAMBlock, metadata: {name: b}, spec: {cidr: 10.0.0.0/31, allocations: [null, null], unallocated: [0, 1], attributes: []"
	for _, c := range []struct{ name, world, object, want string }{
		{"first pool", "", poolText("a", "cidr: 10.0.0.0/16"), ""},
		{"another pool", poolText("a", "cidr: 10.0.0.0/16"), poolText("b", "cidr: 10.1.0.0/16"), ""},
		{"the same pool again", poolText("a", "cidr: 10.0.0.0/16"), poolText("a", "cidr: 10.0.0.0/16"), ""},
		{"of the other family", poolText("a", "cidr: '::/0'"), poolText("b", "cidr: 10.0.0.0/16"), ""},
		{"equal", poolText("a", "cidr: 10.0.0.0/16"), poolText("b", "cidr: 10.0.0.0/16"), `spec.cidr: "10.0.0.0/16": must not overlap another pool: a has 10.0.0.0/16 (choose another range, or delete that pool first)`},
		{"inside", poolText("a", "cidr: 10.0.0.0/16"), poolText("b", "cidr: 10.0.64.0/18"), `spec.cidr: "10.0.64.0/18": must not overlap another pool: a has 10.0.0.0/16`},
		{"around, IPv6", poolText("a", "cidr: 'fd00::/64'") + "\n" + poolText("b", "cidr: 'fd00:0:0:1::/64'"), poolText("c", "cidr: 'fd00::/48'"), `spec.cidr: "fd00::/48": must not overlap another pool: a has fd00::/64`},
		{"inside a disabled one", poolText("a", "cidr: 10.0.0.0/16, disabled: true"), poolText("b", "cidr: 10.0.64.0/18"), `spec.cidr: `},
		{"invalid by itself", "", poolText("b", "cidr: x"), `spec.cidr: "x": must be a CIDR`},
		{"blocks of its size", block + "}}", poolText("a", "cidr: 10.0.0.0/16, blockSize: 31"), ""},
		{"blocks of another size", block + "}}", poolText("a", "cidr: 10.0.0.0/16"), `spec.blockSize: "26": must be the size of the blocks that exist in the pool's range: 10.0.0.0/31 (set blockSize: 31)`},
		{"blocks elsewhere", block + "}}", poolText("a", "cidr: 10.1.0.0/16"), ""},
		{"deleted blocks", block + ", deleted: true}}", poolText("a", "cidr: 10.0.0.0/16"), ""},

		{"tier that exists", tierText("security"), policyText("p", "security"), ""},
		{"default tier", "", policyText("p", "default"), ""},
		{"tier not said", "", policyText("p", "''"), ""},
		{"built-in tier", "", policyText("p", "kube-admin"), ""},
		{"no such tier", tierText("security"), policyText("p", "secruity"), `spec.tier: "secruity": must be a tier that exists (did you mean security?)`},
		{"no tier at all", "", policyText("p", "security"), `spec.tier: "security": must be a tier that exists (create the tier first)`},
		{"no tier for a staged policy", "", strings.Replace(policyText("p", "a"), "NetworkPolicy", "StagedNetworkPolicy", 1), `spec.tier: "a"`},
		{"no tier for a global policy", "", "{" + head + "kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {tier: a}}", `spec.tier: "a"`},
		{"no tier for a staged global policy", "", "{" + head + "kind: StagedGlobalNetworkPolicy, metadata: {name: p}, spec: {tier: a}}", `spec.tier: "a"`},
		{"built-in profile", "", profile, `metadata.name: "projectcalico-default-allow": must not be written or deleted`},
		{"affinity that is deleted", "", "{" + head + "kind: BlockAffinity, metadata: {name: a}, spec: {state: confirmed, node: n1, cidr: 10.0.0.0/26, deleted: true}}", `spec.deleted: "true": must not be set`},
	} {
		t.Run(c.name, func(t *testing.T) {
			verdict{want: c.want}.check(t, ValidateCreate(one(t, c.object), objects(t, c.world)))
			if c.want != "" && strings.Contains(c.object, "tier") {
				return // an update that leaves the tier alone is fine
			}
			verdict{want: c.want}.check(t, ValidateUpdate(nil, one(t, c.object), objects(t, c.world)))
		})
	}
}

func TestValidateUpdate(t *testing.T) {
	for _, c := range []struct{ name, old, object, want string }{
		{"pool", poolText("a", "cidr: 10.0.0.0/16"), poolText("a", "cidr: 10.0.0.0/16, blockSize: 26, natOutgoing: true"), ""},
		{"pool in canonical form", poolText("a", "cidr: 'fd00:0::/64'"), poolText("a", "cidr: 'fd00::/64', blockSize: 122"), ""},
		{"pool moved", poolText("a", "cidr: 10.0.0.0/16"), poolText("a", "cidr: 10.0.0.0/17"), `spec.cidr: "10.0.0.0/17": must not change: it is 10.0.0.0/16`},
		{"block size", poolText("a", "cidr: 10.0.0.0/16"), poolText("a", "cidr: 10.0.0.0/16, blockSize: 28"), `spec.blockSize: "28": must not change: it is 26`},
		{"block size left out", poolText("a", "cidr: 10.0.0.0/16, blockSize: 28"), poolText("a", "cidr: 10.0.0.0/16"), `spec.blockSize: "26": must not change: it is 28`},
		{"load balancer no longer", poolText("a", "cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]"), poolText("a", "cidr: 10.0.0.0/16, allowedUses: [Workload]"), `spec.allowedUses: "Workload": must stay LoadBalancer`},
		{"another object", poolText("a", "cidr: 10.0.0.0/16"), poolText("b", "cidr: 10.0.0.0/16"), `metadata.name: "b": must be the same object: IPPool a`},
		{"another kind", tierText("a"), poolText("a", "cidr: 10.0.0.0/16"), `metadata.name: "a": must be the same object: Tier a`},
		{"invalid by itself", tierText("a"), "{" + head + "kind: Tier, metadata: {name: a}, spec: {defaultAction: Log}}", `spec.defaultAction`},
		{"policy in a tier that is gone", policyText("p", "gone"), policyText("p", "gone"), ""},
		{"policy to a tier that is not there", policyText("p", "default"), policyText("p", "gone"), `spec.tier: "gone": must be a tier that exists`},
		{"policy to the default tier", policyText("p", "gone"), policyText("p", "''"), ""},
		{"built-in profile", "{" + head + "kind: Profile, metadata: {name: projectcalico-default-allow}, spec: {}}", "{" + head + "kind: Profile, metadata: {name: projectcalico-default-allow}, spec: {}}", "metadata.name: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			verdict{want: c.want}.check(t, ValidateUpdate(one(t, c.old), one(t, c.object), Objects{}))
		})
	}
}

func TestValidateDelete(t *testing.T) {
	world := objects(t, policyText("p", "security")+"\n"+tierText("security")+"\n"+tierText("empty"))
	for _, c := range []struct{ object, want string }{
		{tierText("empty"), ""},
		{tierText("security"), `metadata.name: "security": must not be deleted while a policy is in the tier: NetworkPolicy default/p (delete the policies of the tier first)`},
		{tierText("default"), `metadata.name: "default": must not be deleted: the tier is built in`},
		{tierText("kube-baseline"), `metadata.name: "kube-baseline": must not be deleted`},
		{"{" + head + "kind: Profile, metadata: {name: projectcalico-default-allow}, spec: {}}", `metadata.name: "projectcalico-default-allow": must not be written or deleted`},
		{"{" + head + "kind: Profile, metadata: {name: a}, spec: {}}", ""},
		{poolText("a", "cidr: 10.0.0.0/16"), ""},
	} {
		verdict{want: c.want}.check(t, ValidateDelete(one(t, c.object), world))
	}
}

func TestValidateSet(t *testing.T) {
	for _, c := range []struct {
		name, world, set string
		want             []string // one per object
	}{
		{"pools that overlap: the later is told", "", poolText("a", "cidr: 10.0.0.0/16") + "\n" + poolText("b", "cidr: 10.0.0.0/17"), []string{"", `spec.cidr: "10.0.0.0/17": must not overlap another pool: a has 10.0.0.0/16`}},
		{"pool that exists", poolText("a", "cidr: 10.0.0.0/16"), poolText("b", "cidr: 10.0.0.0/17") + "\n" + poolText("a", "cidr: 10.0.0.0/16, natOutgoing: true"), []string{"spec.cidr: \"10.0.0.0/17\": must not overlap another pool: a has", ""}},
		{"pool that exists and stays", poolText("a", "cidr: 10.0.0.0/16"), poolText("b", "cidr: 10.0.0.0/17"), []string{`spec.cidr: `}},
		{"pool that changes", poolText("a", "cidr: 10.0.0.0/16"), poolText("a", "cidr: 10.0.0.0/16, blockSize: 28"), []string{`spec.blockSize: `}},
		{"the same pool twice", "", poolText("a", "cidr: 10.0.0.0/16") + "\n" + poolText("a", "cidr: 10.1.0.0/16"), []string{"", "spec.cidr: \"10.1.0.0/16\": must not change"}},
		{"tier after its policies", "", policyText("p", "security") + "\n" + tierText("security"), []string{"", ""}},
		{"tier of nobody", "", policyText("p", "security") + "\n" + tierText("other"), []string{`spec.tier: "security"`, ""}},
		{"one bad among others", "", tierText("a") + "\n" + poolText("b", "cidr: x") + "\n" + tierText("c"), []string{"", `spec.cidr: "x"`, ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ValidateSet(objects(t, c.set), objects(t, c.world))
			if len(got) != len(c.want) {
				t.Fatalf("%d results for %d objects", len(got), len(c.want))
			}
			for i := range got {
				verdict{want: c.want[i]}.check(t, got[i])
			}
		})
	}
	if got := ValidateSet([]Object{nil, (*Tier)(nil)}, Objects{}); len(got) != 2 || len(got[0]) != 1 || len(got[1]) != 1 {
		t.Errorf("objects that are none: %v", got)
	}
}
