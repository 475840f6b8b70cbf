package v3

import (
	"bytes"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

const pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\n"

func TestDecodeAllTellsEveryFault(t *testing.T) {
	tests := []struct {
		name string
		file string // "pools.yaml" if not given
		in   string
		want []string // without the file's name
	}{
		{name: "unknown field, wrong case", in: pool + "---\n" + pool + "spec: {cidr: 10.0.0.0/8, ipipmode: Always}\n",
			want: []string{`document 2: IPPool p: spec.ipipmode: unknown field (did you mean "ipipMode"?)`}},
		{name: "several at once", in: pool + "spec: {cidrs: 10.0.0.0/8, natOutgoing: yes please, blockSize: 26.5}\n",
			want: []string{
				`document 1: IPPool p: spec.cidrs: unknown field (did you mean "cidr"?)`,
				`document 1: IPPool p: spec.natOutgoing: "yes please": must be true or false`,
				`document 1: IPPool p: spec.blockSize: "26.5": must be a whole number from -9223372036854775808 to 9223372036854775807`,
			}},
		{name: "unknown kind", in: "apiVersion: projectcalico.org/v3\nkind: IPPol\nmetadata: {name: p}\n",
			want: []string{`document 1: IPPol p: kind: "IPPol": unknown kind (did you mean "IPPool"?)`}},
		{name: "kind in the wrong case", in: "apiVersion: projectcalico.org/v3\nkind: ippool\nmetadata: {name: p}\n",
			want: []string{`document 1: ippool p: kind: "ippool": unknown kind (did you mean "IPPool"?)`}},
		{name: "kind of nothing near", in: "apiVersion: projectcalico.org/v3\nkind: Deployment\n",
			want: []string{`document 1: Deployment: kind: "Deployment": unknown kind`}},
		{name: "no kind, no version", in: "metadata: {name: p}\n",
			want: []string{
				`document 1: kind: must be given`,
				`document 1: apiVersion: must be given (write projectcalico.org/v3)`,
			}},
		{name: "wrong version", in: "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: ns}\n",
			want: []string{`document 1: NetworkPolicy ns/p: apiVersion: "networking.k8s.io/v1": must be projectcalico.org/v3`}},
		{name: "field in the wrong place", in: pool + "spec: {cidr: 10.0.0.0/8}\nnatOutgoing: true\n",
			want: []string{`document 1: IPPool p: natOutgoing: unknown field (did you mean spec.natOutgoing?)`}},
		{name: "name in the wrong place", in: "apiVersion: projectcalico.org/v3\nkind: IPPool\nname: p\n",
			want: []string{`document 1: IPPool: name: unknown field (did you mean metadata.name?)`}},
		{name: "duplicate keys", in: pool + "spec:\n  cidr: 10.0.0.0/8\n  cidr: 10.1.0.0/16\n",
			want: []string{`document 1: IPPool p: spec.cidr: given twice (keep one)`}},
		{name: "duplicate keys in JSON", file: "p.json",
			in:   `{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"p","name":"q"}}`,
			want: []string{`document 1: IPPool q: metadata.name: given twice (keep one)`}},
		{name: "scalar for a block", in: pool + "spec: 7\n",
			want: []string{`document 1: IPPool p: spec: "7": must be an object`}},
		{name: "block for a scalar", in: pool + "spec: {cidr: [10.0.0.0/8], nodeSelector: {a: b}}\n",
			want: []string{
				`document 1: IPPool p: spec.cidr: must be text, not a list`,
				`document 1: IPPool p: spec.nodeSelector: must be text, not an object`,
			}},
		{name: "number and truth for text", in: "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: p, labels: {version: 1, on: x, a/b: true}}\n",
			want: []string{`document 1: bad YAML: "key \"true\" must be text: put it in quotes"`}},
		{name: "label values", in: "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: p, labels: {version: 1, a/b: true}}\n",
			want: []string{
				`document 1: NetworkSet p: metadata.labels.version: "1": must be text: put it in quotes`,
				`document 1: NetworkSet p: metadata.labels["a/b"]: "true": must be text: put it in quotes, as YAML takes y, n, yes, no, on and off for true or false`,
			}},
		{name: "scalars of our own", in: "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\n" +
			"spec: {reportingInterval: 30, natPortRange: '9:8', kubeNodePortRanges: [70000], healthTimeoutOverrides: [{name: x, timeout: 5 min}]}\n",
			want: []string{
				`document 1: FelixConfiguration default: spec.reportingInterval: "30": must be a duration in quotes or with a unit, such as 90s or 1h30m`,
				`document 1: FelixConfiguration default: spec.natPortRange: "9:8": must be a range that ends at or after its start`,
				`document 1: FelixConfiguration default: spec.kubeNodePortRanges[0]: "70000": must be a port number from 0 to 65535, a range "min:max", or a port name`,
				`document 1: FelixConfiguration default: spec.healthTimeoutOverrides[0].timeout: "5 min": must be a duration in h, m, s and ms, such as "90s" or "1h30m"`,
			}},
		{name: "AS numbers", in: "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: f}\nspec: {importV4: [{action: Reject, asPathPrefix: [1.10, 4294967296, '1.65536', 1]}]}\n",
			want: []string{
				`document 1: BGPFilter f: spec.importV4[0].asPathPrefix[0]: "1.1": must be an AS number: a number from 0 to 4294967295, or "x.y" with both parts from 0 to 65535; the dotted form needs quotes`,
				`document 1: BGPFilter f: spec.importV4[0].asPathPrefix[1]: "4294967296": must be an AS number: a number from 0 to 4294967295, or "x.y" with both parts from 0 to 65535`,
				`document 1: BGPFilter f: spec.importV4[0].asPathPrefix[2]: "1.65536": must be an AS number: a number from 0 to 4294967295, or "x.y" with both parts from 0 to 65535`,
			}},
		{name: "numbers that nothing can hold", in: "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t}\nspec: {order: .inf}\n---\n" +
			"apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t}\nspec: {order: .nan}\n---\n" +
			"apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t}\nspec: {order: 1e999}\n",
			want: []string{
				`document 1: Tier t: spec.order: "+Inf": must be a number`,
				`document 2: Tier t: spec.order: "NaN": must be a number`,
				`document 3: Tier t: spec.order: "1e999": must be a number`,
			}},
		{name: "bad YAML between good", in: pool + "---\na: [1\nb: 2\n---\n" + pool + "spec: {x: 1}\n",
			want: []string{
				`document 2: bad YAML: line 5: did not find expected ',' or ']'`,
				`document 3: IPPool p: spec.x: unknown field`,
			}},
		{name: "bad JSON", file: "p.json", in: "{\"kind\": \"IPPool\",\n oops}",
			want: []string{`document 1: bad JSON: line 2: invalid character 'o' looking for beginning of object key string`}},
		{name: "JSON cut short", file: "p.json", in: "{\"kind\": \"IPPool\",\n",
			want: []string{`document 1: bad JSON: line 1: the file ends before the value does`}},
		{name: "text", in: "hello\n", want: []string{`document 1: bad YAML: must be an object with kind, apiVersion, metadata and spec, or a list of them`}},
		{name: "item of a list", in: "apiVersion: projectcalico.org/v3\nkind: IPPoolList\nmetadata: {}\nextra: 1\nitems:\n- metadata: {name: a}\n  spec: {cidr: 10.0.0.0/8}\n- metadata: {name: b}\n  spec: {cird: 10.0.0.0/8}\n- 7\n",
			want: []string{
				`document 1: extra: unknown field of a list`,
				`document 1, item 2: IPPool b: spec.cird: unknown field (did you mean "cidr"?)`,
				`document 1: items[2]: must be an object with kind, apiVersion, metadata and spec`,
			}},
		{name: "control characters", in: "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: \"\\e[31m\"}\nspec: {\"a\\nb\": 1}\n",
			want: []string{`document 1: IPPool "\x1b[31m": spec["a\nb"]: unknown field`}},
		{name: "duplicate beside a merge key", in: "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec: {<<: {cidr: 10.0.0.0/8, bad: 1}, blockSize: 26, blockSize: 27}\n",
			want: []string{
				`document 1: IPPool p: spec.blockSize: given twice (keep one)`,
				`document 1: IPPool p: spec.bad: unknown field`,
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.file == "" {
				tt.file = "pools.yaml"
			}
			_, err := DecodeAll(tt.file, []byte(tt.in))
			if err == nil {
				t.Fatal("no error")
			}
			want := tt.file + ": " + strings.Join(tt.want, "\n"+tt.file+": ")
			if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(err.Error(), "\n")); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestDecodeAllFindsDocuments(t *testing.T) {
	object := `{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"%"},"spec":{"cidr":"10.0.0.0/8"}}`
	json := func(name string) string { return strings.ReplaceAll(object, "%", name) }
	type doc struct {
		Index, Item, Line int
		Name              string
	}
	tests := []struct {
		name string
		in   string
		want []doc
	}{
		{"nothing", "", nil},
		{"comments, markers and null only", "# one\n---\n---\n# two\n...\n---\nnull\n--- ~\n", nil},
		{"two documents", "\xef\xbb\xbf# first\n" + pool + "---\n\n" + pool, []doc{{1, 0, 2, "p"}, {2, 0, 7, "p"}}},
		{"end markers and directives", "%YAML 1.1\n---\n" + pool + "...\n%YAML 1.1\n---\n" + pool + "...\n", []doc{{1, 0, 3, "p"}, {2, 0, 9, "p"}}},
		{"carriage returns", strings.ReplaceAll(pool+"---\n"+pool, "\n", "\r\n"), []doc{{1, 0, 1, "p"}, {2, 0, 5, "p"}}},
		{"text behind a marker", "--- " + json("a") + "\n--- # b\n" + pool, []doc{{1, 0, 1, "a"}, {2, 0, 3, "p"}}},
		{"marker inside text", pool + "spec: {cidr: \"a ---\", nodeSelector: '--- b'}\n", []doc{{1, 0, 1, "p"}}},
		{"JSON", "\n" + json("a") + "\n" + json("b"), []doc{{1, 0, 2, "a"}, {2, 0, 3, "b"}}},
		{"JSON array", "[" + json("a") + ",\n" + json("b") + "]", []doc{{1, 1, 1, "a"}, {1, 2, 1, "b"}}},
		{"YAML array", "- " + json("a") + "\n- " + json("b"), []doc{{1, 1, 1, "a"}, {1, 2, 1, "b"}}},
		{"JSON and YAML mixed", json("a") + "\n---\n" + pool, []doc{{1, 0, 1, "a"}, {2, 0, 3, "p"}}},
		{"list kind", `{"kind":"IPPoolList","apiVersion":"projectcalico.org/v3","metadata":{},"items":[{"metadata":{"name":"a"},"spec":{"cidr":"10.0.0.0/8"}},` + json("b") + `]}`, []doc{{1, 1, 1, "a"}, {1, 2, 1, "b"}}},
		{"list of anything", `{"kind":"List","apiVersion":"v1","items":[` + json("a") + `]}`, []doc{{1, 1, 1, "a"}}},
		{"anchors", "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: &n p}\nspec: {<<: {cidr: 10.0.0.0/8}, nodeSelector: *n}\n", []doc{{1, 0, 1, "p"}}},
		{"null is not set", pool + "spec: {cidr: null, blockSize: ~, allowedUses: null}\nstatus: null\n", []doc{{1, 0, 1, "p"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			docs, err := DecodeAll("-", []byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			var got []doc
			for _, d := range docs {
				got = append(got, doc{d.Index, d.Item, d.Line, d.Object.Meta().Name})
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestMergeKeysAreKept(t *testing.T) {
	docs, err := DecodeAll("-", []byte("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec: {<<: {cidr: 10.0.0.0/8, blockSize: 20}, blockSize: 26}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := IPPoolSpec{CIDR: "10.0.0.0/8", BlockSize: 26}
	if d := cmp.Diff(want, docs[0].Object.(*IPPool).Spec); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestDeepNestingAndAliasBombsEnd(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 20 {
		n, m := string(rune('a'+i)), string(rune('a'+i-1))
		if i == 0 {
			m = "a0"
		}
		bomb.WriteString(n + ": &" + n + " [" + strings.Repeat("*"+m+",", 9) + "*" + m + "]\n")
	}
	for name, in := range map[string]string{
		"deep YAML list": strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
		"deep YAML map":  "x: " + strings.Repeat("{a: ", 5000) + strings.Repeat("}", 5000),
		"deep JSON":      strings.Repeat(`{"a":`, 50000),
		"aliases":        bomb.String(),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := DecodeAll("-", []byte(in)); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestDecodeStored(t *testing.T) {
	o, err := DecodeStored([]byte(`{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/8","new":1}}`))
	if err != nil || o.(*IPPool).Spec.CIDR != "10.0.0.0/8" {
		t.Errorf("got %v, %v", o, err)
	}
	for name, in := range map[string]string{"not JSON": "x", "unknown kind": `{"kind":"X"}`, "wrong type": `{"kind":"IPPool","spec":7}`} {
		if _, err := DecodeStored([]byte(in)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestKinds(t *testing.T) {
	seen := map[string]string{}
	all := Kinds()
	if !slices.IsSortedFunc(all, func(a, b KindInfo) int { return strings.Compare(a.Kind, b.Kind) }) {
		t.Error("not sorted")
	}
	for _, k := range all {
		for _, n := range k.names() {
			if n != strings.ToLower(n) {
				t.Errorf("%s is not in lower case", n)
			}
			if seen[n] != "" {
				t.Errorf("%s means %s and %s", n, seen[n], k.Kind)
			}
			seen[n] = k.Kind
			if got, ok := LookupKind(strings.ToUpper(n)); !ok || got.Kind != k.Kind {
				t.Errorf("LookupKind(%s) = %s", n, got.Kind)
			}
		}
		o := k.New()
		if want := (TypeMeta{k.Kind, Group}); *o.Type() != want || reflect.TypeOf(o).Elem().Name() != k.Kind {
			t.Errorf("New of %s made a %T of type %v", k.Kind, o, *o.Type())
		}
	}
	if len(all) != 26 {
		t.Errorf("%d kinds", len(all))
	}
	for written, want := range map[string]string{"ipool": "IPPool", "networkpolicie": "NetworkPolicy", "bgppeeers": "BGPPeer", "felix": "", "deployment": "", "": ""} {
		if got := SuggestKind(written); got != want {
			t.Errorf("SuggestKind(%q) = %q, want %q", written, got, want)
		}
	}
}

func FuzzDecodeAll(f *testing.F) {
	input, err := os.ReadFile("testdata/calico/input.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(input)
	for _, doc := range bytes.Split(input, []byte("---\n")) {
		f.Add(doc)
	}
	for _, value := range storedResources(f) {
		f.Add([]byte(value))
	}
	f.Add([]byte("apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default, creationTimestamp: 2026-01-31T12:00:00Z}\nspec: {xdpRefreshInterval: 0.1ms, kubeNodePortRanges: [a, 1, '2:3'], failsafeInboundHostPorts: [], istioDSCPMark: AF11, iptablesMarkMask: 0xff}\n"))
	f.Add([]byte("{kind: List, apiVersion: v1, items: [{kind: Tier, apiVersion: projectcalico.org/v3, metadata: {name: a}, spec: {order: -0.0}}]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := DecodeAll("fuzz", data)
		if err != nil && len(err.Error()) == 0 {
			t.Error("an error without words")
		}
		for _, d := range docs {
			stored, err := Encode(d.Object)
			if err != nil {
				t.Fatal(err)
			}
			printed, err := EncodeYAML(d.Object)
			if err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string][]byte{"a.json": stored, "a.yaml": printed} {
				again, err := DecodeAll(name, text)
				if err != nil || len(again) != 1 {
					t.Fatalf("%d documents, %v, from %s", len(again), err, text)
				}
				if !reflect.DeepEqual(again[0].Object, d.Object) {
					t.Fatalf("read %s\nback from %s (-want +got):\n%s", name, text, cmp.Diff(d.Object, again[0].Object))
				}
			}
		}
	})
}

func BenchmarkDecodeAll(b *testing.B) {
	object := `{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"a"},"spec":{"cidr":"10.0.0.0/8","nodeSelector":"all()"}}` + "\n"
	for name, in := range map[string]string{"json": strings.Repeat(object, 1000), "yaml": strings.Repeat("---\n"+object, 1000)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				if docs, err := DecodeAll("x.yaml", []byte(in)); err != nil || len(docs) != 1000 {
					b.Fatal(len(docs), err)
				}
			}
		})
	}
}

func TestPrintedListIsReadAgain(t *testing.T) {
	pools := []*IPPool{
		{TypeMeta: typed("IPPool"), ObjectMeta: ObjectMeta{Name: "a"}, Spec: IPPoolSpec{CIDR: "10.0.0.0/8"}},
		{TypeMeta: typed("IPPool"), ObjectMeta: ObjectMeta{Name: "b"}, Spec: IPPoolSpec{CIDR: "fd00::/64"}},
	}
	text, err := EncodeYAML(NewList("IPPool", "7", pools))
	if err != nil {
		t.Fatal(err)
	}
	docs, err := DecodeAll("-", text)
	if err != nil {
		t.Fatal(err)
	}
	var got []*IPPool
	for _, d := range docs {
		got = append(got, d.Object.(*IPPool))
	}
	if d := cmp.Diff(pools, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestPrintedObjectsAreSafeForATerminal(t *testing.T) {
	var all strings.Builder
	for c := range rune(0x100) {
		all.WriteRune(c)
	}
	all.WriteString("\u2028\u2029\u202e\ufeff")
	o := &IPPool{TypeMeta: typed("IPPool"), ObjectMeta: ObjectMeta{Name: all.String(), Labels: map[string]string{all.String(): "\u009b31m"}}}
	printed, err := EncodeYAML(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range string(printed) {
		if c != '\n' && !unicode.IsPrint(c) && c != '\u00a0' {
			t.Errorf("%U is printed as it is", c)
		}
	}
}

func TestDecodeStoredPart(t *testing.T) {
	o, unread, err := DecodeStoredPart([]byte(`{"kind":"NetworkPolicy","metadata":{"name":"p"},"spec":{"order":"x","selector":"a","later":1,"ingress":[{"action":"Deny","protocol":300}]}}`))
	p, ok := o.(*NetworkPolicy)
	if err != nil || !ok || p.Name != "p" || p.Spec.Selector != "a" || p.Spec.Order == nil || *p.Spec.Order != 0 || p.Spec.Ingress[0].Action != ActionDeny {
		t.Fatalf("%+v, %v", o, err)
	}
	if len(unread) != 2 || unread[0].Path != "spec.order" || unread[1].Path != "spec.ingress[0].protocol" {
		t.Errorf("unread: %v", unread)
	}
	for _, bad := range []string{``, `[]`, `{"kind":"NetworkPolicy"`, `{"kind":"Nothing"}`, `{"kind":1}`, `{}`, `{"kind":"Tier"} {}`} {
		if o, _, err := DecodeStoredPart([]byte(bad)); err == nil {
			t.Errorf("%s: read as %+v", bad, o)
		}
	}
}

// TestKindOfStoredObjects: the kind may stand anywhere, and the last one counts.
func TestKindOfStoredObjects(t *testing.T) {
	for in, want := range map[string]string{
		`{"kind":"Tier","metadata":{"name":"a"}}`:                 "Tier",
		`{"metadata":{"name":"a"},"kind":"Tier"}`:                 "Tier",
		`{"kind":"IPPool","metadata":{"name":"a"},"kind":"Tier"}`: "Tier",
		`{ "kind": "Tier" }`:                                      "Tier",
		`{"kind":"Tier`:                                           "",
		`{"kind":"`:                                               "",
		`{"kind":"Tier","kind":"Nothing"}`:                        "",
	} {
		o, err := DecodeStored([]byte(in))
		if got := ""; err == nil {
			if got = kindOf(o); got != want || o.Type().Kind != want {
				t.Errorf("%s: %s, %s", in, got, o.Type().Kind)
			}
		} else if want != "" {
			t.Errorf("%s: %v", in, err)
		}
	}
}
