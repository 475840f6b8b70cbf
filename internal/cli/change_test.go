package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestPatch(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []string
		want string // in the patched pool as JSON
	}{
		{"JSON", []string{"ippool", "pool-vxlan", "-p", `{"spec":{"natOutgoing":false}}`}, `"vxlanMode": "Always"`},
		{"YAML", []string{"ippool/pool-vxlan", "-p", "spec: {blockSize: 28, nodeSelector: all()}"}, `"nodeSelector": "all()"`},
		{"label", []string{"ippool", "pool-vxlan", "-p", `{"metadata":{"labels":{"a":"b"}}}`, "-t", "merge"}, `"a": "b"`},
		{"operations", []string{"ippool", "pool-vxlan", "-t", "json", "-p", `[{"op":"remove","path":"/spec/natOutgoing"},{"op":"replace","path":"/spec/nodeSelector","value":"all()"}]`}, `"nodeSelector": "all()"`},
		{"directive", []string{"ippool", "pool-vxlan", "--type", "strategic", "-p", `{"metadata":{"labels":{"$patch":"replace","a":"b"}},"spec":{"natOutgoing":null}}`}, `"a": "b"`},
		{"null removes", []string{"ippool", "pool-vxlan", "-p", `{"spec":{"natOutgoing":null}}`}, `"vxlanMode": "Always"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.loadRecording()
			if got := w.ok(append([]string{"patch"}, c.in...)...); got != "Successfully patched 1 'IPPool' resource\n" {
				t.Errorf("%q", got)
			}
			got := w.ok(line("get pool pool-vxlan -o json")...)
			if !strings.Contains(got, c.want) {
				t.Errorf("%s lacks %s", got, c.want)
			}
			if strings.Contains(c.in[len(c.in)-1], "natOutgoing") && strings.Contains(got, "natOutgoing") {
				t.Errorf("natOutgoing is still there: %s", got)
			}
		})
	}
	w := newWorld(t)
	w.loadRecording()
	w.ok("patch", "networkset", "office", "--patch-file", w.file("p", "spec: {nets: [192.0.2.0/24]}"))
	if got := w.ok(line("get netset office -n default -o wide")...); !strings.Contains(got, "192.0.2.0/24\n") {
		t.Errorf("%q", got)
	}
}

func TestPatchRefuses(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	for _, c := range []struct {
		name string
		in   []string
		want string
	}{
		{"no kind", nil, "requires at least 1 arg"},
		{"no name", []string{"ippool", "-p", "{}"}, "one name is needed, not 0"},
		{"two names", []string{"ippool", "a", "b", "-p", "{}"}, "one name is needed, not 2"},
		{"no patch", []string{"ippool", "pool-v6"}, "no patch given"},
		{"two patches", []string{"ippool", "pool-v6", "-p", "{}", "--patch-file", "x"}, "not both"},
		{"no file", []string{"ippool", "pool-v6", "--patch-file", "/nonexistent"}, "/nonexistent"},
		{"no object", []string{"ippool", "pool-v6", "-p", "[1]"}, "must be an object"},
		{"no YAML", []string{"ippool", "pool-v6", "-p", "\t{"}, "neither JSON nor YAML"},
		{"kind of patch", []string{"ippool", "pool-v6", "-p", "{}", "-t", "apply"}, `--type "apply"`},
		{"no operations", []string{"ippool", "pool-v6", "-p", "{}", "-t", "json"}, "must be a list of operations"},
		{"unknown operation", []string{"ippool", "pool-v6", "-p", `[{"op":"set","path":"/spec"}]`, "-t", "json"}, `operation 1: op "set"`},
		{"operation without value", []string{"ippool", "pool-v6", "-p", `[{"op":"add","path":"/spec/cidr"}]`, "-t", "json"}, "add needs a value"},
		{"operation without path", []string{"ippool", "pool-v6", "-p", `[{"op":"remove"}]`, "-t", "json"}, "remove needs a path"},
		{"operation without from", []string{"ippool", "pool-v6", "-p", `[{"op":"move","path":"/a"}]`, "-t", "json"}, "move needs a from"},
		{"a test that fails", []string{"ippool", "pool-v6", "-p", `[{"op":"test","path":"/spec/ipipMode","value":"Always"}]`, "-t", "json"}, `test /spec/ipipMode: it is "Never"`},
		{"nothing there", []string{"ippool", "pool-v6", "-p", `[{"op":"replace","path":"/spec/nosuch","value":1}]`, "-t", "json"}, "replace /spec/nosuch: there is nothing at this path"},
		{"field that operations make", []string{"ippool", "pool-v6", "-p", `[{"op":"add","path":"/spec/nat","value":true}]`, "-t", "json"}, "spec.nat"},
		{"the whole object", []string{"ippool", "pool-v6", "-p", `[{"op":"remove","path":""}]`, "-t", "json"}, "the whole object cannot be removed"},
		{"unknown directive", []string{"ippool", "pool-v6", "-p", `{"spec":{"$patch":"swap"}}`}, "spec: $patch: swap: must be replace, merge or delete"},
		{"directive in a merge patch", []string{"ippool", "pool-v6", "-p", `{"spec":{"$patch":"replace"}}`, "-t", "merge"}, "unknown field"},
		{"unknown field", []string{"ippool", "pool-v6", "-p", `{"spec":{"nat":true}}`}, "spec.nat"},
		{"bad value", []string{"ippool", "pool-v6", "-p", `{"spec":{"blockSize":99}}`}, "spec.blockSize"},
		{"another kind", []string{"ippool", "pool-v6", "-p", `{"kind":"Tier"}`}, "failed to patch 'IPPool' resource"},
		{"another name", []string{"ippool", "pool-v6", "-p", `{"metadata":{"name":"other"}}`}, `metadata.name: "other": a patch cannot change it: it is "pool-v6"`},
		{"another namespace", []string{"networkset", "office", "-p", `{"metadata":{"namespace":"other"}}`}, `metadata.namespace: "other"`},
		{"missing", []string{"ippool", "nosuch", "-p", "{}"}, "failed to patch 'IPPool' resource: resource does not exist: IPPool(nosuch)\n"},
		{"written by Brindle", []string{"clusterinfo", "default", "-p", "{}"}, "not by users"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			w.fails(c.want, append([]string{"patch"}, c.in...)...)
		})
	}
}

func TestLabel(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	for _, c := range []struct{ in, want string }{
		{"label nodes n1 pod=7", "Successfully set label pod on nodes n1\n"},
		{"label nodes n1 pod=7", "Successfully set label pod on nodes n1\n"},
		{"label nodes n1 pod=8 --overwrite", "Successfully updated label pod on nodes n1\n"},
		{"label node/n1 a=b c=", "Successfully set label a on node n1\nSuccessfully set label c on node n1\n"},
		{"label nodes n1 a- c-", "Successfully removed label a on nodes n1\nSuccessfully removed label c on nodes n1\n"},
		{"label nodes n1 pod --remove", "Successfully removed label pod on nodes n1\n"},
		{"label networkset office -n default x=y", "Successfully set label x on networkset office\n"},
	} {
		if got := w.ok(line(c.in)...); got != c.want {
			t.Errorf("%s: %q, want %q", c.in, got, c.want)
		}
	}
	for _, c := range []struct{ in, want string }{
		{"label nodes n1 rack=r9", `label "rack" has the value "r1" already`},
		{"label nodes n1 nosuch-", `no label "nosuch" to remove`},
		{"label nodes n1 a=b --remove", "give keys only"},
		{"label nodes n1 =b", "must be KEY=VALUE"},
		{"label nodes n1 a", "must be KEY=VALUE"},
		{"label nodes n1 -- -", "must be KEY=VALUE"},
		{"label nodes n1", "no label given"},
		{"label nodes", "requires at least 2 arg"},
		{"label nodes n9 a=b", "failed to label 'Node' resource: resource does not exist: Node(n9)\n"},
		{"label nodes n1 A_!=b", "metadata.labels"},
	} {
		w.fails(c.want, line(c.in)...)
	}
}

// The cases of RFC 6902, appendix A, that fit into a table.
func TestJSONPatch(t *testing.T) {
	for _, c := range []struct{ name, doc, patch, want string }{
		{"A.1 add a member", `{"foo":"bar"}`, `[{"op":"add","path":"/baz","value":"qux"}]`, `{"baz":"qux","foo":"bar"}`},
		{"A.2 add an element", `{"foo":["bar","baz"]}`, `[{"op":"add","path":"/foo/1","value":"qux"}]`, `{"foo":["bar","qux","baz"]}`},
		{"A.3 remove a member", `{"baz":"qux","foo":"bar"}`, `[{"op":"remove","path":"/baz"}]`, `{"foo":"bar"}`},
		{"A.4 remove an element", `{"foo":["bar","qux","baz"]}`, `[{"op":"remove","path":"/foo/1"}]`, `{"foo":["bar","baz"]}`},
		{"A.5 replace", `{"baz":"qux","foo":"bar"}`, `[{"op":"replace","path":"/baz","value":"boo"}]`, `{"baz":"boo","foo":"bar"}`},
		{"A.6 move", `{"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}`, `[{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]`, `{"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}}`},
		{"A.7 move an element", `{"foo":["all","grass","cows","eat"]}`, `[{"op":"move","from":"/foo/1","path":"/foo/3"}]`, `{"foo":["all","cows","eat","grass"]}`},
		{"A.8 test", `{"baz":"qux","foo":["a",2,"c"]}`, `[{"op":"test","path":"/baz","value":"qux"},{"op":"test","path":"/foo/1","value":2}]`, `{"baz":"qux","foo":["a",2,"c"]}`},
		{"A.9 test fails", `{"baz":"qux"}`, `[{"op":"test","path":"/baz","value":"bar"}]`, "error"},
		{"A.10 add an object", `{"foo":"bar"}`, `[{"op":"add","path":"/child","value":{"grandchild":{}}}]`, `{"child":{"grandchild":{}},"foo":"bar"}`},
		{"A.11 unknown members are ignored", `{"foo":"bar"}`, `[{"op":"add","path":"/baz","value":"qux","xyz":123}]`, `{"baz":"qux","foo":"bar"}`},
		{"A.12 no parent", `{"foo":"bar"}`, `[{"op":"add","path":"/baz/bat","value":"qux"}]`, "error"},
		{"A.14 escapes", `{"/":9,"~1":10}`, `[{"op":"test","path":"/~01","value":10}]`, `{"/":9,"~1":10}`},
		{"A.15 number and text", `{"/":9,"~1":10}`, `[{"op":"test","path":"/~01","value":"10"}]`, "error"},
		{"A.16 append", `{"foo":["bar"]}`, `[{"op":"add","path":"/foo/-","value":["abc","def"]}]`, `{"foo":["bar",["abc","def"]]}`},
		{"copy is not shared", `{"a":{"b":1}}`, `[{"op":"copy","from":"/a","path":"/c"},{"op":"replace","path":"/c/b","value":2}]`, `{"a":{"b":1},"c":{"b":2}}`},
		{"into itself", `{"a":{"b":1}}`, `[{"op":"move","from":"/a","path":"/a/b"}]`, "error"},
		{"behind the end", `{"a":[1]}`, `[{"op":"add","path":"/a/2","value":2}]`, "error"},
		{"place with a zero", `{"a":[1,2]}`, `[{"op":"remove","path":"/a/01"}]`, "error"},
		{"null is a value", `{}`, `[{"op":"add","path":"/a","value":null}]`, `{"a":null}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var doc any
			if err := json.Unmarshal([]byte(c.doc), &doc); err != nil {
				t.Fatal(err)
			}
			ops, err := parseJSONPatch([]byte(c.patch))
			if err != nil {
				t.Fatal(err)
			}
			got := "error"
			if doc, err = applyJSONPatch(doc, ops); err == nil {
				text, _ := json.Marshal(doc)
				got = string(text)
			}
			if got != c.want {
				t.Errorf("got %s (%v), want %s", got, err, c.want)
			}
		})
	}
}
