package cli

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeShop writes 1,000 policies of five rules each for 250 workloads in 20
// namespaces, and as many assertions, and returns the folder.
func writeShop(b *testing.B) string {
	b.Helper()
	const many = 1000
	r := rand.New(rand.NewPCG(1, 1))
	var policies, test strings.Builder
	for i := range many {
		fmt.Fprintf(&policies, "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p%d, namespace: ns%d}\n"+
			"spec:\n  selector: tier == \"t%d\"\n  order: %d\n  ingress:\n", i, i%20, i%5, i)
		for range 5 {
			fmt.Fprintf(&policies, "  - {action: Allow, protocol: TCP, source: {selector: app == \"app%d\"}, destination: {ports: [%d]}}\n",
				r.IntN(100), 8000+r.IntN(20))
		}
	}
	test.WriteString("apiVersion: brindle.net/v1\nkind: PolicyTest\nmetadata: {name: many}\nspec:\n  workloads:\n")
	for i := range 250 {
		fmt.Fprintf(&test, "  - {name: w%d, namespace: ns%d, labels: {app: app%d, tier: t%d}}\n", i, i%20, i%100, i%5)
	}
	test.WriteString("  assertions:\n")
	for i := range many {
		fmt.Fprintf(&test, "  - {from: w%d, to: w%d, port: 9000, verdict: deny}\n", i%250, (i*7+3)%250)
	}
	dir := b.TempDir()
	for name, text := range map[string]string{"policies.yaml": policies.String(), "test.yaml": test.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

func BenchmarkPolicyTest(b *testing.B) {
	dir := writeShop(b)
	for b.Loop() {
		if status := Run(b.Context(), quietEnv(), []string{"policy", "test", "-f", dir}); status != 0 {
			b.Fatal(status)
		}
	}
}

func BenchmarkExplainFiles(b *testing.B) {
	dir := writeShop(b)
	for b.Loop() {
		if status := Run(b.Context(), quietEnv(), []string{"explain", "-f", dir, "--from", "w1", "--to", "w10:9000"}); status != 1 {
			b.Fatal(status)
		}
	}
}
