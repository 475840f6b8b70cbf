package model

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/selector"
)

// fromJSON reads a stored object, without kind and metadata around its spec.
func fromJSON(t *testing.T, kind, namespace, spec string) Value {
	t.Helper()
	text := `{"kind":"` + kind + `","apiVersion":"projectcalico.org/v3","metadata":{"name":"p","namespace":"` + namespace + `"},"spec":` + spec + `}`
	o, err := v3.DecodeStored([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	e, ok, err := FromObject(o)
	if !ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	return e.Value
}

// sound is fromJSON of a policy in which nothing is broken.
func sound(t *testing.T, kind, namespace, spec string) *Policy {
	t.Helper()
	p := fromJSON(t, kind, namespace, spec).(*Policy)
	if p.Broken != "" {
		t.Fatalf("broken: %s", p.Broken)
	}
	return p
}

// ingress reads one ingress rule of a NetworkPolicy in ns1.
func ingress(t *testing.T, rule string) Rule {
	t.Helper()
	return sound(t, "NetworkPolicy", "ns1", `{"ingress":[`+rule+`]}`).Ingress.Rules[0]
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestPolicyComposition(t *testing.T) {
	for _, tt := range []struct{ name, kind, spec, want string }{
		{"own namespace", "NetworkPolicy", `{"selector":"r == 'x'"}`, "(r == 'x') && projectcalico.org/namespace == 'ns1'"},
		{"no selector", "NetworkPolicy", `{}`, "projectcalico.org/namespace == 'ns1'"},
		{"service account of a NetworkPolicy", "NetworkPolicy", `{"serviceAccountSelector":"a == 'b'"}`, "projectcalico.org/namespace == 'ns1' && pcsa.a == 'b'"},
		{"namespaces of a global policy", "GlobalNetworkPolicy", `{"selector":"r == 'x'","namespaceSelector":"env == 'prod'"}`, "(r == 'x') && pcns.env == 'prod'"},
		{"all namespaces are no hosts", "GlobalNetworkPolicy", `{"namespaceSelector":"all()"}`, "has(projectcalico.org/namespace)"},
		{"global without anything", "GlobalNetworkPolicy", `{}`, "all()"},
		{"all() beside a namespaceSelector", "GlobalNetworkPolicy", `{"selector":"all()","namespaceSelector":"!has(x)"}`, "has(projectcalico.org/namespace) && !has(pcns.x)"},
		{"no selector beside a namespaceSelector", "GlobalNetworkPolicy", `{"namespaceSelector":"!has(x)"}`, "!has(pcns.x)"},
		{"accounts of a global policy", "GlobalNetworkPolicy", `{"serviceAccountSelector":"all()"}`, "has(projectcalico.org/serviceaccount)"},
		{"staged", "StagedNetworkPolicy", `{"selector":"r == 'x'"}`, "(r == 'x') && projectcalico.org/namespace == 'ns1'"},
		{"staged global", "StagedGlobalNetworkPolicy", `{"selector":"r == 'x'"}`, "r == 'x'"},
		{"staged of Kubernetes", "StagedKubernetesNetworkPolicy", `{"podSelector":{"matchLabels":{"r":"x"}}}`,
			"(projectcalico.org/orchestrator == 'k8s' && r == 'x') && projectcalico.org/namespace == 'ns1'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			namespace := "ns1"
			if strings.Contains(tt.kind, "Global") {
				namespace = ""
			}
			if got := sound(t, tt.kind, namespace, tt.spec).Selects; !got.Equal(parse(t, tt.want)) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestRuleComposition(t *testing.T) {
	is := func(text string) selector.Peers { return selector.Peers{Restricted: true, Selector: parse(t, text)} }
	for _, tt := range []struct {
		name, source string
		want         selector.Peers
	}{
		{"nothing is any source", `{}`, selector.Peers{}},
		{"nets alone are of no namespace", `{"nets":["10.0.0.0/8"]}`, selector.Peers{}},
		{"selector", `{"selector":"r == 'y'"}`, is("projectcalico.org/namespace == 'ns1' && r == 'y'")},
		{"namespaceSelector", `{"namespaceSelector":"env == 'a'","selector":"r == 'y'"}`, is("pcns.env == 'a' && r == 'y'")},
		{"all namespaces", `{"namespaceSelector":"all()"}`, is("has(projectcalico.org/namespace)")},
		{"global()", `{"namespaceSelector":"global()","selector":"r == 'y'"}`, is("!has(projectcalico.org/namespace) && r == 'y'")},
		{"notSelector alone restricts to the namespace", `{"notSelector":"r == 'y'"}`, selector.Peers{
			Restricted: true, Selector: parse(t, "projectcalico.org/namespace == 'ns1'"), Excluding: true, Not: parse(t, "r == 'y'")}},
		{"account names", `{"serviceAccounts":{"names":["b","a"]}}`,
			is("projectcalico.org/namespace == 'ns1' && projectcalico.org/serviceaccount in {'a','b'}")},
		{"account selector", `{"serviceAccounts":{"selector":"x == 'y'"}}`, is("projectcalico.org/namespace == 'ns1' && pcsa.x == 'y'")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ingress(t, `{"action":"Allow","source":`+tt.source+`}`).Source.Peers
			if got.Restricted != tt.want.Restricted || got.Excluding != tt.want.Excluding || !got.Selector.Equal(tt.want.Selector) || !got.Not.Equal(tt.want.Not) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
	t.Run("a global policy's rule is of no namespace", func(t *testing.T) {
		p := sound(t, "GlobalNetworkPolicy", "", `{"egress":[{"action":"Allow","destination":{"notSelector":"r == 'y'"}}]}`)
		if got := p.Egress.Rules[0].Destination.Peers; got.Restricted || !got.Excluding {
			t.Errorf("got %+v", got)
		}
	})
}

// TestTypesInference: the types are as stored, for clients infer them before;
// an object that came past that has none, and is for both directions.
func TestTypesInference(t *testing.T) {
	const rules = `"ingress":[{"action":"Allow"}],"egress":[{"action":"Deny"}]`
	for _, tt := range []struct {
		name, kind, spec string
		in, out          bool
	}{
		{"empty types are both directions", "NetworkPolicy", `{}`, true, true},
		{"empty types are both directions, whatever the rules", "NetworkPolicy", `{"egress":[{"action":"Allow"}]}`, true, true},
		{"ingress", "NetworkPolicy", `{"types":["Ingress"],` + rules + `}`, true, false},
		{"egress", "NetworkPolicy", `{"types":["Egress"],` + rules + `}`, false, true},
		{"both", "NetworkPolicy", `{"types":["Ingress","Egress"]}`, true, true},
		{"global", "GlobalNetworkPolicy", `{"types":["Egress"]}`, false, true},
		{"of Kubernetes without rules", "StagedKubernetesNetworkPolicy", `{}`, true, false},
		{"of Kubernetes with egress", "StagedKubernetesNetworkPolicy", `{"egress":[{}]}`, true, true},
		{"of Kubernetes as given", "StagedKubernetesNetworkPolicy", `{"policyTypes":["Egress"],"ingress":[{}]}`, false, true},
		{"staged", "StagedNetworkPolicy", `{"types":["Ingress"]}`, true, false},
		{"a staged deletion is about nothing", "StagedNetworkPolicy", `{"stagedAction":"Delete"}`, false, false},
		{"nor is what is to be ignored", "StagedGlobalNetworkPolicy", `{"stagedAction":"Ignore",` + rules + `}`, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			namespace := "ns1"
			if strings.Contains(tt.kind, "Global") {
				namespace = ""
			}
			if p := sound(t, tt.kind, namespace, tt.spec); p.Ingress.Applies != tt.in || p.Egress.Applies != tt.out {
				t.Errorf("ingress %v, egress %v", p.Ingress.Applies, p.Egress.Applies)
			}
		})
	}
}

func TestPolicyFields(t *testing.T) {
	o := &v3.GlobalNetworkPolicy{ObjectMeta: v3.ObjectMeta{Name: "a.b", CreationTimestamp: &v3.Time{}}}
	if err := json.Unmarshal([]byte(`{"metadata":{"name":"a.b","creationTimestamp":"2026-01-02T03:04:05Z","ownerReferences":[{"kind":"App","name":"shop"}],
		"labels":{"app.kubernetes.io/managed-by":"Helm"},"annotations":{"brindle.net/converted-from":"networking.k8s.io/v1 NetworkPolicy a"}},
		"spec":{"tier":"t","order":10.5,"doNotTrack":true,"applyOnForward":true}}`), o); err != nil {
		t.Fatal(err)
	}
	*o.Type() = v3.TypeMeta{Kind: "GlobalNetworkPolicy", APIVersion: v3.Group}
	e, _, _ := FromObject(o)
	want := &Policy{
		ID: PolicyID("GlobalNetworkPolicy", "", "a.b"), APIKind: "GlobalNetworkPolicy", Name: "a.b", Title: "GlobalNetworkPolicy a.b",
		Tier: "t", Order: 10.5, DoNotTrack: true, ApplyOnForward: true, LastWriter: "created 2026-01-02T03:04:05Z, made of networking.k8s.io/v1 NetworkPolicy a, owned by App shop, managed by Helm",
		Ingress: Direction{Applies: true}, Egress: Direction{Applies: true},
	}
	if !reflect.DeepEqual(e.Value, want) {
		t.Errorf("\n got %+v\nwant %+v", e.Value, want)
	}
	for kind, action := range map[string]string{"StagedNetworkPolicy": "Set", "StagedKubernetesNetworkPolicy": "Set", "NetworkPolicy": ""} {
		p := sound(t, kind, "ns1", `{}`)
		if p.StagedAction != action || p.Staged != (action != "") || p.Tier != "default" || p.APIKind != kind || p.Namespace != "ns1" {
			t.Errorf("%s: %+v", kind, p)
		}
		if none := math.IsInf(p.Order, 1); none == (kind == "StagedKubernetesNetworkPolicy") {
			t.Errorf("%s: order %v", kind, p.Order)
		}
	}
}

func TestRules(t *testing.T) {
	const both = IPv4 | IPv6
	for _, tt := range []struct {
		name, in string
		want     Rule
	}{
		{"nothing but an action", `{"action":"Pass"}`, Rule{Action: Pass, Families: both}},
		{"log", `{"action":"Log","ipVersion":6}`, Rule{Action: Log, Families: IPv6}},
		{"protocol by name", `{"action":"Allow","protocol":"TCP"}`, Rule{Action: Allow, Families: both, Protocol: 6}},
		{"protocol by number", `{"action":"Allow","protocol":47}`, Rule{Action: Allow, Families: both, Protocol: 47}},
		{"protocol by number as text", `{"action":"Allow","protocol":"47"}`, Rule{Action: Allow, Families: both, Protocol: 47}},
		{"not a protocol", `{"action":"Allow","notProtocol":"SCTP"}`, Rule{Action: Allow, Families: both, NotProtocol: 132}},
		{"ICMP does not restrict the family", `{"action":"Allow","protocol":"ICMP"}`, Rule{Action: Allow, Families: both, Protocol: 1}},
		{"ICMPv6 does not either", `{"action":"Allow","protocol":"ICMPv6"}`, Rule{Action: Allow, Families: both, Protocol: 58}},
		{"UDPLite", `{"action":"Allow","protocol":"UDPLite"}`, Rule{Action: Allow, Families: both, Protocol: 136}},
		{"ICMP type without code is any code", `{"action":"Allow","protocol":"ICMP","icmp":{"type":8}}`,
			Rule{Action: Allow, Families: both, Protocol: 1, ICMP: &ICMP{Type: 8, Code: -1}}},
		{"ICMP code, and not", `{"action":"Allow","protocol":"ICMP","icmp":{"type":3,"code":0},"notICMP":{"type":3,"code":4}}`,
			Rule{Action: Allow, Families: both, Protocol: 1, ICMP: &ICMP{Type: 3, Code: 0}, NotICMP: &ICMP{Type: 3, Code: 4}}},
		{"ICMP that says nothing", `{"action":"Allow","protocol":"ICMP","icmp":{}}`, Rule{Action: Allow, Families: both, Protocol: 1}},
		{"nets", `{"action":"Deny","source":{"nets":["10.0.0.0/8","192.0.2.1"]},"destination":{"notNets":["10.1.0.0/16"]}}`,
			Rule{Action: Deny, Families: IPv4, Source: Entity{Nets: prefixes("10.0.0.0/8", "192.0.2.1/32")}, Destination: Entity{NotNets: prefixes("10.1.0.0/16")}}},
		{"nets that are not masked", `{"action":"Deny","source":{"nets":["10.1.2.3/8"]}}`,
			Rule{Action: Deny, Families: IPv4, Source: Entity{Nets: prefixes("10.0.0.0/8")}}},
		{"every address", `{"action":"Deny","source":{"nets":["0.0.0.0/0","::/0"]}}`,
			Rule{Action: Deny, Families: both, Source: Entity{Nets: prefixes("0.0.0.0/0", "::/0")}}},
		{"families that exclude each other", `{"action":"Deny","source":{"nets":["10.0.0.0/8"]},"destination":{"nets":["fd00::/8"]}}`,
			Rule{Action: Deny, Families: both, Never: true, Source: Entity{Nets: prefixes("10.0.0.0/8")}, Destination: Entity{Nets: prefixes("fd00::/8")}}},
		{"families and a version that exclude each other", `{"action":"Deny","ipVersion":4,"source":{"notNets":["fd00::/8"]}}`,
			Rule{Action: Deny, Families: both, Never: true, Source: Entity{NotNets: prefixes("fd00::/8")}}},
		{"a list of both families", `{"action":"Deny","source":{"nets":["fd00::/8","10.0.0.0/8"]},"destination":{"nets":["fd00::/8"]}}`,
			Rule{Action: Deny, Families: IPv6, Source: Entity{Nets: prefixes("fd00::/8", "10.0.0.0/8")}, Destination: Entity{Nets: prefixes("fd00::/8")}}},
		{"ports", `{"action":"Allow","protocol":"TCP","source":{"notPorts":[1]},"destination":{"ports":[80,"8000:8010","http"]}}`,
			Rule{Action: Allow, Families: both, Protocol: 6, Source: Entity{NotPorts: []PortMatch{{Min: 1, Max: 1}}},
				Destination: Entity{Ports: []PortMatch{{Min: 80, Max: 80}, {Min: 8000, Max: 8010}, {Name: "http"}}}}},
		{"source service, of the policy's namespace", `{"action":"Allow","source":{"services":{"name":"s"}}}`,
			Rule{Action: Allow, Families: both, Source: Entity{Service: &ServiceRef{"ns1", "s"}}}},
		{"destination service has ports", `{"action":"Allow","destination":{"services":{"name":"s","namespace":"other"}}}`,
			Rule{Action: Allow, Families: both, Destination: Entity{Service: &ServiceRef{"other", "s"}, ServicePorts: true}}},
		{"HTTP that allows denies", `{"action":"Allow","http":{"methods":["GET"]},"metadata":{"annotations":{"name":"n"}}}`,
			Rule{Action: Deny, Families: both, HTTP: true, Name: "n"}},
		{"HTTP that denies keeps the rest", `{"action":"Deny","protocol":"TCP","http":{}}`, Rule{Action: Deny, Families: both, Protocol: 6, HTTP: true}},
		{"HTTP that passes keeps the rest", `{"action":"Pass","protocol":"TCP","http":{}}`, Rule{Action: Pass, Families: both, Protocol: 6, HTTP: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := ingress(t, tt.in); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("\n got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// TestBrokenRulesCountAgainstTheFlow, each at its place.
func TestBrokenRulesCountAgainstTheFlow(t *testing.T) {
	const both = IPv4 | IPv6
	nothing := func(a Action) Rule { return Rule{Action: a, Families: both, Never: true} }
	everything := Rule{Action: Deny, Families: both}
	for _, tt := range []struct{ name, rule, path string }{
		{"protocol", `"protocol":"tcp"`, "protocol"},
		{"protocol 0", `"protocol":0`, "protocol"},
		{"not a protocol", `"notProtocol":"XTP"`, "notProtocol"},
		{"version", `"ipVersion":5`, "ipVersion"},
		{"code without type", `"icmp":{"code":1}`, "icmp.code"},
		{"type", `"notICMP":{"type":256}`, "notICMP.type"},
		{"type that no rule may have", `"protocol":"ICMP","icmp":{"type":255}`, "icmp.type"},
		{"net", `"source":{"nets":["10.0.0.0/8","10.0.0.0/40"]}`, "source.nets[1]"},
		{"IPv4 in IPv6 clothes", `"source":{"notNets":["::ffff:10.0.0.0/104"]}`, "source.notNets[0]"},
		{"selector", `"source":{"selector":"a = 'b'"}`, "source: selector"},
		{"notSelector", `"destination":{"notSelector":"("}`, "destination: notSelector"},
		{"namespaceSelector", `"destination":{"namespaceSelector":"("}`, "destination: namespaceSelector"},
		{"accounts", `"source":{"serviceAccounts":{"selector":"("}}`, "source: serviceAccounts.selector"},
		{"port 0", `"protocol":"TCP","destination":{"ports":[0]}`, "destination.ports[0]"},
		{"service without name", `"destination":{"services":{}}`, "destination.services.name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var rules []string
			for _, action := range []string{"Allow", "Deny", "Pass", "Log", "Perhaps"} {
				rules = append(rules, `{"action":"`+action+`",`+tt.rule+`}`)
			}
			spec := `{"ingress":[` + strings.Join(rules, ",") + `,{"action":"Allow"}]}`
			p := fromJSON(t, "NetworkPolicy", "ns1", spec).(*Policy)
			want := []Rule{nothing(Allow), everything, everything, nothing(Log), everything, {Action: Allow, Families: both}}
			if !reflect.DeepEqual(p.Ingress.Rules, want) {
				t.Errorf("\n got %+v\nwant %+v", p.Ingress.Rules, want)
			}
			if !strings.Contains(p.Broken, "spec.ingress[0]."+tt.path) || !strings.Contains(p.Broken, "spec.ingress[4].action: \"Perhaps\"") {
				t.Errorf("told: %s", p.Broken)
			}
		})
	}
	t.Run("service of nobody's namespace", func(t *testing.T) {
		p := fromJSON(t, "GlobalNetworkPolicy", "", `{"egress":[{"action":"Deny","destination":{"services":{"name":"s"}}}]}`).(*Policy)
		if !reflect.DeepEqual(p.Egress.Rules, []Rule{everything}) || p.Broken == "" {
			t.Errorf("got %+v", p)
		}
	})
}

// TestBrokenSelectorSelectsEverybody that it might, and allows nobody.
func TestBrokenSelectorSelectsEverybody(t *testing.T) {
	const rules = `"types":["Ingress"],"ingress":[{"action":"Allow","protocol":"TCP"},{"action":"Pass","protocol":"TCP"},{"action":"Deny","protocol":"TCP"},{"action":"Log"}]}`
	want := []Rule{
		{Action: Allow, Families: IPv4 | IPv6, Protocol: 6, Never: true}, {Action: Deny, Families: IPv4 | IPv6, Protocol: 6},
		{Action: Deny, Families: IPv4 | IPv6, Protocol: 6}, {Action: Log, Families: IPv4 | IPv6},
	}
	for _, tt := range []struct{ name, kind, namespace, field, selects string }{
		{"of a namespace", "NetworkPolicy", "ns1", "selector", "projectcalico.org/namespace == 'ns1'"},
		{"accounts of a namespace", "NetworkPolicy", "ns1", "serviceAccountSelector", "projectcalico.org/namespace == 'ns1'"},
		{"global", "GlobalNetworkPolicy", "", "selector", "has(projectcalico.org/namespace)"},
		{"namespaces of a global one", "GlobalNetworkPolicy", "", "namespaceSelector", "has(projectcalico.org/namespace)"},
		{"staged", "StagedGlobalNetworkPolicy", "", "selector", "has(projectcalico.org/namespace)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := fromJSON(t, tt.kind, tt.namespace, `{"`+tt.field+`":"(",`+rules).(*Policy)
			if !p.Selects.Equal(parse(t, tt.selects)) || !reflect.DeepEqual(p.Ingress.Rules, want) || p.Egress.Applies {
				t.Errorf("got %+v", p)
			}
			if !strings.Contains(p.Broken, "spec: "+tt.field) {
				t.Errorf("told: %s", p.Broken)
			}
		})
	}
	t.Run("pods of Kubernetes", func(t *testing.T) {
		p := fromJSON(t, "StagedKubernetesNetworkPolicy", "ns1", `{"podSelector":{"matchExpressions":[{"key":"a","operator":"Near"}]},"ingress":[{}]}`).(*Policy)
		if p.Broken == "" || len(p.Ingress.Rules) != 0 || !p.Ingress.Applies || !p.Selects.Equal(parse(t, "projectcalico.org/orchestrator == 'k8s' && projectcalico.org/namespace == 'ns1'")) {
			t.Errorf("got %+v", p)
		}
	})
	t.Run("types", func(t *testing.T) {
		p := fromJSON(t, "NetworkPolicy", "ns1", `{"types":["ingress"]}`).(*Policy)
		if !p.Ingress.Applies || !p.Egress.Applies || !strings.Contains(p.Broken, `spec.types[0]: "ingress"`) {
			t.Errorf("got %+v", p)
		}
	})
}

func TestTiers(t *testing.T) {
	for _, tt := range []struct {
		spec string
		want Tier
	}{
		{`{"order":5,"defaultAction":"Pass"}`, Tier{Name: "p", Order: 5, DefaultPass: true}},
		{`{"order":0,"defaultAction":"Deny"}`, Tier{Name: "p"}},
		{`{}`, Tier{Name: "p", Order: math.Inf(1)}}, // raw: clients write 1000000
		{`{"defaultAction":"pass"}`, Tier{Name: "p", Order: math.Inf(1)}},
	} {
		got := *fromJSON(t, "Tier", "", tt.spec).(*Tier)
		if wrong := strings.Contains(tt.spec, `"pass"`); wrong != (got.Broken != "") || got.Lost {
			t.Errorf("%s: %+v", tt.spec, got)
		}
		if got.Broken, got.why, got.guess = "", "", (guess{}); got != tt.want {
			t.Errorf("%s: %+v", tt.spec, got)
		}
	}
}

// TestTiersThatCannotBeRead: without an order a tier is lost, unless it always
// exists or something was in force.
func TestTiersThatCannotBeRead(t *testing.T) {
	lost := Tier{Order: math.Inf(-1), Lost: true}
	for _, tt := range []struct {
		name, tier, stored, told string
		last                     *Tier // nil: nothing was in force
		want                     Tier  // order and end alone
	}{
		{"order", "t", `{"order":"x","defaultAction":"Pass"}`, "spec.order: ", nil, lost},
		{"an order that no field can hold", "t", `{"order":1e999}`, "spec.order: ", nil, lost},
		{"defaultAction of another type", "t", `{"order":5,"defaultAction":7}`, "spec.defaultAction: ", nil, Tier{Order: 5}},
		{"defaultAction that is none", "t", `{"order":5,"defaultAction":"Allow"}`, `spec.defaultAction: "Allow": must be one of Deny, Pass`, nil, Tier{Order: 5}},
		{"all", "t", `[]`, "spec: ", nil, lost},
		{"a built-in one's order", "kube-admin", `{"order":"x","defaultAction":"Deny"}`, "what is documented of it holds", nil, Tier{Order: 1000}},
		{"all of a built-in one", "kube-baseline", `[]`, "what is documented of it holds", nil, Tier{Order: 1e7, DefaultPass: true}},
		{"order, after another", "t", `{"order":"x","defaultAction":"Pass"}`, "what was last read of it holds", &Tier{Order: 7}, Tier{Order: 7, DefaultPass: true}},
		{"end, after another", "t", `{"order":5,"defaultAction":7}`, "(order 5, defaultAction Pass)", &Tier{Order: 7, DefaultPass: true}, Tier{Order: 5, DefaultPass: true}},
		{"all, after another", "t", `[]`, "(no order, defaultAction Pass)", &Tier{Order: math.Inf(1), DefaultPass: true}, Tier{Order: math.Inf(1), DefaultPass: true}},
		{"all of a built-in one, after another", "default", `[]`, "(order 3, defaultAction Pass)", &Tier{Order: 3, DefaultPass: true}, Tier{Order: 3, DefaultPass: true}},
		{"after one that was lost", "t", `{"order":"x"}`, "nobody knows where it comes", &lost, lost},
		{"sound, after another", "t", `{"order":5}`, "", &Tier{Order: 7, DefaultPass: true}, Tier{Order: 5}},
		{"metadata", "t", `{"order":5},"metadata":{"name":"t","labels":1}`, "nothing of what it says about policies is lost", &Tier{Order: 7}, Tier{Order: 5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, unread, err := v3.DecodeStoredPart([]byte(`{"kind":"Tier","metadata":{"name":"` + tt.tier + `"},"spec":` + tt.stored + `}`))
			if err != nil {
				t.Fatal(err)
			}
			o.Meta().Name = tt.tier
			e, _, err := FromPart(o, unread)
			if err != nil {
				t.Fatal(err)
			}
			got := e.Value.(*Tier).Keep(tt.last)
			if got.Order != tt.want.Order || got.DefaultPass != tt.want.DefaultPass || got.Lost != tt.want.Lost {
				t.Errorf("%+v", got)
			}
			if !strings.Contains(got.Broken, tt.told) || (tt.told == "") != (got.Broken == "") || got.Broken != "" && !strings.HasSuffix(got.Broken, "; apply the tier anew") {
				t.Errorf("told: %s", got.Broken)
			}
		})
	}
	e := Invalidate(ID{Kind: KindTier, Name: "t"}, errors.New("no JSON"))
	if v, ok := e.Value.(*Tier); !ok || !v.Lost || !strings.HasPrefix(v.Broken, "no JSON: ") {
		t.Errorf("of something that is no JSON: %+v", e.Value)
	}
}

func TestProfileRules(t *testing.T) {
	p := fromJSON(t, "Profile", "", `{"labelsToApply":{"a":"b"},"ingress":[{"action":"Allow","source":{"notSelector":"x == 'y'"}}],"egress":[{"action":"Never"}]}`).(*Profile)
	if p.Name != "p" || p.Labels["a"] != "b" || len(p.Ingress) != 1 || p.Ingress[0].Source.Peers.Restricted || !p.Ingress[0].Source.Peers.Excluding ||
		!reflect.DeepEqual(p.Egress, []Rule{{Action: Deny, Families: IPv4 | IPv6}}) || !strings.Contains(p.Broken, "spec.egress[0].action") {
		t.Errorf("%+v", p)
	}
}

func TestNetworkSets(t *testing.T) {
	read := func(namespace, labels, nets string) *NetworkSet {
		kind := "NetworkSet"
		if namespace == "" {
			kind = "GlobalNetworkSet"
		}
		o, err := v3.DecodeStored([]byte(`{"kind":"` + kind + `","metadata":{"name":"s","namespace":"` + namespace + `","labels":` + labels + `},"spec":{"nets":` + nets + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		e, _, err := FromObject(o)
		if err != nil {
			t.Fatal(err)
		}
		return e.Value.(*NetworkSet)
	}
	got := read("ns1", `{"a":"b"}`, `["fd00::1","10.1.2.3/8","0.0.0.0/0","10.0.0.0/8"]`)
	want := &NetworkSet{ID: ID{KindNetworkSet, "ns1", "s"}, Labels: map[string]string{"a": "b", "projectcalico.org/namespace": "ns1"},
		Profiles: []string{"kns.ns1"}, Nets: prefixes("0.0.0.0/0", "10.0.0.0/8", "fd00::1/128")}
	if !reflect.DeepEqual(got, want) || got.ID.String() != "NetworkSet ns1/s" {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
	// Nobody claims to be of another's namespace.
	got = read("", `{"a":"b","projectcalico.org/namespace":"ns2","pcns.env":"prod","pcsa.x":"y"}`, `["10.0.0.0/40","10.0.0.0/8"]`)
	want = &NetworkSet{ID: ID{KindNetworkSet, "", "s"}, Labels: map[string]string{"a": "b"}, Nets: prefixes("10.0.0.0/8"),
		Broken: `spec.nets[0]: "10.0.0.0/40": must be a CIDR or an IP address`}
	if !reflect.DeepEqual(got, want) || got.ID.String() != "GlobalNetworkSet s" {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

func TestEndpointsOfPolicy(t *testing.T) {
	w := fromJSON(t, "WorkloadEndpoint", "ns1", `{"allowSpoofedSourcePrefixes":["10.0.0.0/8","192.0.2.1"]}`).(*Workload)
	if !slices.Equal(w.Sources, prefixes("10.0.0.0/8", "192.0.2.1/32")) {
		t.Errorf("%+v", w)
	}
	h := fromJSON(t, "HostEndpoint", "", `{"ports":[{"name":"ssh","protocol":"TCP","port":22},{"name":"x","protocol":"NN","port":1}]}`).(*HostEndpoint)
	if !reflect.DeepEqual(h.Ports, []NamedPort{{"ssh", 6, 22}}) {
		t.Errorf("%+v", h)
	}
}

// TestOrderOfPolicies: by order, one without last; ties by name, namespace and
// kind as bytes, so that those of namespaces and global ones mix.
func TestOrderOfPolicies(t *testing.T) {
	policy := func(order float64, name, namespace, kind string) *Policy {
		return &Policy{Order: order, Name: name, Namespace: namespace, APIKind: kind}
	}
	none := math.Inf(1)
	want := []*Policy{
		policy(-1, "z", "", "GlobalNetworkPolicy"),
		policy(10, "z", "ns1", "NetworkPolicy"),
		policy(1000, "a", "ns1", "NetworkPolicy"),
		policy(none, "a", "", "GlobalNetworkPolicy"),
		policy(none, "a", "ns1", "KubernetesNetworkPolicy"),
		policy(none, "a", "ns1", "NetworkPolicy"),
		policy(none, "a-b", "ns1", "NetworkPolicy"), // '-' is less than '/'
		policy(none, "a.b", "", "GlobalNetworkPolicy"),
		policy(none, "b", "", "GlobalNetworkPolicy"),
		policy(none, "b", "a", "NetworkPolicy"),
		policy(none, "b", "ns", "NetworkPolicy"),
	}
	slices.SortFunc(want[3:], func(a, b *Policy) int {
		return strings.Compare(a.Name+"/"+a.Namespace+"/"+a.APIKind, b.Name+"/"+b.Namespace+"/"+b.APIKind)
	})
	if want[3].Name != "a-b" || want[4].Name != "a.b" || want[5].Namespace != "" || want[6].APIKind != "KubernetesNetworkPolicy" {
		t.Fatalf("the names are not chosen well: %+v", want[3])
	}
	for seed := range uint64(20) {
		got := slices.Clone(want)
		r := rand.New(rand.NewPCG(seed, 1))
		r.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		slices.SortFunc(got, ComparePolicies)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: order differs", seed)
		}
	}
}

// TestOrderOfTiers: one without an order comes after all that have one.
func TestOrderOfTiers(t *testing.T) {
	want := []*Tier{
		{Name: "z", Order: -5}, {Name: "kube-admin", Order: 1000}, {Name: "default", Order: 1e6}, {Name: "security", Order: 1e6},
		{Name: "kube-baseline", Order: 1e7}, {Name: "a", Order: math.Inf(1)}, {Name: "b", Order: math.Inf(1)},
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	if slices.SortFunc(got, CompareTiers); !slices.Equal(got, want) {
		t.Errorf("order differs: %+v", got)
	}
}

// FuzzPolicy reads any spec: never a panic, and whatever validation accepts is
// read whole.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`{"tier":"t","order":1,"selector":"a == 'b'","types":["Ingress"],"ingress":[{"action":"Allow","protocol":"TCP","source":{"nets":["10.0.0.0/8"]},"destination":{"ports":[80,"http"]}}]}`))
	f.Add([]byte(`{"egress":[{"action":"Deny","protocol":"ICMP","icmp":{"type":8,"code":0},"destination":{"services":{"name":"s"},"notSelector":"x"}}]}`))
	f.Add([]byte(`{"ingress":[{"action":"Pass","notProtocol":3,"source":{"serviceAccounts":{"names":["a"],"selector":"all()"},"namespaceSelector":"global()"}}]}`))
	f.Fuzz(func(t *testing.T, spec []byte) {
		text := `{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"p","namespace":"ns1"},"spec":` + string(spec) + `}`
		o, err := v3.DecodeStored([]byte(text))
		if err != nil {
			return
		}
		e, _, err := FromObject(o)
		p, ok := e.Value.(*Policy)
		if !ok || err != nil {
			t.Fatalf("%+v, %v", e, err)
		}
		if errs := v3.Validate(o); len(errs) == 0 && p.Broken != "" {
			t.Errorf("valid, and yet: %s", p.Broken)
		}
		in := o.(*v3.NetworkPolicy).Spec
		if len(p.Ingress.Rules) != len(in.Ingress) || len(p.Egress.Rules) != len(in.Egress) {
			t.Error("a rule lost its place")
		}
		for _, r := range slices.Concat(p.Ingress.Rules, p.Egress.Rules) {
			if r.Families == 0 || r.Action == 0 {
				t.Errorf("%+v", r)
			}
		}
	})
}
