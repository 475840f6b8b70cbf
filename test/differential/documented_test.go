package differential

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/calc"
	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/kubepolicy"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
)

// people is the cluster of the documented cases: pods of two namespaces, one
// of them on another host, what is no pod, a host, and network sets. Each has
// the address 10.65.0.N and fd00::N, with the number that it has in numbers.
// prod/web has ports of the same name of two protocols.
const people = `
{apiVersion: v1, kind: Namespace, metadata: {name: prod, labels: {team: a}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: dev, labels: {team: b}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: prod, labels: {trusted: "yes"}}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: host, labels: {role: fe}}, spec: {node: h2, interfaceName: eth0, expectedIPs: [10.65.0.20, "fd00::20"]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: set, labels: {role: fe}}, spec: {nets: [10.65.0.30/32, "fd00::30/128"]}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: set, namespace: prod, labels: {role: fe}}, spec: {nets: [10.65.0.31/32, "fd00::31/128"]}}
---
{apiVersion: v1, kind: Service, metadata: {name: svc, namespace: prod}, spec: {selector: {role: db}, ports: [{port: 80, targetPort: 5432}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: bare-1, namespace: prod, labels: {kubernetes.io/service-name: bare}}
addressType: IPv4
endpoints: [{addresses: [10.65.0.3, "fd00::3"]}]
ports: [{protocol: TCP}, {protocol: TCP, port: 81}]
`

// pods are the workloads of the cluster.
func pods() []*v3.WorkloadEndpoint {
	pod := func(n int, node, namespace, name, orchestrator, account string, labels ...string) *v3.WorkloadEndpoint {
		w := &v3.WorkloadEndpoint{TypeMeta: v3.TypeMeta{Kind: "WorkloadEndpoint", APIVersion: v3.Group}}
		w.Namespace, w.Name, w.Labels = namespace, name, map[string]string{}
		for _, l := range labels {
			k, v, _ := strings.Cut(l, "=")
			w.Labels[k] = v
		}
		w.Spec = v3.WorkloadEndpointSpec{
			Orchestrator: orchestrator, Node: node, ServiceAccountName: account, InterfaceName: fmt.Sprintf("cali%d", n),
			IPNetworks: []string{fmt.Sprintf("10.65.0.%d/32", n), fmt.Sprintf("fd00::%d/128", n)},
			Profiles:   []string{"kns." + namespace, "ksa." + namespace + "." + account},
		}
		return w
	}
	web := pod(1, "h1", "prod", "web", "k8s", "robot", "app=web")
	port := func(name, protocol string, number uint16) v3.WorkloadEndpointPort {
		return v3.WorkloadEndpointPort{Name: name, Protocol: v3.Protocol{Name: protocol}, Port: number}
	}
	web.Spec.Ports = []v3.WorkloadEndpointPort{port("http", "TCP", 8080), port("dns", "UDP", 53), port("dns", "TCP", 5353)}
	be := pod(5, "h1", "dev", "be", "k8s", "default", "app=web")
	be.Spec.Ports = []v3.WorkloadEndpointPort{port("http", "TCP", 9090)}
	return []*v3.WorkloadEndpoint{
		web, be,
		pod(2, "h1", "prod", "fe", "k8s", "default", "role=fe"),
		pod(3, "h1", "prod", "db", "k8s", "default", "role=db"),
		pod(4, "h2", "dev", "fe", "k8s", "robot", "role=fe", "pcns.team=a", "pcsa.trusted=yes"),
		pod(6, "h1", "prod", "box", "cni", "robot", "role=fe"),
	}
}

// number is that of the addresses of somebody, by name.
func number(t *testing.T, name string) int {
	t.Helper()
	n, ok := map[string]int{
		"web": 1, "fe": 2, "db": 3, "dev/fe": 4, "be": 5, "box": 6, "host": 20, "set": 30, "prodset": 31, "stranger": 99,
	}[name]
	if !ok {
		t.Fatalf("who is %q?", name)
	}
	return n
}

// documented makes the cluster with some more objects in it. raw ones are as
// in a datastore that somebody wrote to past the defaults and the rules.
func documented(t *testing.T, text string, raw bool) *cluster {
	t.Helper()
	docs, err := v3.DecodeWith(kubepolicy.Kinds(), "case.yaml", []byte(people+"---\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	m, err := kubepolicy.Read(docs, "prod")
	if err != nil {
		t.Fatal(err)
	}
	var objects []v3.Object
	for _, tier := range v3.BuiltInTiers() {
		objects = append(objects, tier)
	}
	for _, d := range m.Docs {
		if errs := v3.Validate(d.Object); len(errs) > 0 && !raw {
			t.Fatalf("%s: %v", d.Object.Meta().Name, errs)
		}
		if !raw {
			v3.Default(d.Object)
		}
		objects = append(objects, d.Object)
	}
	var events []model.Event
	workloads := pods()
	for _, w := range workloads {
		objects = append(objects, w)
	}
	for _, o := range objects {
		e, ok, err := model.FromObject(o)
		if !ok || err != nil {
			t.Fatalf("%s: %v %v", o.Meta().Name, ok, err)
		}
		events = append(events, e)
	}
	var others []v3.Object
	for _, d := range docs {
		others = append(others, d.Object)
	}
	for _, s := range kubepolicy.Services(others, workloads) {
		v := &model.Service{Namespace: s.Namespace, Name: s.Name}
		for _, b := range s.Backends {
			v.Backends = append(v.Backends, model.Backend(b))
		}
		events = append(events, model.Event{ID: model.ID{Kind: model.KindService, Namespace: v.Namespace, Name: v.Name}, Value: v})
	}
	core, all := calc.New(here), oracle.Snapshot{}
	for _, e := range events {
		all.Add(e)
	}
	core.Apply(events)
	state := core.State()
	return &cluster{tables: &state.Policy, view: oracle.NewView(all)}
}

// ask sends a packet from one to another through the oracle, and through plain
// and compiled rules, and returns what they all say.
func (c *cluster) ask(t *testing.T, machines []*nft.Machine, line string, six bool) bool {
	t.Helper()
	f, where := model.Flow{SourcePort: 40000}, "10.65.0.%d"
	if six {
		where = "fd00::%d"
	}
	words := strings.Fields(line)
	switch kind := words[0]; kind {
	case "tcp", "udp", "sctp", "udplite":
		f.Protocol = map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132, "udplite": 136}[kind]
	case "icmp":
		f.Protocol = map[bool]uint8{false: 1, true: 58}[six]
	default:
		if _, err := fmt.Sscan(kind, &f.Protocol); err != nil {
			t.Fatal(err)
		}
	}
	f.Source = netip.MustParseAddr(fmt.Sprintf(where, number(t, words[1])))
	f.Dest = netip.MustParseAddr(fmt.Sprintf(where, number(t, words[2])))
	if len(words) > 3 {
		n, code, _ := strings.Cut(words[3], ".")
		if _, err := fmt.Sscan(n, &f.DestPort); err != nil {
			t.Fatal(err)
		}
		if words[0] == "icmp" {
			f.ICMPType, f.DestPort = uint8(f.DestPort), 0
			_, _ = fmt.Sscan(code, &f.ICMPCode)
		}
	}
	ends := c.ends(f)
	want := allowed(ends)
	for i, m := range machines {
		for _, e := range ends { // each end by itself: by the same rules
			got := trace(t, m, c.packet(f, e))
			if got.Accepted != e.decision.Allowed || strings.Join(ruleCounters(got), " ") != strings.Join(hits(e.decision), " ") {
				t.Errorf("compiled %v, %v alone: %s", i == 1, e.direction, c.explain(f, []end{e}, got))
			}
		}
		if got := trace(t, m, c.packet(f, ends...)); got.Accepted != want {
			t.Errorf("compiled %v: %s", i == 1, c.explain(f, ends, got))
		}
	}
	return want
}

// documentedCase is some objects and what they are documented to do with
// packets: "+tcp fe web 80" is allowed, "-udp fe web 53" is denied.
type documentedCase struct {
	name, objects string
	flows         []string
	raw           bool // as in a datastore that was written to past the rules
	only          int  // family; 0: both
}

// np is a NetworkPolicy of prod, for prod/web unless it says otherwise.
func np(spec string) string { return named("NetworkPolicy", "p", spec) }

func named(kind, name, spec string) string {
	namespace, selector := "", ""
	if kind == "NetworkPolicy" || kind == "StagedNetworkPolicy" {
		namespace = ", namespace: prod"
	}
	if !strings.Contains(" "+spec, " selector:") {
		selector = "selector: app == 'web', "
	}
	return fmt.Sprintf("---\n{apiVersion: projectcalico.org/v3, kind: %s, metadata: {name: %s%s}, spec: {%s%s}}\n", kind, name, namespace, selector, spec)
}

func tierOf(name, spec string) string {
	return fmt.Sprintf("---\n{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: %s}, spec: {%s}}\n", name, spec)
}

func knp(spec string) string {
	if !strings.Contains(" "+spec, " podSelector:") {
		spec = "podSelector: {matchLabels: {app: web}}, " + spec
	}
	return fmt.Sprintf("---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: k, namespace: prod}, spec: {%s}}\n", spec)
}

func cnp(name, spec string) string {
	if !strings.Contains(spec, "subject:") {
		spec = "subject: {namespaces: {matchLabels: {team: a}}}, " + spec
	}
	return fmt.Sprintf("---\n{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: %s}, spec: {%s}}\n", name, spec)
}

// TestDocumented is what is documented of policies, from the objects that
// people write to the bytes for the kernel: the oracle, and the core with plain
// and with compiled rules, all say what the documents say. Both families,
// unless a case says otherwise.
func TestDocumented(t *testing.T) {
	for group, cases := range map[string][]documentedCase{
		"types": typesCases(), "order": orderCases(), "tiers": tierCases(), "whom policies select": selectCases(),
		"whom rules select": peerCases(), "matches": matchCases(), "staged": stagedCases(),
		"NetworkPolicy of Kubernetes": kubernetesCases(), "ClusterNetworkPolicy": clusterCases(),
	} {
		for _, tt := range cases {
			t.Run(group+"/"+tt.name, func(t *testing.T) {
				c := documented(t, tt.objects, tt.raw)
				machines := []*nft.Machine{c.machine(t, false), c.machine(t, true)}
				for _, line := range tt.flows {
					for i, six := range []bool{false, true} {
						if tt.only != 0 && tt.only != 4+2*i {
							continue
						}
						if got := c.ask(t, machines, line[1:], six); got != (line[0] == '+') {
							t.Errorf("IPv%d: %s: allowed %v", 4+2*i, line, got)
						}
					}
				}
			})
		}
	}
}

func typesCases() []documentedCase {
	return []documentedCase{
		{name: "no policy: the namespace's profile allows", flows: []string{"+tcp stranger web 80", "+tcp web stranger 80"}},
		{name: "no rules are Ingress", objects: np(""), flows: []string{"-tcp fe web 80", "+tcp web stranger 80"}},
		{name: "empty lists are no rules", objects: np("types: [], ingress: [], egress: []"), flows: []string{"-tcp fe web 80", "+tcp web stranger 80"}},
		{name: "ingress rules are Ingress", objects: np("ingress: [{action: Allow}]"), flows: []string{"+tcp fe web 80", "+tcp web stranger 80"}},
		{name: "egress rules alone are Egress", objects: np("egress: [{action: Deny}]"), flows: []string{"+tcp fe web 80", "-tcp web stranger 80"}},
		{name: "both are both", objects: np("ingress: [{action: Deny}], egress: [{action: Deny}]"), flows: []string{"-tcp fe web 80", "-tcp web stranger 80"}},
		{name: "rules of a direction that is not listed are ignored", objects: np("types: [Egress], ingress: [{action: Deny}], egress: [{action: Allow}]"), flows: []string{"+tcp fe web 80", "+tcp web stranger 80"}},
		{name: "stored without types is both directions", raw: true, objects: np("ingress: [{action: Allow}]"), flows: []string{"+tcp fe web 80", "-tcp web stranger 80"}},
	}
}

func orderCases() []documentedCase {
	first := func(name, objects string) []documentedCase { // the first of the two decides, whatever it says
		var out []documentedCase
		for _, a := range [][2]string{{"Allow", "Deny"}, {"Deny", "Allow"}} {
			flow := map[string]string{"Allow": "+tcp fe web 80", "Deny": "-tcp fe web 80"}[a[0]]
			out = append(out, documentedCase{
				name: name + ", " + a[0], objects: strings.NewReplacer("FIRST", "ingress: [{action: "+a[0]+"}]", "LATER", "ingress: [{action: "+a[1]+"}]").Replace(objects), flows: []string{flow},
			})
		}
		return out
	}
	var out []documentedCase
	for _, c := range [][2]string{
		{"the lower order", named("NetworkPolicy", "z", "order: 10, FIRST") + named("NetworkPolicy", "a", "order: 1000, LATER")},
		{"an order before none", named("NetworkPolicy", "z", "order: 1e300, FIRST") + named("NetworkPolicy", "a", "LATER")},
		{"the smallest difference", named("NetworkPolicy", "z", "order: 0.1, FIRST") + named("NetworkPolicy", "a", "order: 0.10000000000000002, LATER")},
		{"far below zero", named("NetworkPolicy", "z", "order: -1e300, FIRST") + named("NetworkPolicy", "a", "order: -1e299, LATER")},
		{"zero is an order", named("NetworkPolicy", "z", "order: 0, FIRST") + named("NetworkPolicy", "a", "LATER")},
		{"global and namespaced ones are one list", named("NetworkPolicy", "z", "order: 1, FIRST") + named("GlobalNetworkPolicy", "a", "order: 2, LATER")},
		{"of two without order the first by name", named("NetworkPolicy", "b", "LATER") + named("NetworkPolicy", "a", "FIRST")},
		{"of the same order and name the global one", named("NetworkPolicy", "a", "order: 5, LATER") + named("GlobalNetworkPolicy", "a", "order: 5, FIRST")},
		{"a shorter name is no lesser one: the slash counts", named("NetworkPolicy", "a", "LATER") + named("NetworkPolicy", "a-b", "FIRST")},
		{"a policy of order 999 before one of Kubernetes", named("NetworkPolicy", "z", "order: 999, FIRST") + knp("ingress: [{}]") + named("NetworkPolicy", "zz", "order: 1001, LATER")},
		{"tiers by order", tierOf("t1", "order: 5") + tierOf("a1", "order: 6") + named("NetworkPolicy", "z", "tier: t1, order: 9, FIRST") + named("NetworkPolicy", "a", "tier: a1, order: 1, LATER")},
		{"tiers of one order by name", tierOf("t1", "order: 5") + tierOf("t2", "order: 5") + named("NetworkPolicy", "z", "tier: t1, FIRST") + named("NetworkPolicy", "a", "tier: t2, LATER")},
		{"a tier without order ties with default by name", tierOf("after", "") + named("NetworkPolicy", "z", "tier: after, FIRST") + named("NetworkPolicy", "a", "LATER")},
		{"a name need not begin with that of the tier", tierOf("t1", "order: 5") + named("GlobalNetworkPolicy", "default.x", "tier: t1, FIRST") + named("GlobalNetworkPolicy", "a", "LATER")},
	} {
		out = append(out, first(c[0], c[1])...)
	}
	for _, c := range first("stored without order, a tier comes after all that have one", tierOf("aaa", "defaultAction: Deny")+named("NetworkPolicy", "a", "tier: aaa, types: [Ingress], LATER")+named("NetworkPolicy", "z", "types: [Ingress], FIRST")) {
		c.raw = true
		out = append(out, c)
	}
	return append(out, first("a tier that is not there comes after all that are", named("NetworkPolicy", "a", "tier: aaa, LATER")+named("NetworkPolicy", "z", "FIRST"))...)
}

func tierCases() []documentedCase {
	t1, t1pass := tierOf("t1", "order: 1"), tierOf("t1", "order: 1, defaultAction: Pass")
	none := "ingress: [{action: Allow, protocol: 47}]"
	deny, allow := []string{"-tcp fe web 80"}, []string{"+tcp fe web 80"}
	return []documentedCase{
		{name: "the end of a tier with a policy denies", objects: np(none), flows: deny},
		{name: "the end of a tier that passes", objects: t1pass + np("tier: t1, "+none), flows: allow},
		{name: "the end of a tier before an Allow", objects: t1 + np("tier: t1, "+none) + named("NetworkPolicy", "q", "ingress: [{action: Allow}]"), flows: deny},
		{name: "a tier with policies for the other direction alone is not there", objects: t1 + np("tier: t1, egress: [{action: Allow}]"), flows: allow},
		{name: "a tier with policies for others alone is not there", objects: t1 + np("tier: t1, selector: role == 'db', ingress: [{action: Deny}]"), flows: allow},
		{name: "a tier with staged policies alone has no end", objects: t1 + named("StagedNetworkPolicy", "p", "tier: t1, ingress: [{action: Deny}]"), flows: allow},
		{name: "a staged policy beside one in force does not change the end", objects: t1 + named("StagedNetworkPolicy", "a", "tier: t1, ingress: [{action: Allow}]") + np("tier: t1, "+none), flows: deny},
		{name: "Pass goes to the next tier", objects: t1 + np("tier: t1, ingress: [{action: Pass}]") + named("NetworkPolicy", "q", "ingress: [{action: Allow}]"), flows: allow},
		{name: "Pass leaves out the rest of the tier", objects: t1 + np("tier: t1, order: 1, ingress: [{action: Pass}]") + named("NetworkPolicy", "q", "tier: t1, order: 2, ingress: [{action: Deny}]"), flows: allow},
		{name: "Pass in the last tier goes to the profiles", objects: np("ingress: [{action: Pass}]"), flows: allow},
		{name: "Allow ends everything", objects: t1 + np("tier: t1, ingress: [{action: Allow}]") + named("NetworkPolicy", "q", "ingress: [{action: Deny}]"), flows: allow},
		{name: "Log goes on", objects: np("ingress: [{action: Log}, {action: Deny}]"), flows: deny},
		{name: "baseline comes after default", objects: named("GlobalNetworkPolicy", "b", "tier: kube-baseline, ingress: [{action: Allow}]") + np(none), flows: deny},
		{name: "a tier that is not there denies at its end", objects: named("GlobalNetworkPolicy", "b", "tier: gone, "+none), flows: deny},
	}
}

func selectCases() []documentedCase {
	deny := "ingress: [{action: Deny}]"
	return []documentedCase{
		{name: "a policy of a namespace stays in it", objects: np(deny), flows: []string{"-tcp fe web 80", "+tcp fe be 80"}},
		{name: "or does not escape the namespace", objects: np("selector: app == 'web' || all(), " + deny), flows: []string{"-tcp stranger fe 80", "+tcp fe be 80"}},
		{name: "an empty selector is the namespace", objects: np("selector: '', " + deny), flows: []string{"-tcp stranger fe 80", "-tcp stranger db 80", "+tcp fe be 80"}},
		{name: "a global one is for all namespaces", objects: named("GlobalNetworkPolicy", "p", deny), flows: []string{"-tcp fe web 80", "-tcp fe be 80", "+tcp web db 80"}},
		{name: "labels of the namespace", objects: named("GlobalNetworkPolicy", "p", "selector: '', namespaceSelector: team == 'a', "+deny), flows: []string{"-tcp be fe 80", "+tcp fe be 80"}},
		{name: "name of the namespace", objects: named("GlobalNetworkPolicy", "p", "selector: '', namespaceSelector: projectcalico.org/name == 'prod', "+deny), flows: []string{"-tcp be fe 80", "+tcp fe be 80"}},
		{name: "labels of the service account", objects: np("selector: '', serviceAccountSelector: trusted == 'yes', " + deny), flows: []string{"-tcp be web 80", "-tcp be box 80", "+tcp be fe 80"}},
		{name: "what prevents a label has no label", objects: np(`selector: "role != 'db' && role not in {'fe'}", ` + deny), flows: []string{"-tcp be web 80", "+tcp be db 80", "+tcp be fe 80"}},
	}
}

func peerCases() []documentedCase {
	from := func(e string) string { return np("ingress: [{action: Allow, source: " + e + "}]") }
	global := func(e string) string {
		return named("GlobalNetworkPolicy", "p", "ingress: [{action: Allow, source: "+e+"}]")
	}
	who := func(allowed string) []string { // these and nobody else may
		var out []string
		for _, name := range []string{"fe", "db", "dev/fe", "be", "box", "host", "set", "prodset", "stranger"} {
			sign := "-"
			if strings.Contains(" "+allowed+" ", " "+name+" ") {
				sign = "+"
			}
			out = append(out, sign+"tcp "+name+" web 80")
		}
		return out
	}
	everybody := "fe db dev/fe be box host set prodset stranger"
	return []documentedCase{
		{name: "nothing is everybody", objects: from("{}"), flows: who(everybody)},
		{name: "empty lists and texts are nothing", objects: from("{nets: [], notNets: [], ports: [], notPorts: [], selector: '', notSelector: '', namespaceSelector: '', serviceAccounts: {names: []}}"), flows: who(everybody)},
		{name: "a selector stays in the namespace", objects: from("{selector: role == 'fe'}"), flows: who("fe box prodset")},
		{name: "all() is what is known of the namespace", objects: from("{selector: all()}"), flows: who("fe db box prodset")},
		{name: "namespaceSelector leaves the namespace", objects: from("{namespaceSelector: team == 'b'}"), flows: who("dev/fe be")},
		{name: "namespaceSelector and selector", objects: from("{namespaceSelector: all(), selector: role == 'fe'}"), flows: who("fe dev/fe box prodset")},
		{name: "namespaceSelector global()", objects: from("{namespaceSelector: global(), selector: role == 'fe'}"), flows: who("host set")},
		{name: "notSelector alone restricts to the namespace", objects: from("{notSelector: role == 'fe'}"), flows: who("db")},
		{name: "notSelector is about the whole cluster", objects: global("{notSelector: role == 'fe'}"), flows: who("db be stranger")},
		{name: "a selector of a global policy is about the whole cluster", objects: global("{selector: role == 'fe'}"), flows: who("fe dev/fe box host set prodset")},
		{name: "service accounts by name stay in the namespace", objects: from("{serviceAccounts: {names: [robot]}}"), flows: who("box")},
		{name: "service accounts by label", objects: global("{serviceAccounts: {selector: trusted == 'yes'}}"), flows: who("box")},
		{name: "nobody claims the labels of a namespace", objects: global("{selector: role == 'fe', namespaceSelector: team == 'a'}"), flows: who("fe box prodset")},
		{name: "nets", only: 4, objects: from("{nets: [10.65.0.2/31, 10.65.0.99/32], notNets: [10.65.0.3/32]}"), flows: who("fe stranger")},
		{name: "nets of the other family match nothing", only: 4, objects: from("{nets: ['fd00::/8']}"), flows: who("")},
		{name: "nets and a selector are both", only: 4, objects: from("{nets: [10.65.0.0/29], selector: role == 'fe'}"), flows: who("fe box")},
		{name: "every address", only: 6, objects: from("{nets: ['::/0']}"), flows: who(everybody)},
		{name: "services as a source: the addresses behind them", objects: from("{services: {name: svc}}"), flows: who("db")},
		{name: "a service that is not there", objects: from("{services: {name: gone}}"), flows: who("")},
	}
}

func matchCases() []documentedCase {
	rule := func(r string) string { return np("ingress: [{action: Allow, " + r + "}]") }
	out := func(r string) string { return np("egress: [{action: Allow, " + r + "}]") }
	return []documentedCase{
		{name: "a protocol by name", objects: rule("protocol: UDP"), flows: []string{"+udp fe web 1", "-tcp fe web 1"}},
		{name: "a protocol by number", objects: rule("protocol: 47"), flows: []string{"+47 fe web", "-46 fe web", "-tcp fe web 1"}},
		{name: "not a protocol", objects: rule("notProtocol: TCP"), flows: []string{"-tcp fe web 1", "+udp fe web 1", "+icmp fe web 8"}},
		{name: "a protocol and not that one", objects: rule("protocol: TCP, notProtocol: 6"), flows: []string{"-tcp fe web 1", "-udp fe web 1"}},
		{name: "UDPLite has no ports", objects: rule("protocol: UDPLite"), flows: []string{"+udplite fe web", "-udp fe web 1"}},
		{name: "ICMP over IPv4", only: 4, objects: rule("protocol: ICMP"), flows: []string{"+icmp fe web 8", "-58 fe web"}},
		{name: "ICMPv6 over IPv6", only: 6, objects: rule("protocol: ICMPv6"), flows: []string{"+icmp fe web 128", "-1 fe web"}},
		{name: "an ICMP type without code is of any code", only: 4, objects: rule("protocol: ICMP, icmp: {type: 3}"), flows: []string{"+icmp fe web 3.0", "+icmp fe web 3.9", "-icmp fe web 8"}},
		{name: "an ICMP type with code", only: 4, objects: rule("protocol: ICMP, icmp: {type: 3, code: 0}"), flows: []string{"+icmp fe web 3.0", "-icmp fe web 3.1"}},
		{name: "an ICMPv6 type", only: 6, objects: rule("protocol: ICMPv6, icmp: {type: 128}"), flows: []string{"+icmp fe web 128", "-icmp fe web 129"}},
		{name: "not an ICMP type", only: 4, objects: rule("notICMP: {type: 8}"), flows: []string{"-icmp fe web 8", "+icmp fe web 0", "+tcp fe web 8"}},
		{name: "ports and ranges", objects: rule("protocol: TCP, destination: {ports: [80, '90:92']}"), flows: []string{"+tcp fe web 80", "-tcp fe web 81", "-tcp fe web 89", "+tcp fe web 90", "+tcp fe web 92", "-tcp fe web 93", "-udp fe web 80"}},
		{name: "the whole range", objects: rule("protocol: SCTP, destination: {ports: ['1:65535']}"), flows: []string{"+sctp fe web 1", "+sctp fe web 65535", "-tcp fe web 1"}},
		{name: "not ports", objects: rule("protocol: TCP, destination: {notPorts: [80, '90:92']}"), flows: []string{"-tcp fe web 80", "+tcp fe web 81", "-tcp fe web 91"}},
		{name: "a named port is of the protocol that it has", objects: rule("destination: {ports: [dns]}"), flows: []string{"+udp fe web 53", "+tcp fe web 5353", "-tcp fe web 53", "-udp fe web 5353", "-sctp fe web 53"}},
		{name: "a named port and a protocol", objects: rule("protocol: TCP, destination: {ports: [dns]}"), flows: []string{"-udp fe web 53", "+tcp fe web 5353", "-tcp fe web 53"}},
		{name: "names and numbers of one list are alternatives", objects: rule("protocol: TCP, destination: {ports: [http, 81]}"), flows: []string{"+tcp fe web 8080", "+tcp fe web 81", "-tcp fe web 9090"}},
		{name: "not a named port", objects: rule("protocol: TCP, destination: {notPorts: [http]}"), flows: []string{"-tcp fe web 8080", "+tcp fe web 9090"}},
		{name: "a named port counts where the selector matches", objects: out("destination: {namespaceSelector: team == 'b', ports: [http]}"), flows: []string{"+tcp web be 9090", "-tcp web be 8080", "-tcp web stranger 9090"}},
		{name: "a named port of everybody", objects: out("destination: {ports: [http]}"), flows: []string{"+tcp web be 9090", "-tcp web be 8080", "-tcp web fe 8080"}},
		{name: "a named port that nobody has", objects: rule("destination: {ports: [gone]}"), flows: []string{"-tcp fe web 80"}},
		{name: "a rule for one family", only: 6, objects: rule("ipVersion: 4"), flows: []string{"-tcp fe web 80"}},
		{name: "services as a destination: address and port behind them", objects: out("destination: {services: {name: svc}}"), flows: []string{"+tcp web db 5432", "-tcp web db 80", "-udp web db 5432", "-tcp web fe 5432"}},
		{name: "a port of an EndpointSlice without a number is none", objects: out("destination: {services: {name: bare}}"), flows: []string{"+tcp web db 81", "-tcp web db 80", "-tcp web db 0", "-udp web db 81"}},
		{name: "a service without port numbers has addresses", objects: rule("source: {services: {name: bare}}"), flows: []string{"+tcp db web 80", "-tcp fe web 80"}},
		{name: "an Allow with HTTP denies what the rest of it matches", objects: np("ingress: [{action: Allow, protocol: TCP, source: {selector: role == 'fe'}, http: {methods: [GET]}}, {action: Allow}]"), flows: []string{"-tcp fe web 80", "+udp fe web 80", "+tcp db web 80"}},
		{name: "a Deny with HTTP denies what the rest of it matches", raw: true, objects: np("types: [Ingress], ingress: [{action: Deny, protocol: TCP, source: {selector: role == 'fe'}, http: {methods: [GET]}}, {action: Allow}]"), flows: []string{"-tcp fe web 80", "+udp fe web 80", "+tcp db web 80"}},
		{name: "a Pass with HTTP passes what the rest of it matches", raw: true, objects: np("types: [Ingress], ingress: [{action: Pass, protocol: TCP, source: {selector: role == 'fe'}, http: {methods: [GET]}}, {action: Deny}]"), flows: []string{"+tcp fe web 80", "-udp fe web 80", "-tcp db web 80"}},
		{name: "families mixed in one list are tolerated", raw: true, objects: np("types: [Ingress], ingress: [{action: Allow, source: {nets: [10.65.0.2/32, 'fd00::2/128']}}]"), flows: []string{"+tcp fe web 80", "-tcp db web 80"}},
	}
}

func stagedCases() []documentedCase {
	deny := "ingress: [{action: Deny}]"
	return []documentedCase{
		{name: "a staged policy does nothing", objects: named("StagedNetworkPolicy", "p", deny), flows: []string{"+tcp fe web 80"}},
		{name: "a staged global policy does nothing", objects: named("StagedGlobalNetworkPolicy", "p", deny), flows: []string{"+tcp fe web 80"}},
		{name: "a staged deletion deletes nothing", objects: np(deny) + "---\n{apiVersion: projectcalico.org/v3, kind: StagedNetworkPolicy, metadata: {name: p, namespace: prod}, spec: {stagedAction: Delete}}\n", flows: []string{"-tcp fe web 80"}},
		{name: "a staged policy of Kubernetes does nothing", objects: "---\n{apiVersion: projectcalico.org/v3, kind: StagedKubernetesNetworkPolicy, metadata: {name: p, namespace: prod}, spec: {podSelector: {}}}\n", flows: []string{"+tcp fe web 80"}},
	}
}

func kubernetesCases() []documentedCase {
	from := func(peers string) string { return knp("ingress: [{from: [" + peers + "]}]") }
	return []documentedCase{
		{name: "an empty podSelector is all pods, and only pods", objects: knp("podSelector: {}"), flows: []string{"-tcp fe web 80", "-tcp web fe 80", "+tcp web box 80", "+tcp fe be 80"}},
		{name: "without rules it isolates ingress", objects: knp(""), flows: []string{"-tcp fe web 80", "+tcp web stranger 80"}},
		{name: "egress rules isolate both", objects: knp("egress: [{}]"), flows: []string{"-tcp fe web 80", "+tcp web stranger 80"}},
		{name: "policyTypes as given", objects: knp("policyTypes: [Egress]"), flows: []string{"+tcp fe web 80", "-tcp web stranger 80"}},
		{name: "from: [] is any source", objects: knp("ingress: [{from: []}]"), flows: []string{"+tcp fe web 80", "+tcp stranger web 80"}},
		{name: "an empty rule is any source and port", objects: knp("ingress: [{}]"), flows: []string{"+tcp fe web 80", "+47 stranger web"}},
		{name: "podSelector {} is the pods of the namespace", objects: from("{podSelector: {}}"), flows: []string{"+tcp fe web 80", "-tcp box web 80", "-tcp be web 80", "-tcp prodset web 80", "-tcp stranger web 80"}},
		{name: "namespaceSelector {} is all pods, no host", objects: from("{namespaceSelector: {}}"), flows: []string{"+tcp fe web 80", "+tcp dev/fe web 80", "-tcp host web 80", "-tcp box web 80", "-tcp set web 80"}},
		{name: "both in one peer are both", objects: from("{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {role: fe}}}"), flows: []string{"+tcp dev/fe web 80", "-tcp be web 80", "-tcp fe web 80"}},
		{name: "two peers are either", objects: from("{namespaceSelector: {matchLabels: {team: b}}}, {podSelector: {matchLabels: {role: fe}}}"), flows: []string{"+tcp dev/fe web 80", "+tcp be web 80", "+tcp fe web 80", "-tcp db web 80"}},
		{name: "ipBlock with except", only: 4, objects: from("{ipBlock: {cidr: 10.65.0.0/24, except: [10.65.0.0/30]}}"), flows: []string{"-tcp fe web 80", "-tcp db web 80", "+tcp dev/fe web 80", "+tcp stranger web 80"}},
		{name: "ipBlock of the other family", only: 6, objects: from("{ipBlock: {cidr: 0.0.0.0/0}}"), flows: []string{"-tcp fe web 80"}},
		{name: "expressions", objects: from("{podSelector: {matchExpressions: [{key: role, operator: NotIn, values: [db]}, {key: gone, operator: DoesNotExist}]}}"), flows: []string{"+tcp fe web 80", "-tcp db web 80"}},
		{name: "a port is of TCP", objects: knp("ingress: [{ports: [{port: 80}]}]"), flows: []string{"+tcp fe web 80", "-udp fe web 80", "-tcp fe web 81"}},
		{name: "endPort", objects: knp("ingress: [{ports: [{port: 80, endPort: 82}]}]"), flows: []string{"-tcp fe web 79", "+tcp fe web 80", "+tcp fe web 82", "-tcp fe web 83"}},
		{name: "a protocol alone is all its ports", objects: knp("ingress: [{ports: [{protocol: UDP}]}]"), flows: []string{"+udp fe web 9", "-tcp fe web 9"}},
		{name: "a named port of ingress is the pod's own", objects: knp("ingress: [{ports: [{port: http}]}]"), flows: []string{"+tcp fe web 8080", "-tcp fe web 9090"}},
		{name: "a named port of egress is the other pod's", objects: knp("policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}]}]"), flows: []string{"+tcp web be 9090", "-tcp web be 8080", "-tcp web stranger 9090"}},
		{name: "several policies add up", objects: knp("ingress: [{from: [{podSelector: {matchLabels: {role: fe}}}]}]") + strings.Replace(from("{podSelector: {matchLabels: {role: db}}}"), "name: k,", "name: k2,", 1), flows: []string{"+tcp fe web 80", "+tcp db web 80", "-tcp be web 80"}},
	}
}

func clusterCases() []documentedCase {
	return []documentedCase{
		{name: "Admin comes before everything", objects: cnp("a", "tier: Admin, priority: 9, ingress: [{action: Accept, from: [{namespaces: {}}]}]") + np("order: -1, ingress: [{action: Deny}]"), flows: []string{"+tcp fe web 80", "-tcp stranger web 80"}},
		{name: "Deny of Admin", objects: cnp("a", "tier: Admin, priority: 9, ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: b}}}]}]") + np("ingress: [{action: Allow}]"), flows: []string{"-tcp dev/fe web 80", "+tcp fe web 80"}},
		{name: "Pass of Admin goes to the policies of the namespace", objects: cnp("a", "tier: Admin, priority: 1, ingress: [{action: Pass, from: [{namespaces: {matchLabels: {team: b}}}]}]") + cnp("b", "tier: Admin, priority: 2, ingress: [{action: Deny, from: [{namespaces: {}}]}]") + np("ingress: [{action: Allow}]"), flows: []string{"+tcp dev/fe web 80", "-tcp fe web 80"}},
		{name: "the lowest priority number first", objects: cnp("z", "tier: Admin, priority: 0, ingress: [{action: Deny, from: [{namespaces: {}}]}]") + cnp("a", "tier: Admin, priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}]}]"), flows: []string{"-tcp fe web 80"}},
		{name: "Baseline comes after the policies of the namespace", objects: cnp("a", "tier: Baseline, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]") + np("ingress: [{action: Allow}]"), flows: []string{"+tcp fe web 80", "-tcp web fe 80", "+tcp stranger fe 80"}},
		{name: "what none of it matches goes on", objects: cnp("a", "tier: Admin, priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 81}}}]}]") + np("ingress: [{action: Deny}]"), flows: []string{"+tcp fe web 81", "-tcp fe web 80"}},
		{name: "only pods are subjects", objects: cnp("a", "tier: Admin, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]"), flows: []string{"-tcp fe web 80", "+tcp fe box 80"}},
		{name: "namespaces as a source are whoever is in them", objects: cnp("a", "tier: Admin, priority: 1, ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: a}}}]}]"), flows: []string{"-tcp box web 80", "-tcp prodset web 80", "+tcp set web 80"}},
		{name: "pods as subjects and sources", objects: cnp("a", "tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}, ingress: [{action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {role: fe}}}}]}]"), flows: []string{"-tcp fe web 80", "-tcp fe be 80", "+tcp box web 80", "+tcp db web 80", "+tcp fe db 80"}},
		{name: "networks", objects: cnp("a", "tier: Admin, priority: 1, egress: [{action: Deny, to: [{networks: [10.65.0.99/32, 'fd00::99/128']}], protocols: [{udp: {}}]}]"), flows: []string{"-udp web stranger 1", "+tcp web stranger 1", "+udp web fe 1"}},
		{name: "a named port of any protocol", objects: cnp("a", "tier: Admin, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{destinationNamedPort: dns}]}]"), flows: []string{"-udp fe web 53", "-tcp fe web 5353", "+tcp fe web 53"}},
		{name: "a direction without rules is left alone", objects: cnp("a", "tier: Admin, priority: 1, egress: [{action: Deny, to: [{namespaces: {}}]}]"), flows: []string{"-tcp web fe 80", "+tcp be web 80"}},
	}
}
