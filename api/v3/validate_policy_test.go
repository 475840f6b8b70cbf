package v3

import (
	"strings"
	"testing"
)

func TestValidatePolicies(t *testing.T) {
	long := "has(" + strings.Repeat("a", 1020) + ")"
	run(t, []verdict{
		{"nothing", "NetworkPolicy", "", "", ""},
		{"all of it", "NetworkPolicy", "", `tier: security, order: 1.5, selector: "app == 'db'", serviceAccountSelector: has(role), types: [Ingress, Egress], performanceHints: [AssumeNeededOnEveryNode], ingress: [{action: Allow}], egress: [{action: Log}, {action: Pass}]`, ""},
		{"empty lists", "NetworkPolicy", "", `selector: "", types: [], ingress: [], egress: [], performanceHints: []`, ""},
		{"bad tier", "NetworkPolicy", "", "tier: a.b", `spec.tier: "a.b": must be at most 63`},
		{"bad selector", "NetworkPolicy", "", `selector: "app == db"`, `spec.selector: "app == db": must be a selector: column 8: found "db", expected a value in quotes after == (put the value in quotes: "db")`},
		{"global()", "NetworkPolicy", "", `selector: global()`, `spec.selector: "global()": must not use global()`},
		{"long selector", "NetworkPolicy", "", "selector: " + long, `spec.selector: "1025 bytes"`},
		{"global() accounts", "NetworkPolicy", "", `serviceAccountSelector: global()`, `spec.serviceAccountSelector: "global()": must not use`},
		{"bad type", "NetworkPolicy", "", "types: [ingress]", `spec.types[0]: "ingress": must be one of Ingress, Egress (did you mean Ingress?)`},
		{"empty type", "NetworkPolicy", "", "types: ['']", `spec.types[0]: must be one of Ingress, Egress`},
		{"type twice", "NetworkPolicy", "", "types: [Ingress, Ingress]", `spec.types[1]: "Ingress": must not be in the list twice`},
		{"three types", "NetworkPolicy", "", "types: [Ingress, Egress, Ingress]", "spec.types: \"3 entries\": must have at most 2 entries\nspec.types[2]: \"Ingress\""},
		{"bad hint", "NetworkPolicy", "", "performanceHints: [Fast]", `spec.performanceHints[0]: "Fast": must be AssumeNeededOnEveryNode`},
		{"hint twice", "NetworkPolicy", "", "performanceHints: [AssumeNeededOnEveryNode, AssumeNeededOnEveryNode]", `spec.performanceHints[1]`},
		{"most rules", "NetworkPolicy", "", "ingress: " + many(1024, "{action: Deny}"), ""},
		{"too many rules", "NetworkPolicy", "", "egress: " + many(1025, "{action: Deny}"), `spec.egress: "1025 rules": must have at most 1024 rules`},
		{"services in its own namespace", "NetworkPolicy", "", "egress: [{action: Allow, destination: {services: {name: db}}}]", ""},

		{"all of it", "GlobalNetworkPolicy", "", `tier: security, order: -1, selector: all(), namespaceSelector: "env == 'prod'", serviceAccountSelector: has(role), types: [Egress], applyOnForward: true`, ""},
		{"global() namespaces", "GlobalNetworkPolicy", "", `namespaceSelector: global()`, `spec.namespaceSelector: "global()": must not use global() (global() has a meaning only as the namespaceSelector of a rule)`},
		{"untracked", "GlobalNetworkPolicy", "", "doNotTrack: true, applyOnForward: true", ""},
		{"untracked, not forwarded", "GlobalNetworkPolicy", "", "doNotTrack: true", `spec.doNotTrack: "true": must be false unless applyOnForward is true (set applyOnForward: true)`},
		{"before DNAT", "GlobalNetworkPolicy", "", "preDNAT: true, applyOnForward: true, types: [Ingress]", ""},
		{"before DNAT, not forwarded", "GlobalNetworkPolicy", "", "preDNAT: true", `spec.preDNAT: "true": must be false unless applyOnForward`},
		{"both", "GlobalNetworkPolicy", "", "preDNAT: true, doNotTrack: true, applyOnForward: true", `spec.preDNAT: "true": must be false when doNotTrack is true (make two policies)`},
		{"before DNAT, going out", "GlobalNetworkPolicy", "", "preDNAT: true, applyOnForward: true, types: [Ingress, Egress], egress: [{action: Allow}]",
			"spec.egress: \"1 rule\": must be empty when preDNAT is true\nspec.types[1]: \"Egress\": must not be Egress when preDNAT is true"},
		{"services without namespace", "GlobalNetworkPolicy", "", "egress: [{action: Allow, destination: {services: {name: db}}}]", `spec.egress[0].destination.services.namespace: must be set where the policy itself is in no namespace`},

		{"set", "StagedNetworkPolicy", "", "stagedAction: Set, selector: all()", ""},
		{"bad action", "StagedNetworkPolicy", "", "stagedAction: Sett", `spec.stagedAction: "Sett": must be one of Set, Delete, Learn, Ignore (did you mean Set?)`},
		{"bad rule", "StagedNetworkPolicy", "", "ingress: [{}]", `spec.ingress[0].action: must be one of Allow, Deny, Log, Pass`},
		{"delete", "StagedNetworkPolicy", "", "stagedAction: Delete, tier: security", ""},
		{"delete, empty lists", "StagedNetworkPolicy", "", "stagedAction: Delete, types: [], ingress: []", ""},
		{"delete and more", "StagedNetworkPolicy", "", "stagedAction: Delete, selector: all(), order: 1", "spec.order: must not be set when stagedAction is Delete\nspec.selector: must not be set when stagedAction is Delete (remove it)"},
		{"learn", "StagedGlobalNetworkPolicy", "", "stagedAction: Learn, namespaceSelector: all()", ""},
		{"delete and more", "StagedGlobalNetworkPolicy", "", "stagedAction: Delete, doNotTrack: true, tier: A", "spec.doNotTrack: must not be set\nspec.tier: \"A\": must be at most 63"},
		{"bad flags", "StagedGlobalNetworkPolicy", "", "doNotTrack: true", "spec.doNotTrack: "},

		{"tier", "Tier", "", "order: 100, defaultAction: Pass", ""},
		{"tier with nothing", "Tier", "", "", ""},
		{"tier with a bad action", "Tier", "", "defaultAction: Allow", `spec.defaultAction: "Allow": must be one of Deny, Pass`},
		{"tier with an empty action", "Tier", "", "defaultAction: ''", `spec.defaultAction: must be one of Deny, Pass`},
		{"default", "Tier", "name: default", "order: 1000000, defaultAction: Deny", ""},
		{"default, not said", "Tier", "name: kube-admin", "", ""},
		{"default moved", "Tier", "name: default", "order: 1, defaultAction: Pass", "spec.order: \"1\": must be 1000000, the fixed order of tier default (make a tier of your own)\nspec.defaultAction: \"Pass\": must be Deny, the fixed action of tier default"},
		{"kube-admin", "Tier", "name: kube-admin", "order: 1000, defaultAction: Pass", ""},
		{"kube-admin moved", "Tier", "name: kube-admin", "order: 1000000", `spec.order: "1e+06": must be 1000, the fixed order`},
		{"kube-baseline", "Tier", "name: kube-baseline", "order: 10000000, defaultAction: Pass", ""},
		{"kube-baseline denies", "Tier", "name: kube-baseline", "defaultAction: Deny", `spec.defaultAction: "Deny": must be Pass`},

		{"profile", "Profile", "name: kns.default", `ingress: [{action: Allow}], egress: [{action: Allow}], labelsToApply: {pcns.projectcalico.org/name: default, pcsa.a: b, team: a}`, ""},
		{"bad rule", "Profile", "", "egress: [{action: allow}]", `spec.egress[0].action: "allow": must be one of Allow, Deny, Log, Pass (did you mean Allow?)`},
		{"bad label", "Profile", "", `labelsToApply: {a: "b c"}`, `spec.labelsToApply.a: "b c": must be empty or`},

		{"nets", "GlobalNetworkSet", "", "nets: [10.0.0.0/8, 192.0.2.1, 192.0.2.7/24, '2001:db8::/32']", ""},
		{"no nets", "NetworkSet", "", "nets: []", ""},
		{"bad net", "NetworkSet", "", "nets: [10.0.0.0/33]", `spec.nets[0]: "10.0.0.0/33": must be a CIDR or an IP address`},
		{"net twice", "GlobalNetworkSet", "", "nets: [10.0.0.1, 10.0.0.1/32]", `spec.nets[1]: "10.0.0.1/32": must not be in the list twice`},
	})
}

// TestValidateRules puts each rule into the ingress or egress of a policy.
func TestValidateRules(t *testing.T) {
	type rule struct{ name, rule, want string }
	ingress := []rule{
		{"actions", "{action: Allow}, {action: Deny}, {action: Log}, {action: Pass}", ""},
		{"no action", "{protocol: TCP}", "[0].action: must be one of Allow, Deny, Log, Pass"},
		{"bad action", "{action: Alow}", `[0].action: "Alow": must be one of Allow, Deny, Log, Pass (did you mean Allow?)`},
		{"versions", "{action: Allow, ipVersion: 4}, {action: Allow, ipVersion: 6}", ""},
		{"bad version", "{action: Allow, ipVersion: 5}", `[0].ipVersion: "5": must be 4 or 6`},

		{"protocols", "{action: Allow, protocol: UDPLite}, {action: Allow, protocol: 1}, {action: Allow, notProtocol: 255}", ""},
		{"protocol in lower case", "{action: Allow, protocol: tcp}", `[0].protocol: "tcp": must be one of TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite (did you mean TCP?)`},
		{"bad protocol", "{action: Allow, notProtocol: Tpc}", `[0].notProtocol: "Tpc": must be one of TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite (did you mean TCP?)`},
		{"protocol 0", "{action: Allow, protocol: 0}", `[0].protocol: "0": must be a number from 1 to 255`},

		{"icmp", "{action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}}, {action: Allow, protocol: 58, icmp: {type: 254, code: 255}}", ""},
		{"icmp without protocol", "{action: Allow, icmp: {type: 8}}", `[0].icmp: must not be set unless protocol is ICMP or ICMPv6 (set protocol: ICMP)`},
		{"icmp of TCP", "{action: Allow, protocol: TCP, icmp: {type: 8}}", `[0].icmp: must not be set unless protocol is ICMP`},
		{"icmp type too high", "{action: Allow, protocol: ICMP, icmp: {type: 255}}", `[0].icmp.type: "255": must be from 0 to 254`},
		{"icmp code too high", "{action: Allow, protocol: ICMP, icmp: {type: 8, code: 256}}", `[0].icmp.code: "256": must be from 0 to 255`},
		{"icmp code without type", "{action: Allow, protocol: ICMP, notICMP: {code: 1}}", `[0].notICMP.code: "1": must not be set without type`},
		{"ICMP for IPv6", "{action: Allow, protocol: ICMP, ipVersion: 6}", `[0].protocol: "ICMP": must not be ICMP when ipVersion is 6 (did you mean ICMPv6?)`},
		{"ICMPv6 for IPv4", "{action: Allow, notProtocol: ICMPv6, ipVersion: 4}", `[0].notProtocol: "ICMPv6": must not be ICMPv6 when ipVersion is 4 (did you mean ICMP?)`},
		{"protocol 58 for IPv4", "{action: Allow, protocol: 58, ipVersion: 4}", `[0].protocol: "58": must not be ICMPv6`},

		{"nets", "{action: Allow, source: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16]}, destination: {nets: [192.0.2.1/32]}}", ""},
		{"bare address", "{action: Allow, source: {nets: [10.0.0.1]}}", `[0].source.nets[0]: "10.0.0.1": must be a CIDR, with the length of the prefix (write 10.0.0.1/32)`},
		{"host bits", "{action: Allow, source: {notNets: [10.0.0.1/8]}}", `[0].source.notNets[0]: "10.0.0.1/8": must have no bits set beyond the length of the prefix (write 10.0.0.0/8)`},
		{"everything", "{action: Allow, source: {nets: [0.0.0.0/0]}}, {action: Allow, source: {nets: ['::/0']}}", ""},
		{"not everything", "{action: Allow, source: {notNets: [0.0.0.0/0]}}, {action: Allow, destination: {notNets: ['::/0']}}", "[0].source.notNets[0]: \"0.0.0.0/0\": must not be every address\n[1].destination.notNets[0]: \"::/0\": must not be every address"},
		{"both families", "{action: Allow, source: {nets: [10.0.0.0/8, 'fd00::/8']}}", `[0].source.nets[1]: "fd00::/8": must be of the same IP version as spec.ingress[0].source.nets[0] (make a rule for each IP version)`},
		{"both families, both ends", "{action: Allow, source: {notNets: [10.0.0.0/8]}, destination: {nets: ['fd00::/8']}}", `[0].destination.nets[0]: "fd00::/8": must be of the same IP version as spec.ingress[0].source.notNets[0]`},
		{"family against ipVersion", "{action: Allow, ipVersion: 4, destination: {nets: ['fd00::/8']}}", `[0].destination.nets[0]: "fd00::/8": must be of the same IP version as spec.ingress[0].ipVersion`},
		{"most nets", "{action: Allow, source: {nets: " + many(256, "10.0.N.0/24") + "}}", ""},
		{"too many nets", "{action: Allow, source: {nets: " + many(257, "10.N.0.0/24") + "}}", "[0].source.nets: \"257 entries\": must have at most 256 entries\n[0].source.nets[256]: "},

		{"selectors", "{action: Allow, source: {selector: has(a), notSelector: has(b), namespaceSelector: has(c)}}", ""},
		{"bad selector", "{action: Allow, source: {selector: a}}", `[0].source.selector: "a": must be a selector: column 2`},
		{"bad notSelector", "{action: Allow, source: {notSelector: a}}", `[0].source.notSelector: "a": must be a selector`},
		{"bad namespaceSelector", "{action: Allow, source: {namespaceSelector: a}}", `[0].source.namespaceSelector: "a": must be a selector`},
		{"global() namespaces", "{action: Allow, source: {namespaceSelector: global()}}, {action: Allow, source: {namespaceSelector: all()}}", ""},
		{"global() combined", "{action: Allow, source: {namespaceSelector: global() || has(a)}}", `[0].source.namespaceSelector: "global() || has(a)": must not combine global() with anything (write global() alone)`},
		{"global() negated", "{action: Allow, source: {namespaceSelector: '!global()'}}", `[0].source.namespaceSelector: "!global()": must not combine`},
		{"global() selector", "{action: Allow, source: {selector: global()}}", `[0].source.selector: "global()": must not use global()`},
		{"global() notSelector", "{action: Allow, source: {notSelector: global()}}", `[0].source.notSelector: "global()": must not use global()`},
		{"service accounts", "{action: Allow, source: {serviceAccounts: {names: [a, b.c], selector: has(x)}}}", ""},
		{"bad service account", "{action: Allow, source: {serviceAccounts: {names: [A], selector: x}}}", "[0].source.serviceAccounts.names[0]: \"A\": must be at most 253\n[0].source.serviceAccounts.selector: \"x\": must be a selector"},

		{"ports", "{action: Allow, protocol: TCP, source: {ports: [1, '80:90', http]}, destination: {notPorts: [65535]}}", ""},
		{"ports of a number", "{action: Allow, protocol: 132, destination: {ports: [1]}}", ""},
		{"named ports bring their protocol", "{action: Allow, destination: {ports: [http, my.port_1-A]}}", ""},
		{"port without protocol", "{action: Allow, destination: {ports: [http, 80, 81]}}", `[0].destination.ports[1]: "80": must not be set without a protocol (set protocol to TCP, UDP or SCTP)`},
		{"port without ports", "{action: Allow, protocol: ICMP, destination: {ports: [http]}}", `[0].destination.ports[0]: "http": must not be set: protocol ICMP has no ports`},
		{"ports of UDPLite", "{action: Allow, protocol: UDPLite, source: {notPorts: [80]}}", `[0].source.notPorts[0]: "80": must not be set: protocol UDPLite has no ports`},
		{"port 0", "{action: Allow, protocol: TCP, destination: {ports: [0]}}", `[0].destination.ports[0]: "0": must be a port number from 1 to 65535 or a range`},
		{"range from 0", "{action: Allow, protocol: TCP, destination: {ports: ['0:5']}}", `[0].destination.ports[0]: "0:5": must be a port number from 1`},
		{"bad port name", "{action: Allow, protocol: TCP, destination: {ports: ['a b']}}", `[0].destination.ports[0]: "a b": must be a port number, a range, or a name`},
		{"most ports", "{action: Allow, protocol: TCP, destination: {ports: " + many(50, "8N") + "}}", ""},
		{"too many ports", "{action: Allow, protocol: TCP, destination: {ports: " + many(51, "8N") + "}}", `[0].destination.ports: "51 entries": must have at most 50 entries`},

		{"services", "{action: Allow, source: {services: {name: db, namespace: default}}}", ""},
		{"services at the near end", "{action: Allow, destination: {services: {name: db}}}", `[0].destination.services: "db": must not be set in an ingress rule (services go into the source of an ingress rule)`},
		{"services without name", "{action: Allow, source: {services: {namespace: a}}}", `[0].source.services.name: must be set`},
		{"services that are empty", "{action: Allow, source: {services: {}}}", `[0].source.services.name: must be set`},
		{"services with bad names", "{action: Allow, source: {services: {name: A, namespace: a.b}}}", "[0].source.services.name: \"A\": must\n[0].source.services.namespace: \"a.b\": must be at most 63"},
		{"services and all else", "{action: Allow, source: {services: {name: db}, selector: all(), notSelector: all(), namespaceSelector: all(), serviceAccounts: {names: [a]}, nets: [10.0.0.0/8], notNets: [10.0.0.0/9]}}",
			"[0].source.selector: must not be set beside services\n[0].source.notSelector: must\n[0].source.namespaceSelector: must\n[0].source.serviceAccounts: must\n[0].source.nets: must\n[0].source.notNets: must"},

		{"http", "{action: Allow, protocol: TCP, http: {methods: [GET, PUT], paths: [{exact: /a}, {prefix: /b}]}}, {action: Allow, http: {methods: [GET]}}", ""},
		{"http denied", "{action: Deny, http: {methods: [GET]}}", "[0].http: must not be set unless action is Allow"},
		{"http by UDP", "{action: Allow, protocol: UDP, http: {methods: [GET]}}", "[0].http: must not be set unless protocol is TCP"},
		{"method twice", "{action: Allow, http: {methods: [GET, GET]}}", `[0].http.methods[1]: "GET": must not be in the list twice`},
		{"empty method", "{action: Allow, http: {methods: ['']}}", "[0].http.methods[0]: must be an HTTP method"},
		{"too many methods", "{action: Allow, http: {methods: " + many(21, "MN") + "}}", `[0].http.methods: "21 entries"`},
		{"too many paths", "{action: Allow, http: {paths: " + many(21, "{exact: /N}") + "}}", `[0].http.paths: "21 entries"`},
		{"both kinds of path", "{action: Allow, http: {paths: [{exact: /a, prefix: /b}, {}]}}", "[0].http.paths[0]: must have exactly one\n[0].http.paths[1]: must have exactly one of exact and prefix"},
		{"bad paths", "{action: Allow, http: {paths: [{exact: a}, {prefix: '/a?b'}, {prefix: '/a#b'}, {prefix: '/a b'}]}}",
			"[0].http.paths[0].exact: \"a\": must start with /\n[0].http.paths[1].prefix: \"/a?b\": must\n[0].http.paths[2].prefix: \"/a#b\": must\n[0].http.paths[3].prefix: \"/a b\": must"},
		{"annotations", "{action: Allow, metadata: {annotations: {any key at all: b}}}", ""},
		{"annotations too long", "{action: Allow, metadata: {annotations: {a: " + strings.Repeat("a", 256<<10) + "}}}", `[0].metadata.annotations: "262145 bytes"`},
	}
	egress := []rule{
		{"services", "{action: Allow, destination: {services: {name: db}}}", ""},
		{"services at the near end", "{action: Allow, source: {services: {name: db}}}", `[0].source.services: "db": must not be set in an egress rule (services go into the destination of an egress rule)`},
		{"services with ports", "{action: Allow, protocol: TCP, destination: {services: {name: db}, ports: [80], notPorts: [81]}}", "[0].destination.ports: must not be set beside services\n[0].destination.notPorts: must"},
		{"http", "{action: Allow, http: {methods: [GET]}}", "[0].http: must not be set except in ingress rules"},
	}
	for direction, rules := range map[string][]rule{"ingress": ingress, "egress": egress} {
		for _, r := range rules {
			want := r.want
			if want != "" {
				want = "spec." + direction + strings.ReplaceAll(want, "\n", "\nspec."+direction)
			}
			run(t, []verdict{{direction + "/" + r.name, "NetworkPolicy", "", direction + ": [" + r.rule + "]", want}})
		}
	}
}

func TestValidateKubernetesPolicies(t *testing.T) {
	const kind = "StagedKubernetesNetworkPolicy"
	run(t, []verdict{
		{"nothing", kind, "", "", ""},
		{"all of it", kind, "", `stagedAction: Set, policyTypes: [Ingress, Egress], podSelector: {matchLabels: {a: b}, matchExpressions: [{key: c, operator: In, values: [d, ""]}, {key: e, operator: Exists}]}, ingress: [{ports: [{protocol: UDP, port: 53, endPort: 54}, {port: http}, {}], from: [{podSelector: {}}, {namespaceSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}], egress: [{to: [{podSelector: {matchLabels: {x: z}}, namespaceSelector: {}}]}]`, ""},
		{"delete", kind, "", "stagedAction: Delete", ""},
		{"delete and more", kind, "", "stagedAction: Delete, policyTypes: [Ingress], podSelector: {matchLabels: {a: b}}", "spec.podSelector: must not be set\nspec.policyTypes: must not be set"},
		{"bad type", kind, "", "policyTypes: [In]", `spec.policyTypes[0]: "In": must be one of Ingress, Egress`},
		{"bad label", kind, "", "podSelector: {matchLabels: {a: b c}}", `spec.podSelector.matchLabels.a: "b c"`},
		{"bad expressions", kind, "", "podSelector: {matchExpressions: [{key: -, operator: in}, {key: a, operator: In}, {key: a, operator: Exists, values: [b]}, {key: a, operator: NotIn, values: [b c]}, {operator: ''}]}",
			"spec.podSelector.matchExpressions[0].key: \"-\": must be a label key\nspec.podSelector.matchExpressions[0].operator: \"in\": must be one of In, NotIn, Exists, DoesNotExist (did you mean In?)\nspec.podSelector.matchExpressions[1].values: must have a value for operator In\nspec.podSelector.matchExpressions[2].values: \"[b]\": must have no values for operator Exists\nspec.podSelector.matchExpressions[3].values[0]: \"b c\": must be a label value\nspec.podSelector.matchExpressions[4].key: must be a label key\nspec.podSelector.matchExpressions[4].operator: must be set"},
		{"bad ports", kind, "", "ingress: [{ports: [{protocol: tcp}, {protocol: ''}, {port: 0}, {port: A_b}, {endPort: 5}, {port: http, endPort: 5}, {port: 6, endPort: 5}, {port: 6, endPort: 65536}]}]",
			"spec.ingress[0].ports[0].protocol: \"tcp\": must be one of TCP, UDP, SCTP (did you mean TCP?)\nspec.ingress[0].ports[1].protocol: must be one of TCP\nspec.ingress[0].ports[2].port: \"0\": must be from 1 to 65535\nspec.ingress[0].ports[3].port: \"A_b\": must be a port number or a name\nspec.ingress[0].ports[4].endPort: \"5\": must not be set without a port number\nspec.ingress[0].ports[5].endPort: \"5\": must not be set without\nspec.ingress[0].ports[6].endPort: \"5\": must be from 6 to 65535\nspec.ingress[0].ports[7].endPort: \"65536\": must be from 6 to 65535"},
		{"bad peers", kind, "", "egress: [{to: [{}, {ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}, {ipBlock: {}}, {ipBlock: {cidr: 10.0.0.1/8, except: [x]}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8, 11.0.0.0/16, 'fd00::/8']}}]}]",
			"spec.egress[0].to[0]: must have one of podSelector, namespaceSelector and ipBlock (to mean everyone, remove the peer list)\nspec.egress[0].to[1].ipBlock: \"10.0.0.0/8\": must not be set beside\nspec.egress[0].to[2].ipBlock.cidr: must be set\nspec.egress[0].to[3].ipBlock.cidr: \"10.0.0.1/8\": must have no bits\nspec.egress[0].to[3].ipBlock.except[0]: \"x\": must be a CIDR\nspec.egress[0].to[4].ipBlock.except[0]: \"10.0.0.0/8\": must be a smaller part of 10.0.0.0/8\nspec.egress[0].to[4].ipBlock.except[1]: \"11.0.0.0/16\": must be a smaller\nspec.egress[0].to[4].ipBlock.except[2]: \"fd00::/8\": must be a smaller"},
	})
}
