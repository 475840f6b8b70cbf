package ipam

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/brindle-net/brindle/internal/store/mem"
)

// BenchmarkAssignDurable has eight hosts take addresses of one pool, one
// address and handle per call, and give them back.
func BenchmarkAssignDurable(b *testing.B) {
	const hosts = 8
	w := newWorld(b, pool("p", "10.0.0.0/12", 26))
	w.db = &counting{Driver: mem.New()}
	managers := make([]*Manager, hosts)
	for i := range managers {
		managers[i] = w.manager()
	}
	var next, calls atomic.Int64
	b.SetParallelism(hosts)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		id := next.Add(1)
		m, host := managers[id%hosts], fmt.Sprint("n", id%hosts)
		for pb.Next() {
			handle := fmt.Sprint("net.", calls.Add(1))
			if _, err := w.assign(m, host, handle, 1, 0); err != nil {
				b.Error(err)
				return
			}
			if err := m.ReleaseByHandle(b.Context(), handle); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(w.db.writes)/float64(b.N), "writes/op")
}
