package cli

import (
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
		{"kind of patch", []string{"ippool", "pool-v6", "-p", "{}", "-t", "json"}, `--type "json"`},
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
