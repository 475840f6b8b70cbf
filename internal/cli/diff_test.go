package cli

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	before := w.keys("/")
	pool := "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: pool-vxlan}\nspec: {cidr: 10.20.0.0/16, blockSize: 28, natOutgoing: %s, vxlanMode: Always, nodeSelector: rack == 'r1', allowedUses: [Workload, Tunnel], assignmentMode: Automatic}\n"
	same, other := w.file("same.yaml", fmt.Sprintf(pool, "true")), w.file("other.yaml", fmt.Sprintf(pool, "false")+
		"---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: new.a}\nspec: {tier: new, selector: all()}\n"+
		"---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: new}\nspec: {order: 5}\n")
	if got := w.ok("diff", "-f", same); got != "" {
		t.Errorf("%q", got)
	}
	got := w.run("diff", "-f", other)
	for _, want := range []string{
		"--- stored IPPool(pool-vxlan)\n+++ given  IPPool(pool-vxlan)\n@@ -", "-  natOutgoing: true\n",
		"--- stored Tier(new)\n", "@@ -0,0 +1,", "+  order: 5\n", "--- stored GlobalNetworkPolicy(new.a)\n", "+  - Ingress\n",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("lacks %q:\n%s", want, got.stdout)
		}
	}
	if got.status != 1 || got.stderr != "" || strings.Contains(got.stdout, "resourceVersion") || strings.Contains(got.stdout, "+  uid") {
		t.Errorf("%+v", got)
	}
	if after := w.keys("/"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("something was written: %q, before %q", after, before)
	}
	for _, c := range []struct{ name, doc, want string }{
		{"invalid", "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: x}\nspec: {ordr: 5}\n", "spec.ordr"},
		{"cannot be so", fmt.Sprintf(pool, "true") + "", "spec.cidr"},
	} {
		doc := c.doc
		if c.name == "cannot be so" {
			doc = strings.Replace(doc, "10.20.0.0/16", "10.21.0.0/16", 1)
		}
		if got := w.run("diff", "-f", w.file("x.yaml", doc)); got.status != 2 || got.stdout != "" || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	if got := w.run("diff"); got.status != 2 || !strings.Contains(got.stderr, "no file given") {
		t.Errorf("%+v", got)
	}
}

func TestUnifiedDiff(t *testing.T) {
	for _, c := range []struct{ name, a, b, want string }{
		{"same", "a\nb\n", "a\nb\n", ""},
		{"new", "", "a\nb\n", "@@ -0,0 +1,2 @@\n+a\n+b\n"},
		{"gone", "a\n", "", "@@ -1,1 +0,0 @@\n-a\n"},
		{"one line", "a\nb\nc\n", "a\nx\nc\n", "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n"},
		{"two places", "1\n2\n3\n4\n5\n6\n7\n8\n9\n", "x\n2\n3\n4\n5\n6\n7\n8\ny\n", "@@ -1,4 +1,4 @@\n-1\n+x\n 2\n 3\n 4\n@@ -6,4 +6,4 @@\n 6\n 7\n 8\n-9\n+y\n"},
	} {
		if got := unifiedDiff(c.a, c.b); got != c.want {
			t.Errorf("%s: got\n%swant\n%s", c.name, got, c.want)
		}
	}
}

// The difference of random texts turns the one into the other, and is as long
// as diff(1) finds; a long one is still right.
func TestDiffOfRandomTexts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := func(n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprint(r.IntN(4))
		}
		return out
	}
	for i := range 400 {
		a, b := text(r.IntN(12)), text(r.IntN(12))
		if i == 0 {
			a, b = text(3*maxEdits), strings.Split(strings.Repeat("x ", 3*maxEdits), " ")
		}
		var gotA, gotB []string
		changes := 0
		for _, e := range diffLines(a, b) {
			if e.op != '+' {
				gotA = append(gotA, e.line)
			}
			if e.op != '-' {
				gotB = append(gotB, e.line)
			}
			if e.op != ' ' {
				changes++
			}
		}
		if strings.Join(gotA, ",") != strings.Join(a, ",") || strings.Join(gotB, ",") != strings.Join(b, ",") {
			t.Fatalf("%q and %q came out as %q and %q", a, b, gotA, gotB)
		}
		if least := len(a) + len(b) - 2*common(a, b); i > 0 && changes != least {
			t.Fatalf("%q and %q: %d changes, %d are enough", a, b, changes, least)
		}
	}
}

// common is the length of the longest common subsequence, by the book.
func common(a, b []string) int {
	if len(a) > 100 {
		return 0
	}
	row := make([]int, len(b)+1)
	for _, x := range a {
		before := 0
		for j, y := range b {
			is := max(row[j+1], row[j])
			if x == y {
				is = before + 1
			}
			before, row[j+1] = row[j+1], is
		}
	}
	return row[len(b)]
}
