package v3

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// verdict is one case of a table: an object in YAML flow style and what is
// wrong with it.
type verdict struct {
	name string
	kind string
	meta string // of metadata but for the namespace; "" for {name: x}
	spec string
	want string // "" when valid; else what the errors say, one a line; the start of each line counts
}

// object decodes what a case says.
func (v verdict) object(t testing.TB) Object {
	t.Helper()
	k, ok := kindNamed(v.kind)
	if !ok {
		t.Fatalf("no kind %s", v.kind)
	}
	meta := v.meta
	if meta == "" {
		meta = "name: x"
		switch v.kind {
		case "IPAMConfiguration", "KubeControllersConfiguration", "ClusterInformation":
			meta = "name: default"
		}
	}
	if k.Namespaced && !strings.Contains(meta, ", namespace:") {
		meta += ", namespace: default"
	}
	text := "apiVersion: projectcalico.org/v3\nkind: " + v.kind + "\nmetadata: {" + meta + "}\nspec: {" + v.spec + "}\n"
	docs, err := DecodeAll("case.yaml", []byte(text))
	if err != nil || len(docs) != 1 {
		t.Fatalf("%s: %d documents, %v", text, len(docs), err)
	}
	return docs[0].Object
}

func (v verdict) check(t *testing.T, got FieldErrors) {
	t.Helper()
	var lines []string
	for _, e := range got {
		lines = append(lines, e.Error())
	}
	want := []string{}
	if v.want != "" {
		want = strings.Split(v.want, "\n")
	}
	if len(lines) != len(want) {
		t.Fatalf("got %d errors:\n%s\nwant:\n%s", len(lines), strings.Join(lines, "\n"), v.want)
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("got  %s\nwant %s", lines[i], want[i])
		}
	}
}

func run(t *testing.T, cases []verdict) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.kind+"/"+c.name, func(t *testing.T) {
			o := c.object(t)
			c.check(t, Validate(o))
			if c.want == "" { // what clients write of their own accord is valid, too
				Default(o)
				c.check(t, Validate(o))
			}
		})
	}
}

// TestGoldenInputIsValid holds the rules to what Calico's own tools accepted:
// the input, and the objects that they stored.
func TestGoldenInputIsValid(t *testing.T) {
	data, err := os.ReadFile("testdata/calico/input.yaml")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := DecodeAll("input.yaml", data)
	if err != nil || len(docs) != 22 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	var objects []Object
	for _, d := range docs {
		if wrong := Validate(d.Object); wrong != nil {
			t.Errorf("%s %s: %v", d.Object.Type().Kind, d.Object.Meta().Name, wrong)
		}
		objects = append(objects, d.Object)
	}
	for i, wrong := range ValidateSet(objects, Objects{}) {
		if wrong != nil {
			t.Errorf("document %d: %v", i+1, wrong)
		}
	}
	for key, value := range storedResources(t) {
		o, err := DecodeStored(value)
		if err != nil {
			t.Fatal(err)
		}
		if wrong := Validate(o); wrong != nil {
			t.Errorf("stored %s: %v", key, wrong)
		}
	}
}

func TestValidateTypes(t *testing.T) {
	pool := func() *IPPool {
		return &IPPool{TypeMeta: typed("IPPool"), ObjectMeta: ObjectMeta{Name: "x"}, Spec: IPPoolSpec{CIDR: "10.0.0.0/16"}}
	}
	if wrong := Validate(nil); len(wrong) != 1 {
		t.Errorf("nil: %v", wrong)
	}
	if wrong := Validate((*IPPool)(nil)); len(wrong) != 1 {
		t.Errorf("a nil pool: %v", wrong)
	}
	o := pool()
	o.TypeMeta = TypeMeta{}
	if wrong := Validate(o); wrong != nil {
		t.Errorf("no type: %v", wrong)
	}
	o = pool()
	o.Kind = "Tier"
	verdict{want: `kind: "Tier": must be IPPool`}.check(t, Validate(o))
	o = pool()
	o.APIVersion = "v1"
	verdict{want: `apiVersion: "v1": must be projectcalico.org/v3`}.check(t, Validate(o))
	verdict{want: `kind: "strange": must be a kind of projectcalico.org/v3`}.check(t, Validate(&strange{TypeMeta: TypeMeta{Kind: "strange"}}))
}

// strange is an Object of no kind of this API.
type strange struct {
	TypeMeta
	ObjectMeta
}

func TestValidateMetadata(t *testing.T) {
	long := strings.Repeat("a", 64)
	const pool, gnp, set = "cidr: 10.0.0.0/16", "", "nets: [10.0.0.0/8]"
	run(t, []verdict{
		{"name", "IPPool", "name: a.b-c.9", pool, ""},
		{"no name", "IPPool", "labels: {a: b}", pool, "metadata.name: must be set"},
		{"capital letters", "IPPool", "name: My_Pool", pool, `metadata.name: "My_Pool": must be at most 253 lower-case letters`},
		{"underscore, with a guess", "Node", "name: node_1", "", `metadata.name: "node_1": must be at most 253 lower-case letters, digits, - and ., and start and end each part between dots with a letter or digit (did you mean node-1?)`},
		{"hyphen at the end", "IPPool", "name: a-", pool, `metadata.name: "a-": must`},
		{"empty part", "IPPool", "name: a..b", pool, `metadata.name: "a..b": must`},
		{"slash", "IPPool", "name: a/b", pool, `metadata.name: "a/b": must`},
		{"longest", "IPPool", "name: " + strings.Repeat("a", 253), pool, ""},
		{"too long", "IPPool", "name: " + strings.Repeat("a", 254), pool, "metadata.name: "},

		{"tier", "Tier", "name: security", "", ""},
		{"tier with a dot", "Tier", "name: a.b", "", `metadata.name: "a.b": must be at most 63 lower-case letters, digits and -`},
		{"tier too long", "Tier", "name: " + long, "", "metadata.name: "},
		{"policy", "NetworkPolicy", "name: allow-web", "", ""},
		{"policy with its tier", "NetworkPolicy", "name: security.allow-web", "", ""},
		{"policy of Kubernetes", "NetworkPolicy", "name: knp.default.my.policy", "", ""},
		{"policy of OpenStack", "NetworkPolicy", "name: ossg.default.sg-1", "", ""},
		{"policy with three parts", "NetworkPolicy", "name: a.b.c", "", `metadata.name: "a.b.c": must be one or two parts`},
		{"policy with capitals", "NetworkPolicy", "name: A.b", "", `metadata.name: "A.b": must be one or two parts with a dot between them, each at most 63 lower-case letters, digits and -, starting and ending with a letter or digit (did you mean a.b?)`},
		{"policy part too long", "NetworkPolicy", "name: a." + long, "", "metadata.name: "},
		{"staged policy with three parts", "StagedNetworkPolicy", "name: a.b.c", "", "metadata.name: "},
		{"global policy with its tier", "GlobalNetworkPolicy", "name: security.x", gnp, ""},
		{"global policy of Kubernetes", "GlobalNetworkPolicy", "name: knp.default.x", gnp, "metadata.name: "},
		{"staged global policy with three parts", "StagedGlobalNetworkPolicy", "name: a.b.c", gnp, "metadata.name: "},
		{"only default counts", "IPAMConfiguration", "name: other", "", `metadata.name: "other": must be default: no other IPAMConfiguration counts`},
		{"only default counts", "KubeControllersConfiguration", "name: other", "", "metadata.name: "},
		{"only default counts", "ClusterInformation", "name: other", "", "metadata.name: "},

		{"namespace on a cluster's kind", "IPPool", "name: x, namespace: default", pool, `metadata.namespace: "default": must not be set: kind IPPool is in no namespace (remove it)`},
		{"no namespace", "NetworkSet", `name: x, namespace: ""`, set, "metadata.namespace: must be set: kind NetworkSet is in a namespace"},
		{"bad namespace", "NetworkSet", "name: x, namespace: a.b", set, `metadata.namespace: "a.b": must be at most 63`},

		{"labels", "NetworkSet", `name: x, labels: {a: b, example.com/a_B.c-d: "", projectcalico.org/tier: x}`, set, ""},
		{"label key", "NetworkSet", "name: x, labels: {-a: b}", set, `metadata.labels.-a: "-a": must be a label key`},
		{"label key with two slashes", "NetworkSet", "name: x, labels: {a/b/c: b}", set, `metadata.labels["a/b/c"]: "a/b/c": must be a label key`},
		{"label key's domain", "NetworkSet", "name: x, labels: {A/b: b}", set, `metadata.labels["A/b"]: "A/b": must be a label key`},
		{"label value", "NetworkSet", `name: x, labels: {a: "b c"}`, set, `metadata.labels.a: "b c": must be empty or at most 63`},
		{"label value too long", "NetworkSet", "name: x, labels: {a: " + long + "}", set, "metadata.labels.a: "},
		{"service account's name may be longer", "WorkloadEndpoint", "name: n1-cni-c1-eth0, labels: {projectcalico.org/serviceaccount: " + long + "}", goodWorkload, ""},
		{"the set's own namespace", "NetworkSet", "name: x, labels: {projectcalico.org/namespace: default}", set, `metadata.labels["projectcalico.org/namespace"]: "default": must not be set`},
		{"the set's own namespace", "GlobalNetworkSet", "name: x, labels: {projectcalico.org/namespace: default}", set, `metadata.labels["projectcalico.org/namespace"]: "default": must not be set`},
		{"the endpoint's own namespace", "WorkloadEndpoint", "name: n1-cni-c1-eth0, labels: {projectcalico.org/namespace: default}", goodWorkload, ""},
		{"a label of a namespace", "NetworkSet", "name: x, labels: {pcns.env: prod}", set, `metadata.labels["pcns.env"]: "prod": must not start with pcns.`},
		{"a label of a namespace", "GlobalNetworkSet", "name: x, labels: {pcns.env: prod}", set, `metadata.labels["pcns.env"]: "prod": must not start with pcns.`},
		{"a label of a namespace", "HostEndpoint", "name: x, labels: {pcns.env: prod}", goodHost, `metadata.labels["pcns.env"]: "prod": must not start with pcns.`},
		{"a label of a service account", "WorkloadEndpoint", "name: n1-cni-c1-eth0, labels: {pcsa.role: db}", goodWorkload, `metadata.labels["pcsa.role"]: "db": must not start with pcsa.`},
		{"labels of other kinds", "IPPool", "name: x, labels: {pcns.env: prod, projectcalico.org/namespace: x}", pool, ""},

		{"annotations", "IPPool", `name: x, annotations: {Example.com/a: "any text\n", b: ""}`, pool, ""},
		{"annotation key", "IPPool", `name: x, annotations: {"a b": x}`, pool, `metadata.annotations["a b"]: "a b": must be an annotation key`},
		{"annotations too long", "IPPool", "name: x, annotations: {a: " + strings.Repeat("a", 256<<10) + "}", pool, `metadata.annotations: "262145 bytes": must be at most 256 KiB`},
		{"DSCP", "HostEndpoint", "name: x, annotations: {qos.projectcalico.org/dscp: EF}", goodHost, ""},
		{"bad DSCP", "HostEndpoint", `name: x, annotations: {qos.projectcalico.org/dscp: "64"}`, goodHost, `metadata.annotations["qos.projectcalico.org/dscp"]: "64": must be a number from 0 to 63`},
	})
}

const (
	goodWorkload = "node: n1, orchestrator: cni, containerID: c1, endpoint: eth0"
	goodHost     = "node: n1, interfaceName: eth0"
)

func TestValidatePools(t *testing.T) {
	run(t, []verdict{
		{"least", "IPPool", "", "cidr: 10.0.0.0/16", ""},
		{"IPv6", "IPPool", "", "cidr: 'fd00::/64', vxlanMode: Always", ""},
		{"all of it", "IPPool", "", `cidr: 10.0.0.0/16, ipipMode: CrossSubnet, vxlanMode: Never, natOutgoing: true, blockSize: 28, nodeSelector: "rack == 'r1'", namespaceSelector: has(x), allowedUses: [Workload], assignmentMode: Manual`, ""},
		{"no CIDR", "IPPool", "", "natOutgoing: true", "spec.cidr: must be set"},
		{"no prefix length", "IPPool", "", "cidr: 10.0.0.1", `spec.cidr: "10.0.0.1": must be a CIDR, with the length of the prefix (write 10.0.0.1/32)`},
		{"not masked", "IPPool", "", "cidr: 10.0.0.1/16", `spec.cidr: "10.0.0.1/16": must have no bits set beyond the length of the prefix (write 10.0.0.0/16)`},
		{"not an address", "IPPool", "", "cidr: pool/16", `spec.cidr: "pool/16": must be a CIDR such as`},
		{"IPv4 as IPv6", "IPPool", "", "cidr: '::ffff:10.0.0.0/112'", `spec.cidr: "::ffff:10.0.0.0/112": must not be an IPv4 address written as IPv6 (write 10.0.0.0/16)`},
		{"CIDR too long", "IPPool", "", "cidr: '" + strings.Repeat("0", 49) + "'", "spec.cidr: "},
		{"bad mode", "IPPool", "", "cidr: 10.0.0.0/16, ipipMode: crosssubnet", `spec.ipipMode: "crosssubnet": must be one of Never, Always, CrossSubnet (did you mean CrossSubnet?)`},
		{"bad mode", "IPPool", "", "cidr: 10.0.0.0/16, vxlanMode: Alwyas", `spec.vxlanMode: "Alwyas": must be one of Never, Always, CrossSubnet (did you mean Always?)`},
		{"mode that is nothing like one", "IPPool", "", "cidr: 10.0.0.0/16, vxlanMode: 'on'", `spec.vxlanMode: "on": must be one of Never, Always, CrossSubnet`},
		{"both encapsulations", "IPPool", "", "cidr: 10.0.0.0/16, ipipMode: Always, vxlanMode: CrossSubnet", `spec.ipipMode: "Always": must be Never when vxlanMode is CrossSubnet (choose one encapsulation)`},
		{"IP in IP for IPv6", "IPPool", "", "cidr: 'fd00::/64', ipipMode: Always", `spec.ipipMode: "Always": must be Never: IP in IP carries IPv4 only (use vxlanMode)`},
		{"link-local", "IPPool", "", "cidr: 169.254.8.0/24", `spec.cidr: "169.254.8.0/24": must not overlap 169.254.0.0/16`},
		{"around link-local", "IPPool", "", "cidr: 168.0.0.0/6", `spec.cidr: "168.0.0.0/6": must not overlap 169.254.0.0/16`},
		{"link-local IPv6", "IPPool", "", "cidr: 'fe80::/64'", `spec.cidr: "fe80::/64": must not overlap fe80::/10`},
		{"smallest block", "IPPool", "", "cidr: 10.0.0.0/16, blockSize: 32", ""},
		{"largest block", "IPPool", "", "cidr: 10.0.0.0/16, blockSize: 20", ""},
		{"block too small", "IPPool", "", "cidr: 10.0.0.0/16, blockSize: 33", `spec.blockSize: "33": must be from 20 to 32`},
		{"block too large", "IPPool", "", "cidr: 10.0.0.0/16, blockSize: 19", `spec.blockSize: "19": must be from 20 to 32`},
		{"block size of IPv4 for IPv6", "IPPool", "", "cidr: 'fd00::/64', blockSize: 26", `spec.blockSize: "26": must be from 116 to 128`},
		{"negative block size", "IPPool", "", "cidr: 10.0.0.0/16, blockSize: -1", `spec.blockSize: "-1": must be from 20 to 32`},
		{"pool of one block", "IPPool", "", "cidr: 10.0.0.0/26", ""},
		{"block larger than the pool", "IPPool", "", "cidr: 10.0.0.0/28, blockSize: 26", `spec.blockSize: "26": must not be a larger block than the pool, which is a /28 (set blockSize to 28 or more, or make cidr /26 or shorter)`},
		{"default block larger than the pool", "IPPool", "", "cidr: 10.0.0.0/27", `spec.blockSize: "26": must not be a larger block than the pool, which is a /27`},
		{"default block larger than the pool, IPv6", "IPPool", "", "cidr: 'fd00::/125'", `spec.blockSize: "122": must not be a larger block than the pool`},
		{"block larger than a disabled pool", "IPPool", "", "cidr: 10.0.0.0/28, disabled: true", ""},
		{"bad selector", "IPPool", "", "cidr: 10.0.0.0/16, nodeSelector: rack = r1", `spec.nodeSelector: "rack = r1": must be a selector: column 6: found "=", expected an operator after the label key "rack": ==, !=, in, not in, contains, starts with or ends with (write == to compare)`},
		{"global()", "IPPool", "", "cidr: 10.0.0.0/16, nodeSelector: global()", `spec.nodeSelector: "global()": must not use global()`},
		{"global() in words", "IPPool", "", `cidr: 10.0.0.0/16, allowedUses: [Workload], namespaceSelector: "a == 'global('"`, `spec.namespaceSelector: "a == 'global('": must not use global()`},
		{"selector too long", "IPPool", "", "cidr: 10.0.0.0/16, nodeSelector: has(" + strings.Repeat("a", 1020) + ")", `spec.nodeSelector: "1025 bytes": must have at most 1024 bytes`},
		{"namespaces of a tunnel", "IPPool", "", "cidr: 10.0.0.0/16, namespaceSelector: has(x), allowedUses: [Workload, Tunnel]", `spec.namespaceSelector: "has(x)": must not be set when allowedUses has Tunnel`},
		{"namespaces, uses not said", "IPPool", "", "cidr: 10.0.0.0/16, namespaceSelector: has(x)", ""},
		{"bad use", "IPPool", "", "cidr: 10.0.0.0/16, allowedUses: [Workloads]", `spec.allowedUses[0]: "Workloads": must be one of Workload, Tunnel, LoadBalancer (did you mean Workload?)`},
		{"empty use", "IPPool", "", "cidr: 10.0.0.0/16, allowedUses: ['']", `spec.allowedUses[0]: must be one of Workload`},
		{"use twice", "IPPool", "", "cidr: 10.0.0.0/16, allowedUses: [Tunnel, Tunnel]", `spec.allowedUses[1]: "Tunnel": must not be in the list twice`},
		{"load balancer", "IPPool", "", "cidr: 10.0.0.0/16, allowedUses: [LoadBalancer], nodeSelector: all()", ""},
		{"load balancer and more", "IPPool", "", "cidr: 10.0.0.0/16, allowedUses: [LoadBalancer, Workload]", `spec.allowedUses: "LoadBalancer, Workload": must not combine LoadBalancer`},
		{"load balancer, all wrong", "IPPool", "", "cidr: 10.0.0.0/16, allowedUses: [LoadBalancer], ipipMode: Always, nodeSelector: has(a), disableBGPExport: true",
			"spec.ipipMode: \"Always\": must be Never when allowedUses\nspec.nodeSelector: \"has(a)\": must be all()\nspec.disableBGPExport: \"true\": must be false"},
		{"load balancer with VXLAN", "IPPool", "", "cidr: 10.0.0.0/16, allowedUses: [LoadBalancer], vxlanMode: Always", `spec.vxlanMode: "Always": must be Never when allowedUses`},
		{"bad assignment", "IPPool", "", "cidr: 10.0.0.0/16, assignmentMode: auto", `spec.assignmentMode: "auto": must be one of Automatic, Manual`},

		{"reservation", "IPReservation", "", "reservedCIDRs: [10.0.0.0/30, 10.1.2.3, 'fd00::/64']", ""},
		{"reservation of nothing", "IPReservation", "", "reservedCIDRs: []", ""},
		{"bad reservation", "IPReservation", "", "reservedCIDRs: [10.0.0.0/30, x]", `spec.reservedCIDRs[1]: "x": must be a CIDR or an IP address`},
		{"reservation twice", "IPReservation", "", "reservedCIDRs: [10.0.0.1, 10.0.0.1/32]", `spec.reservedCIDRs[1]: "10.0.0.1/32": must not be in the list twice`},

		{"affinity", "BlockAffinity", "", "state: confirmed, node: n1, cidr: 10.0.0.0/26, type: virtual", ""},
		{"bad affinity", "BlockAffinity", "", "state: confirm, type: hosts, cidr: 10.0.0.1/26",
			"spec.state: \"confirm\": must be one of confirmed, pending, pendingDeletion (did you mean confirmed?)\nspec.node: must be set\nspec.type: \"hosts\": must be one of host, virtual (did you mean host?)\nspec.cidr: "},
		{"empty affinity", "BlockAffinity", "", "", "spec.state: must be set\nspec.node: must be set\nspec.cidr: must be set"},
		{"block", "IPAMBlock", "", "cidr: 10.0.0.0/31, affinity: 'host:n1', allocations: [0, null], unallocated: [1], attributes: [{handle_id: h}]", ""},
		{"block without CIDR", "IPAMBlock", "", "allocations: []", "spec.cidr: must be set"},
		{"block with a bad affinity", "IPAMBlock", "", "cidr: 10.0.0.0/31, affinity: n1, allocations: [null, null], unallocated: [0, 1]", `spec.affinity: "n1": must be host:NAME or virtual:NAME`},
		{"block too short", "IPAMBlock", "", "cidr: 10.0.0.0/30, allocations: [null], unallocated: [0]", `spec.allocations: "1 entries": must have one entry per address of the block: 4`},
		{"block with bad places", "IPAMBlock", "", "cidr: 10.0.0.0/30, allocations: [0, 1, -1, null], unallocated: [3, 3, 0, 4, -1], attributes: [{handle_id: h}]",
			"spec.allocations[1]: \"1\": must be the place\nspec.allocations[2]: \"-1\": must be the place\nspec.unallocated[1]: \"3\": must not be in the list twice\nspec.unallocated[2]: \"0\": must not be an address that is allocated\nspec.unallocated[3]: \"4\": must be from 0 to 3\nspec.unallocated[4]: \"-1\": must be from 0 to 3"},
		{"handle", "IPAMHandle", "name: k8s-pod-network.ABC", "handleID: k8s-pod-network.ABC, block: {10.0.0.0/26: 1}", ""},
		{"bad handle", "IPAMHandle", "", "block: {10.0.0.0: -1}", "spec.handleID: must be set\nspec.block[\"10.0.0.0\"]: \"10.0.0.0\": must be a CIDR\nspec.block[\"10.0.0.0\"]: \"-1\": must not be negative"},

		{"nothing", "IPAMConfiguration", "", "", ""},
		{"all of it", "IPAMConfiguration", "", "strictAffinity: true, maxBlocksPerHost: 2, autoAllocateBlocks: false, kubeVirtVMAddressPersistence: Disabled, ipCooldownSeconds: 1200", ""},
		{"limit that can be borrowed round", "IPAMConfiguration", "", "maxBlocksPerHost: 2, strictAffinity: false", `spec.maxBlocksPerHost: "2": must be 0 unless strictAffinity is true: a host at its limit would borrow without end (set strictAffinity: true)`},
		{"limit too high", "IPAMConfiguration", "", "strictAffinity: true, maxBlocksPerHost: 1000001", `spec.maxBlocksPerHost: "1000001": must be from 0 to 1000000`},
		{"limit negative", "IPAMConfiguration", "", "maxBlocksPerHost: -1", `spec.maxBlocksPerHost: "-1": must be from 0`},
		{"neither blocks nor borrowing said", "IPAMConfiguration", "", "autoAllocateBlocks: false", `spec.autoAllocateBlocks: "false": must be true unless strictAffinity is true`},
		{"bad word", "IPAMConfiguration", "", "kubeVirtVMAddressPersistence: enabled", `spec.kubeVirtVMAddressPersistence: "enabled": must be one of Enabled, Disabled (did you mean Enabled?)`},
		{"cool-down too long", "IPAMConfiguration", "", "ipCooldownSeconds: 1201", `spec.ipCooldownSeconds: "1201": must be from 0 to 1200`},
		{"GUID", "ClusterInformation", "", "clusterGUID: e51450fce887496fabb2e897e7a0189a, datastoreReady: true", ""},
		{"bad GUID", "ClusterInformation", "", "clusterGUID: my-cluster", `spec.clusterGUID: "my-cluster": must be 32 hexadecimal digits`},
	})
}

// many repeats an entry of a list, with a number for each N in it.
func many(n int, entry string) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strings.ReplaceAll(entry, "N", strconv.Itoa(i)))
	}
	return "[" + b.String() + "]"
}
