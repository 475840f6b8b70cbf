package policytest

import (
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
)

var update = flag.Bool("update", false, "write the golden files anew")

// read decodes one text as a file of a cluster.
func read(t *testing.T, text string) []v3.Document {
	t.Helper()
	docs, err := v3.DecodeWith(Kinds(), "shop.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range docs {
		if d.Object.Type().APIVersion == v3.Group {
			v3.Default(d.Object)
		}
		if test, ok := d.Object.(*PolicyTest); ok {
			if wrong := test.Check(); len(wrong) > 0 {
				t.Fatal(wrong)
			}
		}
	}
	return docs
}

func run(t *testing.T, docs []v3.Document) []Result {
	t.Helper()
	c, wrong := FromDocuments(docs)
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	return Run(c, docs)
}

func shop(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestShop(t *testing.T) {
	for _, r := range run(t, read(t, shop(t))) {
		if r.Failed() {
			t.Errorf("%s: %s", r.Title(), r.message())
		}
	}
}

// TestFailures changes one word of each assertion of the shop, and sees that
// it fails, and how it is told.
func TestFailures(t *testing.T) {
	text := strings.NewReplacer("verdict: allow", "verdict: deny", "verdict: deny", "verdict: allow").Replace(shop(t))
	results := run(t, read(t, text))
	for _, r := range results {
		if !r.Failed() {
			t.Errorf("%s: holds, and its contrary too", r.Title())
		}
	}
	golden(t, "failures.txt", []byte(Text(results)))
	junit, err := JUnit(results)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "failures.xml", junit)
	sarif, err := SARIF(results, "v1")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "failures.sarif", sarif)
	summary, err := json.MarshalIndent(Summarize(results), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "failures.json", append(summary, '\n'))
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != string(got) {
		t.Errorf("%s differs (%v); got\n%s", path, err, got)
	}
}

const pair = `
apiVersion: brindle.net/v1
kind: PolicyTest
metadata: {name: t}
spec:
  workloads:
  - {name: a, namespace: x}
  - {name: a, namespace: q}
  - {name: b, namespace: x, addresses: [10.1.1.1]}
  - {name: c, namespace: x, addresses: ["fd00::1"]}
  assertions:
  - %s
`

func TestAssertion(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"holds", "{from: x/a, to: x/b, port: 80, verdict: allow}", ""},
		{"by a profile", "{from: x/a, to: x/b, port: 80, verdict: allow, by: Profile kns.x}", ""},
		{"by a profile's rule", "{from: x/a, to: x/b, port: 80, verdict: allow, by: 'kns.x ingress[0]'}", ""},
		{"by another", "{from: x/a, to: x/b, port: 80, verdict: allow, by: kns.q}", "not by kns.q"},
		{"all but itself", "{from: '*', to: x/b, port: 80, verdict: allow}", ""},
		{"a short name of two", "{from: a, to: b, port: 80, verdict: allow}", `"a" is ambiguous: it is q/a and x/a: give the namespace too`},
		{"a pattern of two", "{from: 'a*', to: b, port: 80, verdict: allow}", ""},
		{"nobody", "{from: x/aa, to: b, port: 80, verdict: allow}", `there is no workload or host "x/aa", and it is no address: did you mean q/a or x/a?`},
		{"no match", "{from: 'z/*', to: b, port: 80, verdict: allow}", `"z/*": no workload is called that`},
		{"an exception", "{from: '*', except: [x/*], to: x/b, port: 80, verdict: allow}", ""},
		{"an exception of nobody", "{from: '*', except: [z*], to: x/b, port: 80, verdict: allow}", `except "z*": no workload is called that`},
		{"an exception leaves none", "{from: 'x/*', except: ['*'], to: x/b, port: 80, verdict: allow}", "no workload is called that"},
		{"no family in common", "{from: x/b, to: x/c, port: 80, verdict: allow}", "there is no connection from x/b to x/c in any address family"},
		{"an address of nobody", "{from: 192.0.2.1, to: x/b, port: 80, verdict: allow}", ""},
		{"between addresses of nobody", "{from: 192.0.2.1, to: 192.0.2.2, port: 80, verdict: deny}", "no policy is asked at that end"},
		{"a ping", "{from: x/a, to: x/b, protocol: ICMP, verdict: allow}", ""},
		{"a protocol by number", "{from: x/a, to: x/b, protocol: 47, verdict: allow}", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			results := run(t, read(t, fmt.Sprintf(pair, c.in)))
			got := results[0].message()
			if len(results) != 1 || c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"no port", "{from: a, to: b, verdict: deny}", `spec.assertions[0].port: must be given (or give protocol: ICMP, or another that has no ports)`},
		{"no port of UDP", "{from: a, to: b, protocol: UDP, verdict: deny}", `spec.assertions[0].port: must be given for this protocol`},
		{"a port of ICMP", "{from: a, to: b, protocol: ICMP, port: 1, verdict: deny}", `spec.assertions[0].port: "1": must not be given: ICMP has no ports`},
		{"a protocol of nobody", "{from: a, to: b, protocol: tcp, port: 1, verdict: deny}", `spec.assertions[0].protocol: "tcp": must be TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or a number`},
		{"no verdict", "{from: a, to: b, port: 1}", `spec.assertions[0].verdict: must be allow or deny`},
		{"a verdict like an action", "{from: a, to: b, port: 1, verdict: Allow}", `spec.assertions[0].verdict: "Allow": must be allow or deny (write it in lower case)`},
		{"nobody", "{to: b, port: 1, verdict: allow}", `spec.assertions[0].from: must be a workload's name, namespace/name, a pattern of these, or an address`},
		{"a bad pattern", "{from: 'a[', to: b, port: 1, verdict: allow}", `spec.assertions[0].from: "a[": must be`},
		{"a bad exception", "{from: a, except: ['a['], to: b, port: 1, verdict: allow}", `spec.assertions[0].except[0]: "a[": must be`},
	} {
		t.Run(c.name, func(t *testing.T) {
			docs, err := v3.DecodeWith(Kinds(), "f.yaml", []byte(fmt.Sprintf(pair, c.in)))
			if err != nil {
				t.Fatal(err)
			}
			if got := docs[0].Object.(*PolicyTest).Check().Error(); !strings.HasPrefix(got, c.want) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	empty := &PolicyTest{Spec: Spec{Workloads: []Workload{
		{Name: "a*"}, {Name: "a", Namespace: "x/y"}, {Name: "b", Addresses: []string{"10.0.0.1/32"}},
		{Name: "c", Ports: []Port{{Name: "http"}, {Name: "x", Port: 1, Protocol: "ICMP"}}},
	}}}
	var got []string
	for _, w := range empty.Check() {
		got = append(got, w.Path)
	}
	want := []string{
		"spec.assertions", "spec.workloads[0].name", "spec.workloads[1].namespace", "spec.workloads[2].addresses[0]",
		"spec.workloads[3].ports[0]", "spec.workloads[3].ports[1].protocol",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// TestKubernetes puts a cluster together from what people keep in Git for
// Kubernetes.
func TestKubernetes(t *testing.T) {
	data, err := os.ReadFile("testdata/kubernetes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	results := run(t, read(t, string(data)))
	for _, r := range results {
		if r.Failed() {
			t.Errorf("%s: %s", r.Title(), r.message())
		}
	}
	if len(results) != 12 {
		t.Errorf("%d assertions", len(results))
	}
}

func TestAddresses(t *testing.T) {
	c, wrong := FromDocuments(read(t, `
{kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: p}, spec: {cidr: 10.9.0.0/16}}
---
kind: PolicyTest
apiVersion: brindle.net/v1
spec:
  workloads: [{name: a, addresses: [10.9.0.1]}, {name: b}, {name: c}]
  assertions: [{from: a, to: b, port: 1, verdict: allow}]
`))
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	var got []string
	for _, name := range []string{"a", "default/b", "c", "10.9.0.3", "192.0.2.1"} {
		ends, err := c.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(ends[0].Name, ends[0].Addrs))
	}
	want := []string{
		"default/a[10.9.0.1]", "default/b[10.9.0.2 fd00:192:168::1]", "default/c[10.9.0.3 fd00:192:168::2]",
		"default/c[10.9.0.3]", "192.0.2.1[192.0.2.1]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestReportsOfNothing(t *testing.T) {
	junit, err := JUnit(nil)
	if err != nil || xml.Unmarshal(junit, &junitSuites{}) != nil {
		t.Errorf("%s, %v", junit, err)
	}
	log, err := SARIF(nil, "")
	if err != nil || !strings.Contains(string(log), `"results": []`) {
		t.Errorf("%s, %v", log, err)
	}
	odd := Result{Document: v3.Document{File: "my tests/a#b.yaml", Object: &PolicyTest{}}, Failures: []Failure{{Reason: "why"}}}
	if log, err = SARIF([]Result{odd}, ""); err != nil || !strings.Contains(string(log), `"uri": "my%20tests/a%23b.yaml"`) {
		t.Errorf("the place is no URI: %s, %v", log, err)
	}
	if got := Text(nil); got != "0 of 0 assertions hold, 0 connections judged\n" {
		t.Errorf("%q", got)
	}
}
