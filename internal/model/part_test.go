package model

import (
	"math"
	"reflect"
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// TestPartOfAPolicy: a value of the wrong type costs the rule that it is in,
// not the policy.
func TestPartOfAPolicy(t *testing.T) {
	const both = IPv4 | IPv6
	allow, deny, nothing := Rule{Action: Allow, Families: both}, Rule{Action: Deny, Families: both}, Rule{Action: Allow, Families: both, Never: true}
	inOrder := func(order float64, rules ...Rule) *Policy {
		return &Policy{Order: order, Ingress: Direction{Applies: true, Rules: rules}}
	}
	last := math.Inf(1)
	for _, tt := range []struct {
		name, spec, path string
		want             *Policy // order and ingress alone
	}{
		{"port of an allowing rule", `{"types":["Ingress"],"ingress":[{"action":"Allow","protocol":"TCP","destination":{"ports":["0:99999"]}},{"action":"Allow"}]}`,
			"spec.ingress[0].destination.ports[0]", inOrder(last, nothing, allow)},
		{"port of a denying rule", `{"types":["Ingress"],"ingress":[{"action":"Allow"},{"action":"Deny","destination":{"ports":[{}]}}]}`,
			"spec.ingress[1].destination.ports[0]", inOrder(last, allow, deny)},
		{"a type of ICMP that would read as 0", `{"types":["Ingress"],"ingress":[{"action":"Allow","protocol":"ICMP","icmp":{"type":"x"}}]}`,
			"spec.ingress[0].icmp.type", inOrder(last, nothing)},
		{"a rule that is none", `{"types":["Ingress"],"ingress":["x",{"action":"Allow"}]}`, "spec.ingress[0]", inOrder(last, deny, allow)},
		{"rules that are none", `{"types":["Ingress"],"ingress":{}}`, "spec.ingress", inOrder(last, deny)},
		{"order", `{"types":["Ingress"],"order":"x","ingress":[{"action":"Allow"},{"action":"Pass"},{"action":"Deny"}]}`,
			"spec.order", inOrder(math.Inf(-1), nothing, deny, deny)},
		{"selector", `{"types":["Ingress"],"selector":1,"ingress":[{"action":"Allow"}]}`, "spec.selector", inOrder(last, nothing)},
		{"types", `{"types":"Egress","ingress":[{"action":"Allow"}]}`, "spec.types", inOrder(last, allow)},
		{"all of it", `[]`, "spec", inOrder(last, deny)},
		{"metadata does not matter", `{"types":["Ingress"],"ingress":[{"action":"Allow"}]},"metadata":{"name":"p","namespace":"ns1","labels":1}`,
			"metadata.labels", inOrder(last, allow)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := `{"kind":"NetworkPolicy","metadata":{"name":"p","namespace":"ns1"},"spec":` + tt.spec + `}`
			o, unread, err := v3.DecodeStoredPart([]byte(text))
			if err != nil || len(unread) == 0 {
				t.Fatal(unread, err)
			}
			e, ok, err := FromPart(o, unread)
			p, is := e.Value.(*Policy)
			if !ok || !is || err != nil {
				t.Fatalf("%v, %v: %+v", ok, err, e)
			}
			if p.Order != tt.want.Order || !reflect.DeepEqual(p.Ingress, tt.want.Ingress) {
				t.Errorf("\n got %v %+v\nwant %v %+v", p.Order, p.Ingress, tt.want.Order, tt.want.Ingress)
			}
			if !p.Selects.Equal(parse(t, "projectcalico.org/namespace == 'ns1'")) || !strings.HasPrefix(p.Broken, tt.path+": ") {
				t.Errorf("selects %s, broken: %s", p.Selects, p.Broken)
			}
		})
	}
}

// TestPartOfOthers: what can only be whole is invalid.
func TestPartOfOthers(t *testing.T) {
	read := func(text string) (Event, error) {
		t.Helper()
		o, unread, err := v3.DecodeStoredPart([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		e, _, err := FromPart(o, unread)
		return e, err
	}
	e, err := read(`{"kind":"NetworkSet","metadata":{"name":"s","namespace":"ns"},"spec":{"nets":[5,"10.0.0.0/8"]}}`)
	if s, ok := e.Value.(*NetworkSet); !ok || err != nil || len(s.Nets) != 1 || !strings.Contains(s.Broken, "spec.nets[0]") {
		t.Errorf("%+v, %v", e.Value, err)
	}
	e, err = read(`{"kind":"Profile","metadata":{"name":"p"},"spec":{"ingress":[{"action":"Allow","ipVersion":"x"}],"labelsToApply":{"a":"b","c":1}}}`)
	if p, ok := e.Value.(*Profile); !ok || err != nil || !p.Ingress[0].Never || p.Labels["a"] != "b" || p.Broken == "" {
		t.Errorf("%+v, %v", e.Value, err)
	}
	e, err = read(`{"kind":"IPPool","metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/8","blockSize":"x"}}`)
	if _, ok := e.Value.(*Invalid); !ok || err == nil || !strings.Contains(err.Error(), "IPPool p: spec.blockSize") {
		t.Errorf("%+v, %v", e.Value, err)
	}
	e, err = read(`{"kind":"Tier","metadata":{"name":"t"},"spec":{"order":5,"unknown":1}}`)
	if v, ok := e.Value.(*Tier); !ok || err != nil || v.Order != 5 {
		t.Errorf("%+v, %v", e.Value, err)
	}
}
