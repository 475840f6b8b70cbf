package cli

import (
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// Old names become the same as with calicoctl: what it made of them was
// recorded.
func TestConvertedNames(t *testing.T) {
	for old, want := range map[string]string{
		"abc-def": "abc-def", "abc---def": "abc---def", "Node/1": "node.1", "noD2{": "nod2", "abc$!$def": "abc-def", "$ABC/DEF-123.-456!": "abc.def-123.456", "-.abc..def.": "abc.def",
	} {
		if got := plainName(old); got != want {
			t.Errorf("%s: %s, want %s", old, got, want)
		}
	}
	for _, c := range []struct{ got, want string }{
		{newName("abc"), "abc"}, {newName("nod2.H3P.N/me"), "nod2.h3p.n.me-7188e863"}, {profileName("pRo/le"), "pro.le-b1554692"},
		{profileName("nameyMcProfileName"), "nameymcprofilename-9740ed19"}, {profileName("k8s_ns.my-prof"), "kns.my-prof"}, {profileName("k8s_ns.FlUx-.-CaPaCiToR$$"), "kns.flux.capacitor-a9ad9f16"},
		{policyName("policy1"), "policy1"}, {policyName("nameyMcPolicyName"), "nameymcpolicyname-32df456f"}, {policyName("MaKe.-.MaKe"), "make-make-1b6971c8"}, {policyName("RAWR"), "rawr-03d81e1d"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
	if long := newName(strings.Repeat("a", 300)); len(long) != 253 {
		t.Errorf("%d characters", len(long))
	}
}

// Every kind and field of the old API, in both families.
func TestConvert(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"a peer", "{kind: bgpPeer, apiVersion: v1, metadata: {scope: node, node: Node1, peerIP: 'aa:bb::ff'}, spec: {asNumber: 64514}}",
			"metadata:\n  name: node1.00aa-00bb-0000-0000-0000-0000-0000-00ff\nspec:\n  asNumber: 64514\n  node: node1\n  peerIP: aa:bb::ff\n"},
		{"a peer of all", "{kind: bgpPeer, apiVersion: v1, metadata: {scope: global, peerIP: 10.0.0.1}, spec: {asNumber: '1.10'}}",
			"metadata:\n  name: 10-0-0-1\nspec:\n  asNumber: 65546\n  peerIP: 10.0.0.1\n"},
		{"a host endpoint", "{kind: hostEndpoint, apiVersion: v1, metadata: {name: eth0, node: myhost, labels: {type: production, calico/k8s_ns: x}}, spec: {interfaceName: eth0, expectedIPs: [192.168.0.1, 'fd00::1'], profiles: [k8s_ns.a, B], ports: [{name: ssh, protocol: tcp, port: 22}]}}",
			"metadata:\n  labels:\n    projectcalico.org/namespace: x\n    type: production\n  name: myhost.eth0\nspec:\n  expectedIPs:\n  - 192.168.0.1\n  - fd00::1\n  interfaceName: eth0\n  node: myhost\n  ports:\n  - name: ssh\n    port: 22\n    protocol: TCP\n  profiles:\n  - kns.a\n  - b-ae4f281d\n"},
		{"a pool", "{kind: ipPool, apiVersion: v1, metadata: {cidr: 10.1.0.1/16}, spec: {ipip: {enabled: true, mode: cross-subnet}, nat-outgoing: true, disabled: true}}",
			"metadata:\n  name: 10-1-0-0-16\nspec:\n  cidr: 10.1.0.0/16\n  disabled: true\n  ipipMode: CrossSubnet\n  natOutgoing: true\n"},
		{"a pool of IPv6", "{kind: ipPool, apiVersion: v1, metadata: {cidr: '2001::/112'}}",
			"metadata:\n  name: 2001---112\nspec:\n  cidr: 2001::/112\n  ipipMode: Never\n"},
		{"a node", "{kind: node, apiVersion: v1, metadata: {name: Node-Hostname}, spec: {bgp: {asNumber: 64512, ipv4Address: 10.244.0.1/24, ipv6Address: '2001:db8:85a3::8a2e:370:7334/120'}, orchRefs: [{nodeName: kube, orchestrator: k8s}]}}",
			"metadata:\n  name: node-hostname\nspec:\n  bgp:\n    asNumber: 64512\n    ipv4Address: 10.244.0.1/24\n    ipv6Address: 2001:db8:85a3::8a2e:370:7334/120\n  orchRefs:\n  - nodeName: kube\n    orchestrator: k8s\nstatus: {}\n"},
		{"a policy", `
apiVersion: v1
kind: policy
metadata: {name: allow.tcp, annotations: {a: b}}
spec:
  order: 5
  selector: calico/k8s_ns == 'calico/k8s_ns' && k8s_ns/label/env == "prod"
  preDNAT: true
  ingress:
  - {action: allow, protocol: tcp, source: {selector: role == 'a', tag: web, net: 10.0.0.1/8, nets: [192.0.2.1]}, destination: {ports: [6379, '80:90', http]}}
  - {action: pass, protocol: 17, source: {notSelector: x == '1', notTag: db, notNet: 'fd00::1/8', notPorts: [1]}}
`,
			"metadata:\n  annotations:\n    a: b\n  name: allow-tcp-8e357ea8\nspec:\n  applyOnForward: true\n  ingress:\n  - action: Allow\n    destination:\n      ports:\n      - 6379\n      - 80:90\n      - http\n    protocol: TCP\n    source:\n      nets:\n      - 192.0.2.1/32\n      - 10.0.0.0/8\n      selector: (role == 'a') && web == ''\n" +
				"  - action: Pass\n    protocol: 17\n    source:\n      notNets:\n      - fd00::/8\n      notPorts:\n      - 1\n      notSelector: (x == '1') || db == ''\n  order: 5\n  preDNAT: true\n  selector: projectcalico.org/namespace == 'calico/k8s_ns' && pcns.env == \"prod\"\n  types:\n  - Ingress\n"},
		{"a policy for both", "{kind: policy, apiVersion: v1, metadata: {name: a}, spec: {selector: all(), ingress: [{action: deny, notProtocol: udplite}], egress: [{action: log, protocol: icmp, ipVersion: 4, icmp: {type: 8, code: 0}}]}}",
			"metadata:\n  name: a\nspec:\n  egress:\n  - action: Log\n    icmp:\n      code: 0\n      type: 8\n    ipVersion: 4\n    protocol: ICMP\n  ingress:\n  - action: Deny\n    notProtocol: UDPLite\n  selector: all()\n  types:\n  - Ingress\n  - Egress\n"},
		{"a profile", "{kind: profile, apiVersion: v1, metadata: {name: profile1, labels: {profile: profile1, k8s_ns/label/env: x}, tags: [meep]}, spec: {ingress: [{action: deny, source: {tag: mop}}], egress: [{action: allow}]}}",
			"metadata:\n  name: profile1\nspec:\n  egress:\n  - action: Allow\n  ingress:\n  - action: Deny\n    source:\n      selector: mop == ''\n  labelsToApply:\n    meep: \"\"\n    pcns.env: x\n    profile: profile1\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.stdin = c.in
			got := w.ok(line("convert -f -")...)
			_, got, _ = strings.Cut(got, "\n") // apiVersion
			_, got, _ = strings.Cut(got, "\n") // kind
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// Several come out as an array, which can be read back; what is of v3 comes out
// as it is, without defaults.
func TestConvertSeveral(t *testing.T) {
	w := newWorld(t)
	w.stdin = `- {kind: bgpPeer, apiVersion: v1, metadata: {node: Node1, peerIP: 'aa:bb::ff', scope: node}, spec: {asNumber: 64514}}
- {kind: profile, apiVersion: v1, metadata: {name: a}}
- {kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: p}, spec: {cidr: 10.0.0.0/16}}
- {kind: NetworkPolicy, apiVersion: networking.k8s.io/v1, metadata: {name: k, namespace: shop}, spec: {podSelector: {}}}
`
	for _, format := range []string{"", "-oyaml", "-o=yml", "--output=json"} {
		got := w.ok(append(line("convert -f -"), line(format)...)...)
		docs, err := v3.DecodeAll("x", []byte(got))
		if err != nil || len(docs) != 4 {
			t.Fatalf("%s: %d documents, %v:\n%s", format, len(docs), err, got)
		}
		names := ""
		for _, d := range docs {
			names += d.Object.Type().Kind + " " + d.Object.Meta().Name + ", "
		}
		if names != "BGPPeer node1.00aa-00bb-0000-0000-0000-0000-0000-00ff, Profile a, IPPool p, NetworkPolicy knp.default.k, " {
			t.Errorf("%s: %s", format, names)
		}
		if strings.Contains(got, "blockSize") {
			t.Errorf("%s: defaults were filled in:\n%s", format, got)
		}
	}
	// What was converted can be applied.
	out := w.ok(line("convert -f -")...)
	w.stdin = out
	applied(w)
}

func TestConvertRefuses(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"{kind: workloadEndpoint, apiVersion: v1, metadata: {name: eth0, workload: default.a, node: n}, spec: {mac: x}}", "cannot be converted: whoever sets up the workload"},
		{"{kind: ipPool, apiVersion: v1, metadata: {cidr: 10.0.0.0/16}, spec: {ipip: {mode: always}}}", "spec.ipip.enabled: must be true or false"},
		{"{kind: ipPool, apiVersion: v1, metadata: {cidr: 'fd00::/64'}, spec: {ipip: {enabled: true}}}", "spec.ipipMode"},
		{"{kind: ipPool, apiVersion: v1, metadata: {cidr: x}}", "metadata.cidr: \"x\": must be a CIDR"},
		{"{kind: ipPool, apiVersion: v1, metadata: {cidr: 10.0.0.0/16}, spec: {natOutgoing: true}}", "spec.natOutgoing: unknown field"},
		{"{kind: bgpPeer, apiVersion: v1, metadata: {scope: global, node: n, peerIP: 10.0.0.1}, spec: {asNumber: 1}}", "metadata.node"},
		{"{kind: bgpPeer, apiVersion: v1, metadata: {scope: node, peerIP: 10.0.0.1}, spec: {asNumber: 1}}", "metadata.node"},
		{"{kind: bgpPeer, apiVersion: v1, metadata: {scope: global}, spec: {asNumber: 1}}", "metadata.peerIP"},
		{"{kind: policy, apiVersion: v1, metadata: {name: a}, spec: {types: [up]}}", "spec.types[0]: \"up\": must be one of ingress, egress"},
		{"{kind: policy, apiVersion: v1, metadata: {name: a}, spec: {ingress: [{action: allow, source: {nets: [1.2.3.4/40]}}]}}", "spec.ingress[0].source.nets[0]"},
		{"{kind: policy, apiVersion: v1, metadata: {name: a}, spec: {ingress: [{action: maybe}]}}", "spec.ingress[0].action"},
		{"{kind: policy, apiVersion: v1, metadata: {name: a}, spec: {selector: 'a ==='}}", "spec.selector"},
		{"{kind: policy, apiVersion: v1, spec: {}}", "metadata.name: must be given"},
		{"{kind: profile, apiVersion: v1, metadata: {name: a, labels: {x: '1'}, tags: [x]}}", "metadata.tags[0]: \"x\": is a label too"},
		{"{kind: policies, apiVersion: v1, metadata: {name: a}}", "unknown kind"},
		{"{kind: profile, apiVersion: v1, metadata: {name: a}}\n---\n{kind: profile, apiVersion: v1, metadata: {name: a}}", "is given twice"},
	} {
		w := newWorld(t)
		w.stdin = c.in
		w.fails(c.want, line("convert -f -")...)
	}
	w := newWorld(t)
	w.stdin = "{kind: ipPool, apiVersion: v1, metadata: {cidr: 'fd00::/64'}, spec: {ipip: {enabled: true}}}"
	if got := w.ok(line("convert -f - --ignore-validation")...); !strings.Contains(got, "ipipMode: Always") {
		t.Errorf("%s", got)
	}
	w.fails("must be yaml or json", line("convert -f - -o wide")...)
}
