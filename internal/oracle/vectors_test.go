package oracle_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/selector"
)

// stored reads an object as the datastore has it.
func stored(t *testing.T, s oracle.Snapshot, text string) {
	t.Helper()
	o, err := v3.DecodeStored([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	e, ok, err := model.FromObject(o)
	if err != nil || !ok {
		t.Fatalf("%s: %v %v", text, ok, err)
	}
	s.Add(e)
}

// peopled is a cluster with one of everything that a selector could mean:
// pods in three namespaces, a host, network sets of both kinds. Every one of
// them has an address of each family; see where.
func peopled(t *testing.T) oracle.Snapshot {
	t.Helper()
	s := oracle.Snapshot{}
	put(s, deny("default", 1e6))
	for i, ns := range []string{"ns1", "ns2", "ns3"} {
		put(s, kns(ns, map[string]string{"env": []string{"a", "prod", "a"}[i]}))
		for j, r := range []string{"x", "y", "z"} {
			p := pod(ns, "pod-"+r, map[string]string{"r": r}, where(10*(i+1)+j)...)
			p.Labels[selector.ServiceAccountLabel] = []string{"a", "b", "c"}[j]
			put(s, p)
		}
	}
	hep := &model.HostEndpoint{
		ID: model.ID{Kind: model.KindHostEndpoint, Name: "host"}, Node: "h9", Labels: map[string]string{"r": "y"},
	}
	for _, a := range where(50) {
		hep.Addrs = append(hep.Addrs, netip.MustParseAddr(a))
	}
	put(s, hep)
	stored(t, s, `{"kind":"GlobalNetworkSet","metadata":{"name":"everywhere","labels":{"r":"y"}},"spec":{"nets":["10.65.0.60","fd00::60"]}}`)
	stored(t, s, `{"kind":"NetworkSet","metadata":{"name":"set","namespace":"ns1","labels":{"r":"y"}},"spec":{"nets":["10.65.0.61","fd00::61"]}}`)
	return s
}

// where is the addresses of both families with a number.
func where(n int) []string { return []string{fmt.Sprintf("10.65.0.%d", n), fmt.Sprintf("fd00::%d", n)} }

// people is everybody in the peopled cluster, by name, with the number, and a
// stranger.
func people() map[string]int {
	out := map[string]int{"host": 50, "everywhere": 60, "set": 61, "stranger": 99}
	for i, ns := range []string{"ns1", "ns2", "ns3"} {
		for j, r := range []string{"x", "y", "z"} {
			out[ns+"/"+r] = 10*(i+1) + j
		}
	}
	return out
}

// TestWhomPoliciesSelect is the documented composition of what a policy
// applies to: who is isolated by a policy without rules. Both families.
func TestWhomPoliciesSelect(t *testing.T) {
	tests := []struct {
		name, policy string
		want         string
	}{
		{"selector in a namespace", `{"kind":"NetworkPolicy","metadata":{"name":"p","namespace":"ns1"},"spec":{"selector":"r == 'x'","types":["Ingress"]}}`, "ns1/x"},
		{"empty selector in a namespace", `{"kind":"NetworkPolicy","metadata":{"name":"p","namespace":"ns1"},"spec":{"types":["Ingress"]}}`, "ns1/x ns1/y ns1/z"},
		{"or does not escape the namespace", `{"kind":"NetworkPolicy","metadata":{"name":"p","namespace":"ns1"},"spec":{"selector":"r == 'x' || all()","types":["Ingress"]}}`, "ns1/x ns1/y ns1/z"},
		{"global with namespaceSelector", `{"kind":"GlobalNetworkPolicy","metadata":{"name":"p"},"spec":{"namespaceSelector":"env == 'prod'","selector":"r == 'x'","types":["Ingress"]}}`, "ns2/x"},
		{"global with namespaceSelector all()", `{"kind":"GlobalNetworkPolicy","metadata":{"name":"p"},"spec":{"namespaceSelector":"all()","types":["Ingress"]}}`,
			"ns1/x ns1/y ns1/z ns2/x ns2/y ns2/z ns3/x ns3/y ns3/z"},
		{"service accounts", `{"kind":"GlobalNetworkPolicy","metadata":{"name":"p"},"spec":{"selector":"projectcalico.org/serviceaccount == 'b'","types":["Ingress"]}}`, "ns1/y ns2/y ns3/y"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := peopled(t)
			stored(t, s, tt.policy)
			for family := range 2 {
				var got []string
				for name, n := range people() {
					to := netip.MustParseAddr(where(n)[family])
					v := s.Verdict(model.Flow{Protocol: model.ProtocolTCP, Source: netip.MustParseAddr(where(99)[family]), Dest: to, DestPort: 80})
					if v.Ingress != nil && !v.Allowed {
						got = append(got, name)
					}
				}
				slices.Sort(got)
				if g := strings.Join(got, " "); g != tt.want {
					t.Errorf("%s: isolated are %q, want %q", where(0)[family], g, tt.want)
				}
			}
		})
	}
}

// TestWhomRulesSelect is the documented composition of a rule's source: from
// whom ns2/z may be reached, or ns1/z for a policy of namespace ns1. Both
// families.
func TestWhomRulesSelect(t *testing.T) {
	const np, gnp = `{"kind":"NetworkPolicy","metadata":{"name":"p","namespace":"ns1"},"spec":{"selector":"r == 'z'","types":["Ingress"],
		"ingress":[{"action":"Allow","source":%s}]}}`, `{"kind":"GlobalNetworkPolicy","metadata":{"name":"p"},"spec":{
		"selector":"r == 'z' && projectcalico.org/namespace == 'ns1'","types":["Ingress"],"ingress":[{"action":"Allow","source":%s}]}}`
	var everybody []string
	for name := range people() {
		if name != "ns1/z" {
			everybody = append(everybody, name)
		}
	}
	slices.Sort(everybody)
	tests := []struct {
		name, policy, source string
		want                 string
	}{
		{"nothing", np, `{}`, strings.Join(everybody, " ")},
		{"selector stays in the namespace", np, `{"selector":"r == 'y'"}`, "ns1/y set"},
		{"namespaceSelector and selector", np, `{"namespaceSelector":"env == 'a'","selector":"r == 'y'"}`, "ns1/y ns3/y set"},
		{"namespaceSelector all()", np, `{"namespaceSelector":"all()","selector":"r == 'y'"}`, "ns1/y ns2/y ns3/y set"},
		{"notSelector only", np, `{"notSelector":"r == 'y'"}`, "ns1/x"},
		{"service accounts", np, `{"serviceAccounts":{"names":["a","b"]}}`, "ns1/x ns1/y"},
		{"nets only", np, `{"nets":["10.65.0.20/31","10.65.0.99/32"]}`, "ns2/x ns2/y stranger"},
		{"global()", gnp, `{"namespaceSelector":"global()","selector":"r == 'y'"}`, "everywhere host"},
		{"selector of a global policy", gnp, `{"selector":"r == 'y'"}`, "everywhere host ns1/y ns2/y ns3/y set"},
		{"notSelector of a global policy", gnp, `{"notSelector":"has(r)"}`, "stranger"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for family := range 2 {
				s, source := peopled(t), tt.source
				if family == 1 { // the same networks of the other family
					source = strings.NewReplacer("10.65.0.20/31", "fd00::20/127", "10.65.0.99/32", "fd00::99/128").Replace(source)
				}
				stored(t, s, fmt.Sprintf(tt.policy, source))
				var got []string
				for name, n := range people() {
					from, to := netip.MustParseAddr(where(n)[family]), netip.MustParseAddr(where(12)[family])
					v := oracle.NewView(s).Verdict(model.Flow{Protocol: model.ProtocolTCP, Source: from, Dest: to, DestPort: 80})
					if v.Ingress != nil && v.Ingress.Allowed {
						got = append(got, name)
					}
				}
				slices.Sort(got)
				if g := strings.Join(got, " "); g != tt.want {
					t.Errorf("%s: got %q, want %q", where(0)[family], g, tt.want)
				}
			}
		})
	}
}
