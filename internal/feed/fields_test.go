package feed

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/calc"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// The flows of these tests have one end at the pod web of namespace shop, on
// this host, and the other at one of these.
const (
	web      = "10.65.0.2"
	web6     = "fd00::2"
	fe       = "10.65.1.1" // pod of shop on another host: role fe, account teller
	fe6      = "fd00::1:1"
	be       = "10.65.1.3" // pod of shop on another host
	other    = "10.65.1.2" // pod of namespace other: role fe
	office   = "192.0.2.7" // in a NetworkSet of shop
	bad      = "203.0.113.7"
	host     = "172.16.0.1" // a host endpoint: role fe
	stranger = "198.51.100.1"
)

// stored is a cluster in a datastore.
type stored struct{ store.Driver }

// shop is the cluster of these tests.
func shop(t *testing.T) stored {
	t.Helper()
	s := stored{mem.New()}
	const open = `"ingress":[{"action":"Allow"}],"egress":[{"action":"Allow"}]`
	for _, o := range []struct{ plural, kind, namespace, name, labels, spec string }{
		{"tiers", "Tier", "", "default", "", `{"order":1000000,"defaultAction":"Deny"}`},
		{"profiles", "Profile", "", "kns.shop", "", `{` + open + `,"labelsToApply":{"pcns.env":"prod"}}`},
		{"profiles", "Profile", "", "kns.other", "", `{` + open + `,"labelsToApply":{"pcns.env":"test"}}`},
		{"profiles", "Profile", "", "ksa.shop.teller", "", `{"labelsToApply":{"pcsa.trusted":"yes"}}`},
		{"workloadendpoints", "WorkloadEndpoint", "shop", "web", `"app":"web"`, `{"node":"me","orchestrator":"k8s","interfaceName":"caliweb","ipNetworks":["` +
			web + `/32","` + web6 + `/128"],"profiles":["kns.shop"],"ports":[{"name":"http","protocol":"TCP","port":8080},{"name":"dns","protocol":"UDP","port":53}]}`},
		{"workloadendpoints", "WorkloadEndpoint", "shop", "fe", `"role":"fe"`, `{"node":"far","orchestrator":"k8s","interfaceName":"calife","ipNetworks":["` +
			fe + `/32","` + fe6 + `/128"],"profiles":["kns.shop","ksa.shop.teller"],"serviceAccountName":"teller"}`},
		{"workloadendpoints", "WorkloadEndpoint", "shop", "be", "", `{"node":"far","orchestrator":"k8s","interfaceName":"calibe","ipNetworks":["` +
			be + `/32"],"profiles":["kns.shop"]}`},
		{"workloadendpoints", "WorkloadEndpoint", "other", "fe", `"role":"fe"`, `{"node":"far","orchestrator":"k8s","interfaceName":"califx","ipNetworks":["` +
			other + `/32"],"profiles":["kns.other"]}`},
		{"networksets", "NetworkSet", "shop", "office", `"role":"fe"`, `{"nets":["192.0.2.0/24"]}`},
		{"globalnetworksets", "GlobalNetworkSet", "", "bad", `"bad":"yes"`, `{"nets":["203.0.113.0/24"]}`},
		{"hostendpoints", "HostEndpoint", "", "far-eth0", `"role":"fe"`, `{"node":"far","interfaceName":"eth0","expectedIPs":["` + host + `"]}`},
	} {
		s.put(t, o.plural, o.kind, o.namespace, o.name, o.labels, o.spec)
	}
	return s
}

func (s stored) put(t *testing.T, plural, kind, namespace, name, labels, spec string) {
	t.Helper()
	key := store.ResourceID{Plural: plural, Namespace: namespace, Name: name}.Key()
	value := fmt.Sprintf(`{"kind":%q,"apiVersion":"projectcalico.org/v3","metadata":{"name":%q,"namespace":%q,"labels":{%s}},"spec":%s}`, kind, name, namespace, labels, spec)
	put(t, s.Driver, key, value)
}

// flow is the first packet of one, to web unless that is its source.
type flow struct {
	peer     string
	out      bool // from web
	protocol uint8
	from, to uint16
	kind     uint8 // type of the ICMP message
	code     uint8
}

// tcp is a connection from a peer to a port of web.
func tcp(peer string, port uint16) flow { return flow{peer: peer, protocol: 6, from: 40000, to: port} }

func (f flow) ends() (source, dest netip.Addr) {
	peer, own := netip.MustParseAddr(f.peer), netip.MustParseAddr(web)
	if peer.Is6() {
		own = netip.MustParseAddr(web6)
	}
	if f.out {
		return own, peer
	}
	return peer, own
}

// allowed decides a flow as this host would: in what the core hands over, as
// the rules of the back end read it. The oracle must agree.
func (s stored) allowed(t *testing.T, f flow) bool {
	t.Helper()
	events, err := Read(t.Context(), s.Driver)
	if err != nil {
		t.Fatal(err)
	}
	snapshot := oracle.Snapshot{}
	for _, e := range events {
		snapshot.Add(e)
		if _, bad := e.Value.(*model.Invalid); bad || broken(e.Value) != "" {
			t.Fatalf("%v is broken: %+v", e.ID, e.Value)
		}
	}
	tables := desired.NewPolicy()
	update := calc.New(model.Settings{Node: "me"}).Apply(events)
	update.Policy.Play(tables)
	source, dest := f.ends()
	direction, in, out := desired.Ingress, "eth0", "caliweb"
	if f.out {
		direction, in, out = desired.Egress, out, in
	}
	said := oracle.NewView(snapshot).Decide(model.ID{Kind: model.KindWorkload, Namespace: "shop", Name: "web"}, direction, model.Flow{
		Protocol: f.protocol, Source: source, Dest: dest, SourcePort: f.from, DestPort: f.to, ICMPType: f.kind, ICMPCode: f.code,
	})
	program := rules.Render(rules.Config{Prefixes: []string{"cali"}, MarkMask: 0xffff0000, CutMark: 0x10000}, &tables)
	done, err := program.Trace(rules.Packet{
		Way: rules.Forwarded, In: in, Out: out, EthSource: "\x02\x00\x00\x00\x00\x01", Source: source, Dest: dest,
		Protocol: f.protocol, SourcePort: f.from, DestPort: f.to, ICMPType: f.kind, ICMPCode: f.code, State: rules.StateNew,
	})
	if err != nil {
		t.Fatal(err)
	}
	if done.Accepted != said.Allowed {
		t.Fatalf("%+v: the rules say %v\n%v\nthe oracle\n%s", f, done.Accepted, done, said.Text(true))
	}
	return done.Accepted
}

// policy stores a policy of shop, or a global one.
func (s stored) policy(t *testing.T, kind, name, spec string) {
	t.Helper()
	namespace := "shop"
	if strings.Contains(kind, "Global") {
		namespace = ""
	}
	s.put(t, strings.TrimSuffix(strings.ToLower(kind), "y")+"ies", kind, namespace, name, "", spec)
}

// ruleField is what one field of a rule must do: a rule that states it, and no
// other in the policy, matches some flows and not others.
type ruleField struct {
	fields string // keys of the table of honoured fields, without "Rule."
	rule   string // without its action
	out    bool   // of egress
	match  []flow
	not    []flow
}

func ruleFields() []ruleField {
	icmp := func(peer string, protocol, kind, code uint8) flow {
		return flow{peer: peer, protocol: protocol, kind: kind, code: code}
	}
	udp := flow{peer: fe, protocol: 17, from: 40000, to: 53}
	out := func(f flow) flow { f.out = true; return f }
	return []ruleField{
		{"ipVersion", `"ipVersion":6`, false, []flow{tcp(fe6, 80)}, []flow{tcp(fe, 80)}},
		{"protocol", `"protocol":"UDP"`, false, []flow{udp}, []flow{tcp(fe, 80)}},
		{"protocol", `"protocol":132`, false, []flow{{peer: fe, protocol: 132, from: 1, to: 2}}, []flow{tcp(fe, 80)}},
		{"notProtocol", `"notProtocol":"UDP"`, false, []flow{tcp(fe, 80), icmp(fe, 1, 8, 0)}, []flow{udp}},
		{"icmp.type", `"protocol":"ICMP","icmp":{"type":8}`, false, []flow{icmp(fe, 1, 8, 0), icmp(fe, 1, 8, 1)}, []flow{icmp(fe, 1, 0, 0), tcp(fe, 80)}},
		{"icmp.type", `"protocol":"ICMPv6","icmp":{"type":128}`, false, []flow{icmp(fe6, 58, 128, 0)}, []flow{icmp(fe6, 58, 129, 0), tcp(fe6, 80)}},
		{"icmp.code", `"protocol":"ICMP","icmp":{"type":3,"code":4}`, false, []flow{icmp(fe, 1, 3, 4)}, []flow{icmp(fe, 1, 3, 0)}},
		{"notICMP.type", `"notICMP":{"type":8}`, false, []flow{icmp(fe, 1, 0, 0), tcp(fe, 80)}, []flow{icmp(fe, 1, 8, 0)}},
		{"notICMP.code", `"notICMP":{"type":3,"code":4}`, false, []flow{icmp(fe, 1, 3, 0)}, []flow{icmp(fe, 1, 3, 4)}},
		{"source.nets", `"source":{"nets":["10.65.1.0/31","198.51.100.0/24"]}`, false, []flow{tcp(fe, 80), tcp(stranger, 80)}, []flow{tcp(other, 80), tcp(fe6, 80)}},
		{"source.notNets", `"source":{"notNets":["10.65.1.0/31"]}`, false, []flow{tcp(other, 80)}, []flow{tcp(fe, 80)}},
		{"source.selector", `"source":{"selector":"role == 'fe'"}`, false, []flow{tcp(fe, 80), tcp(fe6, 80), tcp(office, 80)}, []flow{tcp(other, 80), tcp(host, 80), tcp(stranger, 80)}},
		{"source.notSelector", `"source":{"notSelector":"role == 'fe'"}`, false, []flow{tcp(be, 80)}, []flow{tcp(fe, 80), tcp(stranger, 80)}},
		{"source.notSelector", `"source":{"namespaceSelector":"all()","notSelector":"role == 'fe'"}`, false, []flow{tcp(be, 80)}, []flow{tcp(fe, 80), tcp(other, 80), tcp(stranger, 80)}},
		{"source.namespaceSelector", `"source":{"namespaceSelector":"env == 'test'","selector":"role == 'fe'"}`, false, []flow{tcp(other, 80)}, []flow{tcp(fe, 80), tcp(host, 80)}},
		{"source.namespaceSelector", `"source":{"namespaceSelector":"global()"}`, false, []flow{tcp(bad, 80), tcp(host, 80)}, []flow{tcp(fe, 80), tcp(office, 80)}},
		{"source.serviceAccounts.names", `"source":{"serviceAccounts":{"names":["teller","boss"]}}`, false, []flow{tcp(fe, 80)}, []flow{tcp(other, 80), tcp(office, 80)}},
		{"source.serviceAccounts.selector", `"source":{"serviceAccounts":{"selector":"trusted == 'yes'"}}`, false, []flow{tcp(fe, 80)}, []flow{tcp(other, 80), tcp(office, 80)}},
		{"source.ports", `"protocol":"TCP","source":{"ports":["40000:40001"]}`, false, []flow{tcp(fe, 80)}, []flow{{peer: fe, protocol: 6, from: 40002, to: 80}}},
		{"source.ports", `"source":{"ports":["http"]}`, true, []flow{{peer: fe, out: true, protocol: 6, from: 8080, to: 1}}, []flow{out(tcp(fe, 80))}},
		{"source.notPorts", `"protocol":"TCP","source":{"notPorts":[40000]}`, false, []flow{{peer: fe, protocol: 6, from: 40002, to: 80}}, []flow{tcp(fe, 80)}},
		{"destination.nets", `"destination":{"nets":["10.65.1.0/31"]}`, true, []flow{out(tcp(fe, 80))}, []flow{out(tcp(other, 80))}},
		{"destination.notNets", `"destination":{"notNets":["10.65.1.0/31"]}`, true, []flow{out(tcp(other, 80))}, []flow{out(tcp(fe, 80)), out(tcp(fe6, 80))}},
		{"destination.selector", `"destination":{"selector":"role == 'fe'"}`, true, []flow{out(tcp(fe, 80)), out(tcp(office, 80))}, []flow{out(tcp(other, 80))}},
		{"destination.notSelector", `"destination":{"namespaceSelector":"all()","notSelector":"app == 'web'"}`, true, []flow{out(tcp(fe, 80)), out(tcp(other, 80))}, []flow{out(tcp(bad, 80))}},
		{"destination.namespaceSelector", `"destination":{"namespaceSelector":"env in {'test'}"}`, true, []flow{out(tcp(other, 80))}, []flow{out(tcp(fe, 80)), out(tcp(bad, 80))}},
		{"destination.serviceAccounts.names", `"destination":{"serviceAccounts":{"names":["teller"]}}`, true, []flow{out(tcp(fe, 80))}, []flow{out(tcp(other, 80))}},
		{"destination.serviceAccounts.selector", `"destination":{"serviceAccounts":{"selector":"has(trusted)"}}`, true, []flow{out(tcp(fe, 80))}, []flow{out(tcp(other, 80))}},
		{"destination.ports", `"protocol":"TCP","destination":{"ports":[81,"8000:8010"]}`, false, []flow{tcp(fe, 81), tcp(fe6, 8010)}, []flow{tcp(fe, 80), {peer: fe, protocol: 17, to: 81}}},
		{"destination.ports", `"destination":{"ports":["http","dns"]}`, false, []flow{tcp(fe, 8080), udp}, []flow{tcp(fe, 53), tcp(fe, 80)}},
		{"destination.notPorts", `"protocol":"TCP","destination":{"notPorts":[81,"http"]}`, false, []flow{tcp(fe, 80)}, []flow{tcp(fe, 81), tcp(fe, 8080)}},
	}
}

// TestRuleFields: each field of a rule, from what is stored to the rules of the
// back end, in a rule that allows and in one that denies.
func TestRuleFields(t *testing.T) {
	for _, f := range ruleFields() {
		t.Run(f.fields+" "+f.rule, func(t *testing.T) {
			for _, action := range []string{"Allow", "Deny"} {
				s, list := shop(t), "ingress"
				if f.out {
					list = "egress"
				}
				rest := ""
				if action == "Deny" {
					rest = `,{"action":"Allow"}`
				}
				s.policy(t, "NetworkPolicy", "p",
					`{"selector":"app == 'web'","types":["`+strings.ToUpper(list[:1])+list[1:]+`"],"`+list+`":[{"action":"`+action+`",`+f.rule+`}`+rest+`]}`)
				for _, want := range []struct {
					flows []flow
					match bool
				}{{f.match, true}, {f.not, false}} {
					for _, fl := range want.flows {
						if got := s.allowed(t, fl); got != (want.match == (action == "Allow")) {
							t.Errorf("%s: %+v is allowed: %v", action, fl, got)
						}
					}
				}
			}
		})
	}
}
