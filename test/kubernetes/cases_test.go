package kubernetes

import "slices"

// truths are the cases. Each says in its name what the API's reference says of
// the field or the default that it is about (networking.k8s.io/v1).
func truths() []truth {
	return slices.Concat(isolation(), peers(), ports(), blocks(), egress(), several())
}

func isolation() []truth {
	return []truth{
		{"an empty podSelector isolates all pods of the namespace", `x
  podSelector: {}
  policyTypes: [Ingress]`, `deny */* x/*`},
		{"a podSelector isolates whom it selects, and nobody else", `x
  podSelector: {matchLabels: {pod: a}}
  policyTypes: [Ingress]`, `deny */* x/a`},
		{"a podSelector that selects nobody does nothing", `x
  podSelector: {matchLabels: {pod: none}}
  policyTypes: [Ingress, Egress]`, ``},
		{"expressions of a podSelector are all to hold", `x
  podSelector:
    matchExpressions:
    - {key: pod, operator: In, values: [a, c]}
    - {key: tail, operator: DoesNotExist}
  policyTypes: [Ingress]`, `deny */* x/a`},
		{"NotIn and Exists", `x
  podSelector:
    matchExpressions:
    - {key: pod, operator: NotIn, values: [a]}
    - {key: tail, operator: Exists}
  policyTypes: [Ingress]`, `deny */* x/c`},
		{"an empty rule lets everybody in", `x
  podSelector: {}
  ingress: [{}]`, ``},
		{"an empty list of peers is everybody", `x
  podSelector: {}
  ingress: [{from: []}]`, ``},
		{"isolation in one direction leaves the other as it is", `x
  podSelector: {}
  policyTypes: [Egress]`, `deny x/* */*`},
		{"both directions", `x
  podSelector: {matchLabels: {pod: b}}
  policyTypes: [Ingress, Egress]`, "deny */* x/b\ndeny x/b */*"},
		{"types that are not given: ingress always", `x
  podSelector: {matchLabels: {pod: a}}`, `deny */* x/a`},
		{"types that are not given: egress too where there are rules for it", `x
  podSelector: {matchLabels: {pod: a}}
  egress: [{}]`, `deny */* x/a`},
		{"rules of a type that is not among those given do nothing", `x
  podSelector: {matchLabels: {pod: a}}
  policyTypes: [Ingress]
  egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]
  ingress: [{}]`, ``},
	}
}

func peers() []truth {
	return []truth{
		{"a peer's podSelector alone means its own namespace", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]`, "deny */* x/a\nallow x/b x/a"},
		{"an empty podSelector of a peer is all pods of its own namespace", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{from: [{podSelector: {}}]}]`, "deny */* x/a\nallow x/* x/a"},
		{"a namespaceSelector alone is all pods there", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{from: [{namespaceSelector: {matchLabels: {team: team-y}}}]}]`, "deny */* x/a\nallow y/* x/a"},
		{"an empty namespaceSelector is all namespaces", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{from: [{namespaceSelector: {}}]}]`, ``},
		{"a namespace by its name", `x
  podSelector: {}
  ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}]}]`, "deny */* x/*\nallow z/* x/*"},
		{"namespaceSelector and podSelector of one peer are both to hold", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{from: [{namespaceSelector: {matchLabels: {team: team-y}}, podSelector: {matchLabels: {pod: c}}}]}]`, "deny */* x/a\nallow y/c x/a"},
		{"of two peers one is enough", `x
  podSelector: {matchLabels: {pod: a}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {team: team-y}}
    - podSelector: {matchLabels: {pod: c}}`, "deny */* x/a\nallow y/* x/a\nallow x/c x/a"},
		{"of two rules one is enough", `x
  podSelector: {matchLabels: {pod: a}}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {team: team-y}}}]
  - from: [{podSelector: {matchLabels: {pod: c}}}]`, "deny */* x/a\nallow y/* x/a\nallow x/c x/a"},
		{"expressions of a namespaceSelector", `x
  podSelector: {matchLabels: {pod: a}}
  ingress:
  - from:
    - namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [team-x, team-y]}]}
      podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}]}`, "deny */* x/a\nallow z/a x/a\nallow z/b x/a"},
		{"a peer that selects nobody lets nobody in", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{from: [{podSelector: {matchLabels: {pod: none}}}]}]`, `deny */* x/a`},
	}
}

func ports() []truth {
	return []truth{
		{"a port of a protocol, and nothing of another", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{ports: [{protocol: TCP, port: 80}]}]`, "deny */* x/a\nallow */* x/a tcp/80"},
		{"a protocol that is not given is TCP", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{ports: [{port: 80}]}]`, "deny */* x/a\nallow */* x/a tcp/80"},
		{"a port that is not given is all ports", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{ports: [{protocol: UDP}]}]`, "deny */* x/a\nallow */* x/a udp/*"},
		{"of two ports one is enough", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{ports: [{port: 80}, {protocol: UDP, port: 443}]}]`, "deny */* x/a\nallow */* x/a tcp/80 udp/443"},
		{"an empty list of ports is everything, ICMP too", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}], ports: []}]`, "deny */* x/a\nallow x/b x/a"},
		{"from the first to the last of a range", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{ports: [{port: 80, endPort: 443}]}]`, "deny */* x/a\nallow */* x/a tcp/80 tcp/443"},
		{"a port's name is what each pod calls so", `x
  podSelector: {}
  ingress: [{ports: [{port: serve}]}]`, "deny */* x/*\nallow */* x/a tcp/80\nallow */* x/b tcp/8080"},
		{"a port's name is that of whom packets go to", `x
  podSelector: {matchLabels: {pod: c}}
  policyTypes: [Egress]
  egress: [{ports: [{protocol: TCP, port: serve}]}]`, "deny x/c */*\nallow x/c */a tcp/80\nallow x/c */b tcp/8080"},
		{"a port's name of another protocol is none", `x
  podSelector: {}
  ingress: [{ports: [{protocol: UDP, port: serve}]}]`, `deny */* x/*`},
		{"peers and ports of one rule are both to hold", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{from: [{namespaceSelector: {matchLabels: {team: team-y}}}], ports: [{port: 80}]}]`, "deny */* x/a\nallow y/* x/a tcp/80"},
		{"each rule has ports of its own", `x
  podSelector: {matchLabels: {pod: a}}
  ingress:
  - {from: [{namespaceSelector: {matchLabels: {team: team-y}}}], ports: [{port: 80}]}
  - {from: [{podSelector: {}}], ports: [{protocol: UDP, port: 5432}]}`, "deny */* x/a\nallow y/* x/a tcp/80\nallow x/* x/a udp/5432"},
	}
}

func blocks() []truth {
	return []truth{
		{"a block of one address", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{from: [{ipBlock: {cidr: @y-b/v4/32}}]}]`, "deny */* x/a\nv4 allow y/b x/a"},
		{"a block of IPv6", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{from: [{ipBlock: {cidr: "@y-b/v6/128"}}]}]`, "deny */* x/a\nv6 allow y/b x/a"},
		{"what is left out of a block", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [@y-b/v4/32, @z-c/v4/32]}}]}]`, "deny */* x/a\nv4 allow */* x/a\nv4 deny y/b x/a\nv4 deny z/c x/a"},
		{"what one rule leaves out another may let in", `x
  podSelector: {matchLabels: {pod: a}}
  ingress:
  - from: [{ipBlock: {cidr: "::/0", except: ["@y-b/v6/128"]}}]
  - from: [{podSelector: {}, namespaceSelector: {matchLabels: {team: team-y}}}]`, "deny */* x/a\nv6 allow */* x/a\nallow y/* x/a"},
		{"blocks are where packets go, too", `x
  podSelector: {matchLabels: {pod: a}}
  policyTypes: [Egress]
  egress: [{to: [{ipBlock: {cidr: @y-b/v4/32}}, {ipBlock: {cidr: "@z-a/v6/128"}}]}]`, "deny x/a */*\nv4 allow x/a y/b\nv6 allow x/a z/a"},
	}
}

func egress() []truth {
	return []truth{
		{"out to pods of the own namespace", `x
  podSelector: {matchLabels: {pod: a}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]`, "deny x/a */*\nallow x/a x/b"},
		{"out to a namespace", `x
  podSelector: {}
  policyTypes: [Egress]
  egress: [{to: [{namespaceSelector: {matchLabels: {team: team-z}}}]}]`, "deny x/* */*\nallow x/* z/*"},
		{"out to pods of a namespace, at a port", `x
  podSelector: {}
  policyTypes: [Egress]
  egress: [{to: [{namespaceSelector: {matchLabels: {team: team-z}}, podSelector: {matchLabels: {pod: a}}}], ports: [{port: 443}]}]`, "deny x/* */*\nallow x/* z/a tcp/443"},
		{"out to a port of anybody", `x
  podSelector: {}
  policyTypes: [Egress]
  egress: [{ports: [{protocol: UDP, port: 80}]}]`, "deny x/* */*\nallow x/* */* udp/80"},
		{"answers to who was let in leave", `x
  podSelector: {matchLabels: {pod: a}}
  policyTypes: [Ingress, Egress]
  ingress: [{}]`, "deny x/a */*"},
	}
}

func several() []truth {
	return []truth{
		{"policies of one pod add up", `x
  podSelector: {matchLabels: {pod: a}}
  ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]
---
x
  podSelector: {}
  ingress: [{from: [{namespaceSelector: {matchLabels: {team: team-y}}}], ports: [{port: 80}]}]`, "deny */* x/*\nallow y/* x/* tcp/80\nallow x/b x/a"},
		{"one policy that lets all in undoes isolation by another", `x
  podSelector: {}
  policyTypes: [Ingress]
---
x
  podSelector: {matchLabels: {pod: c}}
  ingress: [{}]`, "deny */* x/*\nallow */* x/c"},
		{"who sends and who receives must both be let", `x
  podSelector: {matchLabels: {pod: a}}
  policyTypes: [Egress]
  egress: [{to: [{namespaceSelector: {matchLabels: {team: team-y}}}]}]
---
y
  podSelector: {matchLabels: {pod: a}}
  ingress: [{from: [{namespaceSelector: {matchLabels: {team: team-x}}}], ports: [{port: 80}]}]`, "deny x/a */*\nallow x/a y/*\ndeny */* y/a\nallow x/* y/a tcp/80"},
		{"what one end lets the other end may still deny", `x
  podSelector: {}
  policyTypes: [Egress]
  egress: [{}]
---
y
  podSelector: {}
  policyTypes: [Ingress]`, `deny */* y/*`},
		{"policies of two namespaces do not mix", `x
  podSelector: {}
  ingress: [{from: [{podSelector: {}}]}]
---
y
  podSelector: {}
  ingress: [{from: [{podSelector: {}}]}]`, "deny */* x/*\nallow x/* x/*\ndeny */* y/*\nallow y/* y/*"},
	}
}
