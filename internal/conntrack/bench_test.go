package conntrack

import (
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
)

// BenchmarkList and BenchmarkGlance read a table of one connection: what is left is the kernel's
// walk through its buckets, which all namespaces share.
func BenchmarkList(b *testing.B) { benchmark(b, (*Table).List) }

func BenchmarkGlance(b *testing.B) { benchmark(b, (*Table).Glance) }

func benchmark(b *testing.B, read func(*Table) ([]Entry, error)) {
	b.Helper()
	testenv.NeedRoot(b)
	ns := testenv.NetNS(b)
	testenv.Run(b, ns, "nft", "table inet test { chain in { type filter hook input priority 0; ct state new counter; }; }")
	testenv.Run(b, ns, "ping", "-c", "1", "127.0.0.1")
	t, err := Open(ns)
	if err != nil {
		b.Fatal(err)
	}
	defer t.Close()
	for b.Loop() {
		if all, err := read(t); err != nil || len(all) != 1 {
			b.Fatal(err)
		}
	}
}
