package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/store"
)

// Policies of older releases get their names, and stay otherwise as they were.
func TestPolicyNames(t *testing.T) {
	for name, oneByOne := range map[string]bool{"in one moment": false, "one key at a time": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.loadRecording()
			if oneByOne {
				w.db = struct{ store.Driver }{w.db}
			}
			for key, value := range map[string]string{
				"networkpolicies/shop/default.a":          `{"kind":"NetworkPolicy","metadata":{"name":"default.a","namespace":"shop","uid":"u"},"spec":{"order":9007199254740993,"new":1}}`,
				"globalnetworkpolicies/default.b":         `{"metadata":{"annotations":{"x":"y"}},"spec":{"tier":"default"}}`,
				"stagedglobalnetworkpolicies/default.own": `{"metadata":{"annotations":{"projectcalico.org/metadata":"{\"name\":\"default.own\"}"}},"spec":{"tier":"default"}}`,
				"globalnetworkpolicies/default.other":     `{"metadata":{},"spec":{"tier":"security"}}`,
				"networkpolicies/default/default.bad":     `{`,
				"networkpolicies/default/default.twice":   `{"metadata":{}}`, "networkpolicies/default/twice": `{"metadata":{}}`,
			} {
				if _, err := w.db.Create(t.Context(), store.ResourceRoot+key, []byte(value)); err != nil {
					t.Fatal(err)
				}
			}
			got := w.run(line("datastore migrate-policy-names")...)
			if got.status != 1 || got.stdout != "NetworkPolicy(shop/default.a): renamed to a\nGlobalNetworkPolicy(default.b): renamed to b\nRenamed 2 policies.\n" ||
				!strings.Contains(got.stderr, "default/default.bad") || !strings.Contains(got.stderr, "rename NetworkPolicy(default/default.twice): there is one of the new name too") {
				t.Errorf("%+v", got)
			}
			if keys := strings.Join(w.keys(store.ResourceRoot+"networkpolicies/"), " "); keys != "default/allow-web default/default.bad default/default.twice default/twice shop/a" {
				t.Errorf("%s", keys)
			}
			if keys := strings.Join(w.keys(store.ResourceRoot+"globalnetworkpolicies/"), " "); keys != "b default.other security.block-bad" {
				t.Errorf("%s", keys)
			}
			kv, err := w.db.Get(t.Context(), store.ResourceRoot+"networkpolicies/shop/a")
			if want := `{"kind":"NetworkPolicy","metadata":{"annotations":{"projectcalico.org/metadata":"{\"name\":\"a\"}"},"name":"a","namespace":"shop","uid":"u"},"spec":{"new":1,"order":9007199254740993}}`; err != nil || string(kv.Value) != want || !json.Valid(kv.Value) {
				t.Errorf("%s, %v", kv.Value, err)
			}
		})
	}
}
