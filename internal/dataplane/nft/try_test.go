package nft

import (
	"testing"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// Whatever the driver needs is there on every kernel that the tests run on.
// Rules are asked for in tables of both families at once.
func TestTry(t *testing.T) {
	ns := testenv.NetNS(t)
	got, err := Try(ns)
	if err != nil || len(got) < 15 {
		t.Fatalf("%v: %+v", err, got)
	}
	for _, f := range got {
		if f.Err != nil && f.Name != FeatureFlowtable { // which nothing needs
			t.Errorf("%s: %v", f.Name, f.Err)
		}
	}
	left, err := Chains(ns)
	if err != nil || len(left) > 0 {
		t.Errorf("%v: left behind: %+v", err, left)
	}
	home, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if _, err := Try(home); err == nil {
		t.Error("it tried in a namespace that it was not made for")
	}
	if _, err := Try(nil); err == nil {
		t.Error("it tried in the thread's own namespace")
	}
}

// Chains at hooks are told whoever made them.
func TestChains(t *testing.T) {
	ns := testenv.NetNS(t)
	nft := testenv.NeedProgram(t, "nft")
	for _, cmd := range []string{
		"add table ip filter", "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
		"add chain ip filter DOCKER-USER", "add table inet firewalld", "add chain inet firewalld filter_INPUT { type filter hook input priority 10; }",
	} {
		testenv.Run(t, ns, nft, cmd)
	}
	got, err := Chains(ns)
	if err != nil {
		t.Fatal(err)
	}
	want := []Chain{
		{Family: "inet", Table: "firewalld", Name: "filter_INPUT", Hook: "input", Priority: 10},
		{Family: "ip", Table: "filter", Name: "DOCKER-USER"},
		{Family: "ip", Table: "filter", Name: "FORWARD", Hook: "forward", Drops: true},
	}
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}
