package v3

import (
	"strings"
	"testing"
)

// note is a kind that only this test knows, pod one of which it knows a part.
type note struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata"`
	Text       string `json:"text"`
}

type pod struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata"`
	Spec       podSpec `json:"spec"`
}

func (*pod) Partial() {}

type podSpec struct {
	Node string `json:"nodeName"`
}

func (*podSpec) Partial() {}

func TestDecodeWith(t *testing.T) {
	extra := []ExtraKind{
		{"Note", "example.org/v1", func() Object { return &note{} }},
		{"Pod", "v1", func() Object { return &pod{} }},
		{"NetworkPolicy", "networking.k8s.io/v1", func() Object { return &note{} }},
	}
	for _, c := range []struct{ name, in, want string }{
		{"an extra kind", "kind: Note\napiVersion: example.org/v1\nmetadata: {name: a}\ntext: x\n", ""},
		{"it is strict", "kind: Note\napiVersion: example.org/v1\nmetadata: {name: a}\ntxt: x\n", `f.yaml: document 1: Note a: txt: unknown field (did you mean "text"?)`},
		{"a partial kind", "kind: Pod\napiVersion: v1\nmetadata: {name: a}\nspec: {nodeName: node, containers: [{image: x}]}\nstatus: {}\n", ""},
		{"what it knows is strict", "kind: Pod\napiVersion: v1\nmetadata: {name: a}\nspec: {nodeName: 5}\n", `f.yaml: document 1: Pod a: spec.nodeName: "5": must be text: put it in quotes`},
		{"the wrong version", "kind: Note\napiVersion: example.org/v2\nmetadata: {name: a}\n", `f.yaml: document 1: Note a: apiVersion: "example.org/v2": must be example.org/v1`},
		{"no version", "kind: Note\nmetadata: {name: a}\n", `f.yaml: document 1: Note a: apiVersion: must be example.org/v1`},
		{"a name that two APIs have", "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: a}\n", ""},
		{"ours of that name", "kind: NetworkPolicy\napiVersion: projectcalico.org/v3\nmetadata: {name: a}\nspec: {types: [Egress]}\n", ""},
		{"neither's version", "kind: NetworkPolicy\napiVersion: v1\nmetadata: {name: a}\n", `apiVersion: "v1": must be projectcalico.org/v3 or networking.k8s.io/v1`},
		{"in a list", "kind: List\napiVersion: v1\nitems:\n- {kind: Pod, apiVersion: v1, metadata: {name: a}}\n", ""},
		{"JSON", `{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}}`, ""},
		{"not of this API", "kind: Secret\napiVersion: v1\nmetadata: {name: a}\n", `kind: "Secret": unknown kind`},
	} {
		t.Run(c.name, func(t *testing.T) {
			docs, err := DecodeWith(extra, "f.yaml", []byte(c.in))
			if c.want == "" {
				if err != nil || len(docs) != 1 || docs[0].Object.Meta().Name != "a" {
					t.Errorf("got %v, %v", docs, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}
