package v3

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/selector"
)

// samples are objects of many kinds that use many fields.
func samples(t testing.TB) []Object {
	t.Helper()
	data, err := os.ReadFile("testdata/calico/input.yaml")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := DecodeAll("input.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	var all []Object
	for _, d := range docs {
		all = append(all, d.Object)
	}
	for _, k := range Kinds() {
		o := k.New()
		o.Meta().Name = "x"
		all = append(all, o)
	}
	return all
}

func copyOf(t testing.TB, o Object) Object {
	t.Helper()
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	k, ok := kindNamed(kindOf(o))
	if !ok {
		t.Fatalf("no kind %s", kindOf(o))
	}
	again := k.New()
	if err := json.Unmarshal(data, again); err != nil {
		t.Fatal(err)
	}
	return again
}

// everything calls all validators and holds them to what is true of any
// object.
func everything(t testing.TB, o Object, world Objects) {
	t.Helper()
	before, _ := json.Marshal(o)
	wrong := Validate(o)
	for _, e := range wrong {
		if e.Rule == "" || !strings.HasPrefix(e.Rule, "must ") {
			t.Errorf("an error without a rule: %+v", e)
		}
		for _, r := range e.Error() {
			if r < ' ' || r == 0x7f {
				t.Errorf("a control character reaches the terminal: %q", e.Error())
			}
		}
	}
	if again := Validate(o); !reflect.DeepEqual(wrong, again) {
		t.Errorf("the second time it says something else: %v, %v", wrong, again)
	}
	if created := ValidateCreate(o, world); len(wrong) > 0 && len(created) == 0 {
		t.Errorf("what is invalid may be created: %v", wrong)
	}
	if updated := ValidateUpdate(o, o, world); len(wrong) > 0 && len(updated) == 0 {
		t.Errorf("what is invalid may be written: %v", wrong)
	}
	ValidateDelete(o, world)
	if in := ValidateSet([]Object{o, o}, world); len(wrong) > 0 && (len(in[0]) == 0 || len(in[1]) == 0) {
		t.Errorf("what is invalid may be in a set: %v", wrong)
	}
	if after, _ := json.Marshal(o); !bytes.Equal(before, after) {
		t.Errorf("validation changed the object from %s to %s", before, after)
	}
}

func FuzzValidate(f *testing.F) {
	for _, o := range samples(f) {
		data, err := json.Marshal(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	world := Objects(samples(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, _ := DecodeAll("fuzz", data)
		for _, d := range docs {
			everything(t, d.Object, world)
		}
		var m TypeMeta
		if json.Unmarshal(data, &m) != nil { // as stored: less strict
			return
		}
		if k, ok := kindNamed(m.Kind); ok {
			if o := k.New(); json.Unmarshal(data, o) == nil {
				everything(t, o, world)
			}
		}
	})
}

// TestValidateMutated changes a few fields of the samples to values that often
// break something, and to ones that only a program could make.
func TestValidateMutated(t *testing.T) {
	world := Objects(samples(t))
	r := rand.New(rand.NewPCG(5, 6))
	for _, o := range samples(t) {
		for range 80 {
			c := copyOf(t, o)
			for range 1 + r.IntN(4) {
				mutate(r, reflect.ValueOf(c).Elem(), 0)
			}
			everything(t, c, world)
		}
	}
}

var oddities = []string{"", " ", "x", "10.0.0.0/8", "10.0.0.1", "fd00::/64", "::ffff:1.2.3.4/120", "fe80::1%e", "all()", "global()", "has(", "-1", "0", "65536", "\x1b[31m", "Always", "é", "a/b", "(", "*"}

// mutate sets one random field below v.
func mutate(r *rand.Rand, v reflect.Value, depth int) {
	switch {
	case depth > 12 || !v.CanSet():
	case v.Kind() == reflect.Struct:
		if v.NumField() > 0 {
			mutate(r, v.Field(r.IntN(v.NumField())), depth+1)
		}
	case v.Kind() == reflect.Pointer:
		if r.IntN(6) == 0 {
			v.SetZero()
			return
		}
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		mutate(r, v.Elem(), depth+1)
	case v.Kind() == reflect.Slice:
		if n := v.Len(); n == 0 || r.IntN(3) == 0 {
			v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
		}
		mutate(r, v.Index(r.IntN(v.Len())), depth+1)
	case v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String:
		value := reflect.New(v.Type().Elem()).Elem()
		mutate(r, value, depth+1)
		m := reflect.MakeMap(v.Type())
		m.SetMapIndex(reflect.ValueOf(oddities[r.IntN(len(oddities))]), value)
		v.Set(m)
	case v.Kind() == reflect.String:
		v.SetString(oddities[r.IntN(len(oddities))])
	case v.Kind() == reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case v.CanInt():
		v.SetInt(int64(r.IntN(300) - 20))
	case v.CanUint():
		v.SetUint(uint64(r.IntN(200)))
	}
}

// TestEmptyIsNotSet: nil and empty lists and maps are the same to validation,
// so that a list which a template rendered empty is judged as if left out.
func TestEmptyIsNotSet(t *testing.T) {
	everyCase := samples(t)
	for _, v := range []verdict{
		{kind: "NetworkPolicy", spec: "ingress: [{action: Allow, source: {}, http: {}, metadata: {}}], egress: [{action: Allow, protocol: TCP, destination: {serviceAccounts: {}}}]"},
		{kind: "StagedNetworkPolicy", spec: "stagedAction: Delete"},
		{kind: "StagedKubernetesNetworkPolicy", spec: "ingress: [{from: [{podSelector: {}}]}]"},
		{kind: "BGPConfiguration", meta: "name: node.n1"},
		{kind: "BGPFilter", spec: "exportV4: [{action: Reject}]"},
		{kind: "Node"}, {kind: "HostEndpoint", spec: goodHost},
	} {
		everyCase = append(everyCase, v.object(t))
	}
	for _, o := range everyCase {
		empty := copyOf(t, o)
		if n := fillEmpty(reflect.ValueOf(empty).Elem()); n == 0 {
			t.Errorf("%s: nothing to fill", kindOf(o))
		}
		if a, b := Validate(o), Validate(empty); !reflect.DeepEqual(a, b) {
			t.Errorf("%s: nil: %v; empty: %v", kindOf(o), a, b)
		}
	}
}

// fillEmpty puts an empty list or map for each nil one, and counts them.
func fillEmpty(v reflect.Value) (n int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				n += fillEmpty(v.Field(i))
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			n += fillEmpty(v.Elem())
		}
	case reflect.Slice:
		if v.IsNil() {
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
			n++
		}
		for i := range v.Len() {
			n += fillEmpty(v.Index(i))
		}
	case reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
			n++
		}
	}
	return n
}

// TestEmptyNeverWidens: of the texts and lists that restrict a policy, the
// empty one means exactly what one left out means, and filling one in never
// lets a policy or a rule select more.
func TestEmptyNeverWidens(t *testing.T) {
	labels := []selector.Map{
		{}, {"r": "x"}, {"r": "y"},
		{"r": "x", selector.NamespaceLabel: "default"},
		{"r": "y", selector.NamespaceLabel: "default", "pcns.env": "prod", "pcsa.role": "db", selector.ServiceAccountLabel: "a"},
		{"r": "x", selector.NamespaceLabel: "other", "pcns.env": "prod"},
	}
	texts := []string{"", "r == 'x'", "all()", "has(env)", "env == 'prod'", "role == 'db'", "!has(r)"}
	narrower := func(what string, wide, tight selector.Selector) {
		for _, l := range labels {
			if tight.Matches(l) && !wide.Matches(l) {
				t.Errorf("%s: %s selects %v, %s does not", what, tight, l, wide)
			}
		}
	}
	must := func(s selector.Selector, err error) selector.Selector {
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, text := range texts {
		narrower("policy", must(selector.ForNetworkPolicy("default", "", "")), must(selector.ForNetworkPolicy("default", text, "")))
		narrower("policy", must(selector.ForNetworkPolicy("default", "", "")), must(selector.ForNetworkPolicy("default", "", text)))
		narrower("global policy", must(selector.ForGlobalNetworkPolicy("", "", "")), must(selector.ForGlobalNetworkPolicy("", text, "")))
		narrower("global policy", must(selector.ForGlobalNetworkPolicy(text, "", "")), must(selector.ForGlobalNetworkPolicy(text, "", text)))
		for _, namespace := range []string{"", "default"} {
			for _, names := range [][]string{nil, {}} {
				e := selector.Entity{Namespace: namespace, Selector: text, ServiceAccountNames: names}
				p, err := e.Compose()
				if err != nil {
					t.Fatal(err)
				}
				plain, err := selector.Entity{Namespace: namespace, Selector: text}.Compose()
				if err != nil || !reflect.DeepEqual(p, plain) {
					t.Errorf("empty names: %+v, none: %+v, %v", p, plain, err)
				}
				e.ServiceAccountNames = []string{"a"}
				tight, err := e.Compose()
				if err != nil {
					t.Fatal(err)
				}
				if p.Restricted && !tight.Restricted {
					t.Errorf("%+v is restricted, with a service account it is not", e)
				}
				narrower("rule", p.Selector, tight.Selector)
			}
		}
	}
	none, one := slices.Collect(func(func(string) bool) {}), []string{"10.0.0.0/8"}
	for _, nets := range [][]string{none, {}, one} {
		o := &GlobalNetworkPolicy{TypeMeta: typed("GlobalNetworkPolicy"), ObjectMeta: ObjectMeta{Name: "x"}}
		o.Spec.Ingress = []Rule{{Action: ActionDeny, Source: EntityRule{Nets: nets, NotNets: nets, Ports: []Port{}, NotPorts: []Port{}}}}
		verdict{}.check(t, Validate(o))
	}
}
