package archtest

import (
	_ "embed"
	"os"
	"testing"
)

//go:embed exceptions.txt
var exceptions string

// TestHouseRules holds the whole tree to every rule.
func TestHouseRules(t *testing.T) {
	tree, err := Load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	allowed, err := ParseExceptions(exceptions)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, r := range Rules() {
		names[r.Name] = true
		t.Run(r.Name, func(t *testing.T) {
			for _, f := range Filter(r.Name, r.Check(tree), allowed) {
				t.Error(f)
			}
		})
	}
	for _, e := range allowed {
		if !names[e.Rule] {
			t.Errorf("exceptions.txt: there is no rule %q", e.Rule)
		}
	}
}
